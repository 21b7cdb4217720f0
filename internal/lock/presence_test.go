//go:build unix

package lock_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// patient is a request for a lock that its TTL frees after all tests have ended.
func patient(present bool) lock.Request {
	r := request()
	r.TTL, r.Present = time.Hour, present
	return r
}

// holder is somebody who holds the lock and shows that it lives.
type holder struct {
	store lock.Store
	lease *lock.Lease
	stop  func()
	lost  chan error
}

// hold keeps a lease, and waits until its presence is claimed.
func hold(t *testing.T, s lock.Store, lease *lock.Lease) *holder {
	t.Helper()
	h := &holder{store: s, lease: lease, lost: make(chan error, 1)}
	h.stop = lease.Keep(t.Context(), s, 0, func(err error) { h.lost <- err })
	t.Cleanup(h.die)
	h.claimed(t)
	return h
}

func (h *holder) claimed(t *testing.T) {
	t.Helper()
	gittest.Until(t, "presence is claimed", h.lease.Claimed)
}

// die leaves as a process does that is killed.
func (h *holder) die() {
	h.stop()
	h.lease.Leave()
}

// unsubscribed waits until the server has noticed that nobody is there for a holder.
func unsubscribed(t *testing.T, c *redis.Client, l *lock.Lease) {
	t.Helper()
	channel := rkey("alive") + ":" + string(l.Token)
	gittest.Until(t, "nobody is subscribed", func() bool { return c.PubSubNumSub(t.Context(), channel).Val()[channel] == 0 })
}

var numsub = regexp.MustCompile(`cmdstat_pubsub\|(?:shard)?numsub:calls=(\d+)`)

