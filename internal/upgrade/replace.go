package upgrade

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/file"
)

// Replace puts a program in the place of the file that path leads to. It is the old or the new one
// at every moment; whoever runs the old one goes on with it.
func Replace(path string, program []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	old, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	// A machine that crashes now must not find an empty program.
	if err := file.Replace(path, program, old.Mode().Perm(), (*os.File).Sync); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}
