//go:build unix

package main

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestClone_questionFails: git cannot say which branch is the default one, but can clone: the clone
// has its lock all the same.
func TestClone_questionFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("srv/repo.git")
	backend := &cgi.Handler{
		Path: filepath.Join(w.must(".", "git --exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + w.path("srv"), "GIT_HTTP_EXPORT_ALL=1"},
	}
	var resets atomic.Int32 // how many requests from now on are cut
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		switch {
		case resets.Add(-1) >= 0:
			conn, _, err := http.NewResponseController(out).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		case r.Header.Get("X-Checkout") != "":
			http.Error(out, "the token of another repository", http.StatusBadRequest)
		default:
			backend.ServeHTTP(out, r)
		}
	}))
	t.Cleanup(server.Close)
	url := server.URL + "/repo.git"
	key := lockKey(strings.TrimPrefix(server.URL, "http://")+"/repo", "main")

	t.Run("a connection is reset", func(t *testing.T) {
		w := *w
		w.t = t
		resets.Store(1)
		wantCode(t, w.bash(".", "git gitops clone "+url+" work"), 0)
		w.wantLocks(key)
		w.must("work", "git gitops unlock --all")
		w.wantLocks()
	})
	t.Run("while somebody holds the lock", func(t *testing.T) {
		w := *w
		w.t = t
		w.must(".", "git gitops clone -q -b main "+url+" holder")
		resets.Store(1)
		p := w.start(".", "bash", "-c", "git gitops clone "+url+" late\nexit $?")
		w.until("the clone waits", func() bool { return w.queued() == 1 })
		if !w.exists("late/counter") {
			t.Error("it was not made before")
		}
		w.must("holder", "echo 1 >counter; git commit -qam one; git push -q ../srv/repo.git main; git gitops unlock --all")
		r := p.wait()
		wantCode(t, r, 0)
		if got := w.read("late/counter"); got != "1\n" {
			t.Errorf("the clone has %q: %s", got, r)
		}
		w.wantLocks(key)
		w.must("late", "git gitops unlock --all")
	})
	t.Run("nothing stays when the lock is not to be had", func(t *testing.T) {
		w := *w
		w.t = t
		w.must(".", "git gitops clone -q -b main "+url+" holder2")
		resets.Store(1)
		r := w.with("GITOPS_LOCK_TIMEOUT=0").bash(".", "mkdir there; git gitops clone "+url+" there/deep/er")
		wantCode(t, r, 75)
		if w.exists("there/deep") || !w.exists("there") {
			t.Error("a folder is left, or one too many is gone")
		}
		w.must("holder2", "git gitops unlock --all")
	})
	t.Run("what another has put there meanwhile stays", func(t *testing.T) {
		w := *w
		w.t = t
		w.must(".", "git gitops clone -q -b main "+url+" holder3")
		resets.Store(1)
		p := w.start(".", "git", "gitops", "clone", "-q", url, "mine")
		w.until("the clone waits", func() bool { return w.queued() == 1 })
		w.must(".", "rm -rf mine && git clone -q "+url+" mine && echo edit >mine/edit")
		p.signal(syscall.SIGTERM)
		wantCode(t, p.wait(), 143)
		if !w.exists("mine/edit") {
			t.Error("it was removed")
		}
		w.must("holder3", "git gitops unlock --all")
	})
	t.Run("a checkout's token is for another repository", func(t *testing.T) {
		w := *w
		w.t = t
		resets.Store(0)
		w.must(".", "git clone -q "+url+" checkout && git -C checkout config http."+server.URL+"/.extraheader 'X-Checkout: token'")
		r := w.bash("checkout", "git gitops clone "+url+" inner")
		wantCode(t, r, 0)
		if r.ours() != "" {
			t.Errorf("it had to say something: %s", r)
		}
		w.wantLocks(key)
		w.must("checkout/inner", "git gitops unlock --all")
	})
}

