package migrate

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// migrated is what becomes of one script by itself.
func migrated(t *testing.T, text string) *Script {
	t.Helper()
	s, err := Read("script.sh", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	Link([]*Script{s})
	return s
}

func TestRead(t *testing.T) {
	for _, tc := range []struct{ before, after string }{
		// The field's sequences.
		{`cd $D; git clone https://git:$PAT@$HOST/$ORG/$REPO.git -b $BRANCH || exit 1`, `cd $D; git gitops clone https://git:$PAT@$HOST/$ORG/$REPO.git -b $BRANCH || exit 1`},
		{`git -c "core.sshCommand=ssh -i $KEY -F /dev/null" clone git@$HOST:$ORG/$REPO.git`, `git gitops -c "core.sshCommand=ssh -i $KEY -F /dev/null" clone git@$HOST:$ORG/$REPO.git`},
		{`git -C "$D" pull origin "$B" --rebase && git -C "$D" push -u origin "$B"`, `git -C "$D" pull origin "$B" --rebase && git gitops -C "$D" push -u origin "$B"`},
		{`git fetch origin $B; git pull origin --rebase; git push -u origin $B`, `git fetch origin $B; git pull origin --rebase; git gitops push -u origin $B`},
		{`git --git-dir="$D/.git" --work-tree "$D" push`, `git gitops --git-dir="$D/.git" --work-tree "$D" push`},
		{`git push --dry-run; git push --tags; git push origin :old`, `git gitops push --dry-run; git gitops push --tags; git gitops push origin :old`},
		{`git --no-pager -p push`, `git gitops --no-pager -p push`},

		// Other spellings of the word.
		{`"git" push; 'git' push; \git push; g"i"t push; $'git' push`, `"git" gitops push; 'git' gitops push; \git gitops push; g"i"t gitops push; $'git' gitops push`},
		{`/usr/bin/git push; "$BIN/git" push`, `/usr/bin/git gitops push; "$BIN/git" gitops push`},
		{"git\\\n  push", "git\\\n gitops  push"},
		{"git \\\r\n  push\r\n", "git gitops \\\r\n  push\r\n"},
		{`git p"us"h; git 'push'`, `git gitops p"us"h; git gitops 'push'`},

		// Where a command may stand.
		{`X=1 Y=2 git push`, `X=1 Y=2 git gitops push`},
		{`! git push && { git push & } || ( git push ); time git push`, `! git gitops push && { git gitops push & } || ( git gitops push ); time git gitops push`},
		{"X=$(git push); X=`git push`; X=\"$(git push)\"; <(git push)", "X=$(git gitops push); X=`git gitops push`; X=\"$(git gitops push)\"; <(git gitops push)"},
		{"X=`echo \\`git push\\``", "X=`echo \\`git gitops push\\``"},
		{"if git push; then :; fi\nwhile ! git push; do :; done\ncase x in x) git push ;; esac\nf() { git push; }", "if git gitops push; then :; fi\nwhile ! git gitops push; do :; done\ncase x in x) git gitops push ;; esac\nf() { git gitops push; }"},
		{`declare x=$(git push); [[ $(git push) ]]; echo $(( $(git push) ))`, `declare x=$(git gitops push); [[ $(git gitops push) ]]; echo $(( $(git gitops push) ))`},
		{`git 2>&1 push; git<in push; git push>out`, `git gitops 2>&1 push; git gitops<in push; git gitops push>out`},
		{"cat <<E\ngit push $(git push)\nE\n", "cat <<E\ngit push $(git gitops push)\nE\n"},
		{"cat <<'E'\n$(git push)\nE\n", "cat <<'E'\n$(git push)\nE\n"},

		// Behind another command.
		{`command git push; exec git push; env X=1 git push; nohup git push`, `command git gitops push; exec git gitops push; env X=1 git gitops push; nohup git gitops push`},
		{`timeout -s KILL 60 git push; nice -n 5 git -C d push; xargs -n1 git push origin`, `timeout -s KILL 60 git gitops push; nice -n 5 git gitops -C d push; xargs -n1 git gitops push origin`},
		{`sudo -u git git push`, `sudo -u git git gitops push`},
		{`find . -name .git -execdir git push \;`, `find . -name .git -execdir git gitops push \;`},
		{`command -v git; env git status`, `command -v git; env git status`},

		// What only the script's run tells.
		{`g() { git "$@"; }; git $OPTIONS push; git "${o[@]}" push`, `g() { git gitops "$@"; }; git gitops $OPTIONS push; git gitops "${o[@]}" push`},
		{`git() { command git "$@"; }`, `git() { command git "$@"; }`},

		// In submodules.
		{`git submodule foreach git push; git -C d submodule --quiet foreach --recursive git push -q origin`, `git submodule foreach git gitops push; git -C d submodule --quiet foreach --recursive git gitops push -q origin`},
		{`git submodule foreach git pull; git submodule update; git submodule foreach`, ``},

		// Aliases of the script.
		{"git config alias.p.command push\ngit p", "git config alias.p.command push\ngit gitops p"},
		{"git config --global alias.p push\ngit p", "git config --global alias.p push\ngit gitops p"},
		{"git P\ngit config alias.p 'push -u'", "git gitops P\ngit config alias.p 'push -u'"},
		{"git config alias.s status\ngit s", "git config alias.s status\ngit s"},

		// Nothing for git-gitops.
		{`git status; git add -v .; git commit -m push; git stash push; git subtree push; git remote -v; git`, ``},
		{`git gitops push; git gitops -C d clone x; git-gitops push; git gitops run -- git push`, ``},
		{`echo git push; printf %s git push; x="git push"; # git push`, ``},
		{`git push -h; git --version; git help push; git --bogus push`, ``},
		{`legit push; git.sh push; docker push; ./git-push`, ``},
		{`apt-get install -y git; which git; type git`, ``},
		{``, ``},
		{"\xef\xbb\xbfgit push", ``},
		{"\t\r\n#\r\n", ``},

		// Everything else stays byte for byte.
		{"#!/bin/sh\r\n\tgit push  \r\n\r\nx=\xff\xfe", "#!/bin/sh\r\n\tgit gitops push  \r\n\r\nx=\xff\xfe"},
		{"é=1 || git push ü", "é=1 || git gitops push ü"},
	} {
		want := tc.after
		if want == "" {
			want = tc.before
		}
		s := migrated(t, tc.before)
		if string(s.Changed) != want {
			t.Errorf("%q becomes\n%q, want\n%q", tc.before, s.Changed, want)
		}
		if s.Edits != strings.Count(want, "gitops")-strings.Count(tc.before, "gitops") {
			t.Errorf("%q: %d edits", tc.before, s.Edits)
		}
		if again := migrated(t, string(s.Changed)); again.Edits != 0 {
			t.Errorf("%q changes again, to %q", s.Changed, again.Changed)
		}
	}
}

func TestRead_refuses(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"git push\nif x; then\n", "script.sh:2:"},
		{"git push\necho 'open\n", "script.sh:2:"},
		{"\x7fELF\x00git push\n", "binary"},
		{"#!/usr/bin/env python3\nx = 1\n", "python3"},
		{"#!/usr/bin/perl -w\nx\n", "first line"},
	} {
		s, err := Read("script.sh", []byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %+v, %v, want an error with %q", tc.text, s, err, tc.want)
		}
	}
	for _, first := range []string{"#!/bin/sh", "#! /usr/bin/env bash", "#!/usr/bin/env -S bash -e", "#!/bin/busybox sh", "\xef\xbb\xbf#!/bin/dash", "#!/bin/bash -eu\r"} {
		if _, err := Read("x", []byte(first+"\ngit push\n")); err != nil {
			t.Errorf("%q: %v", first, err)
		}
	}
}

