package gitargs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const branchPrefix = "refs/heads/"

// PushContext is what the repository says. The functions are called at most once each and only when
// the answer needs them, because each costs a process or a round trip.
type PushContext struct {
	Config Config
	Head   string // full ref that HEAD points to in the end (`git symbolic-ref -q HEAD`), "" when detached

	// LocalRefs lists the full names of all local refs. A symbolic one may be followed by a space
	// and the full name of the ref it points to: the lines of
	// `git for-each-ref --format='%(refname) %(symref)'` will do.
	LocalRefs func() ([]string, error)

	// RemoteRefs lists the full names of the refs at the remote, without peeled tags and HEAD
	// (`git ls-remote --refs`). Only matching, mirror and pruning pushes need it.
	RemoteRefs func(remote string) ([]string, error)
}

// PushTarget is where a push goes.
type PushTarget struct {
	Remote   string       // name or URL; may hold a password
	Branches []string     // full names, sorted and unique, that it may update, create or delete
	Updates  []PushUpdate // one for each of Branches, in the same order
}

// PushUpdate is what a push does to one branch.
type PushUpdate struct {
	Ref    string // full name at the remote
	Src    string // the revision that is pushed; "" when the branch is deleted
	Forced bool   // by --force or a "+"; a lease is not counted
	Wide   bool   // a wildcard, ":", --all or --mirror stands for it, no refspec of its own
}

// Target says which branches this push would update, create or delete, and at which remote, by
// the rules of cmd_push in builtin/push.c and match_push_refs in remote.c.
//
// No branch is missing, but some may be too many: an unqualified destination ("main:prod",
// "--delete v1") counts as the branch of that name although it may turn out to be a tag, and a
// push that git will refuse counts all the same. Not seen are remotes kept in the old files
// .git/remotes and .git/branches, remote groups, submodules, symbolic refs outside refs/ other than
// HEAD, and branches at the remote whose own name starts with "refs/".
//
// An error comes from LocalRefs or RemoteRefs only.
func (a PushArgs) Target(ctx PushContext) (PushTarget, error) {
	p := &pushPlan{
		PushContext: ctx,
		remote:      a.remote(ctx),
		branches:    make(map[string]PushUpdate),
	}
	target := PushTarget{Remote: p.remote}
	if err := p.match(a); err != nil {
		return target, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.branches)) {
		u := p.branches[name]
		u.Forced = u.Forced || p.forced(a)
		target.Branches = append(target.Branches, name)
		target.Updates = append(target.Updates, u)
	}
	return target, nil
}

// remote is where git sends this push (pushremote_get in remote.c).
func (a PushArgs) remote(ctx PushContext) string {
	for _, given := range []string{a.Remote, a.Repo} {
		if given != "" {
			return given
		}
	}
	branch, _ := strings.CutPrefix(ctx.Head, branchPrefix)
	for _, key := range []string{
		"branch." + branch + ".pushremote",
		"remote.pushdefault",
		"branch." + branch + ".remote",
	} {
		if name, ok := ctx.Config.Get(key); ok {
			return name
		}
	}
	if names := ctx.Config.remotes(); len(names) == 1 {
		return names[0]
	}
	return "origin"
}

