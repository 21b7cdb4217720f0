package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitops"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/keeper"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/process"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/internal/webhook"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// order is what a keeper gets on its stdin. The settings are there because they may come
// from the configuration of a repository that is gone when they are needed, and they
// may be secret: they are in no file and no argument.
type order struct {
	Settings map[string]string `json:"settings"`
	Cwd      string            `json:"cwd"` // what files in the settings may be relative to
	Entry    workspace.Entry   `json:"entry"`
	Owner    *session.Process  `json:"owner"`
	GitPath  string            `json:"git"`
	Pushing  *gitops.PushWatch `json:"pushing"`
	Present  bool              `json:"present"` // descriptor 3 is the command's subscription
}

// keeperStarter starts keepers that work with the same git and the same settings as this command.
// setting is git config, as far as it may make settings.
func keeperStarter(gitPath string, setting func(gitKey string) (string, bool)) func(gitops.KeeperOrder) (int, error) {
	return func(k gitops.KeeperOrder) (int, error) {
		cwd, err := os.Getwd()
		if err != nil {
			cwd = "/" // it was deleted
		}
		o := order{Settings: map[string]string{}, Cwd: cwd, Entry: k.Entry, Owner: k.Owner, GitPath: gitPath, Pushing: k.Pushing, Present: k.Present != nil}
		for _, v := range config.Variables() {
			if value, ok := os.LookupEnv(v.Name); ok && value != "" {
				o.Settings[v.Name] = value
			} else if value, ok := setting(v.GitKey); ok {
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
		if f, err := k.Dir.OpenLog(true); err == nil {
			_ = f.Close()
		}
		return process.Detach(self, string(k.Dir), []string{"git-gitops", "keeper", k.Entry.Key.String()}, input, k.Present)
	}
}

// here is the folder of the entries, in which a keeper is started and stays: it knows the clone by
// this folder itself, so that one that is moved keeps its lock.
const here = workspace.Dir(".")

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
	log := logTo(here)
	folder, err := os.Open(string(here))
	if err == nil {
		_ = os.Chdir(o.Cwd)
	}
	k, done, err := newKeeper(o, log)
	if folder != nil {
		_, _ = folder.Chdir(), folder.Close()
	}
	if err != nil {
		log("start: %v", err)
		return exitBug
	}
	defer done()
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
	options := redisOptions(cfg.Redis)
	options.Sparing = o.Owner != nil // it rests on the connection by which it is present
	store := redisstore.Open(options)
	k := &keeper.Keeper{
		Store: store, Dir: here, Entry: o.Entry, Owner: o.Owner,
		TTL: cfg.Lock.TTL, MaxHold: cfg.Lock.MaxHold, Log: log,
	}
	if o.Present {
		closeOnExec(presentFD)
		k.Before = os.NewFile(presentFD, "the command's connection to Redis")
	}
	if o.Pushing != nil {
		g := git.Git{Path: o.GitPath}.In(o.Pushing.CommonDir)
		k.Pushing, k.SoleKeeper = &o.Pushing.Git, o.Pushing.SoleKeeper
		if o.Pushing.Stays {
			k.Stays = o.Pushing.AfterLanding()
		}
		k.Landed = func(ctx context.Context) bool { return gitops.Landed(ctx, g, *o.Pushing) }
	}
	if cfg.Lock.OnLost == "term" {
		k.Lost = func(error) { terminate(o.Owner) }
	}
	done := func() { _ = store.Close() }
	if cfg.Webhook.URL.Reveal() == "" {
		return k, done, nil
	}
	hook, err := webhook.New(cfg.Webhook.URL.Reveal(), cfg.Webhook.Secret.Reveal(), cfg.Webhook.Events, log)
	if err != nil {
		log("%v", err)
		return k, done, nil
	}
	var reading sync.WaitGroup
	k.Event = func(what lock.EventType, why string, fence lock.Fence) {
		if what == lock.EventAcquired && hook.Wants(string(lock.EventGone)) {
			reading.Go(func() { sendGone(store, hook, o.Entry, fence, log) })
		}
		if what == keeper.EventPushed && o.Pushing.ReleaseRegardless {
			return // the lock was for just this push, and it is not known whether that landed
		}
		hook.Send(webhookEvent(o.Entry, what, why, fence))
	}
	return k, func() {
		reading.Wait()
		done()
		hook.Close(webhookFlush)
	}, nil
}

// presentFD is where a keeper finds the connection of the command that started it.
const presentFD = 3

// webhookFlush is how long a keeper goes on after its lock has ended, to get its last events out.
const webhookFlush = 15 * time.Second

func webhookEvent(e workspace.Entry, what lock.EventType, why string, fence lock.Fence) webhook.Event {
	r := e.Record
	w := webhook.Event{
		Type: string(what), Time: time.Now().UTC(), Lock: term.Clean(e.Key.String()), Repo: e.Key.Repo, Branch: e.Key.Branch, Name: e.Key.Name,
		Host: r.Host, User: r.User, PID: r.PID, RunURL: r.RunURL, Fence: int64(fence), Reason: giturl.Redact(why),
	}
	if what != lock.EventAcquired {
		w.Hold = time.Since(e.Since).Seconds()
	}
	return w
}

// sendGone posts that the holder before us is gone, which nobody else can.
func sendGone(store *redisstore.Store, hook *webhook.Hook, e workspace.Entry, fence lock.Fence, log func(string, ...any)) {
	before, ok, err := store.GoneBefore(context.Background(), e.Key, fence)
	if err != nil {
		log("read the events: %v", err)
	}
	if !ok {
		return
	}
	gone, _ := strconv.ParseInt(before.Fence, 10, 64)
	hook.Send(webhook.Event{
		Type: string(before.Type), Time: before.Time.UTC(), Lock: term.Clean(e.Key.String()), Repo: e.Key.Repo, Branch: e.Key.Branch, Name: e.Key.Name,
		RunURL: term.Clean(before.Run), Fence: gone, Hold: before.Hold.Seconds(),
		Reason: "none of the processes of " + term.Clean(before.Who) + " was alive any more",
	})
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

// logTo appends lines to the log of a clone. It opens the file for each line, and never makes it,
// so that a clone can be deleted at any time, also on NFS, where a file that is open stays.
func logTo(dir workspace.Dir) func(string, ...any) {
	return func(format string, args ...any) {
		f, err := dir.OpenLog(false)
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		line := giturl.Redact(fmt.Sprintf(format, args...))
		_, _ = fmt.Fprintf(f, "%s [%d] %s\n", time.Now().UTC().Format(time.RFC3339), os.Getpid(), line)
	}
}
