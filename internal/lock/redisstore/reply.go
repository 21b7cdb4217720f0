package redisstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
)

func encode(r lock.Record) string {
	b, err := json.Marshal(r)
	if err != nil {
		return "{}" // plain data: cannot fail
	}
	return string(b)
}

// decode reads a record. Anybody may have written it: what is no record is an empty one.
func decode(text string) lock.Record {
	var r lock.Record
	if json.Unmarshal([]byte(text), &r) != nil {
		return lock.Record{}
	}
	return r
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// check turns an answer that is not of the expected form into an error.
func (s *Store) check(p *parser) error {
	if p.bad {
		return s.failure(fmt.Errorf("unexpected answer %v", p.reply))
	}
	return nil
}

// parser takes a script's answer apart, in order.
type parser struct {
	reply any
	i     int
	bad   bool
}

func (p *parser) done() bool {
	list, ok := p.reply.([]any)
	return !ok || p.i >= len(list)
}

func (p *parser) next() any {
	if p.done() {
		p.bad = true
		return nil
	}
	p.i++
	return p.reply.([]any)[p.i-1]
}

func (p *parser) int() int64 {
	n, ok := p.next().(int64)
	p.bad = p.bad || !ok
	return n
}

func (p *parser) text() string {
	s, ok := p.next().(string)
	p.bad = p.bad || !ok
	return s
}

func (p *parser) presence() lock.Presence {
	switch p.int() {
	case 0:
		return lock.Absent
	case 1:
		return lock.Present
	default:
		return lock.PresenceUnknown
	}
}

func (p *parser) holder() lock.Holder {
	q := parser{reply: p.next()}
	h := lock.Holder{Token: lock.Token(q.text())}
	left := q.int()
	h.Left = time.Duration(left) * time.Millisecond
	h.Fence = lock.Fence(q.int())
	h.Age = micros(q.int())
	h.Known = h.Fence != 0
	h.Record = decode(q.text())
	h.TTL = time.Duration(q.int()) * time.Millisecond
	parts := parser{reply: q.next()}
	for !parts.done() {
		share := lock.Share{Token: lock.Token(parts.text()), Record: decode(parts.text())}
		if share.Token == h.Token {
			share.Record = h.Record
		}
		h.Shares = append(h.Shares, share)
	}
	p.bad = p.bad || q.bad || parts.bad
	return h
}

// newer is the error of a lock that is kept by a protocol which this program does not know.
func (s *Store) newer(reply any) error {
	list, _ := reply.([]any)
	if len(list) == 2 && list[0] == int64(-2) {
		return &lock.StoreError{
			Failure: lock.Newer,
			Err:     s.at(fmt.Errorf("a newer git-gitops uses this lock, with version %v of the protocol", list[1])),
		}
	}
	return nil
}

// intent is what is declared, a line for each ref.
func intent(updates []lock.Update) string {
	lines := make([]string, len(updates))
	for i, u := range updates {
		lines[i] = u.Ref + " " + u.Old + " " + u.New
	}
	return strings.Join(lines, "\n")
}

func (s *Store) state(reply any) (lock.State, error) {
	p := parser{reply: reply}
	state := lock.State{Name: p.text()}
	if h := p.holder(); h.Token != "" {
		state.Holder = &h
	}
	w := parser{reply: p.next()}
	if there := p.presence(); state.Holder != nil {
		state.Holder.Presence = there
	}
	for !w.done() {
		waiter := lock.Waiter{Token: lock.Token(w.text()), Age: micros(w.int())}
		record := w.text()
		waiter.Alive = record != ""
		waiter.Record = decode(record)
		state.Waiters = append(state.Waiters, waiter)
	}
	state.Freeze = p.freeze()
	return state, errors.Join(s.check(&p), s.check(&w))
}
