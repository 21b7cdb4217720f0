// Package git asks git questions and runs it: with the user's own terminal, in the background, and
// in our place.
package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/process"
)

// Git is the real git, with the global options that the user wrote before the subcommand.
type Git struct {
	Path    string   // required
	Globals []string // "-C", "dir", "-c", "k=v", …
	env     []string // nil: this process's
}

// Error is a question to git that failed.
type Error struct {
	Args     []string
	ExitCode int
	Stderr   string // the end of it
}

func (e *Error) Error() string {
	msg := fmt.Sprintf("git %s: exit code %d", e.Args[0], e.ExitCode)
	if line := strings.TrimSpace(e.Stderr); line != "" {
		msg += ": " + line
	}
	return msg
}

// NoRepository reports whether git said that there is no repository here.
func (e *Error) NoRepository() bool { return strings.Contains(e.Stderr, "not a git repository") }

// Print writes git's own message to stderr, as git would have for the command that the question
// was asked for. It reports whether there is one.
func (e *Error) Print() (process.Exit, bool) {
	if e.ExitCode <= 0 || e.Stderr == "" {
		return process.Exit{}, false
	}
	_, _ = os.Stderr.WriteString(e.Stderr)
	return process.Exit{Code: e.ExitCode}, true
}

// Output asks git something: no terminal, no input. The error is an *Error when git ran.
func (g Git) Output(ctx context.Context, args ...string) (string, error) {
	return g.ask(ctx, "", args...)
}

func (g Git) ask(ctx context.Context, input string, args ...string) (string, error) {
	stdout, stderr, exit, err := g.command(args).Output(ctx, input)
	switch {
	case ctx.Err() != nil && err != nil:
		return "", err
	case err != nil:
		return "", fmt.Errorf("git %s: %w", args[0], err)
	case !exit.OK():
		return stdout, failed(args, exit, stderr)
	}
	return stdout, nil
}

func failed(args []string, exit process.Exit, stderr string) *Error {
	if exit.Signal != 0 {
		exit.Code = -1
	}
	return &Error{Args: args, ExitCode: exit.Code, Stderr: stderr}
}

func (g Git) command(args []string) process.Command {
	// Called by another name, git would be taken for a builtin of that name.
	return process.Command{Path: g.Path, Name: "git", Args: slices.Concat(g.Globals, args), Env: g.env}
}

// In is git for a repository of its own: the user's global options and the environment's
// repository do not apply to it, nor does one that the folder lies in.
func (g Git) In(dir string) Git {
	here := Git{Path: g.Path, Globals: []string{"-C", dir}}
	here.env = g.without("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE").env
	return here.With("GIT_CEILING_DIRECTORIES=" + filepath.Dir(physical(dir)))
}

// InBare is In for a bare repository, which safe.bareRepository wants to be named.
func (g Git) InBare(dir string) Git {
	here := g.In(dir)
	here.Globals = []string{"--git-dir", dir}
	return here
}

// UsesCwdRepo reports whether nothing but the working directory says which repository is meant: no
// variable of the environment, and no global option but those that say how git works.
func (g Git) UsesCwdRepo() bool {
	for _, name := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE"} {
		if _, ok := os.LookupEnv(name); ok {
			return false
		}
	}
	for i := 0; i < len(g.Globals); i++ {
		switch name, _, value := strings.Cut(g.Globals[i], "="); name {
		case "-C", "-c", "--config-env":
			if !value || name == "-c" || name == "-C" {
				i++
			}
		case "-p", "-P", "--paginate", "--no-pager", "--exec-path":
		default:
			return false
		}
	}
	return true
}

// withRemoteAlias is a git that knows a URL by a name, for this command alone: a password in it is
// then in none of our argument lists.
func (g Git) withRemoteAlias(url string) (known Git, remote string) {
	if !strings.Contains(url, "://") || !strings.Contains(url, "@") {
		return g, url
	}
	return g.configuring("remote.gitops-url.url", url), "gitops-url"
}

// WithConfig is git with one more setting, which counts more than all others.
func (g Git) WithConfig(key, value string) Git {
	g.Globals = append(slices.Clone(g.Globals), "-c", key+"="+value)
	return g
}

// With is git with further variables in its environment.
func (g Git) With(variables ...string) Git {
	g.env = append(slices.Clone(g.environment()), variables...)
	return g
}

