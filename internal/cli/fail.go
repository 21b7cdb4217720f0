package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/doctor"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/internal/upgrade"
	"github.com/git-gitops/git-gitops/internal/workspace"
	"github.com/git-gitops/git-gitops/shim"
)

// Our exit codes. Whenever git ran and decided, its own code is used. The numbers follow sysexits.h
// where it has one that fits.
const (
	exitFailed      = 1   // an admin command did not do what was asked
	exitUnavailable = 69  // Redis could not be reached, or refuses to work; upgrade: no release was found
	exitBug         = 70  // a bug in us, or a system that does not answer
	exitLost        = 73  // the lock was lost and the branch moved
	exitTimeout     = 75  // waited too long
	exitSkipped     = 77  // skipped or superseded, as the policy of the queue wants it
	exitConfig      = 78  // a setting is missing or wrong
	exitNotRun      = 126 // run: the command cannot be run, as shells count
	exitNotFound    = 127 // run: there is no such command
	exitUsage       = 129 // the command line is wrong, as git counts
)

// fail prints an error and returns its exit code.
func fail(out *term.Printer, err error) int {
	out.Waited()
	code, messages := explain(err)
	for _, m := range messages {
		m.What, m.Why = giturl.Redact(m.What), giturl.Redact(m.Why)
		out.Fail(m)
	}
	return code
}

// explain is what people read of an error, and the exit code that scripts see. The order counts:
// an error of one kind may wrap one of a later kind.
func explain(err error) (int, []term.Message) {
	for _, kind := range []func(error) (int, []term.Message){
		explainSetup, explainWait, explainLock, explainPush, explainOther,
	} {
		if code, messages := kind(err); code != 0 {
			return code, messages
		}
	}
	return exitBug, []term.Message{{What: err.Error()}}
}

// explainSetup is for a command that could not begin, or was interrupted.
func explainSetup(err error) (int, []term.Message) {
	var (
		signal  *interrupted
		usage   *usageError
		setting *config.Error
		state   *workspace.StateError
		tooOld  *git.TooOldError
	)
	switch {
	case errors.As(err, &signal):
		return 128 + int(signal.signal), []term.Message{{What: err.Error() + "; it has left no lock of its own and no position in the queue behind"}}
	case errors.As(err, &usage):
		return exitUsage, []term.Message{{What: usage.Error(), Do: []string{"git gitops " + usage.verb + " -h"}}}
	case errors.As(err, &setting):
		return exitConfig, settingMessages(err)
	case errors.As(err, &state):
		return exitConfig, []term.Message{{
			What: state.Error(),
			Why:  "it says which locks this clone has, and what the clone has seen, so it cannot be ignored",
			Do:   doctor.StateAdvice(state),
		}}
	case errors.As(err, &tooOld):
		return exitConfig, []term.Message{{
			What: tooOld.Error(),
			Why:  "an older git cannot say what a push would do, so nothing was cloned or pushed",
			Do:   []string{doctor.TooOldAdvice},
		}}
	}
	return 0, nil
}

// explainWait is for a wait that ended without the lock.
func explainWait(err error) (int, []term.Message) {
	var (
		timeout *lock.TimeoutError
		skipped *lock.SkippedError
		newer   *lock.SupersededError
		dead    *lock.DeadlockError
		self    *gitops.SelfWaitError
		holding *gitops.HoldingError
	)
	switch {
	case errors.As(err, &timeout):
		m := term.Message{
			What: timeout.Error() + " and gave up",
			Why:  fmt.Sprintf("position %d in the queue, held by %s", timeout.Position, holderText(timeout.Holder)),
			Do:   []string{"see who holds and who waits: git gitops locks", "wait longer: set GITOPS_LOCK_TIMEOUT, in seconds"},
		}
		if timeout.Holder.Token != "" {
			m.Do = append(m.Do, "break the lock, if its holder is dead: git gitops unlock --force "+timeout.Holder.ID())
		}
		if timeout.Freeze.Frozen() {
			m.Why = fmt.Sprintf("position %d in the queue, %s", timeout.Position, freezeText(timeout.Freeze))
			m.Do = append(m.Do, "end the freeze: "+thawHint(timeout.Key, timeout.Freeze))
		}
		if timeout.Err != nil {
			m.Why = timeout.Err.Error()
		}
		if errors.As(err, &holding) {
			m.Do = append(m.Do, holdingAdvice(holding)...)
		}
		return exitTimeout, []term.Message{m}
	case errors.As(err, &skipped):
		m := term.Message{What: skipped.Error(), Do: []string{"to wait instead: GITOPS_LOCK_POLICY=queue"}}
		switch {
		case skipped.Freeze.Frozen():
			m.Why = freezeText(skipped.Freeze)
		case skipped.Holder.Token != "":
			m.Why = "held by " + holderText(skipped.Holder)
		default:
			m.Why = fmt.Sprintf("%d in the queue", skipped.Waiters)
		}
		return exitSkipped, []term.Message{m}
	case errors.As(err, &newer):
		why := "by " + personText(newer.By)
		for _, more := range []string{newer.By.Purpose, newer.By.Job, newer.By.RunURL} {
			if more != "" {
				why += ", " + more
			}
		}
		return exitSkipped, []term.Message{{
			What: newer.Error(), Why: why, Do: []string{"to wait instead: GITOPS_LOCK_POLICY=queue"},
		}}
	case errors.As(err, &dead):
		return exitTimeout, []term.Message{{
			What: dead.Error(),
			Why:  "each waits for the other, so the one that began to wait last gives up",
			Do:   []string{"take locks in the same order everywhere, or push and release one before taking the next"},
		}}
	case errors.As(err, &self):
		do := "push or unlock it before you lock again; or let both share the lock: unset GITOPS_LOCK_SHARE"
		if self.Workspace {
			do = "push or unlock it before you lock again; or let both share the lock: without GITOPS_LOCK_SESSION=workspace"
		}
		return exitTimeout, []term.Message{{
			What: self.Error(),
			Why:  "it is held by " + holderText(self.Holder) + ", which goes on only after this command has ended",
			Do:   []string{do},
		}}
	}
	return 0, nil
}

