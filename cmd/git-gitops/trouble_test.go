//go:build unix

package main

import (
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

const wrongPassword = "hunter2-wrong-password"

// refusedInScript is what names a command that a script may not run: the line of the script, which
// the error of Valkey does not let us find.
func refusedInScript(t *testing.T) string {
	t.Helper()
	version, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(version), "Valkey") {
		return "no permissions to run the 'set' command"
	}
	return "redis.call('SET'"
}

// TestRedisTrouble: whatever is wrong with Redis, clone and push stop with exit code 69 before
// anything has happened, and each trouble says what it is.
func TestRedisTrouble(t *testing.T) {
	t.Parallel()
	serverCert := certificates(t)
	reasons := make(chan string, 1000)
	t.Run("each", func(t *testing.T) {
		for _, tc := range []struct {
			name  string
			make  func(*testing.T, *world) *world // makes the trouble
			words []string                        // in our lines
		}{
			{"absent", func(t *testing.T, w *world) *world {
				port, err := redistest.FreePort()
				if err != nil {
					t.Fatal(err)
				}
				return w.with("REDIS_PORT=" + port)
			}, []string{"connection refused", "REDIS_HOST"}},
			{"no such host", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_HOST=no-such-host.invalid")
			}, []string{"no-such-host.invalid", "REDIS_HOST"}},
			{"black hole", func(t *testing.T, w *world) *world {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
				_, port, _ := net.SplitHostPort(l.Addr().String())
				return w.with("REDIS_PORT=" + port)
			}, []string{"no answer"}},
			{"stopped", func(t *testing.T, w *world) *world {
				if err := w.redis.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = w.redis.Signal(syscall.SIGCONT) })
				return w
			}, []string{"no answer"}},
			{"wrong password", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "requirepass", "right")
				return w.with("REDIS_PASSWORD=" + wrongPassword)
			}, []string{"WRONGPASS", "REDIS_PASSWORD"}},
			{"no password", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "requirepass", "right")
				return w
			}, []string{"auth", "REDIS_PASSWORD"}},
			{"unknown user", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_USERNAME=nobody", "REDIS_PASSWORD="+wrongPassword)
			}, []string{"WRONGPASS", "REDIS_USERNAME"}},
			{"wrong CA", func(t *testing.T, w *world) *world {
				w = w.with("REDIS_TLS=true", "REDIS_PORT="+serverCert.serve(t))
				return w.with("REDIS_TLS_CA_CERT=" + certificates(t).file("ca.pem"))
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}},
			{"wrong name", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT="+serverCert.serve(t), "REDIS_TLS_SERVER_NAME=other.example.com")
			}, []string{"other.example.com", "REDIS_TLS_SERVER_NAME"}},
			{"wrong CA, Cluster", func(t *testing.T, w *world) *world {
				port := serverCert.serve(t)
				return w.with("REDIS_HOST", "REDIS_PORT", "REDIS_TLS=true", "REDIS_CLUSTER_ADDRS=127.0.0.1:"+port)
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}},
			{"wrong CA, Sentinel", func(t *testing.T, w *world) *world {
				port := serverCert.serve(t)
				return w.with("REDIS_HOST", "REDIS_PORT", "REDIS_TLS=true", "REDIS_SENTINEL_MASTER=m", "REDIS_SENTINEL_ADDRS=127.0.0.1:"+port)
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}},
			{"expired", func(t *testing.T, w *world) *world {
				serverCert.issue(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
				return serverCert.trusted(w).with(
					"REDIS_PORT=" + serverCert.serve(t, "--tls-cert-file", serverCert.file("expired.pem"), "--tls-key-file", serverCert.file("expired.key")))
			}, []string{"expired", "renew"}},
			{"TLS to a plain server", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_TLS=true")
			}, []string{"speaks no TLS", "REDIS_TLS", "REDIS_PORT"}},
			{"TLS to a plain server that answers", func(t *testing.T, w *world) *world {
				return w.with("REDIS_TLS=true", "REDIS_PORT="+answer(t, func(c net.Conn) { _, _ = c.Write([]byte("-ERR unknown command\r\n")) }))
			}, []string{"does not look like a TLS handshake", "REDIS_TLS", "REDIS_PORT"}},
			{"plain to a TLS server", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + serverCert.serve(t))
			}, []string{"REDIS_TLS"}},
			{"no client certificate", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serve(t, "--tls-auth-clients", "yes"))
			}, []string{"client certificate", "REDIS_TLS_CERT", "REDIS_TLS_KEY"}},
			{"no client certificate, TLS 1.2", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serve(t, "--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.2"))
			}, []string{"REDIS_TLS_CERT", "REDIS_TLS_KEY"}},
			{"no client certificate, with time to say so", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serveTo(t))
			}, []string{"certificate required", "REDIS_TLS_CERT", "REDIS_TLS_KEY"}},
			{"client certificate of another authority", func(t *testing.T, w *world) *world {
				other := certificates(t)
				return serverCert.trusted(w).with("REDIS_TLS_CERT="+other.file("client.pem"), "REDIS_TLS_KEY="+other.file("client.key"),
					"REDIS_PORT="+serverCert.serve(t, "--tls-auth-clients", "yes"))
			}, []string{"REDIS_TLS_CERT", "REDIS_TLS_KEY"}},
			{"TLS 1.1", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serveOld(t))
			}, []string{"protocol version", "TLS 1.2"}},
			{"replica", func(t *testing.T, w *world) *world {
				replica := redistest.Start(t, "--replicaof", w.redis.Host+" "+w.redis.Port, "--repl-diskless-sync-delay", "0")
				c := replica.Client(t)
				w.until("the replica is in sync", func() bool {
					return strings.Contains(c.Info(t.Context(), "replication").Val(), "master_link_status:up")
				})
				return w.with("REDIS_PORT=" + replica.Port)
			}, []string{"READONLY", "primary"}},
			{"memory", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "maxmemory", "1")
				return w
			}, []string{"OOM", "maxmemory"}},
			{"cannot save", func(t *testing.T, w *world) *world {
				if err := os.RemoveAll(w.redis.Dir); err != nil { // so that a save fails
					t.Fatal(err)
				}
				w.keys.ConfigSet(t.Context(), "save", "3600 1000000")
				w.keys.BgSave(t.Context())
				w.until("a save has failed", func() bool {
					return strings.Contains(w.keys.Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
				})
				return w
			}, []string{"MISCONF", "disk"}},
			{"no permission", func(t *testing.T, w *world) *world {
				w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "on", ">pw", "~other:*", "+@all")
				return w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw")
			}, []string{"NOPERM", "ACL SETUSER"}},
			{"no command", func(t *testing.T, w *world) *world {
				w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "on", ">pw", "~*", "+@read")
				return w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw")
			}, []string{"NOPERM", "ACL SETUSER"}},
			{"another type", func(t *testing.T, w *world) *world {
				w.keys.HSet(t.Context(), "somebody:hash", "a", "b")
				return w.with("GITOPS_LOCK_KEY=somebody:hash")
			}, []string{"WRONGTYPE", "GITOPS_LOCK_KEY"}},
			{"no such database", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_DB=99")
			}, []string{"DB index", "REDIS_DB"}},
			{"another type below our prefix", func(t *testing.T, w *world) *world {
				key := lock.Key{Repo: strings.TrimSuffix(w.path("remote.git"), ".git"), Branch: "main"}
				w.keys.SAdd(t.Context(), "gitops:lock:{"+key.ID()+"}", "a")
				return w
			}, []string{"WRONGTYPE", "GITOPS_REDIS_PREFIX"}},
			{"no command in a script", func(t *testing.T, w *world) *world {
				w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "on", ">pw", "~*", "+@all", "-set")
				return w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw")
			}, []string{refusedInScript(t), "ACL SETUSER"}},
			{"no more clients", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + answer(t, func(c net.Conn) { _, _ = c.Write([]byte("-ERR max number of clients reached\r\n")) }))
			}, []string{"max number of clients reached", "maxclients"}},
			{"no more clients, of the server", func(t *testing.T, w *world) *world {
				full := redistest.Start(t, "--maxclients", "1")
				full.Client(t).Ping(t.Context())
				return w.with("REDIS_PORT=" + full.Port)
			}, []string{"ERR max number of clients reached", "maxclients"}},
			{"protected", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + answer(t, func(c net.Conn) {
					_, _ = c.Write([]byte("-DENIED Redis is running in protected mode because protected mode is enabled\r\n"))
				}))
			}, []string{"DENIED", "requirepass"}},
			{"a proxy that does not know HELLO", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + answer(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }))
			}, []string{"before any answer", "twemproxy"}},
			{"TLS, and a proxy without a Redis", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.terminate(t))
			}, []string{"before any answer", "whose Redis is down"}},
			{"old Redis, wrong password", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PASSWORD="+wrongPassword, "REDIS_PORT="+answers(t, "-ERR unknown command 'hello'\r\n", "-ERR invalid password\r\n"))
			}, []string{"ERR invalid password", "REDIS_PASSWORD"}},
			{"old Redis, and a user", func(t *testing.T, w *world) *world {
				return w.with("REDIS_USERNAME=u", "REDIS_PASSWORD="+wrongPassword,
					"REDIS_PORT="+answers(t, "-ERR unknown command 'hello'\r\n", "-ERR wrong number of arguments for 'auth' command\r\n"))
			}, []string{"arguments for 'auth'", "REDIS_USERNAME"}},
			{"a password with a line break", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "requirepass", "right")
				return w.with("REDIS_PASSWORD=right\n")
			}, []string{"WRONGPASS", "ends with white space"}},
			{"one node of a Cluster", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + answers(t, "-ERR unknown command 'hello'\r\n", "-MOVED 1 127.0.0.1:7001\r\n"))
			}, []string{"MOVED", "REDIS_CLUSTER_ADDRS"}},
			{"a Cluster that tells no address", func(t *testing.T, w *world) *world {
				return w.with("REDIS_HOST", "REDIS_PORT", "REDIS_CLUSTER_ADDRS=127.0.0.1:"+unknownEndpoint(t))
			}, []string{"announce no address", "cluster-announce-hostname"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.seed("remote.git")
				w.must(".", "git clone -q remote.git work && git -C work commit -q --allow-empty -m one")
				tip := w.must("remote.git", "git rev-parse main")
				w = tc.make(t, w)
				for _, command := range []string{"git gitops clone -b main remote.git new", "git gitops -C work push -u origin main"} {
					r := w.patient(command, tc.words...)
					wantCode(t, r, 69)
					wantText(t, r.ours(), append(tc.words, "gitops: error: cannot lock")...)
					if n := strings.Count(r.stderr, "gitops: error:"); n != 1 || r.theirs() != "" || r.stdout != "" {
						t.Errorf("not one clear error: %s", r)
					}
					if strings.Contains(r.stderr, wrongPassword) {
						t.Errorf("the password is in: %s", r)
					}
					if strings.Contains(command, "clone") {
						reasons <- r.ours()
					}
				}
				if w.exists("new") {
					t.Error("a folder is left")
				}
				if now := w.must("remote.git", "git rev-parse main"); now != tip {
					t.Error("the remote has moved")
				}
			})
		}
	})
	close(reasons)
	seen := map[string]bool{}
	for r := range reasons {
		if seen[r] {
			t.Errorf("said of two different troubles: %s", r)
		}
		seen[r] = true
	}
}

