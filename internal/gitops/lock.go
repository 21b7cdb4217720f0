package gitops

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// ErrNothingToLock says that no branch was named and none follows from the repository.
var ErrNothingToLock = errors.New("no branch to lock")

// LockRequest says which lock is meant. What is empty follows from the repository: what a plain
// push would update there.
type LockRequest struct {
	Repo   string // a URL or a remote's name
	Branch string // short name
}

// Lock takes a lock by hand. Only Unlock ends it, or its TTL.
func (f *Flows) Lock(ctx context.Context, r LockRequest) (*lock.Lease, error) {
	dir, keys, err := f.named(ctx, r)
	if err != nil {
		return nil, err
	}
	entries, err := dir.Load()
	if err == nil {
		err = dir.Writable()
	}
	if err != nil {
		return nil, err
	}
	e, err := f.claimed(ctx, dir, entries, keys[0], lock.QueuePolicy(f.Config.Lock.Policy))
	if err != nil {
		return nil, err
	}
	lease, err := f.resume(ctx, dir, e)
	if err != nil {
		return nil, err
	}
	if lease == nil {
		if lease, err = f.acquireQueued(ctx, keys[0], "lock", func(int) {}); err != nil {
			return nil, err
		}
	}
	held := f.newEntry(workspace.Lock, lease)
	held.Base, held.BaseKnown, held.Broken = e.Base, e.BaseKnown, e.Broken || lease.Broken() || e.Token != "" && e.Token != held.Token
	if e.Token == held.Token {
		held.Since, held.Keeper = e.Since, e.Keeper
	}
	if err := f.saveAndKeep(ctx, dir, held, lease); err != nil {
		f.release(ctx, lease)
		return nil, err
	}
	return lease, nil
}

// Unlocked is one lock that Unlock ended.
type Unlocked struct {
	Key    lock.Key
	Result lock.ReleaseResult
}

// ForeignError says that a lock of this clone was not released, because it is another session's.
type ForeignError struct {
	Key    lock.Key
	Holder lock.Holder // as the clone remembers it
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("the lock on %s is held by another script in this clone", e.Key)
}

// Unlock releases the lock that the request names, or all that this clone remembers, and forgets
// them. A lock that was not held any more is no error, and Unlocked says so. That of another
// session which lives is left alone: a ForeignError, unless all are meant.
func (f *Flows) Unlock(ctx context.Context, r LockRequest, all bool) ([]Unlocked, error) {
	var (
		dir  workspace.Dir
		keys []lock.Key
		err  error
	)
	if all {
		var repo git.RepoState
		if repo, err = f.here(ctx); err == nil {
			dir, err = stateDir(repo)
		}
	} else {
		dir, keys, err = f.named(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	entries, err := dir.Load()
	if !all {
		e, ok := find(entries, keys[0])
		if entries = nil; ok {
			entries = []workspace.Entry{e}
		}
	}
	done, ended := f.end(ctx, dir, entries, all)
	return done, errors.Join(err, ended)
}

// UnlockSession releases every lock that this session holds, in whichever clone. With
// GITOPS_LOCK_SESSION=workspace it is every lock of the clones in the working directory.
func (f *Flows) UnlockSession(ctx context.Context) ([]Unlocked, error) {
	dirs := workspace.Clones(f.Session.ID())
	everything := f.Config.Lock.Session == session.Workspace
	var errs []error
	if everything {
		here, err := f.Git.Dir()
		if err != nil {
			return nil, err
		}
		dirs, err = workspace.Below(here)
		errs = append(errs, err)
	}
	var done []Unlocked
	for _, dir := range dirs {
		entries, err := dir.Load()
		errs = append(errs, err)
		if !everything {
			entries = slices.DeleteFunc(entries, func(e workspace.Entry) bool { return e.Session != f.Session.ID() })
		}
		more, err := f.end(ctx, dir, entries, true)
		done, errs = append(done, more...), append(errs, err)
		if unreachable(err) {
			break
		}
	}
	return done, errors.Join(errs...)
}

// unreachable reports whether Redis did not answer, so that the next lock would take as long to
// fail.
func unreachable(err error) bool {
	var store *lock.StoreError
	return errors.As(err, &store) && store.Failure == lock.Unreachable
}

// end releases the locks of entries, and forgets them. It leaves those of another session that
// lives alone, which is an error unless all are meant.
func (f *Flows) end(ctx context.Context, dir workspace.Dir, entries []workspace.Entry, all bool) ([]Unlocked, error) {
	var (
		done []Unlocked
		errs []error
	)
	for _, e := range entries {
		if f.claim(e) == theirs {
			if !all {
				errs = append(errs, &ForeignError{Key: e.Key, Holder: e.Holder()})
			}
			continue
		}
		result, err := e.Hold(f.Config.Lock.TTL).Release(ctx, f.Store, f.timing().Release)
		if err != nil {
			errs = append(errs, err)
			if unreachable(err) {
				break
			}
			continue
		}
		workspace.UnlinkSession(e)
		done = append(done, Unlocked{Key: e.Key, Result: result})
		errs = append(errs, dir.Remove(e))
	}
	return done, errors.Join(errs...)
}

// named is the lock that the request means, and where it is remembered.
func (f *Flows) named(ctx context.Context, r LockRequest) (workspace.Dir, []lock.Key, error) {
	repo, err := f.here(ctx)
	if err != nil {
		return "", nil, err
	}
	keys, err := f.meant(ctx, r, repo)
	if err != nil {
		return "", nil, err
	}
	dir, err := stateDir(repo)
	return dir, keys, err
}

// meant is the lock that the request means.
func (f *Flows) meant(ctx context.Context, r LockRequest, repo git.RepoState) ([]lock.Key, error) {
	var target gitargs.PushTarget
	if repo.CommonDir != "" && (r.Repo == "" || r.Branch == "") {
		var err error
		if target, err = (gitargs.PushArgs{}).Target(f.pushContext(ctx, repo)); err != nil {
			return nil, err
		}
	}
	if r.Branch != "" {
		target.Branches = []string{r.Branch}
	}
	if r.Repo != "" {
		target.Remote = r.Repo
	}
	if len(target.Branches) == 0 || target.Remote == "" {
		return nil, ErrNothingToLock
	}
	urls := []string{target.Remote}
	if repo.CommonDir != "" {
		urls = f.GitConfig.PushURLs(target.Remote)
	}
	return f.keys(urls, shortNames(target.Branches[:1]))
}

// here is the repository here; empty outside of one.
func (f *Flows) here(ctx context.Context) (git.RepoState, error) {
	repo, err := f.Git.State(ctx)
	var gitErr *git.Error
	if errors.As(err, &gitErr) {
		return git.RepoState{}, nil
	}
	return repo, err
}

// stateDir is where locks are remembered: in the repository, or in the user's state folder outside
// of one.
func stateDir(repo git.RepoState) (workspace.Dir, error) {
	if repo.CommonDir != "" {
		return workspace.At(repo.CommonDir), nil
	}
	home, err := workspace.StateHome()
	return workspace.Dir(filepath.Join(home, "held")), err
}
