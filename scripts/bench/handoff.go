package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

const (
	// held is how long each holder keeps the lock: time for all others to come to rest.
	held = 2 * time.Millisecond
	// patience bounds every wait.
	patience = 10 * time.Minute
)

// handoff is what one length of the queue measured; times are in milliseconds.
type handoff struct {
	Waiters            int     `json:"waiters"`
	HandOffs           int     `json:"hand_offs"`
	P50                float64 `json:"p50_ms"`
	P99                float64 `json:"p99_ms"`
	FullP50            float64 `json:"full_p50_ms"`
	FullP99            float64 `json:"full_p99_ms"`
	CommandsPerHandOff float64 `json:"commands_per_hand_off"`
	InScripts          float64 `json:"script_calls_per_hand_off"`
	IdlePerSecond      float64 `json:"idle_commands_per_second_and_waiter"`
	IdlePerHeartbeat   float64 `json:"idle_commands_per_heartbeat_and_waiter"`
	Connections        float64 `json:"connections_per_waiter"`
	Kilobytes          float64 `json:"redis_kilobytes_per_waiter"`
}

func handoffCommand(args []string) error {
	flags := flag.NewFlagSet("handoff", flag.ExitOnError)
	lengths := flags.String("waiters", "1,10,100,1000", "`LENGTHS` of the queue, separated by commas")
	rounds := flags.Int("rounds", 200, "`NUMBER` of hand-offs for each")
	idle := flags.Duration("idle", 3*lock.DefaultTiming().Heartbeat, "how long to look at waiters while nothing happens; 0 for not at all")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot

	rows := []string{row("WAITERS", "P50 ms", "P99 ms", "FULL P50", "FULL P99", "COMMANDS", "IN SCRIPTS", "IDLE/S", "IDLE/HB", "CONNS", "KB")}
	var results []handoff
	for word := range strings.SplitSeq(*lengths, ",") {
		waiters, err := strconv.Atoi(word)
		if err != nil || waiters < 1 {
			return fmt.Errorf("-waiters: %q is no number of waiters", word)
		}
		r, err := measureHandOff(waiters, max(1, *rounds), *idle)
		if err != nil {
			return fmt.Errorf("with %d waiters: %w", waiters, err)
		}
		results = append(results, r)
		rows = append(rows, row(strconv.Itoa(r.Waiters), ms(r.P50), ms(r.P99), ms(r.FullP50), ms(r.FullP99), short(r.CommandsPerHandOff),
			short(r.InScripts), ms(r.IdlePerSecond), short(r.IdlePerHeartbeat), short(r.Connections), short(r.Kilobytes)))
	}
	return report(os.Stdout, *asJSON, results, rows)
}

