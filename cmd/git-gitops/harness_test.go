//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// world is where one test lives: a Redis, a folder, and an environment that knows nothing of the
// machine.
//
// Each step of a test is a bash of its own, and by default a lock belongs to the clone and not to
// the process that took it (GITOPS_LOCK_SESSION=workspace), so that a test can clone in one step
// and push in the next. Tests of whole scripts take that setting away again.
type world struct {
	t     *testing.T
	dir   string
	redis *redistest.Server
	keys  *redis.Client
	env   map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := redistest.Start(t)
	// Not t.TempDir: a process that outlives its test for a moment must not turn the cleaning into
	// a failure.
	dir, err := os.MkdirTemp("", "gitops-test-")
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		(&world{dir: dir}).killKeepers() // they would go on asking a Redis that has gone
		_ = os.RemoveAll(dir)
	})
	w := &world{t: t, dir: dir, redis: server, keys: server.Client(t), env: map[string]string{
		"PATH":                os.Getenv("PATH"),
		"HOME":                filepath.Join(dir, "home"),
		"GIT_CONFIG_GLOBAL":   filepath.Join(dir, "gitconfig"),
		"GIT_CONFIG_NOSYSTEM": "1",
		"GIT_TERMINAL_PROMPT": "0",
		"GIT_AUTHOR_NAME":     "Pipeline",
		"GIT_AUTHOR_EMAIL":    "pipeline@example.com",
		"GIT_AUTHOR_DATE":     "2026-01-02T03:04:05Z",
		"GIT_COMMITTER_NAME":  "Pipeline",
		"GIT_COMMITTER_EMAIL": "pipeline@example.com",
		"GIT_COMMITTER_DATE":  "2026-01-02T03:04:05Z",
		"GITOPS_LOCK_SESSION": "workspace",
		"GITOPS_LOCK_TIMEOUT": "600",
		"REDIS_HOST":          server.Host,
		"REDIS_PORT":          server.Port,
		"LC_ALL":              "C",
		"GORACE":              gittest.RaceSettings,
	}}
	w.write("home/.profile", "")
	w.write("gitconfig", "[init]\n\tdefaultBranch = main\n[protocol \"file\"]\n\tallow = always\n[advice]\n\tdetachedHead = false\n\tstatusUoption = false\n")
	return w
}

// with is the same world with other settings: "NAME=value", or "NAME" to take one away.
func (w *world) with(settings ...string) *world {
	other := *w
	other.env = maps.Clone(w.env)
	for _, s := range settings {
		name, value, ok := strings.Cut(s, "=")
		if other.env[name] = value; !ok {
			delete(other.env, name)
		}
	}
	return &other
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *world) write(name, content string) string {
	w.t.Helper()
	path := w.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := gittest.WriteProgram(path, content); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *world) exists(name string) bool {
	_, err := os.Stat(w.path(name))
	return err == nil
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int // 128 + number when a signal ended it, as shells count
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d after %s\n--- stdout\n%s--- stderr\n%s", r.code, r.took, r.stdout, r.stderr)
}

// ours are our own lines of stderr, theirs all others.
func (r result) ours() string   { return splitLines(r.stderr, true) }
func (r result) theirs() string { return splitLines(r.stderr, false) }

func splitLines(text string, ours bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "gitops: ") == ours {
			b.WriteString(line)
		}
	}
	return b.String()
}

// buffer is written by a running process and read by the test meanwhile.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// process is a running command, in a process group of its own.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	started        time.Time
	stdout, stderr buffer
	done           chan struct{}
	err            error
	took           time.Duration
	rest           *exec.Cmd // keeps the number of a group that outlives its first process
}

// start runs words in a folder of the world.
func (w *world) start(dir string, words ...string) *process {
	w.t.Helper()
	path, err := exec.LookPath(words[0])
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(path, words[1:]...)
	cmd.Dir = w.path(dir)
	for _, name := range slices.Sorted(maps.Keys(w.env)) {
		cmd.Env = append(cmd.Env, name+"="+w.env[name])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{t: w.t, cmd: cmd, started: time.Now(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	// A background process that holds the pipe must not hang the test: it fails below instead.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		p.took = time.Since(p.started)
		p.rest = keepGroup(cmd.Process.Pid)
		close(p.done)
	}()
	w.t.Cleanup(p.end)
	return p
}

// keepGroup has a process join a group, if that is not empty, so that its number stays its own. A
// number that is free again is another test's in a few minutes, after which it must not be killed.
func keepGroup(pid int) *exec.Cmd {
	if syscall.Kill(-pid, 0) != nil {
		return nil
	}
	cmd := exec.Command("sleep", "3600")
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: pid}
	if cmd.Start() != nil { // the last one has just ended
		return nil
	}
	return cmd
}

// end kills what is left of the group.
func (p *process) end() {
	group := -p.cmd.Process.Pid
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(group, syscall.SIGKILL)
		<-p.done
	}
	if p.rest != nil {
		_ = syscall.Kill(group, syscall.SIGKILL)
		_ = p.rest.Wait()
	}
}

