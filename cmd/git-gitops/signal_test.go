//go:build unix

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWaiter_interrupted: a wait that a signal ends leaves no ticket, holds nothing, and ends as
// the signal says.
func TestWaiter_interrupted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		words []string
		send  syscall.Signal
		alone bool // the signal goes to git only, as from kill, and not to the group, as from a terminal
	}{
		{"clone, Ctrl-C", []string{"git", "gitops", "clone", "remote.git", "late"}, syscall.SIGINT, false},
		{"clone, TERM to all", []string{"git", "gitops", "clone", "remote.git", "late"}, syscall.SIGTERM, false},
		{"clone, TERM to git", []string{"git", "gitops", "clone", "remote.git", "late"}, syscall.SIGTERM, true},
		{"clone, TERM to us", []string{"git-gitops", "clone", "remote.git", "late"}, syscall.SIGTERM, true},
		{"push, Ctrl-C", []string{"git", "gitops", "-C", "plain", "push"}, syscall.SIGINT, false},
		{"push, TERM", []string{"git", "gitops", "-C", "plain", "push"}, syscall.SIGTERM, false},
		{"lock, Ctrl-C", []string{"git", "gitops", "-C", "plain", "lock"}, syscall.SIGINT, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			remote := w.seed("remote.git")
			w.must(".", "git clone -q remote.git plain && git -C plain commit -q --allow-empty -m one && git gitops clone -q remote.git holder")
			p := w.start(".", tc.words...)
			w.until("it waits", func() bool { return w.queued() == 1 })
			if tc.alone {
				if err := p.cmd.Process.Signal(tc.send); err != nil {
					t.Fatal(err)
				}
			} else {
				p.signal(tc.send)
			}
			r := p.wait()
			wantCode(t, r, 128+int(tc.send))
			// git dies of the signal on its own account, and may do so before we have ended.
			w.until("no ticket is left", func() bool { return w.queued() == 0 && len(w.scan("gitops:waiters:*")) == 0 })
			w.wantLocks(lockKey(remote, "main"))
			w.must("holder", "git gitops unlock")
			w.wantLocks()
			if w.exists("late") {
				t.Error("a clone is there")
			}
		})
	}
}

// TestWaiter_killed: a waiter that dies without a word does not keep the next one waiting for
// longer than its sign of life lasts.
func TestWaiter_killed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git holder")
	dead := w.with("GITOPS_CLONE_AHEAD=off").start(".", "git", "gitops", "clone", "-q", "remote.git", "dead")
	w.until("one waits", func() bool { return w.queued() == 1 })
	next := w.start(".", "git", "gitops", "clone", "-q", "remote.git", "next")
	w.until("two wait", func() bool { return w.queued() == 2 })
	dead.signal(syscall.SIGKILL)
	dead.wait()
	w.must("holder", "git gitops unlock")
	released := time.Now()
	wantCode(t, next.wait(), 0) // and not 75, as when it waits for the dead
	t.Logf("the next waiter came to its turn after %s", time.Since(released))
	if w.queued() != 0 || w.exists("dead") {
		t.Error("something of the dead waiter is left")
	}
}

// TestClone_interrupted: Ctrl-C while git clones ends git, and the lock with it.
func TestClone_interrupted(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		w := newWorld(t)
		remote := w.seed("remote.git")
		slow := w.write("slow", "#!/bin/sh\ntouch started\nexec sleep 600\n")
		p := w.start(".", "git", "gitops", "clone", "-b", "main", "-u", slow, "remote.git", "work")
		w.until("git clones", func() bool { return w.exists("started") })
		w.wantLocks(lockKey(remote, "main"))
		p.signal(sig)
		wantCode(t, p.wait(), 128+int(sig))
		w.until("the lock is free", func() bool { return len(w.locks()) == 0 })
	}
}

// TestInterrupted_question: after Ctrl-C during a question to the remote, what the question is for
// does not begin.
func TestInterrupted_question(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) *world {
		w := newWorld(t).with("GIT_SSH_VARIANT=ssh")
		w.seed("remote.git")
		ssh := w.write("bin/slow-ssh", fmt.Sprintf(`#!/bin/sh
for last; do :; done
echo "$last" >>%[1]s/asked
while [ -e %[1]s/slow ]; do sleep 0.05; done
exec sh -c "$last"
`, w.dir))
		return w.with("GIT_SSH=" + ssh)
	}
	interrupt := func(w *world, p *process) {
		w.t.Helper()
		w.until("it asks", func() bool { return w.exists("asked") })
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // and not to git
			w.t.Fatal(err)
		}
		w.until("it ends or goes on", func() bool {
			select {
			case <-p.done:
				return true
			default:
				return strings.Count(w.read("asked"), "\n") > 1
			}
		})
		w.must(".", "rm slow")
		wantCode(w.t, p.wait(), 143)
		if asked := w.read("asked"); strings.Count(asked, "\n") != 1 {
			w.t.Errorf("it went on to %s", asked)
		}
	}
	t.Run("clone", func(t *testing.T) {
		t.Parallel()
		w := begin(t)
		w.write("slow", "")
		interrupt(w, w.start(".", "git-gitops", "clone", "-q", "ssh://host"+w.path("remote.git"), "work"))
		if w.exists("work") {
			t.Error("it cloned")
		}
	})
	t.Run("base check", func(t *testing.T) {
		t.Parallel()
		w := begin(t)
		w.must(".", "git gitops clone -q ssh://host"+w.path("remote.git")+" work; git -C work commit -q --allow-empty -m mine; git -C remote.git update-ref -d refs/heads/main; rm asked")
		w.keys.FlushAll(t.Context()) // the lock is taken back, and the branch may have moved meanwhile
		w.write("slow", "")
		interrupt(w, w.start("work", "git-gitops", "push", "-q", "origin", "main"))
		if tip := w.tip("main"); tip != "" {
			t.Errorf("it pushed %s", tip)
		}
	})
}
