//go:build unix

package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hookWorld is a world with a bare repository, remote.git, that notes in the file "seen" which
// locks are held when a push comes in, and refuses the push when there is a file "refuse".
func hookWorld(t *testing.T, settings ...string) *world {
	t.Helper()
	t.Parallel()
	w := newWorld(t).with(append([]string{"GITOPS_LOCK_SESSION"}, settings...)...)
	w.seed("remote.git")
	w.write("remote.git/hooks/pre-receive", `#!/bin/sh
redis-cli -p "$REDIS_PORT" keys 'gitops:lock:*' | sed 's/.*@/@/' | sort | xargs >>"`+w.path("seen")+`"
[ ! -e "`+w.path("refuse")+`" ]
`)
	return w
}

// prelude has what the scripts of these tests use.
const prelude = `set -e
held() { redis-cli -p "$REDIS_PORT" keys 'gitops:lock:*'; }
freed() { # at most a minute, and more on a busy machine
	n=0
	while [ -n "$(held)" ]; do n=$((n + 1)); [ $n -lt 6000 ] || { echo "still held: $(held)"; return 1; }; sleep 0.01; done
}
hooked() { git clone -q "$1" work && cd work && git gitops install 2>/dev/null; }
edit() { echo "$1" >"$1" && git add . && git commit -qm "$1"; }
`

func (w *world) hookScript(script string) result {
	w.t.Helper()
	return w.bash(".", prelude+script, w.path("remote.git"))
}

// ok runs a script that has to succeed.
func (w *world) ok(script string) result {
	w.t.Helper()
	r := w.hookScript(script)
	wantCode(w.t, r, 0)
	return r
}

func (w *world) wantSeen(want ...string) {
	w.t.Helper()
	if got := strings.Split(strings.TrimSuffix(w.read("seen"), "\n"), "\n"); strings.Join(got, "|") != strings.Join(want, "|") {
		w.t.Errorf("locks held when pushes came in: %q, want %q", got, want)
	}
}

