package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// seen is what a clone has last known a branch of a remote to be. It outlives every lock: what a
// later forced push may overwrite is decided by it.
type seen struct {
	Version int    `json:"version"`
	Repo    string `json:"repo"`
	Branch  string `json:"branch"`
	Tip     string `json:"tip"` // "": it did not exist
}

// See remembers that a branch of a repository is at tip, because this clone has put it there; with
// tip "", that it has deleted it.
func (d Dir) See(repo, branch, tip string) error {
	if err := d.Expect(repo, branch); err != nil {
		return err
	}
	return d.SeeExpected(repo, branch, tip)
}

// Expect makes room for what SeeExpected will remember, and leaves alone what is remembered
// already.
func (d Dir) Expect(repo, branch string) error {
	file := d.seenFile(repo, branch)
	if err := d.make(string(d)); err != nil {
		return err
	}
	if err := d.make(filepath.Dir(file)); err != nil {
		return err
	}
	f, err := d.open(file, os.O_CREATE|os.O_WRONLY)
	if err != nil {
		return err
	}
	return f.Close()
}

// SeeExpected is See where Expect has been: it makes no file, so that it can be called while
// somebody deletes the clone.
func (d Dir) SeeExpected(repo, branch, tip string) error {
	data, err := json.MarshalIndent(seen{Version: version, Repo: repo, Branch: branch, Tip: tip}, "", "\t")
	if err != nil {
		return fmt.Errorf("encode what is seen of %s: %w", branch, err)
	}
	return d.rewrite(d.seenFile(repo, branch), data)
}

// Seen is what See has last remembered of a branch; ok is false if nothing.
func (d Dir) Seen(repo, branch string) (tip string, ok bool, err error) {
	var s seen
	ok, err = decode(d.seenFile(repo, branch), &s, &s.Version)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return s.Tip, ok, err
}

func (d Dir) seenFile(repo, branch string) string {
	k := lock.Key{Repo: repo, Branch: branch}
	return filepath.Join(string(d), "seen", filepath.Base(d.file(k)))
}
