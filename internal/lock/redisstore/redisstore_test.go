//go:build unix

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

func TestMain(m *testing.M) {
	gittest.Parallel(8)
	// The client's own look for a server that it could not reach ends up to a second after Close.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// soon is for what waits for none of our timers, and ttl for a lock that must not expire in a test,
// on a machine that is busy with other things for seconds at a time.
const (
	soon = time.Minute
	ttl  = 10 * time.Minute
)

var key = lock.Key{Repo: "example.com/org/repo", Branch: "main"}

func request(k lock.Key) lock.Request {
	return lock.Request{Key: k, Token: lock.NewToken(), Record: lock.Record{Repo: k.Repo, Branch: k.Branch}, TTL: ttl}
}

func open(t *testing.T, o redisstore.Options) *redisstore.Store {
	t.Helper()
	s := redisstore.Open(o)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func at(server *redistest.Server) redisstore.Options {
	return redisstore.Options{Addrs: []string{server.Addr()}}
}

// alone is a holder with whom nobody shares.
func alone(t lock.Token) lock.Holder {
	return lock.Holder{Token: t, Shares: []lock.Share{{Token: t}}}
}

// try is one attempt that the store must answer.
func try(t *testing.T, s *redisstore.Store, r lock.Request) lock.Attempt {
	t.Helper()
	a, err := s.TryAcquire(t.Context(), lock.Try{Request: r})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func release(t *testing.T, s *redisstore.Store, r lock.Request, want lock.ReleaseResult) {
	t.Helper()
	if got, err := s.Release(t.Context(), r.Key, r.Token); got != want || err != nil {
		t.Fatalf("release: got %d, %v; want %d", got, err, want)
	}
}

// Every key of a lock expires, and lies in the lock's one slot.
func TestStore_keys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	ctx := t.Context()
	for _, prefix := range []string{"", "my*app[1]?"} {
		o := at(server)
		o.Prefix = prefix
		store := open(t, o)
		holder, waiter, next := request(key), request(key), request(key)
		check := func(want ...string) {
			t.Helper()
			var kinds []string
			for _, k := range client.Keys(ctx, "*").Val() {
				if ttl := client.PTTL(ctx, k).Val(); ttl <= 0 {
					t.Errorf("%s never expires", k)
				}
				start := max(1, len(prefix))
				if prefix == "" {
					start = len("gitops")
				}
				kind, rest, _ := strings.Cut(k[start+1:], ":")
				if !strings.HasPrefix(rest, "{"+key.ID()+"}") {
					t.Errorf("%s is outside of the hash tag", k)
				}
				kinds = append(kinds, kind)
			}
			slices.Sort(kinds)
			if !slices.Equal(kinds, want) {
				t.Errorf("keys %v, want %v", kinds, want)
			}
		}
		try(t, store, holder)
		check("fence", "lock", "meta")
		if a := try(t, store, waiter); a.Granted || a.Position != 1 || a.Holder.Token != holder.Token || a.Holder.Repo != key.Repo {
			t.Errorf("got %+v", a)
		}
		if a := try(t, store, next); a.Position != 2 {
			t.Errorf("got %+v", a)
		}
		check("fence", "lock", "meta", "queue", "waiters")
		release(t, store, holder, lock.HandedOver)
		check("ended", "fence", "lock", "meta", "queue", "waiters", "wake")
		if err := store.Wait(ctx, key, waiter.Token, time.Minute); err != nil {
			t.Error(err)
		}
		if a := try(t, store, waiter); !a.Granted {
			t.Errorf("got %+v", a)
		}
		check("ended", "fence", "lock", "meta", "queue", "waiters")
		release(t, store, next, lock.NotHeld)
		release(t, store, waiter, lock.Freed)
		check("ended", "fence")
		client.FlushAll(ctx)
	}
}

func TestStore_Wait(t *testing.T) {
	t.Parallel()
	store := open(t, at(redistest.Start(t)))
	for _, d := range []time.Duration{-time.Second, 0, time.Nanosecond, 1400 * time.Microsecond, 150 * time.Millisecond} {
		quickest := time.Hour
		for range 5 { // one may be late on a machine that is busy with other things
			started := time.Now()
			if err := store.Wait(t.Context(), key, lock.NewToken(), d); err != nil {
				t.Error(err)
			}
			if quickest = min(quickest, time.Since(started)); quickest < max(d, 0)+time.Second {
				break
			}
		}
		if quickest < d || quickest > max(d, 0)+time.Second {
			t.Errorf("waited %s, took %s", d, quickest)
		}
	}
}

func TestStore_List(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	store := open(t, at(server))
	ctx := t.Context()
	if states, err := store.List(ctx); len(states) != 0 || err != nil {
		t.Errorf("got %+v, %v", states, err)
	}
	others := client.Pipeline()
	for i := range 3000 { // more than a few steps of the scan
		others.Set(ctx, "other:"+string(rune('a'+i%26))+time.Duration(i).String(), i, time.Hour)
	}
	if _, err := others.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	held := lock.Key{Repo: "h/a:b{c}", Branch: "x", Name: "n"}
	verbatim := lock.Key{Repo: "h/v", Branch: "x", Verbatim: "lock.op.acct"}
	free := lock.Key{Repo: "h/free", Branch: "x"}
	for _, k := range []lock.Key{key, held, verbatim} {
		try(t, store, request(k))
	}
	waiter := request(key)
	try(t, store, waiter)
	gone := request(free)
	try(t, store, gone)
	release(t, store, gone, lock.Freed)
	states, err := store.List(ctx)
	if err != nil || len(states) != 3 {
		t.Fatalf("got %+v, %v", states, err)
	}
	var keys []string
	for _, s := range states {
		if s.Holder == nil || !s.Holder.Known || s.Holder.Left <= 0 || s.Holder.Left > ttl || s.Holder.Age < 0 {
			t.Errorf("%s: holder %+v", s.Name, s.Holder)
		}
		keys = append(keys, s.Name)
	}
	want := []string{"gitops:lock:{example.com/org/repo@main}", "gitops:lock:{" + held.ID() + "}", "lock.op.acct"}
	if !slices.Equal(keys, want) {
		t.Errorf("got %q, want %q", keys, want)
	}
	if states[0].Key != key || states[1].Key != held || states[2].Key.Verbatim != "lock.op.acct" {
		t.Errorf("got %+v", states)
	}
	if w := states[0].Waiters; len(w) != 1 || w[0].Token != waiter.Token || !w[0].Alive || w[0].Repo != key.Repo || w[0].Age < 0 {
		t.Errorf("got %+v", w)
	}
}

// Somebody else's key, named as ours are, does not hide all locks.
func TestStore_List_strangeKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	store := open(t, at(server))
	ctx := t.Context()
	try(t, store, request(key))
	client.LPush(ctx, "gitops:queue:{jobs}", "1")
	client.HSet(ctx, "gitops:meta:{site}", "title", "x")
	states, err := store.List(ctx)
	if !slices.ContainsFunc(states, func(s lock.State) bool { return strings.Contains(s.Name, key.ID()) }) {
		t.Errorf("the lock is not listed: %+v, %v", states, err)
	}
}

func TestStore_verbatim(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	store := open(t, at(server))
	ctx := t.Context()
	r := request(lock.Key{Repo: "h/r", Branch: "main", Verbatim: "lock.op.acct"})
	try(t, store, r)
	if got := client.Get(ctx, "lock.op.acct").Val(); got != string(r.Token) {
		t.Errorf("the key has %q", got)
	}
	if client.SetNX(ctx, "lock.op.acct", "script", time.Minute).Val() {
		t.Error("a plain writer took it")
	}
	release(t, store, r, lock.Freed)
	if !client.SetNX(ctx, "lock.op.acct", "script", time.Minute).Val() {
		t.Error("a plain writer did not get the free lock")
	}
	if a := try(t, store, request(r.Key)); a.Granted || a.Holder.Known || a.Holder.Token != "script" {
		t.Errorf("got %+v", a)
	}
}

// Hostile text in the store is text.
func TestStore_foreignRecord(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	store := open(t, at(server))
	ctx := t.Context()
	r := request(key)
	try(t, store, r)
	meta := "gitops:meta:{" + key.ID() + "}"
	for _, record := range []string{"", "null", "[1]", "\x1b[2J", `{"pid":"x"}`, strings.Repeat("{", 100000)} {
		client.HSet(ctx, meta, "record", record)
		if a := try(t, store, request(key)); a.Granted || a.Holder.Token != r.Token || !a.Holder.Known {
			t.Errorf("record %.20q: got %+v", record, a)
		}
	}
}

// One connection while holding, two at most while a wait is given up. No command is refused, and
// the handshake is one HELLO: an old Redis would answer the rest with errors.
func TestStore_onTheWire(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	ctx := t.Context()
	others := strings.Count(client.ClientList(ctx).Val(), "\n")
	connections := func() int { return strings.Count(client.ClientList(ctx).Val(), "\n") - others }
	if err := client.ConfigResetStat(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	store := open(t, at(server))
	holder := request(key)
	lease, err := lock.Acquire(ctx, store, holder, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := connections(); n != 1 {
		t.Errorf("%d connections of a holder", n)
	}
	if _, err := lease.Release(ctx, store, soon); err != nil {
		t.Fatal(err)
	}
	stats := client.Info(ctx, "commandstats").Val() + client.Info(ctx, "errorstats").Val()
	t.Logf("one acquire and release:\n%s", stats)
	for _, m := range regexp.MustCompile(`errorstat_(\w+)`).FindAllStringSubmatch(stats, -1) {
		if m[1] != "NOSCRIPT" { // the first time that a server sees a script
			t.Errorf("Redis answered %s", m[1])
		}
	}
	for _, word := range []string{"cmdstat_client|setinfo", "cmdstat_client|maint"} {
		if strings.Contains(stats, word) {
			t.Errorf("the handshake sent %s", word)
		}
	}

	try(t, store, request(key))
	waiting := open(t, at(server))
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := lock.Acquire(wait, waiting, request(key), ttl, nil)
		done <- err
	}()
	gittest.Until(t, "it blocks", func() bool { return strings.Contains(client.ClientList(ctx).Val(), "cmd=blpop") })
	if n := connections(); n > 3 { // the holder's, and two
		t.Errorf("%d connections of a holder and a waiter", n)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := connections(); n > 3 {
		t.Errorf("%d connections of a holder and one who gave up", n)
	}
	_ = waiting.Close()
	gittest.Until(t, "the connections of a closed store end", func() bool { return connections() == 1 })
}

// A store is still of use after a wait that was given up, which leaves a blocked connection behind.
func TestStore_afterCancelledWait(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	store := open(t, at(server))
	try(t, open(t, at(server)), request(key))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := lock.Acquire(ctx, store, request(key), ttl, nil)
		done <- err
	}()
	gittest.Until(t, "it blocks", func() bool { return strings.Contains(client.ClientList(ctx).Val(), "cmd=blpop") })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := store.Inspect(t.Context(), key); err != nil { // one that waited for a connection would time out
		t.Error(err)
	}
}

// All scripts keep to the slot of their lock, also with names that the store makes up.
func TestStore_cluster(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes")
	client := server.Client(t)
	if err := client.Do(t.Context(), "cluster", "addslotsrange", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	gittest.Until(t, "the cluster is up", func() bool {
		return strings.Contains(client.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	o := at(server)
	o.Cluster = true
	store := open(t, o)
	for _, k := range []lock.Key{key, {Repo: "h/v", Branch: "x", Verbatim: "lock.op"}} {
		holder, waiter := request(k), request(k)
		if a, err := store.TryAcquire(t.Context(), lock.Try{Request: holder}); !a.Granted || err != nil {
			t.Errorf("%s: %+v, %v", k, a, err)
			continue
		}
		try(t, store, waiter)
		if n, err := store.Renew(t.Context(), holder.Hold(), lock.RenewOptions{}); n.Status != lock.Renewed || err != nil {
			t.Errorf("got %+v, %v", n, err)
		}
		release(t, store, holder, lock.HandedOver)
		if err := store.Wait(t.Context(), k, waiter.Token, time.Minute); err != nil {
			t.Error(err)
		}
		if a := try(t, store, waiter); !a.Granted {
			t.Errorf("got %+v", a)
		}
	}
	states, err := store.List(t.Context())
	if err != nil || len(states) < 2 {
		t.Errorf("listed %+v, %v", states, err)
	}
}

// What is sent over a connection is HELLO, SELECT where it is needed, and our own commands; nothing
// of it is an error.
func TestStore_recorded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	ctx := t.Context()
	if err := client.Do(ctx, "acl", "setuser", "ci", "on", ">"+secret, "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		options redisstore.Options
		first   []string
	}{
		"plain":    {redisstore.Options{}, []string{"hello 2"}},
		"password": {redisstore.Options{Username: "ci", Password: secret}, []string{"hello 2 auth ci " + secret}},
		"database": {redisstore.Options{DB: 3}, []string{"hello 2", "select 3"}},
		"all":      {redisstore.Options{Username: "ci", Password: secret, DB: 3, Events: 10}, []string{"hello 2 auth ci " + secret, "select 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := redistest.NewProxy(t, server.Addr())
			p.Record()
			client.FlushAll(ctx)
			client.ScriptFlush(ctx)
			client.ConfigResetStat(ctx)
			tc.options.Addrs = []string{p.Addr}
			holding, waiting := open(t, tc.options), open(t, tc.options)
			holder, waiter := request(key), request(key)
			try(t, holding, holder)
			if n, err := holding.Renew(ctx, holder.Hold(), lock.RenewOptions{}); n.Status != lock.Renewed || err != nil {
				t.Errorf("renew: %+v, %v", n, err)
			}
			try(t, waiting, waiter)
			release(t, holding, holder, lock.HandedOver)
			if err := waiting.Wait(ctx, key, waiter.Token, time.Minute); err != nil {
				t.Error(err)
			}
			try(t, waiting, waiter)
			release(t, waiting, waiter, lock.Freed)

			want := [][]string{
				// Acquire, of a lock that is used for the first time and may have missed a freeze
				// of the repository; renew, release, each for the first time.
				{"evalsha", "eval", "hget", "evalsha", "hget", "evalsha", "eval", "evalsha", "eval"},
				{"evalsha", "blpop", "evalsha", "evalsha"},
			}
			sent := p.Sent()
			if len(sent) != len(want) {
				t.Fatalf("%d connections, want %d", len(sent), len(want))
			}
			for i, text := range sent {
				all := commands(t, text)
				if len(all) < len(tc.first) || !slices.Equal(all[:len(tc.first)], tc.first) {
					t.Fatalf("connection %d begins %q, want %q", i, all, tc.first)
				}
				var names []string
				for _, c := range all[len(tc.first):] {
					word, _, _ := strings.Cut(c, " ")
					names = append(names, word)
				}
				if !slices.Equal(names, want[i]) {
					t.Errorf("connection %d: %q, want %q", i, names, want[i])
				}
			}
			stats := client.Info(ctx, "errorstats").Val()
			for _, m := range regexp.MustCompile(`errorstat_(\w+)`).FindAllStringSubmatch(stats, -1) {
				if m[1] != "NOSCRIPT" { // the first time that a server sees a script
					t.Errorf("Redis answered %s", m[1])
				}
			}
		})
	}
}

// commands takes apart what a client sent: arrays of strings (redis.io/docs "Redis serialization
// protocol").
func commands(t *testing.T, sent string) (all []string) {
	t.Helper()
	r := strings.NewReader(sent)
	for r.Len() > 0 {
		var n int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			t.Fatalf("%v in %q", err, sent)
		}
		words := make([]string, n)
		for i := range words {
			var size int
			if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
				t.Fatalf("%v in %q", err, sent)
			}
			word := make([]byte, size+2)
			if _, err := io.ReadFull(r, word); err != nil {
				t.Fatal(err)
			}
			words[i] = string(word[:size])
		}
		all = append(all, strings.Join(words, " "))
	}
	return all
}
