//go:build unix

package redisstore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

const secret = "s3cret-pass"

// checkFailure asks for the lock and checks the kind of failure. The error must come fast, as at a
// first contact, and without the password.
func checkFailure(t *testing.T, o redisstore.Options, want lock.Failure) {
	t.Helper()
	store := open(t, o)
	a, err := store.TryAcquire(t.Context(), lock.Try{Request: request(key)})
	var se *lock.StoreError
	for range 10 { // on a busy machine, a first contact may be too slow to find out
		if !errors.As(err, &se) || se.Failure != lock.Unreachable || want == lock.Unreachable {
			break
		}
		store = open(t, o)
		a, err = store.TryAcquire(t.Context(), lock.Try{Request: request(key)})
	}
	if !errors.As(err, &se) {
		t.Fatalf("got %+v, %v; want trouble %q", a, err, want)
	}
	t.Log(err)
	if se.Failure != want {
		t.Errorf("got trouble %q, want %q: %v", se.Failure, want, err)
	}
	if !strings.HasPrefix(err.Error(), "redis at "+o.Addrs[0]+": ") || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
}

func TestFailure_unreachable(t *testing.T) {
	t.Parallel()
	listen := func(t *testing.T, serve func(net.Conn)) redisstore.Options {
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
				serve(conn)
			}
		}()
		return redisstore.Options{Addrs: []string{l.Addr().String()}}
	}
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("refused", func(t *testing.T) {
		checkFailure(t, redisstore.Options{Addrs: []string{"127.0.0.1:" + port}}, lock.Unreachable)
	})
	t.Run("all nodes of a cluster", func(t *testing.T) {
		store := open(t, redisstore.Options{Addrs: []string{"127.0.0.1:" + port}, Cluster: true})
		_, list := store.List(t.Context())
		_, events := store.Events(t.Context(), time.Now())
		_, nodes := store.Nodes(t.Context())
		for _, err := range []error{list, events, nodes} {
			var se *lock.StoreError
			if !errors.As(err, &se) || se.Failure != lock.Unreachable || strings.Count(err.Error(), "redis at") != 1 {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("no such host", func(t *testing.T) {
		checkFailure(t, redisstore.Options{Addrs: []string{"redis.invalid:6379"}}, lock.Unreachable)
	})
	t.Run("no such socket", func(t *testing.T) {
		checkFailure(t, redisstore.Options{Network: "unix", Addrs: []string{filepath.Join(t.TempDir(), "none")}}, lock.Unreachable)
	})
	t.Run("no answer", func(t *testing.T) {
		var conns []net.Conn
		checkFailure(t, listen(t, func(c net.Conn) { conns = append(conns, c) }), lock.Unreachable)
	})
	t.Run("closed at once", func(t *testing.T) {
		checkFailure(t, listen(t, func(c net.Conn) { _ = c.Close() }), lock.Unreachable)
	})
	t.Run("closed in the middle of an answer", func(t *testing.T) {
		checkFailure(t, listen(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write([]byte("*2\r\n:1\r\n"))
			_ = c.Close()
		}), lock.Unreachable)
	})
}

func TestFailure_auth(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	if err := client.ConfigSet(t.Context(), "requirepass", secret).Err(); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]redisstore.Options{
		"no password":    {},
		"wrong password": {Password: secret + "x"},
		"wrong user":     {Username: "nobody", Password: secret},
	} {
		t.Run(name, func(t *testing.T) {
			o.Addrs = []string{server.Addr()}
			checkFailure(t, o, lock.AuthFailed)
		})
	}
	o := at(server)
	o.Password = secret
	if a := try(t, open(t, o), request(key)); !a.Granted {
		t.Errorf("got %+v", a)
	}
}

func TestFailure_needlessPassword(t *testing.T) {
	t.Parallel()
	o := at(redistest.Start(t))
	o.Username, o.Password = "nobody", secret
	checkFailure(t, o, lock.AuthFailed)
}

func TestFailure_forbidden(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	for name, rules := range map[string][]any{
		"no evalsha":           {"~*", "+@all", "-evalsha", "-eval"},
		"no eval":              {"~*", "+@all", "-eval"},
		"no keys":              {"+@all"},
		"only the lock's key":  {"~gitops:lock:*", "+@all"},
		"not all of our keys":  {"~gitops:lock:*", "~gitops:meta:*", "~gitops:queue:*", "~gitops:fence:*", "+@all"},
		"no command in script": {"~*", "+@all", "-zadd", "-set"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if err := client.FlushAll(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			if err := client.ScriptFlush(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			words := append([]any{"acl", "setuser", "ci", "reset", "on", ">" + secret}, rules...)
			if err := client.Do(ctx, words...).Err(); err != nil {
				t.Fatal(err)
			}
			o := at(server)
			o.Username, o.Password = "ci", secret
			checkFailure(t, o, lock.Forbidden)
		})
	}
}

func TestFailure_readOnly(t *testing.T) {
	t.Parallel()
	checkFailure(t, at(redistest.Start(t, "--replicaof", "127.0.0.1 1")), lock.ReadOnly)
}

func TestFailure_loading(t *testing.T) {
	t.Parallel()
	t.Run("master down", func(t *testing.T) {
		checkFailure(t, at(redistest.Start(t, "--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no")), lock.Loading)
	})
	t.Run("reads its data", func(t *testing.T) {
		server := redistest.Start(t, "--key-load-delay", "30000", "--loading-process-events-interval-bytes", "1024")
		client := server.Client(t)
		for i := range 1000 {
			client.Set(t.Context(), "k"+time.Duration(i).String(), strings.Repeat("x", 100), 0)
		}
		if err := client.Save(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		server.Kill()
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		checkFailure(t, at(server), lock.Loading)
		server.Kill()
	})
	t.Run("cluster without slots", func(t *testing.T) {
		checkFailure(t, at(redistest.Start(t, "--cluster-enabled", "yes")), lock.Moving)
	})
}

func TestFailure_persistence(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	ctx := t.Context()
	defer server.Kill() // it would not stop before it could save
	if err := os.MkdirAll(filepath.Join(server.Dir, "dump.rdb", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	client.ConfigSet(ctx, "save", "3600 1")
	client.Set(ctx, "x", "y", time.Minute)
	if err := client.BgSave(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	gittest.Until(t, "saving fails", func() bool {
		return strings.Contains(client.Info(ctx, "persistence").Val(), "rdb_last_bgsave_status:err")
	})
	checkFailure(t, at(server), lock.Persistence)
}

func TestFailure_outOfMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	client := server.Client(t)
	ctx := t.Context()
	store := open(t, at(server))
	holder := request(key)
	try(t, store, holder)
	if _, err := store.Renew(ctx, holder.Hold(), lock.RenewOptions{}); err != nil {
		t.Fatal(err)
	}
	other := request(lock.Key{Repo: "h/other", Branch: "x"})
	try(t, store, other)
	release(t, store, other, lock.Freed) // the scripts are known now
	client.ConfigSet(ctx, "maxmemory", "1")

	// What is held can still be renewed and released: the ways out need no memory.
	if n, err := store.Renew(ctx, holder.Hold(), lock.RenewOptions{}); n.Status != lock.Renewed || err != nil {
		t.Errorf("renew: %+v, %v", n, err)
	}
	if got, err := store.Release(ctx, key, holder.Token); got != lock.Freed || err != nil {
		t.Errorf("release: %d, %v", got, err)
	}
	checkFailure(t, at(server), lock.OutOfMemory)
}

func TestFailure_notALock(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"lock", "queue"} {
		t.Run(kind, func(t *testing.T) {
			server := redistest.Start(t)
			server.Client(t).SAdd(t.Context(), "gitops:"+kind+":{"+key.ID()+"}", "y")
			checkFailure(t, at(server), lock.NotOurs)
		})
	}
}

func TestFailure_refused(t *testing.T) {
	t.Parallel()
	o := at(redistest.Start(t))
	o.DB = 99
	checkFailure(t, o, lock.NoDatabase)
}

func TestFailure_tls(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t, "127.0.0.1")
	_, wrongPool := certificate(t, "127.0.0.1")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		keyFile:  {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, "--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no")
	secure := "127.0.0.1:" + port
	trust := func(pool *x509.CertPool, name string) *tls.Config {
		return &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12}
	}

	if a := try(t, open(t, redisstore.Options{Addrs: []string{secure}, TLS: trust(pool, "")}), request(key)); !a.Granted {
		t.Errorf("got %+v", a)
	}
	for name, tc := range map[string]struct {
		options redisstore.Options
		want    lock.Failure
	}{
		"wrong CA":                 {redisstore.Options{Addrs: []string{secure}, TLS: trust(wrongPool, "")}, lock.Untrusted},
		"wrong name":               {redisstore.Options{Addrs: []string{secure}, TLS: trust(pool, "redis.example.com")}, lock.WrongName},
		"TLS client, plain server": {redisstore.Options{Addrs: []string{server.Addr()}, TLS: trust(pool, "")}, lock.TLSAbsent},
	} {
		t.Run(name, func(t *testing.T) { checkFailure(t, tc.options, tc.want) })
	}
	t.Run("no answer after a first contact", func(t *testing.T) { // as of a server that hangs, and comes back
		store := open(t, redisstore.Options{Addrs: []string{secure}, TLS: trust(pool, "")})
		waiter := request(key)
		try(t, store, waiter)
		if err := server.Client(t).Do(t.Context(), "client", "kill", "type", "normal").Err(); err != nil {
			t.Fatal(err)
		}
		if err := server.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = server.Signal(syscall.SIGCONT) }()
		for range 2 { // on the old connection, and on a new one
			var se *lock.StoreError
			if _, err := store.TryAcquire(t.Context(), lock.Try{Request: waiter}); !errors.As(err, &se) || se.Failure != lock.Unreachable {
				t.Errorf("got %v, want what a waiter waits out", err)
			}
		}
	})
	t.Run("plain client, TLS server", func(t *testing.T) {
		checkFailure(t, redisstore.Options{Addrs: []string{secure}}, lock.Unreachable) // it just hangs up
	})
	t.Run("client without certificate", func(t *testing.T) {
		if err := server.Client(t).ConfigSet(t.Context(), "tls-auth-clients", "yes").Err(); err != nil {
			t.Fatal(err)
		}
		config := trust(pool, "")
		config.MaxVersion = tls.VersionTLS12 // 1.3 tells it after the handshake, often by a reset
		checkFailure(t, redisstore.Options{Addrs: []string{secure}, TLS: config}, lock.TLSFailed)
	})
}

// certificate is a self-signed one for a loopback address, and the pool that trusts it.
func certificate(t *testing.T, ip string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

// A cancelled context is the caller's doing and no trouble of the store.
func TestFailure_cancelled(t *testing.T) {
	t.Parallel()
	store := open(t, at(redistest.Start(t)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var se *lock.StoreError
	if _, err := store.TryAcquire(ctx, lock.Try{Request: request(key)}); !errors.Is(err, context.Canceled) || errors.As(err, &se) {
		t.Errorf("got %v", err)
	}
	if err := store.Wait(ctx, key, lock.NewToken(), time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
