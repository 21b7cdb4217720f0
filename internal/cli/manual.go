package cli

import (
	_ "embed" // the template of the manual
	"fmt"
	"io"
	"os"
	"strings"
	"text/template"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/term"
)

//go:embed manual.md
var manual string

type manualVerb struct {
	Synopsis, Usage string
	Lines           []string // command lines
	Flags           []manualFlag
}

type manualFlag struct{ Name, Value, Usage string }

// Manual writes the manual page git-gitops(1) as Markdown: git opens that page for git gitops
// --help. What it says of verbs, flags and settings has the source that -h and the settings
// themselves have.
func Manual(w io.Writer, version string) error {
	page, err := template.New("manual").Parse(manual)
	if err != nil {
		return fmt.Errorf("read the manual: %w", err)
	}
	err = page.Execute(w, map[string]any{
		"Version":   version,
		"Verbs":     manualVerbs("", (&command{}).app(term.New(os.Stderr)).Commands),
		"Variables": config.Variables(),
	})
	if err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	return nil
}

func manualVerbs(path string, verbs []*ucli.Command) []manualVerb {
	var all []manualVerb
	for _, v := range verbs {
		words := strings.TrimPrefix(path+" "+v.Name, " ")
		m := manualVerb{
			Synopsis: strings.TrimSuffix(words+" "+v.ArgsUsage, " "),
			Usage:    strings.ToUpper(v.Usage[:1]) + v.Usage[1:],
			Lines:    strings.FieldsFunc(v.UsageText, func(r rune) bool { return r == '\n' }),
		}
		for _, f := range v.Flags {
			doc, ok := f.(ucli.DocGenerationFlag)
			if !ok {
				continue
			}
			value, usage := "", doc.GetUsage()
			if before, rest, found := strings.Cut(usage, "`"); found { // `VALUE`, as urfave/cli has it
				value, _, _ = strings.Cut(rest, "`")
				usage = before + strings.Replace(rest, "`", "", 1)
			}
			if value == "" && doc.TakesValue() {
				value = "VALUE"
			}
			m.Flags = append(m.Flags, manualFlag{flagNames(f), value, usage})
		}
		all = append(all, m)
		all = append(all, manualVerbs(words, v.Subcommands)...)
	}
	return all
}

func flagNames(f ucli.Flag) string {
	var names []string
	for _, name := range f.Names() {
		if len(name) == 1 {
			names = append(names, "-"+name)
		} else {
			names = append(names, "--"+name)
		}
	}
	return strings.Join(names, ", ")
}
