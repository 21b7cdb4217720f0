//go:build unix

package chaos

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// monitor follows what Redis carries out (MONITOR), also within scripts, and keeps a mirror of
// every queue: who takes which ticket, who is granted the lock, which fence is given out. Nothing
// is missed: after a restart it looks at what is left before anybody else is let in.
type monitor struct {
	addr   string
	client *redis.Client
	stop   context.CancelFunc
	done   sync.WaitGroup
	epochs atomic.Int32 // connections made, each with the mirror set up
	event  func(string, ...any)

	grants, waited, back, reasserted int
	wrong                            []string

	fences  map[string]int64              // the last one, by lock
	left    ticket                        // the last that left a queue
	tickets map[string]map[string]float64 // by lock and token, of those that wait
	gone    map[string]bool               // tokens that have left a queue without a grant
	held    map[string]bool               // tokens that have been granted a lock
}

// watch starts to follow a server.
func watch(addr string, client *redis.Client, event func(string, ...any)) *monitor {
	ctx, cancel := context.WithCancel(context.Background())
	m := &monitor{
		addr: addr, client: client, event: event, stop: cancel,
		fences: map[string]int64{}, gone: map[string]bool{}, held: map[string]bool{},
	}
	m.done.Go(func() {
		for ctx.Err() == nil {
			m.follow(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	return m
}

// end stops following; the results can be read after it.
func (m *monitor) end() {
	m.stop()
	m.done.Wait()
}

func (m *monitor) follow(ctx context.Context) {
	conn, err := net.Dial("tcp", m.addr)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "MONITOR\r\n"); err != nil {
		return
	}
	lines := bufio.NewReader(conn)
	if ok, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(ok, "+OK") || m.look(ctx) != nil {
		return
	}
	m.epochs.Add(1)
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if strings.Contains(text, " lua] ") {
			m.command(words(text))
		}
	}
}

// look sets up the mirror.
func (m *monitor) look(ctx context.Context) error {
	m.tickets = map[string]map[string]float64{}
	keys, err := m.client.Keys(ctx, "gitops:[lq]*").Result()
	if err != nil {
		return err
	}
	for _, key := range keys {
		switch kind, id := split(key); kind {
		case "lock":
			m.held[m.client.Get(ctx, key).Val()] = true
		case "queue":
			m.tickets[id] = map[string]float64{}
			for _, z := range m.client.ZRangeWithScores(ctx, key, 0, -1).Val() {
				m.tickets[id][z.Member.(string)] = z.Score
			}
		}
	}
	return nil
}

// split takes a key apart as package redisstore makes it.
func split(key string) (kind, id string) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(key, "gitops:"), ":{")
	id, _, _ = strings.Cut(rest, "}")
	return kind, id
}

var quoted = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)

func words(text string) []string {
	var all []string
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// command is one that a script has run.
func (m *monitor) command(w []string) {
	if len(w) < 3 {
		return
	}
	kind, id := split(w[1])
	if m.tickets[id] == nil {
		m.tickets[id] = map[string]float64{}
	}
	waiting := m.tickets[id]
	switch strings.ToUpper(w[0]) + " " + kind {
	case "ZADD queue":
		token := w[3]
		m.event("%s: ticket %s for %s", id, w[2], token)
		waiting[token], _ = strconv.ParseFloat(w[2], 64)
		if m.gone[token] {
			m.back++
		}
	case "ZREM queue": // one that is granted the lock leaves just before
		if token := w[2]; waiting[token] != 0 {
			m.event("%s: %s leaves the queue", id, token)
			m.left = ticket{token, waiting[token]}
			delete(waiting, token)
			m.gone[token] = true
		}
	case "HSET meta":
		if i := slices.Index(w, "record"); i > 0 {
			m.event("%s: %s", id, strings.ReplaceAll(w[i+1], `\"`, ""))
		}
	case "DEL lock":
		m.event("%s: free", id)
	case "SET lock":
		m.event("%s: granted to %s for %s ms", id, w[2], w[len(w)-1])
		m.grant(id, w[2])
	case "SET fence":
		n, _ := strconv.ParseInt(w[2], 10, 64)
		if last := m.fences[id]; n <= last {
			m.wrong = append(m.wrong, fmt.Sprintf("%s: fence %d after %d", id, n, last))
		}
		m.fences[id] = n
	}
}

// ticket is the place of one who waits.
type ticket struct {
	token  string
	number float64
}

// grant checks that nobody is overtaken: those before it that show no life have been struck from
// the queue by the same script.
func (m *monitor) grant(id, token string) {
	m.grants++
	waiting := m.tickets[id]
	waited := m.left.token == token
	ticket := 0.0
	if waited {
		ticket = m.left.number
		delete(m.gone, token)
	}
	m.left.token = ""
	switch {
	case m.held[token]:
		// Its own lock, which had expired, was lost with Redis' data, or was not granted yet in the
		// older data that Redis has come back with.
		m.reasserted++
		return
	case waited:
		m.waited++
	}
	m.held[token] = true
	for other, t := range waiting {
		if !waited || t < ticket {
			m.wrong = append(m.wrong, fmt.Sprintf("%s: %s (ticket %.0f) was granted the lock before %s (ticket %.0f)", id, token, ticket, other, t))
		}
	}
}
