package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

const (
	// scrapeTime bounds one reading of Redis: less than Prometheus waits by default.
	scrapeTime = 9 * time.Second
	// mostLabels is how many locks get metrics of their own, and longestLabel the bytes of their
	// names.
	mostLabels, longestLabel = 1000, 512
	// overlap is read again at each scrape, and known: the nodes of a Cluster may disagree on the
	// time by that much.
	overlap = 30 * time.Second
)

func (c *command) metricsCommand(out *term.Printer) *ucli.Command {
	return &ucli.Command{
		Name:      "metrics",
		Usage:     "print or serve metrics of the locks, for Prometheus",
		UsageText: "git gitops metrics [--once | --listen ADDR]",
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "once", Usage: "print the metrics, with the sums of all recorded events (the default)"},
			&ucli.StringFlag{Name: "listen", Usage: "serve the metrics on http://`ADDR`/metrics, such as 127.0.0.1:9377, and count events from then on"},
		},
		Action: func(u *ucli.Context) error {
			if u.Args().Present() {
				return &usageError{verb: "metrics", err: fmt.Errorf("unexpected argument %q", u.Args().First())}
			}
			if u.Bool("once") && u.IsSet("listen") {
				return &usageError{verb: "metrics", err: errors.New("use --once or --listen, not both")}
			}
			return c.with(u, out, func(ctx context.Context, u *ucli.Context, o *opened) error {
				return metricsVerb(ctx, u, o, out)
			})
		},
	}
}

func metricsVerb(ctx context.Context, u *ucli.Context, o *opened, out *term.Printer) error {
	m := newMetrics(o.redis)
	if u.IsSet("listen") {
		return serveMetrics(ctx, u.String("listen"), m, out)
	}
	return m.write(ctx, u.App.Writer) // gitops_redis_up 0 is printed all the same
}

// serveMetrics answers scrapes until ctx ends.
func serveMetrics(ctx context.Context, addr string, m *metrics, out *term.Printer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return &adminError{what: err.Error(), do: "git gitops metrics --listen 127.0.0.1:9377"}
	}
	m.skipPast(ctx)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", expositionType)
		_ = m.write(r.Context(), w) // that Redis is down is one of the metrics
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	out.Say("metrics are on http://%s/metrics; git gitops serve has them too, and a web page", listener.Addr())
	select {
	case err := <-ended:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
		_ = server.Close() // a scrape under way is cut: nothing is lost with it
		return ctx.Err()
	}
}

// metrics reads Redis at each scrape, and sums up the events since the one before.
type metrics struct {
	store *redisstore.Store

	mu     sync.Mutex // one scrape at a time
	past   bool       // the events that are there already do not count
	from   time.Time  // until when all events were read, by Redis' clock
	seen   map[string]bool
	newest time.Time

	events map[string]int // by type
	waits  *histogram
	holds  *histogram
}

func newMetrics(store *redisstore.Store) *metrics {
	seconds := []float64{0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600}
	return &metrics{
		store: store, seen: map[string]bool{}, events: map[string]int{},
		waits: newHistogram(seconds...), holds: newHistogram(seconds...),
	}
}

// write reads Redis and writes all metrics. When Redis cannot be read, only that and the sums so
// far are written, and the error says why.
func (m *metrics) write(ctx context.Context, w io.Writer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	var states []lock.State
	now, err := m.readEvents(ctx)
	if err == nil {
		states, err = m.store.List(ctx)
	}
	up := 1.0
	if err != nil {
		up = 0
	}
	x := &exposition{w: w}
	x.gauge("gitops_redis_up", "Whether Redis could be read at this scrape.", up)
	if err == nil {
		tellLocks(x, states)
		if !m.newest.IsZero() {
			x.gauge("gitops_event_lag_seconds", "Age of the newest event that was read, by the clock of Redis.", max(0, now.Sub(m.newest).Seconds()))
		}
	}
	x.counters("gitops_events_total", "What happened to the locks.", "type", m.events)
	x.histogram("gitops_wait_seconds", "Waits that ended with the lock.", m.waits)
	x.histogram("gitops_hold_seconds", "Lengths of holds that have ended.", m.holds)
	if err == nil && x.err != nil {
		err = fmt.Errorf("print: %w", x.err)
	}
	return err
}

// skipPast begins the sums with what happens from now on: those of another run must not be added to
// these.
func (m *metrics) skipPast(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past = true
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	_, _ = m.readEvents(ctx) // if Redis is down, the first scrape that reads it does this
}

