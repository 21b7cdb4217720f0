package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// UnseenError says that a forced push or a delete would overwrite what this clone has not seen.
type UnseenError struct{ Branches []Unseen }

// Unseen is one branch that is not what a push expects.
type Unseen struct {
	Branch string
	Tip    string // object id that it has; "" when it does not exist
	Named  bool   // the user has named another, by a lease
}

func (e *UnseenError) Error() string {
	texts := make([]string, len(e.Branches))
	for i, b := range e.Branches {
		texts[i] = fmt.Sprintf("branch %s is at %s, which this clone has not seen", b.Branch, short(b.Tip))
		if b.Named {
			texts[i] = fmt.Sprintf("branch %s is at %s, but its --force-with-lease names another commit", b.Branch, short(b.Tip))
		}
		if b.Tip == "" {
			texts[i] = fmt.Sprintf("branch %s does not exist any more", b.Branch)
		}
	}
	return strings.Join(texts, "; ")
}

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
// No tip is known, and git decides, when neither is anything remembered nor was anything fetched.
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

// shown reports whether what was last fetched of a branch counts as seen: a fetch alone shows
// nothing to anybody.
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
	default: // as it was cloned: a clone logs nothing of it, a fetch does, if git keeps logs at all
		keeps, set := s.f.GitConfig.Get("core.logallrefupdates")
		bare, _ := s.f.GitConfig.Get("core.bare")
		return why == "" && keeps != "false" && (set || bare != "true")
	}
}

// included reports whether a commit is in what is pushed, or was in the local branch, or the
// detached HEAD, that is. For a delete that is HEAD, and the branch of the same name.
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

// findLeases are the conditions on which this push may overwrite or delete branches: those that it
// forces, and those with a lease of the user's own, which holds in addition.
func (p *pushing) findLeases(ctx context.Context) (map[string]gitargs.Lease, error) {
	leases := map[string]gitargs.Lease{}
	remoteTip := p.remoteTips(ctx)
	if len(p.target.Updates) > 1 { // one question instead of one for each
		if tips, err := p.f.Git.BranchTips(ctx); err == nil {
			p.sight.branches, p.sight.contains = tips, map[[2]string]bool{}
			defer func() { p.sight.branches = nil }() // a rebase may move them
		}
	}
	for _, u := range p.target.Updates {
		own, owned := p.args.OwnLease(u.Ref)
		if !owned && !u.Forced && u.Src != "" {
			continue
		}
		if owned && p.exact(ctx, own) {
			leases[u.Ref] = gitargs.Lease{Own: true}
			continue
		}
		tips, known, err := p.sight.tips(ctx, u)
		if err != nil {
			return nil, err
		}
		switch {
		case !known: // git decides
		case owned:
			leases[u.Ref] = p.ownLease(ctx, u, own, tips)
		case len(tips) == 0:
			leases[u.Ref] = gitargs.Lease{}
		case len(tips) == 1:
			leases[u.Ref] = gitargs.Lease{Tip: tips[0]}
		default:
			tip, err := remoteTip(u.Ref)
			if err != nil || !slices.Contains(tips, tip) {
				tip = tips[0]
			}
			leases[u.Ref] = gitargs.Lease{Tip: tip}
		}
	}
	return leases, nil
}

// remoteTips tells what branches are at now. Of several, the remote is asked once.
func (p *pushing) remoteTips(ctx context.Context) func(ref string) (string, error) {
	all := sync.OnceValues(func() (map[string]string, error) { return p.f.Git.RemoteBranches(ctx, p.url) })
	return func(ref string) (string, error) {
		if len(p.target.Updates) == 1 {
			return p.f.Git.RemoteTip(ctx, p.url, ref)
		}
		tips, err := all()
		return tips[ref], err
	}
}

// exact reports whether a lease names one object, or nothing: only who has looked can do so.
func (p *pushing) exact(ctx context.Context, own gitargs.OwnLease) bool {
	value := strings.ToLower(own.Value)
	switch {
	case own.Tracking:
		return false
	case value == "":
		return true
	case len(value) < 7 || strings.Trim(value, "0123456789abcdef") != "":
		return false
	}
	return len(value) >= 40 || strings.HasPrefix(p.f.Git.Tip(ctx, own.Value), value)
}

// ownLease is a lease of the user's own that is no exact object id. It holds only if the clone has
// seen what it comes to; else no lease can satisfy both.
func (p *pushing) ownLease(ctx context.Context, u gitargs.PushUpdate, own gitargs.OwnLease, tips []string) gitargs.Lease {
	rev := own.Value
	if own.Tracking {
		if rev = p.f.GitConfig.Tracking(p.target.Remote, u.Ref); rev == "" {
			return gitargs.Lease{Own: true} // git refuses it
		}
	}
	tip := p.f.Git.Tip(ctx, rev)
	switch {
	case tip == "":
		return gitargs.Lease{Own: true}
	case !slices.Contains(tips, tip) && !p.sight.included(ctx, u, tip):
		return gitargs.Lease{}
	case own.Tracking && p.forceIfIncludes(): // which git applies to no lease with a value
		return gitargs.Lease{Own: true}
	default:
		return gitargs.Lease{Tip: tip}
	}
}

func (p *pushing) forceIfIncludes() bool {
	if p.args.ForceIfIncludes != nil {
		return *p.args.ForceIfIncludes
	}
	return p.f.GitConfig.IsTrue("push.useforceifincludes")
}

// unseen are the branches of a rejected push that are not what their leases say.
func (p *pushing) unseen(ctx context.Context, refs []git.RefStatus) *UnseenError {
	var e UnseenError
	remoteTip := p.remoteTips(ctx)
	for _, r := range refs {
		l, leased := p.leases[r.Ref]
		if r.Flag != '!' || !leased {
			continue
		}
		tip, err := remoteTip(r.Ref)
		if err != nil || !l.Own && l.Tip == tip {
			continue
		}
		own, owned := p.args.OwnLease(r.Ref)
		agrees := own.Value != "" && strings.HasPrefix(tip, strings.ToLower(own.Value)) // and git refuses for another reason
		named := l.Own && owned && p.exact(ctx, own) && !agrees
		e.Branches = append(e.Branches, Unseen{Branch: strings.TrimPrefix(r.Ref, "refs/heads/"), Tip: tip, Named: named})
	}
	if len(e.Branches) == 0 {
		return nil
	}
	return &e
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
