//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// How long a lock lives. Here every session is a real script, because a session is what runs git,
// and the scripts stop at a fifo where a test has something to look at.

// leaseTTL is short, so that what has to outlive it does so soon, and long enough for a keeper that
// a busy machine does not let run for some seconds.
const leaseTTL = 15 * time.Second

// newLifeWorld is a world in which a lock belongs to the script that took it. All that runs in it
// must be able to end by itself: a failure names what keeps a lock.
func newLifeWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w = w.with(
		"GITOPS_LOCK_SESSION",
		"GITOPS_LOCK_TTL="+leaseTTL.String(),
		// A keeper has no stderr to report a race on.
		"GORACE="+gittest.RaceSettings+" log_path="+w.path("race"),
	)
	t.Cleanup(func() {
		// Their sessions have just been killed.
		gone := func() bool { return len(w.keepers()) == 0 }
		if !gittest.Reached(gone) {
			t.Errorf("keepers that live on: %v", w.keepers())
			w.killKeepers()
		}
		if races, _ := filepath.Glob(w.path("race.*")); len(races) > 0 {
			report, _ := os.ReadFile(races[0])
			t.Errorf("a race in a command or keeper:\n%s", report)
		}
	})
	w.env["SEED"] = w.seed("seed.git")
	return w.room("room")
}

// room is a part of a world with a remote, and so a lock, of its own. Scripts know the remote as
// $REMOTE.
func (w *world) room(name string) *world {
	w.t.Helper()
	other := w.with("REMOTE=" + w.path(name, "remote.git"))
	other.dir = w.path(name)
	w.must(".", `mkdir -p "$1" && cp -r "$SEED" "$1/remote.git" && mkfifo "$1/gate"`, other.dir)
	return other
}

// in is a room for a subtest.
func (w *world) in(t *testing.T, name string) *world {
	t.Helper()
	inner := *w
	inner.t = t
	return inner.room("../" + strings.NewReplacer(" ", "-", "/", "-").Replace(name))
}

func (w *world) lock() string { return lockKey(w.path("remote"), "main") }

const keeperWords = "git-gitops\x00keeper\x00" // how a keeper's command line begins

// commandLines has each process's words, as /proc has them: a NUL after each, nothing for a zombie.
func commandLines() map[int]string {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		panic(err) // also after the test, when nothing can be said to its T
	}
	lines := map[int]string{}
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err == nil {
			words, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline")) // it may have ended
			lines[pid] = string(words)
		}
	}
	return lines
}