// TestNotes: what people have to look at, by line and a few words. Nothing of it is changed.
func TestNotes(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string // in order
	}{
		{`sh -c 'git push'`, []string{"1: string"}},
		{"bash -ec \"cd x &&\ngit -C $d push\"", []string{"1: string"}},
		{`timeout 9 bash -lc 'git "open push'`, []string{"1: string"}},
		{`eval "git push"; eval "$x"; sh -c 'git status'; sh -c "$x"`, []string{"1: string"}},
		{`alias gp='git push' ll='ls -l'`, []string{"1: string"}},
		{`ssh host "cd repo && git push"`, []string{"1: string"}},
		{"bash -s <<'E'\ngit push\nE", []string{"2: string"}},
		{"cat <<'E'\ngit push\nE", nil},
		{`sh <<<'git push'`, []string{"1: string"}},
		{`trap 'git push' EXIT`, []string{"1: string"}},
		{`retry 5 git push`, []string{"1: retry gets"}},
		{`$GIT push; ${GIT_CMD} -C d clone x; "$DOCKER" push; $GIT status`, []string{"1: if $GIT is git", "1: if ${GIT_CMD} is git"}},
		{"cmd=(git -C \"$d\" push)\n\"${cmd[@]}\"\nx=(git status); y=([0]=git); z=()", []string{"1: array"}},
		{"git() { :; }", []string{"1: named git"}},
		{`sudo git push`, []string{"1: sudo may remove REDIS_*"}},
		{`sudo apt-get update`, nil},

		// Lock branches.
		{"git ls-remote --heads origin lock.x\ngit checkout -b \"lock.$1\"\ngit push --atomic -u origin lock.x", []string{"1: ls-remote", "2: checkout", "3: push"}},
		{"git merge --squash lock.x; git push origin --delete lock.x; git push origin :lock.x; git push origin HEAD:refs/heads/lock.x", []string{"1: merge", "1: push"}},
		{"b=lock.$1\ngit -C \"$d\" push --force -u origin \"$b\"", []string{"2: push"}},
		{"git push origin \"$LOCK_BRANCH\"", []string{"1: push"}},
		{"git checkout lock; git switch \"$BLOCK\"; git add lock.x; git -C \"$LOCK_DIR\" switch main", nil},

		// Redis.
		{"while ! redis-cli -h \"$H\" SET \"$k\" \"$v\" NX EX 300; do sleep 20; done", []string{"1: SET"}},
		{"r set \"$k\" v nx ex 5", []string{"1: SET"}},
		{"redis-cli EVAL \"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end\" 1 k v", []string{"1: EVAL"}},
		{"${redis_cmd} EVAL \"${lua_script}\" 1 \"${lock_key}\" \"$v\"", []string{"1: EVAL"}},
		{"redis-cli PING; redis-cli SET k v; redis-cli GET k; eval x 1; eval \"$2=$1\"", nil},
		{"if [ \"$GITOPS_USE_REDIS_LOCKING\" = true ]; then :; fi", []string{"1: delete the test"}},
		{"export GITOPS_USE_REDIS_LOCKING=false", []string{"1: 78"}},

		// Functions that lock, and who calls them.
		{
			"try_lock() {\n\tredis-cli SET k v NX\n}\nacquire_lock() {\n\tuntil try_lock; do sleep 1; done\n}\nf() {\n\tacquire_lock\n\tgit clone x\n}\ntrap 'release_lock x' EXIT INT\nrelease_lock() { redis-cli EVAL \"$lua\" 1 k; }",
			[]string{"1: try_lock locks", "4: acquire_lock locks", "8: calls acquire_lock (script.sh:4)", "11: trap calls release_lock (script.sh:12)", "12: release_lock locks"},
		},
		// A function that does more than to lock does not go as a whole.
		{"clone_and_lock() {\n\tgit push origin lock.x\n\tgit clone x\n}\nclone_and_lock", []string{"2: push"}},
		{"clone_and_lock() {\n\tclone_it\n\tgit push origin lock.x\n}\nclone_it() { git clone x; }\nclone_and_lock", []string{"3: push"}},
		{"clone_and_lock() {\n\tgit -C x gitops clone x\n\tgit push origin lock.x\n}\nclone_and_lock", []string{"3: push"}},
		{"deploy() {\n\tredis-cli SET k v NX\n\tsave\n}\ndeploy", []string{"2: SET"}},
	} {
		s := migrated(t, tc.text)
		ok := len(s.Notes) == len(tc.want)
		for i := 0; ok && i < len(tc.want); i++ {
			line, words, _ := strings.Cut(tc.want[i], ": ")
			ok = fmt.Sprint(s.Notes[i].Line) == line && strings.Contains(s.Notes[i].Text, words)
		}
		if !ok {
			t.Errorf("%s\nnotes: %+v\nwant: %q", tc.text, s.Notes, tc.want)
		}
	}
}

