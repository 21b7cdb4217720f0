package git

import (
	"context"
	"errors"
	"fmt"
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

// Integrate fetches a branch of the remote and rebases the checked-out branch onto it, keeping
// every commit; where that is not possible it leaves everything as it was. It reports whether
// there was anything to do.
func (g Git) Integrate(ctx context.Context, remote, branch string) (bool, error) {
	if _, err := g.Output(ctx, "fetch", "--quiet", "--no-tags", "--", remote, "refs/heads/"+branch); err != nil {
		return false, fmt.Errorf("fetch %s: %w", branch, err)
	}
	upstream := g.Tip(ctx, "FETCH_HEAD")
	if _, err := g.Output(ctx, "merge-base", "--is-ancestor", upstream, "HEAD"); err == nil {
		return false, nil
	}
	if merges, err := g.Output(ctx, "rev-list", "--merges", "--max-count=1", upstream+"..HEAD"); err != nil || merges != "" {
		return false, errors.Join(err, &RebaseError{Reason: "there are merge commits, which a rebase would flatten"})
	}
	// By default a commit that becomes empty is dropped without a word. When two pipelines both
	// bump 4 to 5, that is a lost update: each commit must be applied, and stop when it is empty.
	_, err := g.Output(ctx, "rebase", "--quiet", "--no-autosquash", "--reapply-cherry-picks", "--empty=ask", upstream)
	if err == nil {
		return true, nil
	}
	ctx = context.WithoutCancel(ctx) // what was begun must be undone
	stopped := &RebaseError{Reason: err.Error()}
	if out, e := g.Output(ctx, "log", "-1", "--format=%h (%s)", "REBASE_HEAD"); e == nil {
		stopped.Commit = strings.TrimSpace(out)
		unmerged, e := g.Output(ctx, "ls-files", "--unmerged")
		stopped.Emptied = e == nil && unmerged == ""
		if _, e := g.Output(ctx, "rebase", "--abort"); e != nil {
			return false, errors.Join(stopped, e)
		}
	}
	return false, stopped
}
