//go:build unix

package main

import (
	"strings"
	"testing"
)

// fenceWorld has a server's repository that protects main and release/*.
func fenceWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.seed("remote.git")
	w.must("remote.git", "git gitops install --server && git config --add gitops.protect main && git config --add gitops.protect 'release/*'")
	return w
}

// TestFence: the server lets in what the holder of the lock has declared, and nothing else.
func TestFence(t *testing.T) {
	t.Parallel()
	w := fenceWorld(t)
	w.must(".", "git clone -q remote.git plain && cd plain && git commit -q --allow-empty -m plain")
	before := w.tip("main")
	for _, push := range []string{"git push", "git push --no-verify", "git push --force", "git push origin +HEAD:main", "git push origin :main", "git push origin HEAD:release/1"} {
		r := w.bash("plain", push)
		if r.code == 0 || !strings.Contains(r.stderr, "[gitops: not-held]") || w.tip("main") != before {
			t.Errorf("%s: %s", push, r)
		}
	}
	w.must("plain", "git push -q origin HEAD:feature && git tag v1 && git push -q origin v1") // nobody protects those

	w.must(".", "git gitops clone -q remote.git work && git -C work commit -q --allow-empty -m work")
	r := w.bash("plain", "git push")
	if r.code == 0 || !strings.Contains(r.stderr, "[gitops: not-declared]") || !strings.Contains(r.stderr, "held by ") {
		t.Errorf("beside a holder: %s", r)
	}
	w.must("work", "git gitops push -q")
	if got := w.must("work", "git rev-parse HEAD"); w.tip("main") != got {
		t.Errorf("main is at %s, want %s", w.tip("main"), got)
	}

	// From then on clients know that this server asks, and declare at once.
	for _, push := range []string{
		"git commit -q --allow-empty -m x && git gitops push -q",
		"git commit -q --amend --allow-empty -m y && git gitops push -q --force",
		"git commit -q --allow-empty -m z && git gitops push -q origin HEAD:release/2",
		"git commit -q --allow-empty -m two && git gitops push -q --atomic origin HEAD:main HEAD:release/2",
		"git gitops push -q origin :release/2",
	} {
		r := w.bash("work", push)
		wantCode(t, r, 0)
		if strings.Contains(r.stderr, "refused") && !strings.Contains(push, "release/2") {
			t.Errorf("%s was not declared: %s", push, r)
		}
	}
	if w.tip("release/2") != "" || w.tip("main") != w.must("work", "git rev-parse HEAD") {
		t.Error("not everything has landed")
	}
	w.wantLocks()
}

// TestFence_exempt: users that the server exempts need no lock.
func TestFence_exempt(t *testing.T) {
	t.Parallel()
	w := fenceWorld(t)
	w.must("remote.git", "git config --add gitops.protectExempt GL_USERNAME=merge-bot")
	w.must(".", "git clone -q remote.git plain && cd plain && git commit -q --allow-empty -m plain && GL_USERNAME=merge-bot git push -q")
	wantText(t, w.read("remote.git/gitops-fence.log"), "exempt by GL_USERNAME=merge-bot")
}

// TestFence_install: a hook that was there goes on, and comes back; what is no server's repository
// is refused.
func TestFence_install(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed("remote.git")
	own := "#!/bin/sh\ncat >>seen\nexit 0\n"
	w.write("remote.git/hooks/pre-receive", own)
	wantText(t, w.bash(".", "git gitops install --server remote.git").stderr, "installed the pre-receive hook", "nothing is protected yet")
	wantText(t, w.bash(".", "git gitops install --server remote.git").stderr, "is already in")
	w.must(".", "git clone -q remote.git plain && cd plain && git commit -q --allow-empty -m plain && git push -q")
	wantText(t, w.read("remote.git/seen"), "refs/heads/main")
	w.must("remote.git", "git config gitops.protect main")
	w.write("remote.git/hooks/pre-receive.chained", "#!/bin/sh\necho no >&2\nexit 3\n")
	r := w.bash("plain", "git commit -q --allow-empty -m more && git push")
	if r.code == 0 || !strings.Contains(r.stderr, "remote: no") || strings.Contains(r.stderr, "gitops:") {
		t.Errorf("a hook that refuses: %s", r)
	}
	w.write("remote.git/hooks/pre-receive.chained", own)
	doctor := w.bash("remote.git", "git gitops doctor")
	wantText(t, doctor.stdout, "branches like main accept only what the holder of their lock has declared", "gitops.lockRepo is not set")
	w.must(".", "git gitops uninstall --server remote.git")
	if got := w.read("remote.git/hooks/pre-receive"); got != own {
		t.Errorf("the hook that was there: %q", got)
	}
	wantText(t, w.bash(".", "git gitops uninstall --server remote.git").stderr, "no pre-receive hook of git-gitops in")

	w.must(".", "git gitops install --server --hooks-path remote.git/custom_hooks remote.git")
	if !w.exists("remote.git/custom_hooks/pre-receive") {
		t.Error("no hook where it was asked for")
	}
	for _, words := range []string{"--server plain", "--server nowhere", "--hooks-path x", "--server --hooks-path '' remote.git", "--server --global", "--server a b"} {
		r := w.bash(".", "git gitops install "+words)
		if r.code != 1 && r.code != 129 {
			t.Errorf("%s: %s", words, r)
		}
	}
}
