package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	ucli "github.com/urfave/cli/v2"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/doctor"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
	"github.com/git-gitops/git-gitops/internal/webhook"
)

func read(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: no such files (%v)", pattern, err)
	}
	var all strings.Builder
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// section is a part of the reference, from its heading to the next.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(read(t, "../../docs/reference.md"), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/reference.md has no section %s", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// found are the different texts that a pattern captures, sorted.
func found(text, pattern string) []string {
	var all []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// same wants the reference to have exactly what the program has.
func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	slices.Sort(real)
	real = slices.Compact(real)
	if len(real) == 0 || !slices.Equal(documented, real) {
		t.Errorf("docs/reference.md has the %s\n%q, and the program\n%q", what, documented, real)
	}
}

// Every setting is documented, with its key in git config, its default and its meaning.
func TestReference_settings(t *testing.T) {
	text := section(t, "Settings")
	var names []string
	for _, v := range config.Variables() {
		names = append(names, v.Name)
		value := v.Default
		if value != "" {
			value = "`" + value + "`"
		}
		if row := fmt.Sprintf("\n| `%s` | `%s` | %s | %s |\n", v.Name, v.GitKey, value, v.Doc); strings.Count(text, row) != 1 {
			t.Errorf("docs/reference.md lacks, or has more than once: %s", row)
		}
	}
	same(t, "settings", found(text, "(?m)^\\| `([A-Z0-9_]+)`"), append(names, "GITOPS_INCLUDE", "GITOPS_GIT", "GITOPS_DOWNLOAD_BASE", "GITOPS_SHIM"))

	sources := read(t, "../*/*.go") + read(t, "../../shim/*.go") + read(t, "../../hooks/*.go")
	for _, name := range found(sources, `"(GITOPS_[A-Z0-9_]*[A-Z0-9])"`) {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("docs/reference.md lacks %s, which is read", name)
		}
	}
}

// Every verb is routed to and documented, with all its flags.
func TestReference_commands(t *testing.T) {
	text := section(t, "Commands")
	verbs, _, _ := strings.Cut(text, "| command | flag |")
	var documented, real []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\| `--([a-z-]+)[ `]").FindAllStringSubmatch(text, -1) {
		for _, verb := range found(row[1], "`([^`]+)`") {
			documented = append(documented, verb+" --"+row[2])
		}
	}
	var walk func(path string, commands []*ucli.Command)
	walk = func(path string, commands []*ucli.Command) {
		for _, cmd := range commands {
			verb := strings.TrimSpace(path + " " + cmd.Name)
			if path != "completion" && !regexp.MustCompile("(?m)^\\| .*`"+verb+"[ `]").MatchString(verbs) {
				t.Errorf("docs/reference.md lacks the verb %s", verb)
			}
			for _, f := range cmd.Flags {
				if f.Names()[0] != "help" {
					real = append(real, verb+" --"+f.Names()[0])
				}
				for _, short := range f.Names()[1:] {
					if !strings.Contains(text, ", `-"+short+"` |") {
						t.Errorf("docs/reference.md lacks -%s of %s", short, verb)
					}
				}
			}
			walk(verb, cmd.Subcommands)
		}
	}
	c := &command{}
	commands := c.app(term.New(os.Stderr)).Commands
	walk("", commands)
	for _, cmd := range commands {
		if !owns(cmd.Name) {
			t.Errorf("the verb %s is built but never routed to", cmd.Name)
		}
	}
	slices.Sort(documented)
	same(t, "flags", documented, real)
}

func TestReference_exitCodes(t *testing.T) {
	var codes []string
	for _, row := range found(section(t, "Exit codes"), `(?m)^\| ([0-9, ]+)`) {
		codes = append(codes, strings.Split(strings.Trim(row, " ,"), ", ")...)
	}
	slices.Sort(codes)
	constants := found(read(t, "fail.go"), `(?m)^\texit[A-Z]\w* += ([0-9]+)`)
	same(t, "exit codes", codes, append(constants, "128", "130", "143")) // of signals
}

func TestReference_keys(t *testing.T) {
	source := read(t, "../lock/redisstore/keys.go")
	keys := append(found(source, `\.key\("(\w+)"`), found(source, `l\.prefix \+ ":(\w+):`)...)
	keys = append(keys, found(strings.Join(found(source, `var kinds = \[\]string(\{.*\})`), ""), `"(\w+)"`)...)
	same(t, "keys", found(section(t, "Keys in Redis"), "(?m)^\\| `P:(\\w+):"), keys)
}

func TestReference_events(t *testing.T) {
	var types []string
	for _, e := range lock.EventTypes() {
		types = append(types, string(e))
	}
	same(t, "events", found(section(t, "Events"), "(?m)^\\| `(\\w+)`"), types)
	m := newMetrics(nil)
	for _, name := range types {
		if m.count(redisstore.Event{Type: lock.EventType(name)}); m.events[name] == 0 {
			t.Errorf("metrics count %s as another", name)
		}
	}
}

// The example alerts, too, name metrics that there are.
func TestReference_metrics(t *testing.T) {
	metrics := found(read(t, "metrics.go"), `"(gitops_\w+)"`)
	same(t, "metrics", found(section(t, "Metrics"), "(?m)^\\| `(gitops_\\w+)`"), metrics)
	for _, name := range found(read(t, "../../docs/alerts.yml"), `\b(gitops_\w+)`) {
		if !slices.Contains(metrics, strings.TrimSuffix(name, "_bucket")) {
			t.Errorf("docs/alerts.yml has %s, which is no metric", name)
		}
	}
}

// Every field of JSON that we print or post is documented.
func TestReference_json(t *testing.T) {
	for heading, values := range map[string][]any{
		"JSON":     {lockJSON{}, holderJSON{}, waiterJSON{}, eventJSON{}, lockStats{}, doctor.Check{}},
		"Webhooks": {webhook.Event{}},
	} {
		text := section(t, heading)
		for _, v := range values {
			for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name != "" && !strings.Contains(text, "`"+name+"`") {
					t.Errorf("docs/reference.md lacks the field %s of %T", name, v)
				}
			}
		}
	}
}
