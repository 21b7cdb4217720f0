package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// A thousand locks with five waiters each are all listed, and no step of that blocks Redis for
// others.
func TestStore_List_many(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--slowlog-log-slower-than", "10000") // 10 ms
	client := server.Client(t)
	store := open(t, at(server))
	ctx := t.Context()
	const locks, waiters = 1000, 5
	for i := range locks {
		k := lock.Key{Repo: "example.com/org/repo", Branch: fmt.Sprintf("b%04d", i)}
		for range 1 + waiters {
			r := lock.Request{Key: k, Token: lock.NewToken(), Record: lock.Record{User: "ci"}, TTL: ttl}
			if _, err := store.TryAcquire(ctx, lock.Try{Request: r}); err != nil {
				t.Fatal(err)
			}
		}
	}
	client.Do(ctx, "slowlog", "reset")
	started := time.Now()
	states, err := store.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d locks in %s", len(states), time.Since(started))
	if len(states) != locks {
		t.Errorf("%d locks listed, want %d", len(states), locks)
	}
	for i, s := range states {
		if want := fmt.Sprintf("b%04d", i); s.Key.Branch != want || s.Holder == nil || len(s.Waiters) != waiters {
			t.Fatalf("%d: got %+v, want %s with %d waiters", i, s, want, waiters)
		}
	}
	if slow := client.SlowLogGet(ctx, 10).Val(); len(slow) > 0 {
		t.Logf("slower than 10 ms: %v", slow)
	}
}