// keepers are the keepers of locks on what is in this world, without zombies.
func (w *world) keepers() (pids []int) {
	for pid, line := range commandLines() {
		if strings.HasPrefix(line, keeperWords+w.dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (w *world) killKeepers() {
	for _, pid := range w.keepers() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// alive does not count zombies, which the first process of a container may never bury.
func alive(pid int) bool {
	_, err := session.Lookup(pid)
	return err == nil
}

// after waits for a condition, and logs how long after its cause it came true.
func (w *world) after(since time.Time, what string, ok func() bool) {
	w.t.Helper()
	if !gittest.Reached(ok) {
		w.t.Fatalf("not reached: %s (locks %q, keepers %v)", what, w.locks(), w.keepers())
	}
	w.t.Logf("after %s: %s", time.Since(since).Round(time.Millisecond), what)
}

// left is the time left of this room's lock, negative when it is free.
func (w *world) left() time.Duration {
	w.t.Helper()
	d, err := w.keys.PTTL(w.t.Context(), w.lock()).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) free() bool { return w.left() < 0 }

// freed waits until the lock and its keepers have ended after a cause. Its TTL must not be what
// ended it.
func (w *world) freed(since time.Time) {
	w.t.Helper()
	w.after(since, "the lock is free", w.free)
	w.after(since, "no keeper is left", func() bool { return len(w.keepers()) == 0 })
	events := w.keys.XRevRangeN(w.t.Context(), strings.Replace(w.lock(), ":lock:", ":events:", 1), "+", "-", 1).Val()
	if len(events) != 1 || events[0].Values["type"] != string(lock.EventReleased) {
		w.t.Errorf("nobody has released the lock: %v", events)
	}
}

// sight is how a lease stood at some time.
type sight struct {
	left time.Duration
	at   time.Time
}

func (w *world) sight() sight {
	w.t.Helper()
	return sight{w.left(), time.Now()}
}

// renewed waits until the lock was renewed since a sight of it, so that whoever keeps it had the
// time to notice that it need not. On a machine that is much too busy the keeper may come too late,
// and take the lock back.
func (w *world) renewed(last sight) {
	w.t.Helper()
	if !gittest.Reached(func() bool {
		at := time.Now() // before the look, so that a pause between them is no renewal
		return w.left() > max(0, last.left-at.Sub(last.at))+500*time.Millisecond
	}) {
		w.t.Fatalf("the lock is not renewed (time left %s, keepers %v)", w.left(), w.keepers())
	}
}

// token is who has the lock.
func (w *world) token() string {
	w.t.Helper()
	return w.keys.Get(w.t.Context(), w.lock()).Val()
}

// entry is what a clone remembers of its only lock.
func (w *world) entry(clone string) workspace.Entry {
	w.t.Helper()
	entries, err := workspace.At(w.path(clone, ".git")).Load()
	if err != nil {
		w.t.Fatal(err)
	}
	if len(entries) != 1 {
		w.t.Fatalf("%s remembers %+v", clone, entries)
	}
	return entries[0]
}

// keeper is the process that keeps a clone's only lock.
func (w *world) keeper(clone string) int {
	w.t.Helper()
	var noted *session.Process
	w.until("a keeper of "+clone+" is noted", func() bool {
		noted = w.entry(clone).Keeper
		return noted != nil
	})
	return noted.PID
}

// reaches waits until a script has made a file, which it does before it waits at a gate.
func (w *world) reaches(p *process, file string) {
	w.t.Helper()
	w.until("the script makes "+file, func() bool {
		select {
		case <-p.done:
			if !w.exists(file) {
				w.t.Fatalf("the script ended before it made %s: %s", file, p.wait())
			}
		default:
		}
		return w.exists(file)
	})
}

// open lets a script go on that waits at a gate ("cat gate").
func (w *world) open(gate string) time.Time {
	w.t.Helper()
	var f *os.File
	w.until("a script waits at "+gate, func() (ok bool) {
		var err error
		f, err = os.OpenFile(w.path(gate), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	defer func() { _ = f.Close() }()
	return time.Now()
}

func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
}

// The lines of a script (without a child process where a signal could meet it) that clones in one
// part and pushes in another; without a file named push, it does not push.
const (
	lineClone = `git gitops clone -q "$REMOTE" work`
	lineHold  = `: >cloned; cat gate`
	linePush  = `if [ -e push ]; then git -C work commit -q --allow-empty -m edit && git gitops -C work push -q && touch pushed && cat gate; fi`
)

// TestSession: each row is a script that takes the lock in one of its parts and still has it for
// the push in another. The lock ends with the script.
func TestSession(t *testing.T) {
	t.Parallel()
	lines := func(l ...string) string { return strings.Join(l, "\n") + "\n" }
	script := func(clone string) []string { return []string{"bash", "-c", lines(clone, lineHold, linePush, ":")} }
	recipe := func(l ...string) string {
		return "all:\n\t" + strings.ReplaceAll(strings.Join(l, "\n\t"), "$", "$$") + "\n"
	}
	python := "import os, subprocess\ndef sh(line): subprocess.run(line, shell=True, check=True)\n"
	rows := []struct {
		name  string
		words []string
		files map[string]string
	}{
		{"bash -c", script(lineClone), nil},
		{"bash script", []string{"bash", "script.sh"}, map[string]string{"script.sh": lines(lineClone, lineHold, linePush)}},
		{"script with a first line", []string{"./script"}, map[string]string{"script": lines("#!/bin/sh", lineClone, lineHold, linePush)}},
		{"fails", []string{"bash", "-ec", lines(lineClone, lineHold, linePush, "false")}, nil},
		{"subshell", script("( " + lineClone + " )"), nil},
		{"subshell, more", script("( cd . && " + lineClone + "; : )"), nil},
		{"substitution", script("out=$( " + lineClone + "; echo done )"), nil},
		{"function", script("f() { " + lineClone + "; }; f"), nil},
		{"function in a subshell", script("f() ( " + lineClone + "; : ); f"), nil},
		{"pipeline", script("{ " + lineClone + "; :; } 2>&1 | cat"), nil},
		{"last of a pipeline", script("echo | while read -r _; do " + lineClone + "; done"), nil},
		{"background job", script("{ " + lineClone + "; :; } & wait $!"), nil},
		{"timeout", script("timeout 60 " + lineClone), nil},
		{"alias", script(`git config --file alias alias.c 'gitops clone -q'; GIT_CONFIG_GLOBAL=$PWD/alias git c "$REMOTE" work`), nil},
		{"python subprocess", []string{"python3", "script.py"}, map[string]string{"script.py": python + lines(
			`subprocess.run(["git", "gitops", "clone", "-q", os.environ["REMOTE"], "work"], check=True)`,
			"sh("+strconv.Quote(lineHold)+")", "sh("+strconv.Quote(linePush)+")")}},
		{"python shell=True", []string{"python3", "script.py"}, map[string]string{"script.py": python + lines(
			"sh("+strconv.Quote(lineClone+"; :")+")", "sh("+strconv.Quote(lineHold)+")", "sh("+strconv.Quote(linePush)+")")}},
		{"node", []string{"node", "script.js"}, map[string]string{"script.js": lines(
			`const sh = (line) => require("child_process").execSync(line, {stdio: "inherit"})`,
			"sh("+strconv.Quote(lineClone)+")", "sh("+strconv.Quote(lineHold)+")", "sh("+strconv.Quote(linePush)+")")}},
		{"bash -c, each", []string{"bash", "script.sh"}, map[string]string{"script.sh": lines(
			`bash -c "$CLONE; :"`, lineHold, `sh -c "$PUSH; :"`)}},
		{"python executable=bash", []string{"python3", "script.py"}, map[string]string{"script.py": strings.Replace(python, "shell=True", `shell=True, executable="/bin/bash"`, 1) + lines(
			"sh("+strconv.Quote(lineClone+"; :")+")", "sh("+strconv.Quote(lineHold)+")", "sh("+strconv.Quote(linePush)+")")}},
		{"node shell: bash", []string{"node", "script.js"}, map[string]string{"script.js": lines(
			`const sh = (line) => require("child_process").execSync(line + "; :", {stdio: "inherit", shell: "/bin/bash"})`,
			"sh("+strconv.Quote(lineClone)+")", "sh("+strconv.Quote(lineHold)+")", "sh("+strconv.Quote(linePush)+")")}},
		{"perl", []string{"perl", "script.pl"}, map[string]string{"script.pl": lines(
			`sub sh { system("/bin/sh", "-c", $_[0]) == 0 or die }`, `sh($ENV{CLONE} . "; :");`, `sh(": >cloned; cat gate");`, `sh($ENV{PUSH} . "; :");`)}},
		{"sh script", []string{"sh", "script.sh"}, map[string]string{"script.sh": lines(lineClone, lineHold, linePush)}},
		{"dash script", []string{"dash", "script.sh"}, map[string]string{"script.sh": lines(lineClone, lineHold, linePush)}},
		{"python executable=bash, nested", []string{"python3", "script.py"}, map[string]string{"script.py": strings.Replace(python, "shell=True", `shell=True, executable="/bin/bash"`, 1) + lines(
			"sh("+strconv.Quote(`sh -c "$CLONE; :"; :`)+")", "sh("+strconv.Quote(lineHold)+")", "sh("+strconv.Quote(`sh -c "$PUSH; :"; :`)+")")}},
		{"python os.system", []string{"python3", "script.py"}, map[string]string{"script.py": lines(
			"import os", `for line in (os.environ["CLONE"] + "; :", ": >cloned; cat gate", os.environ["PUSH"] + "; :"): os.system(line)`)}},
		{"node without shell", []string{"node", "script.js"}, map[string]string{"script.js": lines(
			`const {execFileSync, spawnSync} = require("child_process"), o = {stdio: "inherit"}`,
			`execFileSync("git", ["gitops", "clone", "-q", process.env.REMOTE, "work"], o)`,
			`spawnSync("sh", ["-c", ": >cloned; cat gate"], o)`, `spawnSync("bash", ["-c", process.env.PUSH + "; :"], o)`)}},
		{"shelljs", []string{"node", "script.js"}, map[string]string{"script.js": lines(
			`const {exec} = require("shelljs")`, `for (const line of [process.env.CLONE + "; :", ": >cloned; cat gate", process.env.PUSH + "; :"]) exec(line)`)}},
		{"zx", []string{"zx", "script.mjs"}, map[string]string{"script.mjs": lines(
			"await $`eval \"$CLONE\"; :`", "await $`: >cloned; cat gate`", "await $`eval \"$PUSH\"; :`")}},
		{"perl, one string", []string{"perl", "script.pl"}, map[string]string{"script.pl": lines(
			`for my $line ($ENV{CLONE} . "; :", ": >cloned; cat gate", $ENV{PUSH} . "; :") { system($line) }`)}},
		{"ruby", []string{"ruby", "script.rb"}, map[string]string{"script.rb": lines(
			`[ENV["CLONE"] + "; :", ": >cloned; cat gate", ENV["PUSH"] + "; :"].each { |line| system(line) }`)}},
		{"ruby without shell", []string{"ruby", "script.rb"}, map[string]string{"script.rb": lines(
			`system("git", "gitops", "clone", "-q", ENV["REMOTE"], "work")`, "`: >cloned; cat gate`", `system("bash", "-c", ENV["PUSH"] + "; :")`)}},
		{"ansible", []string{"ansible-playbook", "-i", "localhost,", "-c", "local", "play.yml"}, map[string]string{"play.yml": lines(
			"- hosts: all", "  gather_facts: false", "  vars: {ansible_python_interpreter: /usr/bin/python3}", "  tasks:",
			`  - {shell: 'eval "$CLONE"; :', args: {chdir: "{{ playbook_dir }}"}}`,
			`  - {shell: ': >cloned; cat gate', args: {chdir: "{{ playbook_dir }}"}}`,
			`  - {shell: 'eval "$PUSH"; :', args: {chdir: "{{ playbook_dir }}"}}`)}},
		{"just", []string{"just"}, map[string]string{"justfile": lines("all:", "\teval \"$CLONE\"; :", "\t: >cloned; cat gate", "\teval \"$PUSH\"; :")}},
		{"make", []string{"make", "-s"}, map[string]string{"Makefile": recipe(lineClone, lineHold, linePush)}},
		{"Runner.Worker", []string{"./Runner.Worker", "job"}, map[string]string{
			"job": "bash -e one.sh\nbash -e two.sh\nbash -e three.sh\n:\n", "one.sh": lines(lineClone, ":"), "two.sh": lines(lineHold, ":"), "three.sh": lines(linePush, ":"),
		}},
		{"GITOPS_LOCK_SESSION=$$", []string{"bash", "-c", "export GITOPS_LOCK_SESSION=$$; bash one.sh; " + lineHold + "; bash two.sh; :"}, map[string]string{
			"one.sh": lines(lineClone, ":"), "two.sh": lines(linePush, ":"),
		}},
	}
	const packages = "/usr/share/nodejs" // Debian's, which a node from elsewhere does not know
	house := newLifeWorld(t).with("CLONE="+lineClone, "PUSH="+linePush, "LC_ALL=C.UTF-8", "NODE_PATH="+packages)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	rooms := map[string]running{}
	for i, row := range rows {
		if _, err := exec.LookPath(row.words[0]); err != nil && !strings.HasPrefix(row.words[0], "./") {
			continue
		}
		if _, err := os.Stat(filepath.Join(packages, "shelljs")); err != nil && row.name == "shelljs" {
			continue
		}
		if row.name == "zx" && exec.CommandContext(t.Context(), "zx", "--version").Run() != nil {
			continue // Debian's needs Debian's node
		}
		for _, end := range []string{"push", "none"} {
			w := house.room(fmt.Sprintf("../%d-%s", i, end))
			for name, text := range row.files {
				w.write(name, text)
			}
			if end == "push" {
				w.write("push", "")
			}
			words := row.words
			if strings.HasPrefix(words[0], "./") {
				if !w.exists(words[0]) {
					w.must(".", `cp "$1" "$2"`, bash, words[0])
				}
				words = append([]string{w.path(words[0])}, words[1:]...)
			}
			rooms[row.name+end] = running{w, w.start(".", words...)}
		}
	}
	seen := map[string]sight{}
	for name, r := range rooms {
		r.reaches(r.process, "cloned")
		seen[name] = r.sight()
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if rooms[row.name+"push"].world == nil {
				t.Skip(row.words[0] + " is not here")
			}
			w, p := rooms[row.name+"push"].in(t)
			w.renewed(seen[row.name+"push"])
			w.open("gate")
			w.reaches(p, "pushed")
			if !w.free() {
				t.Error("push did not free the lock")
			}
			w.open("gate")
			if got := p.wait(); got.ours() != "" {
				t.Errorf("the lock was not there for the push: %s", got)
			}

			w, p = rooms[row.name+"none"].in(t)
			w.renewed(seen[row.name+"none"])
			w.open("gate")
			if got := p.wait(); (got.code != 0) != (row.name == "fails") {
				t.Error(got)
			}
			w.freed(time.Now())
		})
	}
}

// running is a room with a script that runs in it.
type running struct {
	*world
	process *process
}

// in is both for a subtest.
func (r running) in(t *testing.T) (*world, *process) {
	w := *r.world
	w.t, r.process.t = t, t
	return &w, r.process
}

// script starts a script that stops at gates, with the means to say so.
func (w *world) script(lines ...string) *process {
	w.t.Helper()
	w.write("script", strings.Join(lines, "\n")+"\n")
	return w.start(".", "bash", "script")
}

// TestSession_workspace: the lock of a workspace does not end with the scripts that use it, but
// with push, or with the clone.
func TestSession_workspace(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t).with("GITOPS_LOCK_SESSION=workspace")
	for _, end := range []string{"git gitops -C work push -q", "rm -rf work"} {
		w.must(".", lineClone+"; :")
		w.renewed(w.sight())
		w.must(".", "git -C work commit -q --allow-empty -m edit; "+end+"; :")
		w.freed(time.Now())
		w.must(".", "rm -rf work")
	}
}

// TestSession_workspaceTakes: a command for the workspace does not use the lock of a script that
// has just ended, which the script's keeper is about to release. It takes its own.
func TestSession_workspaceTakes(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	workspace := w.with("GITOPS_LOCK_SESSION=workspace")
	script := w.script(lineClone, lineHold, ":")
	w.reaches(script, "cloned")
	keeper := w.keeper("work")
	t.Cleanup(func() { _ = syscall.Kill(keeper, syscall.SIGCONT) })
	if err := syscall.Kill(keeper, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.open("gate")
	wantCode(t, script.wait(), 0)
	r := workspace.run("work", "git", "gitops", "lock")
	wantCode(t, r, 0)
	wantText(t, r.stderr, "its session ended; taking it again")
	if err := syscall.Kill(keeper, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.until("the script's keeper has ended", func() bool { return !alive(keeper) })
	if w.free() {
		t.Fatalf("the lock was released: %s", w.read("work/.git/gitops/keeper.log"))
	}
	w.renewed(w.sight())
	if base := w.entry("work").Base; base != w.must("remote.git", "git rev-parse main") {
		t.Errorf("the base is %q now", base)
	}
	workspace.must("work", "git gitops unlock")
	w.freed(time.Now())
}

// TestLifetime_ends: what ends a lock when nobody pushes, while the script that took it lives on or
// does not.
func TestLifetime_ends(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for _, tc := range []struct {
		name  string
		lines []string
		end   func(w *world, p *process) time.Time
	}{
		{"the clone is deleted", []string{lineClone, lineHold, "rm -rf work", "touch deleted", "cat gate"}, func(w *world, p *process) time.Time {
			w.open("gate")
			w.reaches(p, "deleted")
			return time.Now()
		}},
		{"unlock", []string{lineClone, lineHold, "git gitops -C work unlock", "touch deleted", "cat gate"}, func(w *world, p *process) time.Time {
			w.open("gate")
			w.reaches(p, "deleted")
			return time.Now()
		}},
		{"the script is killed", []string{lineClone, lineHold, ":"}, func(_ *world, p *process) time.Time {
			if err := p.cmd.Process.Kill(); err != nil { // and not what it runs
				p.t.Fatal(err)
			}
			return time.Now()
		}},
		{"the script is killed as a group", []string{lineClone, lineHold, ":"}, func(_ *world, p *process) time.Time {
			p.signal(syscall.SIGKILL)
			return time.Now()
		}},
		{"Ctrl-C", []string{lineClone, lineHold, ":"}, func(_ *world, p *process) time.Time {
			p.signal(syscall.SIGINT)
			return time.Now()
		}},
		{"the container is stopped", []string{lineClone, lineHold, ":"}, func(w *world, p *process) time.Time {
			// The keeper gets its signal first, and waits for the end of its session.
			if err := syscall.Kill(w.keeper("work"), syscall.SIGTERM); err != nil {
				p.t.Fatal(err)
			}
			p.signal(syscall.SIGTERM)
			return time.Now()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := house.in(t, tc.name)
			p := w.script(tc.lines...)
			w.reaches(p, "cloned")
			w.renewed(w.sight())
			w.freed(tc.end(w, p))
		})
	}
}

// TestLifetime_maxHold: no lock is renewed for ever, even if its session lives. The next push says
// what happened.
func TestLifetime_maxHold(t *testing.T) {
	t.Parallel()
	const most = 2 * leaseTTL // so that there is time to see a renewal
	w := newLifeWorld(t).with("GITOPS_LOCK_MAX_HOLD=" + most.String())
	p := w.script(lineClone, lineHold, "git -C work commit -q --allow-empty -m edit && git gitops -C work push; touch pushed; cat gate")
	w.reaches(p, "cloned")
	since := w.entry("work").Since
	w.renewed(w.sight())
	w.after(since, "the lock is free", w.free)
	if held := time.Since(since); held < most {
		t.Errorf("it was held for %s only", held)
	}
	w.after(since, "no keeper is left", func() bool { return len(w.keepers()) == 0 })
	w.open("gate")
	w.reaches(p, "pushed")
	w.until("it has said why", func() bool {
		return containsAll(p.stderr.String(), []string{"was lost in the meantime: it was held for 30s", "GITOPS_LOCK_MAX_HOLD"})
	})
	if !w.free() || w.must("remote.git", "git rev-list --count main") != "2" {
		t.Errorf("not pushed: %s", &p.stderr)
	}
}

// TestKeeper_killed: a lock whose keeper was killed ends with its TTL. If the script comes back
// before that, it renews the lock and has a new keeper.
func TestKeeper_killed(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	kill := func(w *world) {
		w.t.Helper()
		if err := syscall.Kill(w.keeper("work"), syscall.SIGKILL); err != nil {
			w.t.Fatal(err)
		}
		w.until("the keeper is dead", func() bool { return len(w.keepers()) == 0 })
	}
	t.Run("the TTL counts", func(t *testing.T) {
		t.Parallel()
		w := house.in(t, "ttl")
		p := w.script(lineClone, lineHold, ":")
		w.reaches(p, "cloned")
		kill(w)
		last := w.sight()
		w.open("gate")
		p.wait()
		w.after(last.at, "the lock has expired", w.free)
	})
	for _, tc := range []struct{ name, again string }{
		{"a push that fails", "touch remote.git/refuse; git gitops -C work push -q; rm remote.git/refuse"},
		{"lock", "git gitops -C work lock"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := house.in(t, tc.name)
			w.write("remote.git/hooks/pre-receive", "#!/bin/sh\n! [ -e refuse ]\n")
			p := w.script(lineClone, lineHold, "git -C work commit -q --allow-empty -m edit", tc.again, "touch again; cat gate", "git gitops -C work unlock; touch unlocked; cat gate")
			w.reaches(p, "cloned")
			token := w.token()
			kill(w)
			w.open("gate")
			w.reaches(p, "again")
			w.renewed(w.sight())
			if got := w.keepers(); len(got) != 1 || w.token() != token {
				t.Errorf("keepers %v, token %q, want the one that clone took, %q", got, w.token(), token)
			}
			w.open("gate")
			w.reaches(p, "unlocked")
			w.freed(time.Now())
		})
	}
}

// TestKeeper_oneForEach: commands that find the lock and its keeper alive start no other one.
func TestKeeper_oneForEach(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	w.write("remote.git/hooks/pre-receive", "#!/bin/sh\nexit 1\n")
	p := w.script(lineClone, "git -C work commit -q --allow-empty -m edit", "git gitops -C work push -q; git gitops -C work push -q",
		"git gitops -C work lock; git gitops -C work lock", lineHold, "git gitops -C work unlock", "touch unlocked; cat gate")
	w.reaches(p, "cloned")
	if got := w.keepers(); len(got) != 1 {
		t.Errorf("keepers: %v", got)
	}
	w.open("gate")
	w.reaches(p, "unlocked")
	w.freed(time.Now())
}

// TestKeeper_holdsNothing: whoever reads a script's output sees its end while the lock is held: the
// keeper has none of the script's descriptors.
func TestKeeper_holdsNothing(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	p := w.script(
		`out=$(git gitops clone "$REMOTE" one 2>&1; echo done); touch substituted`,
		`git gitops clone "$REMOTE" two 2>&1 | tee log; touch piped`,
		`exec 3> >(cat; touch eof)`,
		`exec 8>locked; flock 8`,
		`git gitops clone -q "$REMOTE" work >&3`,
		`exec 3>&- 8>&-; flock locked touch unlocked`,
		lineHold, ":",
	)
	for _, file := range []string{"substituted", "piped", "eof", "unlocked", "cloned"} {
		w.reaches(p, file)
	}
	if len(w.keepers()) == 0 {
		t.Error("no keeper could have held anything")
	}
	w.freed(w.open("gate"))
	p.wait() // no process of the script's group is left that holds its stdout
}

// TestKeeper_signals: what a terminal sends, to its session or to the keeper alone, does not end
// the keeper.
func TestKeeper_signals(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	p := w.script("trap : INT HUP QUIT", lineClone, "touch cloned; until cat gate; do :; done", ":")
	w.reaches(p, "cloned")
	keeper := w.keeper("work")
	w.renewed(w.sight()) // it is up by then
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		p.signal(sig)
		if err := syscall.Kill(keeper, sig); err != nil {
			t.Fatal(err)
		}
	}
	w.renewed(w.sight())
	if !alive(keeper) {
		t.Fatal("the keeper has ended")
	}
	w.freed(w.open("gate"))
}

// onTerminal runs words on a terminal of their own. What the user types is written to the fifo
// "keys"; what appears is the process' stdout. Its end hangs the terminal up.
func (w *world) onTerminal(words ...string) *process {
	w.t.Helper()
	needs(w.t, "python3")
	w.must(".", "mkfifo keys")
	return w.start(".", append([]string{"bash", "-c", `exec 0<>keys; exec python3 -c 'import pty, sys; pty.spawn(sys.argv[1:])' "$@"`, "bash"}, words...)...)
}

func (w *world) types(keys string) {
	w.t.Helper()
	if err := os.WriteFile(w.path("keys"), []byte(keys), 0); err != nil {
		w.t.Fatal(err)
	}
}

// TestLifetime_terminal: a lock that was taken at an interactive shell belongs to the shell, and
// ends when the terminal hangs up; so does that of a script which runs there.
func TestLifetime_terminal(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for _, tc := range []struct {
		name  string
		words []string
		typed string
	}{
		{"typed", []string{"bash", "--norc", "-i"}, lineClone + "\n" + lineHold + "\n"},
		{"typed and waiting", []string{"bash", "--norc", "-i"}, lineClone + "\ntouch cloned\n"},
		{"script", []string{"bash", "script"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := house.in(t, tc.name)
			w.write("script", lineClone+"\n"+lineHold+"\n:\n")
			p := w.onTerminal(tc.words...)
			w.types(tc.typed)
			w.reaches(p, "cloned")
			w.renewed(w.sight())
			hungUp := time.Now()
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			w.freed(hungUp)
		})
	}
}

// TestNested: a function, a subshell or a child script that clones what its caller has locked does
// not wait for its caller. All of them share the lock, and it is free when the last has released
// its share.
func TestNested(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t).with("GITOPS_LOCK_TIMEOUT=30") // a wait for its own caller would end in 75
	w.write("child", `git gitops clone -q "$REMOTE" inner && git -C inner commit -q --allow-empty -m inner && git gitops -C inner push -q`+"\n:\n")
	w.write("forgetful", `git gitops clone -q "$REMOTE" forgotten`+"\n:\n")
	p := w.script(
		"set -e", lineClone,
		`f() { git gitops clone -q "$REMOTE" infunction; }; f`,
		`( git gitops clone -q "$REMOTE" insubshell; : )`,
		"bash child", "bash forgetful", lineHold,
		"git -C work pull -q --rebase; git -C work commit -q --allow-empty -m outer; git gitops -C work push -q; touch pushed; cat gate",
		"rm -rf infunction; touch removed; cat gate",
		"git gitops -C insubshell unlock; touch unlocked; cat gate",
	)
	w.reaches(p, "cloned")
	token := w.token()
	stranger := w.room("../stranger").with("REMOTE="+w.env["REMOTE"], "GITOPS_LOCK_TIMEOUT=600").start(".", "bash", "-c", lineClone+"; :")
	w.until("somebody else waits", func() bool { return w.queued() == 1 })
	w.until("the child that did not push has let go", func() bool { return len(w.keepers()) == 3 })
	stillHeld := func(after string) {
		t.Helper()
		w.renewed(w.sight())
		if w.token() != token || w.queued() != 1 {
			t.Fatalf("after %s the holder is %q, not %q; %d wait", after, w.token(), token, w.queued())
		}
	}
	stillHeld("the inner push")
	w.open("gate")
	w.reaches(p, "pushed")
	stillHeld("the outer push")
	w.open("gate")
	w.reaches(p, "removed")
	w.until("the share of what was deleted has ended", func() bool { return len(w.keepers()) == 1 })
	stillHeld("the end of another share")
	w.open("gate")
	w.reaches(p, "unlocked")
	wantCode(t, stranger.wait(), 0)
	w.open("gate")
	if r := p.wait(); r.code != 0 || strings.Contains(r.stderr, "waiting") {
		t.Error(r)
	}
	w.until("all is free", w.free)
}

// TestJobs_excludeEachOther: parallel jobs of one script exclude each other, also when each clones
// in its own subshell.
func TestJobs_excludeEachOther(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	p := w.script(
		`for i in 1 2 3 4; do (`,
		`	( cd . && git gitops clone -q "$REMOTE" job$i; : )`,
		`	n=$(<job$i/counter); echo $((n + 1)) >job$i/counter; git -C job$i commit -q -a -m $i; git gitops -C job$i push -q || touch failed`,
		`) & done; wait`,
	)
	if r := p.wait(); r.code != 0 || w.exists("failed") || strings.Contains(r.stderr, "rejected") || strings.Contains(r.stderr, "taking over") {
		t.Error(r)
	}
	if got := w.must("remote.git", "git show main:counter"); got != "4" {
		t.Errorf("the counter is %s", got)
	}
	w.freed(time.Now())
}

// TestJobs_failed: a job that has failed does not block its siblings, which say that they take
// over. Nobody has lost the lock then, and GITOPS_ON_LOST=term ends nobody.
func TestJobs_failed(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t).with("GITOPS_ON_LOST=term")
	p := w.script(
		`( git gitops clone -q "$REMOTE" failed; exit 7 ) & wait $!`, // at once, as $( ) would end
		`( git gitops clone "$REMOTE" work; `+lineHold+`; git -C work commit -q --allow-empty -m edit; git gitops -C work push -q ) & wait $!`,
		`touch pushed; cat gate; exit 3`,
	)
	w.reaches(p, "cloned")
	w.until("the first keeper has ended", func() bool { return len(w.keepers()) < 2 })
	select {
	case <-p.done:
		t.Fatalf("the script has ended as well: %s", p.wait())
	default:
	}
	w.renewed(w.sight())
	w.open("gate")
	w.reaches(p, "pushed")
	if !w.free() {
		t.Error("the lock is not free")
	}
	w.open("gate")
	r := p.wait()
	wantCode(t, r, 3)
	if n := strings.Count(r.stderr, "taking over the lock"); n != 1 {
		t.Errorf("%d lines say so: %s", n, r)
	}
}

// TestDeadlock: sessions wait for each other in a circle. The last to come gives up at once and
// says why, and the others go on.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			house := newLifeWorld(t)
			var parties []running
			for i := range n {
				w := house.room(fmt.Sprintf("../party%d", i))
				next := house.path(fmt.Sprintf("../party%d/remote.git", (i+1)%n))
				parties = append(parties, running{w, w.with("NEXT="+next).script("set -e", lineClone, lineHold, `git gitops clone "$NEXT" next`, ":")})
			}
			for _, p := range parties {
				p.reaches(p.process, "cloned")
			}
			for i, p := range parties[:n-1] {
				p.open("gate")
				p.until("it waits", func() bool { return len(p.scan("gitops:blocked:*")) == i+1 })
			}
			last := parties[n-1]
			opened := last.open("gate")
			r := last.process.wait()
			t.Logf("found after %s", time.Since(opened).Round(time.Millisecond))
			wantCode(t, r, 75)
			wantText(t, r.ours(), "deadlock", "which this script holds")
			for _, p := range parties {
				wantText(t, r.ours(), p.path("remote")+"@main")
			}
			for i := n - 2; i >= 0; i-- {
				wantCode(t, parties[i].process.wait(), 0)
			}
		})
	}
}

