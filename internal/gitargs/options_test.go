package gitargs

import (
	"slices"
	"testing"
)

func TestParseOptions(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args     []string
		settings []setting
		words    []string
		end      int
		help     bool
		fails    bool
	}{
		"nothing":                       {},
		"words around options":          {args: []string{"a", "-q", "b"}, settings: []setting{{name: "quiet", on: true}}, words: []string{"a", "b"}, end: 3},
		"bundle":                        {args: []string{"-vq"}, settings: []setting{{name: "verbose", on: true}, {name: "quiet", on: true}}, end: 1},
		"short value joined":            {args: []string{"-bX"}, settings: []setting{{"branch", true, true, "X"}}, end: 1},
		"short value joined, equals":    {args: []string{"-b=X"}, settings: []setting{{"branch", true, true, "=X"}}, end: 1},
		"short value apart":             {args: []string{"-b", "X"}, settings: []setting{{"branch", true, true, "X"}}, end: 2},
		"short value ends a bundle":     {args: []string{"-qb", "X"}, settings: []setting{{name: "quiet", on: true}, {"branch", true, true, "X"}}, end: 2},
		"short off":                     {args: []string{"-n"}, settings: []setting{{name: "checkout"}}, end: 1},
		"long value":                    {args: []string{"--branch=X=Y"}, settings: []setting{{"branch", true, true, "X=Y"}}, end: 1},
		"long value empty":              {args: []string{"--branch=", "X"}, settings: []setting{{"branch", true, true, ""}}, words: []string{"X"}, end: 2},
		"long value apart":              {args: []string{"--branch", "--"}, settings: []setting{{"branch", true, true, "--"}}, end: 2},
		"optional value is never apart": {args: []string{"--recurse-submodules", "X"}, settings: []setting{{name: "recurse-submodules", on: true}}, words: []string{"X"}, end: 2},
		"optional value":                {args: []string{"--recursive=X"}, settings: []setting{{"recurse-submodules", true, true, "X"}}, end: 1},
		"negated":                       {args: []string{"--no-branch", "X"}, settings: []setting{{name: "branch"}}, words: []string{"X"}, end: 2},
		"negated negative":              {args: []string{"--checkout", "--no-checkout"}, settings: []setting{{name: "checkout", on: true}, {name: "checkout"}}, end: 2},
		"shortened":                     {args: []string{"--bran", "X", "--no-che", "--orig=o"}, settings: []setting{{"branch", true, true, "X"}, {name: "checkout"}, {"origin", true, true, "o"}}, end: 4},
		"shortened to two names of one": {args: []string{"--recurs"}, settings: []setting{{name: "recurse-submodules", on: true}}, end: 1},
		"whole name beats longer ones":  {args: []string{"--reference", "X"}, settings: []setting{{"reference", true, true, "X"}}, end: 2},
		"ambiguous":                     {args: []string{"--re"}, fails: true},
		"ambiguous with a no":           {args: []string{"--no-s"}, fails: true},
		"unknown":                       {args: []string{"--frobnicate", "-Z", "X"}, words: []string{"X"}, end: 3},
		"dashes end options":            {args: []string{"a", "--", "-q", "--"}, words: []string{"a", "-q", "--"}, end: 1},
		"end of options":                {args: []string{"--end-of-options", "-q"}, words: []string{"-q"}},
		"lone dash is a word":           {args: []string{"-"}, words: []string{"-"}, end: 1},
		"empty word":                    {args: []string{""}, words: []string{""}, end: 1},
		"help":                          {args: []string{"--help", "--re"}, help: true, end: 2},
		"short help":                    {args: []string{"-qh"}, help: true, end: 1},
		"long value missing":            {args: []string{"X", "--branch"}, fails: true},
		"short value missing":           {args: []string{"X", "-b"}, fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line, err := parseOptions(test.args, cloneOptions)
			if test.fails {
				if err == nil {
					t.Fatalf("no error, got %+v", line)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !test.help && !slices.Equal(line.settings, test.settings) {
				t.Errorf("settings %+v, want %+v", line.settings, test.settings)
			}
			if !slices.Equal(line.operands, test.words) || line.end != test.end || line.help != test.help {
				t.Errorf("words %q end %d help %t, want %q %d %t", line.operands, line.end, line.help, test.words, test.end, test.help)
			}
			for i, at := range line.index {
				if test.args[at] != line.operands[i] {
					t.Errorf("word %q is not at %d", line.operands[i], at)
				}
			}
		})
	}
}

// TestOptionTables_complete holds the tables against the options that the installed git knows.
func TestOptionTables_complete(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for command, table := range map[string][]option{"clone": cloneOptions, "push": pushOptions} {
		for name, value := range o.options(command) {
			opt, on, err := findLong(table, name)
			switch {
			case err != nil || opt == nil:
				t.Errorf("git %s --%s: not in the table (%v)", command, name, err)
			case value && opt.arg != needsValue:
				t.Errorf("git %s --%s needs a value", command, name)
			case on && !value && opt.arg == needsValue:
				t.Errorf("git %s --%s needs no value", command, name)
			}
		}
	}
}
