package shim

import (
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// git runs the real git in a folder of its own, with nobody's configuration, and returns what it
// prints.
func git(t testing.TB, args ...string) string {
	t.Helper()
	cmd := gittest.Git(t.TempDir(), args...)
	cmd.Env = append(cmd.Env, "GIT_PAGER=cat")
	out, _ := cmd.CombinedOutput() //nolint:errcheck // failing is one of the answers
	return string(out)
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		args    string
		globals int
		verb    string
	}{
		{"", 0, ""},
		{"push", 0, "push"},
		{"push -u origin main", 0, "push"},
		{"-C d push", 2, "push"},
		{"-C d -c a.b=c --git-dir=x --git-dir x --work-tree=x --work-tree x push", 10, "push"},
		{"--namespace=x --namespace x --config-env=a.b=E --config-env a.b=E push", 6, "push"},
		{"--super-prefix=x --super-prefix x --attr-source=x --attr-source x --shallow-file x push", 8, "push"},
		{"--exec-path=x -p --paginate -P --no-pager --bare push", 6, "push"},
		{"--no-replace-objects --no-lazy-fetch --no-optional-locks --no-advice push", 4, "push"},
		{"--literal-pathspecs --no-literal-pathspecs --glob-pathspecs --noglob-pathspecs --icase-pathspecs push", 5, "push"},
		{"-C push push push", 2, "push"}, // a value may look like a verb
		{"-c --version push", 2, "push"},
		{"-c alias.p=push p", 2, "p"},
		{"--version", 0, "--version"},
		{"-v --build-options", 0, "-v"},
		{"-p --help push", 1, "--help"},
		{"-h", 0, "-h"},
		{"-C", 0, ""},
		{"-p -c", 1, ""},
		{"--git-dir", 0, ""},
		{"-p", 1, ""},
		{"-C d", 2, ""},
		{"--exec-path push", 0, ""},
		{"--exec-pathx push", 0, ""},
		{"--html-path push", 0, ""},
		{"--man-path push", 0, ""},
		{"-p --info-path push", 1, ""},
		{"--list-cmds=main push", 0, ""},
		{"--bare=x push", 0, ""},
		{"--shallow-file=x push", 0, ""},
		{"-C=x push", 0, ""},
		{"-cx push", 0, ""},
		{"-pP push", 0, ""},
		{"--version=x push", 0, ""},
		{"-- push", 0, ""},
		{"- push", 0, ""},
		{"--unknown push", 0, ""},
	} {
		args := strings.Fields(tt.args)
		got := Split(args)
		if len(got.Globals) != tt.globals || got.Verb != tt.verb {
			t.Errorf("%q: %d words of globals and verb %q, want %d and %q", tt.args, len(got.Globals), got.Verb, tt.globals, tt.verb)
		}
		if !slices.Equal(argv(got), args) {
			t.Errorf("%q: became %q", tt.args, argv(got))
		}
	}
	if got := Split([]string{"-p", "", "push"}); got.Verb != "" || len(got.Args) != 2 {
		t.Errorf("empty verb: %+v", got)
	}
}

// What we take for git's own options, git must take for them, and the other way round.
func TestSplit_agrees_with_git(t *testing.T) {
	for _, globals := range []string{
		"-C .", "-c a.b=c", "--git-dir=x", "--git-dir x", "--git-dir=", "--work-tree=x", "--work-tree x", "--namespace=x", "--namespace x",
		"--config-env=a.b=HOME", "--config-env a.b=HOME", "--super-prefix=x", "--super-prefix x", "--attr-source=HEAD", "--attr-source HEAD",
		"--shallow-file x", "--shallow-file=x", "--exec-path", "--exec-path=", "--exec-pathx", "-p", "--paginate", "-P", "--no-pager", "--bare",
		"--no-replace-objects", "--no-lazy-fetch", "--no-optional-locks", "--no-advice", "--literal-pathspecs", "--no-literal-pathspecs",
		"--glob-pathspecs", "--noglob-pathspecs", "--icase-pathspecs", "--html-path", "--man-path", "--info-path", "--list-cmds=main", "--list-cmds",
		"-C", "-c", "-C=.", "-ca.b=c", "-pP", "--bare=x", "--", "-", "--unknown", "-p -p -c a.b=c -C .", "--no-pager --exec-path",
	} {
		words := append(strings.Fields(globals), "version")
		out := git(t, words...)
		ran := strings.HasPrefix(out, "git version") || strings.Contains(out, "version doesn't support --super-prefix")
		split := Split(words).Verb == "version"
		newer := strings.Contains(out, "unknown option: "+words[0]) && strings.Contains(" --no-lazy-fetch --no-advice --attr-source=HEAD --attr-source --super-prefix=x --super-prefix ", " "+words[0]+" ")
		if ran != split && !newer {
			t.Errorf("%q: git finds the verb: %v, we: %v\n%s", globals, ran, split, out)
		}
	}
}

