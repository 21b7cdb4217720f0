//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/git-gitops/git-gitops/internal/cli"
)

// init makes a link named git to this test binary the PATH shim.
func init() { //nolint:gochecknoinits // before TestMain, which knows us by another name
	if filepath.Base(os.Args[0]) == "git" {
		os.Exit(cli.Main(os.Args))
	}
}

// shimWorld is a world in which git is a link to us, and $REAL the real one.
func shimWorld(t *testing.T, settings ...string) *world {
	t.Helper()
	t.Parallel()
	w := newWorld(t).with("GITOPS_LOCK_SESSION")
	w.seed("remote.git")
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	w.must(".", "git gitops install --shim shim")
	return w.with(append([]string{"REAL=" + path, "PATH=" + w.path("shim") + string(os.PathListSeparator) + w.env["PATH"]}, settings...)...)
}

// TestShim_line: the line that install prints puts the link first on PATH, in every shell that is
// here.
func TestShim_line(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const dir = `a folder's "$name" \ with `
	for _, shell := range []string{"sh", "dash", "bash", "zsh", "fish", "ksh", "mksh", "busybox"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		t.Run(shell, func(t *testing.T) {
			dir := dir + shell
			script := `eval "$(git gitops install --shim "$DIR")"; command -v git`
			words := []string{path, "-c", script}
			switch shell {
			case "fish":
				words[2] = `git gitops install --shim $DIR | source; command -s git`
			case "busybox":
				words = []string{path, "sh", "-c", script}
			}
			for _, setting := range []string{"SHELL=" + path, "SHELL=/bin/other"} {
				if shell == "fish" && setting == "SHELL=/bin/other" {
					words[2] = `git gitops install --shim $DIR --shell fish | source; command -s git`
				}
				r := w.with("DIR="+w.path(dir), setting).run(".", words...)
				wantCode(t, r, 0)
				if r.stdout != w.path(dir, "git")+"\n" || r.stderr != "" {
					t.Errorf("%s: %s", setting, r)
				}
			}
			r := w.run(".", "git", "gitops", "uninstall", "--shim", dir)
			wantCode(t, r, 0)
			if w.exists(dir) {
				t.Error("the folder is still there")
			}
		})
	}

	w.write("taken/git", "#!/bin/sh\n")
	r := w.run(".", "git", "gitops", "install", "--shim", "taken")
	wantCode(t, r, 1)
	wantText(t, r.stderr, "exists and is not a link", "name a folder")
	wantCode(t, w.run(".", "git", "gitops", "uninstall", "--shim", "taken"), 0)
	if w.read("taken/git") != "#!/bin/sh\n" {
		t.Error("a program that is not ours was touched")
	}
}

// TestShim_isGit: no command and no message of git-gitops, not even where git fails.
func TestShim_isGit(t *testing.T) {
	w := shimWorld(t)
	w.must(".", "git init -q work && git -C work commit -q --allow-empty -m one && git -C work config alias.lock 'log -1 --format=aliased'")
	for _, words := range []string{
		"--version", "version", "-v", "", "--help", "-h", "lock", "unlock", "locks", "run -- true", "install", "uninstall",
		"pre-push a b c", "keeper x", "doctor", "gitops --version", "help -a", "-c alias.run=version run", "no-such", "-C", "push", "clone",
	} {
		want := w.bash("work", `"$REAL" `+words)
		got := w.bash("work", "git "+words)
		if got.stdout != want.stdout || got.stderr != want.stderr || got.code != want.code {
			t.Errorf("git %s: %s\nthe real git: %s", words, got, want)
		}
	}
}

