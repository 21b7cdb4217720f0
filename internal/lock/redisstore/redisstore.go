// Package redisstore keeps locks on Redis: one Lua script for each step, with the server's TIME as the
// only clock.
//
// All keys of one lock share a hash tag, so that they live in one slot of a Cluster:
//
//	P:lock:{ID}          the owner's token, expiring: what a plain SET NX PX writer makes and respects
//	P:meta:{ID}          hash: version (of this protocol), owner, fence, since (µs), record (JSON), key (the
//	                     lock's own key), s:TOKEN for each who shares it, the owner being the first, r:TOKEN,
//	                     its record, and i:TOKEN, what it has declared for a server; restored when a waiter put
//	                     back a lock of lost data; waited (ms) until a hand-over is confirmed. s:TOKEN has the
//	                     server that counts its subscription, moving when another did, or 1 when it claims none;
//	                     unsure says that not all of these are known, replicated that the server had a replica;
//	                     absent (µs) and looks are since when, and how often, nobody was subscribed
//	P:queue:{ID}         sorted set: tokens of waiters by ticket (µs)
//	P:waiters:{ID}       hash: a waiter's record by token, and until when (µs) it is a sign of life
//	P:wake:{ID}:TOKEN    a list that the waiter blocks on
//	P:ended:{ID}         hash: how a token's hold ended, and until when (µs) that is remembered, so that
//	                     nothing late can revive it
//	P:fence:{ID}         the last fence
//	P:events:{ID}        stream of what happened to the lock, capped and expiring (see Event)
//	P:alive:{ID}         never there, see common.lua
//	P:alive:{ID}:TOKEN   no key but a channel, of which a holder's processes are subscribers
//	P:offers:{ID}        hash: the commits that waiters offer to the push of the holder (see lua/offer.lua)
//	P:blocked:{TOKEN}    what the script of a hold waits for (JSON), expiring
//
// P is the prefix, "gitops" unless configured. A verbatim key with a hash tag of its own, as a{TAG}b, has
// {TAG}:a{TAG}b in place of {ID}.
package redisstore

import (
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	// dialTimeout bounds a connection with its TLS handshake; firstTimeout the first answer on
	// it, and answerTimeout every later one: a first contact that fails must fail fast.
	dialTimeout  = 2 * time.Second
	firstTimeout = 2500 * time.Millisecond
	// dialSlack leaves the dialer time to say what went wrong before the client gives up on it.
	dialSlack = 250 * time.Millisecond
	// leastWait is the shortest that a waiter blocks: zero is without end, and so is 0.001 for Redis before 7.0.8
	// (redis/redis#11687).
	leastWait     = 10 * time.Millisecond
	answerTimeout = 5 * time.Second
	// endedFor is how long an ended token is remembered: longer than any command is under way.
	endedFor = 10 * time.Minute
	scanStep = 500
	// inspectStep is how many locks are read at a time, so that others get their turn in between.
	inspectStep = 50
	// confirmTimeout is how long replicas may take to confirm a lock.
	confirmTimeout = time.Second
	// wakeTimeout is how late the answer of a blocked command may be. A waiter whose connection has died without a
	// word is then back within its lock.Life, and keeps its place.
	wakeTimeout = 2 * time.Second
	// reloadTimeout and reloads bound a look at who has which slots of a Cluster now.
	reloadTimeout = 500 * time.Millisecond
	reloads       = 3
)

//go:embed lua/common.lua
var commonLua string

//go:embed lua/acquire.lua
var acquireLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/renew.lua
var renewLua string

//go:embed lua/join.lua
var joinLua string

//go:embed lua/break.lua
var breakLua string

//go:embed lua/note.lua
var noteLua string

//go:embed lua/check.lua
var checkLua string

//go:embed lua/inspect.lua
var inspectLua string

