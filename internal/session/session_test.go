//go:build unix

package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// The test binary under the name git-gitops or git is the command whose
// session is looked for:
//
//	git-gitops detect LABEL WANT...   notes its session, and the pids that the script gives
//	git-gitops shares LABEL OF        notes whether it shares the session noted as OF
func TestMain(m *testing.M) {
	args := os.Args[1:]
	switch base(os.Args[0]) {
	case "git":
		args = args[1:] // gitops
	case "git-gitops":
	default:
		os.Exit(m.Run())
	}
	if err := command(os.Getenv("SESSION_TEST_DIR"), args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// note is what one command has found.
type note struct {
	Session Session
	Want    []int
	Stand   Stand
	Took    time.Duration
}

func command(dir string, args []string) error {
	var n note
	begin := time.Now()
	switch args[0] {
	case "detect":
		s, err := Detect(os.Getpid(), os.Getenv("GITOPS_LOCK_SESSION"))
		if err != nil {
			return err
		}
		n.Session = s
		for _, a := range args[2:] {
			pid, err := strconv.Atoi(a)
			if err != nil {
				return err
			}
			n.Want = append(n.Want, pid)
		}
	case "shares":
		of, err := readNote(dir, args[2])
		if err != nil {
			return err
		}
		n.Stand = of.Session.Stand(os.Getpid())
	default:
		return fmt.Errorf("unknown command %q", args)
	}
	n.Took = time.Since(begin)
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, args[1]+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil { //nolint:gosec // the test's own folder
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, args[1]+".note")) //nolint:gosec // the test's own folder
}

func readNote(dir, label string) (n note, err error) {
	b, err := os.ReadFile(filepath.Join(dir, label+".note")) //nolint:gosec // the test's own folder
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(b, &n)
}

// world is a folder with scripts and notes, and git-gitops on PATH.
type world struct {
	t   *testing.T
	dir string
	env []string
}

func newWorld(t *testing.T) world {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	shim := filepath.Join(dir, "shim")
	for _, d := range []string{bin, shim, filepath.Join(dir, "home")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(bin, "git-gitops"))
	if err := os.Symlink(self, filepath.Join(shim, "git")); err != nil {
		t.Fatal(err)
	}
	w := world{t: t, dir: dir}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "GIT") && !strings.HasPrefix(name, "MAKE") && name != "HOME" && name != "PATH" && name != "MFLAGS" && name != "GORACE" {
			w.env = append(w.env, e)
		}
	}
	w.env = append(append(w.env, gittest.Env()...),
		"PATH="+bin+":"+os.Getenv("PATH"), "HOME="+filepath.Join(dir, "home"), "SHIM="+shim,
		"SESSION_TEST_DIR="+dir,
		"GORACE="+gittest.RaceSettings,
	)
	return w
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if os.Link(from, to) == nil {
		return
	}
	b, err := os.ReadFile(from) //nolint:gosec // the test's own choice
	if err != nil {
		t.Fatal(err)
	}
	if err := gittest.WriteProgram(to, string(b)); err != nil {
		t.Fatal(err)
	}
}

