//go:build unix

package main

import (
	"strings"
	"testing"
)

// Waits that can never end. Each is found long before the time-out, which is an hour here, and the
// message names both sides.

// pair is a world with two remotes, $A and $B, and the scripts' way to wait for each other: meet
// NAME OTHER.
func pair(t *testing.T, settings ...string) *world {
	t.Helper()
	w := newLifeWorld(t)
	b := w.room("../b")
	return w.with(append([]string{
		"A=" + w.env["REMOTE"], "B=" + b.env["REMOTE"], "GITOPS_LOCK_TIMEOUT=3600",
		"MEET=meet() { : >\"$1.met\"; until [ -e \"$2.met\" ]; do sleep 0.05; done; }",
	}, settings...)...)
}

// wantCircle checks how two parties of a circle ended: one gave up, and says who waits for what;
// the other went on.
func (w *world) wantCircle(said string, codes ...string) {
	w.t.Helper()
	text := strings.Join(codes, " ")
	if text != "0 75" && text != "75 0" {
		w.t.Errorf("exit codes %q: %s", text, said)
	}
	if strings.Count(said, "gitops: error: deadlock") != 1 || strings.Contains(said, "gave up") {
		w.t.Errorf("it is not said once: %s", said)
	}
	wantText(w.t, said, w.path("remote")+"@main", w.path("../b/remote")+"@main", "which this script holds")
}

// TestDeadlock_jobs: two background jobs of one script, and other pairs of commands, that take two
// locks in opposite order.
func TestDeadlock_jobs(t *testing.T) {
	t.Parallel()
	const clones = `job() { git gitops clone -q "$1" "$3a" && meet "$3" "$4" && git gitops clone -q "$2" "$3b"; echo $? >"$3"; }; `
	const nested = `job() { git gitops run --repo "$1" --branch main -- bash inner "$2" "$3" "$4"; echo $? >"$3"; }; `
	const inJobs = `( job "$A" "$B" one two; : ) & ( job "$B" "$A" two one; : ) & wait`
	const inScripts = `bash first & bash second & wait`
	for _, tc := range []struct {
		name, job, script string
		settings          []string
	}{
		{"jobs", clones, inJobs, nil},
		{"jobs of jobs", clones, `( ( job "$A" "$B" one two; : ); : ) & { ( job "$B" "$A" two one; : ) | cat; } & wait`, nil},
		{"jobs, sharing is off", clones, inJobs, []string{"GITOPS_LOCK_SHARE=off"}},
		{"jobs, workspace", clones, inJobs, []string{"GITOPS_LOCK_SESSION=workspace"}},
		{"scripts, workspace", clones, inScripts, []string{"GITOPS_LOCK_SESSION=workspace"}},
		{"run in run", nested, inScripts, nil},
		{"run in run, jobs", nested, inJobs, nil},
		{"run in run, workspace", nested, inScripts, []string{"GITOPS_LOCK_SESSION=workspace"}},
		{"clone in run", strings.Replace(nested, "bash inner", "bash cloner", 1), inScripts, nil},
		{"clone in run, workspace", strings.Replace(nested, "bash inner", "bash cloner", 1), inScripts, []string{"GITOPS_LOCK_SESSION=workspace"}},
		{"run under clone", strings.Replace(clones, `git gitops clone -q "$2" "$3b"`, `git gitops run --repo "$2" --branch main -- true`, 1), inScripts, nil},
		{"lock by hand", `job() { git init -q "$3a"; cd "$3a"; git gitops lock --repo "$1" --branch main && cd .. && meet "$3" "$4" && git gitops clone -q "$2" "$3b"; echo $? >"$3"; }; `, inScripts, nil},
		{"no HOME", clones, inScripts, []string{"HOME"}},
		{"HOME is a file", clones, inScripts, []string{"HOME=/etc/passwd"}},
		{"HOME cannot be written", clones, inScripts, []string{"HOME=/proc"}},
		{"no HOME, run in run", nested, inScripts, []string{"HOME"}},
		{"no HOME, workspace", clones, inScripts, []string{"HOME", "GITOPS_LOCK_SESSION=workspace"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := pair(t, tc.settings...)
			begin := `eval "$MEET"; ` + tc.job
			w.write("inner", `eval "$MEET"; meet "$2" "$3"; git gitops run --repo "$1" --branch main -- true; exit $?`)
			w.write("cloner", `eval "$MEET"; meet "$2" "$3"; git gitops clone -q "$1" "$2b"; exit $?`)
			w.write("first", begin+`job "$A" "$B" one two; [ "$(cat one)" = 0 ] || rm -rf onea; :`)
			w.write("second", begin+`job "$B" "$A" two one; [ "$(cat two)" = 0 ] || rm -rf twoa; :`)
			job := strings.ReplaceAll(tc.script, "; : )", `; [ "$(cat one two 2>/dev/null | tr -d '\n')" != 75 ] || rm -rf onea twoa; : )`)
			r := w.script(begin + job).wait()
			wantCode(t, r, 0)
			w.wantCircle(r.stderr, strings.TrimSpace(w.read("one")), strings.TrimSpace(w.read("two")))
			w.must(".", "rm -rf onea oneb twoa twob") // which ends those of a workspace
		})
	}
}

