package fence_test

import (
	"fmt"
	"strings"
	"testing"
)

// A model of declaring, checking and git's comparison: two pipelines, an outsider, and everything
// that may go wrong, in every order. It knows nothing of the code; it shows what the rules give,
// and that each of them is needed.

// rules are those of the fence; each can be taken out.
type rules struct {
	cas   bool // git updates a ref only from the old tip that the push was made against
	bound bool // a declaration counts only under the grant under which it was made
	exact bool // only what was declared may in, and not whatever the holder pushes
}

// Histories are strings, one letter for each commit: s the seed, a and b those of the pipelines, A
// and B what a plain forced push from their clones makes, x an outsider's.

type phase uint8

const (
	wants phase = iota
	holds
	declared
	sent
	landed
	gaveUp
	dead
)

type pipeline struct {
	phase  phase
	began  bool   // had the lock before
	base   string // what its clone has
	forced bool
	tries  uint8
	plain  uint8 // plain forced pushes that it may make beside
}

type declaration struct {
	by       uint8
	old, new string
}

type onItsWay struct {
	by       uint8 // 1 and 2; 9 is the outsider; 0: none
	old, new string
	checked  bool
}

type budget struct{ faults, kills, outsiders, forces uint8 }

type world struct {
	owner  uint8
	intent declaration
	snap   bool // Redis has a snapshot, of:
	snapOf uint8
	snapIn declaration
	tip    string
	p      [2]pipeline
	sent   [5]onItsWay
	left   budget
}

const own = "ab"

func (p pipeline) next(i int) string {
	if p.forced && len(p.base) > 1 {
		return p.base[:len(p.base)-1] + own[i:i+1]
	}
	return p.base + own[i:i+1]
}

func (w world) with(i int, change func(*pipeline)) world {
	change(&w.p[i])
	return w
}

func (w world) push(o onItsWay) world {
	for k := range w.sent {
		if w.sent[k].by == 0 {
			w.sent[k] = o
			return w
		}
	}
	panic("too many pushes")
}

func (w world) without(k int) world {
	copy(w.sent[k:], w.sent[k+1:])
	w.sent[len(w.sent)-1] = onItsWay{}
	return w
}

// answer is a push that has ended.
func (w world) answer(o onItsWay, ok bool) world {
	if o.by == 9 || w.p[o.by-1].phase != sent || strings.ContainsAny(o.new, "AB") {
		return w
	}
	i := int(o.by - 1)
	switch {
	case ok:
		if w.owner == o.by {
			w.owner, w.intent = 0, declaration{}
		}
		return w.with(i, func(p *pipeline) { p.phase = landed })
	case w.p[i].tries == 0:
		return w.with(i, func(p *pipeline) { p.phase = gaveUp })
	default:
		return w.with(i, func(p *pipeline) { p.phase, p.tries = holds, p.tries-1 })
	}
}

// forget is what the end of a grant does to a declaration.
func (r rules) forget(w world) world {
	if r.bound {
		w.intent = declaration{}
	}
	return w
}

// steps are all that may happen next. wrong is not empty when what has happened must not.
func (r rules) steps(w world, step func(name string, next world, wrong string)) {
	for i := range w.p {
		r.pipelineSteps(w, i, func(name string, next world) { step(fmt.Sprintf("%d %s", i+1, name), next, "") })
	}
	if w.left.outsiders > 0 {
		t := w
		t.left.outsiders--
		step("an outsider pushes", t.push(onItsWay{by: 9, old: w.tip, new: w.tip + "x"}), "")
	}
	for k, o := range w.sent {
		if o.by == 0 {
			break
		}
		rest := w.without(k)
		switch {
		case !o.checked:
			holder := w.owner == o.by
			matches := w.intent == declaration{o.by, o.old, o.new}
			if (holder || !r.bound) && (matches || !r.exact) {
				wrong := ""
				if !holder {
					wrong = "a push was let in without the lock"
				}
				o.checked = true
				step("the hook lets in "+o.new, rest.push(o), wrong)
			} else {
				step("the hook refuses "+o.new, rest.answer(o, false), "")
			}
		case w.tip == o.old || !r.cas:
			wrong := ""
			if o.by == 9 {
				wrong = "an outsider has landed"
			} else if p := w.p[o.by-1]; strings.Trim(w.tip, o.new+p.base+own[o.by-1:o.by]) != "" {
				wrong = fmt.Sprintf("%s has replaced %s, of which it had seen %s", o.new, w.tip, p.base)
			}
			rest.tip = o.new
			step("the branch is "+o.new, rest.answer(o, true), wrong)
		default:
			step("git refuses "+o.new, rest.answer(o, false), "")
		}
	}
	if w.left.faults > 0 {
		t := w
		t.left.faults--
		t.owner = 0
		if w.owner != 0 {
			step("the lease ends, or the lock is broken", r.forget(t), "")
		}
		t.intent = declaration{}
		step("Redis has lost its data", t, "")
		if w.snap {
			t.owner, t.intent = w.snapOf, w.snapIn
			step("Redis has older data", t, "")
		}
	}
	if w.owner != 0 {
		if p := w.p[w.owner-1].phase; p != holds && p != declared && p != sent {
			t := w
			t.owner = 0
			step("nobody renews, the lease ends", r.forget(t), "")
		}
	}
	if !w.snap {
		t := w
		t.snap, t.snapOf, t.snapIn = true, w.owner, w.intent
		step("(a snapshot)", t, "")
	}
}

