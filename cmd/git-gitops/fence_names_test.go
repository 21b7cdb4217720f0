//go:build unix

package main

import (
	"strings"
	"testing"
)

// TestFence_names: a protected branch is protected under every name by which a push may reach it.
func TestFence_names(t *testing.T) {
	t.Parallel()
	const another = "is another name of a protected branch"
	for name, tc := range map[string]struct {
		server string   // what is done in the repository of the server
		pushes []string // each is refused
		says   string
		lands  string // what the holder of the lock can still do, if it is not a push to main
	}{
		"a symbolic ref": {
			server: "git symbolic-ref refs/heads/alias refs/heads/main && git symbolic-ref refs/heads/second refs/heads/alias && git symbolic-ref refs/tags/marked refs/heads/main",
			pushes: []string{
				"git push origin HEAD:alias", "git push -f origin HEAD:alias", "git push origin :alias", "git push origin HEAD:second",
				"git push -f origin HEAD:refs/tags/marked", "git push origin :refs/tags/marked", "git push origin HEAD:feature HEAD:alias", "git gitops push origin HEAD:alias",
				"git gitops run --branch main -- git push origin HEAD:alias",
			},
			says: another,
		},
		"a symbolic ref to a branch that is not there yet": {
			server: "git symbolic-ref refs/heads/next refs/heads/release/9",
			pushes: []string{"git push origin HEAD:next", "git gitops push origin HEAD:next"},
			says:   another,
		},
		"what a protected name stands for": {
			server: "git branch new main && git symbolic-ref refs/heads/old refs/heads/new && git config --add gitops.protect old",
			pushes: []string{"git push origin HEAD:new", "git push origin :new"},
			says:   "nobody holds the lock on ",
			lands:  "git gitops push origin HEAD:new",
		},
		"a symbolic ref that is itself protected": {
			server: "git branch new main && git symbolic-ref refs/heads/old refs/heads/new && git config --add gitops.protect old",
			pushes: []string{"git push origin HEAD:old", "git gitops push origin HEAD:old"},
			says:   another,
		},
		"a namespace": {
			server: "git update-ref refs/namespaces/n/refs/heads/main main",
			pushes: []string{"git push origin HEAD:refs/namespaces/n/refs/heads/main", "git push origin :refs/namespaces/n/refs/heads/main"},
			says:   another,
		},
		"in a namespace": {
			server: "git update-ref refs/namespaces/n/refs/heads/main main",
			pushes: []string{"git -c protocol.ext.allow=always push 'ext::git --namespace=n %s ../remote.git' HEAD:main"},
			says:   "[gitops: not-held]",
		},
		"a symbolic ref in a namespace": {
			server: "git update-ref refs/namespaces/n/refs/heads/main main && git symbolic-ref refs/namespaces/n/refs/heads/alias refs/namespaces/n/refs/heads/main",
			pushes: []string{"git -c protocol.ext.allow=always push 'ext::git --namespace=n %s ../remote.git' HEAD:alias"},
			says:   another,
		},
		"capitals, where the file system ignores them": {
			server: "git config core.ignoreCase true",
			pushes: []string{"git push origin HEAD:MAIN", "git push origin HEAD:refs/Heads/main", "git push origin HEAD:Release/1", "git gitops push origin HEAD:Main"},
			says:   another,
		},
		"capitals, under a pattern": {
			server: "git config core.ignoreCase true && git branch release/a main",
			pushes: []string{
				"git push origin HEAD:release/A", "git gitops push origin HEAD:release/A", "git push -f origin HEAD:release/A", "git push origin :refs/heads/release/A",
				"git gitops push origin HEAD:release/a HEAD:release/A", "git gitops push origin HEAD:release/b HEAD:release/B",
			},
			says:  another,
			lands: "git gitops push -q origin HEAD:release/a && git gitops push -q origin HEAD:release/RC1 && git gitops push -q origin HEAD:feature HEAD:Feature",
		},
		"capitals, both there": {
			server: "git config core.ignoreCase true && git branch release/a main && git branch release/A main",
			pushes: []string{"git gitops push origin HEAD:release/A", "git gitops push origin HEAD:release/a", "git push origin :release/A"},
			says:   "this repository ignores case (core.ignoreCase) and has refs/heads/release/",
		},
		"a linked work tree": {
			server: "git worktree add -q -b other ../tree main",
			pushes: []string{"git push ../tree HEAD:main", "git push -f ../tree HEAD:main", "git push ../remote.git/worktrees/tree HEAD:main"},
			says:   "[gitops: not-held]",
			lands:  "git gitops push ../tree HEAD:main",
		},
		"push options": {
			server: "git config receive.advertisePushOptions true && git config gitops.protectExempt GL_USERNAME=bot",
			pushes: []string{"git push -o GL_USERNAME=bot", "git push -o gitops.protect= -o ci.skip"},
			says:   "[gitops: not-held]",
		},
		"a hidden ref": {
			server: "git config transfer.hideRefs refs/heads/main",
			pushes: []string{"git push origin HEAD:main", "git push -f origin HEAD:main"},
			says:   "hidden ref",
			lands:  "git -C ../remote.git config --unset transfer.hideRefs && git gitops push -q",
		},
		"objects that are there already": {
			server: `git init -q --bare ../fork.git && git -C ../plain push -q ../fork.git HEAD:main && echo "$PWD/../fork.git/objects" >objects/info/alternates`,
			pushes: []string{"git push", "git push -f"},
			says:   "[gitops: not-held]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fenceWorld(t)
			w.must(".", "git clone -q remote.git plain && git -C plain commit -q --allow-empty -m plain")
			w.must("remote.git", tc.server)
			refs := func() string {
				return w.must("remote.git", "git for-each-ref --format='%(refname) %(objectname) %(symref)'; git symbolic-ref HEAD")
			}
			before := refs()
			for _, push := range tc.pushes {
				r := w.bash("plain", push)
				if r.code == 0 || !strings.Contains(r.stderr, tc.says) {
					t.Errorf("%s: %s", push, r)
				}
				if after := refs(); after != before {
					t.Fatalf("%s changed the repository: %s\nbefore\n%s\nafter\n%s", push, r, before, after)
				}
			}
			lands := tc.lands
			if lands == "" {
				lands = "git gitops push -q"
			}
			w.must("plain", "git gitops unlock --all; "+lands)
			if refs() == before {
				t.Errorf("%s has changed nothing", lands)
			}
		})
	}
}