// TestShim_locks: scripts that change nothing at all are guarded, and what is switched off is not.
func TestShim_locks(t *testing.T) {
	w := shimWorld(t)
	remote := w.path("remote.git")
	main := lockKey(remote, "main")
	check := func(name string, w *world, script string, want ...string) {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			r := w.bash(".", "set -e; rm -rf work\n"+script+"\n"+`redis-cli -p "$PORT" keys 'gitops:lock:*'`, remote)
			wantCode(t, r, 0)
			if got := strings.Fields(r.stdout); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("locks: %q, want %q: %s", got, want, r)
			}
			w.until("the lock has ended", func() bool { return len(w.locks()) == 0 })
		})
	}
	w = w.with("PORT=" + w.redis.Port)
	const clone, push = `git clone -q "$1" work`, "\ncd work; git commit -q --allow-empty -m x; git push -q; cd .."
	check("clone", w, clone, main)
	check("clone and push", w, clone+push)
	check("alias", w, `git -c alias.c='clone -q' c "$1" work`, main)
	check("absolute path of the link", w, `"$PWD/shim/git" clone -q "$1" work`, main)
	check("absolute path of git", w, `"$REAL" clone -q "$1" work`)
	check("off for one command", w, "GITOPS_SHIM=off "+clone)
	down := w.with("REDIS_PORT=1")
	check("off needs no Redis", down, "GITOPS_SHIM=off "+clone+"; GITOPS_SHIM=off git -C work push -q")
	check("not included", down, "export GITOPS_INCLUDE='github.com/org/*'; "+clone+push)
	check("not included, by configuration", down, "git config --global gitops.include 'github.com/org/*'; "+clone+push+"; git config --global --unset gitops.include")
	check("included", w, "GITOPS_INCLUDE='github.com/org/* */remote' "+clone, main)
	check("included, by configuration", w, "git config --global --add gitops.include nothing; git config --global --add gitops.include '*/remote'; "+
		clone+"; git config --global --unset-all gitops.include", main)
	check("clones lock nothing", w, "GITOPS_CLONE_LOCK=off "+clone)
	check("clones lock nothing, pushes do", w, "export GITOPS_CLONE_LOCK=off; "+clone+push)
	check("all else needs no Redis", down, `{ git init work; git -C work status; git -C work fetch -q "$1" main; git -C work log -1 FETCH_HEAD; git ls-remote "$1"; } >/dev/null`)

	r := down.bash(".", clone, remote)
	wantCode(t, r, 69)
	wantText(t, r.ours(), "cannot lock, so nothing was cloned or pushed")
}

