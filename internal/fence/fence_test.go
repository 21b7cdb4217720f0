package fence_test

import (
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/fence"
	"github.com/git-gitops/git-gitops/internal/lock"
)

func TestRules_Protects(t *testing.T) {
	t.Parallel()
	r := fence.Rules{Protect: []string{"main", "release/*", "refs/heads/prod"}}
	for ref, want := range map[string]bool{
		"refs/heads/main": true, "refs/heads/release/1.2": true, "refs/heads/release/a/b": true, "refs/heads/prod": true,
		"refs/heads/maintenance": false, "refs/heads/feature/main": false, "refs/heads/release": false,
		"refs/tags/main": false, "main": false, "refs/gitops/batch/main/x": false,
	} {
		if got := r.Protects(ref); got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
	if (fence.Rules{}).Protects("refs/heads/main") {
		t.Error("something is protected without a pattern")
	}
}

func TestRules_Alias(t *testing.T) {
	t.Parallel()
	r := fence.Rules{
		Protect: []string{"main", "release/*", "old", "refs/heads/Prod"},
		Symbolic: map[string]string{
			"refs/heads/alias": "refs/heads/main", "refs/tags/alias": "refs/heads/release/1", "refs/heads/free": "refs/heads/other",
			"refs/heads/old": "refs/heads/new", "refs/heads/older": "refs/heads/new",
		},
	}
	for ref, alias := range map[string]bool{
		"refs/heads/main": false, "refs/heads/alias": true, "refs/tags/alias": true, "refs/heads/free": false, "refs/heads/other": false,
		"refs/heads/old": true, "refs/heads/older": true, "refs/heads/new": false, // the branch itself
		"refs/namespaces/a/refs/heads/main": true, "refs/namespaces/a/refs/namespaces/b/refs/heads/release/1": true,
		"refs/namespaces/a/refs/heads/x": false, "refs/namespaces/a/refs/tags/main": false, "refs/x/refs/heads/main": false,
		"refs/heads/MAIN": false,
	} {
		if got := r.Alias(ref); (got != "") != alias {
			t.Errorf("%s: %q", ref, got)
		}
	}
	if !r.Protects("refs/heads/new") || r.Protects("refs/heads/other") {
		t.Error("what a protected name stands for is protected, and nothing else")
	}
	r.IgnoreCase = true
	for ref, alias := range map[string]bool{
		"refs/heads/main": false, "refs/heads/MAIN": true, "refs/heads/Release/1": true, "refs/heads/release/A": false, "refs/Heads/main": true,
		"refs/heads/Prod": false, "refs/heads/prod": true, "refs/heads/Other": false, "refs/tags/Main": false,
	} {
		if got := r.Alias(ref); (got != "") != alias {
			t.Errorf("%s without case: %q", ref, got)
		}
	}
	r.Branches = []string{"refs/heads/release/a", "refs/heads/release/É", "refs/heads/MAIN", "refs/heads/release/both", "refs/heads/release/Both"}
	for ref, twin := range map[string]string{
		"refs/heads/release/a": "", "refs/heads/release/A": "refs/heads/release/a", "refs/heads/release/b": "", "refs/heads/release/RC1": "",
		"refs/heads/release/é": "refs/heads/release/É", "refs/heads/main": "", "refs/heads/Prod": "", // what nobody may push to is no twin
		"refs/heads/release/both": "refs/heads/release/Both", "refs/heads/release/Both": "refs/heads/release/both",
	} {
		if got := r.Alias(ref); twin == "" && got != "" || !strings.HasSuffix(got, twin) {
			t.Errorf("%s beside others: %q", ref, got)
		}
	}
	if got := strings.Join(r.Folders(), " "); got != "refs/heads/main refs/heads/release refs/heads/old refs/heads/Prod" {
		t.Errorf("folders: %s", got)
	}
	if got := (fence.Rules{Protect: []string{"*", "a*/b"}}).Folders(); got[0] != "refs/heads" || got[1] != "refs/heads" {
		t.Errorf("folders: %q", got)
	}
}

func TestRules_Void(t *testing.T) {
	t.Parallel()
	r := fence.Rules{Protect: []string{"main", "", "refs/heads/release/*", "refs/heads/", "refs/tags/*", "main release/*", "*", "v?", "a,b"}}
	if got := strings.Join(r.Void(), "|"); got != "|refs/heads/|refs/tags/*|main release/*|v?" {
		t.Errorf("protect nothing: %q", got)
	}
}

func TestRules_Exempts(t *testing.T) {
	t.Parallel()
	r := fence.Rules{Exempt: []string{"GL_USERNAME=admin", "BROKEN", "EMPTY=", "=x"}}
	for name, want := range map[string]string{"admin": "GL_USERNAME=admin", "somebody": "", "": ""} {
		if got := r.Exempts(func(v string) string { return map[string]string{"GL_USERNAME": name}[v] }); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestReadUpdates(t *testing.T) {
	t.Parallel()
	got, err := fence.ReadUpdates(strings.NewReader("a b refs/heads/main\nc d refs/heads/x y\n"))
	if err != nil || len(got) != 2 || got[0] != (lock.Update{Old: "a", New: "b", Ref: "refs/heads/main"}) || got[1].Ref != "refs/heads/x y" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"a b\n", "a\n", "a b \n"} {
		if _, err := fence.ReadUpdates(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestWord(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]lock.Refusal{
		"remote: gitops: error: refused [gitops: not-held]": lock.RefusedNotHeld,
		"remote: x [gitops: moved] y":                       lock.RefusedMoved,
		"[gitops: not-declared]":                            lock.RefusedNotDeclared,
		"[gitops: something]":                               "",
		"[gitops: moved":                                    "",
		"":                                                  "",
	} {
		if got := fence.Word(said); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}
