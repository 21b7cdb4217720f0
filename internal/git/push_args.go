package git

import (
	"maps"
	"slices"
	"strings"
)

// PushArgs is what the words of `git push` say.
type PushArgs struct {
	Remote   string   // the remote's name or URL as written, "" when not given; may hold a password
	Repo     string   // --repo, which counts when Remote is not given
	Refspecs []string // as written, "tag" words included

	// RefspecIndex says where each of Refspecs stands in the arguments. An option inserted at
	// OptionEnd comes after all others and so has the last word.
	RefspecIndex []int
	OptionEnd    int

	// ForceWithLease holds a value for each --force-with-lease, "" when it came without.
	ForceWithLease []string

	All         bool // --all, --branches
	Mirror      bool
	Tags        bool
	FollowTags  bool
	Delete      bool
	Prune       bool
	DryRun      bool
	Force       bool // -f, --force, and --mirror, which implies it; a "+" of a refspec is not counted
	Quiet       bool
	Porcelain   bool
	NoVerify    bool
	Atomic      bool
	SetUpstream bool

	ForceIfIncludes *bool // nil when not given

	Help bool // usage was asked for: git prints it and pushes nothing
}

// pushOptions are the options of git push in git 2.39 and what newer ones added (builtin/push.c).
var pushOptions = []option{
	{"verbose", 'v', noValue},
	{"quiet", 'q', noValue},
	{"repo", 0, needsValue},
	{"all branches", 0, noValue},
	{"mirror", 0, noValue},
	{"delete", 'd', noValue},
	{"tags", 0, noValue},
	{"dry-run", 'n', noValue},
	{"porcelain", 0, noValue},
	{"force", 'f', noValue},
	{"force-with-lease", 0, optionalValue},
	{"force-if-includes", 0, noValue},
	{"recurse-submodules", 0, needsValue},
	{"thin", 0, noValue},
	{"receive-pack exec", 0, needsValue},
	{"set-upstream", 'u', noValue},
	{"progress", 0, noValue},
	{"prune", 0, noValue},
	{"no-verify", 0, noValue},
	{"follow-tags", 0, noValue},
	{"signed", 0, optionalValue},
	{"atomic", 0, noValue},
	{"push-option", 'o', needsValue},
	{"ipv4", '4', noValue},
	{"ipv6", '6', noValue},
}

// ParsePush reads the words after "push". An error means that git itself refuses them (a value
// that is missing, an ambiguous option): run git and let it say so. Options that git does not
// allow together are not checked.
func ParsePush(args []string) (PushArgs, error) {
	line, err := parseOptions(args, pushOptions)
	if err != nil {
		return PushArgs{}, err
	}
	a := PushArgs{OptionEnd: line.end, Help: line.help}
	for _, s := range line.settings {
		switch s.name {
		case "repo":
			a.Repo = s.value
		case "all":
			a.All = s.on
		case "mirror":
			// To git, mirror is two bits, one of them force. A later --no-force takes that one back.
			a.Mirror, a.Force = s.on, s.on
		case "delete":
			a.Delete = s.on
		case "tags":
			a.Tags = s.on
		case "dry-run":
			a.DryRun = s.on
		case "porcelain":
			a.Porcelain = s.on
		case "force":
			a.Force = s.on
		case "force-with-lease":
			if s.on {
				a.ForceWithLease = append(a.ForceWithLease, s.value)
			} else {
				a.ForceWithLease = nil
			}
		case "force-if-includes":
			a.ForceIfIncludes = &s.on
		case "set-upstream":
			a.SetUpstream = s.on
		case "prune":
			a.Prune = s.on
		case "verify":
			a.NoVerify = !s.on
		case "follow-tags":
			a.FollowTags = s.on
		case "atomic":
			a.Atomic = s.on
		case "quiet":
			a.Quiet = s.on
		case "verbose":
			a.Quiet = false
		}
	}
	if len(line.words) > 0 {
		a.Remote = line.words[0]
		a.Refspecs = line.words[1:]
		a.RefspecIndex = line.index[1:]
	}
	return a, nil
}

// Config is git's configuration: all values of each key, in the order that git reads them. Keys
// are as git prints them: section and last part in lower case, the part between as it is.
type Config map[string][]string

// rewrites is a key beside git's own, which all have a dot: the keys of url.<base>, in the order
// in which they first appear. Of bases of equal length git takes the first.
const rewrites = "url"

func (c Config) add(key, value string) {
	if _, seen := c[key]; !seen && strings.HasPrefix(key, "url.") {
		c[rewrites] = append(slices.Clip(c[rewrites]), key)
	}
	c[key] = append(slices.Clip(c[key]), value)
}

// HasHook reports whether the configuration defines a hook (since git 2.54) for one of the events.
func (c Config) HasHook(events ...string) bool {
	for key, values := range c {
		if strings.HasPrefix(key, "hook.") && strings.HasSuffix(key, ".event") &&
			slices.ContainsFunc(values, func(v string) bool { return slices.Contains(events, v) }) {
			return true
		}
	}
	return false
}

// parseConfig reads the output of `git config -z --list`. A key without a value, which git takes
// as a true boolean, gets the value "true".
func parseConfig(z []byte) Config {
	c := make(Config)
	for entry := range strings.SplitSeq(string(z), "\x00") {
		key, value, ok := strings.Cut(entry, "\n")
		if !ok {
			value = "true"
		}
		if key != "" {
			c.add(key, value)
		}
	}
	return c
}

// With is the same configuration with settings added, "key=value" as -c has them. The first and the last part of a key are in any case.
func (c Config) With(settings []string) Config {
	c = maps.Clone(c)
	for _, setting := range settings {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			value = "true"
		}
		first, last := strings.IndexByte(key, '.'), strings.LastIndexByte(key, '.')
		if first >= 0 {
			key = strings.ToLower(key[:first]) + key[first:last] + strings.ToLower(key[last:])
		}
		c.add(key, value)
	}
	return c
}

// Get returns the last value of a key, which is the one that counts, and whether there is one.
func (c Config) Get(key string) (string, bool) {
	values := c[key]
	if len(values) == 0 {
		return "", false
	}
	return values[len(values)-1], true
}
