// Package redisstore keeps locks on Redis: one Lua script for each step, with the server's TIME as
// the only clock.
package redisstore

import (
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/git-gitops/git-gitops/internal/lock"
)

const (
	// dialTimeout bounds a connection, with its TLS handshake once the server has answered before:
	// a server that swallows packets must fail fast. shakeTimeout is for a first handshake: a
	// server that has accepted the connection is there, and may be busy. firstTimeout bounds all of
	// a first contact, and answerTimeout every later answer.
	dialTimeout  = 2 * time.Second
	shakeTimeout = 5 * time.Second
	firstTimeout = dialTimeout + shakeTimeout + 2*dialSlack
	// dialSlack leaves the dialer time to say what went wrong before the client gives up on it.
	dialSlack = 250 * time.Millisecond
	// leastWait is the shortest that a waiter blocks: zero is without end, and so is 0.001 for
	// Redis before 7.0.8 (redis/redis#11687).
	leastWait     = 10 * time.Millisecond
	answerTimeout = 5 * time.Second
	// endedFor is how long an ended token is remembered: longer than any command is under way.
	endedFor = 10 * time.Minute
	scanStep = 500
	// inspectStep is how many locks are read at a time, so that others get their turn in between.
	inspectStep = 50
	// confirmTimeout is how long replicas may take to confirm a lock.
	confirmTimeout = time.Second
	// wakeTimeout is how late the answer of a blocked command may be. A waiter whose connection has
	// died without a word is then back within its Life, and keeps its place.
	wakeTimeout = 2 * time.Second
	// reloadTimeout and reloads bound a look at who has which slots of a Cluster now.
	reloadTimeout = 500 * time.Millisecond
	reloads       = 3
)

// Options say where the store is. Exactly one of a single address, SentinelMaster, or Cluster
// counts.
type Options struct {
	Network string   // "tcp" or "unix"; "" is tcp
	Addrs   []string // required: host:port, or the path of a socket

	Username, Password string
	ReadPassword       func() (string, error) // reads it again for each login; nil: Password stays
	DB                 int
	TLS                *tls.Config                 // nil: no TLS
	ReadTLS            func() (*tls.Config, error) // reads it again for each connection; nil: TLS stays

	SentinelMaster                     string
	SentinelUsername, SentinelPassword string
	Cluster                            bool

	Prefix string // of all keys; "" is "gitops"
	Events int    // how many events of each lock are kept; 0: none

	// Sparing: connections are closed after each command. For a store that is seldom asked.
	Sparing bool

	Timing lock.Timing // of those who use the store; the zero value is lock.DefaultTiming

	// MinReplicas must confirm a lock that was acquired, or it is given back.
	MinReplicas int
}

// Store is a lock.Store on Redis. Close it when done.
type Store struct {
	client redis.UniversalClient
	dialer *dialer
	layout layout
	addr   string
	master string // what the sentinels call it; "": none are asked
	events int
	timing lock.Timing

	minReplicas int

	shaken      atomic.Bool  // a connection was made, with its handshake
	credentials *credentials // nil: they do not change
	padded      bool         // the password begins or ends with white space

	mu        sync.Mutex
	contacted bool
	failed    bool // the last script
}

var _ lock.Store = (*Store)(nil)

