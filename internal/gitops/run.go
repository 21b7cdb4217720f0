package gitops

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// EndedError says that Run ended a command because it could not keep the lock.
type EndedError struct {
	Command string
	Err     error // a *lock.LostError or a *lock.StoreError
}

func (e *EndedError) Error() string { return fmt.Sprintf("ended %q: %v", e.Command, e.Err) }

func (e *EndedError) Unwrap() error { return e.Err }

// Run holds a lock around a command. When the lock is lost, or cannot be renewed in time, the
// command's process group is ended before the lease can pass to another, and the error says so. A
// plain git push to the branch, in the command or below it, runs under this lock.
func (f *Flows) Run(ctx context.Context, r LockRequest, command []string) (process.Exit, error) {
	repo, err := f.here(ctx)
	if err != nil {
		return process.Exit{}, err
	}
	keys, err := f.meant(ctx, r, repo)
	if err != nil {
		return process.Exit{}, err
	}
	self, err := session.Lookup(os.Getpid())
	if err != nil {
		return process.Exit{}, fmt.Errorf("find this process: %w", err)
	}
	// The lock belongs to the command and to what it starts, and to nobody else.
	own := f.Session
	own.Owner, own.Chain = &self, []session.Process{self}
	f = f.in(own)
	lease, err := f.acquireQueued(ctx, keys[0], "run", func(int) {})
	if err != nil {
		return process.Exit{}, err
	}
	if err := ctx.Err(); err != nil {
		f.release(ctx, lease)
		return process.Exit{}, err
	}

	if err := f.GuardPushes(keys[0].ID()); err != nil {
		tell := f.Notes.Debug
		if lease.Guarded() {
			tell = f.Notes.Warn
		}
		tell("plain git push in this command is not declared to the server; use git gitops push there: %v", err)
	}
	entry := f.newEntry(workspace.Lock, lease)
	if err := workspace.NoteSession(entry); err != nil {
		f.Notes.Warn("%v", err) // only the finding of deadlocks needs it
	}
	defer workspace.UnlinkSession(entry)

	grace := min(5*time.Second, lease.TTL/6)
	end := make(chan struct{})
	var lost error
	stop := lease.Keep(context.WithoutCancel(ctx), f.Store, 2*grace, func(err error) {
		lost = err
		close(end)
	})
	exit, err := process.RunGroup(command, end, grace)
	stop() // joins the renewing, so that lost can be read
	if lost != nil {
		return exit, &EndedError{Command: command[0], Err: lost}
	}
	f.release(ctx, lease)
	return exit, err
}
