// Package gitops owns the flows: what happens around git's clone and push, and when somebody
// locks by hand. Each flow is a method of Flows and reads from top to bottom.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"sort"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// releaseBudget bounds a release: the next in line waits for it, the user should not.
const releaseBudget = 5 * time.Second

// Notes is where the flows tell the user what happens.
type Notes interface {
	Warn(format string, args ...any)
	Waiting(w lock.Waiting)
	Waited(k lock.Key) // the wait, if there was one, is over and the lock is ours
}

// Flows has what every flow needs. All fields are required.
type Flows struct {
	Git       git.Git
	GitConfig git.Config
	Store     lock.Store
	Config    config.Config
	Notes     Notes
}

// acquire waits for a lock.
func (f *Flows) acquire(ctx context.Context, k lock.Key, command string) (*lock.Lease, error) {
	r := lock.Request{Key: k, Token: lock.NewToken(), Record: f.record(k, command), TTL: f.Config.Lock.TTL}
	lease, err := lock.Acquire(ctx, f.Store, r, f.Config.Lock.Timeout, f.Notes.Waiting)
	if err != nil {
		return nil, err
	}
	f.Notes.Waited(k)
	return lease, nil
}

// release hands the lock on. What was to be done under it is done, so trouble is only told.
func (f *Flows) release(ctx context.Context, l *lock.Lease) {
	if _, err := l.Release(ctx, f.Store, releaseBudget); err != nil {
		f.Notes.Warn("could not release the lock on %s, it expires within %s: %v", l.Key, l.TTL, err)
	}
}

// record is what others learn about us while we hold or wait.
func (f *Flows) record(k lock.Key, command string) lock.Record {
	r := lock.Record{
		Repo: k.Repo, Branch: k.Branch, Name: k.Name,
		PID: os.Getpid(), Command: command, Purpose: f.Config.Lock.Purpose,
	}
	r.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		r.User = u.Username
	}
	return r
}

// keys are the locks of branches (short names) at the places that the URLs name, in the order in
// which they must be taken. With wholeBranch they are the branches' own locks, whatever
// GITOPS_LOCK_NAME says.
func (f *Flows) keys(urls, branches []string) ([]lock.Key, error) {
	dir, err := f.Git.Dir()
	if err != nil {
		return nil, err
	}
	seen := map[string]lock.Key{}
	for _, url := range urls {
		repo := f.Config.Lock.Repo
		if u, err := giturl.Parse(url, dir); err != nil && repo == "" {
			return nil, fmt.Errorf("identify the repository: %w", err)
		} else if repo == "" {
			repo = u.Identity()
		}
		for _, b := range branches {
			k := lock.Key{Repo: repo, Branch: b, Name: f.Config.Lock.Name, Verbatim: f.Config.Lock.Key}
			seen[k.ID()] = k
		}
	}
	keys := make([]lock.Key, 0, len(seen))
	for _, k := range seen {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].ID() < keys[j].ID() })
	return keys, nil
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

// passed turns a failed question into git's own answer: the same command is left to git, which
// fails in its own words. ctx's end is not git's to tell.
func (f *Flows) passed(ctx context.Context, err error, words ...string) (git.Exit, error) {
	var asked *git.Error
	if ctx.Err() == nil && errors.As(err, &asked) {
		return f.Git.Exec(words...)
	}
	return git.Exit{}, err
}