func ms(f float64) string    { return strconv.FormatFloat(f, 'f', 3, 64) }
func short(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

// measureHandOff has a server of its own, so that one length of the queue does not burden the next.
func measureHandOff(waiters, rounds int, idle time.Duration) (r handoff, err error) {
	server, admin, stop, err := startRedis()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before, err := usage(ctx, admin)
	if err != nil {
		return r, err
	}
	q := &queue{granted: make(chan grant), waiting: make(chan struct{}, 1)}
	for range waiters + 1 {
		s := redisstore.Open(redisstore.Options{Addrs: []string{server.Addr()}})
		defer func() { _ = s.Close() }()
		if err := q.join(ctx, s); err != nil {
			return r, err
		}
	}

	releases, fulls, err := q.turn(ctx, rounds)
	if err != nil {
		return r, err
	}
	r = handoff{Waiters: waiters, HandOffs: rounds}
	r.P50, r.P99 = percentile(releases, 0.5), percentile(releases, 0.99)
	r.FullP50, r.FullP99 = percentile(fulls, 0.5), percentile(fulls, 0.99)

	counted, err := count(ctx, admin, server.Addr(), func() error {
		_, _, err := q.turn(ctx, rounds)
		return err
	})
	if err != nil {
		return r, err
	}
	r.CommandsPerHandOff = float64(len(counted.sent)) / float64(rounds)
	r.InScripts = float64(counted.inScripts) / float64(rounds)

	after, err := usage(ctx, admin)
	if err != nil {
		return r, err
	}
	r.Connections = (after["connected_clients"] - before["connected_clients"]) / float64(waiters+1)
	r.Kilobytes = (after["used_memory"] - before["used_memory"]) / 1024 / float64(waiters+1)
	if idle <= 0 {
		return r, nil
	}
	counted, err = count(ctx, admin, server.Addr(), func() error { time.Sleep(idle); return nil })
	if err != nil {
		return r, err
	}
	r.IdlePerSecond = counted.rate() / float64(waiters)
	r.IdlePerHeartbeat = r.IdlePerSecond * lock.DefaultTiming().Heartbeat.Seconds()
	return r, nil
}

// startRedis starts a server of its own, with a client to look at it, and returns how to end both.
func startRedis(args ...string) (server *redistest.Server, admin *redis.Client, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "gitops-bench-")
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	if server, err = redistest.Run(dir, args...); err != nil {
		return nil, nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	admin = redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2, DisableIdentity: true})
	return server, admin, func() error {
		_ = admin.Close()
		server.Stop()
		return os.RemoveAll(dir)
	}, nil
}

// queue is one lock, its holder, and those who wait for it.
type queue struct {
	holder  grant
	granted chan grant
	waiting chan struct{} // the one who joined last has its place
}

// grant is the lock as it came to one of them.
type grant struct {
	at    time.Time
	store *redisstore.Store
	lease *lock.Lease
	err   error
}

