package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

// owns reports whether a subcommand is one of our own verbs, without building them.
func owns(verb string) bool {
	switch verb {
	case "lock", "unlock", "freeze", "thaw", "keep", "locks", "run", "events", "stats", "metrics", "serve", "install", "uninstall", "doctor", "migrate", "upgrade", "completion", "pre-push", "pre-receive", "keeper":
		return true
	default:
		return false
	}
}

// usageError is a command line that we do not understand.
type usageError struct {
	verb string
	err  error
}

func (e *usageError) Error() string { return e.err.Error() }

// admin runs one of our own verbs, or prints the help.
func (c *command) admin(args []string) int {
	switch args[0] { // not for people: no help, no flags
	case "keeper":
		return keep()
	case "pre-push":
		return c.prePush(args[1:])
	case "pre-receive":
		return c.preReceive(args[1:])
	}
	ctx, stop := c.interruptible()
	defer stop()
	out := term.New(os.Stderr)
	err := c.app(out).RunContext(ctx, append([]string{"git gitops"}, args...))
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case err != nil:
		return fail(out, &verbError{args[0], because(ctx, err)})
	}
	return 0
}

// verbError is an error of one of our own verbs.
type verbError struct {
	verb string
	err  error
}

func (e *verbError) Error() string { return e.err.Error() }
func (e *verbError) Unwrap() error { return e.err }

// withoutRedis is what did not happen because Redis failed.
func (e *verbError) withoutRedis() string {
	switch e.verb {
	case "lock":
		return "cannot lock"
	case "run":
		return "cannot lock, so the command was not run"
	default:
		return "git gitops " + e.verb + " cannot use Redis"
	}
}

// exitError is the exit code of a command that was run and has printed its own messages.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func (c *command) app(out *term.Printer) *ucli.App {
	repo := &ucli.StringFlag{Name: "repo", Usage: "the repository, as a `URL` or the name of a remote (default: where a plain push would go)"}
	branch := &ucli.StringFlag{Name: "branch", Aliases: []string{"b"}, Usage: "the `BRANCH` (default: the one that a plain push would update)"}
	app := &ucli.App{
		Name:  "git gitops",
		Usage: "git for pipelines that share a branch: clone takes a lock, push releases it",
		UsageText: `git gitops clone URL …   waits for the lock of the repository and branch, then clones
git gitops push …        checks the lock, pushes, and hands the lock to the next waiter
git gitops COMMAND …     one of the commands below; any other git command is plain git

Set the address of Redis: REDIS_HOST and REDIS_PORT, or REDIS_URL.`,
		HideHelpCommand: true,
		HideVersion:     true,
		ExitErrHandler:  func(*ucli.Context, error) {}, // Main turns errors into codes
		Commands: []*ucli.Command{
			{
				Name:  "lock",
				Usage: "take the lock of a branch, and hold it until unlock",
				Flags: append([]ucli.Flag{repo, branch}, queueFlags()...),
				Action: c.withoutWords(out, func(ctx context.Context, u *ucli.Context, o *opened) error {
					return lockVerb(ctx, u, o, out)
				}),
			},
			{
				Name:  "unlock",
				Usage: "release a lock of this clone, and hand it to the next waiter",
				Flags: []ucli.Flag{
					repo, branch,
					&ucli.BoolFlag{Name: "all", Usage: "release every lock of this clone"},
					&ucli.BoolFlag{Name: "session", Usage: "release every lock of this script or job, in any clone"},
					&ucli.StringFlag{Name: "force", Usage: "break the hold with this `ID`, even somebody else's; locks and messages show the ID"},
					&ucli.StringFlag{Name: "reason", Usage: "`TEXT` that the broken holder sees"},
				},
				Action: c.withoutWords(out, func(ctx context.Context, u *ucli.Context, o *opened) error {
					if u.IsSet("force") {
						return breakVerb(ctx, u, o, out)
					}
					return unlockVerb(ctx, u, o.flows(), out)
				}),
			},
			{
				Name:      "keep",
				Usage:     "renew the locks of all clones in the folders DIR until this command ends, then release them",
				ArgsUsage: "DIR…",
				Action: func(u *ucli.Context) error {
					if !u.Args().Present() {
						return &usageError{verb: "keep", err: errors.New("name the folders of the clones")}
					}
					return c.with(u, out, func(ctx context.Context, u *ucli.Context, o *opened) error {
						return o.flows().Keep(ctx, u.Args().Slice())
					})
				},
			},
			c.locksCommand(out),
			{
				Name:      "run",
				Usage:     "run a command under the lock of a branch",
				UsageText: "git gitops run [--repo URL] [--branch BRANCH] -- COMMAND [ARGUMENT…]",
				Flags:     append([]ucli.Flag{repo, branch}, queueFlags()...),
				Action: func(u *ucli.Context) error {
					if !u.Args().Present() {
						return &usageError{verb: "run", err: errors.New("no command to run")}
					}
					return c.with(u, out, runVerb)
				},
			},
		},
	}
	app.Commands = append(app.Commands, c.freezeCommands(out, repo, branch)...)
	app.Commands = append(app.Commands, c.eventCommands(out)...)
	app.Commands = append(app.Commands, c.metricsCommand(out), c.serveCommand(out))
	app.Commands = append(app.Commands, c.installCommands(out)...)
	app.Commands = append(app.Commands, c.doctorCommand(out), c.migrateCommand(out), c.upgradeCommand(out), completionCommand())
	for _, cmd := range app.Commands {
		cmd.HideHelpCommand = true
		withoutDefaults(cmd)
		cmd.OnUsageError = func(u *ucli.Context, err error, _ bool) error {
			return &usageError{verb: u.Command.Name, err: err}
		}
	}
	return app
}

