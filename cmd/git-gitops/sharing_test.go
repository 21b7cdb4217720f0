//go:build unix

package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Who shares a lock, who takes it over, and who waits: the table in docs/reference.md.

// jobFunction is one job of a script: it clones, bumps the counter, pushes. It notes what goes
// wrong.
const jobFunction = `job() {
	git gitops clone -q "$REMOTE" job$1 || { echo "$1 clone" >>failed; return; }
	n=$(cat job$1/counter); echo $((n + 1)) >job$1/counter
	git -C job$1 commit -q -a -m $1; git gitops -C job$1 push -q || echo "$1 push" >>failed
	: job is over
}
`

// surroundings are the places of a script in which jobs are started: J stands for their start.
var surroundings = []struct {
	name, around string
	bashOnly     bool
}{
	{"top", `J`, false},
	{"pipeline element", `{ J; } | cat`, false},
	{"last of a pipeline", `echo | { read -r _; J; }`, false},
	{"subshell", `( J; : )`, false},
	{"subshell in subshell", `( : ; ( J; : ); : )`, false},
	{"substitution", `x=$( J; : )`, false},
	{"substitution in a pipeline", `{ x=$( J; : ); } | cat`, false},
	{"process substitution", `cat <(J; :)`, true},
	{"function", `f() { J; }; f`, false},
	{"background function", `f() { J; }; f & wait $!`, false},
}

// TestJobs_surroundings: the parallel jobs of a script exclude each other wherever, and however,
// they are started.
func TestJobs_surroundings(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for _, shell := range []string{"bash", "dash"} {
		needs(t, shell)
		for i, s := range surroundings {
			if s.bashOnly && shell != "bash" {
				continue
			}
			t.Run(shell+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				w := house.in(t, t.Name())
				start := []string{
					`( job 1 ) & ( job 2 ) & job 3 & wait`,
					`( ( job 1; : ); : ) & { job 2; } & ( job 3; : ) & wait`,
				}[i%2]
				w.write("script", jobFunction+strings.ReplaceAll(s.around, "J", start)+"\n:\n")
				r := w.run(".", shell, "script")
				if w.exists("failed") || r.code != 0 || strings.Contains(r.stderr, "rejected") || strings.Contains(r.stderr, "taking over") {
					t.Errorf("%s", r)
				}
				if got := w.must("remote.git", "git show main:counter"); got != "3" {
					t.Errorf("the counter is %s", got)
				}
				w.freed(time.Now())
			})
		}
	}
}

// TestShare is the table of docs/reference.md: what a script does that has the lock in one clone,
// and whether a command in another part of it goes on at once ("shares"), takes the lock over, or
// waits.
func TestShare(t *testing.T) {
	t.Parallel()
	const clone = `git gitops clone -q "$REMOTE" `
	for _, tc := range []struct {
		name   string
		script string
		wants  string // "shares" or "takes over"
	}{
		{"function", clone + `a; f() { ` + clone + `b; }; f`, "shares"},
		{"child script", clone + `a; bash child`, "shares"},
		{"subshell that has ended", `( cd .; ` + clone + `a; : ); bash child`, "shares"},
		{"subshell that is one command", `( cd . && ` + clone + `a ); bash child`, "shares"},
		{"substitution", `out=$( ` + clone + `a; : ); ` + clone + `b`, "shares"},
		{"pipeline element", `{ ` + clone + `a; :; } | cat; ( ` + clone + `b; : )`, "shares"},
		{"pipeline element that works on", `{ ` + clone + `a; ( ` + clone + `b; : ); :; } | cat`, "shares"},
		{"substitution in a pipeline element", `{ x=$( ` + clone + `a; : ); ( ` + clone + `b; : ); :; } | cat`, "shares"},
		{"two shares of an ended part", `( ` + clone + `c; ` + clone + `a; : ); ( ` + clone + `b; : )`, "shares"},
		{"a part that ended later", `( ` + clone + `a; sleep 2 ); ( ` + clone + `b; : )`, "takes over"},
		{"two shares of a part that ended later", `( ` + clone + `c; ` + clone + `a; sleep 2 ); ( ` + clone + `b; : )`, "takes over"},
		{"a part that ended later, child script", `( ` + clone + `a; sleep 2 ); bash child`, "takes over"},
		{"below a pipeline element, ended later", `{ ( ` + clone + `a; sleep 2 ); ( ` + clone + `b; : ); :; } | cat`, "takes over"},
		{"a child of one who shares", clone + `c; ( ` + clone + `a; git gitops -C c unlock; bash child; : )`, "shares"},
	} {
		for _, shell := range []string{"bash", "dash"} {
			t.Run(shell+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				w := newLifeWorld(t)
				var r result
				for try := range 3 { // on a busy machine a part may end much later than its last command, or its keeper begin
					w := w.in(t, strconv.Itoa(try))
					w.write("child", clone+"b\n:\n")
					w.write("script", tc.script+"\n[ -e b/.git ] || exit 9\n:\n")
					r = w.run(".", shell, "script")
					wantCode(t, r, 0)
					w.freed(time.Now())
					if strings.Contains(r.stderr, "taking over") == (tc.wants == "takes over") && (r.ours() == "" || tc.wants != "shares") {
						break
					}
				}
				if got := strings.Contains(r.stderr, "taking over"); got != (tc.wants == "takes over") {
					t.Errorf("it %s not: %s", tc.wants, r)
				}
				if strings.Contains(r.stderr, "waiting") && tc.wants == "shares" {
					t.Errorf("it waited: %s", r)
				}
			})
		}
	}
}

