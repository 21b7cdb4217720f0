// Package gitops owns the flows: what happens around git's clone and push, and when somebody
// locks by hand. Each flow is a method of Flows and reads from top to bottom.
package gitops

import (
	"context"
	"errors"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/session"
)

// Notes is where the flows say what happens.
type Notes interface {
	Debug(format string, args ...any)
	Say(format string, args ...any)
	Warn(format string, args ...any)
	Waiting(w lock.Waiting)
	Waited(k lock.Key) // the lock is ours, perhaps after a wait
}

// Store keeps the locks, and what pushes that go together offer each other.
type Store interface {
	lock.Store
	lock.Offers
	Connect() // begins to connect, for the time that other questions take
}

// Parts are what flows are made from. They stay the same for a whole command, and all are required
// but those that say otherwise.
type Parts struct {
	Git       git.Git
	GitConfig gitargs.Config
	Notes     Notes
	Terminal  bool // stderr is a terminal: git must keep it to itself

	// Include are patterns of the repositories that are locked, "*" matching anything; empty: all.
	Include []string
	// Within are the IDs of the locks of every "git gitops run" above, when this is a plain git
	// below one: it takes the lock only for a push to one of their branches. nil: this is no such
	// git.
	Within []string

	// Misconfigured is the error in the settings, if there is one. It ends a command at the first
	// lock that it needs: what needs no lock needs no settings. Config, Session and Store are not
	// set then.
	Misconfigured error
	Config        config.Config
	Session       session.Session
	Store         Store

	// OtherHook reports whether git would run a hook of a folder that is not ours, or that ours
	// calls.
	OtherHook func(dir, name string) bool
	// GuardPushes makes plain git, in the commands that are started from now on, one that pushes
	// under the lock of a "git gitops run".
	GuardPushes func(id string) error
	// StartKeeper starts a keeper in the background, and returns its process id.
	StartKeeper func(KeeperOrder) (pid int, err error)
}

// Flows run one command of a user.
type Flows struct {
	Parts
	state *state
}

// state is what a command has done so far.
type state struct {
	taken   map[string]lock.Token // by ID, the locks that it holds and no clone remembers yet
	waited  map[string]bool       // IDs of the locks that it had to wait for
	blocked []lock.Token          // of which others know what they wait for
}

// New makes the flows of one command.
func New(p Parts) *Flows {
	return &Flows{Parts: p, state: &state{taken: map[string]lock.Token{}, waited: map[string]bool{}}}
}

// in is the same command, for another session.
func (f *Flows) in(s session.Session) *Flows {
	other := *f
	other.Session = s
	return &other
}

// connect begins to connect to the store, if it is known where that is.
func (f *Flows) connect() {
	if f.Misconfigured == nil {
		f.Store.Connect()
	}
}

func (f *Flows) timing() lock.Timing { return f.Store.Timing() }

// acquire waits for a lock.
func (f *Flows) acquire(ctx context.Context, k lock.Key, command string) (*lock.Lease, error) {
	return f.acquireWhile(ctx, k, command, func(int) {})
}

// acquireWhile waits for a lock, and calls waits with the position at every news of a wait.
func (f *Flows) acquireWhile(ctx context.Context, k lock.Key, command string, waits func(position int)) (*lock.Lease, error) {
	return f.acquireRequest(ctx, f.request(k, command), waits)
}

// request asks for a lock.
func (f *Flows) request(k lock.Key, command string) lock.Request {
	return lock.Request{
		Key: k, Token: lock.NewToken(), Record: f.record(k, command), TTL: f.Config.Lock.TTL,
		Policy: f.policy(k).decide, Present: f.Session.Owner != nil,
	}
}

// acquireQueued is acquireWhile for a command whose work is still to do: the user may say how it
// queues.
func (f *Flows) acquireQueued(ctx context.Context, k lock.Key, command string, waits func(position int)) (*lock.Lease, error) {
	r := f.request(k, command)
	r.QueuePolicy, r.Group, r.HeadStart = lock.QueuePolicy(f.Config.Lock.Policy), f.Config.Lock.Group, f.Config.Lock.Head
	if r.Group == "" {
		r.Group = k.ID()
	}
	lease, err := f.acquireRequest(ctx, r, waits)
	var skipped *lock.SkippedError
	if errors.As(err, &skipped) {
		f.note(ctx, lock.EventSkipped, r, skipped.Reason())
	}
	return lease, err
}

// note adds an event for those who look. Nothing depends on it.
func (f *Flows) note(ctx context.Context, event lock.EventType, r lock.Request, why string) {
	ctx, cancel := context.WithTimeout(ctx, f.timing().Release)
	defer cancel()
	if err := f.Store.Note(ctx, r.Key, event, r.Record, why); err != nil {
		f.Notes.Debug("could not record the event: %v", err)
	}
}

// acquireRequest is acquireWhile for a request that was made before.
func (f *Flows) acquireRequest(ctx context.Context, r lock.Request, waits func(position int)) (*lock.Lease, error) {
	k := r.Key
	news := func(w lock.Waiting) {
		f.state.waited[k.ID()] = true
		waits(w.Position)
		f.Notes.Waiting(w)
	}
	lease, err := lock.Acquire(ctx, f.Store, r, f.Config.Lock.Timeout, news)
	f.unblock(ctx)
	if err != nil {
		return nil, f.orSelfWait(err)
	}
	f.Notes.Waited(k)
	f.sayShare(k, lease)
	f.Notes.Debug("%s has the lock on %s, fence %d, for the session of %v", r.Record.Command, k, lease.Fence(), f.Session.Owner)
	f.state.taken[k.ID()] = lease.Own()
	return lease, nil
}

// release hands the lock on. The work under it is done, so a failure is only reported.
func (f *Flows) release(ctx context.Context, l *lock.Lease) {
	delete(f.state.taken, l.Key.ID())
	var (
		result lock.ReleaseResult
		err    error
	)
	release := func() bool {
		result, err = l.Release(ctx, f.Store, f.timing().Release)
		return !lock.Transient(err)
	}
	if !release() { // a failover passes, and a lock that no keeper has would be left to its TTL
		lock.Again(context.WithoutCancel(ctx), f.timing().Release, release)
	}
	f.Notes.Debug("released the lock on %s: %v", l.Key, result)
	if err != nil {
		f.Notes.Warn("could not release the lock on %s, it expires within %s: %v", l.Key, l.TTL, err)
	}
}

// fallBackToGit leaves a command to git when there is no repository. After any other error of git
// the command might go on, and without a lock: then only git's message is passed on.
func (f *Flows) fallBackToGit(ctx context.Context, err error, args ...string) (process.Exit, error) {
	var gitErr *git.Error
	if ctx.Err() != nil || !errors.As(err, &gitErr) {
		return process.Exit{}, err
	}
	if gitErr.NoRepository() {
		return f.Git.Exec(args...)
	}
	if exit, printed := gitErr.Print(); printed {
		return exit, nil
	}
	return process.Exit{}, err
}
