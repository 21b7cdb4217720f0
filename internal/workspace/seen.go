package workspace

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// seen is what a clone has last known a branch of a remote to be. It outlives every lock: what a later
// forced push may overwrite is decided by it.
type seen struct {
	Version int    `json:"version"`
	Repo    string `json:"repo"`
	Branch  string `json:"branch"`
	Tip     string `json:"tip"` // "": it did not exist
}

// See remembers that a branch of a repository is at tip, because this clone has put it there; with tip
// "", that it has deleted it.
func (d Dir) See(repo, branch, tip string) error {
	if err := d.Expect(repo, branch); err != nil {
		return err
	}
	return d.SeeExpected(repo, branch, tip)
}

// Expect makes room for what SeeExpected will remember, and leaves alone what is remembered already.
func (d Dir) Expect(repo, branch string) error {
	file := d.seenFile(repo, branch)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // our own folder
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return f.Close()
}

// SeeExpected is See where Expect has been: it makes no file, so that it can be called while somebody
// deletes the clone.
func (d Dir) SeeExpected(repo, branch, tip string) error {
	data, err := json.MarshalIndent(seen{Version: version, Repo: repo, Branch: branch, Tip: tip}, "", "\t")
	if err != nil {
		return fmt.Errorf("encode what is seen of %s: %w", branch, err)
	}
	return rewrite(d.seenFile(repo, branch), data)
}

// Seen is what See was last told of a branch.
func (d Dir) Seen(repo, branch string) (tip string, ok bool) {
	data, err := readFile(d.seenFile(repo, branch))
	var s seen
	if err != nil || json.Unmarshal(data, &s) != nil || s.Version != version {
		return "", false
	}
	return s.Tip, true
}

func (d Dir) seenFile(repo, branch string) string {
	k := lock.Key{Repo: repo, Branch: branch}
	return filepath.Join(string(d), "seen", filepath.Base(d.file(k)))
}
