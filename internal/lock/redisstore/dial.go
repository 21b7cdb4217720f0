package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// handshakeError is a TLS handshake that failed on a connection that stood.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string {
	if errors.Is(e.err, context.DeadlineExceeded) {
		return "TLS handshake: no answer in time, as from a server that speaks no TLS"
	}
	return fmt.Sprintf("TLS handshake: %v", e.err)
}

func (e *handshakeError) Unwrap() error { return e.err }

// dialer makes connections. One can be begun before it is asked for, which saves the time of the first one's handshakes.
type dialer struct {
	tls *tls.Config // nil: no TLS

	mu    sync.Mutex
	early chan dialed // nil: none was begun, or it is taken
	to    [2]string   // where it leads: network and address
}

type dialed struct {
	conn net.Conn
	err  error
	at   time.Time
}

// earlyLife is how long a connection that was begun is trusted. A server, or what stands between, closes one that nobody uses.
const earlyLife = 5 * time.Second

// begin starts to connect.
func (d *dialer) begin(network, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.early != nil {
		return
	}
	early := make(chan dialed, 1)
	d.early, d.to = early, [2]string{network, addr}
	go func() {
		conn, err := d.connect(context.Background(), network, addr)
		early <- dialed{conn, err, time.Now()}
	}()
}

// taken is the connection that was begun, if it leads there; nil otherwise.
func (d *dialer) taken(to [2]string) chan dialed {
	d.mu.Lock()
	defer d.mu.Unlock()
	early := d.early
	if to != d.to {
		return nil
	}
	d.early = nil
	return early
}

// dial is what the client connects with.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	early := d.taken([2]string{network, addr})
	if early == nil {
		return d.connect(ctx, network, addr)
	}
	select {
	case one := <-early:
		if time.Since(one.at) < earlyLife {
			return one.conn, one.err
		}
		if one.conn != nil {
			_ = one.conn.Close()
		}
		return d.connect(ctx, network, addr)
	case <-ctx.Done():
		go hangUp(early)
		return nil, ctx.Err()
	}
}

// close ends a connection that was begun and not asked for.
func (d *dialer) close() {
	if early := d.taken(d.to); early != nil {
		go hangUp(early)
	}
}

func hangUp(early chan dialed) {
	if one := <-early; one.conn != nil {
		_ = one.conn.Close()
	}
}

// connect shakes hands by itself, so that trouble with TLS can be told from trouble with the network.
func (d *dialer) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var plain net.Dialer
	conn, err := plain.DialContext(ctx, network, addr)
	if err != nil || d.tls == nil {
		return conn, err
	}
	config := d.tls
	if config.ServerName == "" { // as for Sentinel and Cluster: each address stands for itself
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &handshakeError{err}
	}
	return secure, nil
}
