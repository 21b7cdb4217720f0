//go:build unix

package workspace

import (
	"os"
	"path/filepath"
	"syscall"
)

// exclusive keeps others from changing entries until it is undone: who is handed a lock saves its entry while the one
// before removes its own. Where that cannot be had, nobody is kept.
func (d Dir) exclusive() (undo func()) {
	f, err := os.OpenFile(filepath.Join(string(d), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return func() {}
	}
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	return func() { _ = f.Close() }
}
