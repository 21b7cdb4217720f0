//go:build unix

package main

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

const (
	pipelines = 6
	pat       = "ghp_0123456789secretTOKEN"
)

// field is a repository org/repo on a server, as the field's functions reach it.
func newField(t *testing.T) *world {
	w := newWorld(t)
	w.seed("srv/org/repo.git")
	functions, err := filepath.Abs("testdata/functions.bash")
	if err != nil {
		t.Fatal(err)
	}
	return w.with(
		"GITOPS_LOCK_SESSION", // these are whole scripts: a lock belongs to the one that took it
		"FUNCTIONS="+functions, "ORG=org", "REPO=repo", "BRANCH=main", "PAT="+pat, "RETRY_DELAY=0.2",
		"HOST=github.example.com",
	)
}

// overPaths has git reach the server as a folder, under its https URL.
func overPaths(w *world) *world {
	w.write("gitconfig", w.read("gitconfig")+fmt.Sprintf("[url %q]\n\tinsteadOf = https://git:%s@github.example.com/\n", w.path("srv")+"/", pat))
	return w
}

// overHTTPS serves the repositories with git http-backend behind a password.
func overHTTPS(w *world) *world {
	w.t.Helper()
	w.must("srv/org/repo.git", "git config http.receivepack true")
	backend := &cgi.Handler{
		Path: filepath.Join(w.must(".", "git --exec-path"), "git-http-backend"),
		Env: []string{
			"GIT_PROJECT_ROOT=" + w.path("srv"), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"REDIS_HOST=" + w.env["REDIS_HOST"], "REDIS_PORT=" + w.env["REDIS_PORT"],
		}, // for a hook
	}
	w = behindPassword(w, backend)
	return w.with("HOST=" + w.env["HTTPS"])
}

// behindPassword serves a handler at https://git:PAT@$HTTPS.
func behindPassword(w *world, handler http.Handler) *world {
	w.t.Helper()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("git:"+pat))
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != want {
			rw.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(server.Close)
	ca := w.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return w.with("HTTPS="+strings.TrimPrefix(server.URL, "https://"), "GIT_SSL_CAINFO="+ca)
}

// overSSH serves the repositories with an sshd of our own. The ssh on PATH only adds what the URL's
// form cannot say: the port, and the user who runs this test in place of "git".
func overSSH(w *world) *world {
	w.t.Helper()
	sshd := "/usr/sbin/sshd"
	if path, err := exec.LookPath("sshd"); err == nil {
		sshd = path
	}
	if _, err := os.Stat(sshd); err != nil {
		w.t.Fatalf("openssh-server is missing (make test installs it): %v", err)
	}
	if os.Getuid() == 0 { // sshd insists on it, and a package's start script would make it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		w.t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		w.t.Fatal(err)
	}
	port, err := redistest.FreePort()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("ssh/serve", fmt.Sprintf("#!/bin/sh\nexport PATH=%q REDIS_HOST=%s REDIS_PORT=%s\ncd %s/srv && exec git-shell -c \"$SSH_ORIGINAL_COMMAND\"\n",
		w.env["PATH"], w.env["REDIS_HOST"], w.env["REDIS_PORT"], w.dir)) // the rest is for a hook
	w.must("ssh", `ssh-keygen -q -t ed25519 -N "" -f host && ssh-keygen -q -t ed25519 -N "" -f key &&
		echo "restrict,command=\"$PWD/serve\" $(cat key.pub)" >authorized_keys && chmod 600 authorized_keys host key`)
	w.write("ssh/config", fmt.Sprintf(`ListenAddress 127.0.0.1
Port %s
HostKey %[2]s/ssh/host
AuthorizedKeysFile %[2]s/ssh/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=%[3]s "PATH=%[4]s"
`, port, w.dir, w.env["GIT_CONFIG_GLOBAL"], w.env["PATH"]))
	// The exchange of keys that ssh prefers takes 0.2 s of a processor.
	w.write("bin/ssh", fmt.Sprintf(`#!/bin/bash
words=()
for word; do words+=("${word/#git@/%s@}"); done
exec %s -p %s -i %s/ssh/key -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
	-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o KexAlgorithms=curve25519-sha256 "${words[@]}"
`, me.Username, ssh, port, w.dir))
	w.start(".", sshd, "-D", "-e", "-f", w.path("ssh/config"))
	w = w.with("PATH="+w.path("bin")+":"+w.env["PATH"], "HOST=127.0.0.1", "KEY="+w.path("ssh/key"))
	w.until("sshd answers", func() bool { return w.bash(".", "git ls-remote git@127.0.0.1:org/repo.git").code == 0 })
	return w
}

// pipelinesAtOnce runs many pipelines, all of which must succeed, and returns how many pushes were
// rejected on the way.
func pipelinesAtOnce(t *testing.T, w *world, pipeline func(i int) (script string, settings []string)) int {
	t.Helper()
	var all []*process
	for i := range pipelines {
		dir := fmt.Sprintf("pipeline%d", i)
		w.write(dir+"/.keep", "")
		script, settings := pipeline(i)
		all = append(all, w.with(settings...).start(dir, "bash", "-c", `set -o pipefail; . "$FUNCTIONS"; pipeline `+script))
	}
	rejected := 0
	for i, p := range all {
		r := p.wait()
		if r.code != 0 {
			t.Errorf("pipeline %d: %s", i, r)
		}
		if strings.Contains(r.ours(), pat) {
			t.Errorf("pipeline %d: we print the token: %s", i, r.ours())
		}
		rejected += strings.Count(r.stderr, "rejected]")
		if entries, _ := filepath.Glob(w.path(fmt.Sprintf("pipeline%d/repo", i))); entries != nil {
			t.Errorf("pipeline %d left its clone", i)
		}
	}
	if locks := w.locks(); len(locks) > 0 {
		t.Errorf("locks are left: %q", locks)
	}
	if n := w.queued(); n > 0 {
		t.Errorf("%d still wait", n)
	}
	return rejected
}

