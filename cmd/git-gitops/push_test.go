//go:build unix

package main

import (
	"fmt"
	"strings"
	"testing"
)

// guardedRemote is a remote whose hook notes the locks that are held while a push is received, and
// refuses the push when there is a file named refuse.
func (w *world) guardedRemote() string {
	w.t.Helper()
	remote := w.seed("remote.git")
	w.write("remote.git/hooks/pre-receive", fmt.Sprintf(`#!/bin/sh
redis-cli -p %s keys 'gitops:lock:*' | sort >%s/held
if [ -e %[2]s/refuse ]; then echo policy says no >&2; exit 1; fi
`, w.redis.Port, w.dir))
	w.must("remote.git", "git branch old && git branch prod && git config receive.denyDeleteCurrent ignore && git config receive.denyCurrentBranch ignore")
	w.must(".", "git clone -q remote.git start && cd start && git branch -q prod origin/prod && git commit -q --allow-empty -m one && git tag v1 && git tag -am two v2")
	return remote
}

// TestPush_forms: whatever the form, the locks of exactly the branches that it updates are held
// while the server receives it, and none after.
func TestPush_forms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.guardedRemote()
	remote := w.path("remote")
	for _, tc := range []struct {
		script string
		held   string // branches
	}{
		{"git gitops push", "main"},
		{"git gitops push origin", "main"},
		{"git gitops push origin main", "main"},
		{"git gitops push -u origin main", "main"},
		{"git gitops push origin HEAD", "main"},
		{"git gitops push origin @", "main"},
		{"git gitops push origin HEAD:main", "main"},
		{"git gitops push origin HEAD:refs/heads/main", "main"},
		{"git gitops push --set-upstream origin HEAD:new --follow-tags --atomic", "new"},
		{"git gitops push ../remote.git HEAD:main", "main"},
		{"git gitops push file://$PWD/../remote.git HEAD:main", "main"},
		{"git gitops push --repo=../remote.git", "main"},
		{"git gitops push --force-with-lease origin main", "main"},
		{"git gitops push -f origin main:prod", "prod"},
		{"git gitops push origin +main:prod", "prod"},
		{"git gitops push origin main main:prod", "main prod"},
		{"git gitops push --atomic origin main:prod main", "main prod"},
		{"git gitops push origin :old", "old"},
		{"git gitops push origin --delete old", "old"},
		{"git gitops push -d origin old prod", "old prod"},
		{"git gitops push --all", "main prod"},
		{"git gitops push origin 'refs/heads/*'", "main prod"},
		{"git gitops push --mirror", "main old prod"},
		{"git gitops push --prune origin 'refs/heads/*:refs/heads/*'", "main old prod"},
		{"git gitops push --tags", ""},
		{"git gitops push origin v1", ""},
		{"git gitops push origin tag v2", ""},
		{"git gitops push origin refs/tags/v1 HEAD:refs/notes/x", ""},
		{"git gitops push origin HEAD:refs/changes/1", ""},
		{"git gitops -c push.default=current push", "main"},
		{"git gitops -c push.default=upstream push", "main"},
		{"git gitops -c push.default=simple push", "main"},
		{"git checkout -q -b topic -t origin/prod && git commit -q --allow-empty -m t && git gitops -c push.default=upstream push", "prod"},
		{"git checkout -q -b topic && git gitops -c push.default=current push", "topic"},
		{"git checkout -q --detach && git commit -q --allow-empty -m d && git gitops push origin HEAD:main", "main"},
		{"git checkout -q prod && git commit -q --allow-empty -m p && git gitops -c push.default=matching push", "main prod"},
		{"git gitops -c remote.origin.push=main:prod push", "prod"},
		{"git gitops -c remote.pushDefault=up -c remote.up.url=../remote.git push", "main"},
		{"git config remote.origin.pushurl $PWD/../remote.git && git gitops push", "main"},
		{"cd .. && git gitops -C work push origin main", "main"},
		{"git config alias.ship 'push origin' && git gitops ship main", "main"},
		{"git gitops push --no-verify -q origin main", "main"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			w := *w
			w.t = t
			w.must(".", "rm -rf work keep held; cp -a start work; cp -a remote.git keep")
			r := w.bash("work", tc.script)
			wantCode(t, r, 0)
			if r.ours() != "" {
				t.Errorf("our lines: %s", r.ours())
			}
			var want []string
			for branch := range strings.FieldsSeq(tc.held) {
				want = append(want, lockKey(remote, branch))
			}
			if held := strings.TrimSpace(w.read("held")); held != strings.Join(want, "\n") {
				t.Errorf("held during the push: %q, want %q", held, want)
			}
			w.wantLocks()
			if n := w.must("work", "ls .git/gitops 2>/dev/null | grep -c json || true"); n != "0" {
				t.Errorf("the clone remembers %s locks", n)
			}
			w.must(".", "rm -rf remote.git && mv keep remote.git")
		})
	}
}

