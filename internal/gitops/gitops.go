// Package gitops owns the flows: what happens around git's clone and push, and when somebody
// locks by hand. Each flow is a method of Flows and reads from top to bottom.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// Notes is where the flows say what happens.
type Notes interface {
	Debug(format string, args ...any)
	Say(format string, args ...any)
	Warn(format string, args ...any)
	Waiting(w lock.Waiting)
	Waited(k lock.Key) // the wait, if there was one, is over and the lock is ours
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

	// Misconfigured is what is wrong with the settings, nil for nothing. It ends a command at the
	// first lock that it needs: what needs no lock needs no settings. Config, Session and Store are
	// not set then.
	Misconfigured error
	Config        config.Config
	Session       session.Session
	Store         Store

	// OwnHook reports whether the pre-push hook in a folder is ours, and calls no other.
	OwnHook func(dir string) bool
	// GuardPushes makes plain git, in the commands that are started from now on, one that pushes
	// under the lock of a "git gitops run".
	GuardPushes func(id string) error
	// StartKeeper starts a keeper in the background, and returns its process id.
	StartKeeper func(KeeperOrder) (pid int, err error)
}

// KeeperOrder says what a keeper is to do.
type KeeperOrder struct {
	Dir     workspace.Dir // of the clone
	Entry   workspace.Entry
	Owner   *session.Process // whose end ends the lock; nil: nobody's
	Pushing *PushWatch       // the push that it watches; nil: none
	Present *os.File         // the connection by which we are present, to be held until it has its own; nil: none
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

// acquireWhile waits for a lock, and calls waits with the place in line at every news of a wait.
func (f *Flows) acquireWhile(ctx context.Context, k lock.Key, command string, waits func(place int)) (*lock.Lease, error) {
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
func (f *Flows) acquireQueued(ctx context.Context, k lock.Key, command string, waits func(place int)) (*lock.Lease, error) {
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
func (f *Flows) acquireRequest(ctx context.Context, r lock.Request, waits func(place int)) (*lock.Lease, error) {
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
		lock.Retry(context.WithoutCancel(ctx), f.timing().Release, release)
	}
	f.Notes.Debug("released the lock on %s: %v", l.Key, result)
	if err != nil {
		f.Notes.Warn("could not release the lock on %s, it expires within %s: %v", l.Key, l.TTL, err)
	}
}

// keys are the locks of branches (short names) at the places that the URLs name, in the order in
// which they must be taken.
func (f *Flows) keys(urls, branches []string) ([]lock.Key, error) {
	seen := map[string]lock.Key{}
	for _, url := range urls {
		repo, err := f.identity(url)
		if err != nil {
			return nil, err
		}
		if f.Config.Lock.Repo != "" {
			repo = f.Config.Lock.Repo
		}
		for _, b := range branches {
			k := lock.Key{Repo: repo, Branch: b, Name: f.Config.Lock.Name, Verbatim: f.Config.Lock.Key}
			seen[k.ID()] = k
		}
	}
	keys := make([]lock.Key, 0, len(seen))
	for _, k := range seen {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].ID() < keys[j].ID() })
	return keys, nil
}

// identity is which repository a URL means.
func (f *Flows) identity(url string) (string, error) {
	u, err := f.repository(url)
	return u.Identity(), err
}

func (f *Flows) repository(url string) (giturl.URL, error) {
	dir, err := f.Git.Dir()
	if err != nil {
		return giturl.URL{}, err
	}
	u, err := giturl.Parse(url, dir)
	if err != nil {
		return giturl.URL{}, fmt.Errorf("identify the repository: %w", err)
	}
	return u, nil
}

// ready reports whether a lock is wanted for any of the URLs, and whether one can be had.
func (f *Flows) ready(urls ...string) (wanted bool, err error) {
	for _, url := range urls {
		u, err := f.repository(url)
		if err != nil {
			return true, err
		}
		if included(f.Include, u) {
			return true, f.Misconfigured
		}
	}
	return false, nil
}

// included matches in any case, and the repository as it was spelled too: a pattern that misses one
// of its names would leave it without a lock.
func included(patterns []string, u giturl.URL) bool {
	for _, p := range patterns {
		p = strings.ToLower(p)
		if config.Matches(p, strings.ToLower(u.Identity())) || config.Matches(p, strings.ToLower(u.Spelled())) {
			return true
		}
	}
	return len(patterns) == 0
}