func TestResolve(t *testing.T) {
	aliases := map[string]string{
		"p":        "push",
		"cl":       "clone --depth 1",
		"st":       "status -sb",
		"up":       "push -u 'origin main'  \"a\\\"b\" c\\ d",
		"chain":    "p --force",
		"paged":    "-p push",
		"config":   "push", // never: it is git's own
		"withc":    "-c push.default=current --config-env a.b=HOME --config-env=a.b=HOME --exec-path=/x --paginate chain",
		"nopager":  "--no-pager push",
		"gitdir":   "--git-dir=x push",
		"cd":       "-C x push",
		"shell":    "!git push",
		"self":     "self",
		"loop1":    "loop2",
		"loop2":    "loop1",
		"caseloop": "CaseLoop",
		"open":     "push 'a",
		"back":     `push \`,
		"blank":    " push",
		"empty":    "",
		"dash":     "--version",
		"only":     "-p",
		"gone":     "nothing",
		"ext":      "push",
		"extchain": "ext",
		"helped":   "push --help",
		"lock":     "push",
		"mm":       "push",
	}
	own := func(verb string) bool {
		return slices.Contains([]string{"lock", "doctor", "status", "help", "push"}, verb)
	}
	external := func(verb string) bool { return verb == "ext" || verb == "lfs" || verb == "gitops" }

	for _, tt := range []struct {
		args  string
		sub   Route  // as subcommand
		link  Route  // as link
		words string // of the command line; empty when it is args
	}{
		{"", Help, Passthrough, ""},
		{"--version", Version, Passthrough, ""},
		{"-v", Version, Passthrough, ""},
		{"-p --version --build-options", Version, Passthrough, ""},
		{"--help", Help, Passthrough, ""},
		{"-h", Help, Passthrough, ""},
		{"-C x -h", Help, Passthrough, ""},
		{"version", Passthrough, Passthrough, ""},
		{"help push", Passthrough, Passthrough, ""},
		{"status", Passthrough, Passthrough, ""}, // own can't take a command from git
		{"-C d", Passthrough, Passthrough, ""},
		{"--exec-path", Passthrough, Passthrough, ""},
		{"--unknown push", Passthrough, Passthrough, ""},
		{"clone -b main https://h/x", Clone, Clone, ""},
		{"-C d -c a.b=c clone x", Clone, Clone, ""},
		{"push", Push, Push, ""},
		{"-C d push -u origin main", Push, Push, ""},
		{"push -n -h", Push, Push, ""},
		{"push --help", Passthrough, Passthrough, ""},
		{"push -h", Passthrough, Passthrough, ""},
		{"clone --help", Passthrough, Passthrough, ""},
		{"doctor", Admin, Passthrough, ""},
		{"-C d doctor --help", Admin, Passthrough, ""},
		{"lock --ttl 5", Admin, Push, "push --ttl 5"}, // in a link, an alias is an alias
		{"gitops push", Passthrough, Passthrough, ""},
		{"lfs push", Passthrough, Passthrough, ""},
		{"nothing", Passthrough, Passthrough, ""},
		{"p", Push, Push, "push"},
		{"P origin", Push, Push, "push origin"},
		{"-C d p origin main", Push, Push, "-C d push origin main"},
		{"p --help", Passthrough, Passthrough, ""},
		{"p -h", Passthrough, Passthrough, ""},
		{"helped", Passthrough, Passthrough, ""},
		{"cl x", Clone, Clone, "clone --depth 1 x"},
		{"chain origin", Push, Push, "push --force origin"},
		{"-P paged x", Push, Push, "-P -p push x"},
		{"withc x", Push, Push, "-c push.default=current --config-env a.b=HOME --config-env=a.b=HOME --exec-path=/x --paginate push --force x"},
		{"st", Passthrough, Passthrough, ""},
		{"config", Passthrough, Passthrough, ""},
		{"nopager", Passthrough, Passthrough, ""},
		{"gitdir", Passthrough, Passthrough, ""},
		{"cd", Passthrough, Passthrough, ""},
		{"shell", Passthrough, Passthrough, ""},
		{"self", Passthrough, Passthrough, ""},
		{"loop1", Passthrough, Passthrough, ""},
		{"caseloop", Passthrough, Passthrough, ""},
		{"open", Passthrough, Passthrough, ""},
		{"back", Passthrough, Passthrough, ""},
		{"blank", Passthrough, Passthrough, ""},
		{"empty", Passthrough, Passthrough, ""},
		{"dash", Passthrough, Passthrough, ""},
		{"only", Passthrough, Passthrough, ""},
		{"gone", Passthrough, Passthrough, ""},
		{"ext", Passthrough, Passthrough, ""},
		{"extchain", Passthrough, Passthrough, ""},
	} {
		for face, want := range map[Face]Route{Subcommand: tt.sub, Link: tt.link} {
			args := strings.Fields(tt.args)
			alias := func(name string) (string, bool) {
				if isGitCommand(name) {
					t.Errorf("%q: asks for an alias %q", tt.args, name)
				}
				value, ok := aliases[strings.ToLower(name)]
				return value, ok
			}
			route, line := Resolve(face, args, own, alias, external)
			if route != want {
				t.Errorf("%q, face %d: route %d, want %d", tt.args, face, route, want)
			}
			words := tt.words
			if words == "" || want == Admin {
				words = tt.args
			}
			if got := strings.Join(argv(line), " "); got != words {
				t.Errorf("%q, face %d: became %q, want %q", tt.args, face, got, words)
			}
			if !slices.Equal(args, strings.Fields(tt.args)) {
				t.Errorf("%q: the caller's words were changed to %q", tt.args, args)
			}
		}
	}

	lookup := func(name string) (string, bool) { v, ok := aliases[name]; return v, ok }
	_, line := Resolve(Link, []string{"up", "x"}, own, lookup, external)
	if want := []string{"push", "-u", "origin main", `a"b`, "c d", "x"}; !slices.Equal(argv(line), want) {
		t.Errorf("quoted alias: %q, want %q", argv(line), want)
	}
}

