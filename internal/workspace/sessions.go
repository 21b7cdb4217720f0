package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/git-gitops/git-gitops/internal/lock"
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
// what tells a waiter that it could be part of a deadlock.
func sessionDir(session string) (string, error) {
	home, err := StateHome()
	return filepath.Join(home, "sessions", session), err
}

// Enrol notes that a session holds the lock of an entry. session is an ID that can be a file name.
func (d Dir) Enrol(e Entry) error {
	dir, err := sessionDir(e.Session)
	if err != nil || e.Session == "" {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("note the session's lock: %w", err)
	}
	link := filepath.Join(dir, string(e.Token)+".json")
	if err := os.Symlink(d.file(e.Key), link); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("note the session's lock: %w", err)
	}
	return nil
}

// Dismiss undoes Enrol.
func Dismiss(e Entry) {
	if dir, err := sessionDir(e.Session); err == nil && e.Session != "" {
		_ = os.Remove(filepath.Join(dir, string(e.Token)+".json"))
		_ = os.Remove(dir) // when that was the last
	}
}

// Held are the locks that a session holds.
func Held(session string) []lock.Key {
	dir, err := sessionDir(session)
	if err != nil || session == "" {
		return nil
	}
	links, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var keys []lock.Key
	for _, l := range links {
		e, err := read(filepath.Join(dir, l.Name()))
		if err == nil {
			keys = append(keys, e.Key)
		}
		if errors.Is(err, fs.ErrNotExist) { // its clone was deleted
			_ = os.Remove(filepath.Join(dir, l.Name()))
		}
	}
	return keys
}

// HoldsOther reports whether a session holds a lock other than k.
func HoldsOther(session string, k lock.Key) bool {
	return slices.ContainsFunc(Held(session), func(held lock.Key) bool { return held.ID() != k.ID() })
}
