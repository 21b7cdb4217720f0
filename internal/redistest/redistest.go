// Package redistest starts real Redis servers for tests, each on a free port of the loopback
// address, and stops them.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is for what a busy machine may be slow to do.
const patience = time.Minute

// Server is a running redis-server.
type Server struct {
	Host string // always 127.0.0.1
	Port string
	Dir  string // its working directory: log, dump

	args []string
	cmd  *exec.Cmd
}

// Start runs a server for a test. args are words of redis-server's command line that come
// after, and so override, ours: no persistence, quiet, protected to the loopback address. The first
// may be a configuration file.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := Run(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Run is Start for those who have no testing.TB: the caller stops the server.
func Run(dir string, args ...string) (*Server, error) {
	s := &Server{Host: "127.0.0.1", Dir: dir, args: args}
	var err error
	for range 5 { // somebody else may take the free port first
		if s.Port, err = FreePort(); err != nil {
			return nil, err
		}
		if err = s.Resume(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// The ports of tests lie below those that systems give to connections, and are chosen at random:
// the system would soon give a port again, on which the clients of an earlier server, which live on
// for a moment, would then find a server of another test.
const (
	firstPort = 10_000
	ports     = 12_000
	busOffset = 10_000 // of the port by which nodes of a Cluster talk to each other
)

// FreePort is a port of the loopback address that nobody listens on, nor on the one that a node of
// a Cluster there would need as well.
func FreePort() (string, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(ports) //nolint:gosec // no secret
		if err = errors.Join(reserve(port), free(port), free(port+busOffset)); err == nil {
			return strconv.Itoa(port), nil
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

var reserved sync.Map // port → what reserves it, for as long as this process lives

// reserve keeps every other test away from a port on which nobody listens yet. Two that start a
// server on one port at the same time would both find a server there, and one of them would lose it
// when the other's test ends. The name is an abstract one (unix(7)): the system forgets it with the
// process.
func reserve(port int) error {
	if runtime.GOOS != "linux" {
		return nil
	}
	name, err := net.Listen("unix", fmt.Sprintf("@git-gitops-test-port-%d", port))
	if err == nil {
		reserved.Store(port, name)
	}
	return err
}

func free(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, s.Port) }

// Resume starts the server again, on the same port, after Kill or Stop.
func (s *Server) Resume() error {
	ours := []string{"--port", s.Port, "--bind", s.Host, "--save", "", "--dir", s.Dir, "--logfile", "redis.log"}
	at := 0
	if len(s.args) > 0 && !strings.HasPrefix(s.args[0], "--") {
		at = 1 // a configuration file comes first
	}
	s.cmd = exec.Command("redis-server", slices.Insert(slices.Clone(s.args), at, ours...)...) //nolint:gosec // a test's own server
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server (make test installs it): %w", err)
	}
	ended := make(chan struct{})
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(ended)
	}(s.cmd)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(s.Dir, "redis.log"))
			return fmt.Errorf("redis-server ended at once: %s", log)
		case <-time.After(2 * time.Millisecond):
		}
	}
	return fmt.Errorf("redis-server does not listen on %s", s.Addr())
}

// Kill ends the server as a crash would.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop ends the server.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Signal sends the server a signal, such as SIGSTOP.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

func (s *Server) end(sig os.Signal) {
	wake(s.cmd.Process)
	gone := func(sig os.Signal, within time.Duration) bool {
		if s.cmd.Process.Signal(sig) != nil {
			return true
		}
		for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
				return true
			}
		}
		return false
	}
	if !gone(sig, 5*time.Second) { // one that cannot save its data refuses to end
		gone(os.Kill, patience)
	}
}

// Client is a plain client of the server, closed at the end of the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{
		Addr: s.Addr(), Protocol: 2, DisableIdentity: true,
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience,
	})
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	return c
}