// TestPush_waits: a push of a branch that this clone does not hold waits for the one who does.
func TestPush_waits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.guardedRemote()
	w.must(".", "git gitops clone -q remote.git holder")
	for _, target := range []string{"origin", "../remote.git"} {
		w.must("holder", "git gitops lock 2>/dev/null")
		w.must("start", "git commit -q --allow-empty -m more")
		p := w.start("start", "git", "gitops", "push", target, "main")
		w.until("the push to "+target+" waits", func() bool { return w.queued() == 1 })
		if w.must("start", "git rev-list --count origin/main..main") == "0" {
			t.Error("it was pushed already")
		}
		w.wantLocks(lockKey(remote, "main"))
		w.must("holder", "git gitops unlock")
		r := p.wait()
		wantCode(t, r, 0)
		wantText(t, r.ours(), "waiting for the lock on", "got the lock on")
		w.wantLocks()
	}
}

// TestPush_narrowLock: with GITOPS_LOCK_NAME the branch's own lock is held as well, for just the
// push.
func TestPush_narrowLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.guardedRemote()
	w = w.with("GITOPS_LOCK_NAME=svc.acct1")
	w.must(".", "git gitops clone -q remote.git work")
	narrow := "gitops:lock:{" + w.path("remote") + "@main:svc.acct1}"
	w.wantLocks(narrow)
	w.must("work", "git commit -q --allow-empty -m one && touch ../refuse")
	wantCode(t, w.bash("work", "git gitops push"), 1)
	w.wantLocks(narrow) // the failed push gave the branch's own lock back
	w.must("work", "rm ../refuse && git gitops push -q")
	if held := strings.Fields(w.read("held")); len(held) != 2 || held[0] != narrow || held[1] != lockKey(remote, "main") {
		t.Errorf("held during the push: %q", held)
	}
	w.wantLocks()
}

// TestPush_failed: a push that fails ends with git's code and keeps the lock, so that the script's
// next try is still in its turn.
func TestPush_failed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.guardedRemote()
	main := lockKey(remote, "main")
	w.must(".", "git gitops clone -q remote.git work && git -C work commit -q --allow-empty -m one && touch refuse")
	r := w.bash("work", "git gitops push -u origin main")
	wantCode(t, r, 1)
	wantText(t, r.theirs(), "policy says no", "pre-receive hook declined")
	w.wantLocks(main)
	wantCode(t, w.bash("work", "git gitops push origin no-such-branch"), 1)
	wantCode(t, w.bash("work", "git gitops push --no-such-option"), 129)
	wantCode(t, w.bash("work", "git gitops push --dry-run"), 0)
	w.wantLocks(main)
	w.must("work", "rm ../refuse && git gitops push -u origin main")
	w.wantLocks()

	// The same for a branch whose lock the push itself took.
	w.must("work", "touch ../refuse && git commit -q --allow-empty -m two")
	wantCode(t, w.bash("work", "git gitops push origin main"), 1)
	w.wantLocks(main)
	w.must("work", "rm ../refuse && git gitops push")
	w.wantLocks()

	// Somebody outside the lock moves the branch: git rejects, the lock stays, pull and push
	// succeed.
	w.must(".", "git gitops clone -q remote.git late && git -C late commit -q --allow-empty -m late")
	w.must("work", "git commit -q --allow-empty -m outside && git push -q")
	r = w.bash("late", "git gitops push")
	wantCode(t, r, 1)
	wantText(t, r.theirs(), "rejected")
	w.wantLocks(main)
	w.must("late", "git gitops pull -q --rebase && git gitops push -q")
	w.wantLocks()
}

// TestPush_tagsNeedNoRedis: what takes no lock works without Redis.
func TestPush_tagsNeedNoRedis(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.guardedRemote()
	w = w.with("REDIS_PORT=1")
	w.must("start", "git gitops push -q origin v1 && git gitops push -q --tags && git gitops push -q --dry-run origin main && git gitops push -q origin :refs/tags/v1")
	if got := w.must("remote.git", "git tag"); got != "v2" {
		t.Errorf("tags at the remote: %q", got)
	}
	wantCode(t, w.bash("start", "git gitops push origin main"), 69)
	wantCode(t, w.bash("start", "git gitops push --follow-tags"), 69)
}
