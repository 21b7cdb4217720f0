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
	// without the owner; if git's parent is the owner, just the owner. It is
	// there also if [Workspace] was asked for, and empty if nothing above git
	// would do.
	Chain []Process `json:"chain,omitempty"`
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
	if from == owner {
		return []Process{up[owner].Process}
	}
	var c []Process
	for _, p := range up[from:owner] {
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

// ChainAlive reports whether any process of the chain lives. A chain on
// another host counts as living, because it can't be seen from here.
func (s Session) ChainAlive() bool {
	return s.Host != Host() || slices.ContainsFunc(s.Chain, Process.Alive)
}

// Shares reports whether the process pid of the given host is, or descends
// from, a living process of s's chain, so that it must not wait for s. It is
// false for every host but this one.
func (s Session) Shares(host string, pid int) bool {
	if host != s.Host || host != Host() {
		return false
	}
	p, err := stat(pid)
	for err == nil {
		if slices.ContainsFunc(s.Chain, p.same) {
			return true
		}
		p, err = parent(p)
	}
	return false
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
