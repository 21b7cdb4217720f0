//go:build unix

package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	pipelinesFlag = flag.Int("chaos.pipelines", 24, "how many pipelines to run")
	parallelFlag  = flag.Int("chaos.parallel", 30, "how many of them at a time")
	seedFlag      = flag.Uint64("chaos.seed", 0, "seed of the plan; 0: a random one")
	minutesFlag   = flag.Float64("chaos.minutes", 0, "how long to go on with new pipelines; 0: as many as -chaos.pipelines says")
	keepFlag      = flag.Bool("chaos.keep", false, "keep the folder of a run that passed")
	mutationsFlag = flag.Bool("chaos.mutations", false, "also run with broken locks, which the suite must see")
	everyFlag     = flag.Duration("chaos.every", 700*time.Millisecond, "mean time from fault to fault, but never more of them than two for three pipelines; 0: none")
)

// kinds of pipelines and how common each is. Those of group main share a lock, a counter and a
// journal; so do the named of one name; every outsider has its own files, and no lock.
var kinds = []kind{
	{"locked", 30},
	{"upstream", 10},
	{"rebase", 10},
	{"named", 16},
	{"batched", 10},
	{"force", 5},
	{"lease", 5},
	{"amend", 4},
	{"bracket", 4},
	{"impatient", 3},
	{"outsider", 8},
	{"outsider-amend", 3},
	{"abandon", 5},
	{"unlock", 3},
	{"fail", 4},
}

type kind struct {
	name   string
	weight int
}

// many write different parts of one branch, and push together.
var many = []kind{{"batched", 80}, {"named", 8}, {"locked", 4}, {"outsider", 8}}

// stale is a kind for a server with our hook: plain git from the clone of one who holds the lock,
// or has lost it.
const stale = "stale"

// TestChaos runs pipelines under faults and then looks at what is left.
func TestChaos(t *testing.T) { runChaos(t, kinds, false) }

// TestChaos_batches does so with pipelines that push together.
func TestChaos_batches(t *testing.T) { runChaos(t, many, false) }

// TestChaos_fence does so with our hook at the server, where nobody may land without the lock.
func TestChaos_fence(t *testing.T) { runChaos(t, append(slices.Clone(kinds), kind{stale, 10}), true) }

// storms take turns, because each keeps the processors busy. Beside them run the tests that wait
// more than they work.
var storms sync.Mutex

func runChaos(t *testing.T, kinds []kind, fenced bool) {
	t.Helper()
	t.Parallel()
	storms.Lock()
	defer storms.Unlock()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	w := newWorld(t, ttl)
	w.build()
	if fenced {
		w.fence()
	}

	ctx, calm := context.WithCancel(t.Context())
	storm := &faults{w: w, dice: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{}}
	var weather sync.WaitGroup
	if *everyFlag > 0 {
		weather.Go(func() { storm.run(ctx, *everyFlag) })
	}
	started := time.Now()
	w.runAll(rand.New(rand.NewPCG(seed, 2)), kinds)
	took := time.Since(started)
	calm()
	weather.Wait()

	drained := w.drain()
	w.monitor.end()
	h := w.readHistory()
	var outcomes []outcome
	for _, p := range w.all {
		o := p.outcome()
		if fenced && strings.HasPrefix(o.kind, "outsider") {
			o.kind = stale
		}
		outcomes = append(outcomes, o)
	}
	wrong, lost := judge(h, outcomes)
	wrong = append(wrong, w.leftBehind()...)
	for _, line := range append(wrong, w.monitor.wrong...) {
		t.Error(line)
	}
	if races := w.dataRaces(); races != "" {
		t.Errorf("data races:\n%s", races)
	}
	w.checkSaid()
	if landed, least := landing(h, outcomes); landed < least {
		t.Errorf("%d pipelines landed, want at least %d", landed, least)
	}
	w.report(h, outcomes, storm, lost, took, drained, seed)
	if fenced {
		w.reportFence(h, outcomes)
	}
}

