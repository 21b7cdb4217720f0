package lock

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Failure classifies why the store could not do its work. None of them means "held by somebody".
type Failure string

// The failures, each with advice of its own at the command line.
const (
	Unreachable Failure = "unreachable" // no connection, or no answer in time
	TLSFailed   Failure = "tls"         // the TLS handshake was refused by one of the sides, for another reason than these:
	TLSAbsent   Failure = "no tls"      // the server speaks no TLS
	TLSTooOld   Failure = "old tls"     // the server speaks no version of TLS that we do
	Untrusted   Failure = "untrusted"   // who signed the server's certificate is unknown
	WrongName   Failure = "name"        // the server's certificate is for other names
	Expired     Failure = "expired"     // the server's certificate is not valid at this time
	WantsCert   Failure = "client cert" // the server wants a client certificate, or another one
	AuthFailed  Failure = "auth"        // the login was refused
	Rotated     Failure = "rotated"     // a password, or a certificate, from a file that was right before
	Forbidden   Failure = "forbidden"   // the user may not use a command or a key
	ReadOnly    Failure = "readonly"    // it is a replica, or a failover is under way
	Persistence Failure = "persistence" // it cannot save to disk and refuses writes
	Loading     Failure = "loading"     // it is not ready yet
	Moving      Failure = "moving"      // the keys of the lock are on their way to another node
	OutOfMemory Failure = "memory"      // it has no memory left
	Unconfirmed Failure = "unconfirmed" // fewer replicas than asked for have confirmed the lock
	NotALock    Failure = "wrongtype"   // the key that the user named holds something else than a lock
	NotOurs     Failure = "not ours"    // a key below our prefix does
	Full        Failure = "full"        // it takes no more connections
	Protected   Failure = "protected"   // it has no password, so it answers its own machine only
	ClusterNode Failure = "node"        // it is one of several nodes that keep a part of the keys each
	NoEndpoint  Failure = "no endpoint" // those nodes announce no address
	NoDatabase  Failure = "database"    // it refuses the number of the database
	Newer       Failure = "newer"       // the lock is kept by a newer version of the protocol
	Refused     Failure = "refused"     // it answered any other error
)

// StoreError is a failure of the store itself.
type StoreError struct {
	Failure Failure
	Err     error // the reason, and where the store is, without secrets

	// Ambiguous: the command may have been carried out, whole or in part. What was surely not sent
	// is not.
	Ambiguous bool
}

func (e *StoreError) Error() string { return e.Err.Error() }

func (e *StoreError) Unwrap() error { return e.Err }

// Transient reports whether it may pass: a restart, a failover, a cut connection. A wait
// that has timed out is over.
func Transient(err error) bool {
	var (
		se      *StoreError
		timeout *TimeoutError
	)
	if !errors.As(err, &se) || errors.As(err, &timeout) {
		return false
	}
	switch se.Failure {
	case Unreachable, ReadOnly, Loading, Moving, Rotated, Full:
		return true
	default:
		return false
	}
}

// TimeoutError says that the wait for a lock ended without it.
type TimeoutError struct {
	Key      Key
	Position int // the last known position in the queue
	Holder   Holder
	Freeze   Freeze // of the lock
	Waited   time.Duration
	Err      error // why the store failed, when the time ran out during an outage
}

func (e *TimeoutError) Error() string {
	msg := fmt.Sprintf("waited %s for the lock on %s", e.Waited.Round(time.Second), e.Key)
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *TimeoutError) Unwrap() error { return e.Err }

// EndedByRelease is how a store remembers that a hold was ended by its own release, or begins so.
const EndedByRelease = "released"

// EndedByTakeOver is how a store remembers that a hold passed to another part of its own script.
const EndedByTakeOver = "taken over"

// EndedByAbsence is how a store remembers that a hold ended because its holder had gone.
const EndedByAbsence = "gone"

// EndedBySuperseding begins how a store remembers that a newer one took a waiter's place.
const EndedBySuperseding = "superseded"

// EndedByBreak begins how a store remembers that an operator ended a hold.
const EndedByBreak = "broken"

// LostError says that a lock which was ours is not any more.
type LostError struct {
	Key    Key
	Holder Holder // who has it now; not Known when nobody or a stranger has
	Ended  string // how it was ended, when the store remembers
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the lock on %s was lost: %s", e.Key, e.Reason())
}

// Released reports whether our own side ended the hold: a command, or the keeper.
func (e *LostError) Released() bool { return strings.HasPrefix(e.Ended, EndedByRelease) }

// Broken reports whether an operator ended the hold.
func (e *LostError) Broken() bool { return strings.HasPrefix(e.Ended, EndedByBreak) }

// Reason is why it was lost, in a few words.
func (e *LostError) Reason() string {
	switch {
	case e.Ended == EndedByTakeOver:
		return "another command of the same script took it over"
	case e.Ended == EndedByAbsence:
		return "none of its processes was connected for five seconds, and somebody else waited"
	case e.Ended != "":
		return "it was " + e.Ended
	case e.Holder.Known:
		return fmt.Sprintf("%s@%s has it now (%s, pid %d)", e.Holder.User, e.Holder.Host, e.Holder.Command, e.Holder.PID)
	default:
		return "it expired, and somebody unknown has it now"
	}
}

// DeadlockError says that scripts wait for each other in a circle.
type DeadlockError struct {
	Key   Key
	Who   string    // waits for it
	Cycle []Blocked // who waits for what, from this script round to it
}

func (e *DeadlockError) Error() string {
	msg := fmt.Sprintf("deadlock: %s waits for the lock on %s", e.Who, e.Key)
	for _, b := range e.Cycle {
		msg += fmt.Sprintf(", which is held by %s, who waits for the lock on %s", b.Who, b.Lock)
	}
	return msg + ", which this script holds"
}
