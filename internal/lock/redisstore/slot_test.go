//go:build unix

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// moveSlot gives a slot to another primary, key by key, as redis-cli --cluster reshard does, with a
// pause after each step.
func moveSlot(ctx context.Context, slot int64, from, to *redis.Client, host, port string, pause time.Duration) error {
	id := func(c *redis.Client) (string, error) { return c.Do(ctx, "cluster", "myid").Text() }
	source, err := id(from)
	if err != nil {
		return err
	}
	target, err := id(to)
	if err != nil {
		return err
	}
	if err := to.Do(ctx, "cluster", "setslot", slot, "importing", source).Err(); err != nil {
		return err
	}
	if err := from.Do(ctx, "cluster", "setslot", slot, "migrating", target).Err(); err != nil {
		return err
	}
	for {
		keys, err := from.ClusterGetKeysInSlot(ctx, int(slot), 1).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		time.Sleep(pause)
		if err := from.Migrate(ctx, host, port, keys[0], 0, soon).Err(); err != nil {
			return err
		}
	}
	time.Sleep(pause)
	for _, c := range []*redis.Client{to, from} {
		if err := c.Do(ctx, "cluster", "setslot", slot, "node", target).Err(); err != nil {
			return err
		}
	}
	return nil
}

// twoPrimaries are the one that has a key, and another.
func twoPrimaries(t *testing.T, all *redistest.Topology, key string) (from, to *redistest.Server) {
	t.Helper()
	gittest.Until(t, "a primary has the key's slot", func() bool { from = all.Primary(key); return from != nil })
	for _, s := range all.Servers {
		if role, err := s.Client(t).Do(t.Context(), "role").Slice(); err == nil && role[0] == "master" && s != from {
			return from, s
		}
	}
	t.Fatal("there is no other primary")
	return nil, nil
}

