package gitargs

// PushArgs is what the arguments of `git push` say.
type PushArgs struct {
	Remote   string   // the remote's name or URL as written, "" when not given; may hold a password
	Repo     string   // --repo, which counts when Remote is not given
	Refspecs []string // as written, with each "tag"

	// RefspecIndex says where each of Refspecs stands in the arguments. An option inserted at
	// OptionEnd comes after all others and so has the last word.
	RefspecIndex []int
	OptionEnd    int

	// ForceWithLease holds a value for each --force-with-lease, "" when it came without.
	ForceWithLease []string

	All         bool // --all, --branches
	Mirror      bool
	Tags        bool
	Delete      bool
	Prune       bool
	DryRun      bool
	Force       bool // -f, --force, and --mirror, which implies it; a "+" of a refspec is not counted
	Quiet       bool
	Porcelain   bool
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

// ParsePush reads the arguments after "push". An error means that git itself refuses them (a value
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
			// To git, mirror is two bits, one of them force. A later --no-force takes that one
			// back.
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
		case "quiet":
			a.Quiet = s.on
		case "verbose":
			a.Quiet = false
		}
	}
	if len(line.operands) > 0 {
		a.Remote = line.operands[0]
		a.Refspecs = line.operands[1:]
		a.RefspecIndex = line.index[1:]
	}
	return a, nil
}