// looks is how often a server was asked who is subscribed, since it started.
func looks(t *testing.T, c *redis.Client) int {
	t.Helper()
	m := numsub.FindStringSubmatch(c.Info(t.Context(), "commandstats").Val())
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// waits says that a waiter still has no lock after so many more looks at the holder.
func (w *waiter) waits(t *testing.T, c *redis.Client, more int) {
	t.Helper()
	before := looks(t, c)
	gittest.Until(t, fmt.Sprintf("%d more looks", more), func() bool {
		select {
		case <-w.done:
			t.Fatalf("a living holder was judged gone (%v)", w.err)
		default:
		}
		return looks(t, c) >= before+more
	})
}

// noting is open, with events.
func noting(t *testing.T, addr string) *redisstore.Store {
	t.Helper()
	return openWith(t, redisstore.Options{Addrs: []string{addr}, Events: 100})
}

func events(t *testing.T, c *redis.Client) (all []string) {
	t.Helper()
	for _, e := range c.XRange(t.Context(), rkey("events"), "-", "+").Val() {
		all = append(all, fmt.Sprint(e.Values["type"]))
	}
	return all
}

// A holder whose process has ended loses its lock to who waits long before its TTL, and can't take
// it back.
func TestPresence_gone(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	h := hold(t, open(t, server.Addr()), take(t, open(t, server.Addr()), patient(true)))
	w := wait(t.Context(), t, open(t, server.Addr()), patient(false), time.Hour)
	w.waits(t, client, 4)
	died := time.Now()
	h.die()
	next := w.granted(t)
	t.Logf("freed %s after the holder's end", time.Since(died).Round(10*time.Millisecond))

	var lost *lock.LostError
	if err := h.lease.Renew(t.Context(), h.store); !errors.As(err, &lost) || lost.Ended != lock.EndedByAbsence {
		t.Errorf("its renewal: %v", err)
	}
	release(t, h.store, next, lock.Freed)
	checkFree(t, client)
}

// The second in line looks too: the first may end with the holder.
func TestPresence_first(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	h := hold(t, open(t, server.Addr()), take(t, open(t, server.Addr()), patient(true)))
	first := open(t, server.Addr())
	wait(t.Context(), t, first, patient(false), time.Hour)
	second := wait(t.Context(), t, open(t, server.Addr()), patient(false), time.Hour)
	second.waits(t, client, 4)
	died := time.Now()
	_ = first.Close() // it gives nothing up, as one that is killed
	h.die()
	next := second.granted(t)
	t.Logf("freed %s after the end of the holder and the first in line", time.Since(died).Round(10*time.Millisecond))
	release(t, h.store, next, lock.Freed)
}

// Nobody is judged by a claim of the one who held the lock before: one who was handed it may be
// late to subscribe.
func TestPresence_handedOver(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	h := hold(t, open(t, server.Addr()), take(t, open(t, server.Addr()), patient(true)))
	next := wait(t.Context(), t, open(t, server.Addr()), patient(true), time.Hour)
	last := wait(t.Context(), t, open(t, server.Addr()), patient(false), time.Hour)
	last.waits(t, client, 2)
	h.stop()
	release(t, h.store, h.lease, lock.HandedOver)
	lease := next.granted(t) // it does not subscribe for now
	r := patient(false)
	for range 4 {
		if a, err := h.store.TryAcquire(t.Context(), lock.Try{Request: r}); err != nil || a.Holder.Presence != lock.PresenceUnknown {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if _, err := h.store.Release(t.Context(), key, r.Token); err != nil {
		t.Error(err)
	}
	held := hold(t, h.store, lease)
	last.waits(t, client, 4)
	held.die()
	release(t, h.store, last.granted(t), lock.Freed)
}

// Whoever shares a lock is there for it: one that shows itself while another does, one that shows
// nothing keeps the lock from being judged at all.
func TestPresence_sharers(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	h := hold(t, store, take(t, store, patient(true)))

	r := deciding(lock.Join)
	r.TTL, r.Present = time.Hour, true
	shown := hold(t, store, take(t, store, r))
	r = deciding(lock.Join)
	r.TTL = time.Hour
	hidden := take(t, store, r)
	h.die()
	shown.die()
	unsubscribed(t, client, h.lease)
	before := looks(t, client)
	r = patient(false)
	for range 4 {
		if a, err := store.TryAcquire(t.Context(), lock.Try{Request: r}); err != nil || a.Holder.Presence != lock.PresenceUnknown {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if n := looks(t, client) - before; n > 0 {
		t.Errorf("%d looks at a lock of which somebody shows nothing", n)
	}
	release(t, store, hidden, lock.StillShared)
	if a, err := store.TryAcquire(t.Context(), lock.Try{Request: r}); err != nil || a.Holder.Presence != lock.Absent {
		t.Errorf("when only those are left who have ended: %+v, %v", a, err)
	}
}

// A sharer that lives keeps the lock when its holder has ended.
func TestPresence_sharerLives(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	h := hold(t, store, take(t, store, patient(true)))
	r := deciding(lock.Join)
	r.TTL, r.Present = time.Hour, true
	shown := hold(t, store, take(t, store, r))
	w := wait(t.Context(), t, open(t, server.Addr()), patient(false), time.Hour)
	h.die()
	w.waits(t, client, 5)
	shown.die()
	w.granted(t)
}

// A holder that lives is not judged gone, whatever becomes of Redis and of its connections.
func TestPresence_lives(t *testing.T) {
	t.Parallel()
	durable := []string{"--appendonly", "yes", "--appendfsync", "always"}
	for name, tc := range map[string]struct {
		args  []string
		fault func(t *testing.T, server *redistest.Server, client *redis.Client, p *redistest.Proxy)
	}{
		"restart": {durable, func(t *testing.T, server *redistest.Server, client *redis.Client, _ *redistest.Proxy) {
			server.Kill()
			resume(t, server, client)
		}},
		"restart without data": {nil, func(t *testing.T, server *redistest.Server, client *redis.Client, _ *redistest.Proxy) {
			server.Kill()
			resume(t, server, client)
		}},
		"cut": {nil, func(_ *testing.T, _ *redistest.Server, _ *redis.Client, p *redistest.Proxy) {
			p.Cut()
			p.Mend()
		}},
		"ended at the server": {nil, func(t *testing.T, _ *redistest.Server, client *redis.Client, _ *redistest.Proxy) {
			if err := client.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
				t.Error(err)
			}
		}},
		"silent": {nil, func(t *testing.T, _ *redistest.Server, client *redis.Client, p *redistest.Proxy) {
			p.Silence()
			if err := client.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
				t.Error(err)
			}
		}},
		"another replication": {nil, func(t *testing.T, _ *redistest.Server, client *redis.Client, _ *redistest.Proxy) {
			if err := client.Do(t.Context(), "debug", "change-repl-id").Err(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := serve(t, append(tc.args, "--enable-debug-command", "yes")...)
			p := redistest.NewProxy(t, server.Addr())
			through := open(t, p.Addr)
			h := hold(t, through, take(t, through, patient(true)))
			w := wait(t.Context(), t, noting(t, server.Addr()), patient(false), time.Hour)
			for range 3 {
				w.waits(t, client, 1)
				tc.fault(t, server, client, p)
				if name == "another replication" { // nobody notices before the next renewal
					_ = h.lease.Renew(t.Context(), through)
				}
				gittest.Until(t, "it is there again", func() bool {
					return h.lease.Claimed() && client.PubSubNumSub(t.Context(), rkey("alive")+":"+string(h.lease.Token)).Val()[rkey("alive")+":"+string(h.lease.Token)] > 0
				})
			}
			w.waits(t, client, 4)
			if all := events(t, client); slices.Contains(all, "gone") {
				t.Errorf("events: %v", all)
			}
			h.die()
			w.granted(t)
			if all := events(t, client); !slices.Contains(all, "gone") {
				t.Errorf("events: %v", all)
			}
		})
	}
}

// A clock that steps back, and a renewal by somebody who is not subscribed, begin the looks again.
func TestPresence_notes(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	h := hold(t, store, take(t, store, patient(true)))
	h.die()
	unsubscribed(t, client, h.lease)
	r := patient(false)
	look := func() lock.Attempt {
		t.Helper()
		a, err := store.TryAcquire(t.Context(), lock.Try{Request: r})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	meta := rkey("meta")
	age := func(by time.Duration) { // the first look was so long ago
		t.Helper()
		now := client.Time(t.Context()).Val()
		if err := client.HSet(t.Context(), meta, "absent", now.Add(-by).UnixMicro()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if a := look(); a.Granted || a.Holder.Presence != lock.Absent {
		t.Fatalf("the first look: %+v", a)
	}
	age(time.Minute)
	if a := look(); a.Granted {
		t.Fatal("two looks decided")
	}
	age(-time.Minute)
	if a := look(); a.Granted {
		t.Fatal("a look in the future decided")
	}
	age(time.Minute)
	if err := h.lease.Renew(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if n := client.HExists(t.Context(), meta, "absent").Val(); n {
		t.Error("a renewal left the note of the looks")
	}
	// This renewal also took the claim back, for nobody was counted.
	if a := look(); a.Granted || a.Holder.Presence != lock.PresenceUnknown {
		t.Errorf("after a renewal that found nobody subscribed: %+v", a)
	}
	overdue(t, client)
	if a := look(); a.Granted || a.Holder.Presence != lock.Absent {
		t.Errorf("when the next renewal is overdue: %+v", a)
	}
}

// overdue makes the last renewal so old that a holder which lives would have made another.
func overdue(t *testing.T, c *redis.Client) {
	t.Helper()
	if !c.PExpire(t.Context(), rkey("lock"), 2*time.Hour/3-10*time.Second).Val() {
		t.Fatal("the lock is not held")
	}
}

// A holder that ends with the server that counted its subscription, or just before, is judged by
// the next server when its renewal is overdue; one that lives, and is subscribed there, is not.
func TestPresence_moved(t *testing.T) {
	t.Parallel()
	server, client := serve(t, "--enable-debug-command", "yes")
	store := noting(t, server.Addr())
	h := hold(t, store, take(t, store, patient(true)))
	r := patient(false)
	look := func(want lock.Presence) {
		t.Helper()
		wantPresence(t, store, r, want)
	}
	age := func(by time.Duration) {
		t.Helper()
		at := client.Time(t.Context()).Val().Add(-by).UnixMicro()
		if err := client.HSet(t.Context(), rkey("meta"), "absent", at).Err(); err != nil {
			t.Fatal(err)
		}
	}
	move := func() {
		t.Helper()
		if err := client.Do(t.Context(), "debug", "change-repl-id").Err(); err != nil {
			t.Fatal(err)
		}
	}
	look(lock.Present)
	move() // nobody notices before the next renewal
	look(lock.PresenceUnknown)
	overdue(t, client)
	for range 4 {
		age(time.Hour)
		look(lock.Present)
	}
	if err := h.lease.Renew(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	h.claimed(t)
	look(lock.Present)

	h.die()
	unsubscribed(t, client, h.lease)
	look(lock.Absent)
	move()
	for range 4 {
		age(time.Hour)
		look(lock.PresenceUnknown)
	}
	overdue(t, client)
	for range 4 {
		age(20 * time.Second)
		look(lock.Absent)
	}
	age(time.Minute)
	if a, err := store.TryAcquire(t.Context(), lock.Try{Request: r}); err != nil || !a.Granted {
		t.Fatalf("%+v, %v", a, err)
	}
	if all := events(t, client); !slices.Contains(all, "gone") {
		t.Errorf("events: %v", all)
	}
	if _, err := store.Release(t.Context(), key, r.Token); err != nil {
		t.Error(err)
	}
}

// An old primary that had a replica and has none may have been replaced: it judges nobody.
func TestPresence_isolated(t *testing.T) {
	t.Parallel()
	server, client := serve(t, "--repl-diskless-sync-delay", "0")
	replica := redistest.Start(t, "--replicaof", server.Host+" "+server.Port)
	gittest.Until(t, "the replica is there", func() bool {
		return strings.Contains(client.Info(t.Context(), "replication").Val(), "state=online")
	})
	store := open(t, server.Addr())
	h := hold(t, store, take(t, store, patient(true)))
	h.die()
	replica.Kill()
	gittest.Until(t, "it is gone", func() bool {
		return strings.Contains(client.Info(t.Context(), "replication").Val(), "connected_slaves:0")
	})
	r := patient(false)
	for range 2 {
		a, err := store.TryAcquire(t.Context(), lock.Try{Request: r})
		if err != nil || a.Granted || a.Holder.Presence != lock.PresenceUnknown {
			t.Fatalf("%+v, %v", a, err)
		}
	}
}

// Where presence is not available, none is claimed, and nothing else is different.
func TestPresence_none(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]string{
		"no subscription": "-subscribe",
		"no channels":     "resetchannels",
		"no counting":     "-pubsub",
		"no info":         "-info",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := serve(t)
			if err := client.Do(t.Context(), "acl", "setuser", "default", rule).Err(); err != nil {
				t.Fatal(err)
			}
			store := open(t, server.Addr())
			lease := take(t, store, patient(true))
			lost := make(chan error, 1)
			stop := lease.Keep(t.Context(), store, 0, func(err error) { lost <- err })
			r := patient(false)
			for range 3 {
				a, err := store.TryAcquire(t.Context(), lock.Try{Request: r})
				if err != nil || a.Holder.Presence != lock.PresenceUnknown {
					t.Errorf("%+v, %v", a, err)
				}
			}
			if err := lease.Renew(t.Context(), store); err != nil || lease.Claimed() {
				t.Errorf("renew: %v, claimed %t", err, lease.Claimed())
			}
			stop()
			release(t, store, lease, lock.HandedOver)
			select {
			case err := <-lost:
				t.Error(err)
			default:
			}
		})
	}
}

// A holder that has not shown itself yet has the lock for a short time only, however it came to it:
// one that is killed right after the grant does not leave it for the whole TTL. Its first renewal
// ends that.
func TestPresence_firstLease(t *testing.T) {
	t.Parallel()
	const short = 30 * time.Second
	server, client := serve(t)
	store := noting(t, server.Addr())
	check := func(when string, lease *lock.Lease, first bool) {
		t.Helper()
		if left := client.PTTL(t.Context(), rkey("lock")).Val(); left <= 0 || (left <= short) != first {
			t.Errorf("%s, the lock ends in %s", when, left)
		}
		if left := lease.Left(); left <= 0 || (left <= short) != first {
			t.Errorf("%s, the holder believes in it for %s", when, left)
		}
	}
	hidden := take(t, store, patient(false))
	check("of one that shows nothing", hidden, false)
	w := wait(t.Context(), t, open(t, server.Addr()), patient(true), time.Hour)
	release(t, store, hidden, lock.HandedOver)
	handed := w.granted(t)
	check("handed over", handed, true)
	if err := handed.Renew(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	check("renewed", handed, false)

	r := deciding(lock.TakeOver)
	r.TTL, r.Present = time.Hour, true
	taken := take(t, store, r)
	check("taken over", taken, true)
	release(t, store, taken, lock.Freed)

	killed := take(t, store, patient(true))
	check("granted", killed, true)
	if !client.PExpire(t.Context(), rkey("lock"), time.Second).Val() { // the short time is over
		t.Fatal("the lock is not held")
	}
	next := wait(t.Context(), t, store, patient(true), time.Hour).granted(t)
	if all := events(t, client); !slices.Contains(all, "expired") {
		t.Errorf("events: %v", all)
	}

	// Whoever cannot show itself renews in time.
	if err := client.Do(t.Context(), "acl", "setuser", "default", "-subscribe").Err(); err != nil {
		t.Fatal(err)
	}
	stop := next.Keep(t.Context(), store, 0, func(err error) { t.Errorf("lost: %v", err) })
	gittest.Until(t, "it is renewed", func() bool { return client.PTTL(t.Context(), rkey("lock")).Val() > short })
	stop()
	release(t, store, next, lock.Freed)
}

// One that renews before its first subscription leaves the lock for no longer than a first lease.
// One that has it, or still has none after that time, renews for the TTL.
func TestPresence_firstSubscription(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	timing := lock.DefaultTiming()
	timing.First = 15 * time.Second
	proxy := redistest.NewProxy(t, server.Addr())
	proxy.Deny("subscribe")
	store := openWith(t, redisstore.Options{Addrs: []string{proxy.Addr}, Timing: timing})
	left := func() time.Duration { return client.PTTL(t.Context(), rkey("lock")).Val() }

	lease := take(t, store, patient(true))
	stop := lease.Attend(t.Context(), store)
	if !client.PExpire(t.Context(), rkey("lock"), 5*time.Second).Val() {
		t.Fatal("the lock is not held")
	}
	if err := lease.Renew(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if in := left(); in <= 5*time.Second || in > timing.First || lease.Left() <= 0 || lease.Left() > timing.First {
		t.Errorf("renewed before it has subscribed, the lock ends in %s, and the holder believes in it for %s", in, lease.Left())
	}
	proxy.Deny("")
	gittest.Until(t, "it has subscribed", func() bool { return lease.Renew(t.Context(), store) == nil && lease.Claimed() })
	if left() <= timing.First || lease.Left() <= timing.First {
		t.Errorf("subscribed, the lock ends in %s, and the holder believes in it for %s", left(), lease.Left())
	}
	stop()
	release(t, store, lease, lock.Freed)

	proxy.Deny("subscribe")
	lease = take(t, store, patient(true))
	stop = lease.Keep(t.Context(), store, 0, func(err error) { t.Errorf("lost: %v", err) })
	gittest.Until(t, "it is renewed for the TTL", func() bool { return left() > timing.First })
	stop()
	release(t, store, lease, lock.Freed)
}

// wantPresence wants a waiter to see that about the holder, who keeps the lock.
func wantPresence(t *testing.T, store lock.Store, r lock.Request, want lock.Presence) {
	t.Helper()
	a, err := store.TryAcquire(t.Context(), lock.Try{Request: r})
	if err != nil || a.Granted || a.Holder.Presence != want {
		t.Fatalf("%+v, %v, want %d", a, err, want)
	}
}

// One that joins and is killed before it has shown itself keeps nobody from judging the lock when a
// renewal is overdue. One that lives, and cannot show itself, does.
func TestPresence_joinerKilled(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	h := hold(t, store, take(t, store, patient(true)))
	r := deciding(lock.Join)
	r.TTL, r.Present = time.Hour, true
	joined := take(t, store, r)
	h.die()
	unsubscribed(t, client, h.lease)
	look := func(want lock.Presence) {
		t.Helper()
		wantPresence(t, store, patient(false), want)
	}
	look(lock.PresenceUnknown)
	overdue(t, client)
	look(lock.Absent)

	if err := client.Do(t.Context(), "acl", "setuser", "default", "-subscribe").Err(); err != nil {
		t.Fatal(err)
	}
	stop := joined.Keep(t.Context(), store, 0, func(err error) { t.Errorf("lost: %v", err) })
	gittest.Until(t, "its share claims nothing", func() bool {
		return client.HGet(t.Context(), rkey("meta"), "s:"+string(joined.Own())).Val() == "1"
	})
	stop()
	overdue(t, client)
	look(lock.PresenceUnknown)
}
