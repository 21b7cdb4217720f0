package git

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Exit is how a git ended.
type Exit struct {
	Code   int            // its exit code; 128 + Signal when a signal ended it, as shells count
	Signal syscall.Signal // 0: it exited
}

// StartError says that a command of the user's could not be started.
type StartError struct {
	Command string
	Err     error
}

func (e *StartError) Error() string { return fmt.Sprintf("start %s: %v", e.Command, e.Err) }

func (e *StartError) Unwrap() error { return e.Err }

// OK reports success.
func (e Exit) OK() bool { return e.Code == 0 }

// Run runs git with the user's own terminal, descriptors and working directory, and passes
// signals on to it. It returns when git has ended.
func (g Git) Run(args ...string) (Exit, error) { return g.run(os.Stderr, args) }

// RunReading is Run, and returns the end of what git said on stderr, which passes through us
// on its way. It is not for a terminal: git would see that it has none.
func (g Git) RunReading(args ...string) (Exit, string, error) {
	said := &tail{max: 16 << 10}
	exit, err := g.run(io.MultiWriter(os.Stderr, said), args)
	return exit, string(said.kept), err
}

func (g Git) run(stderr io.Writer, args []string) (Exit, error) {
	cmd := exec.Command(g.Path, g.words(args)...) //nolint:gosec // running git is the purpose
	cmd.Args[0] = "git"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, stderr
	cmd.WaitDelay = time.Second // what git leaves in the background must not hold us
	return supervise(cmd)
}

// supervise starts a command, passes signals on to it, and waits for it.
func supervise(cmd *exec.Cmd) (Exit, error) {
	// Started before git, so that no signal falls between. A terminal sends Ctrl-C to git as
	// well; git has no use for the second one and takes no harm.
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
