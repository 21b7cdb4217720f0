// Package term owns our lines on stderr: their form, the line of a wait, tables, and the cleaning
// of text that came from elsewhere.
//
// Every line starts with "gitops: ", is lower case and has no final period. An error is one
// line of what happened, one of why, and one for each thing to do next.
package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	prefix = "gitops: "
	// repeat is how often a wait that is not shown on a terminal says that it goes on.
	repeat = 30 * time.Second
)

// Printer writes our lines. It is safe for concurrent use.
type Printer struct {
	mu    sync.Mutex
	w     io.Writer
	tty   bool
	dumb  bool // a terminal whose lines cannot be rewritten
	quiet bool // only warnings and errors
	level Level
	json  bool // one JSON object a line
	folds bool // the log is one of GitHub Actions, Gitea or Forgejo, which folds groups of lines
	wait  *wait
}

// New is a printer on f.
func New(f *os.File) *Printer {
	return &Printer{
		w: f, tty: term.IsTerminal(int(f.Fd())), dumb: os.Getenv("TERM") == "dumb", folds: os.Getenv("GITHUB_ACTIONS") == "true",
	}
}

// Terminal reports whether the lines go to a terminal.
func (p *Printer) Terminal() bool { return p.tty }

// Quiet leaves only warnings and errors, as git's -q does.
func (p *Printer) Quiet() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet = true
}

// Level is how much is said.
type Level int

// The levels, each with all before it.
const (
	Info  Level = iota // news, warnings and errors
	Error              // errors only
	Debug              // also what is done and why
)

// Configure sets how much is said, and whether as one JSON object a line (time, level, message)
// instead of text.
func (p *Printer) Configure(l Level, asJSON bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.level, p.json = l, asJSON
}

// Debug prints a line for those who look for what happens.
func (p *Printer) Debug(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.level == Debug {
		p.line("debug", fmt.Sprintf(format, args...))
	}
}

// Say prints a line of news.
func (p *Printer) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.quiet && p.level != Error {
		p.line("info", fmt.Sprintf(format, args...))
	}
}

// Warn prints a line that matters also to those who asked for quiet.
func (p *Printer) Warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.level != Error {
		p.line("warning", fmt.Sprintf(format, args...))
	}
}

// Message is an error for people.
type Message struct {
	What string
	Why  string   // may be empty
	Do   []string // what to do next, a command if there is one
}

// Fail prints an error.
func (p *Printer) Fail(m Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line("error", m.What)
	if m.Why != "" {
		p.line("why", m.Why)
	}
	for _, do := range m.Do {
		p.line("do", do)
	}
}

// leads are how lines of text begin.
var leads = map[string]string{"warning": "warning: ", "error": "error: ", "why": "  why: ", "do": "  do:  ", "debug": "debug: "}

func (p *Printer) line(level, text string) {
	p.erase()
	if level != "info" && level != "debug" { // not to be folded away
		p.unfold()
	}
	for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if p.json {
			_ = json.NewEncoder(p.w).Encode(struct {
				Time    time.Time `json:"time"`
				Level   string    `json:"level"`
				Message string    `json:"message"`
			}{time.Now().UTC(), level, Clean(l)})
			continue
		}
		_, _ = fmt.Fprintf(p.w, "%s%s%s\n", prefix, leads[level], Clean(l))
	}
}

// wait is a wait that is being shown.
type wait struct {
	started time.Time
	said    time.Time
	state   string                     // what was said last, but for the time
	text    func(time.Duration) string // the line after so much waiting
	shown   bool                       // a line on the terminal is waiting to be rewritten
	folded  bool                       // its lines are in a group
	stop    chan struct{}
}

// Waiting shows a wait: a line that lives on a terminal, elsewhere one at the start, at every
// change of state and every 30 s. Call Waited when it is over.
func (p *Printer) Waiting(state string, text func(waited time.Duration) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet || p.level == Error {
		return
	}
	now := time.Now()
	if p.wait == nil {
		p.wait = &wait{started: now, stop: make(chan struct{})}
		go p.tick(p.wait)
	}
	w := p.wait
	changed := state != w.state
	w.state, w.text = state, text
	if p.live() || changed {
		p.show(now)
	}
}

// tick keeps the line of a wait alive.
func (p *Printer) tick(w *wait) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case now := <-t.C:
			p.mu.Lock()
			if p.wait == w && (p.live() || now.Sub(w.said) >= repeat) {
				p.show(now)
			}
			p.mu.Unlock()
		}
	}
}

// live reports whether a line can be rewritten.
func (p *Printer) live() bool { return p.tty && !p.dumb && !p.json }

func (p *Printer) show(now time.Time) {
	w := p.wait
	w.said = now
	text := w.text(now.Sub(w.started))
	if !p.live() {
		if p.folds && !p.json && !w.folded {
			_, _ = fmt.Fprintf(p.w, "::group::%s%s\n", prefix, Clean(text))
			w.folded = true
			return
		}
		p.line("info", text)
		return
	}
	text = prefix + Clean(text)
	if width := p.width(); utf8.RuneCountInString(text) >= width {
		text = string([]rune(text)[:width-1]) // a wrapped line could not be rewritten
	}
	_, _ = fmt.Fprint(p.w, "\r\x1b[K", text)
	w.shown = true
}

func (p *Printer) width() int {
	if f, ok := p.w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 20 {
			return n
		}
	}
	return 80
}

func (p *Printer) erase() {
	if p.wait != nil && p.wait.shown {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.wait.shown = false
	}
}

func (p *Printer) unfold() {
	if p.wait != nil && p.wait.folded {
		_, _ = fmt.Fprintln(p.w, "::endgroup::")
		p.wait.folded = false
	}
}

// Waited ends the showing of a wait, and says how long it was if there was one.
func (p *Printer) Waited() (d time.Duration, waited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wait
	if w == nil {
		return 0, false
	}
	p.erase()
	p.unfold()
	close(w.stop)
	p.wait = nil
	return time.Since(w.started), true
}

// Table writes rows in aligned columns, the first row being the heading.
func Table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = Clean(cell); cell == "" {
				cells[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// longest is the most runes of foreign text that one line shows.
const longest = 2000

// Clean makes text from elsewhere fit for one line: white space becomes a space, a control
// character, an invisible or direction-changing one and invalid UTF-8 a question mark.
func Clean(s string) string { return CleanTo(s, longest) }

// CleanTo is Clean, for at most so many runes.
func CleanTo(s string, most int) string {
	var b strings.Builder
	n, whole := 0, utf8.RuneCountInString(s) <= most
	for _, r := range s {
		if n++; n == most && !whole {
			b.WriteString("…")
			break
		}
		switch {
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r):
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Duration is d for people: "850ms", "12s", "4m10s", "3h2m".
func Duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	default:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
}

// Expiry says when a lock expires, after what it says of its holder. Below zero is never.
func Expiry(left time.Duration) string {
	if left < 0 {
		return " that never expires"
	}
	return ", expires in " + Duration(left.Round(time.Second))
}
