package gitops

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// deadlock finds the circle that this wait would close. Only who holds a lock can be part of one:
// it says what its holds wait for, and follows what the holders before it wait for. All in a
// circle see it; the one who began to wait last gives up. An edge counts once its waiter has
// repeated it, so that one who no longer waits is part of no circle. watching reports whether this
// wait could be part of one.
func (p *policy) deadlock(ctx context.Context, a lock.Attempt) (watching bool, err error) {
	f := p.f
	mine := f.stuck(p.k)
	if len(mine) == 0 {
		return false, nil
	}
	edge := lock.Blocked{Lock: p.k.String(), Ticket: a.Ticket, Who: f.who(), Look: time.Now().UnixNano()}
	for _, share := range a.Holder.Shares {
		edge.Holders = append(edge.Holders, share.Token)
	}
	f.state.blocked = mine
	for _, t := range mine {
		if err := f.Store.Block(ctx, t, edge); err != nil {
			return true, err
		}
	}
	cycle, err := p.cycle(ctx, edge.Holders, mine)
	if err != nil {
		return true, err
	}
	looks, again := map[lock.Token]int64{}, len(cycle) > 0
	var edges []lock.Blocked
	for _, step := range cycle {
		looks[step.token] = step.edge.Look
		before, ok := p.last[step.token]
		again = again && ok && step.edge.Look > before
		edges = append(edges, step.edge)
	}
	if again && !slices.ContainsFunc(edges, func(b lock.Blocked) bool { return b.Ticket > a.Ticket }) {
		return true, &lock.DeadlockError{Key: p.k, Who: edge.Who, Cycle: edges}
	}
	if !again {
		for t := range looks { // the first look at each counts
			if before, ok := p.last[t]; ok {
				looks[t] = before
			}
		}
		p.last = looks
	}
	return true, nil
}

// step is one who waits, on the way round a circle.
type step struct {
	token lock.Token
	edge  lock.Blocked
}

// cycle follows what each of some holders waits for, and returns the way to one of the holds that
// are ours; nil when there is none.
func (p *policy) cycle(ctx context.Context, from, mine []lock.Token) ([]step, error) {
	const most = 1000
	ways := [][]step{}
	known := map[lock.Token]bool{}
	next := func(way []step, holders []lock.Token) {
		for _, t := range holders {
			if !known[t] {
				known[t] = true
				ways = append(ways, append(slices.Clone(way), step{token: t}))
			}
		}
	}
	next(nil, from)
	for i := 0; i < len(ways) && i < most; i++ {
		way := ways[i]
		at := &way[len(way)-1]
		edge, ok, err := p.f.Store.Blocked(ctx, at.token)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		at.edge = edge
		if slices.ContainsFunc(edge.Holders, func(t lock.Token) bool { return slices.Contains(mine, t) }) {
			return way, nil
		}
		next(way, edge.Holders)
	}
	return nil, nil
}

// stuck are the holds that cannot go on while this command waits for a lock: its own, and those of
// the processes above that wait for it.
func (f *Flows) stuck(k lock.Key) []lock.Token {
	var tokens []lock.Token
	for id, t := range f.state.taken {
		if id != k.ID() {
			tokens = append(tokens, t)
		}
	}
	for _, e := range f.heldAbove() {
		s := e.Record.Session
		low, alive := s.Lowest()
		if !alive || e.Key.ID() == k.ID() || !f.shares(s) && !low.IsShell() {
			continue
		}
		if background, known := session.Background(os.Getpid(), low); background && known || !low.Above(os.Getpid()) {
			continue
		}
		tokens = append(tokens, e.Own())
	}
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// unblock takes back what deadlock said, however the wait has ended: who waits no more is part of
// no circle.
func (f *Flows) unblock(ctx context.Context) {
	if len(f.state.blocked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timing().Release)
	defer cancel()
	for _, t := range f.state.blocked {
		_ = f.Store.Block(ctx, t, lock.Blocked{}) // else it expires
	}
	f.state.blocked = nil
}

// heldAbove are the locks of all sessions that this command may be part of.
func (f *Flows) heldAbove() []workspace.Entry {
	var entries []workspace.Entry
	for _, id := range session.Owners(os.Getpid()) {
		entries = append(entries, workspace.Held(id)...)
	}
	return entries
}
