package serve_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/redistest"
	"github.com/git-gitops/git-gitops/internal/serve"
)

// site is a page with a Redis of its own.
type site struct {
	t     testing.TB
	redis *redistest.Server
	store *counting
	url   string
	stop  func()
	web   *http.Client
}

// counting counts how often the locks are read.
type counting struct {
	*redisstore.Store
	lists, reading, most atomic.Int64
}

func (c *counting) List(ctx context.Context) ([]lock.State, error) {
	c.lists.Add(1)
	c.most.Store(max(c.most.Load(), c.reading.Add(1)))
	defer c.reading.Add(-1)
	return c.Store.List(ctx)
}

func newSite(t testing.TB, change func(*serve.Options)) *site {
	t.Helper()
	s := &site{t: t, redis: redistest.Start(t)}
	s.store = &counting{Store: s.open()}
	s.serve(s.store, change)
	return s
}

// serve starts the server of a page.
func (s *site) serve(store serve.Store, change func(*serve.Options)) {
	t := s.t
	t.Helper()
	none := func(w io.Writer, _ []redisstore.Event) error { _, err := io.WriteString(w, "{}\n"); return err }
	o := serve.Options{
		Store:   store,
		Warn:    func(format string, args ...any) { t.Logf(format, args...) },
		Locks:   func(w io.Writer, l []lock.State) error { _, err := fmt.Fprintln(w, len(l)); return err },
		Events:  none,
		Stats:   none,
		Metrics: func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "up 1\n"); return err },
	}
	if change != nil {
		change(&o)
	}
	server, err := serve.New(o)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(ctx, listener)
	}()
	s.stop = func() { cancel(); <-ended }
	t.Cleanup(s.stop)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + listener.Addr().String() + o.BasePath
	s.web = &http.Client{Jar: jar, Timeout: time.Minute}
}

func (s *site) open() *redisstore.Store {
	store := redisstore.Open(redisstore.Options{Addrs: []string{s.redis.Addr()}, Events: 1000})
	s.t.Cleanup(func() { _ = store.Close() })
	return store
}

func key(branch string) lock.Key { return lock.Key{Repo: "example.com/org/app", Branch: branch} }

func record(user string) lock.Record {
	return lock.Record{User: user, Host: "runner", PID: 7, Command: "clone", Job: "deploy", RunURL: "https://ci.example.com/1"}
}

// hold takes a lock.
func (s *site) hold(k lock.Key, r lock.Record) *lock.Lease {
	s.t.Helper()
	lease, err := lock.Acquire(s.t.Context(), s.store, lock.Request{Key: k, Token: lock.NewToken(), Record: r, TTL: 5 * time.Minute}, 0, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return lease
}

// wait starts a waiter, which is in the queue when wait returns. granted waits until it has the
// lock.
func (s *site) wait(k lock.Key, r lock.Record) (granted func()) {
	s.t.Helper()
	store, queued, ended := s.open(), make(chan struct{}), make(chan struct{})
	request := lock.Request{Key: k, Token: lock.NewToken(), Record: r, TTL: 5 * time.Minute}
	var err error
	go func() {
		defer close(ended)
		inQueue := sync.OnceFunc(func() { close(queued) })
		_, err = lock.Acquire(s.t.Context(), store, request, 5*time.Minute, func(lock.Waiting) { inQueue() })
	}()
	s.t.Cleanup(func() { <-ended })
	select {
	case <-queued:
	case <-ended:
		s.t.Fatalf("%s did not have to wait: %v", r.User, err)
	}
	return func() {
		s.t.Helper()
		if <-ended; err != nil {
			s.t.Fatalf("%s waits: %v", r.User, err)
		}
	}
}

func (s *site) get(path string) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(req)
}

func (s *site) post(path string, form url.Values, headers ...string) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return s.do(req)
}

// do sends a request, and reads the answer.
func (s *site) do(req *http.Request) (int, string, http.Header) {
	s.t.Helper()
	r, err := s.web.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(body), r.Header
}

