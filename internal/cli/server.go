package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/doctor"
	"github.com/git-gitops/git-gitops/internal/fence"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/term"
)

// placeServer installs the hook of a server, or takes it out.
func (c *command) placeServer(u *ucli.Context, out *term.Printer, install bool) error {
	g := c.git
	if dir := u.Args().First(); dir != "" {
		g = g.In(dir)
	}
	answer, err := g.Output(u.Context, "rev-parse", "--is-bare-repository", "--absolute-git-dir")
	var gitErr *git.Error
	if errors.As(err, &gitErr) {
		return &adminError{what: gitErr.Error(), do: "git gitops install --server DIR, of a bare repository"}
	}
	if err != nil {
		return err
	}
	bare, gitDir, _ := strings.Cut(strings.TrimSpace(answer), "\n")
	if bare != "true" {
		return &adminError{what: gitDir + " is not a bare repository, and --server is for repositories that others push to", do: "git gitops install --server DIR"}
	}
	dir := u.String("hooks-path")
	if dir == "" {
		dir, err = g.HooksDir(u.Context)
	} else {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return fmt.Errorf("find the folder of hooks: %w", err)
	}
	if !install {
		changed, err := hooks.UninstallServer(dir)
		return say(out, changed, err, "removed the pre-receive hook from "+dir, "no pre-receive hook of git-gitops in "+dir)
	}
	changed, err := hooks.InstallServer(dir)
	if err := say(out, changed, err, "installed the pre-receive hook in "+dir, "the pre-receive hook is already in "+dir); err != nil {
		return err
	}
	settings, err := g.ReadConfig(u.Context)
	if err == nil && len(settings["gitops.protect"]) == 0 {
		out.Say("nothing is protected yet: git -C %s config --add gitops.protect main", gitDir)
	}
	return nil
}

// serverHere is a bare repository as doctor sees it.
type serverHere struct {
	gitDir  string // "": this is none
	hookDir string // where it has our hook; "": nowhere

	symbolic map[string]string // branches that are symbolic refs, and what they stand for
	branches []string
}

// findServer finds out whether this is a bare repository, and where it has our hook.
func findServer(ctx context.Context, g git.Git) (here serverHere) {
	answer, err := g.Output(ctx, "rev-parse", "--is-bare-repository", "--absolute-git-dir")
	bare, gitDir, _ := strings.Cut(strings.TrimSpace(answer), "\n")
	if err != nil || bare != "true" {
		return here
	}
	here.gitDir = gitDir
	here.symbolic, _ = g.SymbolicRefs(ctx, []string{"refs/heads"})
	here.branches, _ = g.Branches(ctx)
	dir, err := g.HooksDir(ctx)
	if err != nil {
		return here
	}
	places := hooks.ServerPlaces(gitDir, dir)
	if i := slices.IndexFunc(places, hooks.ServerInstalled); i >= 0 {
		here.hookDir = places[i]
	}
	return here
}

// check reports on the hook of a bare repository, if it has one.
func (here serverHere) check(_ context.Context, d *doctor.Checkup) {
	settings := d.GitConfig.Config
	protect := settings["gitops.protect"]
	switch {
	case here.gitDir == "" || here.hookDir == "" && len(protect) == 0:
		return
	case here.hookDir == "":
		d.Fail("server", "git gitops install --server", "gitops.protect names %s, but %s has no pre-receive hook of git-gitops", strings.Join(protect, " or "), here.gitDir)
		return
	case len(protect) == 0:
		d.Warn("server", "git config --add gitops.protect main", "the pre-receive hook is in %s, but protects no branch", here.hookDir)
	default:
		d.OK("server", "branches like %s accept only what the holder of their lock has declared, through the hook in %s", strings.Join(protect, " or "), here.hookDir)
	}
	rules, err := fenceRules(settings, here.gitDir)
	if err != nil {
		d.Fail("server", "git config gitops.lockRepo IDENTITY", "%v", err)
		return
	}
	decisions := lastDecisions(here.gitDir, fenceLogMost)
	allowed := func(line string) bool { return strings.HasSuffix(line, " allowed") }
	_, set := settings.Get("gitops.lockrepo")
	switch identity := clientsName(rules.Repo); {
	case set && identity != rules.Repo:
		d.Warn("server", "git config gitops.lockRepo "+identity, "gitops.lockRepo is %s, but clients call the repository %s", rules.Repo, identity)
	case len(decisions) > 0 && !slices.ContainsFunc(decisions, allowed):
		d.Warn("server", "compare it with what git gitops locks shows while a client holds the lock: git config gitops.lockRepo IDENTITY",
			"no push was accepted yet; do clients call this repository %s?", rules.Repo)
	case set:
		d.OK("server", "clients call this repository %s", rules.Repo)
	default:
		d.Warn("server", "set the name that clients use, such as git.example.com/org/repo: git config gitops.lockRepo IDENTITY",
			"gitops.lockRepo is not set, so clients must reach this repository as %s", rules.Repo)
	}
	rules.Symbolic, rules.Branches = here.symbolic, here.branches
	for _, name := range here.branches {
		if why := rules.Alias(name); why != "" {
			advice := "rename one of the two"
			switch target := here.symbolic[name]; {
			case target != "":
				advice = "push to " + target
			case !rules.Names(name):
				advice = "rename it, or protect it by this name"
			}
			d.Warn("server", advice, "a push to %s is refused: %s", name, why)
		}
	}
	for _, pattern := range rules.Void() {
		d.Fail("server", "git config gitops.protect 'release/*'", "gitops.protect %q protects nothing: it must be a branch, or a pattern of branches", pattern)
	}
	for _, rule := range rules.Exempt {
		if _, _, ok := fence.Exemption(rule); !ok {
			d.Warn("server", "git config gitops.protectExempt NAME=value", "gitops.protectExempt %q exempts nobody: it must be NAME=value", rule)
			continue
		}
		d.OK("server", "a push with %s in the environment of the hook needs no lock", rule)
	}
	if settings.IsTrue("gitops.protectfailopen") {
		d.Warn("server", "git config --unset gitops.protectFailOpen", "while Redis cannot be reached, every push is accepted")
	}
	for _, line := range decisions[max(0, len(decisions)-3):] {
		d.OK("server", "%s", line)
	}
}

// clientsName is what clients call a repository by themselves, if somebody has written its URL.
func clientsName(repo string) string {
	if !strings.Contains(repo, "://") && !strings.HasSuffix(repo, ".git") {
		return repo
	}
	u, err := giturl.Parse(repo, "/")
	if err != nil {
		return repo
	}
	return u.Identity()
}
