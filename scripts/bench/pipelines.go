package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// strategies are what scripts do so that their pushes do not collide. Each script is one pipeline:
// it gets the URL, a number and the seconds that its edit takes, and exits 0 when its commit has
// landed. The functions clone, edit and save are in prelude.
var strategies = map[string]struct {
	script string
	env    []string
}{
	"gitops":        {script: `clone "git gitops" && edit && git gitops -C "$w" push -q origin main`},
	"gitops-inside": {script: `clone "git gitops" && edit && git gitops -C "$w" push -q origin main`, env: []string{"GITOPS_CLONE_AHEAD=off"}},
	"gitops-names":  {script: `export GITOPS_LOCK_NAME=name$i; clone "git gitops" && edit && git gitops -C "$w" push -q origin main`, env: []string{"GITOPS_PUSH_REBASE=true"}},
	"gitops-batch": {
		script: `export GITOPS_LOCK_NAME=name$i; clone "git gitops" && edit && git gitops -C "$w" push -q origin main`,
		env:    []string{"GITOPS_PUSH_REBASE=true", "GITOPS_PUSH_BATCH=true", "GITOPS_PUSH_BATCH_SECRET=of the bench", "GITOPS_PUSH_BATCH_MAX=200"},
	},
	"retry":          {script: `clone git && edit && until git -C "$w" push -q origin main; do sleep 0.1; git -C "$w" pull -q --rebase origin main || exit 1; done`},
	"redis-cli-1s":   {script: redisCLI, env: []string{"POLL=1"}},
	"redis-cli-20s":  {script: redisCLI, env: []string{"POLL=20"}},
	"lock-branch-1s": {script: lockBranch, env: []string{"POLL=1"}},
}

const (
	prelude = `set -u; url=$1 i=$2 secs=$3 w=w/$2; mkdir -p w; exec 3>&2 2>w/$2.err
clone() { $1 clone "$url" -b main "$w" && { [ -z "${READY:-}" ] || { : >"$w.ready"; until [ -e w/go ]; do sleep 0.05; done; }; }; }
edit() { sleep "$secs"; mkdir -p "$w/out"; echo "$i" >"$w/out/$i" && git -C "$w" add out && git -C "$w" commit -qm "$i"; }
`
	epilogue = "\ncode=$?; exec 2>&3; cat \"$w.err\" >&2; rm -rf \"$w\"; exit $code"

	// As users have it: SET NX with a TTL, asked for again and again, and a compare-and-delete.
	redisCLI = `token=$RANDOM$RANDOM$i; r() { redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" "$@"; }
until [ "$(r SET lock.main "$token" NX EX 300)" = OK ]; do sleep "$POLL"; done
clone git && edit && git -C "$w" push -q origin main; code=$?
r EVAL "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end" 1 lock.main "$token" >/dev/null
(exit $code)`

	// A branch that only one can create.
	lockBranch = `clone git || exit 1
until git -C "$w" commit -q --allow-empty -m "lock $i" && git -C "$w" push -q --force-with-lease=lock.main: origin HEAD:refs/heads/lock.main; do
	git -C "$w" reset -q --hard origin/main; sleep "$POLL"; done
git -C "$w" reset -q --hard HEAD~1 && git -C "$w" pull -q --rebase origin main && edit && git -C "$w" push -q origin main; code=$?
git -C "$w" push -q origin --delete lock.main
(exit $code)`
)

// contest is what one strategy took with a number of pipelines.
type contest struct {
	Strategy  string  `json:"strategy"`
	Pipelines int     `json:"pipelines"`
	Megabytes int     `json:"megabytes"`
	Transport string  `json:"transport"`
	Queued    bool    `json:"queued"`
	Seconds   float64 `json:"seconds"`
	Ratio     float64 `json:"ratio_to_serial_limit"`
	Landed    int     `json:"landed"`
	Rejected  int     `json:"rejected_pushes"`
	Delay     float64 `json:"round_trip_seconds"`
	Ready     bool    `json:"clones_made_before"`
	Pushes    int     `json:"pushes_to_the_branch"`
	Requests  int     `json:"requests"`
}

