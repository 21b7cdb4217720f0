//go:build unix

package main

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

// tip is the commit of a branch at the remote, "" when there is none.
func (w *world) tip(branch string) string {
	return w.must("remote.git", `git rev-parse -q --verify "refs/heads/$1" || true`, branch)
}

// hook gives the remote a hook that counts its calls and refuses the first ones.
func (w *world) hook(name string, refuse int, words string) {
	w.t.Helper()
	w.write("remote.git/hooks/"+name, fmt.Sprintf(`#!/bin/sh
echo call >>%[1]s/calls
if [ $(wc -l <%[1]s/calls) -le %d ]; then echo %q >&2; exit 1; fi
`, w.dir, refuse, words))
}

// calls is how often the hook was called.
func (w *world) calls() int {
	if !w.exists("calls") {
		return 0
	}
	return strings.Count(w.read("calls"), "call")
}

// mine makes a clone that holds the lock, with a commit that adds the file mine.
func (w *world) mine() {
	w.t.Helper()
	w.must(".", "git gitops clone -q remote.git work && cd work && echo mine >mine && git add . && git commit -qm mine")
}

// outsider pushes a change to main without any lock.
func (w *world) outsider(script string) {
	w.t.Helper()
	w.must(".", `rm -rf out && git clone -q remote.git out && cd out && `+script+` && git add . && git commit -qm outsider && git push -q origin HEAD`)
}

// lose takes the lock away from the clone in work, and leaves it free, as when it expired and the
// next one is done with it. The keeper has to see it first: it would take back what is free. It
// looks every third of the TTL.
func (w *world) lose() {
	w.t.Helper()
	key := lockKey(w.path("remote"), "main")
	if err := w.keys.SetXX(w.t.Context(), key, "somebody", 10*time.Minute).Err(); err != nil {
		w.t.Fatal(err)
	}
	w.until("the keeper has noticed", func() bool { return strings.Contains(w.must("work", "cat .git/gitops/*.json"), `"lost"`) })
	w.keys.Del(w.t.Context(), key)
}

// TestPush_baseCheck: a push whose lock was not held all the time since the clone goes ahead only
// if nobody brought in what this clone has not seen.
func TestPush_baseCheck(t *testing.T) {
	t.Parallel()
	other := `git gitops clone -q remote.git other && cd other && echo other >other && git add . && git commit -qm other && git gitops push -q`
	for _, tc := range []struct {
		name      string
		meanwhile func(w *world)
		code      int
		says      string
	}{
		{"another took it and pushed", func(w *world) { w.lose(); w.must(".", other) }, 73, ""},
		{"another has it", func(w *world) {
			w.lose()
			w.must(".", "git gitops clone -q remote.git other")
			w.start(".", "bash", "-c", "until grep -q 'waiting for' said; do sleep 0.05; done; git gitops -C other unlock")
		}, 0, "was lost in the meantime"},
		{"another took it and did nothing", func(w *world) {
			w.lose()
			w.must(".", "git gitops clone -q remote.git other && git -C other gitops unlock")
		}, 0, ""},
		{"moved, and this clone has it", func(w *world) {
			w.lose()
			w.must(".", other+" && cd ../work && git gitops pull -q --rebase")
		}, 0, ""},
		{"Redis restarted empty", func(w *world) { w.keys.FlushAll(w.t.Context()) }, 0, ""},
		{"Redis restarted empty, and an outsider pushed", func(w *world) {
			w.keys.FlushAll(w.t.Context())
			w.outsider("echo x >x")
		}, 73, ""},
		{"Redis restarted empty, and an outsider went back", func(w *world) {
			w.keys.FlushAll(w.t.Context())
			w.must("remote.git", "git update-ref refs/heads/main main~1")
		}, 0, ""}, // to git this is a fast-forward
		{"the branch was deleted", func(w *world) {
			w.keys.FlushAll(w.t.Context())
			w.must("remote.git", "git update-ref -d refs/heads/main")
		}, 73, " to nothing"},
		{"the session ended in between", func(w *world) {
			w.must(".", "git -C work gitops unlock && mv work first")
			w.with("GITOPS_LOCK_SESSION").must(".", "git gitops clone -q remote.git work; cd work; echo mine >mine; git add .; git commit -qm mine")
			w.until("the keeper has let go", func() bool { return len(w.locks()) == 0 })
			w.until("it has said so", func() bool { return strings.Contains(w.must("work", "cat .git/gitops/*.json"), `"lost"`) })
		}, 0, "its session ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
			remote := w.seed("remote.git")
			w.outsider("echo 1 >counter")
			base := w.tip("main")
			w.mine()
			tc.meanwhile(w)
			tip := w.tip("main")
			r := w.bash("work", "git gitops push origin main 2> >(tee ../said >&2)")
			wantCode(t, r, tc.code)
			wantText(t, r.ours(), tc.says)
			if tc.code == 0 {
				if w.tip("main") != w.must("work", "git rev-parse HEAD") {
					t.Error("it has not landed")
				}
				w.wantLocks()
				return
			}
			if w.tip("main") != tip {
				t.Error("something was pushed")
			}
			wantText(t, r.ours(), "branch main moved from "+base[:10]+" to "+tip[:min(len(tip), 10)])
			w.wantLocks(lockKey(remote, "main")) // the turn is kept
			if tip == "" {
				wantText(t, r.ours(), "git gitops unlock && git gitops push")
				w.must("work", "git gitops unlock && git gitops push -q origin main")
			} else {
				wantText(t, r.ours(), "git gitops pull --rebase")
				w.must("work", "git gitops pull -q --rebase origin main && git gitops push -q origin main")
				w.wantLocks()
			}
		})
	}
}

