//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The kits of scripts/ci, each run as its system runs it: its files, its order of steps, what is in
// their environment, and what is killed at the end. Afterwards the lock must be free, long before
// its TTL.

// kitFile reads a file of a kit.
func kitFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "scripts", "ci", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// kitYAML parses the last document of a file of a kit.
func kitYAML(t *testing.T, name string, into any) {
	t.Helper()
	documents := yaml.NewDecoder(bytes.NewReader(kitFile(t, name)))
	for n := 0; ; n++ {
		err := documents.Decode(into)
		if errors.Is(err, io.EOF) && n > 0 {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// fill puts values in for the placeholders of a kit, and fails for one that has none.
func fill(t *testing.T, text string, placeholder *regexp.Regexp, values map[string]string) string {
	t.Helper()
	return placeholder.ReplaceAllStringFunc(text, func(whole string) string {
		name := placeholder.FindStringSubmatch(whole)[1]
		value, ok := values[name]
		if !ok {
			t.Errorf("no value for %s", whole)
		}
		return value
	})
}

// kitStep is a script of a job, run by a shell of its own.
type kitStep struct {
	script string
	env    map[string]string
	always bool // also after a failure
}

// job runs steps under a process of that name, as a runner's worker does. Each step sees what steps
// before it wrote to $GITHUB_ENV.
func (w *world) job(worker string, steps []kitStep) *process {
	w.t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		w.t.Fatal(err)
	}
	// cp, not we: a file that we have open for writing cannot be executed, nor while a process that
	// we have just forked for another test still has it.
	w.must(".", `mkdir -p runner && cp "$1" "runner/$2"`, bash, worker)
	var script strings.Builder
	script.WriteString(`failed=0
run() {
	[ $failed = 0 ] || [ "$1" = true ] || return 0
	while [ -s "$GITHUB_ENV" ] && IFS= read -r line <&3; do
		name=${line%%<<*} end=${line#*<<} value=
		while IFS= read -r line <&3 && [ "$line" != "$end" ]; do value=$value${value:+$'\n'}$line; done
		export "$name=$value"
	done 3<"$GITHUB_ENV"
	bash -e "$2" || failed=1
}
`)
	for i, s := range steps {
		var step strings.Builder
		for name, value := range s.env {
			fmt.Fprintf(&step, "export %s=%s\n", name, shellWord(value))
		}
		step.WriteString(s.script + "\n")
		file := w.write(fmt.Sprintf("runner/step%d.sh", i), step.String())
		fmt.Fprintf(&script, "run %v %s\n", s.always, file)
	}
	script.WriteString("exit $failed\n")
	main := w.write("runner/job.sh", script.String())
	w.write("github.env", "")
	return w.with("GITHUB_ENV="+w.path("github.env")).start(".", w.path("runner/"+worker), main)
}

// shellWord quotes a text for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// wantFree makes sure that nothing is locked when the job has ended, and checks how far the counter
// came.
func (w *world) wantFree(counter string) {
	w.t.Helper()
	w.wantLocks()
	if got := w.must(".", `git --git-dir "$1" show main:counter`, w.path("remote.git")); got != counter {
		w.t.Errorf("the counter is %s, want %s", got, counter)
	}
}

// edits are what a job does in the clone, the signal that then ends it, and the counter that is in
// the end at the remote.
var edits = map[string]struct {
	script  string
	signal  syscall.Signal
	counter string
}{
	"lands":     {script: "echo 1 >counter && git commit -qam one", counter: "1"},
	"fails":     {script: "echo 1 >counter && git commit -qam one && false", counter: "0"},
	"cancelled": {script: working, signal: syscall.SIGTERM, counter: "0"},
	"killed":    {script: working, signal: syscall.SIGKILL, counter: "0"},
}

// working is an edit that goes on until something ends it.
const working = `echo 1 >counter && git commit -qam one && echo $$ >"$HERE/new" && mv "$HERE/new" "$HERE/editing" && sleep 600 >/dev/null 2>&1; exit 1`

// cut ends the edit with a signal, if it wants one, and waits for the job.
func (w *world) cut(p *process, signal syscall.Signal) result {
	w.t.Helper()
	if signal != 0 {
		w.reaches(p, "editing")
		pid, err := strconv.Atoi(strings.TrimSpace(w.read("editing")))
		if err != nil {
			w.t.Fatal(err)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			w.t.Fatal(err)
		}
	}
	return p.wait()
}

func kitWorld(t *testing.T) *world {
	w := newWorld(t).with("GITOPS_LOCK_SESSION")
	w.seed("remote.git")
	return w.with("HERE=" + w.dir)
}

// gitHubJob starts a job that uses the action of the kit.
func (w *world) gitHubJob(worker, edit, waitWarning string) *process {
	w.t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		w.t.Skip("node is not installed")
	}
	kit, err := filepath.Abs("../../scripts/ci/github")
	if err != nil {
		w.t.Fatal(err)
	}
	inputs := []string{"INPUT_REDIS-HOST=" + w.env["REDIS_HOST"], "INPUT_REDIS-PORT=" + w.env["REDIS_PORT"], "INPUT_WAIT-WARNING=" + waitWarning}
	action := map[string]string{
		"GITHUB_PATH": w.path("github.path"), "GITHUB_STATE": w.path("github.state"), "GITHUB_STEP_SUMMARY": w.path("summary.md"),
	}
	w = w.with("REDIS_HOST", "REDIS_PORT", "RUNNER_TRACKING_ID=github_1", "GITHUB_ACTIONS=true", "GITHUB_SERVER_URL=https://github.com",
		"GITHUB_REPOSITORY=org/app", "GITHUB_RUN_ID=42", "GITHUB_WORKFLOW=deploy", "GITHUB_JOB=prod")
	node := func(file string) string {
		words := []string{"exec env"} // names with a hyphen are none that a shell can export; a child of the worker
		for _, input := range inputs {
			words = append(words, shellWord(input))
		}
		return strings.Join(append(words, "node", shellWord(filepath.Join(kit, file))), " ")
	}
	return w.job(worker, []kitStep{
		{script: node("main.js"), env: action},
		{script: "git gitops clone remote.git repo"},
		{script: "cd repo\n" + edit},
		{script: "git gitops -C repo push -q"},
		{script: ". ./github.state\nexport STATE_began=$began\n" + node("post.js"), env: action, always: true},
	})
}

// TestKit_GitHubWait: the lines of a wait are folded into a group, and a wait over the threshold is
// an annotation.
func TestKit_GitHubWait(t *testing.T) {
	t.Parallel()
	w := kitWorld(t)
	w.must(".", "GITOPS_LOCK_SESSION=workspace git gitops clone -q remote.git held")
	job := w.gitHubJob("Runner.Worker", edits["lands"].script, "0")
	w.until("it waits", func() bool { return strings.Contains(job.stderr.String(), "::group::") })
	w.must("held", "GITOPS_LOCK_SESSION=workspace git gitops unlock")
	r := job.wait()
	wantCode(t, r, 0)
	w.wantFree("1")
	wantText(t, r.stderr, "::group::gitops: waiting for the lock on "+w.path("remote")+"@main: position 1, held by ", "\n::endgroup::\ngitops: got the lock on ")
	wantText(t, r.stdout, "::warning title=git gitops::waited ", " for "+w.path("remote")+"@main\n")
	if strings.Count(r.stderr, "::group::") != 1 || strings.Count(r.stderr, "::endgroup::") != 1 {
		t.Errorf("not one group: %s", r)
	}
}

// TestKit_GitHubInstall: the action installs a release that is verified into the tool cache, finds
// it there the next time, and says in an annotation that it could not. The password is in the log
// once, to be masked.
func TestKit_GitHubInstall(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	main, err := filepath.Abs("../../scripts/ci/github/main.js")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	s := newReleases(t)
	for _, version := range []string{"1.0.0", "2.0.0"} {
		s.publish(version, w.write("small", "#!/bin/sh\necho git\necho git-gitops version "+version+"\n"))
	}
	tool := tools(w, "tools", append(installTools, "node", "curl", "sha256sum")...)
	w.write("odd/uname", "#!/bin/sh\ncase $1 in -s) echo Linux ;; *) echo riscv64 ;; esac\n")
	const password, masked = "100% s3cret", "::add-mask::100%25 s3cret\n::add-mask::redis://u:p%2525@h\n::add-mask::p%25\n"
	for _, tc := range []struct {
		name, version, path string
		settings            []string
		code                int
		asked               int // for checksums
		in                  string
		says                string
	}{
		{name: "a version", version: "v1.0.0", asked: 1, in: "1.0.0"},
		{name: "it again, from the cache", version: "1.0.0", settings: []string{"INPUT_DOWNLOAD-BASE=http://127.0.0.1:1"}, in: "1.0.0"},
		{name: "the newest", asked: 1, in: "latest"},
		{name: "the newest, looked up again", asked: 1, in: "latest"},
		{name: "another than is on PATH", version: "2.0.0", path: "cache/git-gitops/1.0.0/*/bin", asked: 1, in: "2.0.0"},
		{name: "the one that is on PATH", version: "2.0.0", path: "cache/git-gitops/2.0.0/*/bin"},
		{name: "any that is on PATH", path: "cache/git-gitops/1.0.0/*/bin"},
		{name: "none", version: "3.0.0", code: 1, asked: 1, says: "::error title=git gitops::could not install git-gitops"},
		{name: "another architecture", version: "3.0.0", path: "odd", code: 1, says: "no release for the architecture riscv64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.during(t, nil)
			w.write("github.path", "")
			w.write("github.env", "")
			path := tool
			if tc.path != "" {
				path = w.must(".", "echo "+w.path(tc.path)) + ":" + tool
			}
			r := w.with(append([]string{
				"PATH=" + path, "RUNNER_TOOL_CACHE=" + w.path("cache"), "GITHUB_PATH=" + w.path("github.path"), "GITHUB_ENV=" + w.path("github.env"),
				"GITHUB_STATE=" + w.path("github.state"), "INPUT_VERSION=" + tc.version, "INPUT_DOWNLOAD-BASE=" + s.server.URL, "INPUT_REDIS-PASSWORD=" + password, "INPUT_REDIS-URL=redis://u:p%25@h",
			}, tc.settings...)...).run(".", "node", main)
			wantCode(t, r, tc.code)
			wantText(t, r.stdout+r.stderr, tc.says)
			if n := s.count("checksums.txt"); n != tc.asked {
				t.Errorf("the checksums were asked for %d times, want %d", n, tc.asked)
			}
			added := strings.TrimSpace(w.read("github.path"))
			if ok, _ := filepath.Match(w.path("cache/git-gitops/"+tc.in+"/*/bin"), added); tc.in != "" && !ok || tc.in == "" && added != "" {
				t.Errorf("added to PATH: %q", added)
			}
			if tc.code != 0 {
				if w.exists("cache/git-gitops/3.0.0") {
					t.Error("something was installed")
				}
				return
			}
			if r.stdout != masked || strings.Contains(r.stderr, password) {
				t.Errorf("the log has %s", r)
			}
			wantText(t, w.read("github.env"), "REDIS_PASSWORD<<", "\n"+password+"\n")
		})
	}
	t.Run("not what was released", func(t *testing.T) {
		w.must(".", "rm -r cache")
		s.lying(t, "download/v2.0.0/"+archiveName("2.0.0"), flipped)
		r := w.with("PATH="+tool, "RUNNER_TOOL_CACHE="+w.path("cache"), "GITHUB_PATH="+w.path("github.path"), "GITHUB_ENV="+w.path("github.env"),
			"INPUT_VERSION=2.0.0", "INPUT_DOWNLOAD-BASE="+s.server.URL).run(".", "node", main)
		wantCode(t, r, 1)
		wantText(t, r.stderr, "is not what was released")
		wantText(t, r.stdout, "::error title=git gitops::")
		if found, _ := filepath.Glob(w.path("cache/git-gitops/*/*/bin/git-gitops")); len(found) > 0 {
			t.Errorf("installed: %q", found)
		}
	})
}

