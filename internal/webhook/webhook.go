// Package webhook posts what happens to a lock to a URL of the user's choice, in the background:
// Send never waits, and whatever becomes of a post is only logged.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	retries  = 4 // after the first try
	leastGap = time.Second
	mostGap  = 5 * time.Second
	answerIn = 10 * time.Second // one try, from the connection to the end of the answer
	// queued is how many events wait for their turn. A keeper has a handful in its whole life.
	queued = 32
)

// Event is the body of a post. The names of its fields do not change.
type Event struct {
	Type   string    `json:"type"` // acquired, released, lost, pushed, gone
	Time   time.Time `json:"time"` // by the holder's clock
	Lock   string    `json:"lock"` // its name for people
	Repo   string    `json:"repo,omitempty"`
	Branch string    `json:"branch,omitempty"`
	Name   string    `json:"name,omitempty"`
	Host   string    `json:"host,omitempty"`
	User   string    `json:"user,omitempty"`
	PID    int       `json:"pid,omitempty"`
	RunURL string    `json:"run_url,omitempty"`
	Fence  int64     `json:"fence,omitempty"`
	Hold   float64   `json:"hold_seconds"`
	Reason string    `json:"reason,omitempty"`
}

// Hook posts events, one after the other. Make it with New, and Close it when done.
type Hook struct {
	url    *url.URL
	secret []byte
	events []string
	client *retryablehttp.Client
	log    func(format string, args ...any)

	queue  chan Event
	done   chan struct{} // closed when the last event was posted or given up
	cancel context.CancelFunc
}

// New starts a hook. rawURL is absolute, with http or https; secret is the key of the signature, ""
// for none; events are the types that are sent, none for all. log gets what went wrong, without
// secrets, possibly from another goroutine.
func New(rawURL, secret string, events []string, log func(format string, args ...any)) (*Hook, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return nil, errors.New("the webhook's URL is malformed") // err would tell it
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hook{
		url: u, secret: []byte(secret), events: events, log: log,
		queue: make(chan Event, queued), done: make(chan struct{}), cancel: cancel,
	}
	h.client = &retryablehttp.Client{
		HTTPClient: &http.Client{
			Timeout: answerIn,
			Transport: &http.Transport{ // of its own: no idle connections over the hours of a hold
				Proxy:             http.ProxyFromEnvironment,
				DisableKeepAlives: true,
				TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
			},
			// The signature and the body are for that URL's host only; and a POST would become a
			// GET.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Logger:       leveled{h},
		RetryMax:     retries,
		RetryWaitMin: leastGap,
		RetryWaitMax: mostGap,
		CheckRetry:   retryablehttp.DefaultRetryPolicy,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler, // the library's own error tells the URL
		ResponseLogHook: func(_ retryablehttp.Logger, r *http.Response) {
			if r.StatusCode >= 300 {
				h.log("webhook %s: answered %d", u.Host, r.StatusCode)
			}
		},
	}
	go h.run(ctx)
	return h, nil
}

// Wants reports whether events of a type are sent.
func (h *Hook) Wants(kind string) bool { return len(h.events) == 0 || slices.Contains(h.events, kind) }

// Send posts an event in the background, if it is one of those that are wanted. It never waits:
// while too many others are under way, the event is dropped.
func (h *Hook) Send(e Event) {
	if !h.Wants(e.Type) {
		return
	}
	select {
	case h.queue <- e:
	default:
		h.log("webhook %s: dropped %s: %d others are not posted yet", h.url.Host, e.Type, queued)
	}
}

// Close waits until every event was posted or given up, but no longer than the patience, and
// ends the hook. There must be no Send any more.
func (h *Hook) Close(patience time.Duration) {
	close(h.queue)
	timer := time.AfterFunc(patience, h.cancel)
	<-h.done
	timer.Stop()
	h.cancel()
}

func (h *Hook) run(ctx context.Context) {
	defer close(h.done)
	for e := range h.queue {
		if err := h.post(ctx, e); err != nil {
			h.log("webhook %s: gave up on %s: %s", h.url.Host, e.Type, h.masked(err))
		}
	}
}

func (h *Hook) post(ctx context.Context, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode the event: %w", err)
	}
	r, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, h.url.String(), body)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "git-gitops")
	if len(h.secret) > 0 {
		mac := hmac.New(sha256.New, h.secret)
		_, _ = mac.Write(body) // never fails (hash.Hash)
		r.Header.Set("X-Gitops-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	answer, err := h.client.Do(r)
	if answer != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	switch {
	case err != nil:
		return fmt.Errorf("post: %w", err)
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return fmt.Errorf("answered %d, and redirects are not followed", answer.StatusCode)
	case answer.StatusCode >= 300:
		return fmt.Errorf("answered %d", answer.StatusCode)
	}
	return nil
}

// backoff is the library's, but a server cannot make us wait longer with Retry-After.
func backoff(least, most time.Duration, try int, answer *http.Response) time.Duration {
	return min(retryablehttp.DefaultBackoff(least, most, try, answer), most)
}

// masked is an error without the parts of the URL that may be secret: all but its host.
func (h *Hook) masked(err error) string {
	var u *url.Error
	if errors.As(err, &u) { // it begins with the URL
		err = u.Err
	}
	text := err.Error()
	password, _ := h.url.User.Password()
	secrets := []string{string(h.secret), password, h.url.User.Username(), h.url.RawQuery, h.url.Fragment}
	for _, path := range []string{h.url.Path, h.url.EscapedPath()} {
		secrets = append(secrets, path)
		secrets = append(secrets, strings.Split(path, "/")...)
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // what holds another goes first
	for _, s := range secrets {
		if len(s) > 3 { // shorter ones are no secrets, but are in every message
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

// leveled is the log for the library, whose own lines would tell the URL.
type leveled struct{ h *Hook }

func (l leveled) Error(_ string, pairs ...any) {
	for _, value := range pairs {
		if err, ok := value.(error); ok {
			l.h.log("webhook %s: %s", l.h.url.Host, l.h.masked(err))
		}
	}
}

func (leveled) Info(string, ...any)  {}
func (leveled) Debug(string, ...any) {}
func (leveled) Warn(string, ...any)  {}
