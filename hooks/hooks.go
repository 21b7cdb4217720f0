// Package hooks owns git's hooks: the scripts that are installed, where and how, what was there
// before, and the protocol that git speaks with a pre-push hook.
package hooks

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/file"
)

//go:embed scripts
var scripts embed.FS

// Chained is the ending of the name under which a hook that was there before is kept, and called.
const Chained = ".chained"

const hookMode = 0o755

// known are the hooks that git looks for in core.hooksPath (githooks(5)), but for pre-push.
var known = []string{
	"applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit",
	"prepare-commit-msg", "commit-msg", "post-commit", "pre-rebase", "post-checkout", "post-merge",
	"pre-receive", "update", "proc-receive", "post-receive", "post-update", "reference-transaction",
	"pre-auto-gc", "post-rewrite", "sendemail-validate", "post-index-change",
	"push-to-checkout", "p4-changelist", "p4-prepare-changelist", "p4-post-changelist", "p4-pre-submit",
}

// scriptFor is the script that stands in for a hook in a folder for all repositories.
func scriptFor(name string) []byte {
	switch name {
	case "pre-push":
		return script("pre-push")
	case "push-to-checkout": // that it is there at all turns off what git does by itself
		return script("push-to-checkout")
	default:
		return script("passthrough")
	}
}

// ManagedError says that the hooks of a folder belong to a hook manager, which would undo what we
// write there.
type ManagedError struct {
	Manager string
	File    string
	Advice  string // what to add to the manager's own configuration
}

func (e *ManagedError) Error() string {
	return fmt.Sprintf("%s is managed by %s", e.File, e.Manager)
}

// lefthookFiles are the names that lefthook's configuration may have.
var lefthookFiles = []string{"lefthook.yml", ".lefthook.yml", "lefthook.yaml", ".lefthook.yaml", "lefthook-local.yml"}

// managers are known by a word in their hook, and by files in the work tree: those that may run our
// hook, and those that are there wherever the manager is used.
var managers = []struct {
	name, mark, advice string
	files, marks       []string
}{
	{"husky", "husky", `add to .husky/pre-push: git-gitops pre-push "$0" "$@"`, []string{".husky/pre-push"}, []string{".husky"}},
	{"lefthook", "lefthook", "add to lefthook.yml, with use_stdin: true: pre-push: commands: gitops: run: git-gitops pre-push lefthook {0}", lefthookFiles, lefthookFiles},
	{"pre-commit", "pre-commit.com", "let pre-commit find the git-gitops hook, which it then runs as pre-push.legacy: pre-commit uninstall -t pre-push && git gitops install && pre-commit install -t pre-push", nil, []string{".pre-commit-config.yaml"}},
	{"overcommit", "overcommit", "add to .overcommit.yml: PrePush: {Gitops: {enabled: true, command: [git-gitops, pre-push, overcommit]}}", []string{".overcommit.yml"}, []string{".overcommit.yml"}},
}

// Install writes the pre-push hook into a folder of hooks. A hook that is there already is kept
// under another name and called first. It reports whether anything was changed.
func Install(dir string) (changed bool, err error) {
	path := filepath.Join(dir, "pre-push")
	if slices.Contains(strings.Split(filepath.ToSlash(path), "/"), ".husky") {
		return false, &ManagedError{Manager: "husky", File: path, Advice: managers[0].advice} // its newer hooks do not name it
	}
	old, err := os.ReadFile(path) //nolint:gosec // the user's own hook
	if _, missing := os.Lstat(path); missing == nil && errors.Is(err, fs.ErrNotExist) {
		err = nil // a link to nothing, which is to be put back as well
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, fmt.Errorf("read hook: %w", err)
	case bytes.Equal(old, script("pre-push")) && Runs(path):
		return false, nil
	case ours(old):
		return true, write(path, script("pre-push")) // of another version, or not executable
	default:
		for _, m := range managers {
			if bytes.Contains(old, []byte(m.mark)) {
				return false, &ManagedError{Manager: m.name, File: path, Advice: m.advice}
			}
		}
		if _, err := os.Lstat(path + Chained); err == nil {
			return false, fmt.Errorf("%s: both it and %s exist, and neither was written by git-gitops", path, path+Chained)
		}
		if err := os.Rename(path, path+Chained); err != nil {
			return false, fmt.Errorf("keep the existing hook: %w", err)
		}
	}
	return true, write(path, script("pre-push"))
}

// InstallAll writes a folder for core.hooksPath: the pre-push hook, and for all others one that
// calls the repository's own, which git would no longer find.
func InstallAll(dir string) (changed bool, err error) {
	for _, name := range append([]string{"pre-push"}, known...) {
		text := scriptFor(name)
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) && Runs(path) { //nolint:gosec // our own folder
			continue
		}
		if err := write(path, text); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// Aside is our hook under another name, where a hook manager has put it.
type Aside struct {
	Path    string
	Manager string
	Runs    bool // the manager runs it from there
	Advice  string
}

// SetAside is where a hook manager has put our hook aside; nil when none has.
func SetAside(dir string) *Aside {
	for _, a := range []struct {
		name, manager string
		runs          bool
	}{{"pre-push.legacy", "pre-commit", true}, {"pre-push.old", "lefthook", false}, {"old-hooks/pre-push", "overcommit", false}} {
		path := filepath.Join(dir, filepath.FromSlash(a.name))
		if isOurs(path) {
			return &Aside{Path: path, Manager: a.manager, Runs: a.runs, Advice: adviceFor(a.manager)}
		}
	}
	return nil
}

// Callers are the files of a work tree that tell a hook manager to run our hook.
func Callers(workTree string) (files []string) {
	for _, m := range managers {
		for _, name := range m.files {
			path := filepath.Join(workTree, filepath.FromSlash(name))
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte("git-gitops pre-push")) { //nolint:gosec // the user's own file
				files = append(files, path)
			}
		}
	}
	return files
}

