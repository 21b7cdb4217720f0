//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What a clone remembers, when it cannot be read or written. Nothing that is there is taken for
// nothing.

// userWorld is a world in which a script can run commands as other users of one group (as 3001
// COMMAND…), each with a home of its own. remote.git is open to all of them.
func userWorld(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be several users")
	}
	needs(t, "setpriv")
	w := newWorld(t)
	if info, err := os.Stat(filepath.Dir(w.dir)); err != nil || info.Mode()&1 == 0 {
		t.Skipf("other users cannot enter %s: %v", filepath.Dir(w.dir), err)
	}
	w = w.with("PATH="+w.path("bin")+":"+w.env["PATH"], "USERS="+w.path("users.sh"))
	w.write("users.sh", `set -e
as() { u=$1; shift; HOME=`+w.dir+`/home$u setpriv --reuid "$u" --regid 3000 --clear-groups "$@"; }
pushes() { # USER FOLDER MESSAGE [OPTION…]
	u=$1 d=$2 m=$3; shift 3; as "$u" git -C "$d" commit -q --allow-empty -m "$m"; as "$u" git gitops -C "$d" push -q "$@"; }
umask 022
`)
	w.seed("remote.git")
	w.must(".", `chmod 755 . && mkdir bin home3001 home3002 && chown 3001 home3001 && chown 3002 home3002 && mkdir -m 777 shared &&
		cp "$(command -v git-gitops)" bin/ && chmod 755 bin/git-gitops && git config --global --add safe.directory '*' &&
		git -C remote.git config core.sharedRepository 0666 && chmod -R a+rwX remote.git`)
	return w
}

// TestState_shared: users who can work in one clone can push from it in turn, whoever took the
// lock.
func TestState_shared(t *testing.T) {
	t.Parallel()
	for name, clone := range map[string]string{
		"core.sharedRepository": "git gitops clone -q -c core.sharedRepository=group",
		"umask":                 "sh -c 'umask 002; git gitops clone -q \"$@\"' sh",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := userWorld(t)
			r := w.bash(".", `. "$USERS"
				umask 002
				as 3001 `+clone+` remote.git shared/work
				pushes 3002 shared/work one; pushes 3001 shared/work two
				as 3002 git -C shared/work commit -q --amend --allow-empty -m three; as 3002 git gitops -C shared/work push -q -f
				as 3001 git -C shared/work commit -q --amend --allow-empty -m four; as 3001 git gitops -C shared/work push -q -f
				as 3001 git gitops -C shared/work lock; pushes 3002 shared/work five; as 3002 git gitops -C shared/work unlock`)
			wantCode(t, r, 0)
			for _, wrong := range []string{"cannot", "lost"} {
				if strings.Contains(r.stderr, wrong) {
					t.Errorf("%q: %s", wrong, r)
				}
			}
			w.wantLocks()
			if left, _ := filepath.Glob(w.path("shared/work/.git/gitops/*.json")); len(left) > 0 {
				t.Errorf("the clone remembers %v", left)
			}
			if got := w.must("remote.git", "git log --format=%s main"); got != "five\nfour\none\nseed" {
				t.Errorf("the branch has %q", got)
			}
		})
	}
}

// TestState_private: another user who may only read the clone's files can neither use its lock nor
// take it for none.
func TestState_private(t *testing.T) {
	t.Parallel()
	w := userWorld(t)
	w.must(".", `. "$USERS"
		as 3001 git gitops clone -q remote.git shared/work; as 3001 git -C shared/work commit -q --allow-empty -m one
		as 3001 git -C shared/work gitops install`)
	lock := lockKey(w.path("remote"), "main")
	token := w.keys.Get(t.Context(), lock).Val()
	for command, code := range map[string]int{
		"git gitops -C shared/work push":             78,
		"git gitops -C shared/work push -f":          78,
		"git -C shared/work push":                    1, // git's own, when its hook stops it
		"git gitops -C shared/work lock":             78,
		"git gitops -C shared/work unlock":           78,
		"git gitops -C shared/work unlock --all":     78,
		"git gitops -C shared/work unlock --session": 78,
		"git gitops -C shared/work doctor":           1,
	} {
		r := w.bash(".", `. "$USERS"; as 3002 `+command)
		wantCode(t, r, code)
		wantText(t, r.stdout+r.stderr, "cannot read "+w.path("shared/work/.git/gitops")+": permission denied", "core.sharedRepository group")
		if got := w.keys.Get(t.Context(), lock).Val(); got != token || w.queued() != 0 {
			t.Errorf("%s: the lock is held by %q, and %d wait", command, got, w.queued())
		}
	}
	// Readable, but not to be changed: the lock would stay behind.
	w.must("shared/work", "chmod -R go+rX .git/gitops")
	for command, code := range map[string]int{"git gitops -C shared/work push": 78, "git gitops -C shared/work lock": 78, "git -C shared/work push": 1} {
		r := w.bash(".", `. "$USERS"; as 3002 `+command)
		wantCode(t, r, code)
		wantText(t, r.stderr, "cannot write "+w.path("shared/work/.git/gitops")+": permission denied", "core.sharedRepository group")
	}
	w.must(".", `. "$USERS"; as 3001 git gitops -C shared/work push -q`)
	w.wantLocks()
}

