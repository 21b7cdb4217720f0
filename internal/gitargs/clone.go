package gitargs

import (
	"errors"
	"os"
	"slices"
	"strings"
)

// CloneArgs is what the arguments of `git clone` say, as far as the lock needs it.
type CloneArgs struct {
	URL string // as written; may hold a password
	Dir string // "" when not given, see Directory

	Branch         string // -b, --branch: a branch or a tag; "" when not given
	Revision       string // --revision (git 2.49): HEAD is detached, there is no branch
	SeparateGitDir string // --separate-git-dir
	Depth          string // --depth, as written

	// Config holds each key=value of -c, --config. They may hold secrets.
	Config []string

	Bare         bool // also set by Mirror
	Mirror       bool
	Quiet        bool
	NoCheckout   bool
	Shallow      bool // any of --depth, --shallow-since, --shallow-exclude
	SingleBranch bool // asked for; a shallow clone is single-branch without it
	Ahead        bool // what this clone makes can be brought up to date later (see Snapshot)
	Help         bool // usage was asked for: git prints it and clones nothing
}

// cloneOptions are the options of git clone in git 2.39 and what newer ones added
// (builtin/clone.c).
var cloneOptions = []option{
	{"verbose", 'v', noValue},
	{"quiet", 'q', noValue},
	{"progress", 0, noValue},
	{"reject-shallow", 0, noValue},
	{"no-checkout", 'n', noValue},
	{"bare naked", 0, noValue},
	{"mirror", 0, noValue},
	{"local", 'l', noValue},
	{"no-hardlinks", 0, noValue},
	{"shared", 's', noValue},
	{"recurse-submodules recursive", 0, optionalValue},
	{"jobs", 'j', needsValue},
	{"template", 0, needsValue},
	{"reference", 0, needsValue},
	{"reference-if-able", 0, needsValue},
	{"dissociate", 0, noValue},
	{"origin", 'o', needsValue},
	{"branch", 'b', needsValue},
	{"revision", 0, needsValue},
	{"upload-pack", 'u', needsValue},
	{"depth", 0, needsValue},
	{"shallow-since", 0, needsValue},
	{"shallow-exclude", 0, needsValue},
	{"single-branch", 0, noValue},
	{"no-tags", 0, noValue},
	{"shallow-submodules", 0, noValue},
	{"separate-git-dir", 0, needsValue},
	{"ref-format", 0, needsValue},
	{"config", 'c', needsValue},
	{"server-option", 0, needsValue},
	{"ipv4", '4', noValue},
	{"ipv6", '6', noValue},
	{"filter", 0, needsValue},
	{"also-filter-submodules", 0, noValue},
	{"remote-submodules", 0, noValue},
	{"sparse", 0, noValue},
	{"bundle-uri", 0, needsValue},
}

// aheadOptions do not keep a clone from being brought up to date. The others make one that does not
// fetch in the usual way, that shares objects, or that has several repositories.
var aheadOptions = []string{
	"verbose", "quiet", "progress", "reject-shallow", "checkout", "local", "hardlinks", "template",
	"origin", "branch", "depth", "single-branch", "tags", "config", "ipv4", "ipv6", "filter", "sparse", "jobs",
}

