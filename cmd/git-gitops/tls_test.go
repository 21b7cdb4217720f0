//go:build unix

package main

import (
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
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

// certs is an authority, with what it has signed, as files: ca.pem; server.pem and server.key, for 127.0.0.1 and
// redis.example.com; client.pem and client.key.
type certs struct {
	dir, pem string // pem is that of ca.pem
	cert     *x509.Certificate
	key      *ecdsa.PrivateKey
}

func certificates(t *testing.T) certs {
	t.Helper()
	c := certs{dir: t.TempDir()}
	c.pem = c.issue(t, "ca", func(cert *x509.Certificate) {
		cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	block, _ := pem.Decode([]byte(c.pem))
	var err error
	if c.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	if c.key, err = x509.ParseECPrivateKey(c.read(t, "ca.key")); err != nil {
		t.Fatal(err)
	}
	c.issue(t, "server", func(cert *x509.Certificate) {
		cert.DNSNames, cert.IPAddresses = []string{"redis.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	c.issue(t, "client", func(*x509.Certificate) {})
	return c
}

func (c certs) file(name string) string { return filepath.Join(c.dir, name) }

// read is what the first block of a file holds.
func (c certs) read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(c.file(name))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	return block.Bytes
}

// issue writes NAME.pem, a certificate for an hour that the authority signs, and NAME.key, and returns the first.
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
		parent, signer = cert, key
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

// serveOld listens for TLS 1.1 at most, which OpenSSL does not speak any more, and returns its port.
func (c certs) serveOld(t *testing.T) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{c.pair(t)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	return answer(t, func(conn net.Conn) { _ = tls.Server(conn, config).Handshake() })
}

// serveTo wants a client certificate, and unlike Redis waits until the client has read what it says of that; it returns
// its port.
func (c certs) serveTo(t *testing.T) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{c.pair(t)}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	return answer(t, func(conn net.Conn) {
		_ = tls.Server(conn, config).Handshake()
		_, _ = io.Copy(io.Discard, conn)
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
