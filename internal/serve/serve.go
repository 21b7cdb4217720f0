// Package serve is the page: who holds, who waits, and what happened; for people, for scripts and
// for Prometheus.
//
// One reader of Redis serves all who look. The pages work without JavaScript; with it, a stream of
// server-sent events replaces the parts of a page that have changed.
package serve

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"html/template"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
	"github.com/git-gitops/git-gitops/internal/term"
)

// Store is what the page needs of the locks.
type Store interface {
	List(ctx context.Context) ([]lock.State, error)
	Now(ctx context.Context) (time.Time, error)
	Events(ctx context.Context, since time.Time) ([]redisstore.Event, error)
	Break(ctx context.Context, k lock.Key, holder lock.Token, by lock.Record, why string) (lock.ReleaseResult, error)
	Freeze(ctx context.Context, r lock.FreezeRequest) ([]lock.Frozen, error)
	Thaw(ctx context.Context, r lock.FreezeRequest) ([]lock.Frozen, error)
}

// Options are how the page is served. Store, and what prints for machines, are required.
type Options struct {
	Store    Store
	BasePath string // before every path, such as "/locks"; "" for none

	OperatorsFile   string         // users who may break locks, with hashes by bcrypt
	ProxyUserHeader string         // the header in which a proxy names the user
	TrustedProxies  []netip.Prefix // from which that header is believed
	Secure          bool           // browsers reach us by TLS

	// As the commands print them.
	Locks   func(io.Writer, []lock.State) error
	Events  func(io.Writer, []redisstore.Event) error
	Stats   func(io.Writer, []redisstore.Event) error
	Metrics func(context.Context, io.Writer) error

	By   lock.Record                      // who breaks, freezes and thaws a lock, but for the operator's name
	Warn func(format string, args ...any) // for the server's log
}

// Sizes and times of the HTTP server.
const (
	headerTime  = 5 * time.Second
	requestTime = 30 * time.Second
	idleTime    = 2 * time.Minute
	mostHeader  = 32 << 10
	mostBody    = 16 << 10
	heartbeat   = 15 * time.Second // of a stream with no news
	mostStreams = 1000
	metricsType = "text/plain; version=0.0.4; charset=utf-8"
)

//go:embed assets
var assets embed.FS

// Server is the page.
type Server struct {
	o       Options
	hub     *hub
	shown   renderings
	who     *operators
	pages   *template.Template
	streams chan struct{}
	ended   <-chan struct{}
}

// New makes a server; an error is one of the options.
func New(o Options) (*Server, error) {
	o.BasePath = strings.TrimSuffix(o.BasePath, "/")
	if o.BasePath != "" && !strings.HasPrefix(o.BasePath, "/") {
		return nil, fmt.Errorf("--base-path %s does not begin with a slash", o.BasePath)
	}
	who, err := newOperators(o.OperatorsFile, o.ProxyUserHeader, o.TrustedProxies)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, hub: newHub(o.Store, o.Warn), who: who, streams: make(chan struct{}, mostStreams)}
	s.pages, err = template.New("").Funcs(template.FuncMap{
		"base":  func() string { return o.BasePath },
		"lock":  func(id string) string { return o.BasePath + "/lock?id=" + url.QueryEscape(id) },
		"ago":   age,
		"unix":  func(t time.Time) int64 { return t.Unix() },
		"left":  func(now time.Time, w waiterView) string { return w.left(now, "about ") },
		"brief": func(now time.Time, w waiterView) string { return w.left(now, "~") },
		"dict":  func(k1 string, v1 any, k2 string, v2 any) map[string]any { return map[string]any{k1: v1, k2: v2} },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(assets, "assets/*.html")
	if err != nil {
		return nil, fmt.Errorf("parse the pages: %w", err)
	}
	return s, nil
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.ended = ctx.Done()
	go s.hub.run(ctx)
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: mostHeader, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	var failed error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failed = server.Serve(l)
	}()
	select {
	case <-ended:
		return fmt.Errorf("serve the page: %w", failed)
	case <-ctx.Done():
		_ = server.Close() // nothing is lost with a page that is cut
		<-ended
		return ctx.Err()
	}
}

