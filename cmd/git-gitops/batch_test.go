//go:build unix

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

const bare = "srv/org/repo.git"

// batching is a world whose pushes go together, and a repository with the file "many" of 40 lines.
func batching(t *testing.T) *world {
	t.Helper()
	w := newWorld(t).with("GITOPS_PUSH_REBASE=true", "GITOPS_PUSH_BATCH=true", "GITOPS_PUSH_BATCH_SECRET=s3cret-of-all",
		"GITOPS_LOCK_SESSION", "GITOPS_LOG=debug", "GITOPS_LOCK_REPO=git.example.com/org/repo")
	w.seed(bare)
	w.must(".", `git clone -q srv/org/repo.git s && cd s && seq -f 'line %g' 40 >many && git add . && git commit -qm many && git push -q && rm -rf ../s
		cd ../srv/org/repo.git && git config core.logAllRefUpdates always && git config core.packedRefsTimeout 60000 && mkdir -p logs/refs/heads && touch logs/refs/heads/main`)
	return w
}

// cloned has n pipelines that have cloned and committed: the files file$i, or what the script
// edits.
func (w *world) cloned(url string, n int, edit string) {
	w.t.Helper()
	w.must(".", `set -e; for i in $(seq 0 $(($2 - 1))); do git clone -q "$1" "work$i"; cd "work$i"; `+edit+`
		git add -A; git commit -q -m "change $i" --author="Author $i <a$i@example.com>"; cd ..; done`, url, fmt.Sprint(n))
}

const ownFile = `echo "$i" >"file$i"`

// pushes starts the pushes of n pipelines. Before that, the turn is taken, so that all must wait
// for it; the returned function gives it back.
func (w *world) pushes(n int) (all []*process, free func()) {
	w.t.Helper()
	free = w.takeTurn()
	for i := range n {
		all = append(all, w.push(i))
	}
	return all, free
}

func (w *world) push(i int) *process {
	push := "git gitops push"
	if w.env["REAL"] != "" {
		push = "git push"
	}
	return w.with(fmt.Sprint("GITOPS_LOCK_NAME=svc", i)).start(fmt.Sprint("work", i), "bash", "-c", push+" -u origin main; exit $?")
}

// landAll waits for pushes, all of which must succeed.
func landAll(t *testing.T, all []*process) {
	t.Helper()
	for i, p := range all {
		if r := p.wait(); r.code != 0 {
			t.Errorf("pipeline %d: %s", i, r)
		}
	}
}

// withShim is a world in which git is a link to us, and $REAL the real one.
func withShim(w *world) *world {
	w.t.Helper()
	git := w.must(".", "command -v git; git gitops install --shim shim >&2")
	return w.with("REAL="+git, "PATH="+w.path("shim")+":"+w.env["PATH"])
}

// paused reports whether nobody offers for a while.
func (w *world) paused() bool {
	for _, key := range w.scan("gitops:offers:*") {
		if w.keys.HExists(w.t.Context(), key, "paused").Val() {
			return true
		}
	}
	return false
}

// takeTurn takes the branch's own lock, by hand.
func (w *world) takeTurn() (free func()) {
	w.t.Helper()
	w.must(".", `git clone -q srv/org/repo.git turn`)
	alone := w.with("GITOPS_LOCK_SESSION=workspace")
	alone.must("turn", "git gitops lock")
	return func() { alone.must("turn", "git gitops unlock") }
}

// offers is how many have offered their commits.
func (w *world) offers() int {
	n := 0
	for _, key := range w.scan("gitops:offers:*") {
		for field := range w.keys.HGetAll(w.t.Context(), key).Val() {
			if len(field) == 32 {
				n++
			}
		}
	}
	return n
}

// untilOffered waits until so many of the pushes have offered.
func (w *world) untilOffered(n int, all []*process) {
	w.t.Helper()
	if gittest.Reached(func() bool { return w.offers() == n }) {
		return
	}
	for i, p := range all {
		w.t.Errorf("pipeline %d:\n%s", i, &p.stderr)
	}
	w.t.Fatalf("%d have offered, not %d", w.offers(), n)
}

func (w *world) lines(name string) int { return strings.Count(w.read(name), "\n") }

// wantOnce wants the change of each pipeline exactly once, and nothing left behind.
func (w *world) wantOnce(n int) {
	w.t.Helper()
	log := w.must(bare, "git log --format='%s by %an' main")
	for i := range n {
		if c := strings.Count("\n"+log+"\n", fmt.Sprintf("\nchange %d by Author %d\n", i, i)); c != 1 {
			w.t.Errorf("change %d is %d times in the history:\n%s", i, c, log)
		}
	}
	w.wantNothingLeft()
}

func (w *world) wantNothingLeft() {
	w.t.Helper()
	if refs := w.must(bare, "git for-each-ref --format='%(refname)' refs/gitops"); refs != "" {
		w.t.Errorf("batch refs left behind:\n%s", refs)
	}
	w.until("the locks end", func() bool { return len(w.locks()) == 0 })
	if n := w.queued(); n != 0 {
		w.t.Errorf("%d still wait", n)
	}
	if n := w.offers(); n != 0 {
		w.t.Errorf("%d offers left behind", n)
	}
}

// TestBatch: thirty pushes that wait for the branch go out with far fewer pushes, each change is
// there once, and each clone is where a rebase and a push would have left it.
func TestBatch(t *testing.T) {
	t.Parallel()
	for name, over := range map[string]func(*world) (served *world, url string){
		"path": func(w *world) (*world, string) { return w, w.path(bare) },
		"file": func(w *world) (*world, string) { return w, "file://" + w.path(bare) },
		"https": func(w *world) (*world, string) {
			w = overHTTPS(w)
			return w, "https://git:" + pat + "@" + w.env["HOST"] + "/org/repo.git"
		},
		"ssh":  func(w *world) (*world, string) { return overSSH(w), "git@127.0.0.1:org/repo.git" },
		"shim": func(w *world) (*world, string) { return withShim(w), w.path(bare) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, url := over(batching(t))
			n := 30
			if name != "path" { // like the others, and processes are dear
				n = 10
			}
			allTogether(t, w, url, n)
		})
	}
}

