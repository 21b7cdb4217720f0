package gitops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/git"
)

// afterwards bounds the questions to the remote after a push, which go on after Ctrl-C.
const afterwards = time.Minute

// MovedError says that a push would go over edits that this clone has not seen.
type MovedError struct {
	Branch string
	Base   string // object id that the branch had when it was cloned; "" when it did not exist
	Tip    string // object id that it has now; "" when it does not exist or nobody could look
}

func (e *MovedError) Error() string {
	return fmt.Sprintf("branch %s moved from %s to %s while its lock was not held", e.Branch, short(e.Base), short(e.Tip))
}

// SameChangeError says that a commit would be lost because the same textual change came in from somebody
// else.
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
	f      *Flows
	held   *holds
	args   git.PushArgs
	place  git.Place
	target git.PushTarget
	url    string // the first that is pushed to
}

// run pushes until it landed, or has failed for good. The exit is git's own; it is a success
// exactly when the branches at the remote are ours.
func (p *pushing) run(ctx context.Context, words []string) (git.Exit, error) {
	words = p.withLeases(ctx, words)
	if err := p.checkBase(ctx, words); err != nil {
		return git.Exit{}, err
	}
	if p.f.Config.Push.Rebase && p.f.Config.Lock.Name != "" {
		// Others push to this branch under names of their own: what they did comes in first.
		if err := p.integrate(ctx); err != nil {
			return p.notIntegrated(err)
		}
	}
	pause := time.Second
	for try := 0; ; try++ {
		exit, said, err := p.push(words)
		if err != nil || exit.OK() && !strings.Contains(said, "Everything up-to-date") {
			return exit, err
		}
		if exit.Signal != 0 || exit.Code == 128 && said == "" {
			return exit, nil // nobody to ask: it was interrupted, or could not reach the remote
		}
		next := p.diagnose(ctx, words, exit, said)
		switch {
		case next == landed:
			if !exit.OK() {
				p.f.Notes.Warn("git reported an error, but the push has landed: the remote has what was pushed")
			}
			return git.Exit{}, nil
		case exit.OK(): // up to date with something that is not there
			return git.Exit{Code: 1}, nil
		case next == final || try >= p.f.Config.Push.Retries || p.f.Terminal || p.args.Porcelain || ctx.Err() != nil:
			return exit, nil
		}
		if err := p.held.again(ctx); err != nil {
			return git.Exit{}, err
		}
		if next == moved {
			if err := p.integrate(ctx); err != nil {
				return p.notIntegrated(err)
			}
			continue
		}
		p.f.Notes.Say("the remote refused for a passing reason, trying again in %s (%d of %d)", pause, try+1, p.f.Config.Push.Retries)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return exit, nil
		}
		pause *= 2
		if err := p.held.again(ctx); err != nil {
			return git.Exit{}, err
		}
	}
}

func (p *pushing) push(words []string) (exit git.Exit, said string, err error) {
	command := append([]string{"push"}, words...)
	if p.f.Terminal {
		exit, err = p.f.Git.Run(command...)
		return exit, "", err
	}
	return p.f.Git.RunReading(command...)
}

// next is what follows from a push that did not plainly succeed.
type next int

const (
	final   next = iota // it is git's to tell
	landed              // what was pushed is at the remote
	passing             // the remote is as it was, and refused for a reason that passes
	moved               // somebody outside the lock moved it, and we may rebase
)

// diagnose looks at the remote, not at the text of the error, for what became of a push. Only
// the reason of a refusal is told by its words.
func (p *pushing) diagnose(ctx context.Context, words []string, exit git.Exit, said string) next {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	refs, err := p.f.Git.Rehearse(ctx, words)
	refs = slices.DeleteFunc(refs, func(r git.RefStatus) bool { return !slices.Contains(p.target.Branches, r.Ref) })
	flags := func(f byte) bool {
		return slices.ContainsFunc(refs, func(r git.RefStatus) bool { return r.Flag == f })
	}
	switch {
	case err != nil || len(refs) == 0:
		if passes(said) {
			return passing
		}
		return final
	case !slices.ContainsFunc(refs, func(r git.RefStatus) bool { return r.Flag != '=' }):
		return landed
	case flags('!'):
		if p.f.Config.Push.Rebase && p.rebasable() {
			return moved
		}
		return final
	case passes(said) && (exit.Code != 128 || strings.Contains(said, "error: 5")):
		return passing
	default:
		return final
	}
}

// passingWords are in refusals that may not be repeated: a ref that another process had locked, a
// server that was overloaded. Collected from git's refs code, GitHub, GitLab and the reports
// of users (see field-notes.md (d) 20 in the project's papers).
var passingWords = []string{
	"cannot lock ref",
	"failed to lock",
	"failed to update ref",
	"incorrect old value provided",
	"reference already exists",
	"unable to create", // …/main.lock: File exists
	"Internal Server Error",
	"requested URL returned error: 5",
	"HTTP 5",
	"try again",
}

