//go:build unix

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// forcedForms are spellings of a push that overwrites or deletes main, by words after "git gitops
// push", with settings before a "|".
var forcedForms = []struct {
	form string
	tags string // of those that it updates at the remote when nobody else has pushed
}{
	{form: "-f origin main"},
	{form: "--force origin main"},
	{form: "-fu origin main"},
	{form: "origin main -f"},
	{form: "origin +main"},
	{form: "origin +HEAD:main"},
	{form: "-f origin +HEAD:refs/heads/main"},
	{form: "-f"},
	{form: "-f --repo=origin"},
	{form: "push.default=matching|-f"},
	{form: "--force --all"},
	{form: "-f origin :"},
	{form: "origin +:"},
	{form: "origin '+refs/heads/*:refs/heads/*'"},
	{form: "-f origin 'refs/heads/*'"},
	{form: "origin '+refs/*:refs/*'", tags: "v1 v2"},
	{form: "--no-force -f origin main"},
	{form: "-f origin main v1", tags: "v1"},
	{form: "-f origin tag v1 main", tags: "v1"},
	{form: "origin main tag v1 -f tag v2", tags: "v1 v2"},
	{form: "--force --tags origin main", tags: "v1 v2"},
	{form: "--tags origin +main v3"},
	{form: "-f --follow-tags origin main"},
	{form: "--mirror", tags: "v1 v2"},
	{form: "--mirror -f origin", tags: "v1 v2"},
	{form: "remote.origin.mirror=true|", tags: "v1 v2"},
	{form: "remote.origin.push=+main:refs/heads/main|"},
	{form: "remote.origin.push=+refs/heads/*:refs/heads/*|"},
	{form: "remote.origin.push=refs/heads/*:refs/heads/*|-f origin"},
	{form: "remote.origin.push=+refs/heads/main:refs/heads/main|origin main"},
	{form: "remote.origin.push=+refs/heads/main:refs/heads/main|-f origin main"},
	{form: "--force-with-lease origin main"},
	{form: "--force-with-lease -f origin main"},
	{form: "--force-with-lease origin +main"},
	{form: "--force-with-lease"},
	{form: "--force-with-lease=main origin main"},
	{form: "--force-with-lease=main --force origin main"},
	{form: "--force-with-lease=main:origin/main origin main"},
	{form: "--force-with-lease=main:origin/main -f origin +main"},
	{form: "--force-with-lease=main:$BASE origin +main"},
	{form: "--force-with-lease=main:$BASE -f origin main"},
	{form: "--force-with-lease=refs/heads/main:$BASE --force --all"},
	{form: "--force-with-lease=main:$BASE --mirror", tags: "v1 v2"},
	{form: "--force-if-includes -f origin main"},
	{form: "--force-if-includes --force-with-lease origin main"},
	{form: "--force-if-includes --force-with-lease -f origin main"},
	{form: "push.useForceIfIncludes=true|--force-with-lease origin +main"},
	{form: "--no-force-if-includes --force-with-lease=other:main -f origin main"},
	{form: "origin --delete main"},
	{form: "-f -d origin main"},
	{form: "--force-with-lease -d origin main"},
	{form: "origin :main"},
	{form: "origin +:main"},
	{form: "-f --force-with-lease=main:$BASE origin :main"},
}

// forced is a form as a script.
func forced(form string) string {
	if config, words, ok := strings.Cut(form, "|"); ok {
		name, value, _ := strings.Cut(config, "=")
		return "git gitops -c '" + name + "=" + value + "' push " + words
	}
	return "git gitops push " + form
}

// deletes reports whether a form deletes main.
func deletes(form string) bool {
	return strings.Contains(form, "-d ") || strings.Contains(form, "--delete") ||
		strings.HasSuffix(form, " :main") || strings.HasSuffix(form, "+:main")
}

