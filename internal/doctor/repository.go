package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/internal/workspace"
	"github.com/git-gitops/git-gitops/shim"
)

// repository checks the clone here: which locks its push takes, which it holds, its hook, its
// remote.
func (d *Checkup) repository(ctx context.Context) {
	repo, err := d.Git.State(ctx)
	var gitErr *git.Error
	switch {
	case errors.As(err, &gitErr) && !strings.Contains(gitErr.Stderr, "not a git repository"):
		d.Warn("repository", "", "git cannot open the repository here: %v", err)
		return
	case errors.As(err, &gitErr):
		d.OK("repository", "none here")
		if home, err := workspace.StateHome(); err == nil {
			d.held(ctx, workspace.Dir(filepath.Join(home, "held")))
		}
		return
	case err != nil:
		d.Fail("repository", "", "%v", err)
		return
	}
	target, err := gitargs.PushArgs{}.Target(d.pushContext(ctx, repo))
	if err != nil {
		d.Warn("repository", "", "cannot tell where a plain push goes: %v", err)
	} else {
		d.target(ctx, target)
	}
	d.held(ctx, workspace.At(repo.CommonDir))
	d.hook(ctx, repo)
	d.lfs(ctx, repo)
	if len(d.GitConfig.Config["remote."+target.Remote+".url"]) > 0 {
		d.legacy(ctx, target.Remote)
	}
}

func (d *Checkup) pushContext(ctx context.Context, repo git.RepoState) gitargs.PushContext {
	return gitargs.PushContext{
		Config:    d.GitConfig.Config,
		Head:      repo.Head,
		LocalRefs: func() ([]string, error) { return d.Git.LocalRefs(ctx) },
		RemoteRefs: func(remote string) ([]string, error) {
			ctx, cancel := context.WithTimeout(ctx, remoteBudget)
			defer cancel()
			return d.Git.RemoteRefs(ctx, remote)
		},
	}
}

// target names the locks that a plain push takes.
func (d *Checkup) target(ctx context.Context, target gitargs.PushTarget) {
	if len(d.GitConfig.Config["remote."+target.Remote+".url"]) == 0 {
		d.OK("repository", "no remote %s; a plain push goes nowhere", target.Remote)
		return
	}
	dir, err := d.Git.Dir()
	if err != nil {
		d.Fail("repository", "", "%v", err)
		return
	}
	for _, url := range d.GitConfig.PushURLs(target.Remote) {
		u, err := giturl.Parse(url, dir)
		if err != nil {
			d.Fail("repository", "fix the URL of the remote "+target.Remote, "%v", err)
			continue
		}
		repo := u.Identity()
		d.OK("repository", "%s (remote %s)", repo, target.Remote)
		if l := d.Config.Lock; d.sound {
			if l.Repo != "" {
				repo = l.Repo
			}
			for _, b := range target.Branches {
				d.lock(ctx, lock.Key{Repo: repo, Branch: strings.TrimPrefix(b, "refs/heads/"), Name: l.Name, Verbatim: l.Key})
			}
		}
	}
	if len(target.Branches) == 0 {
		d.OK("lock", "none: a plain push updates no branch here")
	}
}

func (d *Checkup) lock(ctx context.Context, k lock.Key) {
	name := redisstore.KeyName(d.Config.Redis.Prefix, k)
	if d.store == nil {
		d.OK("lock", "%s", name)
		return
	}
	state, err := d.store.Inspect(ctx, k)
	switch {
	case err != nil:
		d.storeFailure("lock", fmt.Errorf("%s: %w", name, err))
	case state.Freeze.Frozen():
		text, do := d.FreezeText(k, state.Freeze)
		d.Warn("lock", do, "%s, %s: nobody gets it until then", name, text)
	case state.Holder == nil:
		d.OK("lock", "%s, free", name)
	default:
		d.OK("lock", "%s, held by %s", name, d.HolderText(*state.Holder))
	}
}

