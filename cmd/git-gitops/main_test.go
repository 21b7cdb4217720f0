//go:build unix

package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/git-gitops/git-gitops/internal/cli"
	"github.com/git-gitops/git-gitops/internal/gittest"
)

// TestMain puts this test binary on the scripts' PATH as git-gitops, so that "git gitops" in a
// script is the program itself.
func TestMain(m *testing.M) {
	gittest.Parallel(8)
	if strings.HasSuffix(os.Args[0], ".test") { // and not what its scripts run
		heedSignals()
	}
	testscript.Main(m, map[string]func(){
		"git-gitops": func() { os.Exit(cli.Main(os.Args)) },
	})
}

// heedSignals has the scripts of the tests get the signals that our caller may have us ignore:
// nohup, or a job in the background. Before all tests, because some compare what is ignored.
func heedSignals() {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// TestMainJob: clone takes the lock, push hands it on, and stdout stays git's.
func TestMainJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := lockKey(w.seed("remote.git"), "main")
	r := w.bash(".", "git gitops clone remote.git work")
	wantCode(t, r, 0)
	if r.stdout != "" || r.ours() != "" || r.stderr != "Cloning into 'work'...\ndone.\n" {
		t.Errorf("got %s", r)
	}
	w.wantLocks(key)
	r = w.bash("work", "echo 1 >counter && git gitops commit -q -a -m one && git gitops push -u origin main")
	wantCode(t, r, 0)
	if r.ours() != "" || w.must("remote.git", "git show main:counter") != "1" {
		t.Errorf("got %s", r)
	}
	w.wantLocks()
	w.must("work", "! [ -e .git/gitops/*.json ]") // nothing of the lock is left
	w.must("work", "git gitops commit -q --allow-empty -m two && git gitops push")
	w.wantLocks()
}

// TestClone_waits: a clone waits for the holder's push, and has what it pushed.
func TestClone_waits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git") // a bare repository, whose file counter says 0
	w.must(".", "git gitops clone -q remote.git one && echo 1 >one/counter && git -C one commit -qam one")
	next := w.start(".", "bash", "-c", "git gitops clone -q remote.git two; exit $?")
	w.until("the next one waits", func() bool { return w.queued() == 1 })
	w.must("one", "git gitops push -q")
	wantCode(t, next.wait(), 0)
	wantText(t, w.read("two/counter"), "1\n")
}
