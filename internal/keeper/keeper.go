// Package keeper renews a lock in the background, between the command that took it and the one that
// ends it, and ends it when nobody will: when its session has ended, its clone was deleted, or it
// was held for too long.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// Look is how often the keeper looks whether the clone is still there.
const Look = time.Second

// inherit is how long a part of a script may live on after the command, to count as one that was
// there for just that command.
const inherit = time.Second

// farewell is how long a keeper that gets SIGTERM waits for the end of its session, which in a
// container that stops comes at the same time.
const farewell = 2 * time.Second

// EventPushed says that a push under the lock has landed. The store notes no such event.
const EventPushed lock.EventType = "pushed"

// Keeper keeps one lock.
type Keeper struct {
	Store   lock.Store
	Dir     workspace.Dir
	Entry   workspace.Entry
	Owner   *session.Process // whose end ends the lock; nil for none
	TTL     time.Duration
	MaxHold time.Duration
	Lost    func(error)                      // called when the lock was lost to others; may be nil
	Log     func(format string, args ...any) // required

	// Event gets what happens to the lock: acquired, released, lost or pushed, why, and the
	// fence. It must not wait; may be nil.
	Event func(what lock.EventType, why string, f lock.Fence)

	// Pushing is the git that is pushing under this lock, for a hook, which cannot see its
	// push end. When it has ended, Landed looks at the remote: a push that landed ends the lock.
	// After any other the lock is kept for the retry, by this keeper if it is the sole one.
	Pushing    *session.Process
	Landed     func(context.Context) bool
	SoleKeeper bool
	Stays      func(*workspace.Entry) // what a push that landed makes of an entry whose lock stays; nil: it ends

	// Before is the connection by which the command that started us is present, until we are. May
	// be nil.
	Before io.Closer

	leave   func() // ends our presence
	renewed bool   // at least once, so that the lease tells how long it lasts
	over    bool   // the push that we watch, and we have looked at the remote
}

// Run keeps the lock until it has ended. ctx ends with SIGTERM: the keeper then
// releases only if the session ends as well.
func (k *Keeper) Run(ctx context.Context) {
	others := false // another keeper goes on
	defer func() {
		if !others {
			workspace.UnlinkSession(k.Entry)
		}
	}()
	lease := k.Entry.Hold(k.TTL)
	k.leave = func() {}
	if k.Owner != nil {
		stop := lease.Attend(context.WithoutCancel(ctx), k.Store)
		k.leave = sync.OnceFunc(stop)
	}
	defer lease.Leave()
	defer func() { k.leave() }()
	gone, stop := watch(k.Owner)
	defer stop()
	pushed, stop := watch(k.Pushing)
	defer stop()
	heirs, stop := k.heirs()
	defer stop()
	if k.first() {
		k.report(lease, lock.EventAcquired, "")
	}
	look := time.NewTicker(Look)
	defer look.Stop()
	renew := time.NewTimer(0)
	defer renew.Stop()
	maxHold := time.NewTimer(time.Until(k.Entry.Since.Add(k.MaxHold)))
	defer maxHold.Stop()

	retry := lock.Backoff{Least: 100 * time.Millisecond, Most: k.TTL / 3}
	for {
		select {
		case <-ctx.Done():
			k.dismissed(ctx, lease, gone)
			return
		case <-gone:
			k.end(lease, "its session ended")
			return
		case <-pushed:
			pushed = nil
			if k.landed(ctx, lease) {
				if k.Stays == nil {
					k.Log("released: " + byPush)
					k.release(lease, byPush)
					k.forget()
					return
				}
				k.note(k.Stays)
			}
			k.unuse() // the retry, or the next push, may have the lock
			if !k.SoleKeeper {
				others = true
				return
			}
		case heir := <-heirs:
			lease.Record.Session = heir
			k.note(func(e *workspace.Entry) { e.Record.Session = heir })
			renew.Reset(0) // which the others see
		case <-maxHold.C:
			k.end(lease, fmt.Sprintf("it was held for %s, the longest that GITOPS_LOCK_MAX_HOLD allows", k.MaxHold))
			return
		case <-look.C:
			if k.forgotten() {
				k.release(lease, "its clone was deleted")
				return
			}
		case <-lease.Changed():
			renew.Reset(0)
		case <-renew.C:
			e, forgotten, err := k.find()
			if forgotten { // also when we were stopped for long
				k.release(lease, "its clone was deleted")
				return
			}
			if err == nil {
				lease.Record.Session = e.Record.Session // a command may have found an heir
				if k.over && len(e.Users) > 0 {
					k.unuse() // the hook may have noted us late
				}
			}
			again, err := k.renew(ctx, lease)
			if again == 0 {
				k.loss(lease, err)
				return
			}
			if err == nil {
				retry.Reset()
			} else {
				again = min(again, retry.Next())
			}
			renew.Reset(again)
		}
	}
}