func allTogether(t *testing.T, w *world, url string, n int) {
	t.Helper()
	w.cloned(url, n, ownFile)
	before := w.lines(bare + "/logs/refs/heads/main")
	all, free := w.pushes(n)
	w.untilOffered(n, all)
	free()
	together := 0
	for i, p := range all {
		r := p.wait()
		if r.code != 0 {
			t.Errorf("pipeline %d: %s", i, r)
		}
		together += strings.Count(r.stderr, "pushed to main together with")
		for line := range strings.Lines(r.ours()) {
			if strings.Contains(line, "together with") && !strings.Contains(line, "svc") {
				t.Errorf("pipeline %d does not say with whom: %s", i, line)
			}
		}
		if r.stdout != "branch 'main' set up to track 'origin/main'.\n" {
			t.Errorf("stdout: %q", r.stdout)
		}
		if got := w.must(fmt.Sprint("work", i), `git status --porcelain && git log -1 --format=%s && cat "file`+fmt.Sprint(i)+`" &&
			git merge-base --is-ancestor HEAD origin/main && git for-each-ref --format='%(refname)' refs/gitops && git config branch.main.merge`); got != fmt.Sprintf("change %d\n%d\nrefs/heads/main", i, i) {
			t.Errorf("the clone %d: %s", i, got)
		}
	}
	w.wantOnce(n)
	if pushes := w.lines(bare+"/logs/refs/heads/main") - before; pushes > 4 {
		t.Errorf("%d pushes to the branch", pushes)
	}
	if together < n-4 {
		t.Errorf("%d say that they went together", together)
	}
	events := w.must("turn", `git gitops events --json | grep -o '"type":"batch[^,]*' | sort | uniq -c | tr -s ' '`)
	wantText(t, events, fmt.Sprintf(` %d "type":"batch_joined"`, n), `"type":"batch_landed"`, `"type":"batch_pushed"`)
}

// TestBatch_alone: when nobody else pushes, the server sees nothing of batches.
func TestBatch_alone(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 1, ownFile)
	w.write(bare+"/hooks/pre-receive", "#!/bin/sh\ncat >>../../../received\n")
	r := w.push(0).wait()
	wantCode(t, r, 0)
	if got := w.lines("received"); got != 1 || strings.Contains(w.read("received"), "refs/gitops") || strings.Contains(r.ours(), "together") {
		t.Errorf("received:\n%s%s", w.read("received"), r)
	}
	w.wantOnce(1)
}

// TestBatch_conflicts: a push that cannot join the batch goes in its own turn, and only that push
// fails.
func TestBatch_conflicts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit string
		code int
		text string
	}{
		"a conflict":      {`sed -i "7s/\$/ of $i/" many`, 1, "conflicts with what is at the remote"},
		"the same change": {`sed -i "7s/\$/ more/" many`, 73, "the same change"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t)
			w.cloned(w.path(bare), 6, `echo "$i" >"file$i"; if [ $i = 2 ] || [ $i = 4 ]; then rm file$i; `+c.edit+`; fi`)
			all, free := w.pushes(6)
			w.untilOffered(6, all)
			free()
			failed := []int{}
			for i, p := range all {
				if r := p.wait(); r.code != 0 {
					failed = append(failed, i)
					wantCode(t, r, c.code)
					wantText(t, r.stderr, c.text)
				}
			}
			if len(failed) != 1 || failed[0] != 2 && failed[0] != 4 {
				t.Fatalf("failed: %v", failed)
			}
			w.must(fmt.Sprint("work", failed[0]), "git gitops unlock")
			if got := w.must(bare, "git log --format=%s main | sort | uniq | wc -l; git rev-list --count main"); strings.Join(strings.Fields(got), " ") != "7 7" {
				t.Errorf("subjects, commits: %s", got)
			}
			w.wantNothingLeft()
		})
	}
}

// killedAt is a git that does what its first word says once, to the git-gitops that called it and
// before or after the call, when a command's words match a pattern.
const gitWrapper = `#!/bin/bash
real=REAL
if [[ " $* " == *WHEN* ]] && mkdir DIR/struck 2>/dev/null; then
	if [ BEFORE = after ]; then "$real" "$@" >/dev/null 2>&1; fi
	DO
fi
exec "$real" "$@"
`

// striking has the git of a world do something once.
func (w *world) striking(when, before, do string) *world {
	w.t.Helper()
	text := strings.NewReplacer("REAL", w.must(".", "command -v git"), "WHEN", when, "BEFORE", before, "DIR", w.dir, "DO", strings.ReplaceAll(do, "DIR", w.dir)).Replace(gitWrapper)
	return w.with("GITOPS_GIT=" + w.write("striking-git", text))
}