func (r rules) pipelineSteps(w world, i int, step func(name string, next world)) {
	p, me := w.p[i], uint8(i+1)
	fastForward := strings.HasPrefix(p.next(i), w.tip)
	switch p.phase {
	case wants:
		if w.owner == 0 {
			t := r.forget(w)
			t.owner = me
			switch {
			case !p.began || p.base == w.tip:
				step("has the lock", t.with(i, func(p *pipeline) { p.phase, p.began, p.base = holds, true, w.tip }))
			case p.forced:
				step("has the lock, but the branch moved: 73", w.with(i, func(p *pipeline) { p.phase = gaveUp }))
			default:
				step("has the lock, rebases", t.with(i, func(p *pipeline) { p.phase, p.base = holds, w.tip }))
			}
		}
		if !p.began && !p.forced && w.left.forces > 0 {
			t := w
			t.left.forces--
			step("will force", t.with(i, func(p *pipeline) { p.forced = true }))
		}
	case holds:
		t := w
		t.owner = me
		switch {
		case w.owner != 0 && w.owner != me:
			step("finds its lock lost", w.with(i, func(p *pipeline) { p.phase = wants }))
		case !p.forced && !fastForward:
			step("rebases", t.with(i, func(p *pipeline) { p.base = w.tip }))
		default:
			old := w.tip
			if p.forced {
				old = p.base
			}
			t.intent = declaration{me, old, p.next(i)}
			step("declares", t.with(i, func(p *pipeline) { p.phase = declared }))
		}
		if p.plain > 0 {
			made := strings.ToUpper(own[i : i+1])
			if len(p.base) > 1 {
				made = p.base[:len(p.base)-1] + made
			} else {
				made = p.base + made
			}
			step("plain git push -f", w.push(onItsWay{by: me, old: w.tip, new: made}).with(i, func(p *pipeline) { p.plain-- }))
		}
	case declared:
		switch {
		case p.forced && w.tip == p.base, !p.forced && fastForward:
			step("pushes", w.push(onItsWay{by: me, old: w.tip, new: p.next(i)}).with(i, func(p *pipeline) { p.phase = sent }))
		case p.forced:
			step("has stale info: 73", w.with(i, func(p *pipeline) { p.phase = gaveUp }))
		default:
			step("is no fast-forward", w.with(i, func(p *pipeline) { p.phase = holds }))
		}
	case sent, landed, gaveUp, dead:
	}
	if (p.phase == holds || p.phase == declared || p.phase == sent) && w.left.kills > 0 {
		t := w
		t.left.kills--
		step("is killed", t.with(i, func(p *pipeline) { p.phase = dead }))
	}
}

// check walks through all that may happen, and returns the way to the first wrong, or to where
// nothing goes on though somebody waits; and how many worlds it saw.
func (r rules) check(left budget, plain [2]uint8) (wrong string, seen int) {
	type way struct {
		from world
		name string
	}
	start := world{tip: "s", left: left}
	for i := range start.p {
		start.p[i] = pipeline{tries: 1, plain: plain[i]}
	}
	ways, queue := map[world]way{start: {}}, []world{start}
	trace := func(w world, last string) string {
		names := []string{last}
		for w != start {
			names = append([]string{ways[w].name}, names...)
			w = ways[w].from
		}
		return strings.Join(names, " | ")
	}
	for len(queue) > 0 && wrong == "" {
		w := queue[0]
		queue = queue[1:]
		ends := true
		r.steps(w, func(name string, next world, bad string) {
			ends = false
			if bad != "" && wrong == "" {
				wrong = bad + ": " + trace(w, name)
			}
			if _, known := ways[next]; !known {
				ways[next] = way{w, name}
				queue = append(queue, next)
			}
		})
		for _, p := range w.p {
			if ends && p.phase < landed && wrong == "" {
				wrong = "somebody waits for ever: " + trace(w, "")
			}
		}
	}
	return wrong, len(ways)
}

func TestModel_fence(t *testing.T) {
	t.Parallel()
	all := rules{cas: true, bound: true, exact: true}
	for _, tc := range []struct {
		name  string
		rules rules
		left  budget
		plain [2]uint8
		wrong string
	}{
		{"two faults, a kill, a forced push", all, budget{faults: 2, kills: 1, forces: 1}, [2]uint8{}, ""},
		{"a fault, an outsider, plain forced pushes", all, budget{faults: 1, outsiders: 1}, [2]uint8{1, 1}, ""},
		{"a fault, a kill, forced and plain pushes", all, budget{faults: 1, kills: 1, forces: 1}, [2]uint8{1, 0}, ""},
		{"git does not compare", rules{bound: true, exact: true}, budget{faults: 2, forces: 1}, [2]uint8{}, "has replaced"},
		{"a declaration outlives its grant", rules{cas: true, exact: true}, budget{faults: 1}, [2]uint8{}, "let in without the lock"},
		{"whatever the holder pushes is let in", rules{cas: true, bound: true}, budget{faults: 2}, [2]uint8{1, 1}, "has replaced"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			wrong, seen := tc.rules.check(tc.left, tc.plain)
			t.Logf("%d states: %s", seen, wrong)
			if tc.wrong == "" && wrong != "" || !strings.Contains(wrong, tc.wrong) {
				t.Errorf("got %q, want %q", wrong, tc.wrong)
			}
		})
	}
}
