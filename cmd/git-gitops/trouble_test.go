//go:build unix

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
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
				return w.with("REDIS_TLS_CA_CERT=" + w.write("other.pem", certificates(t).pem))
			}, []string{"certificate signed by unknown authority", "REDIS_TLS_CA_CERT"}, 0},
			{"wrong name", func(t *testing.T, w *world) *world {
				w = w.with("REDIS_TLS=true", "REDIS_PORT="+serverCert.serve(t), "REDIS_TLS_SERVER_NAME=other.example.com")
				return w.with("REDIS_TLS_CA_CERT=" + w.write("ca.pem", serverCert.pem))
			}, []string{"other.example.com", "REDIS_TLS_SERVER_NAME"}, 0},
			{"TLS to a plain server", func(_ *testing.T, w *world) *world {
				return w.with("REDIS_TLS=true")
			}, []string{"TLS"}, 6 * time.Second},
			{"plain to a TLS server", func(t *testing.T, w *world) *world {
				return w.with("REDIS_PORT=" + serverCert.serve(t))
			}, []string{"REDIS_TLS"}, 6 * time.Second},
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

// TestRedisTLS: with the right certificates all goes as without TLS.
func TestRedisTLS(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	w := newWorld(t)
	w.seed("remote.git")
	ca := w.write("ca.pem", certs.pem)
	port := certs.serve(t)
	for _, settings := range [][]string{
		{"REDIS_TLS=true", "REDIS_PORT=" + port, "REDIS_TLS_CA_CERT=" + ca},
		{"REDIS_TLS=true", "REDIS_PORT=" + port, "REDIS_TLS_CA_CERT_B64=" + base64.StdEncoding.EncodeToString([]byte(certs.pem))},
		{"REDIS_HOST", "REDIS_PORT", "REDIS_URL=rediss://127.0.0.1:" + port, "REDIS_TLS_CA_CERT=" + ca},
	} {
		w.with(settings...).must(".", `rm -rf work && git gitops clone -q remote.git work && cd work &&
			git commit -q --allow-empty -m one && git gitops locks && git gitops push -q`)
	}
}

// certs is a certificate for 127.0.0.1 that signs itself, and its key.
type certs struct{ dir, pem string }

func certificates(t *testing.T) certs {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := certs{dir: t.TempDir(), pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	for name, content := range map[string]string{
		"cert.pem": c.pem,
		"key.pem":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// serve starts a Redis with TLS and returns its port.
func (c certs) serve(t *testing.T) string {
	t.Helper()
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", filepath.Join(c.dir, "cert.pem"),
		"--tls-key-file", filepath.Join(c.dir, "key.pem"), "--tls-ca-cert-file", filepath.Join(c.dir, "cert.pem"), "--tls-auth-clients", "no")
	return port
}
