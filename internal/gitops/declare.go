package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/lock"
)

// FencedError says that the server lets a push in only under its lock, and did not find it
// declared.
type FencedError struct {
	Branch string
	Word   lock.Refusal
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("the server refuses this push to %s (%s)", e.Branch, e.Word)
}

// declare tells a server that guards its branches what this push will do. It costs time, so it is
// left out where no server is known to ask: the first push to one that does is refused, and tried
// again. A push that cannot be tried again is always declared.
func (p *pushing) declare(ctx context.Context) error {
	if len(p.refusals) == 0 && !p.onlyTry() && !p.guarded() {
		return nil
	}
	var revs []string
	for _, u := range p.target.Updates {
		if u.Src != "" {
			revs = append(revs, u.Src)
		}
	}
	tips, err := p.f.Git.Tips(ctx, revs)
	if err != nil {
		return nil // git will say what is wrong with it
	}
	var intents []lock.Update
	for _, u := range p.target.Updates {
		old, err := p.expected(ctx, u.Ref)
		if err != nil {
			return nil // git will say so
		}
		move := git.LeasedRef{Ref: u.Ref, Old: old}
		if u.Src != "" {
			move.New, tips = tips[0], tips[1:]
		}
		intents = append(intents, updateOf(move))
	}
	return p.held.declare(ctx, intents...)
}

// onlyTry reports whether a refusal is final: the terminal is git's, or the output is a program's
// to read.
func (p *pushing) onlyTry() bool { return p.f.Terminal || p.args.Porcelain }

func (p *pushing) guarded() bool {
	return slices.ContainsFunc(p.held.list, func(h *hold) bool { return h.lease.Guarded() })
}

// declare renews every lock, and declares with it what a push will do to the branch of that lock.
func (h *holds) declare(ctx context.Context, updates ...lock.Update) error {
	for _, one := range h.list {
		var intent []lock.Update
		for _, u := range updates {
			if u.Ref == "refs/heads/"+one.lease.Key.Branch {
				intent = append(intent, u)
			}
		}
		err := h.f.patiently(ctx, true, func() error { return one.lease.Declare(ctx, h.f.Store, intent) })
		if err != nil {
			return err
		}
	}
	return nil
}

// updateOf is a leased move of a ref as the server will see it.
func updateOf(r git.LeasedRef) lock.Update {
	u := lock.Update{Ref: r.Ref, Old: r.Old, New: r.New}
	zeros := strings.Repeat("0", max(len(u.Old), len(u.New), 40))
	if u.Old == "" {
		u.Old = zeros
	}
	if u.New == "" {
		u.New = zeros
	}
	return u
}

// expected is the tip that a branch has at the server, as far as this clone knows, and else what
// the server says; "" when it does not exist.
func (p *pushing) expected(ctx context.Context, ref string) (string, error) {
	if tip, ok := p.actual[ref]; ok {
		return tip, nil
	}
	if l, ok := p.leases[ref]; ok && !l.Own {
		return l.Tip, nil
	}
	tracking := p.f.GitConfig.Tracking(p.target.Remote, ref)
	if own, ok := p.args.OwnLease(ref); ok && !own.Tracking {
		if isOID(own.Value) || own.Value == "" {
			return own.Value, nil
		}
		return p.f.Git.Tip(ctx, own.Value), nil
	} else if tracking != "" && (ok || !p.onlyTry() || !p.guarded()) {
		return p.f.Git.Tip(ctx, tracking), nil
	}
	return p.f.Git.RemoteTip(ctx, p.url, ref)
}

// fenced prepares another try of a push that the server has refused as not under its lock. A lock
// that was lost stays so, and what the server refuses twice is final.
func (p *pushing) fenced(ctx context.Context, word lock.Refusal, argv []string) error {
	p.held.note(ctx, lock.EventPushRejected, "by the server: "+string(word))
	if slices.Contains(p.refusals, word) || p.onlyTry() || ctx.Err() != nil {
		return &FencedError{Branch: strings.Join(shortNames(p.target.Branches), ", "), Word: word}
	}
	p.refusals = append(p.refusals, word)
	if err := p.held.again(ctx); err != nil {
		return err
	}
	if word == lock.RefusedMoved {
		p.actual = map[string]string{}
		for _, ref := range p.target.Branches {
			_, leased := p.leases[ref]
			if _, own := p.args.OwnLease(ref); leased || own {
				continue // it may overwrite that tip and no other
			}
			tip, err := p.f.Git.RemoteTip(ctx, p.url, ref)
			if err != nil {
				return err
			}
			p.actual[ref] = tip
		}
	}
	return p.checkBase(ctx, argv)
}