// TestState_keep: a sidecar that cannot read a clone says so; and one that can no longer read a
// clone whose lock it keeps does not take it for deleted.
func TestState_keep(t *testing.T) {
	t.Parallel()
	w := userWorld(t)
	w.must(".", `. "$USERS"; as 3001 git gitops clone -q remote.git shared/work`)
	token := w.keys.Get(t.Context(), lockKey(w.path("remote"), "main")).Val()
	keep := func(user string) *process {
		return w.start(".", "bash", "-c", `. "$USERS"; as `+user+` git-gitops keep shared; exit $?`)
	}
	foreign := keep("3002")
	w.until("it says that it cannot", func() bool { return strings.Contains(foreign.stderr.String(), "permission denied") })
	foreign.signal(syscall.SIGTERM)
	foreign.wait()

	own := keep("3001")
	w.until("it keeps the lock", func() bool { return strings.Contains(own.stderr.String(), "keeping the lock") })
	w.must("shared/work/.git", "chmod 0 gitops")
	w.until("it says that it cannot read", func() bool { return strings.Contains(own.stderr.String(), "permission denied") })
	w.must("shared/work/.git", "chmod 700 gitops")
	w.must(".", `. "$USERS"; as 3001 git gitops -C shared/work lock`) // it says nothing of a loss
	if got := w.keys.Get(t.Context(), lockKey(w.path("remote"), "main")).Val(); got != token {
		t.Errorf("the lock is held by %q, not %q: %s", got, token, &own.stderr)
	}
	own.signal(syscall.SIGTERM)
	own.wait()
}

// TestState_damaged: each damaged file stops every command that would need it before it waits for
// anything. The message names the file, and says what to do.
func TestState_damaged(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ harm, says, do string }{
		"cut short":        {`head -c 40 "$ENTRY" >x && mv x "$ENTRY"`, "cannot understand", "remove that file"},
		"empty":            {`: >"$ENTRY"`, "cannot understand", "remove that file"},
		"zeros":            {`head -c 400 /dev/zero >"$ENTRY"`, "cannot understand", "remove that file"},
		"newer":            {`sed -i 's/"version": 1/"version": 2/' "$ENTRY"`, "version 2 is not known", "git gitops upgrade"},
		"a folder":         {`rm "$ENTRY" && mkdir "$ENTRY"`, "is a directory", "ls -ld"},
		"a loop":           {`rm "$ENTRY" && ln -s "$ENTRY" "$ENTRY"`, "too many", "ls -ld"},
		"no folder at all": {`rm -r "$(dirname "$ENTRY")" && : >"$(dirname "$ENTRY")"`, "not a directory", "ls -ld"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			w.must(".", "git gitops clone -q remote.git work; git -C work commit -q --allow-empty -m one; git -C work gitops install")
			w.killKeepers() // it would mend what it can
			entries, _ := filepath.Glob(w.path("work/.git/gitops/*.json"))
			if len(entries) != 1 {
				t.Fatalf("the clone remembers %v", entries)
			}
			w = w.with("ENTRY=" + entries[0])
			w.must(".", tc.harm)
			lock := lockKey(w.path("remote"), "main")
			token := w.keys.Get(t.Context(), lock).Val()
			for command, code := range map[string]int{"git gitops push": 78, "git gitops lock": 78, "git gitops unlock": 78, "git push": 1, "git gitops doctor": 1} {
				r := w.bash("work", command)
				wantCode(t, r, code)
				wantText(t, r.stdout+r.stderr, tc.says, tc.do, filepath.Dir(entries[0]))
				if got := w.keys.Get(t.Context(), lock).Val(); got != token || w.queued() != 0 {
					t.Errorf("%s: the lock is held by %q, and %d wait", command, got, w.queued())
				}
			}
			// What is said to be done is enough.
			if tc.do == "remove that file" {
				w.must("work", `rm "$ENTRY"; id=$(git gitops locks --json | jq -r .holder.id); git gitops unlock --force "$id"; git gitops push -q`)
				w.wantLocks()
			}
		})
	}
}

// TestState_renamed: a state file of another name does not keep a push waiting.
func TestState_renamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git work; cd work; git commit -q --allow-empty -m one; mv .git/gitops/*.json .git/gitops/x.json")
	w.must("work", "git gitops push -q")
	w.wantLocks()
}

// TestState_seenDamaged: a forced push is not decided by a damaged record. Other pushes do not need
// it.
func TestState_seenDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", `git gitops clone -q remote.git work; cd work; git commit -q --allow-empty -m one; git gitops push -q
		for f in .git/gitops/seen/*; do echo '{' >"$f"; done; git commit -q --allow-empty -m two; git gitops install`)
	r := w.bash("work", "git gitops push -f")
	wantCode(t, r, 78)
	wantText(t, r.ours(), "cannot understand "+w.path("work/.git/gitops/seen/"), "remove that file")
	w.must("work", "git gitops push -q")
	w.wantLocks()
	r = w.bash("work", "git commit -q --amend --allow-empty -m three; for f in .git/gitops/seen/*; do echo '{' >\"$f\"; done; git push -f")
	wantCode(t, r, 1)
	wantText(t, r.ours(), "cannot understand "+w.path("work/.git/gitops/seen/"), "remove that file")
}

// TestState_cannotWrite: a clone that cannot store its lock is no clone under a lock.
func TestState_cannotWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "mkdir template && : >template/gitops") // a file where our folder is to be
	r := w.bash(".", "git gitops clone -q --template=template remote.git work")
	wantCode(t, r, 78)
	wantText(t, r.ours(), "cannot write "+w.path("work/.git/gitops"))
	if w.exists("work") {
		t.Error("the clone is there")
	}
	w.wantLocks()
}