// signal sends to the whole process group, as a terminal does.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) wait() result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(12 * time.Minute):
		p.t.Fatalf("%v still runs after 12 min\n%s%s", p.cmd.Args, &p.stdout, &p.stderr)
	}
	r := result{stdout: p.stdout.String(), stderr: p.stderr.String(), took: p.took}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatalf("%v: %v", p.cmd.Args, p.err)
	}
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.code = 128 + int(ws.Signal())
	} else {
		r.code = p.cmd.ProcessState.ExitCode()
	}
	return r
}

// run is start and wait.
func (w *world) run(dir string, words ...string) result {
	w.t.Helper()
	return w.start(dir, words...).wait()
}

// bash runs a script, in a process that is no part of the next step's: bash would let its last
// command take its place, and that would then be a child of this test, as all the others, and share
// their locks.
func (w *world) bash(dir, script string, args ...string) result {
	w.t.Helper()
	return w.run(dir, append([]string{"bash", "-c", script + "\nexit $?", "bash"}, args...)...)
}

// patient runs a command that makes its first contact with Redis, again when that was too slow on a
// busy machine. With words, a command that says them all on stderr has done what is wanted of it.
func (w *world) patient(command string, words ...string) result {
	w.t.Helper()
	return patiently(func() result { return w.bash(".", command) }, words...)
}

func patiently(run func() result, words ...string) (r result) {
	for range 10 {
		r = run()
		if len(words) > 0 && containsAll(r.stderr, words) || !tooSlow(r) {
			break
		}
	}
	return r
}

// tooSlow reports whether a server, one of a Cluster, or a sentinel did not answer in time.
func tooSlow(r result) bool {
	return slices.ContainsFunc([]string{"no answer in time", "deadline exceeded", "i/o timeout"}, func(word string) bool {
		return strings.Contains(r.stdout+r.stderr, word)
	})
}

func containsAll(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}

// must runs a script that has to succeed, and returns its stdout without the last line break.
func (w *world) must(dir, script string, args ...string) string {
	w.t.Helper()
	r := w.bash(dir, script, args...)
	if r.code != 0 {
		w.t.Fatalf("%s: %s", script, r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// seed makes a bare repository with one commit on main, in which the file counter says 0.
func (w *world) seed(bare string) string {
	w.t.Helper()
	w.must(".", `git init -q --bare "$1" && git -C "$1" fast-import --quiet <<-end
		commit refs/heads/main
		committer Pipeline <pipeline@example.com> 1767323045 +0000
		data 5
		seed

		M 100644 inline counter
		data 2
		0
	end`, w.path(bare))
	return w.path(bare)
}

// locks are the keys of the locks that are held, sorted.
func (w *world) locks() []string { return w.scan("gitops:lock:*") }

func (w *world) scan(pattern string) []string {
	w.t.Helper()
	keys, err := w.keys.Keys(w.t.Context(), pattern).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

// queued is how many wait, over all locks.
func (w *world) queued() int {
	w.t.Helper()
	n := 0
	for _, key := range w.scan("gitops:queue:*") {
		c, err := w.keys.ZCard(w.t.Context(), key).Result()
		if err != nil {
			w.t.Fatal(err)
		}
		n += int(c)
	}
	return n
}

func (w *world) wantLocks(want ...string) {
	w.t.Helper()
	slices.Sort(want)
	if got := w.locks(); !slices.Equal(got, want) {
		w.t.Fatalf("locks held: %q, want %q", got, want)
	}
}

// until waits for a condition.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	gittest.Until(w.t, what, ok)
}

// lockKey is the Redis key of a branch's lock; repo is a URL without scheme and user, or a path.
func lockKey(repo, branch string) string {
	return "gitops:lock:{" + strings.TrimSuffix(repo, ".git") + "@" + branch + "}"
}

func wantCode(t *testing.T, r result, code int) {
	t.Helper()
	if r.code != code {
		t.Fatalf("want exit code %d, got %s", code, r)
	}
}

func wantText(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Fatalf("no %q in:\n%s", word, text)
		}
	}
}
