package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

// notes tells the user what the flows do.
type notes struct{ out *term.Printer }

func (n *notes) Say(format string, args ...any) {
	n.out.Say("%s", giturl.Redact(fmt.Sprintf(format, args...)))
}

func (n *notes) Debug(format string, args ...any) {
	n.out.Debug("%s", giturl.Redact(fmt.Sprintf(format, args...)))
}

func (n *notes) Warn(format string, args ...any) {
	n.out.Warn("%s", giturl.Redact(fmt.Sprintf(format, args...)))
}

func (n *notes) Waiting(w lock.Waiting) {
	seen := time.Now()
	state := fmt.Sprint(w.Key, w.Position, w.Err != nil, w.Freeze.Frozen())
	n.out.Waiting(state, func(waited time.Duration) string {
		return waitingLine(w, time.Since(seen), waited)
	})
}

func (n *notes) Waited(k lock.Key) {
	if d, waited := n.out.Waited(); waited {
		n.out.Say("got the lock on %s after %s", k, term.Duration(d))
	}
}

// waitingLine says how a wait stands, since ago after the news of it came.
func waitingLine(w lock.Waiting, since, waited time.Duration) string {
	if w.Err != nil {
		return fmt.Sprintf("waiting for the lock on %s: %v, trying again; waited %s", w.Key, w.Err, term.Duration(waited.Truncate(time.Second)))
	}
	h := w.Holder
	h.Age += since
	if h.Left >= 0 {
		h.Left = max(0, h.Left-since)
	}
	if w.Freeze.Frozen() {
		w.Freeze.Left -= since
		text := fmt.Sprintf("waiting for the lock on %s: position %d, %s", w.Key, w.Position, freezeText(w.Freeze))
		if h.Token != "" {
			text += ", held by " + holderText(h)
		}
		return text + "; waited " + term.Duration(waited.Truncate(time.Second))
	}
	return fmt.Sprintf("waiting for the lock on %s: position %d, held by %s; waited %s%s",
		w.Key, w.Position, holderText(h), term.Duration(waited.Truncate(time.Second)), breakHint(h))
}

// holderText is a holder in a few words.
func holderText(h lock.Holder) string {
	if h.Token == "" {
		return "nobody any more"
	}
	if !h.Known {
		return "an unknown holder (a key that git-gitops did not set)" + term.Expiry(h.Left)
	}
	text := fmt.Sprintf("%s@%s", orUnknown(h.User), orUnknown(h.Host))
	if h.Command != "" {
		text += fmt.Sprintf(" (%s, pid %d)", h.Command, h.PID)
	}
	text += " for " + term.Duration(h.Age) + goneText(h.Presence)
	for _, more := range []string{h.Purpose, h.Job, h.RunURL} {
		if more != "" {
			text += ", " + more
		}
	}
	return text
}

// breakHint is the command that ends a hold.
func breakHint(h lock.Holder) string {
	if h.Token == "" {
		return ""
	}
	return "; to break it: git gitops unlock --force " + h.ID()
}

func orUnknown(s string) string {
	if strings.TrimSpace(s) == "" {
		return "unknown"
	}
	return s
}
