package git

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

func TestMain(m *testing.M) { os.Exit(gittest.Main(m.Run)) }

// repository is a clone of a bare repository of its own, with one commit that is pushed: file says
// 1.
func repository(t *testing.T) (g Git, dir, remote string) {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	dir, remote = filepath.Join(top, "work"), filepath.Join(top, "remote.git")
	must(t, Git{Path: path}, "init", "-q", "--bare", "-b", "main", remote)
	must(t, Git{Path: path}, "init", "-q", "-b", "main", dir)
	g = Git{Path: path, Globals: []string{"-C", dir}}
	must(t, g, "remote", "add", "origin", remote)
	commit(t, g, dir, "one", "file", "1\n")
	must(t, g, "push", "-q", "origin", "main")
	return g, dir, remote
}

func must(t *testing.T, g Git, words ...string) string {
	t.Helper()
	out, err := g.Output(t.Context(), words...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// commit writes one file and commits it.
func commit(t *testing.T, g Git, dir, subject, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, g, "add", name)
	must(t, g, "commit", "-q", "-m", subject)
}

// diverge commits theirs and pushes it, goes back, and commits ours on the same base.
func diverge(t *testing.T, g Git, dir string, theirs, ours map[string]string) {
	t.Helper()
	for name, content := range theirs {
		commit(t, g, dir, "theirs", name, content)
	}
	must(t, g, "push", "-q", "origin", "main")
	must(t, g, "reset", "-q", "--hard", "HEAD~1")
	for name, content := range ours {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, g, "add", name)
	}
	must(t, g, "commit", "-q", "--allow-empty", "-m", "ours")
}

func TestFetchAndRebase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		theirs, ours map[string]string
		want         bool
		emptied      bool
		commit       bool // the error names it
	}{
		{name: "other files", theirs: map[string]string{"a": "a"}, ours: map[string]string{"b": "b"}, want: true},
		{name: "an empty commit", theirs: map[string]string{"a": "a"}, want: true},
		{name: "conflict", theirs: map[string]string{"file": "2\n"}, ours: map[string]string{"file": "3\n"}, commit: true},
		{name: "the same change", theirs: map[string]string{"file": "2\n"}, ours: map[string]string{"file": "2\n"}, emptied: true, commit: true},
		{name: "the same change, and more", theirs: map[string]string{"file": "2\n"}, ours: map[string]string{"file": "2\n", "b": "b"}, emptied: true, commit: true},
		{name: "the same new file", theirs: map[string]string{"n": "n\n"}, ours: map[string]string{"n": "n\n", "b": "b"}, emptied: true, commit: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g, dir, remote := repository(t)
			diverge(t, g, dir, tc.theirs, tc.ours)
			before := g.Tip(t.Context(), "HEAD")
			theirs := must(t, g, "ls-remote", "origin", "main")[:40]
			onto, err := g.FetchAndRebase(t.Context(), remote, "main")
			if (onto == theirs) != tc.want || (onto != "") != tc.want || (err == nil) != tc.want {
				t.Fatalf("onto %q, %v", onto, err)
			}
			if tc.want {
				if !g.Contains(t.Context(), "HEAD", "origin/main") || must(t, g, "log", "-1", "--format=%s") != "ours" {
					t.Error("not rebased")
				}
				return
			}
			var stopped *RebaseError
			if !errors.As(err, &stopped) || stopped.Emptied != tc.emptied || strings.Contains(stopped.Commit, "(ours)") != tc.commit {
				t.Errorf("error %#v", err)
			}
			if g.Tip(t.Context(), "HEAD") != before || must(t, g, "status", "--porcelain") != "" || g.rebasing(t.Context()) {
				t.Error("not as it was")
			}
		})
	}
	t.Run("nothing to do", func(t *testing.T) {
		g, dir, remote := repository(t)
		commit(t, g, dir, "two", "b", "b")
		if onto, err := g.FetchAndRebase(t.Context(), remote, "main"); onto != "" || err != nil {
			t.Error(onto, err)
		}
	})
	t.Run("a renamed file", func(t *testing.T) {
		g, dir, remote := repository(t)
		commit(t, g, dir, "lines", "lines", "1\n2\n3\n4\n5\n")
		must(t, g, "push", "-q", "origin", "main")
		must(t, g, "mv", "lines", "renamed")
		must(t, g, "commit", "-q", "-m", "rename")
		must(t, g, "push", "-q", "origin", "main")
		must(t, g, "reset", "-q", "--hard", "HEAD~1")
		commit(t, g, dir, "ours", "lines", "1\n2\n3\n4\nfive\n")
		if onto, err := g.FetchAndRebase(t.Context(), remote, "main"); onto == "" || err != nil {
			t.Error(onto, err)
		}
		if got := must(t, g, "show", "HEAD:renamed"); !strings.HasSuffix(got, "five") {
			t.Errorf("renamed is %q", got)
		}
	})
	t.Run("no such remote", func(t *testing.T) {
		g, _, _ := repository(t)
		var stopped *RebaseError
		if _, err := g.FetchAndRebase(t.Context(), "no-such.git", "main"); err == nil || errors.As(err, &stopped) {
			t.Error(err)
		}
	})
}

