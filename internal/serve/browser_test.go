package serve_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/serve"
)

var shots = flag.String("shots", "", "the folder in which TestScreenshots leaves its pictures")

func TestMain(m *testing.M) {
	code := m.Run()
	stopChromium()
	os.Exit(code)
}

var stopChromium = func() {}

// chromium is one browser for all tests.
var chromium = sync.OnceValues(func() (context.Context, error) {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return nil, errors.New("no chromium is installed; scripts/test-deps.sh installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("lang", "en-GB"), chromedp.Flag("disable-gpu", true))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	stopChromium = func() { end(); stop() }
	return ctx, chromedp.Do(ctx)
})

// tab is a page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func newTab(t *testing.T) *tab {
	t.Helper()
	browser, err := chromium()
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(stop)
	return &tab{t, ctx}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval is the value of an expression.
func (b *tab) eval(expression string) any {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[any](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// until waits until an expression is true on the page. An error is not the end: what it names may
// not be there before the page is loaded.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	var err error
	if !gittest.Reached(func() bool {
		var value bool
		value, err = chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		return err == nil && value
	}) {
		b.t.Fatalf("never: %s (%s, %v)\n%v", what, expression, err, b.eval("document.body.innerText"))
	}
}

// look sets the size and the colours of the page.
func (b *tab) look(width, height int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// fleet is a store that shows locks which do not change.
type fleet struct {
	mu     sync.Mutex
	states []lock.State
	events []redisstore.Event
	err    error
}

func (f *fleet) List(context.Context) ([]lock.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states, f.err
}
func (f *fleet) Now(context.Context) (time.Time, error) { return time.Now(), nil }
func (f *fleet) Events(_ context.Context, since time.Time) (some []redisstore.Event, err error) {
	for _, e := range f.events {
		if e.Time.After(since) {
			some = append(some, e)
		}
	}
	return some, nil
}

func (f *fleet) Break(context.Context, lock.Key, lock.Token, lock.Record, string) (lock.ReleaseResult, error) {
	return lock.NotHeld, errors.New("this lock does not change")
}

func (f *fleet) Freeze(context.Context, lock.FreezeRequest) ([]lock.Frozen, error) {
	return nil, errors.New("this lock does not change")
}

func (f *fleet) Thaw(context.Context, lock.FreezeRequest) ([]lock.Frozen, error) {
	return nil, errors.New("this lock does not change")
}

// newFleet makes n locks with the past of six hours. With each of at least 0 every lock is held and
// so many wait for it; else some are, and for some of these a few wait.
func newFleet(n, each int) *fleet {
	repos := []string{"fleet", "platform", "billing", "shop/deploy", "data/warehouse", "web", "payments-gateway", "identity"}
	branches := []string{"main", "staging", "production", "release/2026-11"}
	jobs := []string{"deploy / prod", "promote image", "rotate secrets", "scale out", "config sync"}
	people := []string{"ci", "argo", "deploy-bot", "release"}
	r := rand.New(rand.NewPCG(1, 2))
	who := func() lock.Record {
		return lock.Record{
			User: people[r.IntN(len(people))], Host: fmt.Sprintf("runner-%d", 1+r.IntN(20)), PID: 100 + r.IntN(9000), Command: "clone",
			Job: jobs[r.IntN(len(jobs))], RunURL: fmt.Sprintf("https://ci.example.com/runs/%d", r.IntN(9000)),
		}
	}
	f := &fleet{}
	now := time.Now()
	for i := range n {
		k := lock.Key{Repo: "github.com/acme/" + repos[i%len(repos)], Branch: branches[i/len(repos)%len(branches)]}
		if i >= len(repos)*len(branches) {
			k.Name = fmt.Sprintf("service-%d", i)
		}
		typical := time.Duration(20+r.IntN(240)) * time.Second
		s := lock.State{Key: k, Name: "gitops:lock:{" + k.ID() + "}"}
		end := now.Add(-time.Duration(r.IntN(200)) * time.Second)
		queue := each
		if each < 0 {
			queue = [...]int{3, 0, 0, 5, 1, 0, 0, 12, 1, 0, 0}[i%11]
		}
		if each >= 0 || i%7 != 3 {
			s.Holder = &lock.Holder{Record: who(), Token: lock.NewToken(), Fence: lock.Fence(1000 + i), Known: true, Age: now.Sub(end)}
			if i == 4 && each < 0 {
				s.Freeze = lock.Freeze{By: lock.Record{User: "alice", Host: "desk"}, Reason: "release day", Left: 40 * time.Minute, Scope: lock.ThisLock}
			}
			if i == 9 {
				s.Holder.Presence = lock.Absent
			}
			for w := range queue {
				s.Waiters = append(s.Waiters, lock.Waiter{Record: who(), Token: lock.NewToken(), Age: time.Duration(100-7*w) * time.Second, Alive: true})
			}
		}
		f.states = append(f.states, s)
		for j := 0; now.Sub(end) < 6*time.Hour && j < 40; j++ {
			hold := typical/2 + time.Duration(r.Int64N(int64(typical)))
			kind, by, why := "released", "", ""
			if r.IntN(25) == 0 {
				kind, by, why = "broken", "alice@desk", "stuck runner"
			}
			w := who()
			person := w.User + "@" + w.Host + " (clone)"
			fence := fmt.Sprint(1000000 - j)
			f.events = append(f.events,
				redisstore.Event{ID: fmt.Sprintf("%d-%d", end.UnixMilli(), i), Time: end, Key: k, Lock: s.Name, Type: lock.EventType(kind), Who: person, Run: w.RunURL, Fence: fence, Hold: hold, By: by, Reason: why},
				redisstore.Event{ID: fmt.Sprintf("%d-%d", end.Add(-hold).UnixMilli(), i), Time: end.Add(-hold), Key: k, Lock: s.Name, Type: "acquired", Who: person, Run: w.RunURL, Fence: fence, Wait: time.Duration(r.Int64N(int64(3 * typical)))},
			)
			end = end.Add(-hold - time.Duration(r.Int64N(int64(8*typical))))
		}
	}
	for a, b := 0, len(f.events)-1; a < b; a, b = a+1, b-1 {
		f.events[a], f.events[b] = f.events[b], f.events[a]
	}
	return f
}

// TestScreenshots makes the pictures of the documents, with -shots.
func TestScreenshots(t *testing.T) {
	if *shots == "" {
		t.Skip("make screenshots runs this")
	}
	if err := os.MkdirAll(*shots, 0o755); err != nil {
		t.Fatal(err)
	}
	empty := &fleet{}
	down := &fleet{err: errors.New("connection refused")}
	sizes := map[string][2]int64{"phone": {390, 844}, "laptop": {1280, 720}, "desk": {1920, 1080}, "wide": {2560, 1440}}
	for name, store := range map[string]*fleet{"docs": newFleet(9, -1), "many": newFleet(50, -1), "empty": empty, "down": down} {
		s := &site{t: t}
		s.serve(store, nil)
		b := newTab(t)
		take := func(page, path, scheme, size string, pixels [2]int64) {
			b.look(pixels[0], pixels[1], scheme)
			b.do(chromedp.Navigate(s.url + path))
			b.until("it is loaded", `document.readyState === "complete" && [...document.querySelectorAll("time")].every(t => t.textContent)`)
			picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(*shots, page+"-"+name+size+"-"+scheme+".png"), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, scheme := range []string{"light", "dark"} {
			for size, pixels := range sizes {
				take("list", "/", scheme, "-"+size, pixels)
				if name == "docs" {
					take("lock", lockPath(store.states[7].Key), scheme, "-"+size, pixels)
				}
			}
		}
		if name == "docs" {
			take("list", "/", "light", "", [2]int64{1200, 320})
			take("lock", lockPath(store.states[0].Key), "dark", "", [2]int64{1200, 620})
		}
	}
}

// A lock appears, its queue grows, it is handed over and broken with a reason, on the page as it
// stands: nothing is loaded again, and a row that changes stays the same element. All of it works
// by keyboard.
func TestBrowser(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	s := newSite(t, func(o *serve.Options) { o.OperatorsFile = operatorsFile(t) })
	b.do(chromedp.Navigate(s.url + "/"))
	b.until("the list is empty", `document.getElementById("empty").textContent === "No lock is held, and nobody waits."`)
	b.eval(`window.loaded = "once";
		document.addEventListener("securitypolicyviolation", e => { window.violation = e.violatedDirective }); 0`)

	lease := s.hold(key("main"), record("alice"))
	b.until("the lock appears", `document.querySelector(".lock .holder")?.textContent.includes("alice@runner")`)
	b.eval(`window.row = document.querySelector(".lock"); window.row.querySelector("a").focus(); 0`)
	bob := s.wait(key("main"), record("bob"))
	carol := s.wait(key("main"), record("carol"))
	b.until("its queue grows", `document.querySelector(".queue").textContent.includes("carol@runner")`)
	b.until("its time counts", `document.querySelector(".for time").textContent > "1s"`)
	if _, err := lease.Release(t.Context(), s.store, time.Minute); err != nil {
		t.Fatal(err)
	}
	bob()
	b.until("it is handed over", `document.querySelector(".lock .holder").textContent.includes("bob@runner")`)
	if got := b.eval(`loaded === "once" && row === document.querySelector(".lock") && document.activeElement === row.querySelector("a") && !window.violation`); got != true {
		t.Errorf("the page was loaded again, the row replaced, or its focus lost (%v)", b.eval("window.violation"))
	}
	for _, k := range []string{"b-1", "b-2"} {
		s.hold(key(k), record("dora"))
	}
	b.until("others appear", `document.querySelectorAll(".lock").length === 3`)

	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error { // one event, as from a keyboard: the page may prevent its text
		_, err := cdp.Call(ctx, t, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: "/", Text: "/"})
		return err
	}))
	b.do(chromedp.KeyEvent("b-2"))
	b.until("the search finds one", `[...document.querySelectorAll(".lock")].filter(r => !r.hidden).length === 1`)
	b.do(chromedp.KeyEvent("!"))
	b.until("the search finds none", `document.getElementById("empty").textContent.includes("No lock has “b-2!”")`)

	// Alice logs in, and breaks the lock of bob.
	press := func(until string, keys string) {
		t.Helper()
		for range 40 {
			if b.eval(until) == true {
				return
			}
			b.do(chromedp.KeyEvent(keys))
		}
		t.Fatalf("no number of keys reaches %s", until)
	}
	press(`document.activeElement.textContent === "Log in"`, kb.Tab)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until("the form", `document.readyState === "complete" && document.getElementById("password") !== null`)
	press(`document.activeElement.id === "user"`, kb.Tab)
	b.do(chromedp.KeyEvent("op"), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("pw"), chromedp.KeyEvent(kb.Enter))
	b.until("who has logged in", `document.querySelector("nav")?.textContent.includes("op") && document.querySelector(".lock") !== null`)
	press(`document.activeElement.title === "example.com/org/app@main"`, kb.Tab)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until("the page of the lock", `document.querySelector("#queue td:nth-child(2)")?.textContent.includes("carol@runner")`)
	b.eval(`window.loaded = "once"; 0`)
	press(`document.activeElement.localName === "summary"`, kb.Tab)
	b.do(chromedp.KeyEvent(kb.Enter))
	press(`document.activeElement.id === "reason"`, kb.Tab)
	b.do(chromedp.KeyEvent("stuck"), chromedp.KeyEvent(kb.Enter))
	carol()
	b.until("what was done", `document.querySelector(".notice")?.textContent.includes("The lock is broken")`)
	b.until("who did it, and why", `document.getElementById("history").textContent.includes("by op@") && document.getElementById("history").textContent.includes("stuck")`)
	b.until("who has it now", `document.querySelector("#holder .big").textContent.includes("carol@runner")`)

	// It is frozen and thawed, and the page as it stands says so.
	b.until("both forms", `document.readyState === "complete" && document.querySelectorAll("form[action$=freeze], form[action$=thaw]").length === 2`)
	other := newTab(t) // looks on
	other.do(chromedp.Navigate(s.url + "/"))
	b.do(chromedp.SetValue("#why", "release day"), chromedp.Submit("form[action$=freeze]"))
	other.until("it is frozen", `document.querySelector(".lock.frozen .frozen") !== null`)
	b.until("who froze it, and why", `document.getElementById("holder")?.textContent.includes("by op@") && document.getElementById("holder").textContent.includes("release day")`)
	b.do(chromedp.Submit("form[action$=thaw]"))
	other.until("it is thawed", `document.querySelector(".lock.frozen") === null && document.querySelectorAll(".lock").length === 3`)
	b.until("that it is thawed", `document.querySelector(".notice")?.textContent === "The lock is thawed."`)

	// Another hold than the one that the page showed is not broken.
	erin := s.wait(key("main"), record("erin"))
	b.until("a page with carol's hold", `document.getElementById("queue").textContent.includes("erin@runner")`)
	b.do(chromedp.Navigate(s.url + lockPath(key("main"))))
	b.until("its form", `document.querySelector("#break form[method=post]") !== null`)
	states, err := s.store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		if state.Key == key("main") {
			if _, err := s.store.Release(t.Context(), state.Key, state.Holder.Token); err != nil {
				t.Fatal(err)
			}
		}
	}
	erin()
	b.until("the form is gone", `!document.getElementById("changed").hidden && document.querySelector("#break form").hidden`)
}