// The scripts are put together at their first use: most commands are git's and use none.
var (
	acquireScript = script(acquireLua)
	releaseScript = script(releaseLua)
	renewScript   = script(renewLua)
	joinScript    = script(joinLua)
	breakScript   = script(breakLua)
	noteScript    = script(noteLua)
	checkScript   = script(checkLua)
	inspectScript = script(inspectLua)
)

func script(body string) func() *redis.Script {
	return sync.OnceValue(func() *redis.Script { return redis.NewScript(commonLua + body) })
}

// Options say where the store is. Exactly one of a single address, SentinelMaster, or Cluster counts.
type Options struct {
	Network string   // "tcp" or "unix"; "" is tcp
	Addrs   []string // required: host:port, or the path of a socket

	Username, Password string
	ReadPassword       func() (string, error) // reads it again for each login; nil: Password stays
	DB                 int
	TLS                *tls.Config // nil: no TLS

	SentinelMaster                     string
	SentinelUsername, SentinelPassword string
	Cluster                            bool

	Prefix string // of all keys; "" is "gitops"
	Events int    // how many events of each lock are kept; 0: none

	// Sparing: connections are closed after each command, for who seldom asks.
	Sparing bool

	// MinReplicas must confirm a lock that was acquired, or it is given back.
	MinReplicas int
}

// Store is a lock.Store on Redis. Close it when done.
type Store struct {
	client redis.UniversalClient
	dialer *dialer
	prefix string
	addr   string
	master string // what the sentinels call it; "": none are asked
	events int

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
	d := &dialer{tls: o.TLS}
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
		DialTimeout:           dialTimeout + dialSlack,
		ReadTimeout:           2 * lock.Heartbeat, // of what the client asks by itself: all of ours have deadlines, and sooner ones
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
	prefix := o.Prefix
	if prefix == "" {
		prefix = "gitops"
	}
	s := &Store{dialer: d, prefix: prefix, addr: strings.Join(o.Addrs, ","), master: o.SentinelMaster, events: o.Events, minReplicas: o.MinReplicas}
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

// Connect begins to connect, so that this is done when the store is first used, and says nothing when it fails: that is told then. Where the
// servers are to be asked for the right one first, it does nothing.
func (s *Store) Connect() {
	if c, ok := s.client.(*redis.Client); ok && c.Options().Addr != "FailoverClient" {
		s.dialer.begin(c.Options().Network, c.Options().Addr)
	}
}

// tagged is what the keys of one lock have in common: its hash tag, and what else tells it from others.
func tagged(k lock.Key) string {
	id := k.ID()
	if _, rest, ok := strings.Cut(k.Verbatim, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return "{" + tag + "}:" + id
		}
	}
	return "{" + id + "}"
}

func (s *Store) kindKey(kind, tagged string) string { return s.prefix + ":" + kind + ":" + tagged }

// keysOf are the keys that every script takes, in common.lua's order.
func (s *Store) keysOf(lockKey, tagged string) []string {
	keys := []string{lockKey}
	for _, kind := range []string{"meta", "queue", "fence", "events", "waiters", "ended", "alive"} {
		keys = append(keys, s.kindKey(kind, tagged))
	}
	return keys
}

// keys of one lock, and the leading arguments that every script takes.
func (s *Store) keys(k lock.Key) (keys []string, args func(lock.Token, lock.Fence) []any) {
	tagged := tagged(k)
	lockKey := s.kindKey("lock", tagged)
	if k.Verbatim != "" {
		lockKey = k.Verbatim
	}
	return s.keysOf(lockKey, tagged), func(t lock.Token, known lock.Fence) []any {
		return []any{string(t), s.kindKey("wake", tagged) + ":", lock.Claim.Milliseconds(), s.events, lock.Life.Milliseconds(), int64(known)}
	}
}

func (s *Store) wakeKey(k lock.Key, t lock.Token) string {
	return s.kindKey("wake", tagged(k)) + ":" + string(t)
}

