package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Waiting is the news of a wait that goes on.
type Waiting struct {
	Key      Key
	Position int
	Holder   Holder
	Freeze   Freeze
	Err      error // the store fails for now, and the wait goes on
}

// Acquire waits for the lock, at most for timeout, and returns the lease. A timeout of zero
// tries once. Waiters are served in the order in which they came.
//
// When it returns an error the lock is not held: whatever the store may have granted is
// released by token. The errors are a *SkippedError, a *SupersededError, a *StoreError when the
// store failed at the first contact or in a way that does not pass, a *TimeoutError, or
// ctx's.
func Acquire(ctx context.Context, s Store, r Request, timeout time.Duration, news func(Waiting)) (*Lease, error) {
	started := time.Now()
	giveUp := started.Add(timeout)
	var (
		last        Attempt
		timing      = s.Timing()
		retry       = newBackoff()
		slowest     time.Duration // of the store's answers
		skipped     *SkippedError
		superseded  *SupersededError
		unconfirmed time.Time // since when replicas have not confirmed what was granted
	)
	try := Try{Request: r}
	for contacted, looks := false, 0; ; {
		sent := now() // the lease is judged from before the command, which is the safe side
		var again time.Duration
		attempt, err := s.TryAcquire(ctx, try)
		took := time.Since(sent.mono)
		switch {
		case err == nil && attempt.Granted:
			lease := newLease(r.Hold(), attempt.Fence, sent)
			lease.until = sent.add(s.Timing().FirstLease(r))
			lease.Present, lease.guarded = r.Present, attempt.Guarded
			return lease, nil
		case err == nil && attempt.Skipped:
			contacted, looks = true, looks+1
			lease, err := skipping(ctx, s, try, attempt, looks)
			if err != nil && !errors.As(err, &skipped) {
				abandon(ctx, s, r, slowest) // what has no answer may have been carried out
			}
			if lease != nil || err != nil {
				return lease, err
			}
			continue
		case err == nil:
			contacted, last, unconfirmed = true, attempt, time.Time{}
			slowest = max(slowest, took)
			try.see(attempt.Holder, sent.mono, timing.RenewalSlack)
			try.Ticket, try.Arrived = attempt.Ticket, attempt.Arrived
			if try.Position == 0 {
				try.Position = attempt.Position
			}
			retry.Reset()
			lease, soon, err := applyPolicy(ctx, s, try, attempt)
			if err != nil && !Transient(err) {
				abandon(ctx, s, r, slowest)
				return nil, err
			}
			if lease != nil {
				return lease, nil
			}
			again = soon
		case errors.As(err, &superseded):
			return nil, err
		case ctx.Err() != nil:
			abandon(ctx, s, r, slowest)
			return nil, ctx.Err()
		case contacted && Transient(err), moving(err) && time.Since(started) < timing.Move:
		case contacted && attempt.Granted && is(err, Unconfirmed) && (unconfirmed.IsZero() || time.Since(unconfirmed) < timing.Confirm):
			if unconfirmed.IsZero() {
				unconfirmed = time.Now()
			}
		default:
			if sentAtAll(err) {
				budget := took + timing.FirstGiveUp
				if contacted || attempt.Granted { // for certain, so it must be given back
					budget = max(budget, timing.GiveUp)
				}
				giveUpWait(ctx, s, r, EventCancelled, budget)
			}
			return nil, err
		}

		left := time.Until(giveUp)
		if left <= 0 {
			giveUpWait(ctx, s, r, EventTimedOut, max(timing.GiveUp, 2*slowest))
			return nil, &TimeoutError{Key: r.Key, Position: last.Position, Holder: last.Holder, Freeze: last.Freeze, Waited: time.Since(started), Err: err}
		}
		if news != nil {
			news(Waiting{Key: r.Key, Position: last.Position, Holder: last.Holder, Freeze: last.Freeze, Err: err})
		}
		if err != nil {
			err = Sleep(ctx, min(retry.at(last.Position).Next(), left))
		} else {
			pause := timing.patience(attempt)
			if again > 0 {
				pause = min(pause, again)
			}
			err = s.Wait(ctx, r.Key, r.Token, min(pause, left))
			if err == nil && r.Woken != nil {
				err = r.Woken(ctx)
			}
			if err != nil && ctx.Err() == nil && Transient(err) {
				err = Sleep(ctx, min(retry.at(last.Position).Next(), left)) // the next try tells why
			}
		}
		if err != nil {
			abandon(ctx, s, r, slowest)
			return nil, err
		}
	}
}