// A page tells that Redis, or its own server, cannot be reached, and goes on by itself.
func TestBrowser_outage(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	s := newSite(t, nil)
	s.hold(key("main"), record("alice"))
	b.do(chromedp.Navigate(s.url + "/"))
	b.until("the lock", `document.querySelector(".lock .holder")?.textContent.includes("alice@runner")`)
	b.eval(`window.loaded = "once"; 0`)
	s.redis.Kill()
	b.until("the outage", `document.querySelector(".down")?.textContent.startsWith("Redis has been unreachable since") && document.querySelector(".lock") !== null`)
	if err := s.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	b.until("its end", `document.querySelector(".down") === null && document.getElementById("summary").textContent.includes("held")`)
	s.hold(key("main"), record("bob"))
	b.until("what happens then", `document.querySelector(".lock .holder")?.textContent.includes("bob@runner")`)
	s.stop()
	b.until("that the server is gone", `!document.getElementById("stale").hidden`)
	if b.eval("loaded") != "once" {
		t.Error("the page was loaded again")
	}
}

// Without JavaScript a page shows everything as of when it was loaded.
func TestBrowser_noScript(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	s := &site{t: t}
	f := newFleet(9, -1)
	s.serve(f, nil)
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	for _, path := range []string{"/", lockPath(f.states[7].Key)} {
		b.do(chromedp.Navigate(s.url + path))
		text, err := chromedp.Run(b.ctx, chromedp.Text("body"))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`\dm\d+s`).MatchString(text) || !regexp.MustCompile(`(?:about |~)\d+ (?:s|min)|soon`).MatchString(text) {
			t.Errorf("%s lacks a time or an estimate:\n%s", path, text)
		}
	}
	b.do(chromedp.Navigate(s.url + "/?q=billing"))
	if text, err := chromedp.Run(b.ctx, chromedp.Text("#parts")); err != nil || !strings.Contains(text, "acme/billing") || strings.Contains(text, "acme/fleet") {
		t.Errorf("a search: %v\n%s", err, text)
	}
}

