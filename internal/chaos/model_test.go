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
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// What a client does, in the words of the models: it is granted the lock with a fence, or its
// belief in the grant with that fence ends, by release or because its own clock says that the lease
// is over.
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
	holder lock.Fence // of the present grant, 0 for none
	last   lock.Fence // of the last grant that had one
}

// stranger reports whether a grant is one to a script with SET NX. It has no fence; the models tell
// such grants apart by numbers below 0.
func stranger(f lock.Fence) bool { return f < 0 }

// mutexModel: nobody is granted the lock while another believes in it, and fences grow.
var mutexModel = porcupine.Model{
	Partition: byLock,
	Init:      func() any { return mutexState{} },
	Step: func(state, input, output any) (bool, any) {
		s := state.(mutexState)
		if end, ok := input.(ending); ok {
			return s.holder != 0 && end.fence == s.holder, mutexState{last: s.last}
		}
		fence := output.(lock.Fence)
		if stranger(fence) {
			return s.holder == 0, mutexState{holder: fence, last: s.last}
		}
		return s.holder == 0 && fence > s.last, mutexState{holder: fence, last: fence}
	},
}

// fenceModel: fences grow. It is all that can hold when Redis forgets who holds the lock. What has
// no say in it is left out: the checker would try each of its orders.
var fenceModel = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		return byLock(slices.DeleteFunc(slices.Clone(all), func(op porcupine.Operation) bool {
			_, granted := op.Input.(grant)
			return !granted || stranger(op.Output.(lock.Fence))
		}))
	},
	Init: func() any { return lock.Fence(0) },
	Step: func(state, _, output any) (bool, any) {
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

// loss is what Redis loses when it is killed.
type loss int

const (
	nothing    loss = iota
	everything      // all data
	lately          // what was written since some time ago
)

// TestModel has clients of the lock acquire, renew, oversleep, share, take over, break and release,
// and strangers take one of the locks by SET NX, while connections are cut and slow and Redis is
// killed, and checks the history: with the append-only file it is that of a mutex; after a loss of
// data the fences still grow.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	for _, run := range []struct {
		name  string
		model porcupine.Model
		lost  loss
	}{{"append-only file", mutexModel, nothing}, {"loss of all data", fenceModel, everything}, {"rollback", fenceModel, lately}} {
		t.Run(run.name, func(t *testing.T) {
			t.Parallel()
			runModel(t, seed, run.model, run.lost)
		})
	}
}

