package redisstore

import (
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

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

	// Refused are the commands that it would not answer, to us or at all: PING, TIME, INFO, ACL WHOAMI,
	// CONFIG GET. The fields that they would fill are zero.
	Refused []string
}

// Nodes looks at the server, or the master that the Sentinels name, or each master of the Cluster.
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
// leaves nothing behind. The error joins one for each thing that the server does not allow or cannot do.
func (s *Store) Probe(ctx context.Context) error {
	holder, waiter := lock.NewToken(), lock.NewToken()
	key := lock.Key{Repo: "doctor.invalid/" + string(holder[:8]), Branch: "probe"}
	request := func(t lock.Token) lock.Request {
		return lock.Request{Key: key, Token: t, Record: lock.Record{Command: "doctor"}, TTL: 10 * time.Second}
	}
	defer s.erase(context.WithoutCancel(ctx), key, holder, waiter)

	acquire := func(t lock.Token) func() error {
		return func() error { _, err := s.TryAcquire(ctx, request(t)); return err }
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
		{"renew", func() error { _, err := s.Renew(ctx, request(holder)); return err }},
		{"queue", acquire(waiter)},
		{"wait", func() error { return s.Wait(ctx, key, waiter, leastWait) }},
		{"tell what we wait for", func() error {
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
	if _, err := s.TryAcquire(ctx, r); err != nil {
		return err
	}
	sub, err := s.Subscribe(ctx, r.Key, r.Token)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	r.Server = sub.Server()
	renewal, err := s.Renew(ctx, r)
	if err == nil && !renewal.Claimed {
		err = s.failure(errors.New("the server does not count who is subscribed (PUBSUB NUMSUB, INFO in a script)"))
	}
	return err
}

// scriptPlace is where in which script Redis 7 met an error (luaError and ACL checks in script_lua.c), and Redis 6. They
// do not name the command.
const scriptPlace = ` ?script: ([0-9a-f]{40}), on @user_script:(\d+)\.?|\(call to f_([0-9a-f]{40})\): @user_script:(\d+): `

// placed adds the line of the script, which shows the command, to an error that Redis met in one of ours.
func placed(text string) string {
	pattern := regexp.MustCompile(scriptPlace) // not before: every git command would pay
	place := pattern.FindStringSubmatch(text)
	if place == nil {
		return text
	}
	hash := place[1] + place[3]
	n, _ := strconv.Atoi(place[2] + place[4])
	for _, file := range scriptFiles() {
		body := commonLua + scriptText(file)
		if lines := strings.Split(body, "\n"); redis.NewScript(body).Hash() == hash && 0 < n && n <= len(lines) {
			return fmt.Sprintf("%s: %s", strings.TrimSpace(pattern.ReplaceAllString(text, "")), strings.TrimSpace(lines[n-1]))
		}
	}
	return text
}

// erase removes every key of a lock.
func (s *Store) erase(ctx context.Context, k lock.Key, tokens ...lock.Token) {
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	all, _ := s.keys(k)
	for _, t := range tokens {
		all = append(all, s.wakeKey(k, t))
	}
	_ = s.client.Del(ctx, all...).Err() // they expire anyway
	_ = s.client.Del(ctx, s.blockedKey(tokens[0])).Err()
}

//go:embed lua
var scripts embed.FS

func scriptFiles() []string {
	files, _ := fs.Glob(scripts, "lua/*.lua") // they are part of this program
	return files
}

func scriptText(file string) string {
	text, _ := scripts.ReadFile(file)
	return string(text)
}

// clientCommands are what a Store sends besides what its scripts call. PING is doctor's.
var clientCommands = []string{"EVAL", "EVALSHA", "BLPOP", "SET", "GET", "DEL", "SCAN", "XRANGE", "TIME", "PING", "SCRIPT|LOAD"}

const scriptCall = `call\('(\w+)'`

// ACL is the rule of a user who may do what a Store with these options does, and nothing else, for
// ACL SETUSER of Redis 6.2 or newer (redis.io/docs "ACL"). verbatim are the keys of locks that have one of
// their own. The user's passwords are left as they are.
func ACL(o Options, verbatim ...string) []string {
	commands := map[string]bool{}
	for _, c := range clientCommands {
		commands[c] = true
	}
	pattern := regexp.MustCompile(scriptCall)
	for _, file := range scriptFiles() {
		for _, call := range pattern.FindAllStringSubmatch(scriptText(file), -1) {
			commands[call[1]] = true
		}
	}
	delete(commands, "PUBSUB") // of which the scripts count subscribers, and no more
	if o.Cluster {
		commands["PUBSUB|SHARDNUMSUB"], commands["SSUBSCRIBE"] = true, true
	} else {
		commands["PUBSUB|NUMSUB"], commands["SUBSCRIBE"] = true, true
	}
	if o.DB != 0 {
		commands["SELECT"] = true
	}
	if o.MinReplicas > 0 {
		commands["WAIT"] = true
	}
	if o.Cluster {
		commands["CLUSTER|SLOTS"] = true
	}
	prefix := o.Prefix
	if prefix == "" {
		prefix = "gitops"
	}
	rule := []string{"on", "resetkeys", "~" + globEscape(prefix) + ":*"}
	for _, key := range verbatim {
		rule = append(rule, "~"+strings.Map(noBlank, globEscape(key)))
	}
	rule = append(rule, "resetchannels", "&"+strings.Map(noBlank, globEscape(prefix))+":alive:*", "-@all")
	for _, c := range slices.Sorted(maps.Keys(commands)) {
		rule = append(rule, "+"+strings.ToLower(c))
	}
	return rule
}

// noBlank is any one character in place of one that no pattern of a rule may have.
func noBlank(r rune) rune {
	if unicode.IsSpace(r) || unicode.IsControl(r) {
		return '?'
	}
	return r
}