// TestBatch_killed: whatever step a leader is killed at, nobody else loses or doubles a commit, and
// all end.
func TestBatch_killed(t *testing.T) {
	t.Parallel()
	const n = 6
	for name, c := range map[string]struct {
		when, before string
		landed       bool // the killed one's change must be there
	}{
		"before its fetch": {"' fetch '*refs/gitops/batch/main/\\**", "before", false},
		"after its fetch":  {"' fetch '*refs/gitops/batch/main/\\**", "after", false},
		"before its push":  {"' push '*:refs/heads/main*", "before", false},
		"after its push":   {"' push '*:refs/heads/main*", "after", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
			w.cloned(w.path(bare), n, ownFile)
			victim := w.striking(c.when, c.before, "kill -9 $PPID; exit 1")
			free := w.takeTurn()
			var all []*process
			all = append(all, victim.push(0))
			w.until("the leader has offered", func() bool { return w.offers() == 1 })
			for i := 1; i < n; i++ {
				all = append(all, w.push(i))
			}
			w.untilOffered(n, all)
			free()
			for i, p := range all {
				if r := p.wait(); i > 0 && r.code != 0 || i == 0 && r.code == 0 {
					t.Errorf("pipeline %d: %s", i, r)
				}
			}
			if !w.exists("struck") {
				t.Fatal("nobody was killed")
			}
			log := w.must(bare, "git log --format=%s main")
			for i := range n {
				if c := strings.Count("\n"+log+"\n", fmt.Sprintf("\nchange %d\n", i)); c > 1 || i > 0 && c != 1 {
					t.Errorf("change %d is %d times in the history:\n%s", i, c, log)
				}
			}
			if c.landed && !strings.Contains(log, "change 0") {
				t.Errorf("what was pushed is not there:\n%s", log)
			}
			if refs := w.must(bare, "git for-each-ref --format='%(refname)' refs/gitops | wc -l"); refs != "1" {
				t.Errorf("%s batch refs, want that of the killed one", refs)
			}
			w.until("the locks of the killed one end", func() bool { return len(w.locks()) == 0 })
		})
	}
}

// TestBatch_followers: one that is killed, and one that is interrupted, do not hold up the others.
// The interrupted one has not landed.
func TestBatch_followers(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 5, ownFile)
	all, free := w.pushes(5)
	w.untilOffered(5, all)
	all[1].signal(syscall.SIGKILL)
	all[2].signal(syscall.SIGINT)
	if r := all[2].wait(); r.code != 130 {
		t.Errorf("interrupted: %s", r)
	}
	free()
	for _, i := range []int{0, 3, 4} {
		wantCode(t, all[i].wait(), 0)
	}
	log := "\n" + w.must(bare, "git log --format=%s main") + "\n"
	for i, most := range []int{1, 1, 0, 1, 1} {
		if c := strings.Count(log, fmt.Sprintf("\nchange %d\n", i)); c > most || i != 1 && c != most {
			t.Errorf("change %d is %d times in the history:%s", i, c, log)
		}
	}
}

// TestBatch_lostAnswer: a push whose answer is lost has landed once, and everybody reports so.
func TestBatch_lostAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ when, before, do string }{
		"of the batch":              {"' push '*:refs/heads/main*", "after", "exit 128"},
		"of the offer":              {"' push '*' :refs/gitops'*", "after", "exit 128"},
		"a batch that never began":  {"' push '*:refs/heads/main*", "before", "exit 128"},
		"an offer that never began": {"' push '*refs/gitops/batch/*", "before", "exit 128"},
		"of a fetch":                {"' fetch '*refs/gitops/batch/*", "before", "exit 128"},
		"of a withdrawal":           {"' push '*' :refs/gitops'*", "after", "exit 128"},
		"a withdrawal never begun":  {"' push '*' :refs/gitops'*", "before", "exit 128"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t)
			if strings.Contains(name, "withdrawal") { // so that each goes in a turn of its own, and must withdraw before
				w.must(bare, "git config uploadpack.hideRefs refs/gitops")
			}
			w.cloned(w.path(bare), 5, ownFile)
			w = w.striking(c.when, c.before, c.do)
			all, free := w.pushes(5)
			w.until("all wait", func() bool { return w.queued() == 5 && w.offers() >= 4 })
			free()
			landAll(t, all)
			w.wantOnce(5)
		})
	}
}

// TestBatch_servers: on servers that do not take batches, or only parts of them, each push goes in
// its own turn.
func TestBatch_servers(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"no atomic pushes":     "git config receive.advertiseAtomic false",
		"refuses batch refs":   `printf '#!/bin/sh\ncase $1 in refs/gitops/*) exit 1; esac\n' >hooks/update; chmod +x hooks/update`,
		"hides batch refs":     "git config uploadpack.hideRefs refs/gitops",
		"hides from all":       "git config transfer.hideRefs refs/gitops",
		"keeps deleted refs":   `printf '#!/bin/sh\ncase $1$3 in refs/gitops/*0000000000) exit 1; esac\n' >hooks/update; chmod +x hooks/update`,
		"only fast-forwards":   "git config receive.denyNonFastForwards true",
		"refuses one change":   `printf '#!/bin/sh\nwhile read o n r; do git log --format=%%s $n --not --all | grep -q "change 3" && exit 1; done; exit 0\n' >hooks/pre-receive; chmod +x hooks/pre-receive`,
		"one author at a time": `printf '#!/bin/sh\nwhile read o n r; do case $r in refs/heads/*) test $(git log --format=%%an $o..$n | sort -u | wc -l) -le 1 || { echo "you may push commits of one author only"; exit 1; }; esac; done; exit 0\n' >hooks/pre-receive; chmod +x hooks/pre-receive`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t)
			w.must(bare, config)
			w.cloned(w.path(bare), 5, ownFile)
			all, free := w.pushes(5)
			w.until("all wait", func() bool { return w.queued() == 5 })
			if slices.Contains([]string{"hides batch refs", "keeps deleted refs", "only fast-forwards", "one author at a time"}, name) {
				w.untilOffered(5, all)
			}
			free()
			landed := 0
			for i, p := range all {
				r := p.wait()
				if refused := name == "refuses one change" && i == 3; refused != (r.code != 0) {
					t.Errorf("pipeline %d: %s", i, r)
				}
				landed++
			}
			log := "\n" + w.must(bare, "git log --format=%s main") + "\n"
			for i := range 5 {
				want := 1
				if name == "refuses one change" && i == 3 {
					want = 0
				}
				if c := strings.Count(log, fmt.Sprintf("\nchange %d\n", i)); c != want {
					t.Errorf("change %d is %d times in the history:%s", i, c, log)
				}
			}
			if name != "keeps deleted refs" && name != "refuses one change" {
				w.wantNothingLeft()
			}
			if useless := name != "refuses one change" && name != "only fast-forwards" && name != "refuses batch refs"; useless != w.paused() {
				t.Errorf("nobody offers for a while: %t, want %t", !useless, useless)
			}
			if w.paused() { // the next one asks the server for nothing, and says why in one line
				w.must(".", "rm -rf turn work5 && git clone -q srv/org/repo.git work5 && cd work5 && git commit -q --allow-empty -m 'change 5'")
				free, p := w.takeTurn(), w.with("GIT_TRACE="+w.path("trace")).push(5)
				w.until("it waits", func() bool { return strings.Contains(p.stderr.String(), "not pushing together") })
				free()
				r := p.wait()
				wantCode(t, r, 0)
				if n := strings.Count(r.ours(), "together"); n != 1 || strings.Contains(w.read("trace"), "refs/gitops/batch") {
					t.Errorf("%d lines about batches, and the server was asked:\n%s", n, r)
				}
			}
		})
	}
}

