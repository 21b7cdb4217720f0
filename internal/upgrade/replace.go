package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Replace puts a program in the place of the file that path leads to. It is the old or the new one
// at every moment; whoever runs the old one goes on with it.
func Replace(path string, program []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	old, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".git-gitops-*")
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(program)
	if err == nil {
		err = tmp.Sync() // a machine that crashes now must not find an empty program
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Chmod(tmp.Name(), old.Mode().Perm())
	}
	if err == nil {
		err = swap(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}

func swap(from, path string) error {
	if runtime.GOOS != "windows" {
		return os.Rename(from, path)
	}
	// A program that runs cannot be replaced there, but it can be renamed; the next upgrade removes
	// it.
	aside := path + ".old"
	_ = os.Remove(aside)
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if err := os.Rename(from, path); err != nil {
		return errors.Join(err, os.Rename(aside, path))
	}
	return nil
}
