//go:build unix

package lock_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
)

// queue is many waiters in a known order, each with a store of its own, and the order in which
// they were granted.
type queue struct {
	mu      sync.Mutex
	granted []int
	all     sync.WaitGroup

	released atomic.Int32
}

// join adds waiter i; each releases at once, after what during does.
func (q *queue) join(t *testing.T, addr string, i int, during func(*lock.Lease)) {
	t.Helper()
	store := unhurried(t, addr)
	w := wait(t.Context(), t, store, request(), ttl)
	q.all.Go(func() {
		<-w.done
		if w.err != nil {
			t.Errorf("waiter %d: %v", i, w.err)
			return
		}
		q.mu.Lock()
		q.granted = append(q.granted, i)
		q.mu.Unlock()
		if during != nil {
			for q.released.Load() < int32(i) { // those before have their answers
				time.Sleep(time.Millisecond)
			}
			during(w.lease)
		}
		defer q.released.Add(1)
		if got, err := w.lease.Release(t.Context(), store, soon); err != nil || got == lock.NotHeld {
			t.Errorf("waiter %d: release: %d, %v", i, got, err)
		}
	})
}

func (q *queue) check(t *testing.T, n int) {
	t.Helper()
	q.all.Wait()
	if len(q.granted) != n || !slices.IsSorted(q.granted) {
		t.Errorf("granted in the order %v", q.granted)
	}
}

func TestQueue_firstComeFirstServed(t *testing.T) {
	t.Parallel()
	const n = 100
	server, client := serve(t)
	holder := unhurried(t, server.Addr())
	lease := take(t, holder, request())
	var q queue
	for i := range n {
		q.join(t, server.Addr(), i, nil)
	}
	release(t, holder, lease, lock.HandedOver)
	q.check(t, n)
	checkFree(t, client)
}

// Redis comes back empty while somebody in the middle of the queue has the lock: it takes the
// lock back, and the others, in whatever order they return, their places.
func TestQueue_restartedEmpty(t *testing.T) {
	t.Parallel()
	const n = 30
	server, client := serve(t)
	holder := unhurried(t, server.Addr())
	lease := take(t, holder, request())
	p := newProxy(t, server.Addr())
	var q queue
	for i := range n {
		var during func(*lock.Lease)
		if i == n/3 {
			during = func(l *lock.Lease) {
				server.Kill()
				p.close(true) // the holder is back before the waiters
				resume(t, server, client)
				before := l.Fence()
				if err := l.Renew(t.Context(), holder); err != nil || !l.Broken() || l.Fence() <= before {
					t.Errorf("reassert: %v, broken %t, fence %d after %d", err, l.Broken(), l.Fence(), before)
				}
				p.reopen()
				queued(t, client, n-n/3-1)
			}
		}
		q.join(t, p.addr, i, during)
	}
	release(t, holder, lease, lock.HandedOver)
	q.check(t, n)
	checkFree(t, client)
}

func TestQueue_restartedWithData(t *testing.T) {
	t.Parallel()
	const n = 30
	server, client := serve(t, "--appendonly", "yes", "--appendfsync", "always")
	holder := unhurried(t, server.Addr())
	lease := take(t, holder, request())
	var q queue
	for i := range n {
		var during func(*lock.Lease)
		if i == n/3 {
			during = func(l *lock.Lease) {
				server.Kill()
				resume(t, server, client)
				if err := l.Renew(t.Context(), holder); err != nil || l.Broken() {
					t.Errorf("renew: %v, broken %t", err, l.Broken())
				}
			}
		}
		q.join(t, server.Addr(), i, during)
	}
	release(t, holder, lease, lock.HandedOver)
	q.check(t, n)
	checkFree(t, client)
}

