//go:build linux

package main

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/redistest"
	"github.com/git-gitops/git-gitops/internal/webhook"
)

// namespace runs a script as the first process of a process table of its own, as a container does:
// all that is left in it dies with that process.
var namespace = []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c"}

func needNamespaces(t *testing.T) {
	t.Helper()
	if out, err := exec.Command(namespace[0], append(namespace[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no namespaces here: %v: %s", err, out)
	}
}

// TestPresence: however a pipeline ends, and whatever ends with it, the next in line has the lock
// long before the TTL of five minutes.
func TestPresence(t *testing.T) {
	t.Parallel()
	life := newLifeWorld(t).with("GITOPS_LOCK_TTL=300", "GITOPS_LOCK_TIMEOUT=600")
	const clone = "git gitops clone -q $REMOTE work && touch ready && read -r _ <gate"
	for name, tc := range map[string]struct {
		script    string
		contained bool
		ends      bool // by itself, when its gate opens; else by a kill -9 of its process group
		name      bool // it waits for the branch in a push under a lock name
	}{
		"PID 1 fails":                  {script: clone + "; exit 1", contained: true, ends: true},
		"PID 1 removes its clone":      {script: clone + "; rm -rf work; exit 0", contained: true, ends: true},
		"PID 1 is killed":              {script: clone, contained: true},
		"an entrypoint as PID 1":       {script: "bash -c '" + clone + "; exit 1' & wait $!; exit 1", contained: true, ends: true},
		"killed in the edit":           {script: clone + "; exit 1"},
		"killed in the clone":          {script: "git gitops clone -q -c core.hooksPath=$PWD/hooks $REMOTE work; exit 1"},
		"killed in a push with a name": {script: "GITOPS_LOCK_NAME=one git gitops clone -q $REMOTE work && cd work && git commit -q --allow-empty -m one && GITOPS_LOCK_NAME=one git -c core.hooksPath=$PWD/../hooks gitops push -q; exit 1", name: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.contained {
				needNamespaces(t)
			}
			w := life.in(t, name)
			hook := "#!/bin/sh\ntouch " + w.path("ready") + "\nsleep 600\n"
			w.write("hooks/pre-push", hook)
			w.write("hooks/post-checkout", hook)
			words := []string{"bash", "-c"}
			if tc.contained {
				words = namespace
			}
			holder := w.start(".", append(words, tc.script)...)
			w.until("it holds the lock", func() bool { return w.exists("ready") })
			waits, script := w, "git gitops clone -q $REMOTE next; exit $?"
			if tc.name { // the branch's own lock is held too, but for a push only
				waits, script = w.with("GITOPS_LOCK_NAME=two"), "git gitops clone -q $REMOTE next && git -C next commit -q --allow-empty -m two && git gitops -C next push -q; exit $?"
			}
			next := waits.start(".", "bash", "-c", script)
			w.until("the next one waits, and the holder shows itself", func() bool {
				return w.waitsHere() && w.claimed()
			})
			ended := time.Now()
			if tc.ends {
				w.open("gate")
			} else {
				holder.signal(syscall.SIGKILL)
			}
			wantCode(t, next.wait(), 0)
			t.Logf("the next one has the lock %s after the end", time.Since(ended).Round(10*time.Millisecond))
		})
	}
}

// TestPresence_killedAtOnce: a command that is killed with all that belongs to it right after it
// was granted the lock, before it could show itself, does not leave it for the TTL.
func TestPresence_killedAtOnce(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t).with("GITOPS_LOCK_TTL=3600", "GITOPS_LOCK_MAX_HOLD=7200", "GITOPS_LOCK_TIMEOUT=600")
	if err := w.keys.Do(t.Context(), "acl", "setuser", "default", "-subscribe").Err(); err != nil { // so it does not yet
		t.Fatal(err)
	}
	w.write("hooks/post-checkout", "#!/bin/sh\ntouch "+w.path("ready")+"\nsleep 600\n")
	left := func() time.Duration { return w.keys.PTTL(t.Context(), lockKey(w.env["REMOTE"], "main")).Val() }
	for range 20 {
		holder := w.start(".", "bash", "-c", "git gitops clone -q -c core.hooksPath=$PWD/hooks $REMOTE work; exit 1")
		w.until("it holds the lock", func() bool { return w.exists("ready") })
		holder.signal(syscall.SIGKILL)
		holder.wait()
		if left() <= time.Minute {
			wantCode(t, w.bash(".", "git gitops clone -q $REMOTE next"), 0)
			return
		}
		// Too late, on a busy machine: it had renewed already.
		w.must(".", "rm -rf ready work; git gitops unlock --force $(git gitops locks --json | jq -r .holder.id)")
	}
	t.Error("the lock of a holder that has not shown itself lasts for the TTL")
}

