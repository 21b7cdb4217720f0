// Package lock is the lock as an idea: which lock, who holds it, for how long, and how to wait for
// it.
//
// It owns Key, Token, Fence, Holder, Lease, the errors of locking, the waiting loop and the
// renewing loop. A Store keeps the locks; redisstore is the one that exists.
package lock

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/session"
)

// Key says which lock. Two keys with the same ID are the same lock.
type Key struct {
	Repo   string // identity of the repository, as giturl gives it
	Branch string // short name, "main" for refs/heads/main
	Name   string // narrows the lock within the branch; usually empty

	// Verbatim is the store's key, taken as it is, for locks shared with writers that
	// know nothing of us. When it is set the other fields only describe.
	Verbatim string
}

// ID is the text that tells this lock from every other: "repo@branch", "repo@branch:name",
// or the verbatim key. No branch name contains a colon (git-check-ref-format(1)), and an @ of
// the repository is escaped, so that the parts cannot run into each other.
func (k Key) ID() string {
	if k.Verbatim != "" {
		return k.Verbatim
	}
	id := escape(k.Repo, "@") + "@" + escape(k.Branch, "")
	if k.Name != "" {
		id += ":" + escape(k.Name, "")
	}
	return id
}

// ParseID is the key that an ID came from; a verbatim key when it is not the ID of a lock.
func ParseID(id string) Key {
	repo, rest, ok := strings.Cut(id, "@")
	branch, name, _ := strings.Cut(rest, ":")
	k := Key{Repo: unescape(repo), Branch: unescape(branch), Name: unescape(name)}
	if !ok || k.ID() != id {
		return Key{Verbatim: id}
	}
	return k
}

func unescape(s string) string {
	text, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return text
}

// String is the lock's name for people.
func (k Key) String() string {
	switch {
	case k.Verbatim != "":
		return k.Verbatim
	case k.Name != "":
		return fmt.Sprintf("%s@%s (%s)", k.Repo, k.Branch, k.Name)
	case k.Branch == "":
		return k.Repo + " (every branch)"
	default:
		return k.Repo + "@" + k.Branch
	}
}

// WholeBranch is the lock of the branch itself, without the narrowing name.
func (k Key) WholeBranch() Key {
	return Key{Repo: k.Repo, Branch: k.Branch}
}

// WholeRepo stands for every lock of the repository. It is no lock itself, but carries a freeze.
func (k Key) WholeRepo() Key {
	return Key{Repo: k.Repo}
}