// The holder has not noticed yet that Redis came back empty: a waiter must not pass it by,
// because to its own knowledge the lock is held for another minute.
func TestQueue_restartedEmptyWaiterFirst(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder := open(t, server.Addr())
	lease := take(t, holder, request())
	w := wait(t.Context(), t, open(t, server.Addr()), request(), ttl)
	blocked(t, client, 1)
	server.Kill()
	resume(t, server, client)
	queued(t, client, 1) // the waiter is back
	before := calls(t, client, "evalsha")
	gittest.Until(t, "it asks again", func() bool { return calls(t, client, "evalsha") > before })
	select {
	case <-w.done:
		t.Fatalf("two holders: granted with %s left of the other's lease (%v)", lease.Left(), w.err)
	default:
	}
	if err := lease.Renew(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	release(t, holder, lease, lock.HandedOver)
	w.granted(t)
}

// While the holder may still take the lock back, a waiter that gives up passes it to nobody, and
// the others ask now and then, not without a pause.
func TestQueue_restartedEmptyOneGivesUp(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder := open(t, server.Addr())
	lease := take(t, holder, request())
	ctx, cancel := context.WithCancel(t.Context())
	first := wait(ctx, t, open(t, server.Addr()), request(), ttl)
	second := wait(t.Context(), t, open(t, server.Addr()), request(), ttl)
	blocked(t, client, 2)
	server.Kill()
	resume(t, server, client)
	queued(t, client, 2)
	before, since := calls(t, client, "evalsha"), time.Now()
	time.Sleep(time.Second)
	if n := calls(t, client, "evalsha") - before; n > int(8*time.Since(since)/time.Second) {
		t.Errorf("two waiters asked %d times in %s", n, time.Since(since))
	}
	cancel()
	<-first.done
	before = calls(t, client, "evalsha")
	gittest.Until(t, "the other asks again", func() bool { return calls(t, client, "evalsha") > before })
	select {
	case <-second.done:
		t.Fatalf("two holders: granted with %s left of the other's lease (%v)", lease.Left(), second.err)
	default:
	}
	if err := lease.Renew(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	release(t, holder, lease, lock.HandedOver)
	second.granted(t)
}

func queued(t *testing.T, c *redis.Client, n int64) {
	t.Helper()
	gittest.Until(t, "all are back in the queue", func() bool {
		return c.ZCard(t.Context(), rkey("queue")).Val() == n
	})
}

// try is the first attempt of a waiter that may never ask again.
func try(t *testing.T, s lock.Store, r lock.Request) lock.Attempt {
	t.Helper()
	return tryAgain(t, s, lock.Try{Request: r})
}

func tryAgain(t *testing.T, s lock.Store, w lock.Try) lock.Attempt {
	t.Helper()
	a, err := s.TryAcquire(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A waiter that was killed is forgotten when its sign of life expires.
func TestQueue_deadHeadSkipped(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder, store := open(t, server.Addr()), open(t, server.Addr())
	lease := take(t, holder, request())
	for range 3 {
		dead := request()
		if a := try(t, store, dead); a.Granted {
			t.Fatalf("got %+v", a)
		}
		sign, _, _ := strings.Cut(client.HGet(t.Context(), rkey("waiters"), string(dead.Token)).Val(), " ")
		until, _ := strconv.ParseInt(sign, 10, 64)
		now := client.Time(t.Context()).Val()
		if life := time.UnixMicro(until).Sub(now); life <= 0 || life > lock.DefaultTiming().Life {
			t.Errorf("sign of life for %s", life)
		}
		client.HSet(t.Context(), rkey("waiters"), string(dead.Token), fmt.Sprint(now.UnixMicro()-1, " {}"))
	}
	w := wait(t.Context(), t, store, request(), ttl)
	state, err := store.Inspect(t.Context(), key)
	if err != nil || len(state.Waiters) != 4 || state.Waiters[0].Alive || !state.Waiters[3].Alive {
		t.Errorf("got %+v, %v", state.Waiters, err)
	}
	release(t, holder, lease, lock.HandedOver)
	release(t, store, w.granted(t), lock.Freed)
	checkFree(t, client)
}

// The head is handed the lock and says nothing: the claim lapses and the next gets the lock.
// The head returns after all, to the place that it had.
func TestQueue_claimLapses(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	slow, next, last := lock.Try{Request: request()}, lock.Try{Request: request()}, lock.Try{Request: request()}
	slow.Ticket = tryAgain(t, store, slow).Ticket
	next.Ticket = tryAgain(t, store, next).Ticket
	last.Ticket = tryAgain(t, store, last).Ticket
	release(t, store, lease, lock.HandedOver)
	if claim := client.PTTL(t.Context(), rkey("lock")).Val(); claim <= 0 || claim > lock.DefaultTiming().Claim {
		t.Errorf("a claim of %s", claim)
	}
	if got := client.Get(t.Context(), rkey("lock")).Val(); got != string(slow.Token) {
		t.Fatalf("%s has the lock", got)
	}
	client.PExpire(t.Context(), rkey("lock"), time.Millisecond)
	gittest.Until(t, "the claim lapses", func() bool { return client.Exists(t.Context(), rkey("lock")).Val() == 0 })

	if a := tryAgain(t, store, last); a.Granted || a.Position != 1 || a.Holder.Token != next.Token {
		t.Errorf("the last jumped the queue: %+v", a) // it hands over to the next, and is first in line now
	}
	if a := tryAgain(t, store, slow); a.Granted || a.Position != 1 || a.Ticket != slow.Ticket {
		t.Errorf("the slow one lost its place: %+v", a)
	}
	if a := tryAgain(t, store, next); !a.Granted {
		t.Errorf("the next was not granted: %+v", a)
	}
	if got, err := store.Release(t.Context(), key, next.Token); got != lock.HandedOver || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	if a := tryAgain(t, store, slow); !a.Granted {
		t.Errorf("the slow one was passed over: %+v", a)
	}
}

// A killed waiter at the head of the line, on the real clock.
func TestQueue_killedWaiterBlocksShortly(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the sign of life to expire")
	}
	t.Parallel()
	server, _ := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	try(t, store, request()) // and is killed
	w := wait(t.Context(), t, open(t, server.Addr()), request(), ttl)
	release(t, store, lease, lock.HandedOver)
	released := time.Now()
	w.granted(t)
	t.Logf("granted after %s, of %s", time.Since(released).Round(time.Millisecond), lock.DefaultTiming().Claim+lock.DefaultTiming().Heartbeat)
}

func TestFence_grows(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store, other := open(t, server.Addr()), open(t, server.Addr())
	var last lock.Fence
	grew := func(l *lock.Lease) {
		t.Helper()
		if l.Fence() <= last {
			t.Errorf("fence %d after %d", l.Fence(), last)
		}
		last = l.Fence()
	}
	for range 3 {
		for range 20 { // grants
			lease := take(t, store, request())
			grew(lease)
			release(t, store, lease, lock.Freed)
		}
		lease := take(t, store, request())
		grew(lease)
		for range 10 { // hand-overs
			w := wait(t.Context(), t, other, request(), ttl)
			release(t, store, lease, lock.HandedOver)
			lease = w.granted(t)
			grew(lease)
		}
		client.FlushAll(t.Context())
		if err := lease.Renew(t.Context(), store); err != nil { // reasserts
			t.Fatal(err)
		}
		grew(lease)
		release(t, store, lease, lock.Freed)
		client.Del(t.Context(), rkey("fence"))
	}
	// A fence that runs ahead of the clock, as after a failover, still grows.
	client.Set(t.Context(), rkey("fence"), int64(last)+int64(time.Hour/time.Microsecond), time.Hour)
	lease := take(t, store, request())
	if lease.Fence() != last+lock.Fence(time.Hour/time.Microsecond)+1 {
		t.Errorf("fence %d after %d and an hour", lease.Fence(), last)
	}
}

// A waiter that puts back the lock of the holder it saw last, after Redis lost its data, may be
// wrong: the lock had passed to another since. That one takes it back.
func TestQueue_restartedEmptyStaleGuess(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	first := take(t, store, request())
	w := lock.Try{Request: request()}
	seen, err := store.TryAcquire(t.Context(), w)
	if err != nil || seen.Granted {
		t.Fatalf("got %+v, %v", seen, err)
	}
	w.Ticket, w.HeldBy, w.HeldUntil = seen.Ticket, first.Token, time.Now().Add(time.Minute)
	if err := store.GiveUp(t.Context(), request(), lock.EventCancelled); err != nil {
		t.Fatal(err)
	}
	client.FlushAll(t.Context())
	second := take(t, store, request()) // has the lock when the data is lost
	client.FlushAll(t.Context())
	if a, err := store.TryAcquire(t.Context(), w); err != nil || a.Granted || a.Holder.Token != first.Token {
		t.Fatalf("the guess: %+v, %v", a, err)
	}
	if err := second.Renew(t.Context(), store); err != nil || !second.Broken() {
		t.Errorf("renew of the real holder: %v, broken %t", err, second.Broken())
	}
	release(t, store, second, lock.HandedOver)
}
