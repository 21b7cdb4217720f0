//go:build unix

package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestClone_spellings: however a clone is written, it ends with the lock of the branch that is
// checked out.
func TestClone_spellings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("org/repo.git")
	w.must("org/repo.git", "git branch prod && git branch feature/x")
	// A stand-in for ssh: the "server" is this folder.
	ssh := w.write("bin/fake-ssh", fmt.Sprintf("#!/bin/sh\nfor last; do :; done\ncd %s && eval \"$(echo \"$last\" | sed \"s:'/:':\")\"\n", w.dir))
	w.write("gitconfig", w.read("gitconfig")+fmt.Sprintf("[url %q]\n\tinsteadOf = company:\n", "ssh://git@github.example.com/"))
	w = w.with("GIT_SSH_COMMAND="+ssh, "GIT_SSH_VARIANT=ssh")

	here, there := w.path("org/repo"), "github.example.com/org/repo"
	for _, tc := range []struct {
		words  string
		repo   string
		branch string
		clone  string // the folder
	}{
		{"org/repo.git -b prod", here, "prod", "repo"},
		{"org/repo.git -bprod", here, "prod", "repo"},
		{"org/repo.git --branch=prod", here, "prod", "repo"},
		{"org/repo.git --branch prod", here, "prod", "repo"},
		{"--bra prod org/repo.git", here, "prod", "repo"},
		{"-qb prod org/repo.git", here, "prod", "repo"},
		{"-b main -b prod org/repo.git", here, "prod", "repo"},
		{"org/repo.git -b feature/x", here, "feature/x", "repo"},
		{"org/repo.git", here, "main", "repo"},
		{"org/repo", here, "main", "repo"},
		{"org/repo.git/", here, "main", "repo"},
		{"./org/../org/repo.git dir -b prod", here, "prod", "dir"},
		{"org/repo.git deep/er/dir", here, "main", "deep/er/dir"},
		{"org/repo.git " + w.path("absolute"), here, "main", "absolute"},
		{"-b prod -- org/repo.git dir", here, "prod", "dir"},
		{w.path("org/repo.git"), here, "main", "repo"},
		{"file://" + w.path("org/repo.git"), here, "main", "repo"},
		{"--depth 1 file://" + w.path("org/repo.git"), here, "main", "repo"},
		{"--depth=1 -b prod file://" + w.path("org/repo.git"), here, "prod", "repo"},
		{"--bare org/repo.git", here, "main", "repo.git"},
		{"--bare org/repo.git x -b prod", here, "prod", "x"},
		{"--mirror org/repo.git", here, "main", "repo.git"},
		{"-n org/repo.git", here, "main", "repo"},
		{"-o upstream org/repo.git", here, "main", "repo"},
		{"--origin=upstream -b prod org/repo.git", here, "prod", "repo"},
		{"-q --no-tags --single-branch org/repo.git -b prod", here, "prod", "repo"},
		{"--separate-git-dir elsewhere org/repo.git", here, "main", "repo"},
		{"-c core.autocrlf=false --template= org/repo.git", here, "main", "repo"},
		{"git@github.example.com:org/repo.git", there, "main", "repo"},
		{"GitHub.example.com:org/repo -b prod", there, "prod", "repo"},
		{"ssh://git@github.example.com/org/repo.git -b prod", there, "prod", "repo"},
		{"ssh://github.example.com:22/org/repo", there, "main", "repo"},
		{"ssh://git@github.example.com:2222/org/repo", there, "main", "repo"},
		{"company:org/repo.git", there, "main", "repo"},
		{"-c url.ssh://git@github.example.com/.insteadOf=corp: corp:org/repo.git", there, "main", "repo"},
	} {
		t.Run(tc.words, func(t *testing.T) {
			w := *w
			w.t = t
			r := w.bash(".", "git gitops clone "+tc.words)
			wantCode(t, r, 0)
			if r.stdout != "" {
				t.Errorf("stdout: %q", r.stdout)
			}
			w.wantLocks(lockKey(tc.repo, tc.branch))
			if head := w.must(tc.clone, "git symbolic-ref --short HEAD"); head != tc.branch {
				t.Errorf("the clone is on %s", head)
			}
			// The clone knows its lock: unlock ends it.
			w.must(tc.clone, "git gitops unlock --all")
			w.wantLocks()
			w.must(".", `rm -rf "$1" elsewhere`, tc.clone)
		})
	}
}

