package process

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// Background is a program that runs beside us in a session of its own: without the user's terminal
// and input, so that it asks nobody for a password. Its stderr is kept until it has ended.
type Background struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}
	err    error // how it ended
}

// Start starts a program in the background.
func (c Command) Start() (*Background, error) {
	b := &Background{cmd: c.cmd(context.Background()), ended: make(chan struct{})}
	b.cmd.Stderr, b.cmd.SysProcAttr = &b.stderr, ownSession
	b.cmd.WaitDelay = time.Second // what it leaves behind must not hold us
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", b.cmd.Args[0], err)
	}
	over := guarded(b.cmd.Process, true)
	go func() {
		defer close(b.ended)
		b.err = b.cmd.Wait()
		over()
	}()
	return b, nil
}

// Nice sets its scheduling priority, from 0, the usual one, to 19, the lowest. Not everybody may
// raise it again: a failure is ignored.
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

// Wait waits for the end, and returns what the program wrote to stderr and how it ended. When ctx
// ends first, the program is stopped.
func (b *Background) Wait(ctx context.Context) (stderr string, exit Exit, err error) {
	select {
	case <-b.ended:
	case <-ctx.Done():
		b.Stop()
		return "", Exit{}, ctx.Err()
	}
	exit, err = exitOf(b.err)
	return b.stderr.String(), exit, err
}

// Stop sends TERM, on which git removes what it has begun, and waits for the end. KILL follows when
// that takes too long.
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
