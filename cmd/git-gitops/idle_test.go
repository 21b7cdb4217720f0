//go:build unix

package main

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// through is the same world, whose commands reach Redis through a proxy.
func (w *world) through(p *redistest.Proxy) *world {
	_, port, _ := net.SplitHostPort(p.Addr)
	return w.with("REDIS_PORT=" + port)
}

// ticket is that of the only one who waits for a lock: its token and its place in time.
func (w *world) ticket(lockKey string) string {
	w.t.Helper()
	all := w.keys.ZRangeWithScores(w.t.Context(), strings.Replace(lockKey, ":lock:", ":queue:", 1), 0, -1).Val()
	if len(all) != 1 {
		w.t.Fatalf("not one waits: %v", all)
	}
	return all[0].Member.(string) + " " + strconv.FormatFloat(all[0].Score, 'f', 0, 64)
}

// blocked is how many connections wait in a BLPOP.
func (w *world) blocked() int {
	w.t.Helper()
	return strings.Count(w.keys.ClientList(w.t.Context()).Val(), "cmd=blpop")
}

// TestDropped: a waiter and a keeper whose connections are cut, time and again, keep the place and
// the lock.
func TestDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	key := lockKey(remote, "main")
	p := redistest.NewProxy(t, w.redis.Addr())
	w = w.through(p).with("GITOPS_LOCK_TTL=" + leaseTTL.String())

	w.must(".", "git gitops clone -q remote.git held")
	token := w.keys.Get(t.Context(), key).Val()
	waiter := w.start(".", "bash", "-c", "git gitops clone -q remote.git next && git -C next commit -q --allow-empty -m next && git gitops -C next push -q; exit $?")
	w.until("it blocks", func() bool { return w.blocked() == 1 })
	ticket := w.ticket(key)
	for range 3 {
		p.Cut()
		w.until("Redis has noticed", func() bool { return w.blocked() == 0 })
		p.Mend()
		w.until("it blocks again", func() bool { return w.blocked() == 1 })
		if now := w.ticket(key); now != ticket {
			t.Fatalf("its ticket was %s, now it is %s", ticket, now)
		}
	}
	// The keeper has lost its connection as well, and renews over another.
	at := time.Now()
	w.until("the lock was renewed", func() bool { return time.Since(at)+w.keys.PTTL(t.Context(), key).Val() > leaseTTL+time.Second })
	if now := w.keys.Get(t.Context(), key).Val(); now != token {
		t.Errorf("the lock was %s's, now it is %s's", token, now)
	}
	w.must("held", "git commit -q --allow-empty -m held && git gitops push -q")
	wantCode(t, waiter.wait(), 0)
	if got := w.must("remote.git", "git log --format=%s main"); got != "next\nheld\nseed" {
		t.Errorf("landed: %s", got)
	}
}

// TestDropped_granted: the lock is handed to a waiter while it is cut off. It has it when it is
// back within the claim time; else the turn moves on, and the waiter has the next one.
func TestDropped_granted(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		t.Run("late "+strconv.FormatBool(late), func(t *testing.T) {
			t.Parallel()
			for try := 1; ; try++ { // on a busy machine the first may be late once
				got := landedAfterCut(t, late)
				if got == map[bool]string{false: "second\nfirst\nseed", true: "first\nsecond\nseed"}[late] {
					break
				}
				if try == 3 {
					t.Fatalf("landed: %s", got)
				}
			}
		})
	}
}

// landedAfterCut is what two who waited have landed when the first was cut off as it was handed the
// lock.
func landedAfterCut(t *testing.T, late bool) string {
	t.Helper()
	w := newWorld(t)
	remote := w.seed("remote.git")
	key := lockKey(remote, "main")
	p := redistest.NewProxy(t, w.redis.Addr())
	pipeline := func(w *world, name string) *process {
		return w.start(".", "bash", "-c", `git gitops clone -q remote.git $1 && git -C $1 commit -q --allow-empty -m $1 && git gitops -C $1 push -q; exit $?`, "bash", name)
	}
	w.must(".", "git gitops clone -q remote.git held")
	first := pipeline(w.through(p), "first")
	w.until("the first blocks", func() bool { return w.blocked() == 1 })
	second := pipeline(w, "second")
	w.until("the second blocks", func() bool { return w.blocked() == 2 })

	p.Cut()
	w.must("held", "git gitops unlock")
	granted := w.keys.Get(t.Context(), key).Val()
	if left := w.keys.PTTL(t.Context(), key).Val(); left <= 0 || left > lock.DefaultTiming().Claim {
		return "claim: " + left.String()
	}
	if late {
		w.until("the turn moves on", func() bool { return w.keys.Get(t.Context(), key).Val() != granted })
	}
	p.Mend()
	wantCode(t, first.wait(), 0)
	wantCode(t, second.wait(), 0)
	return w.must("remote.git", "git log --format=%s main")
}