// TestPush_rejectedBefore: a lock that a rejected push took, and that is lost since, knows no base:
// git decides.
func TestPush_rejectedBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_LOCK_SESSION")
	w.seed("remote.git")
	w.must("remote.git", "git branch feat")
	w.must(".", "git clone -q remote.git work && cd work && git checkout -q feat && git commit -q --allow-empty -m feat && git checkout -q main")
	w.must("remote.git", "git update-ref refs/heads/feat $(git commit-tree -p feat -m outsider feat^{tree})")
	for range 3 {
		w.must("work", "git commit -q --allow-empty -m one")
		r := w.bash("work", "git gitops push origin main feat")
		wantCode(t, r, 1)
		wantText(t, r.theirs(), "main -> main", "! [rejected]        feat -> feat")
		if strings.Contains(r.ours(), "not pushed") {
			t.Errorf("our lines: %s", r)
		}
		if w.tip("main") != w.must("work", "git rev-parse main") {
			t.Errorf("main was not pushed: %s", r)
		}
		w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
		w.until("the keepers have said so", func() bool { return w.must("work", "cat .git/gitops/*.json | grep -c '\"lost\"' || true") == "2" })
	}
	w.must("work", "git checkout -q feat && git pull -q --rebase && git gitops push -q origin feat")
}

// TestPush_passingRefusal: a push that a server refuses for a passing reason is tried again; one
// that it refuses for good is not.
func TestPush_passingRefusal(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, hook string
		refuse     int
		words      string
		retries    int
		code       int
		calls      int
	}{
		{"ref locked once", "pre-receive", 1, "error: cannot lock ref 'refs/heads/main': is at x but expected y", 3, 0, 2},
		{"ref locked twice, by update", "update", 2, "error: cannot lock ref 'refs/heads/main'", 3, 0, 3},
		{"server error", "pre-receive", 1, "Internal Server Error", 3, 0, 2},
		{"once too often", "pre-receive", 9, "cannot lock ref", 1, 1, 2},
		{"no retries wanted", "pre-receive", 9, "cannot lock ref", 0, 1, 1},
		{"policy", "pre-receive", 9, "fix this and try again", 3, 1, 1},
		{"policy, by update", "update", 9, "not allowed", 3, 1, 1},
		{"protected branch", "pre-receive", 9, "error: GH006: Protected branch update failed for refs/heads/main.", 3, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			remote := w.seed("remote.git")
			w.hook(tc.hook, tc.refuse, tc.words)
			w = w.with(fmt.Sprint("GITOPS_PUSH_RETRIES=", tc.retries))
			w.mine()
			r := w.bash("work", "git gitops push origin main")
			wantCode(t, r, tc.code)
			if n := w.calls(); n != tc.calls {
				t.Errorf("tried %d times, want %d: %s", n, tc.calls, r)
			}
			if n := strings.Count(r.ours(), "trying again"); n != tc.calls-1 {
				t.Errorf("said so %d times: %s", n, r)
			}
			if tc.code != 0 {
				w.wantLocks(lockKey(remote, "main"))
				return
			}
			w.wantLocks()
			if w.tip("main") != w.must("work", "git rev-parse HEAD") {
				t.Error("it has not landed")
			}
		})
	}
}