// Expected are the hook managers that a work tree is set up for, as far as they would put a hook of
// ours where it does not run, each with what to do instead.
func Expected(workTree string) (all []ManagedError) {
	for _, m := range managers {
		if m.name == "pre-commit" { // it runs what it finds
			continue
		}
		if slices.ContainsFunc(Callers(workTree), func(path string) bool {
			rel, err := filepath.Rel(workTree, path)
			return err == nil && slices.Contains(m.files, filepath.ToSlash(rel))
		}) {
			continue
		}
		for _, name := range m.marks {
			path := filepath.Join(workTree, name)
			if _, err := os.Stat(path); err == nil {
				all = append(all, ManagedError{Manager: m.name, File: path, Advice: m.advice})
				break
			}
		}
	}
	return all
}

// Uninstall removes our hook from a folder, also where a hook manager has put it, and puts the one
// that was there before back, byte for byte. Hooks that are not ours are left alone. It reports
// whether anything was changed.
func Uninstall(dir string) (changed bool, err error) {
	before := filepath.Join(dir, "pre-push"+Chained)
	path := filepath.Join(dir, "pre-push")
	for {
		if !isOurs(path) {
			aside := SetAside(dir)
			if aside == nil {
				return changed, nil
			}
			path = aside.Path
		}
		if err := putBack(before, path); err != nil {
			return changed, err
		}
		changed = true
	}
}

// putBack restores the hook that was there before, or removes the git-gitops hook if there was
// none.
func putBack(before, path string) error {
	err := os.Rename(before, path)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("remove hook: %w", err)
	}
	return nil
}

func isOurs(path string) bool {
	text, err := os.ReadFile(path) //nolint:gosec // the user's own hook
	return err == nil && ours(text)
}

// Runs reports whether git runs a hook: it ignores a file that nobody may execute.
func Runs(path string) bool {
	info, err := os.Stat(path)
	return err == nil && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0)
}

func adviceFor(manager string) string {
	for _, m := range managers {
		if m.name == manager {
			return m.advice
		}
	}
	return ""
}

// UninstallAll removes what InstallAll wrote, and the folder if nothing else is in it.
func UninstallAll(dir string) (changed bool, err error) {
	for _, name := range append([]string{"pre-push"}, known...) {
		path := filepath.Join(dir, name)
		if text, err := os.ReadFile(path); err != nil || !ours(text) { //nolint:gosec // our own folder
			continue
		}
		if err := os.Remove(path); err != nil {
			return changed, fmt.Errorf("remove hook: %w", err)
		}
		changed = true
	}
	_ = os.Remove(dir)
	return changed, nil
}

// RunsLFS reports whether git would run a hook, and it uploads the content of Git LFS.
func RunsLFS(path string) bool {
	text, err := os.ReadFile(path) //nolint:gosec // the user's own hook
	return err == nil && Runs(path) && (bytes.Contains(text, []byte("git lfs")) || bytes.Contains(text, []byte("git-lfs")))
}

// Installed reports whether a folder has our pre-push hook, and git runs it.
func Installed(dir string) bool {
	path := filepath.Join(dir, "pre-push")
	return isOurs(path) && Runs(path)
}

// RunsOther reports whether git would run a hook of a folder that is not ours, or that ours calls.
func RunsOther(dir, name string) bool {
	return Runs(filepath.Join(dir, name)) && (name != "pre-push" || !onlyOurs(dir))
}

// onlyOurs reports whether the pre-push hook of a folder is ours and calls no other one.
func onlyOurs(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "pre-push"+Chained))
	return Installed(dir) && !ForAll(dir) && errors.Is(err, fs.ErrNotExist)
}

// ForAll reports whether a folder is InstallAll's, which hides the hooks of repositories.
func ForAll(dir string) bool {
	return isOurs(filepath.Join(dir, known[0]))
}

// ours reports whether a hook was written by any version of this program: its second line says so.
func ours(text []byte) bool {
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	return bytes.HasPrefix(rest, []byte("# Installed by git-gitops: "))
}

func script(name string) []byte {
	text, err := scripts.ReadFile("scripts/" + name)
	if err != nil {
		panic(err) // it is part of this program
	}
	return text
}

// write replaces a hook whole, so that a push at this moment finds the one or the other.
func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // git's own mode for this folder
		return fmt.Errorf("make folder of hooks: %w", err)
	}
	if err := file.Replace(path, text, hookMode); err != nil {
		return fmt.Errorf("write hook: %w", err)
	}
	return nil
}

// Update is one ref that a push would update, as git tells a pre-push hook.
type Update struct {
	LocalRef, LocalOID   string // "(delete)" and zeros for a ref that would be deleted
	RemoteRef, RemoteOID string // zeros for a ref that would be new
}

// ReadUpdates reads what git gives a pre-push hook on stdin (githooks(5)): lines of
//
//	<local ref> SP <local object name> SP <remote ref> SP <remote object name> LF
func ReadUpdates(r io.Reader) ([]Update, error) {
	var all []Update
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), " ")
		if len(fields) < 4 || fields[len(fields)-1] == "" {
			return nil, fmt.Errorf("unexpected line %q from git", lines.Text())
		}
		// The local ref may be any expression that the user wrote, with spaces in it.
		n := len(fields)
		all = append(all, Update{
			LocalRef: strings.Join(fields[:n-3], " "), LocalOID: fields[n-3],
			RemoteRef: fields[n-2], RemoteOID: fields[n-1],
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read what git pushes: %w", err)
	}
	return all, nil
}
