package gitops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// guardedBy is the variable that tells git's hooks which of our processes has the locks of this
// push. Its name must not begin with GIT_: git's own tests look for leaks of those.
const guardedBy = "GITOPS_PUSH_GUARDED_BY"

// WaitedError stops a push from a hook: the branch moved while the hook waited for its turn, and
// git has already decided what it pushes onto.
type WaitedError struct{ Branch string }

func (e *WaitedError) Error() string {
	return fmt.Sprintf("branch %s moved while this push waited for its turn", e.Branch)
}

// RefUpdate is one ref that a push would update.
type RefUpdate struct {
	LocalRef, LocalOID   string // zeros: it would be deleted
	RemoteRef, RemoteOID string // zeros: it would be new
}

func (u RefUpdate) deletes() bool { return zeros(u.LocalOID) }

func (u RefUpdate) creates() bool { return zeros(u.RemoteOID) }

func zeros(oid string) bool { return strings.Trim(oid, "0") == "" }

// Guarded reports whether our own Push started the git that pushes, and guards it.
func Guarded(push session.Process) bool {
	pid, err := strconv.Atoi(os.Getenv(guardedBy))
	if err != nil {
		return false
	}
	guard, err := session.Parent(push.PID)
	return err == nil && guard.PID == pid
}

// PushingGit is the git that runs this hook: our parent, or further up when a hook manager, or a
// hook of the user's own, stands between.
func PushingGit() (session.Process, error) {
	parent, err := session.Parent(os.Getpid())
	for p := parent; err == nil; {
		if p.Name == "git" {
			return p, nil
		}
		if p, err = session.Parent(p.PID); errors.Is(err, session.ErrGone) {
			return parent, nil // a git of another name
		}
	}
	return parent, err
}

// PrePush is the pre-push hook: it makes sure of the lock of every branch that git is about to
// update. push is the git that pushes; remote and url are the hook's arguments. The push goes on
// when it returns nil, and a keeper watches it from then on.
func (f *Flows) PrePush(ctx context.Context, push session.Process, remote, url string, updates []RefUpdate) error {
	repo, err := f.Git.State(ctx)
	if err != nil {
		return err
	}
	held := &holds{f: f, dir: workspace.At(repo.CommonDir)}
	byLock := map[string]RefUpdate{}
	var branches []string
	for _, u := range updates {
		if branch, ok := strings.CutPrefix(u.RemoteRef, "refs/heads/"); ok {
			branches = append(branches, branch)
		}
	}
	if len(branches) == 0 {
		return nil
	}
	if wanted, err := f.ready(url); err != nil || !wanted {
		return err
	}
	keys, err := f.keys([]string{url}, branches)
	if err != nil {
		return err
	}
	entries, err := held.dir.Load()
	if err == nil {
		err = held.dir.Writable() // nobody else will end the lock
	}
	if err != nil {
		return err
	}
	for _, u := range updates {
		for _, k := range keys {
			if u.RemoteRef == "refs/heads/"+k.Branch {
				byLock[k.ID()] = u
			}
		}
	}
	if err := held.authorize(ctx, entries, keys); err != nil {
		held.giveUp(ctx)
		return err
	}
	seen := f.newSight(held, repo, remote, []string{url})
	for _, one := range held.list {
		if err := f.unmoved(ctx, one, seen, url, byLock[one.lease.Key.ID()]); err != nil {
			held.end(ctx, err)
			return err
		}
	}
	intents := make([]lock.Update, len(updates))
	for i, u := range updates {
		intents[i] = lock.Update{Ref: u.RemoteRef, Old: u.RemoteOID, New: u.LocalOID}
	}
	if err := held.declare(ctx, intents...); err != nil {
		held.end(ctx, err)
		return err
	}
	for _, one := range held.list {
		one.stop()
		u := byLock[one.lease.Key.ID()]
		watch := &PushWatch{Git: push, CommonDir: repo.CommonDir, Remote: remote, URL: url, Ref: u.RemoteRef, OID: u.LocalOID, ReleaseRegardless: one.pushOnly, Stays: held.stays(one)}
		if len(seen.repos) > 0 {
			watch.Repo = seen.repos[0]
		}
		if err := held.saveAndKeepPush(ctx, one, watch); err != nil {
			f.Notes.Warn("cannot watch this push, so its lock on %s ends with its TTL or with this script: %v", one.lease.Key, err)
		}
	}
	return nil
}

