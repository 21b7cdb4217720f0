//go:build unix

package lock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

// by is a request of a user.
func by(user string, p lock.QueuePolicy, group string) lock.Request {
	r := request()
	r.Record.User, r.QueuePolicy, r.Group = user, p, group
	return r
}

// One that does not wait gets the lock when it is free, or an error that says who holds it. It is
// never in the queue.
func TestSkip(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	skip := func() *lock.SkippedError {
		t.Helper()
		lease, err := lock.Acquire(t.Context(), store, by("skipper", lock.Skip, ""), ttl, func(lock.Waiting) { t.Error("it waits") })
		var skipped *lock.SkippedError
		if lease != nil || !errors.As(err, &skipped) {
			t.Fatalf("got %+v, %v", lease, err)
		}
		if n := client.ZCard(t.Context(), rkey("queue")).Val(); int(n) != skipped.Waiters {
			t.Errorf("%d in the queue, and it saw %d", n, skipped.Waiters)
		}
		return skipped
	}
	release(t, store, take(t, store, by("skipper", lock.Skip, "")), lock.Freed)
	lease := take(t, store, by("holder", "", ""))
	if got := skip(); got.Holder.User != "holder" {
		t.Errorf("got %+v", got)
	}
	waiter := by("waiter", "", "")
	try(t, store, waiter)
	release(t, store, lease, lock.HandedOver)
	client.Del(t.Context(), rkey("lock")) // the waiter did not take it in time
	try(t, store, waiter)
	if _, err := store.Release(t.Context(), key, waiter.Token); err != nil {
		t.Fatal(err)
	}
	freeze(t, store, time.Hour)
	if got := skip(); !got.Freeze.Frozen() || got.Freeze.By.User != "ann" {
		t.Errorf("got %+v", got)
	}
	thaw(t, store)
	release(t, store, take(t, store, by("skipper", lock.Skip, "")), lock.Freed)
}

// One that does not wait and shares the lock, but gets no answer, fails as Redis does. It leaves no
// share behind, which would keep the lock.
func TestSkip_lostAnswer(t *testing.T) {
	t.Parallel()
	for name, action := range map[string]lock.Action{"join": lock.Join, "take over": lock.TakeOver} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t)
			store := unhurried(t, server.Addr())
			holder := take(t, store, request())
			release(t, store, take(t, store, deciding(lock.Join)), lock.StillShared) // so that the server has the script
			p := newProxy(t, server.Addr())
			r := by("skipper", lock.Skip, "")
			r.Policy = func(_ context.Context, a lock.Attempt) (lock.Decision, error) {
				var once sync.Once
				p.onAnswer(func([]byte) (deliver bool) {
					deliver = true
					once.Do(func() { deliver = false })
					return deliver
				})
				return lock.Decision{Action: action, Ended: []lock.Token{a.Holder.Token}}, nil
			}
			lease, err := lock.Acquire(t.Context(), unhurried(t, p.addr), r, ttl, nil)
			if lease != nil || failure(err) != lock.Unreachable {
				t.Errorf("got %+v, %v", lease, err)
			}
			if shares := client.HKeys(t.Context(), rkey("meta")).Val(); slices.Contains(shares, "s:"+string(r.Token)) {
				t.Errorf("it left %v", shares)
			}
			if action == lock.Join {
				release(t, store, holder, lock.Freed)
			}
			checkFree(t, client)
		})
	}
}

// Others that wait go first, also when the lock is free at that moment.
func TestSkip_othersWait(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	take(t, store, request())
	waiter := request()
	try(t, store, waiter)
	client.Del(t.Context(), rkey("lock"))
	if a := try(t, store, by("skipper", lock.Skip, "")); a.Granted || !a.Skipped || a.Holder.Token != waiter.Token {
		t.Errorf("got %+v", a)
	}
}

