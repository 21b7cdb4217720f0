//go:build !unix

package git

import (
	"errors"
	"os"
)

// Detach is not to be had on this system: locks then live by their TTL.
func Detach(string, string, []string, []byte, *os.File) (pid int, err error) {
	return 0, errors.New("no background processes on this system")
}