// ParseClone reads the arguments after "clone". An error means that git itself refuses them (no
// repository, too many of them, a value that is missing, an ambiguous option): run git and
// let it say so.
func ParseClone(args []string) (CloneArgs, error) {
	line, err := parseOptions(args, cloneOptions)
	if err != nil {
		return CloneArgs{}, err
	}
	a := CloneArgs{Help: line.help}
	if a.Help {
		return a, nil
	}

	shallow := make(map[string]bool)
	a.Ahead = !line.unknown
	for _, s := range line.settings {
		a.Ahead = a.Ahead && slices.Contains(aheadOptions, s.name)
		switch s.name {
		case "branch":
			a.Branch = s.value
		case "revision":
			a.Revision = s.value
		case "separate-git-dir":
			a.SeparateGitDir = s.value
		case "depth":
			a.Depth = s.value
			shallow[s.name] = s.on
		case "shallow-since", "shallow-exclude":
			shallow[s.name] = s.on
		case "config":
			if s.on {
				a.Config = append(a.Config, s.value)
			} else {
				a.Config = nil
			}
		case "bare":
			a.Bare = s.on
		case "mirror":
			a.Mirror = s.on
		case "quiet":
			a.Quiet = s.on
		case "verbose":
			a.Quiet = false
		case "checkout":
			a.NoCheckout = !s.on
		case "single-branch":
			a.SingleBranch = s.on
		}
	}
	a.Bare = a.Bare || a.Mirror
	a.Ahead = a.Ahead && (a.Depth == "" || a.Depth == "1")
	for _, on := range shallow {
		a.Shallow = a.Shallow || on
	}

	switch len(line.operands) {
	case 0:
		return a, errors.New("no repository to clone")
	case 1:
		a.URL = line.operands[0]
	case 2:
		a.URL, a.Dir = line.operands[0], line.operands[1]
	default:
		return a, errors.New("too many arguments to clone")
	}
	return a, nil
}

// Directory returns the folder that git makes: Dir when it was given, else the last part of the
// URL (git_url_basename in dir.c), with ".git" appended for a bare clone. It is "" when git
// can't guess a name either and refuses.
//
// Only for a URL that ends in ".bundle" it looks at the disk: git drops that ending for a
// bundle file, and keeps it for anything else.
func (a CloneArgs) Directory() string {
	if a.Dir != "" {
		return trimSlashes(a.Dir)
	}

	name := a.URL
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	// The user part ends at the last "@" of the host part.
	host := len(name)
	for i := range len(name) {
		if os.IsPathSeparator(name[i]) {
			host = i
			break
		}
	}
	name = name[strings.LastIndexByte(name[:host], '@')+1:]

	for name != "" && (os.IsPathSeparator(name[len(name)-1]) || isSpace(name[len(name)-1])) {
		name = name[:len(name)-1]
	}
	if n := len(name) - len("/.git"); n > 0 && os.IsPathSeparator(name[n]) && name[n+1:] == ".git" {
		name = name[:n]
		for name != "" && os.IsPathSeparator(name[len(name)-1]) {
			name = name[:len(name)-1]
		}
	}

	// A host alone may carry a port. With a path, "/srv/repo:2222" is a folder named 2222.
	if !strings.Contains(name, "/") {
		if bare := strings.TrimRight(name, "0123456789"); strings.HasSuffix(bare, ":") {
			name = bare[:len(bare)-1]
		}
	}

	last := 0
	for i := range len(name) {
		if os.IsPathSeparator(name[i]) || name[i] == ':' {
			last = i + 1
		}
	}
	name = name[last:]

	if isBundle(a.URL) {
		name = strings.TrimSuffix(name, ".bundle")
	} else {
		name = strings.TrimSuffix(name, ".git")
	}
	if name == "" {
		return ""
	}
	if a.Bare {
		name += ".git"
	}
	return trimSlashes(squeeze(name))
}

// isBundle says whether a clone of this path reads a bundle file.
func isBundle(path string) bool {
	if !strings.HasSuffix(path, ".bundle") {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// squeeze turns every run of white space and control characters into one space, and none at the
// ends.
func squeeze(name string) string {
	return strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r <= ' ' }), " ")
}

// isSpace is isspace of git-compat-util.h, which has no form feed and no vertical tab.
func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r'
}

// trimSlashes drops the slashes at the end of a path, except the one that is all of it.
func trimSlashes(path string) string {
	for len(path) > 1 && os.IsPathSeparator(path[len(path)-1]) {
		path = path[:len(path)-1]
	}
	return path
}
