//go:build unix

package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// everyday is what people and scripts type at git, run in a work tree that has the remote origin.
// "g" is git on one side and git gitops on the other; everything else is the same.
var everyday = []string{
	`g status`,
	`g status --porcelain=v1`,
	`g status -sb`,
	`g log --oneline --decorate`,
	`g -p log -1`,
	`g -P log --stat`,
	`g --no-pager show HEAD`,
	`g log --format=%H%x00%an -z`,
	`g diff`,
	`g diff --exit-code`,
	`g diff --cached --quiet`,
	`g add -v .`,
	`g add no-such-file`,
	`g add -A && g commit -m everything`,
	`g commit -m nothing-staged`,
	`g commit --allow-empty -q -F -  <<<"from stdin"`,
	`g branch -avv`,
	`g branch topic2 && g checkout topic2`,
	`g checkout no-such-branch`,
	`g switch -c topic3 && g switch -`,
	`g rev-parse HEAD @{u} --show-toplevel`,
	`g rev-parse --verify no-such-ref`,
	`g rev-parse --verify -q no-such-ref`,
	`g symbolic-ref HEAD && cd sub && g rev-parse --show-prefix`,
	`g stash && g stash list && g stash pop`,
	`g stash pop`,
	`git stash -q && g rebase topic`,
	`g rebase topic`,
	`g add . && g commit -qm conflict && g rebase topic; g rebase --abort; g status -sb`,
	`git stash -q && g merge topic; g diff --name-only --diff-filter=U; g merge --abort`,
	`g merge no-such-branch`,
	`git stash -q && g cherry-pick topic; g status -sb; g cherry-pick --skip`,
	`g tag v9 && g tag -l && g tag -d v9`,
	`g tag v1`,
	`g describe --tags`,
	`g worktree add -q ../other topic && g -C ../other log -1 --oneline && g worktree list`,
	`g submodule add -q ../remote.git module && g submodule status && g submodule update --init`,
	`g ls-files -s && g ls-tree -r HEAD`,
	`g cat-file -p HEAD | sed 1q`,
	`g cat-file blob HEAD:no-such-file`,
	`g hash-object -w --stdin <<<text`,
	`g grep -n hello; g grep nothing-has-this`,
	`g blame HEAD -- counter`,
	`g config user.name; g config --get no.such; g config --list --local`,
	`g -c user.name=Other config user.name`,
	`g -c alias.st='status -s' st`,
	`g --config-env=a.b=NO_SUCH_VARIABLE status`,
	`VALUE=x g --config-env a.b=VALUE config a.b`,
	`cd .. && g -C work status -s && g -C work -C sub rev-parse --show-prefix`,
	`g -C no-such-folder status`,
	`g -C "" status -s`,
	`cd .. && g --git-dir work/.git log -1 --oneline && g --git-dir=work/.git --work-tree=work status -s`,
	`cd .. && g --git-dir no-such status`,
	`cd ../remote.git && g --bare log -1 --oneline && g --namespace=x for-each-ref`,
	`g --exec-path && g --html-path && g --man-path`,
	`g --exec-path="$(git --exec-path)" log -1 --oneline`,
	`g --literal-pathspecs ls-files '*.txt'; g --glob-pathspecs ls-files '*'`,
	`g --no-optional-locks status -s; g --no-replace-objects log -1 --oneline`,
	`g --no-such-option status`,
	`g -c`,
	`g -C`,
	`g comit`,
	`g zzz-no-such-command -x`,
	`g st && g last`,
	`g shout a b`,
	`g chain`,
	`g loop`,
	`g broken`,
	`cd sub && g shout`,
	`g status -h`,
	`g push -h`,
	`g clone -h`,
	`g log --no-such-option`,
	`g status --no-such-option`,
	`g help -g | sed 2q`,
	`g version`,
	`g fetch && g fetch origin no-such-branch`,
	`git stash -q && g pull --rebase origin main && g pull origin topic --rebase`,
	`g pull --ff-only`,
	`g ls-remote origin && g ls-remote --heads no-such-remote`,
	`g remote -v && g remote get-url origin && g remote add origin x`,
	`g archive HEAD | tar t`,
	`g bundle create -q ../b.bundle HEAD && g ls-remote ../b.bundle`,
	`g rm -q --cached counter && g mv text.txt moved.txt && g status -s`,
	`g reset --hard -q HEAD && g clean -nd`,
	`g reflog | sed 3q`,
	`g notes add -m note && g notes show`,
	`g check-ignore -v ignored.log; g check-attr -a counter`,
	`g format-patch -1 --stdout | g mailinfo /dev/null /dev/null`,
	`g credential fill </dev/null`,
	`g update-index --refresh; g write-tree`,
	`g fsck && g gc -q`,
	`g for-each-ref; g show-ref --verify refs/heads/nope`,
	`g init -q ../fresh && g -C ../fresh status`,
	`g interpret-trailers --trailer a=b <<<subject`,
	`printf 'a\0b' | g stripspace | od -c`,
	`printf 'HEAD\nHEAD:counter\n' | g cat-file --batch`,
	`g bisect start HEAD topic~1; g bisect reset`,
	`echo "exit: $(g rev-list --count HEAD 2>&1)"; g log | head -1`,
	`trap 'echo trapped' EXIT; g commit --amend --no-edit -q; g log -1 --format=%H`,
	`HOOK=1 g -c core.hooksPath=../hooks commit --allow-empty -m hooked`,
	`g -c alias.env='!env | grep ^GIT_ | grep -v ^GIT_EXEC_PATH= | sort' env`,
	`umask 027; g -c alias.fd='!umask; ls /proc/self/fd | wc -l' fd`,

	// Clone and push, well and badly.
	`cd .. && g clone remote.git c1 && git -C c1 log --oneline --all`,
	`cd .. && g clone -q remote.git && ls remote`,
	`cd .. && g clone remote.git -b topic c2 && git -C c2 branch -a`,
	`cd .. && g clone --progress remote.git c3 2>&1 | tr '\r' '\n' | grep -c done`,
	`cd .. && g clone --bare remote.git bare && ls`,
	`cd .. && g clone --mirror remote.git mirrored && ls`,
	`cd .. && g clone --depth 1 file://"$PWD"/remote.git c4 && git -C c4 log --oneline`,
	`cd .. && g clone --no-checkout --single-branch -o up remote.git c5 && git -C c5 branch -a && ls c5`,
	`cd .. && g clone no-such.git`,
	`cd .. && g clone file:///no/such/repo.git`,
	`cd .. && g clone remote.git work`,
	`cd .. && g clone remote.git -b no-such-branch c6; ls`,
	`cd .. && g clone remote.git -b v1 c7 && git -C c7 status`,
	`cd .. && g clone`,
	`cd .. && g clone a b c`,
	`cd .. && g clone --no-such-option remote.git`,
	`cd .. && g clone --depth=x remote.git`,
	`cd .. && g clone -b`,
	`cd .. && git init -q --bare empty.git && g clone empty.git && git -C empty status`,
	`cd .. && g -C work clone ../remote.git inner && ls work/inner`,
	`cd .. && g -c color.ui=always -c init.defaultBranch=trunk clone -- remote.git c8 && ls c8`,
	`cd .. && g -c alias.cl='clone -q' cl remote.git c9 && ls c9`,
	`g push`,
	`g push origin main`,
	`g push -q origin main`,
	`g push -u origin HEAD:new`,
	`g push --porcelain origin main topic`,
	`g push -v origin main 2>&1`,
	`g push --dry-run origin main && git ls-remote origin`,
	`g push origin behind:main`,
	`g push --atomic origin behind:main HEAD:new; git ls-remote origin`,
	`g push --force origin behind:main`,
	`g push --force-with-lease origin behind:main`,
	`g push origin +behind:main`,
	`g push --force-with-lease=main:v1 origin behind:main`,
	`g push --force-with-lease=main:behind origin behind:main`,
	`g push origin no-such-branch`,
	`g push no-such-remote main`,
	`g push ../no-such.git main`,
	`g push ../remote.git HEAD:elsewhere`,
	`g push origin v1 && g push origin v2`,
	`g push --tags`,
	`g push --follow-tags`,
	`g push origin :topic`,
	`g push origin --delete topic`,
	`g push origin --delete no-such-branch`,
	`g push origin HEAD:refs/for/main`,
	`g push --all && git ls-remote origin`,
	`g push --mirror ../mirror.git`,
	`g push --prune origin 'refs/heads/*'`,
	`g push -o option origin main`,
	`g push --no-such-option`,
	`g push --all --tags extra`,
	`g push --repo`,
	`g push --repo=../remote.git`,
	`g -c push.default=nothing push`,
	`g -c push.default=matching push`,
	`g -c push.default=current push`,
	`g -c push.default=upstream push`,
	`g -c push.default=bogus push`,
	`git checkout -q --detach && g push`,
	`git checkout -q -b lonely && g push; g push --set-upstream origin lonely`,
	`cd sub && g push`,
	`cd .. && g push`,
	`cd .. && g -C work push origin main && g --git-dir=work/.git push`,
	`g p && g pm`,
	`g chainpush`,
	`g shpush`,
	`g -c alias.pq='push -q' pq origin HEAD:new`,
	`HOOK=1 g -c core.hooksPath=../hooks push`,
	`HOOK=0 g -c core.hooksPath=../hooks push --no-verify`,
	`g push && g push && git ls-remote origin`,
	`out=$(g push 2>/dev/null); echo "[$out] $?"`,
}

