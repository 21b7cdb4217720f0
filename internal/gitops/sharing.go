package gitops

import (
	"context"
	"encoding/json"
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
	// has ended. No hand-over wakes them for that.
	lookDeadlock = 500 * time.Millisecond
	lookSibling  = time.Second
	lookEnded    = 150 * time.Millisecond

	// noteTime is how long the keeper of a part that has ended may take to note that the rest of
	// the script inherits its lock.
	noteTime = 1500 * time.Millisecond
	// heirTime is how long a background job leaves an inherited lock alone. Nothing tells whether
	// the script goes on with it, or a job has failed at once.
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

// HoldingError is a wait that ran out of time in a workspace whose clones hold locks meanwhile.
// Whoever was waited for may wait for one of them: nothing tells which step of a job goes on with a
// lock when the shell that took it has ended.
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
	apart                   // it has ended, and is none of this script's: no hindrance, but not ours to end
	pending                 // not clear yet: look again
	within                  // shares
	ended                   // it has ended, and may be taken over
)

// policy decides what one wait does about the holders that it meets: a command below the holder's
// own processes shares the lock, one of the same script takes it over from a part of it that has
// ended, and all others wait, unless that would be for ever.
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
		s, ok := sessionOf(share.Record)
		st := beside
		if ok && p.f.shares(s) {
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
		return lock.Decision{Action: lock.Join}, nil
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

func sessionOf(r lock.Record) (session.Session, bool) {
	var s session.Session
	return s, len(r.Session) > 0 && json.Unmarshal(r.Session, &s) == nil
}

// self ends a wait for a lock that a shell above this command holds and does not share: the shell
// waits for us, and we for it.
func (p *policy) self(a lock.Attempt) error {
	for _, share := range a.Holder.Shares {
		s, ok := sessionOf(share.Record)
		if low, alive := s.Lowest(); !ok || p.f.shares(s) || !alive || !low.IsShell() || !p.f.waitedForBy(low) {
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
		s, ok := sessionOf(share.Record)
		if low, alive := s.Lowest(); ok && alive && low.IsShell() && f.waitedForBy(low) {
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
			if s, ok := sessionOf(e.Record); ok && s.Owner == nil && e.Lost == "" {
				locks = append(locks, HeldLock{Key: e.Key, Dir: filepath.Dir(filepath.Dir(string(dir))), Own: e.Token == timeout.Holder.Token})
			}
		}
	}
	return locks
}

// sayShare says who shares our lock, or had it before, where that may surprise.
func (f *Flows) sayShare(k lock.Key, l *lock.Lease) {
	s, _ := sessionOf(l.From.Record)
	low, alive := s.Lowest()
	switch {
	case l.From.Token == "":
	case l.Share == "":
		f.Notes.Warn("taking over the lock on %s from a part of this script that has ended without a push (pid %d)", k, l.From.PID)
	case alive && !low.IsShell() && !low.IsGit():
		f.Notes.Say("sharing the lock on %s with another clone of the same %s (pid %d); if it runs pipelines in parallel, set GITOPS_LOCK_SHARE=off", k, low.Name, low.PID)
	}
}

// heldAbove are the locks of all sessions that this command may be part of.
func (f *Flows) heldAbove() []workspace.Entry {
	var entries []workspace.Entry
	for _, id := range session.Owners(os.Getpid()) {
		entries = append(entries, workspace.Held(id)...)
	}
	return entries
}

// waitedForBy reports whether a process above this command waits for it: it is no background job.
func (f *Flows) waitedForBy(p session.Process) bool {
	if background, _ := session.Background(os.Getpid(), p); background {
		return false
	}
	return p.Above(os.Getpid())
}

// deadlock finds the circle that this wait would close. Only who holds a lock can be part of one:
// it says what its holds wait for, and follows what the holders before it wait for. All in a
// circle see it; the one who began to wait last gives up. What each says counts once it was said
// again, so that nobody is part of a circle who waits no more. watching reports whether this wait
// could be part of one.
func (p *policy) deadlock(ctx context.Context, a lock.Attempt) (watching bool, err error) {
	f := p.f
	mine := f.stuck(p.k)
	if len(mine) == 0 {
		return false, nil
	}
	edge := lock.Blocked{Lock: p.k.String(), Ticket: a.Ticket, Who: f.who(), Look: time.Now().UnixNano()}
	for _, share := range a.Holder.Shares {
		edge.Holders = append(edge.Holders, share.Token)
	}
	f.state.blocked = mine
	for _, t := range mine {
		if err := f.Store.Block(ctx, t, edge); err != nil {
			return true, err
		}
	}
	cycle, err := p.cycle(ctx, edge.Holders, mine)
	if err != nil {
		return true, err
	}
	looks, again := map[lock.Token]int64{}, len(cycle) > 0
	var edges []lock.Blocked
	for _, step := range cycle {
		looks[step.token] = step.edge.Look
		before, ok := p.last[step.token]
		again = again && ok && step.edge.Look > before
		edges = append(edges, step.edge)
	}
	if again && !slices.ContainsFunc(edges, func(b lock.Blocked) bool { return b.Ticket > a.Ticket }) {
		return true, &lock.DeadlockError{Key: p.k, Who: edge.Who, Cycle: edges}
	}
	if !again {
		for t := range looks { // the first look at each counts
			if before, ok := p.last[t]; ok {
				looks[t] = before
			}
		}
		p.last = looks
	}
	return true, nil
}

// step is one who waits, on the way round a circle.
type step struct {
	token lock.Token
	edge  lock.Blocked
}

// cycle follows what each of some holders waits for, and returns the way to one of the holds that
// are ours; nil when there is none.
func (p *policy) cycle(ctx context.Context, from, mine []lock.Token) ([]step, error) {
	const most = 1000
	ways := [][]step{}
	known := map[lock.Token]bool{}
	next := func(way []step, holders []lock.Token) {
		for _, t := range holders {
			if !known[t] {
				known[t] = true
				ways = append(ways, append(slices.Clone(way), step{token: t}))
			}
		}
	}
	next(nil, from)
	for i := 0; i < len(ways) && i < most; i++ {
		way := ways[i]
		at := &way[len(way)-1]
		edge, ok, err := p.f.Store.Blocked(ctx, at.token)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		at.edge = edge
		if slices.ContainsFunc(edge.Holders, func(t lock.Token) bool { return slices.Contains(mine, t) }) {
			return way, nil
		}
		next(way, edge.Holders)
	}
	return nil, nil
}

// stuck are the holds that cannot go on while this command waits for a lock: its own, and those of
// the processes above that wait for it.
func (f *Flows) stuck(k lock.Key) []lock.Token {
	var tokens []lock.Token
	for id, t := range f.state.taken {
		if id != k.ID() {
			tokens = append(tokens, t)
		}
	}
	for _, e := range f.heldAbove() {
		s, ok := sessionOf(e.Record)
		low, alive := s.Lowest()
		if !ok || !alive || e.Key.ID() == k.ID() || !f.shares(s) && !low.IsShell() {
			continue
		}
		if background, known := session.Background(os.Getpid(), low); background && known || !low.Above(os.Getpid()) {
			continue
		}
		tokens = append(tokens, e.Own())
	}
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// unblock takes back what deadlock said, however the wait has ended: who waits no more is part of
// no circle.
func (f *Flows) unblock(ctx context.Context) {
	if len(f.state.blocked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timing().Release)
	defer cancel()
	for _, t := range f.state.blocked {
		_ = f.Store.Block(ctx, t, lock.Blocked{}) // else it expires
	}
	f.state.blocked = nil
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
