package git

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// batchRefs is where followers offer their commits. Below it come the branch and a name.
const batchRefs = "refs/gitops/batch/"

// BatchRef is the full name of a batch ref of a branch.
func BatchRef(branch, name string) string { return batchRefs + branch + "/" + name }

// quietly is a git that asks nobody for a password.
func (g Git) quietly() Git { return g.WithoutPrompts().With("GIT_TERMINAL_PROMPT=0") }

// AtLeast reports whether git is of a version or newer.
func (g Git) AtLeast(ctx context.Context, major, minor int) bool {
	version, err := g.Version(ctx)
	var is [2]int
	for i, number := range strings.SplitN(version, ".", 3) {
		if i < len(is) {
			is[i], _ = strconv.Atoi(number)
		}
	}
	return err == nil && (is[0] > major || is[0] == major && is[1] >= minor)
}

// Marker makes the commit that a batch ref holds until its commits land. Its parent is the tip that
// is offered. It is an object of its own, so that 'not moved' cannot be taken for 'landed'.
func (g Git) Marker(ctx context.Context, tip, ref string) (string, error) {
	raw, err := g.rawCommits(ctx, []string{tip})
	if err != nil {
		return "", err
	}
	headers, _, _ := strings.Cut(raw[0], "\n\n")
	var marker strings.Builder
	for _, line := range lines(headers) { // of the tip's: whoever may push that may push this
		switch name, _, _ := strings.Cut(line, " "); name {
		case "tree":
			fmt.Fprintf(&marker, "%s\nparent %s\n", line, tip)
		case "author", "committer":
			marker.WriteString(line + "\n")
		}
	}
	fmt.Fprintf(&marker, "\ngitops: offers its parent to a batch\n\n%s\n", ref)
	oid, err := g.ask(ctx, marker.String(), "hash-object", "-t", "commit", "-w", "--stdin")
	return strings.TrimSpace(oid), err
}

// SameCommit reports whether a commit is another one replayed: all but tree and parent is the same.
func (g Git) SameCommit(ctx context.Context, a, b string) bool {
	raw, err := g.rawCommits(ctx, []string{a, b})
	if err != nil {
		return false
	}
	return replayable(raw[0]) == replayable(raw[1])
}

// replayable is what a replay keeps of a commit as it is stored: all but tree and parent.
func replayable(text string) string {
	for _, name := range []string{"tree ", "parent "} {
		if line, after, ok := strings.Cut(text, "\n"); ok && strings.HasPrefix(line, name) {
			text = after
		}
	}
	return text
}

// HasLike reports whether the commits from base to tip have one that is this one replayed. When git
// cannot say, it may.
func (g Git) HasLike(ctx context.Context, base, tip, commit string) bool {
	out, err := g.Output(ctx, "rev-list", base+".."+tip)
	if err != nil {
		return true
	}
	raw, err := g.rawCommits(ctx, append([]string{commit}, lines(out)...))
	if err != nil {
		return true
	}
	return slices.ContainsFunc(raw[1:], func(text string) bool { return replayable(text) == replayable(raw[0]) })
}

// Offerable is what the commits of tip that are not in a branch build on. The error is a
// *LeftOutError when they are not such as a leader takes.
func (g Git) Offerable(ctx context.Context, branch, tip string) (base string, err error) {
	all, err := g.commits(ctx, branch, []string{tip})
	if err != nil {
		return "", err
	}
	line, err := all.line(Range{Tip: tip})
	if err != nil {
		return "", err
	}
	return line[0].parents[0], nil
}

// fetchedRefs is where fetched refs are kept for a moment. Below it come the name of a batch ref,
// and a random one.
const fetchedRefs = "refs/gitops/fetched/"

