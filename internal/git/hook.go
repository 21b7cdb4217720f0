package git

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
)

// RunHook runs another hook with the arguments and the input that git gave us. One that is missing or
// not executable succeeds, as it does for git.
func RunHook(path string, args []string, input []byte) (Exit, error) {
	path, err := filepath.Abs(path) // a name without a slash would be searched on PATH
	if err != nil {
		return Exit{}, err
	}
	if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
		return Exit{}, nil
	}
	cmd := exec.Command(path, args...) //nolint:gosec // the user's own hook
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), os.Stdout, os.Stderr
	return supervise(cmd) // one that does not read all its input is no error (os/exec)
}
