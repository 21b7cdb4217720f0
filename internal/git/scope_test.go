package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

func TestReadScopedConfig(t *testing.T) {
	g, dir, _ := repository(t)
	included := filepath.Join(t.TempDir(), "included")
	if err := os.WriteFile(included, []byte("[gitops]\n\tpurpose = included\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	global := filepath.Join(t.TempDir(), "global")
	content := fmt.Sprintf("[gitops]\n\tredisHost = mine\n\tinclude = a\n\tflag\n[includeIf \"gitdir:%s/\"]\n\tpath = %s\n", dir, included)
	if err := os.WriteFile(global, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", global)
	must(t, g, "config", "--local", "gitops.redisHost", "theirs")
	must(t, g, "config", "--local", "gitops.include", "b")
	must(t, g, "config", "--local", "include.path", included)
	g.Globals = append(slices.Clone(g.Globals), "-c", "gitops.include=c")
	t.Setenv("GIT_CONFIG", filepath.Join(t.TempDir(), "none")) // which git config obeys, and push does not
	c, err := g.ReadScopedConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	user := c.User()
	for _, tc := range []struct {
		key        string
		all, users []string
		scope      string // of the last one
		repository string
	}{
		{"gitops.redishost", []string{"mine", "theirs"}, []string{"mine"}, "local", "local"},
		{"gitops.include", []string{"a", "b", "c"}, []string{"a", "c"}, "command", "local"},
		{"gitops.purpose", []string{"included", "included"}, []string{"included"}, "local", "local"},
		{"gitops.flag", []string{"true"}, []string{"true"}, "global", ""},
		{newEnough, nil, nil, "", ""},
	} {
		if !slices.Equal(c.Config[tc.key], tc.all) || !slices.Equal(user.Config[tc.key], tc.users) {
			t.Errorf("%s: %q, the user's %q", tc.key, c.Config[tc.key], user.Config[tc.key])
		}
		if c.Scope(tc.key) != tc.scope || c.RepositoryScope(tc.key) != tc.repository || user.RepositoryScope(tc.key) != "" {
			t.Errorf("%s: scope %q, the repository's %q", tc.key, c.Scope(tc.key), c.RepositoryScope(tc.key))
		}
	}

	outside, err := g.Outside().ReadScopedConfig(t.Context())
	if err != nil || outside.RepositoryScope("gitops.redishost") != "" || !slices.Equal(outside.Config["gitops.include"], []string{"a", "c"}) {
		t.Errorf("outside: %v, %v", outside.Config, err)
	}
}

func TestOutside(t *testing.T) {
	g := Git{Globals: []string{
		"-C", "a", "--git-dir", "b", "--git-dir=b", "--work-tree", "c", "--work-tree=c", "--bare", "-c", "x.y=z",
		"--namespace", "n", "--config-env=k.l=V", "--config-env", "k.l=V", "--no-pager", "-p", "--attr-source=t",
	}}
	want := []string{"-C", "a", "-c", "x.y=z", "--config-env=k.l=V", "--config-env", "k.l=V", "--no-pager", "-p"}
	if got := g.Outside().Globals; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTooOld: a git that lacks what we need is known by the question that is asked anyway.
func TestTooOld(t *testing.T) {
	g, _, _ := repository(t)
	for version, script := range map[string]string{
		"2.30.2": "unset GIT_CONFIG_COUNT",
		"2.20.1": `case " $* " in *" --show-scope "*) echo "error: unknown option" >&2; exit 129; esac`,
	} {
		old := filepath.Join(t.TempDir(), "git")
		text := fmt.Sprintf("#!/bin/sh\n%s\n[ \"$1\" = --version ] && { echo git version %s; exit; }\nexec %s \"$@\"\n", script, version, g.Path)
		if err := gittest.WriteProgram(old, text); err != nil {
			t.Fatal(err)
		}
		_, err := Git{Path: old}.ReadScopedConfig(t.Context())
		var tooOld *TooOldError
		if !errors.As(err, &tooOld) || tooOld.Version != version || tooOld.Path != old {
			t.Errorf("git %s: %v", version, err)
		}
	}
}
