package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// result is what became of one way to run the pipelines.
type result struct {
	name      string
	succeeded int           // pipelines that exited 0
	landed    int           // commits on the branch
	counter   int           // the number in the file at the end
	rejected  int           // pushes that git refused
	took      time.Duration // all pipelines together
	handOver  time.Duration // median; 0 when none was seen
	failures  []string      // output of pipelines that failed
}

func (r result) lost() int { return r.succeeded - r.counter }

// promise is an error when these pipelines did not all land.
func (r result) promise() error {
	if r.succeeded == pipelines && r.landed == pipelines && r.counter == pipelines && r.rejected == 0 {
		return nil
	}
	return fmt.Errorf("%s broke its promise: %d of %d pipelines landed, %d pushes were rejected, %d updates lost\n%s",
		r.name, r.landed, pipelines, r.rejected, r.lost(), strings.Join(r.failures, "\n"))
}

// compete runs the script in all pipelines at once, on a repository of their own in dir.
func compete(ctx context.Context, name, dir, script string, env []string) (result, error) {
	repo := filepath.Join(dir, "repo.git")
	if err := seed(ctx, dir, repo, env); err != nil {
		return result{}, err
	}
	file := filepath.Join(dir, "pipeline.sh")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return result{}, fmt.Errorf("write the script: %w", err)
	}

	all := make([]*pipeline, pipelines)
	var wg sync.WaitGroup
	started := time.Now()
	for i := range all {
		all[i] = &pipeline{dir: filepath.Join(dir, strconv.Itoa(i+1))}
		wg.Go(func() { all[i].run(ctx, file, strconv.Itoa(i+1), append(env[:len(env):len(env)], "REPO="+repo)) })
	}
	wg.Wait()
	r := result{name: name, took: time.Since(started)}
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("%s did not come to an end: %w", name, err)
	}

	var landed, got []time.Time
	for _, p := range all {
		if p.err == nil {
			r.succeeded++
		} else {
			r.failures = append(r.failures, fmt.Sprintf("%s: %v\n%s", filepath.Base(p.dir), p.err, p.output.String()))
		}
		r.rejected += p.rejected
		landed, got = append(landed, p.landed...), append(got, p.got...)
	}
	r.handOver = median(between(landed, got))
	return r, r.look(ctx, repo, env)
}

// look reads what is in the repository now.
func (r *result) look(ctx context.Context, repo string, env []string) error {
	commits, err := git(ctx, repo, env, "rev-list", "--count", "main")
	if err != nil {
		return err
	}
	counter, err := git(ctx, repo, env, "show", "main:counter")
	if err != nil {
		return err
	}
	if r.landed, err = strconv.Atoi(commits); err != nil {
		return fmt.Errorf("count the commits: %w", err)
	}
	r.landed-- // the seed
	if r.counter, err = strconv.Atoi(counter); err != nil {
		return fmt.Errorf("read the counter: %w", err)
	}
	return nil
}

// seed makes the bare repository, with one commit that has the counter at 0.
func seed(ctx context.Context, dir, repo string, env []string) error {
	work := filepath.Join(dir, "seed")
	if err := os.MkdirAll(work, 0o700); err != nil {
		return fmt.Errorf("make the repository: %w", err)
	}
	if err := os.WriteFile(filepath.Join(work, "counter"), []byte("0\n"), 0o600); err != nil {
		return fmt.Errorf("write the counter: %w", err)
	}
	for _, args := range [][]string{
		{"init", "--bare", "-b", "main", repo},
		{"init", "-b", "main"},
		{"add", "counter"},
		{"commit", "-m", "the counter"},
		{"push", repo, "main"},
	} {
		if _, err := git(ctx, work, env, args...); err != nil {
			return err
		}
	}
	return nil
}

func git(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // words of this program
	cmd.Dir, cmd.Env = dir, env
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", args[0], err, complaint.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// pipeline is one run of the script, and what its output said.
type pipeline struct {
	dir      string
	err      error
	output   bytes.Buffer
	landed   []time.Time // when git said that a push was accepted
	got      []time.Time // when the lock came after a wait
	rejected int
}

func (p *pipeline) run(ctx context.Context, script, number string, env []string) {
	if p.err = os.Mkdir(p.dir, 0o700); p.err != nil {
		return
	}
	cmd := exec.CommandContext(ctx, "sh", script, number) //nolint:gosec // the demo's own script
	cmd.Dir, cmd.Env = p.dir, env
	cmd.WaitDelay = time.Second // for what a killed script leaves behind
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(reader)
	}()
	p.err = cmd.Run()
	_ = writer.Close()
	<-read
}

// read notes when the lines came that matter.
func (p *pipeline) read(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		now, line := time.Now(), lines.Text()
		p.output.WriteString(line + "\n")
		switch {
		case strings.HasPrefix(line, " ! ["): // [rejected], [remote rejected]
			p.rejected++
		case strings.HasSuffix(line, " main -> main"):
			p.landed = append(p.landed, now)
		case strings.HasPrefix(line, "gitops: got the lock"):
			p.got = append(p.got, now)
		}
	}
}

// between pairs each grant with the push before it.
func between(landed, got []time.Time) []time.Duration {
	slices.SortFunc(landed, time.Time.Compare)
	slices.SortFunc(got, time.Time.Compare)
	var gaps []time.Duration
	for i := range min(len(landed), len(got)) {
		gaps = append(gaps, got[i].Sub(landed[i]))
	}
	return gaps
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}
