// Package file replaces whole files. No library that is kept sets the mode as well, on
// Windows too, and without a sync that most files here do not need.
package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Replace puts data in the place of a file, or makes it. Whoever opens the file finds the old or
// the new one, whole; whoever has the old one open goes on with it. What prepare does to the new
// one is done before it is there for others.
func Replace(path string, data []byte, mode fs.FileMode, prepare ...func(*os.File) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".git-gitops-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	for _, do := range prepare {
		if err == nil {
			err = do(tmp)
		}
	}
	if err == nil {
		err = tmp.Chmod(mode) // last: a change of the owner drops bits
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// rename puts one file in the place of another. On Windows a program that runs cannot be replaced,
// but it can be renamed; the next replacement removes it.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if err == nil || runtime.GOOS != "windows" {
		return err
	}
	aside := to + ".old"
	_ = os.Remove(aside)
	if os.Rename(to, aside) != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Rename(aside, to))
	}
	return nil
}
