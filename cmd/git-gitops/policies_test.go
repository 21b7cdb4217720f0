//go:build unix

package main

import (
	"regexp"
	"strings"
	"testing"
)

// branchWorld is a world with a remote, and the pattern of its lock's names.
func branchWorld(t *testing.T, settings ...string) (w *world, remote string) {
	t.Helper()
	w = newWorld(t)
	remote = w.seed("remote.git")
	return w.with(append([]string{"REMOTE=" + remote}, settings...)...), remote
}

// holding takes the lock by a run that lasts until the gate is opened.
func (w *world) holding(t *testing.T) *process {
	t.Helper()
	w.must(".", "mkfifo gate")
	p := w.start(".", "git", "gitops", "run", "--repo", w.env["REMOTE"], "--branch", "main", "--", "bash", "-c", ": >held; cat gate")
	w.until("the lock is held", func() bool { return w.exists("held") })
	return p
}

// TestPolicy_skip: a clone, lock or run that would have to wait ends with 77, says why, and leaves
// nothing; a push waits as ever.
func TestPolicy_skip(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t, "GITOPS_LOCK_POLICY=skip")
	w.must(".", `git gitops clone -q "$REMOTE" free && cd free && git gitops unlock -q --all; git gitops unlock --all`)
	holder := w.with("GITOPS_LOCK_POLICY", "GITHUB_ACTIONS=true", "GITHUB_SERVER_URL=https://github.com", "GITHUB_REPOSITORY=o/r", "GITHUB_RUN_ID=7").holding(t)
	for _, script := range []string{
		`git gitops clone "$REMOTE" work`,
		`git gitops lock --repo "$REMOTE" --branch main`,
		`git gitops run --repo "$REMOTE" --branch main -- touch ran`,
	} {
		r := w.bash(".", script)
		wantCode(t, r, 77)
		wantText(t, r.stderr, "skipped: the lock on ", " is held", "(run, pid ", "https://github.com/o/r/actions/runs/7")
		if w.exists("work") || w.exists("ran") || w.queued() != 0 {
			t.Errorf("%s left something", script)
		}
	}
	r := w.with("GITOPS_LOCK_POLICY").bash(".", `git -c gitops.lockPolicy=skip gitops clone "$REMOTE" work`)
	wantCode(t, r, 77)
	r = w.with("GITOPS_LOCK_POLICY").bash(".", `git gitops lock --policy skip --repo "$REMOTE" --branch main`)
	wantCode(t, r, 77)
	wantCode(t, w.bash(".", `git gitops lock --policy never --repo "$REMOTE" --branch main`), 129)

	push := w.start("free", "bash", "-c", "git commit -q --allow-empty -m one && git gitops push -q")
	w.until("the push waits", func() bool { return w.queued() == 1 })
	w.open("gate")
	wantCode(t, holder.wait(), 0)
	wantCode(t, push.wait(), 0)
	wantText(t, w.must(".", "git gitops events"), "skipped", "is held")
	wantText(t, w.must(".", "git gitops stats --json"), `"skipped":5`)
}

// TestPolicy_ownScript: who skips does not skip what its own script holds, but shares it.
func TestPolicy_ownScript(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t, "GITOPS_LOCK_POLICY=skip", "GITOPS_LOCK_SESSION")
	w.write("outer.sh", `git gitops clone -q "$REMOTE" a && ./inner.sh`+"\n:\n")
	w.write("inner.sh", "#!/bin/bash\n"+`git gitops clone -q "$REMOTE" b && : >shared`+"\n:\n")
	wantCode(t, w.run(".", "bash", "outer.sh"), 0)
	if !w.exists("shared") {
		t.Error("it was skipped")
	}
}