// reportFence prints what came of the pushes without the lock: judge has complained of each that
// landed.
func (w *world) reportFence(h history, outcomes []outcome) {
	pushes, landed, overwritten := 0, 0, 0
	for i, o := range outcomes {
		if o.kind != stale {
			continue
		}
		for _, s := range w.all[i].steps() {
			if s.name == "stale" || s.name == "push" || s.name == "amend" {
				pushes++
			}
		}
		if h.landed(o.id) {
			landed++
		}
	}
	for _, m := range h.moves {
		overwritten += len(m.unseen())
	}
	w.t.Logf("fence: %d pushes without the lock, of which %d landed; commits overwritten that the pusher had not seen: %d", pushes, landed, overwritten)
	if pushes == 0 {
		w.t.Error("nobody has pushed without the lock")
	}
}

// runAll runs the pipelines, so many at a time, and returns when the last has ended.
func (w *world) runAll(dice *rand.Rand, kinds []kind) {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, *parallelFlag)
	deadline := time.Now().Add(time.Duration(*minutesFlag * float64(time.Minute)))
	for i := 0; i < *pipelinesFlag || *minutesFlag > 0 && time.Now().Before(deadline); i++ {
		n, k := dice.IntN(sum), 0
		for n >= kinds[k].weight {
			n -= kinds[k].weight
			k++
		}
		id, kind, group := fmt.Sprintf("p%05d", i), kinds[k].name, "main"
		switch {
		case kind == "named":
			group = fmt.Sprintf("name%d", dice.IntN(4))
		case kind == "batched":
			group = fmt.Sprintf("part%d", dice.IntN(parts))
		case strings.HasPrefix(kind, "outsider"):
			group = "outside-" + id
		}
		proxy := dice.IntN(len(w.toRedis))
		slots <- struct{}{}
		p := w.start(id, kind, group, proxy)
		all.Go(func() {
			if err := w.wait(p); err != nil {
				w.t.Error(err)
			}
			<-slots
		})
	}
	all.Wait()
}

// parts is how many lock names those share that push together.
const parts = 12

// leftBehind are the batch refs that are left by pipelines that were not killed. One may stay for a
// day whose push got no answer, and may have come through after its pipeline had ended.
func (w *world) leftBehind() (wrong []string) {
	offered, together := 0, 0
	owner := map[string]*pipeline{}
	unsure := map[string]bool{} // IDs of pipelines
	for _, p := range w.all {
		data, _ := os.ReadFile(p.said)
		said := string(data)
		together += strings.Count(said, "in one push, by ")
		unsure[p.id] = strings.Contains(said, "the batch ref was unknown")
		for word := range strings.FieldsSeq(said) {
			if strings.HasPrefix(word, "refs/gitops/batch/") && owner[word] == nil {
				owner[word] = p
				offered++
			}
		}
	}
	refs := strings.Fields(w.must("git", "-C", w.bare, "for-each-ref", "--format=%(refname)", "refs/gitops/batch"))
	for _, ref := range refs {
		switch p := owner[ref]; {
		case p == nil:
			wrong = append(wrong, "batch ref of nobody: "+ref)
		case !p.killed && !unsure[p.id]:
			wrong = append(wrong, fmt.Sprintf("%s was not killed, and has left a batch ref behind: %s", p, ref))
		}
	}
	w.t.Logf("batches: %d offers, %d were pushed by another pipeline; batch refs left by those who were killed: %d", offered, together, len(refs))
	return wrong
}

