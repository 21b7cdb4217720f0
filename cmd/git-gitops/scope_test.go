//go:build unix

package main

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/git-gitops/git-gitops/internal/config"
)

// trap is a server that nobody is to speak to.
type trap struct {
	port  string
	calls atomic.Int32
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	s := &trap{port: port}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.calls.Add(1)
			_ = conn.Close()
		}
	}()
	return s
}

// hostile is a repository's configuration that runs a program wherever git would, sends
// everything to the trap, and locks nothing.
func (w *world) hostile(s *trap) string {
	run := fmt.Sprintf("touch %q; false", w.path("ran"))
	secret := w.write("secret", "of the machine\n")
	lines := []string{
		"[core]", "\trepositoryformatversion = 0", "\tbare = true",
		fmt.Sprintf("\tsshCommand = %q", run), fmt.Sprintf("\tfsmonitor = %q", run), fmt.Sprintf("\taskPass = %q", run),
		fmt.Sprintf("\tgitProxy = %q", run), fmt.Sprintf("\thooksPath = %q", w.path("hooks")),
		"[credential]", fmt.Sprintf("\thelper = %q", "!"+run),
		"[http]", "\tproxy = http://127.0.0.1:" + s.port,
		fmt.Sprintf("[url %q]", "file://"+w.path("other.git")),
		"\tinsteadOf = " + w.path("remote.git"), "\tinsteadOf = ../../remote.git", "\tinsteadOf = ssh://git@github.example.com/org/repo.git",
		"[init]", "\tdefaultBranch = other", "[gitops]", "\tinclude = nothing",
	}
	for _, v := range config.Variables() {
		value := v.Default
		switch {
		case config.RepositoryMaySet(v.Name):
			continue
		case v.Name == "REDIS_HOST":
			value = "127.0.0.1"
		case v.Name == "REDIS_PORT":
			value = s.port
		case v.Name == "REDIS_PASSWORD_FILE":
			value = secret
		case v.Name == "GITOPS_WEBHOOK_URL":
			value = "http://127.0.0.1:" + s.port
		case v.Name == "GITOPS_CLONE_LOCK":
			value = "off"
		case value == "":
			continue
		}
		lines = append(lines, "\t"+strings.TrimPrefix(v.GitKey, "gitops.")+" = "+value)
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestClone_hostileFolder: a cloned repository may contain what git takes for a bare repository. A
// clone that is run there obeys none of its configuration, as git's own clone.
func TestClone_hostileFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.seed("other.git")
	w.must("other.git", "git branch -m main other")
	s := newTrap(t)
	ssh := w.write("bin/fake-ssh", fmt.Sprintf("#!/bin/sh\nfor last; do :; done\nexec ${last%%%%\\ *} %s\n", w.path("remote.git")))
	w.write("gitconfig", w.read("gitconfig")+fmt.Sprintf("[gitops]\n\tredisHost = %s\n\tredisPort = %s\n[core]\n\tsshCommand = %s\n[url %q]\n\tinsteadOf = here:\n",
		w.env["REDIS_HOST"], w.env["REDIS_PORT"], ssh, w.dir+"/"))
	w = w.with("REDIS_HOST", "REDIS_PORT", "GIT_ASKPASS", "GIT_SSH_VARIANT=ssh")
	w.must(".", "git clone -q remote.git repo && mkdir -p repo/deploy/objects repo/deploy/refs && echo ref: refs/heads/main >repo/deploy/HEAD")
	w.write("repo/deploy/config", w.hostile(s))
	if dir := w.must("repo/deploy", "git rev-parse --git-dir"); dir != "." {
		t.Fatalf("git does not take the folder for a repository, but %q", dir)
	}

	here := w.path("remote")
	for _, tc := range []struct{ words, lock string }{
		{"clone ../../remote.git", lockKey(here, "main")},
		{"clone -b main ../../remote.git", lockKey(here, "main")},
		{"clone " + w.path("remote.git"), lockKey(here, "main")},
		{"clone here:remote.git", lockKey(here, "main")},
		{"clone ssh://git@github.example.com/org/repo.git remote", lockKey("github.example.com/org/repo", "main")},
		{"clone ssh://git@github.example.com/org/other.git remote", lockKey("github.example.com/org/other", "main")},
		{"-c url." + w.dir + "/.insteadOf=there: clone there:remote.git", lockKey(here, "main")},
		{"-C .. clone ../remote.git deploy/remote", lockKey(here, "main")},
		{"--git-dir=. clone ../../remote.git", lockKey(here, "main")},
		{"--bare clone ../../remote.git", lockKey(here, "main")},
	} {
		t.Run(tc.words, func(t *testing.T) {
			w := *w
			w.t = t
			r := w.bash("repo/deploy", "git gitops "+tc.words)
			if wantCode(t, r, 0); r.ours() != "" {
				t.Errorf("it had to say something: %s", r)
			}
			w.wantLocks(tc.lock)
			w.must("repo/deploy/remote", "git gitops unlock --all")
			w.wantLocks()
			w.must("repo/deploy", "rm -rf remote")
			if n := s.calls.Load(); n > 0 || w.exists("ran") {
				t.Errorf("%d calls to the repository's host; a program of it was run: %v; %s", n, w.exists("ran"), r)
			}
		})
	}
	// git itself, before it starts us as git gitops, stops at a broken file.
	r := w.bash("repo/deploy", "echo [broken >config; git-gitops clone ../../remote.git")
	wantCode(t, r, 0)
	w.wantLocks(lockKey(here, "main"))
}

// TestScope: a repository's configuration says which locks are its own, and nothing about Redis,
// webhooks, or whether anything is locked.
func TestScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	s := newTrap(t)
	host, port := w.env["REDIS_HOST"], w.env["REDIS_PORT"]
	w = w.with("REDIS_HOST", "REDIS_PORT", "GITOPS_LOCK_SESSION=workspace")
	global := w.read("gitconfig")
	w.write("gitconfig", global+fmt.Sprintf("[gitops]\n\tredisHost = %s\n\tredisPort = %s\n", host, port))
	w.must(".", "git clone -q remote.git work")
	w.must("work", fmt.Sprintf(`for key in redisHost=127.0.0.1 redisPort=%[1]s redisPassword=x redisPrefix=theirs include=nothing useRedisLocking=false \
		webhookURL=http://127.0.0.1:%[1]s lockName=mine lockTTL=77; do git config gitops.${key%%%%=*} ${key#*=}; done`, s.port))
	mine := "gitops:lock:{" + w.path("remote") + "@main:mine}"

	check := func(step string, r result, code int) {
		t.Helper()
		wantCode(t, r, code)
		if n := s.calls.Load(); n > 0 {
			t.Fatalf("%s: %d calls to the repository's host", step, n)
		}
	}
	check("lock", w.bash("work", "git gitops lock"), 0)
	w.wantLocks(mine)
	w.until("a keeper", func() bool { return len(w.keepers()) == 1 })
	r := w.bash("work", "git gitops doctor")
	check("doctor", r, 0)
	wantText(t, r.stdout,
		"setting      GITOPS_LOCK_NAME is mine (git config gitops.lockname, local)\n",
		"setting      REDIS_PORT is "+port+" (git config gitops.redisport, global)\n",
		"warn  setting      gitops.redisport is set in this repository's own configuration (local), and ignored: a repository may not set it\n"+
			"                   do: if it is yours, set it for your user: git config --global gitops.redisport VALUE\n",
		"warn  setting      gitops.include is set in this repository's own configuration (local)",
		"warn  setting      gitops.webhookurl is set in this repository's own configuration (local)")
	check("unlock", w.bash("work", "git gitops unlock --all"), 0)
	check("push", w.bash("work", "git commit -q --allow-empty -m one && git gitops push -q origin main && git gitops events | grep -q acquired && git gitops locks"), 0)
	check("hook", w.bash("work", `git gitops install && git commit -q --allow-empty -m two && git push -q origin main &&
		git gitops events --json | grep -c '"acquired"'`), 0)
	w.until("the keeper has let go", func() bool { return len(w.locks()) == 0 })

	// With -c and from the environment's configuration the user says it.
	elsewhere := w.with("GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=gitops.redisPort", "GIT_CONFIG_VALUE_0=1")
	wantCode(t, elsewhere.bash("work", "git gitops locks"), 69)
	wantCode(t, w.bash("work", "git -c gitops.redisPort=1 gitops locks"), 69)
	// Without any of the user's, the repository's are none.
	w.write("gitconfig", global)
	r = w.bash("work", "git commit -q --allow-empty -m three; git gitops push -q origin main")
	check("without the user's", r, 78)
	wantText(t, r.stderr, "REDIS_HOST is not set")
}
