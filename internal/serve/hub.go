package serve

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

// Timing of the one reader of Redis, however many browsers look.
const (
	readEvery = time.Second
	// readShare is how many times longer than a reading the pause after it is, so that a server
	// with very many locks is not read all the time.
	readShare = 20
	// readLeast is the longest pause all the same.
	readLeast = 5 * time.Second
	// restAfter ends the reading when nobody has looked for so long.
	restAfter = 15 * time.Second
	readTime  = 20 * time.Second
	// history is how far back the events go that the charts show, and eventsEvery how often those
	// of locks that seem quiet are read again.
	history     = 6 * time.Hour
	eventsEvery = 30 * time.Second
	mostEvents  = 100_000
	freeShown   = 15 * time.Minute
	overlap     = 30 * time.Second
)

// snapshot is what was read of Redis at one time. It does not change.
type snapshot struct {
	at     time.Time    // by this machine's clock
	states []lock.State // as they were read
	locks  []*lockState // sorted by name; one that has not changed is that of the last snapshot
	byID   map[string]*lockState
	events map[string][]redisstore.Event // by the ID of the lock, the oldest first
	failed time.Time                     // since when Redis cannot be read; zero: it can
	err    error                         // why
}

// lockState is a lock without what time alone changes: when things began is by this machine's
// clock.
type lockState struct {
	lock.State
	since   time.Time   // of the hold
	arrived []time.Time // of each waiter
	until   time.Time   // of the freeze; zero: it is not frozen
	events  []redisstore.Event
}

// hub reads Redis while somebody looks, and tells those who follow that there is news.
type hub struct {
	store Store
	warn  func(format string, args ...any)
	wake  chan struct{} // somebody looks again

	mu        sync.Mutex
	now       *snapshot
	resting   bool // now is old, because nobody looked
	looked    time.Time
	followers map[chan struct{}]bool
}

func newHub(store Store, warn func(string, ...any)) *hub {
	return &hub{
		store: store, warn: warn, wake: make(chan struct{}, 1), resting: true,
		now: &snapshot{events: map[string][]redisstore.Event{}}, followers: map[chan struct{}]bool{},
	}
}

// look is the newest snapshot. It waits for a reading when the last one is old, because nobody
// looked.
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
		h.tell(next)
		h.mu.Lock()
		news := h.resting || !next.same(h.now)
		h.now = next
		h.resting = len(h.followers) == 0 && time.Since(h.looked) > restAfter
		resting := h.resting
		for c := range h.followers {
			if !news {
				break
			}
			select {
			case c <- struct{}{}:
			default:
			}
		}
		h.mu.Unlock()

		pause, wake := time.After(min(readLeast, max(readEvery, readShare*time.Since(began)))), (<-chan struct{})(nil)
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

