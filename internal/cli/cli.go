// Package cli is the command line: it routes what the user typed, builds the flows, and turns
// errors into messages and exit codes. It is the only place that knows all the others.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/shim"
)

// Main runs one command line, args[0] being the name we were called by, and returns the exit code.
// A command of git replaces this process, and Main does not return.
func Main(args []string) int {
	face := shim.Subcommand
	if strings.TrimSuffix(filepath.Base(args[0]), ".exe") == "git" {
		face = shim.Link
	}
	self, err := os.Executable()
	if err != nil {
		return fail(term.New(os.Stderr), fmt.Errorf("find this program: %w", err))
	}
	path, err := shim.RealGit(shim.SearchPath(os.LookupEnv), os.Getenv("GITOPS_GIT"), self)
	if err != nil {
		return fail(term.New(os.Stderr), err)
	}

	alias := func(name string) (string, bool) {
		return git.Git{Path: path, Globals: shim.Split(args[1:]).Globals}.Alias(context.Background(), name)
	}
	if face == shim.Link && os.Getenv("GITOPS_SHIM") == "off" {
		exit, err := git.Git{Path: path}.Exec(args[1:]...)
		return ended(exit, err)
	}
	route, line := shim.Resolve(face, args[1:], owns, alias, git.HasProgram)
	if face == shim.Link && route == shim.Clone && session.Installs(os.Getpid(), line.Args, os.Getenv("npm_lifecycle_event")) {
		route = shim.Passthrough
	}
	c := &command{git: git.Git{Path: path, Globals: line.Globals}}
	if face == shim.Link {
		c.within = runLocks()
	}
	if c.within != nil && route == shim.Clone {
		route = shim.Passthrough
	}
	if route != shim.Passthrough && line.Verb != "keeper" {
		defer process.EndTogether()()
	}
	switch route {
	case shim.Clone, shim.Push:
		return c.guarded(route, line)
	case shim.Admin:
		return c.admin(append([]string{line.Verb}, line.Args...))
	case shim.Help:
		return c.admin([]string{"-h"})
	case shim.Version:
		return c.version()
	default:
		exit, err := git.Git{Path: path}.Exec(args[1:]...)
		return ended(exit, err)
	}
}

// command is one command line under way.
type command struct {
	git     git.Git
	outside bool                    // its settings are not those of the repository here
	cancel  context.CancelCauseFunc // ends the command's context
	within  []string                // as in gitops.Parts
}

// endWith ends the command's context when a script has ended, so that it waits no longer.
func (c *command) endWith(ctx context.Context, script *session.Process) {
	if script == nil || c.cancel == nil {
		return
	}
	go func() {
		if script.Wait(ctx) == nil {
			c.cancel(&interrupted{syscall.SIGHUP})
		}
	}()
}

// guarded runs a clone or a push.
func (c *command) guarded(route shim.Route, line shim.CommandLine) int {
	ctx, stop := c.interruptible()
	defer stop()
	out := term.New(os.Stderr)
	c.outside = route == shim.Clone // as for git's own clone
	o, err := c.open(ctx, out, os.Getpid())
	if err != nil { // not left to git, which may go on, and without a lock
		var gitErr *git.Error
		if ctx.Err() == nil && errors.As(err, &gitErr) {
			if exit, printed := gitErr.Print(); printed {
				return exit.Code
			}
		}
		return fail(out, because(ctx, err))
	}
	defer o.close()

	var exit process.Exit
	if route == shim.Clone {
		if args, err := gitargs.ParseClone(line.Args); err == nil && args.Quiet {
			out.Quiet()
		}
		exit, err = o.flows().Clone(ctx, line.Args)
	} else {
		if args, err := gitargs.ParsePush(line.Args); err == nil && args.Quiet {
			out.Quiet()
		}
		exit, err = o.flows().Push(ctx, line.Args)
	}
	if err != nil {
		return fail(out, because(ctx, err))
	}
	return exit.Code
}

// opened is what a command works with: the parts of its flows, and the store for what only Redis
// can do.
type opened struct {
	gitops.Parts
	redis *redisstore.Store // nil with Misconfigured
}

func (o *opened) flows() *gitops.Flows { return gitops.New(o.Parts) }

