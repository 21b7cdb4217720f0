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
	shownQueue  = 3   // waiters of a lock that the list shows
	shownPlaces = 200 // that its own page shows
	mostLanes   = 8
	estimated   = 20
)

// lockView is a lock as a page shows it. All of its text is clean.
type lockView struct {
	Part, ID, Name, Host, Repo, Branch, Narrow, Key string

	State   string // absent, frozen, waiting, held or free
	Frozen  *freezeView
	Holder  *personView
	HoldID  string // names this hold, and no later one
	Since   time.Time
	Shares  []string // who else holds it
	Waiters []waiterView
	Count   int // of all waiters
	More    int // of those that are not shown
	Strip   strip
}

type freezeView struct {
	Until             time.Time
	By, Reason, Scope string // Scope: what was frozen with it; "": nothing
}

type personView struct {
	Who, Command, Purpose, Job, Run string
	PID                             int
	Gone                            bool
}

type waiterView struct {
	Position int
	personView
	Since  time.Time
	Silent bool
	Turn   time.Time // when it is likely to get the lock; zero: not known
	Least  int       // seconds that those before it will need after the present hold
}

// left is about how long a waiter will still wait. The page's script says the same as time goes on.
func (w waiterView) left(now time.Time, about string) string {
	d := max(w.Turn.Sub(now), time.Duration(w.Least)*time.Second)
	if d < 5*time.Second {
		return "soon"
	}
	return about + rough(d)
}

type eventView struct {
	At                     time.Time
	Type, Who, Run, By, Do string
	Bad                    bool
	Detail                 string
}

func newPerson(r lock.Record) personView {
	p := personView{
		Who: person(r), Command: term.Clean(r.Command), Purpose: term.Clean(r.Purpose), Job: term.Clean(r.Job), PID: r.PID,
		Run: webPage(r.RunURL),
	}
	if p.Job == "" && p.Run != "" {
		p.Job = "CI run"
	}
	return p
}

func person(r lock.Record) string { return term.Clean(r.User + "@" + r.Host) }

// webPage is a URL that may become a link, else "": anybody may have written it.
func webPage(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	return term.Clean(u.String())
}

// newLock is a lock. Nothing in it changes by time alone.
func newLock(l *lockState, now time.Time, span time.Duration) lockView {
	v := lockView{
		Part: partID(l.Key.ID()), ID: l.Key.ID(), Name: term.Clean(l.Key.String()), Key: term.Clean(l.Name),
		Repo: term.Clean(l.Key.Repo), Branch: term.Clean(l.Key.Branch), Narrow: term.Clean(l.Key.Name), Since: l.since,
		State: "free", Count: len(l.Waiters),
	}
	if v.Repo == "" {
		v.Repo = v.Key
	}
	if host, rest, ok := strings.Cut(v.Repo, "/"); ok && strings.Contains(host, ".") {
		v.Host, v.Repo = host, rest
	}
	if h := l.Holder; h != nil {
		p := personView{Who: "a script that uses SET NX itself"}
		if h.Known {
			p = newPerson(h.Record)
		}
		v.State, p.Gone = "held", h.Presence == lock.Absent
		v.Holder, v.HoldID = &p, h.ID()
		for _, s := range h.Shares {
			if s.Token != h.Token {
				v.Shares = append(v.Shares, person(s.Record))
			}
		}
	}
	switch {
	case v.Holder != nil && v.Holder.Gone:
		v.State = "absent"
	case !l.until.IsZero():
		v.State = "frozen"
	case v.Count > 0:
		v.State = "waiting"
	}
	if !l.until.IsZero() {
		what := map[lock.Scope]string{lock.ItsBranch: "branch", lock.WholeRemote: "repository"}
		v.Frozen = &freezeView{Until: l.until, By: person(l.Freeze.By), Reason: term.Clean(l.Freeze.Reason), Scope: what[l.Freeze.Scope]}
	}
	hold := typical(l.events)
	for i, w := range l.Waiters {
		wv := waiterView{Position: i + 1, personView: newPerson(w.Record), Since: l.arrived[i], Silent: !w.Alive}
		if hold > 0 && !l.since.IsZero() && l.until.IsZero() {
			wait := time.Duration(i) * hold
			wv.Turn, wv.Least = l.since.Add(hold+wait).Truncate(time.Second), int(wait/time.Second)
		}
		v.Waiters = append(v.Waiters, wv)
	}
	v.Strip = newStrip(l, now, span)
	return v
}