// TestPush_localHook: what a pre-push hook of the clone refuses is refused for good, whatever its
// words are.
func TestPush_localHook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.mine()
	w.write("work/.git/hooks/pre-push", `#!/bin/sh
echo call >>../calls
for words in "HTTP 503" "cannot lock ref" "remote: cannot lock ref" "fatal: unable to access 'u': The requested URL returned error: 503" "refused [gitops: not-held]"; do echo "$words" >&2; done
exit 1
`)
	r := w.bash("work", "git gitops push origin main")
	wantCode(t, r, 1)
	if n := w.calls(); n != 1 || r.ours() != "" {
		t.Errorf("tried %d times: %s", n, r)
	}
	w.wantLocks(lockKey(remote, "main"))
}

// TestPush_refLockFile: another git process at the server has the ref's own lock, for a while.
func TestPush_refLockFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_PUSH_RETRIES=20")
	w.seed("remote.git")
	w.mine()
	w.write("remote.git/refs/heads/main.lock", "")
	p := w.start("work", "git", "gitops", "push", "origin", "main")
	w.until("it tries again", func() bool { return strings.Contains(p.stderr.String(), "trying again") })
	w.must("remote.git", "rm refs/heads/main.lock")
	r := p.wait()
	wantCode(t, r, 0)
	wantText(t, r.theirs(), "main.lock': File exists")
	w.wantLocks()
}

// fault is what a git server over HTTP does about one request instead of serving it; false leaves
// it to be served.
type fault func(rw http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter)) bool

// overFaultyHTTP serves remote.git, and returns the world with origin's URL in $URL and the number
// of pushes that it received.
func overFaultyHTTP(t *testing.T, f fault) (*world, func() int) {
	t.Helper()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git config http.receivepack true && git config receive.denyDeleteCurrent ignore && git branch old")
	backend := &cgi.Handler{
		Path: filepath.Join(w.must(".", "git --exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + w.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"},
	}
	var mu sync.Mutex
	pushes := 0
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "git-receive-pack") && r.Method == http.MethodPost {
			pushes++
		}
		if !f(rw, r, func(rw http.ResponseWriter) { backend.ServeHTTP(rw, r) }) {
			backend.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(server.Close)
	w = w.with("URL="+server.URL+"/remote.git", "GITOPS_LOCK_REPO=r")
	w.must(".", `git gitops clone -q "$URL" work && cd work && echo mine >mine && git add . && git commit -qm mine`)
	return w, func() int {
		mu.Lock()
		defer mu.Unlock()
		return pushes
	}
}

// first is a fault of the first pushes only: of what comes to git-receive-pack, the advertisement
// of refs included when all is set.
func first(n int, all bool, f fault) fault {
	return func(rw http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter)) bool {
		ours := strings.HasSuffix(r.URL.Path, "git-receive-pack") && r.Method == http.MethodPost ||
			all && strings.Contains(r.URL.RawQuery, "git-receive-pack")
		if n == 0 || !ours {
			return false
		}
		n--
		return f(rw, r, serve)
	}
}

func status(code int) fault {
	return func(rw http.ResponseWriter, _ *http.Request, _ func(http.ResponseWriter)) bool {
		http.Error(rw, http.StatusText(code), code)
		return true
	}
}

// served is a fault after the work is done.
func served(f fault) fault {
	return func(rw http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter)) bool {
		serve(httptest.NewRecorder())
		return f(rw, r, serve)
	}
}

// cut ends the connection without a word.
func cut(rw http.ResponseWriter, _ *http.Request, _ func(http.ResponseWriter)) bool {
	conn, _, err := rw.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
	return true
}

