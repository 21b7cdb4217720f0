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
	return runReading(exec.Command(path, args...), input) //nolint:gosec // the user's own hook
}

// RunReadingFrom is Run with an input of ours.
func (g Git) RunReadingFrom(input []byte, args ...string) (Exit, error) {
	cmd := exec.Command(g.Path, g.words(args)...) //nolint:gosec // running git is the purpose
	cmd.Args[0] = "git"
	return runReading(cmd, input)
}

func runReading(cmd *exec.Cmd, input []byte) (Exit, error) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), os.Stdout, os.Stderr
	return supervise(cmd) // one that does not read all its input is no error (os/exec)
}