const everydayStart = `
git init -q --bare remote.git && git init -q --bare mirror.git
git init -q work && cd work
mkdir sub && echo 0 >counter && echo hello >text.txt && echo '*.log' >.gitignore && echo in >sub/file
git add . && git commit -qm zero && git branch behind && git commit -qm one --allow-empty && git tag v1
git remote add origin ../remote.git && git push -q -u origin main && git push -q origin v1
git checkout -q -b topic && echo topic >counter && git commit -qam topic && git push -q -u origin topic
git checkout -q main && echo 1 >sub/file && git commit -qam two && git tag -am two v2
echo 7 >counter && echo x >untracked && echo x >ignored.log
git config alias.st 'status -s' && git config alias.last 'log -1 --oneline'
git config alias.shout '!echo shell in "$PWD" with' && git config alias.chain last
git config alias.loop pool && git config alias.pool loop && git config alias.broken "log 'open"
git config alias.p push && git config alias.pm 'push origin "main:also main"' && git config alias.pq 'push --porcelain'
git config alias.chainpush 'pq origin' && git config alias.shpush '!git push -q origin'
mkdir ../hooks && printf '#!/bin/sh\necho hook $0 "$@" | sed s:.*hooks/::\nexit ${HOOK:-0}\n' >../hooks/pre-commit
chmod +x ../hooks/pre-commit && cp ../hooks/pre-commit ../hooks/pre-push
`