// TestDeadlock_handedOver: a hand-over closes the circle: the holder that is waited for is not the
// one of when the wait began.
func TestDeadlock_handedOver(t *testing.T) {
	t.Parallel()
	w := pair(t)
	w.write("holder", `git gitops clone -q "$B" h && : >held && cat gate; :`)
	w.write("first", `git gitops clone -q "$B" f1; git gitops clone -q "$A" f2; echo $? >one; :`)
	w.write("second", `git gitops clone -q "$A" s1; : >second-has; cat gate2; git gitops clone -q "$B" s2; echo $? >two; :`)
	w.must(".", "mkfifo gate2")
	holder := w.start(".", "bash", "holder")
	w.reaches(holder, "held")
	second := w.start(".", "bash", "second")
	w.reaches(second, "second-has")
	first := w.start(".", "bash", "first")
	w.until("the first waits", func() bool { return w.queued() == 1 })
	w.open("gate2")
	w.until("the second waits behind it", func() bool { return w.queued() == 2 })
	w.open("gate")
	a, b := first.wait(), second.wait()
	holder.wait()
	w.wantCircle(a.stderr+b.stderr, strings.TrimSpace(w.read("one")), strings.TrimSpace(w.read("two")))
}

// TestDeadlock_none: two scripts, each with two parallel jobs for the same two repositories, wait
// for each other's jobs, but no job does for one that waits for it.
func TestDeadlock_none(t *testing.T) {
	t.Parallel()
	for _, settings := range [][]string{nil, {"GITOPS_LOCK_SESSION=workspace"}, {"GITOPS_LOCK_SHARE=off"}} {
		t.Run(strings.Join(settings, ""), func(t *testing.T) {
			t.Parallel()
			w := pair(t, settings...)
			w.must(".", "mkfifo gate2")
			const job = `( git gitops clone -q "$%" %1; : >%1.has; cat gate; git -C %1 commit -q --allow-empty -m %1; git gitops -C %1 push -q; echo $? >>codes; : ) & `
			const late = `( until [ -e A1.has ] && [ -e B2.has ]; do sleep 0.05; done; git gitops clone -q "$%" %3; git -C %3 commit -q --allow-empty -m late; git gitops -C %3 push -q; echo $? >>codes; : ) & `
			replace := func(text, what, n string) string {
				text = strings.NewReplacer("%1", what+n, "%3", what+n+"-late", "%", what).Replace(text)
				return strings.ReplaceAll(text, "cat gate", "cat gate"+map[string]string{"1": "", "2": "2"}[n])
			}
			w.write("first", replace(job, "A", "1")+replace(late, "B", "1")+"wait")
			w.write("second", replace(job, "B", "2")+replace(late, "A", "2")+"wait")
			first, second := w.start(".", "bash", "first"), w.start(".", "bash", "second")
			w.until("the late jobs wait", func() bool { return w.queued() == 2 })
			w.renewed(w.sight()) // time for several looks
			w.open("gate")
			w.open("gate2")
			for _, p := range []*process{first, second} {
				if r := p.wait(); strings.Contains(r.stderr, "deadlock") {
					t.Error(r)
				}
			}
			if got := w.read("codes"); got != "0\n0\n0\n0\n" {
				t.Errorf("codes %q", got)
			}
		})
	}
}

