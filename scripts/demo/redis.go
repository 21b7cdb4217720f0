package main

import (
	"os"
	"strings"

	"github.com/git-gitops/git-gitops/internal/demo"
)

// ensureRedis returns the settings that reach a Redis server, and what ends it: nothing when the
// environment names one, else those of an embedded server on the loopback address.
func ensureRedis() (settings []string, name string, stop func(), err error) {
	for _, entry := range os.Environ() {
		if key, value, _ := strings.Cut(entry, "="); strings.HasPrefix(key, "REDIS_") && value != "" {
			return nil, "the Redis server that REDIS_* names", func() {}, nil
		}
	}
	server, err := demo.Redis()
	if err != nil {
		return nil, "", nil, err
	}
	return []string{"REDIS_HOST=" + server.Host, "REDIS_PORT=" + server.Port}, "an embedded Redis", server.Stop, nil
}