// TestPolicy_newest: of those who wait only the newest stays, in the place of the earlier one; that
// one ends with 77 and says who came.
func TestPolicy_newest(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t)
	holder := w.holding(t)
	newest := w.with("GITOPS_LOCK_POLICY=newest")
	first := newest.with("GITOPS_PURPOSE=preview 1").start(".", "bash", "-c", `git gitops clone "$REMOTE" one; exit $?`)
	w.until("the first waits", func() bool { return w.queued() == 1 })
	plain := w.start(".", "bash", "-c", `git gitops run --repo "$REMOTE" --branch main -- bash -c 'echo plain >>order'; exit $?`)
	w.until("another waits", func() bool { return w.queued() == 2 })
	other := newest.with("GITOPS_LOCK_GROUP=other").start(".", "bash", "-c", `git gitops run --repo "$REMOTE" --branch main -- bash -c 'echo other >>order'; exit $?`)
	w.until("a third waits", func() bool { return w.queued() == 3 })
	second := newest.with("GITOPS_PURPOSE=preview 2").start(".", "bash", "-c", `git gitops run --repo "$REMOTE" --branch main -- bash -c 'echo second >>order'; exit $?`)

	r := first.wait()
	wantCode(t, r, 77)
	wantText(t, r.stderr, "superseded: a newer command of the same group waits for the lock on ", "(run, pid ", "preview 2")
	if w.exists("one") {
		t.Error("the superseded clone is left")
	}
	if n := w.queued(); n != 3 {
		t.Errorf("%d wait", n)
	}
	w.open("gate")
	for _, p := range []*process{holder, second, plain, other} {
		wantCode(t, p.wait(), 0)
	}
	if got := w.read("order"); got != "second\nplain\nother\n" {
		t.Errorf("the order was %q", got)
	}
	wantText(t, w.must(".", "git gitops events"), "superseded")
}

// TestPolicy_headStart: one with a head start goes before those who came within it, and is said to
// have waited for as long as it did.
func TestPolicy_headStart(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t)
	holder := w.holding(t)
	run := func(name string, flags ...string) *process {
		t.Helper()
		before := w.queued()
		p := w.start(".", append(append([]string{"git", "gitops", "run", "--repo", w.env["REMOTE"], "--branch", "main"}, flags...), "--", "bash", "-c", "echo "+name+" >>order")...)
		w.until(name+" waits", func() bool { return w.queued() == before+1 })
		return p
	}
	all := []*process{run("usual"), run("hotfix", "--head-start", "10m"), run("late"), run("small", "--head-start", "1ms")}
	first, _, _ := strings.Cut(w.must(".", "git gitops locks --json"), `"position":2`)
	wantText(t, first, `"waited_seconds":`)
	if regexp.MustCompile(`"waited_seconds":[6-9]\d\d`).MatchString(first) {
		t.Errorf("its head start counts as time that it waited: %s", first)
	}
	w.open("gate")
	for _, p := range append(all, holder) {
		wantCode(t, p.wait(), 0)
	}
	if got := w.read("order"); got != "hotfix\nusual\nlate\nsmall\n" {
		t.Errorf("the order was %q", got)
	}
	r := w.with("GITOPS_LOCK_HEAD_START=-5m").bash(".", `git gitops clone "$REMOTE" no`)
	wantCode(t, r, 78)
	wantText(t, r.stderr, "GITOPS_LOCK_HEAD_START")
	wantCode(t, w.bash(".", `git gitops lock --head-start -5m --repo "$REMOTE" --branch main`), 129)
}

// TestPolicy_repository: a repository's own configuration does not say how its commands queue.
func TestPolicy_repository(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t)
	w.must(".", `git clone -q "$REMOTE" work && git -C work config gitops.lockPolicy skip`)
	holder := w.holding(t)
	p := w.start("work", "bash", "-c", "git gitops lock; exit $?")
	w.until("it waits", func() bool { return w.queued() == 1 })
	w.open("gate")
	wantCode(t, holder.wait(), 0)
	wantCode(t, p.wait(), 0)
}
