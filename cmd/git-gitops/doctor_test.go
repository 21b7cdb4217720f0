//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// checkup is what doctor --json prints.
type checkup struct {
	OK     bool
	Checks []struct{ Name, Status, Detail, Do string }
}

// doctor runs git gitops doctor --json.
func (w *world) doctor(dir string) checkup {
	w.t.Helper()
	r := patiently(func() result { return w.bash(dir, "git gitops doctor --json") })
	var c checkup
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
		w.t.Fatalf("%v: %s", err, r)
	}
	want := 1
	if c.OK {
		want = 0
	}
	wantCode(w.t, r, want)
	return c
}

// want looks for a check of a name and status in which the words are.
func (c checkup) want(t *testing.T, name, status string, words ...string) {
	t.Helper()
	for _, one := range c.Checks {
		text := strings.ToLower(one.Detail + "\n" + one.Do)
		missing := slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, strings.ToLower(word)) })
		if one.Name == name && one.Status == status && !missing {
			return
		}
	}
	t.Errorf("no %s %s with %q in %+v", status, name, words, c.Checks)
}

// not wants no check of a status.
func (c checkup) not(t *testing.T, status string) {
	t.Helper()
	for _, one := range c.Checks {
		if one.Status == status {
			t.Errorf("unexpected: %+v", one)
		}
	}
}

// TestDoctor: all is well, in both forms, and nothing is left on Redis.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keys.ConfigSet(t.Context(), "appendonly", "yes")
	remote := w.seed("remote.git")
	w.must(".", "git clone -q remote.git work && git config -f $GIT_CONFIG_GLOBAL gitops.lockTTL 60")
	w = w.with("GITOPS_PURPOSE=nightly bump")

	r := w.bash("work", "git gitops doctor")
	wantCode(t, r, 0)
	if r.stderr != "" {
		t.Errorf("stderr: %s", r.stderr)
	}
	var names []string
	for line := range strings.Lines(r.stdout) {
		fields := strings.Fields(line)
		if fields[0] != "ok" {
			t.Errorf("unexpected: %s", line)
		}
		names = append(names, fields[1])
	}
	want := strings.Fields("gitops git setting setting setting setting setting setting settings redis tls user latency clock" +
		" version role replicas persistence eviction permissions presence repository lock keeper hook legacy shim session")
	if !slices.Equal(names, want) {
		t.Errorf("checks: %q", names)
	}
	wantText(t, r.stdout, "ok    setting      GITOPS_LOCK_TTL is 60 (git config gitops.lockttl, global)\n",
		"ok    setting      GITOPS_PURPOSE is nightly bump (environment)\n", "ok    tls          none\n", "of 50 pings\n",
		"ok    repository   "+strings.TrimSuffix(remote, ".git")+" (remote origin)\n", "ok    lock         "+lockKey(remote, "main")+", free\n")
	if keys := w.scan("*"); len(keys) > 0 {
		t.Errorf("left on Redis: %q", keys)
	}
	w.doctor("work").not(t, "fail")
	w.doctor(".").want(t, "repository", "ok", "none here")
	wantCode(t, w.bash(".", "git gitops doctor extra"), 129)
	wantCode(t, w.bash(".", "git gitops doctor --acl 'a b'"), 129)
}

