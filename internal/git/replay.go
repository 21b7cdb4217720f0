package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// LeftOutError says why commits cannot be replayed as they are. Nothing is wrong with them: they
// are to be rebased by their own pipeline, where git decides.
type LeftOutError struct {
	Commit string // object id; "" when it is not about one of them
	Reason string
}

func (e *LeftOutError) Error() string {
	if e.Commit == "" {
		return e.Reason
	}
	return fmt.Sprintf("commit %.10s %s", e.Commit, e.Reason)
}

// Replay puts commits on top of another one, as a rebase would, in an index of its own: no work
// tree and no ref is touched. It takes only what a rebase would take in the same way. The same
// commits on the same tip give the same object ids, because nothing but tree and parent changes.
type Replay struct {
	Tip string // what has been replayed so far

	git  Git
	dir  string // temporary: the index, and a work tree that stays empty
	onto string // where it began
	tree string // of Tip
}

// Range is the commits from Base, which is in the branch, to Tip.
type Range struct{ Base, Tip string }

// NewReplay begins a replay onto a commit. Close it when done.
func (g Git) NewReplay(ctx context.Context, onto string) (*Replay, error) {
	out, err := g.Output(ctx, "rev-parse", "--absolute-git-dir", onto+"^{tree}")
	answer := strings.TrimSuffix(out, "\n")
	end := strings.LastIndexByte(answer, '\n')
	if err != nil || end < 0 {
		return nil, errors.Join(err, errors.New("replay: no such repository"))
	}
	dir, err := os.MkdirTemp("", "gitops-replay-")
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	work := filepath.Join(dir, "work")
	r := &Replay{Tip: onto, dir: dir, onto: onto, tree: answer[end+1:]}
	// With an empty work tree, attributes are read from the index, and the user's folder (of which
	// apply would take the part below it only) does not matter.
	r.git = g.In(work).With(
		"GIT_DIR="+answer[:end], "GIT_WORK_TREE="+work,
		"GIT_INDEX_FILE="+filepath.Join(dir, "index"), "LC_ALL=C")
	r.git.Globals = append(r.git.Globals, "-c", "core.fsmonitor=false", "-c", "core.splitIndex=false")
	err = os.Mkdir(work, 0o700)
	if err == nil {
		err = r.reset(ctx)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close removes what the replay kept on disk. Its commits stay.
func (r *Replay) Close() { _ = os.RemoveAll(r.dir) }

// Add replays ranges, one after the other. Of each it returns the tip that it came to, or why it
// was left out, mostly a *LeftOutError: then the replay goes on as if it were not there.
func (r *Replay) Add(ctx context.Context, ranges ...Range) (tips []string, left []error, err error) {
	tips, left = make([]string, len(ranges)), make([]error, len(ranges))
	all := make([]string, len(ranges))
	for i, o := range ranges {
		all[i] = o.Tip
	}
	found, err := r.git.commits(ctx, r.onto, all)
	if err != nil {
		return nil, nil, err
	}
	picks := make([][]rawCommit, len(ranges))
	for i, o := range ranges {
		picks[i], left[i] = found.line(o)
	}
	if err := r.sameAttributes(ctx, picks, left); err != nil {
		return nil, nil, err
	}
	type state struct {
		tip, tree string
		pairs     int
	}
	before, never := make([]state, len(ranges)), slices.Clone(left)
	var pairs []treePair
	for next := 0; ; {
		for i := next; i < len(ranges); i++ {
			before[i] = state{r.Tip, r.tree, len(pairs)}
			if left[i] != nil {
				continue
			}
			var err error
			for _, c := range picks[i] {
				pair := treePair{of: i, commit: c.oid, parent: c.parents[0], oldFrom: c.parentTree, oldTo: c.tree, newFrom: r.tree}
				if err = r.pick(ctx, c); err != nil {
					break
				}
				pair.newTo = r.tree
				pairs = append(pairs, pair)
			}
			if tips[i], left[i] = r.Tip, err; err != nil {
				r.Tip, r.tree, pairs = before[i].tip, before[i].tree, pairs[:before[i].pairs]
				if err := r.reset(context.WithoutCancel(ctx)); err != nil {
					return nil, nil, err
				}
			}
		}
		// All at once, because most are as they should be. Those after one that is not may be so
		// because of it.
		bad, why, err := r.same(ctx, pairs)
		if err != nil || why == nil {
			return tips, left, err
		}
		r.Tip, r.tree, pairs = before[bad].tip, before[bad].tree, pairs[:before[bad].pairs]
		next = bad + 1
		copy(left[next:], never[next:])
		left[bad] = why
		if err := r.reset(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// attributesFile is where attributes are; in any case, as on some file systems.
const attributesFile = ".gitattributes"

// sameAttributes leaves out what is built on other attributes than those of today: files that a
// rebase has checked out then look as if somebody had edited them.
func (r *Replay) sameAttributes(ctx context.Context, ranges [][]rawCommit, left []error) error {
	pairs := map[string]bool{} // of trees; whether attributes differ
	var ask strings.Builder
	for _, line := range ranges {
		if len(line) == 0 || line[0].parentTree == r.tree {
			continue
		}
		pair := line[0].parentTree + " " + r.tree
		if _, asked := pairs[pair]; !asked {
			fmt.Fprintln(&ask, pair)
			pairs[pair] = false
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	out, err := r.git.ask(ctx, ask.String(), "diff-tree", "--stdin", "-r", "--name-only", "--no-renames", "--", ":(glob,icase)**/"+attributesFile)
	if err != nil {
		return err
	}
	pair := ""
	for _, line := range lines(out) {
		if _, asked := pairs[line]; asked {
			pair = line
		} else {
			pairs[pair] = true
		}
	}
	for i, line := range ranges {
		if len(line) > 0 && pairs[line[0].parentTree+" "+r.tree] {
			left[i] = &LeftOutError{line[0].oid, "is built on other attributes"}
		}
	}
	return nil
}

// pick replays one commit.
func (r *Replay) pick(ctx context.Context, c rawCommit) error {
	if c.tree != c.parentTree { // one that was empty on purpose stays
		patch, err := r.git.Output(ctx, "diff-tree", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color",
			"--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--ignore-submodules=none", "--submodule=short", c.parentTree, c.tree)
		if err != nil {
			return err
		}
		if patch == "" {
			return &LeftOutError{c.oid, "has a change that git does not show"}
		}
		_, err = r.git.ask(ctx, patch, "apply", "--cached", "--3way", "--whitespace=nowarn", "--no-ignore-whitespace", "-")
		var refused *Error
		if errors.As(err, &refused) {
			return &LeftOutError{c.oid, "conflicts"}
		}
		if err != nil {
			return err
		}
		tree, err := r.git.Output(ctx, "write-tree")
		if err != nil {
			return err
		}
		r.tree = strings.TrimSpace(tree)
	}
	oid, err := r.git.ask(ctx, c.on(r.Tip, r.tree), "hash-object", "-t", "commit", "-w", "--stdin")
	var refused *Error
	if errors.As(err, &refused) {
		return &LeftOutError{c.oid, "cannot be written again by this git"}
	}
	if err != nil {
		return err
	}
	r.Tip = strings.TrimSpace(oid)
	return nil
}

// reset reads the index again from the last good tree.
func (r *Replay) reset(ctx context.Context) error {
	_, err := r.git.Output(ctx, "read-tree", "--reset", r.tree)
	return err
}

// treePair is one commit, as it was and as it is replayed.
type treePair struct {
	of                             int // which range
	commit, parent                 string
	oldFrom, oldTo, newFrom, newTo string // trees
}

// differs says in which way the replayed commit does something else than the original; nil if it
// does the same.
func (p treePair) differs(was, is map[string]change) error {
	if len(is) < len(was) {
		return &LeftOutError{p.commit, "would become empty or smaller"}
	}
	for name, c := range was {
		switch {
		case strings.EqualFold(path.Base(name), attributesFile):
			return &LeftOutError{p.commit, "changes attributes"}
		case !c.keptBy(is[name]):
			return &LeftOutError{p.commit, "would change " + name + " differently"}
		}
	}
	if len(is) != len(was) {
		return &LeftOutError{p.commit, "would change other files"}
	}
	return nil
}

// same makes sure that every replayed commit does what the original does, and what a rebase would
// have it do. It returns the first range of which one does not, and why.
func (r *Replay) same(ctx context.Context, pairs []treePair) (bad int, why, err error) {
	if len(pairs) == 0 {
		return 0, nil, nil
	}
	var ask strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&ask, "%s %s\n%s %s\n", p.oldFrom, p.oldTo, p.newFrom, p.newTo)
	}
	out, err := r.git.ask(ctx, ask.String(), "diff-tree", "--stdin", "-r", "-z", "--raw", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none")
	if err != nil {
		return 0, nil, err
	}
	changes, err := parseChanges(out)
	if err != nil {
		return 0, nil, err
	}
	var moved []folder
	for _, p := range pairs {
		was, is := changes[p.oldFrom+" "+p.oldTo], changes[p.newFrom+" "+p.newTo]
		merged := false
		for name, c := range was {
			moved = append(moved, c.folders(p, name)...)
			merged = merged || is[name].oldOID != c.oldOID
		}
		why = p.differs(was, is)
		if why == nil && merged {
			if why, err = r.likeRebase(ctx, p); err != nil {
				return 0, nil, err
			}
		}
		if why != nil {
			bad = p.of
			break
		}
	}
	at, met, err := r.meets(ctx, moved)
	if err != nil || met == nil || why != nil && at > bad {
		return bad, why, err
	}
	return at, met, nil
}

// likeRebase makes sure that a commit of which a file was merged is what a rebase makes of it: that
// looks for what belongs together in another way than apply does, which shows where lines are
// repeated.
func (r *Replay) likeRebase(ctx context.Context, p treePair) (why, err error) {
	if !r.git.AtLeast(ctx, 2, 38) {
		return &LeftOutError{p.commit, "changes a file that others have changed, and this git cannot tell what a rebase makes of that"}, nil
	}
	const who = " git-gitops <git-gitops@localhost> 0 +0000\n" // newer gits want all of it
	onto, err := r.git.ask(ctx, "tree "+p.newFrom+"\nparent "+p.parent+"\nauthor"+who+"committer"+who+"\n", "hash-object", "-t", "commit", "-w", "--stdin")
	if err != nil {
		return nil, err
	}
	tree, err := r.git.Output(ctx, "merge-tree", "--write-tree", "--no-messages", strings.TrimSpace(onto), p.commit)
	var conflicts *Error
	switch {
	case errors.As(err, &conflicts) && conflicts.ExitCode == 1:
		return &LeftOutError{p.commit, "conflicts"}, nil
	case err != nil:
		return nil, err
	case strings.TrimSpace(tree) != p.newTo:
		return &LeftOutError{p.commit, "would be merged differently"}, nil
	}
	return nil, nil
}

// folder is one of which something was added or deleted.
type folder struct {
	pair  treePair
	name  string
	added bool
}

// folders are those above a path that was added or deleted.
func (c change) folders(p treePair, name string) (all []folder) {
	if c.status != "A" && c.status != "D" {
		return nil
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		all = append(all, folder{p, dir, c.status == "A"})
	}
	return all
}

// meets finds what a rebase may take for the renaming of a folder: a path that is added below a
// folder that is gone by now, and a folder that is removed and has new files by now. It
// returns the first range with such a folder.
func (r *Replay) meets(ctx context.Context, all []folder) (at int, why, err error) {
	var ask strings.Builder
	for _, f := range all {
		if strings.Contains(f.name, "\n") { // which cannot be asked about
			return f.pair.of, &LeftOutError{f.pair.commit, "has a folder with a line break in its name"}, nil
		}
		for _, tree := range []string{f.pair.oldFrom, f.pair.oldTo, f.pair.newFrom, f.pair.newTo} {
			fmt.Fprintf(&ask, "%s:%s\n", tree, f.name)
		}
	}
	if len(all) == 0 {
		return 0, nil, nil
	}
	out, err := r.git.ask(ctx, ask.String(), "cat-file", "--batch-check=%(objecttype)")
	answers := lines(out)
	if err == nil && len(answers) != 4*len(all) {
		err = errors.New("unexpected output of cat-file")
	}
	if err != nil {
		return 0, nil, err
	}
	for i, f := range all {
		is := func(n int) bool { return answers[4*i+n] == "tree" }
		oldFrom, oldTo, newFrom, newTo := is(0), is(1), is(2), is(3)
		if f.added && oldFrom && !newFrom || !f.added && oldFrom && !oldTo && newTo {
			return f.pair.of, &LeftOutError{f.pair.commit, "touches a folder that was removed or renamed"}, nil
		}
	}
	return 0, nil, nil
}

// change is what a commit does to one path.
type change struct {
	oldMode, newMode, oldOID, newOID string
	status                           string // A, D, M, T
	lines                            int    // added and deleted
}

// keptBy reports whether a replayed change is the same as this one: byte for byte, or merged with
// what others did to other lines of the same file.
func (c change) keptBy(is change) bool {
	if is.status != c.status || is.newMode != c.newMode || is.oldMode != c.oldMode {
		return c.status == "M" && is.status == "M" && c.merges(is)
	}
	if is.oldOID == c.oldOID && is.newOID == c.newOID {
		return true
	}
	return c.status == "M" && c.merges(is)
}

func (c change) merges(is change) bool {
	regular := func(mode string) bool { return strings.HasPrefix(mode, "100") }
	if !regular(c.oldMode) || !regular(c.newMode) || !regular(is.oldMode) || !regular(is.newMode) {
		return false
	}
	sameMode := is.newMode == c.newMode && is.oldMode == c.oldMode || c.oldMode == c.newMode && is.oldMode == is.newMode
	return sameMode && (c.oldOID == c.newOID) == (is.oldOID == is.newOID) && is.lines >= c.lines
}

// parseChanges reads diff-tree --stdin -z --raw --numstat for pairs of trees.
func parseChanges(out string) (map[string]map[string]change, error) {
	all := map[string]map[string]change{}
	var now map[string]change
	fields := strings.Split(out, "\x00")
	for i := 0; i < len(fields); i++ {
		f := fields[i]
		// What names the pair ends with a line break instead, and so stands before the next field.
		for {
			head, rest, ok := strings.Cut(f, "\n")
			if !ok || strings.Count(head, " ") != 1 || strings.HasPrefix(head, ":") || strings.Contains(head, "\t") {
				break
			}
			if all[head] == nil {
				all[head] = map[string]change{}
			}
			now, f = all[head], rest
		}
		switch {
		case f == "":
		case now == nil:
			return nil, fmt.Errorf("unexpected output of diff-tree: %q", f)
		case strings.HasPrefix(f, ":"):
			words := strings.Fields(f[1:])
			if len(words) != 5 || i+1 == len(fields) {
				return nil, fmt.Errorf("unexpected output of diff-tree: %q", f)
			}
			i++
			c := now[fields[i]]
			c.oldMode, c.newMode, c.oldOID, c.newOID, c.status = words[0], words[1], words[2], words[3], words[4]
			now[fields[i]] = c
		default:
			numbers := strings.SplitN(f, "\t", 3)
			if len(numbers) != 3 {
				return nil, fmt.Errorf("unexpected output of diff-tree: %q", f)
			}
			added, _ := strconv.Atoi(numbers[0]) // "-" for a binary file
			deleted, _ := strconv.Atoi(numbers[1])
			c := now[numbers[2]]
			c.lines = added + deleted
			now[numbers[2]] = c
		}
	}
	return all, nil
}

// rawCommit is a commit as it is stored.
type rawCommit struct {
	oid, tree, parentTree string
	parents               []string
	rest                  string // what follows tree and parent
	listed                bool   // it is asked for, and not only built on
	whole                 bool   // it is as git writes commits with one parent
}

// on is the same commit with another parent and tree.
func (c rawCommit) on(parent, tree string) string {
	return "tree " + tree + "\nparent " + parent + "\n" + c.rest
}

// commitSet is commits by their object ids.
type commitSet map[string]rawCommit

// commits are those of tips that are not in since, and the ones that they build on.
func (g Git) commits(ctx context.Context, since string, tips []string) (commitSet, error) {
	out, err := g.Output(ctx, slices.Concat([]string{"rev-list", "--parents", "^" + since}, tips)...)
	if err != nil {
		return nil, err
	}
	all := commitSet{}
	var ask []string
	for _, line := range lines(out) {
		words := strings.Fields(line)
		all[words[0]] = rawCommit{oid: words[0], parents: words[1:], listed: true}
		ask = append(ask, words...)
	}
	slices.Sort(ask)
	ask = slices.Compact(ask)
	raw, err := g.rawCommits(ctx, ask)
	if err != nil {
		return nil, err
	}
	for i, text := range raw {
		c := all[ask[i]]
		head, rest, _ := strings.Cut(text, "\n")
		c.tree, c.whole = strings.CutPrefix(head, "tree ")
		head, c.rest, _ = strings.Cut(rest, "\n")
		parent, ok := strings.CutPrefix(head, "parent ")
		c.whole = c.whole && ok && slices.Equal(c.parents, []string{parent})
		all[ask[i]] = c
	}
	return all, nil
}

// line is a range of commits, oldest first. There must be some, in one line, none of them a merge,
// a first commit, or signed: the error is a *LeftOutError else.
func (all commitSet) line(o Range) ([]rawCommit, error) {
	var line []rawCommit
	for c := all[o.Tip]; c.listed; c = all[c.parents[0]] {
		headers, _, _ := strings.Cut(c.rest, "\n\n")
		switch {
		case c.oid == o.Base:
			return nil, &LeftOutError{Reason: "the commits build on what is not in the branch"}
		case len(c.parents) != 1:
			return nil, &LeftOutError{c.oid, "is a merge, or a first commit"}
		case !c.whole:
			return nil, &LeftOutError{c.oid, "is replaced, or not in the format that git writes"}
		case slices.ContainsFunc(lines(headers), func(l string) bool { return strings.HasPrefix(l, "gpgsig") || strings.HasPrefix(l, "mergetag") }):
			return nil, &LeftOutError{c.oid, "is signed"}
		}
		c.parentTree = all[c.parents[0]].tree
		line = append(line, c)
	}
	if len(line) == 0 {
		return nil, &LeftOutError{Reason: "everything is in the branch already"}
	}
	slices.Reverse(line)
	return line, nil
}

// rawCommits are commits as they are stored.
func (g Git) rawCommits(ctx context.Context, oids []string) ([]string, error) {
	if len(oids) == 0 {
		return nil, nil
	}
	g.Globals = append(slices.Clone(g.Globals), "--no-replace-objects")
	out, err := g.ask(ctx, strings.Join(oids, "\n")+"\n", "cat-file", "--batch")
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, len(oids))
	for _, oid := range oids {
		head, rest, _ := strings.Cut(out, "\n")
		words := strings.Fields(head)
		if len(words) != 3 || words[1] != "commit" {
			return nil, fmt.Errorf("commit %s cannot be read: %s", oid, head)
		}
		size, err := strconv.Atoi(words[2])
		if err != nil || len(rest) < size+1 {
			return nil, fmt.Errorf("commit %s cannot be read", oid)
		}
		all = append(all, rest[:size])
		out = rest[size+1:]
	}
	return all, nil
}
