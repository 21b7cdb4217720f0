//go:build unix

package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// serving starts the page, and returns what reads one of its paths.
func (w *world) serving(words ...string) (*process, func(path string) string) {
	w.t.Helper()
	p := w.start(".", append([]string{"git-gitops", "serve", "--listen", "127.0.0.1:0"}, words...)...)
	place := regexp.MustCompile(`http://127\.0\.0\.1:\d+/`)
	w.until("it listens", func() bool { return place.MatchString(p.stderr.String()) })
	url := place.FindString(p.stderr.String())
	return p, func(path string) string {
		w.t.Helper()
		answer, err := http.Get(url + path)
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		return string(text)
	}
}

// TestServe: what pipelines do is on the page, and for machines as the commands print it.
func TestServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	p, get := w.serving()
	w.must(".", "git gitops clone -q remote.git one")
	next := w.start(".", "bash", "-c", "git gitops clone -q remote.git two; exit $?")
	lock := w.path("remote") + `</span><wbr><span class="branch">@main`
	w.until("the page shows both", func() bool {
		page := get("")
		return strings.Contains(page, lock) && strings.Contains(page, "<b>1</b> waiting")
	})
	w.until("the JSON is that of locks", func() bool {
		return strings.Contains(get("api/v1/locks"), `"key":"gitops:lock:{`+w.path("remote")+`@main}"`)
	})
	if got := get("metrics"); !strings.Contains(got, "gitops_locks_held 1\n") {
		t.Errorf("metrics: %s", got)
	}
	w.must("one", "git commit -q --allow-empty -m one && git gitops push -q")
	wantCode(t, next.wait(), 0)
	w.until("the events are those of events", func() bool { return strings.Contains(get("api/v1/events"), `"type":"handed_over"`) })
	w.until("so are the statistics", func() bool { return strings.Contains(get("api/v1/stats"), `"acquired":2`) })
	p.signal(syscall.SIGTERM)
	wantCode(t, p.wait(), 143)
}

// TestServe_demo needs no Redis.
func TestServe_demo(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("REDIS_HOST", "REDIS_PORT")
	p, get := w.serving("--demo")
	w.until("pipelines come", func() bool { return strings.Contains(get(""), "github.com/acme/") })
	p.signal(syscall.SIGINT)
	wantCode(t, p.wait(), 130)
}

// TestServe_refuses what would be unsafe, or cannot work.
func TestServe_refuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for words, want := range map[string]string{
		"--tls-cert x":                  "use --tls-cert and --tls-key together",
		"--tls-cert x --tls-key y":      "no such file",
		"--proxy-user-header X-User":    "--trusted-proxy",
		"--trusted-proxy everybody":     "want a CIDR",
		"--operators /nonexistent":      "no such file",
		"--base-path locks":             "does not begin with a slash",
		"more words":                    `unexpected argument "more"`,
		"--operators /dev/null":         "names no operator",
		"--listen 256.256.256.256:8080": "listen tcp",
	} {
		r := w.bash(".", "git gitops serve --listen 127.0.0.1:0 "+words)
		if r.code != 129 && r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %s", words, r)
		}
	}
}

// TestServe_beyond: logins that can be read on the way cause a warning.
func TestServe_beyond(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for words, warns := range map[string]bool{"0.0.0.0:0": true, "127.0.0.1:0": false, "0.0.0.0:0 --trusted-proxy 192.0.2.1/32": false} {
		p := w.start(".", append([]string{"git-gitops", "serve", "--listen"}, strings.Fields(words)...)...)
		w.until("it listens", func() bool { return strings.Contains(p.stderr.String(), "the page is on") })
		if strings.Contains(p.stderr.String(), "serving without TLS beyond this machine") != warns {
			t.Errorf("--listen %s: %s", words, p.stderr.String())
		}
		p.signal(syscall.SIGTERM)
		p.wait()
	}
}
