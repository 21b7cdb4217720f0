//go:build !unix

package process

import (
	"os"
	"os/exec"
	"time"
)

// RunGroup runs a command of the user's and returns how it ended. When end is closed, the
// command is killed. This system has no process groups: what the command started lives on.
func RunGroup(command []string, end <-chan struct{}, _ time.Duration) (Exit, error) {
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // the user's own command
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return Exit{}, &StartError{Command: command[0], Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return exitOf(err)
	case <-end:
		_ = cmd.Process.Kill()
		return exitOf(<-ended)
	}
}
