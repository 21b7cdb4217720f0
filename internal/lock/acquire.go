package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Timing of the wait. A waiter shows life by asking again at least every Heartbeat; the store
// forgets one that has been silent for Life, and takes a lock back that was handed to a waiter
// which does not confirm it within Claim. Claim plus Heartbeat bounds how long a waiter that
// was killed can block the queue: 15 s. Far back in line, Heartbeat and Life are up to Stretch
// times as long; the store wakes one that has come to the head of the line.
const (
	Heartbeat = 10 * time.Second
	Life      = 15 * time.Second
	Claim     = 5 * time.Second
	Stretch   = 6

	// Near and Far are the places in line between which that grows.
	Near = 4
	Far  = 20

	// strangerPoll is how soon the first in line asks again while the holder is a writer that will
	// not hand over to us: others may poll for the same lock. It is up to twice as long, by chance.
	strangerPoll = 50 * time.Millisecond
	// renewalSlack is how late a renewal of a living holder may be.
	renewalSlack = 5 * time.Second
	// releaseBudget bounds the release of a wait that ended, which must work after Ctrl-C.
	releaseBudget = 2 * time.Second
	// firstBudget bounds it after a first contact that failed, which must fail fast, in addition to
	// the time that the contact itself took.
	firstBudget = 400 * time.Millisecond
	// moveBudget is for how long a first contact asks again while a slot of a Cluster moves.
	moveBudget = 10 * time.Second
	// replicaBudget is for how long one who has waited asks again for replicas that do not confirm.
	replicaBudget = 30 * time.Second
)

// Waiting is the news of a wait that goes on.
type Waiting struct {
	Key      Key
	Position int
	Holder   Holder
	Freeze   Freeze
	Err      error // the store is in passing trouble, and the wait goes on
}

// Acquire waits for the lock, at most for timeout, and returns the lease. A timeout of zero
// tries once. Waiters are served in the order in which they came.
//
// When it returns an error the lock is not held: whatever the store may have granted is
// released by token. The errors are a *SkippedError, a *SupersededError, a *StoreError when the
// store failed at the first contact or in a way that waiting does not mend, a *TimeoutError, or
// ctx's.
func Acquire(ctx context.Context, s Store, r Request, timeout time.Duration, news func(Waiting)) (*Lease, error) {
	started := time.Now()
	giveUp := started.Add(timeout)
	var (
		last        Attempt
		retry       backoff
		slowest     time.Duration // of the store's answers
		superseded  *SupersededError
		unconfirmed time.Time // since when replicas have not confirmed what was granted
	)
	for contacted, looks := false, 0; ; {
		sent := now() // the lease is judged from before the command, which is the safe side
		var again time.Duration
		attempt, err := s.TryAcquire(ctx, r)
		took := time.Since(sent.mono)
		switch {
		case err == nil && attempt.Granted:
			lease := newLease(r, attempt.Fence, sent)
			lease.guarded = attempt.Guarded
			return lease, nil
		case err == nil && attempt.Skipped:
			contacted, looks = true, looks+1
			if lease, err := skipping(ctx, s, r, attempt, looks); lease != nil || err != nil {
				return lease, err
			}
			continue
		case err == nil:
			contacted, last, unconfirmed = true, attempt, time.Time{}
			slowest = max(slowest, took)
			r.see(attempt.Holder, sent.mono)
			r.Ticket, r.Arrived = attempt.Ticket, attempt.Arrived
			if r.Position == 0 {
				r.Position = attempt.Position
			}
			retry.reset()
			lease, soon, err := applyPolicy(ctx, s, r, attempt)
			if err != nil {
				abandon(ctx, s, r, slowest)
			}
			if lease != nil || err != nil {
				return lease, err
			}
			again = soon
		case errors.As(err, &superseded):
			return nil, err
		case ctx.Err() != nil:
			abandon(ctx, s, r, slowest)
			return nil, ctx.Err()
		case contacted && Transient(err), moving(err) && time.Since(started) < moveBudget:
		case contacted && attempt.Granted && is(err, Unconfirmed) && (unconfirmed.IsZero() || time.Since(unconfirmed) < replicaBudget):
			if unconfirmed.IsZero() {
				unconfirmed = time.Now()
			}
		default:
			if sentAtAll(err) {
				budget := took + firstBudget
				if contacted || attempt.Granted { // for certain, so it must be given back
					budget = max(budget, releaseBudget)
				}
				giveUpWait(ctx, s, r, EventCancelled, budget)
			}
			return nil, err
		}

		left := time.Until(giveUp)
		if left <= 0 {
			giveUpWait(ctx, s, r, EventTimedOut, max(releaseBudget, 2*slowest))
			return nil, &TimeoutError{Key: r.Key, Position: last.Position, Holder: last.Holder, Freeze: last.Freeze, Waited: time.Since(started), Err: err}
		}
		if news != nil {
			news(Waiting{Key: r.Key, Position: last.Position, Holder: last.Holder, Freeze: last.Freeze, Err: err})
		}
		if err != nil {
			err = sleep(ctx, min(retry.next(last.Position), left))
		} else {
			pause := patience(attempt)
			if again > 0 {
				pause = min(pause, again)
			}
			err = s.Wait(ctx, r.Key, r.Token, min(pause, left))
			if err == nil && r.Woken != nil {
				err = r.Woken(ctx)
			}
			if err != nil && ctx.Err() == nil && Transient(err) {
				err = sleep(ctx, min(retry.next(last.Position), left)) // the next try tells what the trouble is
			}
		}
		if err != nil {
			abandon(ctx, s, r, slowest)
			return nil, err
		}
	}
}