// TestSilent: the network forgets the connections of a waiter and a keeper without a word. Each
// finds out by itself, and keeps what it has.
func TestSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	key := lockKey(remote, "main")
	p := redistest.NewProxy(t, w.redis.Addr())
	w = w.through(p).with("GITOPS_LOCK_TTL=30")

	w.must(".", "git gitops clone -q remote.git held")
	token := w.keys.Get(t.Context(), key).Val()
	waiter := w.start(".", "bash", "-c", "git gitops clone -q remote.git next; exit $?")
	w.until("it blocks", func() bool { return w.blocked() == 1 })
	ticket := w.ticket(key)
	before := p.Connections()
	p.Silence()
	silent := time.Now()
	w.until("both are back over new connections", func() bool { return p.Connections() >= before+2 && w.blocked() == 1 })
	t.Logf("back after %s", time.Since(silent).Round(time.Millisecond))
	if now := w.ticket(key); now != ticket {
		t.Errorf("its ticket was %s, now it is %s", ticket, now)
	}
	if now := w.keys.Get(t.Context(), key).Val(); now != token {
		t.Errorf("the lock was %s's, now it is %s's", token, now)
	}
	w.must("held", "git gitops unlock")
	wantCode(t, waiter.wait(), 0)
}

// TestConnections: a keeper has one connection to Redis, by which it is present or by which it
// renews, and a waiter has one. Each process has two more to a sentinel (questions and news), or
// one to the node of a Cluster from which it has the slots. There are never more.
func TestConnections(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		start              func(*testing.T) (data, watch []*redistest.Server, settings string)
		toRedis, toWatcher int // most, of a keeper and a waiter together
	}{
		"one server": {func(t *testing.T) (data, watch []*redistest.Server, settings string) {
			s := redistest.Start(t)
			return []*redistest.Server{s}, nil, "REDIS_URL=redis://" + s.Addr()
		}, 2, 0},
		"sentinel": {func(t *testing.T) (data, watch []*redistest.Server, settings string) {
			all, settings := topologies["sentinel"](t)
			return all.Servers, all.Sentinels, settings
		}, 2, 4},
		"cluster": {func(t *testing.T) (data, watch []*redistest.Server, settings string) {
			all, settings := topologies["cluster"](t)
			return all.Servers, nil, settings
		}, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, watch, settings := tc.start(t)
			w := newWorld(t).on(settings).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
			w.seed("remote.git")
			w.must(".", "mkfifo gate")
			clients := map[*redistest.Server]*redis.Client{}
			for _, s := range slices.Concat(data, watch) {
				clients[s] = s.Client(t)
			}
			// last are the last commands of the connections that are neither the servers' own nor
			// this test's.
			last := func(servers []*redistest.Server) (all []string) {
				for _, s := range servers {
					for line := range strings.Lines(clients[s].ClientList(t.Context()).Val()) {
						fields := map[string]string{}
						for _, f := range strings.Fields(line) {
							name, value, _ := strings.Cut(f, "=")
							fields[name] = value
						}
						if !strings.ContainsAny(fields["flags"], "SM") && !strings.HasPrefix(fields["name"], "sentinel-") && fields["cmd"] != "client|list" {
							all = append(all, fields["cmd"])
						}
					}
				}
				slices.Sort(all)
				return all
			}
			// renewals grows with each renewal.
			renewals := func() (n int) {
				for _, s := range data {
					for line := range strings.Lines(clients[s].Info(t.Context(), "commandstats").Val()) {
						calls, _ := strings.CutPrefix(line, "cmdstat_pexpire:calls=")
						calls, _, _ = strings.Cut(calls, ",")
						more, _ := strconv.Atoi(calls) // 0 for any other line
						n += more
					}
				}
				return n
			}
			before := last(watch)
			for session, idle := range map[string]string{"workspace": "eval", "": "ping"} { // the last command of its keeper
				w := w.with("GITOPS_LOCK_SESSION=" + session)
				holder := w.start(".", "bash", "-c", "git gitops clone -q remote.git held && read -r _ <gate; cd held && git gitops unlock && cd .. && rm -rf held")
				w.until("the keeper rests", func() bool { // EVALSHA, or EVAL the first time
					return slices.ContainsFunc(last(data), func(cmd string) bool { return strings.HasPrefix(cmd, idle) })
				})
				next := w.start(".", "bash", "-c", "git gitops clone -q remote.git next; exit $?")
				w.until("the next one waits", func() bool { return slices.Contains(last(data), "blpop") })
				var toRedis, toWatcher []string
				rest := func() bool { // those of the clone that has ended, and of a renewal, go first
					toRedis, toWatcher = last(data), last(watch)
					return len(toRedis) <= tc.toRedis && len(toWatcher)-len(before) <= tc.toWatcher
				}
				w.until("no more connections than that", rest)
				so := renewals()
				w.until("it is renewed again and again", func() bool { return renewals() >= so+6 })
				w.until("there are still no more", rest)
				t.Logf("a keeper (session %q) and a waiter: %q to Redis, %d to sentinels", session, toRedis, len(toWatcher)-len(before))
				w.must(".", "echo >gate")
				wantCode(t, holder.wait(), 0)
				wantCode(t, next.wait(), 0)
				w.must("next", "git gitops unlock && cd .. && rm -rf next")
			}
		})
	}
}

