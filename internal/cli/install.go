package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/shim"
)

func (c *command) installCommands(out *term.Printer) []*ucli.Command {
	where := []ucli.Flag{
		&ucli.BoolFlag{Name: "local", Usage: "the pre-push hook of this repository (the default)"},
		&ucli.BoolFlag{Name: "global", Usage: "every repository of this user, through core.hooksPath"},
		&ucli.StringFlag{Name: "template", Usage: "the hooks of a template `DIR` for new repositories"},
		&ucli.StringFlag{Name: "shim", Usage: "a link named git in `DIR`, and print the line that puts it first on PATH"},
		&ucli.BoolFlag{Name: "server", Usage: "the pre-receive hook of the bare repository DIR, or of the one here"},
		&ucli.StringFlag{Name: "hooks-path", Usage: "with --server: the `DIR` where this server looks for hooks, such as custom_hooks"},
	}
	return []*ucli.Command{
		{
			Name:  "install",
			Usage: "install a hook that takes the lock for plain git push, or a link named git on PATH",
			UsageText: `git gitops install [--local | --global | --template DIR]
git gitops install --server [--hooks-path DIR] [DIR]
eval "$(git gitops install --shim DIR)"`,
			Flags:  append(where, &ucli.StringFlag{Name: "shell", Usage: "the `SHELL` that the line is for (default: $SHELL)"}),
			Action: func(u *ucli.Context) error { return c.place(u, out, true) },
		},
		{
			Name:   "uninstall",
			Usage:  "undo install, and restore what was there before",
			Flags:  where,
			Action: func(u *ucli.Context) error { return c.place(u, out, false) },
		},
	}
}

// place installs or uninstalls at the one place that the flags name.
func (c *command) place(u *ucli.Context, out *term.Printer, install bool) error {
	n := 0
	for _, name := range []string{"local", "global", "template", "shim", "server"} {
		if u.IsSet(name) {
			n++
		}
	}
	server := u.Bool("server")
	noFolder := u.IsSet("hooks-path") && (!server || u.String("hooks-path") == "")
	if n > 1 || u.NArg() > 1 || u.Args().Present() && !server || noFolder {
		return &usageError{verb: u.Command.Name, err: errors.New("want one of --local, --global, --template DIR, --shim DIR, --server [--hooks-path DIR] [DIR]")}
	}
	switch {
	case server:
		return c.placeServer(u, out, install)
	case u.IsSet("shim"):
		return placeShim(u, out, install)
	case u.Bool("global"):
		if err := c.placeGlobal(u.Context, out, install); err != nil {
			return err
		}
		c.tellLFS(u.Context, out)
		return nil
	case u.IsSet("template"):
		dir, err := filepath.Abs(filepath.Join(u.String("template"), "hooks"))
		if err != nil {
			return fmt.Errorf("template folder: %w", err)
		}
		if err := placeHook(out, dir, install); err != nil {
			return err
		}
		if root := filepath.Dir(dir); install && c.git.GlobalConfig(u.Context, "init.templateDir") != root {
			out.Say("to use it in new repositories: git config --global init.templateDir %q", root)
		}
		return nil
	default:
		if !install {
			return c.removeLocal(u.Context, out)
		}
		dir, err := c.localHooks(u.Context)
		if err != nil {
			return err
		}
		if err := placeHook(out, dir, install); err != nil {
			return err
		}
		if top := c.git.WorkTree(u.Context); top != "" {
			for _, m := range hooks.Expected(top) {
				out.Warn("%s is set up here, and would move this hook to where nothing runs it; %s", m.Manager, m.Advice)
			}
		}
		c.tellLFS(u.Context, out)
		return nil
	}
}

// removeLocal removes our hook from all places where this repository may have it, and names
// those from which somebody else has to remove it.
func (c *command) removeLocal(ctx context.Context, out *term.Printer) error {
	repo, err := c.git.State(ctx)
	if err != nil {
		return err
	}
	dirs := []string{filepath.Join(repo.CommonDir, "hooks")}
	if dir, err := c.localHooks(ctx); err == nil && !slices.Contains(dirs, dir) {
		dirs = append(dirs, dir)
	}
	removed := false
	for _, dir := range dirs {
		changed, err := hooks.Uninstall(dir)
		if err != nil {
			return &adminError{what: err.Error()}
		}
		if changed {
			removed = true
			out.Say("removed the pre-push hook from %s", dir)
		}
	}
	callers := hooks.Callers(c.git.WorkTree(ctx))
	for _, file := range callers {
		out.Warn("%s still runs git-gitops pre-push: remove it there", file)
	}
	if !removed && len(callers) == 0 {
		out.Say("git-gitops has no pre-push hook in %s", strings.Join(dirs, " or "))
	}
	c.tellLFS(ctx, out)
	return nil
}

