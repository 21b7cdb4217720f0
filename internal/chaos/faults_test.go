//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/git-gitops/git-gitops/internal/redistest"
)

// faults carries out the plan: what happens next, to whom and for how long comes from the seed.
type faults struct {
	w    *world
	dice *rand.Rand
	all  sync.WaitGroup // those under way

	older string // the folder of data with which Redis is to start; "": its own

	counts map[string]int
}

// fault is one kind. do returns false when there was nothing to strike.
type fault struct {
	name   string
	weight int
	do     func(f *faults, p *pipeline) bool
}

// The weights make the costly ones rarer: a holder that is killed with its keeper stalls all others
// for the TTL.
var plan = []fault{
	{"kill script", 3, func(_ *faults, p *pipeline) bool { return p != nil && p.cmd.Process.Kill() == nil }},
	{"kill script and git", 4, func(f *faults, p *pipeline) bool { return p != nil && f.kill(p) }},
	{"kill keeper", 4, func(f *faults, p *pipeline) bool { return p != nil && f.killKeepers(p) }},
	{"kill all", 2, func(f *faults, p *pipeline) bool {
		return p != nil && f.killKeepers(p) && f.kill(p)
	}},
	{"pause script", 2, func(f *faults, p *pipeline) bool { return p != nil && f.pause(p, true, false) }},
	{"pause keeper", 3, func(f *faults, p *pipeline) bool { return p != nil && f.pause(p, false, true) }},
	{"pause all", 3, func(f *faults, p *pipeline) bool { return p != nil && f.pause(p, true, true) }},
	{"redis restarts empty", 2, func(f *faults, _ *pipeline) bool { return f.restart(true) }},
	{"redis restarts", 3, func(f *faults, _ *pipeline) bool { return f.restart(false) }},
	{"redis restarts with older data", 3, func(f *faults, _ *pipeline) bool { return f.rollBack() }},
	{"redis is cut off", 5, func(f *faults, _ *pipeline) bool {
		return f.cut(f.w.toRedis[f.dice.IntN(len(f.w.toRedis))], f.between(50*time.Millisecond, 3*time.Second))
	}},
	{"redis' answers are lost", 4, func(f *faults, _ *pipeline) bool {
		return f.deafen(f.w.toRedis[f.dice.IntN(len(f.w.toRedis))])
	}},
	{"redis is slow", 5, func(f *faults, _ *pipeline) bool {
		p, by := f.w.toRedis[f.dice.IntN(len(f.w.toRedis))], f.between(50*time.Millisecond, 700*time.Millisecond)
		p.Delay(by)
		f.after(f.between(time.Second, 3*time.Second), func() { p.Delay(-by) })
		return true
	}},
	{"git is cut off", 4, func(f *faults, _ *pipeline) bool {
		return f.cut(f.w.toGit, f.between(10*time.Millisecond, 300*time.Millisecond))
	}},
	{"git's answers are lost", 3, func(f *faults, _ *pipeline) bool { return f.deafen(f.w.toGit) }},
	{"git refuses", 4, func(f *faults, _ *pipeline) bool {
		return f.file(filepath.Join(f.w.bare, "refuse"), f.between(300*time.Millisecond, 2*time.Second))
	}},
	{"git ref is locked", 4, func(f *faults, _ *pipeline) bool {
		return f.file(filepath.Join(f.w.bare, "refs", "heads", "main.lock"), f.between(200*time.Millisecond, 1500*time.Millisecond))
	}},
}

// run strikes until ctx ends, and returns when all is as it was.
func (f *faults) run(ctx context.Context, every time.Duration) {
	defer f.all.Wait()
	f.counts = map[string]int{}
	sum := 0
	for _, k := range plan {
		sum += k.weight
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(f.dice.ExpFloat64() * float64(every))):
		}
		if f.total() >= f.w.started()*2/3 {
			continue // so that a slow machine gets no more of them than a fast one
		}
		n, i := f.dice.IntN(sum), 0
		for n >= plan[i].weight {
			n -= plan[i].weight
			i++
		}
		p := f.w.someone(f.dice.IntN(1 << 20))
		if f.dice.IntN(2) == 0 {
			p = f.w.holder()
		}
		if plan[i].do(f, p) {
			f.counts[plan[i].name]++
			f.w.event("fault: %s, %s", plan[i].name, p)
		}
	}
}