// TestPush_overHTTP: a server that is overloaded is asked again, one that forbids is not. What had
// landed although git reports an error has landed, exactly once.
func TestPush_overHTTP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		fault  fault
		form   string
		code   int
		says   string
		pushes int
		landed bool
	}{
		{"503 to the push", first(1, false, status(503)), "origin main", 0, "trying again", 2, true},
		{"503 to the question for refs", first(2, true, status(503)), "origin main", 0, "trying again", 1, true},
		{"401", first(99, true, status(401)), "origin main", 128, "", 0, false},
		{"403", first(99, true, status(403)), "origin main", 128, "", 0, false},
		{"403 to the push", first(99, false, status(403)), "origin main", 1, "", 1, false},
		{"landed, then 500", first(1, false, served(status(500))), "origin main", 0, "the push has landed", 1, true},
		{"landed, then 500, quietly", first(1, false, served(status(500))), "-q origin main", 0, "the push has landed", 1, true},
		// Of a kept connection that ends curl asks again by itself, once.
		{"landed, then cut", first(2, false, served(cut)), "-u origin main", 0, "the push has landed", 2, true},
		{"deleted, then 500", first(1, false, served(status(500))), "origin :old", 0, "the push has landed", 1, false},
		{"deleted, then cut", first(2, false, served(cut)), "origin --delete old", 0, "the push has landed", 2, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, pushes := overFaultyHTTP(t, tc.fault)
			r := w.bash("work", "git gitops push "+tc.form)
			wantCode(t, r, tc.code)
			wantText(t, r.ours(), tc.says)
			if tc.says == "" && r.ours() != "" {
				t.Errorf("our lines: %s", r)
			}
			if n := pushes(); n != tc.pushes {
				t.Errorf("pushed %d times, want %d: %s", n, tc.pushes, r)
			}
			if n := w.must("remote.git", "git log --format=%s main | grep -c mine || true"); (n == "1") != tc.landed {
				t.Errorf("landed %s times: %s", n, r)
			}
			deletes := strings.Contains(tc.form, "old")
			if gone := w.tip("old") == ""; gone != deletes {
				t.Errorf("the branch old is gone: %v", gone)
			}
			if held := len(w.locks()) > 0; held == (tc.code == 0 && !deletes) {
				t.Errorf("a lock is held: %v: %s", held, r)
			}
		})
	}
}

// TestPush_landedInPart: a push whose branch has landed, but not its tag, has failed.
func TestPush_landedInPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must("remote.git", "git tag v1")
	w.mine()
	w.must("work", "git tag -f v1")
	wantCode(t, w.bash("work", "git gitops push origin main v1"), 1)
	if w.tip("main") != w.must("work", "git rev-parse HEAD") {
		t.Error("the branch has not landed")
	}
	w.wantLocks(lockKey(remote, "main"))
	w.must("work", "git gitops push -q origin main") // up to date, and so is the end of the lock
	w.wantLocks()
}

// TestPush_upToDate: "Everything up-to-date" is compared with the remote.
func TestPush_upToDate(t *testing.T) {
	t.Parallel()
	t.Run("the same commit is there already", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.seed("remote.git")
		w.mine()
		w.must(".", "git clone -q remote.git twin && cd twin && echo mine >mine && git add . && git commit -qm mine && git push -q")
		r := w.bash("work", "git gitops push origin main")
		wantCode(t, r, 0)
		wantText(t, r.theirs(), "Everything up-to-date")
		if n := w.must("remote.git", "git rev-list --count main"); n != "2" {
			t.Errorf("%s commits", n)
		}
		w.wantLocks()
	})
	t.Run("it was there, and is no more", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		remote := w.seed("remote.git")
		w.mine()
		// A hook of the clone is between git's look at the remote and what it then says.
		w.write("work/.git/hooks/pre-push", "#!/bin/sh\nunset GIT_DIR; git -C "+remote+" update-ref refs/heads/main main~1\n")
		w.must("work", "git push -q --no-verify origin main")
		r := w.bash("work", "git gitops push origin main")
		wantText(t, r.theirs(), "Everything up-to-date")
		wantCode(t, r, 1)
		w.wantLocks(lockKey(remote, "main"))
	})
	t.Run("nothing to do", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.seed("remote.git")
		w.must(".", "git gitops clone -q remote.git work")
		wantCode(t, w.bash("work", "git gitops push"), 0)
		w.wantLocks()
	})
}

