package upgrade

import (
	"strings"
	"testing"
)

// Whatever a server's list says, what is picked from it is a file of the release's own folder, for
// our platform.
func FuzzPick(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	for _, list := range []string{
		"", "\n", "<html>", sum, sum + "  git-gitops_1.2.3_linux_amd64.tar.gz\n", sum + " *git-gitops_1.2.3_linux_amd64.tar.gz\r\n",
		sum + "  install.sh\n" + sum + "  git-gitops_1.2.3-rc.1_linux_amd64.tar.gz\n", "0a  git-gitops_1.2.3_linux_amd64.tar.gz\n",
		sum + "  git-gitops_../1.2.3_linux_amd64.tar.gz\n", sum + "  git-gitops__linux_amd64.tar.gz\n", sum + "  git-gitops_linux_amd64.tar.gz\n",
	} {
		f.Add(list, "")
		f.Add(list, "1.2.3")
	}
	f.Fuzz(func(t *testing.T, list, version string) {
		r, err := pick(list, version, Platform{OS: "linux", Arch: "amd64"})
		if err != nil {
			return
		}
		if _, ok := Known(r.Version); !ok || version != "" && r.Version != version {
			t.Errorf("asked for %q and picked the version %q", version, r.Version)
		}
		if r.file != "git-gitops_"+r.Version+"_linux_amd64.tar.gz" || strings.ContainsAny(r.file, "/\\%?# ") {
			t.Errorf("picked the file %q", r.file)
		}
		if !strings.Contains(strings.ToLower(list), r.sum+" ") {
			t.Errorf("the sum %q is not in %q", r.sum, list)
		}
	})
}