// TestDoctor_clone: what is to be said about a clone, its locks and its remote.
func TestDoctor_clone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must("remote.git", "git branch lock.svc.inst && git branch \"lock.it's\" && git branch feature/lock.x && git branch clock.x")
	w.must(".", "git gitops clone -q remote.git work && git -C work gitops install 2>/dev/null")
	w = w.with("GITOPS_LOCK_TIMOUT=5")

	c := w.doctor("work")
	c.not(t, "fail")
	c.want(t, "lock", "ok", lockKey(remote, "main"), "held by", "clone")
	c.want(t, "keeper", "ok", "has held the lock on "+w.path("remote")+"@main since", "(by clone), renewed by process")
	c.want(t, "hook", "ok", "is guarded", "work/.git/hooks")
	c.want(t, "unknown", "warn", "GITOPS_LOCK_TIMOUT")
	c.want(t, "session", "ok", "none")
	c.want(t, "legacy", "warn", "2 branches", `git push --delete origin 'lock.it'\''s' lock.svc.inst`)
	w.must("work", `git push --delete origin 'lock.it'\''s' lock.svc.inst 2>/dev/null`)
	w.doctor("work").want(t, "legacy", "ok")

	// Its keeper was killed.
	w.must("work", `kill -9 $(sed -n 's/.*"pid": *\([0-9]*\),/\1/p' .git/gitops/*.json | tail -1)`)
	w.until("the keeper is dead", func() bool {
		return slices.ContainsFunc(w.doctor("work").Checks, func(c struct{ Name, Status, Detail, Do string }) bool {
			return c.Name == "keeper" && c.Status == "warn"
		})
	})
	w.doctor("work").want(t, "keeper", "warn", ", but nobody renews it, expires in", "git gitops unlock")
	w.keys.Set(t.Context(), lockKey(remote, "main"), "somebody else's", time.Minute)
	w.doctor("work").want(t, "keeper", "warn", "no longer holds the lock")
	w.doctor("work").want(t, "lock", "ok", "unknown holder")

	w.with("GITOPS_LOCK_SESSION").doctor("work").want(t, "session", "ok", "a lock ends with process", "bash")
	w.must(".", "mkdir bin && $(command -v git-gitops) install --shim bin >/dev/null")
	w.with("PATH="+w.path("bin")+":"+w.env["PATH"]).doctor("work").want(t, "shim", "ok", "the git-gitops link in "+w.path("bin"))
	w.must("work", "git remote set-url origin "+w.path("gone.git"))
	w.doctor("work").want(t, "legacy", "warn", "cannot read")
	w.must("work", "git remote remove origin")
	w.doctor("work").want(t, "repository", "ok", "no remote")
}

// TestDoctor_orphan: doctor does not promise that a lock is held for long when no process is there
// whose end would free it.
func TestDoctor_orphan(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_LOCK_SESSION")
	w.must(".", `setsid bash -c 'while kill -0 $0 2>/dev/null; do :; done; exec git gitops doctor --json' $$ >found 2>/dev/null </dev/null &`)
	var c checkup
	w.until("the orphan has looked", func() bool { return json.Unmarshal([]byte(w.read("found")), &c) == nil })
	c.want(t, "session", "warn", "GITOPS_LOCK_TTL", "GITOPS_LOCK_SESSION")
}

// TestDoctor_brokenConfiguration: wrong settings do not keep doctor from looking at everything
// else.
func TestDoctor_brokenConfiguration(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git clone -q remote.git work")
	for _, dir := range []string{"work", "."} {
		c := w.with("REDIS_PORT=x", "GITOPS_LOCK_TTL=soon", "REDIS_PASSWORD="+secret).doctor(dir)
		c.want(t, "settings", "fail", "REDIS_PORT", "x")
		c.want(t, "settings", "fail", "GITOPS_LOCK_TTL", "soon")
		c.want(t, "setting", "ok", "REDIS_PASSWORD is set (environment)")
		c.want(t, "repository", "ok")
		c.want(t, "keeper", "ok")
		c.want(t, "git", "ok")
		if strings.Contains(fmt.Sprint(c), secret) {
			t.Errorf("the password is in %v", c)
		}
	}
	w.with("REDIS_HOST").doctor(".").want(t, "settings", "fail", "REDIS_HOST is not set")
	w.with("GITOPS_LOCK_SESSION=4194399").doctor(".").want(t, "session", "fail", "no such process")
	w.write("gitconfig", "[broken")
	r := w.bash(".", "git-gitops doctor") // git itself would not get as far
	wantCode(t, r, 1)
	wantText(t, r.stdout, "fail  settings", "git cannot read its configuration", "ok    session")
}