// until asks for a page until it shows the words.
func (s *site) until(path string, words ...string) string {
	s.t.Helper()
	var body string
	if !gittest.Reached(func() bool { _, body, _ = s.get(path); return containsAll(body, words) }) {
		s.t.Fatalf("%s never shows %q:\n%s", path, words, body)
	}
	return body
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func lockPath(k lock.Key) string { return "/lock?id=" + url.QueryEscape(k.ID()) }

// The list and the page of a lock show who holds, who waits and what happened, also without
// JavaScript.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	lease := s.hold(key("main"), record("alice"))
	bob := s.wait(key("main"), record("bob"))
	s.hold(key("prod"), record("carol"))
	body := s.until("/", "alice@runner", "bob@runner", "carol@runner", `href="https://ci.example.com/1"`, "<b>2</b> held", "<b>1</b> waiting")
	if strings.Contains(body, "<form method=\"post\"") {
		t.Error("a form to change something without operators")
	}
	body = s.until("/?q=prod", "carol@runner")
	if strings.Contains(body, "alice@runner") {
		t.Error("a search shows what it does not ask for")
	}
	s.until(lockPath(key("main")), "alice@runner", "bob@runner", "acquired", lease.Record.User)
	if code, body, _ := s.get("/lock?id=nothing"); code != http.StatusNotFound || !strings.Contains(body, "No such lock") {
		t.Errorf("%d: %s", code, body)
	}
	if _, err := lease.Release(t.Context(), s.store, time.Minute); err != nil {
		t.Fatal(err)
	}
	bob()
	s.until(lockPath(key("main")), "released", "acquired", `<p class="big"><span class="who">bob@runner`)

	if code, _, _ := s.get("/favicon.ico"); code != http.StatusNotFound {
		t.Errorf("a path that is not there: %d", code)
	}
	for path, want := range map[string]string{"/metrics": "up 1\n", "/healthz": "ok\n", "/api/v1/locks": "2\n", "/api/v1/events": "{}\n", "/api/v1/stats": "{}\n"} {
		if code, body, _ := s.get(path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	for _, path := range []string{"/", "/style.css", "/page.js", "/healthz"} {
		code, _, header := s.get(path)
		policy := header.Get("Content-Security-Policy")
		if code != http.StatusOK || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %q", path, code, policy)
		}
	}
}

// A lock that is free again stays in the list for a while, and is not among those for machines.
func TestPage_free(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	lease := s.hold(key("main"), record("alice"))
	s.until("/api/v1/locks", "1\n")
	if _, err := lease.Release(t.Context(), s.store, time.Minute); err != nil {
		t.Fatal(err)
	}
	s.until("/api/v1/locks", "0\n")
	s.until("/", "<b>0</b> held", "@main", ">free<")
}

// What others wrote into Redis is text on the page.
func TestPage_hostile(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	evil := `"><script>alert(1)</script><img src=x onerror=alert(1)>` + "\u202Egnp.exe\x00\x1b[2J" + strings.Repeat("A", 1<<18)
	r := lock.Record{User: evil, Host: evil, Command: evil, Purpose: evil, Job: evil, RunURL: "javascript:alert(1)"}
	k := lock.Key{Repo: "example.com/<script>alert(1)</script>", Branch: "main"}
	s.hold(k, r)
	s.wait(k, r)
	s.until("/", "&lt;script&gt;")
	for _, path := range []string{"/", lockPath(k), "/lock?id=%3Cscript%3Ealert(1)%3C/script%3E", "/?q=%22%3E%3Cscript%3Ealert(1)"} {
		_, body, _ := s.get(path)
		for _, bad := range []string{"<script>alert", "<img", "javascript:", "\u202E", "\x00", "\x1b"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s contains %q", path, bad)
			}
		}
		if len(body) > 200_000 {
			t.Errorf("%s has %d bytes", path, len(body))
		}
	}
}

// A stream tells what changes, and only that.
func TestStream(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := new(http.Client).Do(req) // no limit ends the stream
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<20)
	shown := map[string]string{} // what a browser has by now
	next := func(what string, reached func() bool) {
		t.Helper()
		for !reached() {
			if !lines.Scan() {
				t.Fatalf("the stream ended before: %s (%v)", what, lines.Err())
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var n struct {
				Order []string
				HTML  map[string]string
			}
			if err := json.Unmarshal([]byte(data), &n); err != nil {
				t.Fatal(err)
			}
			for id, html := range n.HTML {
				if shown[id] == html {
					t.Errorf("%s is sent twice", id)
				}
				shown[id] = html
			}
		}
	}
	all := func() (text string) {
		for _, html := range shown {
			text += html
		}
		return text
	}
	lease := s.hold(key("main"), record("alice"))
	next("a lock appears", func() bool { return strings.Contains(all(), "alice@runner") })
	bob := s.wait(key("main"), record("bob"))
	next("its queue grows", func() bool { return strings.Contains(all(), "bob@runner") })
	if _, err := lease.Release(t.Context(), s.store, time.Minute); err != nil {
		t.Fatal(err)
	}
	bob()
	next("it is handed over", func() bool {
		return strings.Contains(all(), `<span class="vh">held by </span><span class="who">bob@runner`)
	})
}

