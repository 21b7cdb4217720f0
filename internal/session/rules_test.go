package session

import (
	"strings"
	"testing"
)

// tree makes the ancestors that these command lines stand for, "|" between
// arguments. A line that starts with "=" is a fork, without exec, of the next.
func tree(lines ...string) []proc {
	var up []proc
	for i, l := range lines {
		fork := strings.HasPrefix(l, "=")
		args := strings.Split(strings.TrimPrefix(l, "="), "|")
		name := base(args[0])
		exe := "/usr/bin/" + name
		if name == "sh" {
			exe = "/usr/bin/dash"
		}
		up = append(up, proc{Process: Process{PID: 1000 - i}, execed: !fork, exe: exe, args: args})
	}
	return up
}

func TestFind(t *testing.T) {
	const none = -1
	tests := []struct {
		name        string
		up          []proc // ancestors, nearest first
		from, owner int
	}{
		{"script", tree("bash|x.sh", "bash"), 0, 0},
		{"interactive", tree("-bash", "sshd: me@pts/0"), 0, 0},
		{"interactive in interactive", tree("bash", "bash"), 0, 0},
		{"subshell", tree("=bash|x.sh", "bash|x.sh", "bash"), 0, 1},
		{"subshells", tree("=bash|x.sh", "=bash|x.sh", "bash|x.sh", "bash"), 0, 2},
		{"recursive script", tree("bash|x.sh", "bash|x.sh", "bash"), 0, 0},
		{"forked worker", tree("=python3.11|x.py", "python3.11|x.py", "bash|x.sh"), 0, 1},

		{"git-gitops", tree("git|gitops|clone", "bash|x.sh"), 1, 1},
		{"wrappers", tree("git|gitops|clone", "timeout|9|git", "sudo|timeout", "=bash|x.sh", "bash|x.sh"), 3, 4},
		{"git written in shell", tree("bash|/opt/shims/git|clone", "bash|x.sh"), 1, 1},
		{"alias", tree("sh|-c|f() { git gitops clone; }; f", "git|cl", "bash|x.sh"), 2, 2},
		{"subshell in alias", tree("=sh|-c|(a)", "sh|-c|(a)", "git|cl", "bash|x.sh"), 3, 3},
		{"hook", tree("sh|.git/hooks/post-merge", "git|merge", "bash|x.sh"), 0, 0},
		{"own subcommand", tree("bash|/usr/bin/git-deploy", "git|deploy", "bash|x.sh"), 0, 0},

		{"make", tree("sh|-c|git gitops clone; true", "make|all", "bash"), 0, 1},
		{"make itself", tree("make|all", "bash"), 0, 0},
		{"make with bash", tree("bash|-o|pipefail|-euc|x", "gmake|all", "bash"), 0, 1},
		{"make in make", tree("sh|-c|x", "make|-C|sub", "sh|-c|make", "make", "bash"), 0, 1},
		{"make runs script", tree("bash|x.sh", "make|all", "bash"), 0, 0},
		{"subshell in recipe", tree("=sh|-c|(x)", "sh|-c|(x)", "make|all", "bash"), 0, 2},
		{"just", tree("bash|-cu|x", "just|deploy", "bash"), 0, 1},
		{"npm", tree("sh|-c|x; y", "node|/usr/bin/npm|run|x", "bash"), 0, 1},
		{"npm with bash", tree("bash|-c|x; y", "npm run x", "bash"), 0, 1},
		{"pnpm with bash", tree("bash|-c|x; y", "node|/opt/pnpm.cjs|run|x", "bash"), 0, 1},
		{"busybox", tree("busybox|sh|-c|x; y", "make|all", "bash"), 0, 1},
		{"bash from python", tree("bash|-c|x; y", "python3|x.py", "bash"), 0, 1},
		{"two levels from python", tree("bash|-c|x; y", "sh|-c|bash -c 'x; y'; z", "python3|x.py", "bash"), 0, 2},
		{"shell: bash from node", tree("bash|-c|x; y", "node|x.js", "bash"), 0, 1},
		{"shelljs", tree("sh|-c|x; y", "node|/m/shelljs/src/exec-child.js|/tmp/p", "node|x.js", "bash"), 0, 2},
		{"shelljs without a shell", tree("node|/m/shelljs/src/exec-child.js|/tmp/p", "node|x.js", "bash"), 1, 1},
		{"perl", tree("sh|-c|x; y", "perl|x.pl", "bash"), 0, 1},
		{"Ansible", tree("sh|-c|x; y", "python3|/r/AnsiballZ_command.py", "sh|-c|python3 /r/AnsiballZ_command.py && sleep 0",
			"=python3|/usr/bin/ansible-playbook|p.yml", "python3|/usr/bin/ansible-playbook|p.yml", "bash"), 0, 4},
		{"bash -c from bash", tree("bash|-c|x; y", "bash|x.sh", "bash"), 0, 1},
		{"sh -c from dash", tree("sh|-c|x; y", "timeout|9|sh", "dash|x.sh", "bash"), 0, 2},
		{"bash -c from bash -c", tree("bash|-c|x; y", "bash|-c|bash -c 'x; y'; z", "sshd"), 0, 1},
		{"typed bash -c", tree("bash|-c|x; y", "-bash", "sshd"), 0, 0},
		{"bash -c from sshd", tree("bash|-c|x; y", "sshd"), 0, 0},
		{"sh -c from cron", tree("sh|-c|x; y", "cron|-f"), 0, 0},
		{"shell=True", tree("sh|-c|x; y", "python3|x.py", "bash"), 0, 1},

		{"github", tree("bash|-e|/tmp/s.sh", "Runner.Worker|spawnclient", "Runner.Listener|run", "bash|run.sh"), 0, 1},
		{"github subshell", tree("=bash|-e|/tmp/s.sh", "bash|-e|/tmp/s.sh", "Runner.Worker", "Runner.Listener"), 0, 2},
		{"github action", tree("node|index.js", "Runner.Worker", "Runner.Listener"), 0, 1},
		{"github script in step", tree("bash|build.sh", "bash|-e|/tmp/s.sh", "Runner.Worker"), 0, 0},
		{"github make in step", tree("sh|-c|x; y", "make", "bash|-e|/tmp/s.sh", "Runner.Worker"), 0, 1},
		{"gitea", tree("bash|-e|/tmp/s.sh", "act_runner|daemon", "systemd"), 0, 1},
		{"forgejo", tree("bash|-e|/tmp/s.sh", "forgejo-runner|daemon", "systemd"), 0, 1},
		{"azure", tree("bash|/tmp/s.sh", "node|bash.js", "Agent.Worker", "Agent.Listener"), 0, 2},
		{"gitlab", tree("=bash|--login", "bash|--login", "gitlab-runner|run", "systemd"), 0, 1},
		{"jenkins", tree("sh|-xe|script.sh.copy", "sh|-c|(x)&", "java|-jar|agent.jar"), 0, 0},

		{"no parent", nil, 0, none},
		{"only a wrapper", tree("timeout|9|git"), 0, none},
		{"user's systemd", tree("systemd|--user", "systemd"), 0, none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from, owner, ok := find(tt.up)
			if !ok {
				owner = none
			}
			if owner != tt.owner || ok && from != tt.from {
				t.Errorf("find = %d, %d, %t; want %d, %d", from, owner, ok, tt.from, tt.owner)
			}
		})
	}
}