// TestDeadlock_over: a command that has got what it waited for is part of no circle any more.
func TestDeadlock_over(t *testing.T) {
	t.Parallel()
	x := newLifeWorld(t)
	y, z := x.room("../y"), x.room("../z")
	x, y = x.with("OTHER="+y.env["REMOTE"]), y.with("OTHER="+x.env["REMOTE"], "THIRD="+z.env["REMOTE"])
	a := x.script("set -e", lineClone, lineHold, `git gitops clone "$OTHER" other`, "touch both; cat gate")
	b := y.script("set -e", lineClone, lineHold, "git gitops -C work unlock", "touch released; cat gate",
		`git gitops clone "$THIRD" third; git gitops clone "$OTHER" other`)
	x.reaches(a, "cloned")
	y.reaches(b, "cloned")
	x.open("gate")
	x.until("it waits", func() bool { return x.queued() == 1 })
	y.open("gate")
	x.reaches(a, "both")
	y.open("gate")
	y.until("the other waits, or has given up", func() bool {
		return y.queued() == 1 || strings.Contains(b.stderr.String(), "deadlock")
	})
	x.open("gate")
	wantCode(t, a.wait(), 0)
	wantCode(t, b.wait(), 0)
}

// TestLost: a lock that somebody else took is lost. The keeper notes it, the next push says it, and
// the script gets TERM if it asked for that.
func TestLost(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	lose := func(w *world) {
		w.t.Helper()
		if err := w.keys.Set(w.t.Context(), w.lock(), "stranger", 10*time.Minute).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
	t.Run("warn", func(t *testing.T) {
		w := house.in(t, "warn")
		p := w.script(lineClone, lineHold, "git -C work commit -q --allow-empty -m edit; git gitops -C work push")
		w.reaches(p, "cloned")
		lose(w)
		lost := time.Now()
		w.after(lost, "the clone remembers the loss", func() bool { return w.entry("work").Lost != "" })
		w.after(lost, "no keeper is left", func() bool { return len(w.keepers()) == 0 })
		w.open("gate")
		w.until("push waits", func() bool { return w.queued() == 1 })
		w.until("it says for whom", func() bool {
			return containsAll(p.stderr.String(), []string{"was lost in the meantime", "taking it again", "unknown"})
		})
		w.keys.Del(t.Context(), w.lock())
		wantCode(t, p.wait(), 0)
		w.freed(time.Now())
		if got := w.must("remote.git", "git rev-list --count main"); got != "2" {
			t.Errorf("%s commits", got)
		}
	})
	t.Run("term", func(t *testing.T) {
		w := house.with("GITOPS_ON_LOST=term").in(t, "term")
		p := w.script("trap 'touch signalled; exit 9' TERM", lineClone, "cat gate & touch cloned; wait")
		w.reaches(p, "cloned")
		lose(w)
		lost := time.Now()
		w.after(lost, "the script gets a signal", func() bool { return w.exists("signalled") })
		w.open("gate") // what it had in the background
		wantCode(t, p.wait(), 9)
	})
	t.Run("another pushed meanwhile", func(t *testing.T) {
		w := house.in(t, "another")
		p := w.script(lineClone, lineHold, "git -C work commit -q --allow-empty -m edit; git gitops -C work push; code=$?",
			"touch refused; cat gate", "git -C work pull -q --rebase && git gitops -C work push -q; exit $code")
		w.reaches(p, "cloned")
		keeper := w.keeper("work")
		_ = syscall.Kill(keeper, syscall.SIGSTOP) // a pause that outlives the lease
		w.keys.Del(t.Context(), w.lock())
		w.must(".", `git gitops clone -q "$REMOTE" other; git -C other commit -q --allow-empty -m other; git gitops -C other push -q`)
		w.open("gate")
		w.reaches(p, "refused")
		_ = syscall.Kill(keeper, syscall.SIGCONT)
		w.renewed(w.sight())
		w.open("gate")
		r := p.wait()
		wantCode(t, r, 73)
		wantText(t, r.ours(), "not pushed", "pull --rebase")
		w.freed(time.Now())
		if got := w.must("remote.git", "git rev-list --count main"); got != "3" {
			t.Errorf("%s commits", got)
		}
	})
}

// TestStranger_unlock: the last step of a script that never got the lock does not release that of
// another.
func TestStranger_unlock(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	p := w.script(lineClone, lineHold, ":")
	w.reaches(p, "cloned")
	token := w.token()
	r := w.with("GITOPS_LOCK_TIMEOUT=0").bash(".", `trap 'git gitops unlock --repo "$REMOTE" --branch main; git -C other gitops unlock --all' EXIT
		git gitops clone "$REMOTE" other || exit`)
	wantCode(t, r, 75)
	if w.token() != token || w.queued() != 0 {
		t.Errorf("the holder is %q, not %q: %s", w.token(), token, r)
	}
	w.freed(w.open("gate"))
}

// TestLifetime_longWork: the work takes much longer than the lease, in clone, between the commands,
// and in push, and nobody else gets the lock.
func TestLifetime_longWork(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	w.write("remote.git/hooks/pre-receive", "#!/bin/sh\ntouch ../pushing; cat ../gate\n")
	w.write("slow", "#!/bin/sh\ntouch cloning; cat gate; exec git-upload-pack \"$@\"\n")
	p := w.script(`git gitops clone -q -b main -u "$PWD/slow" "$REMOTE" work`, lineHold,
		"git -C work commit -q --allow-empty -m edit; git gitops -C work push -q")
	var token string
	for _, part := range []string{"cloning", "cloned", "pushing"} {
		w.reaches(p, part)
		if token == "" {
			token = w.token()
		}
		w.renewed(w.sight())
		if w.token() != token {
			t.Fatalf("%s: the holder is another", part)
		}
		w.open("gate")
	}
	wantCode(t, p.wait(), 0)
	w.freed(time.Now())
}

// TestRun: the command runs under the lock as it would without run.
func TestRun(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	const run = `git gitops run --repo "$REMOTE" --branch main -- `
	for _, tc := range []struct {
		name, script string
		code         int
		stdout       string
		words        []string // in stderr
	}{
		{"exit code", run + "sh -c 'exit 7'", 7, "", nil},
		{"success", run + "true", 0, "", nil},
		{"death by signal", run + `sh -c 'kill -9 $$'`, 137, "", nil},
		{"death by TERM", run + `sh -c 'kill -TERM $$'`, 143, "", nil},
		{"stdin and stdout", `printf 'a\nb' | ` + run + "cat", 0, "a\nb", nil},
		{"words", run + `printf '%s.' 'a b' -x --branch '*'`, 0, "a b.-x.--branch.*.", nil},
		{"stderr", run + "sh -c 'echo oops >&2'", 0, "", []string{"oops\n"}},
		{"under the lock", run + `sh -c 'redis-cli -p $REDIS_PORT keys "gitops:lock:*" | wc -l'`, 0, "1\n", nil},
		{"nested", run + `bash -c 'git gitops clone -q "$REMOTE" work && git -C work commit -q --allow-empty -m edit && git gitops -C work push -q && ` + run + `echo nested'`, 0, "nested\n", nil},
		{"no command", `git gitops run --repo "$REMOTE" --branch main`, 129, "", []string{"no command", "run -h"}},
		{"no command after dashes", run, 129, "", []string{"no command"}},
		{"unknown option", "git gitops run --bogus -- true", 129, "", []string{"bogus"}},
		{"no branch", "git gitops run -- true", 129, "", []string{"no branch to lock"}},
		{"no such command", run + "no-such-command", 127, "", []string{"no-such-command"}},
		{"not executable", run + "./remote.git/HEAD", 126, "", []string{"remote.git/HEAD"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := house.in(t, tc.name).with("GITOPS_LOCK_TIMEOUT=30")
			r := w.bash(".", tc.script+"\n")
			if r.code != tc.code || r.stdout != tc.stdout {
				t.Errorf("want exit code %d and stdout %q: %s", tc.code, tc.stdout, r)
			}
			if tc.words == nil && r.stderr != "" {
				t.Errorf("stderr: %s", r)
			}
			wantText(t, r.stderr, tc.words...)
			if !w.free() {
				t.Error("the lock is held")
			}
		})
	}
}

// TestRun_signals: a signal ends the command, and the lock only with it.
func TestRun_signals(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for _, tc := range []struct {
		name string
		send syscall.Signal
		trap string
		code int
	}{
		{"TERM", syscall.SIGTERM, "", 143},
		{"INT", syscall.SIGINT, "", 130},
		{"HUP", syscall.SIGHUP, "", 129},
		{"TERM is caught", syscall.SIGTERM, "trap 'touch caught; exit 7' TERM", 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := house.in(t, tc.name)
			w.write("command", tc.trap+"\nsleep 1000 >/dev/null 2>&1 & echo $! >pid\n: >started; wait\n")
			p := w.start(".", "git-gitops", "run", "--repo", w.env["REMOTE"], "--branch", "main", "--", "bash", "command")
			w.reaches(p, "started")
			if err := p.cmd.Process.Signal(tc.send); err != nil { // to us alone
				t.Fatal(err)
			}
			wantCode(t, p.wait(), tc.code)
			w.freed(time.Now())
			if w.exists("caught") != (tc.trap != "") {
				t.Error("the command did not see the signal")
			}
			pid := w.pid("pid")
			if tc.send != syscall.SIGINT { // a shell's background jobs ignore that
				w.until("the whole group has ended", func() bool { return !alive(pid) })
			} else {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
	}
}

func (w *world) pid(file string) int {
	w.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(w.read(file)))
	if err != nil {
		w.t.Fatal(err)
	}
	return pid
}

// TestRun_lost: when the lock is lost, the command ends with all that it started, whatever it
// ignores. When Redis cannot say whether it is lost, everything has ended before the lock may be
// another's.
func TestRun_lost(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		lose func(w *world)
		code int
	}{
		{"taken by another", func(w *world) {
			w.keys.FlushAll(w.t.Context())
			w.keys.Set(w.t.Context(), w.lock(), "stranger", 10*time.Minute)
		}, 73},
		{"Redis is gone", func(w *world) { w.redis.Kill() }, 69},
		{"Redis does not answer", func(w *world) {
			if err := w.redis.Signal(syscall.SIGSTOP); err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() { _ = w.redis.Signal(syscall.SIGCONT) })
		}, 69},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for try := 1; !runLost(t, tc.lose, tc.code) && !t.Failed(); try++ {
				if try == 3 { // a busy machine may be too slow once
					t.Error("the command lives longer than its lease")
					break
				}
			}
		})
	}
}

