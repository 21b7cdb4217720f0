package gitops

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/git"
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

// readOutcome is the outcome by what the remote has: landed is only what is in the branch.
func (b *batch) readOutcome(ctx context.Context, refs map[string]string) (landed bool, err error) {
	ctx = context.WithoutCancel(ctx)
	own, tip := refs[b.ref], refs["refs/heads/"+b.branch]
	if own == "" { // it never means landed; but what we have pushed ourselves we know
		i := slices.IndexFunc(b.attempts, func(c string) bool { return b.git.Contains(ctx, tip, c) })
		if i >= 0 {
			own = b.attempts[i]
		}
	}
	switch {
	case own == b.marker:
		return false, nil
	case own != "" && b.git.Contains(ctx, tip, own) && b.git.SameCommit(ctx, own, b.tip):
		b.own, b.tipNow, b.led = own, tip, slices.Contains(b.attempts, own)
		return true, nil
	default:
		return false, &UnknownError{Branch: b.branch}
	}
}

// outcome asks the remote what has become of the offer.
func (b *batch) outcome(ctx context.Context) (landed bool, refs map[string]string, err error) {
	refs, err = b.git.FetchBatch(ctx, b.p.url, b.branch, b.name(), false)
	if err != nil {
		return false, refs, err
	}
	landed, err = b.readOutcome(ctx, refs)
	return landed, refs, err
}

// revoke makes sure that nobody pushes the commits any more. Either it has landed, or that is
// unknown, or it has not and will not.
func (b *batch) revoke(ctx context.Context) (landed bool, unknown error) {
	if !b.tried {
		return false, nil
	}
	f := b.p.f
	ctx = context.WithoutCancel(ctx)
	defer b.withdraw(ctx)
	ctx, cancel := context.WithTimeout(ctx, afterwards)
	defer cancel()
	if !b.made { // no leader knows of it
		if b.drop(ctx, b.marker) {
			b.forget()
		}
		return false, nil
	}
	drop := git.LeasedRef{Ref: b.ref, Old: b.marker}
	for pauses := (lock.Backoff{Least: 200 * time.Millisecond, Most: 30 * time.Second}); ; {
		result, report := b.git.PushLeased(ctx, b.p.url, drop)
		if result == git.Pushed {
			if b.hidden {
				b.pause(ctx, "the server does not show batch refs")
			}
			b.forget()
			return false, nil
		}
		f.Notes.Debug("deleting the batch ref: %v: %s", result, strings.TrimSpace(report))
		gone := result != git.Refused && b.gone(ctx) // before the look: then nothing can land after it
		landed, refs, err := b.outcome(ctx)
		var unsure *UnknownError
		switch {
		case landed:
			return true, nil
		case !errors.As(err, &unsure):
		case refs[b.ref] != "":
			b.forget()
			return false, err // it was moved to what is not in the branch
		case gone:
			b.forget()
			// Nobody can push the commits any more. A deletion that got no answer has come
			// through, or somebody else has deleted the ref: they have landed before only if the
			// branch has commits like them.
			if b.git.HasLike(ctx, b.base, refs["refs/heads/"+b.branch], b.tip) {
				return false, err
			}
			return false, nil
		}
		if refusesDeletion(result, report) && drop.New == "" { // a server that keeps all refs: what is offered is then no marker any more
			b.pause(ctx, "the server does not allow deleting batch refs")
			if drop.New, err = b.git.Marker(ctx, b.marker, b.ref); err == nil {
				continue
			}
			drop.New = ""
		}
		if lock.Sleep(ctx, pauses.Next()) != nil {
			return false, &UnknownError{Branch: b.branch}
		}
	}
}

// drop deletes the own batch ref, on which nothing depends any more. A server that fails is asked
// again for a while: nobody else deletes it for a day. It reports whether the ref is gone.
func (b *batch) drop(ctx context.Context, is string) (gone bool) {
	lock.Retry(ctx, dropPatience, func() bool {
		result, report := b.git.PushLeased(ctx, b.p.url, git.LeasedRef{Ref: b.ref, Old: is})
		if gone = result == git.Pushed || result == git.Stale && b.gone(ctx); gone {
			return true
		}
		b.p.f.Notes.Debug("deleting the batch ref: %v: %s", result, strings.TrimSpace(report))
		if refusesDeletion(result, report) {
			b.pause(ctx, "the server does not allow deleting batch refs")
			return true
		}
		return false
	})
	return gone
}

// refusesDeletion reports whether a batch ref cannot be deleted, and not just now.
func refusesDeletion(result git.PushResult, report string) bool {
	const any = 128 // none of the exit codes with which a local hook may have said it
	return result == git.Refused && !transient(report, any)
}

// gone makes sure that the own batch ref does not exist: then git deletes "nothing" there. A fetch
// shows no ref that is hidden, or that a mirror of the server does not have yet.
func (b *batch) gone(ctx context.Context) bool {
	result, _ := b.git.PushLeased(ctx, b.p.url, git.LeasedRef{Ref: b.ref})
	return result == git.Pushed
}