// TestDoctor_server: what a server says about itself, and what it will not say.
func TestDoctor_server(t *testing.T) {
	t.Parallel()
	down := newWorld(t)
	down.redis.Stop()
	c := down.doctor(".")
	c.want(t, "redis", "fail", "refused", "REDIS_HOST")
	c.want(t, "session", "ok")

	w := newWorld(t)
	w.doctor(".").want(t, "persistence", "warn", "none", "appendonly")
	w.doctor(".").want(t, "eviction", "ok", "noeviction (no memory limit is set)")
	w.keys.ConfigSet(t.Context(), "save", "3600 1")
	w.doctor(".").want(t, "persistence", "ok", "snapshots (save 3600 1)")
	w.keys.ConfigSet(t.Context(), "maxmemory", "100mb")
	for _, policy := range []string{"allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"} {
		w.keys.ConfigSet(t.Context(), "maxmemory-policy", policy)
		w.doctor(".").want(t, "eviction", "warn", policy+": a full server may drop held locks (the memory limit is 104857600 bytes)", "noeviction")
	}
	w.keys.ConfigSet(t.Context(), "maxmemory-policy", "noeviction")
	w.doctor(".").want(t, "eviction", "ok", "noeviction (the memory limit is 104857600 bytes)")

	unsaved := newWorld(t)
	if err := os.Mkdir(filepath.Join(unsaved.redis.Dir, "dump.rdb"), 0o700); err != nil { // so that a save fails
		t.Fatal(err)
	}
	unsaved.keys.ConfigSet(t.Context(), "save", "3600 1000000")
	unsaved.keys.BgSave(t.Context())
	unsaved.until("a save has failed", func() bool {
		return strings.Contains(unsaved.keys.Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
	})
	t.Cleanup(unsaved.redis.Kill) // it would not stop before it could save
	c = unsaved.doctor(".")
	c.want(t, "persistence", "warn", "snapshots (save 3600 1000000), of which the last failed", "free its disk")
	c.want(t, "permissions", "fail", "MISCONF", "free its disk")
	unsaved.keys.ConfigSet(t.Context(), "stop-writes-on-bgsave-error", "no")
	c = unsaved.doctor(".")
	c.want(t, "persistence", "warn", "of which the last failed")
	c.not(t, "fail")
	unsaved.keys.ConfigSet(t.Context(), "appendonly", "yes")
	unsaved.doctor(".").want(t, "persistence", "ok", "append-only file")
	w.with("GITOPS_REDIS_MIN_REPLICAS=1").doctor(".").want(t, "replicas", "fail", "GITOPS_REDIS_MIN_REPLICAS")
	w.with("REDIS_PASSWORD=wrong", "REDIS_USERNAME=nobody").doctor(".").want(t, "redis", "fail", "WRONGPASS", "REDIS_PASSWORD")

	w.keys.ConfigSet(t.Context(), "repl-diskless-sync-delay", "0")
	replica := redistest.Start(t, "--replicaof", w.redis.Host+" "+w.redis.Port)
	w.until("the replica is up", func() bool {
		return strings.Contains(w.must(".", "redis-cli -p "+replica.Port+" info replication"), "master_link_status:up")
	})
	c = w.with("REDIS_PORT=" + replica.Port).doctor(".")
	c.want(t, "role", "fail", "replica of 127.0.0.1:"+w.redis.Port)
	c.want(t, "permissions", "fail", "READONLY", "primary")
	w.doctor(".").want(t, "replicas", "ok", "1 connected; no lock waits for them", "GITOPS_REDIS_MIN_REPLICAS=1")
	w.with("GITOPS_REDIS_MIN_REPLICAS=1").doctor(".").want(t, "replicas", "ok", "1 connected")

	// Users who may do too little: the command or the key is named.
	for _, tc := range []struct{ rule, word string }{
		{"~* +@all -zadd", "zadd"},
		{"~* +@all -rpush", "rpush"},
		{"~* +@all -blpop", "blpop"},
		{"~* +@all -scan", "scan"},
		{"~gitops:lock:* +@all", "key"},
	} {
		args := []any{"ACL", "SETUSER", "low", "reset", "on", ">pw"}
		for word := range strings.FieldsSeq(tc.rule) {
			args = append(args, word)
		}
		if err := w.keys.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		c := w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw").doctor(".")
		c.want(t, "permissions", "fail", tc.word, "git gitops doctor --acl low")
		c.want(t, "user", "ok", "low")
	}
	// Presence is no condition for a lock.
	for _, less := range []string{"-subscribe", "resetchannels", "-pubsub", "-info"} {
		if err := w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "reset", "on", ">pw", "~*", "&*", "+@all", less).Err(); err != nil {
			t.Fatal(err)
		}
		c := w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw").doctor(".")
		c.want(t, "permissions", "ok", "allowed")
		c.want(t, "presence", "warn", "only by its TTL")
	}
}