// run is one script, with the time it may take.
// known is the greatest fence that the client knows of.
func (s *Store) run(ctx context.Context, script func() *redis.Script, k lock.Key, t lock.Token, known lock.Fence, more ...any) (any, error) {
	return s.runWith(ctx, script, k, t, known, nil, more...)
}

// runWith is run for a script that touches more keys than those of every lock.
func (s *Store) runWith(ctx context.Context, script func() *redis.Script, k lock.Key, t lock.Token, known lock.Fence, extra []string, more ...any) (any, error) {
	type answer struct {
		reply any
		err   error
	}
	keys, args := s.keys(k)
	keys = append(keys, extra...)
	answered := make(chan answer, 1)
	patience := s.patience()
	s.mu.Lock()
	again := s.failed && !s.contacted
	s.mu.Unlock()
	go func() { // the client heeds a deadline while it reads, but no cancellation
		limit, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		s.lookAgain(limit)
		send := script().Run
		if again {
			send = script().Eval // in one step, whatever the server knows
		}
		reply, err := send(limit, s.client, keys, append(args(t, known), more...)...).Result()
		if s.loginRefused(err) {
			reply, err = send(limit, s.client, keys, append(args(t, known), more...)...).Result()
		}
		answered <- answer{reply, err}
	}()
	var a answer
	select {
	case <-ctx.Done():
		return nil, s.failure(ctx.Err())
	case a = <-answered:
	case <-time.After(patience + reloadTimeout): // and while it asks sentinels, its own deadlines
		a.err = context.DeadlineExceeded
	}
	s.mu.Lock()
	s.contacted = s.contacted || a.err == nil
	s.failed = a.err != nil
	s.mu.Unlock()
	if a.err != nil {
		err := s.failure(a.err)
		var se *lock.StoreError
		if errors.As(err, &se) && se.Failure == lock.NotALock && k.Verbatim == "" {
			se.Failure = lock.NotOurs
		}
		return nil, err
	}
	return a.reply, s.newer(a.reply)
}

// newer is the error of a lock that is kept by a protocol which this program does not know.
func (s *Store) newer(reply any) error {
	list, _ := reply.([]any)
	if len(list) == 2 && list[0] == int64(-2) {
		return &lock.StoreError{
			Failure: lock.Newer, Addr: s.addr,
			Err: fmt.Errorf("a newer git-gitops keeps this lock, by version %v of the protocol", list[1]),
		}
	}
	return nil
}

// lookAgain asks a Cluster that has failed us who has which slots now. By itself the client does so only when a node tells it
// that it is the wrong one, which a dead one does not. It asks one node at a time, by chance: one that does not answer is asked
// no longer than a moment.
func (s *Store) lookAgain(ctx context.Context) {
	cluster, ok := s.client.(*redis.ClusterClient)
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if !ok || !failed {
		return
	}
	for range reloads {
		limit, cancel := context.WithTimeout(ctx, reloadTimeout)
		_ = cluster.ForEachMaster(limit, func(context.Context, *redis.Client) error { return nil }) // it reloads first
		silent := limit.Err() != nil
		cancel()
		if !silent {
			return
		}
	}
}

func (s *Store) patience() time.Duration {
	if s.wasContacted() {
		return answerTimeout
	}
	return firstTimeout
}

func (s *Store) wasContacted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contacted
}

// TryAcquire implements lock.Store.
func (s *Store) TryAcquire(ctx context.Context, r lock.Request) (lock.Attempt, error) {
	var held string
	if r.HeldBy != "" {
		held = encode(r.HeldRecord)
	}
	reply, err := s.run(ctx, acquireScript, r.Key, r.Token, r.Known,
		r.TTL.Milliseconds(), r.Ticket, encode(r.Record), r.Position,
		string(r.HeldBy), max(0, time.Until(r.HeldUntil)).Milliseconds(), held)
	if err != nil {
		return lock.Attempt{}, err
	}
	p := parser{reply: reply}
	switch status := p.int(); status {
	case 1:
		a := lock.Attempt{Granted: true, Fence: lock.Fence(p.int()), Guarded: p.int() == 1}
		return a, errors.Join(s.check(&p), s.confirm(ctx, r))
	case 0:
		a := lock.Attempt{Position: int(p.int()), Ticket: p.int(), Holder: p.holder()}
		a.Holder.Presence = p.presence()
		return a, s.check(&p)
	default:
		return lock.Attempt{}, s.failure(fmt.Errorf("the token of this wait was ended already (%d)", status))
	}
}

