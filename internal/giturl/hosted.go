package giturl

import (
	"slices"
	"strings"
)

// Ports that a URL of the scheme need not name, beside 80 and 443.
var defaultPorts = map[string]string{"git": "9418", "ftp": "21", "ftps": "990"}

// Hosts that answer under a second name, such as one for ssh through firewalls.
var aliases = map[string]string{
	"ssh.github.com":          "github.com",
	"www.github.com":          "github.com",
	"altssh.gitlab.com":       "gitlab.com",
	"www.gitlab.com":          "gitlab.com",
	"altssh.bitbucket.org":    "bitbucket.org",
	"www.bitbucket.org":       "bitbucket.org",
	"vs-ssh.visualstudio.com": azureSSH,
}

const (
	azure    = "dev.azure.com"
	azureSSH = "ssh.dev.azure.com"
)

// Hosts that take the letters of a path in any case. On others two repositories may differ by case
// alone.
var caseless = []string{"github.com", "gitlab.com", "bitbucket.org", "codeberg.org", azure}

// hosted makes one of the ways in which servers spell the same repository; p is a clean path.
//
// A port of ssh does not count: with https it is another, or none, for the same repository. One of
// http does, as people do run two servers on one machine, unless the server is known to have its
// ssh elsewhere.
func hosted(scheme, host, port, p string) (_, _, _ string) {
	ssh := slices.Contains([]string{"ssh", "git+ssh", "ssh+git"}, scheme)
	bitbucket := ssh && port == "7999"
	if ssh || port == "80" || port == "443" || port == defaultPorts[scheme] {
		port = ""
	}
	if name, ok := aliases[host]; ok {
		host = name
	}
	parts := strings.Split(p, "/")

	// Azure DevOps: ssh has v3/ORG/PROJECT/REPO, https ORG/PROJECT/_git/REPO, and long ago the
	// organization was in the host and a collection in the path. Without a project it is the one of
	// the repository's name.
	org, old := strings.CutSuffix(host, ".visualstudio.com")
	switch {
	case host == azureSSH && len(parts) == 4 && parts[0] == "v3":
		host, parts = azure, []string{parts[1], parts[2], "_git", parts[3]}
	case old && org != "" && !strings.Contains(org, "."):
		if lower(parts[0]) == "defaultcollection" && len(parts) > 1 {
			parts = parts[1:]
		}
		if n := len(parts); n >= 2 && n <= 3 && parts[n-2] == "_git" {
			host, parts = azure, append([]string{org}, parts...)
		}
	}
	if host == azure {
		port = ""
		if len(parts) == 3 && parts[1] == "_git" {
			parts = slices.Insert(parts, 1, parts[2])
		}
	}

	// Bitbucket Server: PROJECT/REPO at its own port of ssh, scm/PROJECT/REPO elsewhere. Keys of
	// projects are upper-case, and found in lower case too. No other server can tell the two apart:
	// what has no port 7999 is read alike with ssh.
	if len(parts) == 3 && parts[0] == "scm" {
		bitbucket, port, parts = true, "", parts[1:]
	}
	if bitbucket && len(parts) == 2 && isProjectKey(parts[0]) {
		parts[0] = lower(parts[0])
	}

	// Gerrit: a/ before the path asks http clients to log in. Elsewhere it may be a group of that
	// name.
	if isGerrit(host) {
		port = ""
		if !ssh && len(parts) > 1 && parts[0] == "a" {
			parts = parts[1:]
		}
	}

	p = strings.Join(parts, "/")
	if slices.Contains(caseless, host) || strings.HasSuffix(host, ".ghe.com") {
		p = foldPath(p)
	}
	return host, port, p
}

// foldPath makes letters small, but not those of %XX, which has one spelling.
func foldPath(p string) string {
	head, rest, escaped := strings.Cut(p, "%")
	if !escaped || len(rest) < 2 {
		return lower(p)
	}
	return lower(head) + "%" + rest[:2] + foldPath(rest[2:])
}

func isProjectKey(s string) bool {
	return s != "" && s[0] >= 'A' && s[0] <= 'Z' && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// isGerrit is true only where the host's name leaves no doubt.
func isGerrit(host string) bool {
	first, _, _ := strings.Cut(host, ".")
	return strings.HasSuffix(host, ".googlesource.com") || first == "gerrit"
}
