package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Reasons for a NoGitError.
var (
	ErrNotFound      = errors.New("not found")
	ErrIsSelf        = errors.New("is git-gitops itself")
	ErrNotExecutable = errors.New("not an executable file")
)

// NoGitError says that there is no real git to run.
type NoGitError struct {
	Override string // what GITOPS_GIT says; empty when PATH was searched
	Err      error  // ErrNotFound, ErrIsSelf, ErrNotExecutable, or the file system's error
}

func (e *NoGitError) Error() string {
	if e.Override != "" {
		return fmt.Sprintf("find git: GITOPS_GIT=%q: %v", e.Override, e.Err)
	}
	return fmt.Sprintf("find git on PATH: %v", e.Err)
}

// Unwrap returns the reason.
func (e *NoGitError) Unwrap() error { return e.Err }

// SearchPath is the list of folders in which programs are searched: PATH, or where there is none at
// all, the system's default, as execvp(3) does. lookup is os.LookupEnv.
func SearchPath(lookup func(string) (string, bool)) string {
	if path, ok := lookup("PATH"); ok {
		return path
	}
	return defaultPath
}

// RealGit returns the absolute path of the git to run: override, the value of GITOPS_GIT, when it
// is not empty, else the first executable git in the folders of pathEnv. A candidate that is the
// same file as self, the path of our own executable, is skipped whatever it is called (symlink,
// hard link, another spelling), so that we never run ourselves. Relative folders of pathEnv are
// skipped too: they would mean another git after each change of folder, and one that a clone can
// bring along. The error is a *NoGitError.
func RealGit(pathEnv, override, self string) (string, error) {
	us, err := os.Stat(self)
	if err != nil {
		return "", &NoGitError{Override: override, Err: fmt.Errorf("own executable: %w", err)}
	}
	if override != "" {
		path, err := filepath.Abs(override)
		if err == nil {
			err = check(path, us)
		}
		if err != nil {
			return "", &NoGitError{Override: override, Err: err}
		}
		return path, nil
	}
	for _, dir := range filepath.SplitList(pathEnv) {
		path := filepath.Join(dir, LinkName)
		if filepath.IsAbs(dir) && check(path, us) == nil {
			return path, nil
		}
	}
	return "", &NoGitError{Err: ErrNotFound}
}

// check reports why the file at path can't be the real git, or nil when it can.
func check(path string, self fs.FileInfo) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case err != nil:
		return err
	case os.SameFile(info, self), isOther(path):
		return ErrIsSelf
	case !info.Mode().IsRegular() || !executable(path, info):
		return ErrNotExecutable
	}
	return nil
}

// isOther reports whether path is a link to a git-gitops, perhaps another installation than ours:
// two that take each other for git would call each other without end.
func isOther(path string) bool {
	target, err := filepath.EvalSymlinks(path)
	return err == nil && strings.TrimSuffix(filepath.Base(target), ".exe") == "git-gitops"
}
