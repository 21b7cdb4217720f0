package gitops

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// Clone takes the lock of the branch that this clone would check out, lets git clone, and
// remembers both for the push. words are what the user wrote after "clone". The lock is freed
// when the clone fails.
func (f *Flows) Clone(ctx context.Context, words []string) (git.Exit, error) {
	command := append([]string{"clone"}, words...)
	args, err := git.ParseClone(words)
	if err != nil || args.Help || args.Revision != "" {
		return f.Git.Exec(command...)
	}
	dir, err := f.Git.Dir()
	if err != nil {
		return git.Exit{}, err
	}
	url := args.URL
	if path, ok := giturl.At(url, dir); ok {
		url = path
	}
	url = f.GitConfig.With(args.Config).FetchURL(url)
	wanted, err := f.ready(url)
	if err != nil {
		return git.Exit{}, err
	}
	if !wanted || !f.Config.Lock.Clone {
		return f.Git.Exec(command...)
	}
	f.Connect()
	branch := args.Branch
	if branch == "" {
		if branch, err = f.defaultBranch(ctx, url); err != nil {
			return f.passed(ctx, err, command...)
		}
		if branch == "" { // a detached HEAD: no branch to lock
			return f.Git.Exec(command...)
		}
	}
	keys, err := f.keys([]string{url}, []string{branch})
	if err != nil {
		return git.Exit{}, err
	}
	ahead := f.cloneAhead(args, url, words, dir)
	lease, err := f.acquireWhile(ctx, keys[0], "clone", func(place int) { ahead.begin(ctx, place) })
	if err != nil {
		ahead.abandon()
		return git.Exit{}, err
	}

	stop := f.keep(ctx, lease)
	exit := git.Exit{}
	if !ahead.finish(ctx) {
		if err = ctx.Err(); err == nil {
			exit, err = f.Git.Run(command...)
		}
	}
	stop()
	if err != nil || !exit.OK() {
		f.release(ctx, lease)
		return exit, err
	}
	f.remember(ctx, lease, args)
	return exit, nil
}

// defaultBranch is the branch that git will check out; "" when that is none. In an empty
// repository it is the one that git would begin.
func (f *Flows) defaultBranch(ctx context.Context, url string) (string, error) {
	branch, empty, err := f.Git.DefaultBranch(ctx, url)
	if err != nil || branch != "" || !empty {
		return branch, err
	}
	if name, ok := f.GitConfig.Get("init.defaultbranch"); ok {
		return name, nil
	}
	return "master", nil
}

// remember notes the lock and the base in the new clone, and drops a lock that the clone turned
// out not to need.
func (f *Flows) remember(ctx context.Context, lease *lock.Lease, args git.CloneArgs) {
	ctx = context.WithoutCancel(ctx) // the clone is there; what follows belongs to it
	place, err := f.newClone(ctx, args)
	if err != nil {
		f.Notes.Warn("cannot look into the new clone, so its lock is released and push will take it again: %v", err)
		f.release(ctx, lease)
		return
	}
	branch, onBranch := strings.CutPrefix(place.Head, "refs/heads/")
	if !onBranch { // -b named a tag
		f.release(ctx, lease)
		return
	}
	if branch != lease.Key.Branch && lease.Key.Verbatim == "" {
		// Of an empty repository, of which nobody can have built on anything, this is what git begins.
		if place.Tip != "" {
			f.Notes.Warn("the default branch became %s while this clone waited for %s: it has no lock, and push will take it", branch, lease.Key.Branch)
		}
		f.release(ctx, lease)
		return
	}
	entry := f.newEntry(workspace.Clone, lease)
	entry.Base, entry.Based = place.Tip, true
	if err := f.entrust(workspace.At(place.CommonDir), entry); err != nil {
		f.Notes.Warn("cannot remember the lock in the new clone, so it is released and push will take it again: %v", err)
		f.release(ctx, lease)
	}
}

func (f *Flows) newClone(ctx context.Context, args git.CloneArgs) (git.Place, error) {
	dir, err := f.Git.Dir()
	if err != nil {
		return git.Place{}, err
	}
	if to := args.Directory(); filepath.IsAbs(to) {
		dir = to
	} else {
		dir = filepath.Join(dir, to)
	}
	return f.Git.In(dir).Place(ctx)
}

// keep renews a lease while git works. Its loss is only told: git's own compare-and-swap on the ref
// is what then guards the branch.
func (f *Flows) keep(ctx context.Context, lease *lock.Lease) (stop func()) {
	return lease.Keep(context.WithoutCancel(ctx), f.Store, 0, func(err error) {
		f.Notes.Warn("lost while git was working: %v", err)
	})
}