// FetchBatch fetches a branch together with the batch ref of a name, or with all batch refs of the
// branch. It returns their object ids by full name, and leaves no ref behind in this repository.
func (g Git) FetchBatch(ctx context.Context, url, branch, name string, all bool) (map[string]string, error) {
	from, remote := g.quietly().withRemoteAlias(url)
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	here, prefix := fetchedRefs+name+"/"+hex.EncodeToString(id[:])+"/", name
	if all {
		prefix = ""
	}
	// By a pattern, because a fetch of one exact ref that is missing fails.
	_, err := from.Output(ctx, "fetch", "--quiet", "--no-tags", "--no-prune", "--no-recurse-submodules", "--no-auto-maintenance", "--no-write-fetch-head",
		"--", remote, "+refs/heads/"+branch+":"+here+"branch", "+"+BatchRef(branch, prefix)+"*:"+here+"batch/"+prefix+"*")
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", branch, err)
	}
	ctx = context.WithoutCancel(ctx)
	out, err := g.Output(ctx, "for-each-ref", "--format=%(objectname) %(refname)", here)
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	var remove strings.Builder
	for _, line := range lines(out) {
		oid, name, _ := strings.Cut(line, " ")
		fmt.Fprintf(&remove, "delete %s\n", name)
		if batch, ok := strings.CutPrefix(name, here+"batch/"); ok {
			refs[BatchRef(branch, batch)] = oid
		} else {
			refs["refs/heads/"+branch] = oid
		}
	}
	_, err = g.ask(ctx, remove.String(), "update-ref", "--stdin")
	return refs, err
}

// DropFetched removes what a FetchBatch that was killed has left behind.
func (g Git) DropFetched(ctx context.Context, name string) {
	refs, err := g.Output(ctx, "for-each-ref", "--format=delete %(refname)", fetchedRefs+name+"/")
	if err == nil && refs != "" {
		_, _ = g.ask(ctx, refs, "update-ref", "--stdin")
	}
}

// LeasedRef is one ref that a push moves, if it still is what we know. "" is no ref: made or
// deleted.
type LeasedRef struct{ Ref, Old, New string }

// PushResult is what a push with leases came to. All but Unknown are certain.
type PushResult int

const (
	// Unknown is a push that may have been carried out, or may still be.
	Unknown PushResult = iota
	// Pushed has moved every ref.
	Pushed
	// Stale has moved none: one of them was something else, or another process had it locked.
	Stale
	// Refused has moved none: the server does not want it, or cannot do it.
	Refused
)

func (r PushResult) String() string {
	return [...]string{"unknown", "pushed", "stale", "refused"}[r]
}

