package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"
	xterm "golang.org/x/term"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

// watchEvery is how often --watch reads the locks again.
const watchEvery = time.Second

// lockJSON is a lock as `locks --json` prints it, one object for each; docs/reference.md describes
// the fields, and they do not change.
type lockJSON struct {
	Key     string       `json:"key"`
	Repo    string       `json:"repo,omitempty"`
	Branch  string       `json:"branch,omitempty"`
	Name    string       `json:"name,omitempty"`
	Holder  *holderJSON  `json:"holder"`
	Waiters []waiterJSON `json:"waiters"`
	Freeze  *freezeJSON  `json:"freeze,omitempty"`
}

type personJSON struct {
	Host    string `json:"host,omitempty"`
	User    string `json:"user,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	RunURL  string `json:"run_url,omitempty"`
	Job     string `json:"job,omitempty"`
}

type holderJSON struct {
	ID       string  `json:"id"` // for unlock --force
	Known    bool    `json:"known"`
	Fence    int64   `json:"fence,omitempty"`
	Held     float64 `json:"held_seconds"`
	Expires  float64 `json:"expires_in_seconds"` // -1: never
	Presence string  `json:"presence,omitempty"` // present or gone; not there when it is not known
	personJSON
}

// presenceJSON is what is known of a holder's processes.
var presenceJSON = map[lock.Presence]string{lock.Present: "present", lock.Absent: "gone"}

type waiterJSON struct {
	Position int     `json:"position"`
	Waited   float64 `json:"waited_seconds"`
	Alive    bool    `json:"alive"`
	personJSON
}

// freezeJSON is a freeze; the person is who froze the lock.
type freezeJSON struct {
	Scope  string  `json:"scope"` // own, branch or repo: what was frozen
	Reason string  `json:"reason,omitempty"`
	Since  float64 `json:"frozen_seconds"`
	Ends   float64 `json:"ends_in_seconds"`
	personJSON
}

func person(r lock.Record) personJSON {
	return personJSON{
		Host: term.Clean(r.Host), User: term.Clean(r.User), PID: r.PID, Command: term.Clean(r.Command),
		Purpose: term.Clean(r.Purpose), RunURL: term.Clean(r.RunURL), Job: term.Clean(r.Job),
	}
}

func toJSON(s lock.State) lockJSON {
	j := lockJSON{
		Key: term.Clean(s.Name), Repo: term.Clean(s.Key.Repo), Branch: term.Clean(s.Key.Branch), Name: term.Clean(s.Key.Name),
		Waiters: []waiterJSON{},
	}
	if h := s.Holder; h != nil {
		j.Holder = &holderJSON{
			ID: h.ID(), Known: h.Known, Fence: int64(h.Fence), Held: h.Age.Seconds(), Expires: max(-1, h.Left.Seconds()),
			Presence: presenceJSON[h.Presence], personJSON: person(h.Record),
		}
		if h.Left < 0 {
			j.Holder.Expires = -1
		}
	}
	if f := s.Freeze; f.Frozen() {
		j.Freeze = &freezeJSON{
			Scope: string(f.Scope), Reason: term.Clean(f.Reason), Since: f.Age.Seconds(), Ends: f.Left.Seconds(),
			personJSON: person(lock.Record{User: f.By.User, Host: f.By.Host, RunURL: f.By.RunURL, Job: f.By.Job}),
		}
	}
	for i, w := range s.Waiters {
		j.Waiters = append(j.Waiters, waiterJSON{Position: i + 1, Waited: w.Age.Seconds(), Alive: w.Alive, personJSON: person(w.Record)})
	}
	return j
}

func (c *command) locksCommand(out *term.Printer) *ucli.Command {
	asJSON := &ucli.BoolFlag{Name: "json", Usage: "print one JSON object for each lock"}
	return &ucli.Command{
		Name:      "locks",
		Usage:     "list the locks that are held, waited for or frozen",
		UsageText: "git gitops locks [--json] [--watch] [PATTERN]\ngit gitops locks show [--json] KEY | REPO[@BRANCH] | PART",
		Flags: []ucli.Flag{
			asJSON,
			&ucli.BoolFlag{Name: "watch", Usage: "show the list again each second, in place on a terminal"},
		},
		Action: func(u *ucli.Context) error {
			if u.NArg() > 1 {
				return &usageError{verb: "locks", err: fmt.Errorf("unexpected argument %q", u.Args().Get(1))}
			}
			return c.with(u, out, locksVerb)
		},
		Subcommands: []*ucli.Command{{
			Name:      "show",
			Usage:     "show a lock with its whole queue",
			ArgsUsage: "KEY | REPO[@BRANCH] | PART",
			Flags:     []ucli.Flag{asJSON},
			Action: func(u *ucli.Context) error {
				if u.NArg() != 1 {
					return &usageError{verb: "locks show", err: errors.New("name a lock, as locks lists it")}
				}
				return c.with(u, out, showVerb)
			},
		}},
	}
}

func locksVerb(ctx context.Context, u *ucli.Context, o *opened) error {
	live := xterm.IsTerminal(int(os.Stdout.Fd()))
	for {
		states, err := o.redis.List(ctx)
		if err != nil {
			return err
		}
		states = filter(states, u.Args().First())
		var text strings.Builder
		if u.Bool("json") {
			err = printJSON(&text, states)
		} else {
			err = printTable(&text, states)
		}
		if err != nil {
			return err
		}
		page := text.String()
		if u.Bool("watch") && live {
			page = "\x1b[H\x1b[J" + page // home, and clear what is below
		}
		if _, err := io.WriteString(u.App.Writer, page); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		if !u.Bool("watch") {
			return nil
		}
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// filter keeps the locks whose key or name matches a pattern.
func filter(states []lock.State, pattern string) []lock.State {
	var kept []lock.State
	for _, s := range states {
		if named(pattern, s.Name, s.Key.String()) {
			kept = append(kept, s)
		}
	}
	return kept
}

// named reports whether a pattern, a glob or a part of the text, matches one of the names of a
// lock.
func named(pattern string, names ...string) bool {
	part := strings.Trim(pattern, "*")
	return slices.ContainsFunc(names, func(name string) bool {
		ok, _ := path.Match(pattern, name)
		return ok || strings.Contains(name, part)
	})
}

func printJSON(w io.Writer, states []lock.State) error {
	enc := json.NewEncoder(w)
	for _, s := range states {
		if err := enc.Encode(toJSON(s)); err != nil {
			return fmt.Errorf("encode %q: %w", s.Name, err)
		}
	}
	return nil
}

func printTable(w io.Writer, states []lock.State) error {
	rows := [][]string{{"LOCK", "HOLDER", "HELD", "EXPIRES", "ID", "WAITING"}}
	for _, s := range states {
		row := []string{s.Key.String(), "nobody", "", "", "", strconv.Itoa(len(s.Waiters))}
		if h := s.Holder; h != nil {
			row[1], row[4] = "unknown (not git-gitops)", h.ID()
			if h.Known {
				row[1], row[2] = personText(h.Record)+goneText(h.Presence), term.Duration(h.Age)
			}
			if row[3] = "never"; h.Left >= 0 {
				row[3] = term.Duration(h.Left.Round(time.Second))
			}
		}
		if s.Freeze.Frozen() {
			row[1] += ", frozen for another " + term.Duration(s.Freeze.Left.Round(time.Second))
		}
		rows = append(rows, row)
	}
	return term.Table(w, rows)
}

func showVerb(ctx context.Context, u *ucli.Context, o *opened) error {
	states, err := o.redis.List(ctx)
	if err != nil {
		return err
	}
	found, err := choose(states, u.Args().First())
	if err != nil {
		return err
	}
	for _, s := range found {
		if u.Bool("json") {
			err = printJSON(u.App.Writer, []lock.State{s})
		} else {
			err = printLock(u.App.Writer, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// choose finds the locks that want names: whole, as a repository or a branch, or else by a part
// that only one lock has.
func choose(states []lock.State, want string) ([]lock.State, error) {
	var found []lock.State
	for _, s := range states {
		if slices.Contains([]string{s.Name, s.Key.String(), s.Key.Repo, s.Key.ID(), s.Key.WholeBranch().String()}, want) {
			found = append(found, s)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	switch found = filter(states, want); len(found) {
	case 0:
		return nil, &adminError{what: fmt.Sprintf("no lock %q is held, waited for or frozen", want), do: "git gitops locks"}
	case 1:
		return found, nil
	}
	var names []string
	for _, s := range found {
		names = append(names, s.Key.String())
	}
	return nil, &adminError{
		what: fmt.Sprintf("%q matches several locks: %s", want, strings.Join(names, ", ")),
		do:   "name one of them",
	}
}

func printLock(w io.Writer, s lock.State) error {
	rows := [][]string{{"lock", s.Key.String()}, {"key", s.Name}}
	if h := s.Holder; h == nil {
		rows = append(rows, []string{"holder", "nobody"})
	} else {
		rows = append(rows, []string{"holder", holderText(*h)})
		for _, row := range [][]string{{"job", h.Job}, {"run", h.RunURL}, {"purpose", h.Purpose}} {
			if row[1] != "" {
				rows = append(rows, row)
			}
		}
		rows = append(rows, []string{"expires", strings.TrimPrefix(term.Expiry(h.Left), ", expires ")},
			[]string{"break it", "git gitops unlock --force " + h.ID()})
	}
	if s.Freeze.Frozen() {
		rows = append(rows, []string{"frozen", strings.TrimPrefix(freezeText(s.Freeze), "frozen ")}, []string{"thaw it", thawHint(s.Key, s.Freeze)})
	}
	for i, q := range s.Waiters {
		text := personText(q.Record) + " for " + term.Duration(q.Age)
		if !q.Alive {
			text += ", no sign of life"
		}
		rows = append(rows, []string{fmt.Sprintf("position %d", i+1), text})
	}
	return term.Table(w, rows)
}

// goneText says of a holder that none of its processes is there.
func goneText(p lock.Presence) string {
	if p == lock.Absent {
		return ", gone"
	}
	return ""
}

// personText is a holder or waiter in a few words.
func personText(r lock.Record) string {
	text := fmt.Sprintf("%s@%s", orUnknown(r.User), orUnknown(r.Host))
	if r.Command != "" {
		text += fmt.Sprintf(" (%s, pid %d)", r.Command, r.PID)
	}
	return text
}

// breakVerb ends somebody else's hold, that of the ID which was seen and no other.
func breakVerb(ctx context.Context, u *ucli.Context, o *opened, out *term.Printer) error {
	states, err := o.redis.List(ctx)
	if err != nil {
		return err
	}
	id := u.String("force")
	for _, s := range states {
		if s.Holder == nil || s.Holder.ID() != id {
			continue
		}
		result, err := o.redis.Break(ctx, s.Key, s.Holder.Token, o.flows().Me("unlock --force"), term.Clean(u.String("reason")))
		switch {
		case err != nil:
			return err
		case result == lock.NotHeld:
			continue
		case result == lock.HandedOver:
			out.Say("broke the lock on %s of %s, and handed it to the next waiter", s.Key, personText(s.Holder.Record))
		default:
			out.Say("broke the lock on %s of %s", s.Key, personText(s.Holder.Record))
		}
		return nil
	}
	return &adminError{what: fmt.Sprintf("no lock is held with the ID %s (any more)", id), do: "list the held locks with their IDs: git gitops locks"}
}
