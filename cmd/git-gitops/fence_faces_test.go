//go:build unix

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestFence_faces: each way to push under the lock declares what it pushes. The server has asked
// before, so nothing needs a second try.
func TestFence_faces(t *testing.T) {
	t.Parallel()
	faces := map[string]struct{ before, push string }{ // push has the branch and the words of the push
		"subcommand":          {"", "git gitops push %[2]s"},
		"shim":                {`git gitops install --shim "$PWD/../shim" >/dev/null`, `PATH="$PWD/../shim:$PATH" git push %[2]s`},
		"alias":               {"git config alias.send push", "git gitops send %[2]s"},
		"hook":                {"git gitops install", "git push %[2]s"},
		"hook of an own name": {"printf '#!/bin/sh\nexit 0\n' >.git/hooks/pre-push && chmod +x .git/hooks/pre-push && git gitops install", "git push %[2]s"},
		"run":                 {"", "git gitops run --branch %[1]s -- git gitops push %[2]s"},
		"run, plain git":      {"", "git gitops run --branch %[1]s -- git push %[2]s"},
		"run, a script of plain git": {
			`printf '#!/bin/bash\ngit status -s\ncd .. && git -C work push "$@"\n' >../deploy && chmod +x ../deploy`,
			"git gitops run --branch %[1]s -- ../deploy %[2]s",
		},
		"lock and unlock": {"", "git gitops lock --branch %[1]s && git gitops push %[2]s && git gitops unlock --branch %[1]s"},
		"porcelain":       {"", "git gitops push --porcelain %[2]s"},
		"a lock's name":   {"", "GITOPS_LOCK_NAME=a git gitops push %[2]s"},
	}
	parsed := []string{"subcommand", "shim", "hook", "run, plain git"} // the others are called in another way only
	shapes := []struct {
		name, edit, branch, words string
		others                    bool // also with the other faces
	}{
		{"fast-forward", "git commit -q --allow-empty -m ff", "main", "origin main", true},
		{"as configured", "git commit -q --allow-empty -m plain", "main", "", false},
		{"new branch", "git commit -q --allow-empty -m new", "release/1", "origin HEAD:release/1", true},
		{"several", "git commit -q --allow-empty -m several", "main", "origin HEAD:main HEAD:release/1", false},
		{"several, atomic", "git commit -q --allow-empty -m atomic", "main", "--atomic origin HEAD:main HEAD:release/1 HEAD:release/2", true},
		{"forced", "git commit -q --amend --allow-empty -m forced", "main", "--force origin HEAD:main", true},
		{"forced by a plus", "git commit -q --amend --allow-empty -m plus", "main", "origin +HEAD:main", false},
		{"with a lease", "git commit -q --amend --allow-empty -m lease", "main", "--force-with-lease origin HEAD:main", false},
		{"with an exact lease", "git commit -q --amend --allow-empty -m exact", "main", `--force-with-lease=main:$(git -C ../remote.git rev-parse main) origin HEAD:main`, false},
		{"delete", "true", "release/1", "origin :release/1", true},
		{"delete by option", "true", "release/2", "origin --delete release/2", false},
		{"by URL", "git commit -q --allow-empty -m url", "main", "../remote.git HEAD:main", false},
		{"all branches", "git fetch -q && git branch -f release/3 && git commit -q --allow-empty -m all", "main", "--all origin", false},
	}
	for name, face := range faces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fenceWorld(t)
			w.must(".", `git clone -q remote.git plain && cd plain && git commit -q --allow-empty -m plain &&
				for b in main release/1 release/2 release/3; do ! git push -q origin HEAD:$b 2>/dev/null || exit 1; done`)
			w.must("remote.git", "mv gitops-fence.log first.log")
			w.must(".", "git clone -q remote.git work")
			if face.before != "" {
				w.must("work", face.before)
			}
			for _, s := range shapes {
				if !s.others && !slices.Contains(parsed, name) {
					continue
				}
				r := w.bash("work", s.edit+" && "+fmt.Sprintf(face.push, s.branch, s.words))
				if r.code != 0 {
					t.Fatalf("%s: %s\n%s", s.name, r, w.bash("remote.git", "cat gitops-fence.log"))
				}
				want := w.must("work", "git rev-parse HEAD")
				switch {
				case strings.HasPrefix(s.name, "delete"):
					if tip := w.tip(s.branch); tip != "" {
						t.Errorf("%s: %s is at %s", s.name, s.branch, tip)
					}
				case w.tip(s.branch) != want:
					t.Errorf("%s: %s is at %s, want %s", s.name, s.branch, w.tip(s.branch), want)
				}
			}
			if log := w.read("remote.git/gitops-fence.log"); strings.Contains(log, "refused") {
				t.Errorf("not everything was declared at once:\n%s", log)
			}
		})
	}
}

// TestFence_unknown: a client that does not know yet that the server asks lands by a second try, or
// at once where there can be none.
func TestFence_unknown(t *testing.T) {
	t.Parallel()
	for name, push := range map[string]string{
		"subcommand": "git gitops push -q",
		"by URL":     "git gitops push -q ../remote.git HEAD:main",
		"porcelain":  "git gitops push -q --porcelain",
		"terminal":   "script -qefc 'git gitops push -q' /dev/null </dev/null",
		"hook":       "git gitops install && git push -q",
		"stale":      "git update-ref -d refs/remotes/origin/main && git gitops push -q origin HEAD:main",
		"run":        "git gitops run -- git push -q",
		"narrow":     "GITOPS_LOCK_NAME=a GITOPS_PUSH_REBASE=true git gitops push -q",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fenceWorld(t)
			w.must(".", "git clone -q remote.git work && git -C work commit -q --allow-empty -m work")
			wantCode(t, w.bash("work", push), 0)
			if w.tip("main") != w.must("work", "git rev-parse HEAD") {
				t.Error("it has not landed")
			}
		})
	}
}

// TestFence_run: under run, plain git is guarded only where it pushes to the branch that is locked.
func TestFence_run(t *testing.T) {
	t.Parallel()
	w := fenceWorld(t)
	w.seed("other.git")
	w.must(".", "git clone -q remote.git work && git clone -q other.git beside && git -C beside commit -q --allow-empty -m x")
	w.must(".", "git -C beside gitops lock") // git gitops push would wait for it
	w.write("deploy", `#!/bin/bash
set -e
git clone -q ../other.git again
git -C ../beside push -q
git commit -q --allow-empty -m feature
git push -q origin HEAD:feature
git gitops run --repo ../other.git --branch side -- bash -c 'git push -q origin HEAD:main && git -C ../beside push -q origin HEAD:side'
git push -q origin HEAD:main
command -v git
`)
	out := w.must("work", "git gitops run -- ../deploy; hash -r; command -v git")
	lines := strings.Split(out, "\n")
	if len(lines) != 2 || lines[0] == lines[1] {
		t.Errorf("git is %q", lines)
	}
	if w.tip("main") != w.must("work", "git rev-parse HEAD") || w.must("other.git", "git rev-parse main side | uniq | wc -l") != "1" {
		t.Error("not everything has landed")
	}
	log := w.must("remote.git", "grep -c ' allowed$' gitops-fence.log; grep -c refused gitops-fence.log || true")
	if log != "1\n1" { // the first one did not know that the server asks
		t.Errorf("%q", log)
	}
	w.wantLocks(lockKey(w.path("other"), "main"))
}
