package serve

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"time"
)

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