// everydayState is what a command leaves behind, as far as it is the same at every run.
const everydayState = `cd "$1" && ls && for r in */.git *.git; do [ -d $r ] && echo $r &&
	git --git-dir=$r for-each-ref && git --git-dir=$r symbolic-ref HEAD; done; cd work && git status --porcelain && git config --list --local`

// untimed is what git says without how long curl tried to connect, which no two runs share.
func untimed(stderr string) string {
	return regexp.MustCompile(`after \d+ ms`).ReplaceAllString(stderr, "after N ms")
}

// TestEveryday: with gitops in between, stdout, exit code, what is left behind, and stderr but for
// our own lines, are git's.
func TestEveryday(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("start/.keep", "")
	w.must("start", "set -e\n"+everydayStart)
	for i, line := range everyday {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			w := *w
			w.t = t
			// Both sides run at the same path, one after the other, because git prints paths.
			here := fmt.Sprintf("e%d/here", i)
			once := func(g string) (result, string) {
				w.must(".", `mkdir -p "$1" && rm -rf "$1" && cp -a start "$1"`, w.path(here))
				r := w.bash(here+"/work", fmt.Sprintf("g() { %s \"$@\"; }\n%s", g, line))
				state := w.bash(".", everydayState, w.path(here))
				if err := os.Rename(w.path(here), w.path(here)+"-"+strings.ReplaceAll(g, " ", "-")); err != nil {
					t.Fatal(err)
				}
				return r, state.stdout
			}
			want, wantState := once("git")
			got, gotState := once("git gitops")
			if got.code != want.code {
				t.Errorf("exit code %d, git's %d", got.code, want.code)
			}
			if got.stdout != want.stdout {
				t.Errorf("stdout\n%s\ngit's\n%s", got.stdout, want.stdout)
			}
			if untimed(got.theirs()) != untimed(want.stderr) {
				t.Errorf("stderr\n%s\ngit's\n%s", got.theirs(), want.stderr)
			}
			if gotState != wantState {
				t.Errorf("left behind\n%s\nby git\n%s", gotState, wantState)
			}
			if t.Failed() && got.ours() != "" {
				t.Logf("our lines: %s", got.ours())
			}
		})
	}
}

// TestEveryday_gitFirst: the options that git itself reads before it comes to us count as well.
func TestEveryday_gitFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must(".", "git -c clone.defaultRemoteName=up gitops clone -q remote.git work")
	w.wantLocks(lockKey(remote, "main"))
	if got := w.must("work", "git remote && git commit -q --allow-empty -m one"); got != "up" {
		t.Errorf("the remote is %q, want up", got)
	}
	w.must(".", "git -C work gitops push -q")
	w.wantLocks()

	w.must(".", "git -C work commit -q --allow-empty -m two && git --git-dir=work/.git --work-tree=work gitops push -q up HEAD:prod")
	w.must("work", "git -c alias.x='push -q up HEAD:main' gitops x")
	w.wantLocks()
	if got := w.must("remote.git", "git rev-parse main prod | uniq | wc -l"); got != "1" {
		t.Errorf("not all pushes landed")
	}
}