// TestLink: the functions of one file are called from another.
func TestLink(t *testing.T) {
	library, err := Read("lib/lock.sh", []byte("lock_redis() { redis-cli SET k v NX; }\n"))
	if err != nil {
		t.Fatal(err)
	}
	caller, err := Read("run.sh", []byte("lock_redis\ngit push\n"))
	if err != nil {
		t.Fatal(err)
	}
	Link([]*Script{caller, library})
	if len(caller.Notes) != 1 || !strings.Contains(caller.Notes[0].Text, "lock_redis (lib/lock.sh:1)") {
		t.Errorf("%+v", caller.Notes)
	}
}

// FuzzRead: what parses still parses, a second time changes nothing, and without the words put in
// it is the input, byte for byte.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"git push", "git -C \"$d\" clone x\r\n", "X=`git push`", "cat <<E\n$(git push)\nE\n", "git\\\n push", "sh -c 'git push'", "git() { git \"$@\"; }", "g'it' push",
		"sudo -u git git push", "eval \"eval 'git push'\"", "git config alias.p push; git p", "\"$(git push)\"", "for ((;;)); do git push; done", "trap 'x' EXIT; x() { redis-cli SET a b NX; }",
		"`echo \\`git push\\``", "git <<A push <<-B\n$(git push)\nA\n\tB\n", "a=(git push $(git push))", "git$'\\x20' push", "\xef\xbb\xbfgit push", "coproc git push", "( ()0)",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Read("x", text)
		if err != nil {
			return
		}
		Link([]*Script{s})
		var back []byte
		from := 0
		for i, place := range s.places {
			at := place + i*len(inserted)
			back = append(back, s.Changed[from:at]...)
			if from = at + len(inserted); string(s.Changed[at:from]) != inserted {
				t.Fatalf("%q: not put in at %d: %q", text, at, s.Changed)
			}
		}
		if back = append(back, s.Changed[from:]...); !bytes.Equal(back, text) {
			t.Fatalf("%q: taken out again: %q", text, back)
		}
		again, err := Read("x", s.Changed)
		if err != nil {
			t.Fatalf("%q: becomes %q: %v", text, s.Changed, err)
		}
		if again.Edits != 0 {
			t.Fatalf("%q: becomes %q, and then %q", text, s.Changed, again.Changed)
		}
		if !slices.IsSortedFunc(s.Notes, func(a, b Note) int { return a.Line - b.Line }) {
			t.Fatalf("%q: notes out of order: %+v", text, s.Notes)
		}
	})
}

// TestRead_unguarded: what pushes by itself, and by no git of the script, is pointed at.
func TestRead_unguarded(t *testing.T) {
	for text, want := range map[string]string{
		"git subtree push --prefix=lib origin lib":          "git subtree push runs git's own push",
		"git for-each-repo --config=some.repo push":         "git for-each-repo runs git's own push",
		"git send-pack origin main":                         "git send-pack takes no lock and runs no hook",
		"git submodule foreach 'git push origin HEAD'":      "in a string that a shell runs",
		"git submodule foreach --recursive 'git push || :'": "in a string that a shell runs",
		"git subtree pull --prefix=lib origin lib":          "",
		"git for-each-repo --config=some.repo fetch":        "",
		"git submodule foreach 'git fetch'":                 "",
	} {
		s := migrated(t, text)
		if s.Edits != 0 || (len(s.Notes) == 0) != (want == "") || want != "" && !strings.Contains(s.Notes[0].Text, want) {
			t.Errorf("%s: %d edits, notes %v, want %q", text, s.Edits, s.Notes, want)
		}
	}
}