func TestDoctor_tls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	certs := certificates(t) // for an hour
	ca := w.write("ca.pem", certs.pem)
	w = w.with("REDIS_TLS=true", "REDIS_PORT="+certs.serve(t), "REDIS_TLS_CA_CERT="+ca)
	c := w.doctor(".")
	c.want(t, "tls", "warn", "TLS 1.3, certificate of CN=server expires on", "(in 0 days)", "renew")
	c.not(t, "fail")
	c = w.with("REDIS_TLS_CA_CERT").doctor(".")
	c.want(t, "redis", "fail", "certificate", "REDIS_TLS_CA_CERT")
}

// TestDoctor_acl: the rule that doctor prints is enough for everything, and has nothing that is not
// needed.
func TestDoctor_acl(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	r := w.with("REDIS_HOST").bash(".", "git gitops doctor --acl pipeline")
	wantCode(t, r, 0)
	wantText(t, r.stdout, "ACL SETUSER pipeline on resetkeys ~gitops:* resetchannels &gitops:alive:* -@all +")
	wantText(t, r.ours(), "needs a password")
	page, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, string(page), "```text\n"+r.stdout+"```\n")
	wantText(t, w.with("GITOPS_LOCK_KEY=lock.a*b", "REDIS_DB=1", "GITOPS_REDIS_PREFIX=x").must(".", "git gitops doctor --acl u 2>/dev/null"),
		" ~x:* ", `"~lock.a\\*b"`, "+select")
	w.must(".", `git gitops doctor --acl pipeline 2>/dev/null | redis-cli -p $REDIS_PORT | grep -qx OK &&
		redis-cli -p $REDIS_PORT ACL SETUSER pipeline '>pw' | grep -qx OK`)

	// The whole life of locks as that user.
	w = w.with("REDIS_USERNAME=pipeline", "REDIS_PASSWORD=pw")
	w.keys.ConfigResetStat(t.Context())
	store := redisstore.Open(redisstore.Options{Addrs: []string{w.redis.Addr()}, Username: "pipeline", Password: "pw", Events: 100})
	t.Cleanup(func() { _ = store.Close() })
	if err := errors.Join(wholeLife(t, store), store.Probe(t.Context())); err != nil {
		t.Error(err)
	}
	w.must(".", "git gitops clone -q remote.git one")
	next := w.start(".", "bash", "-c", "git gitops clone -q remote.git two; exit $?")
	w.until("the next waits", func() bool { return w.queued() == 1 })
	w.must("one", "git commit -q --allow-empty -m one && git gitops push -q")
	wantCode(t, next.wait(), 0)
	wantText(t, w.must(".", "git gitops locks"), lockKey(remote, "main")[len("gitops:lock:{"):len(lockKey(remote, "main"))-1])
	wantText(t, w.must(".", "git gitops events"), "handed_over")
	wantText(t, w.must(".", "git gitops stats"), "@main")
	wantText(t, w.must(".", "git gitops metrics --once"), "gitops_redis_up 1\n")
	w.must(".", `git gitops unlock --force $(git gitops locks --json remote | sed 's/.*"id":"\([0-9]*\)".*/\1/')`)
	w.must("one", "git gitops run -- true && git gitops lock && git commit -q --allow-empty -m two && git gitops push -q && git gitops unlock")
	c := w.doctor("two")
	c.not(t, "fail")
	c.want(t, "presence", "ok", "counts who is connected")
	c.want(t, "persistence", "ok", "not allowed to look")

	wantUsed(t, w.keys, r.stdout)
}

// wantUsed wants every command that a rule allows to have been called.
func wantUsed(t *testing.T, admin *redis.Client, rule string) {
	t.Helper()
	called := map[string]bool{}
	for line := range strings.Lines(admin.Info(t.Context(), "commandstats").Val()) {
		name, calls, ok := strings.Cut(line, ":")
		if name, ours := strings.CutPrefix(name, "cmdstat_"); ok && ours && !strings.HasPrefix(calls, "calls=0,") {
			called[name] = true
		}
	}
	for word := range strings.FieldsSeq(rule) {
		if command, ok := strings.CutPrefix(word, "+"); ok && !called[command] {
			t.Errorf("%s is allowed, and nobody uses it: %q", command, slices.Sorted(maps.Keys(called)))
		}
	}
}

