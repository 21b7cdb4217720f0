//go:build unix

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPlainNeighbour: a script that locks with SET NX EX and git-gitops exclude each other through
// GITOPS_LOCK_KEY.
func TestPlainNeighbour(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w = w.with("GITOPS_LOCK_KEY=lock.gitops-cp4d-service.acct1.cluster1.inst1", "GITOPS_CLONE_AHEAD=false")
	const set = `redis-cli -p $REDIS_PORT SET "$GITOPS_LOCK_KEY" 6ba7b810-9dad-11d1 NX EX 300`

	// Theirs makes ours wait, and is named as a stranger's.
	if got := w.must(".", set); got != "OK" {
		t.Fatalf("SET: %q", got)
	}
	clone := w.start(".", "bash", "-c", "git gitops clone remote.git work; exit $?")
	w.until("clone waits", func() bool { return w.queued() == 1 })
	w.until("clone says so", func() bool { return strings.Contains(clone.stderr.String(), "unknown holder") })
	wantText(t, clone.stderr.String(), w.env["GITOPS_LOCK_KEY"], "expires in")
	if w.exists("work") {
		t.Error("it has cloned already")
	}
	locks := w.must(".", "git gitops locks")
	wantText(t, locks, w.env["GITOPS_LOCK_KEY"], "unknown")

	// Their release is a compare and delete.
	w.must(".", `redis-cli -p $REDIS_PORT EVAL "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end" 1 "$GITOPS_LOCK_KEY" 6ba7b810-9dad-11d1`)
	wantCode(t, clone.wait(), 0)

	// Ours makes theirs fail, expires like theirs, and is theirs after the push.
	if got := w.must(".", set); got != "" {
		t.Errorf("SET while we hold the lock: %q", got)
	}
	if ttl := w.keys.TTL(t.Context(), w.env["GITOPS_LOCK_KEY"]).Val(); ttl <= 0 || ttl > 300*time.Second {
		t.Errorf("our key expires in %s", ttl)
	}
	w.must("work", "git commit -q --allow-empty -m one && git gitops push -q")
	if got := w.must(".", set); got != "OK" {
		t.Errorf("SET after our push: %q", got)
	}
	r := w.bash("work", "git commit -q --allow-empty -m two && GITOPS_LOCK_TIMEOUT=0 git gitops push")
	wantCode(t, r, 75)
	wantText(t, r.ours(), "unknown holder")
}

// TestPlainNeighbour_expires: the lock of a foreign script that died is free when it expires.
func TestPlainNeighbour_expires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w = w.with("GITOPS_LOCK_KEY=lock.x")
	w.must(".", "redis-cli -p $REDIS_PORT SET lock.x v NX PX 700")
	wantCode(t, w.bash(".", "git gitops clone -q remote.git work"), 0)
}

// TestConfiguration_wrong: a setting that is missing or wrong stops clone and push with exit code
// 78, and is named.
func TestConfiguration_wrong(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-in-a-url"
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git clone -q remote.git work && git -C work commit -q --allow-empty -m one")
	for _, tc := range []struct {
		settings string // separated by blanks
		words    string // in our lines, separated by blanks
	}{
		{"REDIS_HOST", "REDIS_HOST"},
		{"REDIS_PORT=http", "REDIS_PORT http"},
		{"REDIS_PORT=0", "REDIS_PORT"},
		{"REDIS_PORT=70000", "REDIS_PORT 70000"},
		{"REDIS_DB=-1", "REDIS_DB"},
		{"REDIS_TLS=perhaps", "REDIS_TLS perhaps"},
		{"REDIS_TLS=true REDIS_TLS_CA_CERT_B64=!!!", "REDIS_TLS_CA_CERT_B64"},
		{"REDIS_TLS=true REDIS_TLS_CA_CERT=/no/such/file.pem", "REDIS_TLS_CA_CERT /no/such/file.pem"},
		{"REDIS_PASSWORD_FILE=/no/such/file", "REDIS_PASSWORD_FILE"},
		{"REDIS_HOST REDIS_PORT REDIS_URL=http://u:" + secret + "@h", "REDIS_URL"},
		{"REDIS_HOST REDIS_PORT REDIS_URL=redis://u:" + secret + "@h:port", "REDIS_URL"},
		{"GITOPS_LOCK_TTL=soon", "GITOPS_LOCK_TTL soon"},
		{"GITOPS_LOCK_TTL=1", "GITOPS_LOCK_TTL"},
		{"GITOPS_LOCK_TIMEOUT=-1", "GITOPS_LOCK_TIMEOUT"},
		{"GITOPS_LOCK_TIMEOUT GITOPS_LOCK_RETRY_MAX=many", "GITOPS_LOCK_RETRY_MAX many"},
		{"GITOPS_LOCK_TIMEOUT GITOPS_LOCK_RETRY_DELAY=x", "GITOPS_LOCK_RETRY_DELAY"},
		{"GITOPS_LOCK_NAME=a GITOPS_LOCK_KEY=b", "GITOPS_LOCK_NAME GITOPS_LOCK_KEY"},
		{"GITOPS_LOCK_SESSION=nobody", "GITOPS_LOCK_SESSION nobody"},
		{"GITOPS_USE_REDIS_LOCKING=false", "GITOPS_USE_REDIS_LOCKING"},
		{"GITOPS_USE_REDIS_LOCKING=maybe", "GITOPS_USE_REDIS_LOCKING maybe"},
		{"REDIS_PORT=x GITOPS_LOCK_TTL=y", "REDIS_PORT GITOPS_LOCK_TTL"}, // both at once
	} {
		t.Run(tc.settings, func(t *testing.T) {
			w := w.with(strings.Fields(tc.settings)...)
			w.t = t
			for _, command := range []string{"git gitops clone remote.git new", "git gitops -C work push", "git gitops -C work lock"} {
				r := w.bash(".", command)
				wantCode(t, r, 78)
				wantText(t, r.ours(), strings.Fields(tc.words)...)
				if r.theirs() != "" || r.stdout != "" {
					t.Errorf("more than our lines: %s", r)
				}
				if strings.Contains(r.stderr, secret) {
					t.Errorf("the password is in: %s", r)
				}
			}
			// What is not ours to guard does not read the settings.
			w.must("work", "git gitops status && git gitops fetch -q")
		})
	}
	if w.exists("new") || w.must("remote.git", "git rev-list --count main") != "1" {
		t.Error("something was cloned or pushed")
	}
	w.with("GITOPS_USE_REDIS_LOCKING=true").must("work", "git gitops push -q")
}

