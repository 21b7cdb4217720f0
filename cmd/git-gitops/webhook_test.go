//go:build unix

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/webhook"
)

// hookSecret must be in nothing that anybody can see but the receiver.
const hookSecret = "Zq7hushZq7"

// receiver takes the posts of keepers. answer decides on the nth, from 1; nil: all are fine.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	answer func(n int) int

	mu     sync.Mutex
	n      int
	events []webhook.Event // that were taken
}

func receive(t *testing.T, answer func(n int) int) *receiver {
	t.Helper()
	r := &receiver{t: t, answer: answer}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write(body)
	var e webhook.Event
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if got := q.Header.Get("X-Gitops-Signature"); err != nil || got != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		r.t.Errorf("body %s with signature %q: %v", body, got, err)
	}
	if q.URL.Path != "/services/"+hookSecret {
		r.t.Errorf("posted to %s", q.URL)
	}
	r.mu.Lock()
	r.n++
	n := r.n
	r.mu.Unlock()
	code := http.StatusOK
	if r.answer != nil {
		code = r.answer(n)
	}
	if code == http.StatusOK && q.Context().Err() == nil { // else it will come again
		r.mu.Lock()
		r.events = append(r.events, e)
		r.mu.Unlock()
	}
	w.WriteHeader(code)
}

func (r *receiver) taken() []webhook.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]webhook.Event(nil), r.events...)
}

// world has the keepers post to a server.
func (w *world) posting(addr string) *world {
	return w.with("GITOPS_WEBHOOK_URL=http://u:"+hookSecret+"@"+addr+"/services/"+hookSecret+"?t="+hookSecret, "GITOPS_WEBHOOK_SECRET="+hookSecret)
}

// received waits until the receiver has exactly these events, each "type reason", and returns them.
func (w *world) received(r *receiver, want ...string) []webhook.Event {
	w.t.Helper()
	text := func() string {
		var words []string
		for _, e := range r.taken() {
			words = append(words, strings.TrimSpace(e.Type+" "+e.Reason))
		}
		return strings.Join(words, "; ")
	}
	if !gittest.Reached(func() bool { return text() == strings.Join(want, "; ") }) {
		w.t.Fatalf("got:  %s\nwant: %s", text(), strings.Join(want, "; "))
	}
	return r.taken()
}

// hushed checks what can be seen of a clone's keeper.
func (w *world) hushed(clone string, seen ...string) {
	w.t.Helper()
	if w.exists(clone + "/.git/gitops/keeper.log") {
		seen = append(seen, w.read(clone+"/.git/gitops/keeper.log"))
	}
	for _, pid := range w.keepers() {
		args, _ := exec.Command("ps", "-o", "args=", "-p", fmt.Sprint(pid)).Output()
		seen = append(seen, string(args))
	}
	for _, text := range seen {
		if strings.Contains(text, hookSecret) {
			w.t.Errorf("the secret is in:\n%s", text)
		}
	}
}

// logged waits until the keeper of a clone has said something.
func (w *world) logged(clone, text string) {
	w.t.Helper()
	log := clone + "/.git/gitops/keeper.log"
	w.until("logged: "+text, func() bool { return w.exists(log) && strings.Contains(w.read(log), text) })
}

// TestWebhook_slow: pushes do not wait for a receiver that does not answer. It gets all events in
// the end.
func TestWebhook_slow(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	slow := receive(t, func(n int) int {
		if n == 1 {
			close(asked)
		}
		<-answer
		return http.StatusOK
	})
	w := newWorld(t).posting(slow.server.Listener.Addr().String())
	remote := w.seed("remote.git")
	r := w.bash(".", "git gitops clone -q remote.git work")
	wantCode(t, r, 0)
	<-asked
	pushed := w.bash("work", "git commit -q --allow-empty -m one && git gitops push -q")
	wantCode(t, pushed, 0)
	w.wantLocks() // all that while the first post is under way
	w.hushed("work", r.stderr, pushed.stderr)
	if got := slow.taken(); len(got) > 0 {
		t.Errorf("posted meanwhile: %v", got)
	}
	close(answer)
	events := w.received(slow, "acquired", "released pushed or unlocked")
	for _, e := range events {
		if e.Repo != strings.TrimSuffix(remote, ".git") || e.Branch != "main" || e.Lock != e.Repo+"@main" || e.Host == "" || e.User == "" || e.PID == 0 ||
			e.Fence == 0 || e.Fence != events[0].Fence || time.Since(e.Time) > 10*time.Minute || (e.Hold > 0) != (e.Type == "released") {
			t.Errorf("%+v", e)
		}
	}
	w.until("the keeper has ended", func() bool { return len(w.keepers()) == 0 })
	w.hushed("work")
}

