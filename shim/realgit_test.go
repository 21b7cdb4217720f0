package shim

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestRealGit(t *testing.T) {
	root := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil { //nolint:gosec // must be executable
			t.Fatal(err)
		}
		return path
	}
	self := file("bin/git-gitops", 0o700)
	link := func(name string, make func(string, string) error) string {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := make(self, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hard := link("hard/"+LinkName, os.Link)
	real1 := file("real1/"+LinkName, 0o700)
	real2 := file("real2/"+LinkName, 0o700)
	file("empty/other", 0o700)
	if err := os.MkdirAll(filepath.Join(root, "folder", LinkName), 0o700); err != nil {
		t.Fatal(err)
	}
	symlinks := runtime.GOOS != "windows"
	if symlinks {
		link("soft/"+LinkName, os.Symlink)
		file("plain/"+LinkName, 0o600)
		if err := os.MkdirAll(filepath.Join(root, "second"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file("other/git-gitops", 0o700), filepath.Join(root, "second", LinkName)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("real1", filepath.Join(root, "dirlink")); err != nil {
			t.Fatal(err)
		}
	}
	pathEnv := func(dirs string) string {
		var list []string
		for _, dir := range strings.Fields(dirs) {
			if dir != "." && dir != "''" {
				dir = filepath.Join(root, dir)
			}
			list = append(list, strings.Trim(dir, "'"))
		}
		return strings.Join(list, string(os.PathListSeparator))
	}
	t.Chdir(filepath.Join(root, "real2"))

	for _, tt := range []struct {
		name, path, override, self string
		want                       string
		err                        error
	}{
		{name: "first", path: "real1 real2", want: real1},
		{name: "skips folders without it", path: "missing empty folder real2", want: real2},
		{name: "skips our hard link", path: "hard real1", want: real1},
		{name: "skips relative folders", path: "'' . real1", want: real1},
		{name: "none but relative ones", path: "'' .", err: ErrNotFound},
		{name: "only ourselves", path: "hard", err: ErrNotFound},
		{name: "empty", path: "", err: ErrNotFound},
		{name: "override", path: "real1", override: real2, want: real2},
		{name: "relative override", path: "real1", override: LinkName, want: real2},
		{name: "override is ourselves", path: "real1", override: hard, err: ErrIsSelf},
		{name: "override is missing", path: "real1", override: filepath.Join(root, "nothing"), err: ErrNotFound},
		{name: "override is a folder", path: "real1", override: root, err: ErrNotExecutable},
		{name: "we are gone", path: "real1", self: filepath.Join(root, "nothing"), err: os.ErrNotExist},
		{name: "unix: skips our symlink", path: "soft real2", want: real2},
		{name: "unix: skips another installation", path: "second real2", want: real2},
		{name: "unix: override is another installation", override: filepath.Join(root, "second", LinkName), err: ErrIsSelf},
		{name: "unix: skips what can't be run", path: "plain real2", want: real2},
		{name: "unix: a linked folder keeps its name", path: "dirlink", want: filepath.Join(root, "dirlink", LinkName)},
		{name: "unix: we through a link", path: "hard soft real1", self: filepath.Join(root, "soft", LinkName), want: real1},
		{name: "unix: override can't be run", override: filepath.Join(root, "plain", LinkName), err: ErrNotExecutable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.HasPrefix(tt.name, "unix:") && !symlinks {
				t.Skip("needs symlinks and modes")
			}
			if tt.self == "" {
				tt.self = self
			}
			got, err := RealGit(pathEnv(tt.path), tt.override, tt.self)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Fatalf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
			var none *NoGitError
			if err != nil && (!errors.As(err, &none) || none.Override != tt.override) {
				t.Errorf("error is %#v", err)
			}
		})
	}
}
