package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/term"
)

// prePush is the hook: `git-gitops pre-push HOOK REMOTE URL`, with git's list of refs on stdin. The
// hooks that ours stands in for come first: they may take long, and may stop the push.
func (c *command) prePush(args []string) int {
	out := term.New(os.Stderr)
	if len(args) != 3 {
		return fail(out, &usageError{verb: "pre-push", err: errors.New("git runs this, from the hook that install writes")})
	}
	hook, remote, url := args[0], args[1], args[2]
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fail(out, fmt.Errorf("read what git pushes: %w", err))
	}
	repo, placed := c.git.State(context.Background())
	others := hooks.Others(repo.CommonDir, hook)
	for _, other := range others {
		exit, err := runHook(other, []string{remote, url}, input)
		if err != nil {
			return fail(out, err)
		}
		if !exit.OK() {
			return exit.Code
		}
	}
	if placed == nil && git.HasProgram("lfs") && hooks.HasLFS(repo.CommonDir) && !slices.ContainsFunc(append(others, hook), hooks.RunsLFS) {
		// Git LFS does not install its hook where there is another one.
		exit, err := c.git.RunWithInput(input, "lfs", "pre-push", remote, url)
		if err != nil {
			return fail(out, err)
		}
		if !exit.OK() {
			return exit.Code
		}
	}
	push, err := gitops.PushingGit()
	if err != nil {
		return fail(out, fmt.Errorf("find the git that pushes: %w", err))
	}
	if gitops.Guarded(push) {
		return 0
	}
	updates, err := hooks.ReadUpdates(bytes.NewReader(input))
	if err != nil {
		return fail(out, err)
	}
	ctx, stop := c.interruptible()
	defer stop()
	c.endWith(ctx, &push)
	// A lock belongs to the script that pushes, also when a hook manager stands between git and us.
	o, err := c.open(ctx, out, push.PID)
	if err != nil {
		return fail(out, because(ctx, err))
	}
	defer o.close()
	refs := make([]gitops.RefUpdate, len(updates))
	for i, u := range updates {
		refs[i] = gitops.RefUpdate(u)
	}
	if err := o.flows().PrePush(ctx, push, remote, url, refs); err != nil {
		return fail(out, because(ctx, err))
	}
	return 0
}

// runHook runs another hook with the arguments and the input that git gave ours. One that git would
// not run succeeds.
func runHook(path string, args []string, input []byte) (process.Exit, error) {
	if !hooks.Runs(path) {
		return process.Exit{}, nil
	}
	path, err := filepath.Abs(path) // a name without a slash would be searched on PATH
	if err != nil {
		return process.Exit{}, fmt.Errorf("find the hook: %w", err)
	}
	hook := process.Command{Path: path, Args: args}
	if runtime.GOOS == "windows" { // which knows no #!; git's shell, which runs our hook, does
		hook = process.Command{Path: "sh", Args: append([]string{"-c", `exec "$0" "$@"`, path}, args...)}
	}
	return hook.RunWithInput(input)
}