// TestWebhook_trouble: a receiver that fails at first gets the events all the same; one that
// refuses is logged. Pushes notice nothing.
func TestWebhook_trouble(t *testing.T) {
	t.Parallel()
	t.Run("500 three times", func(t *testing.T) {
		t.Parallel()
		failing := receive(t, func(n int) int {
			if n <= 3 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		w := newWorld(t).posting(failing.server.Listener.Addr().String())
		w.seed("remote.git")
		r := w.bash(".", "git gitops clone -q remote.git work")
		w.logged("work", "answered 500")
		wantCode(t, w.bash("work", "git commit -q --allow-empty -m one && git gitops push -q"), 0)
		w.wantLocks()
		w.received(failing, "acquired", "released pushed or unlocked")
		w.hushed("work", r.stderr)
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t).posting("127.0.0.1:1") // of tcpmux (RFC 1078), which nobody runs
		w.seed("remote.git")
		r := w.bash(".", "git gitops clone -q remote.git work")
		w.logged("work", "webhook 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
		wantCode(t, w.bash("work", "git commit -q --allow-empty -m one && git gitops push -q"), 0)
		w.wantLocks()
		w.logged("work", "gave up on acquired")
		w.hushed("work", r.stderr)
	})
	t.Run("malformed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t).with("GITOPS_WEBHOOK_URL=hooks.example/" + hookSecret)
		w.seed("remote.git")
		r := w.bash(".", "git gitops clone -q remote.git work")
		wantCode(t, r, 78)
		wantText(t, r.ours(), "GITOPS_WEBHOOK_URL is set, want https://host/path")
		w.hushed("work", r.stderr)
	})
}

// TestWebhook_endings: each end of a lock is reported with its reason.
func TestWebhook_endings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script string
		settings     []string
		want         []string
	}{
		{"session", "git gitops clone -q remote.git work", []string{"GITOPS_LOCK_SESSION"}, []string{"acquired", "released its session ended"}},
		{"deleted", "git gitops clone -q remote.git work && rm -rf work", nil, []string{"acquired", "released its clone was deleted"}},
		{
			"pushed and deleted", "git gitops clone -q remote.git work && git -C work gitops push -q origin HEAD:main && rm -rf work",
			[]string{"GITOPS_LOCK_SESSION"},
			[]string{"acquired", "released pushed or unlocked"},
		},
		{"unlocked", "cd remote.work && git gitops lock && git gitops unlock", nil, []string{"acquired", "released pushed or unlocked"}},
		{
			"pushed by git", "cd remote.work && git gitops install && git commit -q --allow-empty -m one && git push -q", nil,
			[]string{"acquired", "pushed", "released pushed"},
		},
		{
			"broken", "cd remote.work && git gitops lock && git gitops unlock --reason x --force $(git gitops locks --json | sed 's/.*\"id\":\"\\([0-9]*\\)\".*/\\1/')",
			[]string{"GITOPS_LOCK_TTL=15", "GITOPS_WEBHOOK_EVENTS=lost,pushed"},
			[]string{"lost it was broken by"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, nil)
			w := newWorld(t).posting(r.server.Listener.Addr().String()).with(tt.settings...)
			w.seed("remote.git")
			w.must(".", "git clone -q remote.git remote.work")
			out := w.bash(".", tt.script)
			wantCode(t, out, 0)
			w.hushed("remote.work", out.stderr)
			if tt.name == "broken" { // the reason goes on with who and when
				w.until("the loss is reported", func() bool { return len(r.taken()) > 0 })
				wantText(t, r.taken()[0].Type+" "+r.taken()[0].Reason, tt.want...)
				return
			}
			w.received(r, tt.want...)
		})
	}
}
