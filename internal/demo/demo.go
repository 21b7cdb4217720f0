// Package demo owns what shows git-gitops without a server: an embedded Redis, and pipelines that
// come and go.
package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// tick is how often the embedded server's clock moves.
const tick = 50 * time.Millisecond

// Server is an embedded Redis.
type Server struct {
	Host, Port string

	redis *miniredis.Miniredis
	ended chan struct{}
	done  chan struct{}
}

// Redis starts an embedded server on the loopback address.
func Redis() (*Server, error) {
	redis := miniredis.NewMiniRedis()
	if err := redis.Start(); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	s := &Server{Host: redis.Host(), Port: redis.Port(), redis: redis, ended: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		drive(redis, s.ended)
	}()
	return s, nil
}

// Stop ends the server.
func (s *Server) Stop() {
	close(s.ended)
	<-s.done
	s.redis.Close()
}

// drive moves the server's clock, because its keys do not expire by themselves.
func drive(server *miniredis.Miniredis, ended <-chan struct{}) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ended:
			return
		case <-ticker.C:
			now := time.Now()
			server.FastForward(now.Sub(last))
			last = now
		}
	}
}

// branches are those of the demo, each with some pipelines that work for about so long.
var branches = []struct {
	key       lock.Key
	pipelines int
	work      time.Duration
}{
	{lock.Key{Repo: "github.com/acme/fleet", Branch: "main"}, 5, 6 * time.Second},
	{lock.Key{Repo: "github.com/acme/fleet", Branch: "main", Name: "billing.eu-west.prod"}, 2, 4 * time.Second},
	{lock.Key{Repo: "github.com/acme/platform", Branch: "main"}, 3, 9 * time.Second},
	{lock.Key{Repo: "github.com/acme/platform", Branch: "staging"}, 1, 5 * time.Second},
	{lock.Key{Repo: "gitlab.example.com/shop/deploy", Branch: "production"}, 2, 12 * time.Second},
}

func record(key lock.Key, runner, run int) lock.Record {
	jobs := []string{"deploy / prod", "promote image", "rotate secrets", "scale out", "config sync"}
	people := []string{"ci", "argo", "deploy-bot", "release"}
	return lock.Record{
		Repo: key.Repo, Branch: key.Branch, Name: key.Name, Host: fmt.Sprintf("runner-%d", runner), PID: 1000 + runner,
		User: pick(people), Command: "clone", Job: pick(jobs), RunURL: fmt.Sprintf("https://ci.example.com/runs/%d", run),
	}
}

// Past makes holds and waits of the last hours, on the server's clock, so that there is something
// to see at once.
func (s *Server) Past(ctx context.Context, store lock.Store, hours time.Duration) error {
	defer s.redis.SetTime(time.Time{}) // the present again
	now, run := time.Now(), 0
	for i, b := range branches {
		clock := now.Add(-hours)
		pass := func(d time.Duration) {
			clock = clock.Add(d)
			s.redis.SetTime(clock)
		}
		ask := func(t lock.Token) error {
			run++
			r := lock.Request{Key: b.key, Token: t, Record: record(b.key, 3*i+1+run%b.pipelines, run), TTL: 5 * time.Minute}
			_, err := store.TryAcquire(ctx, lock.Try{Request: r})
			return err
		}
		for pass(0); now.Sub(clock) > time.Minute; pass(rand.N(30 * b.work)) { //nolint:gosec // guards nothing
			first, next := lock.NewToken(), lock.NewToken()
			waits := b.pipelines > 1 && rand.N(2) == 0 //nolint:gosec // guards nothing
			if err := ask(first); err != nil {
				return err
			}
			pass(b.work)
			if waits {
				if err := ask(next); err != nil {
					return err
				}
			}
			pass(rand.N(b.work)) //nolint:gosec // guards nothing
			if _, err := store.Release(ctx, b.key, first); err != nil {
				return err
			}
			if !waits {
				continue
			}
			if err := ask(next); err != nil {
				return err
			}
			pass(b.work)
			if _, err := store.Release(ctx, b.key, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// Pipelines lock and release some branches until ctx ends, each as a pipeline would: it waits for
// its turn, works for some seconds, and releases. open makes a store for each.
func Pipelines(ctx context.Context, open func() lock.Store) {
	var all sync.WaitGroup
	n := 0
	for _, b := range branches {
		for range b.pipelines {
			n++
			runner := n
			all.Go(func() {
				store := open()
				for run := runner * 1000; ctx.Err() == nil; run++ {
					pipeline(ctx, store, b.key, b.work, record(b.key, runner, run))
				}
			})
		}
	}
	all.Wait()
}

func pipeline(ctx context.Context, store lock.Store, key lock.Key, work time.Duration, who lock.Record) {
	if !rest(ctx, rand.N(2*work)) { //nolint:gosec // spreads the load, guards nothing
		return
	}
	lease, err := lock.Acquire(ctx, store, lock.Request{Key: key, Token: lock.NewToken(), Record: who, TTL: 5 * time.Minute}, time.Hour, nil)
	if err != nil {
		return
	}
	rest(ctx, work/2+rand.N(work)) //nolint:gosec // spreads the load, guards nothing
	_, _ = lease.Release(ctx, store, 2*time.Second)
}

// rest reports whether it was long enough, and no end came.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func pick(words []string) string { return words[rand.N(len(words))] } //nolint:gosec // guards nothing