func (o *opened) close() {
	if o.redis != nil {
		_ = o.redis.Close()
	}
}

// open reads the configuration, and finds the session of a process: usually this one. The
// connection to Redis is made at its first use.
func (c *command) open(ctx context.Context, out *term.Printer, pid int) (*opened, error) {
	gitConfig, err := c.readConfig(ctx)
	var tooOld *git.TooOldError
	if err != nil && !errors.As(err, &tooOld) {
		return nil, err
	}
	user := gitConfig.User()
	setting := config.FromGit(user.Get, gitConfig.Get)
	o := &opened{Parts: gitops.Parts{
		Git: c.git, GitConfig: gitConfig.Config, Notes: &notes{out: out}, Terminal: out.Terminal(),
		Include: config.Include(os.LookupEnv, user.Config[config.IncludeKey]), Within: c.within,
		OtherHook: hooks.RunsOther, GuardPushes: guardPushes, StartKeeper: keeperStarter(c.git.Path, setting),
	}}
	if tooOld != nil {
		o.Misconfigured = tooOld
		return o, nil
	}
	cfg, err := config.Load(os.LookupEnv, setting)
	if err != nil {
		o.Misconfigured = err
		return o, nil
	}
	asJSON := cfg.Log.Format == "json"
	if cfg.Redis.Insecure { // said at every use, whatever the level
		out.Configure(term.Info, asJSON)
		out.Warn("REDIS_TLS_INSECURE is set: the certificate of Redis is not checked")
	}
	out.Configure(map[string]term.Level{"error": term.Error, "debug": term.Debug}[cfg.Log.Level], asJSON)
	s, err := session.Detect(pid, cfg.Lock.Session)
	if err != nil {
		o.Misconfigured = &config.Error{Name: "GITOPS_LOCK_SESSION", Value: cfg.Lock.Session, Allowed: "the id of a living process, or workspace", Err: err}
		return o, nil
	}
	c.endWith(ctx, s.Owner)
	o.redis = openStore(cfg.Redis)
	o.Config, o.Session, o.Store = cfg, s, o.redis
	return o, nil
}

func (c *command) readConfig(ctx context.Context) (gitargs.ScopedConfig, error) {
	if c.outside {
		return c.git.Outside().ReadScopedConfig(ctx)
	}
	return c.git.ReadScopedConfig(ctx)
}

func openStore(r config.Redis) *redisstore.Store { return redisstore.Open(redisOptions(r)) }

func redisOptions(r config.Redis) redisstore.Options {
	return redisstore.Options{
		Network:          r.Network,
		Addrs:            r.Addrs,
		Username:         r.Username,
		Password:         r.Password.Reveal(),
		ReadPassword:     r.ReadPassword(),
		DB:               r.DB,
		TLS:              r.TLS,
		ReadTLS:          r.ReadTLS(),
		SentinelMaster:   r.SentinelMaster,
		SentinelUsername: r.SentinelUsername,
		SentinelPassword: r.SentinelPassword.Reveal(),
		Cluster:          r.Mode == config.Cluster,
		Prefix:           r.Prefix,
		Events:           r.Events,
		MinReplicas:      r.MinReplicas,
	}
}

// interrupted is the end of a command by a signal.
type interrupted struct{ signal syscall.Signal }

func (e *interrupted) Error() string { return "interrupted by " + e.signal.String() }

// interruptible is a context that a polite signal ends, with the signal as its cause. Signals that
// our caller has us ignore stay ignored.
func (c *command) interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.cancel = cancel
	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			if number, ok := s.(syscall.Signal); ok {
				cancel(&interrupted{number})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// because is err, or the signal that caused it.
func because(ctx context.Context, err error) error {
	var i *interrupted
	if errors.As(context.Cause(ctx), &i) {
		return i
	}
	return err
}

func (c *command) version() int {
	out, err := c.git.Output(context.Background(), "--version")
	if err != nil {
		return fail(term.New(os.Stderr), err)
	}
	fmt.Printf("%sgit-gitops version %s\n", out, programVersion())
	return 0
}

// ended is the exit code of a git that could not take our place.
func ended(exit process.Exit, err error) int {
	if err != nil {
		return fail(term.New(os.Stderr), err)
	}
	return exit.Code
}
