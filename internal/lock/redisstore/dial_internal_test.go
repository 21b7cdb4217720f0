package redisstore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestDial_old: a connection that was begun long ago, and may have been closed since, is not used,
// and neither is a failure.
func TestDial_old(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	addr := server.Addr().String()
	old, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []dialed{{conn: old}, {err: errors.New("refused")}} {
		one.at = time.Now().Add(-earlyLife)
		d := &dialer{early: make(chan dialed, 1), to: [2]string{"tcp", addr}}
		d.early <- one
		conn, err := d.dial(t.Context(), "tcp", addr)
		if err != nil || conn == old {
			t.Fatalf("the old one: %v", err)
		}
		_ = conn.Close()
	}
	if err := old.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the old one is open: %v", err)
	}
}

// TestHandshake: a server that has accepted the connection has more time for its first handshake
// than one that swallows packets, and no more once it has answered.
func TestHandshake(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"busy"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, MinVersion: tls.VersionTLS12}
	for name, contacted := range map[string]bool{"first": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &dialer{
				tls:       &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // this is about time
				contacted: func() bool { return contacted },
				dialOne: func(context.Context, string, string) (net.Conn, error) {
					one, other := net.Pipe()
					go func() {
						time.Sleep(dialTimeout + 500*time.Millisecond) // as on a busy machine
						_ = tls.Server(other, server).Handshake()
						_, _ = io.Copy(io.Discard, other)
					}()
					return one, nil
				},
			}
			var err error
			for range 3 { // one may come too late on a machine that is busy
				var conn net.Conn
				if conn, err = d.connect(t.Context(), "unix", "busy"); err == nil {
					_ = bare(conn).(*tls.Conn).NetConn().Close()
					break
				}
				if contacted {
					break
				}
			}
			if (err != nil) != contacted {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestReach: an address that swallows packets, or refuses, leaves the time to try the others of its
// name.
func TestReach(t *testing.T) {
	t.Parallel()
	swallow := func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	refuse := func(context.Context) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	one, other := net.Pipe()
	defer func() { _, _ = one.Close(), other.Close() }()
	answer := func(context.Context) (net.Conn, error) { return one, nil }
	for name, tt := range map[string]struct {
		each []func(context.Context) (net.Conn, error)
		want []error // one of them
	}{
		"the first swallows":        {[]func(context.Context) (net.Conn, error){swallow, answer}, []error{nil}},
		"two swallow":               {[]func(context.Context) (net.Conn, error){swallow, swallow, answer}, []error{nil}},
		"the first refuses":         {[]func(context.Context) (net.Conn, error){refuse, answer}, []error{nil}},
		"the first alone":           {[]func(context.Context) (net.Conn, error){answer}, []error{nil}},
		"all refuse":                {[]func(context.Context) (net.Conn, error){refuse, refuse}, []error{syscall.ECONNREFUSED}},
		"all swallow":               {[]func(context.Context) (net.Conn, error){swallow, swallow}, []error{context.DeadlineExceeded}},
		"one swallows, one refuses": {[]func(context.Context) (net.Conn, error){swallow, refuse}, []error{context.DeadlineExceeded, syscall.ECONNREFUSED}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &dialer{
				lookup: func(context.Context, string) ([]string, error) {
					return []string{"192.0.2.0", "192.0.2.1", "192.0.2.2"}[:len(tt.each)], nil
				},
				dialOne: func(ctx context.Context, _, addr string) (net.Conn, error) {
					if until, _ := ctx.Deadline(); time.Until(until) > dialTimeout {
						t.Errorf("it would be tried for %s", time.Until(until))
					}
					return tt.each[addr[len("192.0.2.")]-'0'](ctx)
				},
			}
			conn, err := d.connect(t.Context(), "tcp", "redis.example.com:6379")
			if !slices.ContainsFunc(tt.want, func(want error) bool { return errors.Is(err, want) }) || (conn == nil) != (err != nil) {
				t.Errorf("%v, %v", conn, err)
			}
		})
	}
}
