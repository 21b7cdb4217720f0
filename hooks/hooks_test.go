package hooks_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/hooks"
)

// place is a folder with one file, or a link, called pre-push.
type place struct {
	name, content, link string
	mode                fs.FileMode
}

func (p place) make(t *testing.T, dir string) {
	t.Helper()
	if p.link != "" {
		if err := os.Symlink(p.link, filepath.Join(dir, "pre-push")); err != nil {
			t.Fatal(err)
		}
		return
	}
	path := filepath.Join(dir, "pre-push")
	if err := os.WriteFile(path, []byte(p.content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, p.mode); err != nil {
		t.Fatal(err)
	}
}

// snapshot is all that a folder has: names, modes, contents and targets of links.
func snapshot(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			text, err = os.Readlink(path)
		} else if info.Mode().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			text = string(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Name()+" "+info.Mode().String()+" "+text)
	}
	return all
}

// TestInstall: uninstall puts back what was there, byte for byte, and doing either twice changes
// nothing.
func TestInstall(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and symlinks")
	}
	for _, tt := range []place{
		{name: "nothing"},
		{name: "a hook", content: "#!/bin/sh\nexit 0\n", mode: 0o755},
		{name: "odd mode", content: "#!/bin/sh\nexit 0\n", mode: 0o4711},
		{name: "not executable", content: "#!/bin/sh\n", mode: 0o640},
		{name: "odd content", content: "#!/usr/bin/env python3\r\n\x00\xff no line break at the end", mode: 0o700},
		{name: "empty", mode: 0o755},
		{name: "mentions us", content: "#!/bin/sh\n\n# Installed by git-gitops: no\n", mode: 0o755},
		{name: "relative link", link: "../shared.sh"},
		{name: "link to nothing", link: "no/such/file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.WriteFile(filepath.Join(root, "shared.sh"), []byte("#!/bin/sh\n"), 0o755); err != nil { //nolint:gosec // a hook
				t.Fatal(err)
			}
			dir := filepath.Join(root, "hooks")
			if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // git's mode
				t.Fatal(err)
			}
			if tt.mode != 0 || tt.link != "" {
				tt.make(t, dir)
			}
			before := snapshot(t, dir)

			twice(t, hooks.Install, dir)
			if !hooks.Installed(dir) {
				t.Fatal("not installed")
			}
			twice(t, hooks.Uninstall, dir)
			if after := snapshot(t, dir); !slices.Equal(after, before) {
				t.Errorf("before: %q\nafter:  %q", before, after)
			}
			if hooks.Installed(dir) {
				t.Error("still installed")
			}
		})
	}
}

// twice does it, and again, when it must change nothing.
func twice(t *testing.T, do func(string) (bool, error), dir string) {
	t.Helper()
	if changed, err := do(dir); err != nil || !changed {
		t.Fatalf("changed: %v, error: %v", changed, err)
	}
	before := snapshot(t, dir)
	if changed, err := do(dir); err != nil || changed {
		t.Fatalf("again: changed: %v, error: %v", changed, err)
	}
	if after := snapshot(t, dir); !slices.Equal(after, before) {
		t.Fatalf("the second time changed %q to %q", before, after)
	}
}

// TestInstall_upgrade: the hook of another version of git-gitops is replaced, and keeps
// the hook that it chains to.
func TestInstall_upgrade(t *testing.T) {
	dir := t.TempDir()
	place{content: "#!/bin/sh\nexit 7\n", mode: 0o755}.make(t, dir)
	before := snapshot(t, dir)
	if _, err := hooks.Install(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pre-push")
	old := "#!/bin/sh\n# Installed by git-gitops: as an earlier version did it\n"
	if err := os.WriteFile(path, []byte(old), 0o755); err != nil { //nolint:gosec // a hook
		t.Fatal(err)
	}
	twice(t, hooks.Install, dir)
	if text, err := os.ReadFile(path); err != nil || string(text) == old {
		t.Errorf("not replaced: %v", err)
	}
	twice(t, hooks.Uninstall, dir)
	if after := snapshot(t, dir); !slices.Equal(after, before) {
		t.Errorf("before: %q\nafter:  %q", before, after)
	}
}

// TestInstall_notExecutable: git ignores a hook that nobody may execute, so it counts as missing.
func TestInstall_notExecutable(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes")
	}
	for name, hook := range map[string]struct {
		install, uninstall func(string) (bool, error)
		installed          func(string) bool
	}{
		"pre-push":    {hooks.Install, hooks.Uninstall, hooks.Installed},
		"pre-receive": {hooks.InstallServer, hooks.UninstallServer, hooks.ServerInstalled},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			twice(t, hook.install, dir)
			if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // what this test is about
				t.Fatal(err)
			}
			if hook.installed(dir) {
				t.Error("it counts as installed")
			}
			twice(t, hook.install, dir)
			if !hook.installed(dir) {
				t.Error("it was not made executable")
			}
			if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // the same
				t.Fatal(err)
			}
			twice(t, hook.uninstall, dir)
		})
	}
}

func TestInstall_inTheWay(t *testing.T) {
	dir := t.TempDir()
	place{content: "mine", mode: 0o755}.make(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "pre-push"+hooks.Chained), []byte("also mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if changed, err := hooks.Install(dir); err == nil || changed {
		t.Errorf("changed: %v, error: %v", changed, err)
	}
	if changed, err := hooks.Uninstall(dir); err != nil || changed {
		t.Errorf("uninstall: changed: %v, error: %v", changed, err)
	}
	if after := snapshot(t, dir); !slices.Equal(after, before) {
		t.Errorf("before: %q\nafter:  %q", before, after)
	}
}

