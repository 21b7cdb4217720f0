package term_test

import (
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/term"
)

// What is printed of somebody else's text is one line, and does nothing to a terminal.
func TestClean(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain, ä, 日本 and 🙂":            "plain, ä, 日本 and 🙂",
		"two\nlines\r\n\tand a tab":     "two lines   and a tab",
		"a\u00a0b\u2028c":               "a b c",
		"\x1b[31mred\a\x7f":             "?[31mred??",
		"\u202eright to left\u200b":     "?right to left?",
		"not UTF-8: \xff\xfe":           "not UTF-8: ??",
		"private use: \ue000":           "private use: ?",
		strings.Repeat("é", 2000):       strings.Repeat("é", 2000),
		strings.Repeat("é", 2000) + "x": strings.Repeat("é", 1999) + "…",
	} {
		if got := term.Clean(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	for most, want := range map[int]string{3: "ab…", 4: "ab c", 5: "ab c"} {
		if got := term.CleanTo("ab\nc", most); got != want {
			t.Errorf("%d: got %q, want %q", most, got, want)
		}
	}
}