func TestKit_GitHub(t *testing.T) {
	t.Parallel()
	for _, worker := range []string{"Runner.Worker", "container"} {
		for name, edit := range edits {
			t.Run(worker+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := kitWorld(t)
				job := w.gitHubJob(worker, edit.script, "")
				if r := w.cut(job, edit.signal); (r.code == 0) != (name == "lands") {
					t.Fatal(r)
				}
				w.wantFree(edit.counter)
				wantText(t, w.read("summary.md"), "| "+w.path("remote")+"@main | 1 | 0 s | ")
			})
		}
	}
}

func TestKit_GitLab(t *testing.T) {
	t.Parallel()
	var file map[string]struct {
		Variables map[string]string
		Before    []string `yaml:"before_script"`
		Script    []string
		After     []string `yaml:"after_script"`
	}
	kitYAML(t, "gitlab/template.yml", &file)
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			job, ok := file["$[[ inputs.job ]]"]
			if !ok {
				t.Fatal("no job")
			}
			values := map[string]string{"version": "", "url": w.path("remote.git"), "branch": "main", "folder": "repo", "edit": edit.script}
			settings := []string{"GITLAB_CI=true"}
			for k, v := range job.Variables {
				settings = append(settings, k+"="+fill(t, v, regexp.MustCompile(`\$\[\[ inputs\.(\w+) \]\]`), values))
			}
			w = w.with(settings...)
			lines := append(append([]string{"set -e"}, job.Before...), job.Script...)
			script := w.start(".", "bash", "-c", strings.Join(lines, "\n")+"\nexit $?")
			if r := w.cut(script, edit.signal); (r.code == 0) != (name == "lands") {
				t.Fatal(r)
			}
			if r := w.bash(".", strings.Join(append([]string{"set -e"}, job.After...), "\n")); r.code != 0 {
				t.Fatal(r)
			}
			w.wantFree(edit.counter)
		})
	}
}

