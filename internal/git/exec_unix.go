//go:build unix

package git

import (
	"fmt"
	"os"
	"syscall"
)

// Exec replaces this process with git. It returns only when that fails.
func (g Git) Exec(args ...string) (Exit, error) {
	argv := append([]string{"git"}, g.words(args)...) // another name would be taken for a builtin's
	err := syscall.Exec(g.Path, argv, os.Environ())   //nolint:gosec // running git is the purpose
	return Exit{}, fmt.Errorf("exec git: %w", err)
}
