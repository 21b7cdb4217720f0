package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// pair is one job with and without the lock; times are in milliseconds.
type pair struct {
	Transport string  `json:"transport"`
	Megabytes int     `json:"megabytes"`
	Clone     float64 `json:"git_clone_ms"`
	Git       float64 `json:"git_ms"`
	Ours      float64 `json:"gitops_ms"`
	Ratio     float64 `json:"ratio"`
}

// uncontendedCommand measures one pipeline alone: clone, edit, commit, push. Each round runs git
// and git gitops, in turns; the ratio is the median of the rounds' ratios.
func uncontendedCommand(args []string) error {
	flags := flag.NewFlagSet("uncontended", flag.ExitOnError)
	binary := flags.String("binary", "bin/git-gitops", "the `FILE` of git-gitops, which must have that name")
	sizes := flags.String("mb", "1,50", "megabytes of the repository: `SIZES`, separated by commas")
	transports := flags.String("over", "path,file,http,ssh", "`TRANSPORTS`, separated by commas")
	rounds := flags.Int("rounds", 20, "`NUMBER` of rounds")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot

	rows := []string{row("OVER", "MB", "GIT CLONE ms", "GIT ms", "GIT GITOPS ms", "RATIO")}
	var results []pair
	for size := range strings.SplitSeq(*sizes, ",") {
		megabytes, err := strconv.Atoi(size)
		if err != nil || megabytes < 0 {
			return fmt.Errorf("-mb: %q is no size", size)
		}
		s, err := newSite(*binary, megabytes, strings.Split(*transports, ",")...)
		if err != nil {
			return err
		}
		defer s.close()
		for transport := range strings.SplitSeq(*transports, ",") {
			p, err := s.pair(transport, max(1, *rounds))
			if err != nil {
				return fmt.Errorf("over %s: %w", transport, err)
			}
			p.Megabytes = megabytes
			results = append(results, p)
			rows = append(rows, row(transport, size, fmt.Sprintf("%.1f", p.Clone), fmt.Sprintf("%.1f", p.Git), fmt.Sprintf("%.1f", p.Ours), fmt.Sprintf("%.3f", p.Ratio)))
		}
		s.close()
	}
	return report(os.Stdout, *asJSON, results, rows)
}

func (s *site) pair(transport string, rounds int) (pair, error) {
	var git, ours, clones, ratios []time.Duration
	for round := range rounds + 2 {
		var took [2]time.Duration
		for k := range 2 {
			which := (round + k) % 2
			if err := s.reset(); err != nil {
				return pair{}, err
			}
			command := []string{"git", "git gitops"}[which]
			began := time.Now()
			_, err := s.bash(context.Background(), nil, prelude+`clone "$4" && date +%s%N >cloned && edit && $4 -C "$w" push -q origin main`, s.urls[transport], "1", "0", command)
			if err != nil {
				return pair{}, err
			}
			took[which] = time.Since(began)
			if which == 0 {
				text, err := os.ReadFile(s.dir + "/cloned")
				if err != nil {
					return pair{}, err
				}
				at, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err != nil {
					return pair{}, err
				}
				clones = append(clones, time.Unix(0, at).Sub(began))
			}
		}
		if round >= 2 { // to warm up
			git, ours = append(git, took[0]), append(ours, took[1])
			ratios = append(ratios, time.Duration(float64(took[1])/float64(took[0])*float64(time.Second)))
		}
	}
	return pair{
		Transport: transport, Clone: percentile(clones, 0.5), Git: percentile(git, 0.5), Ours: percentile(ours, 0.5),
		Ratio: percentile(ratios, 0.5) / 1000,
	}, nil
}
