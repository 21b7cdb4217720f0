//go:build unix

package process

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Detach starts one of our programs, which outlives us: in the folder dir, which it then knows also
// when that is moved; in a session of its own, so that no terminal
// hangs it up, and with none of our descriptors, so that it holds no pipe of the script open. It
// reads input on its stdin, and holds the file, if there is one, as descriptor 3. Nothing else may
// be started after it: descriptors that we inherited are not passed on any more.
func Detach(path, dir string, argv []string, input []byte, hold *os.File) (pid int, err error) {
	closeOnExec()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = w.Close() }()
	cmd := exec.Cmd{Path: path, Dir: dir, Args: argv, Stdin: r, Env: withoutCookies(os.Environ()), SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if hold != nil {
		cmd.ExtraFiles = []*os.File{hold}
	}
	err = cmd.Start()
	_ = r.Close()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", argv[0], err)
	}
	if _, err := w.Write(input); err != nil {
		return 0, fmt.Errorf("instruct %s: %w", argv[0], err)
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// cookies are the variables by which CI runners know what a job has started, and kill it: GitHub
// Actions and Azure Pipelines when the job ends, while the worker whose end we wait for still runs,
// and Jenkins at the end of a build, of a node block, or when one step is aborted.
var cookies = []string{
	"RUNNER_TRACKING_ID",
	"VSTS_PROCESS_LOOKUP_ID",
	"BUILD_ID", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE", "HUDSON_COOKIE", "HUDSON_SERVER_COOKIE",
}

func withoutCookies(environ []string) []string {
	return slices.DeleteFunc(environ, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(cookies, name)
	})
}

// closeOnExec marks every descriptor but the standard ones. Go marks its own; those that we
// inherited are not.
func closeOnExec() {
	fds, err := os.ReadDir("/dev/fd")
	if err != nil {
		return
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
