package gitargs

import (
	"maps"
	"slices"
	"strings"
)

// OwnLease is a --force-with-lease that the user wrote for a branch. Value is the revision after
// the colon, which may be "": the branch must not exist. Without a colon (Tracking) it is what was
// last fetched.
type OwnLease struct {
	Value    string
	Tracking bool
}

// OwnLease is the lease of the user's own that git would apply to a branch (apply_cas in remote.c).
func (a PushArgs) OwnLease(ref string) (OwnLease, bool) {
	bare := false
	for _, lease := range a.ForceWithLease {
		name, value, hasValue := strings.Cut(lease, ":")
		switch {
		case lease == "":
			bare = true
		case refnameMatch(name, ref):
			return OwnLease{Value: value, Tracking: !hasValue}, true
		}
	}
	return OwnLease{Tracking: true}, bare
}

// Lease is what a branch at the remote must be for a push to overwrite or delete it.
type Lease struct {
	Tip string // object id; "": it must not exist
	Own bool   // the user's own lease says it; Tip does not count
}

// WithLeases is the command line of the same push that overwrites each of the branches in leases
// only if its lease holds. All others, and tags, are forced as the user wrote it. target is this
// push's.
//
// git ignores a lease beside --force or "+". So --force is taken away, each refspec that it was
// meant for gets a "+" of its own, and a branch with a lease none. A wildcard keeps its "+", and a
// refspec for the branch alone, which goes before a wildcard, is added. A push without refspecs
// that stands for several branches gets them as arguments.
func (a PushArgs) WithLeases(ctx PushContext, target PushTarget, given []string, leases map[string]Lease) ([]string, error) {
	if len(leases) == 0 {
		return given, nil
	}
	r := &rewriting{PushArgs: a, ctx: ctx, target: target, leases: leases, argv: slices.Clone(given)}
	if len(a.ForceWithLease) > 0 {
		r.option("--no-force-with-lease")
	}
	for _, ref := range slices.Sorted(maps.Keys(leases)) {
		if l := leases[ref]; !l.Own {
			r.option("--force-with-lease=" + ref + ":" + l.Tip)
		}
	}
	for _, own := range a.ForceWithLease { // after ours: git takes the first that fits
		r.option(strings.TrimSuffix("--force-with-lease="+own, "="))
	}
	if a.Force {
		r.option("--no-force")
	}
	if a.Tags && a.Force {
		r.option("--no-tags")
		r.argv = append(r.argv, "+refs/tags/*")
	}
	if slices.ContainsFunc(target.Updates, func(u PushUpdate) bool { return u.Forced }) {
		if err := r.refspecs(); err != nil {
			return nil, err
		}
	}
	for _, u := range target.Updates {
		if _, leased := leases[u.Ref]; leased && u.Wide && u.Forced && u.Src != "" {
			r.argv = append(r.argv, u.Src+":"+u.Ref)
		}
	}
	r.argv = slices.Insert(r.argv, a.OptionEnd, r.options...)
	return slices.DeleteFunc(r.argv, func(w string) bool { return w == dropped }), nil
}

// dropped marks a word that goes; no word can be that.
const dropped = "\x00"

// rewriting is the work of WithLeases.
type rewriting struct {
	PushArgs
	ctx     PushContext
	target  PushTarget
	leases  map[string]Lease
	argv    []string
	options []string
}

func (r *rewriting) option(o string) { r.options = append(r.options, o) }

// refspecs gives each refspec a "+" of its own, or takes it away.
func (r *rewriting) refspecs() error {
	if len(r.Refspecs) == 0 {
		if err := r.spellOut(); err != nil {
			return err
		}
	}
	for i := 0; i < len(r.Refspecs); i++ {
		spec, at := r.Refspecs[i], r.RefspecIndex[i]
		bare, plus := strings.CutPrefix(spec, "+")
		switch {
		case strings.HasPrefix(spec, "^") || r.Delete && spec != "tag":
		case spec == "tag" && i+1 < len(r.Refspecs):
			i++
			if r.Force && !r.Delete {
				r.argv[at], r.argv[r.RefspecIndex[i]] = "+refs/tags/"+r.Refspecs[i], dropped
			}
		case bare == ":" || strings.Contains(bare, "*"):
			if r.Force {
				r.argv[at] = "+" + bare
			}
		case strings.HasPrefix(bare, ":"): // to delete needs no force, which would only defeat the lease
			r.argv[at] = bare
		default:
			word, err := r.single(bare, plus)
			if err != nil {
				return err
			}
			if word != "" {
				r.argv[at] = word
			}
		}
	}
	return nil
}

// single is how a refspec that names one ref is to be written; "" when it may stay.
func (r *rewriting) single(bare string, plus bool) (string, error) {
	one := PushArgs{Remote: r.target.Remote, Refspecs: []string{bare}}
	t, err := one.Target(r.ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(t.Updates, func(u PushUpdate) bool { _, leased := r.leases[u.Ref]; return leased })
	switch {
	case i >= 0 && t.Updates[i].Forced && !plus: // remote.<name>.push maps the word to one with a "+"
		return t.Updates[i].Src + ":" + t.Updates[i].Ref, nil
	case i >= 0:
		return bare, nil
	case plus || r.Force:
		return "+" + bare, nil
	default:
		return "", nil
	}
}

// spellOut writes as arguments what a push without refspecs stands for, if that is more than the
// checked-out branch.
func (r *rewriting) spellOut() error {
	plan := &pushPlan{PushContext: r.ctx, remote: r.target.Remote, branches: map[string]PushUpdate{}}
	mirror := plan.mirror(r.PushArgs)
	var texts []string
	switch {
	case mirror:
		r.option("--no-mirror")
		r.option("--prune")
		texts = []string{"refs/*:refs/*"}
	case r.All:
		r.option("--no-all")
		texts = []string{"refs/heads/*:refs/heads/*"}
	case len(plan.pushRefspecs()) > 0:
		texts = plan.pushRefspecs()
	case plan.pushDefault() == "matching":
		texts = []string{":"}
	default:
		return nil
	}
	if r.Remote == "" {
		r.argv = append(r.argv, r.target.Remote)
	}
	for _, text := range texts {
		if mirror {
			text = "+" + text
		}
		r.Refspecs = append(r.Refspecs, text)
		r.RefspecIndex = append(r.RefspecIndex, len(r.argv))
		r.argv = append(r.argv, text)
	}
	return nil
}

// Tracking is the ref that holds what was last fetched of a branch of a remote; "" when there is
// none.
func (c Config) Tracking(remote, ref string) string {
	for _, text := range c["remote."+remote+".fetch"] {
		r, ok := parseRefspec(text)
		if !ok || r.negative || !r.hasDst {
			continue
		}
		dst, fits := r.dst, r.src == ref
		if r.pattern {
			dst, fits = mapName(ref, r.src, r.dst)
		}
		if fits && !strings.HasPrefix(dst, branchPrefix) { // a mirror fetches over the branches themselves
			return dst
		}
	}
	return ""
}