// see notes who has the lock. If the store loses its data, that holder is believed in for no longer
// than until a renewal is due, and some slack: a living holder has renewed by then.
func (t *Try) see(h Holder, sent time.Time, slack time.Duration) {
	if h.Token == "" {
		return
	}
	left := max(0, h.Left)
	if h.Known {
		left = min(left, h.TTL/3+slack)
	}
	t.HeldBy, t.HeldRecord, t.HeldUntil = h.Token, h.Record, sent.Add(left)
	t.Known = max(t.Known, h.Fence)
}

// applyPolicy does what the request's policy says about the holder. It returns a lease, or an
// error, of which one that is transient ends no wait; or neither: wait, and when to judge again.
func applyPolicy(ctx context.Context, s Store, t Try, a Attempt) (*Lease, time.Duration, error) {
	if t.Policy == nil || !a.Holder.Known {
		return nil, 0, nil
	}
	d, err := t.Policy(ctx, a)
	if d.Action == Wait || err != nil {
		return nil, d.Again, err
	}
	sent := now()
	joined, err := s.Join(ctx, t, a.Holder, d)
	if err != nil || !joined.Granted { // it is not as it was seen: judge again
		return nil, d.Again, err
	}
	hold := t.Hold()
	if d.Action == Join {
		hold.Token, hold.Share = a.Holder.Token, t.Token
	}
	lease := newLease(hold, joined.Fence, sent)
	if d.Action == TakeOver {
		lease.until = sent.add(s.Timing().FirstLease(t.Request))
	}
	lease.From, lease.Present, lease.guarded = a.Holder, t.Present, joined.Guarded
	return lease, 0, nil
}

// patience is how long to wait before asking again. Only the first in line watches for the
// holder's expiry, so that an expiry wakes one and not all.
func (t Timing) patience(a Attempt) time.Duration {
	d := spread(time.Duration(float64(t.Heartbeat) * pace(a.Position)))
	if a.Holder.Presence != PresenceUnknown || a.Position <= 2 && a.Holder.Known && a.Holder.Age < t.Heartbeat {
		// The second looks too, for the first may have ended with the holder. A holder that is new
		// to the lock may yet show itself.
		d = time.Duration(min(a.Position, 2)) * t.Look
	}
	if a.Position > 1 {
		return d
	}
	if a.Freeze.Frozen() && a.Holder.Token == "" {
		return min(d, a.Freeze.Left+5*time.Millisecond)
	}
	if !a.Holder.Known {
		d = t.StrangerPoll + rand.N(t.StrangerPoll) //nolint:gosec // spreads the load, guards nothing
	}
	if a.Holder.Left >= 0 {
		d = min(d, a.Holder.Left+5*time.Millisecond)
	}
	return d
}

// pace is how many times longer than the first in line one may be silent: 1 to Stretch.
func pace(position int) float64 {
	return 1 + (Stretch-1)*far(position)
}

// far is how far back in line a position is: 0 at the head, 1 from Far on.
func far(position int) float64 {
	return float64(min(max(position-Near, 0), Far-Near)) / (Far - Near)
}

// spread adds up to a tenth, so that not all ask at once.
func spread(d time.Duration) time.Duration {
	return d + rand.N(d/10) //nolint:gosec // spreads the load, guards nothing
}

// abandon gives up whatever the token may have: a grant whose answer was lost, or a ticket.
// When the store does not hear of it, the ticket dies with the waiter's sign of life, and the grant
// with its TTL. It may take as long as the store's answers do.
func abandon(ctx context.Context, s Store, r Request, slowest time.Duration) {
	giveUpWait(ctx, s, r, EventCancelled, max(s.Timing().GiveUp, 2*slowest))
}

func giveUpWait(ctx context.Context, s Store, r Request, why EventType, budget time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	Retry(ctx, budget, func() bool { return !Transient(s.GiveUp(ctx, r, why)) })
}

// sentAtAll reports whether a command that failed may have been carried out, in part or whole.
func sentAtAll(err error) bool {
	var se *StoreError
	return !errors.As(err, &se) || se.Ambiguous
}

// moving reports whether it failed because a slot of a Cluster is on its way to another node.
func moving(err error) bool { return is(err, Moving) }

func is(err error, f Failure) bool {
	var se *StoreError
	return errors.As(err, &se) && se.Failure == f
}
