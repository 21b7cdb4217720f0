//go:build unix

package lock_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// The model: one mutex, whose every grant carries a greater fence.
type (
	mutexState struct {
		held  bool
		fence lock.Fence // of the holder, or of the last one
	}
	mutexOp struct {
		acquire bool
		fence   lock.Fence // of the release
	}
)

var mutexModel = porcupine.Model{
	Init: func() any { return mutexState{} },
	Step: func(state, input, output any) (bool, any) {
		s, op, fence := state.(mutexState), input.(mutexOp), output.(lock.Fence)
		if op.acquire {
			return !s.held && fence > s.fence, mutexState{held: true, fence: fence}
		}
		return s.held && op.fence == s.fence, mutexState{fence: s.fence}
	},
}

// Clients acquire and release at random, some with little patience, some asking twice, in the
// second half over connections that are cut. The history must be that of a mutex.
func TestModel_mutex(t *testing.T) {
	t.Parallel()
	const clients, rounds = 8, 60
	seed := rand.Uint64()
	if s := os.Getenv("LOCK_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("LOCK_TEST_SEED=%d", seed)

	for _, name := range []string{"calm", "cut"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := serve(t)
			addr := server.Addr()
			if name == "cut" {
				p := newProxy(t, addr)
				addr = p.addr
				var mu sync.Mutex
				chance := rand.New(rand.NewPCG(seed, 99))
				p.onAnswer(func(b []byte) bool {
					mu.Lock()
					defer mu.Unlock()
					return bytes.Contains(b, []byte("NOSCRIPT")) || chance.IntN(10) > 0
				})
			}
			var (
				all     sync.WaitGroup
				mu      sync.Mutex
				history []porcupine.Operation
			)
			started := time.Now()
			note := func(id int, op mutexOp, fence lock.Fence, call, ret time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				history = append(history, porcupine.Operation{
					ClientId: id, Input: op, Output: fence, Call: int64(call), Return: int64(ret),
				})
			}
			for id := range clients {
				all.Go(func() {
					dice := rand.New(rand.NewPCG(seed, uint64(id)))
					store := unhurried(t, addr)
					for range rounds {
						patience := []time.Duration{0, time.Duration(dice.IntN(5)) * time.Millisecond, time.Minute}[dice.IntN(3)]
						call := time.Since(started)
						lease, err := lock.Acquire(t.Context(), store, request(), patience, nil)
						if err != nil { // no effect; whatever it had is released
							var timeout *lock.TimeoutError
							if !errors.As(err, &timeout) && failure(err) != lock.Unreachable {
								t.Error(err)
							}
							continue
						}
						note(id, mutexOp{acquire: true}, lease.Fence(), call, time.Since(started))
						if dice.IntN(3) == 0 {
							if err := lease.Renew(t.Context(), store); err != nil && failure(err) != lock.Unreachable {
								t.Errorf("renew what is held: %v", err)
							}
						}
						call = time.Since(started)
						for try := 0; ; try++ {
							got, err := lease.Release(context.Background(), store, time.Second)
							if err != nil {
								continue // it may have been carried out
							}
							if got == lock.NotHeld && try == 0 {
								t.Error("released what was not held")
							}
							break
						}
						note(id, mutexOp{fence: lease.Fence()}, 0, call, time.Since(started))
					}
				})
			}
			all.Wait()
			if !porcupine.CheckOperations(mutexModel, history) {
				t.Errorf("the history of %d operations is not that of a mutex", len(history))
			}
			if len(history) < clients*rounds/4 {
				t.Errorf("only %d operations", len(history))
			}
			t.Logf("%d operations in %s", len(history), time.Since(started).Round(time.Millisecond))
			_ = client
		})
	}
}
