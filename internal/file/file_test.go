package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := Replace(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path) //nolint:gosec // the test's own
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()
	if err := Replace(path, []byte("new"), 0o640, (*os.File).Sync); err != nil {
		t.Fatal(err)
	}
	was := make([]byte, 3)
	if _, err := old.Read(was); err != nil || string(was) != "old" {
		t.Errorf("who has the old one open reads %q, %v", was, err)
	}
	failed := errors.New("failed")
	if err := Replace(path, []byte("newer"), 0o600, func(*os.File) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the test's own
	if err != nil || string(text) != "new" {
		t.Errorf("got %q, %v", text, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o640 && runtime.GOOS != "windows" {
		t.Errorf("mode %v", mode)
	}
	if err := Replace(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if files, err := os.ReadDir(dir); len(files) != 1 || err != nil {
		t.Errorf("left behind: %v, %v", files, err)
	}
}
