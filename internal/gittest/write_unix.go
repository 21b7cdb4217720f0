//go:build unix

package gittest

import (
	"os"
	"syscall"
)

// WriteProgram writes a file that is run next. While it is open, no other test starts a process:
// until that one has begun its program, it would have the file open too, and the system does not
// run what is open for writing (ETXTBSY).
func WriteProgram(path, content string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(content), 0o755) //nolint:gosec // it is to be run
}
