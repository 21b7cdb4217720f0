package config

import (
	"os"
	"strings"
	"testing"
)

func TestFromGit(t *testing.T) {
	user := func(key string) (string, bool) { return "user " + key, true }
	all := func(key string) (string, bool) { return "all " + key, true }
	for _, v := range Variables() {
		want := "user "
		if RepositoryMaySet(v.Name) {
			want = "all "
		}
		if got, _ := FromGit(user, all)(v.GitKey); got != want+v.GitKey {
			t.Errorf("%s: %q", v.Name, got)
		}
		for _, never := range []string{"REDIS", "WEBHOOK", "SECRET", "PASSWORD", "POLICY", "GROUP", "HEAD_START"} {
			if strings.Contains(v.Name, never) && RepositoryMaySet(v.Name) {
				t.Errorf("a repository may set %s", v.Name)
			}
		}
	}
}

// TestRepositoryKeys holds the documents against the list.
func TestRepositoryKeys(t *testing.T) {
	reference, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	list := "locks: `" + strings.Join(repositoryKeys, "`, `") + "`. "
	if !strings.Contains(strings.Join(strings.Fields(string(reference)), " "), list) {
		t.Errorf("docs/reference.md does not have: %s", list)
	}
	security, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(security), "## What a repository can set")
	text = strings.ToLower(text)
	for _, name := range repositoryKeys {
		if !strings.Contains(text, "`"+strings.TrimPrefix(gitKey(name), "gitops.")+"`") && !strings.Contains(text, "`"+gitKey(name)+"`") {
			t.Errorf("docs/security.md does not name %s", gitKey(name))
		}
	}
}