// runLost reports whether the command was dead before its lease was over.
func runLost(t *testing.T, lose func(*world), code int) bool {
	t.Helper()
	w := newLifeWorld(t)
	w.write("command", "trap '' TERM; sleep 1000 & echo $! >child; echo $$ >leader\ntouch started\nwhile :; do sleep 1000; done\n")
	p := w.start(".", "git-gitops", "run", "--repo", w.env["REMOTE"], "--branch", "main", "--", "bash", "command")
	w.reaches(p, "started")
	leader, child := w.pid("leader"), w.pid("child")
	last := time.Now() // no renewal is later
	lose(w)
	w.t.Cleanup(func() {
		if alive(leader) {
			_ = syscall.Kill(-leader, syscall.SIGKILL)
		}
	})
	w.until("the command is dead", func() bool { return !alive(leader) && !alive(child) })
	took := time.Since(last)
	t.Logf("it was dead after %s", took)
	r := p.wait()
	wantCode(t, r, code)
	wantText(t, r.ours(), `ended "bash"`)
	return took < leaseTTL
}

// TestRun_terminal: the command has the terminal, and after it the script has it again.
func TestRun_terminal(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	w.write("script", `git gitops run --repo "$REMOTE" --branch main -- sh -c 'read -r word; echo "$word" >one; : >read; exec cat gate'; echo $? >code
touch again; read -r word; echo "$word" >two; touch done; cat gate`+"\n")
	p := w.onTerminal("bash", "--norc", "-i", "script")
	w.types("first\n")
	w.reaches(p, "read")
	w.types("\x03")
	w.reaches(p, "again")
	w.types("second\n")
	w.reaches(p, "done")
	if got := w.read("one") + w.read("code") + w.read("two"); got != "first\n130\nsecond\n" {
		t.Errorf("%q", got)
	}
	if !w.free() {
		t.Error("the lock is held")
	}
	w.open("gate")
	p.wait()
}