// TestFence_oddNames: names that only a hand-made client can send, and that git itself refuses.
func TestFence_oddNames(t *testing.T) {
	t.Parallel()
	w := fenceWorld(t)
	w.must(".", "git clone -q remote.git plain && git -C plain commit -q --allow-empty -m plain && git -C plain push -q origin HEAD:feature")
	w.write("send", `#!/bin/bash
# send OLD NEW REF: the bytes of a push whose objects the server has
words="$1 $2 $3"
{ printf '%04x%s\0report-status0000' $((4 + ${#words} + 14)) "$words"; git -C plain pack-objects --stdout </dev/null 2>/dev/null; } |
	git receive-pack remote.git | tr -d '\0'
`)
	main, feature, zeros := w.tip("main"), w.tip("feature"), strings.Repeat("0", 40)
	// The bytes are right: a branch that nobody protects is made.
	wantText(t, w.must(".", `./send "$1" "$2" refs/heads/free`, zeros, feature), "ok refs/heads/free")
	for _, ref := range []string{
		"HEAD", "refs/heads/main/../main", "refs/heads/../heads/main", "refs/heads//main", "refs/heads/./main", "refs/heads/main/", "refs/heads/main.lock",
		"refs/heads/main ", "refs\\heads\\main", "main", "/refs/heads/main", "--exec=x", "worktrees/x/HEAD", "main-worktree/refs/heads/main",
	} {
		for _, moves := range [][2]string{{main, feature}, {zeros, feature}, {main, zeros}} {
			out := w.bash(".", `./send "$@"`, moves[0], moves[1], ref)
			if strings.Contains(out.stdout, "\nok ") || !strings.Contains(out.stdout, "ng "+ref) || w.tip("main") != main {
				t.Errorf("%q from %.4s to %.4s: %s", ref, moves[0], moves[1], out)
			}
		}
	}
	out := w.bash(".", `./send "$@"`, main, feature, "refs/heads/main")
	wantText(t, out.stdout, "ng refs/heads/main pre-receive hook declined")
	if got := w.must("remote.git", "git symbolic-ref HEAD && git rev-parse HEAD"); got != "refs/heads/main\n"+main {
		t.Errorf("HEAD is %s", got)
	}
}
