//go:build unix

package process

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
)

//go:embed guard.sh
var guardScript string

// guard ends what we have started when we are killed and cannot do so ourselves: who kills us wants
// it to be over, and a push that lands later than that lands unguarded. No system tells the
// children of our children of our end, so that a shell waits for it beside us.
var guard struct {
	sync.Mutex
	running []string // process ids; a process group as -PID
	pipe    *os.File
	shell   chan *exec.Cmd
}

// EndTogether has all that this command starts end with it, whatever ends it. stop is called when
// the command has come to its own end.
func EndTogether() (stop func()) {
	endWithGit()
	r, w, err := os.Pipe()
	if err != nil {
		return func() {}
	}
	guard.pipe, guard.shell = w, make(chan *exec.Cmd, 1)
	go func() { // beside the first question; what comes until then waits in the pipe
		sh := exec.Command("/bin/sh", "-c", guardScript) //nolint:gosec // our own script
		sh.Stdin, sh.Env = r, []string{}
		if path, ok := os.LookupEnv("PATH"); ok { // for ps and sleep; without it, sh has its default
			sh.Env = append(sh.Env, "PATH="+path)
		}
		sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what is sent to our group is not for it
		if err := sh.Start(); err != nil {
			sh = nil
		}
		_ = r.Close()
		guard.shell <- sh
	}()
	return endGuard
}

// endGuard ends the shell, and waits for it: not every first process of a container buries the
// dead.
func endGuard() {
	guard.Lock()
	defer guard.Unlock()
	if guard.pipe == nil {
		return
	}
	if sh := <-guard.shell; sh != nil {
		_ = sh.Process.Kill()
		_ = sh.Wait()
	}
	_ = guard.pipe.Close()
	guard.pipe = nil
}

// guarded notes a process that we have started, which may lead a process group, until ended is
// called.
func guarded(p *os.Process, group bool) (ended func()) {
	ids := []string{fmt.Sprint(p.Pid)}
	if group {
		ids = append(ids, fmt.Sprint(-p.Pid))
	}
	guard.Lock()
	defer guard.Unlock()
	guard.running = append(guard.running, ids...)
	tellGuard()
	return func() {
		guard.Lock()
		defer guard.Unlock()
		guard.running = slices.DeleteFunc(guard.running, func(id string) bool { return slices.Contains(ids, id) })
		tellGuard()
	}
}

func tellGuard() {
	if guard.pipe != nil {
		_, _ = guard.pipe.WriteString(strings.Join(guard.running, " ") + "\n") // without a shell there is no guard
	}
}
