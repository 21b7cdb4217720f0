// Package gittest has what the tests of all packages share: an environment for git that knows
// nothing of the machine, programs that can be run at once, and how to wait for a condition.
package gittest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Env is git's environment in tests: nobody's configuration, no questions, one author.
func Env() []string {
	return []string{
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
}

// Git is a git command in a folder, which it takes for its home, in that environment.
func Git(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...) //nolint:gosec // a test's own words
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "GIT_") })
	cmd.Env = append(append(cmd.Env, Env()...), "HOME="+dir, "GIT_CEILING_DIRECTORIES="+dir)
	return cmd
}

// RaceSettings is GORACE for programs that are built with -race: without it, each waits a second at
// its end.
const RaceSettings = "atexit_sleep_ms=0"

// Main runs all tests of a package in that environment, with a home of their own, and returns the
// exit code.
func Main(run func() int) int {
	home, err := os.MkdirTemp("", "gitops-test-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(home) }()
	for _, kv := range append(Env(), "HOME="+home) {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	return run()
}
