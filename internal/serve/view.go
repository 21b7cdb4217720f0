package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

const (
	stripSpan   = 2 * time.Hour // of the list; the page of one lock shows all of the history
	shownEvents = 50
	shownQueue  = 3 // waiters of a lock that the list shows
	estimated   = 20
)

// lockView is a lock as a page shows it. All of its text is clean.
type lockView struct {
	Part, ID, Name, Repo, Branch, Narrow, Key string

	Holder  *personView
	Gone    bool   // none of the holder's processes is there
	HoldID  string // names this hold, and no later one
	Since   time.Time
	Expires string
	Waiters []waiterView
	More    int // waiters that the list does not show
	Strip   strip
}

type personView struct {
	Who, Command, Purpose, Job, Run string
	PID                             int
}

type waiterView struct {
	Position int
	personView
	Since    time.Time
	Silent   bool
	Estimate string
}

type eventView struct {
	At                time.Time
	Type, Who, By, Do string
	Bad               bool
	Detail            string
}

func newPerson(r lock.Record) personView {
	p := personView{
		Who: term.Clean(r.User + "@" + r.Host), Command: term.Clean(r.Command), Purpose: term.Clean(r.Purpose),
		Job: term.Clean(r.Job), PID: r.PID,
	}
	// Anybody may have written it: only what is a page of the web becomes a link.
	if u, err := url.Parse(r.RunURL); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
		p.Run = term.Clean(u.String())
	}
	if p.Job == "" && p.Run != "" {
		p.Job = "CI run"
	}
	return p
}

// newLock is a lock as it is at a time. Nothing in it changes by time alone but the strip, each minute.
func newLock(l lockState, events []redisstore.Event, now time.Time, span time.Duration) lockView {
	v := lockView{
		Part: partID(l.Key.ID()), ID: l.Key.ID(), Name: term.Clean(l.Key.String()), Key: term.Clean(l.Name),
		Repo: term.Clean(l.Key.Repo), Branch: term.Clean(l.Key.Branch), Narrow: term.Clean(l.Key.Name), Since: l.since,
	}
	if v.Repo == "" {
		v.Repo = v.Key
	}
	if h := l.Holder; h != nil {
		p := personView{Who: "a script with SET NX of its own"}
		if h.Known {
			p = newPerson(h.Record)
		}
		v.Holder, v.HoldID, v.Gone = &p, h.ID(), h.Presence == lock.Absent
	}
	hold := typical(events)
	ahead := time.Duration(0)
	if hold > 0 && l.Holder != nil {
		ahead = max(0, hold-now.Sub(l.since))
	}
	for i, w := range l.Waiters {
		wv := waiterView{Position: i + 1, personView: newPerson(w.Record), Since: l.arrived[i], Silent: !w.Alive}
		if hold > 0 {
			wv.Estimate = "about " + rough(ahead+time.Duration(i)*hold)
		}
		v.Waiters = append(v.Waiters, wv)
	}
	v.Strip = newStrip(l, events, now, span)
	return v
}

// typical is the median of the last holds; 0 when none is known.
func typical(events []redisstore.Event) time.Duration {
	var holds []time.Duration
	for _, e := range slices.Backward(events) {
		if endsHold(e.Type) && len(holds) < estimated {
			holds = append(holds, e.Hold)
		}
	}
	if len(holds) == 0 {
		return 0
	}
	slices.Sort(holds)
	return max(holds[len(holds)/2], time.Second)
}

// rough is a time as an estimate tells it: no more exact than it can be.
func rough(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "10 s"
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", 10*int(d.Round(10*time.Second)/(10*time.Second)))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute)/time.Minute))
	default:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour)/time.Hour))
	}
}

func endsHold(kind string) bool {
	switch kind {
	case "released", "expired", "broken", "gone":
		return true
	default:
		return false
	}
}

func bad(kind string) bool {
	switch kind {
	case "expired", "broken", "gone", "lost", "timed_out", "push_rejected":
		return true
	default:
		return false
	}
}