// TestPush_rebase: with GITOPS_PUSH_REBASE an outsider's push comes in first, or the clone is as it
// was.
func TestPush_rebase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, clone, mine, theirs, form string
		code                            int
		says                            string
	}{
		{name: "different files", mine: "echo a >a", theirs: "echo b >b"},
		{name: "same file, other lines", mine: "sed -i 1s/1/one/ lines", theirs: "sed -i 9s/9/nine/ lines"},
		{name: "several commits", mine: "echo a >a && git add . && git commit -qm a1 && echo b >a", theirs: "echo b >b"},
		{name: "own empty commit", mine: "git commit -q --allow-empty -m empty && echo a >a", theirs: "echo b >b"},
		{name: "conflict", mine: "echo 1 >counter", theirs: "echo 2 >counter", code: 1, says: "conflicts with what is at the remote"},
		{name: "both bump to the same", mine: "echo 5 >counter", theirs: "echo 5 >counter", code: 73, says: "(mine) is at the remote already"},
		{name: "both bump to the same, and more", mine: "echo 5 >counter && echo a >a", theirs: "echo 5 >counter", code: 73, says: "(mine) is at the remote already"},
		{name: "the same change in one commit of three", mine: "echo a >a && git add . && git commit -qm m1 && echo 5 >counter && git commit -qam m2 && echo b >b", theirs: "echo 5 >counter", code: 73, says: "(m2) is at the remote already"},
		{name: "a merge", mine: "git checkout -qb side && git commit -q --allow-empty -m side && git checkout -q main && git merge -q --no-ff side -m merge && echo a >a", theirs: "echo b >b", code: 1, says: "merge commits"},
		{name: "dirty work tree", mine: "echo a >a && git add . && git commit -qm first && echo b >b && git add . && git commit -qm second && echo dirty >counter && echo x >untracked && git stash list", theirs: "echo b >c", code: 1, says: "unstaged changes"},
		{name: "untracked files", mine: "echo a >a && mkdir -p u && echo '*' >u/.gitignore", theirs: "echo b >b"},
		{name: "detached HEAD", mine: "git checkout -q --detach && echo a >a", theirs: "echo b >b", form: "origin HEAD:main"},
		{name: "detached HEAD, conflict", mine: "git checkout -q --detach && echo 1 >counter", theirs: "echo 2 >counter", form: "origin HEAD:main", code: 1, says: "conflicts"},
		{name: "shallow", clone: "--depth 1", mine: "echo a >a", theirs: "echo b >b"},
		{name: "single branch", clone: "--single-branch", mine: "echo a >a", theirs: "echo b >b", form: "origin @:main"},
		{name: "no refspec", mine: "echo a >a", theirs: "echo b >b", form: "-q"},
		{name: "another branch's source", mine: "git branch src && git checkout -q src && echo a >a", theirs: "echo b >b", form: "origin main:main", code: 1},
		{name: "two refspecs", mine: "echo a >a", theirs: "echo b >b", form: "origin main HEAD:refs/tags/v1", code: 1},
		{name: "forced", mine: "echo a >a", theirs: "echo b >b", form: "-f origin main", code: 1},
		{name: "another rebase is in progress", mine: "git checkout -q --detach; echo a >a; git add .; git commit -qm a1; echo x >x; git add .; git commit -qm mine; GIT_SEQUENCE_EDITOR='sed -i 1ibreak' git rebase -q -i HEAD~1; echo u >u", theirs: "echo b >b", form: "origin HEAD:main", code: 1, says: "in progress"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).with("GITOPS_PUSH_REBASE=true")
			remote := w.seed("remote.git")
			w.outsider("seq 9 >lines && echo 4 >counter")
			w.must(".", "git gitops clone -q "+tc.clone+" file://$PWD/remote.git work && cd work && "+tc.mine)
			if !strings.Contains(tc.name, "dirty") {
				w.must("work", "git add . && git commit -qm mine || true")
			}
			w.outsider(tc.theirs)
			theirs := w.tip("main")
			const look = "git symbolic-ref -q HEAD; git rev-parse HEAD; git status --porcelain; git stash list; cat counter; ls; ls -d .git/rebase-*"
			before := w.bash("work", look).stdout
			subjects := w.must("work", "git log --format=%s refs/remotes/origin/main..HEAD")
			if tc.form == "" {
				tc.form = "origin main"
			}
			r := w.bash("work", "git gitops push "+tc.form)
			wantCode(t, r, tc.code)
			wantText(t, r.ours(), tc.says)
			if tc.code != 0 {
				if w.tip("main") != theirs {
					t.Errorf("pushed: %s", r)
				}
				if after := w.bash("work", look).stdout; after != before {
					t.Errorf("the clone was\n%s\nand is\n%s", before, after)
				}
				w.wantLocks(lockKey(remote, "main"))
				return
			}
			w.wantLocks()
			if got := w.must("remote.git", "git log --format=%s "+theirs+"..main"); got != subjects {
				t.Errorf("landed:\n%s\nwant\n%s", got, subjects)
			}
			if tc.form != "-q" {
				wantText(t, r.ours(), "rebased onto "+theirs[:10])
			}
			if w.tip("main") != w.must("work", "git rev-parse HEAD") {
				t.Error("HEAD is not what landed")
			}
		})
	}
}

