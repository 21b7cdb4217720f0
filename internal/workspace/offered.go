package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
)

// Offered is a push that has left its commits to others, on a batch ref (docs/design.md, "Pushing
// together"). If it is killed, the next push of this clone has to know: they may have landed.
type Offered struct {
	Version int        `json:"version"`
	Repo    string     `json:"repo"`   // identity
	Branch  string     `json:"branch"` // short name
	Key     lock.Key   `json:"key"`    // of the branch's own lock
	Token   lock.Token `json:"token"`  // of the wait for it
	Ref     string     `json:"ref"`    // batch ref at the remote
	Marker  string     `json:"marker"` // object id that it has until the commits land
	Base    string     `json:"base"`   // the commits are those from here
	Tip     string     `json:"tip"`    // to here

	Host    string          `json:"host"`
	Process session.Process `json:"process"` // that pushes
}

// alive reports whether the push goes on, as far as can be seen from here.
func (o Offered) alive() bool { return o.Host == session.Host() && o.Process.Alive() }

// SaveOffered remembers a push of this process.
func (d Dir) SaveOffered(o Offered) error {
	var err error
	if o.Process, err = session.Lookup(os.Getpid()); err != nil {
		return fmt.Errorf("look up this process: %w", err)
	}
	o.Version, o.Host = version, session.Host()
	data, err := json.MarshalIndent(o, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the offer %s: %w", o.Ref, err)
	}
	file := d.offeredFile(o.Ref)
	if err := d.make(string(d)); err != nil {
		return err
	}
	if err := d.make(filepath.Dir(file)); err != nil {
		return err
	}
	return d.replace(file, data)
}

// Abandoned are the pushes to branches of a repository that have ended without forgetting theirs.
func (d Dir) Abandoned(repo string, branches []string) ([]Offered, error) {
	folder := filepath.Dir(d.offeredFile(""))
	files, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(folder, err)
	}
	var all []Offered
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") { // being written
			continue
		}
		var o Offered
		file := filepath.Join(folder, f.Name())
		found, err := decode(file, &o, &o.Version)
		switch {
		case errors.Is(err, fs.ErrNotExist): // ended just now
		case err != nil:
			return nil, err
		case !found:
			return nil, &StateError{Path: file, Problem: Damaged, Err: errors.New("it is empty")}
		case o.Repo == repo && slices.Contains(branches, o.Branch) && !o.alive():
			all = append(all, o)
		}
	}
	return all, nil
}

// ForgetOffered forgets the push with this batch ref.
func (d Dir) ForgetOffered(ref string) error {
	file := d.offeredFile(ref)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(file, err)
	}
	return nil
}

func (d Dir) offeredFile(ref string) string {
	return filepath.Join(string(d), "offered", path.Base(ref)+".json")
}
