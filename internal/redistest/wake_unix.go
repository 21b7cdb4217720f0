//go:build unix

package redistest

import (
	"os"
	"syscall"
)

// wake lets a process go on that was stopped, so that it can end.
func wake(p *os.Process) { _ = p.Signal(syscall.SIGCONT) }
