// Package serve is the page: who holds, who waits, and what happened; for people, for scripts and
// for Prometheus.
//
// One reader of Redis serves all who look. The pages work without JavaScript; with it, a stream of
// server-sent events replaces the parts of a page that have changed.
package serve

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
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
