// Command rivals measures the hand-off of other locks in the way of "bench handoff", for
// comparison: from the return of the release to the return of the next acquire, with so many
// waiting. It is a module of its own, so that nothing of it comes into git-gitops.
//
//	rivals [-waiters 1,10,100] [-rounds 50] [-json]
//
// The others run with their own defaults. blpop is a token that is passed through a list, the floor
// of what Redis can do; flock is the kernel's, on one machine; etcd takes part when there is a
// program etcd.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// held is how long each holder keeps the lock, so that all others come to rest; enough for those
// who poll, too.
const held = 5 * time.Millisecond

// acquire waits for a lock and returns what releases it.
type acquire func(ctx context.Context) (release func() error, err error)

// result is what one lock measured with a number of waiters; times are in milliseconds.
type result struct {
	Lock     string  `json:"lock"`
	Waiters  int     `json:"waiters"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Commands float64 `json:"redis_commands_per_hand_off"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rivals:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	waiters := flag.String("waiters", "1,10,100", "`NUMBERS` of waiters, separated by commas")
	rounds := flag.Int("rounds", 50, "`NUMBER` of hand-offs")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()

	dir, err := os.MkdirTemp("", "gitops-rivals-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := redistest.Run(dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	admin := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = admin.Close() }()
	etcd, stop, err := startEtcd(dir)
	if err != nil {
		return err
	}
	defer stop()

	all := []struct {
		name string
		make func() (acquire, func(), error)
	}{
		{"git-gitops", func() (acquire, func(), error) { return gitops(server.Addr()) }},
		{"blpop token", func() (acquire, func(), error) { return token(server.Addr()) }},
		{"flock", func() (acquire, func(), error) { return flock(filepath.Join(dir, "flock")) }},
		{"etcd mutex", func() (acquire, func(), error) { return etcdMutex(etcd) }},
		{"redislock", func() (acquire, func(), error) { return bsm(server.Addr()) }},
		{"redsync", func() (acquire, func(), error) { return sync(server.Addr()) }},
	}
	var results []result
	for word := range strings.SplitSeq(*waiters, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("-waiters: %q is no number", word)
		}
		for _, one := range all {
			if one.name == "etcd mutex" && etcd == "" {
				continue
			}
			if err := admin.FlushAll(context.Background()).Err(); err != nil {
				return err
			}
			if one.name == "blpop token" {
				admin.LPush(context.Background(), "token", "x")
			}
			r, err := measure(one.make, n, *rounds, admin)
			if err != nil {
				return fmt.Errorf("%s with %d waiters: %w", one.name, n, err)
			}
			r.Lock = one.name
			results = append(results, r)
		}
	}
	if *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(results)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LOCK\tWAITERS\tP50 ms\tP99 ms\tCOMMANDS, WITH THOSE IN SCRIPTS")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%.3f\t%.3f\t%.1f\n", r.Lock, r.Waiters, r.P50, r.P99, r.Commands)
	}
	return t.Flush()
}