// TestPresence_killedUnsubscribed: the same for a holder whose keeper has renewed the lock, and has
// not been able to subscribe yet.
func TestPresence_killedUnsubscribed(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	proxy := redistest.NewProxy(t, w.redis.Addr())
	proxy.Deny("subscribe")
	w = w.through(proxy).with("GITOPS_LOCK_TTL=3600", "GITOPS_LOCK_MAX_HOLD=7200", "GITOPS_LOCK_TIMEOUT=600")
	holder := w.start(".", "bash", "-c", "git gitops clone -q $REMOTE work && touch ready && read -r _ <gate")
	w.until("it holds the lock", func() bool { return w.exists("ready") })
	least := w.left()
	w.until("its keeper has renewed", func() bool {
		left := w.left()
		least = min(least, left)
		return left > least+5*time.Second
	})
	if left := w.left(); left > time.Minute {
		t.Errorf("the lock ends in %s", left)
	}
	holder.signal(syscall.SIGKILL)
	holder.wait()
	w.killKeepers()
	wantCode(t, w.bash(".", "git gitops clone -q $REMOTE next"), 0)
	w.until("no keeper is left", func() bool { return len(w.keepers()) == 0 })
}

// waitsHere reports whether anybody waits for a lock of this room.
func (w *world) waitsHere() bool {
	w.t.Helper()
	for _, key := range w.scan("gitops:queue:*") {
		if strings.Contains(key, w.dir+"/") && w.keys.ZCard(w.t.Context(), key).Val() > 0 {
			return true
		}
	}
	return false
}

// claimed reports whether the holders of all locks of this room show that they live.
func (w *world) claimed() bool {
	w.t.Helper()
	for _, key := range w.scan("gitops:meta:*") {
		if !strings.Contains(key, w.dir+"/") {
			continue
		}
		meta := w.keys.HGetAll(w.t.Context(), key).Val()
		if owner := meta["owner"]; owner != "" && !strings.Contains(meta["s:"+owner], " ") {
			return false
		}
	}
	return true
}

// TestPresence_shown: locks and the page show that a holder is gone also when nobody waits; events,
// stats, metrics and the webhook of the next holder tell that its hold ended so.
func TestPresence_shown(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	hook := receive(t, nil)
	w := newLifeWorld(t).with("GITOPS_LOCK_TTL=300", "GITOPS_LOCK_TIMEOUT=600").posting(hook.server.Listener.Addr().String())
	_, page := w.serving()
	holder := w.start(".", append(namespace, "git gitops clone -q $REMOTE work && touch ready && read -r _ <gate")...)
	w.until("it holds the lock and shows itself", func() bool { return w.exists("ready") && w.claimed() })
	wantText(t, w.must(".", "git gitops locks --json"), `"presence":"present"`)
	holder.signal(syscall.SIGKILL)
	w.until("locks says that it is gone", func() bool { return strings.Contains(w.must(".", "git gitops locks"), ", gone ") })
	wantText(t, w.must(".", "git gitops locks --json"), `"presence":"gone"`)
	w.until("so does the page, and its data", func() bool {
		return strings.Contains(page(""), `class="gone"`) && strings.Contains(page("api/v1/locks"), `"presence":"gone"`)
	})

	fence := w.fenceHere()
	wantCode(t, w.bash(".", "git gitops clone -q $REMOTE next"), 0)
	wantText(t, w.must(".", "git gitops events"), "  gone ")
	wantText(t, w.must(".", "git gitops stats --json"), `"failures":1`)
	wantText(t, w.must(".", "git gitops metrics --once"), `gitops_events_total{type="gone"} 1`)
	gone := func() (e webhook.Event) {
		for _, one := range hook.taken() {
			if one.Type == "gone" {
				e = one
			}
		}
		return e
	}
	w.until("the webhook has the event", func() bool { return gone().Type != "" })
	if e := gone(); e.Fence != fence || e.Branch != "main" || e.Hold <= 0 || !strings.Contains(e.Reason, " (clone) was alive") {
		t.Errorf("posted: %+v, want fence %d", e, fence)
	}
}

// fenceHere is the fence of the lock of this room.
func (w *world) fenceHere() int64 {
	w.t.Helper()
	for _, key := range w.scan("gitops:meta:*") {
		if strings.Contains(key, w.dir+"/") {
			fence, _ := strconv.ParseInt(w.keys.HGet(w.t.Context(), key, "fence").Val(), 10, 64)
			return fence
		}
	}
	w.t.Fatal("no lock")
	return 0
}