// dismissed is the end of a keeper that got SIGTERM. It releases the lock of a session that ends
// as well. Any other stays, for as long as it may without a keeper: its clone may have work in it
// that is to be pushed, and the next command there takes it up again.
func (k *Keeper) dismissed(ctx context.Context, lease *lock.Lease, gone <-chan struct{}) {
	if k.Owner != nil {
		select {
		case <-gone:
			k.end(lease, "its session ended")
			return
		case <-time.After(farewell):
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := lease.Renew(ctx, k.Store); err != nil {
		k.Log("renew: %v", err)
	}
	k.Log("got TERM: the lock is no longer renewed, and ends in %s unless a command in this clone renews it", k.TTL)
}

// watch closes gone when a process has ended; never, when there is none.
func watch(p *session.Process) (gone chan struct{}, stop func()) {
	if p == nil {
		return nil, func() {}
	}
	gone = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if p.Wait(ctx) == nil {
			close(gone)
		}
	}()
	return gone, func() {
		cancel()
		<-done
	}
}

// heirs reports the sessions that have the lock from now on, when the part of the script that took
// it ends right after the command: the rest of the script goes on with it.
func (k *Keeper) heirs() (<-chan session.Session, func()) {
	heirs := make(chan session.Session)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		soon, cancel := context.WithTimeout(ctx, inherit)
		defer cancel()
		s := k.Entry.Record.Session
		if s.Owner == nil || s.Heir {
			return
		}
		for {
			low, ok := s.Lowest()
			if ok && len(s.Chain) > 0 && low == s.Chain[0] && low.Wait(soon) != nil {
				return
			}
			heir, ok := s.Inherit()
			if !ok {
				return // the whole script has ended
			}
			s = heir
			select {
			case heirs <- heir:
			case <-ctx.Done():
				return
			}
		}
	}()
	return heirs, func() {
		cancel()
		<-done
	}
}

// forgotten reports whether the clone no longer knows of this lock: it was pushed, unlocked, or
// deleted as a whole.
func (k *Keeper) forgotten() bool {
	_, forgotten, _ := k.find()
	return forgotten
}

// find is what the clone remembers of this lock, if it knows of it.
func (k *Keeper) find() (e workspace.Entry, forgotten bool, err error) {
	e, ok, err := k.Dir.Find(k.Entry.Key)
	return e, err == nil && (!ok || e.Token != k.Entry.Token || e.Share != k.Entry.Share), err
}

// renew extends the lease, and says when to do so again; never, when it is lost. While Redis cannot
// be reached nobody else can get the lock either, so it is asked again.
func (k *Keeper) renew(ctx context.Context, lease *lock.Lease) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, k.TTL/3)
	defer cancel()
	wasBroken := lease.Broken()
	err := lease.Renew(ctx, k.Store)
	var lost *lock.LostError
	if errors.As(err, &lost) {
		return 0, lost
	}
	if err != nil {
		k.Log("renew: %v", err)
	}
	k.renewed = k.renewed || err == nil
	if lease.Claimed() && k.Before != nil {
		_ = k.Before.Close()
		k.Before = nil
	}
	if lease.Broken() && !wasBroken {
		k.Log("the lock was gone and free, and this keeper has taken it back")
		k.note(func(e *workspace.Entry) { e.Broken, e.Fence = true, lease.Fence() })
	}
	return max(lease.Due(0), Look), err
}

