//go:build unix

package lock_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

func TestMain(m *testing.M) {
	gittest.Parallel(8)
	goleak.VerifyTestMain(m)
}

// soon is for what waits for none of our timers, and ttl for a lock that must not expire in a test,
// on a machine that is busy with other things for seconds at a time.
const (
	soon = time.Minute
	ttl  = 10 * time.Minute
)

var key = lock.Key{Repo: "example.com/org/repo", Branch: "main"}

// rkey is the store's name for one of key's keys.
func rkey(kind string) string { return "gitops:" + kind + ":{" + key.ID() + "}" }

// serve starts a Redis with a plain client. What the test leaves behind must expire by itself
// and live in one slot.
func serve(t *testing.T, args ...string) (*redistest.Server, *redis.Client) {
	t.Helper()
	server := redistest.Start(t, args...)
	client := server.Client(t)
	t.Cleanup(func() { checkKeys(t, client) })
	return server, client
}

func checkKeys(t *testing.T, c *redis.Client) {
	t.Helper()
	ctx := context.Background()
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil {
		t.Errorf("the server did not survive the test: %v", err)
	}
	for _, k := range keys {
		if c.PTTL(ctx, k).Val() == -1 {
			t.Errorf("%s never expires", k)
		}
		if !strings.Contains(k, "{"+key.ID()+"}") {
			t.Errorf("%s is outside of the lock's hash tag", k)
		}
	}
}

// checkFree says that nobody has or wants the lock: only how it ended, and the fence, are left.
func checkFree(t *testing.T, c *redis.Client) {
	t.Helper()
	for _, k := range c.Keys(context.Background(), "*").Val() {
		if !strings.HasPrefix(k, "gitops:ended:") && !strings.HasPrefix(k, "gitops:fence:") {
			t.Errorf("%s is left over", k)
		}
	}
}

// resume starts a killed server again, until it has read its data.
func resume(t *testing.T, server *redistest.Server, c *redis.Client) {
	t.Helper()
	if err := server.Resume(); err != nil {
		t.Error(err)
	}
	if !gittest.Reached(func() bool { return c.Ping(context.Background()).Err() == nil }) {
		t.Error("the server never reads its data")
	}
}

// open is a store of its own, as every pipeline has one.
func open(t *testing.T, addr string) *redisstore.Store {
	t.Helper()
	return openWith(t, redisstore.Options{Addrs: []string{addr}})
}

func openWith(t *testing.T, o redisstore.Options) *redisstore.Store {
	t.Helper()
	s := redisstore.Open(o)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// unhurriedTiming is for a test in which nobody must be forgotten or given up because the machine
// is slow.
func unhurriedTiming() lock.Timing {
	timing := lock.DefaultTiming()
	timing.Life, timing.Claim, timing.GiveUp, timing.FirstGiveUp = time.Hour, time.Hour, soon, soon
	return timing
}

func unhurried(t *testing.T, addr string) *redisstore.Store {
	t.Helper()
	return openWith(t, redisstore.Options{Addrs: []string{addr}, Timing: unhurriedTiming()})
}

func request() lock.Request {
	return lock.Request{Key: key, Token: lock.NewToken(), Record: lock.Record{Host: "host", PID: 7}, TTL: ttl}
}

// alone is a holder with whom nobody shares.
func alone(t lock.Token) lock.Holder {
	return lock.Holder{Token: t, Shares: []lock.Share{{Token: t}}}
}

// take is the lock, which must be free.
func take(t *testing.T, s lock.Store, r lock.Request) *lock.Lease {
	t.Helper()
	lease, err := lock.Acquire(t.Context(), s, r, 0, nil)
	if err != nil {
		t.Fatalf("take a free lock: %v", err)
	}
	return lease
}

func release(t *testing.T, s lock.Store, lease *lock.Lease, want lock.ReleaseResult) {
	t.Helper()
	got, err := lease.Release(t.Context(), s, soon)
	if err != nil || got != want {
		t.Fatalf("release: got %d, %v; want %d", got, err, want)
	}
}

// waiter is an Acquire under way.
type waiter struct {
	done  chan struct{}
	lease *lock.Lease
	err   error
}

// wait starts an Acquire, and returns when it has its place in the queue.
func wait(ctx context.Context, t *testing.T, s lock.Store, r lock.Request, timeout time.Duration) *waiter {
	t.Helper()
	w := &waiter{done: make(chan struct{})}
	queued := make(chan struct{})
	go func() {
		defer close(w.done)
		var once sync.Once
		w.lease, w.err = lock.Acquire(ctx, s, r, timeout, func(lock.Waiting) { once.Do(func() { close(queued) }) })
	}()
	t.Cleanup(func() { // a wait that the test's end cancels asks a server that is gone for a few seconds
		select {
		case <-w.done:
		case <-time.After(soon):
			t.Error("the wait goes on after the test")
		}
	})
	select {
	case <-queued:
	case <-w.done:
	case <-time.After(soon):
		t.Fatal("no place in the queue")
	}
	return w
}

// granted is the lease, which must come.
func (w *waiter) granted(t *testing.T) *lock.Lease {
	t.Helper()
	select {
	case <-w.done:
	case <-time.After(soon):
		t.Fatalf("not granted after %s", soon)
	}
	if w.err != nil {
		t.Fatalf("not granted: %v", w.err)
	}
	return w.lease
}

// blocked waits until n clients of the server are blocked in a BLPOP.
func blocked(t *testing.T, c *redis.Client, n int) {
	t.Helper()
	gittest.Until(t, "clients that block", func() bool {
		list := c.ClientList(context.Background()).Val()
		return strings.Count(list, "cmd=blpop") == n
	})
}

func failure(err error) lock.Failure {
	var se *lock.StoreError
	if errors.As(err, &se) {
		return se.Failure
	}
	return ""
}

// proxy stands between a store and its server.
type proxy struct {
	addr string

	refused  atomic.Int32 // connections, while it was shut
	mu       sync.Mutex
	shut     bool
	conns    map[net.Conn]bool
	question func([]byte) bool
	answer   func([]byte) bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			if !p.add(client, server) {
				continue
			}
			all.Go(func() { p.copy(server, client, func() func([]byte) bool { return p.question }) })
			all.Go(func() { p.copy(client, server, func() func([]byte) bool { return p.answer }) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.close(true)
		all.Wait()
	})
	return p
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.shut {
			p.refused.Add(1)
			_ = c.Close()
		} else {
			p.conns[c] = true
		}
	}
	return !p.shut
}

// copy passes on what the hook of that direction, as it is now, lets through.
func (p *proxy) copy(to, from net.Conn, hook func() func([]byte) bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		deliver := hook()
		p.mu.Unlock()
		if deliver != nil && !deliver(buf[:n]) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// onQuestion sees every command before it is delivered. False cuts the connection instead.
func (p *proxy) onQuestion(f func([]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.question = f
}

// onAnswer sees every answer before it is delivered. False cuts the connection instead.
func (p *proxy) onAnswer(f func([]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// close cuts all connections; with stay, it refuses new ones until reopen.
func (p *proxy) close(stay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = stay
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *proxy) reopen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = false
}
