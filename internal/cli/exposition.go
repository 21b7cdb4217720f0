package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The text format of Prometheus, version 0.0.4 ("Exposition formats" in its documentation). The
// client library would do this too, but its packages cost a third of the start-up of every git
// command that passes through us, and the keeper three megabytes (measured).

const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// exposition writes metrics. The first error stays in err.
type exposition struct {
	w   io.Writer
	err error
}

func (x *exposition) printf(format string, args ...any) {
	if x.err == nil {
		_, x.err = fmt.Fprintf(x.w, format, args...)
	}
}

// family begins a metric, whose samples must follow. kind is gauge, counter or histogram.
func (x *exposition) family(name, kind, help string) {
	x.printf("# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample is one value; labels are names and values in turn.
func (x *exposition) sample(name string, value float64, labels ...string) {
	var pairs []string
	for i := 0; i+1 < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+`="`+labelText.Replace(labels[i+1])+`"`)
	}
	if len(pairs) > 0 {
		name += "{" + strings.Join(pairs, ",") + "}"
	}
	x.printf("%s %s\n", name, number(value))
}

var labelText = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// gauge is a metric of one value.
func (x *exposition) gauge(name, help string, value float64) {
	x.family(name, "gauge", help)
	x.sample(name, value)
}

// counters is a metric with a value for each value of a label.
func (x *exposition) counters(name, help, label string, values map[string]int) {
	x.family(name, "counter", help)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		x.sample(name, float64(values[key]), label, key)
	}
}

// histogram counts observations in buckets.
type histogram struct {
	bounds []float64 // upper bounds, inclusive and rising; the last is followed by infinity
	counts []int     // one more than the bounds
	sum    float64
}

func newHistogram(bounds ...float64) *histogram {
	return &histogram{bounds: bounds, counts: make([]int, len(bounds)+1)}
}

func (h *histogram) observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i]++
	h.sum += v
}

func (x *exposition) histogram(name, help string, h *histogram) {
	x.family(name, "histogram", help)
	n := 0
	for i, bound := range h.bounds {
		n += h.counts[i]
		x.sample(name+"_bucket", float64(n), "le", number(bound))
	}
	n += h.counts[len(h.bounds)]
	x.sample(name+"_bucket", float64(n), "le", "+Inf")
	x.sample(name+"_sum", h.sum)
	x.sample(name+"_count", float64(n))
}
