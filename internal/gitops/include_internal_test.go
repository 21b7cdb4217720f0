package gitops

import (
	"testing"

	"github.com/git-gitops/git-gitops/internal/giturl"
)

// A pattern finds a repository by its identity and as it is spelled, in any case.
func TestIncluded(t *testing.T) {
	for _, tt := range []struct {
		pattern, url string
		want         bool
	}{
		{"github.com/org/*", "git@github.com:org/repo", true},
		{"github.com/Org/*", "https://github.com/Org/repo", true},
		{"github.com/org/*", "https://github.com/Org/repo", true},
		{"ssh.github.com*/org/*", "ssh://git@ssh.github.com:443/org/repo", true},
		{"github.com/org/*", "ssh://git@ssh.github.com:443/org/repo", true},
		{"h:2222/*", "ssh://git@h:2222/org/repo", true},
		{"h/org/*", "ssh://git@h:2222/org/repo", true},
		{"bb/scm/proj/*", "https://bb/scm/PROJ/repo", true},
		{"bb/PROJ/*", "https://bb/scm/PROJ/repo", true},
		{"*.visualstudio.com/*", "https://o.visualstudio.com/p/_git/r", true},
		{"h/other/*", "ssh://git@h:2222/org/repo", false},
		{"none", "https://github.com/org/repo", false},
	} {
		u, err := giturl.Parse(tt.url, "/")
		if err != nil {
			t.Fatal(err)
		}
		if got := included([]string{"nothing", tt.pattern}, u); got != tt.want {
			t.Errorf("%s includes %s: %v", tt.pattern, tt.url, got)
		}
	}
}
