//go:build unix

package main

import (
	"os"
	"strings"
	"testing"
)

// fieldScript is a script of the field, with the line ends, blanks and quotes of people.
const fieldScript = "#!/bin/bash\r\nset -e\n\ncd \"$1\";  git clone https://git:$PAT@$HOST/o/r.git -b main || exit 1\n" +
	"git -C r add -v .\t\n\n\n\n\n\n\ngit commit -m 'x' && git \"push\" -u origin main"

// TestMigrate_diff: the diff on stdout is one that git applies, and then there is nothing left to
// change. No file is touched, and no setting is needed.
func TestMigrate_diff(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with("REDIS_HOST", "REDIS_PORT")
	w.write("lib/save.sh", fieldScript)
	w.write("a name.sh", "git push\n")
	w.write("same.sh", "git status\n")
	r := w.bash(".", `git gitops migrate lib/save.sh ./"a name.sh" same.sh`)
	wantCode(t, r, 0)
	wantText(t, r.stdout, "--- a/lib/save.sh\n+++ b/lib/save.sh\n", `+git commit -m 'x' && git gitops "push"`)
	if w.read("lib/save.sh") != fieldScript {
		t.Errorf("changed: %q", w.read("lib/save.sh"))
	}
	if got := r.stderr; got != "gitops: 3 commands to change in 2 of 3 files; 0 places to look at\n" {
		t.Errorf("stderr: %s", got)
	}
	w.write("the.diff", r.stdout)
	w.must(".", "git init -q . && git apply --whitespace=nowarn the.diff")
	want := strings.NewReplacer("git clone", "git gitops clone", `git "push"`, `git gitops "push"`).Replace(fieldScript)
	if got := w.read("lib/save.sh"); got != want {
		t.Errorf("applied:\n%q, want\n%q", got, want)
	}
	if got := w.read("a name.sh"); got != "git gitops push\n" {
		t.Errorf("applied: %q", got)
	}
	r = w.bash(".", `git gitops migrate lib/save.sh "a name.sh"`)
	wantCode(t, r, 0)
	if r.stdout != "" {
		t.Errorf("again: %s", r)
	}
	// A path from the root gives a diff that applies there.
	r = w.bash(".", `printf 'git push' >x.sh; git gitops migrate "$PWD/x.sh" | (cd / && git apply --check -)`)
	wantCode(t, r, 0)
}

func TestMigrate_stdin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.bash(".", `printf 'git push\r\n$GIT push' | git gitops migrate -`)
	wantCode(t, r, 0)
	if r.stdout != "git gitops push\r\n$GIT push" {
		t.Errorf("%s", r)
	}
	wantText(t, r.stderr, "gitops: -:2: ", "1 command changed in 1 of 1 file; 1 place")
	r = w.bash(".", `echo 'git push; if' | git gitops migrate -`)
	wantCode(t, r, 1)
	wantText(t, r.stderr, "gitops: error: ", "-:1:")
	if r.stdout != "" {
		t.Errorf("a script that does not parse: %s", r)
	}
}

// TestMigrate_write: files are replaced in one step with their mode and owner, symbolic links stay,
// and a file that need not change is not touched.
func TestMigrate_write(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("real/a.sh", fieldScript)
	w.write("same.sh", "git status\n")
	if os.Getuid() == 0 {
		w.must(".", "chown 12345:54321 real/a.sh")
	}
	owner := w.must(".", "stat -c %u:%g real/a.sh")
	w.must(".", "chmod 4751 real/a.sh; chmod 640 same.sh; ln -s real/a.sh link.sh; ln real/a.sh other; touch -d 2020-01-01 same.sh")
	before := w.must(".", "stat -c '%i %a %Y' same.sh")
	r := w.bash(".", "git gitops migrate --write link.sh same.sh")
	wantCode(t, r, 0)
	wantText(t, r.stderr, "2 commands changed in 1 of 2 files")
	if r.stdout != "" {
		t.Errorf("stdout: %s", r.stdout)
	}
	if got := w.must(".", "stat -c %a real/a.sh && readlink link.sh && grep -c 'git gitops' link.sh"); got != "4751\nreal/a.sh\n2" {
		t.Errorf("mode, link and changes: %s", got)
	}
	if got := w.must(".", "stat -c %u:%g real/a.sh"); got != owner {
		t.Errorf("it belonged to %s and belongs to %s", owner, got)
	}
	if w.read("other") != fieldScript {
		t.Error("written in place: a reader can see half of it")
	}
	if after := w.must(".", "stat -c '%i %a %Y' same.sh"); after != before {
		t.Errorf("a file without a change was %s and is %s", before, after)
	}
	if entries, err := os.ReadDir(w.path("real")); err != nil || len(entries) != 1 {
		t.Errorf("left: %v %v", entries, err)
	}
}

// TestMigrate_refuses: a file that cannot be read or parsed is named, stays as it is, and does not
// stop the others.
func TestMigrate_refuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("good.sh", "git push\n")
	w.write("open.sh", "git push\necho 'never closed\n")
	w.write("binary", "git push\n\x00\x01")
	w.write("tool.py", "#!/usr/bin/env python3\ngit = 1\n")
	w.must(".", "ln -s nowhere dangling.sh; mkdir folder")
	for _, tc := range []struct{ file, want string }{
		{"open.sh", "open.sh:2:6"},
		{"binary", "binary is a binary file"},
		{"tool.py", "python3"},
		{"folder", "folder"},
		{"dangling.sh", "dangling.sh"},
		{"missing.sh", "missing.sh"},
	} {
		r := w.bash(".", `git gitops migrate "$1" good.sh`, tc.file)
		wantCode(t, r, 1)
		wantText(t, r.ours(), "gitops: error: ", tc.want, "1 command to change in 1 of 2 files")
		wantText(t, r.stdout, "+git gitops push")
		if strings.Contains(r.stdout, tc.file) {
			t.Errorf("%s is in the diff: %s", tc.file, r)
		}
	}
	r := w.bash(".", "git gitops migrate --write open.sh binary good.sh")
	wantCode(t, r, 1)
	if w.read("good.sh") != "git gitops push\n" || w.read("open.sh") != "git push\necho 'never closed\n" {
		t.Errorf("written: %q %q", w.read("good.sh"), w.read("open.sh"))
	}
	for _, words := range []string{"", "--write -", "- good.sh", "--wrong good.sh", "good.sh --write"} {
		r := w.bash(".", "git gitops migrate "+words)
		wantCode(t, r, 129)
		wantText(t, r.ours(), "git gitops migrate -h")
	}
}
