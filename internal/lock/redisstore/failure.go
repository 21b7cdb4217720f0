package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// replies maps the first word of an error that Redis answers to its kind: NOPERM, that the ACL
// lacks a command or a key, MISCONF, that it cannot save to disk, and so on. Source: server.c and
// acl.c of Redis 7 (shared.*err), and redis.io/docs "Redis serialization protocol".
var replies = map[string]lock.Failure{
	"NOAUTH":      lock.AuthFailed,
	"WRONGPASS":   lock.AuthFailed,
	"NOPERM":      lock.Forbidden,
	"READONLY":    lock.ReadOnly,
	"NOREPLICAS":  lock.ReadOnly,
	"MISCONF":     lock.Persistence,
	"LOADING":     lock.Loading,
	"MASTERDOWN":  lock.Loading,
	"CLUSTERDOWN": lock.Moving,
	"UNBLOCKED":   lock.Loading, // it became a replica while we were blocked on it
	"TRYAGAIN":    lock.Moving,
	"BUSY":        lock.Loading,
	"OOM":         lock.OutOfMemory,
	"WRONGTYPE":   lock.NotALock,
	"DENIED":      lock.Protected,
	"MOVED":       lock.ClusterNode,
	"ASK":         lock.ClusterNode,
}

// at says in an error where Redis is, without credentials.
func (s *Store) at(err error) error { return fmt.Errorf("redis at %s: %w", s.addr, err) }

// failure classifies an error of the client, once.
func (s *Store) failure(err error) error {
	var known *lock.StoreError
	if errors.Is(err, context.Canceled) || errors.As(err, &known) {
		return err
	}
	e := &lock.StoreError{Failure: lock.Refused, Err: err, Ambiguous: true}
	// What was refused may have been refused in the middle. Only without a connection nothing was
	// sent.
	defer func() {
		e.Ambiguous = e.Ambiguous && s.shaken.Load()
		e.Err = s.at(e.Err)
	}()

	noMaster := s.noMaster(err)
	if noMaster != nil {
		e.Err = noMaster
	}
	var reply redis.Error
	switch _, cluster := s.client.(*redis.ClusterClient); {
	case !errors.As(err, &reply):
	case noMaster != nil && errors.Is(err, redis.Nil):
		e.Failure = lock.Unreachable
		return e
	case cluster && (strings.HasPrefix(reply.Error(), "MOVED ") || strings.HasPrefix(reply.Error(), "ASK ")):
		e.Failure = lock.Moving // slots move faster than the client follows
		return e
	case cluster && errors.Is(err, redis.Nil): // in place of an address
		e.Failure = lock.NoEndpoint
		e.Err = errors.New("the nodes of the Cluster announce no address")
		return e
	default:
		s.refused(e, reply.Error())
		return e
	}
	var end *endedError
	if errors.As(err, &end) && end.reply != "" {
		e.Err = errors.New(end.reply)
		s.refused(e, end.reply)
		return e
	}
	var shake *handshakeError
	if errors.As(err, &shake) && s.wasContacted() && (dropped(err) || errors.Is(err, context.DeadlineExceeded)) {
		e.Err = fmt.Errorf("TLS handshake: %w", shake.err) // it did before: it hangs, or restarts
		e.Failure = lock.Unreachable
		return e
	}
	if errors.As(err, &shake) || isTLS(err) {
		e.Failure = tlsFailure(err)
		renewed := e.Failure == lock.Untrusted || e.Failure == lock.Expired || e.Failure == lock.WantsCert
		if renewed && s.dialer.readTLS != nil && s.wasContacted() {
			e.Failure = lock.Rotated
		}
		return e
	}
	var op *net.OpError
	switch {
	case end != nil && end.certificate && !s.wasContacted():
		e.Failure = lock.WantsCert
		e.Err = fmt.Errorf("the server asked for a client certificate, and ended the connection right after the TLS handshake: %w", err)
	case end != nil && end.silent && !s.wasContacted():
		e.Failure = lock.Unreachable
		e.Err = fmt.Errorf("%w: the connection was ended before any answer, as by a server that wants TLS, or a proxy"+
			" whose Redis is down, or that does not know HELLO (twemproxy)", err)
	case errors.As(err, &op):
		e.Failure = lock.Unreachable
		e.Ambiguous = op.Op != "dial"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		e.Failure = lock.Unreachable
		if noMaster == nil {
			e.Err = errors.New("no answer in time")
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, redis.ErrClosed):
		e.Failure = lock.Unreachable
		e.Err = errors.New("the connection was closed")
	case isNet(err):
		e.Failure = lock.Unreachable
	}
	return e
}