// TestPush_forced: however it is written, a forced push overwrites what this clone has seen, and
// nothing else.
func TestPush_forced(t *testing.T) {
	t.Parallel()
	const groups = 4
	for group := range groups {
		t.Run(fmt.Sprint(group), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			w.must("remote.git", "git config receive.denyDeleteCurrent ignore && git tag v1 && git tag v2")
			w.outsider("echo 1 >counter")
			w.env["BASE"] = w.tip("main")
			const start = `rm -rf work && cp -a keep remote.git && git gitops clone -q remote.git work && cd work && git commit -q --amend -m mine &&
				git tag -f v1 >/dev/null && git tag -f v2 >/dev/null && git tag v3 && git branch -q new HEAD`
			w.must(".", "cp -a remote.git keep && rm -rf remote.git; "+start)
			w.outsider("echo outsider >counter")
			w.must("work", "git fetch -q") // in the background: nobody has looked at it
			theirs := w.tip("main")
			for i := group; i < len(forcedForms); i += groups {
				form := forcedForms[i].form
				r := w.bash("work", forced(form))
				wantCode(t, r, 1)
				wantText(t, r.theirs(), "rejected")
				wantText(t, r.ours(), "not pushed: branch main is at "+theirs[:10], "--force-with-lease=main:"+theirs)
				if w.tip("main") != theirs {
					t.Fatalf("%s: the outsider's commit was overwritten: %s", form, r)
				}
			}
			for i := group; i < len(forcedForms); i += groups {
				tc := forcedForms[i]
				w.must(".", "git -C work gitops unlock --all; rm -rf remote.git; "+start)
				includes := strings.Contains(strings.ToLower(tc.form), "-if-includes") || strings.Contains(tc.form, "useForceIfIncludes")
				included := includes && w.bash("work", "git push --dry-run --force-if-includes --force-with-lease origin main").code == 0
				r := w.bash("work", forced(tc.form))
				want, code := w.must("work", "git rev-parse HEAD"), 0
				switch {
				case deletes(tc.form):
					want = ""
				case includes:
					if !included && (!strings.Contains(tc.form, "-f origin") || strings.Contains(tc.form, "--force-if-includes --force-with-lease")) {
						want, code = w.env["BASE"], 1 // as git does before 2.55: nothing has logged where main was when it was cloned
					}
				case strings.Contains(tc.form, "--tags origin +main"):
					code = 1 // git refuses to move v1 and v2, which nobody forces
				}
				if r.code != code || code == 0 && r.ours() != "" {
					t.Errorf("%s: want exit code %d, got %s", tc.form, code, r)
				}
				if got := w.tip("main"); got != want {
					t.Errorf("%s: main is at %q, want %q: %s", tc.form, got, want, r)
				}
				if code == 0 {
					w.wantLocks()
				}
				for _, tag := range []string{"v1", "v2"} {
					updated := w.must("remote.git", "git rev-parse "+tag) == w.must("work", "git rev-parse "+tag)
					if updated != strings.Contains(tc.tags, tag) {
						t.Errorf("%s: tag %s updated: %v: %s", tc.form, tag, updated, r)
					}
				}
			}
		})
	}
}

// TestPush_forcedLost: no spelling of a forced push overwrites what another has pushed under the
// lock that this clone has lost, fetched or not. Naming the commit does.
func TestPush_forcedLost(t *testing.T) {
	t.Parallel()
	for _, fetched := range []string{"", "git fetch -q"} {
		t.Run(fetched, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			remote := w.seed("remote.git")
			w.must("remote.git", "git config receive.denyDeleteCurrent ignore")
			w.outsider("echo 1 >counter")
			w.env["BASE"] = w.tip("main")
			w.must(".", "git gitops clone -q remote.git work && git -C work commit -q --amend -m mine")
			w.killKeepers() // or it would take the lock back
			w.keys.Del(t.Context(), lockKey(remote, "main"))
			w.must(".", "git gitops clone -q remote.git other && cd other && git commit -q --allow-empty -m other && git gitops push -q")
			theirs := w.tip("main")
			w.must("work", "git tag v1 && git tag v2 && git tag v3; "+fetched)
			for _, tc := range forcedForms {
				r := w.bash("work", forced(tc.form))
				if r.code != 73 || !strings.Contains(r.ours(), "--force-with-lease=main:"+theirs) {
					t.Errorf("%s: %s", tc.form, r)
				}
				if w.tip("main") != theirs {
					t.Fatalf("%s: the other's commit was overwritten: %s", tc.form, r)
				}
			}
			w.wantLocks(lockKey(remote, "main")) // the turn is kept
			w.must("work", "git gitops push -f --force-with-lease=main:"+theirs+" origin main")
			if w.tip("main") != w.must("work", "git rev-parse HEAD") {
				t.Error("what was named is not overwritten")
			}
			w.wantLocks()
		})
	}
}

