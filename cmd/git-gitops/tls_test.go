//go:build unix

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

// TestRedis_ways: the whole job by every way to reach a Redis.
func TestRedis_ways(t *testing.T) {
	t.Parallel()
	const password = "p@ss:w/rd %2F#?"
	certs := certificates(t)
	// secure is a world with a server that speaks TLS.
	secure := func(t *testing.T, w *world, args ...string) *world {
		port, server := certs.start(t, args...)
		w = w.with("REDIS_TLS=true", "REDIS_PORT="+port)
		w.redis, w.keys = server, server.Client(t)
		return w
	}
	user := func(t *testing.T, w *world, words ...any) {
		if err := w.keys.Do(t.Context(), append([]any{"ACL", "SETUSER"}, words...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	// as is a world whose test looks at the keys with other options.
	as := func(t *testing.T, w *world, change func(*redis.Options)) *world {
		other, options := *w, *w.keys.Options()
		change(&options)
		other.keys = redis.NewClient(&options)
		t.Cleanup(func() { _ = other.keys.Close() })
		return &other
	}
	for _, tc := range []struct {
		name string
		way  func(*testing.T, *world) *world
	}{
		{"TLS, authority in base64", func(t *testing.T, w *world) *world {
			return secure(t, w).with("REDIS_TLS_CA_CERT_B64=" + w.must(".", `base64 "$1"`, certs.file("ca.pem"))) // of several lines
		}},
		{"TLS, authority in a file", func(t *testing.T, w *world) *world {
			return certs.trusted(secure(t, w))
		}},
		{"TLS 1.2", func(t *testing.T, w *world) *world {
			return certs.trusted(secure(t, w, "--tls-protocols", "TLSv1.2"))
		}},
		{"TLS, certificate of another name", func(t *testing.T, w *world) *world {
			certs.issue(t, "named", func(c *x509.Certificate) { c.DNSNames = []string{"redis.example.com"} })
			w = certs.trusted(secure(t, w, "--tls-cert-file", certs.file("named.pem"), "--tls-key-file", certs.file("named.key")))
			wantCode(t, w.bash(".", "git gitops locks"), 69)
			return w.with("REDIS_TLS_SERVER_NAME=redis.example.com")
		}},
		{"mutual TLS", func(t *testing.T, w *world) *world {
			return certs.trusted(secure(t, w, "--tls-auth-clients", "yes")).
				with("REDIS_TLS_CERT="+certs.file("client.pem"), "REDIS_TLS_KEY="+certs.file("client.key"))
		}},
		{"TLS, user of doctor --acl", func(t *testing.T, w *world) *world {
			w = certs.trusted(secure(t, w))
			w.must(".", `git gitops doctor --acl pipeline 2>acl | redis-cli -p "$1" | grep -qx OK`, w.redis.Port)
			user(t, w, "pipeline", ">"+password)
			return w.with("REDIS_USERNAME=pipeline", "REDIS_PASSWORD="+password)
		}},
		{"rediss URL with a user and password", func(t *testing.T, w *world) *world {
			w = certs.trusted(secure(t, w))
			user(t, w, "ci:bot", "on", ">"+password, "~*", "+@all")
			at := url.URL{Scheme: "rediss", User: url.UserPassword("ci:bot", password), Host: w.redis.Host + ":" + w.env["REDIS_PORT"], Path: "/0"}
			return w.with("REDIS_HOST", "REDIS_PORT", "REDIS_TLS", "REDIS_URL="+at.String())
		}},
		{"password in a file", func(t *testing.T, w *world) *world {
			w.keys.ConfigSet(t.Context(), "requirepass", password)
			w = as(t, w, func(o *redis.Options) { o.Password = password })
			return w.with("REDIS_PASSWORD_FILE=" + w.write("password", password+"\n"))
		}},
		{"database", func(t *testing.T, w *world) *world {
			return as(t, w, func(o *redis.Options) { o.DB = 3 }).with("REDIS_DB=3")
		}},
		{"URL with a database", func(t *testing.T, w *world) *world {
			return as(t, w, func(o *redis.Options) { o.DB = 3 }).with("REDIS_HOST", "REDIS_PORT", "REDIS_URL=redis://"+w.redis.Addr()+"/3")
		}},
		{"socket", func(t *testing.T, w *world) *world {
			w.redis = redistest.Start(t, "--unixsocket", w.path("redis.sock"))
			w.keys = w.redis.Client(t)
			return as(t, w, func(o *redis.Options) { o.DB = 1 }).with("REDIS_HOST", "REDIS_PORT", "REDIS_URL=unix://"+w.path("redis.sock")+"?db=1")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			w = tc.way(t, w.with("GITOPS_LOCK_TTL="+leaseTTL.String()))
			w.must(".", "git gitops clone -q remote.git work")
			w.wantLocks(w.lock())
			next := w.start(".", "bash", "-c", "git gitops clone remote.git next; exit $?")
			w.until("the next waits", func() bool { return w.queued() == 1 })
			w.renewed(w.sight())
			w.must("work", "echo 1 >counter && git commit -qam one && git gitops push -q")
			r := next.wait()
			wantCode(t, r, 0)
			for _, text := range []string{w.must("next", "cat counter"), w.must("remote.git", "git show main:counter")} {
				if text != "1" {
					t.Errorf("the counter says %s", text)
				}
			}
			w.must("next", "git gitops doctor && git gitops unlock") // doctor fails where a step of a lock is not allowed
			w.wantLocks()
			w.until("no keeper is left", func() bool { return len(w.keepers()) == 0 })
			if strings.Contains(r.stderr, password) || strings.Contains(r.stderr, "REDIS_TLS_INSECURE") {
				t.Errorf("stderr: %s", r.stderr)
			}
		})
	}
}

// TestTLS_insecure: each use without verification prints a warning.
func TestTLS_insecure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w = w.with("REDIS_TLS=true", "REDIS_PORT="+certificates(t).serve(t))
	wantCode(t, w.bash(".", "git gitops locks"), 69)
	w = w.with("REDIS_TLS_INSECURE=true")
	for _, command := range []string{
		"git gitops clone -q remote.git work", "git gitops locks", "git gitops events", "git -C work commit -q --allow-empty -m one && git gitops -C work push -q",
		"cd work && git gitops lock && git gitops unlock", "cd work && git gitops run -- true", "GITOPS_LOG=error git gitops locks",
	} {
		r := w.bash(".", command)
		wantCode(t, r, 0)
		wantText(t, r.ours(), "REDIS_TLS_INSECURE is set: the certificate of Redis is not checked")
	}
	w.doctor(".").want(t, "tls", "warn", "is not checked", "unset REDIS_TLS_INSECURE")
}

// TestTLS_settings: a wrong certificate setting is an error before anything is sent. The message
// does not contain it.
func TestTLS_settings(t *testing.T) {
	t.Parallel()
	certs, other := certificates(t), certificates(t)
	w := newWorld(t)
	w.seed("remote.git")
	w = w.with("REDIS_TLS=true")
	for _, tc := range []struct {
		settings []string
		words    []string
	}{
		{[]string{"REDIS_TLS_CA_CERT_B64=%%%"}, []string{"REDIS_TLS_CA_CERT_B64 is set", "it is not base64"}},
		{[]string{"REDIS_TLS_CA_CERT_B64=" + certs.pem}, []string{"REDIS_TLS_CA_CERT_B64 is set", "it is the PEM itself", "base64"}},
		{[]string{"REDIS_TLS_CA_CERT_B64=aGVsbG8="}, []string{"REDIS_TLS_CA_CERT_B64 is set", "holds no certificate"}},
		{[]string{"REDIS_TLS_CA_CERT=" + certs.file("ca.key")}, []string{"REDIS_TLS_CA_CERT is", "certificate in PEM"}},
		{[]string{"REDIS_TLS_CA_CERT=" + certs.file("none")}, []string{"REDIS_TLS_CA_CERT is", "no such file"}},
		{[]string{"REDIS_TLS_CERT=" + certs.file("client.pem")}, []string{"REDIS_TLS_KEY is not set", "because REDIS_TLS_CERT is set"}},
		{[]string{"REDIS_TLS_KEY=" + certs.file("client.key")}, []string{"REDIS_TLS_CERT is not set", "because REDIS_TLS_KEY is set"}},
		{[]string{"REDIS_TLS_CERT=" + certs.file("client.pem"), "REDIS_TLS_KEY=" + other.file("client.key")}, []string{"REDIS_TLS_CERT is", "belongs to the key in REDIS_TLS_KEY"}},
		{[]string{"REDIS_TLS=false", "REDIS_TLS_CA_CERT=" + certs.file("ca.pem")}, []string{"REDIS_TLS is", "want true, because REDIS_TLS_CA_CERT"}},
	} {
		r := w.with(tc.settings...).bash(".", "git gitops clone remote.git work")
		wantCode(t, r, 78)
		wantText(t, r.ours(), tc.words...)
		for _, file := range []string{"ca.pem", "ca.key", "client.key"} {
			if text := certs.content(t, file); strings.Contains(r.stderr, strings.Split(text, "\n")[1]) {
				t.Errorf("%s shows: %s", file, r)
			}
		}
		if r.stdout != "" || w.exists("work") {
			t.Errorf("something was done: %s", r)
		}
	}
	w.wantLocks()
}

// TestTLS_renewed: certificates that are renewed while a lock is held, and waited for, are read
// again for each connection. Until the files have the new ones, those who wait and the keeper go on
// trying.
func TestTLS_renewed(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	w := newWorld(t)
	w.seed("remote.git")
	port, server := certs.start(t, "--tls-auth-clients", "yes", "--appendonly", "yes", "--appendfsync", "always")
	w.redis, w.keys = server, server.Client(t)
	copied := func() {
		for _, file := range []string{"ca.pem", "client.pem", "client.key"} {
			w.write("tls/"+file, certs.content(t, file))
		}
	}
	copied()
	w = w.with("GITOPS_LOCK_TTL=60", "REDIS_PORT="+port, "REDIS_TLS=true", "REDIS_TLS_CA_CERT=tls/ca.pem",
		"REDIS_TLS_CERT="+w.path("tls/client.pem"), "REDIS_TLS_KEY="+w.path("tls/client.key"))
	w.must(".", "git gitops clone -q remote.git work")
	next := w.start(".", "bash", "-c", "git gitops clone remote.git next; exit $?")
	w.until("the next waits", func() bool { return w.queued() == 1 })
	token := w.token()
	server.Kill()
	certs.renew(t)
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("the next one has a message", func() bool { return strings.Contains(next.stderr.String(), "certificate") })
	copied()
	last := w.left()
	w.until("the keeper has renewed the lock", func() bool {
		before := last
		last = w.left()
		return last > before+time.Second
	})
	if now := w.token(); now != token {
		t.Fatalf("the lock is held by %q, not %q: %s %s", now, token, w.read("work/.git/gitops/keeper.log"), &next.stderr)
	}
	w.must("work", "git commit -q --allow-empty -m one && REDIS_TLS_CA_CERT=../tls/ca.pem git gitops push -q")
	wantCode(t, next.wait(), 0)
}

// certs is an authority, with what it has signed, as files: ca.pem; server.pem and server.key, for
// 127.0.0.1 and redis.example.com; client.pem and client.key.
type certs struct {
	dir, pem string // pem is that of ca.pem
	cert     *x509.Certificate
	key      crypto.PrivateKey
}

func certificates(t *testing.T) certs {
	t.Helper()
	c := certs{dir: t.TempDir()}
	c.pem = c.issue(t, "ca", func(cert *x509.Certificate) {
		cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage = true, true, x509.KeyUsageCertSign
		cert.NotAfter = cert.NotAfter.Add(time.Hour) // no certificate outlives it
	})
	pair, err := tls.X509KeyPair([]byte(c.pem), []byte(c.content(t, "ca.key")))
	if err != nil {
		t.Fatal(err)
	}
	c.cert, c.key = pair.Leaf, pair.PrivateKey
	c.issue(t, "server", func(cert *x509.Certificate) {
		cert.DNSNames, cert.IPAddresses = []string{"redis.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	c.issue(t, "client", func(*x509.Certificate) {})
	return c
}

func (c certs) file(name string) string { return filepath.Join(c.dir, name) }

func (c certs) content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(c.file(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// issue writes NAME.pem, a certificate for an hour that the authority signs, and NAME.key, and
// returns the first.
func (c certs) issue(t *testing.T, name string, change func(*x509.Certificate)) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	change(cert)
	parent, signer := c.cert, c.key
	if parent == nil { // the authority itself
		parent, signer = cert, crypto.PrivateKey(key)
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, content := range map[string][]byte{
		name + ".pem": text,
		name + ".key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(c.file(file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return string(text)
}

// renew puts another authority, and what it has issued, in the place of all.
func (c certs) renew(t *testing.T) {
	t.Helper()
	now := certificates(t)
	for _, file := range []string{"ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key"} {
		if err := os.WriteFile(c.file(file), []byte(now.content(t, file)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serve starts a Redis with TLS and returns its port. args come after, and so override, ours.
func (c certs) serve(t *testing.T, args ...string) string {
	t.Helper()
	port, _ := c.start(t, args...)
	return port
}

func (c certs) start(t *testing.T, args ...string) (string, *redistest.Server) {
	t.Helper()
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port, redistest.Start(t, append([]string{
		"--tls-port", port, "--tls-cert-file", c.file("server.pem"), "--tls-key-file", c.file("server.key"),
		"--tls-ca-cert-file", c.file("ca.pem"), "--tls-auth-clients", "no",
	}, args...)...)
}

// serveOld listens for TLS 1.1 at most, which OpenSSL does not speak any more, and returns its
// port.
func (c certs) serveOld(t *testing.T) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{c.pair(t)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	return answer(t, func(conn net.Conn) { _ = tls.Server(conn, config).Handshake() })
}

// serveTo wants a client certificate, and unlike Redis waits until the client has read what it says
// of that; it returns its port.
func (c certs) serveTo(t *testing.T) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{c.pair(t)}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	return answer(t, func(conn net.Conn) {
		_ = tls.Server(conn, config).Handshake()
		_, _ = io.Copy(io.Discard, conn)
	})
}

// terminate is a proxy that speaks TLS and has no Redis behind it; it returns its port.
func (c certs) terminate(t *testing.T) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{c.pair(t)}, MinVersion: tls.VersionTLS12}
	return answer(t, func(conn net.Conn) {
		_ = tls.Server(conn, config).Handshake()
		_, _ = conn.Read(make([]byte, 1))
	})
}

func (c certs) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.file("server.pem"), c.file("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// answer listens, does something with each connection, closes it, and returns the port.
func answer(t *testing.T, each func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			each(conn)
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// trusted is a world that speaks TLS and trusts the authority.
func (c certs) trusted(w *world) *world {
	return w.with("REDIS_TLS=true", "REDIS_TLS_CA_CERT="+c.file("ca.pem"))
}
