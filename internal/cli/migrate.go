package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/file"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/migrate"
	"github.com/git-gitops/git-gitops/internal/term"
)

func (c *command) migrateCommand(out *term.Printer) *ucli.Command {
	return &ucli.Command{
		Name:  "migrate",
		Usage: "show where shell scripts change git to git gitops, and which locking by hand can be deleted",
		UsageText: `git gitops migrate [--write] FILE…   a diff on stdout, which git apply takes
git gitops migrate - <FILE           the changed script on stdout`,
		Flags:  []ucli.Flag{&ucli.BoolFlag{Name: "write", Usage: "change the files, instead of printing a diff"}},
		Action: func(u *ucli.Context) error { return migrateVerb(u, out) },
	}
}

// migrateVerb shows or writes what becomes of each file. A file that cannot be read or parsed is
// left alone, and the others go on.
func migrateVerb(u *ucli.Context, out *term.Printer) error {
	names, write := u.Args().Slice(), u.Bool("write")
	switch {
	case len(names) == 0:
		return &usageError{verb: "migrate", err: errors.New("no file to migrate")}
	case slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "-") && n != "-" }):
		return &usageError{verb: "migrate", err: errors.New("options come before the files; write ./-… for a file whose name begins with -")}
	case slices.Contains(names, "-") && (len(names) > 1 || write):
		return &usageError{verb: "migrate", err: errors.New("- reads stdin and writes stdout: use it without other files and without --write")}
	}
	failed := false
	fail := func(err error) {
		failed = true
		out.Fail(term.Message{What: giturl.Redact(err.Error())})
	}
	var scripts []*migrate.Script
	for _, name := range names {
		s, err := readScript(name)
		if err != nil {
			fail(err)
			continue
		}
		scripts = append(scripts, s)
	}
	migrate.Link(scripts)

	files, edits, notes := 0, 0, 0
	for _, s := range scripts {
		var err error
		switch {
		case s.Name == "-":
			_, err = u.App.Writer.Write(s.Changed)
		case s.Edits == 0:
		case write:
			err = rewrite(s.Name, s.Changed)
		default:
			name := strings.TrimPrefix(filepath.ToSlash(filepath.Clean(s.Name)), "/")
			_, err = u.App.Writer.Write(diff.Diff("a/"+name, s.Text, "b/"+name, s.Changed))
		}
		if err != nil {
			fail(err)
			continue
		}
		if s.Edits > 0 {
			files, edits = files+1, edits+s.Edits
		}
		for _, n := range s.Notes {
			out.Say("%s:%d: %s", s.Name, n.Line, n.Text)
			notes++
		}
	}
	what := "to change"
	if write || names[0] == "-" {
		what = "changed"
	}
	out.Say("%s %s in %d of %s; %s to look at", count(edits, "command"), what, files, count(len(names), "file"), count(notes, "place"))
	if failed {
		return &exitError{exitFailed}
	}
	return nil
}

func readScript(name string) (*migrate.Script, error) {
	if name == "-" {
		text, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("read stdin: %w", err)
		}
		return migrate.Read(name, text)
	}
	text, err := os.ReadFile(name) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	return migrate.Read(name, text)
}

// rewrite replaces a file in one step, with the mode and the owner that it has. A symbolic link
// stays one.
func rewrite(name string, text []byte) error {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return file.Replace(path, text, info.Mode(), func(f *os.File) error {
		keepOwner(f, info)
		return nil
	})
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
