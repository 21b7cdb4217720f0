package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/internal/workspace"
	"github.com/git-gitops/git-gitops/shim"
)

const (
	// remoteBudget bounds what doctor asks of a git remote, and redisBudget what it asks of Redis.
	remoteBudget = 15 * time.Second
	redisBudget  = 30 * time.Second

	certificateSoon = 14 * 24 * time.Hour
	clockApart      = 2 * time.Second

	notAllowed = "not allowed to look"
)

// status of a check.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn"
	statusFail status = "fail"
)

// check is one thing that doctor looked at, as `doctor --json` prints it; docs/reference.md describes the
// fields, and they do not change. Several checks may have the same name.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"`
}

// checkup is a doctor at work. What it needs to know of the configuration may be broken, and is then missing.
type checkup struct {
	git       git.Git
	gitConfig gitargs.ScopedConfig
	config    config.Config
	sound     bool              // the configuration is
	store     *redisstore.Store // nil: cannot be asked
	checks    []check
}

func (c *command) doctorCommand(out *term.Printer) *ucli.Command {
	return &ucli.Command{
		Name:  "doctor",
		Usage: "look at everything that a lock depends on, and say what is wrong",
		UsageText: `git gitops doctor [--json]
git gitops doctor --acl USER`,
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "json", Usage: "one JSON document"},
			&ucli.StringFlag{Name: "acl", Usage: "only print the Redis command that lets `USER` do what locks need, and no more"},
		},
		Action: func(u *ucli.Context) error {
			if u.Args().Present() {
				return &usageError{verb: "doctor", err: fmt.Errorf("unexpected word %q", u.Args().First())}
			}
			if u.IsSet("acl") {
				return c.printACL(u, out)
			}
			return c.doctor(u)
		},
	}
}

func (c *command) doctor(u *ucli.Context) error {
	d := &checkup{git: c.git.With("GIT_TERMINAL_PROMPT=0")} // a doctor asks nobody for a password
	d.program(u.Context)
	d.settings(u.Context)
	if d.sound {
		store := openStore(d.config.Redis)
		defer func() { _ = store.Close() }()
		d.redis(u.Context, store)
	}
	d.repository(u.Context)
	d.guard(u.Context)
	d.shim()
	d.session()
	if err := u.Err(); err != nil {
		return err
	}

	healthy := !slices.ContainsFunc(d.checks, func(c check) bool { return c.Status == statusFail })
	if err := printChecks(u.App.Writer, d.checks, healthy, u.Bool("json")); err != nil {
		return err
	}
	if !healthy {
		return &exitError{exitFailed}
	}
	return nil
}

