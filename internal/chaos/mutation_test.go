//go:build unix

package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutations are faults in the scripts, of which the suite must see each.
var mutations = []struct {
	name, file, old, new string
}{
	{name: "none"},
	{"a lock that always grants", "acquire.lua", "local owner = redis.call('GET', LOCK)\n", "local owner = TOKEN\n"},
	{"last come, first served", "common.lua", "redis.call('ZRANGE', QUEUE, 0, 0)[1]\n", "redis.call('ZRANGE', QUEUE, -1, -1)[1]\n"},
	{"a release that does not look at its token", "release.lua", "if known and not m[4] or not known and owner ~= TOKEN then\n", "if false then\n"},
}

// TestMutations: without faults every pipeline lands at its first push, in order; with a broken
// lock the suite says so.
func TestMutations(t *testing.T) {
	t.Parallel()
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			if m.file != "" && !*mutationsFlag {
				t.Skip("builds the program again: -chaos.mutations")
			}
			storms.Lock()
			defer storms.Unlock()
			w := newWorld(t, time.Minute) // nobody dies here, and a slow machine is to end nobody's lock
			w.build(overlay(t, m.file, m.old, m.new)...)
			var all sync.WaitGroup
			for i := range 18 {
				kind := "locked"
				if i%3 == 2 {
					kind = "impatient" // these give up
				}
				p := w.start(fmt.Sprintf("p%05d", i), kind, "main", i%len(w.toRedis))
				all.Go(func() {
					if err := w.wait(p); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			w.endKeepers()
			w.monitor.end()
			h := w.readHistory()
			var outcomes []outcome
			var wrong []string
			for _, p := range w.all {
				o := p.outcome()
				outcomes = append(outcomes, o)
				for _, s := range p.steps() {
					if s.name == "push" && s.result != "0" {
						wrong = append(wrong, fmt.Sprintf("%s (%s): a push ended with %s, and nothing was in its way", p.id, p.kind, s.result))
					}
				}
				if p.kind == "locked" && (o.code != 0 || !h.landed(p.id)) {
					wrong = append(wrong, fmt.Sprintf("%s has not landed, code %d", p.id, o.code))
				}
			}
			judged, _ := judge(h, outcomes)
			wrong = append(append(wrong, judged...), w.monitor.wrong...)
			switch {
			case m.file == "" && len(wrong) > 0:
				t.Errorf("without faults:\n%s", strings.Join(wrong, "\n"))
			case m.file != "" && len(wrong) == 0:
				t.Error("the suite has not seen it")
			case m.file != "":
				t.Logf("seen: %d, the first: %s", len(wrong), wrong[0])
			}
		})
	}
}

// overlay are the words of go build that replace a part of one script.
func overlay(t *testing.T, file, from, to string) []string {
	t.Helper()
	if file == "" {
		return nil
	}
	path, err := filepath.Abs(filepath.Join("..", "lock", "redisstore", "lua", file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), from) != 1 {
		t.Fatalf("%s has not %q once", file, from)
	}
	dir := t.TempDir()
	changed, list := filepath.Join(dir, file), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{changed: strings.Replace(string(text), from, to, 1), list: string(replace)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"-overlay", list}
}
