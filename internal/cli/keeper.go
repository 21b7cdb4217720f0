package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/keeper"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// order is what a keeper is told on its stdin. The settings are there because they may come
// from the configuration of a repository that is gone when they are needed, and they
// may be secret: they are in no file and no argument.
type order struct {
	Settings map[string]string `json:"settings"`
	Dir      workspace.Dir     `json:"dir"`
	Key      lock.Key          `json:"key"`
	Owner    *session.Process  `json:"owner"`
	GitPath  string            `json:"git"`
	Pushing  *gitops.PushWatch `json:"pushing"`
}

// starter starts keepers that work with the same settings and for the same session as this command.
func (c *command) starter(gitConfig git.Config, owner *session.Process) func(workspace.Dir, workspace.Entry, *gitops.PushWatch) (int, error) {
	return func(dir workspace.Dir, e workspace.Entry, pushing *gitops.PushWatch) (int, error) {
		o := order{Settings: map[string]string{}, Dir: dir, Key: e.Key, Owner: owner, GitPath: c.git.Path, Pushing: pushing}
		for _, v := range config.Variables() {
			if value, ok := os.LookupEnv(v.Name); ok && value != "" {
				o.Settings[v.Name] = value
			} else if value, ok := gitConfig.Get(v.GitKey); ok {
				o.Settings[v.Name] = value
			}
		}
		input, err := json.Marshal(o)
		if err != nil {
			return 0, fmt.Errorf("encode the keeper's order: %w", err)
		}
		self, err := os.Executable()
		if err != nil {
			return 0, fmt.Errorf("find this program: %w", err)
		}
		return git.Detach(self, []string{"git-gitops", "keeper", e.Key.String()}, input)
	}
}

// keep is the keeper process: `git-gitops keeper LABEL`, of which the label is only for ps.
func keep() int {
	debug.SetGCPercent(20) // it lives long and does little: memory before speed
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGQUIT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	var o order
	data, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil {
		return exitUsage // started by hand
	}
	log := logTo(filepath.Join(string(o.Dir), "keeper.log"))
	k, done, err := newKeeper(o, log)
	if err != nil {
		log("start: %v", err)
		return exitBug
	}
	defer done()
	_ = os.Chdir("/") // keep nobody from unmounting
	debug.FreeOSMemory()
	k.Run(ctx)
	return 0
}

func newKeeper(o order, log func(string, ...any)) (*keeper.Keeper, func(), error) {
	cfg, err := config.Load(func(name string) (string, bool) {
		value, ok := o.Settings[name]
		return value, ok
	}, nil)
	if err != nil {
		return nil, nil, err
	}
	entry, ok, err := o.Dir.Find(o.Key)
	if err != nil || !ok {
		return nil, nil, errors.Join(err, errors.New("the lock has ended already"))
	}
	store := openStore(cfg.Redis)
	k := &keeper.Keeper{
		Store: store, Dir: o.Dir, Entry: entry, Owner: o.Owner,
		TTL: cfg.Lock.TTL, MaxHold: cfg.Lock.MaxHold, Log: log,
	}
	if o.Pushing != nil {
		g := git.Git{Path: o.GitPath}.In(o.Pushing.CommonDir)
		k.Pushing, k.Only = &o.Pushing.Git, o.Pushing.Only
		k.Landed = func(ctx context.Context) bool { return gitops.Landed(ctx, g, *o.Pushing) }
	}
	if cfg.Lock.OnLost == "term" {
		k.Lost = func(error) { terminate(o.Owner) }
	}
	return k, func() { _ = store.Close() }, nil
}

// terminate ends a script whose lock was lost, as GITOPS_ON_LOST=term asks for.
func terminate(owner *session.Process) {
	if owner == nil || !owner.Alive() {
		return
	}
	if p, err := os.FindProcess(owner.PID); err == nil {
		_ = p.Signal(syscall.SIGTERM)
	}
}

// logTo appends lines to a file, which is opened for each so that a deleted clone can go.
func logTo(path string) func(string, ...any) {
	return func(format string, args ...any) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // our own folder
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		line := giturl.Redact(fmt.Sprintf(format, args...))
		_, _ = fmt.Fprintf(f, "%s [%d] %s\n", time.Now().UTC().Format(time.RFC3339), os.Getpid(), line)
	}
}
