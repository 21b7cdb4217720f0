package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/gitargs"
)

// A clone that was made some time ago can be brought to what a fresh clone would be now for the
// price of a small fetch. Snapshot looks at it in advance, CatchUp does it. Whatever is unusual is
// left to a fresh clone: both then say why, in a *StaleError.

// StaleError says why a clone cannot be brought up to date so that it equals a fresh one.
type StaleError struct{ Reason string }

func (e *StaleError) Error() string { return e.Reason }

// Snapshot is a clone in which nobody has worked yet, as git has just made it.
type Snapshot struct {
	git    Git
	remote string // its name
	fetch  string // the one refspec
	single bool   // only one branch is fetched, and the tags that point into it
	tags   bool
	depth  string // "1", or "" when the history is whole
	branch string // the one that is checked out, short
	tip    string // object id
	head   string // what refs/remotes/<remote>/HEAD stands for; "" when there is none
	files  bool   // there are an index and a work tree
	repo   RepoState
	made   time.Time // not before the clone was done
}

// Snapshot looks at the clone in a folder, which args has made. g has the global options that it
// was made with.
func (g Git) Snapshot(ctx context.Context, dir string, args gitargs.CloneArgs) (Snapshot, error) {
	g.Globals = append(slices.Clone(g.Globals), "-C", dir)
	s := Snapshot{git: g, depth: args.Depth, files: !args.NoCheckout, made: time.Now()}
	var err error
	if s.repo, err = g.State(ctx); err != nil {
		return s, err
	}
	config, err := g.ReadConfig(ctx)
	if err != nil {
		return s, err
	}
	var ok bool
	s.tip = s.repo.Tip
	if s.branch, ok = strings.CutPrefix(s.repo.Head, "refs/heads/"); !ok || s.tip == "" {
		return s, &StaleError{"no branch is checked out"}
	}
	// Its reflogs are in no files, and could not be made short.
	if how, _ := config.Get("extensions.refstorage"); how != "" && how != "files" {
		return s, &StaleError{"its refs are not in files"}
	}
	if s.remote, ok = config.Get("branch." + s.branch + ".remote"); !ok {
		return s, &StaleError{"the branch tracks no branch of the remote"}
	}
	if specs := config["remote."+s.remote+".fetch"]; len(specs) == 1 {
		s.fetch = specs[0]
	}
	switch tracking := "refs/remotes/" + s.remote + "/"; s.fetch {
	case "+refs/heads/*:" + tracking + "*":
	case "+refs/heads/" + s.branch + ":" + tracking + s.branch:
		s.single = true
	default:
		return s, &StaleError{"it has unusual fetch refspecs"}
	}
	switch how, _ := config.Get("remote." + s.remote + ".tagopt"); how {
	case "":
		s.tags = true
	case "--no-tags":
		if out, err := g.Output(ctx, "for-each-ref", "--count=1", "refs/tags"); err != nil || out != "" { // git 2.55 with --branch
			return s, &StaleError{"it has tags although it was to have none"}
		}
	default:
		return s, &StaleError{"it has unusual settings for tags"}
	}
	// A longer history is cut at other commits when a part of it is there already.
	if s.depth != "" && (!s.single || s.depth != "1") {
		return s, &StaleError{"it is shallow in an unusual way"}
	}
	if out, err := g.Output(ctx, "symbolic-ref", "--quiet", "refs/remotes/"+s.remote+"/HEAD"); err == nil {
		s.head = strings.TrimSpace(out)
	}
	if config.HasHook(CloneHooks...) {
		return s, &StaleError{"its configuration defines a hook"}
	}
	return s, s.noHooks(ctx)
}

// CloneHooks are the hooks that git runs in a clone.
var CloneHooks = []string{"post-checkout", "post-index-change", "reference-transaction"}

// noHooks makes sure that none of the hooks is there that git runs in a clone, and did not run in
// this one.
func (s Snapshot) noHooks(ctx context.Context) error {
	dir, err := s.git.HooksDir(ctx)
	if err != nil {
		return err
	}
	for _, name := range CloneHooks {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			return &StaleError{"there is a hook " + name}
		}
	}
	return nil
}

// Settled is when Settle can do its work: two seconds after the clone was made, because git counts
// in whole ones.
func (s Snapshot) Settled() time.Time { return s.made.Add(2 * time.Second) }

// Settle spares CatchUp from reading the whole work tree. git trusts a file's time only if it is
// older than the index (Documentation/technical/racy-git.txt), and a clone writes both within a
// second or two: the index has to be written once more, later.
func (s Snapshot) Settle(ctx context.Context) {
	if s.files {
		_, _ = s.git.Output(ctx, "-c", "core.hooksPath="+os.DevNull, "status", "--porcelain", "--untracked-files=no") // it is about time only
	}
}

// CatchUp brings the clone to what a fresh one would be now: all refs, HEAD, index, work tree,
// history of HEAD. Objects that a fresh clone would not have may stay. After an error the clone is
// in no state to be used.
func (s Snapshot) CatchUp(ctx context.Context) error {
	head := make(chan error, 1)
	go func() { head <- s.sameHead(ctx) }() // a request of its own, for the same time as the fetch
	err := s.update(ctx)
	return errors.Join(<-head, err)
}

