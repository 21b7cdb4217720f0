package gitops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/git-gitops/git-gitops/internal/fence"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/process"
)

// afterwards bounds the questions to the remote after a push, which go on after Ctrl-C.
const afterwards = time.Minute

// MovedError says that a push would go over edits that this clone has not seen.
type MovedError struct {
	Branch string
	Forced bool   // the push would overwrite or delete it
	Base   string // object id that the branch had when it was cloned; "" when it did not exist
	Tip    string // object id that it has now; "" when it does not exist or nobody could look
}

func (e *MovedError) Error() string {
	if e.Base == "" {
		return fmt.Sprintf("branch %s was created, at %s, while its lock was not held", e.Branch, short(e.Tip))
	}
	return fmt.Sprintf("branch %s moved from %s to %s while its lock was not held", e.Branch, short(e.Base), short(e.Tip))
}

// SameChangeError says that a commit would be lost because the same textual change came in from
// somebody else.
type SameChangeError struct {
	Branch string
	Err    *git.RebaseError
}

func (e *SameChangeError) Error() string { return e.Err.Error() }

func short(oid string) string {
	if oid == "" {
		return "nothing"
	}
	return oid[:min(len(oid), 10)]
}

// pushing is one push with all its tries.
type pushing struct {
	f       *Flows
	git     git.Git // as the user's, but for what leases need
	held    *holds
	args    gitargs.PushArgs
	repo    git.RepoState
	target  gitargs.PushTarget
	url     string // the first that is pushed to
	sight   *sight
	leases  map[string]gitargs.Lease // of branches, by their full names
	refused []git.RefStatus          // what the last look after a failure found
	rebased bool

	refusals []lock.Refusal    // for which the server has refused a push as not under its lock
	actual   map[string]string // tips that the server has, where they are not what this clone believes
}

// run pushes until it landed, or has failed for good. The exit is git's own; it is a success
// exactly when the branches at the remote are ours.
func (p *pushing) run(ctx context.Context, argv []string) (process.Exit, error) {
	argv, err := p.withLeases(ctx, argv)
	if err != nil {
		return process.Exit{}, err
	}
	if err := p.checkBase(ctx, argv); err != nil {
		return process.Exit{}, err
	}
	if p.f.Config.Push.Rebase && p.f.Config.Lock.Name != "" {
		// Others push to this branch under names of their own: what they did comes in first.
		if err := p.integrate(ctx); err != nil {
			return p.notIntegrated(err)
		}
	}
	pauses := lock.Backoff{Least: 2 * time.Second, Most: time.Minute}
	for try := 0; ; try++ {
		if err := p.declare(ctx); err != nil {
			return process.Exit{}, err
		}
		if err := ctx.Err(); err != nil { // the questions before may have no answer for that reason
			return process.Exit{}, err
		}
		exit, stderr, err := p.push(argv)
		if err != nil || exit.OK() && !strings.Contains(stderr, "Everything up-to-date") {
			return exit, err
		}
		interrupted := exit.Signal != 0 && exit.Signal != syscall.SIGPIPE // that one is a cut connection
		if interrupted || exit.Code == 128 && stderr == "" {
			return exit, nil // nobody to ask: it was interrupted, or could not reach the remote
		}
		if word := fence.Word(linesWith(stderr, "remote: ")); word != "" {
			if err := p.fenced(ctx, word, argv); err != nil {
				return exit, err
			}
			continue
		}
		next := p.diagnose(ctx, argv, exit, stderr)
		if next != pushLanded {
			p.held.note(ctx, lock.EventPushRejected, fmt.Sprintf("git exit code %d", exit.Code))
		}
		if exit.OK() || next == pushLanded {
			return p.finalExit(exit, next), nil
		}
		if next == pushRejected || next == pushUnknown || try >= p.f.Config.Push.Retries || p.onlyTry() || ctx.Err() != nil {
			if unseen := p.unseen(ctx, p.refused); unseen != nil {
				return exit, unseen
			}
			return exit, nil
		}
		if err := p.held.again(ctx); err != nil {
			return process.Exit{}, err
		}
		if next == branchMoved {
			if err := p.integrate(ctx); err != nil {
				return p.notIntegrated(err)
			}
			continue
		}
		pause := pauses.Next().Round(100 * time.Millisecond)
		p.f.Notes.Say("the remote refused the push for a temporary reason; trying again in %s (%d of %d)", pause, try+1, p.f.Config.Push.Retries)
		if lock.Sleep(ctx, pause) != nil {
			return exit, nil
		}
		if err := p.held.again(ctx); err != nil {
			return process.Exit{}, err
		}
	}
}