// tell says in the server's log that Redis cannot be read, and why, and that it can be read again.
func (h *hub) tell(next *snapshot) {
	switch was := h.now.err != nil; {
	case next.err != nil && !was:
		h.warn("cannot read Redis (%v): the page shows the last known state, and tries again", next.err)
	case next.err == nil && was:
		h.warn("Redis can be read again")
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
	next := &snapshot{at: at, states: states, byID: map[string]*lockState{}, events: r.kept}
	for _, s := range slices.Concat(states, freed(states, r.kept, at)) {
		id := s.Key.ID()
		before := last.byID[id]
		l := settle(s, before, at)
		if l.events = r.kept[id]; l.same(before) {
			l = before
		}
		next.locks = append(next.locks, l)
		next.byID[id] = l
	}
	slices.SortFunc(next.locks, func(a, b *lockState) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	return next
}

// freed are the locks that nobody holds now, but somebody did lately: a row of a page does not come
// and go with each hold.
func freed(states []lock.State, events map[string][]redisstore.Event, at time.Time) []lock.State {
	busy := map[string]bool{}
	for _, s := range states {
		busy[s.Key.ID()] = true
	}
	var free []lock.State
	for id, of := range events {
		last := of[len(of)-1]
		if !busy[id] && at.Sub(last.Time) < freeShown {
			free = append(free, lock.State{Key: last.Key, Name: last.Lock})
		}
	}
	return free
}

// settle gives a lock its times: those of the last reading, for what has gone on since.
func settle(s lock.State, before *lockState, at time.Time) *lockState {
	if before == nil {
		before = &lockState{}
	}
	l := &lockState{State: s}
	if s.Holder != nil {
		h := *s.Holder
		if h.Known {
			l.since = at.Add(-h.Age)
			if b := before.Holder; b != nil && b.Fence == h.Fence {
				l.since = before.since
			}
		}
		h.Age, h.Left = 0, 0
		l.Holder = &h
	}
	if f := s.Freeze; f.Frozen() {
		l.until = at.Add(f.Left)
		if apart := l.until.Sub(before.until); apart.Abs() < 2*time.Second {
			l.until = before.until
		}
	}
	l.Freeze.Age, l.Freeze.Left = 0, 0
	known := map[lock.Token]time.Time{}
	for i, w := range before.Waiters {
		known[w.Token] = before.arrived[i]
	}
	l.Waiters = slices.Clone(s.Waiters)
	for i, w := range l.Waiters {
		arrived, ok := known[w.Token]
		if !ok {
			arrived = at.Add(-w.Age)
		}
		l.arrived = append(l.arrived, arrived)
		l.Waiters[i].Age = 0
	}
	return l
}

// same reports whether a page shows both alike.
func (l *lockState) same(o *lockState) bool {
	return o != nil && l.until.Equal(o.until) && reflect.DeepEqual(l.State, o.State) && sameEvents(l.events, o.events)
}

// sameEvents compares two parts of the events of one lock.
func sameEvents(a, b []redisstore.Event) bool {
	return len(a) == len(b) && (len(a) == 0 || a[0].ID == b[0].ID && a[len(a)-1].ID == b[len(b)-1].ID)
}

// same reports whether the pages of both look alike.
func (s *snapshot) same(o *snapshot) bool {
	return s.failed.Equal(o.failed) && slices.Equal(s.locks, o.locks)
}

// changed reports whether a hold began or ended, or somebody came or went: then there are events.
func changed(states []lock.State, last []*lockState) bool {
	before := map[string]*lockState{}
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
		if b == nil || len(s.Waiters) != len(b.Waiters) || (s.Holder == nil) != (b.Holder == nil) ||
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
		if old = since(old, now.Add(-history)); len(old) > 0 {
			kept[id] = old
			n += len(old)
		}
	}
	seen := map[string]bool{}
	for _, e := range events {
		mark := e.Lock + " " + e.ID
		seen[mark] = true
		if !r.seen[mark] {
			kept[e.Key.ID()] = append(kept[e.Key.ID()], shorten(e))
			n++
		}
	}
	if n > mostEvents {
		forget(kept, n-mostEvents)
	}
	r.kept, r.seen, r.from, r.events = kept, seen, now, time.Now()
	return nil
}

// shorten makes an event whose texts are no longer than a page shows them: anybody may have written
// it.
func shorten(e redisstore.Event) redisstore.Event {
	for _, text := range []*string{(*string)(&e.Type), &e.Who, &e.Run, &e.Fence, &e.By, &e.Reason} {
		*text = term.Clean(*text)
	}
	return e
}

// forget drops the n oldest events.
func forget(kept map[string][]redisstore.Event, n int) {
	var times []int64
	for _, of := range kept {
		for _, e := range of {
			times = append(times, e.Time.UnixMilli())
		}
	}
	slices.Sort(times)
	for id, of := range kept {
		if kept[id] = since(of, time.UnixMilli(times[n])); len(kept[id]) == 0 {
			delete(kept, id)
		}
	}
}

// since are the events from a time on. They are not copied: earlier snapshots have them too.
func since(events []redisstore.Event, t time.Time) []redisstore.Event {
	first := 0
	for first < len(events) && events[first].Time.Before(t) {
		first++
	}
	return slices.Clip(events[first:])
}