// remotes returns the names of the configured remotes.
func (c Config) remotes() []string {
	var names []string
	for key := range c {
		name, ok := strings.CutPrefix(key, "remote.")
		dot := strings.LastIndexByte(name, '.')
		if !ok || dot <= 0 || name[0] == '/' { // git ignores a remote whose name is a path
			continue
		}
		if name = name[:dot]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// refspec is one push refspec (parse_refspec in refspec.c).
type refspec struct {
	text     string // as written
	src, dst string
	force    bool // "+src"
	hasDst   bool // there was a colon
	negative bool // "^src"
	matching bool // ":"
	pattern  bool // has a "*" on each side
}

// parseRefspec reads one refspec. It returns false for one that git refuses.
func parseRefspec(s string) (refspec, bool) {
	r := refspec{text: s}
	s, r.negative = strings.CutPrefix(s, "^")
	if !r.negative {
		s, r.force = strings.CutPrefix(s, "+")
	}
	if s == ":" && !r.negative {
		r.matching = true
		return r, true
	}
	r.src = s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		r.src, r.dst, r.hasDst = s[:i], s[i+1:], true
	}
	r.pattern = strings.Contains(r.src, "*")
	if r.src == "@" {
		r.src = "HEAD"
	}
	switch {
	case r.negative && r.hasDst,
		!r.hasDst && r.src == "",
		r.hasDst && r.dst == "",
		r.hasDst && r.pattern != strings.Contains(r.dst, "*"):
		return r, false
	}
	return r, true
}

// destination is the pattern that a pattern refspec gives to the other side.
func (r refspec) destination() string {
	if r.hasDst {
		return r.dst
	}
	return r.src
}

// mapName turns a name that fits the pattern from, with its one "*", into the same of the pattern
// to.
func mapName(name, from, to string) (string, bool) {
	before, after, _ := strings.Cut(from, "*")
	if len(name) < len(before)+len(after) || !strings.HasPrefix(name, before) || !strings.HasSuffix(name, after) {
		return "", false
	}
	return strings.Replace(to, "*", name[len(before):len(name)-len(after)], 1), true
}

// pushPlan works out one push.
type pushPlan struct {
	PushContext
	remote   string
	branches map[string]PushUpdate // by Ref

	local map[string]string // local refs and where symbolic ones point; nil before readLocal
}

// mirror reports whether this push makes the remote a mirror.
func (p *pushPlan) mirror(a PushArgs) bool {
	return a.Mirror || p.Config.IsTrue("remote."+p.remote+".mirror")
}

// forced reports whether this push forces all that it updates. remote.<name>.mirror does, whatever
// the options say.
func (p *pushPlan) forced(a PushArgs) bool {
	return a.Force || p.Config.IsTrue("remote."+p.remote+".mirror")
}

// match fills branches.
func (p *pushPlan) match(a PushArgs) error {
	mirror := p.mirror(a)
	specs, err := p.refspecs(a, mirror)
	if err != nil {
		return err
	}

	wholesale, matching := false, false
	for _, r := range specs {
		switch {
		case r.negative:
		case r.pattern || r.matching:
			wholesale = true
			matching = matching || r.matching
		default:
			if err := p.explicit(r); err != nil {
				return err
			}
		}
	}

	if wholesale || mirror {
		if err := p.readLocal(); err != nil {
			return err
		}
		known := matching && !a.All && !mirror // ":" updates only what the remote has
		remote := make(map[string]bool)
		if known || mirror || a.Prune {
			names, err := p.RemoteRefs(p.remote)
			if err != nil {
				return fmt.Errorf("list refs at the remote: %w", err)
			}
			for _, name := range names {
				remote[name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(p.local)) {
			dst, force, byPattern := patternDestination(specs, name)
			if byPattern || !known || remote[dst] {
				p.add(PushUpdate{Ref: dst, Src: name, Forced: force, Wide: true})
			}
		}
		for name := range remote {
			// A mirror deletes all that it doesn't send, pruning only what a refspec covers.
			if mirror || a.Prune && p.gone(specs, name) {
				p.add(PushUpdate{Ref: name, Wide: true})
			}
		}
	}

	// A negative refspec is held against the destination.
	for _, r := range specs {
		for name := range p.branches {
			if _, fits := mapName(name, r.src, ""); r.negative && (name == r.src || r.pattern && fits) {
				delete(p.branches, name)
			}
		}
	}
	return nil
}

// add notes a destination, if it is a branch. Of several for one branch the first counts, as in
// git.
func (p *pushPlan) add(u PushUpdate) {
	if _, known := p.branches[u.Ref]; !known && len(u.Ref) > len(branchPrefix) && strings.HasPrefix(u.Ref, branchPrefix) {
		p.branches[u.Ref] = u
	}
}

// refspecs returns the refspecs that this push goes by (set_refspecs and do_push in
// builtin/push.c).
func (p *pushPlan) refspecs(a PushArgs, mirror bool) ([]refspec, error) {
	var specs []refspec
	add := func(texts ...string) {
		for _, text := range texts {
			if r, ok := parseRefspec(text); ok {
				specs = append(specs, r)
			}
		}
	}

	if a.Tags {
		add("refs/tags/*")
	}
	for i := 0; i < len(a.Refspecs); i++ {
		word := a.Refspecs[i]
		switch {
		case word == "tag" && i+1 < len(a.Refspecs):
			i++
			word = "refs/tags/" + a.Refspecs[i]
			if a.Delete {
				word = ":" + word
			}
			add(word)
		case a.Delete:
			add(":" + word)
		case strings.Contains(word, ":"):
			add(word)
		default:
			words, err := p.mapped(word)
			if err != nil {
				return nil, err
			}
			add(words...)
		}
	}

	if len(specs) == 0 && len(a.Refspecs) == 0 {
		switch {
		case a.All:
		case len(p.pushRefspecs()) > 0:
			add(p.pushRefspecs()...)
		case !mirror:
			add(p.defaultRefspec()...)
			return specs, nil
		}
		if len(specs) == 0 {
			add(":")
		}
	}
	return specs, nil
}

// pushRefspecs returns what the configuration says to push to this remote.
func (p *pushPlan) pushRefspecs() []string {
	if strings.HasPrefix(p.remote, "/") { // git ignores a remote whose name is a path
		return nil
	}
	return p.Config["remote."+p.remote+".push"]
}

// pushDefault is the push.default setting.
func (p *pushPlan) pushDefault() string {
	value, _ := p.Config.Get("push.default")
	if value == "tracking" {
		return "upstream"
	}
	return value
}

// upstream is the upstream branch of a branch, if it has exactly one.
func (p *pushPlan) upstream(branch string) (string, bool) {
	prefix := "branch." + strings.TrimPrefix(branch, branchPrefix)
	merge := p.Config[prefix+".merge"]
	if _, ok := p.Config.Get(prefix + ".remote"); !ok || len(merge) != 1 {
		return "", false
	}
	return merge[0], true
}

// defaultRefspec is what a push without refspecs goes by. The conditions under which git refuses
// such a push (simple with an upstream of another name, upstream in a triangle) are left to git:
// when it doesn't, the branch is the one given here.
func (p *pushPlan) defaultRefspec() []string {
	mode := p.pushDefault()
	switch {
	case mode == "nothing":
		return nil
	case mode == "matching":
		return []string{":"}
	case !strings.HasPrefix(p.Head, branchPrefix):
		return nil
	case mode == "upstream":
		if merge, ok := p.upstream(p.Head); ok {
			return []string{p.Head + ":" + merge}
		}
	}
	return []string{p.Head + ":" + p.Head}
}

// mapped returns what git makes of a refspec word without a colon: when the word names one local
// ref, the configuration may know where that one goes (refspec_append_mapped in builtin/push.c).
func (p *pushPlan) mapped(word string) ([]string, error) {
	names, err := p.find(word)
	if err != nil || len(names) != 1 {
		return []string{word}, err
	}
	name := names[0]

	dst, plus, negative := "", "", false
	for _, text := range p.pushRefspecs() {
		r, ok := parseRefspec(text)
		negative = negative || r.negative
		if !ok || r.negative || !r.hasDst || dst != "" {
			continue
		}
		if r.pattern {
			dst, _ = mapName(name, r.src, r.dst)
		} else if r.src == name {
			dst = r.dst
		}
		if dst != "" && r.force {
			plus = "+"
		}
	}
	switch {
	case dst != "" && negative:
		// Whether git maps a ref that may be excluded takes its reverse matching to tell; count
		// both.
		return []string{plus + name + ":" + dst, word}, nil
	case dst != "":
		return []string{plus + name + ":" + dst}, nil
	}

	if p.pushDefault() == "upstream" && strings.HasPrefix(name, branchPrefix) {
		if merge, ok := p.upstream(name); ok {
			return []string{word + ":" + merge}, nil
		}
	}
	return []string{word}, nil
}

// explicit adds the destination of a refspec that names one ref (match_explicit in remote.c).
func (p *pushPlan) explicit(r refspec) error {
	add := func(ref string) { p.add(PushUpdate{Ref: ref, Src: r.src, Forced: r.force}) }
	if r.hasDst {
		if strings.HasPrefix(r.dst, "refs/") {
			add(r.dst)
			return nil
		}
		// Which of the two it is depends on what the remote has.
		add("refs/" + r.dst)
		add(branchPrefix + r.dst)
		return nil
	}
	names, err := p.find(r.src)
	if err != nil {
		return err
	}
	if len(names) == 0 && r.src == "HEAD" {
		names = []string{p.Head}
	}
	for _, name := range names {
		add(p.resolve(name))
	}
	return nil
}

// patternDestination is where wildcard and matching refspecs send a local ref, whether by force,
// and whether it was a wildcard: the first one that fits wins, and ":" is for what none fits
// (get_ref_match in remote.c).
func patternDestination(specs []refspec, name string) (dst string, force, byPattern bool) {
	for _, r := range specs {
		if r.pattern && !r.negative {
			if dst, ok := mapName(name, r.src, r.destination()); ok {
				return dst, r.force, true
			}
		}
		if r.matching {
			dst, force = name, force || r.force
		}
	}
	return dst, force, false
}

// gone says whether pruning deletes a ref at the remote: the refspec that covers it finds no local
// ref.
func (p *pushPlan) gone(specs []refspec, name string) bool {
	matching := false
	for _, r := range specs {
		if r.pattern && !r.negative {
			if src, ok := mapName(name, r.destination(), r.src); ok {
				_, here := p.local[src]
				return !here
			}
		}
		matching = matching || r.matching
	}
	_, here := p.local[name]
	return matching && !here
}

// readLocal reads the local refs, once.
func (p *pushPlan) readLocal() error {
	if p.local != nil {
		return nil
	}
	lines, err := p.LocalRefs()
	if err != nil {
		return fmt.Errorf("list local refs: %w", err)
	}
	p.local = make(map[string]string)
	for _, line := range lines {
		name, target, _ := strings.Cut(line, " ")
		p.local[name] = target
	}
	return nil
}

// resolve follows a symbolic ref to its end, as far as git does.
func (p *pushPlan) resolve(name string) string {
	for range 5 { // SYMREF_MAXDEPTH
		target := p.local[name]
		if target == "" {
			break
		}
		name = target
	}
	return name
}

// find returns the local refs that a source may mean. More than one is ambiguous to git
// (count_refspec_match in remote.c).
func (p *pushPlan) find(src string) ([]string, error) {
	if err := p.readLocal(); err != nil {
		return nil, err
	}
	var strong, weak []string
	for name := range p.local {
		switch {
		case !refnameMatch(src, name):
		// A ref that is neither branch nor tag must be named in full to count as much as those.
		case name == src, name == "refs/"+src, strings.HasPrefix(name, branchPrefix), strings.HasPrefix(name, "refs/tags/"):
			strong = append(strong, name)
		default:
			weak = append(weak, name)
		}
	}
	if len(strong) > 0 {
		return strong, nil
	}
	return weak, nil
}

// refnameMatch says whether short may stand for a full name (ref_rev_parse_rules in refs.c).
func refnameMatch(short, full string) bool {
	switch full {
	case short, "refs/" + short, "refs/tags/" + short, branchPrefix + short,
		"refs/remotes/" + short, "refs/remotes/" + short + "/HEAD":
		return true
	}
	return false
}