// held are the locks that this clone remembers, and their keepers.
func (d *Checkup) held(ctx context.Context, dir workspace.Dir) {
	entries, err := dir.Load()
	if err == nil && !dir.Gone() {
		err = dir.Writable()
	}
	var state *workspace.StateError
	if errors.As(err, &state) {
		d.Fail("keeper", strings.Join(StateAdvice(state), "; "), "%v", err)
	}
	if err == nil && len(entries) == 0 {
		d.OK("keeper", "no lock is held from here")
	}
	const end = "git gitops push, or git gitops unlock --all"
	for _, e := range entries {
		var holder *lock.Holder
		if d.store != nil {
			state, err := d.store.Inspect(ctx, e.Key)
			if err != nil {
				d.storeFailure("keeper", fmt.Errorf("%s: %w", e.Key, err))
				continue
			}
			holder = state.Holder
		}
		switch {
		case d.store != nil && (holder == nil || holder.Token != e.Token), e.Lost != "":
			why := e.Lost
			if why == "" {
				why = "it expired, or somebody else got it"
			}
			d.Warn("keeper", "push or unlock clears this: "+end, "this clone no longer holds the lock on %s: %s", e.Key, why)
		case !e.KeeperAlive():
			left := ""
			if holder != nil {
				left = term.Expiry(holder.Left)
			}
			d.Warn("keeper", end, "this clone holds the lock on %s, but nobody renews it%s", e.Key, left)
		default:
			d.OK("keeper", "this clone has held the lock on %s since %s (by %s), renewed by process %d", e.Key, e.Since.UTC().Format(time.RFC3339), e.Kind, e.Keeper.PID)
		}
	}
}

func (d *Checkup) hook(ctx context.Context, repo git.RepoState) {
	dir, err := d.Git.HooksDir(ctx)
	if err != nil {
		d.Warn("hook", "", "%v", err)
		return
	}
	_, missing := os.Stat(filepath.Join(dir, "pre-push"))
	own := filepath.Join(repo.CommonDir, "hooks")
	callers, aside := hooks.Callers(d.Git.WorkTree(ctx)), hooks.SetAside(dir)
	switch installed := hooks.Installed(dir); {
	case !installed && missing == nil && len(callers) > 0:
		d.OK("hook", "plain git push is guarded by %s, if its hook manager runs it", callers[0])
	case !installed && aside != nil && aside.Runs && missing == nil:
		d.OK("hook", "plain git push is guarded by %s, which %s runs", aside.Path, aside.Manager)
	case !installed && aside != nil:
		d.Warn("hook", aside.Advice, "%s has moved the git-gitops hook to %s, where nothing runs it: plain git push takes no lock", aside.Manager, aside.Path)
	case !installed && hooks.Installed(own):
		d.Warn("hook", "git gitops install", "the git-gitops hook is in %s, but git looks for hooks in %s (core.hooksPath): plain git push takes no lock", own, dir)
	case !installed:
		d.OK("hook", "no pre-push hook of git-gitops in %s: plain git push from here takes no lock (git gitops install adds one)", dir)
	case !git.HasProgram("gitops"):
		d.Fail("hook", "put git-gitops on PATH", "the pre-push hook in %s does not find git-gitops, and stops every push", dir)
	default:
		d.OK("hook", "plain git push is guarded by the pre-push hook in %s", dir)
	}
}

// lfs looks whether the content that Git LFS keeps beside the commits gets to the remote.
func (d *Checkup) lfs(ctx context.Context, repo git.RepoState) {
	dir, err := d.Git.HooksDir(ctx)
	if err != nil || !git.HasProgram("lfs") || !hooks.HasLFS(repo.CommonDir) {
		return
	}
	if uploader := hooks.LFSUploader(repo.CommonDir, dir); uploader != "" {
		d.OK("lfs", "Git LFS content is uploaded by %s", uploader)
	} else {
		d.Warn("lfs", "git lfs update", "this repository uses Git LFS, and no pre-push hook in %s uploads its content", dir)
	}
}

// legacy finds the branches with which older scripts locked.
func (d *Checkup) legacy(ctx context.Context, remote string) {
	ctx, cancel := context.WithTimeout(ctx, remoteBudget)
	defer cancel()
	out, err := d.Git.Output(ctx, "ls-remote", "--heads", "--", remote, "lock.*")
	if err != nil {
		d.Warn("legacy", "", "cannot read the remote %s: %v", remote, err)
		return
	}
	var names, quoted []string
	for line := range strings.Lines(out) {
		_, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok && strings.HasPrefix(name, "lock.") {
			names, quoted = append(names, name), append(quoted, shim.ShellWord(name))
		}
	}
	if len(names) == 0 {
		d.OK("legacy", "no lock.* branches on the remote %s", remote)
		return
	}
	d.Warn("legacy", "when no old script needs them: git push --delete "+shim.ShellWord(remote)+" "+strings.Join(quoted, " "),
		"%d branches of an older kind of lock on the remote %s: %s", len(names), remote, strings.Join(names, ", "))
}
