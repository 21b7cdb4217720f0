// Package migrate owns changing a shell script from git to git gitops: where the word goes in, and
// which lines of a locking by hand can go. It reads scripts with a real parser, changes nothing but
// the words it puts in, and touches no files.
package migrate

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"

	"github.com/git-gitops/git-gitops/shim"
)

// inserted goes in behind the word git.
const inserted = " gitops"

// Script is one script and what becomes of it.
type Script struct {
	Name    string
	Text    []byte // as it was read
	Changed []byte // with git gitops where a command clones or pushes
	Edits   int    // how many commands were changed
	Notes   []Note // by line; Link completes them

	places    []int // offsets in Text where the word goes in
	functions []*function
	calls     []call
	aliases   map[string]string   // git aliases that the script sets
	lockVars  map[string]struct{} // variables that it gives the name of a lock branch
}

// Note points at a place that people have to look at.
type Note struct {
	Line int
	Text string

	function *function // that it stands in
	locking  bool      // says that something locks by hand
}

// function is a function that a script defines.
type function struct {
	name    string
	line    int
	locks   bool // locks by hand
	changed bool // clones or pushes
}

// call is a command that may be a function of this script or another.
type call struct {
	name     string
	line     int
	function *function // that it stands in
	trap     bool
}

// Read parses a script and works out its changes. The error names the place where the parser gave
// up.
func Read(name string, text []byte) (*Script, error) {
	if err := isScript(name, text); err != nil {
		return nil, err
	}
	tree, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(asUTF8(text)), name)
	if err != nil {
		return nil, fmt.Errorf("not changed: %w", err)
	}
	s := &Script{Name: name, Text: text, aliases: map[string]string{}, lockVars: map[string]struct{}{}}
	walk(tree, func(n syntax.Node, _ *function) { s.learn(n) })
	var wrong error
	s.functions = walk(tree, func(n syntax.Node, in *function) {
		if err := s.look(n, in); err != nil {
			wrong = err
		}
	})
	if wrong != nil {
		return nil, wrong
	}
	slices.Sort(s.places)
	var changed []byte
	from := 0
	for _, place := range s.places {
		changed = append(append(changed, text[from:place]...), inserted...)
		from = place
	}
	s.Changed, s.Edits = append(changed, text[from:]...), len(s.places)
	return s, nil
}

// isScript refuses what would only look like a script to the parser.
func isScript(name string, text []byte) error {
	if bytes.IndexByte(text, 0) >= 0 {
		return fmt.Errorf("%s is a binary file", name)
	}
	first, ok := bytes.CutPrefix(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), []byte("#!"))
	if !ok {
		return nil
	}
	first, _, _ = bytes.Cut(first, []byte("\n"))
	if words := strings.Fields(string(first)); len(words) > 0 && !slices.ContainsFunc(words, isShell) {
		return fmt.Errorf("%s is not a script of sh or bash: its first line names %s", name, path.Base(words[len(words)-1]))
	}
	return nil
}

// asUTF8 is text of the same length in which every byte that is no UTF-8, which the parser refuses
// and the shell does not, is a ?.
func asUTF8(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	valid := bytes.Clone(text)
	for i := 0; i < len(valid); {
		r, n := utf8.DecodeRune(valid[i:])
		if r == utf8.RuneError && n == 1 {
			valid[i] = '?'
		}
		i += n
	}
	return valid
}

// walk visits every node with the function that it stands in, and returns all functions.
func walk(tree *syntax.File, visit func(syntax.Node, *function)) []*function {
	var functions, in []*function // in: one for each node on the way down
	current := func() *function {
		if len(in) == 0 {
			return nil
		}
		return in[len(in)-1]
	}
	syntax.Walk(tree, func(n syntax.Node) bool {
		if n == nil {
			in = in[:len(in)-1]
			return true
		}
		f := current()
		if decl, ok := n.(*syntax.FuncDecl); ok {
			if decl.Name == nil { // "()x": the parser takes it, and no shell that we read does
				return false
			}
			f = &function{name: decl.Name.Value, line: line(decl)}
			functions = append(functions, f)
		}
		in = append(in, f)
		visit(n, f)
		return true
	})
	return functions
}

func line(n syntax.Node) int { return int(n.Pos().Line()) }