// TestHook are the situations of one writer. Each script sees for itself that the lock ends with
// the push, and not with the script.
func TestHook(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings []string
		script   string
		seen     []string // at each push, the locks that were held
		stderr   []string
	}{
		{name: "held from clone", script: `
			git gitops clone -q "$1" work && cd work && git gitops install 2>/dev/null
			edit one; before=$(held); [ -n "$before" ]
			git push -q 2>err; cat err >&2; ! grep gitops: err; freed`, seen: []string{"@main}"}},
		{name: "not held", script: `hooked "$1"; edit one; [ -z "$(held)" ]; git push -q; freed`, seen: []string{"@main}"}},
		{name: "held by hand", script: `
			hooked "$1"; git gitops lock 2>/dev/null; edit one; before=$(held); git push -q
			[ "$(held)" = "$before" ]; git gitops unlock; [ -z "$(held)" ]`, seen: []string{"@main}"}},
		{name: "failed push keeps it, retry frees it", script: `
			hooked "$1"; edit one; touch ../refuse; ! git push -q; [ -n "$(held)" ]
			rm ../refuse; git push -q; freed`, seen: []string{"@main}", "@main}"}, stderr: []string{"pre-receive hook declined"}},
		{name: "failed push of a lock from clone", script: `
			git gitops clone -q "$1" work && cd work && git gitops install 2>/dev/null
			edit one; touch ../refuse; ! git push -q; [ -n "$(held)" ]; ! git push -q; [ -n "$(held)" ]
			rm ../refuse; git push -q; freed`, seen: []string{"@main}", "@main}", "@main}"}},
		{name: "several branches", script: `
			hooked "$1"; edit one; git push -q origin main HEAD:prod HEAD:refs/tags/t; freed`, seen: []string{"@main} @prod}"}},
		{
			name: "all and delete", script: `
			hooked "$1"; git branch topic; git push -q --all; freed
			git push -q origin --delete topic; freed; git branch prod; git push -q origin prod; freed; git push -q origin :prod; freed`,
			seen: []string{"@topic}", "@topic}", "@prod}", "@prod}"},
		},
		{name: "up to date", script: `hooked "$1"; git push -q; freed`},
		{name: "tags only", settings: []string{"REDIS_PORT=1"}, script: `hooked "$1"; git tag v1; git push -q --tags; git -C "$1" rev-parse -q --verify v1`},
		{name: "URL", script: `hooked "$1"; edit one; git push -q "file://$1" HEAD:main; freed; edit two; git push -q "$1" main; freed`, seen: []string{"@main}", "@main}"}},
		{name: "URL, lock from clone", script: `
			git gitops clone -q "$1" work && cd work && git gitops install 2>/dev/null
			edit one; git push -q "file://$1" HEAD:main; freed`, seen: []string{"@main}"}},
		{name: "dry run", script: `hooked "$1"; edit one; git push -q -n; [ "$(git -C "$1" log -1 --format=%s main)" = seed ]`},
		{name: "narrow", settings: []string{"GITOPS_LOCK_NAME=fn.acct"}, script: `
			git gitops clone -q "$1" work && cd work && git gitops install 2>/dev/null
			edit one; git push -q; freed; edit two; git push -q; freed`, seen: []string{"@main:fn.acct} @main}", "@main:fn.acct} @main}"}},
		{name: "git gitops push", settings: []string{"GITOPS_LOCK_SESSION=workspace"}, script: `
			hooked "$1"; edit one; calls() { redis-cli -p "$REDIS_PORT" info commandstats | sed -n 's/^cmdstat_evalsha:calls=\([0-9]*\).*/\1/p'; }
			git gitops push -q; a=$(calls); edit two; git gitops push -q; b=$(calls)
			git gitops uninstall; edit three; git gitops push -q; c=$(calls); echo "$a $b $c"; [ $((b - a)) = $((c - b)) ]`, seen: []string{"@main}", "@main}", "@main}"}},
		{name: "alias, -C, worktree", script: `
			hooked "$1"; edit one; cd ..; git -C work -c alias.p=push p -q; freed
			git -C work worktree add -q ../tree -b topic; cd tree; edit two; git push -q origin HEAD; freed`, seen: []string{"@main}", "@topic}"}},
		{name: "not included", settings: []string{"GITOPS_INCLUDE=github.com/*", "REDIS_PORT=1"}, script: `hooked "$1"; edit one; git push -q`, seen: []string{""}},
		{name: "pushInsteadOf", script: `
			git config --global url."$1".pushInsteadOf nowhere:; hooked "$1"; git remote set-url origin nowhere:; edit one; git push -q origin main; freed`, seen: []string{"@main}"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hookWorld(t, tt.settings...)
			r := w.ok(tt.script)
			wantText(t, r.stderr, tt.stderr...)
			if tt.seen != nil {
				w.wantSeen(tt.seen...)
			} else if w.exists("seen") && strings.TrimSpace(w.read("seen")) != "" {
				t.Errorf("seen: %s", w.read("seen"))
			}
		})
	}
}

// TestHook_waits: while another writer has the lock, the hook waits. The branch has moved when its
// turn comes, so the push stops with one line and keeps the turn: a third writer waits until it has
// landed.
func TestHook_waits(t *testing.T) {
	w := hookWorld(t)
	w.ok(`hooked "$1"; edit mine`)
	w.write("second.sh", prelude+`git gitops clone -q "$1" second && cd second && edit theirs && touch ../ready
		until [ -e ../go ]; do sleep 0.01; done; git gitops push -q`)
	w.write("first.sh", prelude+`cd work; git push && exit 9; touch ../stopped
		until [ -e ../queued ]; do sleep 0.01; done; git pull -q --rebase; third=$(git ls-remote "$1" third); git push -q; echo "${third:-first}"`)
	w.write("third.sh", prelude+`git gitops clone -q "$1" third && cd third && git log --format=%s && git push -q origin HEAD:third`)

	second := w.start(".", "bash", "second.sh", w.path("remote.git"))
	w.until("the second writer has the lock", func() bool { return w.exists("ready") })
	first := w.start(".", "bash", "first.sh", w.path("remote.git"))
	w.until("the hook waits", func() bool { return w.queued() == 1 })
	w.write("go", "")
	wantCode(t, second.wait(), 0)
	w.until("the hook has stopped the push", func() bool { return w.exists("stopped") })
	third := w.start(".", "bash", "third.sh", w.path("remote.git"))
	w.until("the third writer waits", func() bool { return w.queued() == 1 })
	w.write("queued", "")

	r := first.wait()
	wantCode(t, r, 0)
	if r.stdout != "first\n" {
		t.Errorf("the turn was not kept: %s", r)
	}
	wantText(t, r.ours(), "not pushed: branch main moved while this push waited for its turn", "git pull --rebase && git push")
	if n := strings.Count(r.ours(), "not pushed"); n != 1 {
		t.Errorf("said %d times: %s", n, r)
	}
	r = third.wait()
	wantCode(t, r, 0)
	if r.stdout != "mine\ntheirs\nseed\n" {
		t.Errorf("the third writer cloned %s", r)
	}
	w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
}