// see notes who has the lock. If the store loses its data, that holder is believed in for no longer
// than until a renewal is due, and some time to carry it out: one that lives has made it by then.
func (r *Request) see(h Holder, sent time.Time) {
	if h.Token == "" {
		return
	}
	left := max(0, h.Left)
	if h.Known {
		left = min(left, h.TTL/3+renewalSlack)
	}
	r.HeldBy, r.HeldRecord, r.HeldUntil = h.Token, h.Record, sent.Add(left)
	r.Known = max(r.Known, h.Fence)
}

// applyPolicy does what the request's policy says about the holder. It returns a lease, an error
// that ends the wait, or neither: wait, and when to judge again.
func applyPolicy(ctx context.Context, s Store, r Request, a Attempt) (*Lease, time.Duration, error) {
	if r.Policy == nil || !a.Holder.Known {
		return nil, 0, nil
	}
	j, err := r.Policy(ctx, a)
	if Transient(err) { // judge again at the next try
		return nil, 0, nil
	}
	if j.Action == Wait || err != nil {
		return nil, j.Again, err
	}
	r.Ended = j.Ended
	sent := now()
	joined, err := s.Join(ctx, r, a.Holder.Token, j.Action)
	if Transient(err) {
		return nil, 0, nil
	}
	if err != nil || !joined.Granted { // it is another's by now, or others share it: they are waited for
		return nil, 0, err
	}
	if j.Action == Join {
		r.Token, r.Share = a.Holder.Token, r.Token
	}
	lease := newLease(r, joined.Fence, sent)
	lease.From, lease.guarded = a.Holder, joined.Guarded
	return lease, 0, nil
}

// patience is how long to wait before asking again. Only the first in line watches for the
// holder's expiry, so that an expiry wakes one and not all.
func patience(a Attempt) time.Duration {
	d := spread(time.Duration(float64(Heartbeat) * pace(a.Position)))
	if a.Holder.Presence != PresenceUnknown || a.Position <= 2 && a.Holder.Known && a.Holder.Age < Heartbeat {
		// The second looks too, for the first may have ended with the holder. A holder that is new
		// to the lock may yet show itself.
		d = time.Duration(min(a.Position, 2)) * LookEvery
	}
	if a.Position > 1 {
		return d
	}
	if a.Freeze.Frozen() && a.Holder.Token == "" {
		return min(d, a.Freeze.Left+5*time.Millisecond)
	}
	if !a.Holder.Known {
		d = strangerPoll + rand.N(strangerPoll) //nolint:gosec // spreads the load, guards nothing
	}
	if a.Holder.Left >= 0 {
		d = min(d, a.Holder.Left+5*time.Millisecond)
	}
	return d
}

// pace is how many times longer than the first in line one may be silent: 1 to Stretch.
func pace(place int) float64 {
	return 1 + (Stretch-1)*far(place)
}

// far is how far back in line a place is: 0 at the head, 1 from Far on.
func far(place int) float64 {
	return float64(min(max(place-Near, 0), Far-Near)) / (Far - Near)
}

// spread adds up to a tenth, so that not all ask at once.
func spread(d time.Duration) time.Duration {
	return d + rand.N(d/10) //nolint:gosec // spreads the load, guards nothing
}

// abandon gives up whatever the token may have: a grant whose answer was lost, or a ticket.
// When the store cannot be told, the ticket dies with the waiter's sign of life, and the grant
// with its TTL. It may take as long as the store's answers do.
func abandon(ctx context.Context, s Store, r Request, slowest time.Duration) {
	giveUpWait(ctx, s, r, EventCancelled, max(releaseBudget, 2*slowest))
}

func giveUpWait(ctx context.Context, s Store, r Request, why EventType, budget time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	var retry backoff
	for {
		err := s.GiveUp(ctx, r, why)
		if err == nil || !Transient(err) || sleep(ctx, retry.next(0)) != nil {
			return
		}
	}
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

// backoff doubles from 50 ms to 1 s, with jitter; far back in line from 5 s to a minute, or else
// all who wait would be there at once when the store is back.
type backoff struct{ d time.Duration }

func (b *backoff) next(place int) time.Duration {
	f := far(place)
	least := 50*time.Millisecond + time.Duration(f*float64(5*time.Second))
	most := time.Second + time.Duration(f*float64(59*time.Second))
	b.d = min(max(2*b.d, least), most)
	return b.d/2 + rand.N(b.d/2) //nolint:gosec // spreads the load, guards nothing
}

func (b *backoff) reset() { b.d = 0 }

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
