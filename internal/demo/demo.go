// Package demo owns what shows git-gitops without a server: an embedded Redis, and pipelines that come and go.
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

// Redis starts an embedded server on the loopback address. stop ends it.
func Redis() (host, port string, stop func(), err error) {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		return "", "", nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	ended, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		drive(server, ended)
	}()
	return server.Host(), server.Port(), func() {
		close(ended)
		<-joined
		server.Close()
	}, nil
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

// Pipelines lock and release some branches until ctx ends, each as a pipeline would: it waits for its turn, works for
// some seconds, and releases. open makes a store for each.
func Pipelines(ctx context.Context, open func() lock.Store) {
	fleet := []struct {
		repo, branch, name string
		pipelines          int
		work               time.Duration
	}{
		{"github.com/acme/fleet", "main", "", 5, 6 * time.Second},
		{"github.com/acme/fleet", "main", "billing.eu-west.prod", 2, 4 * time.Second},
		{"github.com/acme/platform", "main", "", 3, 9 * time.Second},
		{"github.com/acme/platform", "staging", "", 1, 5 * time.Second},
		{"gitlab.example.com/shop/deploy", "production", "", 2, 12 * time.Second},
	}
	jobs := []string{"deploy / prod", "promote image", "rotate secrets", "scale out", "config sync"}
	people := []string{"ci", "argo", "deploy-bot", "release"}
	var all sync.WaitGroup
	n := 0
	for _, b := range fleet {
		for range b.pipelines {
			n++
			run := n
			all.Go(func() {
				store := open()
				key := lock.Key{Repo: b.repo, Branch: b.branch, Name: b.name}
				for turn := run * 1000; ctx.Err() == nil; turn++ {
					pipeline(ctx, store, key, b.work, lock.Record{
						Repo: b.repo, Branch: b.branch, Name: b.name, Host: fmt.Sprintf("runner-%d", run), PID: 1000 + run,
						User: pick(people), Command: "clone", Job: pick(jobs), RunURL: fmt.Sprintf("https://ci.example.com/runs/%d", turn),
					})
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
