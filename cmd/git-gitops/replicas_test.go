//go:build unix

package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

// replicated is a world whose Redis has one replica.
func replicated(t *testing.T) (w *world, replica *redistest.Server) {
	t.Helper()
	w = newWorld(t)
	w.redis = redistest.Start(t, "--repl-diskless-sync-delay", "0")
	w.keys = w.redis.Client(t)
	w = w.with("REDIS_PORT=" + w.redis.Port)
	replica = redistest.Start(t, "--replicaof", w.redis.Host+" "+w.redis.Port, "--repl-diskless-sync-delay", "0")
	w.until("the replica is in sync", func() bool {
		return strings.Contains(w.keys.Info(t.Context(), "replication").Val(), "state=online")
	})
	return w, replica
}

// wantUnconfirmed checks the error of a lock that too few replicas have.
func wantUnconfirmed(t *testing.T, r result, words ...string) {
	t.Helper()
	wantCode(t, r, 69)
	wantText(t, r.ours(), append(words, "gitops: error: cannot lock")...)
	if strings.Count(r.ours(), "error:") != 1 || r.theirs() != "" {
		t.Errorf("not one clear error: %s", r)
	}
}

// TestMinReplicas: a lock counts when so many replicas have it, and is given back at once
// otherwise. One who has waited for it asks again for a while.
func TestMinReplicas(t *testing.T) {
	t.Parallel()
	w, replica := replicated(t)
	remote := w.seed("remote.git")
	strict := w.with("GITOPS_REDIS_MIN_REPLICAS=1")

	// A replica on a busy machine may be too slow for a first contact, once.
	strict.must(".", "for _ in 1 2 3 4 5; do ! git gitops clone -q remote.git one || break; done; cd one && git commit -q --allow-empty -m one && git gitops push -q")
	if w.tip("main") == "" || len(w.locks()) > 0 {
		t.Errorf("locks: %q", w.locks())
	}
	const one = "1 of 2 replicas have confirmed the lock"
	wantUnconfirmed(t, w.with("GITOPS_REDIS_MIN_REPLICAS=2", "ONE="+one).bash(".",
		`for _ in 1 2 3 4 5; do git gitops clone -q remote.git two 2>said; code=$?; ! grep -q "$ONE" said || break; done; cat said >&2; (exit $code)`),
		one, "GITOPS_REDIS_MIN_REPLICAS")
	w.wantLocks()

	w.must(".", "git gitops clone -q remote.git held")
	second := strict.start(".", "bash", "-c", "git gitops clone -q remote.git second; exit $?")
	w.until("the second waits", func() bool { return w.queued() == 1 })
	third := w.start(".", "bash", "-c", "git gitops clone -q remote.git third; exit $?")
	w.until("the third waits", func() bool { return w.queued() == 2 })
	if err := replica.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waits := func() int {
		_, rest, _ := strings.Cut(w.keys.Info(t.Context(), "commandstats").Val(), "cmdstat_wait:calls=")
		text, _, _ := strings.Cut(rest, ",")
		n, _ := strconv.Atoi(text)
		return n
	}
	before := waits()
	w.must("held", "git gitops unlock")
	// Its turn has come, and the replica is away: it waits on, and has the lock when the replica is
	// back.
	w.until("the second asks a second time", func() bool { return waits() >= before+2 })
	if err := replica.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wantCode(t, second.wait(), 0)
	w.must("second", "git gitops unlock")
	wantCode(t, third.wait(), 0)
	w.wantLocks(lockKey(remote, "main"))
	w.must("third", "git gitops unlock")
	if err := replica.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}

	wantUnconfirmed(t, strict.patient("git gitops clone -q remote.git fourth", "0 of 1 replicas have confirmed the lock"), "0 of 1 replicas have confirmed the lock", "GITOPS_REDIS_MIN_REPLICAS")
	w.wantLocks()
	for _, dir := range []string{"two", "fourth"} {
		if w.exists(dir) {
			t.Errorf("%s was cloned", dir)
		}
	}
}

// TestMinReplicas_none: without replicas, or without the right to ask them, no lock counts and none
// is left.
func TestMinReplicas_none(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_REDIS_MIN_REPLICAS=1")
	w.seed("remote.git")
	wantUnconfirmed(t, w.patient("git gitops clone -q remote.git work", "0 of 1 replicas have confirmed the lock"), "0 of 1 replicas have confirmed the lock", "GITOPS_REDIS_MIN_REPLICAS")
	w.wantLocks()

	w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "on", ">pw", "~*", "+@all", "-wait")
	low := w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw")
	wantUnconfirmed(t, low.bash(".", "git gitops clone -q remote.git work"), "NOPERM", "ACL SETUSER")
	w.wantLocks()
}

// TestFailover_lostLock: a failover that loses locks, because the replicas did not have them yet
// and nobody asked for that, grants each of them a second time. Two pipelines hold one lock, and
// still no commit is lost: git has the last word.
func TestFailover_lostLock(t *testing.T) {
	t.Parallel()
	all := redistest.Sentinel(t)
	w := newWorld(t).on("REDIS_SENTINEL_MASTER=main REDIS_SENTINEL_ADDRS=" + strings.Join(all.Addrs(), ","))
	remote := w.seed("remote.git")
	w.must(".", `git clone -q remote.git two && cd two && git push -q origin main:other`)
	var primary *redistest.Server
	w.until("there is a primary", func() bool { primary = all.Primary(""); return primary != nil })
	w = w.at(primary)

	for _, s := range all.Servers {
		if s != primary {
			if err := s.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.keys.Do(t.Context(), "client", "kill", "type", "replica") // what is under way to them is lost
	w.must(".", "git gitops clone -q -b main remote.git first-main && git gitops clone -q -b other remote.git first-other")
	w.wantLocks(lockKey(remote, "main"), lockKey(remote, "other"))
	held := w.keys.Get(t.Context(), lockKey(remote, "main")).Val()
	w.killKeepers() // or they would take the locks back
	primary.Kill()
	for _, s := range all.Servers {
		if s != primary {
			if err := s.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.until("another is primary", func() bool { primary = all.Primary(""); return primary != nil })
	w = w.at(primary)

	w.must(".", "git gitops clone -q -b main remote.git second-main && git gitops clone -q -b other remote.git second-other")
	if now := w.keys.Get(t.Context(), lockKey(remote, "main")).Val(); now == held || now == "" {
		t.Fatalf("the lock was not granted a second time: %q, then %q", held, now)
	}
	w.must(".", `for d in first-main second-main; do echo 1 >$d/counter && git -C $d commit -qam $d; done
		for d in first-other second-other; do echo 1 >$d/$d && git -C $d add . && git -C $d commit -qm $d; done
		git gitops -C second-main push -q && git gitops -C second-other push -q`)

	r := w.bash(".", "git gitops -C first-main push -q")
	wantCode(t, r, 73)
	wantText(t, r.ours(), "branch main moved", "git gitops pull --rebase")
	r = w.with("GITOPS_PUSH_REBASE=true").bash(".", "git gitops -C first-other push -q")
	wantCode(t, r, 0)
	if got := w.must("remote.git", "git log --format=%s main"); got != "second-main\nseed" {
		t.Errorf("main: %s", got)
	}
	if got := w.must("remote.git", "git log --format=%s other"); got != "first-other\nsecond-other\nseed" {
		t.Errorf("other: %s", got)
	}
}
