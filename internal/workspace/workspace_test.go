package workspace_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/workspace"
)

// A keeper notes things in an entry while the script deletes the clone: rm never fails, and nothing
// comes back.
func TestUpdate_whileDeleted(t *testing.T) {
	root := t.TempDir()
	for range 50 {
		common := filepath.Join(root, "clone")
		dir := workspace.At(common)
		e := workspace.Entry{Kind: workspace.Clone, Key: lock.Key{Repo: "example.org/r", Branch: "main"}, Token: "t"}
		if err := dir.Save(e); err != nil {
			t.Fatal(err)
		}
		done, started := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for i := range 50 {
				if err := dir.Update(e, func(e *workspace.Entry) { e.Broken = !e.Broken }); err != nil {
					t.Errorf("update: %v", err)
				}
				if i == 0 {
					close(started)
				}
			}
		}()
		<-started
		if out, err := exec.CommandContext(t.Context(), "rm", "-rf", common).CombinedOutput(); err != nil {
			t.Errorf("rm: %v: %s", err, out)
		}
		<-done
		if _, err := os.Stat(common); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the clone is there again: %v", err)
		}
	}
}

// Whoever reads an entry while it is changed sees it before or after, whole; longer and shorter.
func TestUpdate_whileRead(t *testing.T) {
	dir := workspace.At(t.TempDir())
	e := workspace.Entry{Kind: workspace.Clone, Key: lock.Key{Repo: "example.org/r", Branch: "main"}, Token: "t"}
	if err := dir.Save(e); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("because ", 2000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			err := dir.Update(e, func(e *workspace.Entry) { e.Lost = long[:len(long)*(i%2)] })
			if err != nil {
				t.Errorf("update: %v", err)
			}
		}
	}()
	for {
		now, ok, err := dir.Find(e.Key)
		if err != nil || !ok || now.Lost != "" && now.Lost != long {
			t.Fatalf("found %v, %v, a note of %d bytes", ok, err, len(now.Lost))
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