// A holder that has gone is found out before somebody skips.
func TestSkip_holderGone(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	gone := open(t, server.Addr())
	r := request()
	r.Present = true
	lease := take(t, gone, r)
	stop := lease.Keep(t.Context(), gone, 0, func(error) {})
	gittest.Until(t, "it is present", lease.Claimed)
	stop()
	lease.Leave()
	store := open(t, server.Addr())
	gittest.Until(t, "nobody is there", func() bool {
		s, err := store.Inspect(t.Context(), key)
		return err == nil && s.Holder != nil && s.Holder.Presence == lock.Absent
	})
	release(t, store, take(t, store, by("skipper", lock.Skip, "")), lock.Freed)
}

// A newer one takes the place in line of an earlier one of its group. The earlier one ends at once,
// with an error that names the newer one.
func TestNewest(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := unhurried(t, server.Addr())
	lease := take(t, store, by("holder", lock.Newest, "g"))
	first := wait(t.Context(), t, unhurried(t, server.Addr()), by("first", lock.Newest, "g"), ttl)
	other := wait(t.Context(), t, unhurried(t, server.Addr()), by("other", lock.Newest, "h"), ttl)
	plain := wait(t.Context(), t, unhurried(t, server.Addr()), by("plain", "", "g"), ttl)
	second := by("second", lock.Newest, "g")
	if a := try(t, store, second); a.Position != 1 {
		t.Errorf("it did not take the place: %+v", a)
	}
	<-first.done
	var superseded *lock.SupersededError
	if !errors.As(first.err, &superseded) || superseded.By.User != "second" {
		t.Errorf("got %v", first.err)
	}
	if n := client.ZCard(t.Context(), rkey("queue")).Val(); n != 3 {
		t.Errorf("%d wait", n)
	}
	if err := lease.Renew(t.Context(), store); err != nil {
		t.Errorf("the holder: %v", err)
	}
	release(t, store, lease, lock.HandedOver)
	if a := try(t, store, second); !a.Granted {
		t.Errorf("got %+v", a)
	}
	if _, err := store.Release(t.Context(), key, second.Token); err != nil {
		t.Fatal(err)
	}
	release(t, store, other.granted(t), lock.HandedOver)
	release(t, store, plain.granted(t), lock.Freed)
}

