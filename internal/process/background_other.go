//go:build !unix

package process

import (
	"os"
	"syscall"
)

var ownSession *syscall.SysProcAttr

func terminate(p *os.Process) { _ = p.Kill() }
func kill(p *os.Process)      { _ = p.Kill() }

func nice(*os.Process, int) {}