// Handler is all paths, below the base path.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.listPage)
	mux.HandleFunc("GET /lock", s.lockPage)
	mux.HandleFunc("GET /events", s.stream)
	mux.HandleFunc("GET /api/v1/locks", s.apiLocks)
	mux.HandleFunc("GET /api/v1/events", s.apiEvents(s.o.Events))
	mux.HandleFunc("GET /api/v1/stats", s.apiEvents(s.o.Stats))
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", metricsType)
		_ = s.o.Metrics(r.Context(), w) // that Redis is down is one of the metrics
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("POST /lock/break", s.breakLock)
	mux.HandleFunc("POST /lock/freeze", s.freezeLock)
	mux.HandleFunc("POST /lock/thaw", s.thawLock)
	mux.HandleFunc("GET /login", s.loginPage)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	files, _ := fs.Sub(assets, "assets") // is there: it is embedded
	mux.Handle("GET /style.css", http.FileServerFS(files))
	mux.Handle("GET /page.js", http.FileServerFS(files))
	mux.Handle("GET /icon.svg", http.FileServerFS(files))

	guarded := http.NewCrossOriginProtection().Handler(http.StripPrefix(s.o.BasePath, mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
			"img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if s.o.Secure || s.who.secure(r) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, mostBody)
		if s.o.BasePath != "" && r.URL.Path == s.o.BasePath {
			http.Redirect(w, r, s.o.BasePath+"/", http.StatusMovedPermanently)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// part is a piece of a page that is replaced when it changes.
type part struct {
	ID   string
	HTML template.HTML
	sum  uint64
}

func newPart(id string, html template.HTML) part {
	sum := fnv.New64a()
	_, _ = io.WriteString(sum, string(html))
	return part{id, html, sum.Sum64()}
}

// frame is what stands around the parts of a page.
type frame struct {
	Title     string
	Kind      string // list or one
	Query     string
	ID        string // of the lock, for a page of one
	Lock      lockView
	Stream    string // of what changes on it
	Summary   part
	Parts     []part
	Now       time.Time
	Empty     string // what the list says when it is empty
	User      string // the operator who looks; "": none
	Session   bool   // by our own login
	CSRF      string
	Operators bool // somebody may log in
	HoldID    string
	Holder    string
	Notice    string
}

// summary is the head of every page.
type summary struct {
	Held, Waiting int
	Failed        time.Time // zero: Redis can be read
	Read          time.Time // zero: never yet
}

func (s *Server) render(name string, data any) (template.HTML, error) {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return template.HTML(b.String()), nil //nolint:gosec // a template has escaped it
}

// summary is the head of every page. now is the zero time for a stream, here and below: the page's
// script fills the ages in.
func (s *Server) summary(snap *snapshot, now time.Time) (part, error) {
	v := summary{Failed: snap.failed, Read: snap.at}
	for _, l := range snap.locks {
		if l.Holder != nil {
			v.Held++
		}
		v.Waiting += len(l.Waiters)
	}
	html, err := s.render("summary", map[string]any{"S": v, "Now": now, "Empty": snap.empty()})
	return newPart("summary", html), err
}

// empty is what a list without locks says.
func (s *snapshot) empty() string {
	if s.at.IsZero() {
		return "No data yet."
	}
	return "No lock is held, and nobody waits."
}

// row is a lock in the list.
func (s *Server) row(l *lockState, now time.Time) (part, error) {
	v := newLock(l, time.Now(), stripSpan)
	if v.More = len(v.Waiters) - shownQueue; v.More > 0 {
		v.Waiters = v.Waiters[:shownQueue]
	}
	html, err := s.render("row", map[string]any{"L": v, "Now": now})
	return newPart(v.Part, html), err
}

// list is the rows of the locks with a text in their names: those of the streams, with their times.
func (s *Server) list(snap *snapshot, query string, now time.Time) ([]part, error) {
	all, err := s.parts(snap, "")
	if err != nil {
		return nil, err
	}
	var parts []part
	for i, l := range snap.locks {
		if strings.Contains(l.Key.String(), query) {
			row := all[1+i]
			row.HTML = fill(row.HTML, now)
			parts = append(parts, row)
		}
	}
	return parts, nil
}

// fill writes into a row for streams what changes with time alone, as the templates would have:
// 1,000 rows are a page in some milliseconds then.
func fill(row template.HTML, now time.Time) template.HTML {
	const strips = `<svg class="strip"`
	var b strings.Builder
	for rest := string(row); rest != ""; {
		tag, after, _ := strings.Cut(rest, ">")
		rest = after
		start := max(0, strings.LastIndexByte(tag, '<'))
		text, name := tag[:start], tag[start:]
		b.WriteString(text)
		if more, ok := strings.CutPrefix(name, strips); ok {
			view := strip{Base: number(name, "data-base"), Span: number(name, "data-span")}.View(now)
			name = strips + ` viewBox="` + view + `"` + more
		}
		b.WriteString(name + ">")
		if !strings.HasPrefix(name, "<time ") {
			continue
		}
		if since := number(name, "data-since"); since != 0 {
			b.WriteString(age(now, time.Unix(since, 0)))
		} else if turn := number(name, "data-turn"); turn != 0 {
			b.WriteString(waiterView{Turn: time.Unix(turn, 0), Least: int(number(name, "data-least"))}.left(now, "~"))
		}
	}
	return template.HTML(b.String()) //nolint:gosec // a template has escaped the row, and what is added are times
}

// number is an attribute of a tag; 0 when it has none.
func number(tag, name string) int64 {
	_, value, _ := strings.Cut(tag, name+`="`)
	value, _, _ = strings.Cut(value, `"`)
	n, _ := strconv.ParseInt(value, 10, 64)
	return n
}

// age is for how long something has lasted.
func age(now, since time.Time) string {
	return term.Duration(time.Duration(max(0, now.Unix()-since.Unix())) * time.Second)
}

// one is the parts of the page of a lock.
func (s *Server) one(snap *snapshot, id string, now time.Time) ([]part, error) {
	l := snap.byID[id]
	if l == nil {
		l = &lockState{State: lock.State{Key: lock.ParseID(id)}, events: snap.events[id]}
	}
	v := newLock(l, time.Now(), history)
	if v.More = len(v.Waiters) - shownPlaces; v.More > 0 {
		v.Waiters = v.Waiters[:shownPlaces]
	}
	data := map[string]any{
		"L": v, "Now": now, "Lanes": newLanes(v.Strip), "Charts": newCharts(l.events), "Events": newEvents(l.events),
		"Holds": min(estimated, holdsOf(l.events)),
	}
	var parts []part
	for _, name := range []string{"holder", "queue", "lanes", "charts", "history"} {
		html, err := s.render(name, data)
		if err != nil {
			return nil, err
		}
		parts = append(parts, newPart(name, html))
	}
	return parts, nil
}

// renderings are the parts that streams send, made once for each snapshot however many follow.
type renderings struct {
	mu    sync.Mutex
	snap  *snapshot
	rows  map[*lockState]part // of the list, also of the last snapshot
	pages map[string][]part   // the summary and what the page shows, by the ID of its lock; "": the list
}

func (s *Server) parts(snap *snapshot, id string) ([]part, error) {
	r := &s.shown
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.snap != snap {
		r.snap, r.pages = snap, map[string][]part{}
	}
	if parts, ok := r.pages[id]; ok {
		return parts, nil
	}
	head, err := s.summary(snap, time.Time{})
	if err != nil {
		return nil, err
	}
	parts := []part{head}
	if id != "" {
		more, err := s.one(snap, id, time.Time{})
		if err != nil {
			return nil, err
		}
		parts = append(parts, more...)
	} else {
		rows := map[*lockState]part{}
		for _, l := range snap.locks {
			p, ok := r.rows[l]
			if !ok {
				if p, err = s.row(l, time.Time{}); err != nil {
					return nil, err
				}
			}
			rows[l] = p
			parts = append(parts, p)
		}
		r.rows = rows
	}
	r.pages[id] = parts
	return parts, nil
}

func holdsOf(events []redisstore.Event) int {
	n := 0
	for _, e := range events {
		if e.Type.EndsHold() {
			n++
		}
	}
	return n
}

func (s *Server) listPage(w http.ResponseWriter, r *http.Request) {
	snap := s.hub.look(r.Context())
	now := time.Now()
	f := frame{
		Title: "Locks", Kind: "list", Query: r.URL.Query().Get("q"),
		Stream: s.o.BasePath + "/events", // of every lock: the page's script finds those that are looked for
	}
	f.Empty = snap.empty()
	if f.Query != "" && len(snap.locks) > 0 {
		f.Empty = fmt.Sprintf("No lock has “%s” in its name.", term.Clean(f.Query))
	}
	var err error
	f.Parts, err = s.list(snap, f.Query, now)
	s.page(w, r, http.StatusOK, snap, f, now, err)
}

func (s *Server) lockPage(w http.ResponseWriter, r *http.Request) {
	snap := s.hub.look(r.Context())
	now := time.Now()
	id := r.URL.Query().Get("id")
	f := frame{Title: term.Clean(lock.ParseID(id).String()), Kind: "one", ID: id, Stream: s.o.BasePath + "/events?id=" + url.QueryEscape(id)}
	code := http.StatusOK
	l := snap.byID[id]
	switch {
	case l != nil && l.Holder != nil:
		f.HoldID, f.Holder = l.Holder.ID(), "a script that uses SET NX itself"
		if l.Holder.Known {
			f.Holder = person(l.Holder.Record)
		}
	case l == nil && len(snap.events[id]) == 0 && snap.err == nil:
		code, f.Notice = http.StatusNotFound, "No such lock is held, waited for or remembered."
	}
	f.Lock = newLock(&lockState{State: lock.State{Key: lock.ParseID(id)}}, now, history)
	var err error
	f.Parts, err = s.one(snap, id, now)
	s.page(w, r, code, snap, f, now, err)
}

// page answers with a frame whose parts were made.
func (s *Server) page(w http.ResponseWriter, r *http.Request, code int, snap *snapshot, f frame, now time.Time, err error) {
	if err == nil {
		f.Summary, err = s.summary(snap, now)
	}
	if err != nil {
		http.Error(w, "cannot render the page", http.StatusInternalServerError)
		return
	}
	f.Operators = s.who.some()
	if user, bound := s.who.user(r); user != "" {
		f.User, f.CSRF, f.Session = term.Clean(user), s.who.token(bound), strings.HasPrefix(bound, "session ")
	}
	if text, ok := notices[r.URL.Query().Get("done")]; ok {
		f.Notice = text
	}
	s.write(w, code, "page", f)
}

var notices = map[string]string{
	"broken": "The lock is broken. The next push of its former holder fails and says who broke it.",
	"over":   "That hold has ended already: nothing was broken.",
	"frozen": "The lock is frozen: nobody gets it until then.",
	"thawed": "The lock is thawed.",
	"failed": "Redis did not answer: check whether anything was done.",
}

func (s *Server) write(w http.ResponseWriter, code int, name string, data any) {
	html, err := s.render(name, data)
	if err != nil {
		http.Error(w, "cannot render the page", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, string(html))
}

// news is one message of a stream: the HTML of the parts that have changed.
type news struct {
	Order []string          `json:"order"` // null when it has not changed
	HTML  map[string]string `json:"html"`
	Now   int64             `json:"now"` // the server's clock, in seconds
}

// stream sends what changes on a page.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, "too many streams", http.StatusServiceUnavailable)
		return
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	_ = control.SetReadDeadline(time.Time{})

	changed, stop := s.hub.follow()
	defer stop()
	sent := map[string]uint64{}
	var last *snapshot
	for quiet := false; ; {
		var text []byte
		if quiet {
			text = []byte(": still here\n\n")
		}
		if snap := s.hub.look(r.Context()); snap != last {
			last = snap
			update, err := s.update(snap, r.URL.Query().Get("id"), sent)
			if err != nil {
				return
			}
			if update != nil {
				text = slices.Concat([]byte("data: "), update, []byte("\n\n"))
			}
		}
		if text != nil {
			_ = control.SetWriteDeadline(time.Now().Add(requestTime))
			if _, err := w.Write(text); err != nil || control.Flush() != nil { //nolint:gosec // JSON, of HTML that a template has escaped
				return
			}
		}
		select {
		case <-changed:
			quiet = false
		case <-time.After(heartbeat):
			quiet = true
		case <-r.Context().Done():
			return
		}
	}
}

// update is the news since the last one; nil when there is none.
func (s *Server) update(snap *snapshot, id string, sent map[string]uint64) ([]byte, error) {
	all, err := s.parts(snap, id)
	if err != nil {
		return nil, err
	}
	n := news{HTML: map[string]string{}, Now: time.Now().Unix()}
	order := fnv.New64a()
	for _, p := range all {
		if sent[p.ID] != p.sum {
			n.HTML[p.ID] = string(p.HTML)
			sent[p.ID] = p.sum
		}
		_, _ = io.WriteString(order, p.ID)
	}
	if sum := order.Sum64(); sent[""] != sum {
		clear(sent) // also of what is not there any more
		sent[""] = sum
		n.Order = make([]string, 0, len(all))
		for _, p := range all {
			sent[p.ID] = p.sum
			if p.ID != "summary" {
				n.Order = append(n.Order, p.ID)
			}
		}
	} else if len(n.HTML) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return text, nil
}

func (s *Server) apiLocks(w http.ResponseWriter, r *http.Request) {
	snap := s.hub.look(r.Context())
	if snap.err != nil {
		http.Error(w, "Redis cannot be read", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	_ = s.o.Locks(w, snap.states)
}

func (s *Server) apiEvents(print func(io.Writer, []redisstore.Event) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		snap := s.hub.look(r.Context())
		if snap.err != nil {
			http.Error(w, "Redis cannot be read", http.StatusServiceUnavailable)
			return
		}
		var all []redisstore.Event
		for _, events := range snap.events {
			all = append(all, events...)
		}
		sortEvents(all)
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = print(w, all)
	}
}

// breakLock ends the hold that the operator has seen, and no later one.
func (s *Server) breakLock(w http.ResponseWriter, r *http.Request) {
	user, ok := s.who.may(r)
	if !ok {
		http.Error(w, "log in as an operator, and use the form on the page of the lock", http.StatusForbidden)
		return
	}
	id, hold := r.PostFormValue("id"), r.PostFormValue("hold")
	done := "over"
	if l := s.hub.look(r.Context()).byID[id]; l != nil && l.Holder != nil && l.Holder.ID() == hold {
		by := s.o.By
		by.User = term.Clean(user)
		result, err := s.o.Store.Break(r.Context(), l.Key, l.Holder.Token, by, term.Clean(r.PostFormValue("reason")))
		switch {
		case err != nil:
			done = "failed"
		case result != lock.NotHeld:
			done = "broken"
		}
	}
	http.Redirect(w, r, s.o.BasePath+"/lock?id="+url.QueryEscape(id)+"&done="+done, http.StatusSeeOther)
}

// mostFrozen is the longest freeze that the page makes: one that is forgotten ends.
const mostFrozen = 7 * 24 * time.Hour

// freezeLock has nobody granted a lock, nor the narrower ones in its branch, for a time.
func (s *Server) freezeLock(w http.ResponseWriter, r *http.Request) {
	user, ok := s.who.may(r)
	if !ok {
		http.Error(w, "log in as an operator, and use the form on the page of the lock", http.StatusForbidden)
		return
	}
	d, err := time.ParseDuration(r.PostFormValue("for"))
	if err != nil || d <= 0 || d > mostFrozen {
		http.Error(w, "say for how long, at most a week", http.StatusBadRequest)
		return
	}
	id, done := r.PostFormValue("id"), "frozen"
	by := s.o.By
	by.User, by.Purpose = term.Clean(user), "frozen" // clients that know no freeze take it for a holder
	_, err = s.o.Store.Freeze(r.Context(), lock.FreezeRequest{Key: lock.ParseID(id), For: d, By: by, Reason: term.Clean(r.PostFormValue("reason"))})
	if err != nil {
		done = "failed"
	}
	http.Redirect(w, r, s.o.BasePath+"/lock?id="+url.QueryEscape(id)+"&done="+done, http.StatusSeeOther)
}

// thawLock ends the freeze of a lock, and of what was frozen with it.
func (s *Server) thawLock(w http.ResponseWriter, r *http.Request) {
	user, ok := s.who.may(r)
	if !ok {
		http.Error(w, "log in as an operator, and use the form on the page of the lock", http.StatusForbidden)
		return
	}
	id, done := r.PostFormValue("id"), "thawed"
	k := lock.ParseID(id)
	if l := s.hub.look(r.Context()).byID[id]; l != nil {
		switch l.Freeze.Scope {
		case lock.ItsBranch:
			k.Name = ""
		case lock.WholeRemote:
			k = k.WholeRepo()
		}
	}
	by := s.o.By
	by.User = term.Clean(user)
	if _, err := s.o.Store.Thaw(r.Context(), lock.FreezeRequest{Key: k, By: by}); err != nil {
		done = "failed"
	}
	http.Redirect(w, r, s.o.BasePath+"/lock?id="+url.QueryEscape(id)+"&done="+done, http.StatusSeeOther)
}

func (s *Server) loginPage(w http.ResponseWriter, _ *http.Request) {
	s.write(w, http.StatusOK, "login", map[string]any{"Wrong": ""})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	addr, _, _ := net.SplitHostPort(r.RemoteAddr)
	session, err := s.who.login(r.Context(), r.PostFormValue("user"), r.PostFormValue("password"), addr)
	if err != nil {
		code := http.StatusUnauthorized
		if errors.Is(err, errTooMany) {
			code = http.StatusTooManyRequests
		}
		s.write(w, code, "login", map[string]any{"Wrong": err.Error()})
		return
	}
	http.SetCookie(w, s.cookie(r, session, int(sessionLife/time.Second)))
	http.Redirect(w, r, s.o.BasePath+"/", http.StatusSeeOther)
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.who.may(r); ok {
		s.who.logout(r)
		http.SetCookie(w, s.cookie(r, "", -1))
	}
	http.Redirect(w, r, s.o.BasePath+"/", http.StatusSeeOther)
}

func (s *Server) cookie(r *http.Request, value string, age int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure, if browsers reach us by TLS
		Name: cookieName, Value: value, Path: s.o.BasePath + "/", MaxAge: age,
		HttpOnly: true, Secure: s.o.Secure || s.who.secure(r), SameSite: http.SameSiteStrictMode,
	}
}