// TestShim_recursion: however git, or a program that git starts, calls git again, the shim does not
// find itself.
func TestShim_recursion(t *testing.T) {
	w := shimWorld(t, "GITOPS_LOCK_TIMEOUT=200")
	w.must(".", `mkdir two exec && ln -s "$PWD/shim/git" two/git
		for f in "$("$REAL" --exec-path)"/*; do ln -s "$f" exec/; done; ln -sf "$PWD/shim/git" exec/git
		git init -q start/w && cd start/w && for i in 1 2 3 4; do echo $i >f && git add . && git commit -qm $i; done
		git init -q --bare ../remote.git && git push -q ../remote.git main && git branch old HEAD~2`)
	hook := func(name, text string) string {
		return "printf '#!/bin/sh\\n" + text + "\\n' >.git/hooks/" + name + "; chmod +x .git/hooks/" + name + "\n"
	}
	for _, way := range []struct{ name, script string }{
		{"alias", `git -c alias.x='!git log -1 --format=%s' x`},
		{"alias of an alias", `git -c alias.y=x -c alias.x='!git -c alias.z="!git version" z; git log -1 --format=%s' y`},
		{"hook", hook("post-commit", "git log -1 --format=%%s; git rev-parse --git-dir") + `git commit -q --allow-empty -m hooked`},
		{"hook of a push", hook("pre-push", "git status -sb; git log -1 --format=%%s") + `git push -q ../remote.git HEAD:hooked`},
		{"rebase --exec", `git rebase -q --exec 'git log -1 --format=%s' HEAD~2`},
		{"bisect run", `git bisect start HEAD HEAD~3; git bisect run sh -c 'test "$(git show HEAD:f)" -lt 3'; git bisect reset`},
		{"filter driver", `git config filter.g.clean 'git hash-object --stdin'; git config filter.g.smudge 'git hash-object --stdin'
			echo 'x filter=g' >.git/info/attributes; echo hi >x; git add x; git show :x; rm x; git checkout x; cat x`},
		{"merge driver", `git config merge.g.driver 'git merge-file -p %A %O %B >m; cat m >%A; git rev-parse HEAD'; echo 'f merge=g' >.git/info/attributes
			git checkout -q old; echo 0 >f; git commit -qam other; git merge main -m merged || cat f`},
		{"credential helper", `printf 'protocol=https\nhost=h\n' | git -c credential.helper='!echo username=u; echo password=$(git log -1 --format=%s);:' credential fill`},
		{"submodule", `git submodule add -q ../remote.git m; git submodule foreach 'git log -1 --format=%s'; git commit -qm sub; git submodule update --remote
			git clone -q --recurse-submodules ../w ../rec; git -C ../rec submodule status; git -C ../rec pull -q --recurse-submodules`},
		{"editor", `GIT_EDITOR='git --version >>out; git stripspace <out >' git commit --amend -q; cat out; git log -1 --format=%s`},
		{"pager", `GIT_PAGER='git stripspace' git -p log -1 --format=%s`},
		{"external diff", `GIT_EXTERNAL_DIFF='git hash-object --stdin <"$2"; git version; :' git diff HEAD~`},
		{"filter-branch", `FILTER_BRANCH_SQUELCH_WARNING=1 git filter-branch -f --tree-filter 'git rev-parse HEAD:f >>/dev/null; git version >g' old >/dev/null; git ls-tree -r old`},
		{"difftool", `git difftool -y -x 'git --no-pager diff --no-index --shortstat' HEAD~ HEAD -- f`},
		{"upload-pack and remote-ext", `git -c protocol.ext.allow=always ls-remote "ext::git upload-pack ../remote.git"; git fetch -q --upload-pack 'git upload-pack' ../remote.git main; git archive --remote=../remote.git HEAD | tar t`},
		{"push with receive-pack", `git push -q --receive-pack='git receive-pack' ../remote.git HEAD:received; git ls-remote ../remote.git`},
		{"for-each-repo and maintenance", `git config --global --replace-all some.repo "$PWD"; git for-each-repo --config=some.repo log -1 --format=%s; git maintenance run --task=gc --quiet; git gc -q`},
		{"git gitops", `git gitops log -1 --format=%s; git -c alias.x='!git gitops log -1 --format=%s' x`},
		{"stash, worktree and bundle", `echo x >f; git stash -q; git worktree add -q ../tree; git -C ../tree log -1 --format=%s; git bundle create -q b HEAD; git clone -q b ../unbundled; git -C ../unbundled log --format=%s`},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := *w
			w.t = t
			once := func(settings ...string) result {
				return w.with(settings...).bash(".", `set -e; rm -rf "$1"; cp -a start "$1"; cd "$1/w"`+"\n"+way.script, strings.ReplaceAll(way.name, " ", "-"))
			}
			want := once("PATH=" + strings.TrimPrefix(w.env["PATH"], w.path("shim")+":"))
			wantCode(t, want, 0)
			for _, tt := range []struct{ name, setting string }{
				{"one link", "PATH=" + w.env["PATH"]},
				{"a chain of links", "PATH=" + w.path("two") + ":" + w.env["PATH"]},
				{"a link in the exec path", "GIT_EXEC_PATH=" + w.path("exec")},
			} {
				got := once(tt.setting)
				if got.code != want.code || got.stdout != want.stdout || got.theirs() != want.stderr {
					t.Errorf("%s: %s\nthe real git: %s", tt.name, got, want)
				}
			}
		})
	}
}

// probe is a script that a shell, standing in for git, reads as its subcommand. It prints all that
// a process is given by the one that runs it. A shell changes nothing of that before it is asked,
// as a Go program would.
const probe = `
echo "argv:"; tr '\0' '\n' </proc/$$/cmdline
echo "environment:"; tr '\0' '\n' </proc/$$/environ
echo "folder: $(readlink /proc/$$/cwd), mask: $(umask)"
echo "descriptors:"; ls /proc/self/fd
for fd in 3 4 5 6 7 8 9; do eval "cat <&$fd" 2>/dev/null; done
echo "limits:"; cat /proc/$$/limits
echo "group, session, terminal: $(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f3-5 | sed "s/^$$ /self /"), parent: $PPID"
grep -E '^(SigIgn|SigBlk)' /proc/self/status
echo "input:"; [ ! -e eat ] || cat
[ ! -e die ] || kill -"$(cat die)" $$
exit 42
`

