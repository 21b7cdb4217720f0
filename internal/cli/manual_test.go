package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/term"
)

// The manual page, as it is shipped, has every verb, flag, setting and exit code, and the first
// lines that whatis needs.
func TestManual(t *testing.T) {
	var text bytes.Buffer
	if err := Manual(&text, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	page := string(md2man.Render(text.Bytes())) // as scripts/man does
	page = strings.ReplaceAll(strings.ReplaceAll(page, `\-`, "-"), `\&`, "")
	for _, want := range []string{
		".TH \"GIT-GITOPS\" \"1\" \"\" \"git-gitops 1.2.3\"",
		".SH NAME\ngit-gitops - git for pipelines that share a branch\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "`") || strings.Contains(page, "<no value>") {
		t.Error("the page has markup in its text")
	}

	_, verbs, _ := strings.Cut(page, ".SH COMMANDS\n")
	verbs, rest, _ := strings.Cut(verbs, ".SH ENVIRONMENT\n")
	var look func(path string, all []*ucli.Command)
	look = func(path string, all []*ucli.Command) {
		for _, v := range all {
			words := strings.TrimPrefix(path+" "+v.Name, " ")
			section, ok := sectionOf(verbs, words)
			if !ok {
				t.Errorf("the page lacks the command %s", words)
			}
			for _, f := range v.Flags {
				if name := "--" + f.Names()[0]; !strings.Contains(section, name) {
					t.Errorf("the page lacks %s of %s", name, words)
				}
			}
			look(words, v.Subcommands)
		}
	}
	look("", (&command{}).app(term.New(os.Stderr)).Commands)
	for _, v := range config.Variables() {
		if !strings.Contains(rest, `\fB`+v.Name+`\fP (`+v.GitKey) || !strings.Contains(rest, v.Doc) {
			t.Errorf("the page lacks %s", v.Name)
		}
	}

	reference, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, codes, _ := strings.Cut(string(reference), "## Exit codes\n")
	codes, _, _ = strings.Cut(codes, "\n## ")
	rows := strings.Split(codes, "\n| ")[3:] // behind the head and git's own
	for _, row := range rows {
		code, _, _ := strings.Cut(row, " |")
		for _, c := range strings.Split(code, ", ") {
			if !strings.Contains(rest, `\fB`+c+`\fP`) {
				t.Errorf("the page lacks the exit code %s", c)
			}
		}
	}
	if len(rows) < 8 {
		t.Errorf("docs/reference.md has %d exit codes only", len(rows))
	}
}

// sectionOf is the part of the page about a verb.
func sectionOf(verbs, words string) (string, bool) {
	for _, section := range strings.Split(verbs, ".SS ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		if title == words || strings.HasPrefix(title, words+" ") && !strings.Contains(title, words+" show") {
			return section, true
		}
	}
	return "", false
}
