package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// StateHome is the user's folder for what belongs to no repository (XDG Base Directory
// Specification).
func StateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "git-gitops"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &StateError{Path: "the state folder", Problem: Missing, Err: err}
	}
	return filepath.Join(home, ".local", "state", "git-gitops"), nil
}

// A script's folder has one link for each lock that it holds, to the entry in the clone. From
// these a waiter sees that it could be part of a deadlock. A user without a state folder, or with
// one that cannot be written, has it among the temporary files.
func sessionDirs(session string) []string {
	var dirs []string
	if home, err := StateHome(); err == nil {
		dirs = append(dirs, filepath.Join(home, "sessions", session))
	}
	if tmp := tmpHome(); private(tmp) {
		dirs = append(dirs, filepath.Join(tmp, session))
	}
	return dirs
}

func tmpHome() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("git-gitops-%d", os.Getuid()))
}

// LinkSession notes that a script holds the lock of an entry.
func (d Dir) LinkSession(e Entry) error {
	return noteSession(e, func(file string) error { return os.Symlink(d.file(e.Key), file) })
}

// NoteSession is LinkSession for an entry that is in no clone.
func NoteSession(e Entry) error {
	return noteSession(e, func(file string) error {
		dir := Dir(filepath.Dir(file))
		return dir.write(e, func(_ string, data []byte) error { return dir.replace(file, data) })
	})
}

func noteSession(e Entry, note func(file string) error) error {
	if e.script() == "" {
		return nil
	}
	in := func(folder string) error {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("make the folder of a script: %w", err)
		}
		if err := note(filepath.Join(folder, string(e.Own())+".json")); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	home, err := StateHome()
	if err == nil {
		err = in(filepath.Join(home, "sessions", e.script()))
	}
	if err == nil {
		return nil
	}
	tmp := tmpHome()
	_ = os.Mkdir(tmp, 0o700) // it may be there already
	if private(tmp) && in(filepath.Join(tmp, e.script())) == nil {
		return nil
	}
	return fmt.Errorf("deadlocks of this script will not be noticed: %w", err)
}

func (e Entry) script() string {
	if e.Script != "" {
		return e.Script
	}
	return e.Session
}

// UnlinkSession undoes LinkSession and NoteSession.
func UnlinkSession(e Entry) {
	if e.script() == "" {
		return
	}
	for _, dir := range sessionDirs(e.script()) {
		_ = os.Remove(filepath.Join(dir, string(e.Own())+".json"))
		_ = os.Remove(dir) // when that was the last
	}
}

// Held are the entries of the locks that a script holds, by its ID. What cannot be read is left
// out: only the finding of deadlocks needs it.
func Held(script string) []Entry {
	if script == "" {
		return nil
	}
	var entries []Entry
	for _, dir := range sessionDirs(script) {
		links, _ := os.ReadDir(dir)
		for _, l := range links {
			if filepath.Ext(l.Name()) != ".json" { // being written
				continue
			}
			e, err := read(filepath.Join(dir, l.Name()))
			switch {
			case err == nil && string(e.Own())+".json" == l.Name():
				entries = append(entries, e)
			case err == nil || errors.Is(err, fs.ErrNotExist): // its clone was deleted, or has another lock
				_ = os.Remove(filepath.Join(dir, l.Name()))
			}
		}
	}
	return entries
}

// Clones are the folders of the clones in which a session holds locks.
func Clones(session string) []Dir {
	var dirs []Dir
	if session == "" {
		return nil
	}
	for _, links := range sessionDirs(session) {
		found, _ := os.ReadDir(links)
		for _, l := range found {
			target, err := os.Readlink(filepath.Join(links, l.Name()))
			if dir := Dir(filepath.Dir(target)); err == nil && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// deepest is how many levels below a folder clones are looked for.
const deepest = 5

// Below are the folders of the clones in a folder that remember locks. A clone that cannot be
// read is an error; other such folders are skipped.
func Below(root string) (dirs []Dir, err error) {
	var errs []error
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch rel, _ := filepath.Rel(root, path); {
		case err != nil || !d.IsDir():
			return nil
		case d.Name() == ".git":
			switch _, err := os.Stat(string(At(path))); {
			case err == nil:
				dirs = append(dirs, At(path))
			case !errors.Is(err, fs.ErrNotExist):
				errs = append(errs, unreadable(string(At(path)), err))
			}
			return fs.SkipDir
		case strings.Count(rel, string(filepath.Separator)) >= deepest:
			return fs.SkipDir
		}
		return nil
	})
	return dirs, errors.Join(errs...)
}
