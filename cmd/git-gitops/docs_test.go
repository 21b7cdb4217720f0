//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http/cgi"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// page is one file of the documentation: README.md and docs/*.md, relative to the root of this
// repository.
type page struct {
	name   string
	lines  []string
	blocks []block
	script []string // what a reader would run, each command on the line that it has in the page
	prose  []string // the lines without the fenced blocks
	faults []string
}

// block is a fenced block.
type block struct {
	line int // of the opening fence, the first being 1
	tag  string
	text string
}

// dataTags are the fenced blocks that show something and are no commands.
var dataTags = []string{"text", "yaml", "json", "make", "mermaid", "diff", "ini", "conf", "toml", "groovy", "dockerfile"}

func pages(t *testing.T) []*page {
	t.Helper()
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	var all []*page
	for _, name := range append([]string{"../../README.md"}, names...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, readPage(strings.TrimPrefix(filepath.ToSlash(name), "../../"), string(text)))
	}
	return all
}

// readPage finds the blocks of a page, and the script that its bash blocks and the comments
// "<!-- test: … -->" make. The bash block that follows a comment "<!-- not run: why -->" is no part
// of it.
func readPage(name, text string) *page {
	p := &page{name: name, lines: strings.Split(text, "\n")}
	p.script, p.prose = make([]string, len(p.lines)), slices.Clone(p.lines)
	fault := func(line int, format string, args ...any) {
		p.faults = append(p.faults, fmt.Sprintf("%s:%d: ", name, line)+fmt.Sprintf(format, args...))
	}
	skip := 0 // the line of a "not run" whose block is still to come
	for i := 0; i < len(p.lines); i++ {
		line := strings.TrimSpace(p.lines[i])
		if after, ok := strings.CutPrefix(line, "<!-- not run:"); ok {
			if why, closed := strings.CutSuffix(after, "-->"); !closed || strings.TrimSpace(why) == "" {
				fault(i+1, "a block that is not run needs a reason, on one line")
			}
			skip = i + 1
			continue
		}
		if after, ok := strings.CutPrefix(line, "<!-- test:"); ok {
			start := i
			for !strings.Contains(after, "-->") && i+1 < len(p.lines) {
				p.script[i] = after
				i++
				after = p.lines[i]
			}
			commands, _, closed := strings.Cut(after, "-->")
			if p.script[i] = commands; !closed {
				fault(start+1, "the comment does not end")
			}
			for j := start; j <= i; j++ {
				p.prose[j] = ""
			}
			continue
		}
		fence := line[:len(line)-len(strings.TrimLeft(line, "`~"))]
		if len(fence) < 3 {
			if skip > 0 && line != "" {
				fault(skip, "no bash block follows")
				skip = 0
			}
			continue
		}
		b := block{line: i + 1, tag: strings.TrimSpace(line[len(fence):])}
		indent := p.lines[i][:strings.Index(p.lines[i], fence)]
		p.prose[i] = ""
		for i++; i < len(p.lines) && strings.TrimSpace(p.lines[i]) != fence; i++ {
			p.prose[i] = ""
			text := strings.TrimPrefix(p.lines[i], indent)
			if b.text += text + "\n"; b.tag == "bash" && skip == 0 {
				p.script[i] = text
			}
		}
		if i == len(p.lines) {
			fault(b.line, "the block does not end")
		} else {
			p.prose[i] = ""
		}
		switch {
		case b.tag == "bash":
			skip = 0
		case skip > 0:
			fault(skip, "no bash block follows")
			skip = 0
		case !slices.Contains(dataTags, b.tag):
			fault(b.line, "the tag %q is none of bash, %s", b.tag, strings.Join(dataTags, ", "))
		}
		if err := readable(b); err != nil {
			fault(b.line, "%v", err)
		}
		p.blocks = append(p.blocks, b)
	}
	for i, line := range p.script {
		if early.MatchString(line) {
			fault(i+1, "with pipefail a grep -q, which does not read to the end, fails the command before it now and then: say grep … >/dev/null")
		}
	}
	return p
}

var early = regexp.MustCompile(`\| *grep( .*)? -[a-zA-Z]*q`)

