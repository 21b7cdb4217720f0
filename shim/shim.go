// Package shim owns standing in for git: splitting git's command line at the subcommand, deciding
// which of its commands are ours to look at, and finding the real git that runs all the others. It
// starts no process and reads no configuration.
package shim

import (
	"slices"
	"strings"
)

// CommandLine is git's command line, split at the subcommand.
type CommandLine struct {
	Globals []string // git's own options, with their values
	Verb    string   // the subcommand as typed; also --version, -v, --help and -h, which git reads as subcommands
	Args    []string // everything after Verb
}

// Face is how we were reached.
type Face int

// The faces that stand in for git.
const (
	Subcommand Face = iota // as git-gitops: `git gitops …`
	Link                   // as a link named git, first on PATH
)

// Route is what becomes of a command line.
type Route int

// The routes.
const (
	Passthrough Route = iota // git's business: run it with the arguments as they are
	Clone                    // a clone, perhaps through an alias
	Push                     // a push, perhaps through an alias
	Admin                    // one of our own verbs
	Version                  // --version or -v to the subcommand
	Help                     // --help, -h or nothing at all to the subcommand
)

// Split splits args, which is git's command line without the program name, at the subcommand, as
// handle_options in git.c does. Verb is empty when there is no subcommand to find: it is missing,
// an option is unknown or lacks its value, or an option prints and ends (--exec-path, --html-path,
// …). The rest is then in Args, and git has something of its own to say.
func Split(args []string) CommandLine {
	n, found := skipGlobals(args)
	if !found || args[n] == "" {
		return CommandLine{Globals: args[:n:n], Args: args[n:]}
	}
	return CommandLine{Globals: args[:n:n], Verb: args[n], Args: args[n+1:]}
}

// skipGlobals counts git's own options, and their values, at the start of args. found reports
// whether a subcommand follows them.
func skipGlobals(args []string) (n int, found bool) {
	for n < len(args) && strings.HasPrefix(args[n], "-") {
		name, _, joined := strings.Cut(args[n], "=")
		switch name {
		case "--version", "-v", "--help", "-h":
			return n, !joined
		case "-C", "-c", "--shallow-file":
			if joined || n+1 == len(args) {
				return n, false
			}
			n += 2
		case "--git-dir", "--work-tree", "--namespace", "--config-env", "--super-prefix", "--attr-source":
			if joined {
				n++
				continue
			}
			if n+1 == len(args) {
				return n, false
			}
			n += 2
		case "--exec-path":
			if !joined {
				return n, false // prints the path and ends
			}
			n++
		case "-p", "--paginate", "-P", "--no-pager", "--bare", "--no-replace-objects", "--no-lazy-fetch", "--no-optional-locks",
			"--no-advice", "--literal-pathspecs", "--no-literal-pathspecs", "--glob-pathspecs", "--noglob-pathspecs", "--icase-pathspecs":
			if joined {
				return n, false
			}
			n++
		default:
			return n, false
		}
	}
	return n, n < len(args)
}

// Resolve decides what becomes of args, git's command line without the program name.
//
// own reports whether a verb is one of our admin verbs; it is asked for Subcommand only, and never
// about git's own commands. alias looks up alias.<name>, in any case as git config does, and is
// asked only for verbs that are no git command known to us, because it costs a process. external
// reports whether there is a program git-<verb>, which git prefers to an alias. None may be nil.
//
// For Clone and Push the returned command line has aliases expanded, so that its Verb is "clone" or
// "push"; for all other routes it is the one that was given. Requests for help on a command (`push
// --help`, `push -h`) are git's.
func Resolve(face Face, args []string, own func(string) bool, alias func(name string) (string, bool), external func(verb string) bool) (Route, CommandLine) {
	line := Split(args)
	if face == Subcommand {
		switch {
		case len(args) == 0, line.Verb == "--help", line.Verb == "-h":
			return Help, line
		case line.Verb == "--version", line.Verb == "-v":
			return Version, line
		case line.Verb != "" && !isGitCommand(line.Verb) && own(line.Verb):
			return Admin, line
		}
	}
	if route, expanded := followAliases(line, alias, external); route != Passthrough {
		return route, expanded
	}
	return Passthrough, line
}

// followAliases expands aliases until the command is a clone or a push, in the order of run_argv in
// git.c: git's own commands, then programs, then aliases. Whatever makes git stop (a loop, bad
// quoting, a verb that is nothing) is Passthrough, so that git says so itself.
func followAliases(line CommandLine, alias func(string) (string, bool), external func(string) bool) (Route, CommandLine) {
	var seen []string
	for {
		if !isWord(line.Verb) || asksForHelp(line.Args) {
			return Passthrough, line
		}
		switch line.Verb {
		case "clone":
			return Clone, line
		case "push":
			return Push, line
		}
		if isGitCommand(line.Verb) || slices.Contains(seen, line.Verb) || external(line.Verb) {
			return Passthrough, line
		}
		seen = append(seen, line.Verb)
		value, ok := alias(line.Verb)
		if !ok {
			return Passthrough, line
		}
		if line, ok = expand(line, value); !ok {
			return Passthrough, line
		}
	}
}

// isWord reports whether verb can name a command: a dash word can't, also not one that an alias
// brings.
func isWord(verb string) bool {
	return verb != "" && verb[0] != '-'
}

// asksForHelp reports whether git would show help or usage and do nothing, saying on the way what
// an alias stands for.
func asksForHelp(args []string) bool {
	return len(args) > 0 && (args[0] == "--help" || args[0] == "-h")
}

// expand replaces the verb of line by the value of its alias, as handle_alias in git.c does. It
// fails for a shell alias and for everything git dies of, such as options that change git's
// environment.
func expand(line CommandLine, value string) (CommandLine, bool) {
	if strings.HasPrefix(value, "!") {
		return line, false
	}
	words, ok := splitAlias(value)
	if !ok {
		return line, false
	}
	sub := Split(words)
	for i := 0; i < len(sub.Globals); i++ {
		switch name, _, joined := strings.Cut(sub.Globals[i], "="); name {
		case "-p", "--paginate", "--exec-path":
		case "-c", "--config-env":
			if !joined {
				i++ // its value
			}
		default:
			return line, false
		}
	}
	return CommandLine{
		Globals: slices.Concat(line.Globals, sub.Globals),
		Verb:    sub.Verb,
		Args:    slices.Concat(sub.Args, line.Args),
	}, true
}

// splitAlias splits the value of an alias into words with the quoting rules of split_cmdline in
// alias.c: both kinds of quotes, a backslash outside single quotes, no comments. As there, blanks
// at either end make an empty word. It fails on an open quote or a backslash at the end.
func splitAlias(value string) (words []string, ok bool) {
	const blanks = " \t\n\r"
	var word []byte
	var quote byte
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			words = append(words, string(word))
			word = nil
			for i+1 < len(value) && strings.IndexByte(blanks, value[i+1]) >= 0 {
				i++
			}
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			i++
			if i == len(value) {
				return nil, false
			}
			word = append(word, value[i])
		default:
			word = append(word, c)
		}
	}
	return append(words, string(word)), quote == 0
}
