package gitops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// keepLook is how often Keep looks for clones that have come or gone.
const keepLook = time.Second

// keeping is a lock that Keep keeps, and the clone that remembers it.
type keeping struct {
	dir   workspace.Dir
	entry workspace.Entry
	lease *lock.Lease
	stop  func()
}

// Keep renews the locks of every clone below some folders, and is present for them, until ctx ends:
// then it releases them. Clones that come later count too. It is for locks that belong to no
// process (GITOPS_LOCK_SESSION=workspace); the others have a keeper of their own.
func (f *Flows) Keep(ctx context.Context, folders []string) error {
	kept := map[lock.Token]*keeping{}
	warned := map[string]bool{}
	complain := func(err error) {
		if err != nil && !warned[err.Error()] {
			warned[err.Error()] = true
			f.Notes.Warn("%v", err)
		}
	}
	look := time.NewTicker(keepLook)
	defer look.Stop()
	for ended := false; ; {
		for _, folder := range folders {
			dirs, err := workspace.Below(folder)
			complain(err)
			for _, dir := range dirs {
				entries, err := dir.Load()
				complain(err)
				for _, e := range entries {
					if e.Record.Session.Owner != nil || kept[e.Own()] != nil {
						continue
					}
					k, err := f.begin(ctx, dir, e)
					complain(err)
					if err == nil { // else at the next look
						kept[e.Own()] = k
					}
				}
			}
		}
		for token, k := range kept {
			if k.gone() { // pushed, unlocked, or its clone was deleted
				f.finish(ctx, k, "its clone was deleted")
				delete(kept, token)
			}
		}
		if ended {
			for _, k := range kept {
				f.finish(ctx, k, "git gitops keep ended")
			}
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done(): // and look once more: a clone may have come a moment ago
			ended = true
		}
	}
}

// gone reports whether the clone no longer knows of the lock. While that cannot be read it may.
func (k *keeping) gone() bool {
	e, ok, err := k.dir.Find(k.entry.Key)
	return err == nil && (!ok || e.Own() != k.entry.Own())
}

// begin keeps the lock of an entry. One that was lost is only remembered.
func (f *Flows) begin(ctx context.Context, dir workspace.Dir, e workspace.Entry) (*keeping, error) {
	k := &keeping{dir: dir, entry: e, lease: e.Hold(f.Config.Lock.TTL), stop: func() {}}
	if e.Lost != "" { // long ago, perhaps, so that Redis has forgotten that it ended
		return k, nil
	}
	var lost *lock.LostError
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timing().Release)
	defer cancel()
	if err := k.lease.Renew(limit, f.Store); errors.As(err, &lost) {
		f.Notes.Warn("the lock on %s was lost: %s", e.Key, lost.Reason())
		return k, nil
	} else if err != nil {
		return nil, fmt.Errorf("cannot keep the lock on %s yet: %w", e.Key, err)
	}
	k.lease.Present = true
	k.stop = k.lease.Keep(context.WithoutCancel(ctx), f.Store, 0, func(err error) {
		if errors.As(err, &lost) && lost.Ended != lock.EndedByRelease {
			f.Notes.Warn("%v", err)
		}
	})
	f.Notes.Say("keeping the lock on %s", e.Key)
	return k, nil
}

// finish releases a lock, if nobody else has, and leaves the reason for the next push from its
// clone.
func (f *Flows) finish(ctx context.Context, k *keeping, why string) {
	k.stop()
	defer k.lease.Leave()
	f.release(context.WithoutCancel(ctx), k.lease)
	if err := k.dir.Update(k.entry, func(e *workspace.Entry) { e.Lost = why }); err != nil {
		f.Notes.Debug("%v", err)
	}
}
