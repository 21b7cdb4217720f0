//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// TTL of the locks here under faults, and the longest that a pipeline waits for one: a wait that
// comes to this end is a hang.
const (
	ttl      = 5 * time.Second
	patience = 6 * time.Minute
)

// world is one run: a git server, a Redis, proxies before both, and the pipelines.
type world struct {
	t        *testing.T
	ttl      time.Duration
	dir      string
	bare     string
	redis    *redistest.Server
	keys     *redis.Client // straight to Redis, past the proxies
	monitor  *monitor
	toRedis  []*redistest.Proxy
	toGit    *redistest.Proxy
	remote   string // of those who use the lock, through toGit
	direct   string // of outsiders
	identity string // of the repository, as in the names of its locks
	fenced   bool   // the git server has our hook

	events  *os.File // a line for each fault and each grant, for who looks into a failure
	mu      sync.Mutex
	all     []*pipeline
	running map[int]*pipeline // by process id
}

// newWorld starts everything. The folder is kept when the test fails.
func newWorld(t *testing.T, ttl time.Duration) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "gitops-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || *keepFlag {
			t.Logf("kept: %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	w := &world{t: t, ttl: ttl, dir: dir, bare: filepath.Join(dir, "srv", "repo"), running: map[int]*pipeline{}}
	for _, d := range []string{"home", "redis", "srv", "bin", "logs", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	w.redis, err = redistest.Run(filepath.Join(dir, "redis"), "--appendonly", "yes", "--appendfsync", "always")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.redis.Kill() })
	w.keys = w.redis.Client(t)
	if w.events, err = os.Create(filepath.Join(dir, "events")); err != nil {
		t.Fatal(err)
	}
	w.monitor = watch(w.redis.Addr(), w.keys, w.event)
	t.Cleanup(w.monitor.end)
	w.until("the monitor follows", func() bool { return w.monitor.epochs.Load() > 0 })
	for range 3 {
		w.toRedis = append(w.toRedis, redistest.NewProxy(t, w.redis.Addr()))
	}

	w.serveGit()
	t.Cleanup(w.endKeepers)
	return w
}

func (w *world) event(format string, args ...any) {
	_, _ = fmt.Fprintf(w.events, "%.6f %s\n", float64(time.Now().UnixMicro())/1e6, fmt.Sprintf(format, args...))
}

// serveGit makes the bare repository and a server for it, whose processes are not the pipelines'
// own: what kills a pipeline does not kill the server's end of its push.
func (w *world) serveGit() {
	w.t.Helper()
	w.must("git", "init", "-q", "--bare", "-b", "main", w.bare)
	for _, setting := range []string{
		"core.logAllRefUpdates=true", "gc.auto=0", "receive.autogc=false", // every tip there ever was stays known
	} {
		name, value, _ := strings.Cut(setting, "=")
		w.must("git", "-C", w.bare, "config", name, value)
	}
	hook := "#!/bin/sh\n[ ! -e \"$GIT_DIR/refuse\" ] || { echo \"error: cannot lock ref '$1': it is locked\" >&2; exit 1; }\n"
	if err := gittest.WriteProgram(filepath.Join(w.bare, "hooks", "update"), hook); err != nil {
		w.t.Fatal(err)
	}

	port, err := redistest.FreePort()
	if err != nil {
		w.t.Fatal(err)
	}
	server := w.command("git", "daemon", "--listen=127.0.0.1", "--port="+port, "--base-path="+filepath.Dir(w.bare),
		"--export-all", "--enable=receive-pack", "--max-connections=0", "--reuseaddr", filepath.Dir(w.bare))
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := server.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = syscall.Kill(-server.Process.Pid, syscall.SIGKILL)
		_ = server.Wait()
	})
	addr := net.JoinHostPort("127.0.0.1", port)
	w.until("the git server listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	w.toGit = redistest.NewProxy(w.t, addr)
	w.direct, w.remote = "git://"+addr+"/repo", "git://"+w.toGit.Addr+"/repo"
	w.identity = w.toGit.Addr + "/repo"

	w.must("bash", "-c", `git init -q -b main "$1" && cd "$1" && echo seed >seed && git add . &&
		git commit -q -m seed && git push -q "$2" main`, "bash", filepath.Join(w.dir, "work", "seed"), w.direct)
}

