//go:build unix

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// cloneWaits starts a clone of a locked branch and returns when it has been made ahead. words come
// after "git".
func (w *world) cloneWaits(words string) *process {
	w.t.Helper()
	queued := w.queued()
	p := w.with("GITOPS_LOG=debug").start(".", "bash", "-c", "git "+words+"\nexit $?")
	w.until("the clone waits", func() bool { return w.queued() == queued+1 })
	w.until("the clone is made", func() bool { return strings.Contains(p.stderr.String(), "cloned while waiting") })
	return p
}

// TestAhead: a clone that had to wait is, when its turn has come, like a fresh clone, and prints
// the same.
func TestAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must(".", "git config --global url."+w.dir+"/.insteadOf gh:")
	for name, words := range map[string]string{
		"path":    "remote.git",
		"branch":  "-b main file://" + remote,
		"shallow": "--depth 1 file://" + remote,
		"bare":    "--bare remote.git",
		"local":   "--depth 1 gh:remote.git",
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			w.must(".", "git gitops clone -q remote.git holder")
			var p *process
			if name == "bare" || name == "local" { // left to a fresh clone
				p = w.start(".", "bash", "-c", "git gitops clone "+words+" clone\nexit $?")
				w.until("the clone waits", func() bool { return w.queued() == 1 })
			} else {
				p = w.cloneWaits("gitops clone " + words + " clone")
				if p.stdout.String() != "" || strings.Contains(p.stderr.String(), "Cloning") {
					t.Errorf("it says already: %s%s", &p.stdout, &p.stderr)
				}
			}
			w.must("holder", `git rm -q counter; echo "$1" >other; git add . && git commit -qm "$1"; git branch -q "$1"; git push -q origin "$1"; git gitops push -q`, name)
			got := p.wait()
			wantCode(t, got, 0)
			w.must(".", "mv clone ahead")
			want := w.bash(".", "git clone "+words+" clone")
			if got.theirs() != want.stderr || got.stdout != want.stdout {
				t.Errorf("git: %s\ngitops: %s", want, got)
			}
			look := `cd "$1"; git for-each-ref; git status --porcelain=v2 --branch 2>&1; git log --format=%H --all; git config --list --local; cat other 2>/dev/null
				cut -d' ' -f1,2 .git/logs/HEAD logs/HEAD 2>/dev/null; ls . .git 2>/dev/null | grep -v -e gitops -e packed-refs; true`
			if got, want := w.must(".", look, "ahead"), w.must(".", look, "clone"); got != want {
				t.Errorf("fresh:\n%s\nahead:\n%s", want, got)
			}
			w.must("ahead", "git gitops unlock --all")
			w.wantLocks()
			w.must(".", "rm -rf clone ahead holder; git -C remote.git update-ref refs/heads/main refs/heads/main~1; git -C remote.git branch -D -q "+name)
		})
	}
}

// TestAhead_fails: a clone that cannot be made while it waits is made when its turn has come.
func TestAhead_fails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git branch later main && git symbolic-ref HEAD refs/heads/later")
	w.must(".", "git gitops clone -q remote.git holder")
	w.must("remote.git", "git update-ref -d refs/heads/later")
	p := w.with("GITOPS_LOG=debug").start(".", "bash", "-c", "git gitops clone -b later remote.git clone\nexit $?")
	w.until("the clone has failed", func() bool { return strings.Contains(p.stderr.String(), "not cloning while waiting") })
	if w.exists("clone") {
		t.Error("a folder is left")
	}
	w.must("holder", "git commit -q --allow-empty -m x && git gitops push -q origin HEAD:later")
	r := p.wait()
	wantCode(t, r, 0)
	if want := "Cloning into 'clone'...\ndone.\n"; r.theirs() != want {
		t.Errorf("git says %q, want %q", r.theirs(), want)
	}
	if w.must("clone", "git log -1 --format=%s") != "x" {
		t.Error("the clone is old")
	}
}