// loss handles a lock that is no longer ours. One that our own release ended is no loss.
func (k *Keeper) loss(lease *lock.Lease, err error) {
	var lost *lock.LostError
	if !errors.As(err, &lost) || lost.Released() || k.forgotten() {
		if k.Entry.Share == "" {
			k.report(lease, lock.EventReleased, byCommand)
		}
		return
	}
	k.Log("lost: %v", err)
	k.report(lease, lock.EventLost, lost.Reason())
	k.noteLost(lost.Reason())
	if k.Lost != nil && lost.Ended != lock.EndedByTakeOver { // by a sibling: the script itself still has it
		k.Lost(err)
	}
}

// end releases the lock and leaves a note for the next push from this clone. A script may have
// ended with its push, which then has ended the lock.
func (k *Keeper) end(lease *lock.Lease, why string) {
	k.Log("released: %s", why)
	k.release(lease, why)
	if k.Pushing != nil && !k.over && !k.Pushing.Alive() && k.landed(context.Background(), lease) {
		k.forget()
		return
	}
	k.noteLost(why)
}

func (k *Keeper) noteLost(why string) {
	k.note(func(e *workspace.Entry) {
		e.Lost = why
		e.Unuse(os.Getpid())
	})
}

// unuse lets other commands of the clone use the lock: we shall not end it because of a push.
func (k *Keeper) unuse() { k.note(func(e *workspace.Entry) { e.Unuse(os.Getpid()) }) }

// landed reports whether the push that we watch has landed, now that it has ended.
func (k *Keeper) landed(ctx context.Context, lease *lock.Lease) bool {
	k.over = true
	if !k.Landed(ctx) {
		return false
	}
	k.report(lease, EventPushed, "")
	return true
}

// release tries until the lease would have expired anyway.
func (k *Keeper) release(lease *lock.Lease, why string) {
	k.leave()
	left := lease.Left()
	if !k.renewed { // the command that took the lock had it for as long at most
		left = k.TTL
	}
	lock.Retry(context.Background(), max(left, Look), func() bool {
		result, err := k.releaseOnce(lease, why)
		if err != nil {
			k.Log("release: %v", err)
			return false
		}
		k.released(lease, result, why)
		return true
	})
}

// releaseOnce has Redis remember why the lock was released, for a clone that it cannot write to: a
// copy of the one that was deleted. What a command has ended before us it has ended for its own
// reason.
func (k *Keeper) releaseOnce(lease *lock.Lease, why string) (lock.ReleaseResult, error) {
	budget := k.Store.Timing().Release
	if k.forgotten() && !k.Dir.Gone() {
		return lease.Release(context.Background(), k.Store, budget)
	}
	host, _ := os.Hostname()
	return lease.ReleaseBecause(context.Background(), k.Store, budget,
		fmt.Sprintf("by its keeper on %s at %s, because %s", host, time.Now().UTC().Format(time.RFC3339), why))
}

// byPush is why a lock was released when the push has landed, and byCommand when a command did that
// before the keeper.
const (
	byPush    = "pushed"
	byCommand = "pushed or unlocked"
)

// released reports the end of the hold, which a command may have ended before the keeper did.
// Whoever shared the lock reports nothing unless it was the last.
func (k *Keeper) released(lease *lock.Lease, result lock.ReleaseResult, why string) {
	switch {
	case result == lock.StillShared, result == lock.NotHeld && k.Entry.Share != "":
	case result == lock.NotHeld && (k.forgotten() || why == byPush):
		k.report(lease, lock.EventReleased, byCommand)
	case result == lock.NotHeld:
		k.report(lease, lock.EventLost, "it was not held any more")
	default:
		k.report(lease, lock.EventReleased, why)
	}
}

// first reports whether the hold begins with this keeper: the lock is neither somebody else's that
// we share, nor did it have a keeper before.
func (k *Keeper) first() bool {
	before := k.Entry.Keeper
	return k.Entry.Share == "" && (before == nil || before.PID == os.Getpid())
}

func (k *Keeper) report(lease *lock.Lease, what lock.EventType, why string) {
	if k.Event != nil {
		k.Event(what, why, lease.Fence())
	}
}

func (k *Keeper) forget() {
	if err := k.Dir.Remove(k.Entry); err != nil {
		k.Log("forget: %v", err)
	}
}

func (k *Keeper) note(change func(*workspace.Entry)) {
	if err := k.Dir.Update(k.Entry, change); err != nil {
		k.Log("note: %v", err)
	}
}