// TestPush_narrowLocksRebase: differently named pipelines of one branch, which edit different files
// and clone all at once, never see a rejected push.
func TestPush_narrowLocksRebase(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_PUSH_REBASE=true", "GITOPS_LOCK_SESSION")
	w.seed("remote.git")
	w.write("pipeline", `set -e
git gitops clone -q remote.git "work$1"
touch "cloned$1"
until [ $(ls -d cloned* | wc -l) = 12 ]; do sleep 0.02; done # all begin from the same commit
cd "work$1"
if [ $(($1 % 3)) = 0 ]; then git checkout -q --detach; fi
echo "$1" >"file$1"
git add . && git commit -qm "$1"
git gitops push origin HEAD:main
`)
	var all []*process
	for i := range 12 {
		all = append(all, w.with(fmt.Sprint("GITOPS_LOCK_NAME=svc", i)).start(".", "bash", "pipeline", fmt.Sprint(i)))
	}
	for i, p := range all {
		r := p.wait()
		if r.code != 0 || strings.Contains(r.stderr, "rejected") {
			t.Errorf("pipeline %d: %s", i, r)
		}
	}
	if n := w.must("remote.git", "git log --format=%s main | sort -u | wc -l && git rev-list --count main"); strings.Fields(n)[0] != "13" || strings.Fields(n)[1] != "13" {
		t.Errorf("subjects and commits: %q, want 13 of each", n)
	}
	w.wantLocks()
	if n := w.queued(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestPush_lostBetweenTries: without the lock there is no further try and no rebase, which would
// defeat git's own compare-and-swap.
func TestPush_lostBetweenTries(t *testing.T) {
	t.Parallel()
	t.Run("before a retry", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		remote := w.seed("remote.git")
		w.hook("pre-receive", 9, "cannot lock ref")
		w.mine()
		w.must("remote.git", `sed -i "2i redis-cli -p $1 set '$2' thief >/dev/null" hooks/pre-receive`, w.redis.Port, lockKey(remote, "main"))
		r := w.bash("work", "git gitops push origin main")
		wantCode(t, r, 73)
		if n := w.calls(); n != 1 {
			t.Errorf("tried %d times: %s", n, r)
		}
	})
	t.Run("before a rebase", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t).with("GITOPS_PUSH_REBASE=true")
		remote := w.seed("remote.git")
		w.mine()
		w.outsider("echo x >x")
		w.write("work/.git/hooks/pre-push", fmt.Sprintf("#!/bin/sh\nredis-cli -p %s set '%s' thief >/dev/null\n", w.redis.Port, lockKey(remote, "main")))
		head := w.must("work", "git rev-parse HEAD")
		r := w.bash("work", "git gitops push origin main")
		wantCode(t, r, 73)
		if strings.Contains(r.stderr, "rebased") || w.must("work", "git rev-parse HEAD") != head {
			t.Errorf("it was rebased: %s", r)
		}
	})
}

// TestPush_redisDies: a Redis that dies after git has pushed causes one warning and nothing else,
// and the keeper releases when Redis is back. Before the push, its absence is a failure.
func TestPush_redisDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	w.keys = w.redis.Client(t)
	w = w.with("REDIS_PORT=" + w.redis.Port)
	remote := w.seed("remote.git")
	w.mine()
	w.write("remote.git/hooks/post-receive", "#!/bin/sh\nkill -9 $(cat ../pid)\n")
	w.write("pid", strings.TrimSpace(w.must(".", "redis-cli -p $REDIS_PORT info server | tr -d '\\r' | sed -n 's/^process_id://p'")))
	r := w.bash("work", "git gitops push -u origin main")
	wantCode(t, r, 0)
	if n := strings.Count(r.ours(), "\n"); n != 1 {
		t.Errorf("not one line of git-gitops: %s", r)
	}
	wantText(t, r.ours(), "gitops: warning: could not release the lock")
	if w.tip("main") != w.must("work", "git rev-parse HEAD") {
		t.Error("it has not landed")
	}
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("Redis answers", func() bool { return w.keys.Ping(t.Context()).Err() == nil })
	w.until("the keeper has let go", func() bool { return w.keys.Exists(t.Context(), lockKey(remote, "main")).Val() == 0 })

	w.redis.Stop()
	w.must("work", "git commit -q --allow-empty -m late")
	tip := w.tip("main")
	r = w.bash("work", "git gitops push origin main")
	wantCode(t, r, 69)
	if r.theirs() != "" || w.tip("main") != tip {
		t.Errorf("git was at work: %s", r)
	}
}

