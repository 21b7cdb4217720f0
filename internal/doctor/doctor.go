// Package doctor checks everything that a lock depends on, and says what is wrong and what to do
// about it.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

const (
	// remoteBudget bounds what doctor asks of a git remote, and redisBudget what it asks of Redis.
	remoteBudget = 15 * time.Second
	redisBudget  = 30 * time.Second

	certificateSoon = 14 * 24 * time.Hour
	clockApart      = 2 * time.Second

	notAllowed = "not allowed to look"
)

// Status is how a check came out.
type Status string

// The ways in which a check may come out.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one thing that was looked at, as `doctor --json` prints it; docs/reference.md describes
// the fields, and they do not change. Several checks may have the same name.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"`
}

// Checkup is a doctor at work. The first fields are required; the configuration may be broken, and
// is then missing.
type Checkup struct {
	Git        git.Git
	Version    string // of this program
	Open       func(config.Redis) *redisstore.Store
	HolderText func(lock.Holder) string
	Fence      bool                                             // the hook of a git server is here, which asks less of Redis than a lock
	FreezeText func(lock.Key, lock.Freeze) (text, toEnd string) // and the command that ends it
	More       []func(context.Context, *Checkup)                // checks what this package does not know

	GitConfig gitargs.ScopedConfig // known after Run has begun
	Config    config.Config

	sound  bool              // the configuration is
	store  *redisstore.Store // nil: cannot be asked
	checks []Check
}

// Run checks everything, and reports whether locks work.
func (d *Checkup) Run(ctx context.Context) (checks []Check, healthy bool) {
	d.program(ctx)
	d.settings(ctx)
	if d.sound {
		store := d.Open(d.Config.Redis)
		defer func() { _ = store.Close() }()
		d.redis(ctx, store)
	}
	d.repository(ctx)
	for _, look := range d.More {
		look(ctx, d)
	}
	d.shim()
	d.session()
	return d.checks, !slices.ContainsFunc(d.checks, func(c Check) bool { return c.Status == Fail })
}

func (d *Checkup) add(name string, s Status, do, format string, args ...any) {
	d.checks = append(d.checks, Check{Name: name, Status: s, Detail: fmt.Sprintf(format, args...), Do: do})
}

// OK notes that something is as it should be.
func (d *Checkup) OK(name, format string, args ...any) { d.add(name, OK, "", format, args...) }

// Warn notes what is not, and what to do about it; locks work all the same.
func (d *Checkup) Warn(name, do, format string, args ...any) {
	d.add(name, Warn, do, format, args...)
}

// Fail notes why locks do not work, and what to do about it.
func (d *Checkup) Fail(name, do, format string, args ...any) {
	d.add(name, Fail, do, format, args...)
}