// When Redis has lost its data, the newer of a group stays, whoever is back first.
func TestNewest_restartedEmpty(t *testing.T) {
	t.Parallel()
	for _, newerFirst := range []bool{false, true} {
		server, client := serve(t)
		store := open(t, server.Addr())
		lease := take(t, store, request())
		back := func(user string) lock.Try {
			w := lock.Try{Request: by(user, lock.Newest, "g")}
			a := tryAgain(t, store, w)
			w.Ticket, w.Arrived, w.HeldBy, w.HeldUntil, w.Known = a.Ticket, a.Arrived, lease.Token, time.Now().Add(time.Minute), a.Holder.Fence
			return w
		}
		all := []lock.Try{back("old"), back("new")}
		client.FlushAll(t.Context())
		if err := lease.Renew(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		if newerFirst {
			slices.Reverse(all)
		}
		for _, w := range all {
			_, err := store.TryAcquire(t.Context(), w)
			var superseded *lock.SupersededError
			if over := errors.As(err, &superseded); over != (newerFirst && w.Record.User == "old") || !over && err != nil {
				t.Errorf("%s: %v", w.Record.User, err)
			}
		}
		if s := inspect(t, store); len(s.Waiters) != 1 || s.Waiters[0].User != "new" {
			t.Errorf("got %+v", s.Waiters)
		}
	}
}

// Many of a few groups come and go at once, holders too: at any time at most one of a group waits,
// no holder is ended, and all others end as superseded.
func TestNewest_atMostOne(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	const clients, rounds = 12, 10
	groups := []string{"a", "b", "c"}
	done := make(chan struct{})
	var watching, turns sync.WaitGroup
	watching.Go(func() {
		s := open(t, server.Addr())
		for {
			state, err := s.Inspect(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			seen := map[string]bool{}
			for _, w := range state.Waiters {
				if seen[w.Purpose] {
					t.Errorf("two of group %s wait", w.Purpose)
				}
				seen[w.Purpose] = true
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	var mu sync.Mutex
	granted, over := 0, 0
	for range clients {
		s := open(t, server.Addr())
		turns.Go(func() {
			for range rounds {
				r := by("u", lock.Newest, groups[rand.IntN(len(groups))])
				r.Record.Purpose = r.Group
				lease, err := lock.Acquire(t.Context(), s, r, ttl, nil)
				var superseded *lock.SupersededError
				switch {
				case err == nil:
					time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
					if err := lease.Renew(t.Context(), s); err != nil {
						t.Errorf("a holder: %v", err)
					}
					if got, err := lease.Release(t.Context(), s, soon); err != nil || got == lock.NotHeld {
						t.Errorf("a holder: %v, %v", got, err)
					}
				case !errors.As(err, &superseded):
					t.Error(err)
				case superseded.By.Purpose != r.Group:
					t.Errorf("one of %s was superseded by one of %s", r.Group, superseded.By.Purpose)
				}
				mu.Lock()
				if err == nil {
					granted++
				} else {
					over++
				}
				mu.Unlock()
			}
		})
	}
	turns.Wait()
	close(done)
	watching.Wait()
	if granted == 0 || over == 0 {
		t.Errorf("%d granted, %d superseded", granted, over)
	}
	t.Logf("%d granted, %d superseded", granted, over)
	checkFree(t, client)
}

// The order of those who wait, whatever they came with, is that of when they came less their head
// start. How long they are said to have waited is true.
func TestHeadStart_order(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if s := os.Getenv("LOCK_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("LOCK_TEST_SEED=%d", seed)
	server, client := serve(t)
	dice := rand.New(rand.NewPCG(seed, 3))
	old := newOlder(t, client)
	old.timing = unhurriedTiming()
	store := openWith(t, redisstore.Options{Addrs: []string{server.Addr()}, Events: 1000, Timing: old.timing})
	for range 20 {
		lease := take(t, store, request())
		type one struct {
			lock.Try
			wants float64
			older bool
		}
		var all []*one
		for range 25 {
			w := &one{Try: lock.Try{Request: request()}, older: dice.IntN(3) == 0}
			if w.older {
				_, reply := old.acquire(t, w.Token, 0)
				w.Ticket = reply[2].(int64)
				w.Arrived = w.Ticket
			} else {
				w.HeadStart = []time.Duration{0, time.Millisecond, time.Second, 10 * time.Minute}[dice.IntN(4)]
				a := tryAgain(t, store, w.Try)
				w.Ticket, w.Arrived = a.Ticket, a.Arrived
			}
			w.wants = float64(w.Arrived - w.HeadStart.Microseconds())
			all = append(all, w)
			if dice.IntN(6) == 0 { // one asks again, and one leaves
				i := dice.IntN(len(all))
				if !all[i].older {
					tryAgain(t, store, all[i].Try)
				}
				i = dice.IntN(len(all))
				if _, err := store.Release(t.Context(), key, all[i].Token); err != nil {
					t.Fatal(err)
				}
				all = slices.Delete(all, i, i+1)
			}
		}
		slices.SortStableFunc(all, func(a, b *one) int { return int(min(1, max(-1, a.wants-b.wants))) })
		for _, s := range inspect(t, store).Waiters {
			if s.Age > time.Minute {
				t.Errorf("it waits for %s, and came a moment ago", s.Age)
			}
		}
		next := lease.Token
		for i, w := range all {
			release := func() {
				if i%2 == 0 {
					old.release(t, next)
				} else if _, err := store.Release(t.Context(), key, next); err != nil {
					t.Fatal(err)
				}
			}
			release()
			if got := client.Get(t.Context(), rkey("lock")).Val(); got != string(w.Token) {
				t.Fatalf("turn %d is not that of one with a head start of %s", i, w.HeadStart)
			}
			if !w.older {
				if a := tryAgain(t, store, w.Try); !a.Granted {
					t.Fatalf("got %+v", a)
				}
			}
			next = w.Token
		}
		if _, err := store.Release(t.Context(), key, next); err != nil {
			t.Fatal(err)
		}
	}
	events, err := store.Events(t.Context(), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == "acquired" && e.Wait > time.Minute {
			t.Errorf("said to have waited for %s", e.Wait)
		}
	}
}
