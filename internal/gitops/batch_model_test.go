package gitops_test

import (
	"slices"
	"testing"
)

// A model of pushing together (docs/design.md): pipelines as batch.go has them, a remote, a Redis
// that forgets and says what is not so, and an adversary. TestBatchModel looks at every
// interleaving of small cases, and at the same without one rule at a time.

// tip is a branch: the changes on it, 3 bits each, the oldest lowest. It is also an object id,
// because the same change on the same parent is the same commit.
type tip uint16

const (
	missing  tip = 0x7ffd // of a batch ref
	marker   tip = 0x7ffe // of the first life of a pipeline; that of the second is one more
	outsider     = 4      // the change of one who pushes without a lock
	most         = 3      // pipelines
)

func (b tip) count(change uint8) (n int) {
	for ; b != 0; b >>= 3 {
		if uint8(b&7) == change {
			n++
		}
	}
	return n
}

func (b tip) length() (n int) {
	for ; b != 0; b >>= 3 {
		n++
	}
	return n
}

func (b tip) plus(change uint8) tip { return b | tip(change)<<(3*b.length()) }

// contains reports whether a commit is in the history of b.
func (b tip) contains(commit tip) bool {
	return commit != 0 && commit < missing && commit.length() <= b.length() && b&(1<<(3*commit.length())-1) == commit
}

// of is the commit by which a change came in after a tip; 0 if it did not.
func (b tip) of(change uint8, after tip) tip {
	for n := after.length() + 1; n <= b.length(); n++ {
		if uint8(b>>(3*(n-1))&7) == change {
			return b & (1<<(3*n) - 1)
		}
	}
	return 0
}

const ( // what a pipeline does next
	atStart uint8 = iota
	atOffer
	atRecord
	atWait
	atWoken
	atClaim
	atFetch
	atPush
	atRevoke
	atGone
	atLook
	atDrop
	atAlone
	atAlonePush
	atAloneLook
	ended
	killed
)

const ( // what it said at the end
	nothing uint8 = iota
	landed
	notLanded
	unknown
)

type pipeline struct {
	at, tries, claimed, said       uint8
	lives                          uint8 // which of those that it has claimed are in their second life
	made, lateOffer, gone, leaving bool
	again                          bool // it was killed, and its clone pushes again: the second life
	settles                        bool // and asks what has become of the first
	onto, own                      tip  // fetched; own replayed tip of the last push
}

// request is a push that may arrive late.
type request struct {
	kind, owner, leased, moved uint8
	lives                      uint8 // which of those leased are in their second life
	from, to                   tip
}

const (
	none uint8 = iota
	offer
	withdrawal // a deletion with a lease on the marker
	ifMissing  // a deletion of what is not there, which says so
	together
	alone
)

type world struct {
	p              [most]pipeline
	ref            [most]tip
	branch         tip
	late           request
	lock           uint8 // 1 + who has the turn
	offers, landed uint8 // in Redis
	faults         uint8
	outside        bool
}

type rules struct {
	n, faults, tries                                                        uint8
	noMarker, noSearch, noLease, noAtomic, noRevoke, missingLanded, forever bool // broken
	noMemory                                                                bool // of a clone, that it has offered
	retries                                                                 bool // a clone pushes again after a kill
}

func (m rules) offered(i int, lives uint8) tip {
	if m.noMarker {
		return tip(0).plus(uint8(i + 1)) //nolint:gosec // small
	}
	return marker + tip(lives>>i&1)
}

// lives is which pipelines are in their second life.
func (s world) lives() (lives uint8) {
	for i := range s.p {
		if s.p[i].again && !s.p[i].settles { // it asks after the first
			lives |= 1 << i
		}
	}
	return lives
}

func (m rules) apply(s world, r request) (world, bool) {
	i := r.owner
	switch r.kind {
	case offer:
		if before := s.p[i].again && !s.p[i].settles && r.lives>>i&1 == 0; before {
			return s, true // a ref of another name, which nobody knows any more
		}
		s.ref[i] = m.offered(int(i), r.lives)
		return s, true
	case withdrawal:
		if s.ref[i] != m.offered(int(i), r.lives) {
			return s, false
		}
		s.ref[i] = missing
		return s, true
	case ifMissing:
		return s, s.ref[i] == missing
	}
	if s.branch != r.from {
		return s, false
	}
	moves := r.moved
	for j := range s.ref {
		if r.leased>>j&1 == 1 && s.ref[j] != m.offered(j, r.lives) {
			if !m.noAtomic {
				return s, false
			}
			moves &^= 1 << j
		}
	}
	for j := range s.ref {
		if moves>>j&1 == 1 {
			s.ref[j] = r.to.of(uint8(j+1), r.from) //nolint:gosec // small
		}
	}
	s.branch = r.to
	return s, true
}