func passes(said string) bool {
	return slices.ContainsFunc(passingWords, func(w string) bool { return strings.Contains(said, w) })
}

// checkBase stops a push that would go over what came in while the lock was not held. A lock
// held without a break needs no look.
func (p *pushing) checkBase(ctx context.Context, words []string) error {
	if !slices.ContainsFunc(p.held.list, (*hold).broken) {
		return nil
	}
	refs, err := p.f.Git.Rehearse(ctx, words)
	if err != nil {
		return nil // the remote does not answer: the push will say so
	}
	for _, r := range refs {
		branch := strings.TrimPrefix(r.Ref, "refs/heads/")
		i := slices.IndexFunc(p.held.list, func(h *hold) bool { return h.broken() && h.lease.Key.Branch == branch })
		if i < 0 {
			continue
		}
		e := p.held.list[i].entry
		gone := r.Flag == '*' && e.Based && e.Base != ""
		if r.Flag != '!' && !gone {
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
		return &MovedError{Branch: branch, Base: e.Base, Tip: tip}
	}
	return nil
}

// rebasable reports whether a rebase of the checked-out branch is what this push needs.
func (p *pushing) rebasable() bool {
	if len(p.target.Branches) != 1 || p.place.Head == "" || p.args.Force || p.args.Delete || len(p.args.Refspecs) > 1 {
		return false
	}
	if len(p.args.Refspecs) == 0 {
		return true
	}
	src, _, _ := strings.Cut(p.args.Refspecs[0], ":")
	return src == "HEAD" || src == "@" || src == p.place.Head || src == strings.TrimPrefix(p.place.Head, "refs/heads/")
}

// integrate rebases the checked-out branch onto what the remote has.
func (p *pushing) integrate(ctx context.Context) error {
	if !p.rebasable() {
		return nil
	}
	branch := strings.TrimPrefix(p.target.Branches[0], "refs/heads/")
	tip, err := p.f.Git.RemoteTip(ctx, p.url, p.target.Branches[0])
	if err != nil || tip == "" { // no such branch yet; or the push will say what is wrong
		return nil
	}
	rebased, err := p.f.Git.Integrate(ctx, p.url, branch)
	if rebased {
		p.f.Notes.Say("rebased onto %s, which somebody else had pushed to %s", short(tip), branch)
	}
	return err
}

// notIntegrated is the end of a push whose rebase was undone.
func (p *pushing) notIntegrated(err error) (git.Exit, error) {
	var stopped *git.RebaseError
	if errors.As(err, &stopped) && stopped.Emptied {
		return git.Exit{}, &SameChangeError{Branch: p.target.Branches[0], Err: stopped}
	}
	p.f.Notes.Warn("not pushed: %v; the clone is as it was", err)
	return git.Exit{Code: 1}, nil
}

// withLeases makes a forced push of a branch one that overwrites only what this clone has seen:
// --force and + become --force-with-lease=<branch>:<tip that we know>. A lease that the user gave is
// respected, and a branch of which no tip is known stays as the user wrote it.
func (p *pushing) withLeases(ctx context.Context, words []string) []string {
	if len(p.args.ForceWithLease) > 0 || p.args.Mirror || p.args.Tags {
		return words
	}
	words = slices.Clone(words)
	var leases []string
	lease := func(branches []string) bool {
		for _, ref := range branches {
			tip, known := p.knownTip(ctx, ref)
			if !known {
				return false
			}
			leases = append(leases, "--force-with-lease="+ref+":"+tip)
		}
		return len(branches) > 0
	}
	if len(p.args.Refspecs) == 0 {
		if !p.args.Force || !lease(p.target.Branches) {
			return words
		}
	}
	for i, spec := range p.args.Refspecs {
		bare, plus := strings.CutPrefix(spec, "+")
		if !plus && !p.args.Force {
			continue
		}
		one := git.PushArgs{Remote: p.target.Remote, Refspecs: []string{spec}, Delete: p.args.Delete}
		t, err := one.Target(p.f.pushContext(ctx, p.place))
		if err == nil && lease(t.Branches) {
			words[p.args.RefspecIndex[i]] = bare
		} else if !p.args.Delete {
			words[p.args.RefspecIndex[i]] = "+" + bare
		}
	}
	if len(leases) == 0 {
		return words
	}
	return slices.Insert(words, p.args.OptionEnd, append([]string{"--no-force"}, leases...)...)
}

// knownTip is the tip that this clone has seen a branch at: the base, else what it last fetched
// or pushed.
func (p *pushing) knownTip(ctx context.Context, ref string) (string, bool) {
	branch := strings.TrimPrefix(ref, "refs/heads/")
	for _, one := range p.held.list {
		if one.entry.Based && one.entry.Key.Branch == branch {
			return one.entry.Base, true
		}
	}
	tip := p.f.Git.Tip(ctx, "refs/remotes/"+p.target.Remote+"/"+branch)
	return tip, tip != ""
}