// TestShare_jobs: of the jobs of a script that has the lock, one at a time shares it, also when all
// begin at the same moment.
func TestShare_jobs(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for name, start := range map[string]string{
		"lock":   `git gitops clone -q "$REMOTE" a; ( job 1 ) & ( job 2 ) & ( job 3 ) & wait; git gitops -C a unlock`,
		"nested": `( git gitops clone -q "$REMOTE" a; { job 1; : ; } & { job 2; : ; } & ( job 3 ) & wait; git gitops -C a unlock )`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := house.in(t, t.Name())
			w.write("script", jobFunction+start+"\n:\n")
			r := w.run(".", "bash", "script")
			if w.exists("failed") || r.code != 0 || strings.Contains(r.stderr, "rejected") || strings.Contains(r.stderr, "taking over") {
				t.Errorf("%s", r)
			}
			if got := w.must("remote.git", "git show main:counter"); got != "3" {
				t.Errorf("the counter is %s", got)
			}
			w.freed(time.Now())
		})
	}
}

// TestShare_sharersChild: the children of a command that shares the lock share it too, also when
// the part that took the lock first has ended. A job beside it waits.
func TestShare_sharersChild(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	w.write("child", `git gitops clone -q "$REMOTE" b`+"\n:\n")
	w.write("holder", `git gitops clone -q "$REMOTE" a
		bash sharer >said 2>&1 & sleep 2; until [ -e shared ]; do sleep 0.1; done
		exit 0`)
	w.write("sharer", `git gitops clone -q "$REMOTE" s; touch shared; cat gate; bash child; touch childs; :`)
	p := w.script(`( . ./holder ); mkfifo gate2; touch over; cat gate2`)
	w.reaches(p, "over")
	w.open("gate")
	w.reaches(p, "childs")
	w.open("gate2")
	wantCode(t, p.wait(), 0)
}

// TestShare_pushing: a job does not take over from a part of the script that has ended, while the
// script pushes what that part has cloned.
func TestShare_pushing(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	w.write("remote.git/hooks/pre-receive", "#!/bin/sh\n: >"+w.path("pushing")+"\nsleep 2.5\n")
	w.must(".", "chmod +x remote.git/hooks/pre-receive")
	w.write("script", `( git gitops clone -q "$REMOTE" a; sleep 2 )
		git -C a commit -q --allow-empty -m a
		( until [ -e pushing ]; do sleep 0.05; done; git gitops clone -q "$REMOTE" b; : ) & job=$!
		git -C a gitops push -q; wait $job
		:`)
	r := w.run(".", "bash", "script")
	wantCode(t, r, 0)
	if w.must("b", "git rev-parse HEAD") != w.must("a", "git rev-parse HEAD") {
		t.Errorf("the job has not waited for the push: %s", r)
	}
}

