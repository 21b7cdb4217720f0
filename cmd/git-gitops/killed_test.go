//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// running are the processes of this world's scripts, without Redis and without keepers: those whose
// environment names its folder, as CI runners look for what a job has left.
func (w *world) running() (all []string) {
	for pid, line := range commandLines() {
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // empty for a zombie
		if bytes.Contains(environ, []byte("HOME="+w.dir+"/")) && !strings.HasPrefix(line, keeperWords) {
			all = append(all, strings.ReplaceAll(line, "\x00", " "))
		}
	}
	return all
}

// waiting has git wait. So long the command has to note the process that it has just started, which
// nobody sees.
const waiting = `sleep 5; : >"$TOP/started"; until [ -e "$TOP/go" ]; do sleep 0.05; done`

// TestKilled: when a process is killed from outside, all of its git processes end, and what had not
// landed does not land. The blocks are of every kind that git waits for.
func TestKilled(t *testing.T) {
	t.Parallel()
	hook := func(name string) func(*world) {
		return func(w *world) { w.write(name, "#!/bin/sh\n"+waiting+"\n") }
	}
	ours := func(w *world) { hook("work/.git/hooks/pre-push")(w); w.must("work", "git gitops install") }
	ssh := func(w *world) { w.must("work", "git config remote.origin.url host:remote.git") }
	held := func(w *world) { w.must(".", "git gitops clone -q host:remote.git holder") }
	nothing := func(*world) {}
	push := []string{"-C", "work", "push", "-q", "origin", "main"}
	clone := []string{"clone", "-q", "-b", "main", "host:remote.git", "late"}
	command := []string{"run", "--repo", "remote.git", "--branch", "main", "--", "bash", "-c", waiting + "; git -C work push -q origin main"}
	for _, tc := range []killing{
		{"push, a hook", push, hook("work/.git/hooks/pre-push")},
		{"push, the server's hook", push, hook("remote.git/hooks/pre-receive")},
		{"push, connecting", push, ssh},
		{"push, a question", push, func(w *world) {
			ssh(w)
			w.env["GITOPS_LOCK_NAME"], w.env["GITOPS_PUSH_REBASE"] = "name", "true" // what is at the remote comes in first
		}},
		{"clone", clone, nothing},
		{"clone ahead", clone, held},
		{"run", command, nothing},
		{"plain push", push, ours},
	} {
		for _, face := range []string{"git-gitops", "git gitops", "shim"} {
			switch {
			case tc.name == "plain push" && face != "git gitops", tc.name == "run" && face == "shim":
				continue
			}
			t.Run(tc.name+", "+face, func(t *testing.T) {
				t.Parallel()
				for range 3 { // git that has no processor for half a second is killed as well
					if !tc.kill(t, face) {
						return
					}
				}
				t.Error("a clone is left")
			})
		}
	}
}

// killing is a command that is killed while git waits.
type killing struct {
	name    string
	words   []string
	prepare func(*world)
}

// kill kills the command, given to git or us by a face, and reports whether it left a clone.
func (tc killing) kill(t *testing.T, face string) (left bool) {
	t.Helper()
	w := newWorld(t)
	w = w.with("REMOTE="+w.seed("remote.git"), "TOP="+w.dir, "GIT_SSH="+w.path("ssh"), "GIT_SSH_VARIANT=simple")
	w.write("ssh", "#!/bin/sh\nif [ -e \"$TOP/slow\" ]; then "+waiting+`; fi; cd "$TOP" && exec sh -c "$2"`+"\n")
	w.must(".", `git clone -q "$REMOTE" work && git -C work commit -q --allow-empty -m edit`)
	tc.prepare(w)
	w.write("slow", "")
	tip := w.must("remote.git", "git rev-parse main")

	words := []string{face}
	switch {
	case tc.name == "plain push":
		words[0] = "git"
	case face == "git gitops":
		words = []string{"git", "gitops"}
	case face == "shim":
		w.must(".", "git gitops install --shim shim >install")
		words[0] = w.path("shim/git")
	}
	p := w.start(".", append(words, tc.words...)...)
	w.until("git waits", func() bool {
		select {
		case <-p.done:
			t.Fatalf("it ended: %s", p.wait())
		default:
		}
		return w.exists("started")
	})
	if err := syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !gittest.Reached(func() bool { return len(w.running()) == 0 }) {
		t.Fatalf("still running: %q", w.running())
	}
	wantCode(t, p.wait(), 128+int(syscall.SIGKILL))
	w.write("go", "")
	if got := w.must("remote.git", "git rev-parse main"); got != tip {
		t.Errorf("the push has landed")
	}
	return w.exists("late")
}
