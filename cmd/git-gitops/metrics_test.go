//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
)

// samples are the lines of an exposition, by name with labels.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, ok := all[line[:i]]; ok {
			t.Errorf("twice: %s", line)
		}
		all[line[:i]] = value
	}
	return all
}

func wantSamples(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, value)
		}
	}
}

func (w *world) metrics() map[string]float64 {
	w.t.Helper()
	r := w.patient("git gitops metrics --once")
	wantCode(w.t, r, 0)
	if r.stderr != "" {
		w.t.Errorf("stderr: %s", r.stderr)
	}
	return samples(w.t, r.stdout)
}

// TestMetrics_once: the state of the locks, and the sums of what the event streams hold.
func TestMetrics_once(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.metrics()
	wantSamples(t, got, map[string]float64{"gitops_redis_up": 1, "gitops_locks_held": 0, "gitops_waiters": 0, "gitops_oldest_wait_seconds": 0})
	if _, ok := got["gitops_event_lag_seconds"]; ok {
		t.Error("a lag without an event")
	}

	remote := w.seed("remote.git")
	label := fmt.Sprintf("{lock=%q}", strings.TrimSuffix(remote, ".git")+"@main")
	w.must(".", "git clone -q remote.git work && cd work && git gitops lock")
	waiter := w.start(".", "bash", "-c", "git gitops clone -q remote.git other; exit $?")
	w.until("one waits", func() bool { return w.queued() == 1 })
	// A writer that is not git-gitops may use any name.
	w.keys.Set(t.Context(), "gitops:lock:{evil\x1b[31m\xff\"\n}", "v", time.Minute)
	w.keys.Set(t.Context(), "gitops:lock:{"+strings.Repeat("long", 1000)+"}", "v", time.Minute)
	w.keys.XAdd(t.Context(), &redis.XAddArgs{Stream: "gitops:events:{evil}", Values: []string{"type", "\xff\x1b{", "lock", "evil"}})
	got = w.metrics()
	wantSamples(t, got, map[string]float64{
		"gitops_redis_up": 1, "gitops_locks_held": 3, "gitops_waiters": 1, "gitops_lock_waiters" + label: 1,
		`gitops_events_total{type="acquired"}`: 1, `gitops_events_total{type="other"}`: 1, "gitops_wait_seconds_count": 1, "gitops_hold_seconds_count": 0,
	})
	for _, name := range []string{"gitops_oldest_wait_seconds", "gitops_lock_oldest_wait_seconds" + label, "gitops_lock_held_seconds" + label, "gitops_event_lag_seconds"} {
		if v, ok := got[name]; !ok || v <= 0 || v > 60 {
			t.Errorf("%s is %v (%v)", name, v, ok)
		}
	}
	for name := range got {
		if len(name) > 600 || strings.Contains(name, "\x1b") || !utf8.ValidString(name) {
			t.Errorf("the name %.700q", name)
		}
	}

	w.must("work", "git gitops unlock")
	wantCode(t, waiter.wait(), 0)
	got = w.metrics()
	wantSamples(t, got, map[string]float64{
		`gitops_events_total{type="acquired"}`: 2, `gitops_events_total{type="released"}`: 1, `gitops_events_total{type="handed_over"}`: 1,
		"gitops_wait_seconds_count": 2, "gitops_hold_seconds_count": 1, "gitops_waiters": 0,
	})
	if got["gitops_wait_seconds_sum"] <= 0 || got["gitops_hold_seconds_sum"] < got["gitops_wait_seconds_sum"] {
		t.Errorf("waited %v s, held %v s", got["gitops_wait_seconds_sum"], got["gitops_hold_seconds_sum"])
	}

	// Without Redis a metric and the exit code say so.
	down := w.with("REDIS_PORT=1").bash(".", "git gitops metrics")
	wantCode(t, down, 69)
	wantSamples(t, samples(t, down.stdout), map[string]float64{"gitops_redis_up": 0})
	for _, words := range []string{"--once --listen 127.0.0.1:0", "extra", "--no-such-flag"} {
		wantCode(t, w.bash(".", "git gitops metrics "+words), 129)
	}
	wantCode(t, w.bash(".", "git gitops metrics --listen 127.0.0.1:none"), 1)
}