// remote is a push of a pipeline, with all that may happen to it. then gets what git says: "ok",
// "stale" or "error".
func (m rules) remote(s world, r request, emit func(bool, world), then func(s *world, said string)) {
	answer := func(fault bool, t world, said string) {
		if fault {
			t.faults++
		}
		then(&t, said)
		emit(fault, t)
	}
	after, ok := m.apply(s, r)
	if !ok {
		answer(false, s, "stale")
		return
	}
	answer(false, after, "ok")
	if s.faults == m.faults {
		return
	}
	answer(true, after, "error") // its answer is lost
	answer(true, s, "error")     // it never arrives
	if s.late.kind == none {
		t := s
		t.late = r
		answer(true, t, "error")
		t.faults++
		m.kill(t, int(r.owner), emit) // and nobody waits for it
	}
}

// kill ends a pipeline, for good or until its clone pushes again.
func (m rules) kill(s world, i int, emit func(bool, world)) {
	p := s.p[i]
	s.p[i] = pipeline{at: killed, again: p.again && !p.settles}
	emit(true, s)
	if !m.retries || p.again || p.at >= atAlone { // from there on it is git's own push, which knows what is up to date
		return
	}
	if s.lock == uint8(i+1) { //nolint:gosec // small
		s.lock = most + 1 // of one who is dead
	}
	s.p[i] = pipeline{at: atStart, again: true, lateOffer: m.noMemory} // its ref stays, and that is not the point
	if p.at > atStart && !m.noMemory {
		s.p[i] = pipeline{at: atRevoke, again: true, settles: true, made: true, lateOffer: s.late.kind == offer && int(s.late.owner) == i}
	}
	emit(true, s)
}

// judge is what the remote shows of an offer.
func (m rules) judge(s world, i int) uint8 {
	p, is := s.p[i], s.ref[i]
	switch {
	case is == missing && (m.missingLanded || s.branch.contains(p.own)):
		return landed
	case is == m.offered(i, s.lives()):
		return notLanded
	case is != missing && s.branch.contains(is):
		return landed
	default:
		return unknown
	}
}

func (m rules) end(s world, i int, said uint8) world {
	s.p[i] = pipeline{at: ended, said: said, lateOffer: s.p[i].lateOffer, again: s.p[i].again && !s.p[i].settles}
	s.offers &^= 1 << i
	s.landed &^= 1 << i
	if s.lock == uint8(i+1) { //nolint:gosec // small
		s.lock = 0
	}
	return s
}

// success wakes those who have landed too, lets go of the turn and deletes the batch ref.
func (m rules) success(s world, i int) world {
	for j := range s.ref {
		if s.p[i].claimed>>j&1 == 1 && s.ref[j] != missing && s.ref[j] != m.offered(j, s.p[i].lives) && s.branch.contains(s.ref[j]) && s.p[j].at < ended {
			s.landed |= 1 << j
			s.offers &^= 1 << j
		}
	}
	if s.p[i].made {
		s.ref[i] = missing
	}
	return m.end(s, i, landed)
}

// next calls emit for all that may happen next. Faults are the adversary's.
func (m rules) next(s world, emit func(fault bool, t world)) {
	fault := func(change func(*world)) {
		if s.faults < m.faults {
			t := s
			t.faults++
			change(&t)
			emit(true, t)
		}
	}
	if s.late.kind != none {
		t, _ := m.apply(s, s.late)
		t.late = request{}
		emit(false, t)
	}
	fault(func(t *world) { t.lock, t.offers, t.landed = 0, 0, 0 }) // Redis forgets
	if !s.outside {
		fault(func(t *world) { t.branch, t.outside = t.branch.plus(outsider), true })
	}
	if s.lock != 0 {
		t := s
		t.lock = 0
		if before := s.lock > most; before || s.p[s.lock-1].at >= ended {
			if before || !m.forever {
				emit(false, t)
			}
		} else {
			fault(func(t *world) { t.lock = 0 }) // a lease that is over
		}
	}
	for i := range int(m.n) {
		p := s.p[i]
		if s.ref[i] != missing {
			fault(func(t *world) { t.ref[i] = missing }) // an administrator
		}
		if p.at >= ended {
			if s.offers>>i&1 == 1 {
				t := s
				t.offers &^= 1 << i
				emit(false, t)
			}
			continue
		}
		if s.faults < m.faults {
			t := s
			t.faults++
			m.kill(t, i, emit)
		}
		if p.made {
			fault(func(t *world) { t.landed |= 1 << i }) // Redis says what is not so
		}
		if p.at > atOffer && p.at < atRevoke || p.settles && !p.leaving {
			fault(func(t *world) { t.p[i].at, t.p[i].leaving = m.giveUp(p), true }) // Ctrl-C
		}
		m.step(s, i, emit)
	}
}

