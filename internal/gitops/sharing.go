package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// judge decides what a request does about the holder it meets: a command below the holder's own
// processes shares the lock, one of the same script takes it over from a part of it that has ended,
// and all others wait, unless that would be for ever.
func (f *Flows) judge(k lock.Key) func(context.Context, lock.Attempt) (lock.Verdict, error) {
	return func(ctx context.Context, a lock.Attempt) (lock.Verdict, error) {
		holder, ok := sessionOf(a.Holder.Record)
		if !ok {
			return lock.Wait, nil
		}
		switch {
		case holder.Shares(f.Session.Host, os.Getpid()):
			return lock.Join, nil
		case holder.Same(f.Session) && !holder.ChainAlive():
			f.Notes.Warn("taking over the lock on %s from a part of this script that has ended without push (pid %d)", k, a.Holder.PID)
			return lock.TakeOver, nil
		}
		return lock.Wait, f.deadlock(ctx, k, holder.ID(), a)
	}
}

func sessionOf(r lock.Record) (session.Session, bool) {
	var s session.Session
	return s, len(r.Session) > 0 && json.Unmarshal(r.Session, &s) == nil
}

// deadlock finds the circle that this wait would close. Only a session that holds a lock can be
// part of one: it says what it waits for, and follows what the holders before it wait for. All in a
// circle see it; the one who began to wait last gives up.
func (f *Flows) deadlock(ctx context.Context, k lock.Key, holder string, a lock.Attempt) error {
	me := f.Session.ID()
	if me == "" || holder == "" || holder == me || !f.holdsOther(k) {
		return nil
	}
	mine := lock.Blocked{Lock: k.String(), Holder: holder, Ticket: a.Ticket, Who: f.who()}
	f.blocked = true
	if err := f.Store.Block(ctx, me, mine); err != nil {
		return err
	}
	var cycle []lock.Blocked
	youngest := true
	held := k.String()
	for next := holder; len(cycle) < 100; {
		b, ok, err := f.Store.Blocked(ctx, next)
		if err != nil || !ok || b.Lock == held { // it has got what it says it waits for
			return err
		}
		held = b.Lock
		cycle = append(cycle, b)
		youngest = youngest && b.Ticket < a.Ticket
		if b.Holder == me {
			if !youngest {
				return nil
			}
			return &lock.DeadlockError{Key: k, Cycle: cycle}
		}
		next = b.Holder
	}
	return nil
}

// unblock ends what deadlock said, however the wait has ended: who waits no more is part of no circle.
func (f *Flows) unblock(ctx context.Context) {
	if !f.blocked {
		return
	}
	f.blocked = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseBudget)
	defer cancel()
	_ = f.Store.Block(ctx, f.Session.ID(), lock.Blocked{}) // else it expires
}

func (f *Flows) holdsOther(k lock.Key) bool {
	for id := range f.taken {
		if id != k.ID() {
			return true
		}
	}
	return workspace.HoldsOther(f.Session.ID(), k)
}

// who is this session in a few words.
func (f *Flows) who() string {
	r := f.record(lock.Key{}, "")
	return fmt.Sprintf("%s@%s (%s, pid %d)", r.User, r.Host, f.Session.Owner.Name, f.Session.Owner.PID)
}
