//go:build !unix

package workspace

import "os"

// private reports whether it is a folder: temporary files are the user's own here.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir()
}
