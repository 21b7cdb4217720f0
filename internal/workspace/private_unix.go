//go:build unix

package workspace

import (
	"os"
	"syscall"
)

// private reports whether a folder is ours alone: nobody else can put anything there.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