// tellLFS says how the Git LFS content of the repository here, if there is one, gets to the remote
// now.
func (c *command) tellLFS(ctx context.Context, out *term.Printer) {
	repo, err := c.git.State(ctx)
	if err != nil || !git.HasProgram("lfs") || !hooks.HasLFS(repo.CommonDir) {
		return
	}
	dir, err := c.git.HooksDir(ctx)
	if err != nil {
		return
	}
	if uploader := hooks.LFSUploader(repo.CommonDir, dir); uploader != "" {
		out.Say("Git LFS content of this repository is uploaded by %s", uploader)
	} else {
		out.Warn("this repository uses Git LFS, and no hook uploads its content: git lfs update")
	}
}

// localHooks is where git looks for this repository's hooks, unless that is a place for many.
func (c *command) localHooks(ctx context.Context) (string, error) {
	dir, err := c.git.HooksDir(ctx)
	if err != nil {
		return "", err
	}
	if global := c.git.GlobalConfig(ctx, "core.hooksPath"); global != "" && filepath.Clean(global) == dir {
		return "", &adminError{
			what: fmt.Sprintf("git looks for this repository's hooks in %s, which is for all repositories of this user", dir),
			do:   "git gitops install --global",
		}
	}
	return dir, nil
}

func placeHook(out *term.Printer, dir string, install bool) error {
	if !install {
		changed, err := hooks.Uninstall(dir)
		return say(out, changed, err, "removed the pre-push hook from "+dir, "git-gitops has no pre-push hook in "+dir)
	}
	changed, err := hooks.Install(dir)
	var managed *hooks.ManagedError
	if errors.As(err, &managed) {
		return &adminError{what: managed.Error() + ", which would undo what is written there", do: managed.Advice}
	}
	return say(out, changed, err, "installed the pre-push hook in "+dir, "the pre-push hook is already in "+dir)
}

func (c *command) placeGlobal(ctx context.Context, out *term.Printer, install bool) error {
	config := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(config) {
		home, err := os.UserHomeDir()
		if err != nil {
			return fmt.Errorf("find the configuration folder: %w", err)
		}
		config = filepath.Join(home, ".config")
	}
	ours := filepath.Join(config, "git-gitops", "hooks")
	set := c.git.GlobalConfig(ctx, "core.hooksPath")
	if install {
		if set != "" && set != ours { // somebody's own folder of hooks: join them there
			return placeHook(out, set, true)
		}
		changed, err := hooks.InstallAll(ours)
		if err == nil && set == "" {
			changed = true
			err = c.git.SetGlobalConfig(ctx, "core.hooksPath", ours)
		}
		if err := say(out, changed, err, "installed the hooks in "+ours+", and set core.hooksPath to it", "the hooks are already in "+ours); err != nil {
			return err
		}
		out.Say("while core.hooksPath is set, pre-commit and lefthook refuse to install hooks; hooks that they have installed still run. " +
			"A repository with its own core.hooksPath (husky) does not use these hooks")
		return nil
	}
	if set != "" && set != ours {
		return placeHook(out, set, false)
	}
	changed, err := hooks.UninstallAll(ours)
	if err == nil && set == ours {
		changed = true
		err = c.git.SetGlobalConfig(ctx, "core.hooksPath", "")
	}
	return say(out, changed, err, "removed the hooks, and unset core.hooksPath", "git-gitops has no hooks for all repositories")
}

func placeShim(u *ucli.Context, out *term.Printer, install bool) error {
	dir, err := filepath.Abs(u.String("shim"))
	if err != nil {
		return fmt.Errorf("shim folder: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if !install {
		changed, err := shim.RemoveLink(dir, self)
		return say(out, changed, err, "removed the link git from "+dir, "git-gitops has no link in "+dir)
	}
	if _, err := shim.MakeLink(dir, self); err != nil {
		return &adminError{what: err.Error(), do: "name a folder that is only for this link"}
	}
	shell := u.String("shell")
	if shell == "" {
		shell = os.Getenv("SHELL")
	}
	_, err = fmt.Fprintln(u.App.Writer, shim.PathLine(shell, dir))
	return err
}

func say(out *term.Printer, changed bool, err error, done, nothing string) error {
	switch {
	case err != nil:
		return &adminError{what: err.Error()}
	case changed:
		out.Say("%s", done)
	default:
		out.Say("%s", nothing)
	}
	return nil
}

// adminError is an installation that cannot be done as asked.
type adminError struct{ what, do string }

func (e *adminError) Error() string { return e.what }
