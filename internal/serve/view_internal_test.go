package serve

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

// ended are holds of one lock that ended one after the other, a minute apart, the last one now.
func ended(now time.Time, holds ...time.Duration) []redisstore.Event {
	var events []redisstore.Event
	for i, hold := range holds {
		at := now.Add(-time.Duration(len(holds)-1-i) * time.Minute)
		events = append(events,
			redisstore.Event{ID: fmt.Sprint(i, "a"), Time: at, Type: "acquired", Who: fmt.Sprintf("u%d@h (clone)", i), Wait: hold},
			redisstore.Event{ID: fmt.Sprint(i, "b"), Time: at, Type: "released", Who: fmt.Sprintf("u%d@h (clone)", i), Hold: hold})
	}
	return events
}

// A waiter's turn comes when the present hold and one for each before it have taken the usual time;
// it is not said to come sooner because the holder takes longer.
func TestNewLock_estimate(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	l := &lockState{
		State:   lock.State{Holder: &lock.Holder{Known: true}, Waiters: make([]lock.Waiter, 3)},
		since:   now.Add(-40 * time.Second),
		arrived: make([]time.Time, 3),
		events:  ended(now, time.Hour, time.Minute, time.Minute, 2*time.Minute, 2*time.Minute, 2*time.Minute),
	}
	v := newLock(l, now, history)
	for _, c := range []struct {
		after time.Duration
		want  [3]string
	}{
		{0, [3]string{"about 80 s", "about 3 min", "about 5 min"}},
		{70 * time.Second, [3]string{"about 10 s", "about 2 min", "about 4 min"}},
		{time.Hour, [3]string{"soon", "about 2 min", "about 4 min"}},
	} {
		for i, want := range c.want {
			if got := v.Waiters[i].left(now.Add(c.after), "about "); got != want {
				t.Errorf("place %d after %s: %s, want %s", i+1, c.after, got, want)
			}
		}
	}
	l.events = nil
	if v := newLock(l, now, history); !v.Waiters[0].Turn.IsZero() {
		t.Error("an estimate from nothing")
	}
	if got := typical(ended(now, append(make([]time.Duration, 30), repeat(time.Minute, 20)...)...)); got != time.Minute {
		t.Errorf("a usual hold of %s: only the last 20 count", got)
	}
}

func repeat(d time.Duration, n int) (all []time.Duration) {
	for range n {
		all = append(all, d)
	}
	return all
}

