//go:build !unix

package process

// Exec runs the program in our place. This system cannot replace a process: it is a child.
func (c Command) Exec() (Exit, error) { return c.Run() }
