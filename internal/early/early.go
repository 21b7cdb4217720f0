//go:build unix

// Package early lets git have its own commands before the rest of this program is made ready. Most of what a Go program does before
// main is to initialize its packages, and a pass-through has no use for any of them. They are initialized in the order of their import
// paths, each after those that it imports (Go specification, "Program initialization"): this one, which needs little of the standard
// library, comes before the connection to Redis, TLS, HTTP and the command line library. That saves a third of a pass-through.
//
// Nothing is decided here: a command line that needs a second look is left to package cli, which knows all routes.
package early

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/shim"
)

var _ = passThrough(os.Args)

// passThrough replaces this process with git when that is what the words are for. It returns when they may be ours, and when something
// is wrong, which is then told by who comes next.
func passThrough(args []string) error {
	face := shim.Subcommand
	switch filepath.Base(args[0]) {
	case "git":
		face = shim.Link
	case "git-gitops":
	default: // a test, for one
		return nil
	}
	sure := true
	unsure := func(string) bool { sure = false; return false }
	alias := func(string) (string, bool) { sure = false; return "", false }
	route, _ := shim.Resolve(face, args[1:], unsure, alias, unsure)
	if route != shim.Passthrough || !sure {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	path, err := shim.RealGit(os.Getenv("PATH"), os.Getenv("GITOPS_GIT"), self)
	if err != nil {
		return err
	}
	_, err = git.Git{Path: path}.Exec(args[1:]...)
	return err
}