func printChecks(w io.Writer, checks []check, healthy, asJSON bool) error {
	width := 0
	for i, c := range checks {
		checks[i].Detail, checks[i].Do = term.Clean(giturl.Redact(c.Detail)), term.Clean(giturl.Redact(c.Do))
		width = max(width, len(c.Name))
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		err := enc.Encode(struct {
			OK     bool    `json:"ok"`
			Checks []check `json:"checks"`
		}{healthy, checks})
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	var text strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&text, "%-4s  %-*s  %s\n", c.Status, width, c.Name, c.Detail)
		if c.Do != "" {
			fmt.Fprintf(&text, "%-4s  %-*s  do: %s\n", "", width, "", c.Do)
		}
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (d *checkup) add(name string, s status, do, format string, args ...any) {
	d.checks = append(d.checks, check{Name: name, Status: s, Detail: fmt.Sprintf(format, args...), Do: do})
}

func (d *checkup) ok(name, format string, args ...any) { d.add(name, statusOK, "", format, args...) }

func (d *checkup) warn(name, do, format string, args ...any) {
	d.add(name, statusWarn, do, format, args...)
}

func (d *checkup) fail(name, do, format string, args ...any) {
	d.add(name, statusFail, do, format, args...)
}

// program looks at git and at ourselves.
func (d *checkup) program(ctx context.Context) {
	d.ok("gitops", "version %s", programVersion())
	version, err := d.git.Version(ctx)
	if err != nil {
		d.fail("git", "install git, or name it in GITOPS_GIT", "%v", err)
		return
	}
	d.ok("git", "version %s, %s", version, d.git.Path)
}

// settings are those that are set, with where they come from, and what is wrong with them.
func (d *checkup) settings(ctx context.Context) {
	var err error
	var tooOld *git.TooOldError
	switch d.gitConfig, err = d.git.ReadScopedConfig(ctx); {
	case errors.As(err, &tooOld):
		d.fail("git", tooOldAdvice, "%v", err)
	case err != nil:
		d.fail("settings", "mend the file that git names", "git cannot read its configuration: %v", err)
	}
	readable := err == nil
	user := d.gitConfig.User()
	d.config, err = config.Load(os.LookupEnv, config.FromGit(user.Get, d.gitConfig.Get))
	d.sound = readable && err == nil
	if err != nil {
		for _, one := range flatten(err) {
			d.fail("settings", "", "%v", one)
		}
	}
	defaults := 0
	for _, s := range d.config.Settings {
		switch s.Source {
		case config.Default:
			defaults++
			continue
		case config.GitConfig:
			scope := d.gitConfig.Scope(s.GitKey)
			if !config.RepositoryMaySet(s.Name) {
				scope = user.Scope(s.GitKey)
			}
			d.ok("setting", "%s is %s (git config %s, %s)", s.Name, s.Value, s.GitKey, scope)
		default:
			d.ok("setting", "%s is %s (%s)", s.Name, s.Value, s.Source)
		}
	}
	d.ok("settings", "%d others have their defaults", defaults)
	d.leftOut()
	if patterns := config.Include(os.LookupEnv, user.Config[config.IncludeKey]); len(patterns) > 0 {
		d.ok("include", "only repositories like %s are locked", strings.Join(patterns, " or "))
	}
	for _, name := range config.Unknown(os.Environ()) {
		d.warn("unknown", "correct its name, or unset it", "%s is set, and nobody reads it", name)
	}
}

// leftOut are the settings that the repository here makes and may not make.
func (d *checkup) leftOut() {
	keys := []string{config.IncludeKey}
	for _, v := range config.Variables() {
		if !config.RepositoryMaySet(v.Name) {
			keys = append(keys, v.GitKey)
		}
	}
	for _, key := range keys {
		if scope := d.gitConfig.RepositoryScope(key); scope != "" {
			d.warn("setting", "if it is yours, set it for your user: git config --global "+key+" VALUE",
				"%s is set in this repository's own configuration (%s), and left out: a repository may not set it", key, scope)
		}
	}
}

// redis looks at the server, or at each master, and tries the life of a lock.
func (d *checkup) redis(ctx context.Context, store *redisstore.Store) {
	ctx, cancel := context.WithTimeout(ctx, redisBudget)
	defer cancel()
	nodes, err := store.Nodes(ctx)
	if err != nil {
		d.storeFailure("redis", err)
		return
	}
	d.store = store
	user := d.config.Redis.Username
	for _, n := range nodes {
		d.node(n)
		if n.User != "" {
			user = n.User
		}
	}
	if user == "" {
		user = "default"
	}
	errs := []error{}
	if err := store.Probe(ctx); err != nil {
		errs = flatten(err)
	}
	for _, err := range errs {
		var trouble *lock.StoreError
		if errors.As(err, &trouble) && trouble.Failure == lock.Forbidden {
			d.fail("permissions", "git gitops doctor --acl "+user, "%v", err)
			continue
		}
		d.storeFailure("permissions", err)
	}
	if len(errs) == 0 {
		d.ok("permissions", "every step of a lock's life is allowed")
		d.presence(ctx, store, user)
	}
}

// presence tells whether a lock whose processes are gone is freed before its TTL.
func (d *checkup) presence(ctx context.Context, store *redisstore.Store, user string) {
	err := store.ProbePresence(ctx)
	var trouble *lock.StoreError
	switch {
	case err == nil:
		d.ok("presence", "the server counts who is connected, so a lock whose container died is freed in seconds")
	case errors.As(err, &trouble) && trouble.Failure == lock.Forbidden:
		d.warn("presence", "git gitops doctor --acl "+user, "a lock whose container died is freed only by its TTL: %v", err)
	default:
		d.warn("presence", "use a Redis with Pub/Sub; for a Cluster, Redis 7 or newer", "a lock whose container died is freed only by its TTL: %v", err)
	}
}

// storeFailure is a check that failed, with what to do about it.
func (d *checkup) storeFailure(name string, err error) {
	var trouble *lock.StoreError
	do := ""
	if errors.As(err, &trouble) {
		do = strings.Join(storeAdvice[trouble.Failure], "; ")
	}
	d.fail(name, do, "%v", err)
}

func (d *checkup) node(n redisstore.Node) {
	refused := func(command string) bool { return slices.Contains(n.Refused, command) }
	d.ok("redis", "%s answers", n.Addr)
	d.tls(n.TLS)
	switch {
	case refused("ACL WHOAMI") && d.config.Redis.Username != "":
		d.ok("user", "%s", d.config.Redis.Username)
	case refused("ACL WHOAMI"):
		d.ok("user", notAllowed)
	default:
		d.ok("user", "%s", n.User)
	}
	if len(n.Pings) == 0 {
		d.ok("latency", notAllowed)
	} else {
		rank := func(percent int) time.Duration {
			return n.Pings[(len(n.Pings)*percent+99)/100-1].Round(10 * time.Microsecond)
		}
		d.ok("latency", "p50 %s, p99 %s of %d pings", rank(50), rank(99), len(n.Pings))
	}
	if refused("TIME") {
		d.ok("clock", notAllowed)
	} else if apart := n.Ahead.Abs(); apart > clockApart {
		d.warn("clock", "set the clock of one of the two, if ages and logs are to agree; locks go by the server's alone",
			"the server's is %s apart from ours", term.Duration(apart))
	} else {
		d.ok("clock", "the server's is %s apart from ours", term.Duration(apart))
	}
	if refused("INFO") {
		for _, name := range []string{"version", "role", "replicas", "persistence", "eviction"} {
			d.ok(name, notAllowed)
		}
		return
	}
	d.server(n, refused("CONFIG GET"))
}

func (d *checkup) tls(state *tls.ConnectionState) {
	switch {
	case state == nil:
		d.ok("tls", "none")
		return
	case d.config.Redis.Insecure:
		d.warn("tls", "unset REDIS_TLS_INSECURE, and name the authority in REDIS_TLS_CA_CERT", "whoever answers at the Redis address is believed")
	}
	first := state.PeerCertificates[0]
	for _, c := range state.PeerCertificates {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	left := time.Until(first.NotAfter)
	text := fmt.Sprintf("%s, certificate of %s expires on %s (in %d days)",
		tls.VersionName(state.Version), first.Subject, first.NotAfter.UTC().Format(time.DateOnly), int(left.Hours()/24))
	if left < certificateSoon {
		d.warn("tls", "renew the server's certificate", "%s", text)
		return
	}
	d.ok("tls", "%s", text)
}

// server judges what INFO says.
func (d *checkup) server(n redisstore.Node, saveHidden bool) {
	name, version := "Redis", n.Info["redis_version"]
	if v := n.Info["valkey_version"]; v != "" {
		name, version = "Valkey", v
	}
	var major, minor int
	if count, _ := fmt.Sscanf(n.Info["redis_version"], "%d.%d", &major, &minor); count == 2 && (major < 6 || major == 6 && minor < 2) {
		d.warn("version", "update the server to 6.2 or newer", "%s %s", name, version)
	} else {
		d.ok("version", "%s %s", name, version)
	}

	if n.Info["cluster_enabled"] == "1" && d.config.Redis.Mode != config.Cluster {
		d.fail("cluster", storeAdvice[lock.ClusterNode][0], "one node of a Cluster, which refuses the locks of other nodes")
	}
	if role := n.Info["role"]; role == "slave" {
		d.fail("role", storeAdvice[lock.ReadOnly][0], "a replica of %s:%s, which takes no locks", n.Info["master_host"], n.Info["master_port"])
	} else {
		d.ok("role", "%s", role)
	}

	replicas, _ := strconv.Atoi(n.Info["connected_slaves"])
	switch want := d.config.Redis.MinReplicas; {
	case replicas < want:
		d.fail("replicas", "connect the replicas, or lower GITOPS_REDIS_MIN_REPLICAS", "%d connected, GITOPS_REDIS_MIN_REPLICAS wants %d", replicas, want)
	case replicas > 0 && want == 0:
		d.ok("replicas", "%d connected; no lock waits for them, so a failover may lose one that was just taken (GITOPS_REDIS_MIN_REPLICAS=1 makes that rare)", replicas)
	default:
		d.ok("replicas", "%d connected", replicas)
	}

	const forgets = "when the server restarts, holders take their locks back, and the order of those who wait may be lost"
	switch {
	case n.Info["aof_enabled"] == "1":
		d.ok("persistence", "append-only file")
	case saveHidden:
		d.ok("persistence", "no append-only file; snapshots: %s", notAllowed)
	case n.Save == "":
		d.warn("persistence", "turn the append-only file on (appendonly yes)", "none: %s", forgets)
	case n.Info["rdb_last_bgsave_status"] == "err":
		d.warn("persistence", storeAdvice[lock.Persistence][0], "snapshots (save %s), of which the last failed", n.Save)
	default:
		d.ok("persistence", "snapshots (save %s)", n.Save)
	}

	limit := "no memory limit is set"
	if bytes := n.Info["maxmemory"]; bytes != "0" && bytes != "" {
		limit = "the memory limit is " + bytes + " bytes"
	}
	switch policy := n.Info["maxmemory_policy"]; {
	case policy == "":
		d.ok("eviction", "the server does not say")
	case strings.HasPrefix(policy, "allkeys-"), strings.HasPrefix(policy, "volatile-"):
		d.warn("eviction", "set maxmemory-policy to noeviction, or give locks a server of their own",
			"%s: a full server may drop locks that are held (%s)", policy, limit)
	default:
		d.ok("eviction", "%s (%s)", policy, limit)
	}
}

// repository looks at the clone here: which locks its push takes, which it holds, its hook, its remote.
func (d *checkup) repository(ctx context.Context) {
	repo, err := d.git.State(ctx)
	var gitErr *git.Error
	switch {
	case errors.As(err, &gitErr) && !strings.Contains(gitErr.Stderr, "not a git repository"):
		d.warn("repository", "", "git does not open the one here: %v", err)
		return
	case errors.As(err, &gitErr):
		d.ok("repository", "none here")
		if home, err := workspace.StateHome(); err == nil {
			d.held(ctx, workspace.Dir(filepath.Join(home, "held")))
		}
		return
	case err != nil:
		d.fail("repository", "", "%v", err)
		return
	}
	target, err := gitargs.PushArgs{}.Target(d.pushContext(ctx, repo))
	if err != nil {
		d.warn("repository", "", "cannot tell where a plain push goes: %v", err)
	} else {
		d.target(ctx, target)
	}
	d.held(ctx, workspace.At(repo.CommonDir))
	d.hook(ctx, repo)
	d.lfs(ctx, repo)
	if len(d.gitConfig.Config["remote."+target.Remote+".url"]) > 0 {
		d.legacy(ctx, target.Remote)
	}
}

func (d *checkup) pushContext(ctx context.Context, repo git.RepoState) gitargs.PushContext {
	return gitargs.PushContext{
		Config:    d.gitConfig.Config,
		Head:      repo.Head,
		LocalRefs: func() ([]string, error) { return d.git.LocalRefs(ctx) },
		RemoteRefs: func(remote string) ([]string, error) {
			ctx, cancel := context.WithTimeout(ctx, remoteBudget)
			defer cancel()
			return d.git.RemoteRefs(ctx, remote)
		},
	}
}

// target names the locks that a plain push takes.
func (d *checkup) target(ctx context.Context, target gitargs.PushTarget) {
	if len(d.gitConfig.Config["remote."+target.Remote+".url"]) == 0 {
		d.ok("repository", "no remote %s; a plain push goes nowhere", target.Remote)
		return
	}
	dir, err := d.git.Dir()
	if err != nil {
		d.fail("repository", "", "%v", err)
		return
	}
	for _, url := range d.gitConfig.PushURLs(target.Remote) {
		u, err := giturl.Parse(url, dir)
		if err != nil {
			d.fail("repository", "mend the URL of the remote "+target.Remote, "%v", err)
			continue
		}
		repo := u.Identity()
		d.ok("repository", "%s (remote %s)", repo, target.Remote)
		if l := d.config.Lock; d.sound {
			if l.Repo != "" {
				repo = l.Repo
			}
			for _, b := range target.Branches {
				d.lock(ctx, lock.Key{Repo: repo, Branch: strings.TrimPrefix(b, "refs/heads/"), Name: l.Name, Verbatim: l.Key})
			}
		}
	}
	if len(target.Branches) == 0 {
		d.ok("lock", "none: a plain push updates no branch here")
	}
}

func (d *checkup) lock(ctx context.Context, k lock.Key) {
	name := d.config.Redis.Prefix + ":lock:{" + k.ID() + "}"
	if k.Verbatim != "" {
		name = k.Verbatim
	}
	if d.store == nil {
		d.ok("lock", "%s", name)
		return
	}
	state, err := d.store.Inspect(ctx, k)
	switch {
	case err != nil:
		d.storeFailure("lock", fmt.Errorf("%s: %w", name, err))
	case state.Holder == nil:
		d.ok("lock", "%s, free", name)
	default:
		d.ok("lock", "%s, held by %s", name, holderText(*state.Holder))
	}
}

// held are the locks that this clone remembers, and their keepers.
func (d *checkup) held(ctx context.Context, dir workspace.Dir) {
	entries, err := dir.Load()
	if err == nil && !dir.Gone() {
		err = dir.Writable()
	}
	var state *workspace.StateError
	if errors.As(err, &state) {
		d.fail("keeper", strings.Join(stateAdvice(state), "; "), "%v", err)
	}
	if err == nil && len(entries) == 0 {
		d.ok("keeper", "this clone remembers no lock")
	}
	const end = "git gitops push, or git gitops unlock --all"
	for _, e := range entries {
		var keeper session.Process
		alive := len(e.Keeper) > 0 && json.Unmarshal(e.Keeper, &keeper) == nil && keeper.Alive()
		var holder *lock.Holder
		if d.store != nil {
			state, err := d.store.Inspect(ctx, e.Key)
			if err != nil {
				d.storeFailure("keeper", fmt.Errorf("%s: %w", e.Key, err))
				continue
			}
			holder = state.Holder
		}
		switch {
		case d.store != nil && (holder == nil || holder.Token != e.Token), e.Lost != "":
			why := e.Lost
			if why == "" {
				why = "it expired, or was given to another"
			}
			d.warn("keeper", "push or unlock takes note of it: "+end, "the lock on %s is not ours any more: %s", e.Key, why)
		case !alive:
			left := ""
			if holder != nil {
				left = expiry(holder.Left)
			}
			d.warn("keeper", end, "the lock on %s is ours, and nobody renews it%s", e.Key, left)
		default:
			d.ok("keeper", "the lock on %s is ours since %s (by %s), renewed by process %d", e.Key, e.Since.UTC().Format(time.RFC3339), e.Kind, keeper.PID)
		}
	}
}

func (d *checkup) hook(ctx context.Context, repo git.RepoState) {
	dir, err := d.git.HooksDir(ctx)
	if err != nil {
		d.warn("hook", "", "%v", err)
		return
	}
	_, missing := os.Stat(filepath.Join(dir, "pre-push"))
	own := filepath.Join(repo.CommonDir, "hooks")
	callers, aside := hooks.Callers(d.git.WorkTree(ctx)), hooks.SetAside(dir)
	switch installed := hooks.Installed(dir); {
	case !installed && missing == nil && len(callers) > 0:
		d.ok("hook", "plain git push is guarded by %s, if its hook manager runs it", callers[0])
	case !installed && aside != nil && aside.Runs && missing == nil:
		d.ok("hook", "plain git push is guarded by %s, which %s runs", aside.Path, aside.Manager)
	case !installed && aside != nil:
		d.warn("hook", aside.Advice, "%s has put our hook aside as %s, where nothing runs it: plain git push takes no lock", aside.Manager, aside.Path)
	case !installed && hooks.Installed(own):
		d.warn("hook", "git gitops install", "git does not look for hooks in %s, where ours is, but in %s (core.hooksPath): plain git push takes no lock", own, dir)
	case !installed:
		d.ok("hook", "none of ours in %s: plain git push takes no lock (git gitops install adds one)", dir)
	case !git.HasProgram("gitops"):
		d.fail("hook", "put git-gitops on PATH", "the pre-push hook in %s does not find git-gitops, and stops every push", dir)
	default:
		d.ok("hook", "plain git push is guarded by the pre-push hook in %s", dir)
	}
}

// lfs looks whether the content that Git LFS keeps beside the commits gets to the remote.
func (d *checkup) lfs(ctx context.Context, repo git.RepoState) {
	dir, err := d.git.HooksDir(ctx)
	if err != nil || !usesLFS(repo) {
		return
	}
	if uploader := lfsUploader(repo, dir); uploader != "" {
		d.ok("lfs", "Git LFS content is uploaded by %s", uploader)
	} else {
		d.warn("lfs", "git lfs update", "this repository uses Git LFS, and no pre-push hook in %s uploads its content", dir)
	}
}

// legacy finds the branches with which older scripts locked.
func (d *checkup) legacy(ctx context.Context, remote string) {
	ctx, cancel := context.WithTimeout(ctx, remoteBudget)
	defer cancel()
	out, err := d.git.Output(ctx, "ls-remote", "--heads", "--", remote, "lock.*")
	if err != nil {
		d.warn("legacy", "", "cannot look at the remote %s: %v", remote, err)
		return
	}
	var names, quoted []string
	for line := range strings.Lines(out) {
		_, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok && strings.HasPrefix(name, "lock.") {
			names, quoted = append(names, name), append(quoted, shellWord(name))
		}
	}
	if len(names) == 0 {
		d.ok("legacy", "no lock.* branches on the remote %s", remote)
		return
	}
	d.warn("legacy", "when no old script needs them: git push --delete "+shellWord(remote)+" "+strings.Join(quoted, " "),
		"%d branches of an older way of locking on the remote %s: %s", len(names), remote, strings.Join(names, ", "))
}

// shellWord is a word for a POSIX shell.
func shellWord(s string) string {
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-/@:+,", r)
	}
	if s != "" && !strings.ContainsFunc(s, odd) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// shim says what a plain git is for scripts that are started here.
func (d *checkup) shim() {
	self, err := os.Executable()
	if err != nil {
		d.warn("shim", "", "%v", err)
		return
	}
	name := "git"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	us, err := os.Stat(self)
	for _, dir := range filepath.SplitList(shim.SearchPath(os.LookupEnv)) {
		if dir == os.Getenv("GIT_EXEC_PATH") { // git put it there, for us alone
			continue
		}
		found, lacks := os.Stat(filepath.Join(dir, name))
		if lacks != nil || found.IsDir() {
			continue
		}
		switch {
		case err != nil || !os.SameFile(us, found):
			d.ok("shim", "none: plain git is %s", filepath.Join(dir, name))
		case os.Getenv("GITOPS_SHIM") == "off":
			d.warn("shim", "unset GITOPS_SHIM", "plain git is our link in %s, but GITOPS_SHIM is off", dir)
		default:
			d.ok("shim", "plain git is our link in %s", dir)
		}
		return
	}
	d.ok("shim", "none: no git on PATH")
}

func (d *checkup) session() {
	found, err := session.Detect(os.Getpid(), d.config.Lock.Session)
	switch {
	case err != nil:
		d.fail("session", "set GITOPS_LOCK_SESSION to the id of a living process, or workspace, or unset it", "%v", err)
	case found.Owner == nil && d.config.Lock.Session != session.Workspace:
		d.warn("session", "run git from a script; or set GITOPS_LOCK_SESSION to the id of a process, or to workspace",
			"none is to be found above this command, so nobody renews a lock: GITOPS_LOCK_TTL ends it")
	case found.Owner == nil:
		d.ok("session", "none: a lock belongs to the clone, until push, unlock or GITOPS_LOCK_MAX_HOLD end it")
	default:
		d.ok("session", "a lock ends with process %d (%s)", found.Owner.PID, found.Owner.Name)
	}
}

// printACL prints the Redis command for a user. It needs no Redis, and of the settings only those that
// matter for the rule.
func (c *command) printACL(u *ucli.Context, out *term.Printer) error {
	user := u.String("acl")
	blank := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '"' || r == '\'' }
	if user == "" || strings.ContainsFunc(user, blank) {
		return &usageError{verb: "doctor", err: fmt.Errorf("%q is no name of a Redis user", user)}
	}
	gitConfig, err := c.git.ReadScopedConfig(u.Context)
	if err != nil {
		return err
	}
	setting := config.FromGit(gitConfig.User().Get, gitConfig.Get)
	cfg, err := config.Load(os.LookupEnv, setting)
	var missing *config.Error
	if errors.As(err, &missing) && missing.Name == "REDIS_HOST" && len(flatten(err)) == 1 && missing.Value == "" {
		// Where Redis is matters not; anything will do for the rest.
		env := func(name string) (string, bool) {
			if name == "REDIS_HOST" {
				return "localhost", true
			}
			return os.LookupEnv(name)
		}
		cfg, err = config.Load(env, setting)
	}
	if err != nil {
		return err
	}
	var verbatim []string
	if cfg.Lock.Key != "" {
		verbatim = append(verbatim, cfg.Lock.Key)
	}
	words := append([]string{"ACL", "SETUSER", user}, redisstore.ACL(redisstore.Options{
		Prefix: cfg.Redis.Prefix, DB: cfg.Redis.DB, Cluster: cfg.Redis.Mode == config.Cluster, MinReplicas: cfg.Redis.MinReplicas,
	}, verbatim...)...)
	for i, w := range words {
		if strings.ContainsAny(w, `"'\`) { // as redis-cli reads it
			words[i] = strconv.Quote(w)
		}
	}
	if _, err := fmt.Fprintln(u.App.Writer, strings.Join(words, " ")); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	out.Say("a new user also needs a password: ACL SETUSER %s >PASSWORD", user)
	return nil
}
