package lock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// QueuePolicy is how a request queues.
type QueuePolicy string

// The policies; "" is Queue.
const (
	Queue  QueuePolicy = "queue"  // wait in line
	Skip   QueuePolicy = "skip"   // never wait: the lock is free, or the command does nothing
	Newest QueuePolicy = "newest" // whoever comes takes the place of an earlier one of its group that waits
)

// skipLooks is how often a request that does not wait looks at a holder that is not there, before
// it believes that the lock is held.
const skipLooks = 4

// SkippedError says that a request that does not wait did not get the lock at once.
type SkippedError struct {
	Key     Key
	Holder  Holder // who has it, if anybody
	Waiters int    // how many wait for it
	Freeze  Freeze // of the lock
}

func (e *SkippedError) Error() string { return "skipped: " + e.Reason() }

// Reason is why, in a few words.
func (e *SkippedError) Reason() string {
	switch {
	case e.Freeze.Frozen():
		return fmt.Sprintf("the lock on %s is frozen", e.Key)
	case e.Holder.Token != "":
		return fmt.Sprintf("the lock on %s is held", e.Key)
	default:
		return fmt.Sprintf("others wait for the lock on %s", e.Key)
	}
}

// SupersededError says that a newer command of the same group took our place in line.
type SupersededError struct {
	Key Key
	By  Record
}

func (e *SupersededError) Error() string {
	return fmt.Sprintf("superseded: a newer command of the same group waits for the lock on %s", e.Key)
}

// skipping decides what a request does that was not granted and does not wait: it shares a lock of
// its own script, looks again while the holder may be dead, or skips.
func skipping(ctx context.Context, s Store, t Try, a Attempt, look int) (*Lease, error) {
	lease, _, err := applyPolicy(ctx, s, t, a)
	var failed *StoreError
	switch {
	case lease != nil:
		return lease, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &failed):
		return nil, err
	case err == nil && a.Holder.Presence == Absent && a.Waiters == 0 && look < skipLooks:
		return nil, Sleep(ctx, s.Timing().Look)
	}
	return nil, &SkippedError{Key: t.Key, Holder: a.Holder, Waiters: a.Waiters, Freeze: a.Freeze}
}

// Freeze has nobody granted a lock for a time. The present hold goes on.
type Freeze struct {
	By     Record // who froze it
	Reason string
	Left   time.Duration // until it ends, by the store's clock; 0: there is none
	Age    time.Duration // since it began
	Scope  Scope
}

// Frozen reports whether there is one.
func (f Freeze) Frozen() bool { return f.Left > 0 }

// Scope is what was frozen when a lock was.
type Scope string

// The scopes.
const (
	ThisLock    Scope = "own"
	ItsBranch   Scope = "branch" // and so the narrower locks in it
	WholeRemote Scope = "repo"   // every branch of the repository
)

// FreezeRequest asks for a freeze of a lock and of the narrower ones in its branch, or of every
// lock of a repository (Key.WholeRepo).
type FreezeRequest struct {
	Key    Key
	For    time.Duration // by the store's clock; 0: Until counts
	Until  time.Time
	By     Record
	Reason string
}

// Frozen is one lock that was frozen or thawed.
type Frozen struct {
	Key    Key
	Before bool      // it was frozen before, by the same command
	Until  time.Time // by the store's clock
	Holder Holder    // who has the lock now
	Freeze Freeze    // that the lock has now
}