func TestPushDryRun(t *testing.T) {
	t.Parallel()
	g, dir, _ := repository(t)
	must(t, g, "push", "-q", "origin", "main:same", "main:gone", "main:ahead")
	commit(t, g, dir, "theirs", "a", "a")
	must(t, g, "push", "-q", "origin", "main:ahead")
	must(t, g, "reset", "-q", "--hard", "HEAD~1")
	must(t, g, "branch", "same")
	commit(t, g, dir, "ours", "b", "b")
	must(t, g, "branch", "ahead")
	refs := must(t, g, "ls-remote", "origin")
	for _, tc := range []struct {
		words string
		want  string // flags and branches; "_" stands for the flag that is a space
		fails bool
	}{
		{"origin main", "_main", false},
		{"-q origin main", "_main", false},
		{"origin main --quiet", "_main", false},
		{"-q -- origin main", "_main", false},
		{"origin same main ahead :gone HEAD:new", "!ahead *new -gone =same _main", false},
		{"-f origin ahead", "+ahead", false},
		{"-q --atomic origin main ahead", "!ahead !main", false},
		{"--no-force --force-with-lease=refs/heads/ahead:main~1 origin ahead", "!ahead", false},
		{"-q origin same", "=same", false},
		{"origin :no-such", "", true},
		{"origin no-such", "", true},
		{"no-such-remote main", "", true},
		{"--no-such-option", "", true},
	} {
		statuses, err := g.PushDryRun(t.Context(), strings.Fields(tc.words))
		var got []string
		for _, s := range statuses {
			got = append(got, strings.ReplaceAll(string(s.Flag), " ", "_")+strings.TrimPrefix(s.Ref, "refs/heads/"))
		}
		slices.Sort(got)
		want := strings.Fields(tc.want)
		slices.Sort(want)
		if !slices.Equal(got, want) || (err != nil) != tc.fails {
			t.Errorf("%s: %q, %v; want %q", tc.words, got, err, want)
		}
	}
	if now := must(t, g, "ls-remote", "origin"); now != refs {
		t.Errorf("the remote was changed:\n%s\n%s", refs, now)
	}
}