// TestAhead_abandoned: a clone that does not get its turn leaves nothing behind, whenever the wait
// ends.
func TestAhead_abandoned(t *testing.T) {
	t.Parallel()
	// waiting is a world in which somebody holds the lock, with a stand-in for ssh that takes its
	// time.
	waiting := func(t *testing.T, settings ...string) *world {
		t.Parallel()
		w := newWorld(t)
		w.seed("remote.git")
		ssh := w.write("bin/slow-ssh", fmt.Sprintf("#!/bin/sh\nfor last; do :; done\n[ ! -e %[1]s/slow ] || { echo $$ >%[1]s/started; sleep 600 & wait; }\ncd %[1]s && eval \"$(echo \"$last\" | sed \"s:'/:':\")\"\n", w.dir))
		w = w.with("GIT_SSH_COMMAND="+ssh, "GIT_SSH_VARIANT=ssh", "GIT_ASKPASS=window", "GITOPS_LOCK_REPO="+w.path("remote"))
		w.must(".", "git gitops clone -q git@host:remote.git holder")
		return w.with(settings...)
	}
	const clone = "git gitops clone -b main git@host:remote.git deep/er/clone\nexit $?"
	// A busy machine must have made the clone in this time.
	const patience = "GITOPS_LOCK_TIMEOUT=20"

	t.Run("timeout", func(t *testing.T) {
		w := waiting(t, patience)
		p := w.cloneWaits("gitops clone git@host:remote.git deep/er/clone")
		wantCode(t, p.wait(), 75)
		if w.exists("deep") {
			t.Error("folders are left")
		}
	})
	t.Run("timeout, into a folder that is there", func(t *testing.T) {
		w := waiting(t, patience)
		w.must(".", "mkdir -p deep/er/clone")
		p := w.cloneWaits("gitops clone git@host:remote.git deep/er/clone")
		wantCode(t, p.wait(), 75)
		if out := w.must(".", "ls -A deep/er/clone"); out != "" {
			t.Errorf("left in the folder that was there: %s", out)
		}
	})
	t.Run("signal while it is made", func(t *testing.T) {
		w := waiting(t)
		w.write("slow", "")
		p := w.start(".", "bash", "-c", clone)
		w.until("the clone has begun", func() bool { return w.exists("started") && w.read("started") != "" })
		p.signal(syscall.SIGTERM)
		p.wait()
		w.until("nobody waits", func() bool { return w.queued() == 0 })
		w.until("all is gone", func() bool {
			return !w.exists("deep") && w.bash(".", `kill -0 "$(cat started)"`).code != 0
		})
	})
	t.Run("somebody else's files", func(t *testing.T) {
		w := waiting(t, patience, "GITOPS_LOG=debug")
		w.must(".", "mkdir -p deep/er/clone")
		p := w.start(".", "bash", "-c", clone)
		w.until("the clone waits", func() bool { return w.queued() == 1 })
		w.write("deep/er/clone/precious", "") // before the clone begins, or while it is made
		wantCode(t, p.wait(), 75)
		if !w.exists("deep/er/clone/precious") && !strings.Contains(p.stderr.String(), "cloned while waiting") {
			t.Error("somebody else's file is gone")
		}
	})
	t.Run("switched off", func(t *testing.T) {
		w := waiting(t, "GITOPS_CLONE_AHEAD=off", "GITOPS_LOCK_TIMEOUT=1", "GITOPS_LOG=debug")
		r := w.bash(".", clone)
		wantCode(t, r, 75)
		if strings.Contains(r.stderr, "ahead") || w.exists("deep") {
			t.Errorf("a clone was made: %s", r)
		}
	})
}

