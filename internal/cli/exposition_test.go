package cli

import (
	"math"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What we write is what Prometheus' own parser reads, also with hostile labels.
func TestExposition(t *testing.T) {
	h := newHistogram(0.5, 1, 10)
	for _, v := range []float64{0.1, 0.5, 0.7, 10, 11} {
		h.observe(v)
	}
	hostile := "a\"b\\c\nd{}=,"
	var text strings.Builder
	x := exposition{w: &text}
	x.gauge("gitops_up", "Up.", 1)
	x.family("gitops_lock_waiters", "gauge", "Waiters.")
	x.sample("gitops_lock_waiters", 3, "lock", hostile)
	x.counters("gitops_events_total", "Events.", "type", map[string]int{"lost": 2, "acquired": 7})
	x.histogram("gitops_wait_seconds", "Waits.", h)
	if x.err != nil {
		t.Fatal(x.err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text.String()))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text.String())
	}
	if v := families["gitops_up"].GetMetric()[0].GetGauge().GetValue(); v != 1 {
		t.Errorf("up is %v", v)
	}
	if l := families["gitops_lock_waiters"].GetMetric()[0].GetLabel()[0].GetValue(); l != hostile {
		t.Errorf("label is %q", l)
	}
	if n := families["gitops_events_total"].GetMetric(); len(n) != 2 || n[0].GetCounter().GetValue() != 7 {
		t.Errorf("events are %v", n)
	}
	got := families["gitops_wait_seconds"].GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 5 || math.Abs(got.GetSampleSum()-22.3) > 1e-9 {
		t.Errorf("histogram: %v", got)
	}
	for i, want := range []uint64{2, 3, 4, 5} {
		if n := got.GetBucket()[i].GetCumulativeCount(); n != want {
			t.Errorf("bucket %d: %d, want %d", i, n, want)
		}
	}
}
