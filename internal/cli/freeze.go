package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/shim"
)

const (
	// mostHeadStart is that of GITOPS_LOCK_HEAD_START.
	mostHeadStart = 7 * 24 * time.Hour
	// mostFrozen is the longest freeze: one that is forgotten ends.
	mostFrozen = 30 * 24 * time.Hour
)

// queueFlags are the settings of how to queue, for one command.
func queueFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "policy", Usage: "`HOW` to queue: queue, skip or newest, as in GITOPS_LOCK_POLICY"},
		&ucli.StringFlag{Name: "group", Usage: "`NAME` of the group of which only the newest waits, as in GITOPS_LOCK_GROUP"},
		&ucli.DurationFlag{Name: "head-start", Usage: "queue as if the command had arrived this much earlier, such as `10m`"},
	}
}

// queueAs takes over the flags of a verb.
func queueAs(u *ucli.Context, l *config.Lock) error {
	if u.IsSet("policy") {
		l.Policy = u.String("policy")
	}
	if u.IsSet("group") {
		l.Group = u.String("group")
	}
	if u.IsSet("head-start") {
		l.Head = u.Duration("head-start")
	}
	switch lock.QueuePolicy(l.Policy) {
	case lock.Queue, lock.Skip, lock.Newest:
	default:
		return &usageError{verb: u.Command.Name, err: fmt.Errorf("--policy is %q, want queue, skip or newest", l.Policy)}
	}
	if l.Head < 0 || l.Head > mostHeadStart {
		return &usageError{verb: u.Command.Name, err: fmt.Errorf("--head-start is %s, want from 0s to %s", l.Head, mostHeadStart)}
	}
	return nil
}

func (c *command) freezeCommands(out *term.Printer, repo, branch ucli.Flag) []*ucli.Command {
	all := &ucli.BoolFlag{Name: "all", Usage: "every branch of the repository"}
	return []*ucli.Command{
		{
			Name:      "freeze",
			Usage:     "let nobody get the lock of a branch for a time; the present holder goes on",
			UsageText: "git gitops freeze [--repo URL] [--branch BRANCH | --all] (--for DURATION | --until TIME) [--reason TEXT]",
			Flags: []ucli.Flag{
				repo, branch, all,
				&ucli.DurationFlag{Name: "for", Usage: "how long, such as `2h` or 90m", DefaultText: "none"},
				&ucli.StringFlag{Name: "until", Usage: "until a `TIME` of today, such as 17:30, or one with date and zone, such as 2026-01-31T17:30Z or 2026-01-31T17:30+02:00"},
				&ucli.StringFlag{Name: "reason", Usage: "`TEXT` that waiters see"},
			},
			Action: c.withoutWords(out, func(ctx context.Context, u *ucli.Context, o *opened) error {
				return freezeVerb(ctx, u, o, out)
			}),
		},
		{
			Name:      "thaw",
			Usage:     "end a freeze, and hand the lock to the first waiter",
			UsageText: "git gitops thaw [--repo URL] [--branch BRANCH | --all]",
			Flags:     []ucli.Flag{repo, branch, all},
			Action: c.withoutWords(out, func(ctx context.Context, u *ucli.Context, o *opened) error {
				return thawVerb(ctx, u, o, out)
			}),
		},
	}
}

// whatToFreeze reads the flags that freeze and thaw share.
func whatToFreeze(ctx context.Context, u *ucli.Context, o *opened) (lock.Key, error) {
	if u.Bool("all") && u.IsSet("branch") {
		return lock.Key{}, &usageError{verb: u.Command.Name, err: errors.New("use --all or --branch, not both")}
	}
	return o.flows().FreezeKey(ctx, gitops.LockRequest{Repo: u.String("repo"), Branch: u.String("branch")}, u.Bool("all"))
}