func TestKit_Azure(t *testing.T) {
	t.Parallel()
	var file struct {
		Steps []struct {
			Bash      string
			Condition string
			Env       map[string]string
		}
	}
	kitYAML(t, "azure/steps.yml", &file)
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			values := map[string]string{
				"url": w.path("remote.git"), "branch": "main", "folder": "repo", "edit": edit.script, "version": "",
				"redisHost": w.env["REDIS_HOST"], "redisTls": "false", "redisPasswordVariable": "NONE",
			}
			var steps []kitStep
			for _, s := range file.Steps {
				step := kitStep{script: s.Bash, env: map[string]string{}, always: s.Condition == "always()"}
				for k, v := range s.Env {
					step.env[k] = fill(t, v, regexp.MustCompile(`\$\{\{ parameters\.(\w+) \}\}`), values)
				}
				delete(step.env, "REDIS_PASSWORD") // a secret variable that is not set here
				steps = append(steps, step)
			}
			job := w.with("TF_BUILD=True", "VSTS_PROCESS_LOOKUP_ID=vsts_1").job("Agent.Worker", steps)
			if r := w.cut(job, edit.signal); (r.code == 0) != (name == "lands") {
				t.Fatal(r)
			}
			w.wantFree(edit.counter)
		})
	}
}