// TestSlot_moves: while the slot of a lock moves to and fro, key by key, those who use the lock
// wait, none of them fails, no two hold it, and none is left with a lock that nobody knows of.
func TestSlot_moves(t *testing.T) {
	t.Parallel()
	all := redistest.Cluster(t)
	o := redisstore.Options{Addrs: all.Addrs(), Cluster: true, Events: 100}
	ctx, cancel := context.WithTimeout(t.Context(), ttl)
	defer cancel()
	lockKey := "gitops:lock:{" + key.ID() + "}"

	const clients, rounds = 6, 25
	var (
		inside, done atomic.Int32
		last         atomic.Int64
		working      sync.WaitGroup
	)
	for range clients {
		s := open(t, o)
		working.Go(func() {
			defer done.Add(1)
			for range rounds {
				lease, err := lock.Acquire(ctx, s, request(key), ttl, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				if before := last.Swap(int64(lease.Fence())); before >= int64(lease.Fence()) {
					t.Errorf("fence %d after %d", lease.Fence(), before)
				}
				inside.Add(-1)
				for {
					got, err := lease.Release(ctx, s, soon)
					if err == nil {
						if got == lock.NotHeld {
							t.Error("released what was not held")
						}
						break
					}
					if !lock.Transient(err) {
						t.Error(err)
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}

	moves := 0
	for done.Load() < clients && !t.Failed() {
		from, to := twoPrimaries(t, all, lockKey)
		slot := from.Client(t).ClusterKeySlot(ctx, lockKey).Val()
		if err := moveSlot(ctx, slot, from.Client(t), to.Client(t), to.Host, to.Port, 5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		moves++
		gittest.Until(t, "the slot is there", func() bool { return all.Primary(lockKey) == to })
	}
	working.Wait()
	t.Logf("%d rounds of %d clients, %d moves", rounds, clients, moves)
	if moves < 2 {
		t.Error("the slot did not move in that time: the test proves nothing")
	}
	state, err := open(t, o).Inspect(ctx, key)
	if err != nil || state.Holder != nil || len(state.Waiters) > 0 {
		t.Errorf("left behind: %+v, %v", state, err)
	}
}

// A slot that stays half moved is said to be that, and leaves nothing behind.
func TestSlot_halfMoved(t *testing.T) {
	t.Parallel()
	all := redistest.Cluster(t)
	ctx := t.Context()
	lockKey := "gitops:lock:{" + key.ID() + "}"
	from, to := twoPrimaries(t, all, lockKey)
	store := open(t, redisstore.Options{Addrs: all.Addrs(), Cluster: true, Events: 100})
	holder := request(key)
	try(t, store, holder)
	slot := from.Client(t).ClusterKeySlot(ctx, lockKey).Val()
	id := func(s *redistest.Server) string { return s.Client(t).Do(ctx, "cluster", "myid").Val().(string) }
	for _, err := range []error{
		to.Client(t).Do(ctx, "cluster", "setslot", slot, "importing", id(from)).Err(),
		from.Client(t).Do(ctx, "cluster", "setslot", slot, "migrating", id(to)).Err(),
		from.Client(t).Migrate(ctx, to.Host, to.Port, "gitops:meta:{"+key.ID()+"}", 0, soon).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := store.TryAcquire(ctx, lock.Try{Request: request(key)})
	if !lock.Transient(err) {
		t.Errorf("a waiter: %v", err)
	}
	if _, err := store.Release(ctx, key, holder.Token); !lock.Transient(err) {
		t.Errorf("a release: %v", err)
	}
	for {
		keys := from.Client(t).ClusterGetKeysInSlot(ctx, int(slot), 100).Val()
		if len(keys) == 0 {
			break
		}
		for _, k := range keys {
			if err := from.Client(t).Migrate(ctx, to.Host, to.Port, k, 0, soon).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []*redistest.Server{to, from} {
		if err := s.Client(t).Do(ctx, "cluster", "setslot", slot, "node", id(to)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	gittest.Until(t, "the lock is released", func() bool {
		got, err := store.Release(ctx, key, holder.Token)
		return err == nil && got == lock.Freed
	})
}

// The keys of a lock whose own key has a hash tag lie in the slot of that tag, and it is listed by
// its name.
func TestStore_verbatimTag(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes")
	client := server.Client(t)
	ctx := t.Context()
	if err := client.Do(ctx, "cluster", "addslotsrange", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	gittest.Until(t, "the cluster is up", func() bool {
		state, _ := client.ClusterInfo(ctx).Result()
		return len(state) > 0 && state[:len("cluster_state:ok")] == "cluster_state:ok"
	})
	o := at(server)
	o.Cluster, o.Events = true, 10
	store := open(t, o)
	var names []string
	for _, name := range []string{"app:{prod}:lock", "app:{prod}:other", "{prod}"} {
		k := lock.Key{Repo: "h/r", Branch: "main", Verbatim: name}
		holder, waiter := request(k), request(k)
		if a := try(t, store, holder); !a.Granted {
			t.Errorf("%s: %+v", name, a)
		}
		if a := try(t, store, waiter); a.Granted || a.Holder.Token != holder.Token {
			t.Errorf("%s: %+v", name, a)
		}
		release(t, store, holder, lock.HandedOver)
		if err := store.Wait(ctx, k, waiter.Token, time.Minute); err != nil {
			t.Error(err)
		}
		if a := try(t, store, waiter); !a.Granted {
			t.Errorf("%s: %+v", name, a)
		}
		names = append(names, name)
	}
	states, err := store.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, s := range states {
		listed = append(listed, s.Key.Verbatim)
	}
	if fmt.Sprint(listed) != fmt.Sprint(names) {
		t.Errorf("listed %q, want %q", listed, names)
	}
	events, err := store.Events(ctx, time.Now().Add(-time.Hour))
	if err != nil || len(events) != 4*len(names) {
		t.Errorf("%d events, %v", len(events), err)
	}
}

// A lock that is shared, taken over or taken back must have its replicas too.
func TestStore_unconfirmed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	ctx := t.Context()
	plain := open(t, at(server))
	o := at(server)
	o.MinReplicas = 1
	strict := open(t, o)
	holder := request(key)
	a := try(t, plain, holder)
	wantUnconfirmed := func(what string, do func() error) {
		t.Helper()
		var se *lock.StoreError
		var err error
		for range 5 { // a busy machine may be late with the answer
			if err = do(); errors.As(err, &se) && se.Failure != lock.Unreachable {
				break
			}
		}
		if !errors.As(err, &se) || se.Failure != lock.Unconfirmed {
			t.Errorf("%s: %v", what, err)
		}
	}
	join := func(action lock.Action) func() error {
		r := request(key)
		return func() error {
			_, err := strict.Join(ctx, lock.Try{Request: r}, alone(holder.Token), lock.Decision{Action: action})
			return err
		}
	}
	wantUnconfirmed("join", join(lock.Join))
	known := a.Fence
	if n, err := strict.Renew(ctx, holder.Hold(), lock.RenewOptions{Known: known}); err != nil || n.Status != lock.Renewed {
		t.Errorf("a renewal is not waited for: %+v, %v", n, err)
	}
	client.FlushAll(ctx)
	for range 2 { // also the second time, when it is there
		wantUnconfirmed("reassert", func() error {
			_, err := strict.Renew(ctx, holder.Hold(), lock.RenewOptions{Known: known})
			return err
		})
	}
	wantUnconfirmed("take over", join(lock.TakeOver))
}

// The pace of waiters is the same in Go and in Lua.
func TestPace(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("lua/common.lua")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("local STRETCH, NEAR, FAR = %d, %d, %d\n", lock.Stretch, lock.Near, lock.Far)
	if !strings.Contains(string(text), want) {
		t.Errorf("common.lua lacks %q", want)
	}
}