// Open makes a store. It connects at the first use.
func Open(o Options) *Store {
	silence.Do(func() { redis.SetLogger(&logging.VoidLogger{}) })
	d := &dialer{tls: o.TLS, readTLS: o.ReadTLS}
	u := &redis.UniversalOptions{
		Addrs:            o.Addrs,
		Username:         o.Username,
		Password:         o.Password,
		DB:               o.DB,
		Dialer:           d.dial,
		MasterName:       o.SentinelMaster,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,

		// One command at a time, judged by its own context: who may retry what is decided
		// by the lock and not by the client.
		MaxRetries:            -1,
		DialerRetries:         1,
		DialTimeout:           dialTimeout + shakeTimeout + dialSlack,
		ReadTimeout:           2 * lock.DefaultTiming().Heartbeat, // of what the client asks by itself: our own commands have earlier deadlines
		ContextTimeoutEnabled: true,
		PoolSize:              2,  // one that blocks in a wait, one that gives the wait up
		PipelinePoolSize:      -1, // no others for pipelines

		// A handshake of HELLO alone: Redis before 7.2 answers the rest with errors.
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if o.Sparing {
		u.MaxIdleConns = -1
	}
	if o.Network == "unix" {
		u.Addrs = []string{o.Addrs[0]}
	}
	s := &Store{dialer: d, layout: newLayout(o.Prefix), addr: strings.Join(o.Addrs, ","), master: o.SentinelMaster, events: o.Events, minReplicas: o.MinReplicas}
	d.contacted = s.wasContacted
	if s.timing = o.Timing; s.timing == (lock.Timing{}) {
		s.timing = lock.DefaultTiming()
	}
	u.OnConnect = func(context.Context, *redis.Conn) error { s.shaken.Store(true); return nil }
	s.padded = strings.TrimSpace(o.Password) != o.Password
	if o.ReadPassword != nil {
		s.credentials = &credentials{user: o.Username, read: o.ReadPassword, last: o.Password}
		u.CredentialsProviderContext = s.credentials.login
	}
	if o.Cluster {
		c := u.Cluster()
		c.DisableRoutingPolicies = true // which need the list of all commands from some node first, in every process
		s.client = redis.NewClusterClient(c)
	} else {
		s.client = redis.NewUniversalClient(u)
	}
	return s
}

var silence sync.Once

// Close ends the connections, also under a Wait.
func (s *Store) Close() error {
	s.dialer.close()
	return s.client.Close()
}

// Connect begins to connect, so that this is done when the store is first used, and says nothing
// when it fails: the error comes then. Where the servers are to be asked for the right one first,
// it does nothing.
func (s *Store) Connect() {
	if c, ok := s.client.(*redis.Client); ok && c.Options().Addr != "FailoverClient" {
		s.dialer.begin(c.Options().Network, c.Options().Addr)
	}
}

// Timing implements lock.Store.
func (s *Store) Timing() lock.Timing { return s.timing }

// TryAcquire implements lock.Store.
func (s *Store) TryAcquire(ctx context.Context, t lock.Try) (lock.Attempt, error) {
	var above *freezesAbove
	if t.Key.Verbatim != "" {
		above = &freezesAbove{}
	}
	for {
		a, ask, err := s.tryAcquire(ctx, t, above)
		switch {
		case ask:
			above, err = s.freezesAbove(ctx, t.Key)
			if err != nil {
				return lock.Attempt{}, err
			}
			continue
		case err != nil || above == nil || t.Key.Verbatim != "":
			return a, err
		}
		// A freeze of all, or a thaw, may have come in between, and not have seen this lock.
		now, err := s.freezesAbove(ctx, t.Key)
		if err == nil && *now == *above {
			return a, nil
		}
		if err == nil && a.Granted {
			_, err = s.run(ctx, releaseScript, t.Key, t.Token, 0, lock.EndedByRelease, 0, "")
		}
		if err == nil {
			err = s.thawOutdated(ctx, t.Key, *above, *now)
		}
		if err != nil {
			var se *lock.StoreError
			if errors.As(err, &se) {
				se.Ambiguous = true // it is to be given back
			}
			return a, err
		}
		above = now
	}
}

// tryAcquire is one try, with the freezes of what the lock is part of, nil if they were not asked
// for. ask says that they must be.
func (s *Store) tryAcquire(ctx context.Context, t lock.Try, above *freezesAbove) (a lock.Attempt, ask bool, err error) {
	var held, group string
	if t.HeldBy != "" {
		held = encode(t.HeldRecord)
	}
	if t.QueuePolicy == lock.Newest {
		group = t.Group
	}
	known := 0
	if above != nil {
		known = 1
	} else {
		above = &freezesAbove{}
	}
	reply, err := s.run(ctx, acquireScript, t.Key, t.Token, t.Known,
		t.TTL.Milliseconds(), t.Ticket, encode(t.Record), t.Position,
		string(t.HeldBy), max(0, time.Until(t.HeldUntil)).Milliseconds(), held,
		string(t.QueuePolicy), group, t.HeadStart.Milliseconds(), t.Arrived, known, above.repo, above.branch,
		s.timing.FirstLease(t.Request).Milliseconds())
	if err != nil {
		return lock.Attempt{}, false, err
	}
	p := parser{reply: reply}
	switch status := p.int(); status {
	case 1:
		a := lock.Attempt{Granted: true, Fence: lock.Fence(p.int()), Guarded: p.int() == 1}
		return a, false, errors.Join(s.check(&p), s.confirm(ctx, t.Key))
	case 0:
		a := lock.Attempt{Position: int(p.int()), Ticket: p.int(), Holder: p.holder()}
		a.Holder.Presence = p.presence()
		a.Freeze, a.Arrived = p.freeze(), p.int()
		return a, false, s.check(&p)
	case -3:
		a := lock.Attempt{Skipped: true, Waiters: int(p.int()), Holder: p.holder()}
		a.Holder.Presence = p.presence()
		a.Freeze = p.freeze()
		return a, false, s.check(&p)
	case -4:
		return lock.Attempt{}, true, nil
	default:
		how := p.text()
		if by, ok := strings.CutPrefix(how, lock.EndedBySuperseding+" "); ok {
			return lock.Attempt{}, false, &lock.SupersededError{Key: t.Key, By: decode(by)}
		}
		return lock.Attempt{}, false, s.failure(fmt.Errorf("this wait has ended already (%s)", how))
	}
}

// confirm waits until enough replicas have the lock that was just granted. Every error is
// Ambiguous, so that the lock is given back.
func (s *Store) confirm(ctx context.Context, k lock.Key) error {
	if s.minReplicas == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*confirmTimeout)
	defer cancel()
	got, err := s.replicas(ctx, k)
	if err == nil && got < s.minReplicas {
		return &lock.StoreError{
			Failure: lock.Unconfirmed, Ambiguous: true,
			Err: s.at(fmt.Errorf("%d of %d replicas have confirmed the lock", got, s.minReplicas)),
		}
	}
	if err != nil {
		err = s.failure(err)
		var se *lock.StoreError
		if errors.As(err, &se) {
			se.Ambiguous = true // the grant has been carried out, whatever became of this
		}
	}
	return err
}

