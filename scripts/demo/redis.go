package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// tick is how often the embedded server's clock moves.
const tick = 50 * time.Millisecond

// ensureRedis returns the settings that reach a Redis server, and what ends it: nothing when the
// environment names one, else those of an embedded server on the loopback address.
func ensureRedis() (settings []string, name string, stop func(), err error) {
	for _, entry := range os.Environ() {
		if key, value, _ := strings.Cut(entry, "="); strings.HasPrefix(key, "REDIS_") && value != "" {
			return nil, "the Redis server that REDIS_* names", func() {}, nil
		}
	}
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		return nil, "", nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	ended, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		drive(server, ended)
	}()
	return []string{"REDIS_HOST=" + server.Host(), "REDIS_PORT=" + server.Port()}, "an embedded Redis", func() {
		close(ended)
		<-joined
		server.Close()
	}, nil
}

// drive moves the server's clock, because its keys do not expire by themselves.
func drive(server *miniredis.Miniredis, ended <-chan struct{}) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ended:
			return
		case <-ticker.C:
			now := time.Now()
			server.FastForward(now.Sub(last))
			last = now
		}
	}
}
