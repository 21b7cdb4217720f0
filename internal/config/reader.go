package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/term"
)

// Source is where the value of a setting came from.
type Source string

// The sources, the strongest first.
const (
	Environment Source = "environment"
	GitConfig   Source = "git config"
	Default     Source = "default"
)

// Setting is one setting as it was found.
type Setting struct {
	Name   string // environment variable
	GitKey string // git config key
	Value  string // fit for printing: a hidden value is "set", control characters and credentials in URLs are gone
	Source Source
}

// Error is one setting that cannot be used. It never carries a secret.
type Error struct {
	Name    string // environment variable
	GitKey  string // git config key that the value came from; empty if it came from elsewhere
	Value   string // as in Setting, cut to 100 runes; empty if the setting is missing
	Allowed string // what would be right
	Err     error  // why, if there is more to say; may be nil
	hidden  bool
}

// Error says which setting, what was found and what is allowed.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Name)
	if e.GitKey != "" {
		fmt.Fprintf(&b, " (git config %s)", e.GitKey)
	}
	switch {
	case e.Value == "":
		b.WriteString(" is not set")
	case e.hidden:
		b.WriteString(" is set")
	default:
		fmt.Fprintf(&b, " is %q", e.Value)
	}
	b.WriteString(", want " + e.Allowed)
	if e.Err != nil {
		b.WriteString(": " + term.Clean(e.Err.Error()))
	}
	return b.String()
}

// Unwrap returns the cause, such as fs.ErrNotExist for a certificate file.
func (e *Error) Unwrap() error { return e.Err }

// reader holds the raw values and gathers what is wrong with them. Its methods
// return something of the right type also for a value that they report, so
// that one run finds all problems; Load then drops the result.
type reader struct {
	found []found // in the order of Variables
	errs  []*Error
}

type found struct {
	Variable
	text   string
	source Source
}

func newReader(env, git func(string) (string, bool)) *reader {
	r := &reader{}
	for _, v := range Variables() {
		f := found{Variable: v, text: v.Default, source: Default}
		if text, ok := env(v.Name); ok && text != "" {
			f.text, f.source = text, Environment
		} else if git != nil {
			if text, ok := git(v.GitKey); ok && text != "" {
				f.text, f.source = text, GitConfig
			}
		}
		r.found = append(r.found, f)
	}
	return r
}

func (r *reader) index(name string) int {
	return slices.IndexFunc(r.found, func(f found) bool { return f.Name == name })
}

func (r *reader) text(name string) string   { return r.found[r.index(name)].text }
func (r *reader) source(name string) Source { return r.found[r.index(name)].source }
func (r *reader) isSet(name string) bool    { return r.source(name) != Default }

// onlySet returns those of names that are set.
func (r *reader) onlySet(names ...string) []string {
	var set []string
	for _, name := range names {
		if r.isSet(name) {
			set = append(set, name)
		}
	}
	return set
}

func (r *reader) settings() []Setting {
	all := make([]Setting, len(r.found))
	for i, f := range r.found {
		all[i] = Setting{Name: f.Name, GitKey: f.GitKey, Value: f.printable(), Source: f.source}
	}
	return all
}

func (f found) printable() string {
	if f.Hidden {
		if f.text == "" {
			return ""
		}
		return "set"
	}
	return term.Clean(withoutCredentials(f.text))
}

// fail notes that a setting cannot be used.
func (r *reader) fail(name, allowed string, cause error) {
	f := r.found[r.index(name)]
	e := &Error{Name: name, Value: term.CleanTo(f.printable(), 100), Allowed: allowed, Err: cause, hidden: f.Hidden}
	if f.source == GitConfig {
		e.GitKey = f.GitKey
	}
	r.errs = append(r.errs, e)
}

// forbid notes each of names that is set although because.
func (r *reader) forbid(because string, names ...string) {
	for _, name := range r.onlySet(names...) {
		r.fail(name, "it unset, because "+because, nil)
	}
}

// ok reports whether nothing is wrong yet with the settings of these names.
func (r *reader) ok(names ...string) bool {
	return !slices.ContainsFunc(r.errs, func(e *Error) bool { return slices.Contains(names, e.Name) })
}

func (r *reader) err() error {
	slices.SortStableFunc(r.errs, func(a, b *Error) int { return cmp.Compare(r.index(a.Name), r.index(b.Name)) })
	errs := make([]error, len(r.errs))
	for i, e := range r.errs {
		errs[i] = e
	}
	return errors.Join(errs...)
}

func (r *reader) boolean(name string) bool {
	switch strings.ToLower(r.text(name)) {
	case "true", "1", "yes", "on":
		return true
	case "false", "0", "no", "off":
		return false
	}
	r.fail(name, "true or false (or 1, 0, yes, no, on, off)", nil)
	return false
}

func (r *reader) number(name string, most int) int {
	n, err := strconv.Atoi(r.text(name))
	if err != nil || n < 0 || n > most {
		r.fail(name, fmt.Sprintf("a number from 0 to %d", most), nil)
		return 0
	}
	return n
}

// duration reads a number of seconds or a Go duration such as 5m.
func (r *reader) duration(name string, least, most time.Duration) time.Duration {
	text := r.text(name)
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		r.fail(name, fmt.Sprintf("seconds, or a duration such as 5m, from %v to %v", least, most), nil)
		return least
	}
	return d
}

func (r *reader) oneOf(name string, allowed ...string) string {
	text := r.text(name)
	if !slices.Contains(allowed, text) {
		r.fail(name, strings.Join(allowed, " or "), nil)
	}
	return text
}

// word reads a text that becomes part of a Redis key or names something there.
func (r *reader) word(name string) string {
	text := r.text(name)
	if len(text) > 512 || strings.Contains(text, " ") || term.Clean(text) != text {
		r.fail(name, "at most 512 bytes of valid UTF-8 without spaces and control characters", nil)
	}
	return text
}

func (r *reader) session() string {
	const name = "GITOPS_LOCK_SESSION"
	text := r.text(name)
	if text == "" || text == "workspace" {
		return text
	}
	pid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || pid <= 0 {
		r.fail(name, "workspace or a process id", nil)
	}
	return strconv.FormatInt(pid, 10)
}

// file reads the file that a setting names, which must be set.
func (r *reader) file(name string) []byte {
	content, err := os.ReadFile(r.text(name))
	if err != nil {
		// The message has the path already, checked for what must not be printed.
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err
		}
		r.fail(name, "a file that can be read", err)
	}
	return content
}

// withoutUser returns a URL without its user and password, and any other text
// as it is.
func withoutUser(text string) string {
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL {
		return text
	}
	authority, path, hasPath := strings.Cut(rest, "/")
	authority = authority[strings.LastIndex(authority, "@")+1:]
	if hasPath {
		path = "/" + path
	}
	return scheme + "://" + authority + path
}

// withoutCredentials masks whatever may be a secret in text that is put into
// the wrong setting: a key instead of its file, also in base64, or a user and
// password. Those it masks up to the last @, as a password may hold anything.
func withoutCredentials(text string) string {
	if strings.Contains(text, "-----BEGIN") || strings.HasPrefix(text, "LS0tLS1") {
		return "a certificate or key"
	}
	at := strings.LastIndex(text, "@")
	if at < 0 || !strings.Contains(text[:at], ":") {
		return text
	}
	scheme, _, isURL := strings.Cut(text[:at], "://")
	if !isURL || strings.ContainsFunc(scheme, func(c rune) bool { return !isLetterOrDigit(c) }) {
		return "***" + text[at:]
	}
	return scheme + "://***" + text[at:]
}