// Dir is the working directory of git after its -C options, without symlinks: what is beside it is
// not beside a link to it.
func (g Git) Dir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}
	dir = physical(dir)
	for i := 0; i+1 < len(g.Globals); i++ {
		if g.Globals[i] != "-C" {
			continue
		}
		i++
		if filepath.IsAbs(g.Globals[i]) {
			dir = physical(g.Globals[i])
		} else {
			dir = physical(dir + string(filepath.Separator) + g.Globals[i])
		}
	}
	return dir, nil
}

// physical is a path without symlinks; of one that is not there, what can be said.
func physical(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return filepath.Clean(path)
}

// ReadConfig reads all configuration that applies here, in one process.
func (g Git) ReadConfig(ctx context.Context) (gitargs.Config, error) {
	out, err := g.Output(ctx, "config", "-z", "--list")
	if err != nil {
		return nil, err
	}
	return gitargs.ParseConfig([]byte(out)), nil
}

// Alias is the value of alias.<name>, in any case; since git 2.54 also of alias.<name>.command,
// where case counts. The last one wins.
func (g Git) Alias(ctx context.Context, name string) (string, bool) {
	out, err := g.Output(ctx, "config", "-z", "--get-regexp", `^alias\.`)
	if err != nil {
		return "", false
	}
	var all, older []string
	for entry := range strings.SplitSeq(out, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		switch key = strings.TrimPrefix(key, "alias."); {
		case key == name+".command":
			all = append(all, value)
		case strings.EqualFold(key, name):
			all, older = append(all, value), append(older, value)
		}
	}
	if len(all) > len(older) && !g.AtLeast(ctx, 2, 54) {
		all = older
	}
	if len(all) == 0 {
		return "", false
	}
	return all[len(all)-1], true
}

// HasProgram reports whether there is a program git-<verb>, which git would run for that
// subcommand.
func HasProgram(verb string) bool {
	return process.OnPath("git-" + verb)
}

// DefaultBranch is the branch that the remote's HEAD points to, in its short form, whether it is
// there or not. It is "" when HEAD is detached, and when an empty remote does not say.
func (g Git) DefaultBranch(ctx context.Context, remote string) (branch string, empty bool, err error) {
	g, remote = g.withRemoteAlias(remote)
	out, err := g.Output(ctx, "ls-remote", "--symref", "--", remote, "HEAD")
	if err != nil {
		return "", false, err
	}
	for _, line := range lines(out) {
		target, ok := strings.CutPrefix(line, "ref: refs/heads/")
		if name, _, _ := strings.Cut(target, "\t"); ok {
			return name, false, nil
		}
	}
	if strings.TrimSpace(out) != "" {
		return "", false, nil
	}
	return g.unbornBranch(ctx, remote), true, nil
}

// unbornBranch is the branch that the remote's HEAD points to although it is not there, "" when
// the remote does not tell. A clone begins that branch. ls-remote hears of it (gitprotocol-v2(5),
// "unborn") and prints nothing, so it is read from what passes between the two.
func (g Git) unbornBranch(ctx context.Context, remote string) string {
	trace, err := os.CreateTemp("", "git-gitops-")
	if err != nil {
		return ""
	}
	defer func() { _ = os.Remove(trace.Name()) }()
	_ = trace.Close()
	_, _ = g.With("GIT_TRACE_PACKET="+trace.Name()).Output(ctx, "ls-remote", "--", remote, "HEAD")
	packets, err := os.ReadFile(trace.Name())
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(packets), "< unborn HEAD symref-target:refs/heads/")
	branch, _, _ := strings.Cut(after, "\n")
	return branch
}

