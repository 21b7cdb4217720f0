//go:build unix

package shim

import (
	"io/fs"
	"syscall"
)

// LinkName is the name of git's program.
const LinkName = "git"

// defaultPath is that of the C libraries in use: glibc's two, and the one that musl adds.
const defaultPath = "/bin:/usr/bin:/usr/local/bin"

// executable reports whether this user may run the file, which is what a shell asks before it takes
// a file from PATH.
func executable(path string, info fs.FileInfo) bool {
	const xOK = 1 // X_OK of access(2)
	return info.Mode()&0o111 != 0 && syscall.Access(path, xOK) == nil
}
