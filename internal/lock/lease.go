package lock

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Lease is a lock that we hold, and until when we may believe so.
type Lease struct {
	Hold
	From    Holder // who let us share it, or from whom it was taken over; zero for nobody
	Present bool   // while it is kept, this process shows that it lives

	mu      sync.Mutex
	fence   Fence
	until   moment // from before the command was sent
	broken  bool
	guarded bool // a server asks what is declared

	awaited moment             // until when the first subscription may come
	sub     Subscription       // nil: none was made yet
	server  string             // what a renewal says of it
	claimed bool               // the last renewal was believed
	again   context.CancelFunc // has the subscription made again
	changed chan struct{}
}

func newLease(h Hold, f Fence, sent moment) *Lease {
	l := Resume(h, f)
	l.until = sent.add(h.TTL)
	return l
}

// Resume is the lease of a lock that another of our processes acquired. It counts as expired
// until it has been renewed.
func Resume(h Hold, f Fence) *Lease {
	return &Lease{Hold: h, fence: f, changed: make(chan struct{}, 1)}
}

// Fence is the number of the present grant.
func (l *Lease) Fence() Fence {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fence
}

// Broken reports whether the lock was granted again at some time since the lease was made, so that
// another may have held it in between.
func (l *Lease) Broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Guarded reports whether the grant or the last renewal found that a server asks what is declared
// under this lock.
func (l *Lease) Guarded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.guarded
}

// Left is the time for which the lock is surely ours; negative after it.
func (l *Lease) Left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until.left()
}

// Renew extends the lease by its full TTL, or by that of a first lease while its first subscription
// is awaited (Attend). The error is a *LostError when another has the lock, or it was ended; a
// *StoreError when the store could not be asked.
func (l *Lease) Renew(ctx context.Context, s Store) error { return l.Declare(ctx, s, nil) }

// Declare renews the lease, and tells a server that asks what a push under it will do.
func (l *Lease) Declare(ctx context.Context, s Store, intent []Update) error {
	l.mu.Lock()
	o := RenewOptions{Known: l.fence, Intent: intent, Server: l.server, First: l.TTL}
	if l.server == "" && l.awaited.left() > 0 {
		o.First = min(l.TTL, s.Timing().First)
	}
	l.mu.Unlock()
	sent := now()
	got, err := s.Renew(ctx, l.Hold, o)
	if err != nil {
		return err
	}
	if got.Status == Lost {
		return &LostError{Key: l.Key, Holder: got.Holder, Ended: got.Ended}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if got.Fence != l.fence { // by this renewal, one whose answer was lost, or another who shares the lock
		l.broken = true
	}
	l.fence, l.until, l.guarded = got.Fence, sent.add(o.First), got.Guarded
	if o.Server == l.server {
		l.claimed = got.Claimed
		if !l.claimed && l.again != nil && l.server != "" && l.server != noPresence {
			l.again() // another server has the lock than the one that counts our subscription
		}
	}
	return nil
}

// Keep renews the lease every third of its TTL until stop is called, which waits until no
// renewal is under way any more: call it before Release, or a late renewal could take back what
// was released. If the lease is Present, it shows as well that this process lives (Attend).
// Failures of the store are survived until margin before the lease's own deadline. When the lock is
// lost, lost is called once, from Keep's goroutine; it must not call stop.
func (l *Lease) Keep(ctx context.Context, s Store, margin time.Duration, lost func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	attended := func() {}
	if l.Present {
		attended = l.Attend(ctx, s)
	}
	go func() {
		defer close(done)
		if err := l.keep(ctx, s, margin); err != nil {
			lost(err)
		}
	}()
	return func() {
		cancel()
		<-done
		attended()
	}
}

// keep returns nil when ctx ends, else why the lease ended.
func (l *Lease) keep(ctx context.Context, s Store, margin time.Duration) error {
	retry, next := newBackoff(), l.Due(margin)
	for l.rest(ctx, next, s.Timing().Rest) == nil {
		// An answer that comes too late is worth nothing.
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(l.Left()-margin, 0)) // stop waits for it
		err := l.Renew(limit, s)
		cancel()
		var lost *LostError
		switch {
		case err == nil:
			retry.Reset()
			next = l.Due(margin)
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &lost):
			return err
		case l.Left() <= margin:
			return err
		default:
			next = min(retry.Next(), l.Left()-margin)
		}
	}
	return nil
}

// Due is in how long to renew next: a third of the TTL, or of what is left, without the margin, of
// a lease that does not last for as long yet.
func (l *Lease) Due(margin time.Duration) time.Duration {
	next := l.TTL / 3
	if left := l.Left() - margin; left > 0 {
		next = min(next, left/3)
	}
	return next
}

// rest sleeps until the next renewal is due, also over a suspend, for no more than d and a step.
func (l *Lease) rest(ctx context.Context, d, step time.Duration) error {
	t := time.NewTicker(step)
	defer t.Stop()
	for end := now().add(d); ; {
		due := time.NewTimer(end.left())
		select {
		case <-due.C:
			return nil
		case <-t.C:
			due.Stop()
			if end.left() <= 0 {
				return nil
			}
		case <-l.changed:
			due.Stop()
			return nil
		case <-ctx.Done():
			due.Stop()
			return ctx.Err()
		}
	}
}

// ReleaseBecause is Release, with a reason that a later Renew gets.
func (l *Lease) ReleaseBecause(ctx context.Context, s Store, budget time.Duration, why string) (ReleaseResult, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	return s.ReleaseBecause(ctx, l.Key, l.Own(), why)
}

// Release ends the lease, on a context of its own that Ctrl-C has not ended, within the budget.
func (l *Lease) Release(ctx context.Context, s Store, budget time.Duration) (ReleaseResult, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	defer l.Leave()
	return s.Release(ctx, l.Key, l.Own())
}
