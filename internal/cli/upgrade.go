package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/internal/upgrade"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

func (c *command) upgradeCommand(out *term.Printer) *ucli.Command {
	return &ucli.Command{
		Name:      "upgrade",
		Usage:     "replace this program with its newest release",
		UsageText: "git gitops upgrade [--check] [--version VERSION] [--skip-signature]",
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "check", Usage: "only say whether there is a newer release; exit code 1 if so"},
			&ucli.StringFlag{Name: "version", Usage: "install the release `VERSION`, even if it is older"},
			&ucli.BoolFlag{Name: "skip-signature", Usage: "trust the checksum alone, even if cosign is on PATH"},
		},
		Action: func(u *ucli.Context) error {
			if u.Args().Present() {
				return &usageError{verb: "upgrade", err: fmt.Errorf("unexpected argument %q", u.Args().First())}
			}
			return c.upgrade(u.Context, out, u.String("version"), u.Bool("check"), u.Bool("skip-signature"))
		},
	}
}

func (c *command) upgrade(ctx context.Context, out *term.Printer, wanted string, check, skipSignature bool) error {
	if _, ok := upgrade.Known(wanted); !ok && wanted != "" {
		return &usageError{verb: "upgrade", err: fmt.Errorf("--version is %q, want a release such as 1.2.3", wanted)}
	}
	now, released := upgrade.Known(programVersion())
	if !released && wanted == "" {
		return &adminError{
			what: fmt.Sprintf("this program was built from source (%s), and cannot be compared with a release", programVersion()),
			do:   "name the release to install: git gitops upgrade --version VERSION",
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if !check {
		if err := c.mayReplace(ctx, self); err != nil {
			return err
		}
	}

	base := os.Getenv("GITOPS_DOWNLOAD_BASE")
	source, err := upgrade.From(base, "git-gitops/"+programVersion())
	if err != nil {
		return &config.Error{Name: "GITOPS_DOWNLOAD_BASE", Value: giturl.Redact(base), Allowed: err.Error()}
	}
	release, err := source.Find(ctx, wanted, upgrade.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH})
	if err != nil {
		return err
	}
	switch {
	case released && (release.Version == now || wanted == "" && !upgrade.Newer(release.Version, now)):
		out.Say("git-gitops %s is up to date", now)
		return nil
	case check:
		do := "git gitops upgrade"
		if wanted != "" {
			do += " --version " + release.Version
		}
		out.Say("git-gitops %s is available; this is %s: %s", release.Version, programVersion(), do)
		return &exitError{exitFailed}
	}
	if !skipSignature {
		if err := source.Verify(ctx, release); err != nil {
			return err
		}
	}
	program, err := source.Program(ctx, release)
	if err != nil {
		return err
	}
	if err := upgrade.Replace(self, program); err != nil {
		return &adminError{what: err.Error(), do: "run it as the user who may write to " + filepath.Dir(self)}
	}
	out.Say("%s is now git-gitops %s; it was %s", self, release.Version, programVersion())
	return nil
}

// mayReplace says why this program must not be replaced: it is a package manager's, or some lock
// was taken by it, and what it wrote about that in the clone must be read by the same version.
func (c *command) mayReplace(ctx context.Context, self string) error {
	if by, do := packaged(self); by != "" {
		return &adminError{what: fmt.Sprintf("%s was installed by %s, which has to upgrade it", self, by), do: do}
	}
	held, err := c.held(ctx)
	if err != nil || len(held) == 0 {
		return err
	}
	names := make([]string, len(held))
	for i, k := range held {
		names[i] = k.String()
	}
	return &adminError{
		what: "not upgraded while a lock is held: " + strings.Join(names, ", "),
		do:   "push, or git gitops unlock --all, and then upgrade",
	}
}

// held are the locks of this script, and of the clone we are in.
func (c *command) held(ctx context.Context) ([]lock.Key, error) {
	gitConfig, err := c.git.ReadConfig(ctx)
	if err != nil {
		return nil, err
	}
	override := os.Getenv("GITOPS_LOCK_SESSION")
	if value, ok := gitConfig.Get("gitops.locksession"); ok && override == "" {
		override = value
	}
	var held []lock.Key
	seen := map[string]bool{}
	if owner, err := session.Detect(os.Getpid(), override); err == nil {
		for _, e := range workspace.Held(owner.ID()) {
			held, seen[e.Key.ID()] = append(held, e.Key), true
		}
	}
	repo, err := c.git.State(ctx)
	if err != nil { // not in a clone
		return held, nil
	}
	entries, err := workspace.At(repo.CommonDir).Load()
	for _, e := range entries {
		if !seen[e.Key.ID()] {
			held = append(held, e.Key)
		}
	}
	var state *workspace.StateError
	if errors.As(err, &state) && state.Problem == workspace.Foreign { // which is what an upgrade is for
		err = nil
	}
	return held, err
}

// packaged is who installed a program, if it was a package manager, and what then upgrades it. Our
// packages have a file that says which they are, at a place relative to the program's.
func packaged(self string) (by, do string) {
	if strings.Contains(filepath.ToSlash(self), "/Caskroom/") {
		return "Homebrew", "brew upgrade --cask git-gitops"
	}
	mark, err := os.ReadFile(filepath.Join(filepath.Dir(self), "..", "share", "git-gitops", "packaged-as"))
	if err != nil {
		return "", ""
	}
	from := " (from " + upgrade.Home + ")"
	switch kind := strings.TrimSpace(string(mark)); kind {
	case "deb":
		return "apt or dpkg", "apt-get install ./git-gitops_VERSION_linux_" + runtime.GOARCH + ".deb" + from
	case "rpm":
		return "dnf or rpm", "dnf install ./git-gitops_VERSION_linux_" + runtime.GOARCH + ".rpm" + from
	case "apk":
		return "apk", "apk add --allow-untrusted ./git-gitops_VERSION_linux_" + runtime.GOARCH + ".apk" + from
	case "archlinux":
		return "pacman", "pacman -U ./git-gitops_VERSION_linux_" + runtime.GOARCH + ".pkg.tar.zst" + from
	case "image":
		return "its container image", "use the image of the newer version"
	default:
		return "a package manager", "upgrade it there"
	}
}