// forcedClones are the states of a clone in the table of docs/guarantees.md: each script makes a
// clone named work, whose HEAD replaces the tip of main that it has seen.
var forcedClones = map[string]string{
	"holds the lock since the clone":           "git gitops clone -q remote.git work && cd work && git commit -q --amend -m mine",
	"has pushed the branch":                    "git gitops clone -q remote.git work && cd work && git commit -q --allow-empty -m one && git gitops push -q && git commit -q --amend --allow-empty -m mine",
	"has pushed it to a URL":                   "git gitops clone -q remote.git work && cd work && git commit -q --allow-empty -m one && git gitops push -q ../remote.git main && git commit -q --amend --allow-empty -m mine",
	"has lost the lock":                        "git gitops clone -q remote.git work && cd work && git commit -q --amend -m mine && redis-cli -p $REDIS_PORT flushall >/dev/null",
	"is of a session that has ended":           "printf '%s\\n' 'git gitops clone -q remote.git work' : >dead.sh && env -u GITOPS_LOCK_SESSION bash dead.sh && cd work && until grep -q '\"lost\"' .git/gitops/*.json; do sleep 0.05; done && git commit -q --amend -m mine",
	"never held the lock":                      "git clone -q remote.git work && cd work && git commit -q --amend -m mine",
	"was fetched, and checked out detached":    "git init -q work && cd work && git remote add origin $PWD/../remote.git && git fetch -q origin main && git checkout -q origin/main && git commit -q --amend -m mine",
	"has fetched the branch, and never had it": "git init -q work && cd work && git remote add origin $PWD/../remote.git && git fetch -q origin main && git commit -q --allow-empty -m mine",
	"knows nothing of the branch":              "git init -q work && cd work && git remote add origin ../remote.git && git commit -q --allow-empty -m mine",
}

// forcedSince is what happens to main then, in out, another clone.
var forcedSince = map[string]string{
	"nothing":                               "",
	"pushed to":                             "git pull -q && git commit -q --allow-empty -m outsider && git push -q",
	"pushed to, and fetched":                "git pull -q && git commit -q --allow-empty -m outsider && git push -q && git -C ../work fetch -q origin main",
	"pushed to, and merged":                 "git pull -q && git commit -q --allow-empty -m outsider && git push -q && cd ../work && git fetch -q && git merge -q -s ours -m merge origin/main",
	"pushed to, and reset to, then amended": "git pull -q && git commit -q --allow-empty -m outsider && git push -q && cd ../work && git fetch -q && git reset -q --hard origin/main && git commit -q --amend --allow-empty -m again",
	"deleted":                               "git push -q origin :main",
}

// TestPush_forcedTable tries each row of the table in docs/guarantees.md, and after each refusal
// what its message says.
func TestPush_forcedTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| the clone | the branch since | forced push | delete |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("there is no such table")
	}
	rows := 0
	var clone string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[1] != "" {
			clone = cells[1]
		}
		prepare, known := forcedClones[clone]
		for since := range strings.SplitSeq(cells[2], "; ") {
			script, known2 := forcedSince[since]
			if !known || !known2 {
				t.Fatalf("no script for the row %q, %q", clone, since)
			}
			push, del := "-f origin main", "origin --delete main"
			if strings.Contains(clone, "detached") {
				push = "-f origin HEAD:main"
			}
			rows++
			switch {
			case cells[3] == cells[4] && strings.HasPrefix(cells[3], "refused"): // which changes nothing
				forcedRow(t, clone+", "+since, prepare, script, cells[3], del, push)
			case cells[4] != "":
				forcedRow(t, clone+", "+since+", delete", prepare, script, cells[4], del)
				fallthrough
			default:
				forcedRow(t, clone+", "+since, prepare, script, cells[3], push)
			}
		}
	}
	if rows < 25 {
		t.Errorf("only %d rows are there", rows)
	}
}

