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
		return "", fmt.Errorf("find the state folder: %w", err)
	}
	return filepath.Join(home, ".local", "state", "git-gitops"), nil
}

// A session's folder has one link for each lock that it holds, to the entry in the clone. It is
// what tells a waiter that it could be part of a deadlock. Who has no state folder, or none to write
// to, has it among the temporary files.
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

// LinkSession notes that a session holds the lock of an entry. session is an ID that can be a file name.
func (d Dir) LinkSession(e Entry) error {
	if e.Session == "" {
		return nil
	}
	home, err := StateHome()
	if err == nil {
		err = d.link(e, filepath.Join(home, "sessions", e.Session))
	}
	if err == nil {
		return nil
	}
	tmp := tmpHome()
	_ = os.Mkdir(tmp, 0o700) // it may be there already
	if private(tmp) && d.link(e, filepath.Join(tmp, e.Session)) == nil {
		return nil
	}
	return fmt.Errorf("deadlocks of this script will not be noticed: %w", err)
}

func (d Dir) link(e Entry, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err := os.Symlink(d.file(e.Key), filepath.Join(dir, string(e.Own())+".json"))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// UnlinkSession undoes LinkSession.
func UnlinkSession(e Entry) {
	if e.Session == "" {
		return
	}
	for _, dir := range sessionDirs(e.Session) {
		_ = os.Remove(filepath.Join(dir, string(e.Own())+".json"))
		_ = os.Remove(dir) // when that was the last
	}
}

// Held are the entries of the locks that a session holds.
func Held(session string) []Entry {
	if session == "" {
		return nil
	}
	var entries []Entry
	for _, dir := range sessionDirs(session) {
		links, _ := os.ReadDir(dir)
		for _, l := range links {
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

// Below are the folders of the clones in a folder that remember locks. A clone that does not tell is an error;
// other folders that cannot be read are passed over.
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
