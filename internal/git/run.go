package git

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Exit is how a git ended.
type Exit struct {
	Code   int            // its exit code; 128 + Signal when a signal ended it, as shells count
	Signal syscall.Signal // 0: it exited
}

// OK reports success.
func (e Exit) OK() bool { return e.Code == 0 }

// Run runs git with the user's own terminal, descriptors and working directory, and passes
// signals on to it. It returns when git has ended.
func (g Git) Run(args ...string) (Exit, error) {
	cmd := exec.Command(g.Path, g.words(args)...) //nolint:gosec // running git is the purpose
	cmd.Args[0] = "git"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr

	// Started before git, so that no signal falls between. A terminal sends Ctrl-C to git as
	// well; git has no use for the second one and takes no harm.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, caught()...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return Exit{}, fmt.Errorf("start git: %w", err)
	}
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
	case err == nil:
		return Exit{}, nil
	case !errors.As(err, &exit):
		return Exit{}, fmt.Errorf("wait for git: %w", err)
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
