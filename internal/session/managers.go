package session

import (
	"path/filepath"
	"slices"
	"strings"
)

// manager is a program that clones what it installs and pushes nothing.
type manager struct {
	names []string // of the program, or of the script that an interpreter runs

	// The first of these words on its command line tells whether it installs, or runs what is the
	// user's.
	installs, runs []string

	// It runs the user's code in its own process, or through a shell as it does git; but it clones
	// with one of these options.
	options []string
}

var (
	terraform = manager{
		names:    []string{"terraform", "tofu", "terragrunt"},
		installs: []string{"init", "get"},
		runs:     []string{"apply", "destroy", "plan", "refresh", "test"},
	}
	node = manager{
		names:    []string{"npm", "npm-cli", "pnpm", "yarn", "yarnpkg", "bun"},
		installs: []string{"install", "i", "ci", "clean-install", "add", "a", "update", "up", "upgrade", "dedupe"},
		runs:     []string{"run", "run-script", "exec", "x", "dlx"},
	}
	bundling = manager{
		names:   []string{"composer", "composer.phar", "bundle", "bundler"},
		options: []string{"--no-checkout", "--mirror", "--bare"},
	}
	// pip runs the code of a package in processes of its own, Helm that of a plugin.
	plain = manager{names: []string{"pip", "__pip-runner__.py", "ansible-galaxy", "helm"}}

	// installEvents are what npm, pnpm, yarn and bun call the scripts of packages that they run
	// while they install.
	installEvents = []string{
		"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare", "dependencies", "prepack", "pack", "postpack",
	}
)

// Installs reports whether a clone with these arguments, run by the process self, fetches what a
// package manager or a provisioner installs: whether that program itself, and no script that it
// runs, has started git. event is npm_lifecycle_event of the environment, the script of
// package.json that is running.
func Installs(self int, args []string, event string) bool {
	return installs(ancestors(self), args, event)
}

func installs(up []proc, args []string, event string) bool {
	from := gitsParent(up)
	if from == len(up) {
		return false
	}
	p := up[from]
	if p.runsCommandLine() && from+1 < len(up) && up[from+1].runsAs(bundling.names) {
		p = up[from+1]
	}
	switch {
	case p.runsAs(terraform.names):
		installing, _ := terraform.does(p)
		return installing
	case p.runsAs(node.names):
		installing, known := node.does(p)
		if !known { // yarn alone installs, or runs a script that is named as its command is
			return event == "" && p.runsAs([]string{"yarn", "yarnpkg"})
		}
		return installing && !slices.Contains(installEvents, event)
	case p.runsAs(bundling.names):
		return slices.ContainsFunc(args, func(w string) bool { return slices.Contains(bundling.options, w) })
	default:
		return p.runsAs(plain.names)
	}
}

// does tells what p, which is the manager, was started for.
func (m manager) does(p proc) (installing, known bool) {
	// npm writes its command line into its name.
	for _, w := range strings.Fields(strings.Join(p.args, " ")) {
		switch {
		case slices.Contains(m.installs, w):
			return true, true
		case slices.Contains(m.runs, w):
			return false, true
		}
	}
	return false, false
}

// runsAs reports whether p's program, or the script that it runs, has one of the names, whatever
// its version (pip3.11) or its extension (npm-cli.js). A script of a shell is the user's.
func (p proc) runsAs(names []string) bool {
	if p.isShell() {
		return false
	}
	script := base(p.script())
	all := append(p.names(), script, strings.TrimSuffix(script, filepath.Ext(script)), strings.TrimRight(script, "0123456789."))
	return slices.ContainsFunc(all, func(n string) bool { return n != "" && slices.Contains(names, n) })
}