// tektonTask is what these tests read of a Task.
type tektonTask struct {
	Spec struct {
		StepTemplate    tektonStep `yaml:"stepTemplate"`
		Steps, Sidecars []tektonStep
	}
}

type tektonStep struct {
	Name, Script string
	WorkingDir   string `yaml:"workingDir"`
	Env          []struct{ Name, Value string }
}

// container is the settings of a step, with the values of the task's parameters.
func (s tektonStep) settings(t *testing.T, params map[string]string) []string {
	t.Helper()
	var all []string
	for _, e := range s.Env {
		all = append(all, e.Name+"="+fill(t, e.Value, regexp.MustCompile(`\$\(params\.([\w-]+)\)`), params))
	}
	return all
}

// noKeeper ends the keeper before the edit: it would not outlive the container, but could free the
// lock here.
const noKeeper = `pkill -9 -f "^git-gitops keeper $HERE/"; `

// oneStep runs a step that is the whole job, in its container: a signal reaches all of it, and
// nothing outlives it.
func (w *world) oneStep(file string, signal syscall.Signal, lands bool) {
	w.t.Helper()
	step := w.start(".", file)
	if signal != 0 {
		w.reaches(step, "editing")
		step.signal(signal)
	}
	r := step.wait()
	if (r.code == 0) != lands {
		w.t.Fatal(r)
	}
}