// TestPush_redisRestarts: a push whose lock this clone holds waits for a Redis that restarts, also
// for one that has lost its data. A first contact does not wait, and no push waits longer than its
// lease.
func TestPush_redisRestarts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, settings string
		empty          bool
	}{
		{name: "with its data"},
		{name: "empty", empty: true},
		{name: "under a lock name", settings: "GITOPS_LOCK_NAME=svc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for try := 1; ; try++ { // Redis must be back within ten seconds: not always on a busy machine
				r := pushWhileRedisRestarts(t, tc.settings, tc.empty)
				if r.code == 0 {
					break
				}
				if try == 3 || r.code != 69 {
					t.Fatal(r)
				}
			}
		})
	}
	t.Run("does not come back", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t).with("GITOPS_LOCK_TTL=5")
		w.seed("remote.git")
		w.mine()
		tip := w.tip("main")
		w.redis.Kill()
		r := w.bash("work", "git gitops push origin main")
		wantCode(t, r, 69)
		wantText(t, r.ours(), "cannot lock")
		if !regexp.MustCompile(`trying again for up to [1-5]s`).MatchString(r.ours()) { // less than its lease
			t.Error(r)
		}
		w.must(".", "git clone -q remote.git other && git -C other commit -q --allow-empty -m other")
		r = w.bash("other", "git gitops push origin main")
		wantCode(t, r, 69)
		if strings.Contains(r.ours(), "trying again") || w.tip("main") != tip {
			t.Errorf("a first contact: %s", r)
		}
	})
}

// pushWhileRedisRestarts is a push that finds Redis away, which comes back then.
func pushWhileRedisRestarts(t *testing.T, settings string, empty bool) result {
	t.Helper()
	w := newWorld(t)
	if !empty {
		w.redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
		w.keys = w.redis.Client(t)
	}
	w = w.with("REDIS_PORT="+w.redis.Port, settings)
	w.seed("remote.git")
	w.mine()
	w.redis.Kill()
	p := w.start("work", "git", "gitops", "push", "origin", "main")
	w.until("it asks again", func() bool { return strings.Contains(p.stderr.String(), "trying again for") })
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	r := p.wait()
	if r.code != 0 {
		return r
	}
	if w.tip("main") != w.must("work", "git rev-parse HEAD") {
		t.Error("it has not landed")
	}
	w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
	return r
}

// TestPush_streams: git's stdout and stderr pass unchanged and in order. A terminal stays git's
// own, and nothing is tried again on it.
func TestPush_streams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.write("remote.git/hooks/pre-receive", "#!/bin/sh\nfor i in $(seq 200); do echo out $i; echo err $i >&2; done\n")
	w.must(".", "git clone -q remote.git start && git -C start commit -q --allow-empty -m one && cp -a remote.git keep")
	both := func(script string) (result, result) {
		var r [2]result
		for i, g := range []string{"git", "git gitops"} {
			w.must(".", "rm -rf work remote.git && cp -a start work && cp -a keep remote.git")
			r[i] = w.bash("work", "g() { "+g+" \"$@\"; }\n"+script)
			w.must("work", "git gitops unlock --all && mv ../work $(mktemp -d ../old.XXX)")
		}
		return r[0], r[1]
	}
	for _, script := range []string{
		"g push --porcelain origin main",
		"g push -v origin main",
		"g push --progress origin main 2>&1 | tr '\\r' '\\n' | sed 's/, [0-9].*//'",
		"g push --porcelain origin main:main HEAD~1:refs/heads/x nothing",
		"g push -u origin HEAD:new; git config --list --local | grep branch",
	} {
		want, got := both(script)
		if got.code != want.code || got.stdout != want.stdout || got.stderr != want.stderr {
			t.Errorf("%s: got %s\nwant %s", script, got, want)
		}
	}

	if _, err := exec.LookPath("script"); err != nil || runtime.GOOS != "linux" {
		t.Skip("no script(1) of util-linux, which makes the terminal")
	}
	w.must(".", "rm -rf remote.git && cp -a start work && cp -a keep remote.git")
	w.hook("pre-receive", 1, "cannot lock ref")
	w.write("work/.git/hooks/pre-push", "#!/bin/sh\nif [ -t 2 ]; then echo hook sees a terminal; fi\n")
	r := w.bash("work", "script -qec 'git gitops push origin main' /dev/null </dev/null")
	wantCode(t, r, 1)
	wantText(t, r.stdout, "hook sees a terminal", "Writing objects", "cannot lock ref")
	if n := w.calls(); n != 1 {
		t.Errorf("tried %d times on a terminal: %s", n, r)
	}
	r = w.bash("work", "script -qec 'git gitops push origin main' /dev/null </dev/null")
	wantCode(t, r, 0)
	w.wantLocks()
}