func pipelinesCommand(args []string) error {
	flags := flag.NewFlagSet("pipelines", flag.ExitOnError)
	binary := flags.String("binary", "bin/git-gitops", "the `FILE` of git-gitops, which must have that name")
	numbers := flags.String("n", "10,30", "`NUMBERS` of pipelines at once, separated by commas")
	sizes := flags.String("mb", "1,50", "megabytes of the repository: `SIZES`, separated by commas")
	transport := flags.String("over", "http", "`TRANSPORT`: path, file, http or ssh")
	names := flags.String("strategies", "gitops,gitops-inside,gitops-names,retry,redis-cli-1s,lock-branch-1s", "`NAMES` of what to compare; there is also redis-cli-20s")
	edit := flags.Duration("edit", 200*time.Millisecond, "`TIME` that each edit takes")
	queued := flags.Bool("queued", false, "take the time only from when all have queued for a lock that is held, and have their clones; for gitops and gitops-inside")
	ready := flags.Bool("ready", false, "take the time only from when all have their clones; for strategies that do not lock while they clone: gitops-names, gitops-batch, retry")
	delay := flags.Duration("delay", 0, "`TIME` of a round trip to the server, with a proxy; over http")
	opening := flags.Int("opening", 2, "with -delay, `NUMBER` of further round trips that a new connection takes")
	asJSON := flags.Bool("json", false, "print JSON")
	_ = flags.Parse(args) // it exits when it cannot

	rows := []string{row("PIPELINES", "MB", "STRATEGY", "SECONDS", "RATIO", "LANDED", "REJECTED", "PUSHES", "REQUESTS")}
	var results []contest
	for size := range strings.SplitSeq(*sizes, ",") {
		megabytes, err := strconv.Atoi(size)
		if err != nil || megabytes < 0 {
			return fmt.Errorf("-mb: %q is no size", size)
		}
		s, err := newSite(*binary, megabytes, *transport)
		if err != nil {
			return err
		}
		defer s.close()
		if err := s.link(*transport, *delay, *opening); err != nil {
			return err
		}
		for number := range strings.SplitSeq(*numbers, ",") {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 {
				return fmt.Errorf("-n: %q is no number of pipelines", number)
			}
			limit, err := s.serial(*transport, n, *edit)
			if err != nil {
				return fmt.Errorf("the serial limit: %w", err)
			}
			limit.Megabytes = megabytes
			all := []contest{limit}
			for name := range strings.SplitSeq(*names, ",") {
				c, err := s.contest(name, *transport, n, *edit, *queued, *ready)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				c.Megabytes, c.Ratio, c.Delay = megabytes, c.Seconds/limit.Seconds, delay.Seconds()
				all = append(all, c)
			}
			for _, c := range all {
				rows = append(rows, row(number, size, c.Strategy, fmt.Sprintf("%.2f", c.Seconds), fmt.Sprintf("%.2f", c.Ratio), strconv.Itoa(c.Landed), strconv.Itoa(c.Rejected), strconv.Itoa(c.Pushes), strconv.Itoa(c.Requests)))
			}
			results = append(results, all...)
		}
		s.close()
	}
	return report(os.Stdout, *asJSON, results, rows)
}