// TestDeadlock_blind: without a folder for the records of waits, a message says that no circle will
// be found. All else works.
func TestDeadlock_blind(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t).with("HOME=/proc", "TMPDIR=/proc")
	w.must(".", `git init -q --template= hooked && git clone -q "$REMOTE" plain`)
	for _, script := range []string{
		lineClone + "; " + `git -C work commit -q --allow-empty -m edit; git gitops -C work push -q`,
		`git gitops run --repo "$REMOTE" --branch main -- true`,
		`git -C plain gitops install; git -C plain commit -q --allow-empty -m plain; git -C plain pull -q --rebase; git -C plain push -q`,
	} {
		r := w.script("set -e", script, "code=$?; :; exit $code").wait()
		wantCode(t, r, 0)
		wantText(t, r.stderr, "gitops: warning: deadlocks of this script will not be noticed: ")
		w.until("the lock is free", w.free)
	}
}

// TestSelfWait_more: other waits of a script for itself.
func TestSelfWait_more(t *testing.T) {
	t.Parallel()
	const run = `git gitops run --repo "$REMOTE" --branch main -- true`
	for _, tc := range []struct{ name, setting, script string }{
		{"run, sharing is off", "GITOPS_LOCK_SHARE=off", lineClone + "; " + run},
		{"run, workspace", "GITOPS_LOCK_SESSION=workspace", lineClone + "; " + run},
		{"an ended part, workspace", "GITOPS_LOCK_SESSION=workspace", "( " + lineClone + `; : ); git gitops clone -q "$REMOTE" b`},
		{"an ended part, run, workspace", "GITOPS_LOCK_SESSION=workspace", "( " + lineClone + `; : ); ` + run},
		{"lock by hand, workspace", "GITOPS_LOCK_SESSION=workspace", `git clone -q "$REMOTE" work; git -C work gitops lock; git gitops clone -q "$REMOTE" b`},
		{"a push from a clone by plain git, workspace", "GITOPS_LOCK_SESSION=workspace", lineClone + `; git clone -q "$REMOTE" b; git -C b commit -q --allow-empty -m b; git gitops -C b push -q`},
		{"a hook, workspace", "GITOPS_LOCK_SESSION=workspace", lineClone + `; git clone -q "$REMOTE" b; git -C b gitops install; git -C b commit -q --allow-empty -m b; git -C b push -q`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newLifeWorld(t).with("GITOPS_LOCK_TIMEOUT=3600", tc.setting)
			r := w.script(tc.script, "code=$?; git -C work gitops unlock; exit $code").wait()
			want := 75
			if strings.HasPrefix(tc.name, "a hook") { // git's own, when a hook stops it
				want = 1
			}
			wantCode(t, r, want)
			wantText(t, r.ours(), "waits for the lock on "+w.path("remote")+"@main, which the same script holds", "held by ", "unlock")
		})
	}
}

// TestDeadlock_steps: a circle of workspaces whose locks were taken by steps that have ended.
// Another step may go on with each, so it is not found; the time-out ends it, and says what the
// workspace holds meanwhile.
func TestDeadlock_steps(t *testing.T) {
	t.Parallel()
	w := pair(t, "GITOPS_LOCK_SESSION=workspace", "GITOPS_LOCK_TIMEOUT=4")
	w.must(".", `mkdir one two; (cd one; git gitops clone -q "$A" a; :); (cd two; git gitops clone -q "$B" b; :)`)
	first := w.start("one", "bash", "-c", `git gitops clone -q "$B" b; exit $?`)
	second := w.start("two", "bash", "-c", `git gitops clone -q "$A" a; exit $?`)
	a, b := w.path("remote")+"@main", w.path("../b/remote")+"@main"
	for _, side := range []struct {
		p               *process
		wants, has, dir string
	}{{first, b, a, "one/a"}, {second, a, b, "two/b"}} {
		r := side.p.wait()
		wantCode(t, r, 75)
		wantText(t, r.ours(), "for the lock on "+side.wants+" and gave up", "in the same order",
			"this workspace held the lock on "+side.has+" during the wait (in "+w.path(side.dir)+")")
	}
	r := w.bash("one", `git gitops clone -q "$A" again`)
	wantCode(t, r, 75)
	wantText(t, r.ours(), "this workspace itself holds it, in "+w.path("one/a"), "git gitops -C "+w.path("one/a")+" unlock")
	w.must(".", "rm -rf one two") // which ends all
}