// TestFetchAndRebase_signed: a rebase that would drop a signature is not begun; with commit.gpgSign
// it signs again.
func TestFetchAndRebase_signed(t *testing.T) {
	t.Parallel()
	g, dir, remote := repository(t)
	signer := filepath.Join(t.TempDir(), "signer")
	script := "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\necho -----BEGIN PGP SIGNATURE-----\necho -----END PGP SIGNATURE-----\n"
	if err := gittest.WriteProgram(signer, script); err != nil {
		t.Fatal(err)
	}
	must(t, g, "config", "gpg.program", signer)
	diverge(t, g, dir, map[string]string{"theirs": "1\n"}, map[string]string{"ours": "1\n"})
	must(t, g, "commit", "-q", "--amend", "--no-edit", "-S")
	before := must(t, g, "rev-parse", "HEAD")
	var stopped *RebaseError
	if _, err := g.FetchAndRebase(t.Context(), remote, "main"); !errors.As(err, &stopped) || !strings.Contains(stopped.Reason, "signed") {
		t.Errorf("error %v", err)
	}
	if now := must(t, g, "rev-parse", "HEAD"); now != before {
		t.Errorf("HEAD moved from %s to %s", before, now)
	}
	must(t, g, "config", "commit.gpgSign", "true")
	if onto, err := g.FetchAndRebase(t.Context(), remote, "main"); onto == "" || err != nil {
		t.Errorf("not rebased: %v", err)
	}
	if !strings.Contains(must(t, g, "cat-file", "commit", "HEAD"), "\ngpgsig ") {
		t.Error("the signature is gone")
	}
}

// TestHad: what was merged or reset to was in the branch; what a rebase only tried to bring in was
// not.
func TestHad(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, more string) (g Git, remote, theirs string) {
		g, dir, remote := repository(t)
		other := filepath.Join(filepath.Dir(remote), "other")
		must(t, g, "clone", "-q", remote, other)
		elsewhere := Git{Path: g.Path, Globals: []string{"-C", other}}
		commit(t, elsewhere, other, "theirs", "file", "theirs\n")
		must(t, elsewhere, "push", "-q", "origin", "main")
		if err := os.WriteFile(filepath.Join(dir, "mine"), []byte(more), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, g, "add", ".")
		commit(t, g, dir, "ours", "file", more)
		must(t, g, "fetch", "-q")
		return g, remote, g.Tip(t.Context(), "origin/main")
	}
	for name, tc := range map[string]struct {
		script string // words of git commands, of which the last ones undo what the others did; "!": it fails
		head   bool   // detached
		want   bool
	}{
		"merged and undone":              {script: "merge -q -X ours origin/main|reset -q --hard HEAD~1", want: true},
		"reset to it":                    {script: "reset -q --hard origin/main|reset -q --hard HEAD~1", want: true},
		"checked out":                    {script: "checkout -q origin/main|checkout -q main", head: true, want: true},
		"rebased, but aborted":           {script: "!rebase -q origin/main|rebase --abort"},
		"rebased, but aborted, detached": {script: "checkout -q --detach|!rebase -q origin/main|rebase --abort", head: true},
		"pulled, but aborted, detached":  {script: "checkout -q --detach|!pull -q --rebase origin main|rebase --abort", head: true},
		"fetched":                        {script: "fetch -q"},
	} {
		t.Run(name, func(t *testing.T) {
			g, _, theirs := start(t, "ours\n")
			for words := range strings.SplitSeq(tc.script, "|") {
				words, fails := strings.CutPrefix(words, "!")
				if _, err := g.Output(t.Context(), strings.Fields(words)...); (err != nil) != fails {
					t.Fatalf("%s: %v", words, err)
				}
			}
			ref := "refs/heads/main"
			if tc.head {
				ref = "HEAD"
			}
			if got := g.Had(t.Context(), ref, theirs); got != tc.want {
				t.Errorf("had it: %v\n%v", got, g.Reflog(t.Context(), ref))
			}
		})
	}
	t.Run("an integration that was undone", func(t *testing.T) {
		g, remote, theirs := start(t, "theirs\n") // and a file that is not theirs, so that a part of the commit stays
		if _, err := g.FetchAndRebase(t.Context(), remote, "main"); err == nil {
			t.Fatal("it was integrated")
		}
		if g.Had(t.Context(), "refs/heads/main", theirs) {
			t.Errorf("had it: %v", g.Reflog(t.Context(), "refs/heads/main"))
		}
	})
}
