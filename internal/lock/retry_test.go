package lock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// What has just failed is tried again after a pause; what has not been tried yet, at once.
func TestRetry(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		retry func(context.Context, time.Duration, func() bool) bool
		first bool // it begins with a try
	}{
		"Retry": {lock.Retry, true},
		"Again": {lock.Again, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var tries []time.Duration
				last := time.Now()
				done := tc.retry(t.Context(), time.Minute, func() bool {
					tries, last = append(tries, time.Since(last)), time.Now()
					return len(tries) == 3
				})
				if !done || len(tries) != 3 {
					t.Errorf("done: %v after %d tries", done, len(tries))
				}
				for i, pause := range tries {
					if at := i == 0 && tc.first; at != (pause == 0) {
						t.Errorf("pauses before the tries: %v", tries)
					}
				}
				started := time.Now()
				if tc.retry(t.Context(), time.Minute, func() bool { return false }) {
					t.Error("what was never done is reported as done")
				}
				if d := time.Since(started); d > time.Minute {
					t.Errorf("it was tried for %v", d)
				}
			})
		})
	}
}
