package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

// eventJSON is an event as `events --json` prints it; docs/reference.md describes the fields, and
// they do not change.
type eventJSON struct {
	Time     time.Time `json:"time"`
	Lock     string    `json:"lock"`
	Key      string    `json:"key"`
	Type     string    `json:"type"`
	Who      string    `json:"who"`
	Run      string    `json:"run_url,omitempty"`
	Fence    string    `json:"fence,omitempty"`
	Wait     float64   `json:"wait_seconds"`
	Hold     float64   `json:"hold_seconds"`
	Position int       `json:"position"`
	Queue    int       `json:"queue"`
	Batch    int       `json:"batch,omitempty"`
	For      float64   `json:"for_seconds,omitempty"`
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

func (c *command) eventCommands(out *term.Printer) []*ucli.Command {
	since := &ucli.DurationFlag{Name: "since", Value: time.Hour, DefaultText: "1h", Usage: "how far to look back, such as `1h` or 30m"}
	one := func(name string, do verb) ucli.ActionFunc {
		return func(u *ucli.Context) error {
			if u.NArg() > 1 {
				return &usageError{verb: name, err: fmt.Errorf("unexpected argument %q", u.Args().Get(1))}
			}
			return c.with(u, out, do)
		}
	}
	return []*ucli.Command{
		{
			Name:      "events",
			Usage:     "list what happened to the locks",
			ArgsUsage: "[PATTERN]",
			Flags: []ucli.Flag{
				since,
				&ucli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as events happen"},
				&ucli.BoolFlag{Name: "json", Usage: "print one JSON object for each event"},
			},
			Action: one("events", eventsVerb),
		},
		{
			Name:      "stats",
			Usage:     "summarize waits, holds and failures of each lock",
			ArgsUsage: "[PATTERN]",
			Flags:     []ucli.Flag{since, &ucli.BoolFlag{Name: "json", Usage: "print one JSON object for each lock"}},
			Action:    one("stats", statsVerb),
		},
	}
}

func eventsVerb(ctx context.Context, u *ucli.Context, o *opened) error {
	var from time.Time
	seen := map[string]bool{}
	for {
		// The streams are read one by one: only what is older than the reading is surely complete
		// in all, and the rest is read again, and known.
		now, err := o.redis.Now(ctx)
		if err != nil {
			return err
		}
		if from.IsZero() {
			from = now.Add(overlap - u.Duration("since"))
		}
		events, err := o.redis.Events(ctx, from.Add(-overlap))
		if err != nil {
			return err
		}
		next := map[string]bool{}
		for _, e := range events {
			id := e.Lock + " " + e.ID
			next[id] = true
			if seen[id] || !named(u.Args().First(), e.Lock, e.Key.String()) {
				continue
			}
			if err := printEvent(u.App.Writer, e, u.Bool("json")); err != nil {
				return err
			}
		}
		if !u.Bool("follow") {
			return nil
		}
		from, seen = now, next
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func printEvent(w io.Writer, e redisstore.Event, asJSON bool) error {
	if asJSON {
		err := json.NewEncoder(w).Encode(eventJSON{
			Time: e.Time.UTC(), Lock: term.Clean(e.Key.String()), Key: term.Clean(e.Lock), Type: term.Clean(string(e.Type)), Who: term.Clean(e.Who), Run: term.Clean(e.Run),
			Fence: term.Clean(e.Fence), Wait: e.Wait.Seconds(), Hold: e.Hold.Seconds(), Position: e.Position, Queue: e.Queue, Batch: e.Batch,
			For: e.For.Seconds(), By: term.Clean(e.By), Reason: term.Clean(e.Reason),
		})
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	text := fmt.Sprintf("%s  %-13s %s  %s", e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), e.Type, e.Key, e.Who)
	if e.Type == lock.EventAcquired || e.Wait > 0 {
		text += "  waited " + term.Duration(e.Wait)
	}
	if e.Batch > 0 {
		text += fmt.Sprintf("  %d pushes", e.Batch)
	}
	if e.Hold > 0 {
		text += "  held " + term.Duration(e.Hold)
	}
	if e.For > 0 {
		text += "  for " + term.Duration(e.For)
	}
	if e.By != "" {
		text += "  by " + e.By
	}
	if e.Reason != "" {
		text += "  (" + e.Reason + ")"
	}
	_, err := fmt.Fprintln(w, term.Clean(text))
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// lockStats sums up the events of one lock; `stats --json` prints it.
type lockStats struct {
	Lock     string  `json:"lock"`
	Key      string  `json:"key"`
	Acquired int     `json:"acquired"`
	Released int     `json:"released"`
	Failures int     `json:"failures"` // lost, expired, gone, broken, timed out, rejected pushes
	Skipped  int     `json:"skipped"`  // or superseded
	Freezes  int     `json:"freezes"`
	Queue    int     `json:"longest_queue"`
	WaitP50  float64 `json:"wait_p50_seconds"`
	WaitP95  float64 `json:"wait_p95_seconds"`
	WaitMax  float64 `json:"wait_max_seconds"`
	HoldP50  float64 `json:"hold_p50_seconds"`
	HoldP95  float64 `json:"hold_p95_seconds"`
	HoldMax  float64 `json:"hold_max_seconds"`
	Batches  int     `json:"batches"`
	Largest  int     `json:"largest_batch"` // how many pushes went together
	Saved    int     `json:"pushes_saved"`
	waits    []time.Duration
	holds    []time.Duration
}

func summarize(events []redisstore.Event) []*lockStats {
	byLock := map[string]*lockStats{}
	for _, e := range events {
		s := byLock[e.Lock]
		if s == nil {
			s = &lockStats{Lock: term.Clean(e.Key.String()), Key: term.Clean(e.Lock)}
			byLock[e.Lock] = s
		}
		s.Queue = max(s.Queue, e.Queue)
		switch {
		case e.Type == lock.EventAcquired:
			s.Acquired++
			s.waits = append(s.waits, e.Wait)
		case e.Type == lock.EventReleased:
			s.Released++
			s.holds = append(s.holds, e.Hold)
		case e.Type == lock.EventBatchPushed:
			s.Batches++
			s.Largest = max(s.Largest, e.Batch)
			s.Saved += max(0, e.Batch-1)
		case e.Type.Bad():
			s.Failures++
		case e.Type == lock.EventSkipped || e.Type == lock.EventSuperseded:
			s.Skipped++
		case e.Type == lock.EventFrozen:
			s.Freezes++
		}
	}
	var all []*lockStats
	for _, lock := range slices.Sorted(maps.Keys(byLock)) {
		s := byLock[lock]
		s.WaitP50, s.WaitP95, s.WaitMax = quantiles(s.waits)
		s.HoldP50, s.HoldP95, s.HoldMax = quantiles(s.holds)
		all = append(all, s)
	}
	return all
}

// quantiles are the median, the 95th percentile (nearest rank) and the maximum, in seconds.
func quantiles(d []time.Duration) (p50, p95, most float64) {
	if len(d) == 0 {
		return 0, 0, 0
	}
	slices.Sort(d)
	rank := func(percent int) float64 { return d[(len(d)*percent+99)/100-1].Seconds() }
	return rank(50), rank(95), rank(100)
}

func statsVerb(ctx context.Context, u *ucli.Context, o *opened) error {
	now, err := o.redis.Now(ctx)
	if err != nil {
		return err
	}
	events, err := o.redis.Events(ctx, now.Add(-u.Duration("since")))
	if err != nil {
		return err
	}
	rows := [][]string{{"LOCK", "ACQUIRED", "WAIT P50", "P95", "MAX", "HOLD P50", "P95", "MAX", "FAILURES", "SKIPPED", "FREEZES", "LONGEST QUEUE", "BATCHES", "LARGEST", "PUSHES SAVED"}}
	enc := json.NewEncoder(u.App.Writer)
	for _, s := range summarize(events) {
		if !named(u.Args().First(), s.Key, s.Lock) {
			continue
		}
		if u.Bool("json") {
			if err := enc.Encode(s); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			continue
		}
		row := []string{s.Lock, strconv.Itoa(s.Acquired)}
		for _, seconds := range []float64{s.WaitP50, s.WaitP95, s.WaitMax, s.HoldP50, s.HoldP95, s.HoldMax} {
			row = append(row, term.Duration(time.Duration(seconds*float64(time.Second))))
		}
		for _, n := range []int{s.Failures, s.Skipped, s.Freezes, s.Queue, s.Batches, s.Largest, s.Saved} {
			row = append(row, strconv.Itoa(n))
		}
		rows = append(rows, row)
	}
	if u.Bool("json") {
		return nil
	}
	return term.Table(u.App.Writer, rows)
}