// sameHead makes sure that the remote's HEAD is still what it was: of a fetch git does not tell.
func (s Snapshot) sameHead(ctx context.Context) error {
	branch, empty, err := s.git.DefaultBranch(ctx, s.remote)
	if err != nil {
		return err
	}
	same := s.head == "refs/remotes/"+s.remote+"/"+branch || s.head == "" && s.single && branch != s.branch
	if empty || branch == "" || !same {
		return &StaleError{"the remote's HEAD has moved"}
	}
	return nil
}

func (s Snapshot) update(ctx context.Context) error {
	// Neither the folder's nor the user's configuration shall add to what a clone does.
	g := s.git
	g.Globals = append(slices.Clone(g.Globals), "-c", "core.logAllRefUpdates=false", "-c", "core.hooksPath="+os.DevNull,
		"-c", "submodule.recurse=false", "-c", "remote."+s.remote+".followRemoteHEAD=never")
	args := []string{"fetch", "--quiet", "--prune", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules", "--no-write-commit-graph"}
	if s.depth != "" {
		args = append(args, "--depth="+s.depth)
	}
	follow := s.tags && s.single
	if !follow {
		args = append(args, "--no-tags")
	} else if err := s.dropTags(ctx, g, ""); err != nil { // one that has moved would not be followed
		return err
	}
	args = append(args, "--", s.remote, s.fetch)
	if s.tags && !s.single {
		args = append(args, "+refs/tags/*:refs/tags/*")
	}
	if _, err := g.Output(ctx, args...); err != nil {
		return err
	}

	tracking := "refs/remotes/" + s.remote + "/" + s.branch
	tip := g.Tip(ctx, tracking)
	if tip == "" {
		return &StaleError{"the branch is gone"}
	}
	if follow {
		if err := s.dropTags(ctx, g, tip); err != nil {
			return err
		}
	}
	if tip != s.tip {
		if err := s.checkOut(ctx, g, tip); err != nil {
			return err
		}
	}
	head := tip
	if s.head != tracking {
		head = g.Tip(ctx, s.head)
	}
	return s.tidy(tip, head)
}

// checkOut moves HEAD, index and work tree.
func (s Snapshot) checkOut(ctx context.Context, g Git, tip string) error {
	if !s.files {
		_, err := g.Output(ctx, "update-ref", "HEAD", tip)
		return err
	}
	// A file that did not change is written in another way when its attributes do.
	changed, err := g.Output(ctx, "diff-tree", "-r", "-z", "--name-only", s.tip, tip)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(changed, "\x00") {
		if strings.EqualFold(path.Base(name), ".gitattributes") { // in any case, as on some file systems
			return &StaleError{"attributes have changed"}
		}
	}
	_, err = g.Output(ctx, "reset", "--quiet", "--hard", tip)
	return err
}

// dropTags removes the tags that do not point into the history of a commit, all when that is "".
func (Snapshot) dropTags(ctx context.Context, g Git, tip string) error {
	args := []string{"for-each-ref", "--format=%(refname) %(objecttype) %(*objecttype)"}
	if tip != "" {
		args = append(args, "--no-merged="+tip)
	}
	out, err := g.Output(ctx, append(args, "refs/tags")...)
	if err != nil || out == "" {
		return err
	}
	var edits strings.Builder
	for _, line := range lines(out) {
		ref, types, _ := strings.Cut(line, " ")
		if types = strings.TrimSpace(types); types != "commit" && types != "tag commit" {
			return &StaleError{"a tag points to no commit"}
		}
		fmt.Fprintf(&edits, "delete %s\n", ref)
	}
	_, err = g.ask(ctx, edits.String(), "update-ref", "--stdin")
	return err
}

// tidy removes what a fresh clone would not have: the previous HEAD, and the steps in the reflogs
// between the first entry and now. head is where the remote's HEAD stands.
func (s Snapshot) tidy(tip, head string) error {
	dir := s.repo.CommonDir
	if err := os.Remove(filepath.Join(dir, "ORIG_HEAD")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for ref, oid := range map[string]string{"HEAD": tip, s.repo.Head: tip, "refs/remotes/" + s.remote + "/HEAD": head} {
		file := filepath.Join(dir, "logs", filepath.FromSlash(ref))
		data, err := os.ReadFile(file)      //nolint:gosec // git's own file
		if errors.Is(err, os.ErrNotExist) { // none are kept, or not in files
			continue
		}
		if err != nil {
			return err
		}
		// Each line is: OLD NEW WHO <MAIL> SECONDS ZONE, a tab, WHY.
		entries := lines(string(data))
		first, last := strings.SplitN(entries[0], " ", 3), strings.SplitN(entries[len(entries)-1], " ", 3)
		if len(first) < 3 || len(last) < 3 || oid == "" {
			return &StaleError{"a reflog that cannot be read"}
		}
		_, why, _ := strings.Cut(first[2], "\t")
		who, _, _ := strings.Cut(last[2], "\t")
		if err := os.WriteFile(file, []byte(first[0]+" "+oid+" "+who+"\t"+why+"\n"), 0o666); err != nil { //nolint:gosec // git's own mode
			return err
		}
	}
	return nil
}