// build puts the program there, which is made with the race detector and once for all tests, or
// with these words of go build.
func (w *world) build(words ...string) {
	w.t.Helper()
	path, err := filepath.Join(w.dir, "bin", "git-gitops"), error(nil)
	if len(words) > 0 {
		err = build(path, words...)
	} else if err = racing(); err == nil {
		err = os.Link(filepath.Join(programs, "git-gitops"), path)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

var (
	programs string // the folder of racing's program
	racing   = sync.OnceValue(func() error {
		return build(filepath.Join(programs, "git-gitops"), "-race", "-tags", "urfave_cli_no_docs")
	})
)

func build(path string, words ...string) error {
	words = append(append([]string{"build", "-o", path}, words...), "../../cmd/git-gitops")
	if out, err := exec.Command("go", words...).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "gitops-chaos-"); err != nil {
		panic(err)
	}
	gittest.Parallel(8)
	code := m.Run()
	_ = os.RemoveAll(programs)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// fence has the git server refuse whoever does not hold the lock.
func (w *world) fence() {
	w.t.Helper()
	w.must("git-gitops", "install", "--server", w.bare)
	w.must("git", "-C", w.bare, "config", "gitops.protect", "main")
	w.must("git", "-C", w.bare, "config", "gitops.lockRepo", w.identity)
	w.fenced = true
}

// env is the environment of every command, which knows nothing of the machine.
func (w *world) env(more ...string) []string {
	return append(append(gittest.Env(),
		"PATH="+filepath.Join(w.dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HOME="+filepath.Join(w.dir, "home"),
		"GORACE="+gittest.RaceSettings+" log_path="+filepath.Join(w.dir, "logs", "race"),
		"REDIS_HOST="+w.redis.Host,
		"REDIS_PORT="+w.redis.Port,
		"GITOPS_LOCK_TTL="+strconv.Itoa(int(w.ttl.Seconds())),
		"GITOPS_LOCK_TIMEOUT="+strconv.Itoa(int(patience.Seconds())),
	), more...)
}

func (w *world) command(name string, args ...string) *exec.Cmd {
	if name == "git-gitops" {
		name = filepath.Join(w.dir, "bin", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = w.env()
	cmd.Dir = w.dir
	return cmd
}

func (w *world) must(name string, args ...string) string {
	w.t.Helper()
	cmd := w.command(name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, &said)
	}
	return string(out)
}

// until waits for a condition. Without it, the test has failed and goes on.
func (w *world) until(what string, ok func() bool) bool {
	w.t.Helper()
	if !gittest.Reached(ok) {
		w.t.Errorf("never: %s", what)
		return false
	}
	return true
}

// pipeline is one script, in a process group of its own.
type pipeline struct {
	id, kind, group string
	dir             string
	log, said       string // files
	cmd             *exec.Cmd
	started         time.Time
	took            time.Duration
	code            int  // of the script; -1 when a signal ended it
	killed          bool // with all that it ran
}

func (w *world) start(id, kind, group string, proxy int) *pipeline {
	p := &pipeline{
		id: id, kind: kind, group: group,
		dir: filepath.Join(w.dir, "work", id), log: filepath.Join(w.dir, "logs", id+".log"), said: filepath.Join(w.dir, "logs", id+".out"),
	}
	remote := w.remote
	if strings.HasPrefix(kind, "outsider") {
		remote = w.direct
	}
	script, err := filepath.Abs("testdata/pipeline.sh")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	said, err := os.Create(p.said)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = said.Close() }()
	_, port, _ := net.SplitHostPort(w.toRedis[proxy].Addr)
	p.cmd = exec.Command("bash", script)
	p.cmd.Dir = p.dir
	p.cmd.Env = w.env("ID="+id, "KIND="+kind, "GROUP="+group, "REMOTE="+remote, "LOG="+p.log, "REDIS_PORT="+port)
	switch kind {
	case "named":
		p.cmd.Env = append(p.cmd.Env, "GITOPS_LOCK_NAME="+group, "GITOPS_PUSH_REBASE=true")
	case "batched":
		p.cmd.Env = append(p.cmd.Env, "GITOPS_LOCK_NAME="+group, "GITOPS_PUSH_REBASE=true", "GITOPS_PUSH_BATCH=true", "GITOPS_PUSH_BATCH_SECRET=of all", "GITOPS_LOG=debug")
	case "rebase":
		p.cmd.Env = append(p.cmd.Env, "GITOPS_PUSH_REBASE=true")
	case "impatient":
		p.cmd.Env = append(p.cmd.Env, "GITOPS_LOCK_TIMEOUT=3")
	}
	p.cmd.Stdout, p.cmd.Stderr = said, said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, p)
	w.running[p.cmd.Process.Pid] = p
	return p
}

// wait returns when the script has ended, and all that it left behind: a git whose script was
// killed still works, and may land its push.
func (w *world) wait(p *pipeline) error {
	err := p.cmd.Wait()
	p.took = time.Since(p.started)
	p.code = p.cmd.ProcessState.ExitCode()
	w.mu.Lock()
	delete(w.running, p.cmd.Process.Pid)
	w.mu.Unlock()
	for syscall.Kill(-p.cmd.Process.Pid, 0) == nil {
		if time.Since(p.started) > 2*patience {
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			return fmt.Errorf("pipeline %s (%s): what it left behind does not end", p.id, p.kind)
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = os.RemoveAll(filepath.Join(p.dir, "repo", ".git", "objects")) // room; the rest may be of interest
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil // the script's own affair
	}
	return err
}

func (p *pipeline) String() string {
	if p == nil {
		return "nobody"
	}
	return fmt.Sprintf("%s (%s, pid %d)", p.id, p.kind, p.cmd.Process.Pid)
}

// signal sends to the whole group.
func (p *pipeline) signal(s syscall.Signal) bool { return syscall.Kill(-p.cmd.Process.Pid, s) == nil }

// step is a line of a pipeline's log.
type step struct{ at, name, result string }

func (p *pipeline) steps() []step {
	data, _ := os.ReadFile(p.log)
	var all []step
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 {
			all = append(all, step{f[0], f[1], f[2]})
		}
	}
	return all
}

// keepers are the process ids of the keepers of this world, by what ps says.
func (w *world) keepers() []int {
	out, err := exec.Command("ps", "-A", "-o", "pid=,stat=,args=").Output()
	if err != nil {
		w.t.Errorf("ps: %v", err)
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[1][0] == 'Z' || filepath.Base(f[2]) != "git-gitops" || f[3] != "keeper" || !strings.HasPrefix(f[4], w.identity+"@") {
			continue
		}
		if pid, err := strconv.Atoi(f[0]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// keepersOf are those that a pipeline's clone remembers.
func (w *world) keepersOf(p *pipeline) []int {
	entries, _ := workspace.At(filepath.Join(p.dir, "repo", ".git")).Load()
	var pids []int
	alive := w.keepers()
	for _, e := range entries {
		if e.Keeper != nil && slices.Contains(alive, e.Keeper.PID) {
			pids = append(pids, e.Keeper.PID)
		}
	}
	return pids
}

func (w *world) endKeepers() {
	for _, pid := range w.keepers() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// holder is the running pipeline that has the branch's lock.
func (w *world) holder() *pipeline {
	record := w.keys.HGet(context.Background(), "gitops:meta:{"+w.identity+"@main}", "record").Val()
	var r lock.Record
	if json.Unmarshal([]byte(record), &r) != nil || r.Session.Owner == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[r.Session.Owner.PID]
}

// started is how many pipelines there have been.
func (w *world) started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// someone is the n-th running pipeline.
func (w *world) someone(n int) *pipeline {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.running) == 0 {
		return nil
	}
	for _, p := range w.all { // in the order in which they came
		if w.running[p.cmd.Process.Pid] != p {
			continue
		}
		if n%len(w.running) == 0 {
			return p
		}
		n--
	}
	return nil
}

// dataRaces are the reports of the race detector, from all processes.
func (w *world) dataRaces() string {
	files, _ := filepath.Glob(filepath.Join(w.dir, "logs", "race.*"))
	var b strings.Builder
	for _, f := range files {
		if r, err := os.Open(f); err == nil {
			_, _ = io.Copy(&b, r)
			_ = r.Close()
		}
	}
	return b.String()
}