func (f *faults) total() int {
	n := 0
	for _, k := range f.counts {
		n += k
	}
	return n
}

func (f *faults) between(least, most time.Duration) time.Duration {
	return least + time.Duration(f.dice.Int64N(int64(most-least)))
}

// after ends a fault after a while. Not even the end of the run leaves it out.
func (f *faults) after(d time.Duration, end func()) {
	f.all.Go(func() {
		time.Sleep(d)
		end()
	})
}

// kill ends a script with all that it runs.
func (f *faults) kill(p *pipeline) bool {
	f.w.mu.Lock()
	p.killed = true
	f.w.mu.Unlock()
	return p.signal(syscall.SIGKILL)
}

func (f *faults) killKeepers(p *pipeline) bool {
	pids := f.w.keepersOf(p)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(pids) > 0
}

// pause stops a script, its keeper, or both, for longer than the TTL.
func (f *faults) pause(p *pipeline, script, keeper bool) bool {
	d := f.between(ttl+500*time.Millisecond, ttl+3*time.Second)
	var pids []int
	if script {
		pids = append(pids, -p.cmd.Process.Pid)
	}
	if keeper {
		keepers := f.w.keepersOf(p)
		if len(keepers) == 0 {
			return false
		}
		pids = append(pids, keepers...)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	f.after(d, func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	})
	return true
}

func (f *faults) cut(p *redistest.Proxy, d time.Duration) bool {
	p.Cut()
	f.after(d, p.Mend)
	return true
}

// deafen loses the answers to what is carried out meanwhile, and then the connections.
func (f *faults) deafen(p *redistest.Proxy) bool {
	p.Deafen(1)
	f.after(f.between(20*time.Millisecond, 200*time.Millisecond), func() {
		p.Cut()
		p.Deafen(-1)
		p.Mend()
	})
	return true
}

// restart kills Redis and starts it again, with what its append-only file has, or with nothing.
// Nobody is let in before the monitor has seen what is left.
func (f *faults) restart(empty bool) bool {
	f.w.redis.Kill()
	for _, p := range f.w.toRedis {
		p.Cut()
	}
	if empty {
		if err := os.RemoveAll(filepath.Join(f.w.redis.Dir, "appendonlydir")); err != nil {
			f.w.t.Error(err)
		}
	}
	if f.older != "" {
		if err := errors.Join(os.RemoveAll(filepath.Join(f.w.redis.Dir, "appendonlydir")), os.CopyFS(filepath.Join(f.w.redis.Dir, "appendonlydir"), os.DirFS(f.older))); err != nil {
			f.w.t.Error(err)
		}
	}
	epoch := f.w.monitor.epochs.Load()
	time.Sleep(f.between(10*time.Millisecond, 600*time.Millisecond))
	if err := f.w.redis.Resume(); err != nil {
		f.w.t.Error(fmt.Errorf("restart: %w", err))
	}
	f.w.until("the monitor follows", func() bool { return f.w.monitor.epochs.Load() > epoch })
	for _, p := range f.w.toRedis {
		p.Mend()
	}
	return true
}

// rollBack restarts Redis with the data that it had when this was called last.
func (f *faults) rollBack() bool {
	now, before := filepath.Join(f.w.redis.Dir, "appendonlydir"), filepath.Join(f.w.redis.Dir, "before")
	_, err := os.Stat(before)
	if err == nil {
		f.older = before
		f.restart(false)
		f.older = ""
	}
	if err := errors.Join(os.RemoveAll(before), os.CopyFS(before, os.DirFS(now))); err != nil {
		f.w.t.Error(err)
	}
	return err == nil
}

// file lets a file be there for a while.
func (f *faults) file(path string, d time.Duration) bool {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false // git, or the fault before this, has it
	}
	_ = file.Close()
	f.after(d, func() { _ = os.Remove(path) })
	return true
}
