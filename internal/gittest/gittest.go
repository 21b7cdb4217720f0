// Package gittest has what tests share that run git: an environment that knows nothing of the
// machine, and files that can be run at once.
package gittest

import (
	"os"
	"strings"
)

// Env is git's environment in tests: nobody's configuration, no questions, one author.
func Env() []string {
	return []string{
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
}

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