// refused fills in an error that the server answered.
func (s *Store) refused(e *lock.StoreError, text string) {
	e.Failure = replyFailure(text)
	switch {
	case e.Failure == lock.AuthFailed && s.credentials != nil && s.wasContacted():
		e.Failure = lock.Rotated
	case e.Failure == lock.AuthFailed && s.padded:
		e.Err = fmt.Errorf("%w (the password that is set begins or ends with white space: a line break from a file?)", e.Err)
	case e.Failure == lock.Forbidden, e.Failure == lock.NotALock:
		if more := placed(text); more != text {
			e.Err = errors.New(more)
		}
	}
}

// loginRefused reports whether a login was refused, and the password has changed since.
func (s *Store) loginRefused(err error) bool {
	var reply redis.Error
	return s.credentials != nil && errors.As(err, &reply) && replyFailure(reply.Error()) == lock.AuthFailed && s.credentials.changed()
}

// noMaster is what the sentinels answered when none could name the master, each answer once; nil
// when err is something else.
func (s *Store) noMaster(err error) error {
	var all interface{ Unwrap() []error }
	switch {
	case s.master == "" || !errors.As(err, &all):
		return nil
	case errors.Is(err, redis.Nil):
		return fmt.Errorf("no sentinel knows a master named %q", s.master)
	}
	var answers []string
	for _, one := range all.Unwrap() {
		if !slices.Contains(answers, one.Error()) {
			answers = append(answers, one.Error())
		}
	}
	return fmt.Errorf("no sentinel answers who the master is: %s", strings.Join(answers, "; "))
}

// dropped reports whether the other side ended the connection.
func dropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isNet(err error) bool {
	var ne net.Error
	return errors.As(err, &ne)
}

// replyFailure reads the error code; one that a script met stands behind the script's own words.
func replyFailure(text string) lock.Failure {
	word, _, _ := strings.Cut(text, " ")
	if t, ok := replies[word]; ok {
		return t
	}
	if strings.HasPrefix(text, "ERR Error running script") || strings.HasPrefix(text, "ERR user_script") {
		for code, t := range replies {
			if strings.Contains(text, code+" ") {
				return t
			}
		}
	}
	switch {
	case strings.Contains(text, "unauthenticated"), strings.Contains(text, "invalid username-password"), strings.Contains(text, "without any password configured"),
		// Before Redis 6, where AUTH takes no user.
		strings.Contains(text, "invalid password"), strings.Contains(text, "no password is set"), strings.Contains(text, "arguments for 'auth'"):
		return lock.AuthFailed
	case strings.Contains(text, "max number of clients"):
		return lock.Full
	case strings.Contains(text, "DB index"), strings.Contains(strings.ToLower(text), "select"): // we send no other SELECT
		return lock.NoDatabase
	case strings.Contains(text, "can't run this command") || strings.Contains(text, "has no permissions"):
		return lock.Forbidden
	}
	return lock.Refused
}

// isTLS finds an error of TLS that came after the handshake: in version 1.3 that is when a server
// tells what it has against the client's certificate.
func isTLS(err error) bool {
	var (
		record tls.RecordHeaderError
		op     *net.OpError
	)
	return errors.As(err, &record) || errors.As(err, &op) && op.Op == tlsAlert
}

// tlsAlert is the Op of an alert that the server sent. The alert's own type is hidden in
// crypto/tls, which leaves its text.
const tlsAlert = "remote error"

func tlsFailure(err error) lock.Failure {
	var (
		record    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &record), errors.Is(err, context.DeadlineExceeded):
		return lock.TLSAbsent
	case errors.As(err, &authority):
		return lock.Untrusted
	case errors.As(err, &name):
		return lock.WrongName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return lock.Expired
	case errors.As(err, &op) && op.Op == tlsAlert:
		switch text := op.Err.Error(); {
		case strings.Contains(text, "protocol version"):
			return lock.TLSTooOld
		case strings.Contains(text, "certificate"): // required, bad, unknown, expired, of an unknown authority
			return lock.WantsCert
		}
	}
	return lock.TLSFailed
}
