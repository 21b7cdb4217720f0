//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestKeeper_cookies: a CI runner kills at the end of a job whatever has its cookie in the environment, and ends only
// then. The keeper has to live until that end, or the lock of a job that failed would stay for the TTL. Here the runner
// is played by a shell of that name.
func TestKeeper_cookies(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	w.must(".", `cp "$1" Runner.Worker`, bash)
	var export strings.Builder
	for _, name := range []string{
		"RUNNER_TRACKING_ID", "VSTS_PROCESS_LOOKUP_ID", "BUILD_ID", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE", "HUDSON_COOKIE", "HUDSON_SERVER_COOKIE",
	} {
		fmt.Fprintf(&export, "export %s=cookie:%s\n", name, w.dir)
	}
	w.write("step.sh", `sleep 600 & echo $! >background
`+lineClone+`
exit 1
`)
	w.write("job", export.String()+`bash -e step.sh
for p in /proc/[0-9]*; do
	! grep -qs "=cookie:$1" $p/environ || kill -9 ${p#/proc/} 2>>kills
done
: >killed
cat gate
`)
	p := w.start(".", w.path("Runner.Worker"), "job", w.dir)
	w.reaches(p, "killed")
	background := strings.TrimSpace(w.read("background"))
	w.until("the runner has killed what the step left", func() bool {
		return exec.Command("kill", "-0", background).Run() != nil || w.bash(".", `grep -q ') Z' /proc/`+background+`/stat`).code == 0
	})
	if keeper := w.keeper("work"); !alive(keeper) {
		t.Fatal("the keeper was killed with the job")
	}
	w.renewed(w.sight())
	w.freed(w.open("gate"))
}

// TestKeeper_toldToEnd: the keeper of a lock that belongs to no process cannot know whether the work is over when it is told
// to end. The lock stays for its TTL, and the log says so.
func TestKeeper_toldToEnd(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t).with("GITOPS_LOCK_SESSION=workspace")
	w.must(".", lineClone+"; :")
	w.renewed(w.sight())
	keeper := w.keeper("work")
	if err := syscall.Kill(keeper, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.until("the keeper has ended", func() bool { return !alive(keeper) })
	wantText(t, w.read("work/.git/gitops/keeper.log"), "told to end: nobody renews the lock from now on, so that it ends in 5s")
	w.until("the lock has ended with its TTL", w.free)
}
