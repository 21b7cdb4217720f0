//go:build unix && !linux

package git

// endWithGit does nothing: this system does not tell the children of a process of its end.
func endWithGit() {}