// confirm waits until enough replicas have the lock that was just granted. Every error is Ambiguous, so that
// the lock is given back.
func (s *Store) confirm(ctx context.Context, r lock.Request) error {
	if s.minReplicas == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*confirmTimeout)
	defer cancel()
	got, err := s.replicas(ctx, r.Key)
	if err == nil && got < s.minReplicas {
		return &lock.StoreError{
			Failure: lock.Unconfirmed, Addr: s.addr, Ambiguous: true,
			Err: fmt.Errorf("%d of %d replicas have confirmed the lock", got, s.minReplicas),
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

// replicas is how many have a lock that we hold, as far as is known within the time that they are given.
func (s *Store) replicas(ctx context.Context, k lock.Key) (int, error) {
	keys, _ := s.keys(k)
	node := s.client
	if cluster, ok := s.client.(*redis.ClusterClient); ok { // WAIT has no key to be routed by
		master, err := cluster.MasterForKey(ctx, keys[0])
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
		written = p.PExpire(ctx, keys[1], 24*time.Hour)
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
	wake := s.wakeKey(k, t)
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
func (s *Store) Join(ctx context.Context, r lock.Request, holder lock.Token, v lock.Action) (lock.Attempt, error) {
	mode := "join"
	if v == lock.TakeOver {
		mode = "takeover"
	}
	args := []any{r.TTL.Milliseconds(), string(holder), mode, encode(r.Record)}
	for _, t := range r.Ended {
		args = append(args, string(t))
	}
	reply, err := s.run(ctx, joinScript, r.Key, r.Token, r.Known, args...)
	if err != nil {
		return lock.Attempt{}, err
	}
	p := parser{reply: reply}
	if p.int() != 1 {
		return lock.Attempt{}, s.check(&p)
	}
	a := lock.Attempt{Granted: true, Fence: lock.Fence(p.int()), Guarded: p.int() == 1}
	return a, errors.Join(s.check(&p), s.confirm(ctx, r))
}

func (s *Store) blockedKey(hold lock.Token) string {
	return s.prefix + ":blocked:{" + string(hold) + "}"
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
		err = s.client.Del(ctx, s.blockedKey(hold)).Err()
	} else {
		err = s.client.Set(ctx, s.blockedKey(hold), text, lock.Life).Err()
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
	text, err := s.client.Get(ctx, s.blockedKey(hold)).Result()
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
func (s *Store) GiveUp(ctx context.Context, r lock.Request, why string) error {
	_, err := s.release(ctx, r.Key, r.Token, why, encode(r.Record))
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

// Break ends the hold of a holder that was seen, for everybody who shares it. by is who does it, and
// why is told to the holder. It is NotHeld when that holder does not have the lock any more.
func (s *Store) Break(ctx context.Context, k lock.Key, holder lock.Token, by lock.Record, why string) (lock.ReleaseResult, error) {
	how := fmt.Sprintf("%s by %s@%s at %s", lock.EndedByBreak, by.User, by.Host, time.Now().UTC().Format(time.RFC3339))
	if why != "" {
		how += ": " + why
	}
	reply, err := s.run(ctx, breakScript, k, "", 0, string(holder), how, encode(by), why)
	if err != nil {
		return lock.NotHeld, err
	}
	n, _ := reply.(int64)
	return lock.ReleaseResult(n), nil
}

// Note adds an event that only the holder knows of to those of a lock.
func (s *Store) Note(ctx context.Context, k lock.Key, event string, by lock.Record, why string) error {
	_, err := s.run(ctx, noteScript, k, "", 0, event, encode(by), why)
	return err
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, r lock.Request) (lock.Renewal, error) {
	reply, err := s.run(ctx, renewScript, r.Key, r.Token, r.Known, r.TTL.Milliseconds(), encode(r.Record), string(r.Own()), r.Server, intent(r.Intent))
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
	if err := s.check(&p); err != nil || renewal.Fence == r.Known {
		return renewal, err
	}
	return renewal, s.confirm(ctx, r) // a grant like any other, also when we ask for the second time
}

// intent is what is declared, a line for each ref.
func intent(updates []lock.Update) string {
	lines := make([]string, len(updates))
	for i, u := range updates {
		lines[i] = u.Ref + " " + u.Old + " " + u.New
	}
	return strings.Join(lines, "\n")
}

// Check asks for a server whether the holder of a lock has declared an update. If so, the lease lasts for
// least from now on, so that it does not end while the server works.
func (s *Store) Check(ctx context.Context, k lock.Key, u lock.Update, least time.Duration) (lock.Permit, error) {
	reply, err := s.run(ctx, checkScript, k, "", 0, u.Ref, u.Old, u.New, least.Milliseconds())
	if err != nil {
		return lock.Permit{}, err
	}
	p := parser{reply: reply}
	permit := lock.Permit{Refusal: lock.Refusal(p.text()), Holder: p.holder()}
	return permit, s.check(&p)
}

// Inspect reads one lock.
func (s *Store) Inspect(ctx context.Context, k lock.Key) (lock.State, error) {
	reply, err := s.run(ctx, inspectScript, k, "", 0)
	if err != nil {
		return lock.State{}, err
	}
	state, err := s.state(reply)
	state.Key = k
	return state, err
}

func (s *Store) state(reply any) (lock.State, error) {
	p := parser{reply: reply}
	state := lock.State{Name: p.text()}
	if h := p.holder(); h.Token != "" {
		state.Holder = &h
	}
	w := parser{reply: p.next()}
	if there := p.presence(); state.Holder != nil {
		state.Holder.Presence = there
	}
	for !w.done() {
		waiter := lock.Waiter{Token: lock.Token(w.text()), Age: micros(w.int())}
		record := w.text()
		waiter.Alive = record != ""
		waiter.Record = decode(record)
		state.Waiters = append(state.Waiters, waiter)
	}
	return state, errors.Join(s.check(&p), s.check(&w))
}

// List reads every lock that is held or waited for, sorted by key. It scans the keys in small steps.
func (s *Store) List(ctx context.Context) ([]lock.State, error) {
	ids, err := s.ids(ctx, "[lmq]*")
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, nil
	}
	load, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := inspectScript().Load(load, s.client).Err(); err != nil {
		return nil, s.failure(err)
	}
	var states []lock.State
	for some := range slices.Chunk(ids, inspectStep) {
		more, err := s.inspectSome(ctx, some)
		if err != nil {
			return nil, err
		}
		states = append(states, more...)
	}
	return states, nil
}

// inspectSome reads a few locks by what their keys have in common, in one round trip. The script must be loaded.
func (s *Store) inspectSome(ctx context.Context, ids []string) ([]lock.State, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	pipe := s.client.Pipeline()
	replies := make([]*redis.Cmd, len(ids))
	for i, id := range ids {
		keys := s.keysOf(s.kindKey("lock", id), id)
		replies[i] = pipe.EvalSha(ctx, inspectScript().Hash(), keys, "", "", 0, 0, 0, 0)
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	var states []lock.State
	for i, reply := range replies {
		value, err := reply.Result()
		if err != nil {
			err = s.failure(err)
			var se *lock.StoreError
			if errors.As(err, &se) && se.Failure == lock.NotALock {
				continue // somebody else's key, named as ours are
			}
			return nil, err
		}
		if err := s.newer(value); err != nil {
			return nil, err
		}
		state, err := s.state(value)
		if err != nil {
			return nil, err
		}
		state.Key = s.keyOf(ids[i], state.Name)
		if state.Holder != nil || len(state.Waiters) > 0 {
			states = append(states, state)
		}
	}
	return states, nil
}

// keyOf is the lock whose key on Redis has the given name; tagged is what its keys have in common.
func (s *Store) keyOf(tagged, name string) lock.Key {
	if name == s.kindKey("lock", tagged) {
		return lock.ParseID(tagged[1 : len(tagged)-1])
	}
	return lock.Key{Verbatim: name}
}

// ids are what the keys of one lock have in common, of all locks that have a key of a kind, which is a pattern.
func (s *Store) ids(ctx context.Context, kind string) ([]string, error) {
	seen := map[string]bool{}
	match := globEscape(s.prefix) + ":" + kind + ":{*"
	scan := func(ctx context.Context, c redis.UniversalClient) error {
		var cursor uint64
		for {
			ctx, cancel := context.WithTimeout(ctx, s.patience())
			keys, next, err := c.Scan(ctx, cursor, match, scanStep).Result()
			cancel()
			if err != nil {
				return s.failure(err)
			}
			for _, key := range keys {
				if _, id, ok := strings.Cut(key[len(s.prefix)+1:], ":{"); ok {
					seen["{"+id] = true
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var err error
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return scan(ctx, c)
		})
		if err != nil {
			err = s.failure(err)
		}
	} else {
		err = scan(ctx, s.client)
	}
	return sorted(seen), err
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func encode(r lock.Record) string {
	b, err := json.Marshal(r)
	if err != nil {
		return "{}" // only a malformed Session can do that
	}
	return string(b)
}

// decode reads a record. Anybody may have written it: what is no record is an empty one.
func decode(text string) lock.Record {
	var r lock.Record
	if json.Unmarshal([]byte(text), &r) != nil {
		return lock.Record{}
	}
	return r
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// check turns an answer that is not of the expected form into an error.
func (s *Store) check(p *parser) error {
	if p.bad {
		return s.failure(fmt.Errorf("unexpected answer %v", p.reply))
	}
	return nil
}

// parser takes a script's answer apart, in order.
type parser struct {
	reply any
	i     int
	bad   bool
}

func (p *parser) done() bool {
	list, ok := p.reply.([]any)
	return !ok || p.i >= len(list)
}

func (p *parser) next() any {
	if p.done() {
		p.bad = true
		return nil
	}
	p.i++
	return p.reply.([]any)[p.i-1]
}

func (p *parser) int() int64 {
	n, ok := p.next().(int64)
	p.bad = p.bad || !ok
	return n
}

func (p *parser) text() string {
	s, ok := p.next().(string)
	p.bad = p.bad || !ok
	return s
}

func (p *parser) presence() lock.Presence {
	switch p.int() {
	case 0:
		return lock.Absent
	case 1:
		return lock.Present
	default:
		return lock.PresenceUnknown
	}
}

func (p *parser) holder() lock.Holder {
	q := parser{reply: p.next()}
	h := lock.Holder{Token: lock.Token(q.text())}
	left := q.int()
	h.Left = time.Duration(left) * time.Millisecond
	h.Fence = lock.Fence(q.int())
	h.Age = micros(q.int())
	h.Known = h.Fence != 0
	h.Record = decode(q.text())
	h.TTL = time.Duration(q.int()) * time.Millisecond
	parts := parser{reply: q.next()}
	for !parts.done() {
		share := lock.Share{Token: lock.Token(parts.text()), Record: decode(parts.text())}
		if share.Token == h.Token {
			share.Record = h.Record
		}
		h.Shares = append(h.Shares, share)
	}
	p.bad = p.bad || q.bad || parts.bad
	return h
}
