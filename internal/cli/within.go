package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/git-gitops/git-gitops/internal/workspace"
	"github.com/git-gitops/git-gitops/shim"
)

// Plain git in a command under "git gitops run": a link like that of the shim, which looks at
// nothing but pushes to the branches that are locked there.

// runLocksEnv names the locks of every run above, one a line.
const runLocksEnv = "GITOPS_RUN_LOCKS"

// runLinks is the folder of that link. It stays: a process that outlives its run may still look
// there for git.
func runLinks() (string, error) {
	home, err := workspace.StateHome()
	return filepath.Join(home, "run"), err
}

// guardPushes implements gitops.Parts.
func guardPushes(id string) error {
	dir, err := runLinks()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if _, err := shim.MakeLink(dir, self); err != nil {
		if err := replaceLink(dir, self); err != nil { // of another installation
			return err
		}
	}
	path := dir + string(os.PathListSeparator) + shim.SearchPath(os.LookupEnv)
	if above := os.Getenv(runLocksEnv); above != "" {
		id = above + "\n" + id
	}
	return errors.Join(os.Setenv("PATH", path), os.Setenv(runLocksEnv, id))
}

// replaceLink puts a new link in the place of another, in one step.
func replaceLink(dir, self string) error {
	tmp, err := os.MkdirTemp(dir, "new")
	if err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if _, err := shim.MakeLink(tmp, self); err != nil {
		return err
	}
	name := shim.LinkName
	if err := os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	return nil
}

// runLocks are the locks of every run above, when the git that PATH finds first is that link; nil:
// it is not.
func runLocks() []string {
	ids := os.Getenv(runLocksEnv)
	dir, err := runLinks()
	if ids == "" || err != nil {
		return nil
	}
	for _, d := range filepath.SplitList(os.Getenv("PATH")) {
		if d == dir {
			return strings.Split(ids, "\n")
		}
		if _, err := os.Stat(filepath.Join(d, shim.LinkName)); err == nil { //nolint:gosec // as a shell looks for it
			return nil // another git comes first, as the link of install --shim
		}
	}
	return nil
}
