//go:build unix

package cli

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives f the owner of the file that it replaces: root would take it over otherwise.
// Nobody else may, nor has to.
func keepOwner(f *os.File, replaced fs.FileInfo) {
	if stat, ok := replaced.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(stat.Uid), int(stat.Gid))
	}
}
