//go:build !unix

package workspace

import "os"

const (
	shared = iota
	alone
)

func flock(*os.File, int) {}

// rewrite changes what is in a file that is there. A reader must not see half of it, and there are
// no locks between the two here.
func (d Dir) rewrite(file string, data []byte) error {
	if _, err := os.Stat(file); err != nil {
		return unwritable(file, err)
	}
	return d.replace(file, data)
}

// access is an error when there is no such folder; whether the user may write there is seen by
// trying.
func access(folder string) error {
	_, err := os.Stat(folder)
	return err
}
