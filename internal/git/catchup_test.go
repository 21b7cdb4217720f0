package git

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/gittest"
)

var (
	catchUpRounds = flag.Int("catchup.rounds", 25, "how many clones TestCatchUp makes")
	catchUpSeed   = flag.Uint64("catchup.seed", uint64(time.Now().UnixNano()), "seed of TestCatchUp") //nolint:gosec // any number
)

// TestCatchUp: a clone that was made before others pushed, and is then brought up to date, is what
// a fresh clone is. Histories and options are random.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	g, work, remote := repository(t)
	t.Logf("-catchup.seed=%d", *catchUpSeed)
	h := &historian{t: t, g: g, dir: work, r: rand.New(rand.NewPCG(*catchUpSeed, 1))} //nolint:gosec // a test
	must(t, Git{Path: g.Path}, "-C", remote, "config", "uploadpack.allowFilter", "true")
	h.write(".gitattributes", "*.crlf text eol=crlf\n*.lf text eol=lf\n")
	for range 20 {
		h.step()
	}
	h.publish()

	stale := 0
	for round := range *catchUpRounds {
		words := h.options(remote)
		top := t.TempDir()
		g := Git{Path: g.Path, Globals: []string{"-C", top}}
		args, err := gitargs.ParseClone(append(slices.Clone(words), "clone"))
		if err != nil {
			t.Fatal(err)
		}
		if !args.Ahead {
			t.Fatalf("%q is no clone to begin ahead", words)
		}
		s, err := cloneNow(t, g, filepath.Join(top, "clone"), append(words, "clone"), args)
		var why *StaleError
		if errors.As(err, &why) {
			stale++
			continue
		}
		if err != nil {
			t.Fatalf("round %d, %q: %v", round, words, err)
		}
		if h.r.IntN(2) == 0 {
			s.Settle(t.Context())
		}
		for range h.r.IntN(6) {
			h.step()
		}
		h.publish()

		err = s.CatchUp(t.Context())
		if errors.As(err, &why) {
			stale++
			continue
		}
		if err != nil {
			t.Fatalf("round %d, %q: %v", round, words, err)
		}
		got := state(t, g, filepath.Join(top, "clone"))
		if err := os.Rename(filepath.Join(top, "clone"), filepath.Join(top, "ahead")); err != nil {
			t.Fatal(err)
		}
		must(t, g, append([]string{"clone", "-q"}, append(words, "clone")...)...)
		if want := state(t, g, filepath.Join(top, "clone")); got != want {
			t.Fatalf("round %d, %q: the two differ\n%s", round, words, difference(want, got))
		}
	}
	t.Logf("%d of %d were left to a fresh clone", stale, *catchUpRounds)
	if stale > *catchUpRounds/2 {
		t.Error("that is more than the exceptions explain")
	}
}

// cloneNow makes a clone as the flow does that begins it before its turn.
func cloneNow(t *testing.T, g Git, dir string, words []string, args gitargs.CloneArgs) (Snapshot, error) {
	t.Helper()
	job, err := g.Background(append([]string{"clone", "-q"}, words...)...)
	if err != nil {
		t.Fatal(err)
	}
	if said, err := job.Wait(t.Context()); err != nil {
		t.Fatal(said, err)
	}
	return g.Snapshot(t.Context(), dir, args)
}

var logTime = regexp.MustCompile(`\d+ [+-]\d{4}`)