// readable reads what has a grammar.
func readable(b block) error {
	switch b.tag {
	case "json": // one value or several
		for d := json.NewDecoder(strings.NewReader(b.text)); ; {
			var value any
			if err := d.Decode(&value); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	case "yaml":
		for d := yaml.NewDecoder(strings.NewReader(b.text)); ; {
			var value any
			if err := d.Decode(&value); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// docsWorld is what the commands of a page can count on: an empty working folder, a Redis that
// REDIS_HOST and REDIS_PORT name, git-gitops on PATH, and the bare repository $REPO, whose branch
// main has a commit with some YAML.
func docsWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w = w.with("GITOPS_LOCK_SESSION", "GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE",
		"REPO="+w.path("repository.git"), "TMPDIR="+w.path("tmp"), "SHELL=/bin/bash")
	if err := errors.Join(os.Mkdir(w.path("work"), 0o755), os.Mkdir(w.path("tmp"), 0o755)); err != nil {
		t.Fatal(err)
	}
	w.must(".", `git config --global user.name Pipeline && git config --global user.email pipeline@example.com
		git init -q --bare "$REPO" && git init -q seed && mkdir -p seed/acct1/cluster1/inst1 && cd seed || exit
		printf 'name: app\nreplicas: 1\n' >acct1/cluster1/inst1/app.yaml
		printf 'name: database\nversion: "1.0"\n' >acct1/cluster1/inst1/database.yaml
		git add . && git commit -qm 'Add an instance' && git push -q "$REPO" main && cd .. && rm -rf seed`)
	return w
}

// TestDocs runs each page of the documentation as one bash.
func TestDocs(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, fault := range p.faults {
				t.Error(fault)
			}
			w := docsWorld(t)
			if p.name == "docs/server.md" {
				w = servedDocs(w, p)
			}
			if r, ran := runPage(w, p); !ran {
				t.Errorf("%s", r)
			}
		})
	}
}

// servedDocs serves $REPO over ssh and HTTP, as $SSH_URL and $HTTPS_URL. sshd reads the page's own
// authorized_keys, and git http-backend has the environment that the page's configuration of Apache
// gives it.
func servedDocs(w *world, p *page) *world {
	w.t.Helper()
	w.must(".", `mkdir -p srv/org home/.ssh && ln -s "$REPO" srv/org/repo.git`)
	backend := &cgi.Handler{
		Path: filepath.Join(w.must(".", "git --exec-path"), "git-http-backend"), Root: "/git",
		Env: []string{"REMOTE_USER=git", "PATH=" + w.env["PATH"], "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"},
	}
	here := map[string]string{"GIT_PROJECT_ROOT": w.path("srv"), "REDIS_HOST": w.env["REDIS_HOST"], "REDIS_PORT": w.env["REDIS_PORT"]}
	for _, b := range p.blocks {
		for line := range strings.Lines(b.text) {
			if f := strings.Fields(line); b.tag == "conf" && len(f) > 1 && f[0] == "SetEnv" {
				backend.Env = append(backend.Env, f[1]+"="+here[f[1]])
			}
		}
	}
	w = overSSH(behindPassword(w, backend))
	w.must(".", ": >ssh/authorized_keys && ln -s ../../ssh/authorized_keys home/.ssh/authorized_keys")
	return w.with("SSH_URL=ssh://git@127.0.0.1"+w.path("srv"), "HTTPS_URL=https://git:"+pat+"@"+w.env["HTTPS"]+"/git")
}

// runPage runs the commands of a page and reports whether all of them have succeeded. On stderr is
// the line of one that has not.
func runPage(w *world, p *page) (result, bool) {
	w.t.Helper()
	script := slices.Clone(p.script)
	// Lines that are no commands are left empty, so that bash counts as the reader does. The first
	// is the page's title.
	script[0] = fmt.Sprintf(`set -eE -o pipefail; trap 'echo "%s:$LINENO: this has failed" >&2' ERR`, p.name)
	script = append(script, `: >"$HOME/end"`)
	path := w.write("home/page/"+p.name, strings.Join(script, "\n"))
	r := w.run("work", "bash", path)
	return r, r.code == 0 && w.exists("home/end")
}