// TestPush_elsewhere: the lock is that of the repository that a push goes to. A lock that the clone
// took under another URL is held with it and ends with it.
func TestPush_elsewhere(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]string{
		"pushurl":          `git config remote.origin.pushurl "$PWD/../remote.git"`,
		"pushInsteadOf":    `git config "url.$PWD/../remote.git.pushInsteadOf" "${PWD%/work}/mirror.git"`,
		"another remote":   `git remote add up ../remote.git && git config remote.pushDefault up`,
		"two pushurls":     `git config remote.origin.pushurl "$PWD/../remote.git" && git config --add remote.origin.pushurl "$PWD/../mirror.git"`,
		"a URL at the end": `git config alias.ship "push ../remote.git"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			remote := w.guardedRemote()
			w.must(".", "git clone -q --bare remote.git mirror.git && git gitops clone -q $PWD/mirror.git work")
			w.wantLocks(lockKey(w.path("mirror"), "main"))
			w.must("work", configure+" && git commit -q --allow-empty -m one")
			push := "git gitops push"
			if strings.Contains(configure, "alias") {
				push = "git gitops ship main"
			}
			r := w.bash("work", push)
			wantCode(t, r, 0)
			held := strings.Fields(w.read("held"))
			want := lockKey(w.path("mirror"), "main") + " " + lockKey(remote, "main")
			if got := strings.Join(held, " "); got != want {
				t.Errorf("held during the push: %q, want %q", got, want)
			}
			if name == "another remote" || name == "a URL at the end" { // the clone's lock is another repository's, and goes on
				w.wantLocks(lockKey(w.path("mirror"), "main"))
			} else {
				w.wantLocks()
			}
			if w.tip("main") != w.must("work", "git rev-parse HEAD") {
				t.Error("it has not landed")
			}
		})
	}
}

// TestPush_severalBranches: a push of several branches has landed when all have.
func TestPush_severalBranches(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		form   string
		hook   string // of the remote
		words  string
		code   int
		calls  int
		landed string
	}{
		{"origin main main:prod", "update", "policy", 1, 2, "prod"},
		{"origin main main:prod", "update", "cannot lock ref", 0, 3, "main prod"},
		{"--atomic origin main main:prod", "update", "policy", 1, 1, ""},
		{"--atomic origin main main:prod", "update", "cannot lock ref", 0, 3, "main prod"},
		{"--all", "update", "cannot lock ref", 0, 3, "main prod"},
		{"origin 'refs/heads/*'", "pre-receive", "cannot lock ref", 0, 2, "main prod"},
		{"origin main :old", "pre-receive", "cannot lock ref", 0, 2, "main"},
		{"--prune origin 'refs/heads/*:refs/heads/*'", "pre-receive", "cannot lock ref", 0, 2, "main prod"},
	} {
		t.Run(tc.form+", "+tc.words, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			w.must("remote.git", "git branch prod && git branch old")
			w.must(".", "git clone -q remote.git work && cd work && git commit -q --allow-empty -m one && git branch -q prod")
			w.hook(tc.hook, 1, tc.words)
			r := w.bash("work", "git gitops push "+tc.form)
			wantCode(t, r, tc.code)
			if n := w.calls(); n != tc.calls {
				t.Errorf("the hook was called %d times, want %d: %s", n, tc.calls, r)
			}
			head := w.must("work", "git rev-parse HEAD")
			for _, branch := range []string{"main", "prod"} {
				if landed := w.tip(branch) == head; landed != strings.Contains(tc.landed, branch) {
					t.Errorf("%s landed: %v: %s", branch, landed, r)
				}
			}
			if n := len(w.locks()); tc.code == 0 && n != 0 || tc.code != 0 && n != 2 {
				t.Errorf("%d locks: %s", n, r)
			}
		})
	}
}

// TestPush_interruptedRebase: a rebase that a signal interrupts is undone or finished, not left
// half done.
func TestPush_interruptedRebase(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("GITOPS_PUSH_REBASE=true")
	w.seed("remote.git")
	w.mine()
	w.outsider("echo x >x")
	w.write("work/.git/hooks/pre-rebase", "#!/bin/sh\ntouch ../rebasing\nwhile ! [ -e ../go ]; do sleep 0.02; done\n")
	p := w.start("work", "git", "gitops", "push", "origin", "main")
	w.until("it rebases", func() bool { return w.exists("rebasing") })
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	w.write("go", "")
	p.wait()
	w.until("all of it has ended", func() bool {
		return w.bash("work", "git status --porcelain | grep . || ls -d .git/rebase-* 2>/dev/null || ls .git/*.lock 2>/dev/null").code != 0
	})
	w.must("work", "rm -f .git/hooks/pre-rebase && git gitops push -q origin main")
	if n := w.must("remote.git", "git log --format=%s main | sort -u | wc -l"); n != "3" {
		t.Errorf("%s different commits", n)
	}
	w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
}