// state is all of a clone that git or a script can see, but for times.
func state(t *testing.T, g Git, dir string) string {
	t.Helper()
	g.Globals = []string{"-C", dir}
	var b strings.Builder
	for _, words := range []string{
		"symbolic-ref HEAD", "rev-parse HEAD", "for-each-ref --format=%(refname)|%(objectname)|%(symref)|%(upstream)", "config --list --local",
		"log --all --format=%H|%P|%d --topo-order", "ls-files -s -v", "status --porcelain=v2 --branch", "diff HEAD",
		"rev-parse --is-shallow-repository", "fsck --no-dangling --connectivity-only", "stash list", "sparse-checkout list",
	} {
		out, err := g.Output(t.Context(), strings.Fields(words)...)
		fmt.Fprintf(&b, "== %s: %v\n%s", words, err != nil, out)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		inGit := strings.HasPrefix(name, ".git"+string(filepath.Separator))
		switch {
		case name == filepath.Join(".git", "objects"):
			return fs.SkipDir
		case inGit && (d.IsDir() || strings.HasPrefix(name, filepath.Join(".git", "refs")) || filepath.Base(name) == "packed-refs" || filepath.Base(name) == "index"):
			return nil // as git sees them, above
		case inGit && name == filepath.Join(".git", "shallow"):
			return nil // may name commits that are no longer reached; log tells
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case inGit && strings.HasPrefix(name, filepath.Join(".git", "logs")):
			data, err := os.ReadFile(path) //nolint:gosec // a test's own
			fmt.Fprintf(&b, "%s %s\n", name, logTime.ReplaceAllString(string(data), "TIME"))
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		case info.Mode().IsRegular():
			var data []byte
			data, err = os.ReadFile(path) //nolint:gosec // a test's own
			content = string(data)
		}
		fmt.Fprintf(&b, "%s %s %q\n", info.Mode(), name, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// difference is where two texts part.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for len(w) > 0 && len(g) > 0 && w[0] == g[0] {
		w, g = w[1:], g[1:]
	}
	for len(w) > 0 && len(g) > 0 && w[len(w)-1] == g[len(g)-1] {
		w, g = w[:len(w)-1], g[:len(g)-1]
	}
	return "fresh:\n" + strings.Join(w, "\n") + "\nahead:\n" + strings.Join(g, "\n")
}

// historian makes histories.
type historian struct {
	t   *testing.T
	g   Git
	dir string
	r   *rand.Rand
	n   int
}

func (h *historian) git(words ...string) string { return must(h.t, h.g, words...) }

func (h *historian) try(words ...string) { _, _ = h.g.Output(h.t.Context(), words...) }

func (h *historian) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	// What is in the way gives way: files become folders, and folders files.
	for up := filepath.Dir(path); len(up) > len(h.dir); up = filepath.Dir(up) {
		if info, err := os.Lstat(up); err == nil && !info.IsDir() {
			_ = os.Remove(up)
		}
	}
	_ = os.RemoveAll(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// pick is one of the files that git tracks.
func (h *historian) pick() string {
	files := lines(h.git("ls-files"))
	files = slices.DeleteFunc(files, func(f string) bool { return f == ".gitattributes" })
	if len(files) == 0 {
		h.write("seed.txt", "seed\n")
		return "seed.txt"
	}
	return files[h.r.IntN(len(files))]
}

func (h *historian) name() string {
	names := []string{"a", "b", "a/b", "dir/a", "dir/b", "dir/a/deep", "x y", "é", "file"}
	return names[h.r.IntN(len(names))] + []string{"", ".crlf", ".lf", ".txt"}[h.r.IntN(4)]
}

// step does one thing that people do to a repository.
func (h *historian) step() {
	h.t.Helper()
	h.n++
	text := fmt.Sprintf("line %d\nmore\n", h.n)
	switch k := h.r.IntN(30); k {
	default: // 0 to 9, and so on: an edit
		h.write(h.name(), text)
	case 10, 11:
		h.try("rm", "-q", "-f", h.pick())
	case 12, 13:
		from, to := h.pick(), h.name()
		h.write(to, text)
		_ = os.Remove(filepath.Join(h.dir, to))
		h.try("mv", "-f", from, to)
	case 14:
		h.try("update-index", "--chmod=+x", h.pick())
		h.try("commit", "-q", "-m", "mode")
		h.git("reset", "-q", "--hard")
	case 15:
		name := h.name()
		h.write(name, "")
		path := filepath.Join(h.dir, name)
		_ = os.Remove(path)
		if err := os.Symlink(fmt.Sprintf("to %d", h.n), path); err != nil {
			h.t.Fatal(err)
		}
	case 16:
		h.try("branch", "-f", fmt.Sprintf("topic/%d", h.r.IntN(4)))
	case 17:
		h.try("branch", "-D", fmt.Sprintf("topic/%d", h.r.IntN(4)))
	case 18, 19:
		h.git("tag", "-f", fmt.Sprintf("t%d", h.r.IntN(5)))
	case 20:
		h.git("tag", "-f", "-a", "-m", text, fmt.Sprintf("t%d", h.r.IntN(5)))
	case 21:
		h.try("tag", "-d", fmt.Sprintf("t%d", h.r.IntN(5)))
	case 22:
		h.try("reset", "-q", "--hard", "HEAD~2") // history is rewritten
	case 23:
		h.git("branch", "-f", "dev")
	case 24:
		if h.r.IntN(4) == 0 {
			h.write(".gitattributes", []string{"*.crlf text eol=crlf\n*.lf text eol=lf\n", "*.txt text eol=crlf\n"}[h.r.IntN(2)])
		}
	case 25: // a side branch and its merge
		h.git("checkout", "-q", "-B", "side", "HEAD")
		h.write("side/"+h.name(), text)
		h.commit()
		h.git("checkout", "-q", "main")
		h.write(h.name(), text)
		h.commit()
		h.git("merge", "-q", "-X", "ours", "-m", "merge", "side")
	case 26: // a submodule that nobody asked for
		h.try("update-index", "--add", "--cacheinfo", "160000,"+h.git("rev-parse", "HEAD")+",sub"+fmt.Sprint(h.r.IntN(2)))
		h.try("commit", "-q", "-m", "sub")
		h.git("reset", "-q", "--hard")
	case 27: // a branch that is a folder next time
		if h.r.IntN(2) == 0 {
			h.try("branch", "-D", "df/x")
			h.try("branch", "df")
		} else {
			h.try("branch", "-D", "df")
			h.try("branch", "df/x")
		}
	}
	h.commit()
}

func (h *historian) commit() {
	h.git("add", "-A")
	h.try("commit", "-q", "-m", fmt.Sprintf("commit %d", h.n))
}

// publish makes the remote what the work repository is.
func (h *historian) publish() {
	h.t.Helper()
	h.git("push", "-q", "--force", "--prune", "origin", "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
}

// options are the words of a clone.
func (h *historian) options(remote string) []string {
	url := "file://" + remote
	var words []string
	chance := func(n int, more ...string) bool {
		if h.r.IntN(n) != 0 {
			return false
		}
		words = append(words, more...)
		return true
	}
	if chance(3) {
		url = remote
	} else {
		if !chance(3, "--depth", "1") {
			chance(4, "--single-branch")
		}
		chance(6, "--filter=blob:none")
	}
	chance(2, "-b", "main")
	chance(4, "--no-tags")
	chance(5, "-o", "upstream")
	chance(8, "-n")
	chance(8, "--sparse")
	chance(6, "-c", "core.autocrlf=true")
	chance(6, "--template=")
	return append(words, url)
}

// TestSnapshot_leavesAlone: what a clone may hold that makes bringing it up to date unsafe.
func TestSnapshot_leavesAlone(t *testing.T) {
	t.Parallel()
	g, work, remote := repository(t)
	must(t, g, "tag", "v1")
	must(t, g, "push", "-q", "--tags")
	hooks := t.TempDir()
	if err := gittest.WriteProgram(filepath.Join(hooks, "post-checkout"), "#!/bin/sh\n"); err != nil {
		t.Fatal(err)
	}
	template := t.TempDir()
	if err := os.Mkdir(filepath.Join(template, "hooks"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(hooks, "post-checkout"), filepath.Join(template, "hooks", "post-checkout")); err != nil {
		t.Fatal(err)
	}
	must(t, Git{Path: g.Path}, "init", "-q", "--bare", "-b", "main", work+"/../empty.git")
	for name, words := range map[string][]string{
		"tag":           {"-b", "v1", remote},
		"empty":         {work + "/../empty.git"},
		"more refspecs": {"-c", "remote.origin.fetch=+refs/notes/*:refs/notes/*", remote},
		"tagOpt":        {"-c", "remote.origin.tagOpt=--tags", remote},
		"hook":          {"--template", template, remote},
		"depth of many": {"--depth", "1", "--no-single-branch", "file://" + remote},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			words = append(words, "clone")
			args, err := gitargs.ParseClone(words)
			if err != nil {
				t.Fatal(err)
			}
			g := Git{Path: g.Path, Globals: []string{"-C", top}}
			var why *StaleError
			if _, err := cloneNow(t, g, filepath.Join(top, "clone"), words, args); !errors.As(err, &why) {
				t.Errorf("error %v, want a StaleError", err)
			}
		})
	}
	t.Run("reftable", func(t *testing.T) { // which not every git can make
		top := t.TempDir()
		must(t, Git{Path: g.Path, Globals: []string{"-C", top}}, "clone", "-q", remote, "clone")
		var why *StaleError
		g := Git{Path: g.Path, Globals: []string{"-c", "extensions.refStorage=reftable"}}
		if _, err := g.Snapshot(t.Context(), filepath.Join(top, "clone"), gitargs.CloneArgs{}); !errors.As(err, &why) {
			t.Errorf("error %v, want a StaleError", err)
		}
	})
	for _, words := range []string{
		"--bare", "--mirror", "--recurse-submodules", "--separate-git-dir=x", "--reference=x", "--shared", "-s", "--dissociate", "--shallow-since=2020-01-01",
		"--upload-pack=x", "-u x", "--bundle-uri=x", "--no-such-option", "--server-option=x", "--revision=x", "--depth=2",
	} {
		if args, err := gitargs.ParseClone(append(strings.Fields(words), remote)); err != nil || args.Ahead {
			t.Errorf("%s: %v, %v", words, args.Ahead, err)
		}
	}
}

// TestCatchUp_leavesAlone: what may happen to the remote meanwhile that makes bringing a clone up
// to date unsafe.
func TestCatchUp_leavesAlone(t *testing.T) {
	for name, change := range map[string]func(*testing.T, Git, string, string){
		"attributes": func(t *testing.T, g Git, dir, _ string) {
			commit(t, g, dir, "a", ".gitattributes", "* text\n")
			must(t, g, "push", "-q", "origin", "main")
		},
		"attributes in a folder": func(t *testing.T, g Git, dir, _ string) {
			if err := os.Mkdir(filepath.Join(dir, "folder"), 0o750); err != nil {
				t.Fatal(err)
			}
			commit(t, g, dir, "a", "folder/.gitattributes", "* text\n")
			must(t, g, "push", "-q", "origin", "main")
			t.Setenv("GIT_LITERAL_PATHSPECS", "1")
		},
		"other HEAD": func(t *testing.T, g Git, _, remote string) {
			must(t, g, "push", "-q", "origin", "main:dev")
			must(t, g, "-C", remote, "symbolic-ref", "HEAD", "refs/heads/dev")
		},
		"no HEAD": func(t *testing.T, g Git, _, remote string) {
			must(t, g, "-C", remote, "symbolic-ref", "HEAD", "refs/heads/gone")
		},
		"gone branch": func(t *testing.T, g Git, _, remote string) {
			must(t, g, "-C", remote, "update-ref", "-d", "refs/heads/main")
		},
		"gone": func(t *testing.T, _ Git, _, remote string) { _ = os.Rename(remote, remote+".away") },
	} {
		t.Run(name, func(t *testing.T) {
			g, work, remote := repository(t)
			top := t.TempDir()
			words := []string{remote, "-b", "main", "clone"}
			args, err := gitargs.ParseClone(words)
			if err != nil {
				t.Fatal(err)
			}
			s, err := cloneNow(t, Git{Path: g.Path, Globals: []string{"-C", top}}, filepath.Join(top, "clone"), words, args)
			if err != nil {
				t.Fatal(err)
			}
			change(t, g, work, remote)
			if err := s.CatchUp(t.Context()); err == nil {
				t.Error("brought up to date")
			}
		})
	}
}

// TestBackground_stop: a clone that is stopped leaves nothing, and no process.
func TestBackground_stop(t *testing.T) {
	t.Parallel()
	g, _, remote := repository(t)
	top := t.TempDir()
	g.Globals = []string{"-C", top}
	slow := filepath.Join(top, "slow")
	if err := gittest.WriteProgram(slow, "#!/bin/sh\necho >started\nsleep 600 & wait\n"); err != nil {
		t.Fatal(err)
	}
	job, err := g.Background("clone", "--no-local", "-u", slow, remote, "clone")
	if err != nil {
		t.Fatal(err)
	}
	// Not when the folder is there: git makes it shortly before it is ready to remove it again, and
	// an empty one that is left in that moment is removed by whoever asked for the clone.
	gittest.Until(t, "the clone has begun", func() bool {
		_, err := os.Stat(filepath.Join(top, "started"))
		return err == nil
	})
	job.Stop()
	if _, err := os.Stat(filepath.Join(top, "clone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
	var gitErr *Error
	if _, err := job.Wait(t.Context()); err == nil || errors.As(err, &gitErr) && gitErr.ExitCode == 0 {
		t.Errorf("error %v", err)
	}
}

// TestSnapshot_Settle: after it, no file has to be read to know that it is unchanged.
func TestSnapshot_Settle(t *testing.T) {
	t.Parallel()
	g, _, remote := repository(t)
	top := t.TempDir()
	words := []string{remote, "clone"}
	args, err := gitargs.ParseClone(words)
	if err != nil {
		t.Fatal(err)
	}
	s, err := cloneNow(t, Git{Path: g.Path, Globals: []string{"-C", top}}, filepath.Join(top, "clone"), words, args)
	if err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(top, "clone", ".git", "index")
	file := filepath.Join(top, "clone", "file")
	before := modified(t, index)
	// As if the clone had taken place in one second, some time ago.
	then := time.Now().Add(-time.Minute).Truncate(time.Second)
	for _, name := range []string{file, index} {
		if err := os.Chtimes(name, then, then); err != nil {
			t.Fatal(err)
		}
	}
	s.Settle(t.Context())
	if now := modified(t, index); !now.After(then) || now.Before(before) {
		t.Errorf("the index was written at %s, want after %s", now, before)
	}
}

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// TestBackground_over: once git has ended, no signal goes to what may by then be somebody else's
// processes.
func TestBackground_over(t *testing.T) {
	t.Parallel()
	g, _, _ := repository(t)
	top := t.TempDir()
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(top, name)) //nolint:gosec // a test's own
		return string(data)
	}
	script := "trap 'echo TERM >>got' TERM; trap 'echo WINCH >>got; exit' WINCH; echo $$ >pid; while :; do sleep 0.01; done"
	if err := os.WriteFile(filepath.Join(top, "stays"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	job, err := g.Background("-c", "alias.x=!cd "+top+" && sh stays >/dev/null 2>&1 &", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	gittest.Until(t, "the script runs", func() bool { return strings.HasSuffix(read("pid"), "\n") })
	job.Stop()
	// TERM would be seen first, being the lower number.
	if out, err := exec.Command("kill", "-WINCH", strings.TrimSpace(read("pid"))).CombinedOutput(); err != nil { //nolint:gosec // as above
		t.Fatalf("%v: %s", err, out)
	}
	gittest.Until(t, "it gets a signal", func() bool { return strings.Contains(read("got"), "WINCH\n") })
	if got := read("got"); got != "WINCH\n" {
		t.Errorf("it got %q", got)
	}
}