// TestDocs_detects: a page that is wrong is found, with its line.
func TestDocs_detects(t *testing.T) {
	t.Parallel()
	const fence = "```"
	for _, tc := range []struct{ name, text, fault, says string }{
		{"all is well", "# x\n<!-- test: a=1\nb=2 -->\n" + fence + "bash\ntest $a$b = 12\n" + fence + "\n<!-- not run: no -->\n\n" + fence + "bash\nfalse\n" + fence + "\n", "", ""},
		{"a command that fails", "# x\n\n" + fence + "bash\ntrue\nfalse\n" + fence + "\n", "", "x.md:5: "},
		{"one in a pipe", "# x\n" + fence + "bash\nfalse | true\n" + fence + "\n", "", "x.md:3: "},
		{"one that is not there", "# x\n" + fence + "bash\nno-such-command\n" + fence + "\n", "", "line 3"},
		{"an end too early", "# x\n" + fence + "bash\nexit 0\n" + fence + "\n", "", "exit code 0"},
		{"a hidden command that fails", "# x\n<!-- test: true\nfalse -->\n", "", "x.md:3: "},
		{"no tag", "# x\n" + fence + "\nx\n" + fence + "\n", `x.md:2: the tag ""`, ""},
		{"another shell", "# x\n~~~ sh\nx\n~~~\n", `x.md:2: the tag "sh"`, ""},
		{"not run without a reason", "# x\n<!-- not run: -->\n" + fence + "bash\nfalse\n" + fence + "\n", "x.md:2: a block", ""},
		{"nothing that is not run", "# x\n<!-- not run: no -->\ntext\n" + fence + "bash\ntrue\n" + fence + "\n", "x.md:2: no bash block", ""},
		{"a pipe that is cut", "# x\n" + fence + "bash\necho x | grep -iq x\n" + fence + "\n", "x.md:3: with pipefail", ""},
		{"no end", "# x\n" + fence + "text\n", "x.md:2: the block does not end", ""},
		{"YAML", "# x\n" + fence + "yaml\na: [\n" + fence + "\n", "x.md:2: ", ""},
		{"JSON", "# x\n" + fence + "json\n{\"a\":1}\n{\"a\":}\n" + fence + "\n", "x.md:2: ", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := readPage("x.md", tc.text)
			if got := strings.Join(p.faults, "\n"); tc.fault == "" && got != "" || !strings.HasPrefix(got, tc.fault) {
				t.Errorf("faults: %q, want %q", got, tc.fault)
			}
			if tc.fault != "" {
				return
			}
			w := &world{t: t, dir: t.TempDir(), env: map[string]string{"PATH": os.Getenv("PATH")}}
			w.env["HOME"] = w.path("home")
			w.write("work/x", "")
			r, ran := runPage(w, p)
			if ran != (tc.says == "") || !strings.Contains(r.String(), tc.says) {
				t.Errorf("ran: %v, want %q in %s", ran, tc.says, r)
			}
		})
	}
}

var (
	linked = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code   = regexp.MustCompile("`[^`]*`")
)

// TestDocs_links: every link to a file of this repository, or to a heading, leads somewhere.
func TestDocs_links(t *testing.T) {
	t.Parallel()
	all := map[string]*page{}
	for _, p := range pages(t) {
		all[p.name] = p
	}
	links := 0
	for _, p := range all {
		for i, line := range p.prose {
			for _, m := range linked.FindAllStringSubmatch(code.ReplaceAllString(line, ""), -1) {
				if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
					continue
				}
				links++
				path, anchor, _ := strings.Cut(m[1], "#")
				to := p.name
				if path != "" {
					to = filepath.ToSlash(filepath.Join(filepath.Dir(p.name), path))
				}
				if _, err := os.Stat(filepath.Join("../..", to)); err != nil {
					t.Errorf("%s:%d: %v", p.name, i+1, err)
				} else if anchor != "" && (all[to] == nil || !slices.Contains(all[to].anchors(), anchor)) {
					t.Errorf("%s:%d: %s has no heading #%s", p.name, i+1, to, anchor)
				}
			}
		}
	}
	if links < 10 {
		t.Errorf("only %d links were found", links)
	}
}

// anchors are the headings of a page as links name them: what GitHub makes of a heading.
func (p *page) anchors() []string {
	var all []string
	for _, line := range p.prose {
		text := strings.TrimLeft(line, "#")
		if n := len(line) - len(text); n == 0 || n > 6 || !strings.HasPrefix(text, " ") {
			continue
		}
		var b bytes.Buffer
		for _, r := range strings.ToLower(strings.TrimSpace(text)) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				b.WriteRune(r)
			}
		}
		name := b.String()
		for n := 1; slices.Contains(all, name); n++ {
			name = fmt.Sprintf("%s-%d", b.String(), n)
		}
		all = append(all, name)
	}
	return all
}

// literal is a string in the sources, cut at what is filled in when it is printed.
type literal struct {
	place   string
	parts   []string
	message bool // it is an error or a warning, or the beginning of one
}

var verb = regexp.MustCompile(`%[-+# 0-9.*]*[a-zA-Z]`)