// serial is the least that git alone takes when pipelines work one after the other and each has a
// clone that only needs the difference: fetch, edit, commit, push, without any lock.
func (s *site) serial(transport string, n int, edit time.Duration) (contest, error) {
	c := contest{Strategy: "serial limit", Pipelines: n, Transport: transport, Ratio: 1}
	if err := s.reset(); err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seconds := fmt.Sprint(edit.Seconds())
	// The clones share one folder of objects, so that making them costs no disk; a fetch costs the
	// same.
	if _, err := s.bash(ctx, nil, `mkdir -p w && git clone -q "$1" -b main w/clone`, s.urls[transport]); err != nil {
		return c, err
	}
	began, requests := time.Now(), s.requests.Load()
	for i := range n {
		_, err := s.bash(ctx, nil, prelude+`w=w/clone; git -C "$w" fetch -q origin && git -C "$w" reset -q --hard origin/main && edit && git -C "$w" push -q origin main && git -C "$w" reset -q --hard seed && git -C "$w" update-ref refs/remotes/origin/main seed`,
			s.urls[transport], strconv.Itoa(i), seconds)
		if err != nil {
			return c, err
		}
	}
	c.Seconds, c.Pushes, c.Requests = time.Since(began).Seconds(), s.pushes(), int(s.requests.Load()-requests)
	var err error
	c.Landed, err = s.landed()
	return c, err
}

// contest starts all pipelines at once and waits for the last.
func (s *site) contest(name, transport string, n int, edit time.Duration, queued, ready bool) (contest, error) {
	c := contest{Strategy: name, Pipelines: n, Transport: transport, Queued: queued, Ready: ready}
	strategy, ok := strategies[name]
	if !ok {
		known := make([]string, 0, len(strategies))
		for name := range strategies {
			known = append(known, name)
		}
		slices.Sort(known)
		return c, fmt.Errorf("no such strategy: there are %s", strings.Join(known, ", "))
	}
	if err := s.reset(); err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	env := strategy.env
	if queued {
		env = append([]string{"GITOPS_LOG=debug"}, env...)
		if _, err := s.bash(ctx, nil, `mkdir -p w && GITOPS_LOCK_SESSION=workspace git gitops lock --repo "$1" --branch main`, s.urls[transport]); err != nil {
			return c, err
		}
	}
	if ready {
		env = append([]string{"READY=yes"}, env...)
	}
	requests := s.requests.Load()
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			said, err := s.bash(ctx, env, prelude+strategy.script+epilogue, s.urls[transport], strconv.Itoa(i), fmt.Sprint(edit.Seconds()))
			mu.Lock()
			defer mu.Unlock()
			c.Rejected += strings.Count(said, "! [")
			if err != nil {
				errs = append(errs, fmt.Errorf("pipeline %d: %w", i, err))
			}
		})
	}
	if queued {
		for clones := n; clones > 0; time.Sleep(50 * time.Millisecond) {
			if err := ctx.Err(); err != nil {
				return c, err
			}
			clones = n
			for i := range n {
				said, _ := os.ReadFile(filepath.Join(s.dir, "w", strconv.Itoa(i)+".err"))
				if strings.Contains(string(said), "cloned while waiting") || name != "gitops" && strings.Contains(string(said), "waiting for") {
					clones--
				}
			}
		}
		time.Sleep(4 * time.Second) // in a wait of pipelines that is nothing; what a clone has left to do is done then
		began = time.Now()
		if _, err := s.bash(ctx, nil, `git gitops unlock --repo "$1" --branch main`, s.urls[transport]); err != nil {
			return c, err
		}
	}
	if ready {
		for made := 0; made < n; time.Sleep(50 * time.Millisecond) {
			if err := ctx.Err(); err != nil {
				return c, err
			}
			files, _ := filepath.Glob(filepath.Join(s.dir, "w", "*.ready"))
			made = len(files)
		}
		requests, began = s.requests.Load(), time.Now()
		if err := os.WriteFile(filepath.Join(s.dir, "w", "go"), nil, 0o600); err != nil {
			return c, err
		}
	}
	wg.Wait()
	c.Seconds = time.Since(began).Seconds()
	c.Requests = int(s.requests.Load() - requests)
	c.Pushes = s.pushes()
	if err := errors.Join(errs...); err != nil {
		return c, err
	}
	var err error
	if c.Landed, err = s.landed(); err == nil && c.Landed != n {
		err = fmt.Errorf("%d pipelines said that they landed, and %d did", n, c.Landed)
	}
	return c, err
}