// finalExit is the exit of a push of which git and the remote do not say the same.
func (p *pushing) finalExit(exit process.Exit, next next) process.Exit {
	switch next {
	case pushLanded:
		if !exit.OK() {
			p.f.Notes.Warn("git reported an error, but the push has landed: the remote has what was pushed")
		}
		return process.Exit{}
	case pushUnknown:
		return exit
	default:
		p.f.Notes.Warn("git says that everything is up to date, but the remote has something else")
		return process.Exit{Code: 1}
	}
}

func (p *pushing) push(argv []string) (exit process.Exit, stderr string, err error) {
	command := append([]string{"push"}, argv...)
	if p.f.Terminal {
		exit, err = p.git.Run(command...)
		return exit, "", err
	}
	return p.git.RunCapturing(command...)
}

// next is what follows from a push that did not plainly succeed.
type next int

const (
	pushRejected      next = iota // git has said why
	pushUnknown                   // the remote could not be asked
	pushLanded                    // what was pushed is at the remote
	pushRefusedForNow             // the remote is as it was, and refused for a reason that passes
	branchMoved                   // somebody outside the lock moved it, and we may rebase
)

// diagnose looks at the remote, not at the text of the error, for what became of a push. Only
// the reason of a refusal is read from its text.
func (p *pushing) diagnose(ctx context.Context, argv []string, exit process.Exit, stderr string) next {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	refs, err := p.git.PushDryRun(ctx, argv)
	p.refused = refs
	refused := func(r git.RefStatus) bool { return r.Flag == '!' && slices.Contains(p.target.Branches, r.Ref) }
	switch {
	case len(refs) == 0 && len(p.args.Refspecs) == 1 && alreadyDeleted(err) && stderr != "" && !strings.Contains(stderr, git.NoSuchRef):
		return pushLanded
	case len(refs) == 0 && transient(stderr, exit.Code):
		return pushRefusedForNow
	case len(refs) == 0:
		return pushUnknown
	case !slices.ContainsFunc(refs, func(r git.RefStatus) bool { return r.Flag != '=' }):
		return pushLanded
	case slices.ContainsFunc(refs, refused):
		if p.f.Config.Push.Rebase && p.rebasable() {
			return branchMoved
		}
		return pushRejected
	case transient(stderr, exit.Code) && (exit.Code != 128 || strings.Contains(stderr, "error: 5")):
		return pushRefusedForNow
	default:
		return pushRejected
	}
}

// alreadyDeleted reports whether git says that a branch to delete does not exist. After a push of
// nothing else that did not say so, it means that the push has deleted it.
func alreadyDeleted(err error) bool {
	var gitErr *git.Error
	return errors.As(err, &gitErr) && strings.Contains(gitErr.Stderr, git.NoSuchRef)
}

// transientWords are in refusals that may not be repeated: a ref that another process had locked, a
// server that was overloaded. Collected from git's refs code, GitHub, GitLab and the reports of
// users.
var transientWords = []string{
	"cannot lock ref",
	"failed to lock",
	"failed to update ref",
	"incorrect old value provided",
	"reference already exists",
	"Unable to create", // …/main.lock: File exists
	"Internal Server Error",
	"Internal API unreachable",
	"requested URL returned error: 5",
	"HTTP 5",
	"temporarily unavailable",
	"try again later",
}

// rejectedWords are in refusals that look like those, but are the same at every try.
var rejectedWords = []string{
	"exists; cannot create", // a branch a/b beside a branch a
	"Permission denied",
	"Read-only file system",
	"No space left on device",
}

// reason is what the remote, and the way there, said of a refusal: the lines that git marks as the
// remote's, its table, and errors of the transport. All else may be a local hook's, whose refusal
// is final: git then has no table and exits with 1.
func reason(stderr string, code int) string {
	if code == 128 || linesWith(stderr, " ! [") != "" {
		return linesWith(stderr, "error: RPC failed", " ! [", "remote: ", "fatal: unable to access ")
	}
	return linesWith(stderr, "error: RPC failed")
}

