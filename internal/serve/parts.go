package serve

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"html/template"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

// part is a piece of a page that is replaced when it changes.
type part struct {
	ID   string
	HTML template.HTML
	sum  uint64
}

func newPart(id string, html template.HTML) part {
	sum := fnv.New64a()
	_, _ = io.WriteString(sum, string(html))
	return part{id, html, sum.Sum64()}
}

// summary is the head of every page.
type summary struct {
	Held, Waiting int
	Failed        time.Time // zero: Redis can be read
	Read          time.Time // zero: never yet
}

func (s *Server) render(name string, data any) (template.HTML, error) {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return template.HTML(b.String()), nil //nolint:gosec // a template has escaped it
}

// summary is the head of every page. now is the zero time for a stream, here and below: the page's
// script fills the ages in.
func (s *Server) summary(snap *snapshot, now time.Time) (part, error) {
	v := summary{Failed: snap.failed, Read: snap.at}
	for _, l := range snap.locks {
		if l.Holder != nil {
			v.Held++
		}
		v.Waiting += len(l.Waiters)
	}
	html, err := s.render("summary", map[string]any{"S": v, "Now": now, "Empty": snap.empty()})
	return newPart("summary", html), err
}

// empty is what a list without locks says.
func (s *snapshot) empty() string {
	if s.at.IsZero() {
		return "No data yet."
	}
	return "No lock is held, and nobody waits."
}

// row is a lock in the list.
func (s *Server) row(l *lockState, now time.Time) (part, error) {
	v := newLock(l, time.Now(), stripSpan)
	if v.More = len(v.Waiters) - shownQueue; v.More > 0 {
		v.Waiters = v.Waiters[:shownQueue]
	}
	html, err := s.render("row", map[string]any{"L": v, "Now": now})
	return newPart(v.Part, html), err
}

// list is the rows of the locks with a text in their names: those of the streams, with their times.
func (s *Server) list(snap *snapshot, query string, now time.Time) ([]part, error) {
	all, err := s.parts(snap, "")
	if err != nil {
		return nil, err
	}
	var parts []part
	for i, l := range snap.locks {
		if strings.Contains(l.Key.String(), query) {
			row := all[1+i]
			row.HTML = fill(row.HTML, now)
			parts = append(parts, row)
		}
	}
	return parts, nil
}

// fill writes into a row for streams what changes with time alone, as the templates would have:
// 1,000 rows are a page in some milliseconds then.
func fill(row template.HTML, now time.Time) template.HTML {
	const strips = `<svg class="strip"`
	var b strings.Builder
	for rest := string(row); rest != ""; {
		tag, after, _ := strings.Cut(rest, ">")
		rest = after
		start := max(0, strings.LastIndexByte(tag, '<'))
		text, name := tag[:start], tag[start:]
		b.WriteString(text)
		if more, ok := strings.CutPrefix(name, strips); ok {
			view := strip{Base: number(name, "data-base"), Span: number(name, "data-span")}.View(now)
			name = strips + ` viewBox="` + view + `"` + more
		}
		b.WriteString(name + ">")
		if !strings.HasPrefix(name, "<time ") {
			continue
		}
		if since := number(name, "data-since"); since != 0 {
			b.WriteString(age(now, time.Unix(since, 0)))
		} else if turn := number(name, "data-turn"); turn != 0 {
			b.WriteString(waiterView{Turn: time.Unix(turn, 0), Least: int(number(name, "data-least"))}.left(now, "~"))
		}
	}
	return template.HTML(b.String()) //nolint:gosec // a template has escaped the row, and what is added are times
}

// number is an attribute of a tag; 0 when it has none.
func number(tag, name string) int64 {
	_, value, _ := strings.Cut(tag, name+`="`)
	value, _, _ = strings.Cut(value, `"`)
	n, _ := strconv.ParseInt(value, 10, 64)
	return n
}

// age is for how long something has lasted.
func age(now, since time.Time) string {
	return term.Duration(time.Duration(max(0, now.Unix()-since.Unix())) * time.Second)
}

// one is the parts of the page of a lock.
func (s *Server) one(snap *snapshot, id string, now time.Time) ([]part, error) {
	l := snap.byID[id]
	if l == nil {
		l = &lockState{State: lock.State{Key: lock.ParseID(id)}, events: snap.events[id]}
	}
	v := newLock(l, time.Now(), history)
	if v.More = len(v.Waiters) - shownPlaces; v.More > 0 {
		v.Waiters = v.Waiters[:shownPlaces]
	}
	data := map[string]any{
		"L": v, "Now": now, "Lanes": newLanes(v.Strip), "Charts": newCharts(l.events), "Events": newEvents(l.events),
		"Holds": min(estimated, holdsOf(l.events)),
	}
	var parts []part
	for _, name := range []string{"holder", "queue", "lanes", "charts", "history"} {
		html, err := s.render(name, data)
		if err != nil {
			return nil, err
		}
		parts = append(parts, newPart(name, html))
	}
	return parts, nil
}

// renderings are the parts that streams send, made once for each snapshot however many follow.
type renderings struct {
	mu    sync.Mutex
	snap  *snapshot
	rows  map[*lockState]part // of the list, also of the last snapshot
	pages map[string][]part   // the summary and what the page shows, by the ID of its lock; "": the list
}

func (s *Server) parts(snap *snapshot, id string) ([]part, error) {
	r := &s.shown
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.snap != snap {
		r.snap, r.pages = snap, map[string][]part{}
	}
	if parts, ok := r.pages[id]; ok {
		return parts, nil
	}
	head, err := s.summary(snap, time.Time{})
	if err != nil {
		return nil, err
	}
	parts := []part{head}
	if id != "" {
		more, err := s.one(snap, id, time.Time{})
		if err != nil {
			return nil, err
		}
		parts = append(parts, more...)
	} else {
		rows := map[*lockState]part{}
		for _, l := range snap.locks {
			p, ok := r.rows[l]
			if !ok {
				if p, err = s.row(l, time.Time{}); err != nil {
					return nil, err
				}
			}
			rows[l] = p
			parts = append(parts, p)
		}
		r.rows = rows
	}
	r.pages[id] = parts
	return parts, nil
}

func holdsOf(events []redisstore.Event) int {
	n := 0
	for _, e := range events {
		if e.Type.EndsHold() {
			n++
		}
	}
	return n
}
