//go:build unix

package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestKeep: a sidecar keeps the locks of clones in its folders, also of those that come later, and
// its end frees them: at once when it gets TERM, and within seconds when it is killed.
func TestKeep(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]syscall.Signal{"terminated": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			if err := os.MkdirAll(w.path("work"), 0o755); err != nil {
				t.Fatal(err)
			}
			keep := w.start(".", "git-gitops", "keep", "work")
			w.must(".", "git gitops clone -q remote.git work/repo")
			w.killKeepers() // they end with the container of their step
			w.until("the holder is present", func() bool {
				channels, err := w.keys.PubSubChannels(t.Context(), "gitops:alive:*").Result()
				return err == nil && len(channels) == 1
			})
			w.until("presence is claimed", func() bool {
				fields, err := w.keys.HVals(t.Context(), "gitops:meta:{"+w.path("remote")+"@main}").Result()
				for _, v := range fields {
					if len(v) > 60 && v[40] == ' ' { // run_id and master_replid
						return err == nil
					}
				}
				return false
			})
			next := w.start(".", "bash", "-c", "GITOPS_LOCK_SESSION= git gitops clone -q remote.git next; exit $?")
			w.until("the next one waits", func() bool { return w.queued() == 1 })
			keep.signal(end)
			wantCode(t, next.wait(), 0) // long before the TTL, and before the time-out of the wait
			if end == syscall.SIGTERM {
				wantCode(t, keep.wait(), 0)
			}
		})
	}
}

// TestKeep_redisAway: a sidecar that comes while Redis is away keeps the locks from when it is
// back.
func TestKeep_redisAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "mkdir work; git gitops clone -q remote.git work/repo")
	w.killKeepers() // they end with the container of their step
	w.redis.Kill()
	keep := w.start(".", "git-gitops", "keep", "work")
	w.until("it says that it cannot", func() bool { return strings.Contains(keep.stderr.String(), "cannot keep the lock on ") })
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("it keeps the lock", func() bool { return strings.Contains(keep.stderr.String(), "gitops: keeping the lock on ") })
	w.wantLocks(lockKey(w.path("remote"), "main"))
	keep.signal(syscall.SIGTERM)
	wantCode(t, keep.wait(), 0)
	w.wantLocks()
}

// TestKeep_ended: a sidecar leaves a lock alone that has ended, also when Redis has forgotten that.
func TestKeep_ended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.seed("other.git")
	w.must(".", "mkdir work; git gitops clone -q remote.git work/a")
	w.killKeepers()
	keep := func(says string) *process {
		p := w.start(".", "git-gitops", "keep", "work")
		w.until("it keeps "+says, func() bool { return strings.Contains(p.stderr.String(), "keeping the lock on "+w.path(says)) })
		return p
	}
	first := keep("remote")
	first.signal(syscall.SIGTERM)
	wantCode(t, first.wait(), 0)
	w.wantLocks()
	w.keys.FlushAll(t.Context())
	w.must(".", "git gitops clone -q other.git work/b")
	w.killKeepers()
	keep("other")
	w.wantLocks(lockKey(w.path("other"), "main"))
}