// unmoved makes sure that the branch is still what git saw when it connected, if we waited since,
// and that a forced push overwrites only what this clone has seen.
func (f *Flows) unmoved(ctx context.Context, one *hold, seen *sight, url string, u RefUpdate) error {
	k := one.lease.Key
	if u.RemoteRef == "" {
		return nil
	}
	if f.state.waited[k.ID()] {
		tip, err := f.Git.RemoteTip(ctx, url, u.RemoteRef)
		if err != nil {
			return err
		}
		if tip != u.RemoteOID && (tip != "" || !u.creates()) {
			return &WaitedError{Branch: k.Branch}
		}
	}
	// git has dropped from the list what it refuses as no fast-forward.
	if u.creates() || !u.deletes() && f.Git.Contains(ctx, u.LocalOID, u.RemoteOID) {
		return nil
	}
	update := gitargs.PushUpdate{Ref: u.RemoteRef, Src: u.LocalRef, Forced: true}
	if u.deletes() {
		update.Src = ""
	}
	tips, known, err := seen.tips(ctx, update)
	switch {
	case err != nil:
		return err
	case !known || slices.Contains(tips, u.RemoteOID) || seen.included(ctx, update, u.RemoteOID):
		return nil
	case one.broken() && one.entry.BaseKnown:
		return &MovedError{Branch: k.Branch, Forced: true, Base: one.entry.Base, Tip: u.RemoteOID}
	default:
		return &UnseenError{Branches: []Unseen{{Branch: k.Branch, Tip: u.RemoteOID}}}
	}
}

// saveAndKeepPush has the clone remember a lock, and a keeper watch the push under it.
func (h *holds) saveAndKeepPush(ctx context.Context, one *hold, watch *PushWatch) error {
	e := one.entry
	if one.taken || e.Token == "" || one.lease.Broken() {
		e = h.entry(one)
		if self, err := session.Lookup(os.Getpid()); err == nil { // until the keeper is there
			e.Unuse(self.PID)
			e.Users = append(e.Users, workspace.User{Process: self})
		}
		if err := h.dir.Save(e); err != nil {
			return err
		}
		if err := h.dir.LinkSession(e); err != nil {
			h.f.Notes.Warn("%v", err) // only the finding of deadlocks needs it
		}
	}
	if watch.Repo != "" {
		branch := strings.TrimPrefix(watch.Ref, "refs/heads/")
		if err := workspace.At(watch.CommonDir).Expect(watch.Repo, branch); err != nil {
			h.f.Notes.Debug("%v", err)
		}
	}
	watch.SoleKeeper = !e.KeeperAlive() && !h.f.orphaned()
	pid, err := h.f.startKeeper(ctx, h.dir, e, watch, one.lease)
	if err != nil {
		return err
	}
	return h.f.noteKeeper(h.dir, e, pid, func(e *workspace.Entry, keeper session.Process) {
		e.Users = append(e.Users, workspace.User{Process: keeper, Git: &watch.Git})
		if watch.SoleKeeper {
			e.Keeper = &keeper
		}
	})
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

// AfterLanding is what a push that landed makes of the entry of a lock that stays.
func (w PushWatch) AfterLanding() func(*workspace.Entry) {
	tip := w.OID
	if zeros(tip) {
		tip = ""
	}
	return landedAt(tip)
}

// Landed reports whether the lock ends with a push that has ended, because it is at the remote: by
// what git itself noted of it in the remote-tracking branch, or else by asking the remote.
func Landed(ctx context.Context, g git.Git, w PushWatch) bool {
	if w.ReleaseRegardless {
		return true
	}
	branch := strings.TrimPrefix(w.Ref, "refs/heads/")
	wanted := w.OID
	if zeros(wanted) {
		wanted = ""
	}
	landed := wanted != "" && g.Tip(ctx, "refs/remotes/"+w.Remote+"/"+branch) == wanted
	if !landed {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		tip, err := g.RemoteTip(ctx, w.URL, w.Ref)
		landed = err == nil && tip == wanted
	}
	if landed && w.Repo != "" {
		// Else git's own log of the branch has it. The script may be deleting the clone by now.
		_ = workspace.At(w.CommonDir).SeeExpected(w.Repo, branch, wanted)
	}
	return landed
}
