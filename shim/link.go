package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// MakeLink makes a link named git in dir to self, the path of our own executable. A link that is
// there already is left; anything else of that name is an error. It reports whether it changed
// anything.
func MakeLink(dir, self string) (changed bool, err error) {
	path := filepath.Join(dir, LinkName)
	if sameFile(path, self) {
		return false, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return false, fmt.Errorf("%s exists and is not a link to %s", path, self)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a folder of programs
		return false, fmt.Errorf("make folder: %w", err)
	}
	if err := os.Symlink(self, path); err != nil {
		return false, fmt.Errorf("make link: %w", err)
	}
	return true, nil
}

// RemoveLink removes the link that MakeLink made, and the folder if that leaves it empty.
func RemoveLink(dir, self string) (changed bool, err error) {
	path := filepath.Join(dir, LinkName)
	if !sameFile(path, self) {
		return false, nil
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return false, errors.Join(err, fmt.Errorf("%s is not a link", path))
	}
	if err := os.Remove(path); err != nil {
		return false, fmt.Errorf("remove link: %w", err)
	}
	_ = os.Remove(dir)
	return true, nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// PathLine is the line that puts dir first on PATH, for a shell's name or path ("/bin/zsh"); what
// is not fish is taken for a POSIX shell.
func PathLine(shell, dir string) string {
	if filepath.Base(shell) == "fish" {
		return "set -gx PATH '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(dir) + "' $PATH"
	}
	return "export PATH=" + ShellWord(dir) + `:"$PATH"`
}

// ShellWord is a word for a POSIX shell.
func ShellWord(s string) string {
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-/@:+,", r)
	}
	if s != "" && !strings.ContainsFunc(s, odd) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
