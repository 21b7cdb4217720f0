package redisstore_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// TestConnect: what is begun is used, once, and what is not used is closed.
func TestConnect(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	received := func() string { return info(t, admin, "total_connections_received") }
	before := received() // counts admin's own

	s := redisstore.Open(redisstore.Options{Addrs: []string{server.Addr()}})
	s.Connect()
	s.Connect()
	gittest.Until(t, "a connection is begun", func() bool { return received() != before })
	begun := received()
	r := lock.Request{Key: lock.Key{Repo: "example.com/r", Branch: "main"}, Token: lock.NewToken(), TTL: ttl}
	if a, err := s.TryAcquire(t.Context(), lock.Try{Request: r}); err != nil || !a.Granted {
		t.Fatalf("%v, %v", a, err)
	}
	if now := received(); now != begun {
		t.Errorf("%s connections were made after %s, want no more than the one that was begun", now, begun)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = redisstore.Open(redisstore.Options{Addrs: []string{server.Addr()}})
	s.Connect()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	gittest.Until(t, "one was begun, and only admin is connected", func() bool {
		return received() != begun && info(t, admin, "connected_clients") == "1"
	})
}

func info(t *testing.T, admin *redis.Client, field string) string {
	t.Helper()
	text, err := admin.Info(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(text, "\r\n"+field+":")
	value, _, _ := strings.Cut(after, "\r\n")
	return value
}
