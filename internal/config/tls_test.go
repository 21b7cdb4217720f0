package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned returns a certificate for redis.test, which is its own authority,
// and its key, both in PEM.
func selfSigned(t *testing.T) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"redis.test"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// serve starts a TLS server that wants a client certificate and returns its
// port. It says hello and hangs up, once for each connection.
func serve(t *testing.T, certPEM, keyPEM string) string {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(certPEM))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// TestLoad_tlsConnects connects with the configurations that Load builds.
func TestLoad_tlsConnects(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t)
	otherCert, _ := selfSigned(t)
	port := serve(t, cert, key)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeFile(t, certFile, cert)
	writeFile(t, keyFile, key)
	b64 := base64.StdEncoding.EncodeToString([]byte(cert))
	wrapped := " " + b64[:64] + "\r\n\t" + b64[64:] + "\n"

	base := vars{
		"REDIS_HOST": "127.0.0.1", "REDIS_PORT": port, "REDIS_TLS": "on", "REDIS_TLS_CERT": certFile, "REDIS_TLS_KEY": keyFile,
	}
	tests := []struct {
		name string
		more vars
		want bool
	}{
		{"authority from a file", vars{"REDIS_TLS_CA_CERT": certFile, "REDIS_TLS_SERVER_NAME": "redis.test"}, true},
		{"authority inline", vars{"REDIS_TLS_CA_CERT_B64": wrapped, "REDIS_TLS_SERVER_NAME": "redis.test"}, true},
		{"the name is checked", vars{"REDIS_TLS_CA_CERT": certFile}, false},
		{"the system does not know it", vars{"REDIS_TLS_SERVER_NAME": "redis.test"}, false},
		{"another authority", vars{
			"REDIS_TLS_CA_CERT_B64": base64.StdEncoding.EncodeToString([]byte(otherCert)), "REDIS_TLS_SERVER_NAME": "redis.test",
		}, false},
		{"not verified", vars{"REDIS_TLS_INSECURE": "true"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := base.with()
			for name, text := range tt.more {
				env[name] = text
			}
			cfg, err := Load(env.look, nil)
			if err != nil {
				t.Fatal(err)
			}
			if insecure := tt.more["REDIS_TLS_INSECURE"] != ""; cfg.Redis.Insecure != insecure {
				t.Errorf("Insecure is %v", cfg.Redis.Insecure)
			}
			checkPrivate(t, key, prints(t, cfg))
			got := ""
			conn, err := tls.Dial(cfg.Redis.Network, cfg.Redis.Addrs[0], cfg.Redis.TLS)
			if err == nil {
				text, readErr := io.ReadAll(conn)
				got, err = string(text), readErr
				_ = conn.Close()
			}
			if (got == "hello") != tt.want {
				t.Errorf("connected: %v, want %v (%v)", got == "hello", tt.want, err)
			}
			if unknown := (*tls.CertificateVerificationError)(nil); !tt.want && !errors.As(err, &unknown) {
				t.Errorf("got %v, want a failed verification", err)
			}
		})
	}
}

// checkPrivate checks that no line of a key in PEM is in text.
func checkPrivate(t *testing.T, keyPEM, text string) {
	t.Helper()
	for line := range strings.Lines(keyPEM) {
		if !strings.HasPrefix(line, "-----") && strings.Contains(text, strings.TrimSpace(line)) {
			t.Errorf("the private key shows in %s", text)
		}
	}
}

func TestLoad_tlsServerName(t *testing.T) {
	tests := []struct {
		env  vars
		want string
	}{
		{vars{"REDIS_HOST": "redis.example"}, "redis.example"},
		{vars{"REDIS_HOST": "[::1]"}, "::1"},
		{vars{"REDIS_HOST": "h", "REDIS_TLS_SERVER_NAME": "other"}, "other"},
		{vars{"REDIS_URL": "rediss://h:1"}, "h"},
		{vars{"REDIS_URL": "redis://h:1"}, "h"},
		{vars{"REDIS_SENTINEL_MASTER": "m", "REDIS_SENTINEL_ADDRS": "a,b"}, ""},
		{vars{"REDIS_CLUSTER_ADDRS": "a,b"}, ""},
		{vars{"REDIS_CLUSTER_ADDRS": "a,b", "REDIS_TLS_SERVER_NAME": "x"}, "x"},
	}
	for _, tt := range tests {
		tt.env["REDIS_TLS"] = "1"
		cfg, err := Load(tt.env.look, nil)
		if err != nil {
			t.Errorf("%v: %v", tt.env, err)
			continue
		}
		c := cfg.Redis.TLS
		if c == nil || c.ServerName != tt.want || c.MinVersion != tls.VersionTLS12 || c.InsecureSkipVerify || c.RootCAs != nil {
			t.Errorf("%v: got %+v, want server name %q, TLS 1.2, verified by the system", tt.env, c, tt.want)
		}
	}
}