// literals are the strings of all packages that speak to people.
func literals(t *testing.T) []literal {
	t.Helper()
	var all []literal
	files, err := filepath.Glob("../../internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../../internal/*/*/*.go", "../../shim/*.go", "../../hooks/*.go"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/redistest/") {
			continue
		}
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		messages := map[*ast.BasicLit]bool{}
		within := func(n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				if s, ok := n.(*ast.BasicLit); ok {
					messages[s] = true
				}
				return true
			})
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr: // Warn("…")
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Warn" {
					within(n.Args[0])
				}
			case *ast.KeyValueExpr: // Message{What: …}, adminError{what: …}
				if key, ok := n.Key.(*ast.Ident); ok && strings.EqualFold(key.Name, "what") {
					within(n.Value)
				}
			case *ast.FuncDecl: // of an error's text
				if n.Recv != nil && (n.Name.Name == "Error" || n.Name.Name == "Reason") {
					within(n.Body)
				}
			case *ast.ValueSpec: // var ErrSomething = errors.New("…")
				if strings.HasPrefix(n.Names[0].Name, "Err") && len(n.Values) > 0 {
					within(n.Values[0])
				}
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
					all = append(all, literal{positions.Position(n.Pos()).String(), verb.Split(text, -1), messages[n]})
				}
			}
			return true
		})
	}
	script, err := os.ReadFile("../../hooks/scripts/pre-push")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(script)) {
		all = append(all, literal{"hooks/scripts/pre-push", []string{line}, false})
	}
	return all
}

// says reports whether a part of a message is in the sources: in one string, or put together from
// two.
func says(all []literal, part string) bool {
	words := strings.Fields(part)
	within := func(words []string) bool {
		piece := trimmed(strings.Join(words, " "))
		return slices.ContainsFunc(all, func(l literal) bool {
			return slices.ContainsFunc(l.parts, func(p string) bool {
				return trimmed(p) == piece || len(words) > 1 && strings.Contains(p, piece)
			})
		})
	}
	for n := range words {
		if n > 0 && within(words[:n]) && within(words[n:]) {
			return true
		}
	}
	return len(words) == 0 || within(words)
}

func trimmed(s string) string { return strings.Trim(s, " ,:;()") }

var quoted = regexp.MustCompile("^\\| `([^`]+)`")

// TestDocs_troubleshooting: the messages that it explains are those of the program, and there is no
// error or warning that it does not explain. What is filled in is written as … there.
func TestDocs_troubleshooting(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	all := literals(t)
	explained := 0
	for i, line := range strings.Split(string(text), "\n") {
		m := quoted.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		explained++
		for part := range strings.SplitSeq(m[1], "…") {
			if !says(all, part) {
				t.Errorf("docs/troubleshooting.md:%d: no message has %q", i+1, part)
			}
		}
	}
	if explained < 40 {
		t.Errorf("only %d messages were found in docs/troubleshooting.md", explained)
	}
	for _, l := range all {
		longest := ""
		for _, part := range l.parts {
			if part = trimmed(part); len(part) > len(longest) {
				longest = part
			}
		}
		if l.message && len(strings.Fields(longest)) > 1 && !strings.Contains(string(text), longest) {
			t.Errorf("docs/troubleshooting.md does not explain %q (%s)", longest, l.place)
		}
	}
}

// TestDocs_samples: a line that a page shows as one of git-gitops is like a message in the code.
func TestDocs_samples(t *testing.T) {
	t.Parallel()
	all := literals(t)
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			for line := range strings.Lines(b.text) {
				said, ours := strings.CutPrefix(line, "gitops: ")
				if b.tag != "text" || !ours {
					continue
				}
				if !slices.ContainsFunc(all, func(l literal) bool {
					rest, found := said, 0
					for _, part := range l.parts {
						_, after, ok := strings.Cut(rest, part)
						if !ok {
							return false
						}
						rest, found = after, found+len(strings.Fields(part))
					}
					return found > 2
				}) {
					t.Errorf("%s:%d: git-gitops has no message like %q", p.name, b.line, line)
				}
			}
		}
	}
}

var (
	testName = regexp.MustCompile("`(Test[A-Z][A-Za-z_]*)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
)

// TestDocs_proofs: the tests that a page names are there.
func TestDocs_proofs(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			have[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, p := range pages(t) {
		for i, line := range p.prose {
			for _, m := range testName.FindAllStringSubmatch(line, -1) {
				if named++; !have[m[1]] {
					t.Errorf("%s:%d: there is no %s", p.name, i+1, m[1])
				}
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d tests are named", named)
	}
}

// TestDocs_packages: the map of the code has every package.
func TestDocs_packages(t *testing.T) {
	t.Parallel()
	design, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for _, pattern := range []string{"../../*/*.go", "../../internal/*/*.go", "../../internal/*/*/*.go", "../../cmd/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for i, file := range files {
			dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../../")
			if i > 0 && filepath.Dir(files[i-1]) == filepath.Dir(file) {
				continue
			}
			if packages++; !strings.Contains(string(design), "`"+dir+"`") {
				t.Errorf("docs/design.md lacks the package %s", dir)
			}
		}
	}
	if packages < 10 {
		t.Errorf("only %d packages were found", packages)
	}
}
