package redisstore

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// firstMost is how much of a server's first words is kept.
	firstMost = 512
	// lastWords is how long to listen for what the server said before it closed a connection.
	lastWords = 100 * time.Millisecond
)

// conn is a connection that remembers the server's first words. One that takes no more clients, or
// none from elsewhere, says so and closes; the client takes that for its answer to HELLO, goes on,
// and then finds a closed connection.
type conn struct {
	net.Conn
	certificate *atomic.Bool // whether the server asked for ours; nil without TLS

	mu    sync.Mutex
	first []byte // at most firstMost
	heard int    // bytes in all
}

// plainConn is a conn that the client may look at for a close by the server before it uses it
// again.
type plainConn struct {
	*conn
	syscall.Conn
}

func remember(c net.Conn, certificate *atomic.Bool) net.Conn {
	kept := &conn{Conn: c, certificate: certificate}
	if raw, ok := c.(syscall.Conn); ok {
		return plainConn{kept, raw}
	}
	return kept
}

// bare is the connection itself.
func bare(c net.Conn) net.Conn {
	switch kept := c.(type) {
	case plainConn:
		return kept.conn.Conn
	case *conn:
		return kept.Conn
	default:
		return c
	}
}

// tlsState is nil for a connection without TLS.
func tlsState(c net.Conn) *tls.ConnectionState {
	secure, ok := bare(c).(*tls.Conn)
	if !ok {
		return nil
	}
	state := secure.ConnectionState()
	return &state
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	c.heard += n
	c.first = append(c.first, b[:min(n, firstMost-len(c.first))]...)
	c.mu.Unlock()
	if err != nil && dropped(err) {
		err = c.ended(err)
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && dropped(err) {
		_ = c.SetReadDeadline(time.Now().Add(lastWords))
		_, _ = c.Read(make([]byte, firstMost))
		err = c.ended(err)
	}
	return n, err
}

// ended is the end of a connection by the other side.
func (c *conn) ended(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &endedError{err: err, silent: c.heard == 0, certificate: c.certificate != nil && c.certificate.Load()}
	line, _, whole := bytes.Cut(c.first, []byte("\r\n"))
	if whole && len(line) > 1 && line[0] == '-' && c.heard == len(line)+2 {
		e.reply = string(line[1:])
	}
	return fmt.Errorf("%w", e) // the client takes one layer off an error of its first command
}

// endedError is a connection that the other side ended.
type endedError struct {
	err         error
	reply       string // an error that was all it ever said; "" if there was none
	silent      bool   // it never said anything
	certificate bool   // it had asked for our certificate
}

func (e *endedError) Error() string { return e.err.Error() }
func (e *endedError) Unwrap() error { return e.err }
