//go:build unix

package lock_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// deciding is a request whose policy always decides the same.
func deciding(v lock.Action) lock.Request {
	r := request()
	r.Policy = func(context.Context, lock.Attempt) (lock.Decision, error) { return lock.Decision{Action: v}, nil }
	return r
}

// A shared lock is free when the last who shares it has released, in whatever order.
func TestJoin(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"holder last", "holder first"} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t)
			store := open(t, server.Addr())
			holder := take(t, store, request())
			shared := take(t, store, deciding(lock.Join))
			if shared.Token != holder.Token || shared.Fence() != holder.Fence() {
				t.Errorf("got %+v", shared)
			}
			first, last := shared, holder
			if name == "holder first" {
				first, last = last, first
			}
			release(t, store, first, lock.StillShared)
			if err := last.Renew(t.Context(), store); err != nil || last.Broken() {
				t.Errorf("renew: %v, broken %t", err, last.Broken())
			}
			var lost *lock.LostError
			if err := first.Renew(t.Context(), store); !errors.As(err, &lost) || lost.Ended != lock.EndedByRelease {
				t.Errorf("a released share was renewed: %v", err)
			}
			release(t, store, first, lock.NotHeld) // twice is harmless
			w := wait(t.Context(), t, store, request(), ttl)
			release(t, store, last, lock.HandedOver)
			release(t, store, w.granted(t), lock.Freed)
			checkFree(t, client)
		})
	}
}

// All who share a lock take it back together when Redis lost it.
func TestJoin_reasserted(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	holder := take(t, store, request())
	shared := take(t, store, deciding(lock.Join))
	client.FlushAll(t.Context())
	if err := shared.Renew(t.Context(), store); err != nil || !shared.Broken() {
		t.Errorf("%v, broken %t", err, shared.Broken())
	}
	if err := holder.Renew(t.Context(), store); err != nil || !holder.Broken() { // it was taken back before
		t.Errorf("%v, broken %t", err, holder.Broken())
	}
	release(t, store, shared, lock.StillShared)
	release(t, store, holder, lock.Freed)
	checkFree(t, client)
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	holder := take(t, store, request())
	taker := take(t, store, deciding(lock.TakeOver))
	if taker.Token == holder.Token || taker.Fence() <= holder.Fence() {
		t.Errorf("got %+v", taker)
	}
	var lost *lock.LostError
	if err := holder.Renew(t.Context(), store); !errors.As(err, &lost) || lost.Holder.Token != taker.Token {
		t.Errorf("got %v", err)
	}
	release(t, store, holder, lock.NotHeld)
	release(t, store, taker, lock.Freed)
	if err := holder.Renew(t.Context(), store); !errors.As(err, &lost) {
		t.Errorf("one whose lock was taken over took it back: %v", err)
	}
	checkFree(t, client)
}

// A lock that others share can't be taken over: the wait goes on as any other, without a storm.
func TestTakeOver_shared(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := unhurried(t, server.Addr())
	holder := take(t, store, request())
	shared := take(t, store, deciding(lock.Join))
	if err := client.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w := &waiter{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(w.done)
		w.lease, w.err = lock.Acquire(ctx, store, deciding(lock.TakeOver), 500*time.Millisecond, nil)
	}()
	var timeout *lock.TimeoutError
	select {
	case <-w.done:
		if !errors.As(w.err, &timeout) {
			t.Errorf("got %+v, %v", w.lease, w.err)
		}
	case <-time.After(soon):
		t.Error("it goes on, long after the time for it ran out")
		cancel()
		<-w.done
	}
	cancel()
	if n := calls(t, client, "evalsha"); n > 20 {
		t.Errorf("%d scripts in half a second", n)
	}
	release(t, store, shared, lock.StillShared)
	release(t, store, holder, lock.Freed)
}

