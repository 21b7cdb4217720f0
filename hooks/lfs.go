package hooks

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// HasLFS reports whether Git LFS has kept content of this repository.
func HasLFS(commonDir string) bool {
	_, err := os.Stat(filepath.Join(commonDir, "lfs"))
	return err == nil
}

// LFSUploader is the hook that uploads Git LFS content when git looks for hooks in a folder; ""
// when none does.
func LFSUploader(commonDir, dir string) string {
	hook := filepath.Join(dir, "pre-push")
	candidates := []string{hook}
	if Installed(dir) {
		candidates = append(Others(commonDir, hook), hook)
	}
	if i := slices.IndexFunc(candidates, RunsLFS); i >= 0 {
		return candidates[i]
	}
	if Installed(dir) {
		return hook
	}
	return ""
}

// Others are the pre-push hooks that git would have run without ours. commonDir is "" when it is
// not known.
func Others(commonDir, hook string) []string {
	var others []string
	if filepath.Base(hook) != hook { // a manager's name is no file, and a clone could bring one along
		others = append(others, hook+Chained)
	}
	if strings.HasPrefix(filepath.Base(hook), "pre-push.") { // a hook manager has renamed ours
		others = append(others, filepath.Join(filepath.Dir(hook), "pre-push"+Chained))
	}
	if commonDir == "" {
		return others
	}
	own := filepath.Join(commonDir, "hooks")
	if ForAll(filepath.Dir(hook)) {
		name := "pre-push"
		if Installed(own) { // once is enough
			name += Chained
		}
		others = append(others, filepath.Join(own, name))
	}
	return others
}