// learn collects what the changes depend on and may stand anywhere in the script.
func (s *Script) learn(n syntax.Node) {
	switch n := n.(type) {
	case *syntax.Assign:
		if n.Name != nil && n.Value != nil && strings.HasPrefix(value(n.Value), "lock.") {
			s.lockVars[n.Name.Value] = struct{}{}
		}
	case *syntax.CallExpr:
		words := values(n.Args)
		if len(words) == 0 || !isGit(words[0]) {
			return
		}
		set := shim.Split(words[1:])
		if set.Verb != "config" {
			return
		}
		for i, word := range set.Args[:max(len(set.Args)-1, 0)] {
			if name, ok := strings.CutPrefix(word, "alias."); ok {
				s.aliases[strings.ToLower(strings.TrimSuffix(name, ".command"))] = set.Args[i+1]
			}
		}
	}
}

// look finds the changes and notes of one node.
func (s *Script) look(n syntax.Node, in *function) error {
	switch n := n.(type) {
	case *syntax.CallExpr:
		if len(n.Args) > 0 {
			return s.command(n.Args, in)
		}
	case *syntax.Stmt:
		s.stdin(n, in)
	case *syntax.Assign:
		if n.Name != nil {
			s.setting(n.Name, n.Value, in)
		}
	case *syntax.ArrayExpr:
		if words := elements(n); len(words) > 0 && isGit(words[0]) && s.guarded(words[1:]) {
			s.note(n, in, "not changed: an array with a git clone or push; if it is run, insert gitops after git")
		}
	case *syntax.ParamExp:
		if n.Param != nil {
			s.setting(n.Param, nil, in)
		}
	case *syntax.FuncDecl:
		if in.name == "git" {
			s.note(n, in, "a function named git: it now gets gitops as its first argument; check that it passes all arguments to git")
		}
	}
	return nil
}

// command checks one simple command.
func (s *Script) command(args []*syntax.Word, in *function) error {
	words := values(args)
	name := path.Base(words[0])
	s.calls = append(s.calls, call{name: words[0], line: line(args[0]), function: in})
	if locksByHand(words) {
		s.lockNote(args[0], in, "locks by hand (SET … NX): git gitops clone and push do that, so delete this")
	}
	if unlocksByHand(words) {
		s.lockNote(args[0], in, "runs a script on Redis (EVAL): if it releases or renews a lock, git gitops does that, so delete this")
	}
	s.quoted(args, words, in)

	at := gitWord(words)
	switch {
	case at >= 0:
		return s.git(args, words, at, in)
	case strings.Contains(words[0], unknown):
		if strings.Contains(strings.ToLower(s.source(args[0])), "git") && s.guarded(words[1:]) {
			s.note(args[0], in, fmt.Sprintf("not changed: if %s is git, insert gitops after it", s.source(args[0])))
		}
	case !slices.Contains([]string{"echo", "printf", ":", "grep", "logger"}, name):
		for i, word := range words[1:] {
			if isGit(word) && s.guarded(words[i+2:]) {
				s.note(args[0], in, fmt.Sprintf("not changed: %s gets a git clone or push as arguments; if it runs them, write git gitops", name))
				break
			}
		}
	}
	return nil
}

