//go:build unix

package main

import (
	"strings"
	"testing"
)

// TestHook_lfs: git-lfs installs no hook where ours is, so ours uploads, in whatever order the two
// came and whichever form ours has. It does not upload a second time where another hook in the
// chain does.
func TestHook_lfs(t *testing.T) {
	needs(t, "git-lfs")
	const (
		local    = `git gitops install`
		global   = `git gitops install --global`
		template = `git gitops install --template "$TOP/tpl"; git config --global init.templateDir "$TOP/tpl"`
	)
	for _, tt := range []struct {
		name, before, after string // the clone
		uploads             string // who does
	}{
		{"only LFS", "git lfs install", "", ""},
		{"user, then ours", "git lfs install", local, "hooks/pre-push"},
		{"ours, then user", "", local + "; git lfs install || :", "hooks/pre-push"},
		{"ours, then repository", "git lfs install --skip-repo", local + "; git lfs install --local || :", "hooks/pre-push"},
		{"repository, then ours", "git lfs install --skip-repo", "git lfs install --local; " + local, "pre-push.chained"},
		{"user, then global", "git lfs install; " + global, "", "git-gitops/hooks/pre-push"},
		{"global, then user", global + "; git lfs install", "", "git-gitops/hooks/pre-push"},
		{"repository, then global", "git lfs install --skip-repo", "git lfs install --local; " + global, ".git/hooks/pre-push"},
		{"global, then repository", global + "; git lfs install --skip-repo", "git lfs install --local || :", "git-gitops/hooks/pre-push"},
		{"user, then template", "git lfs install; " + template, "", ".git/hooks/pre-push"},
		{"template, then user", template + "; git lfs install", "", ".git/hooks/pre-push"},
		{"template, then repository", template + "; git lfs install --skip-repo", "git lfs install --local || :", ".git/hooks/pre-push"},
		{"both forms", "git lfs install; " + template, global, "git-gitops/hooks/pre-push"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hookWorld(t)
			w = w.with("TOP=" + w.dir)
			r := w.ok(tt.before + "\n" + `git clone -q "$1" work; cd work; ` + tt.after + `
				git lfs track '*.bin' >&2; echo content >a.bin; edit one; git gitops doctor >../doctor || :
				GIT_TRACE=1 git push -q 2>../trace; freed; cat ../trace >&2
				git push -q origin HEAD:other; freed
				cd ..; git clone -q "$1" fresh; cat fresh/a.bin; [ "$(git -C fresh lfs ls-files --size | wc -l)" = 1 ]`)
			if !strings.HasSuffix(r.stdout, "content\n") {
				t.Errorf("a fresh clone has not the content: %s", r)
			}
			if n := strings.Count(w.read("trace"), "exec: git-lfs pre-push"); n != 1 {
				t.Errorf("git lfs pre-push ran %d times\n%s", n, w.read("trace"))
			}
			if doctor := w.read("doctor"); tt.uploads != "" {
				wantText(t, doctor, "Git LFS content is uploaded by ", tt.uploads+"\n")
			}
		})
	}
}

// TestHook_lfsTold: install and uninstall say which hook uploads, or that none does.
func TestHook_lfsTold(t *testing.T) {
	needs(t, "git-lfs")
	w := hookWorld(t)
	r := w.ok(`git lfs install --skip-repo; git clone -q "$1" work; cd work; git gitops install
		git lfs track '*.bin'; echo content >a.bin; edit one; git gitops install; git gitops uninstall; git gitops doctor || :`)
	wantText(t, r.stderr, "Git LFS content of this repository is uploaded by "+w.path("work/.git/hooks/pre-push"), "no hook uploads its content: git lfs update")
	wantText(t, r.stdout, "this repository uses Git LFS, and no pre-push hook in")
}
