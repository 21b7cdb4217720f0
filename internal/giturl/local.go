package giturl

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// parseFile reads what follows file://; a host there means nothing to git.
func parseFile(rest, dir string, windows bool) (URL, error) {
	rest = dropUserinfo(rest)
	p := decode(rest)
	if !windows || !hasDrive(p) {
		slash := strings.IndexByte(p, '/')
		if slash < 0 {
			return URL{}, errPath
		}
		p = p[slash:]
		if windows && hasDrive(p[1:]) {
			p = p[1:]
		}
	}
	return parseLocal("file://"+rest, p, dir)
}

// parseLocal reads a path; raw is how it was written.
func parseLocal(raw, p, dir string) (URL, error) {
	if !filepath.IsAbs(p) {
		base, err := filepath.Abs(dir)
		if err != nil {
			return URL{}, err
		}
		p = base + string(filepath.Separator) + p // not Join: it would resolve a/.. although a may be a symlink
	}
	found, bundle := findRepository(p)
	found = resolve(found)
	for !bundle {
		short := filepath.Clean(strings.TrimSuffix(found, ".git"))
		if short == found {
			break
		}
		found = short
	}
	return URL{identity: visible(filepath.ToSlash(found), ""), text: Redact(visible(raw, ""))}, nil
}

// At is the absolute path of the repository or bundle that word names as a path relative to dir, or
// false when there is none. git clone asks this before all else (get_repo_path in builtin/clone.c),
// so that there a path may look like host:path.
func At(word, dir string) (path string, ok bool) {
	path = word
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	found, bundle := findRepository(path)
	return path, bundle || isRepository(found)
}

// findRepository is get_repo_path in builtin/clone.c: the folder of the repository that p means, or
// p itself when there is none. bundle says that it is a file. As pushes to any work tree of a
// repository update the same branches, the answer for a linked one is the repository itself.
func findRepository(p string) (found string, bundle bool) {
	if trimmed := strings.TrimRight(p, "/"); trimmed != "" {
		p = trimmed
	}
	for _, suffix := range []string{"/.git", "", ".git/.git", ".git"} {
		candidate := p + suffix
		info, err := os.Stat(candidate)
		if err != nil {
			continue
		}
		if info.Mode().IsRegular() {
			candidate = followFile(candidate, "gitdir: ")
		}
		if candidate != "" && isRepository(candidate) {
			if common := followFile(filepath.Join(candidate, "commondir"), ""); common != "" {
				candidate = common
			}
			return candidate, false
		}
	}
	for _, suffix := range []string{".bundle", ""} {
		if info, err := os.Stat(p + suffix); err == nil && info.Mode().IsRegular() {
			return p + suffix, true
		}
	}
	return p, false
}

// isRepository is is_git_directory in setup.c, as far as the shape goes.
func isRepository(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, "HEAD")); err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, "commondir")); err == nil {
		return true
	}
	return isDir(filepath.Join(dir, "objects")) && isDir(filepath.Join(dir, "refs"))
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// followFile returns the path that the file name holds behind prefix, relative to the folder of the
// file, or "" when it holds none.
func followFile(name, prefix string) string {
	f, err := os.Open(name) //nolint:gosec // the user named this repository
	if err != nil {
		return ""
	}
	defer f.Close()                                       //nolint:errcheck // only read
	content, err := io.ReadAll(io.LimitReader(f, 64<<10)) // a bundle can be large; a gitfile is one path
	target, ok := strings.CutPrefix(strings.TrimRight(string(content), "\r\n"), prefix)
	if err != nil || !ok || target == "" {
		return ""
	}
	if filepath.IsAbs(target) {
		return target
	}
	return filepath.Dir(name) + string(filepath.Separator) + target
}

// resolve makes the absolute path p free of symlinks, as far as it exists.
func resolve(p string) string {
	sep := string(filepath.Separator)
	p = filepath.FromSlash(p)
	for range 40 { // what does not exist may step back, with "..", into what does
		head, tail := p, ""
		real, err := filepath.EvalSymlinks(head)
		for err != nil {
			i := strings.LastIndex(strings.TrimRight(head, sep), sep)
			if i < 0 {
				return filepath.Clean(p)
			}
			tail = head[i:] + tail
			head = head[:i]
			real, err = filepath.EvalSymlinks(head + sep)
		}
		next := filepath.Clean(real + sep + tail)
		if next == p {
			break
		}
		p = next
	}
	return p
}