// linesWith are the lines that begin with one of the prefixes.
func linesWith(text string, prefixes ...string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(l, p) })
	}), "\n")
}

// transient reports whether a push that ended with this code was refused for a reason that passes.
func transient(stderr string, code int) bool {
	reason := reason(stderr, code)
	says := func(w string) bool { return strings.Contains(reason, w) }
	return slices.ContainsFunc(transientWords, says) && !slices.ContainsFunc(rejectedWords, says)
}

// checkBase stops a push that would go over what came in while the lock was not held. A lock
// held without a break needs no look.
func (p *pushing) checkBase(ctx context.Context, argv []string) error {
	if !slices.ContainsFunc(p.held.list, (*hold).broken) {
		return nil
	}
	refs, err := p.git.PushDryRun(ctx, argv)
	if err != nil {
		return nil // the remote does not answer: the push will say so
	}
	for _, r := range refs {
		branch := strings.TrimPrefix(r.Ref, "refs/heads/")
		i := slices.IndexFunc(p.held.list, func(h *hold) bool { return h.broken() && h.lease.Key.Branch == branch })
		if i < 0 || !p.held.list[i].entry.BaseKnown { // where no base is known, git decides
			continue
		}
		e := p.held.list[i].entry
		l, leased := p.leases[r.Ref]
		gone := r.Flag == '*' && e.Base != "" && !l.Own
		forced := (r.Flag == '+' || r.Flag == '-') && !leased
		if r.Flag != '!' && !gone && !forced {
			continue
		}
		if p.f.Config.Push.Rebase && p.rebasable() && !gone {
			if err := p.integrate(ctx); err != nil {
				_, err = p.notIntegrated(err)
				return err
			}
			return nil
		}
		tip, _ := p.f.Git.RemoteTip(ctx, p.url, r.Ref) // for the message only
		return &MovedError{Branch: branch, Forced: leased || forced, Base: e.Base, Tip: tip}
	}
	return nil
}

// rebasable reports whether a rebase of what is checked out is what this push needs.
func (p *pushing) rebasable() bool {
	if len(p.target.Branches) != 1 || p.args.Force || p.args.Delete || p.args.All || len(p.args.Refspecs) > 1 {
		return false
	}
	if len(p.args.Refspecs) == 0 { // the checked-out branch, if the configuration does not name others
		style, _ := p.f.GitConfig.Get("push.default")
		_, named := p.f.GitConfig.Get("remote." + p.target.Remote + ".push")
		return p.repo.Head != "" && style != "matching" && !named
	}
	src, _, _ := strings.Cut(p.args.Refspecs[0], ":")
	return src == "HEAD" || src == "@" || src != "" && (src == p.repo.Head || src == strings.TrimPrefix(p.repo.Head, "refs/heads/"))
}

// integrate rebases what is checked out onto what the remote has.
func (p *pushing) integrate(ctx context.Context) error {
	if !p.rebasable() {
		return nil
	}
	branch := strings.TrimPrefix(p.target.Branches[0], "refs/heads/")
	onto, err := p.f.Git.FetchAndRebase(ctx, p.url, branch)
	if onto != "" {
		p.rebased = true
		p.f.Notes.Say("rebased onto %s, which somebody else pushed to %s", short(onto), branch)
	}
	if errors.Is(err, git.ErrNotFetched) && ctx.Err() == nil {
		p.f.Notes.Debug("%v", err)
		return nil // no such branch yet; or the push will say what is wrong
	}
	return err
}

// notIntegrated is the end of a push whose rebase was undone.
func (p *pushing) notIntegrated(err error) (process.Exit, error) {
	if errors.Is(err, context.Canceled) {
		return process.Exit{}, err
	}
	var stopped *git.RebaseError
	if errors.As(err, &stopped) && stopped.Emptied {
		return process.Exit{}, &SameChangeError{Branch: p.target.Branches[0], Err: stopped}
	}
	p.f.Notes.Warn("not pushed: %v; the clone is as it was", err)
	return process.Exit{Code: 1}, nil
}