// withoutDefaults keeps "(default: false)" out of the help.
func withoutDefaults(cmd *ucli.Command) {
	for _, f := range cmd.Flags {
		if b, ok := f.(*ucli.BoolFlag); ok {
			b.DisableDefaultText = true
		}
	}
	for _, sub := range cmd.Subcommands {
		withoutDefaults(sub)
	}
}

// verb is what one of our verbs does.
type verb func(ctx context.Context, u *ucli.Context, o *opened) error

// withoutWords is the action of a verb that takes flags only.
func (c *command) withoutWords(out *term.Printer, do verb) ucli.ActionFunc {
	return func(u *ucli.Context) error {
		if u.Args().Present() {
			return &usageError{verb: u.Command.Name, err: fmt.Errorf("unexpected argument %q", u.Args().First())}
		}
		return c.with(u, out, do)
	}
}

// with runs a verb, which needs all settings.
func (c *command) with(u *ucli.Context, out *term.Printer, do verb) error {
	o, err := c.open(u.Context, out, os.Getpid())
	if err != nil {
		return err
	}
	defer o.close()
	if o.Misconfigured != nil {
		return o.Misconfigured
	}
	return do(u.Context, u, o)
}

func runVerb(ctx context.Context, u *ucli.Context, o *opened) error {
	if err := queueAs(u, &o.Config.Lock); err != nil {
		return err
	}
	exit, err := o.flows().Run(ctx, gitops.LockRequest{Repo: u.String("repo"), Branch: u.String("branch")}, u.Args().Slice())
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return &exitError{exit.Code}
	}
	return nil
}

func lockVerb(ctx context.Context, u *ucli.Context, o *opened, out *term.Printer) error {
	if err := queueAs(u, &o.Config.Lock); err != nil {
		return err
	}
	lease, err := o.flows().Lock(ctx, gitops.LockRequest{Repo: u.String("repo"), Branch: u.String("branch")})
	if err != nil {
		return err
	}
	out.Say("locked %s (fence %d, TTL %s); git gitops unlock releases it", lease.Key, lease.Fence(), lease.TTL)
	return nil
}

func unlockVerb(ctx context.Context, u *ucli.Context, f *gitops.Flows, out *term.Printer) error {
	var (
		done []gitops.Unlocked
		err  error
	)
	if u.Bool("session") {
		done, err = f.UnlockSession(ctx)
	} else {
		done, err = f.Unlock(ctx, gitops.LockRequest{Repo: u.String("repo"), Branch: u.String("branch")}, u.Bool("all"))
	}
	for _, d := range done {
		switch d.Result {
		case lock.Freed:
			out.Say("unlocked %s", d.Key)
		case lock.HandedOver:
			out.Say("unlocked %s, and handed it to the next waiter", d.Key)
		case lock.StillShared:
			out.Say("unlocked %s here; other parts of this script still hold it", d.Key)
		case lock.NotHeld:
			if u.Bool("session") { // at the end of a job that is as it should be
				out.Say("the lock on %s has ended already", d.Key)
			} else {
				out.Warn("the lock on %s was not held any more", d.Key)
			}
		}
	}
	if err == nil && len(done) == 0 {
		where := "this clone holds no such lock"
		if u.Bool("session") {
			where = "nothing is held"
		}
		out.Say("nothing to unlock: %s", where)
	}
	return err
}