func (m rules) giveUp(p pipeline) uint8 {
	if p.made {
		return atRevoke
	}
	return atDrop
}

func (m rules) step(s world, i int, emit func(bool, world)) {
	p, bit, change := s.p[i], uint8(1)<<i, uint8(i+1) //nolint:gosec // small
	to := func(at uint8) {
		t := s
		t.p[i].at = at
		emit(false, t)
	}
	request := func(kind uint8) request { return request{kind: kind, owner: change - 1, lives: s.lives()} }
	switch p.at {
	case atStart:
		if s.lock != 0 {
			to(atOffer)
			return
		}
		s.lock = change
		to(atAlone)
	case atOffer:
		m.remote(s, request(offer), emit, func(t *world, said string) {
			q := &t.p[i]
			if q.at, q.made = atRecord, true; said != "ok" {
				q.at, q.made, q.lateOffer = atWait, false, true
			}
		})
	case atRecord:
		s.offers |= bit
		to(atWait)
	case atWait:
		switch {
		case s.landed&bit != 0:
			s.landed &^= bit
			to(atWoken)
		case p.made && s.offers&bit == 0:
			s.offers |= bit
			to(atWait)
		}
		if s.lock == 0 {
			s.lock = change
			if p.made {
				to(atClaim)
			} else {
				to(atDrop)
			}
		}
	case atWoken:
		switch m.judge(s, i) {
		case landed:
			emit(false, m.success(s, i))
		case notLanded:
			to(atWait)
		default:
			s.p[i].leaving = true
			to(atRevoke)
		}
	case atClaim:
		if s.p[i].claimed = 0; s.lock == change {
			s.p[i].claimed, s.p[i].lives = s.offers&^bit, s.lives()&^bit
		}
		to(atFetch)
	case atFetch:
		switch is := m.judge(s, i); {
		case is == landed:
			emit(false, m.success(s, i))
		case is == unknown && s.ref[i] != missing:
			emit(false, m.end(s, i, unknown))
		case is == unknown:
			to(atRevoke)
		default:
			s.p[i].onto, s.p[i].own = s.branch, s.branch.plus(change)
			to(atPush)
		}
	case atPush:
		if s.lock != change {
			s.p[i].leaving = true
			to(atRevoke)
			return
		}
		r := request(together)
		r.from, r.to = p.onto, p.own
		r.lives = p.lives | s.lives()&bit
		for j := range int(m.n) {
			c := uint8(j + 1) //nolint:gosec // small
			if p.claimed>>j&1 == 1 && s.ref[j] == m.offered(j, r.lives) && r.to.length() < 5 {
				r.to = r.to.plus(c)
			} else if j != i {
				continue
			}
			if s.ref[j] != r.to.of(c, r.from) { // git does not send what is up to date
				r.moved |= 1 << j
			}
		}
		if r.leased = r.moved; m.noLease {
			r.leased = 0
		}
		m.remote(s, r, emit, func(t *world, said string) {
			if said == "ok" {
				*t = m.success(*t, i)
				return
			}
			if t.p[i].at, t.p[i].tries = atFetch, p.tries+1; p.tries+1 == m.tries {
				t.p[i].at = atRevoke
			}
		})
	case atRevoke:
		if m.noRevoke {
			to(atAlone)
			return
		}
		m.remote(s, request(withdrawal), emit, func(t *world, said string) {
			if said == "ok" {
				*t = m.revoked(*t, i)
				return
			}
			t.p[i].at = atGone
		})
	case atGone:
		m.remote(s, request(ifMissing), emit, func(t *world, said string) { t.p[i].gone, t.p[i].at = said == "ok", atLook })
	case atLook:
		s.p[i].gone = false
		switch is := m.judge(s, i); {
		case is == landed:
			emit(false, m.success(s, i))
		case is == notLanded, s.ref[i] == missing && !p.gone:
			to(atRevoke)
		case s.ref[i] == missing && (m.noSearch || s.branch.count(change) == 0):
			emit(false, m.revoked(s, i))
		default:
			emit(false, m.end(s, i, unknown))
		}
	case atDrop:
		m.remote(s, request(withdrawal), emit, func(t *world, _ string) { *t = m.revoked(*t, i) })
	case atAlone:
		s.p[i].onto, s.p[i].own = s.branch, s.branch.plus(change)
		to(atAlonePush)
	case atAlonePush:
		r := request(alone)
		r.from, r.to = p.onto, p.own
		m.remote(s, r, emit, func(t *world, said string) {
			switch said {
			case "ok":
				*t = m.success(*t, i)
			case "stale":
				t.p[i].at = atAlone
			default:
				t.p[i].at = atAloneLook
			}
		})
	case atAloneLook:
		switch {
		case s.branch.contains(p.own):
			emit(false, m.success(s, i))
		case s.branch != p.onto:
			to(atAlone)
		default:
			emit(false, m.end(s, i, unknown))
		}
	}
}

