package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// FencedError says that the server lets a push in only under its lock, and did not find it declared.
type FencedError struct {
	Branch string
	Word   lock.Refusal
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("the server does not let this push to %s in (%s)", e.Branch, e.Word)
}

// declare tells a server that guards its branches what this push will do. Where none is known to ask, that would be time
// for nothing: the first push to a server that does is refused, and tried again.
func (p *pushing) declare(ctx context.Context) error {
	if !p.fenced && !slices.ContainsFunc(p.held.list, func(h *hold) bool { return h.lease.Guarded() }) {
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
	intents := map[string]lock.Update{}
	for _, u := range p.target.Updates {
		update := lock.Update{Ref: u.Ref, Old: p.expected(ctx, u.Ref)}
		if u.Src != "" {
			update.New, tips = tips[0], tips[1:]
		}
		zeros := strings.Repeat("0", max(len(update.Old), len(update.New), 40))
		if update.Old == "" {
			update.Old = zeros
		}
		if update.New == "" {
			update.New = zeros
		}
		intents[u.Ref] = update
	}
	for _, one := range p.held.list {
		u, ok := intents["refs/heads/"+one.lease.Key.Branch]
		if !ok {
			continue
		}
		if err := one.lease.Declare(ctx, p.f.Store, []lock.Update{u}); err != nil {
			return err
		}
	}
	return nil
}

// expected is the tip that a branch has at the server, as far as this clone knows; "" when it does not exist.
func (p *pushing) expected(ctx context.Context, ref string) string {
	if tip, ok := p.actual[ref]; ok {
		return tip
	}
	if l, ok := p.leases[ref]; ok && !l.Own {
		return l.Tip
	}
	if tracking := p.f.GitConfig.Tracking(p.target.Remote, ref); tracking != "" {
		return p.f.Git.Tip(ctx, tracking)
	}
	return ""
}

// heed prepares another try of a push that the server has refused as not under its lock. A lock that was lost stays so.
func (p *pushing) heed(ctx context.Context, word lock.Refusal, words []string) error {
	if err := p.held.again(ctx); err != nil {
		return err
	}
	if word != lock.RefusedMoved {
		return nil
	}
	p.actual = map[string]string{}
	for _, ref := range p.target.Branches {
		if _, leased := p.leases[ref]; leased {
			continue // it may overwrite that tip and no other
		}
		tip, err := p.f.Git.RemoteTip(ctx, p.url, ref)
		if err != nil {
			return err
		}
		p.actual[ref] = tip
	}
	return p.checkBase(ctx, words)
}
