package session

import (
	"path/filepath"
	"slices"
	"strings"
)

// The lists below are the base names of programs.
var (
	gits = []string{"git", "git-gitops"}

	// wrappers run one command and live as long as that. (xargs may run
	// several, one after the other, but is no script either.)
	wrappers = []string{
		"chroot", "chrt", "doas", "env", "flock", "gtime", "gtimeout", "ionice",
		"ltrace", "nice", "nohup", "runuser", "setpriv", "setsid", "stdbuf", "strace",
		"su", "sudo", "time", "timeout", "unshare", "xargs",
	}

	shells = []string{"sh", "ash", "bash", "dash", "fish", "ksh", "mksh", "yash", "zsh"}

	// interpreters run scripts. Their system(3), popen or subprocess with shell=True starts a shell
	// for one command of the script.
	interpreters = []string{"bun", "deno", "node", "nodejs", "perl", "php", "pypy", "python", "ruby"}

	// helpers are scripts that an interpreter starts for one command of another script: shelljs,
	// and (by how they begin) Ansible's modules.
	helpers = []string{"exec-child.js", "AnsiballZ_"}

	// buildTools start a shell for each line or task. Not listed are those
	// that run them in a daemon that outlives the build (Gradle, Bazel), and
	// those that have a shell within (go-task needs no rule: it is git's
	// parent itself).
	buildTools = []string{
		"bmake", "gmake", "gnumake", "grunt", "gulp", "just", "mage", "make", "ninja",
		"npm", "npm-cli", "npx", "npx-cli", "pnpm", "rake", "remake", "samu", "task",
		"yarn", "yarnpkg",
	}

	// workers run each step of one job as a process of its own, and end with the job: GitHub
	// Actions and Azure Pipelines, and the copies of Gitea and Forgejo. (Those may live on to the
	// next job, as a daemon. The lock of a job that has failed is then freed by
	// GITOPS_LOCK_MAX_HOLD, or when its clone is removed, which they do.) Not listed are agents
	// that live on from job to job: gitlab-runner, which runs a job's whole script as one process
	// anyhow; a Jenkins agent, whose sh steps are no descendants of it; Runner.Listener. Steps in
	// containers (docker exec) can't see the worker either. There, and in Jenkins, a lock over
	// several steps needs the override.
	workers = []string{"Agent.Worker", "Runner.Worker", "act_runner", "forgejo-runner"}

	// inits adopt orphans; they are the parent of everything and of nobody.
	inits = []string{"catatonit", "docker-init", "dumb-init", "init", "launchd", "podman-init", "s6-svscan", "systemd", "tini"}
)

// find finds git's parent and the session's owner among the ancestors of a
// git command, nearest first. Nothing is found if there is no ancestor but
// init and what would be passed over.
func find(up []proc) (from, owner int, ok bool) {
	from = gitsParent(up)
	if from == len(up) || up[from].isInit() {
		return 0, 0, false
	}

	owner = mainShell(up, from)
	for {
		next := owner + 1
		for next < len(up) && up[next].isWrapper() {
			next++
		}
		if next == len(up) || !startsShell(up[next], up[owner]) {
			break
		}
		owner = mainShell(up, next)
	}

	// A step is a child of the worker, or of the node program that is a task.
	w := owner + 1
	for w < len(up) && (up[w].isWrapper() || up[w].is("node", "nodejs")) {
		w++
	}
	if w < len(up) && up[w].is(workers...) {
		owner = w
	}
	return from, owner, true
}

// gitsParent is the place of git's parent in up; len(up) if there is none.
func gitsParent(up []proc) int {
	from := 0
	for from < len(up) {
		p := up[from]
		if p.isGit() || p.isWrapper() {
			from++
			continue
		}
		// The shell of an alias. (The shell of a hook has a file to run.)
		top := mainShell(up, from)
		if top+1 < len(up) && up[top].runsCommandLine() && up[top+1].isGit() {
			from = top + 1
			continue
		}
		break
	}
	return from
}

// Parallel reports whether the owner is a program that runs several jobs at a time: a build tool,
// as the environment's MAKEFLAGS tell, or the daemon of a CI runner. Nothing tells its jobs apart
// then.
func (s Session) Parallel(makeflags string) bool {
	if s.Owner == nil {
		return false
	}
	switch s.Owner.Name {
	case "ninja", "samu", "act_runner", "forgejo-runner":
		return true
	case "make", "gmake", "gnumake", "bmake", "remake":
	default:
		return false
	}
	words := strings.Fields(makeflags)
	return slices.ContainsFunc(words, func(w string) bool {
		return strings.HasPrefix(w, "-j") && w != "-j1" || strings.HasPrefix(w, "--jobs")
	})
}

// IsShell reports whether the process is a shell, which runs one command after the other.
func (p Process) IsShell() bool { return slices.Contains(shells, strings.TrimPrefix(p.Name, "-")) }

