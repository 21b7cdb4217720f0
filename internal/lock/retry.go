package lock

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a pause that doubles from Least to Most, with jitter.
type Backoff struct {
	Least, Most time.Duration
	last        time.Duration
}

// newBackoff is for a store that will soon be back.
func newBackoff() Backoff { return Backoff{Least: 50 * time.Millisecond, Most: time.Second} }

// Next is the next pause.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.Least), b.Most)
	return b.last/2 + rand.N(b.last/2) //nolint:gosec // spreads the load, guards nothing
}

// Reset begins again with the shortest pause.
func (b *Backoff) Reset() { b.last = 0 }

// at makes the pauses those of a position in line: far back from 5 s to a minute, so that not all
// waiters come at once when the store is back.
func (b *Backoff) at(position int) *Backoff {
	f := far(position)
	b.Least = 50*time.Millisecond + time.Duration(f*float64(5*time.Second))
	b.Most = time.Second + time.Duration(f*float64(59*time.Second))
	return b
}

// Retry tries until it is done, with growing pauses, until d is over or ctx ends. It reports
// whether it is done.
func Retry(ctx context.Context, d time.Duration, done func() bool) bool {
	started := time.Now()
	return done() || Again(ctx, d-time.Since(started), done)
}

// Again is Retry for what was tried just now, and failed: it begins with a pause.
func Again(ctx context.Context, d time.Duration, done func() bool) bool {
	end := time.Now().Add(d)
	for pauses := newBackoff(); ; {
		pause := pauses.Next()
		if time.Until(end) < pause || Sleep(ctx, pause) != nil {
			return false
		}
		if done() {
			return true
		}
	}
}

// Sleep returns nil after d, and ctx's error when that ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
