//go:build unix

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

// TestDoctor_fence: in a server's repository, doctor looks at what the hook depends on.
func TestDoctor_fence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.doctor("remote.git").not(t, "fail")
	w.must("remote.git", "git config --add gitops.protect main && git config gitops.protectExempt GL_USERNAME=bot")
	c := w.doctor("remote.git")
	c.want(t, "server", "fail", "gitops.protect names main", "git gitops install --server")

	w.must("remote.git", "git gitops install --server")
	c = w.doctor("remote.git")
	c.not(t, "fail")
	c.want(t, "redis", "ok", "answers")
	c.want(t, "permissions", "ok", "the hook may read declarations")
	c.want(t, "server", "ok", "branches like main accept only", "hooks")
	c.want(t, "server", "warn", "gitops.lockRepo is not set", w.path("remote"))
	c.want(t, "server", "ok", "a push with GL_USERNAME=bot in the environment of the hook needs no lock")

	// What the hook refuses whoever holds the lock, and a hook that git would ignore.
	w.must("remote.git", "git symbolic-ref refs/heads/alias refs/heads/main && git symbolic-ref refs/heads/free refs/heads/other && chmod -x hooks/pre-receive")
	c = w.doctor("remote.git")
	c.want(t, "server", "fail", "has no pre-receive hook of git-gitops", "git gitops install --server")
	w.must("remote.git", "git gitops install --server")
	c = w.doctor("remote.git")
	c.not(t, "fail")
	c.want(t, "server", "warn", "a push to refs/heads/alias is refused", "push to refs/heads/main")
	w.must("remote.git", "git symbolic-ref --delete refs/heads/alias && git symbolic-ref --delete refs/heads/free")

	w.must("remote.git", "git config core.ignoreCase true && git config --add gitops.protect 'release/*' && git branch release/a main && git branch release/A main && git branch MAIN main")
	c = w.doctor("remote.git")
	c.want(t, "server", "warn", "a push to refs/heads/release/A is refused", "and has refs/heads/release/a", "rename one of the two")
	c.want(t, "server", "warn", "a push to refs/heads/MAIN is refused", "protect it by this name")
	w.must("remote.git", "git config --unset core.ignoreCase; git branch -q -D release/a release/A MAIN; git config --unset gitops.protect 'release'")

	// Settings that do nothing.
	w.must("remote.git", "git config --add gitops.protect refs/tags/v1 && git config --add gitops.protectExempt bot")
	c = w.doctor("remote.git")
	c.want(t, "server", "fail", `gitops.protect "refs/tags/v1" protects nothing`)
	c.want(t, "server", "warn", `gitops.protectExempt "bot" exempts nobody`)
	w.must("remote.git", "git config --unset gitops.protect refs/tags/v1 && git config --unset gitops.protectExempt '^bot$'")

	// The decisions: while nobody was let in, perhaps no client knows the repository by this name.
	w.must(".", "git clone -q remote.git a && git -C a commit -q --allow-empty -m a && ! git -C a push -q 2>/dev/null")
	c = w.doctor("remote.git")
	c.want(t, "server", "warn", "no push was accepted yet", w.path("remote"))
	c.want(t, "server", "ok", "refs/heads/main", "refused: not-held")
	w.must("a", "git gitops push -q")
	w.must("remote.git", `git config gitops.lockRepo "$1"`, w.path("remote"))
	c = w.doctor("remote.git")
	c.want(t, "server", "ok", "clients call this repository "+w.path("remote"))
	c.want(t, "server", "ok", "refs/heads/main", " allowed")
	w.must("remote.git", "git config gitops.lockRepo https://git.example.com/org/repo.git")
	w.doctor("remote.git").want(t, "server", "warn", "clients call the repository git.example.com/org/repo")
	w.must("remote.git", "git config --unset gitops.lockRepo")

	// Where Redis is, a repository does not say: neither to doctor nor to the hook.
	w.must("remote.git", "git config gitops.redisHost 127.0.0.1 && git config gitops.redisPort 1")
	c = w.doctor("remote.git")
	c.not(t, "fail")
	c.want(t, "setting", "warn", "gitops.redishost is set in this repository's own configuration")
	w.must("a", "git commit -q --allow-empty -m b && git gitops push -q")
	r := w.with("REDIS_HOST", "REDIS_PORT").bash("a", "git commit -q --allow-empty -m c && git push")
	if r.code == 0 || !strings.Contains(r.stderr, "refused: this server cannot ask") || !strings.Contains(r.stderr, "REDIS_HOST") {
		t.Errorf("the hook without settings: %s", r)
	}

	w.with("REDIS_PORT=1").doctor("remote.git").want(t, "redis", "fail", "127.0.0.1:1")
	w.must("remote.git", "git gitops uninstall --server && git config --unset gitops.protect")
	w.doctor("remote.git").not(t, "fail")

	// The places of other servers.
	for _, dir := range []string{"custom_hooks", "custom_hooks/pre-receive.d", "hooks/pre-receive.d"} {
		w.must("remote.git", `git gitops install --server --hooks-path "$1" && git config gitops.protect main`, dir)
		w.doctor("remote.git").want(t, "server", "ok", "branches like main accept only", dir)
		w.must("remote.git", `git gitops uninstall --server --hooks-path "$1" && test -z "$(ls "$1" 2>/dev/null)"`, dir)
	}
}

