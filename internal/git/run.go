package git

import (
	"context"
	"fmt"

	"github.com/git-gitops/git-gitops/internal/process"
)

// Run runs git with the user's own terminal, descriptors and working directory, and passes
// signals on to it. It returns when git has ended.
func (g Git) Run(args ...string) (process.Exit, error) { return g.command(args).Run() }

// RunCapturing is Run, and also returns the end of what git wrote to stderr, which passes through
// us on its way. It is not for a terminal: git would see that it has none.
func (g Git) RunCapturing(args ...string) (process.Exit, string, error) {
	return g.command(args).RunCapturing()
}

// RunWithInput is Run with input on stdin.
func (g Git) RunWithInput(input []byte, args ...string) (process.Exit, error) {
	return g.command(args).RunWithInput(input)
}

// Exec replaces this process with git. It returns only when that fails; where a process cannot be
// replaced, git is a child.
func (g Git) Exec(args ...string) (process.Exit, error) { return g.command(args).Exec() }

// WithoutPrompts is a git that opens no window to ask for a password. (Without a terminal it
// would.)
func (g Git) WithoutPrompts() Git {
	return g.With("GIT_ASKPASS=", "SSH_ASKPASS_REQUIRE=never")
}

// Background is a git that runs beside us.
type Background struct {
	*process.Background
	args []string // without the global options
}

// Background starts a git without the user's terminal and input.
func (g Git) Background(args ...string) (*Background, error) {
	b, err := g.command(args).Start()
	return &Background{b, args}, err
}

// Wait waits for the end and returns what git wrote to stderr. When ctx ends first, git is stopped.
// The error is an *Error when git failed.
func (b *Background) Wait(ctx context.Context) (stderr string, err error) {
	stderr, exit, err := b.Background.Wait(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", err
	case err != nil:
		return "", fmt.Errorf("git: %w", err)
	case !exit.OK():
		return "", failed(b.args, exit, stderr)
	}
	return stderr, nil
}