// endSidecar ends a sidecar as Tekton does when the steps have ended: the first process of its
// container gets the signal.
func (w *world) endSidecar(p *process) {
	w.t.Helper()
	if len(w.locks()) > 0 {
		w.until("it keeps the lock", func() bool { return strings.Contains(p.stderr.String(), "keeping the lock") })
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	p.wait()
}

func TestKit_Tekton(t *testing.T) {
	t.Parallel()
	for name, edit := range edits {
		t.Run("one step/"+name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			var task tektonTask
			kitYAML(t, "tekton/task-one-step.yaml", &task)
			params := map[string]string{"url": w.path("remote.git"), "branch": "main", "edit": noKeeper + edit.script}
			if err := os.Mkdir(w.path("work"), 0o755); err != nil {
				t.Fatal(err)
			}
			pod := func(s tektonStep) *world { return w.with(append(s.settings(t, params), "WORK="+w.path("work"))...) }
			sidecar, step := task.Spec.Sidecars[0], task.Spec.Steps[0]
			keep := pod(sidecar).start(".", w.write("keep", sidecar.Script))
			pod(step).oneStep(w.write("step", step.Script), edit.signal, name == "lands")
			if edit.signal == syscall.SIGKILL {
				w.wantLocks(lockKey(w.path("remote"), "main"))
			}
			// Nobody waits for the lock.
			w.endSidecar(keep)
			w.wantFree(edit.counter)
		})
		t.Run("step action/"+name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			var action struct{ Spec tektonStep }
			kitYAML(t, "tekton/step-action.yaml", &action)
			script := "git gitops clone -q '" + w.path("remote.git") + "' repo && cd repo && { " + noKeeper + edit.script + "; } && git gitops push -q"
			w = w.with(action.Spec.settings(t, map[string]string{"script": script})...)
			w.oneStep(w.write("step", action.Spec.Script), edit.signal, name == "lands")
			if edit.signal == syscall.SIGKILL { // it frees nothing, but the next in line has the lock long before the TTL
				w.with("GITOPS_LOCK_TIMEOUT=200").must(".", "git gitops clone -q remote.git next; git gitops unlock --session")
			}
			w.wantFree(edit.counter)
		})
		t.Run("steps/"+name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			var task tektonTask
			kitYAML(t, "tekton/task-steps.yaml", &task)
			params := map[string]string{"url": w.path("remote.git"), "branch": "main", "edit": edit.script}
			if err := os.Mkdir(w.path("work"), 0o755); err != nil {
				t.Fatal(err)
			}
			pod := func(s tektonStep) *world {
				settings := append(task.Spec.StepTemplate.settings(t, params), s.settings(t, params)...)
				return w.with(append(settings, "WORK="+w.path("work"))...)
			}
			sidecar := task.Spec.Sidecars[0]
			keep := pod(sidecar).start(".", w.write("keep", sidecar.Script))
			failed := false
			for i, s := range task.Spec.Steps {
				step, signal := pod(s).start(".", w.write(fmt.Sprintf("step%d", i), s.Script)), syscall.Signal(0)
				if s.Name == "edit" {
					signal = edit.signal
				}
				if r := w.cut(step, signal); r.code != 0 {
					failed = true
					break
				}
			}
			if failed == (name == "lands") {
				t.Fatalf("failed: %v\n%s", failed, &keep.stderr)
			}
			w.endSidecar(keep)
			w.wantFree(edit.counter)
		})
	}
}