// TestHook_waitsUnmoved: the other writer gave up its turn without a push, so the waiting push goes
// on.
func TestHook_waitsUnmoved(t *testing.T) {
	w := hookWorld(t)
	w.ok(`hooked "$1"; edit mine`)
	w.write("second.sh", prelude+`git gitops clone -q "$1" second && touch ready; until [ -e go ]; do sleep 0.01; done; rm -rf second`)
	second := w.start(".", "bash", "second.sh", w.path("remote.git"))
	w.until("the second writer has the lock", func() bool { return w.exists("ready") })
	first := w.start("work", "bash", "-c", "git push -q; exit $?")
	w.until("the hook waits", func() bool { return w.queued() == 1 })
	w.write("go", "")
	wantCode(t, second.wait(), 0)
	wantCode(t, first.wait(), 0)
	w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
}

// TestHook_noVerify: git's own way around hooks is one around this one; only the server's hook can
// see it.
func TestHook_noVerify(t *testing.T) {
	w := hookWorld(t)
	w.write("second.sh", prelude+`git gitops clone -q "$1" second && touch ready; until [ -e go ]; do sleep 0.01; done`)
	second := w.start(".", "bash", "second.sh", w.path("remote.git"))
	w.until("the second writer has the lock", func() bool { return w.exists("ready") })
	w.ok(`hooked "$1"; edit one; git push -q --no-verify`)
	w.wantSeen("@main}")
	w.write("go", "")
	wantCode(t, second.wait(), 0)
}

// TestHook_session: the end of the script frees what a failed push kept.
func TestHook_session(t *testing.T) {
	w := hookWorld(t)
	w.ok(`hooked "$1"; edit one; touch ../refuse; ! git push -q 2>/dev/null; [ -n "$(held)" ]`)
	w.until("the lock ends with its script", func() bool { return len(w.locks()) == 0 })
}

// TestHook_manager: a hook manager, or a hook of the user's own, may call the hook of git-gitops.
func TestHook_manager(t *testing.T) {
	w := hookWorld(t)
	w.ok(`git clone -q "$1" work; cd work; git config core.hooksPath .husky/_; mkdir -p .husky/_
		printf '#!/usr/bin/env sh\n. "$(dirname "$0")/h"\n' >.husky/_/pre-push
		printf '#!/usr/bin/env sh\nn=$(basename "$0")\ns=$(dirname "$(dirname "$0")")/$n\nsh -e "$s" "$@"\nc=$?\nexit $c\n' >.husky/_/h
		chmod +x .husky/_/pre-push; ! git gitops install 2>../err; cat ../err >&2; [ ! -e .husky/pre-push ]
		sed -n 's/.*add to .husky\/pre-push: //p' ../err >.husky/pre-push; grep . .husky/pre-push >&2
		printf '#!/bin/sh\nexit 9\n' >.git/hooks/pre-push; chmod +x .git/hooks/pre-push # hidden, as before
		edit one; git push -q; freed
		edit two; touch ../refuse; ! git push -q; [ -n "$(held)" ]; rm ../refuse; git push -q; freed; edit three; git gitops push -q; [ -z "$(held)" ]`)
	w.wantSeen("@main}", "@main}", "@main}", "@main}")
}

