//go:build unix

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What judge must see: the suite is worth nothing when it passes whatever happened.
func TestJudge(t *testing.T) {
	edit := func(id string, counter int, journal string) commit {
		return commit{oid: "o" + id, id: id, group: "main", part: "edit", files: map[string]string{
			"main/counter": fmt.Sprintf("%d\n", counter), "main/journal": journal,
		}}
	}
	seed := commit{oid: "o0", id: "seed"}
	ok := func(id, base string) outcome {
		return outcome{id: id, kind: "locked", group: "main", pushed: true, base: base}
	}
	for _, test := range []struct {
		name     string
		commits  []commit
		moves    []move
		outcomes []outcome
		want     string // in the one complaint; "" for none
		lost     int
	}{
		{
			name:     "all well",
			commits:  []commit{seed, edit("a", 1, "a\n"), edit("b", 2, "a\nb\n")},
			moves:    []move{{old: "x", new: "y", subject: "a main edit"}, {old: "y", new: "z", subject: "b main edit"}},
			outcomes: []outcome{ok("a", "o0"), ok("b", "oa")},
		},
		{
			name:     "never arrived",
			commits:  []commit{seed, edit("a", 1, "a\n")},
			outcomes: []outcome{ok("a", "o0"), ok("b", "oa")},
			want:     "LOST: b", lost: 1,
		},
		{
			name:     "both bumped from the same",
			commits:  []commit{seed, edit("a", 1, "a\n"), edit("b", 1, "a\nb\n")},
			outcomes: []outcome{ok("a", "o0"), ok("b", "oa")},
			want:     "lost update",
		},
		{
			name:     "line taken away",
			commits:  []commit{seed, edit("a", 1, "a\n"), edit("b", 2, "b\n")},
			outcomes: []outcome{ok("a", "o0"), ok("b", "oa")},
			want:     "the journal is not the last one",
		},
		{
			name:     "landed over one that was not seen",
			commits:  []commit{seed, edit("a", 1, "a\n"), edit("b", 2, "a\nb\n")},
			outcomes: []outcome{ok("a", "o0"), ok("b", "o0")},
			want:     "overlap: b",
		},
		{
			name:     "overwritten",
			commits:  []commit{seed, edit("b", 1, "b\n")},
			moves:    []move{{old: "x", new: "y", subject: "b main edit", dropped: []string{"a main edit"}}},
			outcomes: []outcome{{id: "a", kind: "locked", group: "main", code: -1}, ok("b", "o0")},
			want:     "LOST: b overwrote a", lost: 1,
		},
		{
			name:     "replaced its own",
			commits:  []commit{seed, edit("b", 1, "b\n")},
			moves:    []move{{old: "x", new: "y", subject: "b main edit", dropped: []string{"b main edit"}}},
			outcomes: []outcome{ok("b", "o0")},
		},
		{
			name:     "the server lost a move",
			commits:  []commit{seed, edit("b", 1, "b\n")},
			moves:    []move{{old: "x", new: "y", subject: "b"}, {old: "x", new: "z", subject: "b"}},
			outcomes: []outcome{ok("b", "o0")},
			want:     "where it was not",
		},
		{
			name:     "said success and has not pushed",
			commits:  []commit{seed},
			outcomes: []outcome{{id: "a", kind: "locked", group: "main"}},
			want:     "exited 0 without a push",
		},
		{
			name:     "landed without the lock",
			commits:  []commit{seed, edit("a", 1, "a\n")},
			outcomes: []outcome{{id: "a", kind: stale, group: "main"}},
			want:     "pushed without the lock",
		},
	} {
		wrong, lost := judge(history{commits: test.commits, moves: test.moves}, test.outcomes)
		if test.want == "" && len(wrong) > 0 || test.want != "" && !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, test.want) }) || lost != test.lost {
			t.Errorf("%s: got %q and %d lost, want %q and %d", test.name, wrong, lost, test.want, test.lost)
		}
	}
}

func TestMonitor_detects(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"in order", []string{
			`"ZADD" "gitops:queue:{r@b}" "1" "A"`, `"ZADD" "gitops:queue:{r@b}" "2" "B"`,
			`"ZREM" "gitops:queue:{r@b}" "A"`, `"SET" "gitops:lock:{r@b}" "A" "PX" "5000"`,
			`"ZREM" "gitops:queue:{r@b}" "B"`, `"SET" "gitops:lock:{r@b}" "B" "PX" "5000"`,
		}, ""},
		{"the dead are passed over", []string{
			`"ZADD" "gitops:queue:{r@b}" "1" "A"`, `"ZADD" "gitops:queue:{r@b}" "2" "B"`,
			`"ZREM" "gitops:queue:{r@b}" "A"`, `"ZREM" "gitops:queue:{r@b}" "B"`,
			`"SET" "gitops:lock:{r@b}" "B" "PX" "5000"`,
		}, ""},
		{"overtaken", []string{
			`"ZADD" "gitops:queue:{r@b}" "1" "A"`, `"ZADD" "gitops:queue:{r@b}" "2" "B"`,
			`"ZREM" "gitops:queue:{r@b}" "B"`, `"SET" "gitops:lock:{r@b}" "B" "PX" "5000"`,
		}, "B (ticket 2) was granted the lock before A"},
		{"jumped the queue", []string{
			`"ZADD" "gitops:queue:{r@b}" "1" "A"`, `"SET" "gitops:lock:{r@b}" "C" "PX" "5000"`,
		}, "C (ticket 0) was granted the lock before A"},
		{"an old fence", []string{
			`"SET" "gitops:fence:{r@b}" "7" "PX" "9"`, `"SET" "gitops:fence:{r@b}" "7" "PX" "9"`,
		}, "fence 7 after 7"},
	} {
		m := &monitor{
			event:   func(string, ...any) {},
			tickets: map[string]map[string]float64{}, fences: map[string]int64{}, gone: map[string]bool{}, held: map[string]bool{},
		}
		for _, line := range test.lines {
			m.command(words(line))
		}
		if got := strings.Join(m.wrong, "; "); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
