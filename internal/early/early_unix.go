//go:build unix

package early

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/shim"
)

var _ = passThrough(os.Args)

// passThrough replaces this process with git when the command line is for git alone. It returns
// when it may be ours, and when something is wrong, which the rest of the program then reports.
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
	path, err := shim.RealGit(shim.SearchPath(os.LookupEnv), os.Getenv("GITOPS_GIT"), self)
	if err != nil {
		return err
	}
	_, err = process.Command{Path: path, Name: "git", Args: args[1:]}.Exec()
	return err
}