func runModel(t *testing.T, seed uint64, model porcupine.Model, lost loss) {
	const clients = 16
	fsync := "always"
	if lost == lately {
		fsync = "everysec"
	}
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", fsync)
	proxies := []*redistest.Proxy{redistest.NewProxy(t, server.Addr()), redistest.NewProxy(t, server.Addr())}
	// Six seconds, or as long as a busy machine needs for enough operations.
	ctx, calm := context.WithTimeout(t.Context(), 4*time.Minute)
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
	did := make([]map[string]int, clients)
	weather.Go(func() { strikes = storm(ctx, t, rand.New(rand.NewPCG(seed, 100)), server, proxies, lost) })
	for id := range clients {
		did[id] = map[string]int{}
		all.Go(func() {
			c := client{
				t: t, id: id, record: r, strict: lost == nothing, did: did[id],
				dice:  rand.New(rand.NewPCG(seed, uint64(id))),
				store: redisstore.Open(redisstore.Options{Addrs: []string{proxies[id%len(proxies)].Addr}}),
			}
			defer func() { _ = c.store.Close() }()
			for ctx.Err() == nil {
				switch id {
				case 0:
					c.operate(ctx)
				case 1:
					c.intrude(ctx, server.Addr())
				default:
					c.round(ctx)
				}
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
	sum := map[string]int{}
	for _, some := range did {
		for what, n := range some {
			sum[what] += n
		}
	}
	t.Logf("%d operations under %d faults: %s", len(r.ops), strikes, list(sum))
}

// client is one that takes the lock again and again.
type client struct {
	t      *testing.T
	id     int
	record *record
	strict bool // the lock may not be lost before its lease is over
	dice   *rand.Rand
	store  *redisstore.Store
	did    map[string]int
}

// breakable are the first locks, whose holds an operator breaks. Their holders may believe in them
// for longer.
const breakable = 2

// modelKey is one of the locks; 4 is one that strangers take as well.
func modelKey(n int) (string, lock.Key) {
	key := lock.Key{Repo: "model", Branch: strconv.Itoa(n)}
	if n == 4 {
		key.Verbatim = "model"
	}
	return strconv.Itoa(n), key
}

// operate breaks the hold of somebody, who notes its end.
func (c *client) operate(ctx context.Context) {
	c.pause(ctx, 300*time.Millisecond)
	_, key := modelKey(c.dice.IntN(breakable))
	state, err := c.store.Inspect(ctx, key)
	if err != nil || state.Holder == nil || !state.Holder.Known {
		return
	}
	if got, err := c.store.Break(ctx, key, state.Holder.Token, lock.Record{User: "operator"}, ""); err == nil && got != lock.NotHeld {
		c.did["broken"]++
	}
}

// intrude takes a lock as a script with SET NX does, for as long as it lasts.
func (c *client) intrude(ctx context.Context, addr string) {
	c.pause(ctx, 200*time.Millisecond)
	name, key := modelKey(4)
	plain := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	defer func() { _ = plain.Close() }()
	const life = 200 * time.Millisecond
	call := c.record.now()
	ok, err := plain.SetNX(ctx, key.Verbatim, string(lock.NewToken()), life).Result()
	if err != nil || !ok {
		return
	}
	c.did["by a stranger"]++
	fence := -lock.Fence(c.did["by a stranger"])
	c.record.note(c.id, grant{name}, fence, call, c.record.now())
	c.record.note(c.id, ending{name, fence}, 0, call+life, never)
}

func (c *client) round(ctx context.Context) {
	n := c.dice.IntN(5)
	key, which := modelKey(n)
	request := lock.Request{Key: which, Token: lock.NewToken(), TTL: time.Second}
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
	held := call                                   // at that time it was surely ours
	ends := func(at time.Duration) time.Duration { // the earliest end of a hold that was over at a time
		if n < breakable {
			return held
		}
		return at
	}
	switch a := []lock.Action{lock.Join, lock.TakeOver, lock.Wait, lock.Wait}[c.dice.IntN(4)]; a {
	case lock.Wait:
	default:
		call := c.record.now()
		next, err := c.join(ctx, lease, a)
		switch {
		case err != nil && a == lock.Join: // the lease is as it was
		case err != nil: // carried out and given back, or not at all
			_, _ = c.store.Release(context.WithoutCancel(ctx), which, lease.Token)
			c.record.note(c.id, ending{key, fence}, 0, held, never)
			return
		case next.Share != "" && next.Fence() == fence:
			left := over()
			got, err := lease.Release(ctx, c.store, time.Second)
			if err == nil && got == lock.StillShared {
				c.did["shared"]++
			} else if c.strict && n >= breakable && err == nil && c.record.now() < left {
				c.t.Errorf("the lock that two share is %s when one releases it", got)
			}
			lease = next
		default: // taken over, or ours was over
			c.did["taken over"]++
			c.record.note(c.id, ending{key, fence}, 0, held, never)
			c.record.note(c.id, grant{key}, next.Fence(), call, c.record.now())
			lease, fence, held = next, next.Fence(), call
		}
	}

	for range c.dice.IntN(3) {
		c.pause(ctx, 10*time.Millisecond)
		call, deadline := c.record.now(), over()
		if call > deadline {
			break
		}
		err := lease.Renew(ctx, c.store)
		var lost *lock.LostError
		early := c.record.now() < deadline
		if n < breakable && errors.As(err, &lost) {
			c.record.note(c.id, ending{key, fence}, 0, held, never)
			return
		}
		if c.strict && early && (errors.As(err, &lost) || lease.Fence() != fence) {
			c.t.Errorf("lost before the lease was over: %v, fence %d, was %d", err, lease.Fence(), fence)
		}
		if err == nil {
			held = call
		}
		if errors.As(err, &lost) {
			c.record.note(c.id, ending{key, fence}, 0, min(deadline, c.record.now()), never)
			return
		}
		if f := lease.Fence(); f != fence { // it was over, and nobody had taken it
			c.record.note(c.id, ending{key, fence}, 0, ends(deadline), never)
			c.record.note(c.id, grant{key}, f, call, c.record.now())
			fence, held = f, call
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
		c.record.note(c.id, ending{key, fence}, 0, ends(deadline), never)
	case err != nil || got == lock.NotHeld:
		if c.strict && n >= breakable && err == nil && ret < deadline && !lease.Broken() {
			c.t.Error("released what was not held any more before the lease was over")
		}
		c.record.note(c.id, ending{key, fence}, 0, ends(call), never)
	default:
		c.record.note(c.id, ending{key, fence}, 0, call, ret)
	}
}

// join makes the lock of a lease a new token's as well, or instead: as a command below the holder,
// or of the same script, does. When the lease is over, it may be granted as to anybody.
func (c *client) join(ctx context.Context, lease *lock.Lease, a lock.Action) (*lock.Lease, error) {
	r := lock.Request{Key: lease.Key, Token: lock.NewToken(), TTL: lease.TTL}
	r.Policy = func(_ context.Context, got lock.Attempt) (lock.Decision, error) {
		if got.Holder.Token != lease.Token {
			return lock.Decision{}, nil
		}
		return lock.Decision{Action: a}, nil
	}
	return lock.Acquire(ctx, c.store, r, 0, nil)
}

func (c *client) pause(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(time.Duration(c.dice.Int64N(int64(max(most, 1))))):
	case <-ctx.Done():
	}
}

// storm strikes until ctx ends.
func storm(ctx context.Context, t *testing.T, dice *rand.Rand, server *redistest.Server, proxies []*redistest.Proxy, lost loss) int {
	written := filepath.Join(server.Dir, "appendonlydir")
	older := filepath.Join(t.TempDir(), "older")
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
			if err := lose(lost, written, older); err != nil {
				t.Error(err)
			}
			if err := server.Resume(); err != nil {
				t.Error(err)
			}
		}
	}
}

// lose takes from a server that is down what it loses. A rollback is to what was written when it
// was down the last time but one.
func lose(lost loss, written, older string) error {
	switch lost {
	case everything:
		return os.RemoveAll(written)
	case lately:
		if _, err := os.Stat(older); err != nil {
			return os.CopyFS(older, os.DirFS(written))
		}
		return errors.Join(os.RemoveAll(written), os.Rename(older, written))
	default:
		return nil
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
		{"a stranger between", mutexModel, []porcupine.Operation{
			op(grant{}, 1, 0, 1), op(ending{fence: 1}, 0, 2, 3), op(grant{}, -1, 2, 4), op(ending{fence: -1}, 0, 5, int64(never)), op(grant{}, 2, 5, 9),
		}, true},
		{"a stranger beside", mutexModel, []porcupine.Operation{
			op(grant{}, -1, 0, 1), op(grant{}, -2, 2, 3), op(ending{fence: -2}, 0, 4, 5), op(ending{fence: -1}, 0, 4, int64(never)),
		}, false},
		{"an old fence", mutexModel, []porcupine.Operation{
			op(grant{}, 2, 0, 1), op(ending{fence: 2}, 0, 2, 3), op(grant{}, 1, 4, 5),
		}, false},
		{"an old fence after a loss", fenceModel, []porcupine.Operation{
			op(grant{}, 2, 0, 1), op(grant{}, 1, 2, 3),
		}, false},
		{"at the same time, with many ends between", fenceModel, append(slices.Repeat([]porcupine.Operation{
			op(ending{fence: 1}, 0, 1, int64(never)),
		}, 50), op(grant{}, 3, 0, 4), op(grant{}, 2, 2, 3)), true},
	} {
		if got := porcupine.CheckOperations(test.model, test.history); got != test.fits {
			t.Errorf("%s: fits %t, want %t", test.name, got, test.fits)
		}
	}
}

// TestModel_presence: holders that live are granted the lock one after the other as ever, while
// half of them die without a word, and connections are cut and Redis is killed. Only their presence
// frees the locks of the dead.
func TestModel_presence(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	const locks, clients = 3, 9
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	proxies := []*redistest.Proxy{redistest.NewProxy(t, server.Addr()), redistest.NewProxy(t, server.Addr())}
	// Twenty seconds, or as long as a busy machine needs for enough deaths.
	ctx, calm := context.WithTimeout(t.Context(), 4*time.Minute)
	defer calm()
	var died atomic.Int32
	enough := time.AfterFunc(20*time.Second, func() {
		for died.Load() < locks && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
		calm()
	})
	defer enough.Stop()
	r := &record{started: time.Now()}
	var weather, all sync.WaitGroup
	dice := rand.New(rand.NewPCG(seed, 100))
	weather.Go(func() {
		for ctx.Err() == nil { // one fault at a time, so that those who judge have time to look
			limit, stop := context.WithTimeout(ctx, 500*time.Millisecond)
			storm(limit, t, dice, server, proxies, nothing)
			stop()
			select {
			case <-time.After(4 * time.Second):
			case <-ctx.Done():
			}
		}
	})
	for id := range clients {
		all.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(id)))
			store := redisstore.Open(redisstore.Options{Addrs: []string{proxies[id%len(proxies)].Addr}})
			defer func() { _ = store.Close() }()
			for ctx.Err() == nil {
				key, which := modelKey(dice.IntN(locks))
				request := lock.Request{Key: which, Token: lock.NewToken(), TTL: time.Hour, Present: true}
				call := r.now()
				// Not for ever: the lock of one that died just before Redis restarted is left to
				// its TTL, and all may wait for that.
				lease, err := lock.Acquire(ctx, store, request, 20*time.Second, nil)
				if err != nil {
					continue
				}
				fence := lease.Fence()
				r.note(id, grant{key}, fence, call, r.now())
				stop := lease.Keep(ctx, store, 0, func(err error) { t.Errorf("a holder that lives has lost its lock: %v", err) })
				for until := r.now() + time.Duration(dice.Int64N(int64(time.Second))); ctx.Err() == nil && (r.now() < until || !lease.Claimed()); {
					time.Sleep(10 * time.Millisecond)
				}
				stop()
				end := r.now()
				if dice.IntN(2) == 0 {
					lease.Leave()
					died.Add(1)
				} else if _, err := lease.Release(ctx, store, 5*time.Second); err == nil {
					r.note(id, ending{key, fence}, 0, end, r.now())
					continue
				}
				r.note(id, ending{key, fence}, 0, end, never)
			}
		})
	}
	all.Wait()
	weather.Wait()
	if got := porcupine.CheckOperationsTimeout(mutexModel, r.ops, time.Minute); got != porcupine.Ok {
		t.Errorf("the history of %d operations does not fit the model: %s", len(r.ops), got)
	}
	t.Logf("%d operations, %d holders died", len(r.ops), died.Load())
	if died.Load() < locks {
		t.Errorf("only %d holders died", died.Load())
	}
}