// IsGit reports whether the process is git or git-gitops.
func (p Process) IsGit() bool { return slices.Contains(gits, p.Name) }

// mainShell goes up from up[i] as long as a process is a copy of its parent:
// a fork without exec, with the same executable and the same command line.
func mainShell(up []proc, i int) int {
	for i+1 < len(up) && isCopy(up[i], up[i+1]) {
		i++
	}
	return i
}

func isCopy(child, parent proc) bool {
	return !child.execed &&
		(child.exe == parent.exe || child.exe == "" || parent.exe == "") &&
		len(child.args) > 0 && slices.Equal(child.args, parent.args)
}

// startsShell reports whether the shell runs one command line for the program p, and so is no
// script of its own: p is a build tool, or runs a script.
func startsShell(p, shell proc) bool {
	if !shell.runsCommandLine() {
		return false
	}
	return p.isBuildTool() || p.isInterpreter() || p.isShell() && (p.runsCommandLine() || p.script() != "")
}

func (p proc) isGit() bool     { return p.is(gits...) || slices.Contains(gits, base(p.script())) }
func (p proc) isWrapper() bool { return p.is(wrappers...) || p.isHelper() }
func (p proc) isShell() bool   { return p.is(shells...) }

func (p proc) isHelper() bool {
	script := base(p.script())
	return p.isInterpreter() && slices.ContainsFunc(helpers, func(h string) bool { return strings.HasPrefix(script, h) })
}

func (p proc) isBuildTool() bool {
	s := base(p.script())
	return p.is(buildTools...) || slices.Contains(buildTools, strings.TrimSuffix(s, filepath.Ext(s)))
}

// isInterpreter knows versions too: python3.11.
func (p proc) isInterpreter() bool {
	return slices.ContainsFunc(p.names(), func(name string) bool {
		return slices.Contains(interpreters, strings.TrimRight(name, "0123456789."))
	})
}

// isInit reports whether p is the parent of orphans rather than a script. The first process of a
// container may well be a script. One that is a service looks like the parent of an orphan, for
// whom nobody may hold a lock.
func (p proc) isInit() bool {
	return p.is(inits...) || p.PID == 1 && !p.isShell() && !p.isInterpreter() && !p.isBuildTool() && !p.is(workers...)
}

// is reports whether p's program has one of the names.
func (p proc) is(names ...string) bool {
	return slices.ContainsFunc(p.names(), func(name string) bool {
		return name != "" && slices.Contains(names, name)
	})
}

// names returns what p's program is called: the executable, which may be one
// for many (busybox), and the command's name, which may be chosen freely and
// in which some put their whole command line (npm).
func (p proc) names() []string {
	if p.exe == "" && len(p.args) == 0 {
		return []string{p.Name}
	}
	n := []string{base(p.exe)}
	if len(p.args) > 0 {
		first, _, _ := strings.Cut(p.args[0], " ")
		n = append(n, base(p.args[0]), base(first))
	}
	if len(p.args) > 1 && base(p.args[0]) == "busybox" {
		n = append(n, base(p.args[1]))
	}
	return n
}

// program returns the name to show for p, "" if it is not known.
func (p proc) program() string {
	name := base(p.exe)
	if (name == "" || name == "busybox") && len(p.args) > 0 {
		first, _, _ := strings.Cut(p.args[0], " ")
		name = base(first)
	}
	return name
}

// script returns the file that a shell or an interpreter runs, "" if there
// is none.
func (p proc) script() string {
	if !p.isShell() && !p.isInterpreter() {
		return ""
	}
	script, command := shellOperand(p.args)
	if p.isShell() && command {
		return ""
	}
	return script
}

// runsCommandLine reports whether p is a shell with -c.
func (p proc) runsCommandLine() bool {
	if !p.isShell() {
		return false
	}
	_, command := shellOperand(p.args)
	return command
}

// shellOperand returns the first argument of a shell that is no option, and
// whether -c was among the options. Options may be joined (-euc), -o and +O
// take an argument, and so do a few long ones (bash(1), dash(1)).
func shellOperand(args []string) (operand string, command bool) {
	if len(args) > 1 && base(args[0]) == "busybox" {
		args = args[1:]
	}
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-" || a == "--":
			if i+1 < len(args) {
				return args[i+1], command
			}
			return "", command
		case a == "--rcfile" || a == "--init-file":
			i++
		case strings.HasPrefix(a, "--"):
		case strings.HasPrefix(a, "-") || strings.HasPrefix(a, "+"):
			command = command || a[0] == '-' && strings.Contains(a, "c")
			if strings.HasSuffix(a, "o") || strings.HasSuffix(a, "O") {
				i++
			}
		default:
			return a, command
		}
	}
	return "", command
}

// base returns the last element of a path, without the dash that marks a login
// shell and without Windows' ".exe".
func base(path string) string {
	if path == "" {
		return ""
	}
	return strings.TrimPrefix(strings.TrimSuffix(filepath.Base(path), ".exe"), "-")
}
