//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// topologies are the two that fail over, and the settings that name them.
var topologies = map[string]func(*testing.T) (*redistest.Topology, string){
	"sentinel": func(t *testing.T) (*redistest.Topology, string) {
		all := redistest.Sentinel(t)
		return all, "REDIS_SENTINEL_MASTER=" + redistest.MasterName + " REDIS_SENTINEL_ADDRS=" + strings.Join(all.Addrs(), ",")
	},
	"cluster": func(t *testing.T) (*redistest.Topology, string) {
		all := redistest.Cluster(t)
		return all, "REDIS_CLUSTER_ADDRS=" + strings.Join(all.Addrs(), ",")
	},
}

// on is the same world with its locks kept elsewhere; keys is not set.
func (w *world) on(settings string) *world {
	return w.with(append(strings.Fields(settings), "REDIS_HOST", "REDIS_PORT")...)
}

// TestFailover: the primary that keeps the lock is killed twice while pipelines take turns. Each
// lands or fails cleanly, none is lost, and those that waited land in the order in which they
// waited.
func TestFailover(t *testing.T) {
	t.Parallel()
	const pipelines = 20
	for name, start := range topologies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, settings := start(t)
			w := newWorld(t).on(settings).with("GITOPS_LOCK_SESSION", "GITOPS_LOCK_TTL="+leaseTTL.String())
			remote := w.seed("remote.git")
			key := lockKey(remote, "main")
			w.write("remote.git/hooks/post-receive", "#!/bin/sh\ndate +%s%N >>../landed\n")
			w.write("landed", "")
			w.write("working", "")
			landed := func() int { return strings.Count(w.read("landed"), "\n") }
			working := func() bool { return strings.Count(w.read("working"), "\n") > landed() }

			var running []*process
			for i := range pipelines {
				dir := fmt.Sprint("pipeline", i)
				w.write(dir+"/.keep", "")
				p := w.with("ID="+strconv.Itoa(i), "GITHUB_ACTIONS=true", "GITHUB_SERVER_URL=https://ci", "GITHUB_REPOSITORY=o/r", "GITHUB_RUN_ID="+strconv.Itoa(i))
				running = append(running, p.start(dir, "bash", "-c", `set -e
git gitops clone -q ../remote.git repo -b main
echo $(($(cat repo/counter) + 1)) >repo/counter
git -C repo commit -qam "$ID"
echo >>../working
git gitops -C repo push -q -u origin main
rm -rf repo`))
			}
			var primary *redistest.Server
			w.until("there is a primary", func() bool { primary = all.Primary(key); return primary != nil })
			w.keys = primary.Client(t)
			var order []string
			w.until("all others wait", func() bool { // and nobody has landed so far that the first failover would meet none
				order = w.queue(key)
				failed := 0 // a first contact that took too long
				for _, p := range running {
					select {
					case <-p.done:
						if p.cmd.ProcessState.ExitCode() != 0 {
							failed++
						}
					default:
					}
				}
				return len(order)+landed()+failed >= pipelines-2
			})

			for n := range 2 {
				before := landed()
				// The first time one has just landed, and releases; the second time one has just
				// begun its push.
				w.until("some more have landed", func() bool { return landed() >= before+5 && (n == 0 || working()) })
				killed := time.Now()
				primary.Kill()
				old := primary
				w.until("another is primary", func() bool { primary = all.Primary(key); return primary != nil })
				t.Logf("failover %d after %d had landed, in %s; then %d waited", n+1, landed(), time.Since(killed).Round(time.Millisecond), len(w.at(primary).queue(key)))
				if err := all.Follow(old, primary); err != nil {
					t.Fatal(err)
				}
			}

			succeeded, failures := []string{}, map[int]int{}
			for i, p := range running {
				switch r := p.wait(); r.code {
				case 0:
					succeeded = append(succeeded, strconv.Itoa(i))
				case 69, 73, 75:
					failures[r.code]++
					wantText(t, r.stderr, "gitops: error: ")
					t.Logf("pipeline %d: %s", i, r)
				default:
					t.Errorf("pipeline %d: %s", i, r)
				}
			}
			history := strings.Fields(w.must("remote.git", "git log --reverse --format=%s main"))[1:] // without the seed
			for i, counter := range strings.Fields(w.must("remote.git", "git rev-list --reverse main | while read -r c; do git show $c:counter; done")) {
				if counter != strconv.Itoa(i) {
					t.Fatalf("commit %d (%s) has made the counter %s", i, history[i-1], counter)
				}
			}
			for _, id := range succeeded {
				if !slices.Contains(history, id) {
					t.Errorf("pipeline %s exited 0 and is not in the history", id)
				}
			}
			waited := slices.DeleteFunc(slices.Clone(history), func(id string) bool { return !slices.Contains(order, id) })
			order = slices.DeleteFunc(order, func(id string) bool { return !slices.Contains(waited, id) })
			w = w.at(primary)
			var granted []string // by the word of the server that there is now
			for _, e := range w.keys.XRange(t.Context(), strings.Replace(key, ":lock:", ":events:", 1), "-", "+").Val() {
				if e.Values["type"] == "acquired" {
					granted = append(granted, lastWord(fmt.Sprint(e.Values["run"])))
				}
			}
			if slices.ContainsFunc(history, func(id string) bool { return !slices.Contains(granted, id) }) {
				t.Log("a failover lost writes, and so maybe the order")
			} else if !slices.Equal(waited, order) { // a waiter's place or sign of life may be lost with a primary, too
				t.Logf("those that waited landed in the order\n%s, not\n%s", waited, order)
			}
			var times []int
			for _, line := range strings.Fields(w.read("landed")) {
				ns, _ := strconv.Atoi(line)
				times = append(times, ns)
			}
			longest := 0
			for i := range times[1:] {
				longest = max(longest, times[i+1]-times[i])
			}
			t.Logf("%d of %d exited 0, %d landed, failures by exit code %v; longest stall between two pushes %s",
				len(succeeded), pipelines, len(history), failures, time.Duration(longest).Round(time.Millisecond))
			w.until("nothing is held", func() bool { return len(w.locks()) == 0 })
		})
	}
}

