package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

// waiting is what waiters cost while nothing happens.
type waiting struct {
	Waiters         int     `json:"waiters"`
	Connections     float64 `json:"connections"`
	Kilobytes       float64 `json:"redis_kilobytes"`
	CommandsPerSec  float64 `json:"commands_per_second"`
	InScriptsPerSec float64 `json:"script_calls_per_second"`
	CPUPercent      float64 `json:"redis_cpu_percent"`
}

func waitersCommand(args []string) error {
	flags := flag.NewFlagSet("waiters", flag.ExitOnError)
	n := flags.Int("n", 500, "`NUMBER` of waiters")
	idle := flags.Duration("idle", 3*lock.DefaultTiming().Heartbeat, "how long to look at them")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot
	if *n < 1 || *idle <= 0 {
		return errors.New("-n and -idle: both must be more than 0")
	}
	r, err := measureWaiters(*n, *idle)
	if err != nil {
		return fmt.Errorf("with %d waiters: %w", *n, err)
	}
	return report(os.Stdout, *asJSON, r, []string{
		row("WAITERS", "CONNS", "KB", "COMMANDS/S", "IN SCRIPTS/S", "REDIS CPU %"),
		row(strconv.Itoa(r.Waiters), short(r.Connections), short(r.Kilobytes), short(r.CommandsPerSec), short(r.InScriptsPerSec), ms(r.CPUPercent)),
	})
}

func measureWaiters(n int, idle time.Duration) (r waiting, err error) {
	server, admin, stop, err := startRedis()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	q := &queue{granted: make(chan grant), waiting: make(chan struct{}, 1)}
	var before map[string]float64
	for i := range n + 1 { // the first holds the lock
		s := redisstore.Open(redisstore.Options{Addrs: []string{server.Addr()}})
		defer func() { _ = s.Close() }()
		if err := q.join(ctx, s); err != nil {
			return r, err
		}
		if i == 0 {
			if before, err = usage(ctx, admin); err != nil {
				return r, err
			}
		}
	}
	after, err := usage(ctx, admin)
	if err != nil {
		return r, err
	}
	// MONITOR makes work of its own, so the processor is looked at without it.
	time.Sleep(idle)
	rested, err := usage(ctx, admin)
	if err != nil {
		return r, err
	}
	counted, err := count(ctx, admin, server.Addr(), func() error { time.Sleep(idle); return nil })
	if err != nil {
		return r, err
	}
	return waiting{
		Waiters:         n,
		Connections:     after["connected_clients"] - before["connected_clients"],
		Kilobytes:       (after["used_memory"] - before["used_memory"]) / 1024,
		CommandsPerSec:  float64(len(counted.sent)) / idle.Seconds(),
		InScriptsPerSec: float64(counted.inScripts) / idle.Seconds(),
		CPUPercent: 100 * (rested["used_cpu_user"] + rested["used_cpu_sys"] - after["used_cpu_user"] - after["used_cpu_sys"]) /
			idle.Seconds(),
	}, nil
}
