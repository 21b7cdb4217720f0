//go:build unix

package main

import (
	"crypto/x509"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

const wrongPassword = "hunter2-wrong-password"

// TestRedisTrouble: whatever is wrong with Redis, clone and push stop with exit code 69 before anything has happened, and each
// trouble says what it is.
func TestRedisTrouble(t *testing.T) {
	t.Parallel()
	serverCert := certificates(t)
	reasons := make(chan string, 32)
	t.Run("each", func(t *testing.T) {
		for _, tc := range []struct {
			name   string
			make   func(*testing.T, *world) *world // makes the trouble
			words  []string                        // in our lines
			within time.Duration
		}{
			{"absent", func(t *testing.T, w *world) *world {
				port, err := redistest.FreePort()
				if err != nil {
					t.Fatal(err)
				}
				return w.with("REDIS_PORT=" + port)
			}, []string{"connection refused", "REDIS_HOST"}, 3 * time.Second},
			{"no such host", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_HOST=no-such-host.invalid")
			}, []string{"no-such-host.invalid", "REDIS_HOST"}, 10 * time.Second},
			{"black hole", func(t *testing.T, w *world) *world {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
				_, port, _ := net.SplitHostPort(l.Addr().String())
				return w.with("REDIS_PORT=" + port)
			}, []string{"no answer"}, 6 * time.Second},
			{"stopped", func(t *testing.T, w *world) *world {
				if err := w.redis.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = w.redis.Signal(syscall.SIGCONT) })
				return w
			}, []string{"no answer"}, 6 * time.Second},
			{"wrong password", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "requirepass", "right")
				return w.with("REDIS_PASSWORD=" + wrongPassword)
			}, []string{"WRONGPASS", "REDIS_PASSWORD"}, 0},
			{"no password", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "requirepass", "right")
				return w
			}, []string{"auth", "REDIS_PASSWORD"}, 0},
			{"unknown user", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_USERNAME=nobody", "REDIS_PASSWORD="+wrongPassword)
			}, []string{"WRONGPASS", "REDIS_USERNAME"}, 0},
			{"wrong CA", func(t *testing.T, w *world) *world {
				w = w.with("REDIS_TLS=true", "REDIS_PORT="+serverCert.serve(t))
				return w.with("REDIS_TLS_CA_CERT=" + certificates(t).file("ca.pem"))
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}, 0},
			{"wrong name", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT="+serverCert.serve(t), "REDIS_TLS_SERVER_NAME=other.example.com")
			}, []string{"other.example.com", "REDIS_TLS_SERVER_NAME"}, 0},
			{"wrong CA, Cluster", func(t *testing.T, w *world) *world {
				port := serverCert.serve(t)
				return w.with("REDIS_HOST", "REDIS_PORT", "REDIS_TLS=true", "REDIS_CLUSTER_ADDRS=127.0.0.1:"+port)
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}, 0},
			{"wrong CA, Sentinel", func(t *testing.T, w *world) *world {
				port := serverCert.serve(t)
				return w.with("REDIS_HOST", "REDIS_PORT", "REDIS_TLS=true", "REDIS_SENTINEL_MASTER=m", "REDIS_SENTINEL_ADDRS=127.0.0.1:"+port)
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}, 0},
			{"expired", func(t *testing.T, w *world) *world {
				serverCert.issue(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
				return serverCert.trusted(w).with(
					"REDIS_PORT=" + serverCert.serve(t, "--tls-cert-file", serverCert.file("expired.pem"), "--tls-key-file", serverCert.file("expired.key")))
			}, []string{"expired", "renew"}, 0},
			{"TLS to a plain server", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_TLS=true")
			}, []string{"speaks no TLS", "REDIS_TLS", "REDIS_PORT"}, 6 * time.Second},
			{"TLS to a plain server that answers", func(t *testing.T, w *world) *world {
				return w.with("REDIS_TLS=true", "REDIS_PORT="+answer(t, func(c net.Conn) { _, _ = c.Write([]byte("-ERR unknown command\r\n")) }))
			}, []string{"does not look like a TLS handshake", "REDIS_TLS", "REDIS_PORT"}, 6 * time.Second},
			{"plain to a TLS server", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + serverCert.serve(t))
			}, []string{"REDIS_TLS"}, 6 * time.Second},
			{"no client certificate", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serve(t, "--tls-auth-clients", "yes"))
			}, []string{"client certificate", "REDIS_TLS_CERT", "REDIS_TLS_KEY"}, 0},
			{"no client certificate, TLS 1.2", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serve(t, "--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.2"))
			}, []string{"REDIS_TLS_CERT", "REDIS_TLS_KEY"}, 0},
			{"no client certificate, with time to say so", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serveTo(t))
			}, []string{"certificate required", "REDIS_TLS_CERT", "REDIS_TLS_KEY"}, 0},
			{"client certificate of another authority", func(t *testing.T, w *world) *world {
				other := certificates(t)
				return serverCert.trusted(w).with("REDIS_TLS_CERT="+other.file("client.pem"), "REDIS_TLS_KEY="+other.file("client.key"),
					"REDIS_PORT="+serverCert.serve(t, "--tls-auth-clients", "yes"))
			}, []string{"REDIS_TLS_CERT", "REDIS_TLS_KEY"}, 0},
			{"TLS 1.1", func(t *testing.T, w *world) *world {
				return serverCert.trusted(w).with("REDIS_PORT=" + serverCert.serveOld(t))
			}, []string{"protocol version", "TLS 1.2"}, 0},
			{"replica", func(t *testing.T, w *world) *world {
				replica := redistest.Start(t, "--replicaof", w.redis.Host+" "+w.redis.Port, "--repl-diskless-sync-delay", "0")
				c := replica.Client(t)
				w.until("the replica is in sync", func() bool {
					return strings.Contains(c.Info(t.Context(), "replication").Val(), "master_link_status:up")
				})
				return w.with("REDIS_PORT=" + replica.Port)
			}, []string{"READONLY", "primary"}, 0},
			{"memory", func(t *testing.T, w *world) *world {
				w.keys.ConfigSet(t.Context(), "maxmemory", "1")
				return w
			}, []string{"OOM", "maxmemory"}, 0},
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
			}, []string{"MISCONF", "disk"}, 0},
			{"no permission", func(t *testing.T, w *world) *world {
				w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "on", ">pw", "~other:*", "+@all")
				return w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw")
			}, []string{"NOPERM", "ACL SETUSER"}, 0},
			{"no command", func(t *testing.T, w *world) *world {
				w.keys.Do(t.Context(), "ACL", "SETUSER", "low", "on", ">pw", "~*", "+@read")
				return w.with("REDIS_USERNAME=low", "REDIS_PASSWORD=pw")
			}, []string{"NOPERM", "ACL SETUSER"}, 0},
			{"another type", func(t *testing.T, w *world) *world {
				w.keys.HSet(t.Context(), "somebody:hash", "a", "b")
				return w.with("GITOPS_LOCK_KEY=somebody:hash")
			}, []string{"WRONGTYPE", "GITOPS_LOCK_KEY"}, 0},
			{"no such database", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_DB=99")
			}, []string{"DB index"}, 0},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.seed("remote.git")
				w.must(".", "git clone -q remote.git work && git -C work commit -q --allow-empty -m one")
				tip := w.must("remote.git", "git rev-parse main")
				w = tc.make(t, w)
				for _, command := range []string{"git gitops clone -b main remote.git new", "git gitops -C work push -u origin main"} {
					r := w.bash(".", command)
					wantCode(t, r, 69)
					wantText(t, r.ours(), append(tc.words, "gitops: error: cannot lock")...)
					if n := strings.Count(r.stderr, "gitops: error:"); n != 1 || r.theirs() != "" || r.stdout != "" {
						t.Errorf("not one clear error: %s", r)
					}
					if strings.Contains(r.stderr, wrongPassword) {
						t.Errorf("the password is in: %s", r)
					}
					if tc.within > 0 && r.took > tc.within {
						t.Errorf("it took %s", r.took)
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
