package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hush stands for what must be in no line of the log.
const hush = "Zq7hushZq7"

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text string
}

func (l *lines) log(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += fmt.Sprintf(format, args...) + "\n"
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

// receiver answers the posts with the codes in order, the last again and again.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	codes  []int
	posts  []*http.Request
	bodies [][]byte
}

func receive(t *testing.T, codes ...int) *receiver {
	t.Helper()
	r := &receiver{codes: codes}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.posts, r.bodies = append(r.posts, q), append(r.bodies, body)
		code := r.codes[0]
		if len(r.codes) > 1 {
			r.codes = r.codes[1:]
		}
		w.Header().Set("Location", "/elsewhere/"+hush)
		w.WriteHeader(code)
	}))
	t.Cleanup(r.Close)
	return r
}

// open starts a hook that does not wait long between tries, and checks its log for secrets in the
// end.
func open(t *testing.T, url, secret string, events ...string) (*Hook, *lines) {
	t.Helper()
	l := &lines{}
	h, err := New(url, secret, events, l.log)
	if err != nil {
		t.Fatal(err)
	}
	h.client.RetryWaitMin, h.client.RetryWaitMax = time.Millisecond, 5*time.Millisecond
	t.Cleanup(func() {
		if strings.Contains(l.String(), hush) {
			t.Errorf("a secret is in the log:\n%s", l)
		}
	})
	return h, l
}

func TestHook_post(t *testing.T) {
	r := receive(t, http.StatusNoContent)
	h, l := open(t, strings.Replace(r.URL, "://", "://user:"+hush+"@", 1)+"/services/"+hush+"?token="+hush, hush, "released", "lost")
	sent := Event{
		Type: "released", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Lock: "host/org/repo@main", Repo: "host/org/repo", Branch: "main",
		Host: "ci-1", User: "git", PID: 7, RunURL: "https://ci.example/1", Fence: 42, Hold: 1.5, Reason: "pushed",
	}
	h.Send(Event{Type: "acquired"})
	h.Send(sent)
	h.Close(time.Minute)
	if len(r.posts) != 1 {
		t.Fatalf("%d posts, want 1; log:\n%s", len(r.posts), l)
	}
	post, body := r.posts[0], r.bodies[0]
	mac := hmac.New(sha256.New, []byte(hush))
	mac.Write(body)
	for _, header := range [][2]string{
		{"X-Gitops-Signature", "sha256=" + hex.EncodeToString(mac.Sum(nil))},
		{"User-Agent", "git-gitops"},
		{"Content-Type", "application/json"},
	} {
		if got := post.Header.Get(header[0]); got != header[1] {
			t.Errorf("%s: %q, want %q", header[0], got, header[1])
		}
	}
	if _, password, _ := post.BasicAuth(); post.Method != http.MethodPost || post.URL.Path != "/services/"+hush || post.FormValue("token") != hush || password != hush {
		t.Errorf("got %s %s with password %q", post.Method, post.URL, password)
	}
	want := `{"type":"released","time":"2026-01-02T03:04:05Z","lock":"host/org/repo@main","repo":"host/org/repo","branch":"main",` +
		`"host":"ci-1","user":"git","pid":7,"run_url":"https://ci.example/1","fence":42,"hold_seconds":1.5,"reason":"pushed"}`
	if string(body) != want {
		t.Errorf("body:\n%s\nwant:\n%s", body, want)
	}
	if l.String() != "" {
		t.Errorf("log:\n%s", l)
	}
}

func TestHook_answers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codes []int
		posts int
		log   string // in the last line; empty: it was delivered
	}{
		{"three times 500, then 200", []int{500, 500, 500, 200}, 4, ""},
		{"429, then 200", []int{429, 200}, 2, ""},
		{"always 503", []int{503}, 1 + retries, "gave up on lost: answered 503"},
		{"400 is final", []int{400}, 1, "gave up on lost: answered 400"},
		{"redirect", []int{307}, 1, "gave up on lost: answered 307, and redirects are not followed"},
		{"redirect", []int{302}, 1, "gave up on lost: answered 302, and redirects are not followed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, tt.codes...)
			h, l := open(t, r.URL+"/"+hush, "")
			h.Send(Event{Type: "lost"})
			h.Close(time.Minute)
			if len(r.posts) != tt.posts {
				t.Errorf("%d posts, want %d", len(r.posts), tt.posts)
			}
			for i, post := range r.posts {
				var e Event
				if err := json.Unmarshal(r.bodies[i], &e); err != nil || e.Type != "lost" {
					t.Errorf("body of try %d: %s, %v", i+1, r.bodies[i], err)
				}
				if _, ok := post.Header["X-Gitops-Signature"]; ok {
					t.Error("signed without a secret")
				}
			}
			if got := l.String(); !strings.Contains(got, tt.log) || strings.Contains(got, "gave up") != (tt.log != "") {
				t.Errorf("log:\n%swant %q", got, tt.log)
			}
		})
	}
}

// TestHook_unreachable: nobody listens, the name does not resolve, or something else answers there.
func TestHook_unreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	_ = l.Close()
	plain := receive(t, 200)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://%zz/"+hush+"/x")
		w.WriteHeader(http.StatusFound)
	}))
	t.Cleanup(broken.Close)
	for _, url := range []string{
		"http://user:" + hush + "@" + closed + "/" + hush + "?" + hush,
		"https://" + plain.Listener.Addr().String() + "/x/" + hush + "%20/y",
		"http://" + broken.Listener.Addr().String() + "/" + hush,
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			h, l := open(t, url, hush)
			h.Send(Event{Type: "acquired"})
			h.Close(time.Minute)
			if !strings.Contains(l.String(), "gave up on acquired: ") {
				t.Errorf("log:\n%s", l)
			}
		})
	}
}

// TestHook_slow: Send does not wait for a receiver that does not answer, and Close only for so
// long.
func TestHook_slow(t *testing.T) {
	blocked := make(chan struct{})
	reached := make(chan struct{}, 1)
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-blocked
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(blocked) })
	h, l := open(t, slow.URL+"/"+hush, hush)
	h.Send(Event{Type: "acquired"})
	<-reached
	for range queued + 1 { // one more than there is room for
		h.Send(Event{Type: "lost"})
	}
	if !strings.Contains(l.String(), "dropped lost: ") || strings.Count(l.String(), "dropped") != 1 {
		t.Errorf("log:\n%s", l)
	}
	h.Close(50 * time.Millisecond) // else the tries of all these events would take minutes
	if got := strings.Count(l.String(), "gave up on"); got != queued+1 {
		t.Errorf("gave up on %d events, want %d; log:\n%s", got, queued+1, l)
	}
}

func TestBackoff(t *testing.T) {
	late := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}}
	for try, want := range []time.Duration{1, 2, 4, 5, 5} {
		if got := backoff(leastGap, mostGap, try, nil); got != want*time.Second {
			t.Errorf("before try %d: %s, want %d s", try+2, got, want)
		}
		if got := backoff(leastGap, mostGap, try, late); got != mostGap {
			t.Errorf("with Retry-After: %s", got)
		}
	}
}

func TestNew_malformed(t *testing.T) {
	for _, url := range []string{"", "/" + hush, "https://h/%" + hush} {
		if _, err := New(url, "", nil, nil); err == nil || strings.Contains(err.Error(), hush) {
			t.Errorf("%q: %v", url, err)
		}
	}
}