// explainLock is for a lock that could not be taken, kept or released.
func explainLock(err error) (int, []term.Message) {
	var (
		verb    *verbError
		start   *process.StartError
		ended   *gitops.EndedError
		store   *lock.StoreError
		lost    *lock.LostError
		foreign *gitops.ForeignError
	)
	switch {
	case errors.As(err, &start):
		code := exitNotFound
		if errors.Is(err, fs.ErrPermission) {
			code = exitNotRun
		}
		return code, []term.Message{{What: start.Error()}}
	case errors.As(err, &ended):
		code := exitLost
		if errors.As(err, &store) {
			code = exitUnavailable
		}
		return code, []term.Message{{
			What: ended.Error(),
			Why:  "without the lock another pipeline may be working on the branch",
		}}
	case errors.As(err, &store):
		m := term.Message{What: "cannot lock, so nothing was cloned or pushed", Why: store.Error(), Do: doctor.StoreAdvice[store.Failure]}
		if errors.As(err, &verb) {
			m.What = verb.withoutRedis()
		}
		return exitUnavailable, []term.Message{m}
	case errors.As(err, &lost):
		return exitLost, []term.Message{{
			What: err.Error(),
			Why:  "without the lock another pipeline may be working on the branch",
			Do:   []string{"look at what happened (git gitops events), then take the lock again: git gitops pull --rebase && git gitops push"},
		}}
	case errors.As(err, &foreign):
		return exitFailed, []term.Message{{
			What: foreign.Error() + ", which still uses it",
			Why:  "it is held by " + holderText(foreign.Holder),
			Do:   []string{"wait until it has ended; or break the lock: git gitops unlock --force " + foreign.Holder.ID()},
		}}
	}
	return 0, nil
}

// explainPush is for a push that did not land, or that nobody knows of.
func explainPush(err error) (int, []term.Message) {
	var (
		moved   *gitops.MovedError
		fenced  *gitops.FencedError
		unseen  *gitops.UnseenError
		same    *gitops.SameChangeError
		unknown *gitops.UnknownError
		waited  *gitops.WaitedError
	)
	switch {
	case errors.As(err, &moved):
		do := []string{"you still hold the lock; rebase and push again: git gitops pull --rebase && git gitops push"}
		switch {
		case moved.Forced:
			do = overwriteAdvice(gitops.Unseen{Branch: moved.Branch, Tip: moved.Tip})
		case moved.Tip == "":
			do = []string{"somebody deleted the branch; to create it again: git gitops unlock && git gitops push"}
		}
		return exitLost, []term.Message{{
			What: "not pushed: " + moved.Error(),
			Why:  "the push would fail, or overwrite what somebody else has pushed",
			Do:   do,
		}}
	case errors.As(err, &unseen):
		m := term.Message{What: "not pushed: " + unseen.Error(), Why: "a branch is pushed only if it is where its --force-with-lease says"}
		for _, b := range unseen.Branches {
			if !b.Named {
				m.Why = "a forced push or a delete overwrites only what this clone has seen, and a fetch alone does not count"
			}
			m.Do = append(m.Do, overwriteAdvice(b)...)
		}
		return exitFailed, []term.Message{m}
	case errors.As(err, &fenced) && fenced.Word == lock.RefusedMoved:
		return exitLost, []term.Message{{
			What: "not pushed: " + fenced.Error(),
			Why:  "the branch is not where this push expects it: somebody moved it without the lock",
			Do:   []string{"you still hold the lock; rebase and push again: git gitops pull --rebase && git gitops push"},
		}}
	case errors.As(err, &fenced):
		return exitLost, []term.Message{{
			What: "not pushed: " + fenced.Error(),
			Why:  "it accepts only what the holder of its lock has declared, and does not know the lock that this push holds",
			Do: []string{
				"if other pipelines can push: set GITOPS_LOCK_REPO here to what the server calls this repository (gitops.lockRepo there)",
				"if nobody can push: run git gitops doctor in the repository on the server",
			},
		}}
	case errors.As(err, &same):
		return exitLost, []term.Message{{
			What: "not pushed: " + same.Error(),
			Why:  "a rebase would silently drop this commit, and with it its update",
			Do:   []string{"see what is there now (git gitops pull), make the edit again, and push"},
		}}
	case errors.As(err, &unknown):
		return exitLost, []term.Message{{
			What: unknown.Error(),
			Why:  "the batch ref that would show it is gone, or the git server does not answer",
			Do:   []string{"check whether the commits are in the branch, and push only if they are not: git fetch && git log @{u}"},
		}}
	case errors.As(err, &waited):
		return exitFailed, []term.Message{{
			What: "not pushed: " + waited.Error(),
			Do:   []string{"you still hold the lock: git pull --rebase && git push"},
		}}
	}
	return 0, nil
}

