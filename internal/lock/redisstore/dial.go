package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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

// dialer connects, and then shakes hands by itself, so that trouble with TLS can be told from trouble
// with the network.
func dialer(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil || config == nil {
			return conn, err
		}
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
}
