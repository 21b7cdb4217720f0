//go:build unix && !linux

package process

// endWithGit does nothing: this system does not tell the children of a process of its end.
func endWithGit() {}