// TestKeeper_neverRenewed: a keeper that has had no answer from Redis yet when its script ends
// releases the lock when Redis is back, and does not leave it to the TTL.
func TestKeeper_neverRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_LOCK_SESSION")
	w.redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	w.keys = w.redis.Client(t)
	w = w.with("REDIS_PORT=" + w.redis.Port)
	key := lockKey(w.seed("remote.git"), "main")
	w.write("pid", strings.TrimSpace(w.must(".", "redis-cli -p $REDIS_PORT info server | tr -d '\\r' | sed -n 's/^process_id://p'")))
	w.write("hooks/post-checkout", "#!/bin/sh\nkill -9 $(cat ../pid)\n")
	w.must(".", `git gitops clone -q -c core.hooksPath="$PWD/hooks" remote.git work`)
	w.until("the keeper has tried for more than a second, or has gone", func() bool {
		const log = "work/.git/gitops/keeper.log"
		return w.exists(log) && (strings.Count(w.read(log), "release: ") >= 6 || len(w.keepers()) == 0)
	})
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("the lock is released", func() bool {
		n, err := w.keys.Exists(t.Context(), key).Result()
		return err == nil && n == 0
	})
}

// TestRelease_failover: a lock that no keeper has is released although Redis is away for a moment
// just then.
func TestRelease_failover(t *testing.T) {
	t.Parallel()
	for try := 1; ; try++ { // Redis must be back within five seconds, for which a machine may be too busy once
		said := runWhileRedisRestarts(t)
		if said == "" {
			return
		}
		if try == 3 || !strings.Contains(said, "could not release") {
			t.Fatalf("we said: %s", said)
		}
	}
}

// runWhileRedisRestarts is what git gitops run says when Redis is away as it is to release, and
// comes back. When it says nothing, the lock must be free.
func runWhileRedisRestarts(t *testing.T) string {
	t.Helper()
	w := newWorld(t)
	w.redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	w.keys = w.redis.Client(t)
	w = w.with("REDIS_PORT=" + w.redis.Port)
	key := lockKey(w.seed("remote.git"), "main")
	w.write("pid", strings.TrimSpace(w.must(".", "redis-cli -p $REDIS_PORT info server | tr -d '\\r' | sed -n 's/^process_id://p'")))
	run := w.start(".", "bash", "-c", "git gitops run --repo remote.git --branch main -- sh -c 'kill -9 $(cat pid); touch killed'; exit $?")
	w.until("Redis is dead", func() bool { return w.exists("killed") })
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	r := run.wait()
	wantCode(t, r, 0)
	if r.ours() == "" {
		w.until("the lock is released", func() bool {
			n, err := w.keys.Exists(t.Context(), key).Result()
			return err == nil && n == 0
		})
	}
	return r.ours()
}
