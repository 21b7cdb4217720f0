package session

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// stat asks the kernel. Nobody adopts orphans here: the parent may be gone.
func stat(pid int) (proc, error) {
	if pid <= 0 {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(pid)) //nolint:gosec // a pid fits
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = windows.CloseHandle(h) }()

	// A process that has ended keeps its pid while somebody has it open.
	if ev, err := windows.WaitForSingleObject(h, 0); err == nil && ev == windows.WAIT_OBJECT_0 {
		return proc{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	var start, exit, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &start, &exit, &kernel, &user); err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	var info windows.PROCESS_BASIC_INFORMATION
	err = windows.NtQueryInformationProcess(h, windows.ProcessBasicInformation,
		unsafe.Pointer(&info), uint32(unsafe.Sizeof(info)), nil) //nolint:gosec // how this call wants it
	if err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	p := proc{
		Process: Process{PID: pid, Start: start.Nanoseconds() / 1000},
		ppid:    int(info.InheritedFromUniqueProcessId),
		execed:  true,
	}
	path := make([]uint16, windows.MAX_LONG_PATH)
	n := uint32(len(path)) //nolint:gosec // a constant
	if err := windows.QueryFullProcessImageName(h, 0, &path[0], &n); err == nil {
		p.exe = windows.UTF16ToString(path[:n])
	}
	return p, nil
}

// describe knows no command lines here, so that the owner is git's parent.
func (p *proc) describe() { p.Name = p.program() }

func hostID() string {
	name, _ := os.Hostname()
	return name
}
