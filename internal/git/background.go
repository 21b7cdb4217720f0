package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Background is a git that runs beside us: without the user's terminal and input, so that it asks nobody for a password, and with no
// output but what it says in the end.
type Background struct {
	cmd   *exec.Cmd
	args  []string // without the global options
	said  bytes.Buffer
	ended chan struct{}
	err   error // how it ended
}

// Unasking is a git that opens no window to ask for a password either. (Without a terminal it would.)
func (g Git) Unasking() Git {
	return g.with("GIT_ASKPASS=", "SSH_ASKPASS_REQUIRE=never")
}

// Background starts a git.
func (g Git) Background(args ...string) (*Background, error) {
	b := &Background{cmd: exec.Command(g.Path, g.words(args)...), args: args, ended: make(chan struct{})} //nolint:gosec // running git is the purpose
	b.cmd.Args[0], b.cmd.Stderr, b.cmd.SysProcAttr = "git", &b.said, ownSession
	b.cmd.Env = g.env
	b.cmd.WaitDelay = time.Second // what git leaves behind must not hold us
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start git: %w", err)
	}
	over := guarded(b.cmd.Process, true)
	go func() {
		defer close(b.ended)
		b.err = b.cmd.Wait()
		over()
	}()
	return b, nil
}

// Nice sets its scheduling priority, from 0, the usual one, to 19, the lowest. To raise it again is not everybody's right, so that nothing
// is said when it fails.
func (b *Background) Nice(n int) {
	if !b.over() {
		nice(b.cmd.Process, min(n, 19))
	}
}

// over reports whether it has ended: its number may then be another's.
func (b *Background) over() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

// Wait waits for the end and returns what git said on stderr. When ctx ends first, git is stopped. The error is an *Error when git
// failed.
func (b *Background) Wait(ctx context.Context) (said string, err error) {
	select {
	case <-b.ended:
	case <-ctx.Done():
		b.Stop()
		return "", ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case errors.As(b.err, &exit):
		return "", &Error{Args: b.args, ExitCode: exit.ExitCode(), Stderr: b.said.String()}
	case b.err != nil && !errors.Is(b.err, exec.ErrWaitDelay):
		return "", fmt.Errorf("git: %w", b.err)
	}
	return b.said.String(), nil
}

// Stop ends git, which removes what it has begun, and waits for it. KILL follows when it takes too long.
func (b *Background) Stop() {
	if b.over() {
		return
	}
	terminate(b.cmd.Process)
	select {
	case <-b.ended:
	case <-time.After(5 * time.Second):
		kill(b.cmd.Process)
		<-b.ended
	}
}
