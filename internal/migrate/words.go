package migrate

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/git-gitops/git-gitops/shim"
)

// unknown stands in a word for what only the script's run tells. No script has this byte.
const unknown = "\x00"

func values(args []*syntax.Word) []string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = value(arg)
	}
	return words
}

// elements are the words of an array; none if it has indexes.
func elements(a *syntax.ArrayExpr) []string {
	var words []*syntax.Word
	for _, e := range a.Elems {
		if e.Value == nil || e.Index != nil {
			return nil
		}
		words = append(words, e.Value)
	}
	return values(words)
}

// value is a word as the command gets it, as far as the script tells.
func value(w *syntax.Word) string {
	var b strings.Builder
	for _, part := range w.Parts {
		switch part := part.(type) {
		case *syntax.Lit:
			b.WriteString(unescape(part.Value, ""))
		case *syntax.SglQuoted:
			if part.Dollar && strings.Contains(part.Value, `\`) {
				b.WriteString(unknown)
				continue
			}
			b.WriteString(part.Value)
		case *syntax.DblQuoted:
			for _, inner := range part.Parts {
				if lit, ok := inner.(*syntax.Lit); ok {
					b.WriteString(unescape(lit.Value, "$`\"\\"))
				} else {
					b.WriteString(unknown)
				}
			}
		default:
			b.WriteString(unknown)
		}
	}
	return b.String()
}

// unescape takes the backslashes away that stand before one of chars, or before anything if there
// are none.
func unescape(s, chars string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (chars == "" || strings.IndexByte(chars, s[i+1]) >= 0) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isGit(word string) bool { return path.Base(word) == "git" }

func isShell(word string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "ksh", "mksh"}, path.Base(word))
}

// isCommandOption reports whether a shell takes its next word for a script: -c, -ec, -lc.
func isCommandOption(word string) bool {
	return strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "--") && strings.HasSuffix(word, "c")
}

// wrappers run the command that their words end with.
var wrappers = []string{
	"builtin", "chronic", "command", "doas", "env", "exec", "find", "ionice", "nice", "nohup", "setsid", "stdbuf", "sudo", "time", "timeout", "xargs",
}

// gitWord is the place of the word git that is run by a command, or -1.
func gitWord(words []string) int {
	if isGit(words[0]) {
		return 0
	}
	if !slices.Contains(wrappers, path.Base(words[0])) {
		return -1
	}
	for i, word := range words {
		// "sudo -u git git push": the first is no command.
		if isGit(word) && !isGit(shim.Split(words[i+1:]).Verb) {
			return i
		}
	}
	return -1
}

// branchVerbs are the commands of git with which lock branches are made, looked at and deleted.
var branchVerbs = []string{"branch", "checkout", "fetch", "ls-remote", "merge", "pull", "push", "rebase", "reset", "rev-parse", "show-ref", "switch"}

// namesLockBranch reports whether a word names a branch lock.NAME, or is a variable for one.
func (s *Script) namesLockBranch(w *syntax.Word) bool {
	word := value(w)
	if i := strings.LastIndexAny(word, "/:+"); strings.HasPrefix(word[i+1:], "lock.") {
		return true
	}
	found := false
	syntax.Walk(w, func(n syntax.Node) bool {
		if p, ok := n.(*syntax.ParamExp); ok && p.Param != nil {
			_, known := s.lockVars[p.Param.Value]
			found = found || known || slices.Contains(strings.Split(strings.ToLower(p.Param.Value), "_"), "lock")
		}
		return true
	})
	return found
}

// locksByHand reports whether a command sets a key that must not exist, as locks on Redis are
// taken.
func locksByHand(words []string) bool { return has(words, "set") && has(words, "nx") }

// unlocksByHand reports whether a command runs a script on Redis, as locks are released and
// renewed: EVAL, the script, the number of its keys.
func unlocksByHand(words []string) bool {
	i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, "eval") })
	return i > 0 && len(words) > i+2 && words[i+2] == "1"
}

func has(words []string, word string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, word) })
}