// TestRedisTrouble_verbs: a command that fails because of Redis says what it did not do.
func TestRedisTrouble_verbs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repo := w.seed("remote.git")
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	w = w.with("REDIS_PORT=" + port)
	for words, want := range map[string]string{
		"locks":  "git gitops locks cannot use Redis",
		"events": "git gitops events cannot use Redis",
		"stats":  "git gitops stats cannot use Redis",
		"lock --repo '" + repo + "' --branch main":              "cannot lock",
		"run --repo '" + repo + "' --branch main -- touch made": "cannot lock, so the command was not run",
	} {
		r := w.bash(".", "git gitops "+words)
		wantCode(t, r, 69)
		wantText(t, r.ours(), "gitops: error: "+want+"\n", "connection refused")
	}
	if w.exists("made") {
		t.Error("the command was run")
	}
}

// TestSettings_example: the text that says what a URL may look like is not taken for a secret.
func TestSettings_example(t *testing.T) {
	t.Parallel()
	r := newWorld(t).with("REDIS_HOST", "REDIS_PORT", "REDIS_URL=http://h").bash(".", "git gitops locks")
	wantCode(t, r, 78)
	wantText(t, r.stderr, "or unix:///path?db=0: ")
}

// answers listens, gives these answers to the requests of each connection in turn, the last one
// again and again, and returns the port.
func answers(t *testing.T, lines ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				for i := 0; ; i++ {
					if _, err := conn.Read(make([]byte, 1<<16)); err != nil {
						return
					}
					if _, err := conn.Write([]byte(lines[min(i, len(lines)-1)])); err != nil {
						return
					}
				}
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// unknownEndpoint is the port of a Cluster of one node that announces no address.
func unknownEndpoint(t *testing.T) string {
	t.Helper()
	node := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-preferred-endpoint-type", "unknown-endpoint")
	c := node.Client(t)
	if err := c.Do(t.Context(), "cluster", "addslotsrange", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	gittest.Until(t, "the Cluster is up", func() bool {
		return strings.Contains(c.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	return node.Port
}
