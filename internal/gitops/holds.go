package gitops

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// holds are the locks under which one push runs.
type holds struct {
	f    *Flows
	dir  workspace.Dir
	list []*hold

	batch *batch // of a push that may go together with others; else nil
}

type hold struct {
	lease    *lock.Lease
	entry    workspace.Entry // what the clone remembers of this lock; no token: nothing
	taken    bool            // by this push, and not before it
	pushOnly bool            // a branch's own lock around a push under a narrower one
	stop     func()          // ends the renewing
}

// broken reports whether somebody else may have held the lock since the clone remembers it.
func (h *hold) broken() bool {
	return h.lease.Broken() || h.entry.Token != "" && (h.taken || h.entry.Broken)
}

// authorize makes sure of every lock, in order: ours is extended, any other is waited for.
func (h *holds) authorize(ctx context.Context, entries []workspace.Entry, keys []lock.Key) error {
	for _, k := range keys {
		one, err := h.still(ctx, entries, k)
		if err != nil {
			return err
		}
		if one.lease == nil {
			one.lease, err = h.acquire(ctx, k)
			if err != nil {
				return err
			}
			one.taken = true
		}
		h.add(ctx, one)
	}
	if h.f.Config.Lock.Name == "" {
		return nil
	}
	// Narrow locks let several clones of one branch live side by side. Their pushes still take
	// turns: the branch's own lock, for just the push, and always after the narrow ones.
	for _, k := range keys {
		lease, err := h.turn(ctx, k.WholeBranch())
		if err != nil {
			return err
		}
		h.add(ctx, &hold{lease: lease, taken: true, pushOnly: true})
	}
	return nil
}

// still is a lock as the clone has it; without a lease when it has not.
func (h *holds) still(ctx context.Context, entries []workspace.Entry, k lock.Key) (*hold, error) {
	one := &hold{}
	var err error
	if one.entry, err = h.f.claimed(ctx, h.dir, entries, k, lock.Queue); err != nil {
		return nil, err
	}
	if one.lease, err = h.f.resume(ctx, h.dir, one.entry); err != nil {
		return nil, err
	}
	if one.lease != nil {
		one.lease.Present = h.f.Session.Owner != nil && !one.entry.KeeperAlive()
	}
	return one, nil
}

// resume takes up the locks that the clone still has. The push has landed, so it acquires none that
// it has not, and a failure is only reported.
func (h *holds) resume(ctx context.Context, entries []workspace.Entry, keys []lock.Key) {
	for _, k := range keys {
		one, err := h.still(ctx, entries, k)
		if err != nil {
			h.f.Notes.Warn("%v", err)
		} else if one.lease != nil {
			h.add(ctx, one)
		}
	}
}

// acquire waits for a lock. Once this push has a lock, Redis was there just now, and may restart.
func (h *holds) acquire(ctx context.Context, k lock.Key) (*lock.Lease, error) {
	return h.waitWith(ctx, func() (*lock.Lease, error) { return h.f.acquire(ctx, k, "push") })
}

// turn waits for the branch's own lock.
func (h *holds) turn(ctx context.Context, branch lock.Key) (*lock.Lease, error) {
	if h.batch == nil {
		return h.acquire(ctx, branch)
	}
	return h.waitWith(ctx, func() (*lock.Lease, error) { return h.batch.turn(ctx, branch) })
}

func (h *holds) waitWith(ctx context.Context, wait func() (*lock.Lease, error)) (lease *lock.Lease, err error) {
	err = h.f.patiently(ctx, len(h.list) > 0, func() error {
		lease, err = wait()
		return err
	})
	return lease, err
}

// again makes sure that every lock is still ours before another try. One that was lost stays so:
// to rebase and push without it would defeat the last word that git's compare-and-swap has.
func (h *holds) again(ctx context.Context) error {
	for _, one := range h.list {
		err := h.f.patiently(ctx, true, func() error { return one.lease.Renew(ctx, h.f.Store) })
		if err != nil {
			return err
		}
	}
	return nil
}

// note adds an event to those of each lock.
func (h *holds) note(ctx context.Context, event lock.EventType, why string) {
	for _, one := range h.list {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.f.timing().Release)
		_ = h.f.Store.Note(ctx, one.lease.Key, event, one.lease.Record, why) // for the operators only
		cancel()
	}
}

// claim is whose an entry of the clone is.
type claim int

const (
	ours    claim = iota // of this session, of one that we are part of, or of the clone itself
	theirs               // of a session that lives
	nobodys              // of a session that has ended
)