func freezeVerb(ctx context.Context, u *ucli.Context, o *opened, out *term.Printer) error {
	r := lock.FreezeRequest{By: o.flows().Me("freeze"), Reason: term.Clean(u.String("reason"))}
	var err error
	switch {
	case u.IsSet("for") == u.IsSet("until"):
		err = errors.New("want --for DURATION or --until TIME")
	case u.IsSet("for"):
		if r.For = u.Duration("for"); r.For < time.Second || r.For > mostFrozen {
			err = fmt.Errorf("--for is %s, want from 1s to %s", r.For, mostFrozen)
		}
	default:
		now := time.Now()
		if r.Until, err = parseTime(u.String("until"), now); err == nil && (!r.Until.After(now) || r.Until.After(now.Add(mostFrozen))) {
			err = fmt.Errorf("--until is %s, want a time from now to %s later", r.Until.Format(time.RFC3339), mostFrozen)
		}
	}
	if err != nil {
		return &usageError{verb: "freeze", err: err}
	}
	if r.Key, err = whatToFreeze(ctx, u, o); err != nil {
		return err
	}
	// An older client shows it as the purpose of a hold.
	r.By.Purpose = "frozen"
	if r.Reason != "" {
		r.By.Purpose += ": " + r.Reason
	}
	frozen, err := o.redis.Freeze(ctx, r)
	if err != nil {
		if len(frozen) > 0 {
			out.Warn("%s is frozen, but not all of its locks are: freeze it again", r.Key)
		}
		return err
	}
	first := frozen[0]
	if !first.Until.After(time.UnixMicro(0)) {
		return &usageError{verb: "freeze", err: errors.New("that time has passed on the clock of Redis")}
	}
	out.Say("froze %s until %s%s; git gitops thaw ends it earlier", r.Key, clock(first.Until), reasonText(r.Reason))
	for _, one := range frozen {
		if one.Holder.Token != "" {
			out.Say("%s is held by %s, until the holder releases it", one.Key, holderText(one.Holder))
		}
	}
	return nil
}

func thawVerb(ctx context.Context, u *ucli.Context, o *opened, out *term.Printer) error {
	key, err := whatToFreeze(ctx, u, o)
	if err != nil {
		return err
	}
	thawed, err := o.redis.Thaw(ctx, lock.FreezeRequest{Key: key, By: o.flows().Me("thaw")})
	if err != nil {
		return err
	}
	if thawed[0].Before {
		out.Say("thawed %s", key)
	} else {
		out.Say("%s was not frozen", key)
	}
	for _, one := range thawed {
		if one.Freeze.Frozen() {
			out.Warn("%s is still %s; to end that: %s", one.Key, freezeText(one.Freeze), thawHint(one.Key, one.Freeze))
		}
	}
	return nil
}

// parseTime reads a time of day, today, or a date with a zone.
func parseTime(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{"15:04", "15:04:05", "15:04Z07:00", "15:04:05Z07:00"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			day := now.In(t.Location())
			return time.Date(day.Year(), day.Month(), day.Day(), t.Hour(), t.Minute(), t.Second(), 0, t.Location()), nil
		}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--until is %q, want a time of today such as 17:30, or one with date and zone such as 2026-01-31T17:30Z", text)
}

// clock is a time as people read it, with its zone.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func reasonText(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// freezeText is a freeze in a few words.
func freezeText(f lock.Freeze) string {
	what := map[lock.Scope]string{lock.ItsBranch: " with its branch", lock.WholeRemote: " with its repository"}[f.Scope]
	return fmt.Sprintf("frozen%s by %s@%s until %s%s", what, orUnknown(f.By.User), orUnknown(f.By.Host),
		clock(time.Now().Add(f.Left)), reasonText(f.Reason))
}

// thawHint is the command that ends a freeze of a lock.
func thawHint(k lock.Key, f lock.Freeze) string {
	repo := k.Repo
	if !filepath.IsAbs(repo) {
		repo = "https://" + repo // which has the same identity
	}
	switch {
	case k.Verbatim != "":
		return "GITOPS_LOCK_KEY=" + shim.ShellWord(k.Verbatim) + " git gitops thaw"
	case f.Scope == lock.WholeRemote || k.Branch == "":
		return "git gitops thaw --repo " + shim.ShellWord(repo) + " --all"
	default:
		return "git gitops thaw --repo " + shim.ShellWord(repo) + " --branch " + shim.ShellWord(k.Branch)
	}
}

// freezeAndHint is a freeze in a few words, and the command that ends it.
func freezeAndHint(k lock.Key, f lock.Freeze) (text, toEnd string) {
	return freezeText(f), thawHint(k, f)
}
