package gitops

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// Push makes sure of the lock of every branch that this push would update, lets git push, and
// hands the locks on when it landed. words are what the user wrote after "push". A push that failed keeps
// its locks for the script's own retry.
func (f *Flows) Push(ctx context.Context, words []string) (git.Exit, error) {
	command := append([]string{"push"}, words...)
	args, err := git.ParsePush(words)
	if err != nil || args.Help || args.DryRun {
		return f.Git.Exec(command...)
	}
	place, err := f.Git.Place(ctx)
	if err != nil {
		return f.passed(ctx, err, command...)
	}
	target, err := args.Target(f.pushContext(ctx, place))
	if err != nil {
		return f.passed(ctx, err, command...)
	}
	if len(target.Branches) == 0 { // tags and other refs take no lock; or git will say what is wrong
		return f.Git.Exec(command...)
	}
	urls, err := f.Git.PushURLs(ctx, f.GitConfig, target.Remote)
	if err != nil {
		return f.passed(ctx, err, command...)
	}
	keys, err := f.keys(urls, shortNames(target.Branches))
	if err != nil {
		return git.Exit{}, err
	}
	held := &holds{f: f, dir: workspace.At(place.CommonDir)}
	entries, err := held.dir.Load()
	if err != nil {
		f.Notes.Warn("ignoring what cannot be read: %v", err)
	}
	keys = append(keys, f.clonedElsewhere(ctx, target.Remote, entries, keys)...)

	if err := held.authorize(ctx, entries, keys); err != nil {
		held.giveUp(ctx)
		return git.Exit{}, err
	}
	exit, err := f.Git.Run(command...)
	if err == nil && exit.OK() {
		held.landed(ctx)
	} else {
		held.retain(ctx)
	}
	return exit, err
}

// clonedElsewhere are the locks that a clone took under the URL it fetches from, when that names
// another repository than the URL it pushes to (a mirror). They are held and end with the others.
func (f *Flows) clonedElsewhere(ctx context.Context, remote string, entries []workspace.Entry, keys []lock.Key) []lock.Key {
	var more []lock.Key
	for _, e := range entries {
		same := slices.ContainsFunc(keys, func(k lock.Key) bool { return k.ID() == e.Key.ID() })
		branch := slices.ContainsFunc(keys, func(k lock.Key) bool { return k.Branch == e.Key.Branch })
		if same || !branch || e.Kind != workspace.Clone {
			continue
		}
		url, err := f.Git.FetchURL(ctx, remote)
		if err != nil {
			return nil
		}
		if fetched, err := f.keys([]string{url}, []string{e.Key.Branch}); err == nil && fetched[0].ID() == e.Key.ID() {
			more = append(more, e.Key)
		}
	}
	return more
}

func (f *Flows) pushContext(ctx context.Context, place git.Place) git.PushContext {
	return git.PushContext{
		Config:    f.GitConfig,
		Head:      place.Head,
		LocalRefs: func() ([]string, error) { return f.Git.LocalRefs(ctx) },
		RemoteRefs: func(remote string) ([]string, error) {
			urls, err := f.Git.PushURLs(ctx, f.GitConfig, remote)
			var all []string
			for _, url := range urls {
				refs, err := f.Git.RemoteRefs(ctx, url)
				if err != nil {
					return nil, err
				}
				all = append(all, refs...)
			}
			return all, err
		},
	}
}

func shortNames(refs []string) []string {
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = strings.TrimPrefix(ref, "refs/heads/")
	}
	return names
}

// holds are the locks under which one push runs.
type holds struct {
	f    *Flows
	dir  workspace.Dir
	list []*hold
}

type hold struct {
	lease    *lock.Lease
	entry    workspace.Entry // what the clone remembers of this lock; no token: nothing
	taken    bool            // by this push, and not before it
	pushOnly bool            // a branch's own lock around a push under a narrower one
	stop     func()          // ends the renewing
}

// authorize makes sure of every lock, in order: ours is extended, any other is waited for.
func (h *holds) authorize(ctx context.Context, entries []workspace.Entry, keys []lock.Key) error {
	for _, k := range keys {
		one := &hold{}
		one.entry, _ = find(entries, k)
		var err error
		if one.lease, err = h.f.resume(ctx, one.entry); err != nil {
			return err
		}
		if one.lease == nil {
			if one.lease, err = h.f.acquire(ctx, k, "push"); err != nil {
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
		lease, err := h.f.acquire(ctx, k.WholeBranch(), "push")
		if err != nil {
			return err
		}
		h.add(ctx, &hold{lease: lease, taken: true, pushOnly: true})
	}
	return nil
}

// resume extends the lock that the clone remembers; nil when there is none, or it was lost.
func (f *Flows) resume(ctx context.Context, e workspace.Entry) (*lock.Lease, error) {
	if e.Token == "" {
		return nil, nil
	}
	lease := lock.Resume(lock.Request{Key: e.Key, Token: e.Token, Record: e.Record, TTL: f.Config.Lock.TTL}, e.Fence)
	err := lease.Renew(ctx, f.Store)
	var lost *lock.LostError
	if errors.As(err, &lost) {
		f.Notes.Warn("%v; taking it again", lost)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return lease, nil
}

func (h *holds) add(ctx context.Context, one *hold) {
	one.stop = h.f.keep(ctx, one.lease)
	h.list = append(h.list, one)
}

// landed ends every lock that a successful push ends; the next in line comes before our own
// housekeeping.
func (h *holds) landed(ctx context.Context) {
	for _, one := range h.list {
		one.stop()
		if one.entry.Kind == workspace.Lock {
			if one.taken {
				h.save(ctx, one) // lost and taken again: the bracket goes on with the new token
			}
			continue
		}
		h.f.release(ctx, one.lease)
		if err := h.dir.Remove(one.entry); err != nil {
			h.f.Notes.Warn("%v", err)
		}
	}
}

// retain keeps the locks of a push that failed, for the script's own retry, and lets go of those that
// are for just the push.
func (h *holds) retain(ctx context.Context) {
	for _, one := range h.list {
		one.stop()
		if one.pushOnly {
			h.f.release(ctx, one.lease)
		} else if one.taken {
			h.save(ctx, one)
		}
	}
}

// giveUp undoes what this push has taken before it could begin.
func (h *holds) giveUp(ctx context.Context) {
	for _, one := range h.list {
		one.stop()
		if one.taken {
			h.f.release(ctx, one.lease)
		}
	}
}

// save has the clone remember a lock that this push took.
func (h *holds) save(ctx context.Context, one *hold) {
	e := one.entry
	if e.Token == "" {
		e = workspace.Entry{Kind: workspace.Push, Key: one.lease.Key, Record: one.lease.Record}
	}
	e.Token, e.Fence = one.lease.Token, one.lease.Fence()
	if err := h.dir.Save(e); err != nil {
		h.f.Notes.Warn("cannot remember the lock on %s, so it is released: %v", one.lease.Key, err)
		h.f.release(ctx, one.lease)
	}
}
