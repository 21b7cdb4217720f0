//go:build unix

package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

var (
	restartsFlag  = flag.Int("chaos.restarts", 3, "how often Redis restarts under living holders")
	failoversFlag = flag.Int("chaos.failovers", 1, "how often Sentinel, and how often a Cluster, fails over under them")
	holdersFlag   = flag.Int("chaos.holders", 20, "how many holders live then, each with one that waits")
	busyFlag      = flag.Bool("chaos.busy", false, "keep all processors busy meanwhile")
)

// TestPresence has holders live, and the next in line of each wait, while Redis restarts and fails
// over in every way: no holder is judged gone. Then all holders end, and the next have their locks.
func TestPresence(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	if *busyFlag {
		for range runtime.NumCPU() {
			go func() {
				for t.Context().Err() == nil {
					continue
				}
			}()
		}
	}
	beside := func(t *testing.T) { // each other, unless they are so many that they would be slow by that
		if *holdersFlag <= 20 {
			t.Parallel()
		}
	}
	t.Run("restarts", func(t *testing.T) {
		beside(t)
		presenceRestarts(t, rand.New(rand.NewPCG(seed, 1)))
	})
	for name, start := range map[string]func(testing.TB) (*redistest.Topology, redisstore.Options){
		"sentinel": func(t testing.TB) (*redistest.Topology, redisstore.Options) {
			all := redistest.Sentinel(t)
			return all, redisstore.Options{Addrs: all.Addrs(), SentinelMaster: redistest.MasterName}
		},
		"cluster": func(t testing.TB) (*redistest.Topology, redisstore.Options) {
			all := redistest.Cluster(t)
			return all, redisstore.Options{Addrs: all.Addrs(), Cluster: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			beside(t)
			presenceFailovers(t, rand.New(rand.NewPCG(seed, 2)), start)
		})
	}
}

// living are holders that show themselves, and those who wait for their locks.
type living struct {
	t      *testing.T
	metas  []string // of each lock, its hash on Redis
	leases []*lock.Lease
	end    func() // of all holders, as if they were killed

	mu      sync.Mutex
	wrong   []string
	ended   bool
	granted sync.WaitGroup
}

const (
	presenceTTL = 24 * time.Hour // frees nothing here
	presenceTag = "{presence}"
)

