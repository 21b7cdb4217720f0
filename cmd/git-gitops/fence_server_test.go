//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// fenceServers are the ways to a server of git. They return its URL.
var fenceServers = map[string]func(*world) (served *world, url string){
	"https": func(w *world) (*world, string) {
		w = overHTTPS(w)
		return w, "https://git:" + pat + "@" + w.env["HOST"] + "/org/repo.git"
	},
	"ssh": func(w *world) (*world, string) { return overSSH(w), "git@127.0.0.1:org/repo.git" },
	"path": func(w *world) (*world, string) {
		return w.with("GITOPS_LOCK_REPO=" + w.env["HOST"] + "/org/repo"), w.path(bare)
	},
}

// fenced is a world whose server guards main, the URL of its repository, and what main is there.
func fenced(t *testing.T, over func(*world) (*world, string)) (w *world, url string, tip func() string) {
	t.Helper()
	w, url = over(newField(t).with("GITOPS_LOCK_SESSION=workspace"))
	w.must(bare, `git gitops install --server && git config --add gitops.protect main && git config gitops.lockRepo "$1"`, w.env["HOST"]+"/org/repo")
	return w, url, func() string { return w.must(bare, "git rev-parse main") }
}

// TestFence_network: over ssh, HTTP and a path, the server lets in what the holder of the lock has
// declared, and nothing else. It knows the repository by gitops.lockRepo.
func TestFence_network(t *testing.T) {
	t.Parallel()
	for name, over := range fenceServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, url, tip := fenced(t, over)
			before := tip()
			w.must(".", `git clone -q "$1" plain && cd plain && git commit -q --allow-empty -m plain`, url)
			for _, push := range []string{"git push", "git push --no-verify", "git push -f origin HEAD:main", "git push origin :main", "git push -o ci.skip || git push"} {
				r := w.bash("plain", push)
				if r.code == 0 || !strings.Contains(r.stderr, "remote: gitops: error: refused: nobody holds the lock on "+w.env["HOST"]+"/org/repo@main [gitops: not-held]") || tip() != before {
					t.Errorf("%s: %s", push, r)
				}
			}
			w.must("plain", "git push -q origin HEAD:feature && git tag v1 && git push -q origin v1")

			w.must(".", `git gitops clone -q "$1" work && git -C work commit -q --allow-empty -m work`, url)
			r := w.bash("plain", "git push")
			if r.code == 0 || !strings.Contains(r.stderr, "[gitops: not-declared]") || !strings.Contains(r.stderr, "held by ") {
				t.Errorf("beside a holder: %s", r)
			}
			w.must("work", "git gitops push -q")
			w.must("work", "git commit -q --amend --allow-empty -m again && git gitops push -q -f && git gitops run -- git push -q origin HEAD:main")
			if tip() != w.must("work", "git rev-parse HEAD") {
				t.Error("it has not landed")
			}

			// A server that goes by another name refuses everybody, and says which lock it looks
			// at.
			w.must(bare, "git config gitops.lockRepo git.example.com/other")
			r = w.bash("work", "git commit -q --allow-empty -m other && git gitops push -q")
			wantCode(t, r, 73)
			wantText(t, r.stderr, "nobody holds the lock on git.example.com/other@main", "GITOPS_LOCK_REPO")
			w.must("work", "GITOPS_LOCK_REPO=git.example.com/other git gitops push -q")
		})
	}
}

// TestFence_declared: while a holder's push is under way, exactly that push is let in, and nothing
// when its lock has ended.
func TestFence_declared(t *testing.T) {
	t.Parallel()
	for name, over := range fenceServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, url, tip := fenced(t, over)
			before := tip()
			refused := func(dir, push, word string) {
				t.Helper()
				w.wantRefused(dir, push, word, tip, tip())
			}
			w.must(".", `git clone -q "$1" plain && git -C plain commit -q --allow-empty -m plain`, url)
			refused("plain", "git push", "not-held") // from now on the server is known to ask

			w.must(".", `git gitops clone -q "$1" work && git -C work commit -q --allow-empty -m work`, url)
			push := w.declared("work", "git gitops push -q")
			refused("plain", "git push -f", "not-declared")
			refused("work", "git push --no-verify origin $(git commit-tree -p HEAD -m more HEAD^{tree}):main", "not-declared")
			refused("work", "git push --no-verify origin :main", "not-declared")
			w.must(bare, `git -c user.name=x -c user.email=x@x update-ref refs/heads/main $(git commit-tree -p main -m moved main^{tree})`)
			refused("work", "git push --no-verify -f origin HEAD:main", "moved")
			w.must(bare, `git update-ref refs/heads/main "$1"`, before)
			w.write("go", "")
			wantCode(t, push.wait(), 0)
			if tip() != w.must("work", "git rev-parse HEAD") {
				t.Error("it has not landed")
			}

			w.must(bare, `git update-ref refs/heads/main "$1"`, before)
			refused("work", "git push", "not-held") // the same push once more
			w.must("work", "git gitops lock")
			refused("work", "git push", "not-declared")
			w.must(".", breakLock)
			refused("work", "git push", "not-held")
		})
	}
}

