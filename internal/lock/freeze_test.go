//go:build unix

package lock_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// freeze freezes the test's lock, which must not take a moment's notice.
func freeze(t *testing.T, s *redisstore.Store, d time.Duration) (until time.Time) {
	t.Helper()
	by := lock.Record{User: "ann", Host: "desk", Command: "freeze"}
	all, err := s.Freeze(t.Context(), lock.FreezeRequest{Key: key, For: d, By: by, Reason: "release day"})
	if err != nil {
		t.Fatal(err)
	}
	return all[0].Until
}

func thaw(t *testing.T, s *redisstore.Store) lock.Frozen {
	t.Helper()
	all, err := s.Thaw(t.Context(), lock.FreezeRequest{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func inspect(t *testing.T, s *redisstore.Store) lock.State {
	t.Helper()
	state, err := s.Inspect(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// A frozen lock is granted to nobody, and a waiter learns who froze it and why. A thaw hands it
// over.
func TestFreeze_free(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	freeze(t, store, time.Hour)
	a := try(t, store, request())
	if f := a.Freeze; a.Granted || a.Position != 1 || a.Holder.Token != "" || f.By.User != "ann" || f.Reason != "release day" || f.Left <= 59*time.Minute {
		t.Errorf("got %+v", a)
	}
	if s := inspect(t, store); s.Holder != nil || !s.Freeze.Frozen() || len(s.Waiters) != 1 {
		t.Errorf("got %+v", s)
	}
	client.Del(t.Context(), rkey("queue"), rkey("waiters"))
	w := wait(t.Context(), t, store, request(), ttl)
	if got := thaw(t, store); !got.Before || got.Holder.Token == "" {
		t.Errorf("got %+v", got)
	}
	release(t, store, w.granted(t), lock.Freed)
	if got := thaw(t, store); got.Before {
		t.Errorf("thawed twice: %+v", got)
	}
}

// The present holder renews and releases as ever, and the next in line is not handed the lock.
func TestFreeze_held(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	w := wait(t.Context(), t, store, request(), ttl)
	freeze(t, store, time.Hour)
	if err := lease.Renew(t.Context(), store); err != nil || lease.Broken() {
		t.Errorf("renew: %v", err)
	}
	if s := inspect(t, store); s.Holder == nil || s.Holder.Token != lease.Token || s.Holder.TTL != lease.TTL || len(s.Holder.Shares) != 1 {
		t.Errorf("got %+v", s.Holder)
	}
	release(t, store, lease, lock.Freed)
	if a := try(t, store, request()); a.Granted || a.Position != 2 {
		t.Errorf("got %+v", a)
	}
	fence := client.Get(t.Context(), rkey("fence")).Val()
	thaw(t, store)
	if got := w.granted(t); strconv.FormatInt(int64(got.Fence()), 10) <= fence {
		t.Errorf("fence %d after %s", got.Fence(), fence)
	}
}

// A thaw leaves the present hold its own lease, no longer.
func TestFreeze_thawRestoresLease(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	freeze(t, store, time.Hour)
	freeze(t, store, 30*time.Minute) // again, and shorter
	if left := client.PTTL(t.Context(), rkey("lock")).Val(); left < 29*time.Minute || left > 30*time.Minute {
		t.Errorf("while it is frozen, it ends in %s", left)
	}
	thaw(t, store)
	if left := client.PTTL(t.Context(), rkey("lock")).Val(); left <= 0 || left > lease.TTL {
		t.Errorf("after it, it ends in %s", left)
	}
	fields := client.HKeys(t.Context(), rkey("meta")).Val()
	if slices.Contains(fields, "s:!frozen") || slices.Contains(fields, "lease") || client.HGet(t.Context(), rkey("meta"), "ttl").Val() != strconv.FormatInt(ttl.Milliseconds(), 10) {
		t.Errorf("left of it: %q", fields)
	}
	release(t, store, lease, lock.Freed)
}

// A freeze ends by itself, and the first in line has the lock then.
func TestFreeze_ends(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	freeze(t, store, 300*time.Millisecond)
	lease := wait(t.Context(), t, store, request(), ttl).granted(t)
	if n := client.Exists(t.Context(), rkey("frozen")).Val(); n != 0 {
		t.Error("granted, and frozen")
	}
	release(t, store, lease, lock.Freed)

	// The same while somebody holds it to beyond the end.
	lease = take(t, store, request())
	freeze(t, store, 20*time.Millisecond)
	w := wait(t.Context(), t, store, request(), ttl)
	gittest.Until(t, "the freeze ends", func() bool { return client.Exists(t.Context(), rkey("frozen")).Val() == 0 })
	release(t, store, lease, lock.HandedOver)
	release(t, store, w.granted(t), lock.Freed)
}

// Nobody joins or takes over, restores or takes along.
func TestFreeze_noOtherWay(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	ctx := t.Context()
	store := open(t, server.Addr())
	lease := take(t, store, request())
	w := seen(t, store)
	freeze(t, store, time.Hour)
	for _, v := range []lock.Action{lock.Join, lock.TakeOver} {
		d := lock.Decision{Action: v, Ended: []lock.Token{lease.Token}}
		if a, err := store.Join(ctx, lock.Try{Request: request()}, alone(lease.Token), d); a.Granted || err != nil {
			t.Errorf("%d: %+v, %v", v, a, err)
		}
	}
	if _, err := store.Offer(ctx, w.Request, lock.Offer{Ref: "r", Marker: "m", Base: "b"}); err != nil {
		t.Fatal(err)
	}
	if all, err := store.ClaimOffers(ctx, key, lease.Token, 5); len(all) > 0 || err != nil {
		t.Errorf("taken along: %+v, %v", all, err)
	}
	if _, err := store.Break(ctx, key, lease.Token, lock.Record{}, ""); err != nil {
		t.Error(err)
	}
	client.Del(ctx, rkey("lock"), rkey("fence"), rkey("queue")) // lost, and the freeze is not
	if a := tryAgain(t, store, w); a.Granted || a.Holder.Token != "" || !a.Freeze.Frozen() {
		t.Errorf("restored: %+v", a)
	}
	var lost *lock.LostError
	if err := lease.Renew(ctx, store); !errors.As(err, &lost) {
		t.Errorf("renewed: %v", err)
	}
}

// A freeze that is set after Redis lost its data leaves the lock to a holder that does not know
// that yet.
func TestFreeze_afterLossOfData(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	lease := take(t, store, request())
	client.FlushAll(t.Context())
	freeze(t, store, time.Hour)
	if err := lease.Renew(t.Context(), store); err != nil || !lease.Broken() {
		t.Errorf("got %v", err)
	}
	release(t, store, lease, lock.Freed)
	if a := try(t, store, request()); a.Granted {
		t.Errorf("got %+v", a)
	}
}

// One that holds and is not there is found out while the lock is frozen, and nobody is handed it.
func TestFreeze_holderGone(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	store := open(t, server.Addr())
	gone := open(t, server.Addr())
	r := request()
	r.Present = true
	lease := take(t, gone, r)
	stop := lease.Keep(t.Context(), gone, 0, func(error) {})
	gittest.Until(t, "it is present", lease.Claimed)
	w := wait(t.Context(), t, store, request(), ttl)
	freeze(t, store, time.Hour)
	stop()
	lease.Leave()
	gittest.Until(t, "its hold ends", func() bool { return inspect(t, store).Holder == nil })
	select {
	case <-w.done:
		t.Fatalf("granted: %v", w.err)
	default:
	}
	thaw(t, store)
	w.granted(t)
}

// Freezing a repository freezes all of its locks, those that are used for the first time included,
// and leaves what is frozen by itself frozen when it ends.
func TestFreeze_repository(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	repositoryFrozen(t, func() *redisstore.Store { return open(t, server.Addr()) })
}

// Of a freeze and a thaw of a whole repository at the same time, the later one counts for each
// lock.
func TestFreeze_repositoryAtOnce(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"freeze", "thaw"} {
		t.Run(first, func(t *testing.T) {
			server := redistest.Start(t)
			store, p := open(t, server.Addr()), newProxy(t, server.Addr())
			release(t, store, take(t, store, request()), lock.Freed)
			r := lock.FreezeRequest{Key: key.WholeRepo(), For: time.Hour}
			do := func(s *redisstore.Store, freeze bool) {
				var err error
				if freeze {
					_, err = s.Freeze(t.Context(), r)
				} else {
					_, err = s.Thaw(t.Context(), r)
				}
				if err != nil {
					t.Error(err)
				}
			}
			do(store, first == "thaw")
			var once sync.Once
			p.onQuestion(func(q []byte) bool {
				if bytes.Contains(bytes.ToLower(q), []byte("scan")) {
					once.Do(func() { do(store, first == "thaw") })
				}
				return true
			})
			do(open(t, p.addr), first == "freeze")
			if a := try(t, store, request()); a.Granted != (first == "freeze") {
				t.Errorf("it was thawed last: %v; granted: %v", first == "freeze", a.Granted)
			}
		})
	}
}

func TestFreeze_repositoryOnCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.Cluster(t)
	repositoryFrozen(t, func() *redisstore.Store {
		return openWith(t, redisstore.Options{Addrs: cluster.Addrs(), Cluster: true})
	})
}

func repositoryFrozen(t *testing.T, open func() *redisstore.Store) {
	store := open()
	ctx := t.Context()
	other := lock.Key{Repo: "example.com/org/repo-2", Branch: "main"}
	narrow := lock.Key{Repo: key.Repo, Branch: key.Branch, Name: "svc"}
	fresh := lock.Key{Repo: key.Repo, Branch: "fresh"}
	freshNarrow := lock.Key{Repo: key.Repo, Branch: key.Branch, Name: "fresh"}
	on := func(k lock.Key) lock.Request {
		r := request()
		r.Key = k
		return r
	}
	granted := func(k lock.Key, want bool) {
		t.Helper()
		r := on(k)
		a := try(t, open(), r)
		if a.Granted != want {
			t.Errorf("%s: %+v", k, a)
		}
		if _, err := store.Release(ctx, k, r.Token); err != nil {
			t.Error(err)
		}
	}
	granted(key, true)
	granted(narrow, true)
	request := func(k lock.Key) lock.FreezeRequest {
		return lock.FreezeRequest{Key: k, For: time.Hour, By: lock.Record{User: "ann"}}
	}
	frozen, err := store.Freeze(ctx, request(key.WholeRepo()))
	if err != nil || len(frozen) != 3 {
		t.Errorf("got %+v, %v", frozen, err)
	}
	for _, k := range []lock.Key{key, narrow, fresh, freshNarrow} {
		granted(k, false)
	}
	granted(other, true)
	if _, err := store.Freeze(ctx, request(key)); err != nil {
		t.Fatal(err)
	}
	frozenNow := func() (n int) {
		t.Helper()
		all, err := store.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Freeze.Frozen() {
				n++
			}
		}
		return n
	}
	if n := frozenNow(); n != 5 {
		t.Errorf("%d are frozen: the four locks, and the repository", n)
	}
	if _, err := store.Thaw(ctx, request(key.WholeRepo())); err != nil {
		t.Fatal(err)
	}
	granted(fresh, true)
	for _, k := range []lock.Key{key, narrow, freshNarrow} {
		granted(k, false) // by the branch's own
	}
	if _, err := store.Thaw(ctx, request(key)); err != nil {
		t.Fatal(err)
	}
	for _, k := range []lock.Key{key, narrow, fresh, freshNarrow} {
		granted(k, true)
	}
	if n := frozenNow(); n != 0 {
		t.Errorf("%d are still frozen", n)
	}
}

// older is a client from before there were freezes and policies: the scripts of that time, as they
// were.
type older struct {
	client  *redis.Client
	timing  lock.Timing
	scripts map[string]*redis.Script
}

func newOlder(t *testing.T, c *redis.Client) *older {
	o := &older{client: c, timing: lock.DefaultTiming(), scripts: map[string]*redis.Script{}}
	read := func(name string) string {
		text, err := os.ReadFile("testdata/before-freezes/" + name + ".lua")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, name := range []string{"acquire", "release", "renew", "join", "inspect"} {
		o.scripts[name] = redis.NewScript(read("common") + read(name))
	}
	return o
}

func (o *older) run(t *testing.T, name string, token lock.Token, more ...any) []any {
	t.Helper()
	reply, err := o.try(t, name, token, more...)
	if err != nil {
		t.Fatalf("%s of an older client: %v", name, err)
	}
	return reply
}

func (o *older) try(t *testing.T, name string, token lock.Token, more ...any) ([]any, error) {
	t.Helper()
	var keys []string
	for _, kind := range []string{"lock", "meta", "queue", "fence", "events", "waiters", "ended", "alive"} {
		keys = append(keys, rkey(kind))
	}
	args := append([]any{string(token), rkey("wake") + ":", o.timing.Claim.Milliseconds(), 1000, o.timing.Life.Milliseconds(), 0}, more...)
	reply, err := o.scripts[name].Run(t.Context(), o.client, keys, args...).Result()
	if err != nil {
		return nil, err
	}
	if n, ok := reply.(int64); ok {
		return []any{n}, nil
	}
	return reply.([]any), nil
}

const olderRecord = `{"user":"old","host":"timer"}`

// acquire reports whether it was granted. The scripts of that time fail for a waiter that has lost
// its position because it was silent: that ends its wait, as a reply of -1 does.
func (o *older) acquire(t *testing.T, token lock.Token, ticket int64) (granted bool, reply []any) {
	t.Helper()
	reply, err := o.try(t, "acquire", token, 60000, ticket, olderRecord, 0, "", 0, "")
	if err != nil && strings.Contains(err.Error(), "arithmetic on a boolean value") {
		return false, []any{int64(-1)}
	}
	if err != nil {
		t.Fatalf("acquire of an older client: %v", err)
	}
	return reply[0] == int64(1), reply
}

func (o *older) release(t *testing.T, token lock.Token) {
	t.Helper()
	o.run(t, "release", token, "released", 600000, "")
}

func (o *older) renew(t *testing.T, token lock.Token) int64 {
	t.Helper()
	n, _ := o.run(t, "renew", token, 60000, olderRecord, string(token), "", "")[0].(int64)
	return n
}

// An older client releases a frozen lock, others of its version wait, and no newer one is there.
// The freeze holds them, and each keeps its place.
func TestFreeze_olderClients(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	store := open(t, server.Addr())
	old := newOlder(t, client)
	holder, first, second := lock.NewToken(), lock.NewToken(), lock.NewToken()
	if ok, reply := old.acquire(t, holder, 0); !ok {
		t.Fatalf("got %v", reply)
	}
	_, reply := old.acquire(t, first, 0)
	ticket := reply[2].(int64)
	old.acquire(t, second, 0)
	freeze(t, store, time.Hour)
	if n := old.renew(t, holder); n != 1 {
		t.Errorf("the holder's renewal: %d", n)
	}
	old.run(t, "join", lock.NewToken(), 60000, string(holder), "takeover", olderRecord, string(holder)) // as its judge asks
	if got := client.Get(t.Context(), rkey("lock")).Val(); got != string(holder) {
		t.Fatalf("taken over by %s", got)
	}
	old.release(t, holder)
	for range 3 {
		if ok, reply := old.acquire(t, first, ticket); ok || reply[1] != int64(1) {
			t.Errorf("the first: %v", reply)
		}
		if ok, reply := old.acquire(t, second, 0); ok || reply[1] != int64(2) {
			t.Errorf("the second: %v", reply)
		}
	}
	if left := client.PTTL(t.Context(), rkey("lock")).Val(); left < 59*time.Minute {
		t.Errorf("it is theirs in %s", left)
	}
	// A newer client is there, and the older ones see who froze the lock.
	try(t, store, request())
	if seen := old.run(t, "inspect", ""); !strings.Contains(fmt.Sprint(seen[1]), `"user":"ann"`) {
		t.Errorf("an older client sees %v", seen[1])
	}
	if s := inspect(t, store); s.Holder != nil {
		t.Errorf("held by %+v", s.Holder)
	}
	thaw(t, store)
	if ok, reply := old.acquire(t, first, ticket); !ok {
		t.Errorf("after the thaw: %v", reply)
	}
}

// Steps of clients old and new at random: no step grants a frozen lock, whatever it is. Every grant
// has a new fence.
func TestFreeze_noGrant(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if s := os.Getenv("LOCK_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("LOCK_TEST_SEED=%d", seed)
	for _, mixed := range []bool{false, true} {
		t.Run(map[bool]string{false: "ours", true: "mixed"}[mixed], func(t *testing.T) {
			t.Parallel()
			server, client := serve(t)
			ctx := t.Context()
			store := open(t, server.Addr())
			old := newOlder(t, client)
			dice := rand.New(rand.NewPCG(seed, 1))
			type one struct {
				lock.Try
				older bool
			}
			var all []*one
			for i := range 8 {
				all = append(all, &one{Try: lock.Try{Request: request()}, older: mixed && i%2 == 0})
			}
			// begun is when the freeze of now began, 0 for none; fence the last grant's.
			look := redis.NewScript(`
				local us, since = string.match(redis.call('HGET', KEYS[1], 'own') or '', '^(%d+) (%d+) ')
				local t = redis.call('TIME')
				if not us or tonumber(us) <= t[1] * 1000000 + t[2] then since = '0' end
				return {since, redis.call('GET', KEYS[2]) or '0', redis.call('GET', KEYS[3]) or ''}`)
			state := func() (begun, fence, holder string) {
				got, err := look.Run(ctx, client, []string{rkey("frozen"), rkey("fence"), rkey("lock")}).StringSlice()
				if err != nil {
					t.Fatal(err)
				}
				return got[0], got[1], got[2]
			}
			var frozenSteps, grants int
			begun, fence, _ := state()
			for step := range 3000 {
				c := all[dice.IntN(len(all))]
				what := dice.IntN(100)
				var did string
				switch {
				case what < 40 && c.older:
					_, reply := old.acquire(t, c.Token, c.Ticket)
					switch reply[0] {
					case int64(0):
						c.Ticket = reply[2].(int64)
					case int64(-1):
						c.Try = lock.Try{Request: request()}
						continue
					}
					did = "an older acquire"
				case what < 40:
					c.HeadStart = time.Duration(dice.IntN(3)) * time.Minute
					a, err := store.TryAcquire(ctx, c.Try)
					if err != nil && !strings.Contains(err.Error(), "ended already (taken over)") {
						t.Fatal(err)
					} else if err != nil {
						c.Try = lock.Try{Request: request()}
						continue
					}
					c.Ticket, c.Arrived = a.Ticket, a.Arrived
					if a.Granted || a.Holder.Token == "" {
						c.HeldBy = ""
					} else {
						c.HeldBy, c.HeldUntil, c.Known = a.Holder.Token, time.Now().Add(time.Minute), a.Holder.Fence
					}
					did = "an acquire"
				case what < 60:
					_, _, holder := state()
					for _, one := range all {
						if string(one.Token) == holder && dice.IntN(2) == 0 {
							c = one
						}
					}
					if c.older {
						old.release(t, c.Token)
					} else if _, err := store.Release(ctx, key, c.Token); err != nil {
						t.Fatal(err)
					}
					c.Try = lock.Try{Request: request()}
					did = "a release"
				case what < 75:
					if c.older {
						old.renew(t, c.Token)
					} else if _, err := store.Renew(ctx, c.Hold(), lock.RenewOptions{Known: c.Known}); err != nil {
						t.Fatal(err)
					}
					did = "a renewal"
				case what < 80 && !c.older:
					holder := inspect(t, store).Holder
					if holder == nil || c.Token == holder.Token {
						continue // it would be lost to this test
					}
					d := lock.Decision{Action: []lock.Action{lock.Join, lock.TakeOver}[dice.IntN(2)], Ended: []lock.Token{holder.Token}}
					w := lock.Try{Request: request()}
					if a, err := store.Join(ctx, w, *holder, d); err != nil {
						t.Fatal(err)
					} else if a.Granted {
						c.Try = w
					}
					did = "a join or takeover"
				case what < 83 && (!mixed || begun == "0"): // a frozen lock that expires is free for older clients
					client.Del(ctx, rkey("lock"))
					did = "an expiry"
				case what < 86:
					client.Del(ctx, rkey("waiters"))
					did = "the death of all waiters"
				case what < 92:
					freeze(t, store, []time.Duration{time.Hour, 20 * time.Millisecond}[dice.IntN(2)])
					did = "a freeze"
				default:
					thaw(t, store)
					did = "a thaw"
				}
				b, f, holder := state()
				if b != "0" {
					frozenSteps++
				}
				if f != fence {
					grants++
				}
				// A renewal may take a lock back that is gone but was not frozen when it went.
				if b != "0" && b == begun && f != fence {
					t.Fatalf("step %d, %s: granted to %q, fence %s after %s, while frozen since %s", step, did, holder, f, fence, b)
				}
				begun, fence = b, f
			}
			if frozenSteps < 300 || grants < 5 {
				t.Errorf("%d steps while it was frozen, %d grants: this proves little", frozenSteps, grants)
			}
		})
	}
}

// Pipelines take turns while others freeze and thaw: the events are those of a lock that is granted
// to nobody from a freeze to its end, and everybody has its turn in the end.
func TestFreeze_races(t *testing.T) {
	t.Parallel()
	server, client := serve(t)
	const pipelines, rounds = 6, 8
	timing := lock.DefaultTiming()
	timing.Claim = 300 * time.Millisecond // how long one that dies right after a hand-over has the lock
	openNoting := func() *redisstore.Store {
		return openWith(t, redisstore.Options{Addrs: []string{server.Addr()}, Events: 100000, Timing: timing})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var freezing, turns sync.WaitGroup
	var ends []time.Time
	freezing.Go(func() {
		s := openNoting()
		for i := 0; ctx.Err() == nil; i++ {
			ends = append(ends, freeze(t, s, time.Duration(5+rand.IntN(40))*time.Millisecond))
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			if i%2 == 0 {
				thaw(t, s)
			}
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
		}
	})
	for range pipelines {
		s := openNoting()
		turns.Go(func() {
			for range rounds {
				r := request()
				if rand.IntN(4) == 0 {
					r.TTL = 15 * time.Millisecond // and dies
				}
				lease, err := lock.Acquire(ctx, s, r, ttl, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if r.TTL == ttl {
					if _, err := lease.Release(ctx, s, soon); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	turns.Wait()
	cancel()
	freezing.Wait()

	entries, err := client.XRange(t.Context(), rkey("events"), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	// A fence says when its grant was. The id of an event does not: on a busy machine some time
	// passes between the beginning of a script and the note of its event.
	var end, last int64 // of the freeze of now; the greatest fence; µs
	freezes, grants := 0, 0
	for _, e := range entries {
		switch e.Values["type"] {
		case "frozen":
			end = ends[freezes].UnixMicro()
			freezes++
		case "thawed":
			end = 0
		case "acquired", "handed_over", "taken_over", "reasserted":
			text, _ := e.Values["fence"].(string)
			if f, _ := strconv.ParseInt(text, 10, 64); f > last {
				last = f
				grants++
				if f < end {
					text, _ := json.Marshal(e.Values)
					t.Errorf("%d µs before the end of a freeze: %s", end-f, text)
				}
			}
		}
	}
	if grants < pipelines*rounds || freezes < 10 {
		t.Errorf("%d grants, %d freezes", grants, freezes)
	}
	t.Logf("%d grants, %d freezes", grants, freezes)
}