// newEvents are the last events, the newest first.
func newEvents(events []redisstore.Event) []eventView {
	var all []eventView
	for _, e := range slices.Backward(events) {
		if len(all) == shownEvents {
			break
		}
		v := eventView{
			At: e.Time, Type: strings.ReplaceAll(term.Clean(e.Type), "_", " "), Who: term.Clean(e.Who),
			By: term.Clean(e.By), Bad: bad(e.Type), Detail: term.Clean(e.Reason),
		}
		switch {
		case e.Wait > 0:
			v.Do = "waited " + term.Duration(e.Wait.Round(time.Second))
		case e.Hold > 0:
			v.Do = "held " + term.Duration(e.Hold.Round(time.Second))
		}
		all = append(all, v)
	}
	return all
}

// strip is who held a lock through the last hours, from left to right, in thousandths of the span.
type strip struct {
	Bars []bar
	From string // how long ago the left edge is
}

type bar struct {
	X, Width int
	Class    string // held, now or bad
	Title    string
}

// newStrip ends with the present minute, so that it changes once in a minute only.
func newStrip(l lockState, events []redisstore.Event, now time.Time, span time.Duration) strip {
	right := now.Truncate(time.Minute).Add(time.Minute)
	left := right.Add(-span)
	at := func(t time.Time) int {
		return int(min(max(0, t.Sub(left)), span) * 1000 / span)
	}
	s := strip{From: rough(span)}
	for _, e := range events {
		if !endsHold(e.Type) || e.Time.Before(left) {
			continue
		}
		class := "held"
		if bad(e.Type) {
			class = "bad"
		}
		x := at(e.Time.Add(-e.Hold))
		s.Bars = append(s.Bars, bar{
			X: x, Width: max(2, at(e.Time)-x), Class: class,
			Title: fmt.Sprintf("%s, %s, %s", term.Clean(e.Who), term.Duration(e.Hold.Round(time.Second)), strings.ReplaceAll(term.Clean(e.Type), "_", " ")),
		})
	}
	if l.Holder != nil && !l.since.IsZero() {
		x := at(l.since)
		s.Bars = append(s.Bars, bar{X: x, Width: max(2, 1000-x), Class: "now", Title: newPerson(l.Holder.Record).Who})
	}
	return s
}

// chart is how many waits or holds took how long.
type chart struct {
	Title string
	Bars  []chartBar
	Count int
	Text  string // the same in words
}

type chartBar struct {
	X, Y, Height, N int
	Label           string
}

var chartBounds = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour,
}

const chartHeight, chartStep = 60, 32

func newChart(title string, values []time.Duration) chart {
	counts := make([]int, len(chartBounds)+1)
	for _, v := range values {
		i, _ := slices.BinarySearch(chartBounds, v)
		counts[i]++
	}
	c := chart{Title: title, Count: len(values), Text: "none yet"}
	most := max(1, slices.Max(counts))
	for i, n := range counts {
		label := "more"
		if i < len(chartBounds) {
			label = "≤" + short(chartBounds[i])
		}
		h := n * chartHeight / most
		if n > 0 {
			h = max(h, 2)
		}
		c.Bars = append(c.Bars, chartBar{X: i * chartStep, Y: chartHeight - h, Height: h, N: n, Label: label})
	}
	if len(values) > 0 {
		slices.Sort(values)
		c.Text = fmt.Sprintf("median %s, longest %s", term.Duration(values[len(values)/2].Round(time.Second)), term.Duration(values[len(values)-1].Round(time.Second)))
	}
	return c
}

func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	default:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
}

func newCharts(events []redisstore.Event) []chart {
	var waits, holds []time.Duration
	for _, e := range events {
		switch {
		case e.Type == "acquired":
			waits = append(waits, e.Wait)
		case endsHold(e.Type):
			holds = append(holds, e.Hold)
		}
	}
	return []chart{newChart("Waits", waits), newChart("Holds", holds)}
}

// partID is the element of a lock in the list.
func partID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "l" + hex.EncodeToString(sum[:8])
}

// sortEvents puts events of several locks in order.
func sortEvents(events []redisstore.Event) {
	slices.SortStableFunc(events, func(a, b redisstore.Event) int { return a.Time.Compare(b.Time) })
}