// RemoteRefs are the names of the remote's refs.
func (g Git) RemoteRefs(ctx context.Context, remote string) ([]string, error) {
	g, remote = g.withRemoteAlias(remote)
	out, err := g.Output(ctx, "ls-remote", "--refs", "--", remote)
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, line := range lines(out) {
		if _, ref, ok := strings.Cut(line, "\t"); ok {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// RefStatus is what a push would do to one ref: a flag of git-push(1), "OUTPUT".
type RefStatus struct {
	Ref  string // full name at the remote
	Flag byte   // ' ' fast-forward, '+' forced, '-' deleted, '*' new, '!' rejected, '=' up to date
}

// PushDryRun asks what a push would do now, without doing it or asking anybody for a password.
// argv is what stands after "push". An error means that the remote did not answer, or that git
// refuses these arguments as a whole.
func (g Git) PushDryRun(ctx context.Context, argv []string) ([]RefStatus, error) {
	args, err := gitargs.ParsePush(argv)
	if err != nil {
		return nil, err
	}
	g = g.With("GIT_TERMINAL_PROMPT=0")
	// After the user's own options, of which --quiet would leave us without an answer.
	argv = slices.Insert(slices.Clone(argv), args.OptionEnd, "--dry-run", "--porcelain", "-v", "--no-verify")
	out, err := g.Output(ctx, append([]string{"push"}, argv...)...)
	var all []RefStatus
	for _, line := range lines(out) {
		flag, rest, ok := strings.Cut(line, "\t")
		refs, _, ok2 := strings.Cut(rest, "\t")
		if _, to, ok3 := strings.Cut(refs, ":"); ok && ok2 && ok3 && len(flag) == 1 {
			all = append(all, RefStatus{Ref: to, Flag: flag[0]})
		}
	}
	if len(all) > 0 { // rejections make it fail, and are an answer
		err = nil
	}
	return all, err
}

// Tip is the object id of a local revision, "" when there is none.
func (g Git) Tip(ctx context.Context, rev string) string {
	out, err := g.Output(ctx, "rev-parse", "--verify", "--quiet", rev+"^{commit}")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// Tips are the object ids of local revisions, in their order; an error if one of them is none.
func (g Git) Tips(ctx context.Context, revs []string) ([]string, error) {
	args := []string{"rev-parse", "--revs-only"}
	for _, rev := range revs {
		args = append(args, rev+"^{commit}")
	}
	out, err := g.Output(ctx, args...)
	if tips := lines(out); err == nil && len(tips) == len(revs) {
		return tips, nil
	}
	return nil, errors.Join(err, errors.New("a pushed revision cannot be found"))
}

// SymbolicRefs are the symbolic refs among some refs and in some folders of refs, each with the ref
// that it stands for in the end. All names are those in the namespace of the environment. Those
// that stand for nothing that exists are not among them.
func (g Git) SymbolicRefs(ctx context.Context, refs []string) (map[string]string, error) {
	symbolic, namespace := map[string]string{}, g.namespace()
	for some := range slices.Chunk(refs, 1000) { // there is a limit to what a command line holds
		args := []string{"for-each-ref", "--format=%(refname) %(symref)", "--"}
		for _, ref := range some {
			args = append(args, namespace+ref)
		}
		out, err := g.Output(ctx, args...)
		if err != nil {
			return nil, err
		}
		for _, line := range lines(out) {
			if name, target, _ := strings.Cut(line, " "); target != "" {
				symbolic[strings.TrimPrefix(name, namespace)] = strings.TrimPrefix(target, namespace)
			}
		}
	}
	return symbolic, nil
}

// SymbolicRef is what one symbolic ref stands for, whether that exists or not; "" when it is none.
func (g Git) SymbolicRef(ctx context.Context, ref string) string {
	out, err := g.Output(ctx, "symbolic-ref", "--quiet", g.namespace()+ref)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimSpace(out), g.namespace())
}

// Branches are the full names of all branches in the namespace of the environment.
func (g Git) Branches(ctx context.Context) ([]string, error) {
	namespace := g.namespace()
	out, err := g.Output(ctx, "for-each-ref", "--format=%(refname)", "--", namespace+"refs/heads/")
	var all []string
	for _, name := range lines(out) {
		all = append(all, strings.TrimPrefix(name, namespace))
	}
	return all, err
}

// namespace is what git puts before each name of a ref (gitnamespaces(7)).
func (g Git) namespace() string {
	prefix := ""
	for part := range strings.SplitSeq(os.Getenv("GIT_NAMESPACE"), "/") {
		if part != "" {
			prefix += "refs/namespaces/" + part + "/"
		}
	}
	return prefix
}

// BranchTips are the object ids of all branches, local and fetched, by their full names.
func (g Git) BranchTips(ctx context.Context) (map[string]string, error) {
	out, err := g.Output(ctx, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/remotes")
	tips := map[string]string{}
	for _, line := range lines(out) {
		oid, name, _ := strings.Cut(line, " ")
		tips[name] = oid
	}
	return tips, err
}

// ReflogEntry is one line of a ref's log.
type ReflogEntry struct{ OID, Why string }

// Reflog is the log of a ref, newest first; empty when git keeps none.
func (g Git) Reflog(ctx context.Context, ref string) []ReflogEntry {
	out, err := g.Output(ctx, "log", "--walk-reflogs", "--no-show-signature", "--format=%H %gs", ref, "--")
	if err != nil {
		return nil
	}
	var log []ReflogEntry
	for _, line := range lines(out) {
		oid, why, _ := strings.Cut(line, " ")
		log = append(log, ReflogEntry{OID: oid, Why: why})
	}
	return log
}

// Had reports whether a commit is, or was, in the history of a local branch, or of a detached HEAD,
// as far as its log goes. What a rebase had checked out does not count, nor what our own has
// made of a branch: they may have been undone, and what they brought in is else still there.
func (g Git) Had(ctx context.Context, branch, commit string) bool {
	var input strings.Builder
	fmt.Fprintln(&input, commit)
	for _, e := range g.Reflog(ctx, branch) {
		action, _, _ := strings.Cut(e.Why, ":")
		if !strings.HasPrefix(action, rebaseAction) && (branch != "HEAD" || !strings.Contains(action, "rebase")) {
			fmt.Fprintf(&input, "^%s\n", e.OID)
		}
	}
	out, err := g.ask(ctx, input.String(), "rev-list", "--max-count=1", "--ignore-missing", "--stdin")
	return err == nil && out == ""
}

// Contains reports whether a commit is in the history of another.
func (g Git) Contains(ctx context.Context, rev, commit string) bool {
	_, err := g.Output(ctx, "merge-base", "--is-ancestor", commit, rev)
	return err == nil
}

// RemoteTip is the object id of a remote's ref, "" when there is none.
func (g Git) RemoteTip(ctx context.Context, remote, ref string) (string, error) {
	g, remote = g.withRemoteAlias(remote)
	out, err := g.Output(ctx, "ls-remote", "--", remote, ref)
	if err != nil {
		return "", err
	}
	for _, line := range lines(out) { // git matches the ends of names
		if oid, name, _ := strings.Cut(line, "\t"); name == ref {
			return oid, nil
		}
	}
	return "", nil
}

// RemoteBranches are the object ids of a remote's branches, by their full names.
func (g Git) RemoteBranches(ctx context.Context, remote string) (map[string]string, error) {
	g, remote = g.withRemoteAlias(remote)
	out, err := g.Output(ctx, "ls-remote", "--heads", "--", remote)
	tips := map[string]string{}
	for _, line := range lines(out) {
		oid, name, _ := strings.Cut(line, "\t")
		tips[name] = oid
	}
	return tips, err
}

// LocalRefs are the names of the repository's refs, each followed by a space and the ref it stands
// for, if any.
func (g Git) LocalRefs(ctx context.Context) ([]string, error) {
	out, err := g.Output(ctx, "for-each-ref", "--format=%(refname) %(symref)")
	return lines(out), err
}

// RepoState is where a repository stands.
type RepoState struct {
	CommonDir string // absolute
	Head      string // full name of the ref that HEAD points to; "" when detached
	Tip       string // object id of HEAD; "" when the branch has no commit yet
}

// State asks the repository where it stands. The error is an *Error when there is none.
func (g Git) State(ctx context.Context) (RepoState, error) {
	// In git's own language, for NoRepository.
	out, err := g.With("LC_ALL=C").Output(ctx, "rev-parse", "--path-format=absolute", "--git-common-dir", "--revs-only", "HEAD", "--symbolic-full-name", "HEAD")
	if err != nil {
		return RepoState{}, err
	}
	var p RepoState
	for i, line := range lines(out) {
		switch {
		case i == 0:
			p.CommonDir = line
		case strings.HasPrefix(line, "refs/"):
			p.Head = line
		case line != "HEAD":
			p.Tip = line
		}
	}
	if p.Tip == "" { // an unborn branch, which rev-parse passes over
		if head, err := g.Output(ctx, "symbolic-ref", "-q", "HEAD"); err == nil {
			p.Head = strings.TrimSpace(head)
		}
	}
	return p, nil
}

func lines(out string) []string {
	out = strings.TrimSuffix(out, "\n")
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

// WorkTree is the top of the work tree here, "" when there is none.
func (g Git) WorkTree(ctx context.Context) string {
	out, err := g.Output(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(out, "\n")
}

// HooksDir is where git looks for the hooks of this repository; absolute.
func (g Git) HooksDir(ctx context.Context) (string, error) {
	out, err := g.Output(ctx, "rev-parse", "--path-format=absolute", "--git-path", "hooks")
	return strings.TrimSuffix(out, "\n"), err
}

// GlobalConfig is a value of the user's own configuration, "" when it is not set.
func (g Git) GlobalConfig(ctx context.Context, key string) string {
	out, err := g.Output(ctx, "config", "--global", "--get", "--type=path", key)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(out, "\n")
}

// SetGlobalConfig sets a value of the user's own configuration, or removes it when it is "".
func (g Git) SetGlobalConfig(ctx context.Context, key, value string) error {
	args := []string{"config", "--global", key, value}
	if value == "" {
		args = []string{"config", "--global", "--unset", key}
	}
	_, err := g.Output(ctx, args...)
	return err
}
