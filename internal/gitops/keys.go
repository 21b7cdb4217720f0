package gitops

import (
	"fmt"
	"sort"
	"strings"

	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
)

// keys are the locks of branches (short names) at the places that the URLs name, in the order in
// which they must be taken.
func (f *Flows) keys(urls, branches []string) ([]lock.Key, error) {
	seen := map[string]lock.Key{}
	for _, url := range urls {
		repo, err := f.identity(url)
		if err != nil {
			return nil, err
		}
		if f.Config.Lock.Repo != "" {
			repo = f.Config.Lock.Repo
		}
		for _, b := range branches {
			k := lock.Key{Repo: repo, Branch: b, Name: f.Config.Lock.Name, Verbatim: f.Config.Lock.Key}
			seen[k.ID()] = k
		}
	}
	keys := make([]lock.Key, 0, len(seen))
	for _, k := range seen {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].ID() < keys[j].ID() })
	return keys, nil
}

// identity is which repository a URL means.
func (f *Flows) identity(url string) (string, error) {
	u, err := f.repository(url)
	return u.Identity(), err
}

func (f *Flows) repository(url string) (giturl.URL, error) {
	dir, err := f.Git.Dir()
	if err != nil {
		return giturl.URL{}, err
	}
	u, err := giturl.Parse(url, dir)
	if err != nil {
		return giturl.URL{}, fmt.Errorf("identify the repository: %w", err)
	}
	return u, nil
}

// ready reports whether a lock is wanted for any of the URLs. It is an error when the settings for
// one are wrong.
func (f *Flows) ready(urls ...string) (wanted bool, err error) {
	for _, url := range urls {
		u, err := f.repository(url)
		if err != nil {
			return true, err
		}
		if included(f.Include, u) {
			return true, f.Misconfigured
		}
	}
	return false, nil
}

// included matches in any case, and the repository as it was spelled too: a pattern that misses one
// of its names would leave it without a lock.
func included(patterns []string, u giturl.URL) bool {
	for _, p := range patterns {
		p = strings.ToLower(p)
		if config.Matches(p, strings.ToLower(u.Identity())) || config.Matches(p, strings.ToLower(u.Spelled())) {
			return true
		}
	}
	return len(patterns) == 0
}
