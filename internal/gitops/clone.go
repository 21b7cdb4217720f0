package gitops

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// Clone takes the lock of the branch that this clone would check out, lets git clone, and
// remembers both for the push. argv is what the user wrote after "clone". The lock is freed
// when the clone fails.
func (f *Flows) Clone(ctx context.Context, argv []string) (process.Exit, error) {
	command := append([]string{"clone"}, argv...)
	args, err := gitargs.ParseClone(argv)
	if err != nil || args.Help || args.Revision != "" {
		return f.Git.Exec(command...)
	}
	dir, err := f.Git.Dir()
	if err != nil {
		return process.Exit{}, err
	}
	url := args.URL
	if path, ok := giturl.At(url, dir); ok {
		url = path
	}
	url = f.GitConfig.With(args.Config).FetchURL(url)
	wanted, err := f.ready(url)
	if err != nil {
		return process.Exit{}, err
	}
	if !wanted || !f.Config.Lock.Clone {
		return f.Git.Exec(command...)
	}
	f.connect()
	c := &cloning{f: f, command: command, args: args, url: url, spots: spotsOf(args, dir)}
	branch := args.Branch
	if branch == "" {
		branch = f.defaultBranch(ctx, url)
	}
	exit := process.Exit{}
	if branch == "" { // the clone itself will show it
		exit, err = c.run(ctx)
	} else {
		exit, err = c.underLock(ctx, branch, f.cloneAhead(args, url, argv, dir))
	}
	if err != nil || !exit.OK() {
		return exit, err
	}
	return c.settle(ctx)
}

// cloning is a clone under way.
type cloning struct {
	f       *Flows
	command []string // clone and its arguments
	args    gitargs.CloneArgs
	url     string
	spots   []spot
	lease   *lock.Lease // nil: none
	made    *os.File    // the repository that git has made, open, so that no other is taken for it; nil: none yet
}

// take waits for the lock of a branch.
func (c *cloning) take(ctx context.Context, branch string, waits func(position int)) error {
	keys, err := c.f.keys([]string{c.url}, []string{branch})
	if err != nil {
		return err
	}
	c.lease, err = c.f.acquireQueued(ctx, keys[0], "clone", waits)
	return err
}

func (c *cloning) release(ctx context.Context) {
	if c.lease != nil {
		c.f.release(ctx, c.lease)
		c.lease = nil
	}
}

// underLock clones under the lock of a branch, which is freed when that fails.
func (c *cloning) underLock(ctx context.Context, branch string, ahead *ahead) (process.Exit, error) {
	if err := c.take(ctx, branch, func(position int) { ahead.begin(ctx, position) }); err != nil {
		ahead.abandon()
		return process.Exit{}, err
	}
	stop := c.f.keep(ctx, c.lease)
	exit, err := process.Exit{}, error(nil)
	if !ahead.finish(ctx) {
		exit, err = c.run(ctx)
	}
	stop()
	if err != nil || !exit.OK() {
		c.release(ctx)
	}
	return exit, err
}

func (c *cloning) run(ctx context.Context) (process.Exit, error) {
	if err := ctx.Err(); err != nil {
		return process.Exit{}, err
	}
	return c.f.Git.Run(c.command...)
}

// defaultBranch is the branch that git will check out; "" when that is none, or is not known
// now. In an empty repository that does not say, it is the one that git would begin.
func (f *Flows) defaultBranch(ctx context.Context, url string) string {
	branch, empty, err := f.Git.Outside().DefaultBranch(ctx, url)
	if err != nil {
		f.Notes.Debug("the branch to lock is not known before the clone: %v", err)
	}
	if err != nil || branch != "" || !empty {
		return branch
	}
	if name, ok := f.GitConfig.Get("init.defaultbranch"); ok {
		return name
	}
	return "master"
}

