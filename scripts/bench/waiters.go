package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

// waiting is what waiters cost while nothing happens, and when the server has been away.
type waiting struct {
	Waiters         int     `json:"waiters"`
	Connections     float64 `json:"connections"`
	Kilobytes       float64 `json:"redis_kilobytes"`
	CommandsPerSec  float64 `json:"commands_per_second"`
	InScriptsPerSec float64 `json:"script_calls_per_second"`
	CPUPercent      float64 `json:"redis_cpu_percent"`

	// After a restart, with their places: how long until the last was back, and the busiest second.
	BackAfter       float64 `json:"back_after_seconds"`
	PeakConnections float64 `json:"peak_connections_per_second"`
	PeakScripts     float64 `json:"peak_scripts_per_second"`
}

func waitersCommand(args []string) error {
	flags := flag.NewFlagSet("waiters", flag.ExitOnError)
	n := flags.Int("n", 500, "`NUMBER` of waiters")
	idle := flags.Duration("idle", 3*lock.DefaultTiming().Heartbeat, "how long to look at them")
	away := flags.Duration("away", 2*time.Second, "for how long the server is away then; 0 for not at all")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot
	if *n < 1 || *idle <= 0 {
		return errors.New("-n and -idle: both must be more than 0")
	}
	r, err := measureWaiters(*n, *idle, *away)
	if err != nil {
		return fmt.Errorf("with %d waiters: %w", *n, err)
	}
	return report(os.Stdout, *asJSON, r, []string{
		row("WAITERS", "CONNS", "KB", "COMMANDS/S", "IN SCRIPTS/S", "REDIS CPU %", "BACK AFTER S", "PEAK CONNS/S", "PEAK SCRIPTS/S"),
		row(strconv.Itoa(r.Waiters), short(r.Connections), short(r.Kilobytes), short(r.CommandsPerSec), short(r.InScriptsPerSec), ms(r.CPUPercent),
			short(r.BackAfter), short(r.PeakConnections), short(r.PeakScripts)),
	})
}

func measureWaiters(n int, idle, away time.Duration) (r waiting, err error) {
	server, admin, stop, err := startRedis("--appendonly", "yes")
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
	r = waiting{
		Waiters:         n,
		Connections:     after["connected_clients"] - before["connected_clients"],
		Kilobytes:       (after["used_memory"] - before["used_memory"]) / 1024,
		CommandsPerSec:  float64(len(counted.sent)) / idle.Seconds(),
		InScriptsPerSec: float64(counted.inScripts) / idle.Seconds(),
		CPUPercent: 100 * (rested["used_cpu_user"] + rested["used_cpu_sys"] - after["used_cpu_user"] - after["used_cpu_sys"]) /
			idle.Seconds(),
	}
	if away <= 0 {
		return r, nil
	}
	server.Kill()
	time.Sleep(away)
	if err := server.Resume(); err != nil {
		return r, fmt.Errorf("restart the server: %w", err)
	}
	return r, r.comeBack(ctx, admin, n)
}

// comeBack looks at waiters that find the server again, until each is connected and has asked.
func (r *waiting) comeBack(ctx context.Context, admin *redis.Client, n int) error {
	const step = 50 * time.Millisecond
	const second = int(time.Second / step)
	began := time.Now()
	var conns, scripts []float64 // in all, at each step
	for {
		stats, err := numbers(ctx, admin, "clients", "stats", "commandstats")
		if err != nil {
			return err
		}
		asked := stats["cmdstat_eval"] + stats["cmdstat_evalsha"]
		conns, scripts = append(conns, stats["total_connections_received"]), append(scripts, asked)
		last := len(conns) - 1
		from := max(0, last-second)
		r.PeakConnections = max(r.PeakConnections, conns[last]-conns[from])
		r.PeakScripts = max(r.PeakScripts, scripts[last]-scripts[from])
		if asked >= float64(n) && stats["connected_clients"] > float64(n) { // ours is one
			r.BackAfter = time.Since(began).Seconds()
			return nil
		}
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