// TestInstall_managers: what a hook manager wrote is left alone.
func TestInstall_managers(t *testing.T) {
	for _, tt := range []struct{ manager, dir, content string }{
		{"husky", "hooks", "#!/bin/sh\n# husky\n"},
		{"husky", ".husky/_", "#!/usr/bin/env sh\n. \"$(dirname \"$0\")/h\"\n"},
		{"husky", ".husky", "npm test\n"},
		{"lefthook", "hooks", "#!/bin/sh\ncall_lefthook run \"pre-push\" \"$@\"\n"},
		{"pre-commit", "hooks", "#!/usr/bin/env bash\n# File generated by pre-commit: https://pre-commit.com\n"},
		{"overcommit", "hooks", "#!/usr/bin/env ruby\n# Entrypoint for Overcommit hook integration: overcommit\n"},
	} {
		t.Run(tt.manager+" "+tt.dir, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), tt.dir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			place{content: tt.content, mode: 0o755}.make(t, dir)
			before := snapshot(t, dir)
			changed, err := hooks.Install(dir)
			var managed *hooks.ManagedError
			if changed || !errors.As(err, &managed) || managed.Manager != tt.manager || !strings.Contains(managed.Advice, "pre-push") {
				t.Errorf("changed: %v, error: %#v", changed, err)
			}
			if after := snapshot(t, dir); !slices.Equal(after, before) {
				t.Errorf("before: %q\nafter:  %q", before, after)
			}
		})
	}
}

func TestInstallAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "git-gitops", "hooks")
	twice(t, hooks.InstallAll, dir)
	if !hooks.Installed(dir) || !hooks.ForAll(dir) {
		t.Error("not installed")
	}
	other := filepath.Join(dir, "of-somebody-else")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := hooks.UninstallAll(dir); err != nil || !changed {
		t.Errorf("changed: %v, error: %v", changed, err)
	}
	if left := snapshot(t, dir); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	twice(t, hooks.InstallAll, dir)
	if _, err := hooks.UninstallAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// TestInstallAll_known: every hook of githooks(5) that this git knows is passed on, but for one
// that is named by a setting.
func TestInstallAll_known(t *testing.T) {
	html := exec.Command("git", "help", "githooks")
	html.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "MANPAGER=cat", "MANWIDTH=200", "MAN_KEEP_FORMATTING=")
	text, err := html.Output()
	if err != nil || len(text) < 5000 {
		t.Skip("git's manual pages are not installed")
	}
	dir := t.TempDir()
	if _, err := hooks.InstallAll(dir); err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\nHOOKS\n")
	section, _, _ = strings.Cut(section, "\nGIT\n")
	for line := range strings.Lines(section) {
		name := strings.TrimSpace(line)
		if !strings.HasPrefix(line, "   ") || strings.HasPrefix(line, "    ") {
			continue
		}
		switch name {
		case "fsmonitor-watchman":
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadUpdates(t *testing.T) {
	const a, z = "1111111111111111111111111111111111111111", "0000000000000000000000000000000000000000"
	for _, tt := range []struct {
		name, input string
		want        []hooks.Update
		fails       bool
	}{
		{name: "nothing"},
		{name: "one", input: "refs/heads/a " + a + " refs/heads/b " + z + "\n", want: []hooks.Update{{"refs/heads/a", a, "refs/heads/b", z}}},
		{name: "no line break", input: "refs/heads/a " + a + " refs/heads/b " + z, want: []hooks.Update{{"refs/heads/a", a, "refs/heads/b", z}}},
		{name: "delete", input: "(delete) " + z + " refs/heads/b " + a + "\n", want: []hooks.Update{{"(delete)", z, "refs/heads/b", a}}},
		{name: "an expression with spaces", input: "HEAD^{/fix the bug} " + a + " refs/heads/b " + z + "\n", want: []hooks.Update{{"HEAD^{/fix the bug}", a, "refs/heads/b", z}}},
		{name: "two", input: "x " + a + " refs/heads/b " + z + "\ny " + a + " refs/tags/t " + z + "\n", want: []hooks.Update{{"x", a, "refs/heads/b", z}, {"y", a, "refs/tags/t", z}}},
		{name: "three words", input: "x y z\n", fails: true},
		{name: "an empty line", input: "\n", fails: true},
		{name: "ends in a space", input: "a b c d \n", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := hooks.ReadUpdates(strings.NewReader(tt.input))
			if (err != nil) != tt.fails || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// FuzzReadUpdates: what is read says the same again.
func FuzzReadUpdates(f *testing.F) {
	f.Add("refs/heads/a 1 refs/heads/b 2\n")
	f.Add("(delete) 0 refs/heads/b 2\nHEAD^{/a b} 1 refs/tags/x 0\n")
	f.Add("a b c d \n\n")
	f.Fuzz(func(t *testing.T, input string) {
		updates, err := hooks.ReadUpdates(strings.NewReader(input))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, u := range updates {
			again.WriteString(u.LocalRef + " " + u.LocalOID + " " + u.RemoteRef + " " + u.RemoteOID + "\n")
		}
		want := strings.ReplaceAll(input, "\r\n", "\n") // as line scanners do
		if want != "" && !strings.HasSuffix(want, "\n") {
			want = strings.TrimSuffix(want, "\r") + "\n"
		}
		if again.String() != want {
			t.Errorf("%q became %q", input, again.String())
		}
	})
}
