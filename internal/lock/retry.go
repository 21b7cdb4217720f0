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

// newBackoff is for a store that is soon back.
func newBackoff() Backoff { return Backoff{Least: 50 * time.Millisecond, Most: time.Second} }

// Next is the next pause.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.Least), b.Most)
	return b.last/2 + rand.N(b.last/2) //nolint:gosec // spreads the load, guards nothing
}

// Reset begins again with the shortest pause.
func (b *Backoff) Reset() { b.last = 0 }

// at makes the pauses those of a place in line: far back from 5 s to a minute, or else all who wait
// would be there at once when the store is back.
func (b *Backoff) at(place int) *Backoff {
	f := far(place)
	b.Least = 50*time.Millisecond + time.Duration(f*float64(5*time.Second))
	b.Most = time.Second + time.Duration(f*float64(59*time.Second))
	return b
}

// Retry tries until it is done, with growing pauses, until d is over or ctx ends. It reports
// whether it is done.
func Retry(ctx context.Context, d time.Duration, done func() bool) bool {
	end, pauses := time.Now().Add(d), newBackoff()
	for !done() {
		pause := pauses.Next()
		if time.Until(end) < pause || sleep(ctx, pause) != nil {
			return false
		}
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
