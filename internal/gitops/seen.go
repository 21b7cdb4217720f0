package gitops

import (
	"context"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// sight is what a clone has seen of the branches of one remote. docs/guarantees.md has the rule as
// a table.
type sight struct {
	f      *Flows
	dir    workspace.Dir
	list   []*hold
	remote string   // its name, or a URL
	repos  []string // which repositories its URLs mean
	head   string   // full name of the branch that is checked out

	branches map[string]string  // their tips, where they were asked for all at once
	contains map[[2]string]bool // whether such a tip has a commit in its history
}

func (f *Flows) newSight(held *holds, repo git.RepoState, remote string, urls []string) *sight {
	s := &sight{f: f, dir: held.dir, list: held.list, remote: remote, head: repo.Head}
	for _, url := range urls {
		if repo, err := f.identity(url); err == nil && !slices.Contains(s.repos, repo) {
			s.repos = append(s.repos, repo)
		}
	}
	return s
}

// tips are the object ids at which a branch may be overwritten by an update; "": it does not exist.
// When nothing is remembered and nothing was fetched, no tip is known, and git decides.
func (s *sight) tips(ctx context.Context, u gitargs.PushUpdate) (tips []string, known bool, err error) {
	branch := strings.TrimPrefix(u.Ref, "refs/heads/")
	note := func(tip string) {
		if !slices.Contains(tips, tip) {
			tips = append(tips, tip)
		}
	}
	for _, repo := range s.repos {
		tip, ok, err := s.dir.Seen(repo, branch)
		if err != nil {
			return nil, false, err
		}
		if ok {
			note(tip)
			break
		}
	}
	for _, h := range s.list {
		if h.entry.BaseKnown && h.entry.Key.Branch == branch {
			note(h.entry.Base)
		}
	}
	tracking := s.f.GitConfig.Tracking(s.remote, u.Ref)
	if tracking == "" {
		return tips, len(tips) > 0, nil
	}
	fetched := s.local(ctx, tracking)
	if fetched == "" {
		return tips, len(tips) > 0, nil
	}
	if !slices.Contains(tips, fetched) && s.shown(ctx, u, tracking, fetched, len(tips) > 0) {
		note(fetched)
	}
	return tips, true, nil
}

// local is the tip of a ref of this repository.
func (s *sight) local(ctx context.Context, ref string) string {
	if s.branches != nil && (strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/remotes/")) {
		return s.branches[ref]
	}
	return s.f.Git.Tip(ctx, ref)
}

// shown reports whether what was last fetched of a branch counts as seen. A fetch alone is not
// enough: nobody may have looked.
func (s *sight) shown(ctx context.Context, u gitargs.PushUpdate, tracking, fetched string, remembered bool) bool {
	if s.included(ctx, u, fetched) {
		return true
	}
	var why string
	log := s.f.Git.Reflog(ctx, tracking)
	if len(log) > 0 {
		why = log[0].Why
	}
	switch {
	case why == "update by push": // by this clone
		return true
	case remembered:
		return false
	case u.Src == "": // to delete a branch that was never worked on here takes no more than a look
		return true
	default: // as cloned: a fetch leaves a line in the reflog, if git keeps one, and a clone does not
		keeps, set := s.f.GitConfig.Get("core.logallrefupdates")
		bare, _ := s.f.GitConfig.Get("core.bare")
		return why == "" && keeps != "false" && (set || bare != "true")
	}
}

// included reports whether a commit is in what is pushed, or was once in the local branch, or the
// detached HEAD, that is pushed. A delete counts as a push of HEAD and of the branch of that name.
func (s *sight) included(ctx context.Context, u gitargs.PushUpdate, commit string) bool {
	src, branch := u.Src, u.Src
	switch {
	case src == "":
		src, branch = "HEAD", u.Ref
	case (src == "HEAD" || src == "@") && s.head == "":
		branch = "HEAD"
	case src == "HEAD" || src == "@":
		branch = s.head
	case !strings.HasPrefix(src, "refs/"):
		branch = "refs/heads/" + src
	}
	if s.contain(ctx, src, commit) {
		return true
	}
	return (branch == "HEAD" || strings.HasPrefix(branch, "refs/heads/")) && s.f.Git.Had(ctx, branch, commit)
}

// contain reports whether a commit is in the history of a revision. Of many branches, many may be
// alike.
func (s *sight) contain(ctx context.Context, rev, commit string) bool {
	tip, ok := s.branches[rev]
	if !ok {
		return s.f.Git.Contains(ctx, rev, commit)
	}
	pair := [2]string{tip, commit}
	contains, ok := s.contains[pair]
	if !ok {
		contains = tip == commit || s.f.Git.Contains(ctx, tip, commit)
		s.contains[pair] = contains
	}
	return contains
}

// see remembers what a push has made of a branch.
func (s *sight) see(branch, tip string) {
	for _, repo := range s.repos {
		if err := s.dir.See(repo, branch, tip); err != nil {
			s.f.Notes.Warn("cannot remember what was pushed to %s: %v", branch, err)
			return
		}
	}
	for _, one := range s.list { // a lock that stays: this is what the clone builds on from now on
		if one.lease.Key.Branch != branch || one.pushOnly {
			continue
		}
		e := workspace.Entry{Key: one.lease.Key, Token: one.lease.Token, Share: one.lease.Share}
		if err := s.dir.Update(e, landedAt(tip)); err != nil {
			s.f.Notes.Warn("cannot remember what was pushed to %s: %v", branch, err)
		}
	}
}

// landedAt notes what a push has made of the branch of a lock that stays; "": it has deleted it.
func landedAt(tip string) func(*workspace.Entry) {
	return func(e *workspace.Entry) { e.Base, e.BaseKnown, e.Broken = tip, true, false }
}

// record remembers what this push has made of branches.
func (p *pushing) record(ctx context.Context, updates []gitargs.PushUpdate) {
	ctx = context.WithoutCancel(ctx)
	head := []string{"HEAD", "@", p.repo.Head, strings.TrimPrefix(p.repo.Head, "refs/heads/")}
	var revs []string
	for _, u := range updates {
		if u.Src != "" && (p.rebased || !slices.Contains(head, u.Src)) {
			revs = append(revs, u.Src)
		}
	}
	if len(revs) > 0 {
		tips, err := p.f.Git.Tips(ctx, revs)
		if err != nil {
			p.f.Notes.Warn("cannot remember what was pushed: %v", err)
			return
		}
		revs = tips
	}
	for _, u := range updates {
		tip := ""
		switch {
		case u.Src == "":
		case p.rebased || !slices.Contains(head, u.Src):
			tip, revs = revs[0], revs[1:]
		default:
			tip = p.repo.Tip
		}
		p.sight.see(strings.TrimPrefix(u.Ref, "refs/heads/"), tip)
	}
}

// landedInPart are the branches that a push has updated although it failed as a whole.
func (p *pushing) landedInPart() []gitargs.PushUpdate {
	var landed []gitargs.PushUpdate
	for _, u := range p.target.Updates {
		if slices.Contains(p.refused, git.RefStatus{Ref: u.Ref, Flag: '='}) {
			landed = append(landed, u)
		}
	}
	return landed
}