// settle makes sure that the new clone has the lock of the branch that it has checked out, and
// that it is what a clone under this lock would be: nobody knew the branch before, or the
// remote's HEAD has changed since.
func (c *cloning) settle(ctx context.Context) (process.Exit, error) {
	defer c.close()
	for {
		repo, err := c.repo(context.WithoutCancel(ctx)) // the clone is there; this belongs to it
		if err != nil {
			c.release(ctx)
			return process.Exit{}, fmt.Errorf("read the new clone: %w", err)
		}
		c.close()
		c.made, _ = os.Open(repo.CommonDir)
		branch, onBranch := strings.CutPrefix(repo.Head, "refs/heads/")
		switch {
		case !onBranch: // -b named a tag, or the remote's HEAD is detached
			if c.lease != nil {
				c.f.Notes.Say("the new clone is on no branch, so the lock on %s is released", c.lease.Key)
			}
			c.release(ctx)
			return process.Exit{}, nil
		case c.lease != nil && (branch == c.lease.Key.Branch || c.lease.Key.Verbatim != ""):
			if err := c.remember(ctx, repo); err != nil {
				c.release(ctx)
				c.clear()
				return process.Exit{}, err
			}
			return process.Exit{}, nil
		case c.lease != nil: // do not hold a lock that is not needed while waiting for another
			c.f.Notes.Say("the new clone is on %s, so the lock on %s is released, and that of %s taken", branch, c.lease.Key, branch)
			c.release(ctx)
		}
		if err := c.take(ctx, branch, func(int) {}); err != nil {
			c.clear()
			return process.Exit{}, err
		}
		if exit, err := c.again(ctx, repo); err != nil || !exit.OK() {
			c.release(ctx)
			return exit, err
		}
	}
}

// again clones once more, if the branch is not certain to be at the remote what it is in the clone.
func (c *cloning) again(ctx context.Context, repo git.RepoState) (process.Exit, error) {
	defer c.f.keep(ctx, c.lease)()
	tip, err := c.f.Git.Outside().RemoteTip(ctx, c.url, repo.Head)
	if err == nil && tip == repo.Tip {
		return process.Exit{}, nil
	}
	c.clear()
	return c.run(ctx)
}

// clear removes the clone. During the wait for a lock somebody may have put another one there.
func (c *cloning) clear() {
	if c.made != nil {
		was, err := c.made.Stat()
		is, errIs := os.Stat(c.made.Name())
		c.close()
		if err != nil || errIs != nil || !os.SameFile(was, is) {
			c.f.Notes.Debug("not removing %s: it is not the clone any more that was made here", c.spots[0].dir)
			return
		}
	}
	for _, s := range c.spots {
		if err := s.clear(); err != nil {
			c.f.Notes.Warn("cannot remove the new clone: %v", err)
		}
	}
}

func (c *cloning) close() {
	if c.made != nil {
		_ = c.made.Close()
		c.made = nil
	}
}

// remember notes the lock and the base in the new clone.
func (c *cloning) remember(ctx context.Context, repo git.RepoState) error {
	ctx = context.WithoutCancel(ctx)
	entry := c.f.newEntry(workspace.Clone, c.lease)
	entry.Base, entry.BaseKnown = repo.Tip, true
	return c.f.saveAndKeep(ctx, workspace.At(repo.CommonDir), entry, c.lease)
}

func (c *cloning) repo(ctx context.Context) (git.RepoState, error) {
	if c.args.Bare {
		return c.f.Git.InBare(c.spots[0].dir).State(ctx)
	}
	return c.f.Git.In(c.spots[0].dir).State(ctx)
}

// keep renews a lease while git works. Its loss is only reported: git's own compare-and-swap on the
// ref is what then guards the branch.
func (f *Flows) keep(ctx context.Context, lease *lock.Lease) (stop func()) {
	return lease.Keep(context.WithoutCancel(ctx), f.Store, 0, func(err error) {
		f.Notes.Warn("while git was working, %v", err)
	})
}