// axe finds nothing serious, and no page is wider than its window.
func TestBrowser_accessible(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	axe, err := os.ReadFile(filepath.Join("testdata", "axe.min.js"))
	if err != nil {
		t.Skip("axe is not here; scripts/test-deps.sh fetches it with npm")
	}
	f := newFleet(33, -1)
	proxy := func(o *serve.Options) {
		o.OperatorsFile = operatorsFile(t)
		o.ProxyUserHeader, o.TrustedProxies = "X-User", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	full, empty, down := &site{t: t}, &site{t: t}, &site{t: t}
	full.serve(f, proxy)
	empty.serve(&fleet{}, nil)
	down.serve(&fleet{err: errors.New("connection refused")}, nil)
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"X-User": "op"}})
		return err
	}))
	for _, url := range []string{full.url + "/", full.url + lockPath(f.states[7].Key), full.url + lockPath(f.states[9].Key), full.url + "/login", empty.url + "/", down.url + "/"} {
		for scheme, width := range map[string]int64{"light": 390, "dark": 1280} {
			b.look(width, 900, scheme)
			b.do(chromedp.Navigate(url))
			b.until("it is loaded", `document.readyState === "complete"`)
			b.eval(`document.querySelectorAll("details").forEach(d => { d.open = true }); document.getElementById("changed")?.removeAttribute("hidden"); 0`)
			if wide := b.eval("document.documentElement.scrollWidth > innerWidth"); wide != false {
				t.Errorf("%s is wider than %d", url, width)
			}
			b.eval(string(axe) + ";0")
			found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](`axe.run().then(r => r.violations
					.filter(v => v.impact === "serious" || v.impact === "critical" || v.impact === "moderate")
					.map(v => v.impact + " " + v.id + ": " + v.help + " " + v.nodes.slice(0, 3).map(n => n.html).join(" ")))`, chromedp.EvalAwaitPromise))
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range found {
				t.Errorf("%s, %s, %d px: %s", url, scheme, width, v)
			}
		}
	}
}
