package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/shim"
)

// program checks git and this program.
func (d *Checkup) program(ctx context.Context) {
	d.OK("gitops", "version %s", d.Version)
	version, err := d.Git.Version(ctx)
	if err != nil {
		d.Fail("git", "install git, or name it in GITOPS_GIT", "%v", err)
		return
	}
	d.OK("git", "version %s, %s", version, d.Git.Path)
}

// settings are those that are set, with where they come from, and what is wrong with them.
func (d *Checkup) settings(ctx context.Context) {
	var err error
	var tooOld *git.TooOldError
	switch d.GitConfig, err = d.Git.ReadScopedConfig(ctx); {
	case errors.As(err, &tooOld):
		d.Fail("git", TooOldAdvice, "%v", err)
	case err != nil:
		d.Fail("settings", "fix the file that git names", "git cannot read its configuration: %v", err)
	}
	readable := err == nil
	user := d.GitConfig.User()
	d.Config, err = config.Load(os.LookupEnv, config.FromGit(user.Get, d.GitConfig.Get))
	d.sound = readable && err == nil
	if err != nil {
		for _, one := range Flatten(err) {
			d.Fail("settings", "", "%v", one)
		}
	}
	defaults := 0
	for _, s := range d.Config.Settings {
		switch s.Source {
		case config.Default:
			defaults++
			continue
		case config.GitConfig:
			scope := d.GitConfig.Scope(s.GitKey)
			if !config.RepositoryMaySet(s.Name) {
				scope = user.Scope(s.GitKey)
			}
			d.OK("setting", "%s is %s (git config %s, %s)", s.Name, s.Value, s.GitKey, scope)
		default:
			d.OK("setting", "%s is %s (%s)", s.Name, s.Value, s.Source)
		}
	}
	d.OK("settings", "%d others have their defaults", defaults)
	d.leftOut()
	if patterns := config.Include(os.LookupEnv, user.Config[config.IncludeKey]); len(patterns) > 0 {
		d.OK("include", "only repositories like %s are locked", strings.Join(patterns, " or "))
	}
	for _, name := range config.Unknown(os.Environ()) {
		d.Warn("unknown", "correct its name, or unset it", "%s is set, but is not a setting of git-gitops", name)
	}
}

// leftOut are the settings that the repository here makes and may not make.
func (d *Checkup) leftOut() {
	keys := []string{config.IncludeKey}
	for _, v := range config.Variables() {
		if !config.RepositoryMaySet(v.Name) {
			keys = append(keys, v.GitKey)
		}
	}
	for _, key := range keys {
		if scope := d.GitConfig.RepositoryScope(key); scope != "" {
			d.Warn("setting", "if it is yours, set it for your user: git config --global "+key+" VALUE",
				"%s is set in this repository's own configuration (%s), and ignored: a repository may not set it", key, scope)
		}
	}
}

// shim says what a plain git is for scripts that are started here.
func (d *Checkup) shim() {
	self, err := os.Executable()
	if err != nil {
		d.Warn("shim", "", "%v", err)
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
			d.OK("shim", "none: plain git is %s", filepath.Join(dir, name))
		case os.Getenv("GITOPS_SHIM") == "off":
			d.Warn("shim", "unset GITOPS_SHIM", "plain git is the git-gitops link in %s, but GITOPS_SHIM is off", dir)
		default:
			d.OK("shim", "plain git is the git-gitops link in %s", dir)
		}
		return
	}
	d.OK("shim", "none: no git on PATH")
}

func (d *Checkup) session() {
	found, err := session.Detect(os.Getpid(), d.Config.Lock.Session)
	switch {
	case err != nil:
		d.Fail("session", "set GITOPS_LOCK_SESSION to the id of a living process, or workspace, or unset it", "%v", err)
	case found.Owner == nil && d.Config.Lock.Session != session.Workspace:
		d.Warn("session", "run git from a script; or set GITOPS_LOCK_SESSION to the id of a process, or to workspace",
			"no process above this command can own a lock, so nobody renews it: it ends with GITOPS_LOCK_TTL")
	case found.Owner == nil:
		d.OK("session", "none: a lock belongs to the clone, until push, unlock or GITOPS_LOCK_MAX_HOLD")
	default:
		d.OK("session", "a lock ends with process %d (%s)", found.Owner.PID, found.Owner.Name)
	}
}
