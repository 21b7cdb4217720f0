//go:build unix

package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// newExamples is a repository as the functions of scripts/examples reach it, with a secret for each
// instance of instances.
func newExamples(t *testing.T, reach func(*world) *world, instances ...string) *world {
	t.Helper()
	examples, err := filepath.Abs("../../scripts/examples")
	if err != nil {
		t.Fatal(err)
	}
	w := reach(newField(t))
	for _, name := range []string{"suite-app-config", "mas-config", "db2u-database", "rds-db2-database"} {
		for _, instance := range instances {
			w.write("secrets/"+name+"."+instance, "made up "+instance+"\n")
		}
	}
	// Their clone with a key, too.
	w.write("gitconfig", w.read("gitconfig")+fmt.Sprintf("[url %q]\n\tinsteadOf = git@%s:\n", "https://git:"+pat+"@"+w.env["HOST"]+"/", w.env["HOST"]))
	if w.env["HOST"] == "github.example.com" { // git rewrites once
		w.write("gitconfig", strings.Replace(w.read("gitconfig"), "https://git:"+pat+"@github.example.com/\"", w.path("srv")+"/\"", 1))
	}
	return w.with("EXAMPLES="+examples, "GITHUB_PAT="+pat, "KEY=key", "SECRETS="+w.path("secrets"), "RETRY_DELAY=0", "GITOPS_USE_REDIS_LOCKING=true", "GITOPS_LOCK_TIMEOUT=300")
}

// TestExamples_after: the scripts in after are those in before as migrate --write changes them,
// less lines that a person took out: among them every line that migrate pointed at.
func TestExamples_after(t *testing.T) {
	t.Parallel()
	w := newExamples(t, overPaths)
	w.must(".", `cp -r "$EXAMPLES/before" migrated && cp -r "$EXAMPLES/after" after`)
	r := w.bash("migrated", "git gitops migrate --write *")
	wantCode(t, r, 0)

	deleted := map[string]bool{} // FILE:LINE
	hunk := regexp.MustCompile(`^@@ -(\d+)(?:,(\d+))? \+\d+(,0)? @@`)
	file := ""
	for line := range strings.Lines(w.bash(".", "git diff --no-index --no-color --unified=0 migrated after").stdout) {
		if name, ok := strings.CutPrefix(line, "--- a/migrated/"); ok {
			file = strings.TrimSpace(name)
		} else if m := hunk.FindStringSubmatch(line); m != nil {
			first, _ := strconv.Atoi(m[1])
			n, err := strconv.Atoi(m[2])
			if err != nil {
				n = 1
			}
			for i := range n {
				deleted[fmt.Sprintf("%s:%d", file, first+i)] = true
			}
		} else if strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "+++") {
			t.Errorf("%s has what migrate did not put there: %s", file, line)
		}
	}
	notes := regexp.MustCompile(`(?m)^gitops: (\w[\w.]*:\d+): .*$`).FindAllStringSubmatch(r.stderr, -1)
	if len(notes) < 20 {
		t.Errorf("migrate points at %d places only: %s", len(notes), r)
	}
	for _, note := range notes {
		if !deleted[note[1]] {
			t.Errorf("migrate points at what is still there: %s", note[0])
		}
	}
	r = w.bash("after", "git gitops migrate *")
	wantCode(t, r, 0)
	wantText(t, r.stderr, "0 commands to change in 0 of 11 files; 0 places to look at")
}