// TestBatch_outsider: somebody who pushes in between, without any lock, costs one more try.
func TestBatch_outsider(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 5, ownFile)
	w.must(".", "git clone -q srv/org/repo.git outside && cd outside && echo x >x && git add . && git commit -qm outside")
	w = w.striking("' push '*:refs/heads/main*", "before", `(unset GIT_INDEX_FILE; cd DIR/outside && "$real" push -q)`)
	all, free := w.pushes(5)
	w.untilOffered(5, all)
	free()
	landAll(t, all)
	w.wantOnce(5)
	wantText(t, w.must(bare, "git log --format=%s main"), "outside")
}

// TestPush_narrowRequests: under a lock name, a push whose branch has not moved asks the server for
// its refs once before it pushes, and fetches nothing.
func TestPush_narrowRequests(t *testing.T) {
	t.Parallel()
	w := batching(t).with("GITOPS_PUSH_BATCH", "GITOPS_PUSH_BATCH_SECRET")
	w.cloned("file://"+w.path(bare), 1, ownFile)
	w = w.with("GIT_TRACE=" + w.path("trace"))
	wantCode(t, w.push(0).wait(), 0)
	if trace := w.read("trace"); strings.Contains(trace, "ls-remote") || strings.Count(trace, "run_command: git-upload-pack") > 1 || strings.Contains(trace, "pack-objects --revs --thin --stdout --shallow-file") {
		t.Errorf("more than one look:\n%s", trace)
	}
	wantText(t, w.read("trace"), "fetch --quiet")
}

// TestBatch_secret: nobody pushes commits that are signed with another secret, and no secret is
// printed or stored.
func TestBatch_secret(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 4, ownFile)
	free := w.takeTurn()
	all := []*process{w.push(0), w.push(1), w.push(2), w.with("GITOPS_PUSH_BATCH_SECRET=an0ther").push(3)}
	w.untilOffered(4, all)
	for _, key := range w.scan("gitops:offers:*") {
		for _, offer := range w.keys.HGetAll(t.Context(), key).Val() {
			if strings.Contains(offer, "s3cret") || strings.Contains(offer, "an0ther") {
				t.Errorf("Redis has the secret: %s", offer)
			}
		}
	}
	free()
	for i, p := range all {
		r := p.wait()
		wantCode(t, r, 0)
		if strings.Contains(r.stderr, "s3cret") || strings.Contains(r.stderr, "an0ther") || i == 3 && strings.Contains(r.stderr, "together with") {
			t.Errorf("pipeline %d: %s", i, r)
		}
	}
	w.wantOnce(4)
}

// TestBatch_deletedRefs: when an administrator deletes the batch refs, nothing is lost, nothing
// lands twice, and nobody reports that it landed when it did not.
func TestBatch_deletedRefs(t *testing.T) {
	t.Parallel()
	const deleteAll = `git -C DIR/srv/org/repo.git for-each-ref --format='delete %(refname)' refs/gitops | git -C DIR/srv/org/repo.git update-ref --stdin`
	t.Run("while all wait", func(t *testing.T) {
		t.Parallel()
		w := batching(t)
		w.cloned(w.path(bare), 4, ownFile)
		all, free := w.pushes(4)
		w.untilOffered(4, all)
		w.must(".", strings.ReplaceAll(deleteAll, "DIR", w.dir))
		free()
		landAll(t, all)
		w.wantOnce(4)
		if w.paused() {
			t.Error("nobody offers any more, as if the server hid the refs")
		}
	})
	t.Run("when the answer is lost as well", func(t *testing.T) {
		t.Parallel()
		w := batching(t)
		w.cloned(w.path(bare), 4, ownFile)
		w = w.striking("' push '*:refs/heads/main*", "after", `cd DIR/srv; unset GIT_DIR GIT_INDEX_FILE; (`+deleteAll+`); exit 128`)
		all, free := w.pushes(4)
		w.untilOffered(4, all)
		free()
		unknown := 0
		for i, p := range all {
			r := p.wait()
			if r.code != 0 && (r.code != 73 || !strings.Contains(r.stderr, "unknown")) {
				t.Errorf("pipeline %d: %s", i, r)
			}
			if r.code != 0 {
				unknown++
				w.must(fmt.Sprint("work", i), "git gitops unlock")
			}
		}
		if unknown > 3 {
			t.Error("the leader knows what it has pushed itself, and says that it does not")
		}
		w.wantOnce(4)
	})
}

