package serve

import (
	"io"
	"net/http"

	"github.com/git-gitops/git-gitops/internal/lock/redisstore"
)

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
