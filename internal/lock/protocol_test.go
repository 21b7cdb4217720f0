//go:build unix

package lock_test

import (
	"errors"
	"fmt"
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

// as is a store of a user who may do all but these commands, and notes events.
func as(t *testing.T, server *redistest.Server, c *redis.Client, but ...string) *redisstore.Store {
	t.Helper()
	words := []any{"acl", "setuser", "ci", "reset", "on", ">pw", "~*", "+@all"}
	for _, b := range but {
		words = append(words, "-"+b)
	}
	if err := c.Do(t.Context(), words...).Err(); err != nil {
		t.Fatal(err)
	}
	return openWith(t, redisstore.Options{Addrs: []string{server.Addr()}, Username: "ci", Password: "pw", Events: 10})
}

// An acquire that is refused in the middle leaves no lock, whatever is refused, although its
// give-up is refused as well.
func TestAcquire_refusedMidway(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	for _, command := range []string{"get", "xadd", "hset", "hdel", "set", "pexpire", "del", "zrem", "hmget", "hget", "zcard", "zrange"} {
		store := as(t, server, client, command)
		lease, err := lock.Acquire(ctx, store, request(), 0, nil)
		if lease != nil || failure(err) != lock.Forbidden {
			t.Errorf("without %s: %+v, %v", command, lease, err)
		}
		if client.Exists(ctx, rkey("lock")).Val() != 0 {
			t.Errorf("without %s the lock is left: %v", command, err)
		}
		client.FlushAll(ctx)
	}
	for _, kind := range []string{"meta", "queue", "fence", "events", "ended"} {
		client.SAdd(ctx, rkey(kind), "x")
		client.Expire(ctx, rkey(kind), time.Minute)
		lease, err := lock.Acquire(ctx, as(t, server, client), request(), 0, nil)
		if lease != nil || failure(err) != lock.NotOurs {
			t.Errorf("%s is a set: %+v, %v", kind, lease, err)
		}
		if client.Exists(ctx, rkey("lock")).Val() != 0 {
			t.Errorf("%s is a set, and the lock is left: %v", kind, err)
		}
		client.FlushAll(ctx)
	}
}

// A release that is refused in the middle can be repeated. One whose event may not be noted frees
// the lock.
func TestRelease_refusedMidway(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	for _, waits := range []bool{false, true} {
		for _, command := range []string{"del", "hset", "zrem", "set", "hmget", "rpush"} {
			store := as(t, server, client)
			lease := take(t, store, request())
			next := request()
			want := lock.Freed
			if waits {
				try(t, store, next)
				want = lock.HandedOver
			}
			_, err := lease.Release(ctx, as(t, server, client, command), soon)
			if err == nil && !waits && (command == "set" || command == "rpush") {
				client.FlushAll(ctx)
				continue // not needed to free a lock that nobody waits for
			}
			if failure(err) != lock.Forbidden {
				t.Errorf("without %s: %v", command, err)
			}
			if got := client.Get(ctx, rkey("lock")).Val(); got != string(lease.Token) {
				t.Errorf("without %s: refused, and %q has the lock", command, got)
			}
			if waits {
				try(t, as(t, server, client), next) // it shows life
			}
			release(t, as(t, server, client), lease, want)
			client.FlushAll(ctx)
		}
	}
	lease := take(t, as(t, server, client), request())
	release(t, as(t, server, client, "xadd"), lease, lock.Freed)
}

// What an operator's break is refused in the middle can be repeated, and says the same when it was
// done.
func TestBreak_again(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	lease := take(t, as(t, server, client), request())
	by := lock.Record{User: "u", Host: "h"}
	if _, err := as(t, server, client, "del").Break(ctx, key, lease.Token, by, "why"); failure(err) != lock.Forbidden {
		t.Errorf("got %v", err)
	}
	if got, err := as(t, server, client).Break(ctx, key, lease.Token, by, "why"); got != lock.Freed || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// A sharer whose TTL is shorter never shortens the lease of the others.
func TestJoin_shorterTTL(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	take(t, store, request())
	short := deciding(lock.Join)
	short.TTL = 5 * time.Second
	shared := take(t, store, short)
	check := func(when string) {
		t.Helper()
		if left := client.PTTL(t.Context(), rkey("lock")).Val(); left < ttl/2 {
			t.Errorf("%s, the lock of %s ends in %s", when, ttl, left)
		}
	}
	check("joined")
	if err := shared.Renew(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	check("renewed")
}

// seen is a waiter as Acquire keeps it after one try.
func seen(t *testing.T, s lock.Store) lock.Try {
	t.Helper()
	w := lock.Try{Request: request()}
	a := tryAgain(t, s, w)
	if a.Granted {
		t.Fatalf("got %+v", a)
	}
	w.Ticket, w.HeldBy, w.HeldRecord, w.HeldUntil, w.Known = a.Ticket, a.Holder.Token, a.Holder.Record, time.Now().Add(time.Minute), a.Holder.Fence
	return w
}

// A holder that has released its lock after a loss of data is not revived by one who waits.
func TestQueue_restartedEmptyReleased(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	w := seen(t, store)
	client.FlushAll(t.Context())
	release(t, store, lease, lock.NotHeld)
	if a := tryAgain(t, store, w); !a.Granted {
		t.Errorf("the dead holder is back: %+v", a)
	}
}

// A holder is believed in until its renewal is due and somewhat longer, not for all of its lease.
func TestQueue_restartedEmptyBelieved(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	r := request()
	r.TTL = time.Hour
	r.Record.User = "holder"
	take(t, open(t, server.Addr()), r)
	store := open(t, server.Addr())
	wait(t.Context(), t, store, request(), ttl)
	blocked(t, client, 1)
	server.Kill()
	resume(t, server, client)
	gittest.Until(t, "the waiter puts the lock back", func() bool {
		return client.Get(t.Context(), rkey("lock")).Val() == string(r.Token)
	})
	if left := client.PTTL(t.Context(), rkey("lock")).Val(); left > r.TTL/3+10*time.Second {
		t.Errorf("believed in for %s", left)
	}
	state, err := store.Inspect(t.Context(), key)
	if err != nil || !state.Holder.Known || state.Holder.User != "holder" {
		t.Errorf("got %+v, %v", state.Holder, err)
	}
}

// What a waiter has put back is over when a neighbour has taken the lock since: the old holder has
// lost it.
func TestQueue_restoredThenStranger(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	lease := take(t, store, request())
	w := seen(t, store)
	client.FlushAll(ctx)
	if a := tryAgain(t, store, w); a.Granted || a.Holder.Token != lease.Token {
		t.Fatalf("not put back: %+v", a)
	}
	client.Del(ctx, rkey("lock")) // it expires
	if !client.SetNX(ctx, rkey("lock"), "script-17", time.Minute).Val() {
		t.Fatal("the neighbour did not get the lock")
	}
	var lost *lock.LostError
	if err := lease.Renew(ctx, store); !errors.As(err, &lost) {
		t.Errorf("got %v", err)
	}
	if got := client.Get(ctx, rkey("lock")).Val(); got != "script-17" {
		t.Errorf("%q has the neighbour's lock", got)
	}
}

// After a failover that has lost the last writes, a released holder's lock is back. It loses
// against the greater fence.
func TestLease_Renew_revived(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	first := take(t, store, request())
	kinds := []string{"lock", "meta", "fence"}
	var dumps []string
	for _, kind := range kinds {
		dumps = append(dumps, client.Dump(ctx, rkey(kind)).Val())
	}
	release(t, store, first, lock.Freed)
	second := take(t, store, request())
	client.FlushAll(ctx)
	for i, kind := range kinds {
		if err := client.Restore(ctx, rkey(kind), time.Minute, dumps[i]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	before := second.Fence()
	if err := second.Renew(ctx, store); err != nil || !second.Broken() || second.Fence() <= before {
		t.Errorf("%v, broken %t, fence %d after %d", err, second.Broken(), second.Fence(), before)
	}
	var lost *lock.LostError
	if err := first.Renew(ctx, store); !errors.As(err, &lost) {
		t.Errorf("the first: %v", err)
	}
	release(t, store, second, lock.Freed)
}

// The fence never falls, also when the server lost it and its clock is behind: the clients know it.
func TestFence_passedOn(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	ahead := time.Now().Add(time.Hour).UnixMicro()
	client.Set(ctx, rkey("fence"), ahead, time.Hour)
	lease := take(t, store, request())
	w := seen(t, store)
	client.FlushAll(ctx)
	if err := lease.Renew(ctx, store); err != nil || int64(lease.Fence()) <= ahead+1 {
		t.Errorf("%v, fence %d after %d", err, lease.Fence(), ahead+1)
	}
	w.HeldUntil = time.Time{}
	client.FlushAll(ctx)
	if a := tryAgain(t, store, w); !a.Granted || int64(a.Fence) <= ahead+1 {
		t.Errorf("%+v after %d", a, ahead+1)
	}
}

// A lock that a newer program keeps is left alone.
func TestProtocol_newer(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	lease := take(t, store, request())
	w := seen(t, store)
	client.HSet(ctx, rkey("meta"), "version", 99)
	state := func() (all []string) {
		for _, k := range client.Keys(ctx, "*").Val() {
			all = append(all, k+client.Dump(ctx, k).Val())
		}
		slices.Sort(all)
		return all
	}
	before := state()
	_, err := lock.Acquire(ctx, store, request(), 0, nil)
	_, joined := store.Join(ctx, lock.Try{Request: request()}, lock.Holder{Token: lease.Token}, lock.Decision{Action: lock.Join})
	_, released := store.Release(ctx, key, lease.Token)
	_, broken := store.Break(ctx, key, lease.Token, lock.Record{}, "")
	_, listed := store.List(ctx)
	for what, err := range map[string]error{
		"acquire": err, "join": joined, "release": released, "break": broken, "list": listed,
		"renew": lease.Renew(ctx, store), "give up": store.GiveUp(ctx, w.Request, lock.EventCancelled),
	} {
		if failure(err) != lock.Newer {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !slices.Equal(state(), before) {
		t.Error("it was touched")
	}
}

// sign is for how long a waiter counts as alive.
func sign(t *testing.T, c *redis.Client, w lock.Token) time.Duration {
	t.Helper()
	text, _, _ := strings.Cut(c.HGet(t.Context(), rkey("waiters"), string(w)).Val(), " ")
	until, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMicro(until).Sub(c.Time(t.Context()).Val())
}

// Far back in line one may be silent for longer, and is woken when it has come to the head.
func TestQueue_farBack(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	take(t, store, request())
	var all []lock.Request
	for range lock.Far + 5 {
		w := request()
		try(t, store, w)
		all = append(all, w)
	}
	last := all[len(all)-1]
	if first, far := sign(t, client, all[0].Token), sign(t, client, last.Token); first > lock.DefaultTiming().Life || far <= 2*lock.DefaultTiming().Life || far > lock.Stretch*lock.DefaultTiming().Life {
		t.Errorf("the first may be silent for %s, the last for %s", first, far)
	}
	for _, w := range all[:len(all)-1] {
		if client.LLen(t.Context(), rkey("wake")+":"+string(last.Token)).Val() > 0 {
			t.Fatal("woken before it is the first")
		}
		if err := store.GiveUp(t.Context(), w, lock.EventTimedOut); err != nil {
			t.Fatal(err)
		}
	}
	if client.LLen(t.Context(), rkey("wake")+":"+string(last.Token)).Val() == 0 {
		t.Error("the first in line does not know that it is")
	}
}

// Tombstones that have lapsed do not pile up.
func TestEnded_pruned(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	for i := range 200 {
		client.HSet(ctx, rkey("ended"), fmt.Sprint("old", i), "1 released")
	}
	client.Expire(ctx, rkey("ended"), time.Minute)
	for range 200 {
		release(t, store, take(t, store, request()), lock.Freed)
	}
	old := 0
	for field := range client.HGetAll(ctx, rkey("ended")).Val() {
		if strings.HasPrefix(field, "old") {
			old++
		}
	}
	if old > 150 {
		t.Errorf("%d of 200 are still there", old)
	}
}

// The server's clock was set back: what is left of a lock is more than its holder has asked for.
func TestQueue_clockStepsBack(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	r := request()
	take(t, store, r)
	client.PExpire(ctx, rkey("lock"), time.Hour+r.TTL)
	client.HSet(ctx, rkey("meta"), "since", time.Now().Add(time.Hour).UnixMicro())
	if a := try(t, store, request()); a.Holder.Left > r.TTL || a.Holder.Age < 0 {
		t.Errorf("got %+v", a.Holder)
	}
	if left := client.PTTL(ctx, rkey("lock")).Val(); left > r.TTL {
		t.Errorf("the lock ends in %s", left)
	}
}

// Each answer takes 1.3 s, as those of a server on a busy machine: the lock is granted.
func TestAcquire_slowAnswersInTime(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	p := newProxy(t, server.Addr())
	p.onAnswer(func([]byte) bool { time.Sleep(1300 * time.Millisecond); return true })
	var err error
	for range 3 { // one may come too late on a machine that is busy as well
		var lease *lock.Lease
		if lease, err = lock.Acquire(t.Context(), open(t, p.addr), request(), 0, nil); err == nil {
			p.onAnswer(nil)
			release(t, open(t, server.Addr()), lease, lock.Freed)
			return
		}
	}
	t.Error(err)
}

// Each answer takes 4 s: too long for a first contact. What the server granted is given back.
func TestAcquire_slowAnswersLeaveNothing(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	direct := open(t, server.Addr())
	before := take(t, direct, request()).Fence() // acquire is known, release is not
	client.Del(t.Context(), rkey("lock"), rkey("meta"))
	p := newProxy(t, server.Addr())
	p.onAnswer(func([]byte) bool { time.Sleep(4 * time.Second); return true })
	lease, err := lock.Acquire(t.Context(), open(t, p.addr), request(), ttl, nil)
	if lease != nil || failure(err) != lock.Unreachable {
		t.Errorf("got %+v, %v", lease, err)
	}
	if fence, _ := client.Get(t.Context(), rkey("fence")).Int64(); fence <= int64(before) {
		t.Error("nothing was granted: the test proves nothing")
	}
	if client.Exists(t.Context(), rkey("lock")).Val() != 0 {
		t.Errorf("the lock is left: %v", err)
	}
}
