//go:build !unix

package process

import "os"

// EndTogether does nothing on this system: what a killed command has started goes on.
func EndTogether() (stop func()) { return func() {} }

func guarded(*os.Process, bool) (ended func()) { return func() {} }