// wantRefused checks that the server refuses a push with the word, and that its branch is still at.
func (w *world) wantRefused(dir, push, word string, tip func() string, at string) {
	w.t.Helper()
	r := w.bash(dir, push)
	if r.code == 0 || !strings.Contains(r.stderr, "[gitops: "+word+"]") || tip() != at {
		w.t.Errorf("%s: want %s: %s", push, word, r)
	}
}

// declared is a push of a clone that has declared what it will do, and waits for the file go.
func (w *world) declared(dir, command string) *process {
	w.t.Helper()
	w.write(dir+"/.git/hooks/pre-push", "#!/bin/sh\ntouch ../at\nuntil [ -e ../go ]; do sleep 0.1; done\n")
	push := w.start(dir, "bash", "-c", command+"; exit $?")
	w.until("the push is on its way", func() bool { return w.exists("at") })
	return push
}

// TestFence_stale: who has lost the lock is refused, however it was lost, also with exactly what it
// had declared. A declaration without the token counts for nothing. Who has the lock by then lands.
func TestFence_stale(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*world){
		"broken":  func(w *world) { w.must(".", breakLock) },
		"expired": func(*world) {}, // nobody renews it any more
		"lost with the data of Redis": func(w *world) {
			w.redis.Kill()
			if err := w.redis.Resume(); err != nil {
				w.t.Fatal(err)
			}
			w.until("Redis is back", func() bool { return w.keys.Ping(w.t.Context()).Err() == nil })
		},
	}
	for server, over := range fenceServers {
		for name, end := range ends {
			if server != "path" && name != "broken" {
				continue // how the lock ended is not for git's transport to know
			}
			t.Run(server+", "+name, func(t *testing.T) {
				t.Parallel()
				w, url, tip := fenced(t, over)
				w = w.with("GITOPS_LOCK_TTL="+leaseTTL.String(), "GITOPS_LOCK_REPO="+w.path("remote")) // by which keepers are found
				w.must(bare, `git config gitops.lockRepo "$GITOPS_LOCK_REPO"`)
				before := tip()
				refused := func(dir, word string, pushes ...string) {
					t.Helper()
					for _, push := range pushes {
						w.wantRefused(dir, push, word, tip, before)
					}
				}
				w.must(".", `git clone -q "$1" plain && git -C plain commit -q --allow-empty -m plain`, url)
				refused("plain", "not-held", "git push") // from now on the server is known to ask

				w.must(".", `git gitops clone -q "$1" a && git -C a commit -q --allow-empty -m a`, url)
				push := w.declared("a", "git gitops push -q")
				w.forge(lock.Update{Ref: "refs/heads/main", Old: before, New: w.must("plain", "git rev-parse HEAD")})
				refused("plain", "not-declared", "git push")
				push.signal(syscall.SIGKILL)
				push.wait()
				w.killKeepers()
				end(w)
				w.until("its lock is over", func() bool { return len(w.locks()) == 0 })

				stale := []string{"git push --no-verify", "git push --no-verify -f", "git push --no-verify origin :main"}
				refused("a", "not-held", stale...)
				w.must(".", `git gitops clone -q "$1" b && git -C b commit -q --allow-empty -m b`, url)
				w.forge(lock.Update{Ref: "refs/heads/main", Old: before, New: w.must("a", "git rev-parse HEAD")})
				refused("a", "not-declared", stale...)
				w.must("b", "git gitops push -q")
				if tip() != w.must("b", "git rev-parse HEAD") {
					t.Error("the holder's push has not landed")
				}
				wantCode(t, w.bash("a", "rm .git/hooks/pre-push; git gitops push -q"), 73)
			})
		}
	}
}

const breakLock = `git gitops unlock --force $(git gitops locks --json | sed 's/.*"id":"\([0-9]*\)".*/\1/')`