// join has a store ask for the lock, as a new pipeline would, and returns when it holds or waits.
func (q *queue) join(ctx context.Context, s *redisstore.Store) error {
	r := lock.Request{Key: lock.Key{Repo: "example.com/bench/repo", Branch: "main"}, Token: lock.NewToken(), TTL: patience}
	r.Record = lock.Record{Repo: r.Key.Repo, Branch: r.Key.Branch, Host: "bench", User: "bench", PID: os.Getpid(), Command: "clone"}
	go func() {
		first := true
		lease, err := lock.Acquire(ctx, s, r, patience, func(lock.Waiting) {
			if first {
				first = false
				q.waiting <- struct{}{}
			}
		})
		select {
		case q.granted <- grant{at: time.Now(), store: s, lease: lease, err: err}:
		case <-ctx.Done():
		}
	}()
	select {
	case <-q.waiting:
		return nil
	case q.holder = <-q.granted:
		return q.holder.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turn hands the lock on in a number of rounds.
func (q *queue) turn(ctx context.Context, rounds int) (fromReturn, fromCall []time.Duration, err error) {
	for range rounds {
		time.Sleep(held)
		last := q.holder
		called := time.Now()
		result, err := last.store.Release(ctx, last.lease.Key, last.lease.Token)
		returned := time.Now()
		if err != nil {
			return nil, nil, fmt.Errorf("release: %w", err)
		}
		if result != lock.HandedOver {
			return nil, nil, fmt.Errorf("release: the lock was not handed over (%d)", result)
		}
		select {
		case q.holder = <-q.granted:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
		if q.holder.err != nil {
			return nil, nil, fmt.Errorf("acquire: %w", q.holder.err)
		}
		fromReturn = append(fromReturn, q.holder.at.Sub(returned))
		fromCall = append(fromCall, q.holder.at.Sub(called))
		if err := q.join(ctx, last.store); err != nil {
			return nil, nil, err
		}
	}
	return fromReturn, fromCall, nil
}

// counts are the commands that a server ran.
type counts struct {
	sent      []command // by clients
	inScripts int       // called from Lua
}

// command is one that a client sent.
type command struct {
	at     float64 // seconds, by the server's clock
	client string  // its address
	name   string
}

// parseCommand reads a line of MONITOR: +SECONDS [DB ADDRESS] "NAME" …
func parseCommand(line string) (command, error) {
	words := strings.SplitN(line, " ", 5)
	if len(words) < 4 {
		return command{}, fmt.Errorf("not a line of MONITOR: %q", line)
	}
	at, err := strconv.ParseFloat(strings.TrimPrefix(words[0], "+"), 64)
	if err != nil {
		return command{}, fmt.Errorf("not a line of MONITOR: %q", line)
	}
	return command{at: at, client: words[2], name: strings.TrimSpace(words[3])}, nil
}

// rate is how many commands all clients together send in a second. Of each client only whole cycles
// count, which end with its last command and begin with the first one of that name: waiters that
// queued together beat together, and would be counted once too often or too rarely.
func (c counts) rate() float64 {
	clients := map[string][]command{}
	for _, cmd := range c.sent {
		clients[cmd.client] = append(clients[cmd.client], cmd)
	}
	var sum float64
	for _, sent := range clients {
		last := len(sent) - 1
		first := slices.IndexFunc(sent, func(cmd command) bool { return cmd.name == sent[last].name })
		if first < last {
			sum += float64(last-first) / (sent[last].at - sent[first].at)
		}
	}
	return sum
}

// count has MONITOR tell the commands while f runs. The lines are bracketed by two marks, which are
// not counted.
func count(ctx context.Context, admin *redis.Client, addr string, f func() error) (counts, error) {
	const begin, end = "bench-begin", "bench-end"
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return counts{}, fmt.Errorf("monitor: %w", err)
	}
	defer func() { _ = conn.Close() }()
	lines := bufio.NewReader(conn)
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		return counts{}, fmt.Errorf("monitor: %w", err)
	}
	reply, err := lines.ReadString('\n')
	if err == nil && reply != "+OK\r\n" {
		err = errors.New(strings.TrimSpace(reply))
	}
	if err != nil {
		return counts{}, fmt.Errorf("monitor: %w", err)
	}
	type answer struct {
		counts
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		var c counts
		for counting := false; ; {
			line, err := lines.ReadString('\n')
			switch {
			case err != nil:
				answered <- answer{err: fmt.Errorf("monitor: %w", err)}
				return
			case strings.HasSuffix(line, `"`+begin+"\"\r\n"):
				counting = true
			case strings.HasSuffix(line, `"`+end+"\"\r\n"):
				answered <- answer{counts: c}
				return
			case counting && strings.Contains(line, " lua] "): // [db lua], where a client has its address
				c.inScripts++
			case counting:
				cmd, err := parseCommand(line)
				if err != nil {
					answered <- answer{err: err}
					return
				}
				c.sent = append(c.sent, cmd)
			}
		}
	}()
	if err := admin.Echo(ctx, begin).Err(); err != nil {
		return counts{}, fmt.Errorf("monitor: %w", err)
	}
	if err := f(); err != nil {
		return counts{}, err
	}
	if err := admin.Echo(ctx, end).Err(); err != nil {
		return counts{}, fmt.Errorf("monitor: %w", err)
	}
	a := <-answered
	return a.counts, a.err
}

// usage reads the numbers of INFO's clients, memory and cpu sections.
func usage(ctx context.Context, admin *redis.Client) (map[string]float64, error) {
	return numbers(ctx, admin, "clients", "memory", "cpu")
}

// numbers reads those of sections of INFO; of a command how often it was called.
func numbers(ctx context.Context, admin *redis.Client, sections ...string) (map[string]float64, error) {
	numbers := map[string]float64{}
	for _, section := range sections {
		text, err := admin.Info(ctx, section).Result()
		if err != nil {
			return nil, fmt.Errorf("read what the server uses: %w", err)
		}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			value, _, _ = strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				numbers[name] = n
			}
		}
	}
	return numbers, nil
}
