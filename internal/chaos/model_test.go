//go:build unix

package chaos

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.uber.org/goleak"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// What a client does, in the words of the models: it is granted the lock with a fence, or its belief
// in the grant with that fence ends, by release or because its own clock says that the lease is over.
type (
	grant  struct{ key string }
	ending struct {
		key   string
		fence lock.Fence
	}
)

// byLock takes a history apart into those of its locks.
func byLock(all []porcupine.Operation) [][]porcupine.Operation {
	parts := map[string][]porcupine.Operation{}
	for _, op := range all {
		key := ""
		switch in := op.Input.(type) {
		case grant:
			key = in.key
		case ending:
			key = in.key
		}
		parts[key] = append(parts[key], op)
	}
	return slices.Collect(maps.Values(parts))
}

type mutexState struct {
	held  bool
	fence lock.Fence // of the holder, or of the last one
}

// mutexModel: nobody is granted the lock while another believes in it, and fences grow.
var mutexModel = porcupine.Model{
	Partition: byLock,
	Init:      func() any { return mutexState{} },
	Step: func(state, input, output any) (bool, any) {
		s := state.(mutexState)
		if end, ok := input.(ending); ok {
			return s.held && end.fence == s.fence, mutexState{fence: s.fence}
		}
		fence := output.(lock.Fence)
		return !s.held && fence > s.fence, mutexState{held: true, fence: fence}
	},
}

// fenceModel: fences grow. It is all that can hold when Redis forgets who holds the lock.
var fenceModel = porcupine.Model{
	Partition: byLock,
	Init:      func() any { return lock.Fence(0) },
	Step: func(state, input, output any) (bool, any) {
		if _, ok := input.(ending); ok {
			return true, state
		}
		return output.(lock.Fence) > state.(lock.Fence), output
	},
}

// never is the time by which an operation is surely carried out of which nobody knows when it is: a
// release without an answer, an expiry.
const never = time.Duration(math.MaxInt64)

// record is a history under way.
type record struct {
	mu      sync.Mutex
	started time.Time
	ops     []porcupine.Operation
}

func (r *record) now() time.Duration { return time.Since(r.started) }

func (r *record) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ops)
}

func (r *record) note(client int, input any, fence lock.Fence, call, ret time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: input, Output: fence, Call: int64(call), Return: int64(ret)})
}

// TestModel has clients of the lock acquire, renew, oversleep and release, while connections are cut and
// slow and Redis is killed, and checks the history: with the append-only file it is that of a mutex;
// after a loss of all data the fences still grow.
func TestModel(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	t.Run("append-only file", func(t *testing.T) { runModel(t, seed, mutexModel, false) })
	t.Run("loss of all data", func(t *testing.T) { runModel(t, seed, fenceModel, true) })
	goleak.VerifyNone(t, leaks)
}

func runModel(t *testing.T, seed uint64, model porcupine.Model, forgetful bool) {
	const clients = 16
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	proxies := []*redistest.Proxy{redistest.NewProxy(t, server.Addr()), redistest.NewProxy(t, server.Addr())}
	// Six seconds, or as long as a busy machine needs for enough operations.
	ctx, calm := context.WithTimeout(t.Context(), 2*time.Minute)
	defer calm()
	r := &record{started: time.Now()}
	enough := time.AfterFunc(6*time.Second, func() {
		for r.count() < 100 && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
		calm()
	})
	defer enough.Stop()
	var weather, all sync.WaitGroup
	strikes := 0
	weather.Go(func() { strikes = storm(ctx, t, rand.New(rand.NewPCG(seed, 100)), server, proxies, forgetful) })
	for id := range clients {
		all.Go(func() {
			c := client{
				t: t, id: id, record: r, strict: !forgetful,
				dice:  rand.New(rand.NewPCG(seed, uint64(id))),
				store: redisstore.Open(redisstore.Options{Addrs: []string{proxies[id%len(proxies)].Addr}}),
			}
			defer func() { _ = c.store.Close() }()
			for ctx.Err() == nil {
				c.round(ctx)
			}
		})
	}
	all.Wait()
	weather.Wait()
	if got := porcupine.CheckOperationsTimeout(model, r.ops, time.Minute); got != porcupine.Ok {
		t.Errorf("the history of %d operations does not fit the model: %s", len(r.ops), got)
	}
	if len(r.ops) < 100 {
		t.Errorf("only %d operations", len(r.ops))
	}
	t.Logf("%d operations under %d faults", len(r.ops), strikes)
}

// client is one that takes the lock again and again.
type client struct {
	t      *testing.T
	id     int
	record *record
	strict bool // the lock may not be lost before its lease is over
	dice   *rand.Rand
	store  *redisstore.Store
}

