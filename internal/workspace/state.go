package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/git-gitops/git-gitops/internal/file"
)

// StateError says that what a clone remembers cannot be read or written. It is not known
// then what there is, so it must not be taken for nothing.
type StateError struct {
	Path    string // file or folder
	Problem Problem
	Err     error
}

// Problem is what is wrong with state.
type Problem string

// The problems.
const (
	Missing    Problem = "find"
	Unreadable Problem = "read"
	Unwritable Problem = "write"
	Damaged    Problem = "understand" // cut short, or not ours
	Foreign    Problem = "use"        // of another version of git-gitops
)

func (e *StateError) Error() string { return fmt.Sprintf("cannot %s %s: %v", e.Problem, e.Path, e.Err) }

func (e *StateError) Unwrap() error { return e.Err }

func unreadable(path string, err error) error { return stateError(path, Unreadable, err) }
func unwritable(path string, err error) error { return stateError(path, Unwritable, err) }

func stateError(path string, p Problem, err error) error {
	var named *fs.PathError
	if errors.As(err, &named) { // the path is printed once
		path, err = named.Path, named.Err
	}
	return &StateError{Path: path, Problem: p, Err: err}
}

// modes are those of our folders and files. Whoever may change the repository, by
// core.sharedRepository or a umask, may change what it remembers; nobody else may read it.
func (d Dir) modes() (folder, file fs.FileMode) {
	folder, file = 0o700, 0o600
	info, err := os.Stat(filepath.Join(string(d), ".."))
	if err != nil {
		return folder, file
	}
	if info.Mode()&0o020 != 0 {
		folder, file = folder|0o070|info.Mode()&fs.ModeSetgid, file|0o060
	}
	if info.Mode()&0o002 != 0 {
		folder, file = folder|0o007, file|0o006
	}
	return folder, file
}

// make makes one of our folders.
func (d Dir) make(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return unwritable(folder, err)
	}
	mode, _ := d.modes()
	if info, err := os.Stat(folder); err == nil && info.Mode()&(fs.ModePerm|fs.ModeSetgid) != mode {
		_ = os.Chmod(folder, mode) // who may not do that has it from its owner as it is
	}
	return nil
}

// open opens one of our files.
func (d Dir) open(path string, flags int) (*os.File, error) {
	_, mode := d.modes()
	f, err := os.OpenFile(path, flags, mode) //nolint:gosec // our own folder
	if err != nil {
		return nil, unwritable(path, err)
	}
	if info, err := f.Stat(); err == nil && info.Mode().Perm() != mode {
		_ = f.Chmod(mode) // as above
	}
	return f, nil
}

// OpenLog opens the log of a clone's keepers to append to it.
func (d Dir) OpenLog(create bool) (*os.File, error) {
	flags := os.O_APPEND | os.O_WRONLY
	if create {
		flags |= os.O_CREATE
	}
	return d.open(filepath.Join(string(d), "keeper.log"), flags)
}

// Writable is a StateError when entries could not be written here.
func (d Dir) Writable() error {
	folder := string(d)
	for {
		err := access(folder)
		if up := filepath.Dir(folder); errors.Is(err, fs.ErrNotExist) && up != folder {
			folder = up
			continue
		}
		if err != nil {
			return unwritable(folder, err)
		}
		return nil
	}
}

// replace writes a whole file at once.
func (d Dir) replace(path string, data []byte) error {
	_, mode := d.modes()
	if err := file.Replace(path, append(data, '\n'), mode); err != nil {
		return unwritable(path, err)
	}
	return nil
}

// decode reads a file that others may rewrite. Nothing is found in an empty one.
func decode(path string, to any, found *int) (ok bool, err error) {
	f, err := os.Open(path) //nolint:gosec // our own folder
	if err != nil {
		return false, unreadable(path, err)
	}
	defer func() { _ = f.Close() }()
	flock(f, shared)
	data, err := io.ReadAll(f)
	switch {
	case err != nil:
		return false, unreadable(path, err)
	case len(data) == 0:
		return false, nil
	}
	if err := json.Unmarshal(data, to); err != nil {
		return false, &StateError{Path: path, Problem: Damaged, Err: err}
	}
	if *found != version {
		return false, &StateError{Path: path, Problem: Foreign, Err: fmt.Errorf("version %d is not known to this git-gitops", *found)}
	}
	return true, nil
}