// TestResume: what a clone remembers is used by the session that made it. Two scripts that work in
// one clone, or in two worktrees of it, exclude each other, and the end of one does not end the
// other's hold.
func TestResume(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	const bump = `n=$(cat counter); sleep 0.2; echo $((n + 1)) >counter`
	for _, tc := range []struct {
		name, script string
		dirs         []string
	}{
		{"lock and unlock", `git gitops lock && ` + bump + `; git gitops unlock`, []string{"kept", "kept"}},
		{"worktrees", `git gitops lock --branch main && ( cd ../kept && ` + bump + ` ); git gitops unlock --branch main`, []string{"kept", "tree"}},
		{"push", `git gitops lock && git pull -q --rebase && ` + bump + `; git add counter && git commit -qm "$$" && git gitops push -q && git gitops unlock`, []string{"kept", "kept"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := house.in(t, tc.name)
			w.must(".", `git clone -q "$REMOTE" kept; git -C kept worktree add -q -b other ../tree; echo 0 >kept/counter`)
			w.write("cron", "set -e\n"+tc.script+"\n:\n")
			var all []*process
			for range 2 {
				for _, dir := range tc.dirs {
					all = append(all, w.start(dir, "bash", "../cron"))
				}
			}
			for _, p := range all {
				wantCode(t, p.wait(), 0)
			}
			if got := strings.TrimSpace(w.read("kept/counter")); got != "4" {
				t.Errorf("the counter is %s", got)
			}
			w.freed(time.Now())
		})
	}
	t.Run("unlock of another", func(t *testing.T) {
		w := house.in(t, "unlock")
		w.must(".", `git clone -q "$REMOTE" work`)
		p := w.script("git -C work gitops lock", lineHold, ":")
		w.reaches(p, "cloned")
		token := w.token()
		r := w.bash(".", "git -C work gitops unlock")
		wantCode(t, r, 1)
		wantText(t, r.ours(), "held by another script in this clone", "unlock --force")
		w.must(".", "git -C work gitops unlock --all")
		if w.token() != token {
			t.Errorf("the holder is %q, not %q", w.token(), token)
		}
		w.freed(w.open("gate"))
	})
}

// TestResume_dead: a script that was killed leaves no base by which a later one is judged. A folder
// that is kept, with forced pushes only, goes on.
func TestResume_dead(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	w.write("deploy", `git commit -q --amend --allow-empty -m "$1"; git gitops push -q -f origin main; code=$?; : ; exit $code`)
	p := w.script(lineClone, lineHold, ":")
	w.reaches(p, "cloned")
	p.signal(syscall.SIGKILL)
	w.until("its lock is free", w.free)
	w.must(".", `git clone -q "$REMOTE" other && git -C other commit -q --allow-empty -m other && git -C other push -q`)
	w.must("work", "git fetch -q && git reset -q --hard origin/main")
	for _, n := range []string{"one", "two"} {
		r := w.run("work", "bash", "../deploy", n)
		wantCode(t, r, 0)
	}
	if got := w.must("remote.git", "git log -1 --format=%s main"); got != "two" {
		t.Errorf("the tip is %q", got)
	}
}