// TestClone_unborn: the lock is that of the branch that the remote's HEAD names, also when that
// branch is not there.
func TestClone_unborn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(".", "git init -q --bare empty.git && git -C empty.git symbolic-ref HEAD refs/heads/trunk")
	w.seed("other.git")
	w.must("other.git", "git symbolic-ref HEAD refs/heads/trunk")
	for _, words := range []string{"empty.git", "file://" + w.path("empty.git"), "--bare empty.git", "other.git", "-n other.git"} {
		t.Run(words, func(t *testing.T) {
			w := *w
			w.t = t
			r := w.bash(".", "git gitops clone "+words+" work")
			wantCode(t, r, 0)
			head := w.must("work", "git symbolic-ref --short HEAD")
			if newer := head == "trunk"; !newer && strings.Contains(words, "empty") {
				t.Errorf("the clone is on %s", head) // an older git does not begin it beside other branches
			}
			if r.ours() != "" {
				t.Errorf("it guessed another branch first: %s", r)
			}
			held := w.locks()
			if len(held) != 1 || !strings.HasSuffix(held[0], "@"+head+"}") {
				t.Errorf("locks held: %q; %s", held, r)
			}
			w.must("work", "git gitops unlock --all")
			w.must(".", "rm -rf work")
		})
	}
}

// TestClone_racingToTheFirst: pipelines that create a branch take turns.
func TestClone_racingToTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(".", "git init -q --bare empty.git && git -C empty.git symbolic-ref HEAD refs/heads/trunk")
	w = w.with("GITOPS_LOCK_SESSION")
	var all []*process
	for _, name := range []string{"a", "b", "c", "d"} {
		all = append(all, w.start(".", "bash", "-c", `git gitops clone -q empty.git $1 && cd $1 && echo $1 >$1 && git add . &&
			git commit -qm $1 && git gitops push -q origin HEAD; exit $?`, "bash", name))
	}
	for _, p := range all {
		wantCode(t, p.wait(), 0)
	}
	if got := w.must("empty.git", "git for-each-ref --format='%(refname)'; git rev-list --count trunk"); got != "refs/heads/trunk\n4" {
		t.Errorf("%s", got)
	}
	w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
}

// TestClone_detachedHead: git checks out a branch that is where the remote's detached HEAD is, if
// there is one.
func TestClone_detachedHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git update-ref --no-deref HEAD main")
	wantCode(t, w.bash(".", "git gitops clone remote.git work"), 0)
	if head := w.bash("work", "git symbolic-ref --short HEAD"); head.code == 0 {
		w.wantLocks(lockKey(w.path("remote"), strings.TrimSpace(head.stdout)))
	} else {
		w.wantLocks()
	}
	w.must("remote.git", "git update-ref --no-deref HEAD $(git commit-tree -m lone main^{tree})")
	before := len(w.locks())
	wantCode(t, w.bash(".", "git gitops clone remote.git lone"), 0)
	if n := len(w.locks()); n != before {
		t.Errorf("%d locks, %d before", n, before)
	}
}

// TestTooOldGit: a git that is too old for locks is refused where a lock is wanted, and only there.
func TestTooOldGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git clone -q remote.git work && git -C work commit -q --allow-empty -m one && git -C work gitops install")
	old := w.write("old/git", "#!/bin/sh\nunset GIT_CONFIG_COUNT\n[ \"$1\" = --version ] && { echo git version 2.30.2; exit; }\nexec "+
		w.must(".", "command -v git")+" \"$@\"\n")
	w = w.with("GITOPS_GIT=" + old)
	for words, code := range map[string]int{
		"clone ../remote.git again": 78, "push -q origin main": 78, "status --short": 0, "doctor": 1,
	} {
		r := w.bash("work", "git gitops "+words)
		wantCode(t, r, code)
		if code != 0 {
			wantText(t, r.stdout+r.stderr, "git 2.30.2 ("+old+") is too old: clone and push need git 2.31 or newer")
		}
	}
	if r := w.bash("work", "git push -q origin main"); r.code == 0 {
		t.Errorf("the hook lets a push go: %s", r)
	}
	wantCode(t, w.with("GITOPS_INCLUDE=nothing").bash("work", "git gitops push -q --no-verify origin main"), 0)
	w.wantLocks()
}