// TestMetrics_bounded: at most 1,000 locks are listed; the sums are of all.
func TestMetrics_bounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pipe := w.keys.Pipeline()
	for i := range 1200 {
		pipe.Set(t.Context(), fmt.Sprintf("gitops:lock:{host/r%d@main}", i), "v", time.Minute)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := w.metrics()
	n := 0
	for name := range got {
		if strings.HasPrefix(name, "gitops_lock_waiters{") {
			n++
		}
	}
	if n != 1000 || got["gitops_locks_held"] != 1200 {
		t.Errorf("%d locks one by one, %v held", n, got["gitops_locks_held"])
	}
}

// listening is a running metrics --listen.
func (w *world) listening() (*process, func() map[string]float64) {
	w.t.Helper()
	p := w.start(".", "git-gitops", "metrics", "--listen", "127.0.0.1:0")
	place := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`)
	w.until("it listens", func() bool { return place.MatchString(p.stderr.String()) })
	url := place.FindString(p.stderr.String())
	return p, func() map[string]float64 {
		w.t.Helper()
		answer, err := http.Get(url)
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
			w.t.Fatalf("%s, %v, %v: %s", answer.Status, answer.Header, err, text)
		}
		return samples(w.t, string(text))
	}
}

// TestMetrics_listen: events are counted once, from the start on, over an outage of Redis too,
// until a signal.
func TestMetrics_listen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git clone -q remote.git work")
	cycle := func(n int) {
		t.Helper()
		for range n {
			w.must("work", "git gitops lock 2>&1 && git gitops unlock 2>&1")
		}
	}
	cycle(2) // before
	p, scrape := w.listening()
	wantSamples(t, scrape(), map[string]float64{"gitops_redis_up": 1, "gitops_wait_seconds_count": 0, "gitops_hold_seconds_count": 0})
	cycle(1)
	for range 2 {
		wantSamples(t, scrape(), map[string]float64{`gitops_events_total{type="acquired"}`: 1, `gitops_events_total{type="released"}`: 1, "gitops_hold_seconds_count": 1})
	}
	w.until("no keeper is left", func() bool { return len(w.keepers()) == 0 })
	w.redis.Stop()
	wantSamples(t, scrape(), map[string]float64{"gitops_redis_up": 0, `gitops_events_total{type="acquired"}`: 1})
	if _, ok := scrape()["gitops_locks_held"]; ok {
		t.Error("locks are reported without Redis")
	}
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("it sees Redis again", func() bool { return scrape()["gitops_redis_up"] == 1 })
	cycle(2)
	wantSamples(t, scrape(), map[string]float64{"gitops_redis_up": 1, `gitops_events_total{type="acquired"}`: 3, `gitops_events_total{type="released"}`: 3})

	p.signal(syscall.SIGTERM)
	r := p.wait()
	wantCode(t, r, 143)
	if r.stdout != "" {
		t.Errorf("stdout: %s", r.stdout)
	}
}

// TestMetrics_listenFirst: it may start before Redis does. What happened before its first sight of
// Redis does not count.
func TestMetrics_listenFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git clone -q remote.git work")
	w.redis.Stop()
	p, scrape := w.listening()
	wantSamples(t, scrape(), map[string]float64{"gitops_redis_up": 0})
	if err := w.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	w.keys.XAdd(t.Context(), &redis.XAddArgs{Stream: "gitops:events:{host/r@main}", Values: []string{"type", "acquired", "lock", "x"}})
	w.until("it sees Redis", func() bool { return scrape()["gitops_redis_up"] == 1 })
	wantSamples(t, scrape(), map[string]float64{"gitops_wait_seconds_count": 0})
	w.must("work", "git gitops lock && git gitops unlock")
	wantSamples(t, scrape(), map[string]float64{`gitops_events_total{type="acquired"}`: 1})
	p.signal(syscall.SIGINT)
	wantCode(t, p.wait(), 130)
}
