package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Wait returns nil when the process has ended, at once if it has already, and
// ctx's error if that comes first. A zombie has ended.
func (p Process) Wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil { // a kernel before 5.3, a seccomp filter, no descriptor left
		return p.poll(ctx, pollInterval)
	}
	defer func() { _ = unix.Close(fd) }()
	if !p.Alive() { // the pid may have been another's when it was opened
		return nil
	}

	// The end of ctx closes one end of a pipe, which wakes the poll.
	r, w, err := os.Pipe()
	if err != nil {
		return p.poll(ctx, pollInterval)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	defer context.AfterFunc(ctx, func() { _ = w.Close() })()

	fds := []unix.PollFd{
		{Fd: int32(fd), Events: unix.POLLIN},     //nolint:gosec // a descriptor fits
		{Fd: int32(r.Fd()), Events: unix.POLLIN}, //nolint:gosec // a descriptor fits
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return p.poll(ctx, pollInterval)
		case fds[0].Revents != 0:
			return nil
		default:
			return ctx.Err()
		}
	}
}

// stat reads what /proc/PID/stat tells.
func stat(pid int) (proc, error) {
	b, err := os.ReadFile(procFile(pid, "stat"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	p, state, err := parseStat(string(b))
	if err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	if state == "Z" || state == "X" {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	return p, nil
}

// parseStat parses a line of /proc/PID/stat as proc_pid_stat(5) describes it.
// The second field, the name, is cut to 15 bytes and may have spaces and
// parentheses in it.
func parseStat(line string) (p proc, state string, err error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return proc{}, "", errors.New("malformed stat: no name")
	}
	const ( // counted from the state, which is field 3
		fieldState   = 0
		fieldPPID    = 4 - 3
		fieldFlags   = 9 - 3
		fieldStart   = 22 - 3
		fieldIgnored = 33 - 3
	)
	f := strings.Fields(line[end+1:])
	if len(f) <= fieldStart {
		return proc{}, "", errors.New("malformed stat: too short")
	}
	p.Name = line[open+1 : end]
	pid, err1 := strconv.Atoi(strings.TrimSpace(line[:open]))
	ppid, err2 := strconv.Atoi(f[fieldPPID])
	flags, err3 := strconv.ParseUint(f[fieldFlags], 10, 64)
	start, err4 := strconv.ParseInt(f[fieldStart], 10, 64)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return proc{}, "", fmt.Errorf("malformed stat: %w", err)
	}
	p.PID, p.ppid, p.Start = pid, ppid, start
	if len(f) > fieldIgnored { // obsolete, and enough for old signals
		ignored, _ := strconv.ParseUint(f[fieldIgnored], 10, 64)
		p.ignores = ignored&(1<<(unix.SIGINT-1)) != 0
	}

	// The kernel marks a process as forked without exec until it does exec
	// (PF_FORKNOEXEC in linux/sched.h). No flag at all is a /proc, such as
	// gVisor's, that doesn't know.
	const forkNoExec = 0x40
	p.execed = flags != 0 && flags&forkNoExec == 0
	return p, f[fieldState], nil
}

// describe fills in the executable, which other users' processes hide, and
// the command line, which they don't.
func (p *proc) describe() {
	exe, _ := os.Readlink(procFile(p.PID, "exe"))
	p.exe = strings.TrimSuffix(exe, " (deleted)")
	if b, _ := os.ReadFile(procFile(p.PID, "cmdline")); len(b) > 0 {
		p.args = strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	}
	if name := p.program(); name != "" {
		p.Name = name
	}
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// hostID joins the boot with the pid namespace, and with the name of the host: two virtual machines
// that were started from one snapshot have the same boot.
func hostID() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	ns, _ := os.Readlink("/proc/self/ns/pid") // pid:[4026531836]
	name, _ := os.Hostname()
	return strings.TrimSpace(string(boot)) + "/" + ns + "/" + name
}
