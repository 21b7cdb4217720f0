package serve

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

// Timing of the one reader of Redis, however many browsers look.
const (
	readEvery = time.Second
	// readShare is how many times longer than a reading the pause after it is, so that a server with very many
	// locks is not read all the time.
	readShare = 20
	// restAfter ends the reading when nobody has looked for so long.
	restAfter = 15 * time.Second
	readTime  = 20 * time.Second
	// history is how far back the events go that the charts show, and eventsEvery how often those of locks that
	// seem quiet are read again.
	history     = 6 * time.Hour
	eventsEvery = 30 * time.Second
	mostEvents  = 50_000
	freeShown   = 15 * time.Minute
	overlap     = 30 * time.Second
)

// snapshot is what was read of Redis at one time. It does not change.
type snapshot struct {
	at     time.Time // by this machine's clock
	locks  []lockState
	events map[string][]redisstore.Event // by the ID of the lock, the oldest first
	failed time.Time                     // since when Redis cannot be read; zero: it can
	err    error                         // why
}

// lockState is a lock, and when things began by this machine's clock: fixed, so that what has not changed looks the same.
type lockState struct {
	lock.State
	since   time.Time   // of the hold
	arrived []time.Time // of each waiter
}

func (s *snapshot) find(id string) (lockState, bool) {
	for _, l := range s.locks {
		if l.Key.ID() == id {
			return l, true
		}
	}
	return lockState{}, false
}

// hub reads Redis while somebody looks, and tells those who follow that there is news.
type hub struct {
	store Store
	wake  chan struct{} // somebody looks again

	mu        sync.Mutex
	now       *snapshot
	resting   bool // now is old, because nobody looked
	looked    time.Time
	followers map[chan struct{}]bool
}

func newHub(store Store) *hub {
	return &hub{
		store: store, wake: make(chan struct{}, 1), resting: true,
		now: &snapshot{events: map[string][]redisstore.Event{}}, followers: map[chan struct{}]bool{},
	}
}

// look is the newest snapshot. It waits for a reading when the last one is old, because nobody looked.
func (h *hub) look(ctx context.Context) *snapshot {
	h.mu.Lock()
	h.looked = time.Now()
	stale := h.resting
	h.mu.Unlock()
	if stale {
		news, stop := h.follow()
		defer stop()
		select {
		case h.wake <- struct{}{}:
		default:
		}
		select {
		case <-news:
		case <-time.After(readTime):
		case <-ctx.Done():
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// follow tells of each new snapshot, by a channel that never blocks the reader.
func (h *hub) follow() (news <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	h.followers[c] = true
	h.mu.Unlock()
	return c, func() {
		h.mu.Lock()
		delete(h.followers, c)
		h.mu.Unlock()
	}
}

// run reads until ctx ends.
func (h *hub) run(ctx context.Context) {
	r := reader{store: h.store}
	for {
		began := time.Now()
		next := r.read(ctx, h.now)
		h.mu.Lock()
		h.now = next
		h.resting = len(h.followers) == 0 && time.Since(h.looked) > restAfter
		resting := h.resting
		for c := range h.followers {
			select {
			case c <- struct{}{}:
			default:
			}
		}
		h.mu.Unlock()

		pause, wake := time.After(max(readEvery, readShare*time.Since(began))), (<-chan struct{})(nil)
		if resting {
			pause, wake = nil, h.wake
		}
		select {
		case <-pause:
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}

// reader makes one snapshot after the other.
type reader struct {
	store  Store
	events time.Time // when all events were read last, by this machine's clock
	from   time.Time // until when, by the clock of Redis
	kept   map[string][]redisstore.Event
	seen   map[string]bool
}

func (r *reader) read(ctx context.Context, last *snapshot) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	at := time.Now()
	states, err := r.store.List(ctx)
	if err == nil && (time.Since(r.events) > eventsEvery || changed(states, last.locks)) {
		err = r.readEvents(ctx)
	}
	if err != nil {
		failed := *last // what was known last
		failed.err = err
		if failed.failed.IsZero() {
			failed.failed = at
		}
		return &failed
	}
	next := &snapshot{at: at, events: r.kept}
	before := map[string]lockState{}
	for _, l := range last.locks {
		before[l.Name] = l
	}
	for _, s := range states {
		next.locks = append(next.locks, settle(s, before[s.Name], at))
	}
	next.locks = append(next.locks, freed(states, r.kept, at)...)
	slices.SortFunc(next.locks, func(a, b lockState) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	return next
}

// freed are the locks that nobody holds now, but somebody did lately: a row of a page does not come and go with each hold.
func freed(states []lock.State, events map[string][]redisstore.Event, at time.Time) []lockState {
	busy := map[string]bool{}
	for _, s := range states {
		busy[s.Key.ID()] = true
	}
	var free []lockState
	for id, of := range events {
		last := of[len(of)-1]
		if !busy[id] && at.Sub(last.Time) < freeShown {
			free = append(free, lockState{State: lock.State{Key: last.Key, Name: last.Lock}})
		}
	}
	return free
}

// settle gives a lock its times: those of the last reading, for what has gone on since.
func settle(s lock.State, before lockState, at time.Time) lockState {
	l := lockState{State: s}
	if h := s.Holder; h != nil && h.Known {
		l.since = at.Add(-h.Age)
		if b := before.Holder; b != nil && b.Fence == h.Fence {
			l.since = before.since
		}
	}
	known := map[lock.Token]time.Time{}
	for i, w := range before.Waiters {
		known[w.Token] = before.arrived[i]
	}
	for _, w := range s.Waiters {
		arrived, ok := known[w.Token]
		if !ok {
			arrived = at.Add(-w.Age)
		}
		l.arrived = append(l.arrived, arrived)
	}
	return l
}

// changed reports whether a hold began or ended, or somebody came or went: then there are events.
func changed(states []lock.State, last []lockState) bool {
	before := map[string]lockState{}
	for _, l := range last {
		if l.Holder != nil || len(l.Waiters) > 0 {
			before[l.Name] = l
		}
	}
	if len(states) != len(before) {
		return true
	}
	for _, s := range states {
		b := before[s.Name]
		if len(s.Waiters) != len(b.Waiters) || (s.Holder == nil) != (b.Holder == nil) ||
			s.Holder != nil && b.Holder != nil && s.Holder.Fence != b.Holder.Fence {
			return true
		}
	}
	return false
}

func (r *reader) readEvents(ctx context.Context) error {
	now, err := r.store.Now(ctx)
	if err != nil {
		return err
	}
	if r.from.IsZero() {
		r.from = now.Add(overlap - history)
	}
	events, err := r.store.Events(ctx, r.from.Add(-overlap))
	if err != nil {
		return err
	}
	kept := map[string][]redisstore.Event{}
	n := 0
	for id, old := range r.kept {
		old = slices.DeleteFunc(slices.Clone(old), func(e redisstore.Event) bool { return e.Time.Before(now.Add(-history)) })
		if len(old) > 0 {
			kept[id] = old
			n += len(old)
		}
	}
	seen := map[string]bool{}
	for _, e := range events {
		mark := e.Lock + " " + e.ID
		seen[mark] = true
		if !r.seen[mark] && n < mostEvents {
			kept[e.Key.ID()] = append(kept[e.Key.ID()], e)
			n++
		}
	}
	r.kept, r.seen, r.from, r.events = kept, seen, now, time.Now()
	return nil
}
