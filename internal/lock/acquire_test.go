//go:build unix

package lock_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"regexp"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

func TestAcquire(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	if left := lease.Left(); left <= ttl/2 || left > ttl {
		t.Errorf("left %s of %s", left, ttl)
	}
	if lease.Fence() == 0 || lease.Broken() {
		t.Errorf("fence %d, broken %t", lease.Fence(), lease.Broken())
	}

	other := request()
	_, err := lock.Acquire(t.Context(), store, other, 0, nil)
	var timeout *lock.TimeoutError
	if !errors.As(err, &timeout) {
		t.Fatalf("got %v, want a timeout", err)
	}
	if h := timeout.Holder; !h.Known || h.Token != lease.Token || h.PID != 7 || h.Fence != lease.Fence() || timeout.Position != 1 {
		t.Errorf("got %+v", timeout)
	}
	release(t, store, lease, lock.Freed)
	checkFree(t, client)
}

// The same token asks twice, as after a lost answer: one grant, one fence.
func TestAcquire_again(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	store := open(t, server.Addr())
	r := request()
	if one, two := take(t, store, r), take(t, store, r); one.Fence() != two.Fence() {
		t.Errorf("fences %d and %d", one.Fence(), two.Fence())
	}
}

// pauses notes for how long a waiter wants to block.
type pauses struct {
	lock.Store
	longest atomic.Int64
	woken   atomic.Int64 // waits that ended before their time
}

func (p *pauses) Wait(ctx context.Context, k lock.Key, token lock.Token, d time.Duration) error {
	p.longest.Store(max(p.longest.Load(), int64(d)))
	started := time.Now()
	err := p.Store.Wait(ctx, k, token, d)
	if err == nil && time.Since(started) < d {
		p.woken.Add(1)
	}
	return err
}

func TestAcquire_timeout(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder, store := unhurried(t, server.Addr()), &pauses{Store: unhurried(t, server.Addr())}
	lease := take(t, holder, request())
	const patience = 300 * time.Millisecond
	started := time.Now()
	w := wait(t.Context(), t, store, request(), patience)
	<-w.done
	var timeout *lock.TimeoutError
	if took := time.Since(started); !errors.As(w.err, &timeout) || took < patience {
		t.Errorf("after %s: %v", took, w.err)
	}
	if longest := time.Duration(store.longest.Load()); longest > patience {
		t.Errorf("it wanted to wait for %s", longest)
	}
	release(t, holder, lease, lock.Freed)
	checkFree(t, client)
}

func TestAcquire_cancelledWhileBlocked(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder, store := unhurried(t, server.Addr()), unhurried(t, server.Addr())
	lease := take(t, holder, request())
	ctx, cancel := context.WithCancel(t.Context())
	r := request()
	w := wait(ctx, t, store, r, ttl)
	blocked(t, client, 1)
	cancel()
	<-w.done
	if !errors.Is(w.err, context.Canceled) {
		t.Errorf("got %v", w.err)
	}
	if n := client.ZCard(t.Context(), rkey("queue")).Val(); n != 0 {
		t.Errorf("%d tickets left", n)
	}
	release(t, holder, lease, lock.Freed) // freed: not handed to the one that went away
	if a, err := store.TryAcquire(t.Context(), lock.Try{Request: r}); a.Granted || err == nil {
		t.Errorf("a token that gave up was granted: %+v, %v", a, err)
	}
	checkFree(t, client)
}