// at is the same world looking at another server's keys.
func (w *world) at(s *redistest.Server) *world {
	other := *w
	other.keys = s.Client(w.t)
	return &other
}

// queue is who waits for a lock, in order, by the last word of the URLs of their CI runs.
func (w *world) queue(lockKey string) (ids []string) {
	w.t.Helper()
	_, id, _ := strings.Cut(lockKey, ":lock:")
	for _, token := range w.keys.ZRange(w.t.Context(), "gitops:queue:"+id, 0, -1).Val() {
		var r lock.Record
		sign, err := w.keys.HGet(w.t.Context(), "gitops:waiters:"+id, token).Result()
		_, text, _ := strings.Cut(sign, " ")
		if err == nil && json.Unmarshal([]byte(text), &r) == nil {
			ids = append(ids, lastWord(r.RunURL))
		}
	}
	return ids
}

func lastWord(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// TestTopologyTrouble: a first contact that cannot be made fails at once and says why.
func TestTopologyTrouble(t *testing.T) {
	t.Parallel()
	all := redistest.Sentinel(t, "requirepass right")
	w := newWorld(t)
	w.seed("remote.git")
	closed := func() string {
		port, err := redistest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		return "127.0.0.1:" + port
	}
	silent := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().String()
	}
	sentinels := " REDIS_SENTINEL_ADDRS=" + strings.Join(all.Addrs(), ",")
	for _, tc := range []struct {
		name, settings string
		words          []string
	}{
		{"no sentinel", "REDIS_SENTINEL_MASTER=main REDIS_SENTINEL_ADDRS=" + closed() + "," + closed(), []string{"no sentinel", "connection refused", "REDIS_SENTINEL_ADDRS"}},
		{"no such sentinel", "REDIS_SENTINEL_MASTER=main REDIS_SENTINEL_ADDRS=no-such-host.invalid", []string{"no sentinel", "no-such-host.invalid", "REDIS_SENTINEL_ADDRS"}},
		{"silent sentinels", "REDIS_SENTINEL_MASTER=main REDIS_SENTINEL_ADDRS=" + silent() + "," + silent(), []string{"answer", "REDIS_SENTINEL_ADDRS"}},
		{"silent nodes", "REDIS_CLUSTER_ADDRS=" + silent() + "," + silent(), []string{"no answer", "REDIS_CLUSTER_ADDRS"}},
		{"unknown master", "REDIS_SENTINEL_MASTER=other REDIS_SENTINEL_PASSWORD=right" + sentinels, []string{`no sentinel knows a master named "other"`, "REDIS_SENTINEL_MASTER"}},
		{"wrong password", "REDIS_SENTINEL_MASTER=main REDIS_SENTINEL_PASSWORD=" + wrongPassword + sentinels, []string{"no sentinel", "WRONGPASS", "REDIS_SENTINEL_PASSWORD"}},
		{"no password", "REDIS_SENTINEL_MASTER=main" + sentinels, []string{"no sentinel", "NOAUTH", "REDIS_SENTINEL_PASSWORD"}},
		{"no node", "REDIS_CLUSTER_ADDRS=" + closed() + "," + closed(), []string{"connection refused", "REDIS_CLUSTER_ADDRS"}},
		{"no cluster", "REDIS_CLUSTER_ADDRS=" + all.Servers[0].Addr(), []string{"cluster support disabled", "REDIS_CLUSTER_ADDRS"}},
		{"a sentinel as Redis", "REDIS_URL=redis://:right@" + all.Sentinels[0].Addr(), []string{"REDIS_SENTINEL_ADDRS"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := w.on(tc.settings).patient("git gitops clone -b main remote.git new", tc.words...)
			t.Log(r)
			wantCode(t, r, 69)
			wantText(t, r.ours(), append(tc.words, "gitops: error: cannot lock")...)
			if strings.Contains(r.stderr, wrongPassword) || r.theirs() != "" || w.exists("new") {
				t.Errorf("not one clear error: %s", r)
			}
		})
	}
}
