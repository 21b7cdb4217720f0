// Command demo shows what git-gitops is for, in a few seconds and with nothing installed but Go and
// git.
//
// It runs the same pipeline 8 times at once against one branch of a repository in a temporary
// folder: with plain git, with plain git in a rebase-and-retry loop, and with every git replaced by
// git gitops. The lock is kept on an embedded Redis, unless REDIS_* is set. It ends with a table,
// and with exit code 1 if git gitops did not keep its promise: all pipelines land, nothing is
// rejected or lost.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	pipelines = 8
	// limit is the longest that everything may take before it counts as hanging.
	limit = time.Minute
)

//go:embed plain.sh
var plainScript string

//go:embed retry.sh
var retryScript string

func main() {
	binary := flag.String("binary", "bin/git-gitops", "the `FILE` of git-gitops, which must have that name")
	flag.Parse()
	if err := run(*binary); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(binary string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	if binary, err = filepath.Abs(binary); err != nil {
		return fmt.Errorf("find the binary: %w", err)
	}
	if strings.TrimSuffix(filepath.Base(binary), ".exe") != "git-gitops" {
		return fmt.Errorf("git finds its subcommand by name, and %s is not named git-gitops", binary)
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("find the binary: %w", err)
	}
	dir, err := os.MkdirTemp("", "gitops-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	settings, redis, stopRedis, err := ensureRedis()
	if err != nil {
		return err
	}
	defer stopRedis()
	env := environment(dir, filepath.Dir(binary), settings)

	fmt.Printf("%d pipelines at once, one branch, %s.\n\nThe pipeline:\n%s\n", pipelines, redis, indent(plainScript))
	plain, err := compete(ctx, "plain git", filepath.Join(dir, "plain"), plainScript, env)
	if err != nil {
		return err
	}
	fmt.Printf("With a retry loop instead of the last line:\n%s\n", indent(retryScript[strings.Index(retryScript, "\nuntil ")+1:]))
	retry, err := compete(ctx, "plain git, rebase and retry", filepath.Join(dir, "retry"), retryScript, env)
	if err != nil {
		return err
	}
	ours := throughGitops(plainScript)
	fmt.Printf("And with git gitops instead of git, nothing else changed:\n%s\n", indent(ours))
	guarded, err := compete(ctx, "git gitops", filepath.Join(dir, "gitops"), ours, env)
	if err != nil {
		return err
	}
	if err := table(os.Stdout, plain, retry, guarded); err != nil {
		return err
	}
	fmt.Printf("\nWho holds, who waits and what happened, in a browser: %s serve --demo\n", flag.Lookup("binary").Value)
	return guarded.promise()
}

// throughGitops is a script with git gitops wherever it runs git.
func throughGitops(script string) string {
	return strings.ReplaceAll(script, "\ngit ", "\ngit gitops ")
}

// environment is that of every pipeline: the same on every machine, whatever git configuration and
// git-gitops settings its user has, except the Redis server.
func environment(home, bin string, settings []string) []string {
	var env []string
	for _, entry := range os.Environ() {
		key, _, _ := strings.Cut(entry, "=")
		ours := strings.HasPrefix(key, "GIT") && !strings.HasPrefix(key, "GITOPS_REDIS_")
		if !ours && key != "HOME" && key != "PATH" {
			env = append(env, entry)
		}
	}
	env = append(env, settings...)
	return append(env,
		"HOME="+home,
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"LC_ALL=C",
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Demo", "GIT_AUTHOR_EMAIL=demo@example.com",
		"GIT_COMMITTER_NAME=Demo", "GIT_COMMITTER_EMAIL=demo@example.com",
		fmt.Sprintf("GITOPS_LOCK_TIMEOUT=%d", int(limit.Seconds())),
	)
}

func indent(script string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(script, "\n"), "\n", "\n    ") + "\n"
}

func table(w io.Writer, results ...result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "\tSUCCEEDED\tLANDED\tREJECTED\tLOST UPDATES\tSECONDS\tHAND-OVER")
	for _, r := range results {
		handOver := "-"
		if r.handOver > 0 {
			handOver = r.handOver.Round(100 * time.Microsecond).String()
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%.1f\t%s\n", r.name, r.succeeded, r.landed, r.rejected, r.lost(), r.took.Seconds(), handOver)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	_, err := fmt.Fprint(w, `
SUCCEEDED     pipelines that ended with exit code 0
LANDED        commits on the branch
REJECTED      pushes that git refused
LOST UPDATES  pipelines that succeeded and whose increment is not in the counter
HAND-OVER     median time from "pushed" in one pipeline to "got the lock" in the next, seen from outside
`)
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}
