//go:build unix

package process

import (
	"os"
	"syscall"
)

// ownSession has no terminal to ask for a password.
var ownSession = &syscall.SysProcAttr{Setsid: true}

// terminate and kill end a session's first process and what it has started.
func terminate(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) }
func kill(p *os.Process)      { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

func nice(p *os.Process, n int) { _ = syscall.Setpriority(syscall.PRIO_PGRP, p.Pid, n) }
