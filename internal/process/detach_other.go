//go:build !unix

package process

import (
	"errors"
	"os"
)

// Detach is not available on this system: locks then live by their TTL.
func Detach(string, string, []string, []byte, *os.File) (pid int, err error) {
	return 0, errors.New("no background processes on this system")
}
