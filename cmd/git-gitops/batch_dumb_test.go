//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// davServer is as much of WebDAV (RFC 4918) as git-http-push asks for: the dumb protocol, of which
// git does not say that it cannot push atomically.
type davServer struct {
	root  string
	files http.Handler

	mu    sync.Mutex
	locks map[string]string // by path, its token
	n     int
}

func (s *davServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := filepath.Join(s.root, filepath.FromSlash(path.Clean(r.URL.Path)))
	if token, locked := s.locks[file]; locked && r.Method != "LOCK" && !strings.Contains(r.Header.Get("If")+r.Header.Get("Lock-Token"), token) &&
		r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != "PROPFIND" {
		rw.WriteHeader(http.StatusLocked)
		return
	}
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.files.ServeHTTP(rw, r)
		return
	case "PROPFIND":
		s.propfind(rw, r, file)
		return
	case "LOCK":
		s.lock(rw, r, file)
		return
	case "UNLOCK":
		delete(s.locks, file)
		rw.WriteHeader(http.StatusNoContent)
		return
	case "MKCOL":
		if os.Mkdir(file, 0o755) != nil {
			rw.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
	case http.MethodPut:
		var data []byte
		if data, err = io.ReadAll(r.Body); err == nil {
			err = os.WriteFile(file, data, 0o644)
		}
	case "MOVE":
		_, to, _ := strings.Cut(r.Header.Get("Destination"), r.Host)
		err = os.Rename(file, filepath.Join(s.root, filepath.FromSlash(path.Clean(to))))
	case http.MethodDelete:
		err = os.Remove(file)
	default:
		err = fmt.Errorf("no such method: %s", r.Method)
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusConflict)
		return
	}
	rw.WriteHeader(http.StatusCreated)
}

func (s *davServer) lock(rw http.ResponseWriter, r *http.Request, file string) {
	token, locked := s.locks[file]
	switch refresh := locked && strings.Contains(r.Header.Get("If"), token); {
	case locked && !refresh:
		rw.WriteHeader(http.StatusLocked)
		return
	case !locked:
		s.n++
		token = fmt.Sprintf("opaquelocktoken:%d", s.n)
		s.locks[file] = token
	}
	_, _ = fmt.Fprintf(rw, `<?xml version="1.0"?><D:prop xmlns:D="DAV:"><D:lockdiscovery><D:activelock><D:locktype><D:write/></D:locktype>`+
		`<D:lockscope><D:exclusive/></D:lockscope><D:depth>0</D:depth><D:owner><D:href>o</D:href></D:owner><D:timeout>Second-600</D:timeout>`+
		`<D:locktoken><D:href>%s</D:href></D:locktoken></D:activelock></D:lockdiscovery></D:prop>`, token)
}

func (s *davServer) propfind(rw http.ResponseWriter, r *http.Request, file string) {
	info, err := os.Stat(file)
	if err != nil {
		http.NotFound(rw, r)
		return
	}
	var b strings.Builder
	one := func(href string, folder bool) {
		kind := ""
		if folder {
			href, kind = strings.TrimSuffix(href, "/")+"/", "<D:collection/>"
		}
		fmt.Fprintf(&b, `<D:response><D:href>%s</D:href><D:propstat><D:prop><D:resourcetype>%s</D:resourcetype><D:supportedlock><D:lockentry>`+
			`<D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry></D:supportedlock></D:prop>`+
			`<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`, href, kind)
	}
	one(r.URL.Path, info.IsDir())
	if files, _ := os.ReadDir(file); r.Header.Get("Depth") != "0" {
		for _, f := range files {
			one(path.Join(r.URL.Path, f.Name()), f.IsDir())
		}
	}
	rw.Header().Set("Content-Type", "text/xml")
	rw.WriteHeader(http.StatusMultiStatus)
	_, _ = fmt.Fprintf(rw, `<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">%s</D:multistatus>`, &b)
}

// TestBatch_dumb: over the dumb protocol each push goes in its own turn, as without batches:
// nothing there is atomic, and git does not say so.
func TestBatch_dumb(t *testing.T) {
	t.Parallel()
	for name, dav := range map[string]bool{"WebDAV": true, "static files": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := batching(t)
			if _, err := os.Stat(filepath.Join(w.must(".", "git --exec-path"), "git-http-push")); err != nil {
				t.Skip("this git has no git-http-push")
			}
			files := http.FileServer(http.Dir(w.path("srv")))
			handler := files
			if dav {
				handler = &davServer{root: w.path("srv"), files: files, locks: map[string]string{}}
			}
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			w.must(bare, "git update-server-info")
			w.cloned(server.URL+"/org/repo.git", 4, ownFile)
			before := w.must(bare, "git rev-parse main")
			free := w.takeTurn()
			first := w.push(0)
			w.until("the first has tried, and the others need not", w.paused)
			all := []*process{first, w.push(1), w.push(2), w.push(3)}
			w.until("all wait", func() bool { return w.queued() == 4 })
			free()
			for i, p := range all {
				r := p.wait()
				if (r.code == 0) != dav {
					t.Errorf("pipeline %d: %s", i, r)
				}
				if n := strings.Count(r.ours(), "together"); n != 1 {
					t.Errorf("pipeline %d has %d lines about batches: %s", i, n, r)
				}
				if !dav { // as git ends without us
					wantCode(t, r, w.bash(fmt.Sprint("work", i), "git push -q origin main").code)
					w.with(fmt.Sprint("GITOPS_LOCK_NAME=svc", i)).must(fmt.Sprint("work", i), "git gitops unlock")
				}
			}
			if dav {
				w.wantOnce(4)
			} else if now := w.must(bare, "git rev-parse main"); now != before {
				t.Errorf("the branch has moved to %s", now)
			}
		})
	}
}