// TestAhead_theirs: files of others where the clone goes are left alone, whether they came before
// it began or after.
func TestAhead_theirs(t *testing.T) {
	t.Parallel()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	first := func(w *world) string {
		return "GITOPS_GIT=" + w.write("bin/first", fmt.Sprintf("#!/bin/sh\ncase $* in *'clone -c gitops.ahead'*) %[1]s clone -q remote.git clone; echo >clone/theirs;; esac\nexec %[1]s \"$@\"\n", git))
	}
	for name, tc := range map[string]struct {
		before func(*world) string
		after  string
	}{
		"another comes first": {before: first},
		"a clone instead":     {after: "rm -rf clone; git clone -q remote.git clone; echo >clone/theirs"},
		"a file instead":      {after: "rm -rf clone; mkdir clone; echo >clone/theirs"},
	} {
		for _, turn := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, its turn comes %t", name, turn), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.seed("remote.git")
				w.must(".", "git gitops clone -q remote.git holder")
				with := w.with("GITOPS_LOG=debug")
				if tc.before != nil {
					with = with.with(tc.before(w))
				}
				if !turn {
					with.env["GITOPS_LOCK_TIMEOUT"] = "20"
				}
				p := with.start(".", "bash", "-c", "git gitops clone remote.git clone\nexit $?")
				w.until("the clone is made or refused", func() bool {
					return strings.Contains(p.stderr.String(), "cloned while waiting") || strings.Contains(p.stderr.String(), "not cloning while waiting")
				})
				w.must(".", tc.after)
				want := 75
				if turn {
					want = 128
					w.must("holder", "echo 1 >>counter; git commit -qam 1; git gitops push -q")
				}
				wantCode(t, p.wait(), want)
				if !w.exists("clone/theirs") {
					t.Error("somebody's file is deleted")
				}
				if name != "a file instead" && w.must("clone", "git log --format=%H") != w.must("holder", "git log --format=%H origin/main"+map[bool]string{true: "~1"}[turn]) {
					t.Error("somebody's clone is changed")
				}
				w.must(".", "git -C holder gitops unlock --all; rm -rf clone holder")
				w.wantLocks()
			})
		}
	}
}

// TestAhead_link: a relative target belongs to the real working folder, and not to the link through
// which we came.
func TestAhead_link(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git holder; mkdir -p real/in; ln -s real/in link")
	p := w.with("GITOPS_LOG=debug").start(".", "bash", "-c", "cd link; git gitops clone -q "+remote+" ../one && git -C /tmp -C "+w.path("link")+" gitops clone -q "+remote+" ../two\nexit $?")
	w.until("the clone is made", func() bool { return strings.Contains(p.stderr.String(), "cloned while waiting") })
	w.must("holder", "echo 1 >counter; git commit -qam 1; git gitops push -q")
	w.until("it is the first's turn", func() bool {
		entries, _ := filepath.Glob(w.path("real/one/.git/gitops/*.json"))
		return len(entries) > 0
	})
	w.must("real/one", "git gitops unlock")
	wantCode(t, p.wait(), 0)
	if got := w.must("real", "cat one/counter two/counter"); got != "1\n1" {
		t.Errorf("got %q", got)
	}
	w.must("real/two", "git gitops unlock")
	w.wantLocks()
}

// TestAhead_late: the turn comes while the clone is still being made.
func TestAhead_late(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	ssh := w.write("bin/slow-ssh", fmt.Sprintf("#!/bin/sh\nfor last; do :; done\necho >%[1]s/started; while [ -e %[1]s/slow ]; do sleep 0.01; done\ncd %[1]s && eval \"$(echo \"$last\" | sed \"s:'/:':\")\"\n", w.dir))
	w = w.with("GIT_SSH_COMMAND="+ssh, "GIT_SSH_VARIANT=ssh", "GITOPS_LOCK_REPO="+w.path("remote"))
	w.must(".", "git gitops clone -q git@host:remote.git holder; rm started")
	w.write("slow", "")
	p := w.start(".", "bash", "-c", "git gitops clone -q -b main git@host:remote.git clone\nexit $?")
	w.until("the clone has begun", func() bool { return w.exists("started") })
	w.must("holder", "echo 1 >counter; git commit -qam 1; git push -q ../remote.git main; git gitops unlock")
	w.until("it has the lock", func() bool { return w.queued() == 0 && len(w.locks()) == 1 })
	w.must(".", "rm slow")
	wantCode(t, p.wait(), 0)
	if got := w.must("clone", "cat counter; git status --porcelain"); got != "1" {
		t.Errorf("the clone is old: %s", got)
	}
}

