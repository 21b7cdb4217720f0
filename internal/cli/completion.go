package cli

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"

	ucli "github.com/urfave/cli/v2"
)

//go:embed completions
var completions embed.FS

func completionCommand() *ucli.Command {
	cmd := &ucli.Command{
		Name:  "completion",
		Usage: "print the shell completion of git gitops",
		UsageText: `eval "$(git gitops completion bash)"
eval "$(git gitops completion zsh)"
git gitops completion fish | source`,
		Action: func(*ucli.Context) error {
			return &usageError{verb: "completion", err: errors.New("want a shell: bash, zsh or fish")}
		},
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		cmd.Subcommands = append(cmd.Subcommands, &ucli.Command{
			Name:            shell,
			Usage:           "for " + shell,
			HideHelpCommand: true,
			Action: func(u *ucli.Context) error {
				return printCompletion(u.App.Writer, u.App.Commands, shell)
			},
		})
	}
	return cmd
}

// printCompletion writes the completion script of a shell for our verbs.
func printCompletion(w io.Writer, verbs []*ucli.Command, shell string) error {
	name := "git-gitops." + shell
	script, err := template.ParseFS(completions, "completions/"+name)
	if err != nil {
		return fmt.Errorf("read the completion: %w", err)
	}
	if err := script.ExecuteTemplate(w, name, completionWords("", verbs, nil)); err != nil {
		return fmt.Errorf("print the completion: %w", err)
	}
	return nil
}

// completed is what may follow one of our verbs.
type completed struct {
	Path  string   // the verb, or a verb and its own: "locks show"; "" for the verbs themselves
	Words string   // separated by blanks; an option with a value ends with =
	Zsh   []string // words of _describe for the verbs, else of _arguments (zshcompsys(1))
	Fish  []string // arguments of complete, beyond the condition
}

// completionWords lists what may follow path, and then what may follow each of the verbs below it.
func completionWords(path string, verbs []*ucli.Command, flags []ucli.Flag) []completed {
	here := completed{Path: path}
	var words, names []string
	for _, f := range flags {
		doc, ok := f.(ucli.DocGenerationFlag)
		name := f.Names()[0]
		if !ok || name == "help" { // of the verb that is running, and no other
			continue
		}
		usage := strings.ReplaceAll(doc.GetUsage(), "`", "")
		zsh, fish := "--"+name+zshText("["+bracketed.Replace(usage)+"]"), "-f -l "+name+" -d "+fishText(usage)
		if doc.TakesValue() {
			words = append(words, "--"+name+"=")
			zsh = "--" + name + "=" + zshText("["+bracketed.Replace(usage)+"]") + ":value:_files"
			fish = "-r -F -l " + name + " -d " + fishText(usage)
		} else {
			words = append(words, "--"+name)
		}
		here.Zsh, here.Fish = append(here.Zsh, zsh), append(here.Fish, fish)
	}
	var below []completed
	for _, v := range verbs {
		if v.Hidden {
			continue
		}
		words, names = append(words, v.Name), append(names, v.Name)
		here.Fish = append(here.Fish, "-f -a "+v.Name+" -d "+fishText(v.Usage))
		if path == "" {
			here.Zsh = append(here.Zsh, zshText(v.Name+":"+v.Usage))
		}
		below = append(below, completionWords(strings.TrimPrefix(path+" "+v.Name, " "), v.Subcommands, v.Flags)...)
	}
	if path != "" {
		rest := "*::: :_default"
		if len(names) > 0 {
			rest = "*: :(" + strings.Join(names, " ") + ")"
		}
		if path == "run" {
			rest = "*::: :_normal"
		}
		here.Zsh = append(here.Zsh, zshText(rest))
	}
	here.Words = strings.Join(words, " ")
	return append([]completed{here}, below...)
}

// bracketed escapes what has a meaning in a description of _arguments.
var bracketed = strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `:`, `\:`)

func zshText(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func fishText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
