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

// NewReplay begins a replay onto a commit. Close it when done.
func (g Git) NewReplay(ctx context.Context, onto string) (*Replay, error) {
	gitDir, err := g.Output(ctx, "rev-parse", "--absolute-git-dir")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gitops-replay-")
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	work := filepath.Join(dir, "work")
	r := &Replay{Tip: onto, dir: dir, onto: onto}
	// With an empty work tree, attributes are read from the index, and the user's folder (of which
	// apply would take the part below it only) does not matter.
	r.git = g.In(work).With(
		"GIT_DIR="+strings.TrimSuffix(gitDir, "\n"), "GIT_WORK_TREE="+work,
		"GIT_INDEX_FILE="+filepath.Join(dir, "index"), "LC_ALL=C")
	r.git.Globals = append(r.git.Globals, "-c", "core.fsmonitor=false", "-c", "core.splitIndex=false")
	err = os.Mkdir(work, 0o700)
	if err == nil {
		r.tree, err = r.treeOf(ctx, onto)
	}
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

// Add replays the commits from base to tip. When they cannot be taken as they are, the error is a
// *LeftOutError, and the replay is as before.
func (r *Replay) Add(ctx context.Context, base, tip string) error {
	if !r.git.Contains(ctx, r.onto, base) {
		return &LeftOutError{Reason: "the commits build on what is not in the branch"}
	}
	commits, err := r.git.plainCommits(ctx, r.onto, tip)
	if err != nil {
		return err
	}
	before, beforeTree := r.Tip, r.tree
	var pairs []treePair
	for _, c := range commits {
		pair := treePair{commit: c.oid, oldFrom: c.parentTree, oldTo: c.tree, newFrom: r.tree}
		if err = r.pick(ctx, c); err != nil {
			break
		}
		pair.newTo = r.tree
		pairs = append(pairs, pair)
	}
	if err == nil {
		err = r.same(ctx, pairs)
	}
	if err != nil {
		r.Tip, r.tree = before, beforeTree
		err = errors.Join(err, r.reset(context.WithoutCancel(ctx)))
	}
	return err
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

func (r *Replay) treeOf(ctx context.Context, commit string) (string, error) {
	out, err := r.git.Output(ctx, "rev-parse", "--verify", commit+"^{tree}")
	return strings.TrimSpace(out), err
}

// treePair is one commit, as it was and as it is replayed.
type treePair struct {
	commit                         string
	oldFrom, oldTo, newFrom, newTo string // trees
}

// same makes sure that every replayed commit does what the original does, and what a rebase would
// have it do.
func (r *Replay) same(ctx context.Context, pairs []treePair) error {
	var ask strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&ask, "%s %s\n%s %s\n", p.oldFrom, p.oldTo, p.newFrom, p.newTo)
	}
	out, err := r.git.ask(ctx, ask.String(), "diff-tree", "--stdin", "-r", "-z", "--raw", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none")
	if err != nil {
		return err
	}
	changes, err := parseChanges(out)
	if err != nil {
		return err
	}
	of := func(from, to string) map[string]change { return changes[from+" "+to] }
	for _, p := range pairs {
		was, is := of(p.oldFrom, p.oldTo), of(p.newFrom, p.newTo)
		if len(is) < len(was) {
			return &LeftOutError{p.commit, "would become empty or smaller"}
		}
		folders := false
		for name, c := range was {
			if !c.keptBy(is[name]) {
				return &LeftOutError{p.commit, "would change " + name + " differently"}
			}
			folders = folders || c.status == "A" || c.status == "D"
		}
		if len(is) != len(was) {
			return &LeftOutError{p.commit, "would change other files"}
		}
		if folders {
			if err := r.folders(ctx, p, was); err != nil {
				return err
			}
		}
	}
	return nil
}

// folders leaves out what a rebase may take for the renaming of a folder: a path that is added
// below a folder that is gone by now, and a folder that is removed and has new files by now.
func (r *Replay) folders(ctx context.Context, p treePair, was map[string]change) error {
	var all [4]map[string]bool
	for i, tree := range []string{p.oldFrom, p.oldTo, p.newFrom, p.newTo} {
		out, err := r.git.Output(ctx, "ls-tree", "-r", "-d", "-z", "--name-only", tree)
		if err != nil {
			return err
		}
		all[i] = map[string]bool{}
		for name := range strings.SplitSeq(out, "\x00") {
			all[i][name] = true
		}
	}
	oldFrom, oldTo, newFrom, newTo := all[0], all[1], all[2], all[3]
	for name, c := range was {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if c.status == "A" && oldFrom[dir] && !newFrom[dir] || c.status == "D" && oldFrom[dir] && !oldTo[dir] && newTo[dir] {
				return &LeftOutError{p.commit, "touches a folder that was removed or renamed"}
			}
		}
	}
	return nil
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
	oid, tree, parent, parentTree string
	rest                          string // what follows tree and parent
}

// on is the same commit with another parent and tree.
func (c rawCommit) on(parent, tree string) string {
	return "tree " + tree + "\nparent " + parent + "\n" + c.rest
}

// plainCommits are the commits of tip that are not in since, oldest first. There must be some, in
// one line, none of them a merge, a first commit, or signed: the error is a *LeftOutError else.
func (g Git) plainCommits(ctx context.Context, since, tip string) ([]rawCommit, error) {
	out, err := g.Output(ctx, "rev-list", "--reverse", "--topo-order", "--parents", since+".."+tip)
	if err != nil {
		return nil, err
	}
	list := lines(out)
	if len(list) == 0 {
		return nil, &LeftOutError{Reason: "everything is in the branch already"}
	}
	for _, line := range list {
		if words := strings.Fields(line); len(words) != 2 {
			return nil, &LeftOutError{words[0], "is a merge, or a first commit"}
		}
	}
	var ask []string
	for i, line := range list {
		words := strings.Fields(line)
		if i == 0 {
			ask = append(ask, words[1])
		} else if words[1] != ask[i] {
			return nil, &LeftOutError{words[0], "is not in one line with the others"}
		}
		ask = append(ask, words[0])
	}
	raw, err := g.rawCommits(ctx, ask)
	if err != nil {
		return nil, err
	}
	commits := make([]rawCommit, 0, len(list))
	for i, text := range raw {
		c := rawCommit{oid: ask[i]}
		var treeOK, parentOK bool
		head, rest, _ := strings.Cut(text, "\n")
		c.tree, treeOK = strings.CutPrefix(head, "tree ")
		if i == 0 { // only its tree matters
			commits = append(commits, c)
			continue
		}
		head, c.rest, _ = strings.Cut(rest, "\n")
		c.parent, parentOK = strings.CutPrefix(head, "parent ")
		headers, _, _ := strings.Cut(c.rest, "\n\n")
		signed := slices.ContainsFunc(lines(headers), func(l string) bool { return strings.HasPrefix(l, "gpgsig") || strings.HasPrefix(l, "mergetag") })
		switch {
		case !treeOK || !parentOK || c.parent != ask[i-1]:
			return nil, &LeftOutError{c.oid, "is replaced, or not in the format that git writes"}
		case signed:
			return nil, &LeftOutError{c.oid, "is signed"}
		}
		c.parentTree = commits[i-1].tree
		commits = append(commits, c)
	}
	return commits[1:], nil
}

// rawCommits are commits as they are stored.
func (g Git) rawCommits(ctx context.Context, oids []string) ([]string, error) {
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
