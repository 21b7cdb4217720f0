//go:build unix

package main

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
)

// seen makes what changes from run to run the same: times, ids, users and pids.
func (w *world) seen(text string) string {
	for _, r := range [][2]string{
		{regexp.QuoteMeta(w.dir), "DIR"},
		{`\b1[78][0-9]{14}\b`, "FENCE"},
		{`[^\s"]+@[^\s"]+ \((clone|push|unlock --force)(, pid [0-9]+)?\)`, "WHO ($1)"},
		{`20[0-9-]+T[0-9:.]+Z`, "TIME"},
		{`\b[0-9.]+(ms|s|m[0-9]+s|m)\b`, "AGE"},
		{` +`, " "},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}

// TestBroken is the story of a lock that an operator breaks, end to end between two pipelines:
// found in the list, broken by the ID that was seen, handed to the next in line. Its owner learns
// who broke it, when and why, once, and can go on.
func TestBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITHUB_ACTIONS=true", "GITHUB_SERVER_URL=https://github.com", "GITHUB_REPOSITORY=org/app",
		"GITHUB_RUN_ID=42", "GITHUB_WORKFLOW=deploy", "GITHUB_JOB=prod", "GITOPS_PURPOSE=release 7")
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git stuck")
	next := w.start(".", "bash", "-c", "git gitops clone -q remote.git next && cd next && echo 1 >counter && git commit -qam next && git gitops push -q; exit $?")
	w.until("somebody waits", func() bool { return w.queued() == 1 })

	want := "LOCK HOLDER HELD EXPIRES ID WAITING\nDIR/remote@main WHO (clone) AGE AGE FENCE 1"
	if got := w.seen(w.must(".", "git gitops locks")); got != want {
		t.Errorf("locks: got\n%s\nwant\n%s", got, want)
	}
	show := w.seen(w.must(".", `git gitops locks show "$1"`, w.path("remote")))
	wantText(t, show, "lock DIR/remote@main", "key gitops:lock:{DIR/remote@main}", "job deploy / prod",
		"run https://github.com/org/app/actions/runs/42", "purpose release 7", "break it git gitops unlock --force FENCE", "position 1 WHO (clone)")

	var lock struct {
		Key, Repo, Branch string
		Holder            struct {
			ID, Job, Purpose, RunURL string
			Known                    bool
			Expires                  float64 `json:"expires_in_seconds"`
		}
		Waiters []struct {
			Position int
			Alive    bool
		}
	}
	if err := json.Unmarshal([]byte(w.must(".", "git gitops locks --json")), &lock); err != nil {
		t.Fatal(err)
	}
	if lock.Repo != w.path("remote") || lock.Branch != "main" || !lock.Holder.Known || lock.Holder.Purpose != "release 7" ||
		lock.Holder.Expires <= 0 || len(lock.Waiters) != 1 || lock.Waiters[0].Position != 1 || !lock.Waiters[0].Alive {
		t.Errorf("got %+v", lock)
	}

	wrong := w.bash(".", "git gitops unlock --force 1")
	wantCode(t, wrong, 1)
	wantText(t, wrong.stderr, "no lock is held with the ID 1", "git gitops locks")
	broke := w.bash(".", `git gitops unlock --force "$1" --reason "stuck since noon"`, lock.Holder.ID)
	wantCode(t, broke, 0)
	wantText(t, w.seen(broke.stderr), "broke the lock on DIR/remote@main of WHO (clone), and handed it to the next waiter")
	wantCode(t, w.bash(".", `git gitops unlock --force "$1"`, lock.Holder.ID), 1) // that hold, and no later one
	wantCode(t, next.wait(), 0)

	w.must("stuck", "echo 9 >counter; git commit -qam stuck")
	broken := w.bash("stuck", "git gitops push -q")
	wantCode(t, broken, 73)
	wantText(t, broken.stderr, "it was broken by ", ": stuck since noon", "git gitops events")
	moved := w.bash("stuck", "git gitops push -q")
	wantCode(t, moved, 73) // it was said once; now it is about the branch
	wantText(t, moved.stderr, "branch main moved")
	w.must("stuck", "git gitops unlock --all")
	w.wantLocks()

	var types []string
	for _, line := range strings.Split(w.must(".", "git gitops events --json"), "\n") {
		var e struct{ Type, By, Reason, Who string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if types = append(types, e.Type); e.Type == "broken" && (e.Reason != "stuck since noon" || !strings.Contains(e.By, "unlock --force")) {
			t.Errorf("got %+v", e)
		}
	}
	if got := strings.Join(types, " "); !strings.HasPrefix(got, "acquired broken handed_over acquired released acquired") {
		t.Errorf("events: %s", got)
	}
	stats := w.must(".", "git gitops stats")
	wantText(t, w.seen(stats), "LOCK ACQUIRED WAIT P50 P95 MAX HOLD P50 P95 MAX FAILURES SKIPPED FREEZES LONGEST QUEUE BATCHES LARGEST PUSHES SAVED\nDIR/remote@main 3 ")
	if w.must(".", "git gitops events nothing-like-that; git gitops locks nothing-like-that --json; git gitops stats --json nothing-like-that") != "" {
		t.Error("a pattern that matches nothing lists something")
	}
}

