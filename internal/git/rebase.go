package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// RebaseError is a rebase that was undone because it could not keep every commit.
type RebaseError struct {
	Commit  string // the commit that stopped it, with its subject; "" when it did not begin
	Emptied bool   // the same change is at the remote already: it would have been dropped
	Reason  string
}

func (e *RebaseError) Error() string {
	switch {
	case e.Emptied:
		return "the same change as in commit " + e.Commit + " is at the remote already, from somebody else"
	case e.Commit != "":
		return "commit " + e.Commit + " conflicts with what is at the remote"
	default:
		return "cannot rebase: " + e.Reason
	}
}

// ErrNotFetched says that a branch was not fetched: there is none, or the remote does not answer.
var ErrNotFetched = errors.New("not fetched")

// rebaseAction begins what git's logs say of our own rebases.
const rebaseAction = "gitops push (rebase)"

// FetchAndRebase fetches a branch of the remote and rebases HEAD onto it, keeping every commit
// whole; where that is not possible it leaves everything as it was, and the error is a
// *RebaseError. It reports whether there was anything to do.
func (g Git) FetchAndRebase(ctx context.Context, remote, branch string) (bool, error) {
	from, remote := g.withRemoteAlias(remote)
	if _, err := from.Output(ctx, "fetch", "--quiet", "--no-tags", "--", remote, "refs/heads/"+branch); err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrNotFetched, branch, err)
	}
	upstream, before := g.Tip(ctx, "FETCH_HEAD"), g.Tip(ctx, "HEAD")
	if g.Contains(ctx, before, upstream) {
		return false, nil
	}
	if merges, err := g.Output(ctx, "rev-list", "--merges", "--max-count=1", upstream+".."+before); err != nil || merges != "" {
		return false, errors.Join(err, &RebaseError{Reason: "there are merge commits, which a rebase would flatten"})
	}
	if g.rebasing(ctx) { // somebody else's, which we must not abort
		return false, &RebaseError{Reason: "another rebase is in progress here"}
	}
	if signed, err := g.signed(ctx, upstream, before); err != nil {
		return false, err
	} else if signed {
		return false, &RebaseError{Reason: "there are signed commits, whose signatures a rebase would drop (with commit.gpgSign=true it signs again)"}
	}
	ours, err := g.edits(ctx, upstream, before)
	if err != nil {
		return false, err
	}

	ctx = context.WithoutCancel(ctx) // what is begun is brought to an end, or undone
	// By default a commit that becomes empty is dropped without a word. When two pipelines both
	// bump 4 to 5, that is a lost update: each commit must be applied, and stop when it is empty.
	_, err = g.With("GIT_REFLOG_ACTION="+rebaseAction).Output(ctx, "rebase", "--quiet", "--no-autosquash", "--reapply-cherry-picks", "--empty=ask", upstream)
	if err != nil {
		return false, g.abort(ctx, err)
	}
	// One that keeps only a part of itself has lost the rest in the same way.
	now, err := g.edits(ctx, upstream, "HEAD")
	if err == nil && len(now) == len(ours) {
		i := 0
		for i < len(now) && now[i].size >= ours[i].size {
			i++
		}
		if i == len(now) {
			return true, nil
		}
		err = &RebaseError{Commit: ours[i].commit, Emptied: true}
	}
	_, undone := g.Output(ctx, "reset", "--keep", "--quiet", before)
	if err == nil {
		err = &RebaseError{Reason: "it would not keep every commit"}
	}
	return false, errors.Join(err, undone)
}

// signed reports whether a range has signed commits that a rebase would not sign again.
func (g Git) signed(ctx context.Context, since, to string) (bool, error) {
	config, err := g.ReadConfig(ctx)
	if err != nil || config.IsTrue("commit.gpgsign") {
		return false, err
	}
	out, err := g.Output(ctx, "rev-list", "--header", since+".."+to)
	for commit := range strings.SplitSeq(out, "\x00") {
		header, _, _ := strings.Cut(commit, "\n\n")
		if strings.Contains(header, "\ngpgsig") {
			return true, err
		}
	}
	return false, err
}

// abort undoes a rebase that stopped with err, and says why it did.
func (g Git) abort(ctx context.Context, err error) error {
	stopped := &RebaseError{Reason: err.Error()}
	if !g.rebasing(ctx) {
		return stopped
	}
	if out, e := g.Output(ctx, "log", "-1", "--no-show-signature", "--format=%h (%s)", "REBASE_HEAD"); e == nil {
		stopped.Commit = strings.TrimSpace(out)
		unmerged, e := g.Output(ctx, "ls-files", "--unmerged")
		stopped.Emptied = e == nil && unmerged == ""
	}
	if _, e := g.Output(ctx, "rebase", "--abort"); e != nil {
		return errors.Join(stopped, e)
	}
	return stopped
}

// rebasing reports whether a rebase is in progress, by the folder that git keeps its state in.
func (g Git) rebasing(ctx context.Context) bool {
	out, err := g.Output(ctx, "rev-parse", "--path-format=absolute", "--git-path", "rebase-merge")
	if err != nil {
		return false
	}
	_, err = os.Stat(strings.TrimSuffix(out, "\n"))
	return err == nil
}

// edit is how much a commit changes.
type edit struct {
	commit string // abbreviated, with its subject
	size   int    // files and lines
}

// edits lists the commits of a linear range, oldest first.
func (g Git) edits(ctx context.Context, since, to string) ([]edit, error) {
	out, err := g.Output(ctx, "log", "--reverse", "--no-show-signature", "--numstat", "--format=%x00%h (%s)", since+".."+to)
	if err != nil {
		return nil, err
	}
	var all []edit
	for _, entry := range strings.Split(out, "\x00")[1:] {
		commit, files, _ := strings.Cut(entry, "\n")
		e := edit{commit: commit}
		for _, file := range lines(files) {
			if numbers := strings.Split(file, "\t"); len(numbers) >= 3 {
				added, _ := strconv.Atoi(numbers[0]) // "-" for a binary file
				deleted, _ := strconv.Atoi(numbers[1])
				e.size += 1 + added + deleted
			}
		}
		all = append(all, e)
	}
	return all, nil
}