// revoked is one that nobody pushes any more.
func (m rules) revoked(s world, i int) world {
	p := &s.p[i]
	if p.leaving {
		return m.end(s, i, notLanded)
	}
	if s.offers &^= 1 << i; p.settles {
		*p = pipeline{at: atStart, again: true, lateOffer: p.lateOffer}
		s.landed &^= 1 << i
		return s
	}
	p.at, p.made, p.claimed, p.gone, p.tries = atAlone, false, 0, false, 0
	return s
}

// wrong is what may never be.
func (m rules) wrong(s world) string {
	done := s.late.kind == none
	for i := range int(m.n) {
		n := s.branch.count(uint8(i + 1)) //nolint:gosec // small
		switch p := s.p[i]; {
		case n > 1:
			return "landed twice"
		case p.said == landed && n == 0:
			return "says that it landed"
		case p.said == notLanded && n > 0:
			return "says that it did not land"
		case p.at < ended:
			done = false
		}
	}
	if s.outside && s.branch.count(outsider) == 0 {
		return "lost"
	}
	for i := range int(m.n) {
		p := s.p[i]
		if done && p.at == ended && s.ref[i] != missing && !p.lateOffer {
			return "a batch ref left behind"
		}
		if done && s.faults == 0 && p.said != landed {
			return "not landed without a fault"
		}
	}
	return ""
}

// explore looks at every state, and returns the first thing that is wrong.
func (m rules) explore() (states int, wrong string) {
	start := world{ref: [most]tip{missing, missing, missing}, lock: most + 1} // of one before, so that all may wait
	number := map[world]int32{start: 0}
	all := []world{start}
	var back [][]int32 // for each state, from which ones it is reached without a fault
	back = append(back, nil)
	for at := 0; at < len(all); at++ {
		if wrong := m.wrong(all[at]); wrong != "" {
			return len(all), wrong
		}
		m.next(all[at], func(fault bool, t world) {
			id, known := number[t]
			if !known {
				id = int32(len(all)) //nolint:gosec // there are not so many
				number[t] = id
				all, back = append(all, t), append(back, nil)
			}
			if !fault {
				back[id] = append(back[id], int32(at)) //nolint:gosec // there are not so many
			}
		})
	}
	// From each state, all can end when there are no more faults.
	ends := make([]bool, len(all))
	var todo []int32
	for i, s := range all {
		if !slices.ContainsFunc(s.p[:m.n], func(p pipeline) bool { return p.at < ended }) {
			ends[i], todo = true, append(todo, int32(i)) //nolint:gosec // there are not so many
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, j := range back[i] {
			if !ends[j] {
				ends[j], todo = true, append(todo, j)
			}
		}
	}
	if slices.Contains(ends, false) {
		return len(all), "somebody never ends"
	}
	return len(all), ""
}

func TestBatchModel(t *testing.T) {
	two := rules{n: 2, faults: 3, tries: 2}
	for name, c := range map[string]struct {
		m    rules
		want string // what is found first
	}{
		"two":                        {two, ""},
		"three":                      {rules{n: 3, faults: 2, tries: 1}, ""},
		"a killed one pushes again":  {with(two, func(m *rules) { m.retries = true }), ""},
		"and knows of no offer":      {with(two, func(m *rules) { m.retries, m.noMemory = true, true }), "landed twice"},
		"without the marker":         {with(two, func(m *rules) { m.noMarker = true }), "says that it did not land"},
		"without the search":         {with(two, func(m *rules) { m.noSearch = true }), "says that it did not land"},
		"without a lease":            {with(two, func(m *rules) { m.noLease = true }), "says that it did not land"},
		"not atomic":                 {with(two, func(m *rules) { m.noAtomic = true }), "says that it did not land"},
		"without the deletion":       {with(two, func(m *rules) { m.noRevoke = true }), "a batch ref left behind"},
		"a missing ref has landed":   {with(two, func(m *rules) { m.missingLanded = true }), "says that it landed"},
		"a lease that never is over": {with(two, func(m *rules) { m.forever = true }), "somebody never ends"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, wrong := c.m.explore()
			t.Logf("%d states", states)
			if wrong != c.want {
				t.Errorf("%q, want %q", wrong, c.want)
			}
		})
	}
}

func with(m rules, change func(*rules)) rules {
	change(&m)
	return m
}