func (f *Flows) claim(e workspace.Entry) claim {
	s := e.Record.Session
	switch {
	case s.Owner == nil || s.Same(f.Session) || s.Runs(os.Getpid()):
		return ours
	case !s.Alive():
		return nobodys
	case f.Config.Lock.Session == session.Workspace:
		return ours
	default:
		return theirs
	}
}

const (
	// lookUser is how often a command looks whether another one of the clone still uses the lock,
	// and sayUser after which time it says so.
	lookUser = 20 * time.Millisecond
	sayUser  = 5 * time.Second
	// userTime is for how long it waits at least for a keeper, which may ask the remote whether a
	// push has landed.
	userTime = 40 * time.Second
)

// claimed is what the clone remembers of a lock, if it is ours: this command uses it from now on.
// Before that it waits for the end of another of this session that uses it, and may end it: a push,
// or the keeper that looks whether the push of a hook has landed. With the policy skip it does not.
func (f *Flows) claimed(ctx context.Context, dir workspace.Dir, entries []workspace.Entry, k lock.Key, policy lock.QueuePolicy) (workspace.Entry, error) {
	self, unknown := session.Lookup(os.Getpid())
	started, said := time.Now(), false
	for {
		e, _ := find(entries, k)
		e, err := f.believed(ctx, dir, e)
		if err != nil || e.Token == "" || unknown != nil {
			return e, err
		}
		now, other, err := dir.Claim(e, self)
		if err != nil || other == nil && now.Token != "" {
			return now, err
		}
		if other != nil {
			f.state.waited[k.ID()] = true
			limit, waited := f.Config.Lock.Timeout, time.Since(started)
			if other.Git != nil {
				limit = max(limit, userTime)
			}
			switch {
			case policy == lock.Skip:
				return e, &lock.SkippedError{Key: k, Holder: e.Holder()}
			case waited >= limit:
				return e, &lock.TimeoutError{Key: k, Holder: e.Holder(), Waited: waited}
			case waited >= sayUser && !said:
				said = true
				f.Notes.Say("waiting for the end of another push of this clone (pid %d)", other.Process.PID)
			}
			if err := lock.Sleep(ctx, lookUser); err != nil {
				return e, err
			}
		}
		if entries, err = dir.Load(); err != nil {
			return e, err
		}
		if is, _ := find(entries, k); other == nil && is.Own() == e.Own() { // in a file of another name
			return e, nil
		}
	}
}

// believed is the entry, if it is ours. The lock of another session that lives is waited for like
// any other. A lock that was left by a session that has ended is released: its keeper may be about
// to do so. Its base is not what this session builds on, but it is that of the workspace.
func (f *Flows) believed(ctx context.Context, dir workspace.Dir, e workspace.Entry) (workspace.Entry, error) {
	if e.Token == "" {
		return e, nil
	}
	switch f.claim(e) {
	case ours:
		return e, nil
	case theirs:
		f.Notes.Debug("the lock on %s in this clone belongs to another session, which is alive", e.Key)
		return workspace.Entry{}, nil
	default:
		why := e.Lost
		if why == "" {
			why = "its session ended"
			if _, err := e.Hold(f.Config.Lock.TTL).Release(ctx, f.Store, f.timing().Release); err != nil {
				return e, err
			}
		}
		if f.Config.Lock.Session == session.Workspace {
			e.Lost = why
			return e, dir.Update(e, func(e *workspace.Entry) { e.Lost = why })
		}
		f.Notes.Warn("the lock on %s was lost in the meantime: %s; taking it again", e.Key, why)
		workspace.UnlinkSession(e)
		return workspace.Entry{}, dir.Remove(e)
	}
}

