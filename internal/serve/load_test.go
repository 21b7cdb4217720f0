//go:build unix

package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// BenchmarkPage is the list of 1,000 locks with 5,000 waiters and six hours of events, from the
// request to its last byte.
func BenchmarkPage(b *testing.B) {
	s := &site{t: b}
	s.serve(newFleet(1000, 5), nil)
	s.until("/", "<b>5000</b> waiting")
	before, size := processor(b), 0
	for b.Loop() {
		_, body, _ := s.get("/")
		size = len(body)
	}
	b.ReportMetric((processor(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op") // on a busy machine the time says little
	b.ReportMetric(float64(size)/1e6, "MB")
}

// processor is the time that this process has taken of the processor.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkQuiet is the processor time that 200 open streams take, of the page's server and of
// Redis, while 1,000 locks are held, 5,000 wait, and nothing happens. Those who read the streams
// are in it.
func BenchmarkQuiet(b *testing.B) {
	s := newSite(b, nil)
	const locks, each, streams = 1000, 5, 200
	var all sync.WaitGroup
	for part := range 10 {
		all.Go(func() {
			for i := part; i < locks; i += 10 {
				k := key(fmt.Sprintf("b%d", i))
				for range each + 1 { // the first one holds it
					r := lock.Request{Key: k, Token: lock.NewToken(), Record: record("alice"), TTL: time.Hour}
					if _, err := s.store.TryAcquire(b.Context(), lock.Try{Request: r}); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range streams {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/events", nil)
		if err != nil {
			b.Fatal(err)
		}
		r, err := new(http.Client).Do(req)
		if err != nil {
			b.Fatal(err)
		}
		first := make(chan struct{})
		all.Go(func() {
			defer func() { _ = r.Body.Close() }()
			lines := bufio.NewReader(r.Body)
			_, _ = lines.ReadString('\n')
			close(first)
			for {
				if _, err := lines.ReadString('\n'); err != nil {
					return
				}
			}
		})
		<-first
	}
	time.Sleep(time.Minute) // those who wait show no life after a while, which the page tells
	for b.Loop() {
		before, began := cpu(b, s), time.Now()
		lists := s.store.lists.Load()
		time.Sleep(time.Minute)
		took := time.Since(began)
		b.ReportMetric((cpu(b, s)-before).Seconds()/took.Seconds()*100, "%core")
		b.ReportMetric(float64(s.store.lists.Load()-lists)/took.Minutes(), "readings/min")
	}
	cancel()
	all.Wait()
}

// cpu is the time that this process and its Redis have taken.
func cpu(b *testing.B, s *site) time.Duration {
	b.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.redis.Addr()})
	defer func() { _ = client.Close() }()
	info, err := client.Info(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	total := processor(b)
	for _, m := range regexp.MustCompile(`used_cpu_(?:sys|user):([0-9.]+)`).FindAllStringSubmatch(info, -1) {
		seconds, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(seconds * float64(time.Second))
	}
	return total
}