// replicas is how many have a lock that we hold, as far as is known within the time that they are
// given.
func (s *Store) replicas(ctx context.Context, k lock.Key) (int, error) {
	node := s.client
	if cluster, ok := s.client.(*redis.ClusterClient); ok { // WAIT has no key to be routed by
		master, err := cluster.MasterForKey(ctx, s.layout.name(k))
		if err != nil {
			return 0, err //nolint:wrapcheck // confirm does
		}
		node = master
	}
	var (
		written *redis.BoolCmd
		n       *redis.IntCmd
	)
	// WAIT speaks of the writes of its own connection: here of a write that comes after the grant.
	_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error {
		written = p.PExpire(ctx, s.layout.meta(k), 24*time.Hour)
		n = redis.NewIntCmd(ctx, "wait", s.minReplicas, confirmTimeout.Milliseconds())
		return p.Process(ctx, n)
	})
	if err != nil || !written.Val() { // nothing was written: the lock is gone, and WAIT has waited for nothing
		return 0, err //nolint:wrapcheck // confirm does
	}
	return int(n.Val()), nil
}

// Wait implements lock.Store.
func (s *Store) Wait(ctx context.Context, k lock.Key, t lock.Token, d time.Duration) error {
	wake := s.layout.wake(k, t)
	d = max(d, leastWait)

	// Not client.BLPop: that rounds to whole seconds. The answer has some time to arrive.
	answered := make(chan error, 1)
	go func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), d+wakeTimeout)
		defer cancel()
		cmd := redis.NewStringSliceCmd(limit, "blpop", wake, strconv.FormatFloat(d.Seconds(), 'f', 3, 64))
		answered <- s.client.Process(limit, cmd)
	}()
	select {
	case err := <-answered:
		if err != nil && !errors.Is(err, redis.Nil) {
			return s.failure(err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err() // the blocked command ends with Close
	}
}

// Join implements lock.Store.
func (s *Store) Join(ctx context.Context, t lock.Try, seen lock.Holder, d lock.Decision) (lock.Attempt, error) {
	mode, claim, tokens := "takeover", "1", d.Ended
	if d.Action == lock.Join {
		mode, tokens = "join", nil
		for _, share := range seen.Shares {
			tokens = append(tokens, share.Token)
		}
	}
	if t.Present {
		claim = "moving" // it is about to show itself
	}
	args := []any{
		t.TTL.Milliseconds(), string(seen.Token), mode, encode(t.Record), s.timing.FirstLease(t.Request).Milliseconds(), claim,
	}
	for _, token := range tokens {
		args = append(args, string(token))
	}
	reply, err := s.run(ctx, joinScript, t.Key, t.Token, t.Known, args...)
	if err != nil {
		return lock.Attempt{}, err
	}
	p := parser{reply: reply}
	if p.int() != 1 {
		return lock.Attempt{}, s.check(&p)
	}
	a := lock.Attempt{Granted: true, Fence: lock.Fence(p.int()), Guarded: p.int() == 1}
	return a, errors.Join(s.check(&p), s.confirm(ctx, t.Key))
}

// Block implements lock.Store.
func (s *Store) Block(ctx context.Context, hold lock.Token, b lock.Blocked) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode %v: %w", b, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if len(b.Holders) == 0 {
		err = s.client.Del(ctx, s.layout.blocked(hold)).Err()
	} else {
		err = s.client.Set(ctx, s.layout.blocked(hold), text, s.timing.Life).Err()
	}
	if err != nil {
		return s.failure(err)
	}
	return nil
}

