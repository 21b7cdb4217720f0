package hooks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ServerHook is the name of the hook that guards a server's repository.
const ServerHook = "pre-receive"

// InstallServer writes the pre-receive hook into a folder of hooks. A hook that is there already is kept under another
// name and called first. It reports whether anything was changed.
func InstallServer(dir string) (changed bool, err error) {
	path := filepath.Join(dir, ServerHook)
	old, err := os.ReadFile(path) //nolint:gosec // the server's own hook
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, fmt.Errorf("read hook: %w", err)
	case string(old) == string(script(ServerHook)):
		return false, nil
	case ours(old): // of another version
	default:
		if _, err := os.Lstat(path + Chained); err == nil {
			return false, fmt.Errorf("%s: both it and %s exist, and neither was written by git-gitops", path, path+Chained)
		}
		if err := os.Rename(path, path+Chained); err != nil {
			return false, fmt.Errorf("keep the hook that is there: %w", err)
		}
	}
	return true, write(path, script(ServerHook))
}

// UninstallServer removes the pre-receive hook from a folder, and puts the one that was there before back.
func UninstallServer(dir string) (changed bool, err error) {
	path := filepath.Join(dir, ServerHook)
	if !ServerInstalled(dir) {
		return false, nil
	}
	if err := putBack(path+Chained, path); err != nil {
		return false, err
	}
	return true, nil
}

// ServerInstalled reports whether a folder has our pre-receive hook.
func ServerInstalled(dir string) bool {
	return isOurs(filepath.Join(dir, ServerHook))
}