// TestExamples_oneByOne: the functions before and after leave the same files, and nothing of a
// lock.
func TestExamples_oneByOne(t *testing.T) {
	t.Parallel()
	trees := map[string]string{}
	for _, stage := range []string{"before", "after"} {
		w := newExamples(t, overPaths, "inst1")
		for i, function := range []string{
			"cp4d_service", "suite_app_config", "mas_config", "suite_workspace", "db2u_database", "rds_db2_database",
			"deprovision_app_config", "deprovision_suite_workspace", "deprovision_cp4d_service", "deprovision_db2u_database",
			"cp4d_service", "cp4d_service",
		} {
			dir := fmt.Sprintf("run%d", i)
			w.write(dir+"/.keep", "")
			r := w.run(dir, "bash", filepath.Join(w.env["EXAMPLES"], stage, "gitops_"+function), "acct1", "cluster1", "inst1")
			if r.code != 0 || w.exists(dir+"/repo") {
				t.Errorf("%s %s: %s", stage, function, r)
			}
		}
		trees[stage] = w.must("srv/org/repo.git", "git ls-tree -r main | grep yaml")
		if n := strings.Count(trees[stage], "yaml"); n != 3 {
			t.Errorf("%s leaves %d files, want 3: %s", stage, n, trees[stage])
		}
		if branches := w.must("srv/org/repo.git", "git branch"); branches != "* main" {
			t.Errorf("%s leaves branches: %s", stage, branches)
		}
		w.until("the keeper of the last run has freed its lock", func() bool { return len(w.locks()) == 0 })
		if keys := w.scan("lock.*"); len(keys) > 0 {
			t.Errorf("%s leaves keys: %q", stage, keys)
		}
	}
	if trees["before"] != trees["after"] {
		t.Errorf("before:\n%s\nafter:\n%s", trees["before"], trees["after"])
	}
}

// TestExamples_parallel: the functions run all at once on one branch, half of them with a lock of
// their own within it. They provision, deprovision, find nothing to change, or fail for want of a
// secret; nobody's push is rejected, and the history has what each said.
func TestExamples_parallel(t *testing.T) {
	t.Parallel()
	w := newExamples(t, overHTTPS, "new1", "new2", "same")
	w.must(".", `git clone -q srv/org/repo.git seed && cd seed/ && . "$EXAMPLES/after/library.bash" &&
				for kind in suite-app-config suite-workspace cp4d-service db2u-database; do render acct1/cluster1/old/$kind.yaml $kind old x; done &&
				render acct1/cluster1/same/cp4d-service.yaml cp4d-service same &&
				render acct1/cluster1/same/mas-config.yaml mas-config same "$(secret mas-config.same)" &&
				git add . && git commit -q -m seeds && git push -q origin main`)

	type pipeline struct {
		function, instance string
		edit               string // what its commit does to its file, as git log --name-status says; "" for no commit
		code               int
		process            *process
	}
	var all []*pipeline
	add := func(instance, edit string, code int, functions ...string) {
		for _, f := range functions {
			all = append(all, &pipeline{function: f, instance: instance, edit: edit, code: code})
		}
	}
	provisioning := []string{"cp4d_service", "suite_app_config", "mas_config", "suite_workspace", "db2u_database", "rds_db2_database"}
	add("new1", "A", 0, provisioning...)
	add("new2", "A", 0, provisioning...)
	add("old", "D", 0, "deprovision_app_config", "deprovision_suite_workspace", "deprovision_cp4d_service", "deprovision_db2u_database")
	add("same", "", 0, "cp4d_service", "mas_config")
	add("absent", "", 0, "deprovision_app_config", "deprovision_db2u_database")
	add("without", "", 1, "suite_app_config", "mas_config", "db2u_database", "rds_db2_database")

	for i, p := range all {
		dir := fmt.Sprintf("pipeline%d", i)
		w.write(dir+"/.keep", "")
		mine := w
		if i%2 == 0 {
			mine = w.with("GITOPS_LOCK_NAME="+strings.ReplaceAll("gitops-"+p.function, "_", "-")+".acct1.cluster1."+p.instance, "GITOPS_PUSH_REBASE=true")
		}
		p.process = mine.start(dir, "bash", filepath.Join(w.env["EXAMPLES"], "after", "gitops_"+p.function), "acct1", "cluster1", p.instance)
	}
	landed := map[string]string{} // by the subject of the commit
	for _, commit := range strings.Split(w.finished(func() {
		for i, p := range all {
			r := p.process.wait()
			if r.code != p.code {
				t.Errorf("%s of %s: want exit code %d, got %s", p.function, p.instance, p.code, r)
			}
			if strings.Contains(r.stderr, "rejected]") {
				t.Errorf("%s of %s was rejected on the way: %s", p.function, p.instance, r)
			}
			if w.exists(fmt.Sprintf("pipeline%d/repo", i)) {
				t.Errorf("%s of %s left its clone", p.function, p.instance)
			}
		}
	}), "commit ")[1:] {
		subject, edits, _ := strings.Cut(strings.TrimSpace(commit), "\n")
		if _, twice := landed[subject]; twice {
			t.Errorf("%q landed twice", subject)
		}
		landed[subject] = strings.TrimSpace(edits)
	}
	files := map[string]string{"deprovision_app_config": "suite-app-config"}
	for _, p := range all {
		subject := strings.ReplaceAll("gitops-"+p.function, "_", "-") + " acct1 cluster1 " + p.instance
		file, ok := files[p.function]
		if !ok {
			file = strings.ReplaceAll(strings.TrimPrefix(p.function, "deprovision_"), "_", "-")
		}
		want := ""
		if p.edit != "" {
			want = fmt.Sprintf("%s\tacct1/cluster1/%s/%s.yaml", p.edit, p.instance, file)
		}
		if landed[subject] != want {
			t.Errorf("%q did %q, want %q", subject, landed[subject], want)
		}
		delete(landed, subject)
	}
	if len(landed) > 0 {
		t.Errorf("nobody says to have done: %q", landed)
	}
	w.until("every lock is free", func() bool { return len(w.locks()) == 0 && w.queued() == 0 })
}

