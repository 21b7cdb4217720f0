package gitops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

const (
	// lookDeadlock, lookSibling and lookEnded are how often a waiter looks again: one that could be
	// part of a deadlock, one whose own script holds the lock, and one that sees that a part of it
	// has ended, or that would share a lock which somebody else came to share at that moment. No
	// hand-over wakes them for that.
	lookDeadlock = 500 * time.Millisecond
	lookSibling  = time.Second
	lookEnded    = 150 * time.Millisecond

	// noteTime is how long the keeper of a part that has ended may take to note that the rest of
	// the script inherits its lock.
	noteTime = 1500 * time.Millisecond
	// heirTime is how long a background job leaves an inherited lock alone. The script may go on
	// with it, or a job may have failed at once: both look alike.
	heirTime = 10 * time.Second
	// selfTime is how long a wait for oneself lasts: a keeper may be about to notice that the clone
	// was deleted.
	selfTime = 2500 * time.Millisecond
)

// SelfWaitError is the end of a wait for a lock that the waiting script itself holds and cannot
// release before the wait ends.
type SelfWaitError struct {
	Key       lock.Key
	Who       string // waits
	Holder    lock.Holder
	Workspace bool // it is held for a workspace, with which nobody shares
}

func (e *SelfWaitError) Error() string {
	return fmt.Sprintf("%s waits for the lock on %s, which the same script holds", e.Who, e.Key)
}

// HoldingError is a wait that ran out of time in a workspace whose clones held locks during it.
// The holder may wait for one of them: when the shell that took a lock has ended, it is not known
// which step of a job goes on with it.
type HoldingError struct {
	Err   *lock.TimeoutError
	Locks []HeldLock
}

// HeldLock is a lock, and the folder of the clone that has it.
type HeldLock struct {
	Key lock.Key
	Dir string
	Own bool // it is the one that was waited for
}

func (e *HoldingError) Error() string { return e.Err.Error() }

func (e *HoldingError) Unwrap() error { return e.Err }

// standing is how this command stands to one who has a share of the lock that it waits for.
type standing int

const (
	beside  standing = iota // to be waited for
	apart                   // it has ended, and is no part of this script: not waited for, and not ended by us
	pending                 // not clear yet: look again
	within                  // shares
	ended                   // it has ended, and may be taken over
)

// policy decides what one wait does about the holders that it meets: a command below the holder's
// own processes shares the lock, one of the same script takes it over from a part of it that has
// ended, and all others wait, unless the wait would never end.
type policy struct {
	f    *Flows
	k    lock.Key
	seen map[sighting]time.Time // since when
	last map[lock.Token]int64   // when each in the circle that was seen last has said what it waits for
}

// sighting is something that has to last for a time before it counts.
type sighting struct {
	token lock.Token
	what  string
}

func (f *Flows) policy(k lock.Key) *policy {
	return &policy{f: f, k: k, seen: map[sighting]time.Time{}}
}

// lasts reports whether something has been seen for a time.
func (p *policy) lasts(t lock.Token, what string, d time.Duration) bool {
	s := sighting{t, what}
	if _, ok := p.seen[s]; !ok {
		p.seen[s] = time.Now()
	}
	return time.Since(p.seen[s]) >= d
}

// decide is the policy as the wait asks for it.
func (p *policy) decide(ctx context.Context, a lock.Attempt) (lock.Decision, error) {
	var (
		all   = map[standing]bool{}
		over  []lock.Token
		first bool // one who shares waits for us, and must not wait for itself
		again time.Duration
	)
	for _, share := range a.Holder.Shares {
		s, st := share.Session, beside
		if p.f.shares(s) {
			st = p.stand(share, s)
		}
		all[st] = true
		if st == ended {
			over = append(over, share.Token)
		}
		if low, ok := s.Lowest(); ok && st == within {
			first = first || slices.Index(p.f.Session.Chain, low) == 0 || p.f.waitedForBy(low)
		}
		if s.Runs(os.Getpid()) {
			again = lookSibling
		}
	}
	switch {
	case all[within] && (first || !all[beside] && !all[pending]):
		if !a.Freeze.Frozen() { // which refuses it for as long
			again = lookEnded
		}
		return lock.Decision{Action: lock.Join, Again: again}, nil
	case all[pending]:
		return lock.Decision{Again: lookEnded}, nil
	case len(over) > 0 && !all[beside] && !all[apart]:
		return lock.Decision{Action: lock.TakeOver, Ended: over}, nil
	}
	if err := p.self(a); err != nil {
		return lock.Decision{}, err
	}
	watching, err := p.deadlock(ctx, a)
	if watching {
		again = lookDeadlock
	}
	return lock.Decision{Again: again}, err
}

