package redisstore

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestDial_old: a connection that was begun long ago, and may have been closed since, is not used, and neither is a failure.
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
