package gitops

import (
	"strings"
	"testing"
)

// TestPasses is a collection of what servers say when they refuse.
// Not these words but a look at the remote shows whether somebody else moved the branch.
func TestPasses(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]bool{
		// git: refs.c, files-backend.c, receive-pack.c
		" ! [remote rejected] main -> main (cannot lock ref 'refs/heads/main': is at 1f2e but expected 3c4d)":                            true,
		"remote: error: cannot lock ref 'refs/heads/main': Unable to create '/srv/r.git/refs/heads/main.lock': File exists.":             true,
		" ! [remote rejected] main -> main (failed to lock)":                                                                             true,
		" ! [remote rejected] main -> main (failed to update ref)":                                                                       true,
		" ! [remote rejected] main -> main (reference already exists)":                                                                   true,
		" ! [remote rejected] main -> main (failed to update ref)\nremote: error: 'refs/heads/a' exists; cannot create 'refs/heads/a/b'": false,
		"remote: error: cannot lock ref 'refs/heads/main': Unable to create 'main.lock': Permission denied":                              false,
		"remote: error: cannot lock ref 'refs/heads/main': Unable to create 'main.lock': Read-only file system":                          false,
		"remote: error: cannot lock ref 'refs/heads/main': Unable to create 'main.lock': No space left on device":                        false,
		" ! [remote rejected] main -> main (branch is currently checked out)":                                                            false,
		" ! [remote rejected] main -> main (pre-receive hook declined)":                                                                  false,
		" ! [remote rejected] main -> main (hook declined)":                                                                              false,
		" ! [remote rejected] main -> main (deny non-fast-forward)":                                                                      false,
		" ! [remote rejected] main -> main (shallow update not allowed)":                                                                 false,
		" ! [rejected]        main -> main (fetch first)":                                                                                false,
		" ! [rejected]        main -> main (non-fast-forward)":                                                                           false,
		" ! [rejected]        main -> main (stale info)":                                                                                 false,
		"error: src refspec main does not match any":                                                                                     false,
		// GitHub
		"remote: Internal Server Error\nremote: Request ID 65EF:1EC443\n ! [remote rejected] main -> main (Internal Server Error)":                                         true,
		"remote: error: GH006: Protected branch update failed for refs/heads/main.\n ! [remote rejected] main -> main (protected branch hook declined)":                    false,
		"remote: error: GH013: Repository rule violations found for refs/heads/main.\n ! [remote rejected] main -> main (push declined due to repository rule violations)": false,
		"remote: error: GH001: Large files detected. You may want to try Git Large File Storage":                                                                           false,
		"remote: Permission to org/repo.git denied to bot.\nfatal: unable to access 'https://github.com/org/repo/': The requested URL returned error: 403":                 false,
		// GitLab, Gitaly
		" ! [remote rejected] main -> main (incorrect old value provided)":                                                                                       true,
		"remote: GitLab: Internal API unreachable\n ! [remote rejected] main -> main (pre-receive hook declined)":                                                true,
		"remote: GitLab: You are not allowed to push code to protected branches on this project.\n ! [remote rejected] main -> main (pre-receive hook declined)": false,
		// the way there
		"fatal: unable to access 'http://h/r.git/': The requested URL returned error: 503":     true,
		"error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502":            true,
		"fatal: unable to access 'http://h/r.git/': The requested URL returned error: 401":     false,
		"fatal: Authentication failed for 'https://h/r.git/'":                                  false,
		"git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.": false,
		"fatal: unable to access 'https://h/r.git/': Could not resolve host: h":                false,
		"remote: The service is temporarily unavailable":                                       true,
		"remote: fix the commit message and try again":                                         false,
		"": false,
		// a local hook
		"HTTP 503\nerror: failed to push some refs to 'u'":                                                                   false,
		"curl: (22) The requested URL returned error: 503\nerror: failed to push some refs to 'u'":                           false,
		"remote: cannot lock ref\nfatal: unable to access 'u': The requested URL returned error: 503\nerror: failed to push": false,
		"cannot lock ref\n ! [remote rejected] main -> main (pre-receive hook declined)":                                     false,
		"progress\rremote: cannot lock ref\n ! [remote rejected] main -> main (pre-receive hook declined)":                   true,
	} {
		code := 1
		if !strings.Contains(said, " ! [") && !strings.Contains(said, "error: failed to push") {
			code = 128
		}
		if got := transient(said, code); got != want {
			t.Errorf("passes: %v, want %v:\n%s", got, want, said)
		}
	}
}
