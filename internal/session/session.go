// Package session finds the process that a lock belongs to, and tells whether
// it still lives.
//
// A script is many processes: subshells, pipeline elements, background jobs,
// build tools that start a shell for each line. The session is the one of
// them whose end means that the script has ended; the holder chain is what
// lies between it and git, and tells the jobs of one script apart. Which
// process that is, is a matter of rules over the ancestors of git: rules.go.
package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// Workspace is the override with which a lock has no owner process, for
// scripts whose steps run in containers of their own.
const Workspace = "workspace"

// Session is the owner of a lock, and the chain that leads to it.
type Session struct {
	// Host names the process table that the pids below belong to, see [Host].
	Host string `json:"host"`

	// Owner is the process whose end ends the lock. It is nil if there is
	// none: on request ([Workspace]), or because nothing above git would do:
	// git is a container's first process, was started by an init process, or
	// has outlived its script.
	Owner *Process `json:"owner,omitempty"`

	// Chain is the holder chain: git's parent and what is above it, up to and
	// without the owner; if git's parent is the owner, just the owner. If
	// [Workspace] was asked for, it ends with who would be the owner. It is
	// empty if nothing above git would do.
	Chain []Process `json:"chain,omitempty"`

	// Heir: the part of the script that ran git ended right after it, as $( ) does, and the chain
	// is what was above it (see [Session.Inherit]).
	Heir bool `json:"heir,omitempty"`
}

// Host identifies the process table that pids of this machine or container
// refer to. Two processes that get the same answer see the same processes
// under the same pids. The text is opaque and changes with each boot, except
// on Windows, where the start times of processes tell boots apart.
var Host = sync.OnceValue(hostID)

// Detect finds the session of the command self, usually [os.Getpid].
//
// It first goes up from self to git's parent, past what is git itself and
// what lives no longer than git: git and git-gitops, the "sh -c" in which git
// runs an alias, and wrappers such as sudo, timeout and xargs. A git hook is
// not passed: a hook that calls git is a script like any other.
//
// The override is the user's choice of owner: "" for none, [Workspace], or
// the decimal pid of a living process, otherwise it is an error, which wraps
// [ErrGone] if there is no such process.
func Detect(self int, override string) (Session, error) {
	s := Session{Host: Host()}
	up := ancestors(self)
	from, owner, found := find(up)
	if found {
		s.Chain = chain(up, from, owner)
	}

	switch override {
	case Workspace:
		if found { // its end ends nothing, but it is part of what waits
			s.Chain = chain(up, from, owner+1)
		}
	case "":
		if found {
			s.Owner = &up[owner].Process
		}
	default:
		pid, err := strconv.Atoi(override)
		if err != nil || pid <= 0 {
			return Session{}, fmt.Errorf("lock session %q: want a process id or %q", override, Workspace)
		}
		p, err := Lookup(pid)
		if err != nil {
			return Session{}, fmt.Errorf("lock session: %w", err)
		}
		s.Owner = &p
		i := slices.IndexFunc(up, func(q proc) bool { return q.same(p) })
		if found && i >= from {
			s.Chain = chain(up, from, i)
		}
	}
	return s, nil
}

// chain returns the holder chain of up[owner] for a git whose parent is
// up[from].
func chain(up []proc, from, owner int) []Process {
	var c []Process
	for _, p := range up[from:max(owner, from+1)] {
		c = append(c, p.Process)
	}
	return c
}

// Same reports whether both sessions have the same owner process. Sessions
// without an owner are never the same.
func (s Session) Same(t Session) bool {
	return s.Host == t.Host && s.Owner != nil && t.Owner != nil && s.Owner.same(*t.Owner)
}

// Alive reports whether the owner lives. A session without an owner lives for
// ever; so does, as far as this host can see, one of another host.
func (s Session) Alive() bool {
	return s.Owner == nil || s.Host != Host() || s.Owner.Alive()
}

// rest is what lives of the part of a script that took a lock: the lowest living process of the
// chain, or the owner. ended says that something below it has ended.
func (s Session) rest() (p Process, ended, ok bool) {
	if s.Host != Host() {
		return Process{}, false, false
	}
	for i, p := range s.Chain {
		if p.Alive() {
			return p, i > 0, true
		}
	}
	if s.Owner != nil && s.Owner.Alive() {
		return *s.Owner, true, true
	}
	return Process{}, false, false
}

// Stand is how a command stands to the part of a script that took a lock.
type Stand int

// How a command can stand to a part of a script.
const (
	Beside Stand = iota // it is no part of it, or this can't be seen from here
	Apart               // so it is, and the part has ended
	Within              // it descends from the lowest living process of the chain
	Behind              // it descends from what is left above a part that has ended
)

// Stand tells how the process pid of this host stands to s. Only who descends from the lowest
// living process is within: what is above that runs the other jobs of the script as well.
func (s Session) Stand(pid int) Stand {
	p, ended, ok := s.rest()
	switch {
	case ok && ended && !p.Above(pid):
		return Apart
	case !ok || !p.Above(pid):
		return Beside
	case ended:
		return Behind
	default:
		return Within
	}
}

// Lowest is the lowest living process of the chain, or the owner.
func (s Session) Lowest() (p Process, ok bool) {
	p, _, ok = s.rest()
	return p, ok
}

// Runs reports whether the process pid of this host is the owner, or descends from it.
func (s Session) Runs(pid int) bool {
	return s.Host == Host() && s.Owner != nil && s.Owner.Above(pid)
}

// Inherit is the session of a lock whose part of the script has ended right after git: what is left
// above it has the lock. It is false when nothing has ended, or nothing is left.
func (s Session) Inherit() (Session, bool) {
	p, ended, ok := s.rest()
	if !ok || !ended {
		return s, false
	}
	chain := []Process{p}
	if i := slices.IndexFunc(s.Chain, p.same); i >= 0 {
		chain = s.Chain[i:]
	}
	return Session{Host: s.Host, Owner: s.Owner, Chain: chain, Heir: true}, true
}

// Above reports whether the process pid of this host is p, or descends from it.
func (p Process) Above(pid int) bool {
	q, err := stat(pid)
	for err == nil {
		if p.same(q.Process) {
			return true
		}
		q, err = parent(q)
	}
	return false
}

// Background reports whether the process pid may run in the background of p, which is above it: a
// shell has its background jobs ignore interrupts. known is false when p ignores them as well, so
// that nothing tells.
func Background(pid int, p Process) (background, known bool) {
	q, err := stat(pid)
	for err == nil && !p.same(q.Process) {
		background = background || q.ignores
		q, err = parent(q)
	}
	return background || q.ignores, err == nil && !q.ignores
}

// Owners are the IDs of all sessions whose owner is above the process pid of this host.
func Owners(pid int) []string {
	var ids []string
	p, err := stat(pid)
	for err == nil && len(ids) < maxDepth {
		if p, err = parent(p); err == nil {
			ids = append(ids, Session{Host: Host(), Owner: &p.Process}.ID())
		}
	}
	return ids
}

// Script is the ID of the process below which the script's commands run: the owner, or without one
// who would be.
func (s Session) Script() string {
	if s.Owner == nil && len(s.Chain) > 0 {
		s.Owner = &s.Chain[len(s.Chain)-1]
	}
	return s.ID()
}

// ID names the session in a few characters that can be part of a file name or a Redis key; ""
// for one without an owner.
func (s Session) ID() string {
	if s.Owner == nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", s.Host, s.Owner.PID, s.Owner.Start))
	return hex.EncodeToString(sum[:10])
}
