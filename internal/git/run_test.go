//go:build unix

package git

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/git-gitops/git-gitops/internal/process"
)

// TestRunCapturing: what git says passes through to stderr unchanged, its end is returned, and so
// is how git ended.
func TestRunCapturing(t *testing.T) {
	g, dir, _ := repository(t)
	for _, tc := range []struct {
		script string
		want   process.Exit
		said   string // all of it
	}{
		{"echo one >&2; printf two >&2", process.Exit{}, "one\ntwo"},
		{"echo no >&2; exit 3", process.Exit{Code: 3}, "no\n"},
		{"yes | head -c 100000 >&2; echo end >&2", process.Exit{}, strings.Repeat("y\n", 50000) + "end\n"},
		{"sleep 5 & echo on >&2", process.Exit{}, "on\n"}, // what stays behind does not hold us
		{"kill -9 $PPID", process.Exit{Code: 137, Signal: syscall.SIGKILL}, ""},
	} {
		stderr, err := os.Create(filepath.Join(dir, "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		saved := os.Stderr
		os.Stderr = stderr
		exit, said, err := g.RunCapturing("-c", "alias.x=!f() { "+tc.script+"\n}; f", "x")
		os.Stderr = saved
		_ = stderr.Close()
		if err != nil || exit != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", tc.script, exit, err, tc.want)
		}
		if said != tc.said[max(0, len(tc.said)-16<<10):] {
			t.Errorf("%s: said %d bytes, the end of which is %q", tc.script, len(said), said[max(0, len(said)-20):])
		}
		if passed, err := os.ReadFile(stderr.Name()); err != nil || string(passed) != tc.said {
			t.Errorf("%s: %d bytes passed through, %v", tc.script, len(passed), err)
		}
	}
	if _, err := (Git{Path: "/no/such/git"}).Run("version"); err == nil {
		t.Error("no error without git")
	}
}
