//go:build unix

package chaos

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// history is what became of the branch.
type history struct {
	commits []commit // first-parent, oldest first
	moves   []move   // of the branch, from the server's reflog
}

// commit is one of the branch. Its subject is "id group part".
type commit struct {
	oid             string
	merge           bool
	id, group, part string
	files           map[string]string // what it changed, and to what
}

// move is one update of the branch.
type move struct {
	old, new string
	at       time.Time
	dropped  []string // subjects of the commits that it took away
	subject  string   // of the new tip
}

// unseen are the subjects of what a move took away that is of another pipeline than its new tip.
func (m move) unseen() (all []string) {
	owner, _, _ := strings.Cut(m.subject, " ")
	for _, s := range m.dropped {
		if id, _, _ := strings.Cut(s, " "); id != owner {
			all = append(all, s)
		}
	}
	return all
}

// editsOf are the commits that one edit of a pipeline consists of.
func editsOf(kind string) []string {
	if kind == "rebase" {
		return []string{"counter", "journal"}
	}
	return []string{"edit"}
}

// readHistory asks git.
func (w *world) readHistory() history {
	w.t.Helper()
	var h history
	out := w.must("git", "-C", w.bare, "log", "--first-parent", "--reverse", "--raw", "--no-abbrev", "--no-renames",
		"--format=commit %H %s|%P", "main")
	var blobs []string
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "commit "); ok {
			text, parents, _ := strings.Cut(text, "|")
			f := append(strings.Fields(text), "", "", "")
			h.commits = append(h.commits, commit{
				oid: f[0], id: f[1], group: f[2], part: f[3],
				merge: strings.Contains(parents, " "), files: map[string]string{},
			})
		} else if strings.HasPrefix(line, ":") {
			meta, path, _ := strings.Cut(line, "\t")
			blob := strings.Fields(meta)[3]
			h.commits[len(h.commits)-1].files[path] = blob
			blobs = append(blobs, blob)
		}
	}
	content := w.blobs(blobs)
	for _, c := range h.commits {
		for path, blob := range c.files {
			c.files[path] = content[blob]
		}
	}

	data, err := os.ReadFile(filepath.Join(w.bare, "logs", "refs", "heads", "main"))
	if err != nil {
		w.t.Fatal(err)
	}
	var tips []string
	for line := range strings.Lines(string(data)) {
		head, _, _ := strings.Cut(line, "\t")
		f := strings.Fields(head)
		seconds, _ := strconv.ParseInt(f[len(f)-2], 10, 64)
		h.moves = append(h.moves, move{old: f[0], new: f[1], at: time.Unix(seconds, 0)})
		tips = append(tips, f[1])
	}
	parent, subject := w.ancestry(tips)
	for i, m := range h.moves {
		kept := map[string]bool{}
		for c := m.new; c != ""; c = parent[c] {
			kept[c] = true
		}
		for c := m.old; c != "" && !kept[c] && subject[c] != ""; c = parent[c] {
			h.moves[i].dropped = append(h.moves[i].dropped, subject[c])
		}
		h.moves[i].subject = subject[m.new]
	}
	return h
}

// ancestry is the first parent and the subject of every commit that was ever part of the branch.
func (w *world) ancestry(tips []string) (parent, subject map[string]string) {
	w.t.Helper()
	cmd := w.command("git", "-C", w.bare, "log", "--stdin", "--format=%H|%P|%s")
	cmd.Stdin = strings.NewReader(strings.Join(tips, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatal(err)
	}
	parent, subject = map[string]string{}, map[string]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 3)
		parent[f[0]], _, _ = strings.Cut(f[1], " ")
		subject[f[0]] = f[2]
	}
	return parent, subject
}