// TestBatch_aloneBecause: what a batch cannot do as git does it goes in its own turn, and is done.
func TestBatch_aloneBecause(t *testing.T) {
	t.Parallel()
	const hook = `printf '#!/bin/sh\necho ran-NAME >&2\n' >.git/hooks/NAME && chmod +x .git/hooks/NAME`
	for name, c := range map[string]struct{ prepare, words, ran string }{
		"pre-push":       {strings.ReplaceAll(hook, "NAME", "pre-push"), "", "ran-pre-push"},
		"pre-rebase":     {strings.ReplaceAll(hook, "NAME", "pre-rebase"), "", ""},
		"post-rewrite":   {strings.ReplaceAll(hook, "NAME", "post-rewrite"), "", ""},
		"hooks path":     {`git config core.hooksPath h && mkdir h && ` + strings.ReplaceAll(strings.ReplaceAll(hook, ".git/hooks", "h"), "NAME", "pre-push") + ` && echo h >>.git/info/exclude`, "", "ran-pre-push"},
		"signing":        {`git config commit.gpgSign true`, "", ""},
		"signed push":    {`git config push.gpgSign if-asked`, "", ""},
		"signed commit":  {`git cat-file commit HEAD | sed 's/^committer.*/&\ngpgsig -----BEGIN\n x/' | git hash-object -t commit -w --stdin | xargs git reset -q --hard`, "", ""},
		"merge":          {`git checkout -q -b side HEAD^ && git commit -q --allow-empty -m side && git checkout -q main && git merge -q -m merged side`, "", ""},
		"merge driver":   {`git config merge.ours.driver true`, "", ""},
		"work tree":      {`echo edited >>many`, "", ""},
		"half a rebase":  {`mkdir .git/rebase-merge`, "", ""},
		"LFS":            {`mkdir .git/lfs`, "", ""},
		"submodules":     {`git config submodule.recurse true`, "", ""},
		"shallow":        {`git fetch -q --depth=1 "$URL" main && git rev-parse HEAD^ >.git/shallow`, "", ""},
		"porcelain":      {``, "--porcelain", ""},
		"force":          {``, "--force", ""},
		"forced refspec": {``, "origin +HEAD:main", ""},
		"atomic":         {``, "--atomic", ""},
		"lease":          {``, "--force-with-lease", ""},
		"tags":           {`git tag -m v1 v1`, "--follow-tags", ""},
		"two branches":   {``, "origin HEAD:main HEAD:other", ""},
		"a tag as well":  {`git tag v1`, "origin HEAD:main v1", ""},
		"push option":    {`git config push.pushOption x`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t)
			w.must(bare, "git config receive.advertisePushOptions true")
			w.cloned("file://"+w.path(bare), 1, ownFile)
			w.with("URL=file://"+w.path(bare)).must("work0", c.prepare)
			w.write(bare+"/hooks/pre-receive", "#!/bin/sh\ncat >>../../../received\n")
			free := w.takeTurn()
			p := w.with("GITOPS_LOCK_NAME=svc").start("work0", "bash", "-c", "git gitops push "+c.words+"; exit $?")
			w.until("it waits, alone", func() bool { return strings.Contains(p.stderr.String(), "not pushing together: ") && w.queued() == 1 })
			free()
			r := p.wait()
			wantCode(t, r, 0)
			wantText(t, r.stderr, c.ran)
			if got := w.read("received"); strings.Contains(got, "refs/gitops") || strings.Count(got, "refs/heads/main") != 1 {
				t.Errorf("received:\n%s", got)
			}
		})
	}
}

// TestBatch_seen: after a push that went together with others, a clone has seen what it pushed: who
// was the last may amend and force it, the others may not, because somebody's commits came after
// theirs.
func TestBatch_seen(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 4, ownFile)
	all, free := w.pushes(4)
	w.untilOffered(4, all)
	free()
	for _, p := range all {
		wantCode(t, p.wait(), 0)
	}
	tip := w.must(bare, "git rev-parse main")
	for i := range all {
		dir := fmt.Sprint("work", i)
		head := w.must(dir, "git rev-parse HEAD")
		wantText(t, w.must(dir, "cat .git/gitops/seen/*"), head)
		if head == tip {
			continue
		}
		r := w.with(fmt.Sprint("GITOPS_LOCK_NAME=svc", i)).bash(dir, "git commit -q --amend -m amended && git gitops push --force origin main")
		wantCode(t, r, 1)
		wantText(t, r.stderr, "which this clone has not seen")
		w.with(fmt.Sprint("GITOPS_LOCK_NAME=svc", i)).must(dir, "git gitops unlock")
	}
	for i := range all {
		dir := fmt.Sprint("work", i)
		if w.must(dir, "git rev-parse HEAD") == tip {
			w.with(fmt.Sprint("GITOPS_LOCK_NAME=svc", i)).must(dir, "git commit -q --amend -m amended && git gitops push -q --force origin main")
		}
	}
	if got := w.must(bare, "git rev-list --count main; git log -1 --format=%s main"); got != "6\namended" {
		t.Errorf("commits, the last: %s", got)
	}
}

// TestBatch_fence: a server that accepts only declared pushes accepts a batch.
func TestBatch_fence(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.must(bare, "git gitops install --server && git config gitops.protect main && git config gitops.lockRepo git.example.com/org/repo")
	w.cloned(w.path(bare), 5, ownFile)
	all, free := w.pushes(5)
	w.untilOffered(5, all)
	free()
	together := 0
	for i, p := range all {
		r := p.wait()
		if r.code != 0 {
			t.Errorf("pipeline %d: %s", i, r)
		}
		together += strings.Count(r.stderr, "together with")
	}
	w.wantOnce(5)
	if together < 2 {
		t.Errorf("%d went together", together)
	}
}

