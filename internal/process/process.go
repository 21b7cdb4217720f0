// Package process runs other programs: as a child that is asked something, as a child with the
// user's own terminal, in a process group, in the background, and in this process's place. What
// it runs ends when this process is killed (EndTogether), but for what is detached on purpose.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Command is a program to run.
type Command struct {
	Path string
	Args []string // without the program's own name
	Name string   // its argv[0]; "": Path
	Env  []string // nil: this process's
}

// Exit is how a program ended.
type Exit struct {
	Code   int            // its exit code; 128 + Signal when a signal ended it, as shells count
	Signal syscall.Signal // 0: it exited
}

// OK reports success.
func (e Exit) OK() bool { return e.Code == 0 }

// StartError says that a command of the user's could not be started.
type StartError struct {
	Command string
	Err     error
}

func (e *StartError) Error() string { return fmt.Sprintf("start %s: %v", e.Command, e.Err) }

func (e *StartError) Unwrap() error { return e.Err }

func (c Command) argv() []string {
	name := c.Name
	if name == "" {
		name = c.Path
	}
	return append([]string{name}, c.Args...)
}

func (c Command) cmd(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Path) //nolint:gosec // running programs is the purpose
	cmd.Args, cmd.Env = c.argv(), c.Env
	return cmd
}

// Output runs a program without a terminal, gives it input, and returns what it printed: all of
// stdout, and the last 4 kB of stderr. An error means that it did not run to its end.
func (c Command) Output(ctx context.Context, input string) (stdout, stderr string, exit Exit, err error) {
	cmd := c.cmd(ctx)
	cmd.WaitDelay = time.Second // a helper that a killed program leaves behind must not hold the pipe
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	var out bytes.Buffer
	last := tail{max: 4096}
	cmd.Stdout, cmd.Stderr = &out, &last
	err = cmd.Start()
	if err == nil {
		ended := guarded(cmd.Process, false)
		err = cmd.Wait()
		ended()
	}
	if err != nil && ctx.Err() != nil {
		return "", "", Exit{}, ctx.Err()
	}
	if !errors.Is(err, exec.ErrWaitDelay) { // its output may go on
		exit, err = exitOf(err)
	}
	return out.String(), string(last.kept), exit, err
}

// Run runs a program with the user's own terminal, descriptors and working directory, and passes
// signals on to it. It returns when the program has ended.
func (c Command) Run() (Exit, error) { return c.run(os.Stderr) }

// RunCapturing is Run, and also returns the last 16 kB that the program wrote to stderr. It is
// not for a terminal: the program sees a pipe.
func (c Command) RunCapturing() (exit Exit, stderr string, err error) {
	last := &tail{max: 16 << 10}
	exit, err = c.run(io.MultiWriter(os.Stderr, last))
	return exit, string(last.kept), err
}

func (c Command) run(stderr io.Writer) (Exit, error) {
	cmd := c.cmd(context.Background())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, stderr
	cmd.WaitDelay = time.Second // what it leaves in the background must not hold us
	return supervise(cmd)
}

// RunWithInput is Run with input on stdin. A program that does not read all of it is no error.
func (c Command) RunWithInput(input []byte) (Exit, error) {
	cmd := c.cmd(context.Background())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), os.Stdout, os.Stderr
	return supervise(cmd)
}

// supervise starts a command, passes signals on to it, and waits for it.
func supervise(cmd *exec.Cmd) (Exit, error) {
	// Caught before the start, so that no signal falls between. A terminal sends Ctrl-C to the
	// command as well; git has no use for the second one and takes no harm.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, caught()...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return Exit{}, fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	defer guarded(cmd.Process, false)()
	ended := make(chan struct{})
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have just ended
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	<-relayed
	return exitOf(err)
}

// OnPath reports whether there is a program of that name on PATH.
func OnPath(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

func exitOf(err error) (Exit, error) {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return Exit{}, nil
	case !errors.As(err, &exit):
		return Exit{}, fmt.Errorf("wait for the command: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return Exit{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}, nil
	}
	return Exit{Code: exit.ExitCode()}, nil
}

// tail keeps the last max bytes written to it.
type tail struct {
	kept []byte
	max  int
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.max; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// caught are the signals that end a program politely, but for those that our caller has us
// ignore (nohup; a background job of a script).
func caught() []os.Signal {
	var list []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			list = append(list, s)
		}
	}
	return list
}
