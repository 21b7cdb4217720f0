//go:build unix

package process

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Exec replaces this process with the program. It returns only when that fails.
func (c Command) Exec() (Exit, error) {
	endGuard()
	env := c.Env
	if env == nil {
		env = environ()
	}
	err := syscall.Exec(c.Path, c.argv(), env) //nolint:gosec // running programs is the purpose
	return Exit{}, fmt.Errorf("exec %s: %w", c.argv()[0], err)
}

// environ is this process's environment as it was given, where the system shows it: os.Environ
// leaves out what comes twice and what is empty.
func environ() []string {
	raw, err := os.ReadFile("/proc/self/environ")
	if err != nil || len(raw) == 0 {
		return os.Environ()
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}