// probed runs a command line of git with a shell standing in for git, with an exact environment,
// and returns what the probe printed and how it ended.
func (w *world) probed(program string, argv []string, env []string, dir string) (string, syscall.WaitStatus) {
	w.t.Helper()
	out, err := os.Create(filepath.Join(w.path(dir), "out"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	in, err := os.Open(w.write(dir+"/in", "what comes in\n"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	files := []*os.File{in, out, out}
	for fd := 3; fd <= 9; fd++ {
		if fd == 5 { // one is closed
			files = append(files, nil)
			continue
		}
		f, err := os.Open(w.write(fmt.Sprintf("%s/fd%d", dir, fd), fmt.Sprintf("descriptor %d\n", fd)))
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		files = append(files, f)
	}
	p, err := os.StartProcess(program, argv, &os.ProcAttr{Dir: w.path(dir), Env: env, Files: files, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		w.t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil {
		w.t.Fatal(err)
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	return w.read(dir + "/out"), status
}

// TestShim_probe: a command that is passed through gets exactly what git would get, but for what is
// listed here.
func TestShim_probe(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	w := shimWorld(t)
	shell, err := exec.LookPath("dash")
	if err != nil {
		t.Skip("needs dash")
	}
	env := []string{
		"PATH=" + w.env["PATH"], "Z=last first", "A=", "EMPTY=", "a=lower", "LINES=two\nlines", "UTF=\xff\xfe", "GIT_X=1", "HOME=" + w.path("home"),
		"GITOPS_GIT=" + shell, "_=/usr/bin/git", "PWD=/elsewhere", "OLDPWD=/else", "B=2", "GIT_CONFIG_GLOBAL=/dev/null",
	}
	for _, argv := range [][]string{
		{"git", "status"},
		{"git", "status", "", " ", "a b", "-x", "--", "\xff", "*", "$HOME", "'\"\\", "line\nline"},
		{"git", "log", "--", "push", "clone"},
	} {
		for _, ends := range []string{"", "TERM", "KILL", "SEGV", "PIPE"} {
			dir := fmt.Sprintf("probe-%d-%s", len(argv), ends)
			w.write(dir+"/status", probe)
			w.write(dir+"/log", probe)
			w.write(dir+"/eat", "")
			if ends != "" {
				w.write(dir+"/die", ends)
			}
			want, wantStatus := w.probed(shell, argv, env, dir)
			got, status := w.probed(w.path("shim/git"), argv, env, dir)
			if got != want {
				t.Errorf("%q %s\n%s\nthe real git gets\n%s", argv, ends, got, want)
			}
			if status != wantStatus {
				t.Errorf("%q %s: ended with %x, the real git with %x", argv, ends, status, wantStatus)
			}
			wantText(t, want, "what comes in", "descriptor 9", "argv:\ngit\n")
		}
	}
}

// TestShim_probePush: a push that is guarded, and a clone, get the same, but for the parent, the
// variable for our own hook, and an exit code for a signal.
func TestShim_probePush(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	w := shimWorld(t)
	shell, err := exec.LookPath("dash")
	if err != nil {
		t.Skip("needs dash")
	}
	w.must(".", `GITOPS_SHIM=off git clone -q "$1" work && git -C work commit -q --allow-empty -m one`, w.path("remote.git"))
	for _, verb := range []string{"config", "rev-parse", "remote", "ls-remote", "merge-base", "symbolic-ref", "for-each-ref"} {
		w.write("work/"+verb, `exec "$REAL" "${0##*/}" "$@"`)
	}
	w.write("work/push", `case "$*" in *--dry-run*) exec "$REAL" push "$@";; esac`+probe) // what we ask after a failure
	w.write("work/clone", probe)
	w.write("work/eat", "")
	env := []string{
		"PATH=" + w.env["PATH"], "REAL=" + w.env["REAL"], "A=", "HOME=" + w.path("home"), "GITOPS_GIT=" + shell, "GIT_CONFIG_GLOBAL=/dev/null",
		"REDIS_HOST=" + w.redis.Host, "REDIS_PORT=" + w.redis.Port, "GITOPS_LOCK_SESSION=workspace",
	}
	for _, tt := range []struct {
		argv []string
		ends string
		code int
	}{
		{[]string{"git", "push", "-v", "origin", "main", "--", "a b"}, "", 42},
		{[]string{"git", "push", "origin", "main"}, "", 42},
		{[]string{"git", "push", "origin", "main"}, "TERM", 143},
		{[]string{"git", "push", "origin", "main"}, "KILL", 137},
		{[]string{"git", "clone", w.path("remote.git"), "x y"}, "", 42},
		{[]string{"git", "clone", w.path("remote.git"), "x y"}, "QUIT", 131},
	} {
		_ = os.Remove(w.path("work/die"))
		if tt.ends != "" {
			w.write("work/die", tt.ends)
		}
		if tt.argv[1] == "clone" { // a push that has failed keeps its lock
			w.must("work", "git-gitops unlock --all")
		}
		want, _ := w.probed(shell, tt.argv, env, "work")
		got, status := w.probed(w.path("shim/git"), tt.argv, env, "work")
		if !status.Exited() || status.ExitStatus() != tt.code {
			t.Errorf("%q: ended with %x, want exit code %d\n%s", tt.argv, status, tt.code, got)
		}
		same := func(text string) string {
			var lines []string
			for line := range strings.Lines(text) {
				switch {
				case strings.HasPrefix(line, "GITOPS_PUSH_GUARDED_BY="), strings.HasPrefix(line, "gitops: "):
				case strings.HasPrefix(line, "group, session"), strings.HasPrefix(line, "SigIgn"):
				default:
					lines = append(lines, line)
				}
			}
			return strings.Join(lines, "")
		}
		if same(got) != same(want) {
			t.Errorf("%q %s\n%s\nthe real git gets\n%s", tt.argv, tt.ends, got, want)
		}
	}
}

// TestShim_noPath: without a PATH git is where execvp(3) finds it.
func TestShim_noPath(t *testing.T) {
	w := shimWorld(t)
	if path := w.env["REAL"]; filepath.Dir(path) != "/bin" && filepath.Dir(path) != "/usr/bin" && filepath.Dir(path) != "/usr/local/bin" {
		t.Skipf("git is not in the system's default path: %s", path)
	}
	w.must(".", "$REAL clone -q remote.git work")
	for _, words := range []string{"status --short --branch", "--version", "push -q origin main", "clone -q ../remote.git inner"} {
		r := w.bash("work", `exec env -i HOME="$HOME" GIT_CONFIG_GLOBAL="$GIT_CONFIG_GLOBAL" REDIS_HOST="$REDIS_HOST" REDIS_PORT="$REDIS_PORT" \
			GITOPS_LOCK_SESSION=workspace "$1" `+words, w.path("shim/git"))
		wantCode(t, r, 0)
	}
	w.wantLocks(lockKey(w.path("remote"), "main"))
	// An empty PATH names no folder, and is not the same as none.
	r := w.bash(".", `PATH= "$1" status`, w.path("shim/git"))
	wantCode(t, r, 78)
}

// TestShim_severalInOneClone: several processes push from one clone at once, different branches and
// the same.
func TestShim_severalInOneClone(t *testing.T) {
	w := shimWorld(t)
	w.must(".", `set -e; git clone -q remote.git work; cd work; git commit -q --allow-empty -m more
		for n in 1 2 3 4; do git branch -q b$n; git push -q origin b$n & pids="$pids $!"; done
		for n in 1 2 3; do git push -q & pids="$pids $!"; done
		for pid in $pids; do wait $pid; done
		for branch in main b1 b2 b3 b4; do [ "$(git ls-remote origin refs/heads/$branch | cut -f1)" = "$(git rev-parse HEAD)" ]; done`)
	w.until("the script's locks are free", func() bool { return len(w.locks()) == 0 })
}