func TestRough(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		5 * time.Second: "10 s", 44 * time.Second: "40 s", 89 * time.Second: "90 s", 100 * time.Second: "2 min",
		89 * time.Minute: "89 min", 100 * time.Minute: "2 h", 6 * time.Hour: "6 h",
	} {
		if got := rough(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// A row for streams whose times are written in afterwards is the one that the template would have
// made.
func TestFill(t *testing.T) {
	t.Parallel()
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	l := &lockState{
		State: lock.State{
			Key:    lock.Key{Repo: `git.example.com/a"><time data-since="7"></time>`, Branch: "main"},
			Holder: &lock.Holder{Known: true, Record: lock.Record{User: "<svg class=\"strip\">", Host: "h"}}, Waiters: make([]lock.Waiter, 3),
		},
		since: now.Add(-4 * time.Minute), arrived: make([]time.Time, 3), events: ended(now, repeat(time.Minute, 5)...),
	}
	want, err := s.row(l, now)
	if err != nil {
		t.Fatal(err)
	}
	row, err := s.row(l, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fill(row.HTML, now); got != want.HTML || !strings.Contains(string(got), ">4m0s</time>") || !strings.Contains(string(got), "~") {
		t.Errorf("got\n%s\nwant\n%s", got, want.HTML)
	}
}

// The strip shows each hold where it was, the present one to the right edge; who held a lock last
// has a lane.
func TestNewStrip(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 5, 0, time.UTC)
	l := &lockState{
		State: lock.State{Holder: &lock.Holder{Known: true, Record: lock.Record{User: "u1", Host: "h"}}}, since: now.Add(-time.Minute),
		events: append([]redisstore.Event{{ID: "old", Time: now.Add(-3 * time.Hour), Type: "released", Hold: time.Minute}}, ended(now.Add(-time.Minute), repeat(20*time.Second, 12)...)...),
	}
	l.events[len(l.events)-1].Type = "broken"
	s := newStrip(l, now, 2*time.Hour)
	if len(s.Bars) != 13 || s.Text != "12 holds ended in the last 2 h" {
		t.Fatalf("%d bars, %s", len(s.Bars), s.Text)
	}
	noon := int64(12 * 60 * 60)
	if b := s.Bars[11]; b.Class != "bad" || b.X != noon+5-60-20 || b.Width != 20 || b.Title != "u11@h, 20s, broken" {
		t.Errorf("%+v", b)
	}
	if b := s.Bars[12]; b.Class != "now" || b.X != noon+5-60 || b.X+b.Width < noon+7200 {
		t.Errorf("%+v", b)
	}
	if s.Bars[0].Class == s.Bars[1].Class {
		t.Error("one hold looks like the next")
	}
	if got, want := s.View(now), fmt.Sprintf("%d 0 7200 20", noon+10-7200); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	lanes := newLanes(s)
	if len(lanes) != mostLanes+1 || lanes[0].Who != "u1@h" || lanes[1].Who != "u11@h" || lanes[mostLanes].Who != "4 others" || lanes[mostLanes].Text != "4 holds" {
		t.Errorf("%+v", lanes)
	}
	if lanes[0].Text != "2 holds" {
		t.Errorf("the present hold and an earlier one: %s", lanes[0].Text)
	}
	if paths := s.Paths(); len(paths) != 4 || strings.Count(paths[0].D, "M")+strings.Count(paths[1].D, "M") != 11 {
		t.Errorf("%+v", paths)
	}
	l.events = ended(now, repeat(58*time.Second, 60)...) // with hardly a gap
	if paths := newStrip(l, now, 2*time.Hour).Paths(); len(paths[0].D) > 60 {
		t.Errorf("bars that touch are drawn one by one: %s", paths[0].D)
	}
}

func TestNewCharts(t *testing.T) {
	t.Parallel()
	charts := newCharts(ended(time.Now(), time.Second, 2*time.Second, time.Minute, 2*time.Hour))
	for _, c := range charts {
		if c.Count != 4 || c.Text != "median 1m0s, longest 2h0m" {
			t.Errorf("%s: %d, %s", c.Title, c.Count, c.Text)
		}
		var n []int
		for _, b := range c.Bars {
			n = append(n, b.N)
		}
		if fmt.Sprint(n) != "[1 1 0 0 1 0 0 0 0 1]" {
			t.Errorf("%s: %v", c.Title, n)
		}
	}
	if c := newCharts(nil)[0]; c.Text != "none yet" {
		t.Error(c.Text)
	}
}

// One that is handed a lock and acquires it is in the log once.
func TestNewEvents(t *testing.T) {
	t.Parallel()
	var got []string
	for _, e := range newEvents([]redisstore.Event{{Type: "handed_over", Fence: "1"}, {Type: "acquired", Fence: "1"}, {Type: "released", Fence: "1"}, {Type: "handed_over", Fence: "2"}}) {
		got = append(got, e.Type)
	}
	if fmt.Sprint(got) != "[handed over released acquired]" {
		t.Error(got)
	}
}

// past is a store with events only.
type past struct {
	Store
	events []redisstore.Event
}

func (p past) List(context.Context) ([]lock.State, error) { return nil, nil }
func (p past) Now(context.Context) (time.Time, error)     { return time.Now(), nil }

func (p past) Events(context.Context, time.Time) ([]redisstore.Event, error) { return p.events, nil }

// However many events there are, the newest are kept, and the texts of each are bounded.
func TestReader_bounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var p past
	for i := range mostEvents + 10 {
		k := lock.Key{Repo: "r", Branch: fmt.Sprint(i % 2)}
		p.events = append(p.events, redisstore.Event{ID: fmt.Sprint(i), Time: now.Add(time.Duration(i-mostEvents-10) * 10 * time.Millisecond), Key: k, Lock: k.ID(), Type: "acquired"})
	}
	p.events[mostEvents].Reason = strings.Repeat("A", 1<<20)
	r := reader{store: p}
	snap := r.read(t.Context(), &snapshot{})
	n := 0
	for _, of := range snap.events {
		n += len(of)
		for _, e := range of {
			if len(e.Reason) > 10_000 {
				t.Error("a reason of a megabyte is kept")
			}
		}
	}
	if last := snap.events["r@1"]; n != mostEvents || last[len(last)-1].ID != fmt.Sprint(mostEvents+9) {
		t.Errorf("%d events", n)
	}
}
