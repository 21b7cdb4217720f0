package main

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

func TestThroughGitops_everyGit(t *testing.T) {
	for line := range strings.Lines(throughGitops(plainScript)) {
		if strings.HasPrefix(line, "git ") != strings.HasPrefix(line, "git gitops ") {
			t.Errorf("not through git gitops: %s", line)
		}
	}
}

// The embedded server must do all that the lock asks of it, and let keys expire.
func TestEnsureRedis_handsOverAndExpires(t *testing.T) {
	for _, entry := range os.Environ() {
		if key, _, _ := strings.Cut(entry, "="); strings.HasPrefix(key, "REDIS_") {
			t.Setenv(key, "")
		}
	}
	settings, _, stop, err := ensureRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	addr := net.JoinHostPort(strings.TrimPrefix(settings[0], "REDIS_HOST="), strings.TrimPrefix(settings[1], "REDIS_PORT="))
	open := func() *redisstore.Store {
		s := redisstore.Open(redisstore.Options{Addrs: []string{addr}})
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	request := func(ttl time.Duration) lock.Request {
		return lock.Request{Key: lock.Key{Repo: "r", Branch: "b"}, Token: lock.NewToken(), TTL: ttl}
	}
	ctx, s := context.Background(), open()

	first, err := lock.Acquire(ctx, s, request(time.Minute), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	waiting, granted := make(chan bool, 1), make(chan error, 1)
	go func() {
		_, err := lock.Acquire(ctx, open(), request(300*time.Millisecond), time.Minute, func(lock.Waiting) {
			select {
			case waiting <- true:
			default:
			}
		})
		granted <- err
	}()
	<-waiting
	if got, err := first.Release(ctx, s, time.Minute); err != nil || got != lock.HandedOver {
		t.Fatalf("release: %v, %v; want it handed over", got, err)
	}
	if err := <-granted; err != nil {
		t.Fatalf("the waiter: %v", err)
	}
	if _, err := lock.Acquire(ctx, s, request(time.Minute), time.Minute, nil); err != nil {
		t.Fatalf("after the holder's TTL: %v", err)
	}
}

func TestPipeline_read(t *testing.T) {
	p := &pipeline{}
	p.read(strings.NewReader(`gitops: waiting for the lock on r@main: place 1
gitops: got the lock on r@main after 12ms
 ! [rejected]        main -> main (fetch first)
 ! [remote rejected] main -> main (cannot lock ref)
   1234567..89abcde  main -> main
`))
	if len(p.got) != 1 || len(p.landed) != 1 || p.rejected != 2 {
		t.Errorf("got %d, landed %d, rejected %d; want 1, 1, 2", len(p.got), len(p.landed), p.rejected)
	}
}