// explainOther is for commands that need no lock, and for what git says.
func explainOther(err error) (int, []term.Message) {
	var (
		admin   *adminError
		gitErr  *git.Error
		noGit   *shim.NoGitError
		release *upgrade.Error
		sign    *upgrade.SignatureError
	)
	switch {
	case errors.As(err, &admin):
		m := term.Message{What: admin.Error()}
		if admin.do != "" {
			m.Do = []string{admin.do}
		}
		return exitFailed, []term.Message{m}
	case errors.As(err, &sign):
		return exitUnavailable, []term.Message{{
			What: "not upgraded, and nothing was changed",
			Why:  sign.Error(),
			Do: []string{"cosign is on PATH, so the signature must be right; a mirror holds it beside checksums.txt," +
				" as checksums.txt.sigstore.json", "trust the checksum alone: git gitops upgrade --skip-signature"},
		}}
	case errors.As(err, &release):
		return exitUnavailable, []term.Message{{
			What: "not upgraded, and nothing was changed",
			Why:  release.Error(),
			Do:   []string{"check the network and HTTPS_PROXY; from a mirror: set GITOPS_DOWNLOAD_BASE"},
		}}
	case errors.As(err, &noGit):
		return exitConfig, []term.Message{{What: noGit.Error(), Do: []string{"install git, or name it in GITOPS_GIT"}}}
	case errors.Is(err, gitops.ErrNothingToLock):
		return exitUsage, []term.Message{{
			What: err.Error(),
			Why:  "no branch was named, and there is no repository here to take it from",
			Do:   []string{"git gitops lock --repo URL --branch NAME"},
		}}
	case errors.As(err, &gitErr):
		return max(gitErr.ExitCode, exitFailed), []term.Message{{What: gitErr.Error()}}
	case errors.Is(err, context.Canceled):
		return 128 + int(syscall.SIGINT), []term.Message{{What: "interrupted"}}
	}
	return 0, nil
}

// holdingAdvice is what to do about a wait that may have been part of a circle.
func holdingAdvice(e *gitops.HoldingError) (do []string) {
	for _, l := range e.Locks {
		switch {
		case l.Own:
			do = append(do, fmt.Sprintf("this workspace itself holds it, in %s: push there, or git gitops -C %s unlock", l.Dir, l.Dir))
		case len(do) < 3:
			do = append(do, fmt.Sprintf("this workspace held the lock on %s during the wait (in %s); if that holder waits for it: take locks in the same order everywhere", l.Key, l.Dir))
		}
	}
	return do
}

// overwriteAdvice is how to force a push over what somebody else has done to a branch.
func overwriteAdvice(b gitops.Unseen) []string {
	lease := fmt.Sprintf("--force-with-lease=%s:%s", b.Branch, b.Tip)
	if b.Tip == "" {
		return []string{"somebody deleted the branch; to create it again, repeat the push with git gitops and " + lease}
	}
	return []string{
		fmt.Sprintf("look at what is there: git fetch, then git log %s", b.Tip),
		fmt.Sprintf("to overwrite exactly that, repeat the push with git gitops and %s", lease),
	}
}

// settingMessages gives each wrong setting a message of its own, so that all can be corrected at
// once.
func settingMessages(err error) []term.Message {
	var messages []term.Message
	for _, e := range flatten(err) {
		var s *config.Error
		if !errors.As(e, &s) {
			messages = append(messages, term.Message{What: e.Error()})
			continue
		}
		messages = append(messages, term.Message{What: s.Error()})
	}
	return messages
}

// flatten undoes errors.Join, also below a verb.
func flatten(err error) []error {
	var verb *verbError
	if errors.As(err, &verb) {
		err = verb.err
	}
	return doctor.Flatten(err)
}