func TestFind_firstProcess(t *testing.T) {
	for line, want := range map[string]bool{
		"bash|deploy.sh":    true,
		"sh|-c|x; y":        true,
		"-bash":             true,
		"python3|deploy.py": true,
		"make|deploy":       true,
		"systemd":           false,
		"tini|--|git":       false,
		"controller|serve":  false, // a service, or the parent of orphans
		"java|-jar|app.jar": false,
		"timeout|9|git":     false,
		"git|gitops|clone":  false,
	} {
		up := tree(line)
		up[0].PID = 1
		if _, _, ok := find(up); ok != want {
			t.Errorf("pid 1 is %s: found = %t, want %t", line, ok, want)
		}
	}
}

func TestShellOperand(t *testing.T) {
	for line, want := range map[string]struct {
		operand string
		command bool
	}{
		"sh":                             {"", false},
		"sh|-c|x":                        {"x", true},
		"sh|-ec|x":                       {"x", true},
		"bash|-o|pipefail|-c|x":          {"x", true},
		"bash|-eo|pipefail|x.sh":         {"x.sh", false},
		"bash|--noprofile|--norc|x.sh|a": {"x.sh", false},
		"bash|--rcfile|c|-i":             {"", false},
		"bash|+O|extglob|x.sh|-c":        {"x.sh", false},
		"bash|--|x.sh":                   {"x.sh", false},
		"sh|-c|--|x":                     {"x", true},
		"busybox|sh|-c|x":                {"x", true},
		"sh|-s|x":                        {"x", false},
	} {
		operand, command := shellOperand(strings.Split(line, "|"))
		if operand != want.operand || command != want.command {
			t.Errorf("shellOperand(%s) = %q, %t; want %q, %t", line, operand, command, want.operand, want.command)
		}
	}
}

func TestBase(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "-bash": "bash", "/bin/sh": "sh", "git.exe": "git", "/x/Runner.Worker": "Runner.Worker",
	} {
		if got := base(in); got != want {
			t.Errorf("base(%q) = %q, want %q", in, got, want)
		}
	}
}