func TestLoad_tlsBad(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t)
	_, otherKey := selfSigned(t)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	otherKeyFile, notPEM, missing := filepath.Join(dir, "other.pem"), filepath.Join(dir, "not.pem"), filepath.Join(dir, "missing.pem")
	writeFile(t, certFile, cert)
	writeFile(t, keyFile, key)
	writeFile(t, otherKeyFile, otherKey)
	writeFile(t, notPEM, "not a certificate")
	b64 := base64.StdEncoding.EncodeToString([]byte(cert))
	tests := []struct {
		env   vars
		names string
	}{
		// set up, but not switched on
		{vars{"REDIS_TLS_CA_CERT": certFile}, "REDIS_TLS"},
		{vars{"REDIS_TLS": "off", "REDIS_TLS_CA_CERT_B64": b64, "REDIS_TLS_SERVER_NAME": "x"}, "REDIS_TLS"},
		{vars{"REDIS_URL": "redis://h", "REDIS_TLS_INSECURE": "true"}, "REDIS_TLS"},
		{vars{"REDIS_TLS": "maybe", "REDIS_TLS_CERT": certFile}, "REDIS_TLS"},

		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT_B64": "%%%"}, "REDIS_TLS_CA_CERT_B64"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT_B64": cert}, "REDIS_TLS_CA_CERT_B64"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT_B64": "aGVsbG8="}, "REDIS_TLS_CA_CERT_B64"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT_B64": b64, "REDIS_TLS_CA_CERT": certFile}, "REDIS_TLS_CA_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT": missing}, "REDIS_TLS_CA_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT": notPEM}, "REDIS_TLS_CA_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CA_CERT": keyFile}, "REDIS_TLS_CA_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CERT": certFile}, "REDIS_TLS_KEY"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_KEY": keyFile}, "REDIS_TLS_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CERT": missing, "REDIS_TLS_KEY": missing}, "REDIS_TLS_CERT REDIS_TLS_KEY"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CERT": certFile, "REDIS_TLS_KEY": otherKeyFile}, "REDIS_TLS_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_CERT": keyFile, "REDIS_TLS_KEY": certFile}, "REDIS_TLS_CERT"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_SERVER_NAME": "a b"}, "REDIS_TLS_SERVER_NAME"},
		{vars{"REDIS_TLS": "on", "REDIS_TLS_INSECURE": "perhaps"}, "REDIS_TLS_INSECURE"},
	}
	for _, tt := range tests {
		_, err := Load(tt.env.with().look, nil)
		if got := strings.Join(failing(t, err), " "); got != tt.names {
			t.Errorf("%v: error about %q, want %q: %v", tt.env, got, tt.names, err)
		}
		if err != nil {
			checkPrivate(t, key, err.Error())
			checkPrivate(t, otherKey, err.Error())
		}
	}
}

// TestLoad_noCA: what is wrong with a file of certificates is said.
func TestLoad_noCA(t *testing.T) {
	dir := t.TempDir()
	certPEM, _ := selfSigned(t)
	block, _ := pem.Decode([]byte(certPEM))
	writeFile(t, filepath.Join(dir, "text"), "hello")
	writeFile(t, filepath.Join(dir, "der"), string(block.Bytes))
	for name, want := range map[string]string{
		"text":    "it holds no certificate in PEM",
		"der":     "it is in DER, not in PEM: openssl x509 -inform der",
		"missing": "no such file",
		".":       "is a directory",
	} {
		_, err := Load(vars{"REDIS_HOST": "h", "REDIS_TLS": "true", "REDIS_TLS_CA_CERT": filepath.Join(dir, name)}.look, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "REDIS_TLS_CA_CERT") != 1 {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
