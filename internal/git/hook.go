package git

import (
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/process"
)

// RunHook runs another hook with the arguments and the input that git gave us. One that is missing
// or not executable succeeds, as it does for git.
func RunHook(path string, args []string, input []byte) (process.Exit, error) {
	path, err := filepath.Abs(path) // a name without a slash would be searched on PATH
	if err != nil {
		return process.Exit{}, err
	}
	if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
		return process.Exit{}, nil
	}
	return process.Command{Path: path, Args: args}.RunWithInput(input)
}