// TestBatch_retried: a push that was killed after it had offered its commits, and is made again in
// its clone, knows what has become of them. They land once, also those that a rebase would not know
// again.
func TestBatch_retried(t *testing.T) {
	t.Parallel()
	const (
		emptied = `git reset -q --hard HEAD^ && git commit -q --allow-empty -m "change 0" --author="Author 0 <a0@example.com>"`
		landed  = "pushed to main already, as "
	)
	for name, c := range map[string]struct {
		strike    []string // when, before or after the git of the killed one; none: killed while it waits
		prepare   string   // in its clone, before the push
		meanwhile string   // in its clone, before it pushes again
		code      int
		said      string
		more      int // commits
	}{
		"while it waits":                  {said: landed},
		"while it waits, an empty commit": {prepare: emptied, said: landed},
		"before its push":                 {strike: []string{"' push '*:refs/heads/main*", "before"}},
		"before its push, an empty one":   {strike: []string{"' push '*:refs/heads/main*", "before"}, prepare: emptied},
		"after its push":                  {strike: []string{"' push '*:refs/heads/main*", "after"}, said: landed},
		"after its push, an empty one":    {strike: []string{"' push '*:refs/heads/main*", "after"}, prepare: emptied, said: landed},
		"before it offers":                {strike: []string{"' push '*:refs/gitops/batch/*", "before"}},
		"after it has offered":            {strike: []string{"' push '*:refs/gitops/batch/*", "after"}},
		"with an edit in the work tree":   {meanwhile: `echo edited >>many`, said: "the clone could not be moved to it"},
		"with one more commit":            {meanwhile: `echo more >more && git add . && git commit -qm more`, said: "rebased the rest onto it", more: 1},
		"with one more, both are empty":   {prepare: emptied, meanwhile: `git commit -q --allow-empty -m more`, said: "rebased the rest onto it", more: 1},
		"with one more that conflicts":    {meanwhile: `echo more >>file1 && git add . && git commit -qm more`, code: 1, said: "conflicts with what is at the remote"},
		"after a rebase":                  {meanwhile: `git pull -q --rebase`},
		"of something else":               {meanwhile: `git reset -q --hard HEAD^ && git commit -q --allow-empty -m more`, said: "although it was killed", more: 1},
		"when the batch ref is gone":      {meanwhile: `git push -q origin $(git ls-remote origin 'refs/gitops/*' | sed 's/.*\t/:/')`, code: 73, said: "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
			w.cloned(w.path(bare), 3, ownFile)
			if c.prepare != "" {
				w.must("work0", c.prepare)
			}
			victim, offers := w, 3
			if c.strike != nil {
				victim = w.striking(c.strike[0], c.strike[1], "kill -9 $PPID; exit 1")
				if strings.Contains(c.strike[0], "batch") {
					offers = 2
				}
			}
			free := w.takeTurn()
			all := make([]*process, 3)
			first := 0 // the leader
			if c.strike == nil {
				first = 1
			}
			all[first] = victim.push(first)
			if offers == 3 {
				w.until("the leader has offered", func() bool { return w.offers() == 1 })
			} else {
				all[first].wait()
			}
			for i := range all {
				if all[i] == nil {
					all[i] = w.push(i)
				}
			}
			w.untilOffered(offers, all)
			if c.strike == nil {
				all[0].signal(syscall.SIGKILL)
			}
			free()
			for i, p := range all {
				if r := p.wait(); (r.code == 0) != (i > 0) {
					t.Fatalf("pipeline %d: %s", i, r)
				}
			}
			if c.meanwhile != "" {
				w.must("work0", c.meanwhile)
			}
			r := w.push(0).wait()
			wantCode(t, r, c.code)
			wantText(t, r.ours(), c.said)
			if c.said != landed && strings.Contains(r.ours(), landed) != strings.Contains(name, "work tree") {
				t.Errorf("it says what is not so: %s", r)
			}
			if c.code == 0 {
				if got := w.must("work0", "git status --porcelain --untracked-files=no && git rev-list --count origin/main..HEAD"); got != "0" && !strings.Contains(name, "work tree") {
					t.Errorf("the clone: %s", got)
				}
				w.wantOnce(3)
			}
			if got, want := w.must(bare, "git rev-list --count main"), fmt.Sprint(2+3+c.more); got != want && c.code == 0 {
				t.Errorf("%s commits, want %s", got, want)
			}
			if again := w.push(0).wait(); c.code == 0 && (again.code != 0 || strings.Contains(again.ours(), "earlier push")) && !strings.Contains(name, "work tree") {
				t.Errorf("once more: %s", again)
			} else if c.code != 0 && again.code == 0 {
				t.Errorf("once more: %s", again)
			}
			if got := w.must("work0", "git for-each-ref refs/gitops; ls .git/gitops/offered"); got != "" && c.code != 1 {
				t.Errorf("left in the clone: %s", got)
			}
		})
	}
}

