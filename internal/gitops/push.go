package gitops

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// Push makes sure of the lock of every branch that this push would update, lets git push, and
// hands the locks on when it landed. argv is what the user wrote after "push". A push that failed
// keeps its locks for the script's own retry.
func (f *Flows) Push(ctx context.Context, argv []string) (process.Exit, error) {
	command := append([]string{"push"}, argv...)
	args, err := gitargs.ParsePush(argv)
	if err != nil || args.Help || args.DryRun {
		return f.Git.Exec(command...)
	}
	f.connect()
	repo, err := f.Git.State(ctx)
	if err != nil {
		return f.fallBackToGit(ctx, err, command...)
	}
	target, err := args.Target(f.pushContext(ctx, repo))
	if err != nil { // not to be left to git: the remote may answer the next time, and the push be unguarded
		return process.Exit{}, err
	}
	if len(target.Branches) == 0 { // only tags and the like, which take no lock; or git reports an error
		return f.Git.Exec(command...)
	}
	urls := f.GitConfig.PushURLs(target.Remote)
	if wanted, err := f.ready(urls...); err != nil {
		return process.Exit{}, err
	} else if !wanted {
		return f.Git.Exec(command...)
	}
	keys, err := f.keys(urls, shortNames(target.Branches))
	if err != nil {
		return process.Exit{}, err
	}
	if f.Within != nil && !slices.ContainsFunc(keys, func(k lock.Key) bool { return slices.Contains(f.Within, k.ID()) }) {
		return f.Git.Exec(command...)
	}
	held := &holds{f: f, dir: workspace.At(repo.CommonDir)}
	entries, err := remembered(held.dir)
	if err != nil {
		return process.Exit{}, err
	}
	keys = append(keys, f.clonedElsewhere(target.Remote, entries, keys)...)

	p := &pushing{f: f, git: f.Git, held: held, args: args, repo: repo, target: target, url: urls[0]}
	landed, err := p.settle(ctx, urls)
	var stopped *git.RebaseError
	switch {
	case errors.As(err, &stopped):
		return p.notIntegrated(err)
	case err != nil:
		return process.Exit{}, err
	case landed != nil:
		held.resume(ctx, entries, keys)
		landed.p.sight = f.newSight(held, repo, target.Remote, urls)
		held.landed(ctx)
		landed.finish(ctx)
		return process.Exit{}, nil
	}
	held.batch = p.newBatch(argv)
	err = held.authorize(ctx, entries, keys)
	p.sight = f.newSight(held, repo, target.Remote, urls)
	if err != nil { // or a leader has pushed for us
		if err = held.batch.end(ctx, err); err != nil {
			held.giveUp(ctx)
			return process.Exit{}, err
		}
		held.landed(ctx)
		held.batch.finish(ctx)
		return process.Exit{}, nil
	}
	return p.underLocks(ctx, argv)
}

// underLocks pushes, now that every lock is held: as the leader of a batch, or alone. It ends what
// a push that landed ends.
func (p *pushing) underLocks(ctx context.Context, argv []string) (process.Exit, error) {
	p.git = p.f.Git.With(guardedBy + "=" + strconv.Itoa(os.Getpid())) // for the pre-push hook
	switch err := p.held.batch.run(ctx); {
	case err == nil:
		p.held.landed(ctx)
		p.held.batch.finish(ctx)
		return process.Exit{}, nil
	case !errors.Is(err, errAlone):
		p.held.end(ctx, err)
		return process.Exit{}, err
	}
	exit, err := p.run(ctx, argv)
	if err == nil && exit.OK() {
		p.held.landed(ctx)
		if b := p.held.batch; b != nil && b.tried {
			b.forget() // the commits have landed, whatever became of the offer
		}
		p.record(ctx, p.target.Updates)
		return exit, nil
	}
	p.held.end(ctx, err)
	p.record(ctx, p.landedInPart())
	return exit, err
}

func (f *Flows) pushContext(ctx context.Context, repo git.RepoState) gitargs.PushContext {
	var remoteRefs []string
	return gitargs.PushContext{
		Config:    f.GitConfig,
		Head:      repo.Head,
		LocalRefs: sync.OnceValues(func() ([]string, error) { return f.Git.LocalRefs(ctx) }),
		RemoteRefs: func(remote string) ([]string, error) {
			all := remoteRefs
			if all != nil {
				return all, nil
			}
			for _, url := range f.GitConfig.PushURLs(remote) {
				refs, err := f.Git.RemoteRefs(ctx, url)
				if err != nil {
					return nil, err
				}
				all = append(all, refs...)
			}
			remoteRefs = all
			return all, nil
		},
	}
}

// clonedElsewhere are the locks that a clone took under the URL it fetches from, when that names
// another repository than the URL it pushes to (a mirror). They are held and end with the others.
func (f *Flows) clonedElsewhere(remote string, entries []workspace.Entry, keys []lock.Key) []lock.Key {
	var more []lock.Key
	for _, e := range entries {
		same := slices.ContainsFunc(keys, func(k lock.Key) bool { return k.ID() == e.Key.ID() })
		branch := slices.ContainsFunc(keys, func(k lock.Key) bool { return k.Branch == e.Key.Branch })
		if same || !branch || e.Kind != workspace.Clone {
			continue
		}
		if fetched, err := f.keys([]string{f.GitConfig.FetchURL(remote)}, []string{e.Key.Branch}); err == nil && fetched[0].ID() == e.Key.ID() {
			more = append(more, e.Key)
		}
	}
	return more
}

func shortNames(refs []string) []string {
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = strings.TrimPrefix(ref, "refs/heads/")
	}
	return names
}
