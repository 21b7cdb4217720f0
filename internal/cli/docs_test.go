package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/term"
)

// Every setting is documented, with its key in git config and its meaning, and every verb too.
func TestReference(t *testing.T) {
	data, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, v := range config.Variables() {
		if row := "| `" + v.Name + "` | `" + v.GitKey + "` |"; !strings.Contains(text, row) || !strings.Contains(text, v.Doc) {
			t.Errorf("docs/reference.md lacks %s: %s", v.Name, v.Doc)
		}
	}
	c := &command{}
	for _, cmd := range c.app(term.New(os.Stderr)).Commands {
		if !strings.Contains(text, "`"+cmd.Name) {
			t.Errorf("docs/reference.md lacks the verb %s", cmd.Name)
		}
		if !owns(cmd.Name) {
			t.Errorf("the verb %s is built but never routed to", cmd.Name)
		}
	}
}