// shares reports whether this command may share a lock of a session, or take it over. What runs
// under "git gitops run" is always part of it.
func (f *Flows) shares(s session.Session) bool {
	return s.Owner != nil && (f.Config.Lock.Share || s.Owner.IsGit())
}

func (p *policy) stand(share lock.Share, s session.Session) standing {
	me := os.Getpid()
	switch s.Stand(me) {
	case session.Within:
		if !s.Heir {
			return within
		}
		low, _ := s.Lowest()
		background, _ := session.Background(me, low)
		switch {
		case s.Parallel(os.Getenv("MAKEFLAGS")):
			return beside
		case !background:
			return within
		case p.lasts(share.Token, "inherited", heirTime):
			return ended
		}
	case session.Behind:
		switch {
		case s.Parallel(os.Getenv("MAKEFLAGS")):
			return beside
		case p.lasts(share.Token, "ended", noteTime):
			return ended
		}
		return pending
	case session.Apart:
		return apart
	case session.Beside:
	}
	return beside
}

// self ends a wait for a lock that a shell above this command holds and does not share: the shell
// waits for us, and we for it.
func (p *policy) self(a lock.Attempt) error {
	for _, share := range a.Holder.Shares {
		s := share.Session
		if low, alive := s.Lowest(); p.f.shares(s) || !alive || !low.IsShell() || !p.f.waitedForBy(low) {
			continue
		}
		if p.lasts(share.Token, "self", selfTime) {
			return p.f.selfWait(p.k, a.Holder, s)
		}
	}
	return nil
}

func (f *Flows) selfWait(k lock.Key, h lock.Holder, s session.Session) error {
	return &SelfWaitError{Key: k, Who: f.who(), Holder: h, Workspace: s.Owner == nil}
}

// orSelfWait is err, or if a wait for a lock of this very script ran out of time, the error that
// says so.
func (f *Flows) orSelfWait(err error) error {
	var timeout *lock.TimeoutError
	if !errors.As(err, &timeout) {
		return err
	}
	for _, share := range timeout.Holder.Shares {
		s := share.Session
		if low, alive := s.Lowest(); alive && low.IsShell() && f.waitedForBy(low) {
			return f.selfWait(timeout.Key, timeout.Holder, s)
		}
	}
	if f.Config.Lock.Session != session.Workspace {
		return err
	}
	if locks := f.heldHere(timeout); len(locks) > 0 {
		return &HoldingError{Err: timeout, Locks: locks}
	}
	return err
}

// heldHere are the locks that the clones in the working directory hold for their workspace.
func (f *Flows) heldHere(timeout *lock.TimeoutError) (locks []HeldLock) {
	here, err := f.Git.Dir()
	if err != nil {
		return nil
	}
	dirs, _ := workspace.Below(here) // for the message only
	for _, dir := range dirs {
		entries, _ := dir.Load()
		for _, e := range entries {
			if e.Record.Session.Owner == nil && e.Lost == "" {
				locks = append(locks, HeldLock{Key: e.Key, Dir: filepath.Dir(filepath.Dir(string(dir))), Own: e.Token == timeout.Holder.Token})
			}
		}
	}
	return locks
}

// sayShare says who shares our lock, or had it before, where that may surprise.
func (f *Flows) sayShare(k lock.Key, l *lock.Lease) {
	low, alive := l.From.Session.Lowest()
	switch {
	case l.From.Token == "":
	case l.Share == "":
		f.Notes.Warn("taking over the lock on %s from a part of this script that has ended without a push (pid %d)", k, l.From.PID)
	case alive && !low.IsShell() && !low.IsGit():
		f.Notes.Say("sharing the lock on %s with another clone of the same %s (pid %d); if it runs pipelines in parallel, set GITOPS_LOCK_SHARE=off", k, low.Name, low.PID)
	}
}

// waitedForBy reports whether a process above this command waits for it: it is no background job.
func (f *Flows) waitedForBy(p session.Process) bool {
	if background, _ := session.Background(os.Getpid(), p); background {
		return false
	}
	return p.Above(os.Getpid())
}

// who is this command in a few words.
func (f *Flows) who() string {
	r := f.record(lock.Key{}, "")
	who := fmt.Sprintf("%s@%s", r.User, r.Host)
	if len(f.Session.Chain) > 0 {
		who += fmt.Sprintf(" (%s, pid %d)", f.Session.Chain[0].Name, f.Session.Chain[0].PID)
	}
	return who
}
