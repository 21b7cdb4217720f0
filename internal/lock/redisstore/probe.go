package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

const (
	pings = 50
	// pingBudget ends the pinging of a server that is far away.
	pingBudget = 5 * time.Second
)

// Node is one server that keeps locks, as it shows itself.
type Node struct {
	Addr  string               // the other end of the connection
	TLS   *tls.ConnectionState // nil: none
	User  string               // who we are to it
	Pings []time.Duration      // round trips, at most 50, sorted
	Ahead time.Duration        // its clock against ours, give or take half a round trip
	Info  map[string]string    // fields of INFO (redis.io/commands/info)
	Save  string               // when it makes snapshots, "" for never (CONFIG GET save)

	// Refused are the commands that it would not answer, to us or at all: PING, TIME, INFO, ACL
	// WHOAMI, CONFIG GET. The fields that they would fill are zero.
	Refused []string
}

// Nodes checks the server, or the master that the Sentinels name, or each master of the Cluster.
func (s *Store) Nodes(ctx context.Context) ([]Node, error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		node, err := s.node(ctx, s.client.(*redis.Client))
		if err != nil {
			return nil, err
		}
		return []Node{node}, nil
	}
	var (
		mu    sync.Mutex
		nodes []Node
	)
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		node, err := s.node(ctx, c)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	if err != nil {
		return nil, s.failure(err)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Addr, b.Addr) })
	return nodes, nil
}

func (s *Store) node(ctx context.Context, c *redis.Client) (Node, error) {
	// A connection of its own, because the client shows nobody those that it has.
	conn, err := c.Options().Dialer(ctx, c.Options().Network, c.Options().Addr)
	if err != nil {
		return Node{}, s.failure(err)
	}
	n := Node{Addr: conn.RemoteAddr().String(), TLS: tlsState(conn)}
	if n.Addr == "" || n.Addr == "@" { // a socket
		n.Addr = c.Options().Addr
	}
	_ = conn.Close()

	// ask is one question; that it is refused is an answer.
	ask := func(name string, question func(context.Context) error) error {
		limit, cancel := context.WithTimeout(ctx, s.patience())
		defer cancel()
		err := question(limit)
		var reply redis.Error
		if err == nil {
			return nil
		}
		if !errors.As(err, &reply) || replyFailure(reply.Error()) == lock.AuthFailed {
			return s.failure(err)
		}
		if !slices.Contains(n.Refused, name) {
			n.Refused = append(n.Refused, name)
		}
		return nil
	}
	ping := func(ctx context.Context) error {
		start := time.Now()
		err := c.Ping(ctx).Err()
		if err == nil {
			n.Pings = append(n.Pings, time.Since(start))
		}
		return err
	}
	if err := ask("PING", ping); err != nil { // the first makes the connection, and does not count
		return n, err
	}
	n.Pings = nil
	for start := time.Now(); len(n.Pings) < pings && len(n.Refused) == 0 && time.Since(start) < pingBudget; {
		if err := ask("PING", ping); err != nil {
			return n, err
		}
	}
	slices.Sort(n.Pings)
	for _, q := range []struct {
		name     string
		question func(context.Context) error
	}{
		{"TIME", func(ctx context.Context) error {
			start := time.Now()
			now := c.Time(ctx)
			n.Ahead = now.Val().Sub(start.Add(time.Since(start) / 2))
			return now.Err()
		}},
		{"INFO", func(ctx context.Context) error {
			info := c.Info(ctx)
			n.Info = parseInfo(info.Val())
			return info.Err()
		}},
		{"ACL WHOAMI", func(ctx context.Context) error {
			who := redis.NewStringCmd(ctx, "acl", "whoami")
			err := c.Process(ctx, who)
			n.User = who.Val()
			return err //nolint:wrapcheck // ask does
		}},
		{"CONFIG GET", func(ctx context.Context) error {
			values := c.ConfigGet(ctx, "save")
			n.Save = values.Val()["save"]
			return values.Err()
		}},
	} {
		if err := ask(q.name, q.question); err != nil {
			return n, err
		}
	}
	return n, nil
}