// readEvents adds the events since the last reading to the sums, and returns the time at Redis.
func (m *metrics) readEvents(ctx context.Context) (time.Time, error) {
	// The streams are read one by one. Only what is older than the reading is surely complete in
	// all.
	now, err := m.store.Now(ctx)
	if err != nil {
		return now, err
	}
	if m.past && m.from.IsZero() {
		m.from = now
	}
	events, err := m.store.Events(ctx, m.from.Add(-overlap))
	if err != nil {
		return now, err
	}
	seen := map[string]bool{}
	for _, e := range events {
		id := e.Lock + " " + e.ID
		known := m.seen[id]
		if e.Time.After(now.Add(-2 * overlap)) {
			seen[id] = true
		}
		if e.Time.After(m.newest) {
			m.newest = e.Time
		}
		if !known && !m.past {
			m.count(e)
		}
	}
	m.from, m.seen, m.past = now, seen, false
	return now, nil
}

// count adds one event to the sums. Anybody may have written it, so that its type is not any text.
func (m *metrics) count(e redisstore.Event) {
	switch {
	case e.Type == lock.EventAcquired:
		m.waits.observe(e.Wait.Seconds())
	case e.Type.EndsHold():
		m.holds.observe(e.Hold.Seconds())
	case !slices.Contains(lock.EventTypes(), e.Type):
		e.Type = "other"
	}
	m.events[string(e.Type)]++
}

// tellLocks writes the metrics of the locks as they are.
func tellLocks(x *exposition, states []lock.State) {
	var held, waiters int
	var oldest time.Duration
	wait := make(map[string]time.Duration, len(states)) // of the longest waiting one
	for i, s := range states {
		s.Waiters = slices.DeleteFunc(slices.Clone(s.Waiters), func(w lock.Waiter) bool { return !w.Alive })
		states[i] = s
		if s.Holder != nil {
			held++
		}
		waiters += len(s.Waiters)
		for _, w := range s.Waiters {
			wait[s.Name] = max(wait[s.Name], w.Age)
		}
		oldest = max(oldest, wait[s.Name])
	}
	x.gauge("gitops_locks_held", "Locks that are held.", float64(held))
	x.gauge("gitops_waiters", "Pipelines that wait for a lock.", float64(waiters))
	x.gauge("gitops_oldest_wait_seconds", "The longest wait so far of all pipelines that wait.", oldest.Seconds())

	slices.SortStableFunc(states, func(a, b lock.State) int {
		return cmp.Or(cmp.Compare(len(b.Waiters), len(a.Waiters)), cmp.Compare(age(b), age(a)))
	})
	seen := map[string]bool{}
	states = slices.DeleteFunc(states[:min(len(states), mostLabels)], func(s lock.State) bool {
		label := labelOf(s)
		again := seen[label] // cleaned, two names may be one
		seen[label] = true
		return again
	})
	x.family("gitops_lock_held_seconds", "gauge", "How long a lock has been held so far. At most 1,000 locks are listed, those with the most waiters first.")
	for _, s := range states {
		if s.Holder != nil && s.Holder.Known {
			x.sample("gitops_lock_held_seconds", age(s).Seconds(), "lock", labelOf(s))
		}
	}
	x.family("gitops_lock_waiters", "gauge", "Pipelines that wait for this lock.")
	for _, s := range states {
		x.sample("gitops_lock_waiters", float64(len(s.Waiters)), "lock", labelOf(s))
	}
	x.family("gitops_lock_frozen", "gauge", "1 while this lock is frozen, else 0.")
	for _, s := range states {
		frozen := 0.0
		if s.Freeze.Frozen() {
			frozen = 1
		}
		x.sample("gitops_lock_frozen", frozen, "lock", labelOf(s))
	}
	x.family("gitops_lock_oldest_wait_seconds", "gauge", "The longest wait so far of the pipelines that wait for this lock.")
	for _, s := range states {
		x.sample("gitops_lock_oldest_wait_seconds", wait[s.Name].Seconds(), "lock", labelOf(s))
	}
}

func age(s lock.State) time.Duration {
	if s.Holder == nil {
		return 0
	}
	return s.Holder.Age
}

// labelOf is a lock's name for people, bounded and clean.
func labelOf(s lock.State) string {
	text := s.Key.String()
	return strings.ToValidUTF8(term.Clean(text[:min(len(text), longestLabel)]), "")
}