var csrf = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// Operators break a lock, the hold that they saw and no other; nobody else does.
func TestOperators(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(o *serve.Options) { o.OperatorsFile = operatorsFile(t); o.BasePath = "/locks" })
	lease := s.hold(key("main"), record("alice"))
	s.until(lockPath(key("main")), "alice@runner")
	form := url.Values{"id": {key("main").ID()}, "hold": {fmt.Sprint(lease.Fence())}, "reason": {"stuck"}}
	if code, _, _ := s.post("/lock/break", form); code != http.StatusForbidden {
		t.Errorf("without a login: %d", code)
	}
	for _, path := range []string{"/lock/freeze", "/lock/thaw"} {
		if code, _, _ := s.post(path, url.Values{"id": {key("main").ID()}, "for": {"1h"}}); code != http.StatusForbidden {
			t.Errorf("%s without a login: %d", path, code)
		}
	}
	if code, body, _ := s.post("/login", url.Values{"user": {"op"}, "password": {"wrong"}}); code != http.StatusUnauthorized || !strings.Contains(body, "wrong user or password") {
		t.Errorf("wrong password: %d", code)
	}
	if code, _, _ := s.post("/login", url.Values{"user": {"op"}, "password": {"pw"}}); code != http.StatusOK {
		t.Fatalf("login: %d", code)
	}
	base, err := url.Parse(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.web.Jar.Cookies(base)) != 1 {
		t.Fatal("no session")
	}
	body := s.until(lockPath(key("main")), "Break the lock", "op</span>")
	if code, _, _ := s.post("/lock/break", form); code != http.StatusForbidden {
		t.Errorf("without a token: %d", code)
	}
	form.Set("csrf", csrf.FindStringSubmatch(body)[1])
	for _, d := range []string{"", "-1h", "1000h", "soon"} {
		if code, _, _ := s.post("/lock/freeze", url.Values{"csrf": form["csrf"], "id": form["id"], "for": {d}}); code != http.StatusBadRequest {
			t.Errorf("a freeze for %q: %d", d, code)
		}
	}
	if _, body, _ := s.post("/lock/freeze", url.Values{"csrf": form["csrf"], "id": form["id"], "for": {"1h"}, "reason": {"release day"}}); !strings.Contains(body, "The lock is frozen") {
		t.Error(body)
	}
	s.until(lockPath(key("main")), ">frozen</span>", "by op@", "release day", "alice@runner")
	if _, body, _ := s.post("/lock/thaw", url.Values{"csrf": form["csrf"], "id": form["id"]}); !strings.Contains(body, "The lock is thawed") {
		t.Error(body)
	}
	s.until("/", "<b>1</b> held", `class="lock held"`)
	if code, _, _ := s.post("/lock/break", form, "Sec-Fetch-Site", "cross-site"); code != http.StatusForbidden {
		t.Errorf("from another site: %d", code)
	}
	if code, body, _ := s.post("/lock/break", form); code != http.StatusOK || !strings.Contains(body, "The lock is broken") {
		t.Errorf("%d: %s", code, body)
	}
	s.until(lockPath(key("main")), "broken", "by op@", "stuck")
	s.hold(key("main"), record("dora"))
	s.until(lockPath(key("main")), `<p class="big"><span class="who">dora@runner`)
	if _, body, _ := s.post("/lock/break", form); !strings.Contains(body, "That hold has ended already") {
		t.Errorf("a later hold is broken: %s", body)
	}

	for range 5 {
		s.post("/login", url.Values{"user": {"op"}, "password": {"wrong"}})
	}
	if code, _, _ := s.post("/login", url.Values{"user": {"op"}, "password": {"pw"}}); code != http.StatusTooManyRequests {
		t.Errorf("after five wrong passwords: %d", code)
	}
}

// operatorsFile names op, whose password is pw.
func operatorsFile(t testing.TB) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "operators")
	if err := os.WriteFile(file, []byte("# on duty\nop:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLogin_cookie(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(o *serve.Options) { o.OperatorsFile, o.Secure = operatorsFile(t), true })
	s.web.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	_, _, header := s.post("/login", url.Values{"user": {"op"}, "password": {"pw"}})
	cookie := header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "Secure", "SameSite=Strict"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("no %s in %q", want, cookie)
		}
	}
}