// TestClone_withoutLock: a clone that fails, or checks out no branch, ends as git does and holds
// nothing.
func TestClone_withoutLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git tag v1 main")
	w.write("full/file", "")
	took := regexp.MustCompile(`after \d+ ms`) // in curl's words
	for _, words := range []string{
		"no-such.git", "file:///no/such/repo.git", "http://127.0.0.1:1/repo.git -b main", "nobody@256.0.0.1:repo.git",
		"remote.git full", "remote.git -b no-such-branch x", "remote.git x y", "", "-b main", "--depth=-1 remote.git",
		"--no-such-option remote.git", "remote.git -b v1 tagged", "remote.git -b main full/file/below",
		"--reference no-such.git remote.git x", "-u no-such-program remote.git x", "-h", "--help >/dev/null; git gitops clone",
	} {
		t.Run(words, func(t *testing.T) {
			w := *w
			w.t = t
			want := w.bash(".", "git clone "+strings.ReplaceAll(words, " gitops", ""))
			w.must(".", "rm -rf tagged")
			got := w.bash(".", "git gitops clone "+words)
			w.must(".", "rm -rf tagged")
			if got.code != want.code || took.ReplaceAllString(got.theirs(), "") != took.ReplaceAllString(want.stderr, "") || got.stdout != want.stdout {
				t.Errorf("git: %s\ngitops: %s", want, got)
			}
			w.wantLocks()
			if w.exists("x") {
				t.Error("a folder is left")
			}
		})
	}
}

// TestClone_empty: the lock of a repository without a commit is that of the branch that will be
// begun.
func TestClone_empty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(".", "git init -q --bare empty.git")
	wantCode(t, w.bash(".", "git gitops clone empty.git work"), 0)
	w.wantLocks(lockKey(w.path("empty"), "main"))
	w.must("work", "git commit -q --allow-empty -m first && git gitops push -q -u origin main")
	w.wantLocks()
	if w.must("empty.git", "git rev-list --count main") != "1" {
		t.Error("the push did not land")
	}
}

// TestClone_turns: two clones of one branch take turns, those of two branches do not wait for each
// other.
func TestClone_turns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remote := w.seed("remote.git")
	w.must("remote.git", "git branch prod")
	w.must(".", "git gitops clone -q remote.git one")
	w.must(".", "GITOPS_LOCK_TIMEOUT=0 git gitops clone -q remote.git -b prod two")
	w.wantLocks(lockKey(remote, "main"), lockKey(remote, "prod"))

	r := w.bash(".", "GITOPS_LOCK_TIMEOUT=0 git gitops clone -q remote.git three")
	wantCode(t, r, 75)
	wantText(t, r.ours(), "gitops: error: ", "position 1", "git gitops locks")
	if r.theirs() != "" || w.exists("three") {
		t.Errorf("git ran: %s", r)
	}

	three := w.start(".", "git", "gitops", "clone", "remote.git", "three")
	w.until("three waits", func() bool { return w.queued() == 1 })
	w.until("three says for whom", func() bool { return strings.Contains(three.stderr.String(), "held by") })
	w.must("one", "echo 1 >counter && git commit -qam one && git gitops push -q")
	r = three.wait()
	wantCode(t, r, 0)
	wantText(t, r.ours(), "waiting for the lock on", "position 1")
	if got := w.must("three", "cat counter"); got != "1" {
		t.Errorf("three began with the counter at %s", got)
	}
	w.wantLocks(lockKey(remote, "main"), lockKey(remote, "prod"))
}

// TestOrder: waiters are served in the order in which they came.
func TestOrder(t *testing.T) {
	t.Parallel()
	const waiters = 20
	w := newWorld(t)
	w.seed("remote.git")
	w.must(".", "git gitops clone -q remote.git first")
	var all []*process
	for i := range waiters {
		all = append(all, w.start(".", "bash", "-c", `git gitops clone -q remote.git "w$1" &&
			git -C "w$1" commit -q --allow-empty -m "$1" && git gitops -C "w$1" push -q`, "bash", fmt.Sprint(i)))
		w.until(fmt.Sprintf("%d wait", i+1), func() bool { return w.queued() == i+1 })
	}
	w.must("first", "git gitops unlock")
	var want []string
	for i, p := range all {
		wantCode(t, p.wait(), 0)
		want = append(want, fmt.Sprint(i))
	}
	if got := w.must("remote.git", "git log --reverse --format=%s main | sed 1d"); got != strings.Join(want, "\n") {
		t.Errorf("served in the order %q", strings.Fields(got))
	}
	w.wantLocks()
}