// resume extends the lock that the clone remembers; nil when there is none, or it was lost. That an
// operator broke it is an error once: whoever did so must not be overruled by a mere push.
func (f *Flows) resume(ctx context.Context, dir workspace.Dir, e workspace.Entry) (*lock.Lease, error) {
	if e.Token == "" {
		return nil, nil
	}
	lease := e.Hold(f.Config.Lock.TTL)
	heir, inherits := e.Record.Session.Inherit()
	if inherits = inherits && heir.Owner != nil && f.waitedForBy(heir.Chain[0]); inherits {
		lease.Record.Session = heir // else a job may take it over, as that of a part which has ended
	}
	err := f.patiently(ctx, e.Lost == "", func() error { return lease.Renew(ctx, f.Store) })
	var lost *lock.LostError
	if errors.As(err, &lost) {
		if lost.Broken() && !e.BreakReported {
			if err := dir.Update(e, func(e *workspace.Entry) { e.BreakReported = true }); err != nil {
				f.Notes.Warn("%v", err)
			}
			return nil, lost
		}
		why := lost.Reason()
		if e.Lost != "" {
			why = e.Lost
		}
		f.Notes.Warn("the lock on %s was lost in the meantime: %s; taking it again", e.Key, why)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if inherits {
		if err := dir.Update(e, func(e *workspace.Entry) { e.Record.Session = heir }); err != nil {
			f.Notes.Warn("%v", err)
		}
	}
	return lease, nil
}

// patiently asks Redis, and if we hold a lock there, which only a Redis that was reachable can have
// given, asks again while the failure may pass, within the lease. A first contact fails at once.
func (f *Flows) patiently(ctx context.Context, holding bool, ask func() error) error {
	var (
		err       error
		announced bool
	)
	limit := min(f.timing().Restart, f.Config.Lock.TTL)
	started := time.Now()
	lock.Retry(ctx, limit, func() bool {
		if err = ask(); !holding || !lock.Transient(err) {
			return true
		}
		if left := limit - time.Since(started); !announced && left > 0 {
			announced = true
			f.Notes.Say("%v; trying again for up to %s, because this clone holds a lock there", err, left.Round(time.Second))
		}
		return false
	})
	if ctx.Err() != nil && lock.Transient(err) {
		return ctx.Err()
	}
	return err
}

func (h *holds) add(ctx context.Context, one *hold) {
	one.stop = h.f.keep(ctx, one.lease)
	h.list = append(h.list, one)
}

// stays reports whether a lock outlives a push that lands: one that was taken by hand, until it is
// unlocked, and with GITOPS_LOCK_UNTIL=session any whose session's end will be seen.
func (h *holds) stays(one *hold) bool {
	if one.pushOnly {
		return false
	}
	return one.entry.Kind == workspace.Lock || h.f.Config.Lock.Until == "session" && !h.f.orphaned()
}

// landed ends every lock that a successful push ends; the next in line comes before our own
// housekeeping.
func (h *holds) landed(ctx context.Context) {
	for _, one := range h.list {
		one.stop()
		if h.stays(one) {
			if one.taken || one.lease.Broken() || !one.entry.KeeperAlive() {
				h.save(ctx, one)
			}
			// Until what was pushed is noted, no base is known.
			if err := h.dir.Update(h.entry(one), func(e *workspace.Entry) { e.Base, e.BaseKnown, e.Broken = "", false, false }); err != nil {
				h.f.Notes.Warn("%v", err)
			}
			continue
		}
		h.f.release(ctx, one.lease)
		if one.entry.Token == "" {
			continue
		}
		workspace.UnlinkSession(one.entry)
		if err := h.dir.Remove(one.entry); err != nil {
			h.f.Notes.Warn("%v", err)
		}
	}
}

// retain keeps the locks of a push that failed, for the script's own retry, and lets go of those
// that are for just the push.
func (h *holds) retain(ctx context.Context) {
	for _, one := range h.list {
		one.stop()
		switch {
		case one.pushOnly:
			h.f.release(ctx, one.lease)
		case one.taken || one.lease.Broken() || !one.entry.KeeperAlive():
			h.save(ctx, one)
		}
	}
}

// end is the end of a push that has not landed. One that was interrupted before git pushed leaves
// nothing that it has taken.
func (h *holds) end(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		h.giveUp(ctx)
	} else {
		h.retain(ctx)
	}
}

// giveUp undoes what this push has taken before it could begin. What the clone had before it keeps.
func (h *holds) giveUp(ctx context.Context) {
	for _, one := range h.list {
		one.stop()
		switch {
		case one.taken:
			h.f.release(ctx, one.lease)
		case one.lease.Broken() || !one.entry.KeeperAlive():
			h.save(ctx, one)
		}
	}
}

// entry is what the clone is to remember of a lock from now on.
func (h *holds) entry(one *hold) workspace.Entry {
	e := h.f.newEntry(workspace.Push, one.lease)
	if old := one.entry; old.Token != "" {
		e.Kind, e.Base, e.BaseKnown, e.Broken, e.Users = old.Kind, old.Base, old.BaseKnown, one.broken(), old.Users
		if !one.taken {
			e.Since, e.Session, e.Script, e.Keeper = old.Since, old.Session, old.Script, old.Keeper
		}
	}
	return e
}

// save has the clone remember a lock that this push took or took back, and a keeper renew it.
func (h *holds) save(ctx context.Context, one *hold) {
	if err := h.f.saveAndKeep(ctx, h.dir, h.entry(one), one.lease); err != nil {
		h.f.Notes.Warn("cannot remember the lock on %s, so it is released: %v", one.lease.Key, err)
		h.f.release(ctx, one.lease)
	}
}