// Blocked implements lock.Store.
func (s *Store) Blocked(ctx context.Context, hold lock.Token) (b lock.Blocked, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	text, err := s.client.Get(ctx, s.layout.blocked(hold)).Result()
	if errors.Is(err, redis.Nil) {
		return lock.Blocked{}, false, nil
	}
	if err != nil {
		return lock.Blocked{}, false, s.failure(err)
	}
	return b, json.Unmarshal([]byte(text), &b) == nil, nil
}

// Release implements lock.Store.
func (s *Store) Release(ctx context.Context, k lock.Key, t lock.Token) (lock.ReleaseResult, error) {
	return s.release(ctx, k, t, lock.EndedByRelease, "")
}

// ReleaseBecause implements lock.Store.
func (s *Store) ReleaseBecause(ctx context.Context, k lock.Key, t lock.Token, why string) (lock.ReleaseResult, error) {
	return s.release(ctx, k, t, lock.EndedByRelease+" "+why, "")
}

// GiveUp implements lock.Store.
func (s *Store) GiveUp(ctx context.Context, r lock.Request, why lock.EventType) error {
	_, err := s.release(ctx, r.Key, r.Token, string(why), encode(r.Record))
	return err
}

func (s *Store) release(ctx context.Context, k lock.Key, t lock.Token, how, record string) (lock.ReleaseResult, error) {
	reply, err := s.run(ctx, releaseScript, k, t, 0, how, endedFor.Milliseconds(), record)
	if err != nil {
		return lock.NotHeld, err
	}
	n, _ := reply.(int64)
	return lock.ReleaseResult(n), nil
}

// Break ends the hold of a holder that was seen, for everybody who shares it. by is who does it,
// and why is for the holder. It is NotHeld when that holder does not have the lock any more.
func (s *Store) Break(ctx context.Context, k lock.Key, holder lock.Token, by lock.Record, why string) (lock.ReleaseResult, error) {
	how := fmt.Sprintf("%s by %s@%s at %s", lock.EndedByBreak, by.User, by.Host, time.Now().UTC().Format(time.RFC3339))
	if why != "" {
		how += ": " + why
	}
	operator := s.layout.key(operatorKind, tagged(k))
	reply, err := s.runWith(ctx, breakScript, k, "", 0, []string{operator}, string(holder), how, encode(by), why)
	if err != nil {
		return lock.NotHeld, err
	}
	n, _ := reply.(int64)
	return lock.ReleaseResult(n), nil
}

// Note adds an event that only the holder knows of to those of a lock.
func (s *Store) Note(ctx context.Context, k lock.Key, event lock.EventType, by lock.Record, why string) error {
	_, err := s.run(ctx, noteScript, k, "", 0, string(event), encode(by), why)
	return err
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, h lock.Hold, o lock.RenewOptions) (lock.Renewal, error) {
	first := o.First
	if first == 0 {
		first = h.TTL
	}
	reply, err := s.run(ctx, renewScript, h.Key, h.Token, o.Known,
		h.TTL.Milliseconds(), encode(h.Record), string(h.Own()), o.Server, intent(o.Intent), first.Milliseconds())
	if err != nil {
		return lock.Renewal{}, err
	}
	p := parser{reply: reply}
	status := p.int()
	if status == 0 {
		return lock.Renewal{Status: lock.Lost, Holder: p.holder(), Ended: p.text()}, s.check(&p)
	}
	renewal := lock.Renewal{Status: lock.Renewed, Fence: lock.Fence(p.int()), Claimed: p.int() == 1, Guarded: p.int() == 1}
	if status == 2 {
		renewal.Status = lock.Reasserted
	}
	if err := s.check(&p); err != nil || renewal.Fence == o.Known {
		return renewal, err
	}
	return renewal, s.confirm(ctx, h.Key) // a grant like any other, also when we ask for the second time
}

// Check asks for a server whether the holder of a lock has declared an update. If so, the lease
// lasts for least from now on, so that it does not end while the server works.
func (s *Store) Check(ctx context.Context, k lock.Key, u lock.Update, least time.Duration) (lock.Permit, error) {
	reply, err := s.run(ctx, checkScript, k, "", 0, u.Ref, u.Old, u.New, least.Milliseconds())
	if err != nil {
		return lock.Permit{}, err
	}
	p := parser{reply: reply}
	permit := lock.Permit{Refusal: lock.Refusal(p.text()), Holder: p.holder()}
	return permit, s.check(&p)
}
