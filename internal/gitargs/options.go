// Package gitargs parses what git parses: the command lines of clone and push, refspecs,
// configuration, and what they mean together, as far as a lock depends on them. It runs no program.
package gitargs

import (
	"fmt"
	"strings"
)

// argument says whether an option takes a value.
type argument int

const (
	noValue       argument = iota
	needsValue             // "--opt=value" or "--opt value"
	optionalValue          // "--opt=value" only
)

// option is one row of a command's option table.
type option struct {
	// names holds the long names, separated by spaces, without the dashes.
	// The first one is the name that a setting reports.
	names string
	short byte // one-letter form, 0 when there is none
	arg   argument
}

// setting is one option as the command line gave it.
type setting struct {
	name  string // the option's first long name, without a leading "no-"
	on    bool   // false for the "--no-" form
	given bool   // a value was given
	value string
}

// commandLine is a command's arguments, sorted into options and operands.
type commandLine struct {
	settings []setting
	operands []string
	index    []int // where each operand stands in the arguments
	end      int   // the place in the arguments where a further option may be put
	help     bool  // usage was asked for; what follows it was not read
	unknown  bool  // there are options that the table does not have
}

// parseOptions reads the arguments of a git command by the rules of git's own parser
// (parse_options in parse-options.c): options and operands mix until "--", short options
// bundle, long ones may be shortened as long as they stay unique.
//
// Errors are those where every git stops too: a value that is missing, a name that could be
// several options. An option that the table does not know is taken to have no value, because
// it may be known to a newer git.
func parseOptions(args []string, table []option) (commandLine, error) {
	line := commandLine{end: len(args)}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--" || arg == "--end-of-options":
			line.end = i
			for i++; i < len(args); i++ {
				line.operands = append(line.operands, args[i])
				line.index = append(line.index, i)
			}

		case arg == "--help" || arg == "--help-all" || strings.HasPrefix(arg, "--git-completion-helper"):
			line.help = true
			return line, nil

		case strings.HasPrefix(arg, "--"):
			name, value, given := strings.Cut(arg[2:], "=")
			opt, on, err := findLong(table, name)
			if err != nil {
				return line, err
			}
			if opt == nil {
				line.unknown = true
				continue
			}
			if opt.arg == needsValue && on && !given {
				if i++; i == len(args) {
					return line, fmt.Errorf("option --%s needs a value", opt.name())
				}
				value, given = args[i], true
			}
			line.settings = append(line.settings, setting{opt.name(), on, given, value})

		case len(arg) > 1 && arg[0] == '-':
			for j := 1; j < len(arg); j++ {
				opt := findShort(table, arg[j])
				if opt == nil {
					if arg[j] == 'h' {
						line.help = true
						return line, nil
					}
					line.unknown = true
					continue
				}
				s := setting{name: opt.name(), on: !strings.HasPrefix(opt.names, "no-")}
				if opt.arg == needsValue {
					s.given, s.value = true, arg[j+1:]
					if s.value == "" {
						if i++; i == len(args) {
							return line, fmt.Errorf("option -%c needs a value", arg[j])
						}
						s.value = args[i]
					}
					j = len(arg)
				}
				line.settings = append(line.settings, s)
			}

		default:
			line.operands = append(line.operands, arg)
			line.index = append(line.index, i)
		}
	}
	return line, nil
}

// name is what a setting of this option is called.
func (o *option) name() string {
	first, _, _ := strings.Cut(o.names, " ")
	return strings.TrimPrefix(first, "no-")
}

// findShort returns the option with this letter, or nil.
func findShort(table []option, letter byte) *option {
	for i := range table {
		if table[i].short == letter {
			return &table[i]
		}
	}
	return nil
}

// findLong returns the option that a long name means, whole or shortened, and whether it
// turns the option on. It returns nil for an unknown name and an error for one that
// could be several options.
func findLong(table []option, written string) (*option, bool, error) {
	// "--checkout" undoes "--no-checkout" as much as the other way round, so both sides are
	// compared without their "no-".
	name, on := written, true
	for strings.HasPrefix(name, "no-") {
		name, on = name[len("no-"):], !on
	}
	if name == "" || name == "n" || name == "no" {
		return nil, false, nil // the start of "no-" could be any option; git stops at it
	}

	var found *option
	ambiguous := false
	for i := range table {
		for long := range strings.FieldsSeq(table[i].names) {
			long = strings.TrimPrefix(long, "no-")
			switch {
			case long == name:
				return &table[i], on, nil
			case strings.HasPrefix(long, name):
				ambiguous = ambiguous || (found != nil && found != &table[i])
				found = &table[i]
			}
		}
	}
	if ambiguous {
		return nil, false, fmt.Errorf("option --%s is ambiguous", written)
	}
	return found, on, nil
}
