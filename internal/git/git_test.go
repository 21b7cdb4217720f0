package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

func TestTips(t *testing.T) {
	t.Parallel()
	g, _, remote := repository(t)
	head := must(t, g, "rev-parse", "HEAD")
	must(t, g, "tag", "-a", "-m", "v", "v1")
	// A name that ends like the one that is asked for, and comes first.
	must(t, g, "commit", "-q", "--allow-empty", "-m", "two")
	must(t, g, "push", "-q", "origin", "HEAD:refs/a/refs/heads/main", "HEAD:refs/a/refs/heads/other")
	for rev, want := range map[string]string{"main~1": head, "v1": head, "origin/main": head, "no-such": "", "main:file": ""} {
		if got := g.Tip(t.Context(), rev); got != want {
			t.Errorf("tip of %s: %q, want %q", rev, got, want)
		}
	}
	for ref, want := range map[string]string{"refs/heads/main": head, "refs/heads/other": "", "refs/heads/no-such": ""} {
		if got, err := g.RemoteTip(t.Context(), remote, ref); got != want || err != nil {
			t.Errorf("remote tip of %s: %q, %v; want %q", ref, got, err, want)
		}
	}
	var gitErr *Error
	if _, err := g.RemoteTip(t.Context(), "no-such.git", "refs/heads/main"); !errors.As(err, &gitErr) || gitErr.ExitCode != 128 {
		t.Errorf("error %v", err)
	}
	if !g.Contains(t.Context(), "main", head) || g.Contains(t.Context(), head, "main") || g.Contains(t.Context(), "main", "no-such") {
		t.Error("contains")
	}
}

// TestURLs holds the rewriting against what git says that it fetches from and pushes to.
func TestURLs(t *testing.T) {
	t.Parallel()
	g, _, remote := repository(t)
	must(t, g, "init", "-q", "--bare", remote+".2")
	for _, tc := range []struct {
		config string // space between settings
		word   string
		want   []string // R is the first repository, R2 the second
	}{
		{"", "origin", []string{"R"}},
		{"", "R2", []string{"R2"}},
		{"", "file://R2", []string{"file://R2"}},
		{"", "../remote.git", []string{"../remote.git"}},
		{"remote.up.url=R2", "up", []string{"R2"}},
		{"remote.up.url=nowhere remote.up.pushurl=R2", "up", []string{"R2"}},
		{"remote.up.pushurl=R2 remote.up.pushurl=R", "up", []string{"R2", "R"}},
		{"remote.up.url=R2 remote.up.url=R", "up", []string{"R2", "R"}},
		{"url.R.insteadOf=x:", "x:", []string{"R"}},
		{"url.R.insteadOf=x:", "x:.2", []string{"R2"}},
		{"url.R.pushInsteadOf=x:", "x:", []string{"R"}},
		{"url.nowhere.insteadOf=x: url.R.insteadOf=x:r url.nowhere.insteadOf=x", "x:r", []string{"R"}},
		{"url.nowhere.insteadOf=x: url.R.pushInsteadOf=x:", "x:", []string{"R"}},
		{"url.nowhere.pushInsteadOf=x: url.R.insteadOf=x: remote.up.pushurl=x:", "up", []string{"R"}},
		{"url.R2.insteadOf=x: url.R.insteadOf=x:", "x:", []string{"R2"}}, // of equally long ones the first
		{"url.R.insteadOf=x: url.R2.insteadOf=x:", "x:", []string{"R"}},
		{"url.R.insteadOf=y: url.R2.insteadOf=x: url.R.insteadOf=x:", "x:", []string{"R"}},
		{"url.R.pushInsteadOf=y: url.R2.insteadOf=x: url.R.insteadOf=x:", "x:", []string{"R2"}},
		{"remote.up.url=R2 remote.up.url=x: url.R.pushInsteadOf=x:", "up", []string{"R"}},
	} {
		t.Run(tc.config+" "+tc.word, func(t *testing.T) {
			place := strings.NewReplacer("R2", remote+".2", "R", remote)
			g := g
			g.Globals = slices.Clone(g.Globals)
			for setting := range strings.FieldsSeq(tc.config) {
				g.Globals = append(g.Globals, "-c", place.Replace(setting))
			}
			for i := range tc.want {
				tc.want[i] = place.Replace(tc.want[i])
			}
			c, err := g.ReadConfig(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := c.PushURLs(place.Replace(tc.word))
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if fetch, from := c.FetchURL(place.Replace(tc.word)), must(t, g, "ls-remote", "--get-url", "--", place.Replace(tc.word)); fetch != from {
				t.Errorf("fetches from %q, and git from %q", fetch, from)
			}
			var said []string
			for _, line := range lines(must(t, g, "push", "--dry-run", "--porcelain", place.Replace(tc.word), "HEAD:refs/heads/new")) {
				if url, ok := strings.CutPrefix(line, "To "); ok {
					said = append(said, url)
				}
			}
			if !slices.Equal(said, got) {
				t.Errorf("git pushes to %q, not %q", said, got)
			}
		})
	}
}

// TestNoSecretInArguments: a URL with a password is in no argument list, and is asked all the same.
func TestNoSecretInArguments(t *testing.T) {
	g, dir, remote := repository(t)
	recorder := filepath.Join(t.TempDir(), "git")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%[1]s.log\nexec %s \"$@\"\n", recorder, g.Path)
	if err := gittest.WriteProgram(recorder, script); err != nil {
		t.Fatal(err)
	}
	g.Path = recorder
	const url = "https://git:SECRET@host.example.com/repo.git"
	t.Setenv("GIT_CONFIG_COUNT", "1") // that of somebody else stays
	t.Setenv("GIT_CONFIG_KEY_0", "url."+remote+".insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", url)
	head := must(t, g, "rev-parse", "HEAD")
	if tip, err := g.RemoteTip(t.Context(), url, "refs/heads/main"); tip != head || err != nil {
		t.Errorf("tip %q, %v", tip, err)
	}
	if branch, _, err := g.DefaultBranch(t.Context(), url); branch != "main" || err != nil {
		t.Errorf("default branch %q, %v", branch, err)
	}
	if refs, err := g.RemoteRefs(t.Context(), url); !slices.Equal(refs, []string{"refs/heads/main"}) || err != nil {
		t.Errorf("refs %q, %v", refs, err)
	}
	commit(t, g, dir, "two", "file", "2\n")
	if _, err := g.FetchAndRebase(t.Context(), url, "main"); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(recorder + ".log")
	if err != nil || strings.Contains(string(log), "SECRET") {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestAlias holds the lookup against git, also for what only newer ones know.
func TestAlias(t *testing.T) {
	t.Parallel()
	g, _, _ := repository(t)
	for i, tc := range []string{
		"alias.a=version", "alias.A=version", "alias.a.command=version", "alias.A.command=version", "alias.a.b=version",
		"alias.a=version alias.a.command=log", "alias.a.command=version alias.a=log", "alias.a.command=log alias.a=version", "alias.b=version",
	} {
		g := g
		g.Globals = slices.Clone(g.Globals)
		for setting := range strings.FieldsSeq(tc) {
			g.Globals = append(g.Globals, "-c", setting)
		}
		out, err := g.Output(t.Context(), "a")
		want := err == nil && strings.HasPrefix(out, "git version")
		if value, ok := g.Alias(t.Context(), "a"); (ok && value == "version") != want {
			t.Errorf("%d: %s: %q, %v; git: %q, %v", i, tc, value, ok, out, err)
		}
	}
}