// drain waits until nothing is held or waited for, and returns how long that took. All pipelines
// have ended, so what is held now nobody will release but a keeper or the TTL.
func (w *world) drain() time.Duration {
	started := time.Now()
	none := func(pattern string) func() bool {
		return func() bool {
			keys, err := w.keys.Keys(context.Background(), pattern).Result()
			return err == nil && len(keys) == 0
		}
	}
	if !w.until("no lock is held by the dead", none("gitops:lock:*")) {
		w.t.Log(w.keys.Keys(context.Background(), "gitops:lock:*").Val())
	}
	took := time.Since(started)
	w.until("no keeper outlives its lock", func() bool { return len(w.keepers()) == 0 })
	// The tickets of waiters that died when nobody came after them go with the next to come.
	names := []string{"", "name0", "name1", "name2", "name3"}
	for i := range parts {
		names = append(names, fmt.Sprintf("part%d", i))
	}
	for _, name := range names {
		cmd := w.command("git", "gitops", "run", "--repo", w.remote, "--branch", "main", "--", "true")
		cmd.Env = append(cmd.Env, "GITOPS_LOCK_NAME="+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			w.t.Errorf("the lock of %q cannot be taken any more: %v\n%s", name, err, out)
		}
	}
	w.until("no ticket of the dead is left", none("gitops:queue:*"))
	w.until("the locks are free", none("gitops:lock:*"))
	return took
}

// checkSaid looks for what no pipeline here may ever print, and for waits that came to their end.
func (w *world) checkSaid() {
	for _, p := range w.all {
		said, err := os.ReadFile(p.said)
		if err != nil {
			w.t.Error(err)
			continue
		}
		for _, bad := range []string{"panic:", "fatal error:", "DATA RACE", "goroutine ", "deadlock:"} {
			if strings.Contains(string(said), bad) {
				w.t.Errorf("%s (%s) printed %q: see %s", p.id, p.kind, bad, p.said)
			}
		}
		if p.kind == "impatient" {
			continue
		}
		for _, s := range p.steps() {
			if s.result == "75" {
				w.t.Errorf("%s (%s) waited for %s: %s", p.id, p.kind, patience, s.name)
			}
		}
	}
}

// landing is how many of those that meant to push have landed, and how many of them must have: half
// of those that were not killed.
func landing(h history, outcomes []outcome) (landed, least int) {
	meant := 0
	for _, o := range outcomes {
		switch o.kind {
		case "abandon", "fail", "unlock", "impatient", stale:
			continue
		}
		if o.code >= 0 {
			meant++
		}
		if h.landed(o.id) {
			landed++
		}
	}
	return landed, meant / 2
}

// report prints the figures.
func (w *world) report(h history, outcomes []outcome, storm *faults, lost int, took, drained time.Duration, seed uint64) {
	count := map[string]int{}
	codes := map[string]int{}
	var longest time.Duration
	for i, o := range outcomes {
		p, landed := w.all[i], h.landed(o.id)
		longest = max(longest, p.took)
		count["run"]++
		switch {
		case o.code == 0 && landed:
			count["landed"]++
		case o.code == 0:
			count["ended without a push, on purpose"]++
		case o.code < 0 && landed:
			count["killed, but landed"]++
		case o.code < 0:
			count["killed"]++
		case o.kind == "fail":
			count["failed on purpose"]++
		case landed:
			count["failed after they had landed"]++
		default:
			count["failed cleanly"]++
		}
		for _, s := range p.steps() {
			if s.result != "0" && s.name != "base" && s.name != "give-up" && s.name != "end" {
				codes[s.name+" "+s.result]++
			}
		}
	}
	m := w.monitor
	w.t.Logf("seed %d: %d pipelines, %d at a time, in %s; lost %d\n"+
		"pipelines: %s\nfaults: %d: %s\nsteps that failed, with their exit codes: %s\n"+
		"branch: %d commits, %d moves, %d of them forced; longest stall %s, longest pipeline %s\n"+
		"lock: %d grants, %d after a wait and in order, %d times taken back by its holder, %d waiters came back after a silence; redis followed over %d starts; drained in %s",
		seed, len(outcomes), *parallelFlag, took.Round(time.Second), lost,
		list(count), storm.total(), list(storm.counts), list(codes),
		len(h.commits)-1, len(h.moves)-1, h.forced(), h.stall(), longest.Round(100*time.Millisecond),
		m.grants, m.waited, m.reasserted, m.back, m.epochs.Load(), drained.Round(10*time.Millisecond))
}

func list(counts map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(all, ", ")
}