// PushLeased moves refs of a remote, all or none. report is git's: the lines of those that were not
// moved, and its stderr.
func (g Git) PushLeased(ctx context.Context, url string, refs ...LeasedRef) (result PushResult, report string) {
	from, remote := g.quietly().withRemoteAlias(url)
	args := []string{"push", "--atomic", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", "--no-signed"}
	for _, r := range refs {
		args = append(args, "--force-with-lease="+r.Ref+":"+r.Old)
	}
	args = append(args, "--", remote)
	for _, r := range refs {
		args = append(args, r.New+":"+r.Ref)
	}
	out, err := from.With("LC_ALL=C").Output(ctx, args...)
	if err == nil {
		return Pushed, ""
	}
	var refused *Error
	if !errors.As(err, &refused) {
		return Unknown, err.Error()
	}
	for _, line := range lines(out) {
		if strings.HasPrefix(line, "!\t") {
			report += line + "\n"
		}
	}
	return leasedResult(out, refused.Stderr), report + refused.Stderr
}

// PushFirst is PushLeased of one ref to a server that is not known yet. atomic says whether it can
// move several in one step. Over the dumb protocol (git-http-push) it cannot, and git does not say
// so.
func (g Git) PushFirst(ctx context.Context, url string, ref LeasedRef) (result PushResult, atomic bool, report string) {
	trace, err := os.CreateTemp("", "git-gitops-")
	if err != nil {
		return Refused, true, err.Error()
	}
	defer func() { _ = os.Remove(trace.Name()) }()
	_ = trace.Close()
	result, report = g.With("GIT_TRACE_PACKET="+trace.Name()).PushLeased(ctx, url, ref)
	if result != Pushed {
		dumb := strings.Contains(report, "git-http-push")
		return result, !dumb && (result != Refused || !strings.Contains(report, noAtomic)), report
	}
	packets, _ := os.ReadFile(trace.Name())
	for line := range strings.Lines(string(packets)) { // capabilities (gitprotocol-capabilities(5))
		if strings.Contains(line, "report-status") && slices.Contains(strings.Fields(line), "atomic") {
			return result, true, report
		}
	}
	return result, false, report
}

// noAtomic is what git says where there is no such capability.
const noAtomic = "does not support --atomic"

// notNow are in refusals of a server where somebody else was faster.
var notNow = []string{
	"cannot lock ref", "failed to lock", "failed to update ref", "incorrect old value provided", "reference already exists",
	"Unable to create", "fetch first",
}

// leasedResult reads the lines of push --porcelain. The words are those of git's send-pack and
// receive-pack.
func leasedResult(out, stderr string) PushResult {
	result := Unknown
	for _, line := range lines(out) {
		if !strings.HasPrefix(line, "!\t") {
			continue
		}
		says := func(w string) bool { return strings.Contains(line, w) }
		switch {
		case says("[rejected]"), says("atomic "), slices.ContainsFunc(notNow, says): // the second because of another ref
			if result == Unknown {
				result = Stale
			}
		case says("[remote rejected]"):
			result = Refused
		}
	}
	switch {
	case result != Unknown:
	case strings.Contains(stderr, NoSuchRef):
		return Stale
	case strings.Contains(stderr, noAtomic):
		return Refused
	}
	return result
}

// NoSuchRef is what git says of a ref to delete that does not exist.
const NoSuchRef = "remote ref does not exist"

// Clone is what a batch asks about the clone that it pushes from, in one question.
type Clone struct {
	Shallow, WorkTree bool
	Hooks             string // folder of hooks

	git   Git
	state string // folder of a rebase that is in progress
}

// Clone looks at the clone here.
func (g Git) Clone(ctx context.Context) (Clone, error) {
	out, err := g.Output(ctx, "rev-parse", "--is-shallow-repository", "--is-inside-work-tree",
		"--path-format=absolute", "--git-path", "hooks", "--git-path", rebaseState)
	answers := lines(out)
	if err != nil || len(answers) != 4 {
		return Clone{}, errors.Join(err, errors.New("git does not say what this clone is"))
	}
	return Clone{answers[0] == "true", answers[1] == "true", answers[2], g, answers[3]}, nil
}

// Untouched is the tip of HEAD when nothing is edited, staged or half done in the work tree; else
// "". Files that git does not know do not count.
func (c Clone) Untouched(ctx context.Context) (tip string) {
	out, err := c.git.Output(ctx, "status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no")
	if err != nil {
		return ""
	}
	for _, line := range lines(out) {
		if !strings.HasPrefix(line, "# ") {
			return ""
		}
		if oid, ok := strings.CutPrefix(line, "# branch.oid "); ok {
			tip = oid
		}
	}
	if _, err := os.Stat(c.state); err == nil {
		return ""
	}
	return tip
}

// MoveTo moves the checked-out branch with index and work tree from one commit to another, as a
// rebase would, and keeps what is edited there. A commit that is made at the same time stays: the
// branch moves only if it still is where it was.
func (g Git) MoveTo(ctx context.Context, from, to string) error {
	if _, err := g.Output(ctx, "read-tree", "-m", "-u", from, to); err != nil {
		return err
	}
	_, err := g.Output(ctx, "update-ref", "-m", "gitops push", "HEAD", to, from)
	if err != nil {
		_, undone := g.Output(ctx, "read-tree", "-m", "-u", to, "HEAD")
		return errors.Join(err, undone)
	}
	return nil
}

// Track sets a remote-tracking branch, and makes it the upstream of the checked-out branch if so
// asked. It returns what git says of that on stdout.
func (g Git) Track(ctx context.Context, tracking, oid string, upstream bool) (string, error) {
	if _, err := g.Output(ctx, "update-ref", "-m", "gitops push", tracking, oid); err != nil || !upstream {
		return "", err
	}
	return g.Output(ctx, "branch", "--set-upstream-to="+strings.TrimPrefix(tracking, "refs/remotes/"))
}
