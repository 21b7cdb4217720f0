package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// warmUp rounds are not measured.
const warmUp = 10

// process is what one command line measured; times are in milliseconds.
type process struct {
	Command string  `json:"command"`
	Median  float64 `json:"median_ms"`
	P90     float64 `json:"p90_ms"`
	Ratio   float64 `json:"ratio_to_git"`

	path  string
	args  []string
	times []time.Duration
}

// floorSource is the least that a stand-in for git written in Go can be.
const floorSource = `package main

import (
	"os"
	"syscall"
)

func main() {
	args := append([]string{"git"}, os.Args[1:]...)
	if err := syscall.Exec(%q, args, os.Environ()); err != nil {
		panic(err)
	}
}
`

func passthroughCommand(args []string) (err error) {
	flags := flag.NewFlagSet("passthrough", flag.ExitOnError)
	binary := flags.String("binary", "bin/git-gitops", "the `FILE` of git-gitops, which must have that name")
	rounds := flags.Int("rounds", 200, "`NUMBER` of rounds")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot
	ours, err := filepath.Abs(*binary)
	if err != nil {
		return fmt.Errorf("find the binary: %w", err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return fmt.Errorf("find git: %w", err)
	}
	dir, err := os.MkdirTemp("", "gitops-bench-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env := append(os.Environ(), "HOME="+dir, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"PATH="+filepath.Dir(ours)+string(filepath.ListSeparator)+os.Getenv("PATH"))

	repo := filepath.Join(dir, "repo")
	if err := runOnce(dir, env, git, "init", "-q", repo); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(repo, "file"), []byte("text\n"), 0o600); err != nil {
		return fmt.Errorf("write a file: %w", err)
	}
	shim := filepath.Join(dir, "shim", "git")
	if err := errors.Join(os.Mkdir(filepath.Dir(shim), 0o700), os.Symlink(ours, shim)); err != nil {
		return fmt.Errorf("make the shim: %w", err)
	}
	all := []*process{
		{Command: "git status", path: git, args: []string{"status"}},
		{Command: "git-gitops status", path: ours, args: []string{"status"}},
		{Command: "shim, git status", path: shim, args: []string{"status"}},
		{Command: "git gitops status", path: git, args: []string{"gitops", "status"}},
	}
	if runtime.GOOS != "windows" { // which cannot replace a process
		floor, err := buildFloor(dir, git)
		if err != nil {
			return err
		}
		all = append(all, &process{Command: "exec only, status", path: floor, args: []string{"status"}})
	}
	for round := range warmUp + *rounds {
		for _, i := range rand.Perm(len(all)) { //nolint:gosec // shuffles, guards nothing
			p := all[i]
			began := time.Now()
			if err := runOnce(repo, env, p.path, p.args...); err != nil {
				return err
			}
			if round >= warmUp {
				p.times = append(p.times, time.Since(began))
			}
		}
	}

	rows := []string{row("COMMAND", "MEDIAN ms", "P90 ms", "RATIO TO GIT")}
	for _, p := range all {
		p.Median, p.P90 = percentile(p.times, 0.5), percentile(p.times, 0.9)
		p.Ratio = p.Median / all[0].Median
		rows = append(rows, row(p.Command, ms(p.Median), ms(p.P90), fmt.Sprintf("%.2f", p.Ratio)))
	}
	return report(os.Stdout, *asJSON, all, rows)
}

func buildFloor(dir, git string) (string, error) {
	source, program := filepath.Join(dir, "floor.go"), filepath.Join(dir, "floor")
	if err := os.WriteFile(source, fmt.Appendf(nil, floorSource, git), 0o600); err != nil {
		return "", fmt.Errorf("write the floor: %w", err)
	}
	build := append(os.Environ(), "CGO_ENABLED=0")
	return program, runOnce(dir, build, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, source)
}

// runOnce runs a program to its end, without its output.
func runOnce(dir string, env []string, path string, args ...string) error {
	cmd := exec.Command(path, args...) //nolint:gosec // what the user of this program wants measured
	cmd.Dir, cmd.Env = dir, env
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %v: %w", path, args, err)
	}
	return nil
}
