package lock_test

import (
	"encoding/json"
	"testing"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
)

// What clones and Redis have of a session is read, and written as it was: other versions read it
// too.
func TestRecord_stored(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{
		`{"host":"vm","pid":7,"command":"push"}`, // by a writer that says nothing of its session
		`{"host":"vm","session":{"host":"b@n"}}`, // of a workspace that nothing is above
		`{"host":"vm","session":{"host":"b@n","chain":[{"pid":4,"start":40,"name":"sh"}]}}`,
		`{"host":"vm","session":{"host":"b@n","owner":{"pid":3,"start":30,"name":"bash"},` +
			`"chain":[{"pid":4,"start":40,"name":"\u003csh\u003e"},{"pid":5,"start":50}],"heir":true}}`,
	} {
		var r lock.Record
		if err := json.Unmarshal([]byte(stored), &r); err != nil {
			t.Fatal(err)
		}
		written, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if string(written) != stored {
			t.Errorf("read %s\nwrote %s", stored, written)
		}
	}
	var r lock.Record
	if _, known := r.Session.Lowest(); known || r.Session.Owner != nil || r.Session.Stand(1) != session.Beside {
		t.Error("a session of which nothing is said is somebody's")
	}
}
