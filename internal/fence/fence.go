// Package fence is the server's side: it lets an update of a protected branch in only if the holder
// of the branch's lock has declared exactly this update.
//
// git itself compares the old object id when it updates the ref, so that what was declared is what
// happens, or nothing.
package fence

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/lock"
)

// leaseAtLeast is how long a lock lasts from the decision on: the time that the server may take to
// finish.
const leaseAtLeast = time.Minute

const heads = "refs/heads/"

// Mark begins the fixed word of a refusal, by which a client knows it: "[gitops: not-declared]".
const Mark = "[gitops: "

// Store says what was declared.
type Store interface {
	Check(ctx context.Context, k lock.Key, u lock.Update, least time.Duration) (lock.Permit, error)
}

// Rules are the settings of a server's repository.
type Rules struct {
	Repo    string   // the identity by which clients know this repository
	Protect []string // patterns of branches, as "main" or "release/*", or of full names of refs
	Exempt  []string // "NAME=value": who has this in the environment is not asked for a lock

	Symbolic   map[string]string // symbolic refs of the repository, and the ref that each stands for
	IgnoreCase bool              // the file system takes Main for main
	Branches   []string          // where it does: full names of those that exist or are pushed
}

// Protects reports whether a ref is protected, under its own name or as what a symbolic ref stands
// for. Only branches have locks.
func (r Rules) Protects(ref string) bool {
	for name, target := range r.Symbolic {
		if target == ref && r.Names(name) {
			return true
		}
	}
	return r.Names(ref)
}

// Names reports whether a pattern has the name of a ref.
func (r Rules) Names(ref string) bool {
	branch, ok := strings.CutPrefix(ref, heads)
	return ok && slices.ContainsFunc(r.Protect, func(pattern string) bool {
		return config.Matches(strings.TrimPrefix(pattern, heads), branch)
	})
}

// Folders are the names of refs, and of folders of refs, that hold everything that the patterns
// name.
func (r Rules) Folders() []string {
	var all []string
	for _, pattern := range r.Protect {
		name, _, star := strings.Cut(heads+strings.TrimPrefix(pattern, heads), "*")
		if star {
			name = name[:strings.LastIndex(name, "/")]
		}
		all = append(all, name)
	}
	return all
}

// Alias says in which way a ref is another name of a protected branch; "" when it is none. A push
// to it would change that branch, under another lock.
func (r Rules) Alias(ref string) string {
	target := r.Symbolic[ref]
	inner := strings.LastIndex(ref, "/"+heads)
	switch {
	case target != "" && (r.Names(ref) || r.Protects(target)):
		return ref + " is a symbolic ref to " + target
	case strings.HasPrefix(ref, "refs/namespaces/") && inner >= 0 && r.Names(ref[inner+1:]):
		return ref + " is a branch of a namespace"
	case r.IgnoreCase && !r.Names(ref) && r.folded().Names(fold(ref)):
		return "this repository ignores case (core.ignoreCase)"
	}
	if twin := r.twin(ref); twin != "" {
		return "this repository ignores case (core.ignoreCase) and has " + twin
	}
	return ""
}

// twin is another protected branch that the file system takes for this one; "" when there is none.
// Each of the two names has a lock of its own.
func (r Rules) twin(ref string) string {
	if !r.IgnoreCase || !r.Names(ref) {
		return ""
	}
	for _, name := range r.Branches {
		if name != ref && fold(name) == fold(ref) && r.Names(name) {
			return name
		}
	}
	return ""
}

// Protected are the updates of protected branches. When one goes to such a branch by another name,
// it is that one alone, and alias says how (Alias).
func (r Rules) Protected(updates []lock.Update) (protected []lock.Update, alias string) {
	for _, u := range updates {
		if why := r.Alias(u.Ref); why != "" {
			return []lock.Update{u}, why
		}
		if r.Protects(u.Ref) {
			protected = append(protected, u)
		}
	}
	return protected, ""
}

// folded has the patterns without case.
func (r Rules) folded() Rules {
	var all Rules
	for _, pattern := range r.Protect {
		all.Protect = append(all.Protect, fold(pattern))
	}
	return all
}

// fold is the same for names that differ only in case. Some letters have two small forms.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// Void are the patterns that no branch can have, and so protect nothing.
func (r Rules) Void() []string {
	return slices.DeleteFunc(slices.Clone(r.Protect), func(pattern string) bool {
		name := strings.TrimPrefix(pattern, heads)
		return name != "" && !strings.HasPrefix(name, "refs/") && !strings.ContainsAny(name, " \t~^:?[\\")
	})
}

// Exempts is the rule by which whoever pushes is exempt, by the environment that the server gives
// its hooks; "" for none.
func (r Rules) Exempts(env func(string) string) string {
	for _, rule := range r.Exempt {
		if name, value, ok := Exemption(rule); ok && env(name) == value {
			return rule
		}
	}
	return ""
}

// Exemption is the variable that a rule asks for, and its value. One that is not NAME=value exempts
// nobody.
func Exemption(rule string) (name, value string, ok bool) {
	name, value, _ = strings.Cut(rule, "=")
	return name, value, name != "" && value != ""
}

// Refused is an update that may not be made, and the lock that it needs.
type Refused struct {
	Key lock.Key
	lock.Update
	lock.Permit
}

// Check finds the first update that may not be made; nil when all may. Whatever is not protected is
// not looked at.
func (r Rules) Check(ctx context.Context, store Store, updates []lock.Update) (*Refused, error) {
	for _, u := range updates {
		if !r.Protects(u.Ref) {
			continue
		}
		k := lock.Key{Repo: r.Repo, Branch: strings.TrimPrefix(u.Ref, heads)}
		permit, err := store.Check(ctx, k, u, leaseAtLeast)
		if err != nil {
			return nil, err
		}
		if permit.Refusal != "" {
			return &Refused{k, u, permit}, nil
		}
	}
	return nil, nil
}

// ReadUpdates reads what git gives a pre-receive hook on stdin (githooks(5)): lines of
//
//	<old-oid> SP <new-oid> SP <ref-name> LF
func ReadUpdates(r io.Reader) ([]lock.Update, error) {
	var all []lock.Update
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 3)
		if len(fields) != 3 || fields[2] == "" {
			return nil, fmt.Errorf("unexpected line %q from git", lines.Text())
		}
		all = append(all, lock.Update{Old: fields[0], New: fields[1], Ref: fields[2]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read what is pushed: %w", err)
	}
	return all, nil
}

// Word is the fixed word of a refusal in what a server said; "" when there is none.
func Word(text string) lock.Refusal {
	_, rest, ok := strings.Cut(text, Mark)
	word, _, closed := strings.Cut(rest, "]")
	if r := lock.Refusal(word); ok && closed && (r == lock.RefusedNotHeld || r == lock.RefusedNotDeclared || r == lock.RefusedMoved) {
		return r
	}
	return ""
}