// TestHook_chained: a hook that was there gets its arguments and its input, and its exit code stops
// the push.
func TestHook_chained(t *testing.T) {
	const old = "#!/bin/sh\necho \"$# $1\" >../args; cat >../stdin; [ ! -e ../no ]"
	for _, tt := range []struct{ name, install, place string }{
		{"local", "install", ".git/hooks"},
		{"core.hooksPath", "install", "own"},
		{"global", "install --global", ".git/hooks"},
		{"both", "install --global && git gitops install --local", ".git/hooks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hookWorld(t)
			w.write("old", old)
			setup := `git clone -q "$1" work && cd work && mkdir -p ` + tt.place + ` && cp ../old ` + tt.place + "/pre-push\n"
			if tt.place == "own" {
				setup += "git config core.hooksPath own\n"
			}
			if tt.name == "both" { // a local hook first, while git still looks there
				tt.install = "install --local 2>/dev/null && git gitops install --global"
			}
			w.ok(setup + "git gitops " + tt.install + ` 2>/dev/null; edit one; git push -q; freed
				echo "refs/heads/main $(git rev-parse HEAD) refs/heads/main $(git rev-parse HEAD~)" | cmp - ../stdin; [ "$(cat ../args)" = "2 origin" ]
				edit two; touch ../no; rm ../stdin; ! git push -q; [ -e ../stdin ]; [ -z "$(held)" ]`)
			if got := w.must("remote.git", "git log --format=%s main"); got != "one\nseed" {
				t.Errorf("pushed: %s", got)
			}
		})
	}
}

// TestHook_global: through core.hooksPath, a repository's other hooks still run, also in a worktree
// and with a folder of hooks that the user had.
func TestHook_global(t *testing.T) {
	w := hookWorld(t)
	w.write("cfg", "")
	w.ok(`cp "$GIT_CONFIG_GLOBAL" before; git gitops install --global; cp "$GIT_CONFIG_GLOBAL" during; git gitops install --global
		cmp during "$GIT_CONFIG_GLOBAL"
		git clone -q "$1" work; cd work
		for h in pre-commit commit-msg post-commit pre-push reference-transaction; do printf '#!/bin/sh\necho %s >>%s\n' $h "$PWD/../ran" >.git/hooks/$h; chmod +x .git/hooks/$h; done
		edit one; git push -q; freed
		for h in pre-commit commit-msg post-commit pre-push reference-transaction; do grep -qx $h ../ran; done
		[ $(grep -cx pre-push ../ran) = 1 ]; rm ../ran
		git worktree add -q ../tree -b topic; cd ../tree; edit two; git push -q origin HEAD; freed; grep -qx pre-commit ../ran; grep -qx pre-push ../ran; cd ../work
		! git gitops install 2>../err; cat ../err >&2
		git gitops uninstall --global; git gitops uninstall --global; git config --global --get core.hooksPath && exit 1; rm ../ran; edit three; git push -q; [ -z "$(held)" ]; grep -qx pre-push ../ran`)
	wantText(t, w.read("err"), "for all repositories of this user", "git gitops install --global")
	w.wantSeen("@main}", "@topic}", "")

	w.ok(`mkdir mine; printf '#!/bin/sh\ntouch "%s/ran2"\n' "$PWD" >mine/pre-push; chmod 711 mine/pre-push; cp -p mine/pre-push mine-before; git config --global core.hooksPath "$PWD/mine"
		git gitops install --global; cd work; edit four; git push -q; freed; [ -e ../ran2 ]; cd ..
		git gitops uninstall --global; cmp mine/pre-push mine-before; [ "$(stat -c %a mine/pre-push)" = 711 ]; [ "$(ls mine)" = pre-push ]`)
}

// TestHook_places: where install writes.
func TestHook_places(t *testing.T) {
	w := hookWorld(t)
	w.ok(`git clone -q "$1" work; git -C work worktree add -q ../tree -b topic; git -C tree gitops install; [ -x work/.git/hooks/pre-push ]
		git -C work gitops uninstall; [ ! -e work/.git/hooks/pre-push ]
		git gitops install --template tpl 2>err; cat err >&2; [ -x tpl/hooks/pre-push ]; grep -q init.templateDir err
		git clone -q --template="$PWD/tpl" "$1" new; cd new; edit one; git push -q; freed; cd ..
		git gitops uninstall --template tpl; [ ! -e tpl/hooks/pre-push ]
		mkdir sub; cd sub; git init -q repo; git -C repo config core.hooksPath ../shared; cd repo; mkdir deep; cd deep; git gitops install; [ -x ../../shared/pre-push ]
		git init -q --separate-git-dir ../../gd ../../sep; git -C ../../sep gitops install; [ -x ../../gd/hooks/pre-push ]`)
	w.wantSeen("@main}")
	r := w.hookScript(`cd /; git gitops install`)
	if r.code == 0 {
		t.Errorf("outside of a repository: %s", r)
	}
	wantCode(t, w.hookScript(`git gitops install --local --global`), 129)
}

