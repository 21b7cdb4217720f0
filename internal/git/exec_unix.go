//go:build unix

package git

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Exec replaces this process with git. It returns only when that fails.
func (g Git) Exec(args ...string) (Exit, error) {
	endGuard()
	argv := append([]string{"git"}, g.words(args)...) // another name would be taken for a builtin's
	err := syscall.Exec(g.Path, argv, environ())      //nolint:gosec // running git is the purpose
	return Exit{}, fmt.Errorf("exec git: %w", err)
}

// environ is this process's environment as it was given, where that can be had: os.Environ leaves out what comes twice and
// what is empty.
func environ() []string {
	raw, err := os.ReadFile("/proc/self/environ")
	if err != nil || len(raw) == 0 {
		return os.Environ()
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}
