package upgrade_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/upgrade"
)

func TestKnown(t *testing.T) {
	for version, want := range map[string]bool{
		"1.2.3": true, "v1.2.3": true, "1.2.3-rc.1": true, "0.0.1-snapshot": true,
		"": false, "(devel)": false, "1.2": false, "1234567": false, "3833f9c": false, "3833f9c-dirty": false,
		"1.2.3-4-g3833f9c": false, "1.2.3-4-g3833f9c-dirty": false, "1.2.3-dirty": false, "1.2.3+dirty": false,
		"v0.0.0-20261122235631-3833f9c6f0a1": false, "v1.2.4-0.20261122235631-3833f9c6f0a1": false,
		"../1.2.3": false, "1.2.3/x": false, "1.2.3 ": false, "vv1.2.3": false,
	} {
		got, ok := upgrade.Known(version)
		if ok != want || ok && got != strings.TrimPrefix(version, "v") {
			t.Errorf("Known(%q) = %q, %v", version, got, ok)
		}
	}
}

func TestNewer(t *testing.T) {
	order := []string{"0.9.0", "1.0.0-rc.1", "1.0.0-rc.2", "v1.0.0", "1.0.9", "1.0.10"}
	for i, a := range order {
		for j, b := range order {
			if got, want := upgrade.Newer(a, b), i > j; got != want {
				t.Errorf("Newer(%q, %q) = %v", a, b, got)
			}
		}
	}
}

// serve serves one archive as the release 1.0.0.
func serve(t *testing.T, p upgrade.Platform, extension string, archive []byte) (*upgrade.Source, upgrade.Release) {
	t.Helper()
	name := "git-gitops_1.0.0_" + p.OS + "_" + p.Arch + extension
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sub/latest/download/checksums.txt":
			_, _ = fmt.Fprintf(w, "%X *%s\n", sha256.Sum256(archive), name)
		case "/sub/download/v1.0.0/" + name:
			_, _ = w.Write(archive)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s, err := upgrade.From(server.URL+"/sub/", "test")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Find(t.Context(), "", p)
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

type member struct {
	name, content string
	kind          byte
}

func tarOf(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	w := tar.NewWriter(zipped)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o755, Size: int64(len(m.content)), Typeflag: m.kind}
		if m.kind == tar.TypeSymlink {
			h.Size, h.Linkname = 0, m.content
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(m.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Of an archive, only the program counts: a regular file, by its whole name.
func TestSource_Program_members(t *testing.T) {
	linux := upgrade.Platform{OS: "linux", Arch: "amd64"}
	program := member{"git-gitops", "program", tar.TypeReg}
	for name, test := range map[string]struct {
		archive []byte
		want    string
	}{
		"others before and after": {tarOf(t, member{"README.md", "x", tar.TypeReg}, program, member{"z", "x", tar.TypeReg}), "program"},
		"names that leave":        {tarOf(t, member{"../git-gitops", "evil", tar.TypeReg}, member{"/git-gitops", "evil", tar.TypeReg}, program), "program"},
		"a link of that name":     {tarOf(t, member{"git-gitops", "/etc/passwd", tar.TypeSymlink}), ""},
		"a folder of that name":   {tarOf(t, member{"git-gitops", "", tar.TypeDir}), ""},
		"no program":              {tarOf(t, member{"README.md", "x", tar.TypeReg}), ""},
		"an empty one":            {tarOf(t, member{"git-gitops", "", tar.TypeReg}), ""},
		"nothing":                 {tarOf(t), ""},
		"no archive":              {[]byte("<html>"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := serve(t, linux, ".tar.gz", test.archive)
			got, err := s.Program(t.Context(), r)
			if string(got) != test.want || (err == nil) != (test.want != "") {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
}

func TestSource_Program_zip(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range []member{{name: "../git-gitops.exe", content: "evil"}, {name: "README.md"}, {name: "git-gitops.exe", content: "program"}} {
		f, err := w.Create(m.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, r := serve(t, upgrade.Platform{OS: "windows", Arch: "arm64"}, ".zip", b.Bytes())
	if got, err := s.Program(t.Context(), r); err != nil || string(got) != "program" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// A file without an end is not read to its end, and redirects are followed for so long only.
func TestSource_Find_hostileServers(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request)
		want  string
	}{
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for line := []byte(strings.Repeat("x", 1<<16) + "\n"); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, "more than 1048576 bytes"},
		"around in circles": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "ten redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(test.serve))
			t.Cleanup(server.Close)
			s, err := upgrade.From(server.URL, "test")
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Find(t.Context(), "", upgrade.Platform{OS: "linux", Arch: "amd64"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("want %q, got %v", test.want, err)
			}
		})
	}
}

func TestFrom(t *testing.T) {
	for base, want := range map[string]bool{
		"": true, "https://example.com/releases/": true, "http://127.0.0.1:8000": true,
		"example.com": false, "ftp://example.com": false, "https://": false, "/srv/releases": false, "https://example.com/?a=b": false, "http://[": false,
	} {
		if _, err := upgrade.From(base, "test"); (err == nil) != want {
			t.Errorf("From(%q): %v", base, err)
		}
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "git-gitops"), filepath.Join(dir, "git")
	if err := os.WriteFile(path, []byte("old"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()

	if err := upgrade.Replace(link, []byte("new program")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		if got, err := os.ReadFile(name); err != nil || string(got) != "new program" {
			t.Fatalf("%s: %q, %v", name, got, err)
		}
	}
	running := make([]byte, 3)
	if _, err := old.Read(running); err != nil || string(running) != "old" {
		t.Fatalf("who has the old one open reads %q, %v", running, err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o750 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if names := list(t, dir); !slices.Equal(names, []string{"git", "git-gitops"}) {
		t.Fatalf("the folder holds %q", names)
	}

	if err := upgrade.Replace(filepath.Join(dir, "none"), []byte("x")); err == nil {
		t.Fatal("replaced a program that is not there")
	}
	if names := list(t, dir); !slices.Equal(names, []string{"git", "git-gitops"}) {
		t.Fatalf("the folder holds %q", names)
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}