// newEntry is what a clone remembers of a lease, its base yet unknown.
func (f *Flows) newEntry(kind workspace.Kind, l *lock.Lease) workspace.Entry {
	return workspace.Entry{
		Kind: kind, Key: l.Key, Token: l.Token, Share: l.Share, Fence: l.Fence(), Record: l.Record,
		Since: time.Now(), Session: f.Session.ID(), Script: f.Session.Script(),
	}
}

// PushWatch is a git that is pushing and whose end a keeper waits for, because a hook cannot.
type PushWatch struct {
	Git               session.Process `json:"git"`
	CommonDir         string          `json:"common_dir"`         // of the repository that it pushes from
	Remote            string          `json:"remote"`             // name or URL, as git calls it
	URL               string          `json:"url"`                // may hold a password: never printed
	Repo              string          `json:"repo"`               // which repository that is
	Ref               string          `json:"ref"`                // full name at the remote
	OID               string          `json:"oid"`                // what is pushed there; zeros: deleted
	SoleKeeper        bool            `json:"sole_keeper"`        // no other keeper has the lock
	ReleaseRegardless bool            `json:"release_regardless"` // the lock is for just this push, whatever becomes of it
	Stays             bool            `json:"stays"`              // the lock outlives the push, also when that lands
}

// saveAndKeep saves an entry and leaves its lock to a keeper, unless one has it already.
func (f *Flows) saveAndKeep(ctx context.Context, dir workspace.Dir, e workspace.Entry, l *lock.Lease) error {
	if err := dir.Save(e); err != nil {
		return err
	}
	if err := dir.LinkSession(e); err != nil {
		f.Notes.Warn("%v", err) // only the finding of deadlocks needs it
	}
	if e.KeeperAlive() || f.orphaned() {
		return nil
	}
	pid, err := f.startKeeper(ctx, dir, e, nil, l)
	if err != nil {
		f.Notes.Warn("cannot renew the lock on %s in the background, it expires within %s: %v", e.Key, f.Config.Lock.TTL, err)
		return nil
	}
	return f.noteKeeper(dir, e, pid)
}

// startKeeper starts a keeper that is present in our place from the start, so that nobody judges
// the lock by the end of this command.
func (f *Flows) startKeeper(ctx context.Context, dir workspace.Dir, e workspace.Entry, watch *PushWatch, l *lock.Lease) (int, error) {
	present := l.Subscription()
	if present != nil {
		defer func() { _ = present.Close() }()
	}
	pid, err := f.StartKeeper(KeeperOrder{Dir: dir, Entry: e, Owner: f.Session.Owner, Pushing: watch, Present: present})
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timing().Release)
		defer cancel()
		_ = l.Unclaim(ctx, f.Store) // nobody will be there, so the TTL counts
	}
	return pid, err
}

// orphaned reports whether nobody's end would end our locks: the script that ran us is gone, or
// none is to be seen. A keeper could only hold them for ever, so the TTL counts. The user can ask
// for a lock without an owner.
func (f *Flows) orphaned() bool {
	return f.Session.Owner == nil && f.Config.Lock.Session != session.Workspace
}

func (f *Flows) noteKeeper(dir workspace.Dir, e workspace.Entry, pid int) error {
	keeper, err := session.Lookup(pid)
	if err != nil {
		return nil // it has ended already, and its log says why
	}
	return dir.Update(e, func(e *workspace.Entry) { e.Keeper = &keeper })
}

// remembered are the entries of a clone. It is an error when they cannot all be read, or what is
// there could not be changed: a push would wait for its own lock, or leave it behind.
func remembered(dir workspace.Dir) ([]workspace.Entry, error) {
	entries, err := dir.Load()
	if err != nil || dir.Gone() {
		return nil, err
	}
	return entries, dir.Writable()
}

// find is the entry of a lock among those that a clone remembers.
func find(entries []workspace.Entry, k lock.Key) (workspace.Entry, bool) {
	for _, e := range entries {
		if e.Key.ID() == k.ID() {
			return e, true
		}
	}
	return workspace.Entry{}, false
}

// fallBackToGit leaves a command to git when there is no repository. After any other question that
// failed git might go on, and without a lock: then only its words are passed on.
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
