package config

import "strings"

// Matches reports whether a pattern, as settings have them, fits a whole text: "*" stands for any
// characters, also slashes.
func Matches(pattern, text string) bool {
	head, tail, star := strings.Cut(pattern, "*")
	text, ok := strings.CutPrefix(text, head)
	if !ok || !star {
		return ok && text == ""
	}
	for i := range len(text) + 1 {
		if Matches(tail, text[i:]) {
			return true
		}
	}
	return false
}
