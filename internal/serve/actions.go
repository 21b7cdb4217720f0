package serve

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

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