// TestInterrupted: a signal to git-gitops alone ends git. The lock of a clone is free then; that of
// a push is kept for the script's next try, and ends with the script.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(fmt.Sprintf("clone %d", sig), func(t *testing.T) {
			w := house.in(t, t.Name())
			slow := w.write("slow", "#!/bin/sh\ntouch started; cat gate\n")
			p := w.start(".", "git-gitops", "clone", "-q", "-b", "main", "-u", slow, w.env["REMOTE"], "work")
			w.reaches(p, "started")
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			sent := time.Now()
			w.after(sent, "the lock is free", w.free)
			w.open("gate")
			wantCode(t, p.wait(), 128+int(sig))
			w.freed(sent)
		})
		for name, clone := range map[string]string{"push": lineClone, "push without a lock": `git clone -q "$REMOTE" work`} {
			t.Run(fmt.Sprintf("%s %d", name, sig), func(t *testing.T) {
				t.Parallel()
				w := house.in(t, t.Name())
				w.write("remote.git/hooks/pre-receive", "#!/bin/sh\ntouch ../started; cat ../hook; exit 1\n")
				p := w.script("mkfifo hook", clone, "git -C work commit -q --allow-empty -m edit; cd work",
					"( echo $BASHPID >../pid; exec git-gitops push -q ); echo $? >../code; cd ..; touch ended; cat gate")
				w.reaches(p, "started")
				if err := syscall.Kill(w.pid("pid"), sig); err != nil {
					t.Fatal(err)
				}
				w.reaches(p, "ended")
				if got := w.read("code"); got != fmt.Sprintln(128+int(sig)) {
					t.Errorf("exit code %s", got)
				}
				w.renewed(w.sight())
				w.freed(w.open("gate"))
			})
		}
	}
}

