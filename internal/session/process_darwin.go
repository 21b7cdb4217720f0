package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// From sys/proc.h.
const (
	stateZombie = 5      // SZOMB
	flagExec    = 0x4000 // P_EXEC: the process called exec; a fork does not inherit it
)

// stat asks the kernel, sysctl(3) kern.proc.pid.
func stat(pid int) (proc, error) {
	if pid <= 0 {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ESRCH) {
		// A pid that nobody has is an empty answer, which x/sys calls EIO.
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	if k.Proc.P_stat == stateZombie {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	start := k.Proc.P_starttime
	return proc{
		Process: Process{
			PID:   pid,
			Start: start.Sec*1_000_000 + int64(start.Usec),
			Name:  unix.ByteSliceToString(k.Proc.P_comm[:]),
		},
		ppid:    int(k.Eproc.Ppid),
		execed:  k.Proc.P_flag&flagExec != 0,
		ignores: k.Proc.P_sigignore&(1<<(unix.SIGINT-1)) != 0,
	}, nil
}

// describe fills in the executable and the command line, which other users'
// processes hide. The format of kern.procargs2 is the number of arguments, the
// executable's path, zero bytes up to a word's end, the arguments, the
// environment (sysctl_procargsx in bsd/kern/kern_sysctl.c).
func (p *proc) describe() {
	b, err := unix.SysctlRaw("kern.procargs2", p.PID)
	if err != nil || len(b) < 4 {
		return
	}
	n := int(binary.NativeEndian.Uint32(b))
	exe, rest, _ := strings.Cut(string(b[4:]), "\x00")
	p.exe = exe
	rest = strings.TrimLeft(rest, "\x00")
	for range n {
		arg, more, ok := strings.Cut(rest, "\x00")
		if !ok {
			break
		}
		p.args = append(p.args, arg)
		rest = more
	}
	if name := p.program(); name != "" {
		p.Name = name
	}
}

// hostID is the kernel's id of this boot; the boot time changes with the
// clock.
func hostID() string {
	if id, err := unix.Sysctl("kern.bootsessionuuid"); err == nil && id != "" {
		return id
	}
	name, _ := os.Hostname()
	return name
}
