package serve

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

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