func parseInfo(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

// Probe leads a lock that nobody else knows through its whole life, with a holder and a waiter, and
// leaves nothing behind. The error joins one for each thing that the server does not allow or
// cannot do.
func (s *Store) Probe(ctx context.Context) error {
	holder, waiter := lock.NewToken(), lock.NewToken()
	key := lock.Key{Repo: "doctor.invalid/" + string(holder[:8]), Branch: "probe"}
	request := func(t lock.Token) lock.Request {
		return lock.Request{Key: key, Token: t, Record: lock.Record{Command: "doctor"}, TTL: 10 * time.Second}
	}
	defer s.erase(context.WithoutCancel(ctx), key, holder, waiter)

	acquire := func(t lock.Token) func() error {
		return func() error { _, err := s.TryAcquire(ctx, lock.Try{Request: request(t)}); return err }
	}
	release := func(t lock.Token) func() error {
		return func() error { _, err := s.Release(ctx, key, t); return err }
	}
	var errs []error
	seen := map[string]bool{}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"acquire", acquire(holder)},
		{"renew", func() error { _, err := s.Renew(ctx, request(holder).Hold(), lock.RenewOptions{}); return err }},
		{"queue", acquire(waiter)},
		{"wait", func() error { return s.Wait(ctx, key, waiter, leastWait) }},
		{"record what a script waits for", func() error {
			return s.Block(ctx, holder, lock.Blocked{Lock: key.String(), Holders: []lock.Token{waiter}})
		}},
		{"ask what others wait for", func() error { _, _, err := s.Blocked(ctx, holder); return err }},
		{"hand over", release(holder)},
		{"take what was handed over", acquire(waiter)},
		{"list", func() error { _, err := s.List(ctx); return err }},
		{"release", release(waiter)},
	} {
		err := step.do()
		if err == nil {
			continue
		}
		if text := err.Error(); !seen[text] {
			seen[text] = true
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
		}
	}
	return errors.Join(errs...)
}

// ProbePresence tries whether presence works on this server and for this user: a holder that is
// subscribed must be counted. The error says what does not.
func (s *Store) ProbePresence(ctx context.Context) error {
	r := lock.Request{Token: lock.NewToken(), Record: lock.Record{Command: "doctor"}, TTL: 10 * time.Second}
	r.Key = lock.Key{Repo: "doctor.invalid/" + string(r.Token[:8]), Branch: "probe"}
	defer s.erase(context.WithoutCancel(ctx), r.Key, r.Token)
	if _, err := s.TryAcquire(ctx, lock.Try{Request: r}); err != nil {
		return err
	}
	sub, err := s.Subscribe(ctx, r.Key, r.Token)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	renewal, err := s.Renew(ctx, r.Hold(), lock.RenewOptions{Server: sub.Server()})
	if err == nil && !renewal.Claimed {
		err = s.failure(errors.New("the server does not count subscribers (PUBSUB NUMSUB, INFO in a script)"))
	}
	return err
}

// ProbeCheck tries what the hook of a git server asks. It leaves one small key behind, which
// expires: a server's user may delete nothing.
func (s *Store) ProbeCheck(ctx context.Context) error {
	k := lock.Key{Repo: "doctor.invalid/server", Branch: "probe"}
	_, err := s.Check(ctx, k, lock.Update{Ref: "refs/heads/probe"}, time.Minute)
	return err
}

// erase removes every key of a lock.
func (s *Store) erase(ctx context.Context, k lock.Key, tokens ...lock.Token) {
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	all := s.layout.keys(k)
	for _, t := range tokens {
		all = append(all, s.layout.wake(k, t))
	}
	_ = s.client.Del(ctx, all...).Err() // they expire anyway
	_ = s.client.Del(ctx, s.layout.blocked(tokens[0])).Err()
}
