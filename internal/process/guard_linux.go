package process

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// endWithGit has the kernel kill us when the git that has started us is killed, for "git gitops
// push" or for a hook: what we do is done for it. No other parent is meant: what the kernel looks
// at is the thread that has started us, whose end need not be that of its process.
func endWithGit() {
	parent := os.Getppid()
	exe, err := os.Readlink("/proc/" + strconv.Itoa(parent) + "/exe")
	if err != nil || filepath.Base(exe) != "git" {
		return
	}
	const setParentDeathSignal = 1 // PR_SET_PDEATHSIG
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setParentDeathSignal, uintptr(syscall.SIGKILL), 0)
	if errno == 0 && os.Getppid() != parent { // it had ended already
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}