// TestFence_hooksFolder: in a folder all of whose hooks run, the hook of git-gitops is one more.
func TestFence_hooksFolder(t *testing.T) {
	t.Parallel()
	w := fenceWorld(t)
	w.must("remote.git", `git gitops uninstall --server
		printf '#!/bin/bash\ninput=$(cat)\nfor h in hooks/pre-receive.d/*; do "$h" <<<"$input" || exit 1; done\n' >hooks/pre-receive && chmod +x hooks/pre-receive
		mkdir hooks/pre-receive.d && printf '#!/bin/sh\ncat >>seen\n' >hooks/pre-receive.d/gitea && chmod +x hooks/pre-receive.d/gitea
		git gitops install --server --hooks-path hooks/pre-receive.d && git gitops install --server --hooks-path hooks/pre-receive.d`)
	if got := w.must("remote.git", "ls hooks/pre-receive.d"); got != "git-gitops\ngitea" {
		t.Errorf("the folder has %q", got)
	}
	w.must(".", "git clone -q remote.git a && git -C a commit -q --allow-empty -m a")
	if r := w.bash("a", "git push"); r.code == 0 || !strings.Contains(r.stderr, "[gitops: not-held]") {
		t.Errorf("plain git: %s", r)
	}
	w.must("a", "git gitops push -q")
	wantText(t, w.read("remote.git/seen"), "refs/heads/main")
	w.must("remote.git", "git gitops uninstall --server --hooks-path hooks/pre-receive.d && echo mine >hooks/pre-receive.d/git-gitops")
	r := w.bash("remote.git", "git gitops install --server --hooks-path hooks/pre-receive.d")
	wantCode(t, r, 1)
	wantText(t, r.stderr, "was not written by git-gitops")
}