// live starts holders and waiters, whose locks are all in one slot of a Cluster.
func live(t *testing.T, o redisstore.Options) *living {
	t.Helper()
	o.Events = 1000
	l := &living{t: t}
	ctx, giveUp := context.WithCancel(context.Background())
	var ends []func()
	l.end = func() {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		for _, end := range ends {
			end()
		}
		ends = nil
	}
	t.Cleanup(func() {
		l.end()
		giveUp()
		l.granted.Wait()
	})
	for n := range *holdersFlag {
		k := lock.Key{Verbatim: presenceTag + ":" + strconv.Itoa(n)}
		holding, waiting := redisstore.Open(o), redisstore.Open(o)
		r := lock.Request{Key: k, Token: lock.NewToken(), TTL: presenceTTL, Present: true}
		lease, err := lock.Acquire(ctx, holding, r, time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		stop := lease.Keep(ctx, holding, 0, func(err error) { l.say("holder %d lost its lock: %v", n, err) })
		ends = append(ends, func() {
			stop()
			lease.Leave()
			_ = holding.Close()
		})
		l.metas, l.leases = append(l.metas, "gitops:meta:"+presenceTag+":"+k.Verbatim), append(l.leases, lease)

		queued := make(chan struct{})
		var once sync.Once
		l.granted.Go(func() {
			defer func() { _ = waiting.Close() }()
			r := lock.Request{Key: k, Token: lock.NewToken(), TTL: presenceTTL}
			next, err := lock.Acquire(ctx, waiting, r, 24*time.Hour, func(lock.Waiting) { once.Do(func() { close(queued) }) })
			if err != nil {
				if ctx.Err() == nil {
					l.say("the wait for lock %d ended: %v", n, err)
				}
				return
			}
			l.mu.Lock()
			early := !l.ended
			l.mu.Unlock()
			if early {
				l.say("lock %d was granted while its holder lives", n)
			}
			_, _ = next.Release(ctx, waiting, 10*time.Second)
		})
		select {
		case <-queued:
		case <-time.After(3 * time.Minute):
			t.Fatalf("nobody waits for lock %d", n)
		}
	}
	return l
}

func (l *living) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// fail reports what went wrong since the last time.
func (l *living) fail(when string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.wrong {
		l.t.Errorf("%s: %s", when, line)
	}
	bad := len(l.wrong) > 0
	l.wrong = nil
	return bad
}

// until waits for a condition.
func (l *living) until(what string, ok func() bool) {
	l.t.Helper()
	if !gittest.Reached(ok) {
		l.fail(what)
		l.t.Fatalf("never: %s", what)
	}
}

// claimed waits until the server at which the locks are counts the subscription of every holder. at
// is nil while there is none.
func (l *living) claimed(at func() *redis.Client) {
	l.t.Helper()
	l.until("every holder shows itself", func() bool {
		c := at()
		if c == nil {
			return false
		}
		_, run, _ := strings.Cut(c.Info(l.t.Context(), "server").Val(), "run_id:")
		run, _, _ = strings.Cut(run, "\r")
		for n, lease := range l.leases {
			claim := c.HGet(l.t.Context(), l.metas[n], "s:"+string(lease.Token)).Val()
			if run == "" || !strings.HasPrefix(claim, run+" ") {
				return false
			}
		}
		return true
	})
}

// over ends the holders, and waits until the next have had their locks.
func (l *living) over() {
	l.t.Helper()
	l.end()
	done := make(chan struct{})
	go func() {
		l.granted.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		l.t.Error("not all locks were freed within five minutes after their holders had ended")
	}
	l.fail("at the end")
}

// presenceRestarts kills Redis again and again. It comes back with its data or without, at once or
// after longer than the grace of those who judge.
func presenceRestarts(t *testing.T, dice *rand.Rand) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	client := server.Client(t)
	l := live(t, redisstore.Options{Addrs: []string{server.Addr()}})
	at := func() *redis.Client { return client }
	l.claimed(at)
	counts := map[string]int{}
	for range *restartsFlag {
		how, away := "with its data", time.Duration(dice.Int64N(int64(time.Second)))
		if dice.IntN(5) == 0 {
			how, away = how+", late", away+6*time.Second
		}
		server.Kill()
		if dice.IntN(3) == 0 {
			how = strings.Replace(how, "with", "without", 1)
			if err := os.RemoveAll(filepath.Join(server.Dir, "appendonlydir")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(away)
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		counts[how]++
		l.claimed(at)
		linger(dice)
		if l.fail(how) {
			break
		}
	}
	t.Logf("%d holders, restarts: %s", *holdersFlag, list(counts))
	l.over()
}

// linger lets those who judge look for a while, at times for long enough to decide.
func linger(dice *rand.Rand) { time.Sleep(time.Duration(dice.Int64N(int64(8 * time.Second)))) }

// presenceFailovers kills, stops or asks the primary of all locks again and again. One that was
// stopped goes on as the primary that it was, until it learns of the new one.
func presenceFailovers(t *testing.T, dice *rand.Rand, start func(testing.TB) (*redistest.Topology, redisstore.Options)) {
	all, o := start(t)
	l := live(t, o)
	clients := map[*redistest.Server]*redis.Client{}
	of := func(s *redistest.Server) *redis.Client {
		if clients[s] == nil {
			clients[s] = redis.NewClient(&redis.Options{Addr: s.Addr(), Protocol: 2, DisableIdentity: true})
		}
		return clients[s]
	}
	t.Cleanup(func() {
		for _, c := range clients {
			_ = c.Close()
		}
	})
	var now *redistest.Server
	settled := func() {
		t.Helper()
		l.until("there is one primary, with a replica", func() bool {
			now = all.Primary(presenceTag)
			return now != nil && all.Replicas(now) > 0
		})
		l.claimed(func() *redis.Client {
			if now = all.Primary(presenceTag); now == nil {
				return nil
			}
			return of(now)
		})
		l.until("the replica has it all", func() bool { // WAIT speaks of the writes of its own connection
			c := of(now).Conn()
			defer func() { _ = c.Close() }()
			return c.Set(t.Context(), presenceTag+"written", "1", time.Minute).Err() == nil && c.Wait(t.Context(), 1, time.Second).Val() > 0
		})
	}
	settled()
	counts := map[string]int{}
	for range *failoversFlag {
		how := []string{"killed", "stopped", "asked"}[dice.IntN(3)]
		old := now
		var err error
		switch how {
		case "killed":
			old.Kill()
		case "stopped":
			err = old.Signal(syscall.SIGSTOP)
		default:
			err = all.HandOver(presenceTag)
		}
		if err != nil {
			t.Fatal(err)
		}
		l.until("another is primary", func() bool { now = all.Primary(presenceTag); return now != nil && now != old })
		switch how {
		case "killed":
			err = all.Follow(old, now)
		case "stopped":
			err = old.Signal(syscall.SIGCONT)
		}
		if err != nil {
			t.Fatal(err)
		}
		counts[how]++
		settled()
		linger(dice)
		if l.fail(how) {
			break
		}
	}
	t.Logf("%d holders, failovers: %s", *holdersFlag, list(counts))
	l.over()
}
