//go:build unix

package process

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
	"unsafe"
)

// RunGroup runs a command of the user's in a process group of its own, passes signals on to the
// group and returns how the command ended. When end is closed, the group is ended: TERM, then
// KILL for what is left after grace; RunGroup returns when none of it lives.
func RunGroup(command []string, end <-chan struct{}, grace time.Duration) (Exit, error) {
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // the user's own command
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	terminal := int(os.Stdin.Fd())
	if pgrp, ok := foreground(terminal); ok && pgrp == syscall.Getpgrp() {
		// The group must be in the terminal's foreground to read from it, and we again after it.
		cmd.SysProcAttr.Foreground, cmd.SysProcAttr.Ctty = true, terminal
		signal.Ignore(syscall.SIGTTOU)
		defer setForeground(terminal, pgrp)
	}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, caught()...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return Exit{}, &StartError{Command: command[0], Err: err}
	}
	defer guarded(cmd.Process, true)()
	group := -cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var kill <-chan time.Time
	for {
		select {
		case s := <-signals:
			_ = syscall.Kill(group, s.(syscall.Signal)) //nolint:forcetypeassert // all are on Unix
		case <-end:
			end = nil
			_ = syscall.Kill(group, syscall.SIGTERM)
			kill = time.After(grace)
		case <-kill:
			_ = syscall.Kill(group, syscall.SIGKILL)
		case err := <-ended:
			if kill != nil {
				endGroup(group, grace)
			}
			return exitOf(err)
		}
	}
}

// endGroup waits for the rest of a group, of which the leader has ended, and kills what is left.
func endGroup(group int, grace time.Duration) {
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if errors.Is(syscall.Kill(group, 0), syscall.ESRCH) {
			return
		}
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
}

func foreground(fd int) (pgrp int, ok bool) {
	var p int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&p))) //nolint:gosec // tcgetpgrp(3)
	return int(p), errno == 0
}

func setForeground(fd, pgrp int) {
	p := int32(pgrp)                                                                                          //nolint:gosec // a process group
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&p))) //nolint:gosec // tcsetpgrp(3)
}