// TestKeeper_small: the released keeper costs next to nothing in an hour in the background.
func TestKeeper_small(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	w := newLifeWorld(t)
	w.must(".", `mkdir bin && mv "$1" bin/git-gitops`, built(t, w, "1.0.0"))
	w = w.with("PATH=" + w.path("bin") + ":" + w.env["PATH"])
	p := w.script(lineClone, lineHold, ":")
	w.reaches(p, "cloned")
	keeper := w.keeper("work")
	w.renewed(w.sight())
	began := processorTime(t, keeper)
	start := time.Now()
	for range 2 {
		w.renewed(w.sight())
	}
	used := processorTime(t, keeper) - began
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", keeper))
	if err != nil {
		t.Fatal(err)
	}
	memory := map[string]int{}
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); strings.HasPrefix(name, "Rss") || name == "VmRSS" {
			memory[name], _ = strconv.Atoi(strings.Fields(value)[0])
		}
	}
	t.Logf("kB: %v; %s of processor time in %s, two renewals", memory, used, time.Since(start).Round(time.Millisecond))
	// Pages of the program itself (RssFile) are shared by all keepers.
	if memory["VmRSS"] == 0 || memory["VmRSS"] > 18<<10 || memory["RssAnon"] > 5<<10 {
		t.Errorf("the keeper takes %d kB, %d of its own", memory["VmRSS"], memory["RssAnon"])
	}
	if used > 30*time.Millisecond {
		t.Errorf("the keeper took %s of processor time in %s", used, time.Since(start))
	}
	w.freed(w.open("gate"))
}

// processorTime is utime and stime of /proc/PID/stat, see proc_pid_stat(5). A tick is 10 ms on
// every Linux.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err1 := strconv.Atoi(fields[14-3])
	system, err2 := strconv.Atoi(fields[15-3])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