// git checks a command of git, words[at] being the word git.
func (s *Script) git(args []*syntax.Word, words []string, at int, in *function) error {
	sub := shim.Split(words[at+1:])
	operands := args[len(args)-len(sub.Args):]
	if slices.Contains(branchVerbs, sub.Verb) && slices.ContainsFunc(operands, s.namesLockBranch) {
		s.lockNote(args[at], in, fmt.Sprintf("works on a lock branch (git %s), not changed: the lock on Redis replaces it, so delete this", sub.Verb))
		return nil
	}
	s.unguarded(args[at], sub, in)
	inner := slices.Index(sub.Args, "foreach") + 1
	for inner > 0 && inner < len(sub.Args) && strings.HasPrefix(sub.Args[inner], "-") { // its own options
		inner++
	}
	if sub.Verb == "submodule" && inner > 0 && inner < len(sub.Args) {
		if rest := sub.Args[inner:]; len(rest) == 1 {
			s.hides(operands[inner], rest[0], in)
		} else if isGit(rest[0]) {
			return s.git(args, words, len(words)-len(rest), in)
		}
	}
	if in != nil && sub.Verb == "gitops" && s.guarded(sub.Args) { // already
		in.changed = true
	}
	// A command that only the script's run tells may be a push; git gitops leaves all others to
	// git.
	open := strings.Contains(sub.Verb, unknown) && (in == nil || in.name != "git")
	if !open && !s.guarded(words[at+1:]) {
		return nil
	}
	place := int(args[at].End().Offset())
	if place > len(s.Text) || !bytes.HasSuffix(bytes.TrimRight(s.Text[:place], "'\"\\\r\n"), []byte("t")) {
		return fmt.Errorf("%s:%s: not changed: the word git is not where the parser says; this is a bug in git-gitops", s.Name, args[at].Pos())
	}
	s.places = append(s.places, place)
	if in != nil {
		in.changed = true
	}
	if slices.Contains([]string{"sudo", "doas"}, path.Base(words[0])) {
		s.note(args[0], in, fmt.Sprintf("%s may remove REDIS_* and GITOPS_* from the environment: check that it keeps them", path.Base(words[0])))
	}
	return nil
}

// unguarded points at commands that push by git's own program, which no git gitops stands in for.
func (s *Script) unguarded(n syntax.Node, sub shim.CommandLine, in *function) {
	const byHook = "git %s runs git's own push, not changed: only the pre-push hook takes the lock for it (git gitops install), or use git gitops push"
	switch pushes := slices.Contains(sub.Args, "push"); {
	case sub.Verb == "send-pack":
		s.note(n, in, "git send-pack takes no lock and runs no hook, not changed: use git gitops push")
	case sub.Verb == "subtree" && pushes:
		s.note(n, in, fmt.Sprintf(byHook, "subtree push"))
	case sub.Verb == "for-each-repo" && pushes:
		s.note(n, in, fmt.Sprintf(byHook, "for-each-repo"))
	}
}

// guarded reports whether words after git are a clone or a push, by themselves or through an alias
// that the script sets.
func (s *Script) guarded(words []string) bool {
	no := func(string) bool { return false }
	alias := func(name string) (string, bool) { v, ok := s.aliases[strings.ToLower(name)]; return v, ok }
	route, _ := shim.Resolve(shim.Subcommand, words, no, alias, no)
	return route == shim.Clone || route == shim.Push
}

// quoted points at commands in words that a shell reads as a script: those are not changed, because
// how often they are unquoted before is not ours to say.
func (s *Script) quoted(args []*syntax.Word, words []string, in *function) {
	for i, word := range words {
		var inner *Script
		switch name := path.Base(words[0]); {
		case i == 0:
			continue
		case i >= 2 && isShell(words[i-2]) && isCommandOption(words[i-1]):
			inner = s.hides(args[i], word, in)
		case name == "alias":
			_, of, _ := strings.Cut(word, "=")
			inner = s.hides(args[i], of, in)
		case name == "eval", name == "trap", strings.Contains(word, " ") && slices.Contains([]string{"ssh", "su", "watch"}, name):
			inner = s.hides(args[i], word, in)
		}
		if inner != nil && words[0] == "trap" {
			for _, c := range inner.calls {
				s.calls = append(s.calls, call{name: c.name, line: line(args[0]), function: in, trap: true})
			}
		}
	}
}

// stdin points at commands in a here-document that a shell reads.
func (s *Script) stdin(stmt *syntax.Stmt, in *function) {
	cmd, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok {
		return
	}
	if words := values(cmd.Args); !slices.ContainsFunc(words, isShell) && !slices.Contains(words, "ssh") {
		return
	}
	for _, r := range stmt.Redirs {
		switch {
		case r.Hdoc != nil:
			s.hides(r.Hdoc, value(r.Hdoc), in)
		case r.Op == syntax.WordHdoc:
			s.hides(r.Word, value(r.Word), in)
		}
	}
}

