package lock

import "time"

// Timing is how long the parts of a lock wait. A store has one for all who use it, because a waiter
// must show life as often as the store looks for it. Only tests have another than DefaultTiming.
type Timing struct {
	// A waiter shows life by asking again at least every Heartbeat; the store forgets one that has
	// been silent for Life, and takes a lock back that was handed to a waiter which does not
	// confirm it within Claim. Claim plus Heartbeat bounds how long a waiter that was killed can
	// block the queue. Far back in line, Heartbeat and Life are up to Stretch times as long; the
	// store wakes one that has come to the head of the line.
	Heartbeat, Life, Claim time.Duration

	// StrangerPoll is how soon the first in line asks again while the holder is a writer that hands
	// over to nobody: others may poll for the same lock. It is up to twice as long, by chance.
	StrangerPoll time.Duration
	// RenewalSlack is how late a renewal of a living holder may be.
	RenewalSlack time.Duration

	// GiveUp bounds the end of a wait, which must work after Ctrl-C, and FirstGiveUp the same after
	// a first contact that failed, which must fail fast: in addition to the time that the contact
	// took.
	GiveUp, FirstGiveUp time.Duration
	// Release bounds a release: the next in line waits for it, the user should not.
	Release time.Duration
	// Restart is how long a command that has a lock asks a store that is away: a restart takes a
	// second or so, and a failover some more.
	Restart time.Duration
	// Move is how long a first contact asks again while the keys of the lock move to another node.
	Move time.Duration
	// Confirm is how long one who has waited asks again for replicas that do not confirm.
	Confirm time.Duration

	// First is how long a holder has to show itself for the first time: longer than most restarts
	// and failovers of the store.
	First time.Duration
	// Look is how often the first in line looks whether the holder is present. Three looks over
	// five seconds decide.
	Look time.Duration
	// Ping is how long a subscription is trusted without an answer: a connection that ended at the
	// server only must be noticed within those five seconds.
	Ping time.Duration
	// Subscribe bounds one attempt to subscribe, and Unsubscribed is how long to leave a store
	// alone that refused a subscription, or does not count it.
	Subscribe, Unsubscribed time.Duration
	// Rest is how soon a holder finds out that the machine was suspended.
	Rest time.Duration
}

// DefaultTiming is the timing of the program.
func DefaultTiming() Timing {
	return Timing{
		Heartbeat: 10 * time.Second, Life: 15 * time.Second, Claim: 5 * time.Second,
		StrangerPoll: 50 * time.Millisecond, RenewalSlack: 5 * time.Second,
		GiveUp: 2 * time.Second, FirstGiveUp: 400 * time.Millisecond, Release: 5 * time.Second,
		Restart: 10 * time.Second, Move: 10 * time.Second, Confirm: 30 * time.Second,
		First: 30 * time.Second, Look: 2 * time.Second, Ping: 3 * time.Second, Subscribe: 4 * time.Second, Unsubscribed: time.Minute,
		Rest: 5 * time.Second,
	}
}

// FirstLease is for how long a grant lasts until it is renewed for the first time. A holder that
// will show that it lives renews at once. One that is killed before that leaves the lock for no
// longer than this.
func (t Timing) FirstLease(r Request) time.Duration {
	if r.Present {
		return min(r.TTL, t.First)
	}
	return r.TTL
}

// Stretch is how many times longer than the first in line a waiter may be silent from position Far
// on. From Near to Far it grows.
const (
	Stretch = 6
	Near    = 4
	Far     = 20
)
