//go:build unix

package main

import (
	"strings"
	"testing"
	"time"
)

// TestFreeze: while a branch is frozen its holder goes on and nobody else gets it. Messages say
// who froze it, until when and why. A thaw hands it to the first in line.
func TestFreeze(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t)
	w.must(".", `git gitops clone -q "$REMOTE" work && git -C work commit -q --allow-empty -m one`)
	r := w.bash(".", `git gitops freeze --repo "$REMOTE" --branch main --for 2h --reason 'release day'`)
	wantCode(t, r, 0)
	wantText(t, r.stderr, "froze ", "@main until ", "(release day)", "is held by ", "(clone, pid ")
	p := w.start(".", "bash", "-c", `git gitops clone "$REMOTE" next; exit $?`)
	w.until("the next one waits", func() bool { return w.queued() == 1 })
	w.until("it says why", func() bool { return strings.Contains(p.stderr.String(), "position 1, frozen by ") })
	wantText(t, p.stderr.String(), " until ", "(release day)")

	wantCode(t, w.bash("work", "git gitops push -q"), 0) // the present hold goes on
	if n := w.queued(); n != 1 {
		t.Errorf("%d wait: the lock was handed over", n)
	}
	wantText(t, w.must(".", "git gitops locks"), "nobody, frozen for another ")
	wantText(t, w.must(".", "git gitops locks show main"), "(release day)", "git gitops thaw --repo ")
	wantText(t, w.must(".", "git gitops locks --json"), `"holder":null`, `"freeze":{"scope":"own","reason":"release day"`)
	wantText(t, w.must(".", "git gitops events"), "frozen ", "for 2h", "(release day)")
	wantText(t, w.must(".", "git gitops stats --json"), `"freezes":1`)
	wantText(t, w.must(".", "git gitops metrics"), "gitops_lock_frozen{lock=", `gitops_events_total{type="frozen"} 1`)
	wantText(t, w.bash("work", "git gitops doctor").stdout, "frozen by ", "nobody gets it until then")

	r = w.with("GITOPS_LOCK_TIMEOUT=0").bash(".", `git gitops clone "$REMOTE" never`)
	wantCode(t, r, 75)
	wantText(t, r.stderr, "frozen by ", "(release day)", "git gitops thaw --repo ")
	r = w.bash(".", `git gitops lock --policy skip --repo "$REMOTE" --branch main`)
	wantCode(t, r, 77)
	wantText(t, r.stderr, "skipped: the lock on ", " is frozen", "frozen by ", "(release day)")

	r = w.bash("work", "git gitops thaw")
	wantCode(t, r, 0)
	wantText(t, r.stderr, "thawed ")
	wantCode(t, p.wait(), 0)
	if got := w.must("next", "git log --format=%s -1"); got != "one" {
		t.Errorf("it has %q", got)
	}
	wantText(t, w.must(".", "git gitops events"), "thawed")
	r = w.bash("work", "git gitops thaw")
	wantCode(t, r, 0)
	wantText(t, r.stderr, "was not frozen")
}

// TestFreeze_ends: a freeze ends by itself, and the next in line gets the lock.
func TestFreeze_ends(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t)
	w.must(".", `git gitops freeze --repo "$REMOTE" --branch main --for 3s`)
	wantCode(t, w.bash(".", `git gitops clone "$REMOTE" work`), 0)
	if n := len(w.scan("gitops:frozen:*")); n != 0 {
		t.Error("it has the lock of a frozen branch")
	}
	// A push waits as well, with its work done.
	w.must("work", `git gitops unlock --all; git commit -q --allow-empty -m one && git gitops freeze --for 3s && git gitops push -q`)
	if n := len(w.scan("gitops:frozen:*")); n != 0 {
		t.Error("it has pushed to a frozen branch")
	}
}

// TestFreeze_all: every branch of a repository is frozen, also those that are locked for the first
// time, and lock names. Other repositories are not.
func TestFreeze_all(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t, "GITOPS_LOCK_TIMEOUT=0")
	other := w.seed("other.git")
	lock := func(w *world, repo, branch string, code int) {
		t.Helper()
		wantCode(t, w.bash(".", `git gitops run --repo "$1" --branch "$2" -- true`, repo, branch), code)
	}
	remote, narrow := w.env["REMOTE"], w.with("GITOPS_LOCK_NAME=svc")
	lock(w, remote, "main", 0)
	w.must(".", `git gitops freeze --repo "$REMOTE" --all --until "$(date -u -d '+1 hour' +%Y-%m-%dT%H:%MZ)" --reason night`)
	lock(w, remote, "main", 75)
	lock(w, remote, "fresh", 75)
	lock(narrow, remote, "main", 75)
	lock(w, other, "main", 0)
	wantText(t, w.must(".", "git gitops locks"), "(every branch)")
	w.must(".", `git gitops freeze --repo "$REMOTE" --branch main --for 1h`)
	r := w.bash(".", `git gitops thaw --repo "$REMOTE" --branch main`)
	wantCode(t, r, 0)
	wantText(t, r.stderr, "is still frozen with its repository by ", "--all")
	w.must(".", `git gitops thaw --repo "$REMOTE" --all`)
	lock(w, remote, "main", 0)
	lock(w, remote, "fresh", 0)
	lock(narrow, remote, "main", 0)
	w.must(".", `git gitops freeze --repo "$REMOTE" --branch main --for 1h`)
	lock(narrow, remote, "main", 75)
	lock(w, remote, "fresh", 0)
}

// TestFreeze_redisRestarts: a freeze survives a restart of Redis with its data, as locks do.
func TestFreeze_redisRestarts(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t, "GITOPS_LOCK_TIMEOUT=0")
	w.must(".", `git gitops freeze --repo "$REMOTE" --branch main --for 1h`)
	if err := w.keys.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w.redis.Kill()
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("Redis is back", func() bool { return w.keys.Ping(t.Context()).Err() == nil })
	wantCode(t, w.bash(".", `git gitops run --repo "$REMOTE" --branch main -- true`), 75)
}

// TestFreeze_usage: a wrong freeze is refused, and freezes nothing.
func TestFreeze_usage(t *testing.T) {
	t.Parallel()
	w, _ := branchWorld(t, "TZ=UTC")
	past := time.Now().UTC().Add(-time.Hour).Format("2006-01-02T15:04Z")
	for flags, why := range map[string]string{
		"":                      "want --for DURATION or --until TIME",
		"--for 1h --until 5:00": "want --for DURATION or --until TIME",
		"--for -1h":             "want from 1s to 720h0m0s",
		"--for 10000h":          "want from 1s to 720h0m0s",
		"--until noon":          "want a time of today such as 17:30",
		"--until " + past:       "want a time from now to 720h0m0s later",
		"--for 1h --all":        "use --all or --branch, not both",
	} {
		r := w.bash(".", `git gitops freeze --repo "$REMOTE" --branch main `+flags)
		wantCode(t, r, 129)
		wantText(t, r.stderr, why)
	}
	if n := w.scan("gitops:*"); len(n) > 0 {
		t.Errorf("left: %q", n)
	}
}
