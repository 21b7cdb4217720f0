package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrGone says that a process does not exist, or has ended and is a zombie.
var ErrGone = errors.New("no such process")

// Process is a process that cannot be mistaken for another: its pid with its
// start time.
type Process struct {
	PID int `json:"pid"`

	// Start is when the process started, to be compared only with other
	// start times of the same host. Linux: clock ticks since boot, field 22 of
	// /proc/PID/stat, see proc_pid_stat(5). macOS and Windows: microseconds
	// since 1970.
	Start int64 `json:"start"`

	// Name is the base name of the executable, for people to read.
	Name string `json:"name,omitempty"`
}

// Lookup returns the process that has the pid now. The error wraps [ErrGone]
// if there is none.
func Lookup(pid int) (Process, error) {
	p, err := stat(pid)
	if err != nil {
		return Process{}, err
	}
	p.describe()
	return p.Process, nil
}

// Parent returns the parent of a process. The error wraps [ErrGone] if there is none.
func Parent(pid int) (Process, error) {
	p, err := stat(pid)
	if err != nil {
		return Process{}, err
	}
	if p, err = parent(p); err != nil {
		return Process{}, err
	}
	p.describe()
	return p.Process, nil
}

// Alive reports whether the process still runs: the same pid with the same
// start time, and not a zombie. A process that can't be examined counts as
// alive, because a lock must not be taken away on a doubt.
func (p Process) Alive() bool {
	q, err := stat(p.PID)
	if err != nil {
		return !errors.Is(err, ErrGone)
	}
	return q.same(p)
}

// same reports whether both are one process, which may have changed its name.
func (p Process) same(q Process) bool {
	return p.PID == q.PID && p.Start == q.Start
}

// poll waits until the process has ended, looking each interval, and returns
// nil then, or ctx's error.
func (p Process) poll(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for p.Alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// pollInterval is how often Wait checks a process that does not notify it.
const pollInterval = 500 * time.Millisecond

// proc is a process as the rules need to see it. stat fills the first fields, and describe the last
// two as far as this user may know them.
type proc struct {
	Process
	ppid   int
	execed bool // it is known to run a program of its own, not a copy of its parent

	ignores bool // interrupts (SIGINT), as a shell's background jobs do; false if unknown

	exe  string   // path of the executable
	args []string // command line, with the command's name first
}

// parent returns the parent of p, undescribed.
func parent(p proc) (proc, error) {
	q, err := stat(p.ppid)
	if err == nil && q.Start > p.Start {
		// Where nobody adopts orphans (Windows), the parent's pid may be in
		// use again.
		return proc{}, fmt.Errorf("process %d: %w", p.ppid, ErrGone)
	}
	return q, err
}

// maxDepth bounds the climb, should a process table be as wrong as to have a
// loop.
const maxDepth = 1000

// ancestors returns the processes above pid, nearest first and described.
func ancestors(pid int) []proc {
	var up []proc
	p, err := stat(pid)
	for err == nil && len(up) < maxDepth {
		if p, err = parent(p); err == nil {
			p.describe()
			up = append(up, p)
		}
	}
	return up
}