// finished waits, and returns what came onto main since the seeds: each commit's subject, and the
// files that it changed.
func (w *world) finished(wait func()) string {
	w.t.Helper()
	seeds := w.must("srv/org/repo.git", "git rev-parse 'main^{/^seeds}'")
	wait()
	return w.must("srv/org/repo.git", `git log --no-renames --name-status --format='commit %s' "$1..main"`, seeds)
}

// TestExamples_mixedFleet: a function before and one after exclude each other over GITOPS_LOCK_KEY.
// The first holds its lock while the secret, a named pipe, is not there yet.
func TestExamples_mixedFleet(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ holder, other string }{{"before", "after"}, {"after", "before"}} {
		w := newExamples(t, overPaths, "inst1").with("GITOPS_LOCK_KEY=lock.gitops-mas-config.acct1.cluster1.inst1")
		w.write("slow/.keep", "")
		if err := syscall.Mkfifo(w.path("slow/mas-config.inst1"), 0o600); err != nil {
			t.Fatal(err)
		}
		function := func(w *world, dir, stage string) *process {
			w.write(dir+"/.keep", "")
			return w.start(dir, "bash", filepath.Join(w.env["EXAMPLES"], stage, "gitops_mas_config"), "acct1", "cluster1", "inst1")
		}
		holder := function(w.with("SECRETS="+w.path("slow")), "one", tc.holder)
		w.until("it has cloned", func() bool { return w.exists("one/repo/counter") })

		// The one before gives up after two tries, the one after at once.
		impatient := w.with("GITOPS_LOCK_RETRY_MAX=2", "GITOPS_LOCK_RETRY_DELAY=0")
		if tc.other == "after" {
			impatient = w.with("GITOPS_LOCK_TIMEOUT=0")
		}
		r := function(impatient, "two", tc.other).wait()
		wantCode(t, r, 1)
		if wantText(t, r.stderr, map[string]string{"before": "no lock ", "after": "unknown holder"}[tc.other]); w.exists("two/repo") {
			t.Errorf("%s cloned without the lock", tc.other)
		}
		w.must("slow", "echo secret >mas-config.inst1")
		wantCode(t, holder.wait(), 0)
		wantCode(t, function(w, "three", tc.other).wait(), 0)
		if keys := w.scan("lock.*"); len(keys) > 0 {
			t.Errorf("left: %q", keys)
		}
	}
}