// TestConfiguration_fromGit: settings in git config work as those in the environment, which come
// first.
func TestConfiguration_fromGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must(".", `git config -f "$GIT_CONFIG_GLOBAL" gitops.redisHost 127.0.0.1 && git config -f "$GIT_CONFIG_GLOBAL" gitops.redisPort $REDIS_PORT`)
	w.with("REDIS_HOST", "REDIS_PORT").must(".", "git gitops clone -q remote.git one")
	w.wantLocks(lockKey(remote, "main"))
	w.must("one", "git gitops unlock")
	wantCode(t, w.with("REDIS_PORT=1").bash(".", "git gitops clone -q remote.git two"), 69)
	w.with("REDIS_HOST", "REDIS_PORT").must(".", "git gitops -c gitops.lockName=svc clone -q remote.git three")
	w.wantLocks("gitops:lock:{" + w.path("remote") + "@main:svc}")
}

// TestLock_byHand: a lock that was taken by hand is listed, excludes others, survives pushes, and
// ends with unlock.
func TestLock_byHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	main := lockKey(remote, "main")
	w.must(".", "git clone -q remote.git work && git clone -q remote.git other")
	r := w.bash("work", "git gitops lock")
	wantCode(t, r, 0)
	wantText(t, r.ours(), w.path("remote")+"@main", "git gitops unlock")
	if r.stdout != "" {
		t.Errorf("stdout: %q", r.stdout)
	}
	w.wantLocks(main)
	w.must("work", "git gitops lock") // once more is the same lock
	w.wantLocks(main)

	list := w.bash(".", "git gitops locks")
	wantCode(t, list, 0)
	wantText(t, list.stdout, "LOCK", "HOLDER", w.path("remote")+"@main")
	if list.stderr != "" {
		t.Errorf("stderr: %s", list.stderr)
	}
	other := w.with("GITOPS_LOCK_TIMEOUT=0")
	wantCode(t, other.bash("other", "git gitops lock"), 75)
	wantCode(t, other.bash("other", "git commit -q --allow-empty -m x && git gitops push"), 75)
	wantCode(t, other.bash(".", "git gitops clone remote.git third"), 75)
	wantText(t, other.bash("other", "git gitops unlock").ours(), "nothing to unlock")
	w.wantLocks(main)

	w.must("work", "git commit -q --allow-empty -m one && git gitops push -q && git commit -q --allow-empty -m two && git gitops push -q origin main")
	w.wantLocks(main)
	next := w.start("other", "bash", "-c", "git gitops lock; exit $?")
	w.until("the next waits", func() bool { return w.queued() == 1 })
	wantText(t, w.must(".", "git gitops locks"), "1")
	r = w.bash("work", "git gitops unlock")
	wantCode(t, r, 0)
	wantText(t, r.ours(), "handed it to the next")
	wantCode(t, next.wait(), 0)
	w.must("other", "git gitops unlock --all")
	w.wantLocks()
	wantText(t, w.bash("work", "git gitops unlock").ours(), "nothing to unlock")

	// Outside of a repository, by name.
	w.must(".", fmt.Sprintf("git gitops lock --repo %s --branch prod && git gitops locks", remote))
	w.wantLocks(lockKey(remote, "prod"))
	w.must(".", fmt.Sprintf("git gitops unlock --repo %s -b prod", remote))
	w.wantLocks()
	wantCode(t, w.bash(".", "git gitops lock"), 129)
	wantCode(t, w.bash("work", "git gitops lock --no-such-flag"), 129)
	wantCode(t, w.bash("work", "git gitops lock extra"), 129)
	wantCode(t, w.with("REDIS_PORT=1").bash("work", "git gitops lock"), 69)
	wantCode(t, w.with("REDIS_PORT=1").bash("work", "git gitops locks"), 69)
}

// TestHelp: --version prints git's line and then one of git-gitops; help lists the commands;
// neither needs Redis.
func TestHelp(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("REDIS_HOST", "REDIS_PORT")
	version := w.must(".", "git gitops --version")
	if want := w.must(".", "git --version") + "\ngit-gitops version "; !strings.HasPrefix(version, want) || strings.Count(version, "\n") != 1 {
		t.Errorf("--version: %q", version)
	}
	for _, words := range []string{"-h", ""} {
		r := w.bash(".", "git gitops "+words)
		wantCode(t, r, 0)
		wantText(t, r.stdout+r.stderr, "git gitops clone", "git gitops push", "lock", "unlock", "locks", "REDIS_HOST")
	}
	for _, verb := range []string{"lock", "unlock", "locks"} {
		r := w.bash(".", "git gitops "+verb+" -h")
		wantCode(t, r, 0)
		wantText(t, r.stdout, "git gitops "+verb)
	}
}
