package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi" //nolint:gosec // its fault was mended in Go 1.6.3
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

// site is where scripts are measured: a folder with a repository, servers for it, a Redis, and an
// environment that knows nothing of the machine.
type site struct {
	dir  string
	env  []string
	urls map[string]string // of the repository, by transport
	stop []func()

	requests atomic.Int64 // over http
}

// newSite has a repository of so many megabytes, in files of 100 KB that cannot be compressed.
// binary is that of git-gitops.
func newSite(binary string, megabytes int, transports ...string) (s *site, err error) {
	dir, err := os.MkdirTemp("", "gitops-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	s = &site{dir: dir, urls: map[string]string{"path": filepath.Join(dir, "srv/repo.git"), "file": "file://" + filepath.Join(dir, "srv/repo.git")}}
	s.stop = append(s.stop, func() { _ = os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	ours, err := filepath.Abs(binary)
	if err != nil {
		return nil, fmt.Errorf("find the binary: %w", err)
	}
	if _, err := os.Stat(ours); err != nil {
		return nil, fmt.Errorf("find the binary (make build makes it): %w", err)
	}
	server, err := redistest.Run(dir)
	if err != nil {
		return nil, err
	}
	s.stop = append(s.stop, server.Stop)
	s.env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_GLOBAL="+filepath.Join(dir, "gitconfig"), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"PATH="+filepath.Join(dir, "bin")+":"+filepath.Dir(ours)+":"+os.Getenv("PATH"), "REDIS_HOST="+server.Host, "REDIS_PORT="+server.Port, "GITOPS_LOCK_TIMEOUT=3600")
	config := "[user]\n\tname = Bench\n\temail = bench@example.com\n[init]\n\tdefaultBranch = main\n[protocol \"file\"]\n\tallow = always\n[gc]\n\tauto = 0\n"
	if err := os.WriteFile(filepath.Join(dir, "gitconfig"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := s.seed(megabytes); err != nil {
		return nil, err
	}
	for _, t := range transports {
		switch t {
		case "path", "file":
		case "http":
			err = s.http()
		case "ssh":
			err = s.ssh()
		default:
			err = fmt.Errorf("no transport %q: path, file, http or ssh", t)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *site) close() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	s.stop = nil
}

func (s *site) seed(megabytes int) error {
	work := filepath.Join(s.dir, "seed")
	for i := range 10 * megabytes {
		folder := filepath.Join(work, "data", strconv.Itoa(i/100))
		if err := os.MkdirAll(folder, 0o750); err != nil {
			return err
		}
		content := make([]byte, 100_000)
		if _, err := rand.Read(content); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, strconv.Itoa(i)), content, 0o600); err != nil {
			return err
		}
	}
	_, err := s.bash(context.Background(), nil, `mkdir -p seed srv && cd seed && git init -q && echo 0 >counter && git add . && git commit -qm seed &&
		git clone -q --bare . ../srv/repo.git && cd .. && rm -rf seed && git -C srv/repo.git config http.receivepack true &&
		git -C srv/repo.git config core.logAllRefUpdates always && git -C srv/repo.git repack -q -a -d && git -C srv/repo.git tag seed`)
	return err
}

// reset brings the repository back to what it was.
func (s *site) reset() error {
	_, err := s.bash(context.Background(), nil, `cd srv/repo.git && git update-ref refs/heads/main seed && git for-each-ref --format='delete %(refname)' refs/heads/lock.\* | git update-ref --stdin &&
		git prune && rm -f logs/refs/heads/main && cd "$OLDPWD" && rm -rf w`)
	return err
}

// pushes is how often the branch was moved since the last reset.
func (s *site) pushes() int {
	log, _ := os.ReadFile(filepath.Join(s.dir, "srv/repo.git/logs/refs/heads/main"))
	return strings.Count(string(log), "\n")
}

// bash runs a script in the site's folder and returns what it said on stderr. more are further
// variables.
func (s *site) bash(ctx context.Context, more []string, script string, args ...string) (said string, err error) {
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", script + "\nexit $?", "bash"}, args...)...) //nolint:gosec // our own scripts; bash must stay, or we would be the session
	cmd.Dir, cmd.Env = s.dir, append(append([]string{}, s.env...), more...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return stderr.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stderr.String(), nil
}

func (s *site) http() error {
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Join(s.dir, "srv"), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull},
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		backend.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }()
	s.stop = append(s.stop, func() { _ = server.Close() })
	s.urls["http"] = "http://" + listener.Addr().String() + "/repo.git"
	return nil
}

func (s *site) ssh() error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	port, err := redistest.FreePort()
	if err != nil {
		return err
	}
	if os.Getuid() == 0 { // sshd insists on it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { //nolint:gosec // as a package would
			return err
		}
	}
	_, err = s.bash(context.Background(), nil, `mkdir -p ssh bin && cd ssh && ssh-keygen -q -t ed25519 -N "" -f host && ssh-keygen -q -t ed25519 -N "" -f key && cp key.pub authorized_keys &&
		printf '%s\n' "ListenAddress 127.0.0.1" "Port $1" "HostKey $PWD/host" "AuthorizedKeysFile $PWD/authorized_keys" "PidFile none" "StrictModes no" "UsePAM no" \
			"PermitRootLogin prohibit-password" "MaxStartups 200" >config &&
		printf '%s\n' '#!/bin/sh' "exec $(command -v ssh) -p $1 -i $PWD/key -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \"\$@\"" >../bin/ssh &&
		chmod 755 ../bin/ssh`, port)
	if err != nil {
		return err
	}
	sshd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.dir, "ssh/config")) //nolint:gosec // our own server
	if err := sshd.Start(); err != nil {
		return fmt.Errorf("start sshd: %w", err)
	}
	s.stop = append(s.stop, func() { _ = sshd.Process.Kill(); _ = sshd.Wait() })
	s.urls["ssh"] = me.Username + "@127.0.0.1:" + filepath.Join(s.dir, "srv/repo.git")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err = s.bash(context.Background(), nil, `git ls-remote -q "$1"`, s.urls["ssh"]); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// landed is how many commits came onto the branch since the seed.
func (s *site) landed() (int, error) {
	cmd := exec.Command("git", "-C", filepath.Join(s.dir, "srv/repo.git"), "rev-list", "--count", "--no-merges", "seed..main") //nolint:gosec // our own
	out, err := cmd.Output()
	if err != nil {
		return 0, errors.Join(errors.New("count the commits"), err)
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}
