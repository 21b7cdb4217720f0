package gitops

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// batchOptions are the options of push that a batch knows to do the same.
var batchOptions = []string{"-u", "--set-upstream", "-q", "--quiet", "-v", "--verbose", "--progress", "--no-progress", "--"}

// missedHooks are those that a rebase or a push would run, and a batch does not.
var missedHooks = []string{
	"pre-push", "pre-rebase", "post-rewrite", "post-checkout", "post-commit", "prepare-commit-msg", "reference-transaction",
}

// plainRemote are the settings of a remote with which its URL says all.
var plainRemote = []string{"url", "pushurl", "fetch", "tagopt", "prune", "prunetags", "followremotehead"}

// newBatch is nil for a push that goes alone in any case.
func (p *pushing) newBatch(argv []string) *batch {
	cfg := p.f.Config
	if !cfg.Push.Batch || !cfg.Push.Rebase || cfg.Lock.Name == "" {
		return nil
	}
	if cfg.Push.BatchSecret.Reveal() == "" {
		p.f.Notes.Debug("not pushing together: GITOPS_PUSH_BATCH_SECRET is not set")
		return nil
	}
	if why := p.aloneByConfig(argv); why != "" {
		p.f.Notes.Debug("not pushing together: %s", why)
		return nil
	}
	return &batch{p: p, git: p.f.Git, branch: strings.TrimPrefix(p.target.Branches[0], "refs/heads/")}
}

// aloneByConfig says why argv and configuration ask for more than a batch does.
func (p *pushing) aloneByConfig(argv []string) string {
	for _, w := range argv {
		if strings.HasPrefix(w, "-") && !slices.Contains(batchOptions, w) {
			return "an option of this push"
		}
	}
	config := p.f.GitConfig
	on := func(key string) bool {
		value, ok := config.Get(key)
		return ok && !slices.Contains([]string{"", "false", "no", "off", "0"}, strings.ToLower(value))
	}
	switch {
	case len(p.target.Branches) != 1 || !p.rebasable() || len(config.PushURLs(p.target.Remote)) != 1 || !p.f.Git.UsesCwdRepo():
		return "it does not push the checked-out branch to one branch of one repository"
	case config.Tracking(p.target.Remote, p.target.Branches[0]) == "":
		return "the branch has no remote-tracking branch"
	case on("commit.gpgsign"):
		return "a rebase would sign the commits (commit.gpgSign)"
	case on("push.gpgsign") || on("push.followtags") || on("push.recursesubmodules") || on("submodule.recurse") || on("push.autosetupremote"):
		return "a push.* setting"
	case len(config["push.pushoption"]) > 0:
		return "push.pushOption"
	}
	for key := range config {
		last := key[strings.LastIndexByte(key, '.')+1:]
		rest, ours := strings.CutPrefix(key, "remote."+p.target.Remote+".")
		switch {
		case ours && !slices.Contains(plainRemote, rest):
			return key
		case strings.HasPrefix(key, "merge.") && last == "driver":
			return "a merge driver"
		case strings.HasPrefix(key, "hook.") && last == "event":
			return "a hook in the configuration"
		}
	}
	return ""
}

// aloneByClone says why the clone cannot take part. It finds out what is offered.
func (b *batch) aloneByClone(ctx context.Context) string {
	if !b.git.AtLeast(ctx, 2, 32) {
		return "git is older than 2.32"
	}
	clone, err := b.git.Clone(ctx)
	if err != nil {
		return err.Error()
	}
	if clone.Shallow || !clone.WorkTree {
		return "the clone is shallow or has no work tree"
	}
	for _, name := range missedHooks {
		if b.p.f.OtherHook(clone.Hooks, name) {
			return "there is a hook " + name
		}
	}
	if _, err := os.Stat(filepath.Join(b.p.repo.CommonDir, "lfs")); err == nil {
		return "the clone has content of Git LFS"
	}
	if b.tip = clone.Untouched(ctx); b.tip == "" {
		return "the work tree has uncommitted changes"
	}
	if b.base, err = b.git.Offerable(ctx, b.tracking(), b.tip); err != nil {
		return err.Error()
	}
	return ""
}
