package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that must not be printed. Under every fmt verb, in JSON and
// in slog it reads "set", or nothing when it is empty. The zero value is empty.
type Secret struct {
	text *string // a pointer: fmt prints an address, where it cannot call Format
}

// newSecret hides text.
func newSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text itself.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns "set", or "" for an empty secret.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return "set"
}

// Format writes String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns String, and so does for JSON too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