// TestKit_TektonFinally: a Pipeline whose tasks share a workspace ends with a task that frees what
// its clones still hold, whatever became of the tasks before it.
func TestKit_TektonFinally(t *testing.T) {
	t.Parallel()
	w := kitWorld(t)
	w.seed("other.git")
	var task tektonTask
	kitYAML(t, "tekton/unlock.yaml", &task)
	// A task of the Pipeline, whose pod is gone: nothing of it renews its locks.
	w.with("GITOPS_LOCK_SESSION=workspace").must(".", "git gitops clone -q remote.git source/a && git gitops clone -q other.git source/b && "+noKeeper+":")
	if held := w.locks(); len(held) != 2 {
		t.Fatalf("held: %q", held)
	}
	step := task.Spec.Steps[0]
	for range 2 { // it may run again
		wantCode(t, w.with(step.settings(t, nil)...).start("source", w.write("finally", step.Script)).wait(), 0)
		w.wantLocks()
	}
}

func TestKit_Argo(t *testing.T) {
	t.Parallel()
	var file struct {
		Spec struct {
			Entrypoint string
			OnExit     string `yaml:"onExit"`
			Templates  []struct {
				Name   string
				Script struct {
					Source string
					Env    []struct{ Name, Value string }
				}
			}
		}
	}
	kitYAML(t, "argo/workflow-template.yaml", &file)
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			params := map[string]string{"url": w.path("remote.git"), "branch": "main", "edit": edit.script}
			pod := func(template string, signal syscall.Signal) result {
				for _, tm := range file.Spec.Templates {
					if tm.Name != template {
						continue
					}
					var settings []string
					for _, e := range tm.Script.Env {
						settings = append(settings, e.Name+"="+fill(t, e.Value, regexp.MustCompile(`\{\{workflow\.parameters\.(\w+)\}\}`), params))
					}
					return w.cut(w.with(settings...).start(".", "sh", w.write("source-"+template, tm.Script.Source)), signal)
				}
				t.Fatalf("no template %q", template)
				return result{}
			}
			if r := pod(file.Spec.Entrypoint, edit.signal); (r.code == 0) != (name == "lands") {
				t.Fatal(r)
			}
			if r := pod(file.Spec.OnExit, 0); r.code != 0 {
				t.Fatal(r)
			}
			w.wantFree(edit.counter)
		})
	}
}

