package redisstore

import (
	"regexp"
	"slices"
	"testing"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// TestEventTypes holds the scripts against the types that Go knows: they write no other, and each
// type is written by a script or is one that Go itself notes.
func TestEventTypes(t *testing.T) {
	t.Parallel()
	var written []lock.EventType
	var ended []string
	for _, file := range scriptFiles() {
		text := scriptText(file)
		for _, m := range regexp.MustCompile(`\b(?:event\(|grant\([^')]*)'(\w+)'`).FindAllStringSubmatch(text, -1) {
			written = append(written, lock.EventType(m[1]))
		}
		for _, m := range regexp.MustCompile(`\bremember_ends?\((?:owner|token), '([^']+)'`).FindAllStringSubmatch(text, -1) {
			ended = append(ended, m[1])
		}
	}
	noted := []lock.EventType{lock.EventTimedOut, lock.EventCancelled, lock.EventPushRejected, lock.EventSkipped}
	for _, e := range written {
		if !slices.Contains(lock.EventTypes(), e) {
			t.Errorf("a script writes the event %q, which lock does not know", e)
		}
	}
	for _, e := range lock.EventTypes() {
		if !slices.Contains(written, e) && !slices.Contains(noted, e) {
			t.Errorf("nobody writes the event %q", e)
		}
	}
	slices.Sort(ended)
	if want := []string{lock.EndedByAbsence, lock.EndedByTakeOver}; !slices.Equal(ended, want) {
		t.Errorf("scripts end holds as %q, want %q", ended, want)
	}
}