// TestAhead_terminal: a clone that is made ahead has no terminal to ask for a password, and the one
// that is made again has.
func TestAhead_terminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	ssh := w.write("bin/asking-ssh", fmt.Sprintf("#!/bin/sh\nfor last; do :; done\n( : </dev/tty ) 2>/dev/null && echo yes >>%[1]s/asked || { echo no >>%[1]s/asked; echo askpass: $GIT_ASKPASS $SSH_ASKPASS_REQUIRE >>%[1]s/window; exit 255; }\ncd %[1]s && eval \"$(echo \"$last\" | sed \"s:'/:':\")\"\n", w.dir))
	w.must(".", "git gitops clone -q remote.git holder")
	w = w.with("GIT_SSH_COMMAND="+ssh, "GIT_SSH_VARIANT=ssh", "GITOPS_LOCK_REPO="+w.path("remote"))
	p := w.onTerminal("bash", "-c", "git gitops clone -b main git@host:remote.git clone; :")
	w.until("it has tried", func() bool { return w.exists("asked") && w.read("asked") == "no\n" })
	w.must("holder", "git gitops unlock")
	p.wait()
	if got := w.read("window"); got != "askpass: never\n" {
		t.Errorf("it could open a window: %q", got)
	}
	if got := w.read("asked"); !w.exists("clone/counter") || got != "no\nyes\n" {
		t.Errorf("it had a terminal: %q", got)
	}
}

// TestAhead_otherDefault: the remote's default branch changes while a clone waits for it.
func TestAhead_otherDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git branch dev main")
	w.must(".", "git gitops clone -q remote.git holder")
	p := w.cloneWaits("gitops clone remote.git clone")
	w.must("remote.git", "git symbolic-ref HEAD refs/heads/dev")
	w.must("holder", "git gitops unlock")
	r := p.wait()
	wantCode(t, r, 0)
	wantText(t, r.ours(), "the new clone is on dev, so the lock on "+w.path("remote")+"@main is released, and that of dev taken")
	if head := w.must("clone", "git symbolic-ref --short HEAD"); head != "dev" {
		t.Errorf("the clone is on %s", head)
	}
	w.wantLocks(lockKey(w.path("remote"), "dev"))
	w.must("clone", "git commit -q --allow-empty -m one && git gitops push -q")
	w.wantLocks()
}

// TestAhead_configuredHook: a hook that the configuration defines runs once, as in a clone that
// does not wait.
func TestAhead_configuredHook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", `git config --global hook.count.command "echo ran >>$PWD/ran; :" && git config --global hook.count.event post-checkout
		git clone -q remote.git plain`)
	if !w.exists("ran") {
		t.Skip("this git runs no hook that is defined in the configuration (2.54 and newer do)")
	}
	w.must(".", "rm ran; git gitops clone -q remote.git holder; rm ran")
	p := w.with("GITOPS_LOG=debug").start(".", "bash", "-c", "git gitops clone -q remote.git late\nexit $?")
	w.until("the clone waits", func() bool { return w.queued() == 1 })
	w.until("it gives up cloning ahead", func() bool { return strings.Contains(p.stderr.String(), "not cloning while waiting") })
	if w.exists("ran") || w.exists("late") {
		t.Error("something was cloned before the turn")
	}
	w.must("holder", "git gitops unlock --all")
	wantCode(t, p.wait(), 0)
	if got := w.read("ran"); got != "ran\n" {
		t.Errorf("the hook ran more than once: %q", got)
	}
}

// TestClone_aliasCommand: an alias of git 2.54's new form is followed, where git knows it.
func TestClone_aliasCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git config --global alias.c.command clone && git config --global alias.p.command 'push -q'")
	if w.bash(".", "git c -q remote.git plain").code != 0 {
		wantCode(t, w.bash(".", "git gitops c -q remote.git work"), 1)
		t.Skip("this git does not know alias.<name>.command (2.54 and newer do)")
	}
	w.must(".", "git gitops c -q remote.git work")
	w.wantLocks(lockKey(w.path("remote"), "main"))
	w.must("work", "git commit -q --allow-empty -m one && git gitops p origin main")
	w.wantLocks()
	if n := len(w.scan("gitops:events:*")); n != 1 {
		t.Errorf("%d locks have events", n)
	}
}
