package giturl

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// git runs git in dir with nobody's configuration.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gittest.Git(dir, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestParse_local(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	git(t, root, "init", "-q", "--bare", "repo.git")
	git(t, root, "init", "-q", "wt")
	git(t, filepath.Join(root, "wt"), "commit", "-q", "--allow-empty", "-m", "x")
	git(t, filepath.Join(root, "wt"), "worktree", "add", "-q", "../linked")
	git(t, filepath.Join(root, "wt"), "bundle", "create", "-q", "../b.bundle", "HEAD")
	if err := os.Mkdir(filepath.Join(root, "elsewhere"), 0o700); err != nil {
		t.Fatal(err)
	}
	git(t, root, "init", "-q", "--separate-git-dir", "elsewhere/sep.git", "sep")
	if err := os.Mkdir(filepath.Join(root, "plain"), 0o700); err != nil {
		t.Fatal(err)
	}
	unix := runtime.GOOS != "windows"
	if unix {
		for link, to := range map[string]string{"link": "wt", "alias.git": "repo.git", "deep": "wt/.git", "loop": "loop"} {
			if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
				t.Fatal(err)
			}
		}
	}

	tests := []struct {
		want      string
		cloneable bool // git must find a repository there too
		spellings []string
	}{
		{"repo", true, []string{"repo.git", "repo", "./repo.git/", "repo.git//", "plain/../repo", "$/repo.git", "$/repo", "file://$/repo.git", "file://host$/repo.git", "file://$/./%72epo.git"}},
		{"wt", true, []string{"wt", "wt/.git", "wt/", "wt/.git/", "$/wt/.git", "file://$/wt", "linked"}},
		{"elsewhere/sep", true, []string{"sep", "elsewhere/sep", "sep/.git"}},
		{"b.bundle", true, []string{"b.bundle", "b", "$/b"}},
		{"plain", false, []string{"plain", "plain.git", "plain/.git", "nothing/../plain"}},
		{"new/x", false, []string{"new/x.git", "new/x", "new//x/", "plain/../new/y/../x.git"}},
	}
	if unix {
		tests = append(tests, []struct {
			want      string
			cloneable bool
			spellings []string
		}{
			{"wt", true, []string{"link", "link/.git", "$/link"}},
			{"repo", true, []string{"alias.git", "alias"}},
			{"new/x", false, []string{"link/../new/x.git", "nothing/../link/../new/x"}},
			{"wt/new", false, []string{"link/new.git"}},
			{"loop", false, []string{"loop"}},
		}...)
	}
	for _, tt := range tests {
		for _, raw := range tt.spellings {
			raw = strings.ReplaceAll(raw, "$", filepath.ToSlash(root))
			u, err := Parse(raw, root)
			if err != nil {
				t.Errorf("%q: %v", raw, err)
				continue
			}
			if want := filepath.ToSlash(filepath.Join(root, tt.want)); u.Identity() != want {
				t.Errorf("%q: identity %q, want %q", raw, u.Identity(), want)
			}
			checkStable(t, u, root)
			if tt.cloneable {
				git(t, root, "clone", "-q", "--bare", raw, t.TempDir())
			}
		}
	}

	t.Chdir(root)
	for _, dir := range []string{"", ".", "wt/.."} {
		if u, err := Parse("repo", dir); err != nil || u.Identity() != filepath.ToSlash(filepath.Join(root, "repo")) {
			t.Errorf("relative to %q: %q, %v", dir, u.Identity(), err)
		}
	}
}