// Ctrl-C works although Redis has stopped answering.
func TestAcquire_cancelledWhileStoreHangs(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	holder, store := open(t, server.Addr()), open(t, server.Addr())
	take(t, holder, request())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := store.TryAcquire(ctx, lock.Try{Request: request()}); err != nil {
		t.Fatal(err)
	}
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := lock.Acquire(ctx, store, request(), ttl, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// A waiter that is cancelled in the very moment in which it is handed the lock never takes it to
// the grave.
func TestAcquire_cancelRacesHandOver(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder, patient := unhurried(t, server.Addr()), unhurried(t, server.Addr())
	grantedToCancelled := 0
	for i := range 100 {
		lease := take(t, holder, request())
		ctx, cancel := context.WithCancel(t.Context())
		hasty := unhurried(t, server.Addr())
		first := wait(ctx, t, hasty, request(), ttl)
		second := wait(t.Context(), t, patient, request(), ttl)
		go func() {
			time.Sleep(time.Duration(i%20) * 50 * time.Microsecond) // spreads the moment of the race
			cancel()
		}()
		if _, err := lease.Release(t.Context(), holder, soon); err != nil {
			t.Fatal(err)
		}
		<-first.done
		if first.err == nil {
			grantedToCancelled++
			release(t, hasty, first.lease, lock.HandedOver)
		} else if !errors.Is(first.err, context.Canceled) {
			t.Fatal(first.err)
		}
		release(t, patient, second.granted(t), lock.Freed)
		cancel()
		_ = hasty.Close()
	}
	t.Logf("%d of 100 were granted before the cancellation", grantedToCancelled)
	checkFree(t, client)
}

// The acquire is carried out, its answer is lost: the lock is not held by nobody's knowledge.
func TestAcquire_answerLost(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	direct := unhurried(t, server.Addr())
	release(t, direct, take(t, direct, request()), lock.Freed) // the scripts are known now

	p := newProxy(t, server.Addr())
	store := unhurried(t, p.addr)
	if _, err := store.Inspect(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	var answers atomic.Int32
	p.onAnswer(func([]byte) bool { return answers.Add(1) > 1 })
	lease, err := lock.Acquire(t.Context(), store, request(), ttl, nil)
	if err == nil {
		t.Fatalf("granted without an answer: %+v", lease)
	}
	var se *lock.StoreError
	if !errors.As(err, &se) || se.Failure != lock.Unreachable || !se.Ambiguous {
		t.Errorf("got %#v", err)
	}
	if client.Exists(t.Context(), rkey("fence")).Val() != 1 {
		t.Error("the acquire was not carried out: the test proves nothing")
	}
	checkFree(t, client)
	p.onAnswer(nil)
	release(t, direct, take(t, direct, request()), lock.Freed)
}

// The answer to the acquire is lost, and the connection on which it was to be released as well.
func TestAcquire_answerLostTwice(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	direct := unhurried(t, server.Addr())
	release(t, direct, take(t, direct, request()), lock.Freed)

	p := newProxy(t, server.Addr())
	store := unhurried(t, p.addr)
	if _, err := store.Inspect(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	var questions atomic.Int32
	p.onQuestion(func(b []byte) bool { return !bytes.Contains(b, []byte("evalsha")) || questions.Add(1) != 2 })
	var answers atomic.Int32
	p.onAnswer(func([]byte) bool { return answers.Add(1) > 1 })
	if lease, err := lock.Acquire(t.Context(), store, request(), ttl, nil); err == nil {
		t.Fatalf("granted without an answer: %+v", lease)
	}
	checkFree(t, client)
}

// The release overtakes the acquire that it is to undo.
func TestAcquire_arrivesAfterItsRelease(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	r := request()
	if got, err := store.Release(t.Context(), r.Key, r.Token); got != lock.NotHeld || err != nil {
		t.Fatalf("got %d, %v", got, err)
	}
	if a, err := store.TryAcquire(t.Context(), lock.Try{Request: r}); a.Granted || err == nil {
		t.Fatalf("got %+v, %v", a, err)
	}
	if n, err := store.Renew(t.Context(), r.Hold(), lock.RenewOptions{}); n.Status != lock.Lost || n.Ended == "" || err != nil {
		t.Fatalf("got %+v, %v", n, err)
	}
	checkFree(t, client)
}

// The lease runs from before the command was sent, so a slow answer makes it shorter.
func TestAcquire_slowAnswer(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	p := newProxy(t, server.Addr())
	store := open(t, p.addr)
	const delay = 300 * time.Millisecond
	p.onAnswer(func([]byte) bool { time.Sleep(delay); return true })
	r := request()
	lease := take(t, store, r)
	if left := lease.Left(); left > r.TTL-delay {
		t.Errorf("left %s of %s after an answer that took %s", left, r.TTL, delay)
	}
	if err := lease.Renew(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if left := lease.Left(); left > r.TTL-delay {
		t.Errorf("left %s of %s after a renewal that took %s", left, r.TTL, delay)
	}
}

func TestAcquire_firstContactFailsFast(t *testing.T) {
	t.Parallel()
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for name, addr := range map[string]string{
		"refused":    "127.0.0.1:" + port,
		"black hole": silent.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := lock.Acquire(t.Context(), open(t, addr), request(), ttl, func(lock.Waiting) { t.Error("it waits") })
			if failure(err) != lock.Unreachable {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAcquire_ridesOutRestart(t *testing.T) {
	t.Parallel()
	server, client := serve(t, "--appendonly", "yes", "--appendfsync", "always")
	holder, store := open(t, server.Addr()), open(t, server.Addr())
	lease := take(t, holder, request())
	news := make(chan lock.Waiting, 1000)
	w := &waiter{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.lease, w.err = lock.Acquire(t.Context(), store, request(), ttl, func(n lock.Waiting) { news <- n })
	}()
	if n := <-news; n.Err != nil || n.Position != 1 {
		t.Errorf("got %+v", n)
	}
	blocked(t, client, 1)
	server.Kill()
	for n := range news {
		if n.Err != nil {
			if failure(n.Err) != lock.Unreachable || n.Position != 1 {
				t.Errorf("got %+v", n)
			}
			break
		}
	}
	resume(t, server, client)
	release(t, holder, lease, lock.HandedOver)
	release(t, store, w.granted(t), lock.Freed)
	checkFree(t, client)
}

// The budget ends during an outage.
func TestAcquire_outageOutlastsBudget(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	holder := open(t, server.Addr())
	take(t, holder, request())
	p := newProxy(t, server.Addr())
	w := wait(t.Context(), t, open(t, p.addr), request(), 15*time.Second)
	p.close(true)
	<-w.done
	var timeout *lock.TimeoutError
	if !errors.As(w.err, &timeout) || failure(w.err) != lock.Unreachable || !timeout.Holder.Known {
		t.Errorf("got %v", w.err)
	}
}

// A writer that knows nothing of us: SET key value NX EX.
func TestAcquire_stranger(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	ctx := t.Context()
	for name, expiry := range map[string]time.Duration{"expiring": ttl, "without expiry": 0} {
		t.Run(name, func(t *testing.T) {
			if !client.SetNX(ctx, rkey("lock"), "script-17", expiry).Val() {
				t.Fatal("the stranger did not get the free lock")
			}
			_, err := lock.Acquire(ctx, store, request(), 0, nil)
			var timeout *lock.TimeoutError
			if !errors.As(err, &timeout) {
				t.Fatal(err)
			}
			if h := timeout.Holder; h.Known || h.Token != "script-17" || (h.Left < 0) != (expiry == 0) {
				t.Errorf("got %+v", h)
			}
			state, err := store.Inspect(ctx, key)
			if err != nil || state.Holder == nil || state.Holder.Known || state.Holder.Token != "script-17" {
				t.Errorf("got %+v, %v", state.Holder, err)
			}

			w := wait(ctx, t, store, request(), ttl)
			blocked(t, client, 1)
			client.Del(ctx, rkey("lock"))
			lease := w.granted(t)
			if client.SetNX(ctx, rkey("lock"), "script-18", expiry).Val() {
				t.Error("the stranger took a lock that is held")
			}
			if pttl := client.PTTL(ctx, rkey("lock")).Val(); pttl <= 0 || pttl > lease.TTL {
				t.Errorf("our lock expires in %s", pttl)
			}
			release(t, store, lease, lock.Freed)
		})
	}
	checkFree(t, client)
}

// A stranger that took over what expired is not taken for the holder before it.
func TestAcquire_strangerAfterHolder(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	take(t, store, request())
	client.Set(t.Context(), rkey("lock"), "script-17", time.Minute)
	state, err := store.Inspect(t.Context(), key)
	if err != nil || state.Holder.Known || state.Holder.Host != "" || state.Holder.Fence != 0 {
		t.Errorf("got %+v, %v", state.Holder, err)
	}
}

// An account that may do all but block gets an error that says so: the waiter does not spin.
func TestAcquire_mayNotBlock(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	if err := client.Do(ctx, "acl", "setuser", "ci", "on", ">pw", "~*", "+@all", "-blpop").Err(); err != nil {
		t.Fatal(err)
	}
	take(t, open(t, server.Addr()), request())
	store := openWith(t, redisstore.Options{Addrs: []string{server.Addr()}, Username: "ci", Password: "pw"})
	if err := client.ConfigResetStat(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	_, err := lock.Acquire(ctx, store, request(), soon, nil)
	if n := calls(t, client, "evalsha"); failure(err) != lock.Forbidden || n > 5 {
		t.Errorf("tried %d times, then: %v; want forbidden at once", n, err)
	}
}

// One release wakes one waiter, however many there are.
func TestAcquire_wakesOne(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	holder := unhurried(t, server.Addr())
	lease := take(t, holder, request())
	client.HSet(t.Context(), rkey("meta"), "since", time.Now().Add(-time.Hour).UnixMicro()) // so that looks are seldom
	store := &pauses{Store: unhurried(t, server.Addr())}
	first := wait(t.Context(), t, store, request(), ttl)
	ctx, cancel := context.WithCancel(t.Context())
	others := make([]*waiter, 20)
	for i := range others {
		others[i] = wait(ctx, t, unhurried(t, server.Addr()), request(), ttl)
	}
	blocked(t, client, len(others)+1)
	if err := client.ConfigResetStat(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	release(t, holder, lease, lock.HandedOver)
	first.granted(t)
	if n := calls(t, client, "rpush"); n != 1 {
		t.Errorf("%d were woken by one hand-over", n)
	}
	if store.woken.Load() == 0 {
		t.Error("the next one has the lock only since it asked again")
	}
	cancel()
	for _, w := range others {
		<-w.done
	}
}

// calls is how often the server ran a command.
func calls(t *testing.T, c *redis.Client, command string) int {
	t.Helper()
	info := c.Info(context.Background(), "commandstats").Val()
	m := regexp.MustCompile(`cmdstat_` + command + `:calls=(\d+)`).FindStringSubmatch(info)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