// forcedRow tries forms of a push, of which all but the last must be refused.
func forcedRow(t *testing.T, name, prepare, since, want string, forms ...string) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.seed("remote.git")
		w.must("remote.git", "git config receive.denyDeleteCurrent ignore")
		w.outsider("echo 1 >counter")
		w.must(".", prepare)
		w.must("out", since+"\n:")
		before := w.tip("main")
		var r result
		lease := ""
		for _, form := range forms {
			for range 2 { // the second time is no other than the first
				r = w.bash("work", "git gitops push "+form)
				if want == "done" || want == "as git does" {
					wantCode(t, r, 0)
					break
				}
				wantCode(t, r, map[string]int{"refused, 1": 1, "refused, 73": 73}[want])
				if w.tip("main") != before {
					t.Fatalf("something was overwritten: %s", r)
				}
				_, advice, ok := strings.Cut(r.ours(), "repeat the push with git gitops and ")
				lease, _, _ = strings.Cut(advice, "\n")
				if !ok || !strings.HasPrefix(lease, "--force-with-lease=main:"+before) {
					t.Fatalf("no advice: %s", r)
				}
			}
		}
		form := forms[len(forms)-1]
		if lease != "" {
			w.must("work", "git gitops push "+lease+" "+form)
		}
		wanted := w.must("work", "git rev-parse HEAD")
		if deletes(form) {
			wanted = ""
		}
		if got := w.tip("main"); got != wanted {
			t.Errorf("main is at %q, want %q: %s", got, wanted, r)
		}
		w.until("all locks are free", func() bool { return len(w.locks()) == 0 })
	})
}

// TestPush_forcedEach: each of several branches is decided by what this clone has seen of it.
func TestPush_forcedEach(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"-f --all", "origin '+refs/heads/*:refs/heads/*'", "push.default=matching|-f", "-f origin main dev mine", "origin +main +dev +mine", "--mirror", "--force-with-lease -f --all"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			w.must("remote.git", "git branch dev && git branch mine")
			w.outsider("echo 1 >counter")
			w.must(".", "git gitops clone -q remote.git work && cd work && git branch -q dev origin/dev && git branch -q mine origin/mine")
			w.must("work", "for b in dev mine main; do git checkout -q $b; git commit -q --amend --allow-empty -m new; done")
			w.must("out", "git checkout -q dev && git commit -q --allow-empty -m outsider && git push -q")
			w.must("work", "git fetch -q")
			theirs := w.tip("dev")
			r := w.bash("work", forced(form))
			wantCode(t, r, 1)
			wantText(t, r.ours(), "not pushed: branch dev is at", "--force-with-lease=dev:"+theirs)
			if got := w.tip("dev"); got != theirs {
				t.Errorf("dev was overwritten: %s", r)
			}
			for _, branch := range []string{"main", "mine"} {
				if w.tip(branch) != w.must("work", "git rev-parse "+branch) {
					t.Errorf("%s was not pushed: %s", branch, r)
				}
			}
			r = w.bash("work", strings.Replace(forced(form), "push ", "push --force-with-lease=dev:"+theirs+" ", 1))
			wantCode(t, r, 0)
			if w.tip("dev") != w.must("work", "git rev-parse dev") {
				t.Errorf("dev was not pushed: %s", r)
			}
			w.wantLocks()
		})
	}
}

// TestPush_manyBranches: a push of many branches, forced or not, asks git no more questions than a
// push of a few.
func TestPush_manyBranches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git config receive.autogc false") // newer gits pack many refs
	questions := func(branches, words string) int {
		w.must(".", `rm -rf work trace; git clone -q remote.git work; cd work; git switch -qc "run-$2"; n=$1
			all() { git commit -q --allow-empty -m "$1"; for n in $(seq $n); do echo "update refs/heads/run-$2-$n HEAD"; done | git update-ref --stdin; }
			all one $2; git gitops push -q --all; all two $2; git push -q --all; all three $2; git commit -q --allow-empty -m four
			GIT_TRACE2_EVENT=`+w.path("trace")+` git gitops push -q $3`, branches, branches, words)
		w.must("work", `git push -q --delete origin $(git for-each-ref --format="%(refname)" "refs/heads/run-*")`)
		return strings.Count(w.read("trace"), `"event":"start"`)
	}
	for _, words := range []string{"--all", "--force --all", "origin +refs/heads/*:refs/heads/*"} {
		few, many := questions("5", words), questions("60", words)
		if few != many {
			t.Errorf("push %s starts git %d times with a few branches, %d times with many", words, few, many)
		}
	}
}