// hides makes a note if text, which stands at n, is a script that clones or pushes. The script is
// nil when it cannot be read.
func (s *Script) hides(n syntax.Node, text string, in *function) *Script {
	inner, err := Read("", []byte(strings.ReplaceAll(text, unknown, "$X")))
	hidden := err == nil && inner.Edits+len(inner.Notes) > 0
	if err != nil {
		words := strings.Fields(text)
		hidden = slices.ContainsFunc(words, isGit) && (slices.Contains(words, "push") || slices.Contains(words, "clone"))
	}
	if hidden {
		s.note(n, in, "not changed: a git clone or push, or locking by hand, in a string that a shell runs; change it by hand")
	}
	return inner
}

// setting points at the switch that has no other side any more.
func (s *Script) setting(name *syntax.Lit, value *syntax.Word, in *function) {
	if name.Value != "GITOPS_USE_REDIS_LOCKING" {
		return
	}
	if value != nil && strings.EqualFold(value.Lit(), "false") {
		s.note(name, in, "GITOPS_USE_REDIS_LOCKING=false stops git gitops with exit code 78: remove it")
		return
	}
	s.note(name, in, "GITOPS_USE_REDIS_LOCKING: unset and true are the same now, so delete the test")
}

func (s *Script) note(n syntax.Node, in *function, text string) {
	s.Notes = append(s.Notes, Note{Line: line(n), Text: text, function: in})
}

func (s *Script) lockNote(n syntax.Node, in *function, text string) {
	s.Notes = append(s.Notes, Note{Line: line(n), Text: text, function: in, locking: true})
	if in != nil {
		in.locks = true
	}
}

// source is a word as the script writes it.
func (s *Script) source(w *syntax.Word) string {
	from, to := int(w.Pos().Offset()), int(w.End().Offset())
	if from > to || to > len(s.Text) {
		return "this"
	}
	return string(s.Text[from:to])
}

// Link completes the notes of scripts that belong together: a function for locking by hand gets one
// note, and each of its calls one.
func Link(scripts []*Script) {
	// A function that clones or pushes, by itself or through others, is not for locking alone,
	// whatever its name.
	working := closure(scripts, func(f *function, calls bool) bool { return f.changed || calls })
	lockers := closure(scripts, func(f *function, calls bool) bool {
		_, works := working[f.name]
		return !works && strings.Contains(strings.ToLower(f.name), "lock") && (f.locks || calls) // calls: such as a loop around the try
	})
	locker := func(f *function) bool {
		if f == nil {
			return false
		}
		_, ok := lockers[f.name]
		return ok
	}
	for _, s := range scripts {
		s.Notes = slices.DeleteFunc(s.Notes, func(n Note) bool { return n.locking && locker(n.function) })
		for _, f := range s.functions {
			if locker(f) {
				s.Notes = append(s.Notes, Note{Line: f.line, Text: fmt.Sprintf("%s locks by hand: git gitops clone and push do that, so delete it and its calls, and keep what else it does", f.name)})
			}
		}
		for _, c := range s.calls {
			of, ok := lockers[c.name]
			switch {
			case !ok || locker(c.function):
			case c.trap:
				s.Notes = append(s.Notes, Note{Line: c.line, Text: fmt.Sprintf("the trap calls %s (%s:%d): a lock ends with its script, so delete this", c.name, of.script, of.line)})
			default:
				s.Notes = append(s.Notes, Note{Line: c.line, Text: fmt.Sprintf("calls %s (%s:%d), which locks by hand: delete this", c.name, of.script, of.line)})
			}
		}
		slices.SortStableFunc(s.Notes, func(a, b Note) int { return a.Line - b.Line })
		s.Notes = slices.CompactFunc(s.Notes, func(a, b Note) bool { return a.Line == b.Line && a.Text == b.Text })
	}
}

// place is where a function is defined.
type place struct {
	script string
	line   int
}

// closure are the functions, by name, for which is holds; calls tells it whether the function calls
// one of them.
func closure(scripts []*Script, is func(f *function, calls bool) bool) map[string]place {
	found := map[string]place{}
	for more := true; more; {
		more = false
		for _, s := range scripts {
			for _, f := range s.functions {
				if _, known := found[f.name]; known {
					continue
				}
				calls := slices.ContainsFunc(s.calls, func(c call) bool {
					_, of := found[c.name]
					return of && c.function == f && !c.trap
				})
				if is(f, calls) {
					found[f.name] = place{s.Name, f.line}
					more = true
				}
			}
		}
	}
	return found
}