// The same aliases as git sees them: either both of us end in a clone, or neither does.
func TestResolve_agrees_with_git(t *testing.T) {
	for _, value := range []string{
		"clone", "-p clone", "--paginate clone", "-c a.b=c clone", "--config-env=a.b=HOME clone", "--config-env a.b=HOME clone", "-P clone",
		"--no-pager clone", "--bare clone", "-C . clone", "--git-dir=x clone", "--namespace x clone", "--literal-pathspecs clone", "--version", "-v", " clone", "",
		" ", "clone 'x", `clone \`, "status", "x", "X", "'clo'ne", `clo\ne`, `"clo"\n'e'`, "-p -c a.b=c clone",
	} {
		out := git(t, "-c", "alias.x="+value, "x", "--no-such-option")
		cloned := strings.Contains(out, "usage: git clone")
		route, _ := Resolve(Link, []string{"x", "--no-such-option"}, nil,
			func(name string) (string, bool) { return value, strings.EqualFold(name, "x") },
			func(string) bool { return false })
		if (route == Clone) != cloned {
			t.Errorf("alias %q: git clones: %v, route %d\n%s", value, cloned, route, out)
		}
	}
}

func TestSplitAlias_agrees_with_git(t *testing.T) {
	for _, tail := range []string{
		"a", "a b", "a  b", "a\tb\nc", "'a b'", `"a b"`, `a\ b`, `'a\ b'`, `"a\"b"`, `a''b`, `""`, `'' ""`, "a ", `"'" '"'`, `\\`, `a"b c"d`, "#x", "$HOME",
	} {
		words, ok := splitAlias("rev-parse --sq-quote " + tail)
		if !ok {
			t.Errorf("%q: refused", tail)
			continue
		}
		want := git(t, "-c", "alias.x=rev-parse --sq-quote "+tail, "x")
		if got := git(t, words...); got != want {
			t.Errorf("%q: became %q, git has %q", tail, got, want)
		}
	}
}

func TestGitCommands(t *testing.T) {
	if !slices.IsSorted(gitCommands) {
		t.Error("not sorted")
	}
	for _, verb := range []string{"clone", "push", "help", "version", "status", "submodule"} {
		if !isGitCommand(verb) {
			t.Errorf("%s is missing", verb)
		}
	}
	for _, verb := range []string{"", "lock", "unlock", "locks", "run", "doctor", "install", "uninstall", "gitops", "PUSH"} {
		if isGitCommand(verb) {
			t.Errorf("%q is no command of git's", verb)
		}
	}
	for _, verb := range strings.Fields(git(t, "--list-cmds=builtins")) {
		if !isGitCommand(verb) {
			t.Logf("this git also has %s: add it to save a process", verb)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("-C\x00d\x00push")
	f.Add("--git-dir")
	f.Add("\x00\x00")
	f.Add("-p\x00--version\x00x")
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\x00")
		line := Split(args)
		if !slices.Equal(argv(line), args) {
			t.Errorf("%q became %q", args, argv(line))
		}
		if again := Split(argv(line)); again.Verb != line.Verb || len(again.Globals) != len(line.Globals) {
			t.Errorf("%q: split again is %+v, was %+v", args, again, line)
		}
		route, expanded := Resolve(Link, args, nil,
			func(string) (string, bool) { return args[len(args)-1], true },
			func(string) bool { return false })
		if route == Clone && expanded.Verb != "clone" || route == Push && expanded.Verb != "push" {
			t.Errorf("%q: route %d with verb %q", args, route, expanded.Verb)
		}
	})
}

// argv is a command line put together again.
func argv(c CommandLine) []string {
	words := slices.Clone(c.Globals)
	if c.Verb != "" {
		words = append(words, c.Verb)
	}
	return append(words, c.Args...)
}