// TestLocks_names: every list calls a lock by the same name, and a part of it finds the lock where
// only one has it.
func TestLocks_names(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("alpha.git")
	w.seed("alphabet.git")
	w.must(".", "git gitops clone -q alpha.git a && git gitops clone -q alphabet.git b")
	w.must(".", "GITOPS_LOCK_KEY=app:lock git gitops lock --repo alpha.git --branch main")

	alpha, alphabet := w.path("alpha")+"@main", w.path("alphabet")+"@main"
	for _, list := range []string{"locks", "events", "stats"} {
		text := w.must(".", "git gitops "+list)
		wantText(t, text, alpha+" ", alphabet+" ", "app:lock ")
		if strings.Contains(text, "gitops:lock:") {
			t.Errorf("%s shows a key:\n%s", list, text)
		}
	}
	if got := w.must(".", "git gitops events --json bet@ | head -n 1"); !strings.Contains(got, `"key":"gitops:lock:{`+alphabet+`}"`) {
		t.Errorf("got %s", got)
	}
	wantText(t, w.must(".", "git gitops locks show bet@main"), alphabet)
	wantText(t, w.must(".", "git gitops locks show app"), "app:lock")
	several := w.bash(".", "git gitops locks show alpha")
	wantCode(t, several, 1)
	wantText(t, several.stderr, `"alpha" matches several locks: `+alpha+", "+alphabet, "name one of them")
	none := w.bash(".", "git gitops locks show beta")
	wantCode(t, none, 1)
	wantText(t, none.stderr, `no lock "beta" is held, waited for or frozen`)
}

// TestHostile: what others wrote into Redis is printed without effect on a terminal, and within
// bounds.
func TestHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	evil := "\x1b]0;owned\x07\x1b[2J\u202Egnp.exe\x00\xff\xfe\r\n" + strings.Repeat("A", 1<<20)
	record, err := json.Marshal(map[string]any{"user": evil, "host": evil, "command": evil, "purpose": evil, "run_url": evil, "job": evil, "repo": evil})
	if err != nil {
		t.Fatal(err)
	}
	key := "gitops:lock:{example.com/org/repo@main}"
	meta := "gitops:meta:{example.com/org/repo@main}"
	w.keys.Set(ctx, key, "token", time.Hour)
	w.keys.HSet(ctx, meta, "owner", "token", "fence", "7", "since", "1", "record", record, "key", key)
	w.keys.ZAdd(ctx, "gitops:queue:{example.com/org/repo@main}")
	w.keys.Do(ctx, "zadd", "gitops:queue:{example.com/org/repo@main}", "1", "w1")
	w.keys.HSet(ctx, "gitops:waiters:{example.com/org/repo@main}", "w1", strconv.FormatInt(time.Now().Add(time.Hour).UnixMicro(), 10)+" "+string(record))
	w.keys.Do(ctx, "xadd", "gitops:events:{example.com/org/repo@main}", "*", "type", evil[:40], "who", evil, "lock", evil, "reason", evil)
	w.keys.Set(ctx, "gitops:lock:{"+evil[:60]+"@x}", evil[:100], time.Hour)

	for _, words := range []string{"locks", "locks show example.com/org/repo@main", "locks --json", "events", "events --json", "stats", "metrics", "unlock --force 1"} {
		r := w.bash(".", "git gitops "+words)
		for _, c := range r.stdout + r.stderr {
			if c != '\n' && (unicode.IsControl(c) || unicode.Is(unicode.Cf, c)) {
				t.Errorf("%s prints %q", words, c)
				break
			}
		}
		if n := len(r.stdout); n > 100_000 {
			t.Errorf("%s prints %d bytes", words, n)
		}
	}
}