// escape percent-encodes what has a meaning in a key of a store (braces), in our own IDs or on a
// terminal.
func escape(s, also string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == 0x7f || c == '%' || c == '{' || c == '}' || strings.IndexByte(also, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Token proves ownership: 128 random bits in hex, always 32 characters, so that no token is
// a prefix of another.
type Token string

// NewToken makes a token that nobody can guess.
func NewToken() Token {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	return Token(hex.EncodeToString(b[:]))
}

// Fence is a number that grows with every grant of one lock, also when the store lost its data.
type Fence int64

// Record is what a holder or waiter says about itself, for people and for the rules about
// processes of one host. It never contains a secret.
type Record struct {
	Repo    string `json:"repo,omitempty"`
	Branch  string `json:"branch,omitempty"`
	Name    string `json:"name,omitempty"`
	Host    string `json:"host,omitempty"`
	User    string `json:"user,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	RunURL  string `json:"run_url,omitempty"` // the CI run, when the environment names one
	Job     string `json:"job,omitempty"`

	// Session is the process that the lock belongs to; zero when nothing is said of it.
	Session session.Session `json:"session,omitzero"`
}

// Holder is who holds a lock, as the store knows it.
type Holder struct {
	Record
	Token Token
	Fence Fence
	Known bool          // false: the lock was set by a writer that left no record
	Age   time.Duration // since it was granted, by the store's clock
	Left  time.Duration // until it expires, by the store's clock; negative: it never does
	TTL   time.Duration // to which a renewal extends it; 0 when not Known

	Presence Presence // of its processes, as far as the store was asked
	Shares   []Share  // all who share it, the holder among them unless it has released its share
}

// Share is one who shares a lock.
type Share struct {
	Record
	Token Token
}

// ID is what an operator names to break this hold, and no later one: the fence, or for a writer
// that left no record a digest of the value that it set.
func (h Holder) ID() string {
	if h.Known {
		return strconv.FormatInt(int64(h.Fence), 10)
	}
	sum := sha256.Sum256([]byte(h.Token))
	return "x" + hex.EncodeToString(sum[:6])
}

// Waiter is one who waits, in the order of the queue.
type Waiter struct {
	Record
	Token Token
	Age   time.Duration // since it came
	Alive bool          // it has shown life lately
}

// State is one lock as listed.
type State struct {
	Key     Key
	Name    string // the store's own name for it
	Holder  *Holder
	Waiters []Waiter
	Freeze  Freeze
}

// Request asks for a lock.
type Request struct {
	Key    Key           // required
	Token  Token         // required
	Record Record        // who asks
	TTL    time.Duration // required: the lease when granted

	// QueuePolicy is how to queue, Group those of whom only the newest waits, and HeadStart how
	// much earlier than it did the request counts as having come.
	QueuePolicy QueuePolicy
	Group       string
	HeadStart   time.Duration

	// Present: the holder shows that its process lives (Lease.Keep).
	Present bool

	// Policy is asked after each try that was not granted. nil: wait.
	Policy func(context.Context, Attempt) (Decision, error)
	// Woken is asked each time that a wait was interrupted, and may end it with an error. nil: go
	// on.
	Woken func(context.Context) error
}

// Hold is what was asked for, once it is granted.
func (r Request) Hold() Hold {
	return Hold{Key: r.Key, Token: r.Token, Record: r.Record, TTL: r.TTL}
}

// Try is one try of a request, with what the tries before it have found. That puts the waiter, and
// the holder, back in their places when the store has lost its data.
type Try struct {
	Request
	Ticket   int64 // the place in the queue; 0 at the first try
	Position int   // the first position that it had; 0: none yet
	Arrived  int64 // when it came, by the store's clock

	// HeldBy is the last holder that was seen, HeldRecord what it said about itself, and HeldUntil
	// until when it may believe in its lease. When the store has lost the ticket it has lost the
	// lock too, and that holder gets it back.
	HeldBy     Token
	HeldRecord Record
	HeldUntil  time.Time

	// Known is the greatest fence of this lock that was seen: the next one is greater.
	Known Fence
}

// Hold is a lock that is held: what it takes to renew and to release it.
type Hold struct {
	Key    Key
	Token  Token         // of the hold; that of another holder, when it shares its lock with us
	Share  Token         // of our share then; else ""
	Record Record        // who holds it
	TTL    time.Duration // to which a renewal extends the lease
}

// Own is the token of our part of the lock, by which it is renewed and released.
func (h Hold) Own() Token {
	if h.Share != "" {
		return h.Share
	}
	return h.Token
}

// RenewOptions is what a renewal says besides.
type RenewOptions struct {
	Known Fence // the greatest fence of this lock that was seen: that of a lock taken back is greater

	// Intent is what a push under this lock will do, for a server that lets nothing else in. nil
	// leaves what was declared before.
	Intent []Update

	// Server is the one that counts the holder's subscription: "" leaves what was claimed before,
	// noPresence takes it back.
	Server string

	// First is for how long the lock then lasts, unless it does for longer: 0 for the TTL.
	First time.Duration
}

// Action is what to do about a lock that somebody holds.
type Action int

const (
	// Wait is for everybody else.
	Wait Action = iota
	// Join shares the lock: it is ours as well, and free when all who share have released it.
	Join
	// TakeOver takes the lock from a holder that has ended.
	TakeOver
)

// Decision is what to do about a lock that somebody holds.
type Decision struct {
	Action Action
	Again  time.Duration // unless it is granted: judge again after this time at the latest; 0: when there is news
	Ended  []Token       // with TakeOver: those whose shares end with it
}

// Blocked is a hold that cannot go on because its script waits for another lock: an edge of the
// graph in which a deadlock is a cycle.
type Blocked struct {
	Lock    string  `json:"lock"`    // what it waits for, for people
	Holders []Token `json:"holders"` // who share that
	Ticket  int64   `json:"ticket"`  // since when it waits; the youngest of a cycle has the greatest
	Who     string  `json:"who"`     // for people
	Look    int64   `json:"look"`    // grows with each time that this is said
}

// Update is what a push does to one ref, by object ids. A ref that does not exist has zeros.
type Update struct {
	Ref      string // full name
	Old, New string
}

// Permit is the answer to a server about an update of a branch that it protects.
type Permit struct {
	Refusal Refusal
	Holder  Holder // who has the lock, if anybody
}

// Refusal is why an update may not be made. The texts are fixed: clients know them.
type Refusal string

// The refusals; "" is none.
const (
	RefusedNotHeld     Refusal = "not-held"     // no git-gitops client holds the lock
	RefusedNotDeclared Refusal = "not-declared" // its holder has not declared this update
	RefusedMoved       Refusal = "moved"        // its holder has declared it for another old tip
)

// Attempt is the answer to one try.
type Attempt struct {
	Granted  bool
	Fence    Fence
	Position int    // 1 is next in line; 0 when granted
	Ticket   int64  // the place in the queue, to be kept by the waiter over a loss of the store's data
	Holder   Holder // who holds it, when not granted
	Freeze   Freeze // of the lock, when not granted
	Arrived  int64  // when we came, to be kept like the ticket

	// Skipped: the lock was not free, and the request does not queue for it.
	Skipped bool
	Waiters int // how many wait, when skipped

	Guarded bool // as in Renewal, when granted
}

// RenewStatus is what a renewal found.
type RenewStatus int

const (
	// Renewed says that the lease was ours and was extended.
	Renewed RenewStatus = iota + 1
	// Reasserted says that it was gone and untaken, and is ours again. Somebody may have held it in
	// between.
	Reasserted
	// Lost says that somebody else has it, or that it was ended by Release or by an operator.
	Lost
)

// Renewal is the answer to one renewal.
type Renewal struct {
	Status RenewStatus
	Fence  Fence
	Holder Holder // who has it, when lost to another; zero when it was ended
	Ended  string // how it was ended, when lost and the store remembers

	Claimed bool // the store counts the subscription that the request names

	// Guarded: a server asks what is declared under this lock, or did so lately.
	Guarded bool
}

// ReleaseResult is what a release did.
type ReleaseResult int

const (
	// NotHeld says that the token did not hold the lock (any more). A ticket it had is given up.
	NotHeld ReleaseResult = iota
	// Freed says that the lock is free.
	Freed
	// HandedOver says that the next waiter has it.
	HandedOver
	// StillShared says that others who share the lock still have it.
	StillShared
)

func (r ReleaseResult) String() string {
	switch r {
	case Freed:
		return "freed"
	case HandedOver:
		return "handed over"
	case StillShared:
		return "still shared"
	default:
		return "not held"
	}
}

// Store keeps locks. All methods are safe for concurrent use and answer a *StoreError when the
// store could not be asked or refused.
type Store interface {
	// Timing is how long those who use this store wait.
	Timing() Timing
	// TryAcquire takes the lock when it is free and nobody alive waits before, and else takes
	// or keeps a place in the queue. Asking again with the same token is harmless.
	TryAcquire(ctx context.Context, t Try) (Attempt, error)
	// Wait returns when the lock may have been handed to the token, and after d at the latest.
	Wait(ctx context.Context, k Key, t Token, d time.Duration) error
	// Join makes the lock of a holder ours as well, or ours instead: d is to join or to take over.
	// It is not granted when the lock is not as it was seen: that holder does not have it any
	// more, or others share it by now.
	Join(ctx context.Context, t Try, seen Holder, d Decision) (Attempt, error)
	// Block shows the others, for the life of a waiter, what a hold waits for, or with the zero
	// Blocked that it waits no more; Blocked reads that.
	Block(ctx context.Context, hold Token, b Blocked) error
	Blocked(ctx context.Context, hold Token) (b Blocked, ok bool, err error)
	// Release ends what the token has: the lock, which passes to the next living waiter, its
	// share of one, or a place in the queue.
	Release(ctx context.Context, k Key, t Token) (ReleaseResult, error)
	// ReleaseBecause is Release, and the reason is remembered for whoever asks for this hold later.
	ReleaseBecause(ctx context.Context, k Key, t Token, why string) (ReleaseResult, error)
	// GiveUp ends a wait like Release, and notes why: EventTimedOut or EventCancelled.
	GiveUp(ctx context.Context, r Request, why EventType) error
	// Note adds an event to those of a lock.
	Note(ctx context.Context, k Key, event EventType, by Record, why string) error
	// Subscribe shows the others that the process of a holder lives, until it ends or closes what
	// is returned.
	Subscribe(ctx context.Context, k Key, holder Token) (Subscription, error)
	// Renew extends the lease of a hold, and takes an untaken lock back.
	Renew(ctx context.Context, h Hold, o RenewOptions) (Renewal, error)
}