// forge declares a push to main without the token of the holder, as one who may write to Redis can.
func (w *world) forge(u lock.Update) {
	w.t.Helper()
	s := redisstore.Open(redisstore.Options{Addrs: []string{w.redis.Addr()}})
	defer func() { _ = s.Close() }()
	forger := lock.Request{Key: lock.Key{Repo: w.env["GITOPS_LOCK_REPO"], Branch: "main"}, Token: lock.NewToken(), TTL: time.Minute}
	share := forger.Hold()
	share.Share = lock.NewToken()
	for _, hold := range []lock.Hold{forger.Hold(), share} {
		got, err := s.Renew(w.t.Context(), hold, lock.RenewOptions{Intent: []lock.Update{u}})
		if err != nil || got.Status != lock.Lost {
			w.t.Errorf("a forged declaration: %v, %v", got.Status, err)
		}
	}
}

// TestFence_atOnce: pipelines and plain pushes meet in the hook. Those with the lock land, and
// nobody else.
func TestFence_atOnce(t *testing.T) {
	t.Parallel()
	for name, over := range fenceServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, url, _ := fenced(t, over)
			w = w.with("GITOPS_LOCK_SESSION")
			const n = 4
			var ours, plain []*process
			for i := range n {
				w.must(".", fmt.Sprintf(`git clone -q "$1" plain%[1]d && git -C plain%[1]d commit -q --allow-empty -m plain`, i), url)
				w.write(fmt.Sprintf("dir%d/.keep", i), "")
			}
			for i := range n {
				ours = append(ours, w.start(fmt.Sprintf("dir%d", i), "bash", "-c", `git gitops clone -q "$1" r && cd r && git commit -q --allow-empty -m ours && git gitops push -q; exit $?`, "bash", url))
				plain = append(plain, w.start(fmt.Sprintf("plain%d", i), "bash", "-c", "for i in 1 2 3; do git push -q -f && exit 0; git fetch -q && git reset -q --hard origin/main && git commit -q --allow-empty -m plain; done; exit 1"))
			}
			for i := range n {
				wantCode(t, ours[i].wait(), 0)
				if r := plain[i].wait(); r.code != 1 {
					t.Errorf("a plain push has landed: %s", r)
				}
			}
			if got := w.must(bare, "git log --format=%s main | sort | uniq -c | tr -s ' '"); got != " 4 ours\n 1 seed" {
				t.Errorf("the branch has %q", got)
			}
		})
	}
}

// TestFence_redis: while Redis is gone, the server refuses everybody, unless it is set to let all
// in.
func TestFence_redis(t *testing.T) {
	t.Parallel()
	for name, over := range fenceServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, url, tip := fenced(t, over)
			w.must(".", `git gitops clone -q "$1" a && git -C a commit -q --allow-empty -m a`, url)
			before := tip()
			w.redis.Kill()
			for _, push := range []string{"git push", "git push --no-verify -f", "git push origin :main"} {
				r := w.bash("a", push)
				if r.code == 0 || !strings.Contains(r.stderr, "remote: gitops: error: refused: this server cannot ask Redis who holds the lock on main") || tip() != before {
					t.Errorf("%s: %s", push, r)
				}
			}
			wantCode(t, w.bash("a", "git gitops push -q"), 69)
			w.must("a", "git push -q origin HEAD:feature") // is not protected
			w.must(bare, "git config gitops.protectFailOpen true")
			r := w.bash("a", "git push -q")
			wantCode(t, r, 0)
			wantText(t, r.stderr, "accepts the push without a check")
			wantText(t, w.read(bare+"/gitops-fence.log"), "allowed without a check")
			if tip() != w.must("a", "git rev-parse HEAD") {
				t.Error("it has not landed")
			}
		})
	}
}