// measure has n waiters queue for a lock, each a client of its own, and hands it on: who has
// released queues again.
func measure(client func() (acquire, func(), error), n, rounds int, admin *redis.Client) (result, error) {
	type grant struct {
		at      time.Time
		by      int
		release func() error
		err     error
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	granted := make(chan grant)
	clients := make([]acquire, n+1)
	join := func(i int) {
		go func() {
			release, err := clients[i](ctx)
			granted <- grant{time.Now(), i, release, err}
		}()
	}
	for i := range clients {
		c, done, err := client()
		if err != nil {
			return result{}, err
		}
		defer done()
		clients[i] = c
		join(i)
	}
	var times []time.Duration
	var before int64
	g := <-granted
	for round := range rounds + 3 {
		if g.err != nil {
			return result{}, g.err
		}
		if round == 3 { // to warm up
			before = commands(ctx, admin)
		}
		time.Sleep(held)
		if err := g.release(); err != nil {
			return result{}, err
		}
		returned := time.Now()
		last := g.by
		g = <-granted
		if round >= 3 {
			times = append(times, g.at.Sub(returned))
		}
		join(last)
	}
	after := commands(ctx, admin)
	go func() { // let the others go
		for range n {
			if g := <-granted; g.err == nil {
				_ = g.release()
			}
		}
	}()
	if g.err == nil {
		_ = g.release()
	}
	cancel()
	return result{Waiters: n, P50: percentile(times, 0.5), P99: percentile(times, 0.99), Commands: float64(after-before) / float64(rounds)}, nil
}

// commands is how many the server has run, also in scripts.
func commands(ctx context.Context, admin *redis.Client) int64 {
	text, _ := admin.Info(ctx, "stats").Result()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "total_commands_processed:"); ok {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

func percentile(d []time.Duration, p float64) float64 {
	slices.Sort(d)
	return float64(d[max(0, int(math.Ceil(p*float64(len(d))))-1)].Microseconds()) / 1000
}

func gitops(addr string) (acquire, func(), error) {
	s := redisstore.Open(redisstore.Options{Addrs: []string{addr}})
	k := lock.Key{Repo: "example.com/bench/repo", Branch: "main"}
	return func(ctx context.Context) (func() error, error) {
		r := lock.Request{Key: k, Token: lock.NewToken(), TTL: 10 * time.Minute}
		lease, err := lock.Acquire(ctx, s, r, 10*time.Minute, nil)
		if err != nil {
			return nil, err
		}
		return func() error { _, err := s.Release(context.Background(), k, lease.Token); return err }, nil
	}, func() { _ = s.Close() }, nil
}

func token(addr string) (acquire, func(), error) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	return func(ctx context.Context) (func() error, error) {
		if err := c.BLPop(ctx, 0, "token").Err(); err != nil {
			return nil, err
		}
		return func() error { return c.LPush(context.Background(), "token", "x").Err() }, nil
	}, func() { _ = c.Close() }, nil
}

func flock(path string) (acquire, func(), error) {
	return func(context.Context) (func() error, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, err
		}
		return f.Close, nil
	}, func() {}, nil
}

func bsm(addr string) (acquire, func(), error) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	locker := redislock.New(c)
	return func(ctx context.Context) (func() error, error) {
		l, err := locker.Obtain(ctx, "lock", 10*time.Minute, &redislock.Options{RetryStrategy: redislock.LinearBackoff(100 * time.Millisecond)})
		if err != nil {
			return nil, err
		}
		return func() error { return l.Release(context.Background()) }, nil
	}, func() { _ = c.Close() }, nil
}

func sync(addr string) (acquire, func(), error) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	rs := redsync.New(goredis.NewPool(c))
	return func(ctx context.Context) (func() error, error) {
		m := rs.NewMutex("lock", redsync.WithExpiry(10*time.Minute), redsync.WithTries(math.MaxInt32))
		if err := m.LockContext(ctx); err != nil {
			return nil, err
		}
		return func() error { _, err := m.Unlock(); return err }, nil
	}, func() { _ = c.Close() }, nil
}

func etcdMutex(endpoint string) (acquire, func(), error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, nil, err
	}
	session, err := concurrency.NewSession(c)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) (func() error, error) {
		m := concurrency.NewMutex(session, "/lock")
		if err := m.Lock(ctx); err != nil {
			return nil, err
		}
		return func() error { return m.Unlock(context.Background()) }, nil
	}, func() { _ = c.Close() }, nil
}

// startEtcd returns the server's address, "" when there is no program etcd.
func startEtcd(dir string) (string, func(), error) {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return "", func() {}, nil
	}
	client, err := redistest.FreePort()
	if err != nil {
		return "", nil, err
	}
	peer, err := redistest.FreePort()
	if err != nil {
		return "", nil, err
	}
	url, peerURL := "http://127.0.0.1:"+client, "http://127.0.0.1:"+peer
	cmd := exec.Command(path, "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "default="+peerURL)
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	return "127.0.0.1:" + client, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, nil
}
