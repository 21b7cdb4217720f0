package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
// *RebaseError. It returns what it rebased onto, "" when there was nothing to do.
func (g Git) FetchAndRebase(ctx context.Context, remote, branch string) (onto string, err error) {
	from, remote := g.withRemoteAlias(remote)
	if _, err := from.Output(ctx, "fetch", "--quiet", "--no-tags", "--", remote, "refs/heads/"+branch); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNotFetched, branch, err)
	}
	return g.rebase(ctx, "FETCH_HEAD", "")
}

// RebaseRest rebases what HEAD has on top of a commit which is in the history of onto in another
// form. It is otherwise as FetchAndRebase.
func (g Git) RebaseRest(ctx context.Context, onto, landed string) error {
	_, err := g.rebase(ctx, onto, landed)
	return err
}

// rebase rebases the commits of HEAD that are not in since, or not in onto when that is "".
func (g Git) rebase(ctx context.Context, onto, since string) (string, error) {
	out, err := g.Output(ctx, "rev-parse", onto+"^{commit}", "HEAD^{commit}", "HEAD^@", "--path-format=absolute", "--git-path", rebaseState)
	if err != nil {
		return "", err
	}
	answers := lines(out)
	upstream, before, state := answers[0], answers[1], answers[len(answers)-1]
	if upstream == before || slices.Contains(answers[2:len(answers)-1], upstream) || g.Contains(ctx, before, upstream) {
		return "", nil
	}
	what := []string{upstream}
	if since == "" {
		since = upstream
	} else {
		what = []string{"--onto", upstream, since}
	}
	ours, err := g.edits(ctx, since, before)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(ours, func(e edit) bool { return e.merge }) {
		return "", &RebaseError{Reason: "there are merge commits, which a rebase would flatten"}
	}
	if _, err := os.Stat(state); err == nil { // somebody else's, which we must not abort
		return "", &RebaseError{Reason: "another rebase is in progress here"}
	}
	if slices.ContainsFunc(ours, func(e edit) bool { return e.signed }) {
		if config, err := g.ReadConfig(ctx); err != nil {
			return "", err
		} else if !config.IsTrue("commit.gpgsign") {
			return "", &RebaseError{Reason: "there are signed commits, whose signatures a rebase would drop (with commit.gpgSign=true it signs again)"}
		}
	}

	ctx = context.WithoutCancel(ctx) // what is begun is brought to an end, or undone
	// By default a commit that becomes empty is dropped without a word. When two pipelines both
	// bump 4 to 5, that is a lost update: each commit must be applied, and stop when it is empty.
	args := append([]string{"rebase", "--quiet", "--no-autosquash", "--reapply-cherry-picks", "--empty=ask"}, what...)
	if _, err = g.With("GIT_REFLOG_ACTION="+rebaseAction).Output(ctx, args...); err != nil {
		return "", g.abort(ctx, err)
	}
	// One that keeps only a part of itself has lost the rest in the same way.
	after := g.Tip(ctx, "HEAD")
	now, err := g.edits(ctx, upstream, after)
	if err == nil && len(now) == len(ours) {
		i := 0
		for i < len(now) && now[i].size >= ours[i].size {
			i++
		}
		if i == len(now) {
			return upstream, nil
		}
		err = &RebaseError{Commit: g.title(ctx, ours[i].commit), Emptied: true}
	}
	undone := g.MoveTo(ctx, after, before)
	if err == nil {
		err = &RebaseError{Reason: "it would not keep every commit"}
	}
	return "", errors.Join(err, undone)
}

// title is a commit for people: abbreviated, with its subject.
func (g Git) title(ctx context.Context, commit string) string {
	out, err := g.Output(ctx, "log", "-1", "--no-show-signature", "--format=%h (%s)", commit)
	if err != nil {
		return commit
	}
	return strings.TrimSpace(out)
}

// abort undoes a rebase that stopped with err, and says why it did.
func (g Git) abort(ctx context.Context, err error) error {
	stopped := &RebaseError{Reason: err.Error()}
	if !g.rebasing(ctx) {
		return stopped
	}
	if g.Tip(ctx, "REBASE_HEAD") != "" {
		stopped.Commit = g.title(ctx, "REBASE_HEAD")
		unmerged, e := g.Output(ctx, "ls-files", "--unmerged")
		stopped.Emptied = e == nil && unmerged == ""
	}
	if _, e := g.Output(ctx, "rebase", "--abort"); e != nil {
		return errors.Join(stopped, e)
	}
	return stopped
}

// rebaseState is the folder in which git keeps the state of a rebase that is in progress.
const rebaseState = "rebase-merge"

// rebasing reports whether a rebase is in progress.
func (g Git) rebasing(ctx context.Context) bool {
	out, err := g.Output(ctx, "rev-parse", "--path-format=absolute", "--git-path", rebaseState)
	if err != nil {
		return false
	}
	_, err = os.Stat(strings.TrimSuffix(out, "\n"))
	return err == nil
}

// edit is a commit of a range, and how much it changes.
type edit struct {
	commit        string // object id
	merge, signed bool
	size          int // files and lines
}

// edits lists the commits of a range, oldest first.
func (g Git) edits(ctx context.Context, since, to string) ([]edit, error) {
	out, err := g.Output(ctx, "log", "--reverse", "--no-show-signature", "--no-decorate", "--numstat", "--format=raw", since+".."+to)
	if err != nil {
		return nil, err
	}
	var all []edit
	parents := 0
	for _, line := range lines(out) { // those of a message begin with a space
		if commit, ok := strings.CutPrefix(line, "commit "); ok {
			all, parents = append(all, edit{commit: commit}), 0
			continue
		}
		if len(all) == 0 {
			continue
		}
		e := &all[len(all)-1]
		numbers := strings.SplitN(line, "\t", 3)
		switch {
		case strings.HasPrefix(line, "parent "):
			parents++
			e.merge = parents > 1
		case strings.HasPrefix(line, "gpgsig"):
			e.signed = true
		case len(numbers) == 3 && strings.Trim(numbers[0]+numbers[1], "0123456789-") == "":
			added, _ := strconv.Atoi(numbers[0]) // "-" for a binary file
			deleted, _ := strconv.Atoi(numbers[1])
			e.size += 1 + added + deleted
		}
	}
	return all, nil
}