// blobs reads many at once.
func (w *world) blobs(oids []string) map[string]string {
	w.t.Helper()
	cmd := w.command("git", "-C", w.bare, "cat-file", "--batch")
	cmd.Stdin = strings.NewReader(strings.Join(oids, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatal(err)
	}
	content := map[string]string{}
	for r := bufio.NewReader(bytes.NewReader(out)); ; {
		head, err := r.ReadString('\n')
		if err != nil {
			return content
		}
		f := strings.Fields(head)
		if len(f) != 3 {
			continue // missing: a file that was deleted
		}
		n, _ := strconv.Atoi(f[2])
		data := make([]byte, n+1)
		for read := 0; read < len(data); {
			k, err := r.Read(data[read:])
			if err != nil {
				w.t.Fatal(err)
			}
			read += k
		}
		content[f[0]] = string(data[:n])
	}
}

// outcome is what one pipeline says of itself.
type outcome struct {
	id, kind, group string
	code            int
	pushed          bool   // a push of its exited 0
	base            string // the tip that it cloned
}

func (p *pipeline) outcome() outcome {
	o := outcome{id: p.id, kind: p.kind, group: p.group, code: p.code}
	for _, s := range p.steps() {
		switch {
		case s.name == "base":
			o.base = s.result
		case (s.name == "push" || s.name == "amend") && s.result == "0":
			o.pushed = true
		}
	}
	return o
}

// judge holds the history against what the pipelines say, and returns what is wrong with it. lost
// is the number of edits that a pipeline has reason to believe in and that are not there.
func judge(h history, outcomes []outcome) (wrong []string, lost int) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	// Every commit adds to its own group's files just what it says, and takes nothing away: no
	// edit disappears later, no counter is bumped from a value that is not the last one.
	counters, journals := map[string]int{}, map[string]string{}
	places := map[string][]int{} // of the commits, by "id part"
	at := map[string]int{}       // by object id
	for i, c := range h.commits {
		at[c.oid] = i
		if c.id == "seed" {
			continue
		}
		if c.merge {
			complain("commit %s (%s) is a merge", c.oid, c.id)
		}
		places[c.id+" "+c.part] = append(places[c.id+" "+c.part], i)
		bumps, notes := c.part != "journal", c.part != "counter"
		for path, content := range c.files {
			switch {
			case path == c.group+"/counter" && bumps:
				if want := fmt.Sprintf("%d\n", counters[c.group]+1); content != want {
					complain("lost update: commit %s (%s %s) sets the counter to %q, want %q", c.oid, c.id, c.part, content, want)
				}
			case path == c.group+"/journal" && notes:
				if want := journals[c.group] + c.id + "\n"; content != want {
					complain("commit %s (%s): the journal is not the last one with its line: %d bytes, want %d", c.oid, c.id, len(content), len(want))
				}
				journals[c.group] = content
			default:
				complain("commit %s (%s %s) changes %s", c.oid, c.id, c.part, path)
			}
		}
		if bumps {
			counters[c.group]++
			if _, ok := c.files[c.group+"/counter"]; !ok {
				complain("lost update: commit %s (%s) does not change the counter", c.oid, c.id)
			}
		}
		if _, ok := c.files[c.group+"/journal"]; notes && !ok {
			complain("commit %s (%s) does not change the journal", c.oid, c.id)
		}
	}

	known := map[string]bool{"seed": true}
	for _, o := range outcomes {
		known[o.id] = true
		first := -1
		missing := false
		for _, part := range editsOf(o.kind) {
			found := places[o.id+" "+part]
			missing = missing || len(found) == 0
			switch {
			case len(found) > 1:
				complain("%s (%s): its %s landed %d times", o.id, o.kind, part, len(found))
			case len(found) == 0 && o.pushed:
				complain("LOST: %s (%s) pushed with success, and its %s is not in the history", o.id, o.kind, part)
			}
			if len(found) > 0 && (first < 0 || found[0] < first) {
				first = found[0]
			}
		}
		if missing && o.pushed {
			lost++
		}
		switch {
		case missing && first >= 0:
			complain("%s (%s): only a part of it landed", o.id, o.kind)
		case first >= 0 && o.kind == stale:
			complain("%s pushed without the lock, and is in the history", o.id)
		case first >= 0 && (o.kind == "abandon" || o.kind == "fail" || o.kind == "unlock"):
			complain("%s (%s) has never pushed, and is in the history", o.id, o.kind)
		case o.code == 0 && !o.pushed && o.kind != "abandon" && o.kind != "unlock" && o.kind != stale:
			complain("%s (%s) exited 0 without a push", o.id, o.kind)
		}
		// Nobody of the same lock came between what it cloned and what it landed.
		if base, ok := at[o.base]; ok && first >= 0 && !strings.HasPrefix(o.kind, "outsider") {
			for _, c := range h.commits[base+1 : max(first, base+1)] {
				if c.group == o.group {
					complain("overlap: %s (%s) cloned %s and landed after %s of the same lock", o.id, o.kind, o.base, c.id)
				}
			}
		}
	}
	for _, c := range h.commits {
		if !known[c.id] {
			complain("commit %s (%s) is of nobody", c.oid, c.id)
		}
	}

	// Every move of the branch starts where the last one ended, and takes away at most what its own
	// pipeline had landed before.
	for i, m := range h.moves {
		if i > 0 && m.old != h.moves[i-1].new {
			complain("the branch moved from %s, where it was not", m.old)
		}
		owner, _, _ := strings.Cut(m.subject, " ")
		for _, s := range m.unseen() {
			complain("LOST: %s overwrote %s with %s", owner, s, m.new)
			lost++
		}
	}
	return wrong, lost
}

// forced is how many moves replaced something.
func (h history) forced() int {
	n := 0
	for _, m := range h.moves {
		if len(m.dropped) > 0 {
			n++
		}
	}
	return n
}

// stall is the longest time between two landings.
func (h history) stall() time.Duration {
	var longest time.Duration
	for i := 2; i < len(h.moves); i++ { // the first is the seed
		longest = max(longest, h.moves[i].at.Sub(h.moves[i-1].at))
	}
	return longest
}

func (h history) landed(id string) bool {
	return slices.ContainsFunc(h.commits, func(c commit) bool { return c.id == id })
}