// typical is the median of the last holds; 0 when none is known.
func typical(events []redisstore.Event) time.Duration {
	var holds []time.Duration
	for _, e := range slices.Backward(events) {
		if e.Type.EndsHold() && len(holds) < estimated {
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

// newEvents are the last events, the newest first. Whoever is handed a lock acquires it in the next
// moment: that is shown once.
func newEvents(events []redisstore.Event) []eventView {
	var all []eventView
	acquired := map[string]bool{}
	for _, e := range slices.Backward(events) {
		if len(all) == shownEvents {
			break
		}
		if e.Type == lock.EventAcquired {
			acquired[e.Fence] = true
		}
		if e.Type == lock.EventHandedOver && acquired[e.Fence] {
			continue
		}
		v := eventView{
			At: e.Time, Type: strings.ReplaceAll(term.Clean(string(e.Type)), "_", " "), Who: term.Clean(e.Who), Run: webPage(e.Run),
			By: term.Clean(e.By), Bad: e.Type.Bad(), Detail: term.Clean(e.Reason),
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

// strip is when a lock was held. Its bars are in seconds since Base, so that they do not change as
// time goes on: what moves is the part of them that is seen, which ends with the present.
type strip struct {
	Bars []bar
	Base int64 // seconds since 1970, and not long ago: browsers count in 32-bit numbers
	Span int64 // seconds
	Text string
}

// View is the part of a strip that is seen at a time. The page's script says the same as time goes
// on.
func (s strip) View(now time.Time) string {
	return fmt.Sprintf("%d 0 %d 20", now.Unix()/viewStep*viewStep+viewStep-s.Span-s.Base, s.Span)
}

// viewStep is how often a strip moves, in seconds.
const viewStep = 10

type bar struct {
	X, Width int64
	Class    string // held, other (to distinguish one hold from the next), now or bad
	Title    string

	who string
}

func newStrip(l *lockState, now time.Time, span time.Duration) strip {
	seconds := int64(span / time.Second)
	s := strip{Base: now.Truncate(24 * time.Hour).Unix(), Span: seconds}
	least := seconds / 500 // that can be seen
	for _, e := range l.events {
		if !e.Type.EndsHold() || now.Sub(e.Time) > span {
			continue
		}
		class := [...]string{"held", "other"}[len(s.Bars)%2]
		if e.Type.Bad() {
			class = "bad"
		}
		who, _, _ := strings.Cut(term.Clean(e.Who), " (")
		hold := min(e.Hold, span)
		s.Bars = append(s.Bars, bar{
			X: e.Time.Add(-hold).Unix() - s.Base, Width: max(least, int64(hold/time.Second)), Class: class, who: who,
			Title: fmt.Sprintf("%s, %s, %s", who, term.Duration(e.Hold.Round(time.Second)), strings.ReplaceAll(term.Clean(string(e.Type)), "_", " ")),
		})
	}
	s.Text = fmt.Sprintf("%d holds ended in the last %s", len(s.Bars), rough(span))
	if l.Holder != nil && !l.since.IsZero() {
		x, who := max(l.since.Unix(), now.Unix()-seconds)-s.Base, person(l.Holder.Record)
		s.Bars = append(s.Bars, bar{X: x, Width: 48 * 60 * 60, Class: "now", Title: who + ", now", who: who}) // beyond the right edge
	}
	return s
}

// Paths draws the bars in as few words as possible, for a list of very many locks. Those that touch
// become one.
func (s strip) Paths() []path {
	paths := []path{{Class: "held"}, {Class: "other"}, {Class: "bad"}, {Class: "now"}}
	for i := 0; i < len(s.Bars); i++ {
		b := s.Bars[i]
		for i+1 < len(s.Bars) && s.Bars[i+1].Class != "now" && s.Bars[i+1].Class != "bad" && b.Class != "bad" && s.Bars[i+1].X <= b.X+b.Width+s.Span/1000 {
			i++
			b.Width = s.Bars[i].X + s.Bars[i].Width - b.X
		}
		for j := range paths {
			if paths[j].Class == b.Class {
				paths[j].D += fmt.Sprintf("M%d 0h%dv20h-%dz", b.X, b.Width, b.Width)
			}
		}
	}
	return slices.DeleteFunc(paths, func(p path) bool { return p.D == "" })
}

// path is all bars of a class.
type path struct{ Class, D string }

// lane is one who held a lock, in its chart.
type lane struct {
	Who, Text string
	Bars      []bar
}

// newLanes are those who held a lock last, one lane each; the last lane is of all others.
func newLanes(s strip) []lane {
	var lanes []lane
	place := map[string]int{}
	for _, b := range slices.Backward(s.Bars) {
		i, ok := place[b.who]
		if !ok {
			i = min(len(lanes), mostLanes)
			place[b.who] = i
			if i == len(lanes) {
				lanes = append(lanes, lane{Who: b.who})
			}
		}
		lanes[i].Bars = append(lanes[i].Bars, b)
	}
	if others := len(place) - mostLanes; others > 1 {
		lanes[mostLanes].Who = fmt.Sprintf("%d others", others)
	}
	for i := range lanes {
		n := len(lanes[i].Bars)
		lanes[i].Text = fmt.Sprintf("%d holds", n)
		if n == 1 {
			lanes[i].Text = "1 hold"
		}
	}
	return lanes
}

// chart is how many waits or holds took how long.
type chart struct {
	Title string
	Bars  []column
	Count int
	Text  string // the same in words
}

type column struct {
	X, Y, Height, N int
	Middle, Above   int // where its texts are
	Label           string
}

var chartBounds = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour,
}

const chartTop, chartHeight, chartStep, chartBar = 12, 60, 32, 28

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
		y := chartTop + chartHeight - h
		c.Bars = append(c.Bars, column{X: i * chartStep, Y: y, Height: h, N: n, Middle: i*chartStep + chartBar/2, Above: y - 3, Label: label})
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
		case e.Type == lock.EventAcquired:
			waits = append(waits, e.Wait)
		case e.Type.EndsHold():
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
