//go:build !unix

package git

// Exec runs git in our place. This system cannot replace a process, so git is a child.
func (g Git) Exec(args ...string) (Exit, error) { return g.Run(args...) }