// TestBatch_retriedAtOnce: a push that is run again while its killed predecessor is still in line
// lands its commits once.
func TestBatch_retriedAtOnce(t *testing.T) {
	t.Parallel()
	w := batching(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
	w.cloned(w.path(bare), 3, ownFile)
	w.must("work0", `git reset -q --hard HEAD^ && git commit -q --allow-empty -m "change 0" --author="Author 0 <a0@example.com>"`)
	all, free := w.pushes(3)
	w.untilOffered(3, all)
	all[0].signal(syscall.SIGKILL)
	all[0].wait()
	all[0] = w.push(0)
	w.until("it has offered again", func() bool {
		return w.offers() == 3 && strings.Contains(w.must(bare, "git for-each-ref refs/gitops | wc -l"), "3") && w.queued() >= 3
	})
	free()
	landAll(t, all)
	w.wantOnce(3)
}

// TestBatch_retriedLock: when it turns out that the killed push of a script has landed, the lock of
// its clone is handed on.
func TestBatch_retriedLock(t *testing.T) {
	t.Parallel()
	w := batching(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
	free := w.takeTurn()
	victim := w.with("GITOPS_LOCK_NAME=svc0").striking("' push '*:refs/heads/main*", "after", "kill -9 $PPID; exit 1")
	p := victim.start(".", "bash", "-c", `git gitops clone -q srv/org/repo.git work0 && cd work0 && echo 0 >file0 && git add . &&
		git commit -qm "change 0" --author="Author 0 <a0@example.com>" || exit 10
		git gitops push; echo "first $?" >&2
		git gitops push || exit 11
		git gitops locks`)
	w.until("it has offered", func() bool { return w.offers() == 1 })
	free()
	r := p.wait()
	wantCode(t, r, 0)
	wantText(t, r.stderr, "first 137", "pushed to main already, as ")
	if strings.Contains(r.stdout, "svc0") {
		t.Errorf("the lock is still held: %s", r)
	}
	w.wantOnce(1)
}

// TestBatch_sameCommit: two clones that push the same commit push it once, and both have landed.
func TestBatch_sameCommit(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 1, ownFile)
	w.must("work0", `git reset -q --hard HEAD^ && git commit -q --allow-empty -m "change 0" --author="Author 0 <a0@example.com>"`)
	w.must(".", "cp -r work0 work1 && cp -r work0 work2")
	all, free := w.pushes(3)
	w.untilOffered(3, all)
	free()
	for i, p := range all {
		r := p.wait()
		wantCode(t, r, 0)
		wantText(t, r.ours(), "together with")
		if got := w.must(fmt.Sprint("work", i), "git rev-list --count origin/main..HEAD"); got != "0" {
			t.Errorf("clone %d is %s commits ahead", i, got)
		}
	}
	w.wantOnce(1)
}

// TestBatch_olderRedis: Redis comes back with older data in the middle of a batch. Nothing is lost,
// nothing lands twice, and each reports what is true.
func TestBatch_olderRedis(t *testing.T) {
	t.Parallel()
	const n = 5
	for name, c := range map[string]struct {
		when, before string
		early        bool // the data is from before anybody waited
	}{
		"before the leader's fetch":                 {"' fetch '*refs/gitops/batch/main/\\**", "before", false},
		"before its push":                           {"' push '*:refs/heads/main*", "before", false},
		"after its push":                            {"' push '*:refs/heads/main*", "after", false},
		"before its push, of before all had waited": {"' push '*:refs/heads/main*", "before", true},
		"after its push, of before all had waited":  {"' push '*:refs/heads/main*", "after", true},
		"after all have ended":                      {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t).with("GITOPS_LOCK_TTL=" + leaseTTL.String())
			w.cloned(w.path(bare), n+1, ownFile)
			save := func() {
				if err := w.keys.Save(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
			older := func() {
				w.redis.Kill()
				if err := w.redis.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			struck := w
			if c.when != "" {
				struck = w.striking(c.when, c.before, "touch DIR/here; until [ -e DIR/go ]; do sleep 0.02; done; [ "+c.before+" = before ] || exit 0")
			}
			free := w.takeTurn()
			if c.early {
				save()
			}
			var all []*process
			for i := range n {
				all = append(all, struck.push(i))
			}
			w.untilOffered(n, all)
			if !c.early {
				save()
			}
			free()
			if c.when != "" {
				w.until("the leader is there", func() bool { return w.exists("here") })
				older()
				w.write("go", "")
			}
			var codes []int
			for _, p := range all {
				r := p.wait()
				codes = append(codes, r.code)
				if r.code != 0 && (r.code != 73 || !strings.Contains(r.stderr, "was lost")) {
					t.Errorf("pipeline %d: %s", len(codes)-1, r)
				}
			}
			if c.when == "" {
				older()
			}
			r := w.push(n).wait() // and on it goes
			wantCode(t, r, 0)
			codes = append(codes, r.code)
			log := "\n" + w.must(bare, "git log --format=%s main") + "\n"
			for i, code := range codes {
				if landed := strings.Count(log, fmt.Sprintf("\nchange %d\n", i)); landed != 1 && code == 0 || landed != 0 && code != 0 {
					t.Errorf("pipeline %d ended with %d, and its change is %d times in the history:%s", i, code, landed, log)
				}
			}
			if failed := slices.DeleteFunc(slices.Clone(codes), func(c int) bool { return c == 0 }); len(failed) > 1 || len(failed) > 0 && c.when == "" {
				t.Errorf("exit codes %v", codes)
			}
			if refs := w.must(bare, "git for-each-ref --format='%(refname)' refs/gitops"); refs != "" {
				t.Errorf("batch refs left behind:\n%s", refs)
			}
		})
	}
}

// TestBatch_numbers: events, stats and the lines on stderr count what the server has seen.
func TestBatch_numbers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n       int
		max     string
		edit    string
		strike  []string // when, before or after the leader's git, and what
		unnamed int      // how many cannot say who has pushed for them
	}{
		"in batches of four":   {n: 10, max: "3", edit: ownFile},
		"one goes alone":       {n: 4, max: "50", edit: ownFile + `; [ $i != 3 ] || echo "x text" >.gitattributes`},
		"a lost answer":        {n: 4, max: "50", edit: ownFile, strike: []string{"' push '*:refs/heads/main*", "after", "exit 128"}},
		"the leader is killed": {n: 4, max: "50", edit: ownFile, strike: []string{"' push '*:refs/heads/main*", "after", "kill -9 $PPID; exit 1"}, unnamed: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t).with("GITOPS_LOCK_TTL="+leaseTTL.String(), "GITOPS_PUSH_BATCH_MAX="+c.max)
			w.write(bare+"/hooks/post-receive", "#!/bin/sh\ntext=$(cat)\nprintf 'push\\n%s\\n' \"$text\" >>../../../received\n")
			w.cloned(w.path(bare), c.n, c.edit)
			w.must(".", "rm -f received")
			first := w
			if c.strike != nil {
				first = w.striking(c.strike[0], c.strike[1], c.strike[2])
			}
			free := w.takeTurn()
			all := []*process{first.push(0)}
			w.until("the leader has offered", func() bool { return w.offers() == 1 })
			for i := 1; i < c.n; i++ {
				all = append(all, w.push(i))
			}
			w.untilOffered(c.n, all)
			free()
			said := map[string]int{}
			for _, p := range all {
				for line := range strings.Lines(p.wait().ours()) {
					if _, with, ok := strings.Cut(line, "pushed to main together with "); ok {
						said[strings.Split(with, ",")[0]]++
					}
				}
			}

			// What the server has seen: of each push to the branch, how many batch refs it moved.
			var sizes []int
			pushes, saved, largest := 0, 0, 0
			for _, one := range strings.Split(w.read("received"), "push\n") {
				if !strings.Contains(one, " refs/heads/main\n") {
					continue
				}
				pushes++
				if size := strings.Count(one, " refs/gitops/batch/main/"); size > 1 {
					sizes, saved, largest = append(sizes, size), saved+size-1, max(largest, size)
				}
			}
			want := map[string]int{}
			for _, size := range sizes {
				others := fmt.Sprint(size-1, " others")
				if size == 2 {
					others = "1 other"
				}
				want[others] += size
			}
			if c.unnamed > 0 {
				want = map[string]int{"others": c.unnamed}
			}
			if !maps.Equal(said, want) || len(sizes) == 0 {
				t.Errorf("the pipelines say %v, want %v", said, want)
			}
			events := w.must("turn", `git gitops events`)
			for word, want := range map[string]int{" batch_joined ": c.n, " batch_pushed ": len(sizes), " batch_landed ": saved} {
				if got := strings.Count(events, word); got != want {
					t.Errorf("%d %s, want %d:\n%s", got, word, want, events)
				}
			}
			for _, size := range sizes {
				wantText(t, events, fmt.Sprintf("  %d pushes", size))
			}
			if c.n-pushes != saved && c.strike == nil {
				t.Errorf("%d pushes of %d pipelines, which save %d", pushes, c.n, saved)
			}
			wantText(t, w.must("turn", `git gitops stats --json @main`), fmt.Sprintf(`"batches":%d,"largest_batch":%d,"pushes_saved":%d}`, len(sizes), largest, saved))
			if row := strings.Fields(w.must("turn", `git gitops stats | grep "^$GITOPS_LOCK_REPO@main "`)); !slices.Equal(row[len(row)-3:], []string{fmt.Sprint(len(sizes)), fmt.Sprint(largest), fmt.Sprint(saved)}) {
				t.Errorf("stats: %q", row)
			}
		})
	}
}