func (c *client) round(ctx context.Context) {
	key := strconv.Itoa(c.dice.IntN(5))
	request := lock.Request{Key: lock.Key{Repo: "model", Branch: key}, Token: lock.NewToken(), TTL: time.Second}
	patience := []time.Duration{0, 20 * time.Millisecond, time.Minute, time.Minute}[c.dice.IntN(4)]
	call := c.record.now()
	lease, err := lock.Acquire(ctx, c.store, request, patience, nil)
	if err != nil { // whatever it had, it does not believe in
		c.pause(ctx, 20*time.Millisecond)
		return
	}
	fence := lease.Fence()
	c.record.note(c.id, grant{key}, fence, call, c.record.now())
	over := func() time.Duration { return c.record.now() + lease.Left() }

	for range c.dice.IntN(3) {
		c.pause(ctx, 10*time.Millisecond)
		call, deadline := c.record.now(), over()
		if call > deadline {
			break
		}
		err := lease.Renew(ctx, c.store)
		var lost *lock.LostError
		early := c.record.now() < deadline
		if c.strict && early && (errors.As(err, &lost) || lease.Broken()) {
			c.t.Errorf("lost before the lease was over: %v, broken %t", err, lease.Broken())
		}
		if errors.As(err, &lost) {
			c.record.note(c.id, ending{key, fence}, 0, min(deadline, c.record.now()), never)
			return
		}
		if f := lease.Fence(); f != fence { // it was over, and nobody had taken it
			c.record.note(c.id, ending{key, fence}, 0, deadline, never)
			c.record.note(c.id, grant{key}, f, call, c.record.now())
			fence = f
		}
	}
	if c.dice.IntN(12) == 0 { // as one that is paused: it comes back when its lease is over
		c.pause(ctx, lease.Left()+500*time.Millisecond)
	}

	call, deadline := c.record.now(), over()
	got, err := lease.Release(ctx, c.store, time.Second)
	ret := c.record.now()
	switch {
	case call >= deadline:
		c.record.note(c.id, ending{key, fence}, 0, deadline, never)
	case err != nil || got == lock.NotHeld:
		if c.strict && err == nil && ret < deadline && !lease.Broken() {
			c.t.Error("released what was not held any more before the lease was over")
		}
		c.record.note(c.id, ending{key, fence}, 0, call, never)
	default:
		c.record.note(c.id, ending{key, fence}, 0, call, ret)
	}
}

func (c *client) pause(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(time.Duration(c.dice.Int64N(int64(max(most, 1))))):
	case <-ctx.Done():
	}
}

// storm strikes until ctx ends.
func storm(ctx context.Context, t *testing.T, dice *rand.Rand, server *redistest.Server, proxies []*redistest.Proxy, forgetful bool) int {
	for n := 0; ; n++ {
		p := proxies[dice.IntN(len(proxies))]
		some := 10*time.Millisecond + time.Duration(dice.Int64N(int64(150*time.Millisecond)))
		select {
		case <-ctx.Done():
			return n
		case <-time.After(2 * some):
		}
		switch dice.IntN(5) {
		case 0:
			p.Cut()
			time.Sleep(some)
			p.Mend()
		case 1:
			p.Deafen(1)
			time.Sleep(some)
			p.Cut()
			p.Deafen(-1)
			p.Mend()
		case 2, 3:
			p.Delay(some)
			time.Sleep(some * 2)
			p.Delay(-some)
		default:
			server.Kill()
			if forgetful {
				if err := os.RemoveAll(filepath.Join(server.Dir, "appendonlydir")); err != nil {
					t.Error(err)
				}
			}
			if err := server.Resume(); err != nil {
				t.Error(err)
			}
		}
	}
}

// The models themselves: what must not be is seen.
func TestModel_detects(t *testing.T) {
	op := func(input any, fence lock.Fence, call, ret int64) porcupine.Operation {
		return porcupine.Operation{Input: input, Output: fence, Call: call, Return: ret}
	}
	for _, test := range []struct {
		name    string
		model   porcupine.Model
		history []porcupine.Operation
		fits    bool
	}{
		{"one after the other", mutexModel, []porcupine.Operation{
			op(grant{}, 1, 0, 1), op(ending{fence: 1}, 0, 2, 3), op(grant{}, 2, 1, 4),
		}, true},
		{"after an expiry", mutexModel, []porcupine.Operation{
			op(grant{}, 1, 0, 1), op(ending{fence: 1}, 0, 2, int64(never)), op(grant{}, 2, 1, 9),
		}, true},
		{"two at once", mutexModel, []porcupine.Operation{
			op(grant{}, 1, 0, 1), op(grant{}, 2, 2, 3), op(ending{fence: 1}, 0, 4, int64(never)),
		}, false},
		{"an old fence", mutexModel, []porcupine.Operation{
			op(grant{}, 2, 0, 1), op(ending{fence: 2}, 0, 2, 3), op(grant{}, 1, 4, 5),
		}, false},
		{"an old fence after a loss", fenceModel, []porcupine.Operation{
			op(grant{}, 2, 0, 1), op(grant{}, 1, 2, 3),
		}, false},
	} {
		if got := porcupine.CheckOperations(test.model, test.history); got != test.fits {
			t.Errorf("%s: fits %t, want %t", test.name, got, test.fits)
		}
	}
}
