package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// decision is what one way through the hook of a server measured; times are in milliseconds.
type decision struct {
	Push   string  `json:"push"`
	Median float64 `json:"median_ms"`
	P90    float64 `json:"p90_ms"`
	More   float64 `json:"more_than_the_start_ms"`
	Ratio  float64 `json:"ratio_to_the_start"`

	args  []string
	input string
	times []time.Duration
}

// hookCommand measures what the hook of a server takes for a push, beside the start of the program
// alone.
func hookCommand(args []string) (err error) {
	flags := flag.NewFlagSet("hook", flag.ExitOnError)
	binary := flags.String("binary", "bin/git-gitops", "the `FILE` of git-gitops, which must have that name")
	rounds := flags.Int("rounds", 200, "`NUMBER` of rounds")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot
	ours, err := filepath.Abs(*binary)
	if err != nil {
		return fmt.Errorf("find the binary: %w", err)
	}
	dir, err := os.MkdirTemp("", "gitops-bench-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	redis, err := redistest.Run(dir)
	if err != nil {
		return err
	}
	defer redis.Stop()
	repo := filepath.Join(dir, "repo.git")
	env := append(os.Environ(), "HOME="+dir, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "REDIS_HOST="+redis.Host, "REDIS_PORT="+redis.Port)
	for _, words := range [][]string{{"init", "-q", "--bare", repo}, {"-C", repo, "config", "gitops.protect", "main"}, {"-C", repo, "config", "gitops.lockRepo", "bench"}} {
		if err := runOnce(dir, env, "git", words...); err != nil {
			return err
		}
	}
	old, tip := strings.Repeat("1", 40), strings.Repeat("2", 40)
	if err := declareOnce(redis.Addr(), lock.Update{Ref: "refs/heads/main", Old: old, New: tip}); err != nil {
		return err
	}

	hook := []string{"pre-receive", "none"}
	all := []*decision{
		{Push: "the start of the program alone", args: []string{"pre-receive"}},
		{Push: "to a branch that is not protected", args: hook, input: old + " " + tip + " refs/heads/other\n"},
		{Push: "to a protected branch", args: hook, input: old + " " + tip + " refs/heads/main\n"},
	}
	for round := range warmUp + *rounds {
		for _, i := range rand.Perm(len(all)) { //nolint:gosec // shuffles, guards nothing
			d := all[i]
			cmd := exec.Command(ours, d.args...) //nolint:gosec // what is measured
			cmd.Dir, cmd.Env, cmd.Stdin = repo, env, strings.NewReader(d.input)
			began := time.Now()
			out, err := cmd.CombinedOutput()
			took := time.Since(began)
			if i > 0 && err != nil { // the first gets how it is used
				return fmt.Errorf("the hook: %w: %s", err, out)
			}
			if round >= warmUp {
				d.times = append(d.times, took)
			}
		}
	}
	rows := []string{row("PUSH", "MEDIAN ms", "P90 ms", "MORE ms", "RATIO")}
	for _, d := range all {
		d.Median, d.P90 = percentile(d.times, 0.5), percentile(d.times, 0.9)
		d.More, d.Ratio = d.Median-all[0].Median, d.Median/all[0].Median
		rows = append(rows, row(d.Push, ms(d.Median), ms(d.P90), ms(d.More), fmt.Sprintf("%.2f", d.Ratio)))
	}
	return report(os.Stdout, *asJSON, all, rows)
}

// declareOnce has somebody hold the lock of the branch, who has declared an update.
func declareOnce(addr string, u lock.Update) error {
	store := redisstore.Open(redisstore.Options{Addrs: []string{addr}})
	defer func() { _ = store.Close() }()
	ctx := context.Background()
	r := lock.Request{Key: lock.Key{Repo: "bench", Branch: "main"}, Token: lock.NewToken(), TTL: time.Hour}
	if _, err := store.TryAcquire(ctx, lock.Try{Request: r}); err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	if _, err := store.Renew(ctx, r.Hold(), lock.RenewOptions{Intent: []lock.Update{u}}); err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	return nil
}
