//go:build unix

package lock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
)

func TestLease_Renew(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	ctx := t.Context()
	r := request()
	lease := take(t, store, r)
	fence := lease.Fence()

	client.PExpire(ctx, rkey("lock"), ttl/4)
	if err := lease.Renew(ctx, store); err != nil || lease.Fence() != fence || lease.Broken() {
		t.Errorf("renewed: %v, fence %d, broken %t", err, lease.Fence(), lease.Broken())
	}
	if left := client.PTTL(ctx, rkey("lock")).Val(); left < ttl/2 {
		t.Errorf("renewed to %s", left)
	}

	client.Del(ctx, rkey("lock")) // expired, and nobody took it
	if err := lease.Renew(ctx, store); err != nil || lease.Fence() <= fence || !lease.Broken() {
		t.Errorf("reasserted: %v, fence %d, broken %t", err, lease.Fence(), lease.Broken())
	}

	client.Del(ctx, rkey("lock"))
	other := take(t, store, request())
	err := lease.Renew(ctx, store)
	var lost *lock.LostError
	if !errors.As(err, &lost) || lost.Holder.Token != other.Token || !lost.Holder.Known || lost.Ended != "" {
		t.Errorf("lost to another: %#v", err)
	}
	release(t, store, lease, lock.NotHeld) // the lock is the other's
	if got := client.Get(ctx, rkey("lock")).Val(); got != string(other.Token) {
		t.Errorf("%q has the lock", got)
	}

	release(t, store, other, lock.Freed)
	if err = other.Renew(ctx, store); !errors.As(err, &lost) || lost.Ended != "released" || lost.Holder.Token != "" {
		t.Errorf("released: %#v", err)
	}
	release(t, store, other, lock.NotHeld) // twice is harmless
	checkFree(t, client)
}

func TestResume(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	store := open(t, server.Addr())
	r := request()
	first := take(t, store, r)
	lease := lock.Resume(r.Hold(), first.Fence())
	if lease.Left() > 0 {
		t.Errorf("left %s before the first renewal", lease.Left())
	}
	if err := lease.Renew(t.Context(), store); err != nil || lease.Left() <= 0 || lease.Fence() != first.Fence() || lease.Broken() {
		t.Errorf("%v: left %s, fence %d", err, lease.Left(), lease.Fence())
	}
}

// Ctrl-C has ended the context, and the lock is released all the same.
func TestLease_Release_cancelled(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := lease.Release(ctx, store, soon); got != lock.Freed || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	checkFree(t, client)
}

func TestLease_Release_budget(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Without a budget it would wait for as long as the server is stopped.
	if _, err := lease.Release(t.Context(), store, 300*time.Millisecond); failure(err) != lock.Unreachable {
		t.Errorf("got %v", err)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// keep is Keep with a channel for the loss.
func keep(t *testing.T, s lock.Store, lease *lock.Lease) (stop func(), lost chan error) {
	t.Helper()
	lost = make(chan error, 2)
	return lease.Keep(t.Context(), s, 0, func(err error) { lost <- err }), lost
}

func TestLease_Keep(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	r := request()
	r.TTL = shortTTL
	lease := take(t, store, r)
	before := calls(t, client, "evalsha") + calls(t, client, "eval")
	stop, lost := keep(t, store, lease)
	gittest.Until(t, "two renewals", func() bool {
		return calls(t, client, "evalsha")+calls(t, client, "eval") >= before+3 // one was asked for twice
	})
	if left := lease.Left(); left <= 0 {
		t.Errorf("left %s", left)
	}
	stop()
	release(t, store, lease, lock.Freed)
	checkFree(t, client)
	if len(lost) > 0 {
		t.Error(<-lost)
	}
}

// shortTTL is for renewals that a test waits for. Who is late for one by two thirds of it loses the
// lock.
const shortTTL = 9 * time.Second

// stop waits for the renewal that is under way, so that none comes after the release.
func TestLease_Keep_stopJoins(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	p := newProxy(t, server.Addr())
	store := open(t, p.addr)
	r := request()
	r.TTL = shortTTL
	lease := take(t, store, r)
	if err := lease.Renew(t.Context(), store); err != nil { // the script is known now
		t.Fatal(err)
	}
	underWay := make(chan struct{})
	var once sync.Once
	var answered atomic.Bool
	p.onAnswer(func([]byte) bool {
		once.Do(func() {
			close(underWay)
			time.Sleep(200 * time.Millisecond)
			answered.Store(true)
		})
		return true
	})
	stop, lost := keep(t, store, lease)
	<-underWay
	stop()
	if !answered.Load() {
		t.Error("a renewal was still under way")
	}
	release(t, store, lease, lock.Freed)
	checkFree(t, client)
	before := calls(t, client, "evalsha")
	time.Sleep(r.TTL/3 + time.Second) // more than a third: nothing may come
	if n := calls(t, client, "evalsha"); n != before || len(lost) > 0 {
		t.Errorf("%d more commands, %d losses", n-before, len(lost))
	}
}

func TestLease_Keep_survivesOutage(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	p := newProxy(t, server.Addr())
	store := open(t, p.addr)
	r := request()
	r.TTL = 2 * shortTTL
	lease := take(t, store, r)
	stop, lost := keep(t, store, lease)
	defer stop()
	p.close(true)
	gittest.Until(t, "the first renewals fail", func() bool { return p.refused.Load() > 3 || len(lost) > 0 })
	p.reopen()
	gittest.Until(t, "the renewal goes on", func() bool { return lease.Left() > r.TTL*2/3 || len(lost) > 0 })
	if lease.Broken() || len(lost) > 0 {
		t.Error("broken")
	}
	if client.PTTL(t.Context(), rkey("lock")).Val() <= r.TTL/2 {
		t.Error("not extended")
	}
}

// The loss is reported when the lease ends to our own knowledge and not before, whether Redis
// refuses or hangs.
func TestLease_Keep_lostInOutage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"cut", "hangs"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, _ := serve(t)
			p := newProxy(t, server.Addr())
			store := open(t, p.addr)
			r := request()
			r.TTL = 3 * time.Second
			lease := take(t, store, r)
			stop, lost := keep(t, store, lease)
			if name == "cut" {
				p.close(true)
			} else {
				if err := server.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = server.Signal(syscall.SIGCONT) }()
			}
			err := <-lost
			if left := lease.Left(); left > 0 {
				t.Errorf("reported with %s left", left)
			}
			if failure(err) != lock.Unreachable {
				t.Errorf("got %v", err)
			}
			stop()
		})
	}
}

func TestLease_Keep_lostToAnother(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	r := request()
	r.TTL = shortTTL
	lease := take(t, store, r)
	stop, reported := keep(t, store, lease)
	defer stop()
	client.Set(t.Context(), rkey("lock"), "script-17", time.Minute)
	var lost *lock.LostError
	if err := <-reported; !errors.As(err, &lost) || lost.Holder.Token != "script-17" || lost.Holder.Known {
		t.Errorf("got %#v", err)
	}
}
