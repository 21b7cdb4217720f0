package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// handshakeError is a TLS handshake that failed on a connection that stood.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string {
	if errors.Is(e.err, context.DeadlineExceeded) || errors.Is(e.err, os.ErrDeadlineExceeded) {
		return "TLS handshake: no answer in time, as from a server that speaks no TLS"
	}
	return fmt.Sprintf("TLS handshake: %v", e.err)
}

func (e *handshakeError) Unwrap() error { return e.err }

// dialer makes connections. One can be begun before it is asked for, which saves the time of the
// first one's handshakes.
type dialer struct {
	tls       *tls.Config                 // nil: no TLS
	readTLS   func() (*tls.Config, error) // nil: that stays as it is
	contacted func() bool                 // whether the server has answered before; nil: it has not

	// For tests; nil is the real network.
	dialOne func(ctx context.Context, network, addr string) (net.Conn, error)
	lookup  func(ctx context.Context, host string) ([]string, error)

	mu    sync.Mutex
	early chan dialed // nil: none was begun, or it is taken
	to    [2]string   // where it leads: network and address
}

type dialed struct {
	conn net.Conn
	err  error
	at   time.Time
}

// earlyLife is how long a connection that was begun is trusted. A server, or what stands between,
// closes one that nobody uses.
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

// connect does the TLS handshake itself, so that a failure of TLS is not taken for one of the
// network.
func (d *dialer) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	reaching, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := d.reach(reaching, network, addr)
	if err != nil {
		return nil, err
	}
	if d.tls == nil {
		return remember(raw, nil), nil
	}
	shaking := reaching
	if d.contacted == nil || !d.contacted() {
		shaking, cancel = context.WithTimeout(ctx, shakeTimeout)
		defer cancel()
	}
	config := d.tls.Clone()
	if d.readTLS != nil {
		if now, err := d.readTLS(); err == nil { // else it is being replaced
			config = now
		}
	}
	certificates := config.Certificates
	if config.ServerName == "" { // as for Sentinel and Cluster: each address stands for itself
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	wanted := new(atomic.Bool)
	config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		wanted.Store(true)
		for i := range certificates { // as without this function
			if r.SupportsCertificate(&certificates[i]) == nil {
				return &certificates[i], nil
			}
		}
		return new(tls.Certificate), nil
	}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(shaking); err != nil {
		_ = raw.Close()
		return nil, &handshakeError{err}
	}
	return remember(secure, wanted), nil
}

// nextAddress is how long an address of a name has before the next one is tried beside it.
const nextAddress = 300 * time.Millisecond

// reach connects to the first address of a name that answers. One that swallows packets must not
// take all the time, and net.Dialer gives each two seconds, which is all there is.
func (d *dialer) reach(ctx context.Context, network, addr string) (net.Conn, error) {
	dial, lookup := d.dialOne, d.lookup
	if dial == nil {
		dial, lookup = new(net.Dialer).DialContext, net.DefaultResolver.LookupHost
	}
	host, port, err := net.SplitHostPort(addr)
	if network != "tcp" || err != nil || host == "" || net.ParseIP(host) != nil {
		return dial(ctx, network, addr)
	}
	ips, err := lookup(ctx, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if len(ips) == 1 {
		return dial(ctx, network, net.JoinHostPort(ips[0], port))
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, len(ips))
	begun, failed := 0, 0
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			if begun < len(ips) {
				to := net.JoinHostPort(ips[begun], port)
				begun++
				go func() {
					c, err := dial(ctx, network, to)
					results <- dialed{conn: c, err: err}
				}()
				next.Reset(nextAddress)
			}
		case one := <-results:
			if one.err == nil {
				go func(others int) {
					for range others {
						hangUp(results)
					}
				}(begun - failed - 1)
				return one.conn, nil
			}
			if failed++; failed == len(ips) {
				return nil, one.err
			}
			next.Reset(0)
		}
	}
}
