// Command bench measures what git-gitops costs. It asserts nothing: read its figures against each
// other and within one run, because milliseconds differ from machine to machine and from hour to
// hour. Close what else runs.
//
//	bench handoff [-waiters 1,10,100,1000] [-rounds 200] [-idle 30s] [-json]
//	bench passthrough [-binary bin/git-gitops] [-rounds 200] [-json]
//	bench uncontended [-over path,file,http,ssh] [-mb 1,50] [-rounds 20] [-json]
//	bench pipelines [-n 10,30] [-mb 1,50] [-over http] [-edit 200ms] [-delay 50ms] [-ready] [-strategies NAMES] [-json]
//	bench hook [-binary bin/git-gitops] [-rounds 200] [-json]
//	bench waiters [-n 500] [-idle 30s] [-away 2s] [-json]
//
// handoff starts a redis-server of its own on the loopback address. All waiters live in this
// process, each with connections of its own, and queue for one lock. The holder keeps the lock for
// 2 ms, releases it, and queues again as a new waiter after the next one has it, so that the queue
// stays as long as it is. Its columns:
//
//	P50, P99         from the return of the release to the return of the next acquire. A negative time means that the next one had
//	                 the lock before the last one had its answer.
//	FULL P50, P99    from the call of the release to the return of the next acquire.
//	COMMANDS         what all clients together send to Redis for one hand-off: queueing, blocking, confirming, releasing. Counted in a
//	                 second run by MONITOR, which tells what a client sent from what a script called, and slows the server: so no times
//	                 are taken there.
//	IN SCRIPTS       what the scripts call inside of the server for one hand-off, counted in the same way.
//	IDLE/S, IDLE/HB  commands that one waiter sends in a second, and in one Heartbeat, while nothing happens. It takes an -idle of
//	                 three heartbeats or more to see whole cycles.
//	CONNS, KB        connections of the server and memory it uses, for one waiter, while nothing happens.
//
// passthrough runs the commands one after the other in random order, so many rounds, in a small
// repository, and gives the median and the 90th percentile of a whole process, and the ratio of the
// medians to git's. "exec only" is the floor: a Go program, built on the fly, that does nothing but
// to replace itself with git.
//
// hook runs the hook of a server as git does, in random order: for a push to a protected branch
// that its holder has declared, for one to a branch that is not protected, and as the start of the
// program alone, which reads no configuration and asks no Redis.
//
// uncontended is one pipeline alone, from clone to push, with git and with git gitops in turns.
//
// pipelines starts so many at once on one branch, each a bash script that clones, edits, commits
// and pushes, and takes the time until the last has landed: with git gitops, with the clone inside
// the lock, with a lock name for each and a rebase at the push, with a loop of pull --rebase and
// push, with a SET NX loop around redis-cli, with a lock branch. RATIO is to the serial limit: what
// git alone takes to fetch the difference, edit, commit and push, so many times one after the
// other.
//
// PUSHES is how often the branch was moved, REQUESTS what the server was asked over http. With
// -delay a round trip to it takes so long, through a proxy, and a new connection takes -opening
// round trips more.
//
// waiters has so many wait for one lock as handoff does, and looks at them for a while, twice: once
// at the processor time of the server, once at the commands that they send. CONNS and KB are what
// all of them together add to the server; COMMANDS/S is what they send, IN SCRIPTS/S what the
// scripts call. Then the server is killed, and comes back with its data after -away: BACK AFTER is
// when the last of them has asked again, PEAK what came in the busiest second until then.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	switch verb {
	case "handoff":
		return handoffCommand(args[1:])
	case "passthrough":
		return passthroughCommand(args[1:])
	case "uncontended":
		return uncontendedCommand(args[1:])
	case "pipelines":
		return pipelinesCommand(args[1:])
	case "hook":
		return hookCommand(args[1:])
	case "waiters":
		return waitersCommand(args[1:])
	default:
		return errors.New("what to measure? handoff, hook, passthrough, uncontended, pipelines or waiters")
	}
}

// report prints a result as JSON, or as a table whose rows are tab-separated.
func report(w io.Writer, asJSON bool, result any, rows []string) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(result); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range rows {
		if _, err := fmt.Fprintln(t, row+"\t"); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// row joins cells to a row of the table.
func row(cells ...string) string { return strings.Join(cells, "\t") }

// percentile p, from 0 to 1, by the nearest rank, in milliseconds. It sorts d.
func percentile(d []time.Duration, p float64) float64 {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	rank := int(math.Ceil(p*float64(len(d)))) - 1
	return float64(d[max(0, rank)].Microseconds()) / 1000
}