func (w world) file(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// cmd makes a command in the world, which ends with the test if it hangs.
func (w world) cmd(argv ...string) *exec.Cmd {
	w.t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		w.t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	w.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the test's own choice
	cmd.Dir, cmd.Env, cmd.WaitDelay = w.dir, w.env, time.Minute
	return cmd
}

// run runs a command to its end and returns its pid.
func (w world) run(argv ...string) int {
	w.t.Helper()
	cmd := w.cmd(argv...)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return cmd.Process.Pid
}

func (w world) note(label string) note {
	w.t.Helper()
	n, err := readNote(w.dir, label)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// wants checks the owner noted under a label, and the length of the chain
// that leads to it (0: the owner itself).
func (w world) wants(label string, owner, depth int) {
	w.t.Helper()
	s := w.note(label).Session
	if s.Owner == nil || s.Owner.PID != owner {
		w.t.Errorf("%s: owner %+v, want %d (chain %+v)", label, s.Owner, owner, s.Chain)
		return
	}
	direct := len(s.Chain) == 1 && s.Chain[0] == *s.Owner
	if (depth == 0) != direct || depth > 0 && len(s.Chain) != depth {
		w.t.Errorf("%s: chain %+v to owner %+v, want length %d", label, s.Chain, *s.Owner, depth)
	}
	if s.Host != Host() || s.Host == "" {
		w.t.Errorf("%s: host %q, here %q", label, s.Host, Host())
	}
}

// start starts a command and returns it as a Process.
func start(t *testing.T, cmd *exec.Cmd) Process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p, err := Lookup(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each line of a shell script, and how far its git is from the script.
var shellRows = []struct {
	name, line string
	depth      int
	bashOnly   bool
}{
	{"plain", `git-gitops detect L`, 0, false},
	{"realgit", `git gitops detect L`, 0, false},
	{"shim", `"$SHIM/git" gitops detect L`, 0, false},
	{"subshell", `( git-gitops detect L; : )`, 1, false},
	{"nested", `( : ; ( git-gitops detect L; : ) ; : )`, 2, false},
	{"substitution", `x=$(git-gitops detect L; :)`, 1, false},
	{"backticks", "x=`git-gitops detect L; :`", 1, false},
	{"pipeline", `: | { git-gitops detect L; :; } | cat`, 1, false},
	{"function", `f() { git-gitops detect L; }; f`, 0, false},
	{"function_subshell", `f() ( git-gitops detect L; : ); f`, 1, false},
	{"background", `{ git-gitops detect L; :; } & wait`, 1, false},
	{"background_simple", `git-gitops detect L & wait`, 0, false},
	{"eval", `eval 'git-gitops detect L; :'`, 0, false},
	{"loop", `for i in 1; do git-gitops detect L; done`, 0, false},
	{"process_substitution", `cat <(git-gitops detect L; :) >/dev/null`, 1, true},
	{"coproc", `coproc { git-gitops detect L; :; }; wait`, 1, true},
	{"env", `env A=b git-gitops detect L`, 0, false},
	{"timeout", `timeout 60 git gitops detect L`, 0, false},
	{"nohup_nice", `nohup nice timeout 60 nice git gitops detect L`, 0, false},
	{"xargs", `echo L | xargs git-gitops detect`, 0, false},
	{"alias", `git -c alias.d='!f() { git-gitops detect "$1"; :; }; f' d L`, 0, false},
	{"plain_alias", `git -c alias.d='gitops detect' d L`, 0, false},
	{"alias_in_subshell", `( git -c alias.d='!: ; git gitops detect' d L; : )`, 1, false},
}

func TestDetect_shellScript(t *testing.T) {
	for _, shell := range []string{"bash", "dash"} {
		t.Run(shell, func(t *testing.T) {
			w := newWorld(t)
			var script strings.Builder
			for _, r := range shellRows {
				if !r.bashOnly || shell == "bash" {
					script.WriteString(strings.ReplaceAll(r.line, "L", r.name) + "\n")
				}
			}
			script.WriteString(":\n")
			w.file("script.sh", script.String())
			for _, argv := range [][]string{
				{shell, "script.sh"},
				{shell, "-c", script.String()},
			} {
				pid := w.run(argv...)
				for _, r := range shellRows {
					if !r.bashOnly || shell == "bash" {
						w.wants(r.name, pid, r.depth)
						if err := os.Remove(filepath.Join(w.dir, r.name+".note")); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
}

// A script within a script is a session of its own, even one that runs
// itself with the very same command line.
func TestDetect_scriptInScript(t *testing.T) {
	w := newWorld(t)
	w.file("inner.sh", "git-gitops detect inner $$\n:\n")
	w.file("self.sh", "if [ -z \"$AGAIN\" ]; then AGAIN=1 bash self.sh; else git-gitops detect self $$; fi\n:\n")
	w.file("outer.sh", "bash inner.sh\nbash self.sh\ngit-gitops detect outer\n:\n")
	pid := w.run("bash", "outer.sh")
	w.wants("outer", pid, 0)
	for _, label := range []string{"inner", "self"} {
		if label == "self" && !w.tellsExec() {
			continue
		}
		want := w.note(label).Want[0]
		w.wants(label, want, 0)
		if want == pid {
			t.Errorf("%s: is the outer script", label)
		}
	}
	if w.note("inner").Session.Same(w.note("outer").Session) || !w.note("outer").Session.Same(w.note("outer").Session) {
		t.Error("Same")
	}
}

// tellsExec reports whether this system tells a fork from an exec.
func (w world) tellsExec() bool {
	p, err := stat(os.Getpid())
	return err == nil && p.execed
}

func TestDetect_interactiveShell(t *testing.T) {
	w := newWorld(t)
	cmd := w.cmd("bash", "--norc", "-i")
	cmd.Stdin = strings.NewReader("git-gitops detect typed\n( git-gitops detect sub; : )\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.wants("typed", cmd.Process.Pid, 0)
	w.wants("sub", cmd.Process.Pid, 1)
}

func TestDetect_make(t *testing.T) {
	w := newWorld(t)
	w.file("Makefile", `
all: simple several subshell recursive script
simple:
	git-gitops detect simple
several:
	: ; git-gitops detect several; :
subshell:
	( git-gitops detect subshell; : ); :
recursive:
	: ; $(MAKE) sub; :
sub:
	: ; git-gitops detect sub $$PPID; :
script:
	bash script.sh
`)
	w.file("script.sh", "git-gitops detect script $$\n:\n")
	for _, flag := range []string{"-s", "-sj4"} {
		pid := w.run("make", flag)
		w.wants("simple", pid, 0)
		w.wants("several", pid, 1)
		w.wants("subshell", pid, 2)
		w.wants("sub", w.note("sub").Want[0], 1)
		w.wants("script", w.note("script").Want[0], 0)
		if w.note("sub").Session.Owner.PID == pid {
			t.Error("sub: the owner is the outer make")
		}
	}
	w.file("bash.mk", "SHELL=/bin/bash\n.SHELLFLAGS=-eu -o pipefail -c\nall:\n\tgit-gitops detect shell; :\n")
	w.wants("shell", w.run("make", "-sf", "bash.mk"), 1)
}

func TestDetect_python(t *testing.T) {
	w := newWorld(t)
	w.file("script.py", `
import os, subprocess, threading
me = str(os.getpid())
subprocess.run(["git-gitops", "detect", "list", me], check=True)
subprocess.run("git-gitops detect shell " + me, shell=True, check=True)
subprocess.run(": ; git-gitops detect several " + me + "; :", shell=True, check=True)
subprocess.run(["bash", "-c", "git-gitops detect bash " + me + "; :"], check=True)
os.system(": && git gitops detect system " + me + " && :")
t = threading.Thread(target=lambda: subprocess.run(["git", "gitops", "detect", "thread", me], check=True))
t.start(); t.join()
if os.fork() == 0:
    subprocess.run(["git-gitops", "detect", "fork", me], check=True)
    os._exit(0)
os.wait()
`)
	w.run("python3", "script.py")
	for label, depth := range map[string]int{"list": 0, "shell": 0, "several": 1, "bash": 1, "system": 1, "thread": 0, "fork": 1} {
		if label == "shell" {
			depth = w.chainDepth(label) // many shells exec their last command, but none has to
		}
		w.wants(label, w.note(label).Want[0], depth)
	}
}

// chainDepth is 0 if git's parent is the owner, else the chain's length.
func (w world) chainDepth(label string) int {
	s := w.note(label).Session
	if len(s.Chain) == 1 && s.Owner != nil && s.Chain[0] == *s.Owner {
		return 0
	}
	return len(s.Chain)
}

// A worker that runs each step as a process, played by a shell of that name.
func TestDetect_worker(t *testing.T) {
	w := newWorld(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"Runner.Worker", "Agent.Worker"} {
		worker := filepath.Join(w.dir, name)
		copyFile(t, bash, worker)
		w.file("job.sh", "bash -e step1.sh\nbash -e step2.sh\nbash -e step3.sh\n:\n")
		w.file("step1.sh", "git-gitops detect step1\n( git-gitops detect sub1; : )\n:\n")
		w.file("step2.sh", "timeout 60 git gitops detect step2\n:\n")
		w.file("step3.sh", "bash build.sh\n:\n")
		w.file("build.sh", "git-gitops detect build $$\n:\n")
		pid := w.run(worker, "job.sh")
		w.wants("step1", pid, 1)
		w.wants("sub1", pid, 2)
		w.wants("step2", pid, 1)
		w.wants("build", w.note("build").Want[0], 0)

		one, two := w.note("step1").Session, w.note("step2").Session
		if one.Owner.Name != name {
			t.Errorf("owner is called %q, want %q", one.Owner.Name, name)
		}
		if !one.Same(two) || reflect.DeepEqual(one.Chain, two.Chain) {
			t.Errorf("steps: %+v and %+v", one, two)
		}
	}
}

func TestDetect_override(t *testing.T) {
	w := newWorld(t)
	w.file("inner.sh", "( git-gitops detect inner; : )\n:\n")
	w.file("outer.sh", `
export GITOPS_LOCK_SESSION=$$
bash inner.sh
( git-gitops detect outer; : )
GITOPS_LOCK_SESSION=workspace bash inner2.sh
:
`)
	w.file("inner2.sh", "( git-gitops detect workspace $$; : )\n:\n")
	pid := w.run("bash", "outer.sh")
	w.wants("inner", pid, 2)
	w.wants("outer", pid, 1)

	s := w.note("workspace").Session
	if main := w.note("workspace").Want[0]; s.Owner != nil || len(s.Chain) != 2 || s.Chain[0].PID == main || s.Chain[1].PID != main {
		t.Errorf("workspace: %+v", s)
	}
	if !s.Alive() || s.chainAlive() || s.Same(s) {
		t.Errorf("workspace: alive %t, chain %t, same %t", s.Alive(), s.chainAlive(), s.Same(s))
	}

	// A process that is no ancestor.
	other := start(t, w.cmd("sleep", "60"))
	s, err := Detect(os.Getpid(), strconv.Itoa(other.PID))
	if err != nil || s.Owner == nil || *s.Owner != other {
		t.Errorf("sibling: %+v, %v", s, err)
	}

	for _, bad := range []string{"abc", "0", "-1", "1.5", " 1", "Workspace"} {
		if _, err := Detect(os.Getpid(), bad); err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("override %q: %v", bad, err)
		}
	}
	if _, err := Detect(os.Getpid(), strconv.Itoa(pid)); !errors.Is(err, ErrGone) {
		t.Errorf("override by a dead process: %v", err)
	}
}

// The job that has a lock is asked to share it by a script of its own and by
// its sibling; then it ends before its script does.
func TestSession_Stand(t *testing.T) {
	w := newWorld(t)
	w.file("nested.sh", "( git-gitops shares nested held; : )\n:\n")
	w.file("script.sh", `
mkfifo go
( git-gitops detect held $$; git-gitops shares self held; bash nested.sh; echo ready; read -r _ <go; git-gitops shares end held; exit 7 ) &
job=$!
read -r _
( git-gitops shares sibling held; : ) &
wait $!
git-gitops shares main held
git-gitops detect main $$
echo >go
wait $job
git-gitops shares late held
( git-gitops detect next; : )
echo ended
read -r _
:
`)
	cmd := w.cmd("bash", "script.sh")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	script := start(t, cmd)
	out := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		if got, err := out.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("script says %q, %v; want %q", got, err, want)
		}
	}
	expect("ready")
	w.wants("held", script.PID, 1)
	held := w.note("held").Session
	if !held.Alive() || !held.chainAlive() {
		t.Errorf("while it runs: alive %t, chain %t", held.Alive(), held.chainAlive())
	}
	if held.Stand(held.Chain[0].PID) != Within || held.Stand(script.PID) != Beside {
		t.Error("Stand from outside")
	}
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	expect("ended")
	for label, want := range map[string]Stand{
		"self": Within, "nested": Within, "end": Within, "sibling": Beside, "main": Beside, "late": Behind,
	} {
		if got := w.note(label).Stand; got != want {
			t.Errorf("%s: stands %d, want %d", label, got, want)
		}
	}

	next := w.note("next").Session
	if !held.Alive() || held.chainAlive() || !held.Same(next) {
		t.Errorf("after the job: alive %t, chain %t, same %t", held.Alive(), held.chainAlive(), held.Same(next))
	}
	if whole := w.note("main").Session; !whole.chainAlive() || whole.Stand(script.PID) != Within {
		t.Error("the script's own chain is not alive")
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		// The last read fails at the end of input, but : follows.
		if held.Alive() || w.note("main").Session.chainAlive() {
			t.Error("alive after the script's end")
		}
	} else {
		t.Error(err)
	}
}

func TestSession_otherHost(t *testing.T) {
	gone := Process{PID: os.Getpid(), Start: 1}
	s := Session{Host: "elsewhere", Owner: &gone, Chain: []Process{gone}}
	if !s.Alive() || s.Stand(os.Getpid()) != Beside {
		t.Error("a session of another host is judged by this host's processes")
	}
}

// A command that has outlived its script is nobody's, and shares with nobody.
func TestDetect_orphan(t *testing.T) {
	w := newWorld(t)
	w.file("script.sh", `bash -c 'read -r _ <go; exec git-gitops detect orphan' >out 2>&1 & :`)
	cmd := w.cmd("mkfifo", "go")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	w.run("bash", "script.sh")
	fifo, err := os.OpenFile(filepath.Join(w.dir, "go"), os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(fifo, "\n"); err != nil {
		t.Fatal(err)
	}
	_ = fifo.Close()
	gittest.Until(t, "the orphan has its note", func() bool {
		_, err := readNote(w.dir, "orphan")
		return err == nil
	})
	s := w.note("orphan").Session
	if s.Owner != nil && s.Owner.PID == 1 && !mayRunScripts(t) {
		t.Errorf("owner is init: %+v", s)
	}
	if s.Owner == nil && (len(s.Chain) != 0 || s.chainAlive() || s.Stand(os.Getpid()) != Beside) {
		t.Errorf("chain without an owner: %+v", s)
	}
}

// mayRunScripts reports whether pid 1 here is a shell or the like, as in a
// container.
func mayRunScripts(t *testing.T) bool {
	t.Helper()
	p, err := stat(1)
	if err != nil {
		t.Fatal(err)
	}
	p.describe()
	return !p.isInit()
}

// chainAlive reports whether any process of the chain lives.
func (s Session) chainAlive() bool { return slices.ContainsFunc(s.Chain, Process.Alive) }

func TestProcess_pidReused(t *testing.T) {
	me, err := Lookup(os.Getpid())
	if err != nil || !me.Alive() || me.Name == "" {
		t.Fatalf("%+v, %v: alive = %t", me, err, me.Alive())
	}
	was := me
	was.Start--
	if was.Alive() {
		t.Error("a process that had this pid before is alive")
	}
	if err := was.Wait(t.Context()); err != nil {
		t.Errorf("Wait for it: %v", err)
	}
	s := Session{Host: Host(), Owner: &was, Chain: []Process{was}}
	if s.Alive() || s.chainAlive() || s.Stand(os.Getpid()) != Beside {
		t.Error("a session whose pid is reused lives on")
	}
}

func TestLookup_gone(t *testing.T) {
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := Lookup(pid); !errors.Is(err, ErrGone) {
			t.Errorf("Lookup(%d): %v", pid, err)
		}
		if err := (Process{PID: pid}).Wait(t.Context()); err != nil {
			t.Errorf("Wait for %d: %v", pid, err)
		}
	}
}

func TestProcess_Wait(t *testing.T) {
	for name, wait := range map[string]func(Process, context.Context) error{
		"wait": Process.Wait,
		"poll": func(p Process, ctx context.Context) error { return p.poll(ctx, 10*time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sleep", "60")
			p := start(t, cmd)

			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := wait(p, ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("while it runs: %v", err)
			}

			done := make(chan error, 1)
			go func() { done <- wait(p, t.Context()) }()
			killed := time.Now()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				t.Logf("noticed after %v", time.Since(killed))
			case <-time.After(time.Minute):
				t.Fatal("the end was not noticed")
			}
			if p.Alive() {
				t.Error("alive after its end")
			}
		})
	}
}

func BenchmarkDetect(b *testing.B) {
	b.Logf("%d ancestors", len(ancestors(os.Getpid())))
	for b.Loop() {
		if _, err := Detect(os.Getpid(), ""); err != nil {
			b.Fatal(err)
		}
	}
}
