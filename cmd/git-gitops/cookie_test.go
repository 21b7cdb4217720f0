//go:build linux

package main

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKeeper_cookies: a CI runner kills at the end of a job whatever has its cookie in the
// environment, and ends only then. The keeper has none of the cookies, lives until that end, and
// frees the lock of a job that failed: the next in line has it. Here the runner is played by a
// shell of that name.
func TestKeeper_cookies(t *testing.T) {
	t.Parallel()
	life := newLifeWorld(t).with("GITOPS_LOCK_TTL=300", "GITOPS_LOCK_TIMEOUT=600")
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string]string{
		"RUNNER_TRACKING_ID": "KILL", "VSTS_PROCESS_LOOKUP_ID": "KILL",
		"BUILD_ID": "TERM", "JENKINS_NODE_COOKIE": "TERM", "JENKINS_SERVER_COOKIE": "TERM", "HUDSON_COOKIE": "TERM", "HUDSON_SERVER_COOKIE": "TERM",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := life.in(t, name)
			w.must(".", `cp "$1" Runner.Worker`, bash)
			w.write("step.sh", `sleep 600 & echo $! >background
`+lineClone+`
exit 1
`)
			w.write("job", "export "+name+`=cookie:$PWD
bash -e step.sh
for p in /proc/[0-9]*; do
	! grep -qs "=cookie:$PWD$" <(tr '\0' '\n' <$p/environ) || kill -`+sig+` ${p#/proc/} 2>>kills
done
: >killed
cat gate
`)
			worker := w.start(".", w.path("Runner.Worker"), "job")
			w.reaches(worker, "killed")
			background := strings.TrimSpace(w.read("background"))
			w.until("the runner has killed what the step left", func() bool {
				return exec.Command("kill", "-0", background).Run() != nil || w.bash(".", `grep -q ') Z' /proc/`+background+`/stat`).code == 0
			})
			if keeper := w.keeper("work"); !alive(keeper) {
				t.Fatal("the keeper was killed with the job")
			}
			next := w.start(".", "bash", "-c", "git gitops clone -q $REMOTE next; exit $?")
			w.until("the next one waits, and the keeper shows itself", func() bool { return w.waitsHere() && w.claimed() })
			ended := w.open("gate")
			wantCode(t, next.wait(), 0)
			t.Logf("the next one has the lock %s after the worker's end", time.Since(ended).Round(10*time.Millisecond))
		})
	}
}

// TestKeeper_toldToEnd: the keeper of a lock that belongs to no process cannot know whether the
// work is over when it gets SIGTERM. The lock stays for its TTL, and the log says so.
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
	wantText(t, w.read("work/.git/gitops/keeper.log"), "got TERM: the lock is no longer renewed, and ends in "+leaseTTL.String())
	w.until("the lock has ended with its TTL", w.free)
}
