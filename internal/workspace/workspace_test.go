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

// Our files have the modes of the repository's, as far as these say who may change it.
func TestModes(t *testing.T) {
	key := lock.Key{Repo: "example.org/r", Branch: "main"}
	for _, tc := range []struct{ common, folder, file fs.FileMode }{
		{0o700, 0o700, 0o600},
		{0o755, 0o700, 0o600}, // others may read the repository; no reason to show them tokens
		{0o775, 0o770, 0o660}, // umask 002
		{0o775 | fs.ModeSetgid, 0o770 | fs.ModeSetgid, 0o660}, // core.sharedRepository=group, or all
		{0o770 | fs.ModeSetgid, 0o770 | fs.ModeSetgid, 0o660}, // 0660
		{0o777, 0o777, 0o666},
	} {
		common := filepath.Join(t.TempDir(), "clone")
		if err := os.Mkdir(common, 0o700); err != nil {
			t.Fatal(err)
		}
		dir := workspace.At(common)
		remember := func() {
			t.Helper()
			for _, err := range []error{dir.Save(workspace.Entry{Key: key, Token: "t"}), dir.See(key.Repo, key.Branch, "1")} {
				if err != nil {
					t.Fatal(err)
				}
			}
			log, err := dir.OpenLog(true)
			if err != nil {
				t.Fatal(err)
			}
			_ = log.Close()
		}
		remember() // before it was shared
		if err := os.Chmod(common, tc.common); err != nil {
			t.Fatal(err)
		}
		remember()
		err := filepath.WalkDir(string(dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			want := tc.file
			if entry.IsDir() {
				want = tc.folder | fs.ModeDir
			}
			if err == nil && info.Mode() != want {
				t.Errorf("in %v: %s is %v, not %v", tc.common, filepath.Base(path), info.Mode(), want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// What cannot be understood is not nothing: it is neither found to be absent, nor changed, nor
// removed.
func TestState_damaged(t *testing.T) {
	dir := workspace.At(t.TempDir())
	e := workspace.Entry{Key: lock.Key{Repo: "example.org/r", Branch: "main"}, Token: "t"}
	if err := errors.Join(dir.Save(e), dir.See(e.Key.Repo, e.Key.Branch, "1")); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(string(dir), "*.json"))
	more, _ := filepath.Glob(filepath.Join(string(dir), "seen", "*"))
	for _, file := range append(files, more...) {
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, do := range map[string]func() error{
		"Load":   func() error { _, err := dir.Load(); return err },
		"Find":   func() error { _, _, err := dir.Find(e.Key); return err },
		"Seen":   func() error { _, _, err := dir.Seen(e.Key.Repo, e.Key.Branch); return err },
		"Update": func() error { return dir.Update(e, func(*workspace.Entry) {}) },
		"Remove": func() error { return dir.Remove(e) },
	} {
		var state *workspace.StateError
		if err := do(); !errors.As(err, &state) || state.Problem != workspace.Damaged {
			t.Errorf("%s: %v", name, err)
		}
	}
	if data, err := os.ReadFile(files[0]); err != nil || string(data) != "{" {
		t.Errorf("the file is %q, %v", data, err)
	}
}