// TestDoctor_aclFor: each role of a Redis user is enough for what it is for, and for no more.
func TestDoctor_aclFor(t *testing.T) {
	t.Parallel()
	w := fenceWorld(t)
	for _, role := range []string{"pipeline", "operator", "server", "viewer"} {
		w.must(".", `git gitops doctor --acl "$1" --for "$1" 2>/dev/null | redis-cli -p $REDIS_PORT | grep -qx OK &&
			redis-cli -p $REDIS_PORT ACL SETUSER "$1" '>pw' | grep -qx OK`, role)
	}
	as := func(role string) *world { return w.with("REDIS_USERNAME="+role, "REDIS_PASSWORD=pw") }
	if everything := w.must(".", "git gitops doctor --acl u 2>/dev/null"); everything != w.must(".", "git gitops doctor --acl u --for operator 2>/dev/null") {
		t.Error("an operator may not do everything")
	}
	for _, words := range []string{"--acl u --for nobody", "--for server", "--acl u --for ''"} {
		wantCode(t, w.bash(".", "git gitops doctor "+words), 129)
	}
	w.must("remote.git", `git gitops uninstall --server && git gitops install --server --hooks-path custom_hooks &&
		printf '#!/bin/sh\nREDIS_USERNAME=server exec custom_hooks/pre-receive\n' >hooks/pre-receive && chmod +x hooks/pre-receive`)

	pipeline := as("pipeline")
	pipeline.must(".", "git gitops clone -q remote.git a && git -C a commit -q --allow-empty -m a && git -C a gitops push -q")
	pipeline.doctor("a").not(t, "fail")
	pipeline.must("a", "git gitops lock && git gitops locks | grep main && git gitops events >/dev/null && git gitops run --branch x -- true")
	r := pipeline.bash(".", breakLock)
	wantCode(t, r, 69)
	wantText(t, r.stderr, "NOPERM", "permissions to access")
	for _, verb := range []string{"freeze --for 1h", "thaw"} {
		r := pipeline.bash(".", "git gitops "+verb+" --repo remote.git --branch main")
		wantCode(t, r, 69)
		wantText(t, r.stderr, "NOPERM", "permissions to access")
	}
	w.wantLocks(lockKey(w.path("remote"), "main"))

	viewer := as("viewer")
	wantText(t, viewer.must(".", "git gitops locks && git gitops events && git gitops stats && git gitops metrics --once"), "@main", "acquired", "gitops_redis_up 1\n")
	for _, command := range []string{"git gitops clone -q remote.git no", breakLock, "git gitops run --repo remote.git --branch z -- true"} {
		if r := viewer.bash(".", command); r.code != 69 {
			t.Errorf("a viewer: %s: %s", command, r)
		}
	}
	w.wantLocks(lockKey(w.path("remote"), "main"))

	as("server").doctor("remote.git").want(t, "permissions", "ok", "the hook may read")
	if r := as("server").bash(".", "git gitops clone -q remote.git no"); r.code != 69 {
		t.Errorf("a server: %s", r)
	}
	w.must(".", "redis-cli -p $REDIS_PORT ACL SETUSER server -hget")
	as("server").doctor("remote.git").want(t, "permissions", "fail", "hget", "--for server")
	w.must(".", "redis-cli -p $REDIS_PORT ACL SETUSER server +hget")

	as("operator").must(".", "git gitops freeze --for 1h --repo remote.git --branch main; git gitops thaw --repo remote.git --branch main")
	as("operator").must(".", breakLock)
	w.wantLocks()

	// Nothing that is not needed.
	key := lock.Key{Repo: "r", Branch: "main"}
	intent := lock.Update{Ref: "refs/heads/main", Old: "a", New: "b"}
	held := lock.Request{Key: key, Token: lock.NewToken(), TTL: time.Hour}
	root := redisstore.Open(redisstore.Options{Addrs: []string{w.redis.Addr()}, Events: 10})
	t.Cleanup(func() { _ = root.Close() })
	if _, err := root.TryAcquire(t.Context(), lock.Try{Request: held}); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Renew(t.Context(), held.Hold(), lock.RenewOptions{Intent: []lock.Update{intent}}); err != nil {
		t.Fatal(err)
	}
	waiter := lock.Request{Key: key, Token: lock.NewToken(), TTL: time.Hour}
	if _, err := root.TryAcquire(t.Context(), lock.Try{Request: waiter}); err != nil {
		t.Fatal(err)
	}
	for role, try := range map[string]func(*redisstore.Store) error{
		"server": func(s *redisstore.Store) error {
			got, err := s.Check(t.Context(), key, intent, 2*time.Minute)
			if err == nil && got.Refusal != "" {
				t.Errorf("refused: %s", got.Refusal)
			}
			return err
		},
		"viewer": func(s *redisstore.Store) error {
			if _, err := s.Inspect(t.Context(), key); err != nil {
				return err
			}
			_, err := s.List(t.Context())
			return err
		},
	} {
		for _, word := range strings.Fields(w.must(".", `git gitops doctor --acl x --for "$1" 2>/dev/null`, role)) {
			command, ok := strings.CutPrefix(word, "+")
			if !ok || strings.Contains("ping info pubsub|numsub xrange exists hexists hdel", command) { // of other commands, or where it may fail
				continue
			}
			w.keys.ScriptFlush(t.Context())
			w.must(".", `redis-cli -p $REDIS_PORT ACL SETUSER "$1" "-$2"`, role, command)
			s := redisstore.Open(redisstore.Options{Addrs: []string{w.redis.Addr()}, Username: role, Password: "pw"})
			if err := try(s); err == nil {
				t.Errorf("%s does not need %s", role, command)
			}
			_ = s.Close()
			w.must(".", `redis-cli -p $REDIS_PORT ACL SETUSER "$1" "+$2"`, role, command)
		}
	}
}