// TestPush_leaseRefused: whatever lease makes git refuse a push, and however it is run, the message
// says where each branch is, and why.
func TestPush_leaseRefused(t *testing.T) {
	t.Parallel()
	const unseen, named = ", which this clone has not seen", ", but its --force-with-lease names another commit"
	for _, tc := range []struct {
		name, words string
		outsider    bool // pushes to main before
		says        string
	}{
		{"another commit", "--force-with-lease=main:$MINE origin main", false, named},
		{"another commit, short", "--force-with-lease=main:${MINE%??????????} origin main", false, named},
		{"none", "--force-with-lease=main: origin main", false, named},
		{"force", "-f --force-with-lease=main:$MINE origin main", false, named},
		{"delete", "--force-with-lease=main:$MINE origin :main", false, named},
		{"quiet", "-q --force-with-lease=main:$MINE origin main", false, named},
		{"porcelain", "--porcelain --force-with-lease=main:$MINE origin main", false, named},
		{"atomic", "--atomic --force-with-lease=main:$MINE origin main HEAD:refs/heads/new", false, named},
		{"all", "--force-with-lease=main:$MINE --all", false, named},
		{"what was fetched", "--force-with-lease origin main", true, unseen},
		{"what was fetched, by name", "--force-with-lease=main:origin/main origin main", true, unseen},
		{"includes", "--force-with-lease --force-if-includes origin main", true, unseen},
		{"no lease", "-f origin main", true, unseen},
		{"no lease, quiet", "-q -f origin main", true, unseen},
		{"no lease, porcelain", "--porcelain -f origin main", true, unseen},
		{"no lease, atomic", "--atomic origin +main HEAD:refs/heads/new", true, unseen},
		{"no lease, a tag as well", "-f origin main HEAD:refs/tags/v9", true, unseen},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed("remote.git")
			w.must("remote.git", "git config receive.denyDeleteCurrent ignore")
			w.must(".", "git gitops clone -q remote.git work && git -C work commit -q --allow-empty -m mine")
			if tc.outsider {
				w.outsider("echo outsider >counter")
				w.must("work", "git fetch -q")
			}
			w.env["MINE"] = w.must("work", "git rev-parse HEAD")
			tip := w.tip("main")
			for _, run := range []string{"git gitops push " + tc.words, `script -qec 'git gitops push ` + tc.words + `' /dev/null </dev/null`} {
				r := w.bash("work", run)
				wantCode(t, r, 1)
				said := strings.ReplaceAll(r.stdout+r.stderr, "\r", "")
				wantText(t, said, "gitops: error: not pushed: branch main is at "+tip[:10]+tc.says, "--force-with-lease=main:"+tip)
				if tc.says == named && strings.Contains(said, "has not seen") {
					t.Errorf("a false reason: %s", r)
				}
			}
			if w.tip("main") != tip {
				t.Error("main was overwritten")
			}
			w.must("work", "git gitops unlock --all")
		})
	}
	t.Run("a race", func(t *testing.T) { // which git's server notices
		t.Parallel()
		w := newWorld(t)
		w.seed("remote.git")
		w.must(".", `git gitops clone -q remote.git work && git clone -q remote.git other && git -C other commit -q --allow-empty -m other &&
			git -C work commit -q --amend --allow-empty -m mine`)
		w.write("work/.git/hooks/pre-push", "#!/bin/sh\nexec git -C ../other push -q origin main 2>/dev/null\n")
		r := w.bash("work", "git gitops push -f origin main")
		wantCode(t, r, 1)
		tip := w.must("other", "git rev-parse HEAD")
		wantText(t, r.ours(), "not pushed: branch main is at "+tip[:10]+unseen)
		if w.tip("main") != tip {
			t.Error("main was overwritten")
		}
	})
}