// TestShareOff: several pipelines of one process exclude each other with GITOPS_LOCK_SHARE=off. A
// message names it when they share.
func TestShareOff(t *testing.T) {
	t.Parallel()
	needs(t, "python3")
	python := `
import os, subprocess, threading
def job(i):
    def git(*words): return subprocess.run(["git", *words]).returncode
    if git("gitops", "clone", "-q", os.environ["REMOTE"], f"job{i}"): open("failed", "a").write(f"clone {i}\n"); return
    path = f"job{i}/counter"
    n = int(open(path).read()); open(path, "w").write(f"{n + 1}\n")
    git("-C", f"job{i}", "commit", "-q", "-a", "-m", "job")
    if git("-C", f"job{i}", "gitops", "push", "-q"): open("failed", "a").write(f"push {i}\n")
jobs = [threading.Thread(target=job, args=(i,)) for i in range(3)]
for j in jobs: j.start()
for j in jobs: j.join()
`
	recipe := func(i string) string {
		return "job" + i + ":\n\tgit gitops clone -q $$REMOTE job" + i + "; : here\n\tn=$$(cat job" + i + "/counter); echo $$((n + 1)) >job" + i +
			"/counter; git -C job" + i + " commit -q -a -m job\n\tgit gitops -C job" + i + " push -q; : here\n"
	}
	house := newLifeWorld(t)
	for _, tc := range []struct {
		name, file, text string
		words            []string
		settings         []string
	}{
		{"threads", "script.py", python, []string{"python3", "script.py"}, []string{"GITOPS_LOCK_SHARE=off"}},
		{"threads, git config", "script.py", python, []string{"env", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=gitops.lockShare", "GIT_CONFIG_VALUE_0=off", "python3", "script.py"}, nil},
		{"threads, workspace", "script.py", python, []string{"python3", "script.py"}, []string{"GITOPS_LOCK_SESSION=workspace"}},
		{"make -j", "Makefile", "all: job1 job2 job3\n" + recipe("1") + recipe("2") + recipe("3"), []string{"make", "-s", "-j3"}, nil},
		{"make -j, no shell", "Makefile", strings.ReplaceAll("all: job1 job2 job3\n"+recipe("1")+recipe("2")+recipe("3"), "; : here", ""), []string{"make", "-s", "-j3"}, []string{"GITOPS_LOCK_SHARE=off"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := house.with(tc.settings...).in(t, tc.name)
			w.write(tc.file, tc.text)
			r := w.run(".", tc.words...)
			if r.code != 0 || w.exists("failed") || strings.Contains(r.stderr, "sharing") || strings.Contains(r.stderr, "taking over") {
				t.Error(r)
			}
			if got := w.must("remote.git", "git show main:counter"); got != "3" {
				t.Errorf("the counter is %s: %s", got, r)
			}
		})
	}
	t.Run("hint", func(t *testing.T) {
		t.Parallel()
		w := house.in(t, "hint")
		w.write("script.py", `
import os, subprocess
for name in ("a", "b"): subprocess.run(["git", "gitops", "clone", os.environ["REMOTE"], name], check=True)
`)
		r := w.run(".", "python3", "script.py")
		wantCode(t, r, 0)
		if n := strings.Count(r.stderr, "gitops: sharing the lock"); n != 1 || strings.Count(r.ours(), "\n") != 1 {
			t.Errorf("%d lines say that it shares: %s", n, r)
		}
		wantText(t, r.ours(), "another clone of the same python3", "GITOPS_LOCK_SHARE=off")
	})
}

// TestSelfWait: a script that would wait for itself gets an error instead, which names the holder.
func TestSelfWait(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, setting, script string }{
		{"sharing is off", "GITOPS_LOCK_SHARE=off", lineClone + `; git gitops clone -q "$REMOTE" b`},
		{"sharing is off, in a child script", "GITOPS_LOCK_SHARE=off", lineClone + `; bash child`},
		{"sharing is off, an ended part", "GITOPS_LOCK_SHARE=off", "( " + lineClone + `; sleep 2; : ); git gitops clone -q "$REMOTE" b`},
		{"workspace", "GITOPS_LOCK_SESSION=workspace", lineClone + `; git gitops clone -q "$REMOTE" b`},
		{"no time to wait", "GITOPS_LOCK_TIMEOUT=0", "( " + lineClone + `; : >has; until [ -e over ]; do sleep 0.1; done ) & until [ -e has ]; do sleep 0.1; done; bash child; : >over; wait`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newLifeWorld(t).with("GITOPS_LOCK_TIMEOUT=100", tc.setting)
			w.write("child", `git gitops clone -q "$REMOTE" b`)
			r := w.script(tc.script, "code=$?; git gitops -C work unlock; exit $code").wait()
			if tc.name == "no time to wait" { // for a job, which goes on
				wantText(t, r.ours(), "waited", "git gitops unlock --force")
				return
			}
			wantCode(t, r, 75)
			wantText(t, r.ours(), "which the same script holds", "held by root@"[:8], tc.setting[:strings.Index(tc.setting, "=")])
			if strings.Contains(r.ours(), "GITOPS_LOCK_TIMEOUT") {
				t.Errorf("it advises to wait longer: %s", r)
			}
		})
	}
	t.Run("deleted and cloned again", func(t *testing.T) {
		t.Parallel()
		w := newLifeWorld(t).with("GITOPS_LOCK_SHARE=off")
		var r result
		for try := range 3 { // on a busy machine the keeper may not see in time that the clone is gone
			if r = w.in(t, strconv.Itoa(try)).script(lineClone, "rm -rf work", lineClone, "exit $?").wait(); r.code == 0 {
				break
			}
		}
		wantCode(t, r, 0)
	})
}