// wholeLife does with locks what the flows do.
func wholeLife(t *testing.T, s *redisstore.Store) error {
	ctx := t.Context()
	key := lock.Key{Repo: "example.com/org/repo", Branch: "main"}
	request := func() lock.Try {
		r := lock.Request{Key: key, Token: lock.NewToken(), TTL: time.Minute, Record: lock.Record{User: "u", Host: "h"}}
		return lock.Try{Request: r}
	}
	holder, waiter, sharer, late := request(), request(), request(), request()
	var errs []error
	try := func(w lock.Try) lock.Attempt {
		a, err := s.TryAcquire(ctx, w)
		errs = append(errs, err)
		return a
	}
	add := func(_ any, err error) { errs = append(errs, err) }
	try(holder)
	add(s.Join(ctx, sharer, lock.Holder{Token: holder.Token, Shares: []lock.Share{{Token: holder.Token}}}, lock.Decision{Action: lock.Join}))
	add(s.Renew(ctx, holder.Hold(), lock.RenewOptions{}))
	add(s.Release(ctx, key, sharer.Token))
	waiter.Ticket = try(waiter).Ticket
	errs = append(errs, s.Wait(ctx, key, waiter.Token, time.Millisecond), s.Block(ctx, holder.Token, lock.Blocked{}))
	_, _, err := s.Blocked(ctx, holder.Token)
	errs = append(errs, err)
	add(s.Release(ctx, key, holder.Token))
	errs = append(errs, s.Wait(ctx, key, waiter.Token, time.Minute))
	if a := try(waiter); !a.Granted {
		errs = append(errs, errors.New("not handed over"))
	}
	add(s.Join(ctx, late, lock.Holder{Token: waiter.Token}, lock.Decision{Action: lock.TakeOver}))
	try(holder) // ended: refused
	errs[len(errs)-1] = nil
	try(sharer)
	errs[len(errs)-1] = nil
	waiting := request()
	try(waiting)
	errs = append(errs, s.GiveUp(ctx, waiting.Request, lock.EventTimedOut), s.Note(ctx, key, "push_rejected", late.Record, "why"))
	lost := request() // a ticket of a server that lost its data since
	lost.Key.Branch, lost.Ticket, lost.HeldUntil = "other", 1, time.Now().Add(time.Minute)
	try(lost)
	add(s.Break(ctx, key, late.Token, late.Record, "test"))
	add(s.Inspect(ctx, key))
	add(s.List(ctx))
	add(s.Events(ctx, time.Now().Add(-time.Hour)))
	add(s.Now(ctx))
	return errors.Join(errs...)
}

// TestDoctor_aclCluster: the rule for a Cluster is enough there.
func TestDoctor_aclCluster(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes")
	admin := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = admin.Close() })
	if err := admin.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.until("the cluster is up", func() bool {
		return strings.Contains(admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	w = w.with("REDIS_HOST", "REDIS_PORT", "REDIS_CLUSTER_ADDRS="+server.Addr())
	rule := w.must(".", "git gitops doctor --acl pipeline 2>/dev/null")
	args := []any{}
	for word := range strings.FieldsSeq(rule) {
		args = append(args, word)
	}
	if err := admin.Do(t.Context(), append(args, ">pw")...).Err(); err != nil {
		t.Fatal(err)
	}
	w = w.with("REDIS_USERNAME=pipeline", "REDIS_PASSWORD=pw")
	c := w.doctor(".")
	c.not(t, "fail")
	c.want(t, "redis", "ok", server.Addr())
	c.want(t, "permissions", "ok")
	store := redisstore.Open(redisstore.Options{Addrs: []string{server.Addr()}, Username: "pipeline", Password: "pw", Events: 100, Cluster: true})
	t.Cleanup(func() { _ = store.Close() })
	if err := wholeLife(t, store); err != nil {
		t.Error(err)
	}
	wantUsed(t, admin, rule)
}
