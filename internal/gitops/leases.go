package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
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

// withLeases makes each forced push of a branch one that overwrites only what this clone has seen.
func (p *pushing) withLeases(ctx context.Context, argv []string) ([]string, error) {
	leases, err := p.findLeases(ctx)
	if err != nil {
		return nil, err
	}
	p.leases = leases
	if mirror := "remote." + p.target.Remote + ".mirror"; len(p.leases) > 0 && len(p.args.Refspecs) == 0 && p.f.GitConfig.IsTrue(mirror) {
		p.git = p.git.WithConfig(mirror, "false") // the arguments say it now, and not by force
	}
	return p.args.WithLeases(p.f.pushContext(ctx, p.repo), p.target, argv, p.leases)
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

// remoteTips returns a function that finds the tip of a branch at the remote. For several branches
// it asks once.
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

// ownLease is a lease of the user's own that names no object id. It counts only if the clone has
// seen the commit that it means; else no lease can satisfy both.
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