// What was released stays released, also when a join, a take-over or an acquire comes late.
func TestJoin_arrivesAfterItsRelease(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	ctx := t.Context()
	holder := take(t, store, request())
	for _, verdict := range []lock.Action{lock.Join, lock.TakeOver} {
		late := request()
		if _, err := store.Release(ctx, key, late.Token); err != nil {
			t.Fatal(err)
		}
		if a, err := store.Join(ctx, lock.Try{Request: late}, alone(holder.Token), lock.Decision{Action: verdict}); a.Granted || err != nil {
			t.Errorf("verdict %d: granted to a token that was released: %+v, %v", verdict, a, err)
		}
	}
	release(t, store, holder, lock.Freed)
	checkFree(t, client)

	holder = take(t, store, request())
	shared := take(t, store, deciding(lock.Join))
	release(t, store, holder, lock.StillShared)
	again := request()
	again.Token = holder.Token
	if a, err := store.TryAcquire(ctx, lock.Try{Request: again}); a.Granted {
		t.Errorf("granted to a token that was released: %+v, %v", a, err)
	}
	release(t, store, shared, lock.Freed)
}

// One to whom the lock is handed over, while it decides to share it or to take it over, has it as
// any other waiter that is next in line: by its own token, and for its TTL.
func TestJoin_handedOver(t *testing.T) {
	t.Parallel()
	for name, action := range map[string]lock.Action{"join": lock.Join, "take over": lock.TakeOver} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t)
			store := open(t, server.Addr())
			holder := take(t, store, request())
			r := request()
			r.Policy = func(_ context.Context, a lock.Attempt) (lock.Decision, error) {
				release(t, store, holder, lock.HandedOver)
				return lock.Decision{Action: action, Ended: []lock.Token{a.Holder.Token}}, nil
			}
			lease, err := lock.Acquire(t.Context(), store, r, ttl, nil)
			if err != nil {
				t.Fatal(err)
			}
			if lease.Token != r.Token || lease.Share != "" || lease.From.Token != "" {
				t.Errorf("the lease is %+v", lease.Hold)
			}
			if left := client.PTTL(t.Context(), rkey("lock")).Val(); left < lease.Left()-time.Second {
				t.Errorf("it believes in its lock for %s, but has it for %s", lease.Left(), left)
			}
			if err := lease.Renew(t.Context(), store); err != nil || lease.Broken() {
				t.Errorf("renew: %v, broken %t", err, lease.Broken())
			}
			release(t, store, lease, lock.Freed)
			checkFree(t, client)
		})
	}
}

// One that decides by who shares the lock decides again when that has changed in the meantime.
func TestJoin_othersMeanwhile(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one more", "one less"} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t)
			store := open(t, server.Addr())
			holder := take(t, store, request())
			other := take(t, store, deciding(lock.Join))
			var seen []int
			r := request()
			r.Policy = func(_ context.Context, a lock.Attempt) (lock.Decision, error) {
				switch seen = append(seen, len(a.Holder.Shares)); {
				case len(seen) > 1:
				case name == "one more":
					other = take(t, store, deciding(lock.Join))
				default:
					release(t, store, holder, lock.StillShared)
				}
				return lock.Decision{Action: lock.Join, Again: time.Millisecond}, nil
			}
			lease, err := lock.Acquire(t.Context(), store, r, ttl, nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string][]int{"one more": {2, 3}, "one less": {2, 1}}[name]; !slices.Equal(seen, want) {
				t.Errorf("it has decided by %v, want %v", seen, want)
			}
			for _, l := range []*lock.Lease{lease, other} {
				if err := l.Renew(t.Context(), store); err != nil || l.Broken() {
					t.Errorf("renew: %v, broken %t", err, l.Broken())
				}
			}
			release(t, store, lease, lock.StillShared)
		})
	}
}

// A waiter that was handed the lock and has not confirmed it may be dead. Nobody shares that lock:
// it would be kept for the TTL then.
func TestJoin_unconfirmed(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := unhurried(t, server.Addr())
	holder := take(t, store, request())
	dead := request()
	try(t, store, dead)
	release(t, store, holder, lock.HandedOver)
	seen := inspect(t, store).Holder
	if a, err := store.Join(t.Context(), lock.Try{Request: request()}, *seen, lock.Decision{Action: lock.Join}); a.Granted || err != nil {
		t.Errorf("it shares the lock: %+v, %v", a, err)
	}
	if left := client.PTTL(t.Context(), rkey("lock")).Val(); left > store.Timing().Claim {
		t.Errorf("the lock is kept for %s", left)
	}
	try(t, store, dead) // it lives after all
	if a, err := store.Join(t.Context(), lock.Try{Request: request()}, *seen, lock.Decision{Action: lock.Join}); !a.Granted || err != nil {
		t.Errorf("confirmed: %+v, %v", a, err)
	}
}