// TestFence_paused: a holder that pauses in its push for longer than its lock lasts is refused when
// it goes on, unless nothing has happened in between.
func TestFence_paused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		push, meanwhile string
		lands           bool
	}{
		"another holds the lock": {"git gitops push", "git gitops clone -q remote.git b && git -C b commit -q --allow-empty -m b", false},
		"another has landed":     {"git gitops push", "git gitops clone -q remote.git b && cd b && git commit -q --allow-empty -m b && git gitops push -q", false},
		"forced":                 {"git gitops push --force", "git gitops clone -q remote.git b && cd b && git commit -q --allow-empty -m b && git gitops push -q", false},
		"plain git":              {"git push --force", "git gitops clone -q remote.git b && git -C b commit -q --allow-empty -m b", false},
		"nobody came":            {"git gitops push", "true", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fenceWorld(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
			w.must(".", "git clone -q remote.git plain && git -C plain commit -q --allow-empty -m x && ! git -C plain push -q 2>/dev/null") // the server has asked
			w.must(".", "git gitops clone -q remote.git a && git -C a commit -q --allow-empty -m a")
			p := w.declared("a", tc.push)
			keepers := w.keepers()
			p.signal(syscall.SIGSTOP)
			for _, pid := range keepers {
				_ = syscall.Kill(pid, syscall.SIGSTOP)
			}
			w.until("its lock is over", func() bool { return len(w.locks()) == 0 })
			w.must(".", tc.meanwhile)
			before := w.tip("main")
			w.write("go", "")
			p.signal(syscall.SIGCONT)
			r := p.wait()
			for _, pid := range keepers {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
			switch landed := w.tip("main") == w.must("a", "git rev-parse HEAD"); {
			case tc.lands && (r.code != 0 || !landed):
				t.Errorf("it has not landed: %s", r)
			case !tc.lands && w.tip("main") != before:
				t.Errorf("the branch has moved: %s", r)
			case !tc.lands && strings.HasPrefix(tc.push, "git gitops") && r.code != 73:
				t.Errorf("want 73: %s", r)
			case !tc.lands && (r.code == 0 || !strings.Contains(r.stderr, "[gitops: not-")):
				t.Errorf("not by the server: %s", r)
			}
			if strings.HasSuffix(tc.meanwhile, "-m b") {
				w.must("b", "git gitops push -q") // the one who has the lock now lands
			}
		})
	}
}

// TestFence_dataLoss: whatever Redis loses, the next try of the rightful holder lands.
func TestFence_dataLoss(t *testing.T) {
	t.Parallel()
	const early, holds = "git gitops clone -q remote.git early", "git gitops clone -q remote.git a && git -C a commit -q --allow-empty -m a"
	for name, tc := range map[string]struct {
		before, kept string // kept is what of the data survives
		forced       bool
	}{
		"empty":                       {holds, "", false},
		"empty, forced":               {holds + " && git -C a commit -q --amend --allow-empty -m forced", "", true},
		"with its data":               {holds, "now", false},
		"older: nobody held":          {holds, "before", false},
		"older: another held":         {"git -C early gitops unlock && " + holds, "before", false},
		"older: another held, forced": {"git -C early gitops unlock && " + holds, "before", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fenceWorld(t)
			save := func() { // Redis loads it at its start
				if err := w.keys.Save(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasPrefix(name, "older: another") {
				w.must(".", early)
			}
			if tc.kept == "before" {
				save()
			}
			w.must(".", tc.before)
			if tc.kept == "now" {
				save()
			}
			w.redis.Kill()
			if tc.kept == "" {
				if err := os.Remove(filepath.Join(w.redis.Dir, "dump.rdb")); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			if err := w.redis.Resume(); err != nil {
				t.Fatal(err)
			}
			w.until("Redis is back", func() bool { return w.keys.Ping(t.Context()).Err() == nil })
			push := "git gitops push -q"
			if tc.forced {
				push += " --force"
			}
			r := w.bash("a", push)
			wantCode(t, r, 0)
			if w.tip("main") != w.must("a", "git rev-parse HEAD") {
				t.Errorf("it has not landed: %s", r)
			}
		})
	}
}

// TestFence_failover: hook and holder follow Redis to its next primary, and the holder lands.
func TestFence_failover(t *testing.T) {
	t.Parallel()
	all, settings := topologies["sentinel"](t)
	w := fenceWorld(t).on(settings)
	w.must(".", "git gitops clone -q remote.git a && git -C a commit -q --allow-empty -m a")
	key := lockKey(w.path("remote.git"), "main")
	var old, primary *redistest.Server
	w.until("there is a primary", func() bool { old = all.Primary(key); return old != nil })
	old.Kill()
	w.until("another is primary", func() bool { primary = all.Primary(key); return primary != nil && primary != old })
	if err := all.Follow(old, primary); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.patient("git -C a gitops push -q"), 0)
	if w.tip("main") != w.must("a", "git rev-parse HEAD") {
		t.Error("it has not landed")
	}
	r := w.bash("a", "git commit -q --allow-empty -m plain && git push --no-verify")
	if r.code == 0 || !strings.Contains(r.stderr, "[gitops: not-held]") {
		t.Errorf("plain git: %s", r)
	}
}
