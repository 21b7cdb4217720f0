package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/git-gitops/git-gitops/internal/gitargs"
)

// TooOldError says that a git lacks what clone and push ask of it.
type TooOldError struct{ Version, Path string }

func (e *TooOldError) Error() string {
	return fmt.Sprintf("git %s (%s) is too old: clone and push need git 2.31 or newer", e.Version, e.Path)
}

// newEnough is a setting that git 2.31 and newer take from the environment. That it is listed
// with the others tells the version without another process.
const newEnough = "gitops.newenough"

// ReadScopedConfig reads all configuration that applies here, in one process. The error is a
// *TooOldError when git is, and what could be read is returned beside it.
func (g Git) ReadScopedConfig(ctx context.Context) (gitargs.ScopedConfig, error) {
	g = g.without("GIT_CONFIG") // which git config alone obeys
	out, err := g.configuring(newEnough, "true").Output(ctx, "config", "-z", "--list", "--show-scope")
	var gitErr *Error
	if errors.As(err, &gitErr) && gitErr.ExitCode == 129 { // no --show-scope before git 2.26
		return gitargs.ParseScopedConfig(nil), g.tooOld(ctx)
	}
	if err != nil {
		return gitargs.ScopedConfig{}, err
	}
	c := gitargs.ParseScopedConfig([]byte(out))
	if _, ok := c.Get(newEnough); !ok {
		return c, g.tooOld(ctx)
	}
	c.Delete(newEnough)
	return c, nil
}

func (g Git) tooOld(ctx context.Context) error {
	version, err := g.Version(ctx)
	if err != nil {
		return err
	}
	return &TooOldError{Version: version, Path: g.Path}
}

// Version is what git says that it is: "2.39.5".
func (g Git) Version(ctx context.Context) (string, error) {
	out, err := g.Output(ctx, "--version")
	return strings.TrimPrefix(strings.TrimSpace(out), "git version "), err
}

// configuring is git with one more setting, which is in no argument list.
func (g Git) configuring(key, value string) Git {
	n := 0
	for _, kv := range g.environment() { // the last one counts
		if text, ok := strings.CutPrefix(kv, "GIT_CONFIG_COUNT="); ok {
			n, _ = strconv.Atoi(text)
		}
	}
	return g.With(fmt.Sprintf("GIT_CONFIG_COUNT=%d", n+1),
		fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, value))
}

// Outside is git outside of any repository, for questions that a clone depends on: the folder
// that it stands in may be a repository that somebody else has made, and whose configuration
// names programs to run. Relative paths and the user's own configuration stay what they are.
func (g Git) Outside() Git {
	outside := Git{Path: g.Path}
	for i := 0; i < len(g.Globals); i++ {
		word := g.Globals[i]
		name, _, joined := strings.Cut(word, "=")
		width := 1
		switch name {
		case "-C", "-c", "--config-env", "--git-dir", "--work-tree", "--namespace", "--super-prefix", "--attr-source", "--shallow-file":
			if !joined || name == "-C" || name == "-c" {
				width = 2
			}
		}
		switch name {
		case "--git-dir", "--work-tree", "--namespace", "--super-prefix", "--attr-source", "--shallow-file", "--bare":
		default:
			outside.Globals = append(outside.Globals, g.Globals[i:min(i+width, len(g.Globals))]...)
		}
		i += width - 1
	}
	outside.env = g.without(append([]string{"GIT_CONFIG"}, repositoryVariables...)...).env
	return outside.With("GIT_DIR=" + os.DevNull) // no repository, and none is looked for
}

// repositoryVariables say which repository is meant, and what belongs to it.
var repositoryVariables = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
	"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_IMPLICIT_WORK_TREE",
}

// without is git with variables taken out of its environment.
func (g Git) without(names ...string) Git {
	env := []string{}
	for _, kv := range g.environment() {
		if name, _, _ := strings.Cut(kv, "="); !slices.Contains(names, name) {
			env = append(env, kv)
		}
	}
	g.env = env
	return g
}

func (g Git) environment() []string {
	if g.env == nil {
		return os.Environ()
	}
	return g.env
}