// TestWaiting_terminal: on a terminal the wait is one line that is rewritten; --watch repaints in
// place.
func TestWaiting_terminal(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal("python3 is missing: make test installs it")
	}
	w := newWorld(t).with("TERM=xterm")
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git first")

	w.write("script", "git gitops clone remote.git second; exit $?\n")
	p := w.onTerminal("bash", "script")
	w.until("the line is rewritten", func() bool {
		return strings.Count(p.stdout.String(), "\r\x1b[Kgitops: waiting for the lock on") >= 3
	})
	w.must("first", "git commit -q --allow-empty -m x && git gitops push -q")
	r := p.wait()
	wantCode(t, r, 0)
	wantText(t, r.stdout, "got the lock on")
	if strings.Contains(r.stdout, "waited 0s\r\n") {
		t.Errorf("a line of the wait was left behind: %q", r.stdout)
	}

	v := w.with()
	w.must(".", "rm keys")
	watch := v.onTerminal("git", "gitops", "locks", "--watch")
	v.until("it was painted again", func() bool { return strings.Count(watch.stdout.String(), "\x1b[H\x1b[J") >= 2 })
	watch.signal(syscall.SIGTERM)
	watch.wait()
}

// TestLog: which messages each level logs, and how.
func TestLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	r := w.with("GITOPS_LOG=debug", "GITOPS_LOG_FORMAT=json").bash(".", "git gitops clone -q remote.git a")
	wantCode(t, r, 0)
	var line struct {
		Time           time.Time
		Level, Message string
	}
	if err := json.Unmarshal([]byte(strings.SplitN(r.stderr, "\n", 2)[0]), &line); err != nil || line.Level != "debug" || line.Time.IsZero() {
		t.Errorf("%v: %s", err, r.stderr)
	}
	wantText(t, line.Message, "has the lock on "+w.path("remote")+"@main")
	second := w.with("GITOPS_LOG=error", "GITOPS_LOCK_TIMEOUT=0").bash(".", "git gitops clone remote.git b")
	wantCode(t, second, 75)
	if !strings.HasPrefix(second.stderr, "gitops: error: ") {
		t.Errorf("not only errors: %s", second.stderr)
	}
	w.redis.Stop()
	insecure := w.with("REDIS_TLS=true", "REDIS_TLS_INSECURE=true", "GITOPS_LOG_FORMAT=json")
	for line := range strings.Lines(insecure.bash(".", "git gitops locks").stderr) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

// TestEvents_follow: --follow prints each event once, until Ctrl-C.
func TestEvents_follow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git a && git -C a commit -q --allow-empty -m x && git gitops -C a push -q")
	p := w.start(".", "git", "gitops", "events", "--follow", "--since", "1h")
	w.until("it prints the past", func() bool { return strings.Contains(p.stdout.String(), " released ") })
	w.must("a", "git commit -q --allow-empty -m y && git gitops push -q")
	w.until("it prints the present", func() bool { return strings.Count(p.stdout.String(), " released ") == 2 })
	p.signal(syscall.SIGINT)
	wantCode(t, p.wait(), 130)
	if n := strings.Count(p.stdout.String(), " acquired "); n != 2 {
		t.Errorf("%d acquired, want each of the 2 once:\n%s", n, p.stdout.String())
	}
}

// TestWaiting_scriptKilled: when a script is killed while its clone waits, its place in the queue
// is given up.
func TestWaiting_scriptKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git first")
	p := w.with("GITOPS_LOCK_SESSION").start(".", "bash", "-c", "git gitops clone -q remote.git second; exit $?")
	w.until("it waits", func() bool { return w.queued() == 1 })
	if err := p.cmd.Process.Kill(); err != nil { // the script alone, not what it started
		t.Fatal(err)
	}
	w.until("its ticket is given up", func() bool { return w.queued() == 0 })
	w.must("first", "git commit -q --allow-empty -m x && git gitops push -q")
	w.wantLocks()
	w.until("nothing is left of a clone", func() bool { return !w.exists("second") })
}

// TestOrphan: a command whose script has ended has no process whose end would free its lock, so no
// keeper renews it: the TTL ends it.
func TestOrphan(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_LOCK_SESSION", "GITOPS_LOCK_TTL="+leaseTTL.String())
	w.seed("remote.git")
	w.must(".", `setsid bash -c 'while kill -0 $0 2>/dev/null; do :; done; exec git gitops lock --repo "$1" --branch main' $$ "$PWD/remote.git" >/dev/null 2>&1 </dev/null &`)
	w.until("the orphan has it", func() bool { return len(w.locks()) == 1 })
	w.until("it expires", func() bool { return len(w.locks()) == 0 })
}

// TestBracket_amend: under a lock by hand, what was pushed can be amended and pushed again.
func TestBracket_amend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git a && cd a && git gitops lock && git commit -q --allow-empty -m one && git gitops push -q")
	w.must("a", "git commit -q --amend --allow-empty -m two && git gitops push -q -f && git gitops unlock")
	if got := w.must(".", "git -C remote.git log -1 --format=%s main"); got != "two" {
		t.Errorf("got %q", got)
	}
	w.wantLocks()
}
