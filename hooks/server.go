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

// serverFile is the hook in a folder of hooks. A folder all of whose hooks the server runs, as
// hooks/pre-receive.d of Gitea, has it under our own name, beside the others.
func serverFile(dir string) string {
	if filepath.Base(dir) == ServerHook+".d" {
		return filepath.Join(dir, "git-gitops")
	}
	return filepath.Join(dir, ServerHook)
}

// InstallServer writes the pre-receive hook into a folder of hooks. A hook that is there already is
// kept under another name and called first. It reports whether anything was changed.
func InstallServer(dir string) (changed bool, err error) {
	path := serverFile(dir)
	old, err := os.ReadFile(path) //nolint:gosec // the server's own hook
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, fmt.Errorf("read hook: %w", err)
	case string(old) == string(script(ServerHook)) && Runs(path):
		return false, nil
	case ours(old): // of another version, or not executable
	case filepath.Base(path) != ServerHook:
		return false, fmt.Errorf("%s was not written by git-gitops", path)
	default:
		if _, err := os.Lstat(path + Chained); err == nil {
			return false, fmt.Errorf("%s: both it and %s exist, and neither was written by git-gitops", path, path+Chained)
		}
		if err := os.Rename(path, path+Chained); err != nil {
			return false, fmt.Errorf("keep the existing hook: %w", err)
		}
	}
	return true, write(path, script(ServerHook))
}

// UninstallServer removes the pre-receive hook from a folder, and puts the one that was there
// before back.
func UninstallServer(dir string) (changed bool, err error) {
	path := serverFile(dir)
	if !isOurs(path) {
		return false, nil
	}
	if err := putBack(path+Chained, path); err != nil {
		return false, err
	}
	return true, nil
}

// ServerInstalled reports whether a folder has our pre-receive hook, and git runs it.
func ServerInstalled(dir string) bool {
	path := serverFile(dir)
	return isOurs(path) && Runs(path)
}

// ServerPlaces are the folders where the servers that we know of look for a pre-receive hook of a
// bare repository: git's own folder of hooks, and those of Gitea, Forgejo and GitLab.
func ServerPlaces(gitDir, hooksDir string) []string {
	all := filepath.Join(hooksDir, ServerHook+".d")
	custom := filepath.Join(gitDir, "custom_hooks")
	return []string{hooksDir, all, custom, filepath.Join(custom, ServerHook+".d")}
}