// TestBatch_offerForgotten: who has landed in its own turn, while it could not tell whether its
// offer had reached the server, does not ask after that offer at its next push.
func TestBatch_offerForgotten(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 1, ownFile)
	w.write("failing-git", `#!/bin/bash
if [[ " $* " == *' push '*refs/gitops/batch/* ]] && [ -e `+w.path("down")+` ]; then exit 128; fi
exec `+w.must(".", "command -v git")+` "$@"
`)
	w.write("down", "")
	w = w.with("GITOPS_GIT=" + w.path("failing-git"))
	free := w.takeTurn()
	p := w.push(0)
	w.until("it cannot tell", func() bool { return strings.Contains(p.stderr.String(), "the batch ref was unknown") })
	free()
	wantCode(t, p.wait(), 0)
	w.must(".", "rm down")
	w.must("work0", "git commit -q --allow-empty -m next")
	wantCode(t, w.push(0).wait(), 0)
	if got := w.must("work0", "ls .git/gitops/offered"); got != "" {
		t.Errorf("left in the clone: %s", got)
	}
	w.wantOnce(1)
}

// TestBatch_meanwhile: a commit that is made while the clone is moved stays.
func TestBatch_meanwhile(t *testing.T) {
	t.Parallel()
	w := batching(t)
	w.cloned(w.path(bare), 2, ownFile)
	free := w.takeTurn()
	all := []*process{w.push(0)}
	w.until("the leader has offered", func() bool { return w.offers() == 1 })
	other := w.striking("' '@(reset|read-tree)*' -'@(-keep|m)' '*", "before",
		`(unset GIT_DIR GIT_INDEX_FILE GIT_WORK_TREE; "$real" commit -q --allow-empty -m meanwhile)`)
	all = append(all, other.push(1))
	w.untilOffered(2, all)
	free()
	landAll(t, all)
	if !w.exists("struck") {
		t.Fatal("nothing was committed")
	}
	wantText(t, all[1].stderr.String(), "the push has landed as ", "but the clone could not be moved to it")
	if got := w.must("work1", "git log -1 --format=%s"); got != "meanwhile" {
		t.Errorf("the last commit is %q", got)
	}
	w.wantOnce(2)
	w.with("GITOPS_LOCK_NAME=svc1").must("work1", "git pull -q --rebase && git gitops push -q")
	if got := w.must(bare, "git log --format=%s main"); got != "meanwhile\nchange 1\nchange 0\nmany\nseed" {
		t.Errorf("the branch has\n%s", got)
	}
}
