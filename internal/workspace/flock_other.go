//go:build !unix

package workspace

import "os"

const (
	shared = iota
	alone
)

func flock(*os.File, int) {}

// rewrite changes what is in a file that is there. A reader must not see half of it, and there are no
// locks between the two here.
func rewrite(file string, data []byte) error {
	if _, err := os.Stat(file); err != nil {
		return err
	}
	return replace(file, data)
}