// TestHook_closed: without the program, or without Redis, no push gets through.
func TestHook_closed(t *testing.T) {
	w := hookWorld(t)
	w.ok(`hooked "$1"; edit one`)
	var path []string
	for _, dir := range filepath.SplitList(w.env["PATH"]) {
		if _, err := exec.LookPath(filepath.Join(dir, "git-gitops")); err != nil {
			path = append(path, dir)
		}
	}
	r := w.with("PATH="+strings.Join(path, string(os.PathListSeparator))).bash("work", "git push")
	wantCode(t, r, 1)
	wantText(t, r.stderr, "git-gitops is not on PATH", "remove this hook: .git/hooks/pre-push", "failed to push some refs")

	w.redis.Stop()
	r = w.bash("work", "git push")
	wantCode(t, r, 1)
	wantText(t, r.stderr, "cannot lock, so nothing was cloned or pushed", "failed to push some refs")
	if w.exists("seen") {
		t.Errorf("something was pushed: %s", w.read("seen"))
	}
	wantCode(t, w.bash("work", "git push --no-verify -q"), 0)
}

// TestHook_output: a push with the hook that does not wait prints what git prints, and nothing
// else.
func TestHook_output(t *testing.T) {
	w := hookWorld(t)
	w.ok(`git config --global maintenance.auto false; git clone -q "$1" a; cd a; edit one; cd ..; cp -a a b; git -C b gitops install 2>/dev/null; cp -a "$1" twin.git`)
	plain := w.bash("a", "git push 2>&1; echo $?")
	w.ok(`rm -rf "$1"; mv twin.git "$1"`)
	hooked := w.bash("b", "git push 2>&1; echo $?")
	if plain.stdout != hooked.stdout {
		t.Errorf("plain:\n%s\nhooked:\n%s", plain.stdout, hooked.stdout)
	}
}

// TestHook_forced: with the hook, too, a forced push overwrites only what this clone has seen.
func TestHook_forced(t *testing.T) {
	w := hookWorld(t)
	w.must("remote.git", "git config receive.denyDeleteCurrent ignore && rm hooks/pre-receive")
	w.ok(`hooked "$1"; git commit -q --amend -m mine; git push -q -f; freed; git commit -q --amend -m again; git push -q -f origin +main; freed
		git commit -q --amend -m more; git push -q -f "file://$1" main; freed; git commit -q --amend -m late; git push -q -f "file://$1" main; freed`)
	w.outsider("echo x >x")
	theirs := w.tip("main")
	for _, push := range []string{"push -f", "push origin +main", "push --force-with-lease origin main:main", "push origin :main", `push -f "file://$REMOTE" main`, "push --mirror"} {
		w := w.with("REMOTE=" + w.path("remote.git"))
		r := w.bash("work", "git fetch -q; git commit -q --amend -m last; git "+push)
		wantCode(t, r, 1)
		wantText(t, r.ours(), "not pushed: branch main is at "+theirs[:10], "--force-with-lease=main:"+theirs)
		if w.tip("main") != theirs {
			t.Fatalf("%s: the outsider's commit was overwritten: %s", push, r)
		}
	}
	w.must("work", "git gitops push -q --force-with-lease=main:"+theirs+" origin +main")
	if w.tip("main") != w.must("work", "git rev-parse HEAD") {
		t.Error("what was named is not overwritten")
	}
	w.ok("cd work; git commit -q --amend -m last; git push -q -f; freed")
}

// TestHook_thenDeleted: a script deletes its clone right after the push, while the keeper notes
// that the push landed. No file appears while rm is at work.
func TestHook_thenDeleted(t *testing.T) {
	w := hookWorld(t, "GITOPS_LOG=debug")
	r := w.hookScript(`for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
	(hooked "$1" && edit "f$i" && git push -q)
	rm -rf work
done`)
	if r.code != 0 {
		t.Fatalf("%s--- events\n%s", r, w.bash(".", "git gitops events --json").stdout)
	}
}

