package gitops

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// restarting is a store that is away for a moment.
type restarting struct {
	Store
	tries []time.Time
}

func (*restarting) Timing() lock.Timing { return lock.DefaultTiming() }

func (s *restarting) Release(context.Context, lock.Key, lock.Token) (lock.ReleaseResult, error) {
	s.tries = append(s.tries, time.Now())
	if len(s.tries) < 3 {
		return lock.NotHeld, &lock.StoreError{Failure: lock.Unreachable, Err: errors.New("connection refused")}
	}
	return lock.Freed, nil
}

// silent are notes that nobody reads.
type silent struct{ Notes }

func (silent) Debug(string, ...any) {}

// A release that failed pauses before each further try, and before the first of them too.
func TestRelease_pauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &restarting{}
		f := New(Parts{Store: store, Notes: silent{}})
		f.release(t.Context(), lock.Resume(lock.Hold{Key: lock.Key{Repo: "h/r", Branch: "main"}, Token: lock.NewToken()}, 1))
		if len(store.tries) != 3 {
			t.Fatalf("%d tries", len(store.tries))
		}
		for i, at := range store.tries[1:] {
			if !at.After(store.tries[i]) {
				t.Errorf("try %d came right after the one before", i+2)
			}
		}
	})
}
