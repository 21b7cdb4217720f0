package gitops

import (
	"context"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// remember has the clone know of the offer, in case this push is killed.
func (b *batch) remember() error {
	repo, err := b.p.f.identity(b.p.url)
	if err != nil {
		return err
	}
	return b.p.held.dir.SaveOffered(workspace.Offered{
		Repo: repo, Branch: b.branch, Key: b.asks.Key, Token: b.asks.Token,
		Ref: b.ref, Marker: b.marker, Base: b.base, Tip: b.tip,
	})
}

// forget removes the offer from the clone: its outcome is known.
func (b *batch) forget() {
	if err := b.p.held.dir.ForgetOffered(b.ref); err != nil {
		b.p.f.Notes.Debug("%v", err)
	}
}

// settle finds out what has become of the pushes of this clone that were killed while others may
// have pushed their commits, before those are pushed again. It returns the one whose commits are
// those of this push, if they have landed: there is nothing left to push.
func (p *pushing) settle(ctx context.Context, urls []string) (landed *batch, err error) {
	branches := shortNames(p.target.Branches)
	for _, url := range urls {
		repo, err := p.f.identity(url)
		if err != nil {
			return nil, err
		}
		offers, err := p.held.dir.Abandoned(repo, branches)
		if err != nil {
			return nil, err
		}
		for _, o := range offers {
			at := *p
			at.url = url
			b := &batch{
				p: &at, git: p.f.Git, branch: o.Branch, tip: o.Tip, base: o.Base, ref: o.Ref, marker: o.Marker,
				asks:  lock.Request{Key: o.Key, Token: o.Token, Record: p.f.record(o.Key, "push")},
				tried: true, made: true,
			}
			landed, err := b.revoke(ctx)
			p.f.Git.DropFetched(ctx, b.name()) // by the one that was killed
			switch {
			case err != nil:
				return nil, err
			case landed && p.rebasable() && o.Tip == p.repo.Tip:
				return b, nil
			case landed:
				if err := p.goOn(ctx, b); err != nil {
					return nil, err
				}
			}
		}
	}
	return nil, nil
}

// goOn prepares this push after an earlier one of other commits, which has landed.
func (p *pushing) goOn(ctx context.Context, b *batch) error {
	switch {
	case p.f.Git.Contains(ctx, p.repo.Tip, b.own): // they are rebased by now, or made again
	case !p.f.Git.Contains(ctx, p.repo.Tip, b.tip): // they were given up here
		p.f.Notes.Say("an earlier push of this clone has landed in %s, as %s, although it was killed", b.branch, short(b.own))
	case p.rebasable():
		if err := p.f.Git.RebaseRest(ctx, b.own, b.tip); err != nil {
			return err
		}
		p.rebased, p.repo.Tip = true, p.f.Git.Tip(ctx, "HEAD")
		p.f.Notes.Say("an earlier push of this clone has landed in %s, as %s, although it was killed; rebased the rest onto it", b.branch, short(b.own))
	default: // git decides about this push, and the next push asks again
		p.f.Notes.Say("an earlier push of this clone has landed in %s, as %s, although it was killed", b.branch, short(b.own))
		return nil
	}
	b.forget()
	b.drop(ctx, b.own)
	return nil
}