// TestKit_Jenkins runs the step of the shared library in Groovy, with stand-ins for the steps of a
// pipeline.
func TestKit_Jenkins(t *testing.T) {
	t.Parallel()
	groovy, err := exec.LookPath("groovy")
	if err != nil {
		t.Skip("groovy is not installed")
	}
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("java is not installed")
	}
	if java, err = filepath.EvalSymlinks(java); err != nil {
		t.Fatal(err)
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := kitWorld(t)
			w.write("withGitops.groovy", string(kitFile(t, "jenkins/vars/withGitops.groovy")))
			w.write("pipeline.groovy", `
def settings = [:]
def folder = ['.']
def binding = new Binding()
binding.error = { String text -> throw new RuntimeException(text) }
binding.withEnv = { List more, Closure body -> more.each { def (k, v) = it.split('=', 2); settings[k] = v }; body() }
binding.dir = { String to, Closure body -> folder.push(folder.last() + '/' + to); body(); folder.pop() }
binding.sh = { String script ->
	def b = new ProcessBuilder('sh', '-ec', script + '\nexit $?').directory(new File(folder.last())).inheritIO()
	b.environment().putAll(settings)
	if (b.start().waitFor() != 0) throw new RuntimeException('script failed: ' + script)
}
def step = new GroovyShell(binding).parse(new File('withGitops.groovy'))
step.call([repo: args[0], branch: 'main']) { binding.getVariable('sh').call(args[1]) }
`)
			if r := w.cut(w.with("JAVA_HOME="+filepath.Dir(filepath.Dir(java))).start(".", groovy, "pipeline.groovy", w.path("remote.git"), edit.script), edit.signal); (r.code == 0) != (name == "lands") {
				t.Fatal(r)
			}
			w.wantFree(edit.counter)
		})
	}
}

// TestUnlock_session: it frees every lock of the script, and of the clones below with workspace. It
// may run twice. Without Redis it says so once, whatever is held, and what is held stays remembered
// for the next time.
func TestUnlock_session(t *testing.T) {
	t.Parallel()
	for name, setting := range map[string]string{"script": "", "workspace": "workspace"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).with("GITOPS_LOCK_SESSION=" + setting)
			for _, repo := range []string{"one.git", "two.git", "three.git"} {
				w.seed(repo)
			}
			const clones = "for r in one two three; do git gitops clone -q $r.git work/$r || exit; done\n"
			const unlock = "git gitops unlock --session; echo \"code $?\"\n"
			out := w.must(".", clones+"git gitops locks | wc -l\n"+unlock+unlock+"git gitops locks | wc -l")
			if out != "4\ncode 0\ncode 0\n1" {
				t.Errorf("got %q", out)
			}
			w.must(".", "rm -rf work")

			script := w.start(".", "bash", "-c", clones+`touch held; until [ -e down ]; do sleep 0.05; done
`+unlock+`touch asked; until [ -e back ]; do sleep 0.05; done
`+unlock+unlock+"exit 0")
			w.reaches(script, "held")
			if err := w.keys.Save(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			w.redis.Kill()
			w.write("down", "")
			w.reaches(script, "asked")
			said := func() string { return script.stderr.String() }
			w.until("it says so", func() bool { return strings.Contains(said(), "connection refused") })
			wantText(t, said(), "gitops: error: git gitops unlock cannot use Redis\n")
			if n := strings.Count(said(), "connection refused"); n != 1 {
				t.Errorf("it says so %d times: %s", n, said())
			}
			if err := w.redis.Resume(); err != nil {
				t.Fatal(err)
			}
			w.until("Redis is back", func() bool { return w.keys.Ping(t.Context()).Err() == nil })
			w.write("back", "")
			r := script.wait()
			if r.stdout != "code 69\ncode 0\ncode 0\n" {
				t.Errorf("got %s", r)
			}
			w.wantLocks()
		})
	}
}

// TestKit_files: every YAML file of the kits parses, and every kit says in a README what to paste.
func TestKit_files(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../scripts/ci/*/*.y*ml")
	if err != nil || len(files) < 7 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		var any any
		kitYAML(t, strings.TrimPrefix(f, "../../scripts/ci/"), &any)
	}
	for _, kit := range []string{"github", "gitlab", "tekton", "jenkins", "azure", "argo"} {
		if lines := strings.Count(string(kitFile(t, kit+"/README.md")), "\n"); lines < 10 || lines > 40 {
			t.Errorf("the README of %s has %d lines", kit, lines)
		}
	}
}