// TestPipelines_oneCounter: pipelines that all change one file start at once. None is rejected,
// none is lost.
func TestPipelines_oneCounter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		reach func(*world) *world
		clone string
		save  string
	}{
		{"paths", overPaths, "clone_token", "save2"},
		{"https with a token", overHTTPS, "clone_token", "save1"},
		{"ssh with a key", overSSH, "clone_key", "save2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := tc.reach(newField(t))
			rejected := pipelinesAtOnce(t, w, func(int) (string, []string) {
				return tc.clone + " " + tc.save + " increment", nil
			})
			if rejected > 0 {
				t.Errorf("%d pushes were rejected", rejected)
			}
			if got := w.must("srv/org/repo.git", "git show main:counter"); got != fmt.Sprint(pipelines) {
				t.Errorf("the counter is %s, want %d", got, pipelines)
			}
			if got := w.must("srv/org/repo.git", "git rev-list --count main"); got != fmt.Sprint(pipelines+1) {
				t.Errorf("%s commits, want %d", got, pipelines+1)
			}
		})
	}
}

// TestPipelines_lockNames: pipelines with locks of their own within the branch write files of their
// own, side by side. Each pull comes before the lock of the push, so a push may be rejected and the
// script's own loop tries again.
func TestPipelines_lockNames(t *testing.T) {
	t.Parallel()
	w := overPaths(newField(t))
	rejected := pipelinesAtOnce(t, w, func(i int) (string, []string) {
		name := fmt.Sprintf("gitops-cp4d-service.acct1.cluster1.inst%d", i)
		return "clone_token save2 render " + strings.ReplaceAll(name, ".", "/") + ".yaml", []string{"GITOPS_LOCK_NAME=" + name}
	})
	t.Logf("%d pushes of %d pipelines were rejected and tried again", rejected, pipelines)
	files := w.must("srv/org/repo.git", "git ls-tree -r --name-only main | grep -c yaml")
	if files != fmt.Sprint(pipelines) {
		t.Errorf("%s files landed, want %d", files, pipelines)
	}
}

// TestClone_keepsTheTokenToItself: the token of the URL is neither in Redis, nor in what a clone
// remembers, nor in a message.
func TestClone_keepsTheTokenToItself(t *testing.T) {
	t.Parallel()
	w := overHTTPS(newField(t)).with("GITOPS_LOCK_SESSION=workspace")
	url := "https://git:" + pat + "@" + w.env["HOST"] + "/org/repo.git"
	w.must(".", `git gitops clone -q "$1" -b main one`, url)
	w.wantLocks(lockKey(w.env["HOST"]+"/org/repo", "main"))
	w.write("two/.keep", "")
	waiter := w.start("two", "git", "gitops", "clone", url)
	w.until("the second waits", func() bool { return w.queued() == 1 })
	w.until("the second says so", func() bool { return strings.Contains(waiter.stderr.String(), "gitops: ") })

	if dump := w.dump(); strings.Contains(dump, pat) || !strings.Contains(dump, "org/repo") {
		t.Errorf("Redis holds: %s", dump)
	}
	state := w.must("one/.git/gitops", "cat $(find . -type f)")
	if strings.Contains(state, pat) || !strings.Contains(state, "org/repo") {
		t.Errorf("the clone remembers: %s", state)
	}
	locks := w.bash(".", "git gitops locks")
	wantText(t, locks.stdout, "org/repo@main")
	if strings.Contains(locks.stdout+locks.stderr, pat) {
		t.Errorf("locks prints: %s", locks)
	}

	w.must("one", "git commit -q --allow-empty -m one && git gitops push -q")
	r := waiter.wait()
	wantCode(t, r, 0)
	if strings.Contains(r.ours(), pat) {
		t.Errorf("we print: %s", r.ours())
	}
	// A failure does not spell it out either: here the push meets a Redis that is gone.
	w.must("two/repo", "git commit -q --allow-empty -m two")
	w.redis.Kill()
	for _, words := range []string{"push", "push " + url + " HEAD:other", "clone " + url + " other"} {
		r = w.bash("two/repo", "git gitops "+words)
		wantCode(t, r, 69)
		if strings.Contains(r.stdout+r.stderr, pat) {
			t.Errorf("%s prints: %s", words, r)
		}
	}
}

// dump is every key of Redis with all that is in it.
func (w *world) dump() string {
	w.t.Helper()
	ctx := w.t.Context()
	var b strings.Builder
	for _, key := range w.scan("*") {
		kind := w.keys.Type(ctx, key).Val()
		var value any
		switch kind {
		case "string":
			value = w.keys.Get(ctx, key).Val()
		case "hash":
			value = w.keys.HGetAll(ctx, key).Val()
		case "zset":
			value = w.keys.ZRangeWithScores(ctx, key, 0, -1).Val()
		case "list":
			value = w.keys.LRange(ctx, key, 0, -1).Val()
		case "stream":
			value = w.keys.XRange(ctx, key, "-", "+").Val()
		case "none": // expired since
		default:
			w.t.Errorf("%s is a %s, which this test cannot read", key, kind)
		}
		fmt.Fprintf(&b, "%s = %v\n", key, value)
	}
	return b.String()
}