// A proxy's header counts from that proxy only.
func TestProxy(t *testing.T) {
	t.Parallel()
	if _, err := serve.New(serve.Options{ProxyUserHeader: "X-User"}); err == nil || !strings.Contains(err.Error(), "--trusted-proxy") {
		t.Errorf("a header without a proxy: %v", err)
	}
	for cidr, operator := range map[string]bool{"127.0.0.0/8": true, "192.0.2.0/24": false} {
		s := newSite(t, func(o *serve.Options) {
			o.ProxyUserHeader, o.TrustedProxies = "X-User", []netip.Prefix{netip.MustParsePrefix(cidr)}
		})
		lease := s.hold(key("main"), record("alice"))
		s.until("/", "alice@runner")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+lockPath(key("main")), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-User", "mallory")
		_, body, _ := s.do(req)
		if strings.Contains(body, "Break the lock") != operator {
			t.Errorf("trusting %s: operator is %v", cidr, !operator)
		}
		if strings.Contains(body, "Log out") {
			t.Error("who was named by a proxy can log out here")
		}
		form := url.Values{"id": {key("main").ID()}, "hold": {fmt.Sprint(lease.Fence())}}
		if code, _, _ := s.post("/lock/break", form, "X-User", "mallory"); code != http.StatusForbidden {
			t.Errorf("trusting %s, without a token: %d", cidr, code)
		}
		if !operator {
			continue
		}
		form.Set("csrf", csrf.FindStringSubmatch(body)[1])
		if code, _, _ := s.post("/lock/break", form, "X-User", "eve"); code != http.StatusForbidden {
			t.Errorf("with the token of another user: %d", code)
		}
		if _, body, _ := s.post("/lock/break", form, "X-User", "mallory"); !strings.Contains(body, "The lock is broken") {
			t.Error(body)
		}
		s.until(lockPath(key("main")), "by mallory@")
	}
}

// Behind a proxy that is trusted and that browsers reach by TLS, cookies are for TLS only; nobody
// else can say so.
func TestProxy_tls(t *testing.T) {
	t.Parallel()
	for cidr, want := range map[string]bool{"127.0.0.0/8": true, "192.0.2.0/24": false} {
		s := newSite(t, func(o *serve.Options) {
			o.OperatorsFile, o.TrustedProxies = operatorsFile(t), []netip.Prefix{netip.MustParsePrefix(cidr)}
		})
		s.web.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		_, _, header := s.post("/login", url.Values{"user": {"op"}, "password": {"pw"}}, "X-Forwarded-Proto", "https")
		if strings.Contains(header.Get("Set-Cookie"), "Secure") != want || (header.Get("Strict-Transport-Security") != "") != want {
			t.Errorf("trusting %s: %q", cidr, header)
		}
	}
}

// A client that sends much, or slowly, is cut off.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(o *serve.Options) { o.OperatorsFile = operatorsFile(t) })
	form := strings.NewReader("user=op&password=pw&more=" + strings.Repeat("x", 1<<20))
	if r, err := s.web.Post(s.url+"/login", "application/x-www-form-urlencoded", form); err == nil { // else it was cut off while we sent
		_ = r.Body.Close()
		if r.StatusCode != http.StatusUnauthorized {
			t.Errorf("a megabyte in a form: %d", r.StatusCode)
		}
	}
	if code, _, _ := s.post("/healthz", nil, "X-Long", strings.Repeat("x", 64<<10)); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB: %d", code)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil { // ends when the server closes it
		t.Log(err)
	}
}

func TestOperators_file(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"op": "line 1: want user:hash", "": "names no operator", "op:plain": "line 1", "\n# x\n:$2y$": "line 3"} {
		file := filepath.Join(t.TempDir(), "operators")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := serve.New(serve.Options{OperatorsFile: file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The page says that Redis is gone, shows what was known last, and reads it again when it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.hold(key("main"), record("alice"))
	s.until("/", "alice@runner")
	s.redis.Kill()
	s.until("/", "Redis has been unreachable since", "alice@runner")
	if code, _, _ := s.get("/api/v1/locks"); code != http.StatusServiceUnavailable {
		t.Errorf("the locks of a Redis that is gone: %d", code)
	}
	if err := s.redis.Resume(); err != nil {
		t.Fatal(err)
	}
	s.until("/", "<b>0</b> held")
}

// Many look, and one reads.
func TestMany(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for i := range 50 {
		s.hold(key(fmt.Sprintf("b%d", i)), record("alice"))
	}
	s.until("/", "<b>50</b> held")
	open := make([]*bufio.Reader, 200)
	for i := range open {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := new(http.Client).Do(req) // no limit ends the streams
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Body.Close() })
		open[i] = bufio.NewReader(r.Body)
		if line, err := open[i].ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
			t.Fatalf("%q: %v", line, err)
		}
	}
	before := s.store.lists.Load()
	s.hold(key("news"), record("bob"))
	for _, lines := range open {
		for line := ""; !strings.Contains(line, "bob@runner"); {
			var err error
			if line, err = lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(line, "alice@runner") {
				t.Fatal("what has not changed is sent again")
			}
		}
	}
	if n := s.store.lists.Load() - before; n > 100 {
		t.Errorf("%d readings for 200 streams", n)
	}
	if n := s.store.most.Load(); n != 1 {
		t.Errorf("%d read at the same time", n)
	}
}