// TestHook_thenEnded: a script that ends with its push leaves nothing in the clone that tells of a
// lost lock, for that push has ended the lock.
func TestHook_thenEnded(t *testing.T) {
	w := hookWorld(t)
	w.ok(`hooked "$1"`)
	for range 8 {
		r := w.hookScript("cd work; n=$(($(cat n 2>/dev/null || :) + 1)); edit n$n; echo $n >n; git push -q; exit $?")
		wantCode(t, r, 0)
		if r.ours() != "" {
			t.Fatalf("it had to say something: %s", r)
		}
		w.until("no keeper is left", func() bool { return len(w.keepers()) == 0 })
	}
}

// TestHook_thenLocked: a lock that is taken by hand right after a push is not ended with that push.
func TestHook_thenLocked(t *testing.T) {
	w := hookWorld(t)
	// The keeper has to ask the remote whether a push to a URL has landed.
	ssh := w.write("bin/slow-ssh", `#!/bin/sh
for last; do :; done
case $last in *upload-pack*) [ ! -e "`+w.path("slow")+`" ] || sleep 1 ;; esac
exec sh -c "$last"
`)
	w = w.with("GIT_SSH_VARIANT=ssh", "GIT_SSH="+ssh)
	w.must(".", "mkfifo go")
	p := w.start(".", "bash", "-c", prelude+`hooked "ssh://host$1"; edit one; : >../slow; git push -q "ssh://host$1" HEAD:main; git gitops lock; rm ../slow; : >../locked; read -r _ <../go; git gitops unlock`, "bash", w.path("remote.git"))
	w.until("it has the lock", func() bool { return w.exists("locked") })
	w.logged("work", "released: pushed")
	w.wantLocks(lockKey("host"+w.path("remote"), "main"))
	w.must(".", "echo >go")
	wantCode(t, p.wait(), 0)
	w.wantLocks()
}

// TestHook_jobs: the pushes of one clone, or of its worktrees, take turns, also those of one
// script: each has the lock until it has ended.
func TestHook_jobs(t *testing.T) {
	for name, push := range map[string]string{"hook": "git push -q origin HEAD:main", "push": "git gitops push -q origin HEAD:main"} {
		t.Run(name, func(t *testing.T) {
			w := hookWorld(t, "GITOPS_PUSH_REBASE=true")
			r := w.ok(`git gitops clone -q "$1" work; cd work; git gitops install 2>/dev/null; git worktree add -q -b one ../one; git worktree add -q -b two ../two
				job() { cd "../$1"; edit "$1"; until ` + push + `; do git pull -q --rebase origin main; done; }
				( job one ) & a=$!; ( job two ) & b=$!; wait $a; wait $b; freed`)
			if strings.Contains(r.stderr, "lost") || w.must("remote.git", "git ls-tree --name-only main | grep -cE '^(one|two)$'") != "2" {
				t.Error(r)
			}
			for line := range strings.Lines(w.read("seen")) {
				if line != "@main}\n" {
					t.Errorf("locks held when pushes came in: %q", w.read("seen"))
				}
			}
		})
	}
}

// TestHook_severalURLs: git runs the hook once for each URL of a remote. If their repositories have
// one lock, the hook does not wait for the keeper of the one before.
func TestHook_severalURLs(t *testing.T) {
	w := hookWorld(t, "GITOPS_LOCK_REPO=one", "GITOPS_LOCK_TIMEOUT=20")
	w.seed("other.git")
	w.ok(`hooked "$1"; git config --add remote.origin.pushURL "$1"; git config --add remote.origin.pushURL ../other.git
		edit one; git push -q; freed; edit two; git push -q; freed`)
	if tip := w.must("work", "git rev-parse HEAD"); w.tip("main") != tip || w.must("other.git", "git rev-parse main") != tip {
		t.Error("it has not landed at both")
	}
}

// TestHook_webhook: a keeper that still posts what happened keeps nobody waiting.
func TestHook_webhook(t *testing.T) {
	answer := make(chan struct{})
	slow := receive(t, func(int) int {
		<-answer
		return http.StatusOK
	})
	w := hookWorld(t).posting(slow.server.Listener.Addr().String())
	r := w.hookScript(`hooked "$1"; git gitops lock; edit one; git push -q; edit two; git push -q; git gitops unlock`)
	close(answer)
	wantCode(t, r, 0)
	if strings.Contains(r.stderr, "waiting for the end of another push") && r.took > 15*time.Second { // for as long, a keeper posts
		t.Error(r)
	}
}
