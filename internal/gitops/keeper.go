package gitops

import (
	"context"
	"os"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// KeeperOrder says what a keeper is to do.
type KeeperOrder struct {
	Dir     workspace.Dir // of the clone
	Entry   workspace.Entry
	Owner   *session.Process // whose end ends the lock; nil: nobody's
	Pushing *PushWatch       // the push that it watches; nil: none
	Present *os.File         // the connection by which we are present, to be held until it has its own; nil: none
}

// newEntry is what a clone remembers of a lease, its base yet unknown.
func (f *Flows) newEntry(kind workspace.Kind, l *lock.Lease) workspace.Entry {
	return workspace.Entry{
		Kind: kind, Key: l.Key, Token: l.Token, Share: l.Share, Fence: l.Fence(), Record: l.Record,
		Since: time.Now(), Session: f.Session.ID(), Script: f.Session.Script(),
	}
}

// saveAndKeep saves an entry and leaves its lock to a keeper, unless one has it already.
func (f *Flows) saveAndKeep(ctx context.Context, dir workspace.Dir, e workspace.Entry, l *lock.Lease) error {
	if err := dir.Save(e); err != nil {
		return err
	}
	if err := dir.LinkSession(e); err != nil {
		f.Notes.Warn("%v", err) // only the finding of deadlocks needs it
	}
	if e.KeeperAlive() || f.orphaned() {
		return nil
	}
	pid, err := f.startKeeper(ctx, dir, e, nil, l)
	if err != nil {
		f.Notes.Warn("cannot renew the lock on %s in the background, it expires within %s: %v", e.Key, f.Config.Lock.TTL, err)
		return nil
	}
	return f.noteKeeper(dir, e, pid, func(e *workspace.Entry, keeper session.Process) { e.Keeper = &keeper })
}

// startKeeper starts a keeper that is present in our place from the start, so that the end of this
// command does not look like the end of the holder.
func (f *Flows) startKeeper(ctx context.Context, dir workspace.Dir, e workspace.Entry, watch *PushWatch, l *lock.Lease) (int, error) {
	present := l.Subscription()
	if present != nil {
		defer func() { _ = present.Close() }()
	}
	pid, err := f.StartKeeper(KeeperOrder{Dir: dir, Entry: e, Owner: f.Session.Owner, Pushing: watch, Present: present})
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timing().Release)
		defer cancel()
		_ = l.Unclaim(ctx, f.Store) // nobody will be there, so the TTL counts
	}
	return pid, err
}

// orphaned reports whether there is no process whose end would end our locks: the script that ran
// us is gone, or was not found. A keeper would never end them, so the TTL counts. The user can ask
// for a lock without an owner.
func (f *Flows) orphaned() bool {
	return f.Session.Owner == nil && f.Config.Lock.Session != session.Workspace
}

func (f *Flows) noteKeeper(dir workspace.Dir, e workspace.Entry, pid int, note func(*workspace.Entry, session.Process)) error {
	keeper, err := session.Lookup(pid)
	if err != nil {
		return nil // it has ended already, and its log says why
	}
	return dir.Update(e, func(e *workspace.Entry) { note(e, keeper) })
}

// remembered are the entries of a clone. It is an error when some cannot be read or changed: a push
// would wait for its own lock, or leave it behind.
func remembered(dir workspace.Dir) ([]workspace.Entry, error) {
	entries, err := dir.Load()
	if err != nil || dir.Gone() {
		return nil, err
	}
	return entries, dir.Writable()
}

// find is the entry of a lock among those that a clone remembers.
func find(entries []workspace.Entry, k lock.Key) (workspace.Entry, bool) {
	for _, e := range entries {
		if e.Key.ID() == k.ID() {
			return e, true
		}
	}
	return workspace.Entry{}, false
}
