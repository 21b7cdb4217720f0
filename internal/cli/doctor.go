package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/git-gitops/git-gitops/internal/doctor"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

func (c *command) doctorCommand(out *term.Printer) *ucli.Command {
	return &ucli.Command{
		Name:  "doctor",
		Usage: "check git, Redis, the settings and this clone, and say how to fix what is wrong",
		UsageText: `git gitops doctor [--json]
git gitops doctor --acl USER [--for ROLE]`,
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "json", Usage: "print one JSON document"},
			&ucli.StringFlag{Name: "acl", Usage: "only print the Redis command that gives `USER` the rights that locks need, and no others"},
			&ucli.StringFlag{Name: "for", Usage: "with --acl: the `ROLE` of the user: pipeline, operator (may also break and freeze locks), server (the hook of a git server) or viewer (page and metrics)"},
		},
		Action: func(u *ucli.Context) error {
			if u.Args().Present() {
				return &usageError{verb: "doctor", err: fmt.Errorf("unexpected argument %q", u.Args().First())}
			}
			role := redisstore.Role(u.String("for"))
			switch {
			case u.IsSet("for") && (!u.IsSet("acl") || !slices.Contains(redisstore.Roles, role)):
				return &usageError{verb: "doctor", err: errors.New("want --acl USER --for pipeline, operator, server or viewer")}
			case u.IsSet("acl"):
				return c.printACL(u, role, out)
			}
			return c.doctor(u)
		},
	}
}

func (c *command) doctor(u *ucli.Context) error {
	git := c.git.With("GIT_TERMINAL_PROMPT=0") // a doctor asks nobody for a password
	server := findServer(u.Context, git)
	d := &doctor.Checkup{
		Git:     git,
		Version: programVersion(), Open: openStore, HolderText: holderText,
		FreezeText: freezeAndHint,
		Fence:      server.hookDir != "",
		More:       []func(context.Context, *doctor.Checkup){server.check},
	}
	checks, healthy := d.Run(u.Context)
	if err := u.Err(); err != nil {
		return err
	}

	if err := printChecks(u.App.Writer, checks, healthy, u.Bool("json")); err != nil {
		return err
	}
	if !healthy {
		return &exitError{exitFailed}
	}
	return nil
}

func printChecks(w io.Writer, checks []doctor.Check, healthy, asJSON bool) error {
	width := 0
	for i, c := range checks {
		checks[i].Detail, checks[i].Do = term.Clean(giturl.Redact(c.Detail)), term.Clean(giturl.Redact(c.Do))
		width = max(width, len(c.Name))
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		err := enc.Encode(struct {
			OK     bool           `json:"ok"`
			Checks []doctor.Check `json:"checks"`
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

// printACL prints the Redis command for a user. It needs no Redis, and of the settings only those
// that matter for the rule.
func (c *command) printACL(u *ucli.Context, role redisstore.Role, out *term.Printer) error {
	user := u.String("acl")
	blank := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '"' || r == '\'' }
	if user == "" || strings.ContainsFunc(user, blank) {
		return &usageError{verb: "doctor", err: fmt.Errorf("%q is not the name of a Redis user", user)}
	}
	gitConfig, err := c.git.ReadScopedConfig(u.Context)
	if err != nil {
		return err
	}
	setting := config.FromGit(gitConfig.User().Get, gitConfig.Get)
	cfg, err := config.Load(os.LookupEnv, setting)
	var missing *config.Error
	if errors.As(err, &missing) && missing.Name == "REDIS_HOST" && len(doctor.Flatten(err)) == 1 && missing.Value == "" {
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
	words := append([]string{"ACL", "SETUSER", user}, redisstore.ACL(role, redisstore.Options{
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
