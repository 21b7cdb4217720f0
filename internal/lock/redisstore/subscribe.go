package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// pingTimeout is how late the answer of a subscription may be.
const pingTimeout = time.Second

// subscription is a connection of its own, to the server that has the lock.
type subscription struct {
	client *redis.Client
	conn   *redis.Conn
	wire   *wire
	server string
}

// Subscribe implements lock.Store.
func (s *Store) Subscribe(ctx context.Context, k lock.Key, holder lock.Token) (lock.Subscription, error) {
	type answer struct {
		sub *subscription
		err error
	}
	answered := make(chan answer, 1)
	go func() { // the client observes a deadline while it reads, but no cancellation
		sub, err := s.subscribe(ctx, k, holder)
		answered <- answer{sub, err}
	}()
	select {
	case a := <-answered:
		s.mu.Lock()
		s.failed = s.failed || a.err != nil // a Cluster may have moved the lock
		s.mu.Unlock()
		if a.err != nil {
			return nil, s.failure(a.err)
		}
		return a.sub, nil
	case <-ctx.Done():
		go func() {
			if a := <-answered; a.sub != nil {
				_ = a.sub.Close()
			}
		}()
		return nil, s.failure(ctx.Err())
	}
}

func (s *Store) subscribe(ctx context.Context, k lock.Key, holder lock.Token) (*subscription, error) {
	s.lookAgain(ctx)
	channel := s.layout.alive(k, holder)
	node, ok := s.client.(*redis.Client)
	if cluster, clustered := s.client.(*redis.ClusterClient); clustered {
		var err error
		if node, err = cluster.MasterForKey(ctx, s.layout.name(k)); err != nil {
			return nil, err //nolint:wrapcheck // Subscribe does
		}
	} else if !ok {
		return nil, errors.New("a client of an unknown kind")
	}

	sub := &subscription{}
	o := *node.Options()
	o.PoolSize, o.MaxIdleConns, o.MaxRetries = 1, 0, -1
	dial := o.Dialer
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		sub.wire = &wire{Conn: conn}
		return sub.wire, nil
	}
	sub.client = redis.NewClient(&o)
	sub.conn = sub.client.Conn()
	server, command, err := sub.identify(ctx)
	if err == nil {
		sub.server = server
		var confirmed []any
		confirmed, err = sub.ask(ctx, command, channel)
		if err == nil && (len(confirmed) != 3 || confirmed[0] != command) {
			err = fmt.Errorf("unexpected answer %v", confirmed)
		}
	}
	if err != nil {
		_ = sub.Close()
		return nil, err
	}
	return sub, nil
}

// identify is which server is at the other end, in the words of the scripts, and the command by
// which it subscribes to what they count.
func (s *subscription) identify(ctx context.Context) (server, command string, err error) {
	general, err := s.conn.Info(ctx, "server").Result()
	if err != nil {
		return "", "", err
	}
	replication, err := s.conn.Info(ctx, "replication").Result()
	if err != nil {
		return "", "", err
	}
	run, repl := parseInfo(general), parseInfo(replication)["master_replid"]
	if run["run_id"] == "" || repl == "" {
		return "", "", errors.New("the server does not say which one it is (run_id, master_replid)")
	}
	command = "subscribe"
	if run["redis_mode"] == "cluster" || run["server_mode"] == "cluster" { // Valkey's
		command = "ssubscribe"
	}
	return run["run_id"] + " " + repl, command, nil
}

// ask is a command that a subscribed connection may send. The client's own PubSub would connect
// again by itself, and nobody would know to which server.
func (s *subscription) ask(ctx context.Context, args ...any) ([]any, error) {
	cmd := redis.NewSliceCmd(ctx, args...)
	err := s.conn.Process(ctx, cmd)
	return cmd.Val(), err
}

func (s *subscription) Server() string { return s.server }

// Wait implements lock.Subscription.
func (s *subscription) Wait(ctx context.Context, d time.Duration) error {
	if err := s.wire.quiet(ctx, d); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	answer, err := s.ask(ctx, "ping")
	if err != nil {
		return err
	}
	if len(answer) == 0 || answer[0] != "pong" {
		return fmt.Errorf("unexpected answer %v", answer)
	}
	return nil
}

// Close ends the subscription, unless another process holds the connection as well.
func (s *subscription) Close() error {
	return errors.Join(s.conn.Close(), s.client.Close())
}

// File implements lock.Subscription.
func (s *subscription) File() *os.File {
	conn := bare(s.wire.Conn)
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	filer, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil
	}
	file, err := filer.File()
	if err != nil {
		return nil
	}
	return file
}

// wire is a connection at which one can see that it has ended without asking.
type wire struct{ net.Conn }

// quiet returns nil after d, an error as soon as something comes or the connection has ended.
func (w *wire) quiet(ctx context.Context, d time.Duration) error {
	if err := w.SetReadDeadline(time.Now().Add(d)); err != nil {
		return fmt.Errorf("watch the connection: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var b [1]byte
	n, err := w.Read(b[:])
	switch {
	case n > 0:
		return errors.New("unexpected message")
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	default:
		return fmt.Errorf("watch the connection: %w", err)
	}
}
