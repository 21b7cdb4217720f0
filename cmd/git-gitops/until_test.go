//go:build unix

package main

import (
	"testing"

	"github.com/git-gitops/git-gitops/internal/workspace"
)

// TestUntil: with GITOPS_LOCK_UNTIL=session a script that pushes several times, a release and then
// the next version, has the lock for all of it; whoever comes next gets it when the script ends.
func TestUntil(t *testing.T) {
	t.Parallel()
	const ours, plain = `git gitops clone -q "$REMOTE" work; cd work`, `git clone -q "$REMOTE" work; cd work`
	for _, tc := range []struct {
		name, take, push string
		settings         []string
	}{
		{"lock from clone", ours, "git gitops push -q", []string{"GITOPS_LOCK_UNTIL=session"}},
		{"lock from push", plain, "git gitops push -q", []string{"GITOPS_LOCK_UNTIL=session"}},
		{"git config", ours + "; git config gitops.lockUntil session", "git gitops push -q", nil},
		{"shim", `PATH="$PWD/../shim:$PATH"; ` + plain, "git push -q", []string{"GITOPS_LOCK_UNTIL=session"}},
		{"hook, lock from clone", ours + "; git gitops install", "git push -q", []string{"GITOPS_LOCK_UNTIL=session"}},
		{"hook, lock from push", plain + "; git gitops install", "git push -q", []string{"GITOPS_LOCK_UNTIL=session"}},
		{"a part of the script", ours, "( git gitops push -q; : )", []string{"GITOPS_LOCK_UNTIL=session"}},
		{"workspace", ours, "git gitops push -q", []string{"GITOPS_LOCK_UNTIL=session", "GITOPS_LOCK_SESSION=workspace"}},
		{"by hand, hook", plain + "; git gitops install; git gitops lock", "git push -q", nil},
		{"lock name", ours, "git gitops push -q", []string{"GITOPS_LOCK_UNTIL=session", "GITOPS_LOCK_NAME=app"}},
		{"lock name, hook", ours + "; git gitops install", "git push -q", []string{"GITOPS_LOCK_UNTIL=session", "GITOPS_LOCK_NAME=app"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newLifeWorld(t).with(tc.settings...)
			next := w.with("GITOPS_LOCK_UNTIL", "GITOPS_LOCK_SESSION")
			w.must(".", `mkfifo gate2; git gitops install --shim ../shim >/dev/null`)
			edit := func(m string) string { return "git commit -q --allow-empty -m " + m + "; " + tc.push }
			p := w.script("set -e", tc.take, edit("release"), ": >../released; cat ../gate", edit("next"), ": >../done; cat ../gate2",
				"git gitops unlock --all; :")
			w.reaches(p, "released")
			held := func() []string { return w.scan("gitops:lock:*" + w.path("remote") + "@*") }
			builds := func() string { // on which commit, when the clone remembers one lock
				entries, err := workspace.At(w.path("work", ".git")).Load()
				if err != nil || len(entries) != 1 {
					return ""
				}
				return entries[0].Base
			}
			// The hook's keeper sees the push end a moment later, and so does the end of the
			// branch's own lock.
			tip := w.must("remote.git", "git rev-parse main")
			w.until("the clone builds on what was pushed", func() bool { return builds() == tip && len(held()) == 1 })
			lock := held()[0]
			token := w.keys.Get(t.Context(), lock).Val()

			next.write("next.sh", `git gitops clone -q "$REMOTE" next && git -C next log --format=%s`+"\n:\n")
			after := next.start(".", "bash", "next.sh")
			w.until("the next one waits", func() bool { return w.queued() == 1 })
			w.open("gate")
			w.reaches(p, "done")
			tip = w.must("remote.git", "git rev-parse main")
			w.until("the clone builds on the second push", func() bool { return builds() == tip })
			if got := w.keys.Get(t.Context(), lock).Val(); got != token || w.queued() != 1 {
				t.Errorf("after the pushes the lock is held by %q, not %q, and %d wait", got, token, w.queued())
			}
			w.open("gate2")
			wantCode(t, p.wait(), 0)
			r := after.wait()
			wantCode(t, r, 0)
			wantText(t, r.stdout, "next\nrelease\nseed")
		})
	}
	t.Run("the end of the script", func(t *testing.T) {
		t.Parallel()
		w := newLifeWorld(t).with("GITOPS_LOCK_UNTIL=session")
		p := w.script("set -e", ours, "git commit -q --allow-empty -m one; git gitops push -q; : >../pushed; cat ../gate")
		w.reaches(p, "pushed")
		if w.free() {
			t.Error("the lock is free after the push")
		}
		w.freed(w.open("gate"))
		wantCode(t, p.wait(), 0)
	})
	t.Run("a script that cannot be seen", func(t *testing.T) { // nobody would ever end its lock
		t.Parallel()
		w := newLifeWorld(t).with("GITOPS_LOCK_UNTIL=session")
		w.must(".", plain+"; git commit -q --allow-empty -m one")
		w.must(".", `cd work; ( sh -c 'until [ $(ps -o ppid= $$) = 1 ]; do sleep 0.1; done; exec git gitops push -q' >/dev/null 2>&1 & )`)
		w.until("it has pushed", func() bool { return w.must("remote.git", "git log -1 --format=%s main") == "one" })
		w.until("the lock is free", w.free)
	})
	t.Run("the next base", func(t *testing.T) { // of a lock that is lost after a push is what that push has made
		t.Parallel()
		w := newLifeWorld(t).with("GITOPS_LOCK_UNTIL=session")
		p := w.script("set -e", ours, "git commit -q --allow-empty -m one; git gitops push -q; : >../pushed; cat ../gate",
			"git commit -q --allow-empty -m two; git gitops push -q")
		w.reaches(p, "pushed")
		tip := w.must("remote.git", "git rev-parse --short=10 main")
		w.must(".", `git gitops unlock --force $(git gitops locks --json | jq -r .holder.id)
			git clone -q "$REMOTE" other; git -C other commit -q --allow-empty -m theirs; git -C other push -q`)
		w.open("gate")
		r := p.wait()
		wantCode(t, r, 73)
		w.must("work", "GITOPS_LOCK_SESSION=workspace; export GITOPS_LOCK_SESSION; git gitops push -q 2>../said; git gitops unlock --all")
		wantText(t, w.read("said"), "moved from "+tip)
	})
}
