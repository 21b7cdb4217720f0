package gitargs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// oracle is a repository that is pushed from and the one it is pushed to, with real git to ask.
type oracle struct {
	t         testing.TB
	dir, bare string
	env       []string
	commits   []string
}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	o := &oracle{
		t:    t,
		dir:  filepath.Join(dir, "work"),
		bare: filepath.Join(dir, "bare.git"),
		env:  append(gittest.Env(), "PATH="+os.Getenv("PATH"), "HOME="+dir),
	}
	if root := os.Getenv("SYSTEMROOT"); root != "" { // sockets and randomness need it on Windows
		o.env = append(o.env, "SYSTEMROOT="+root)
	}
	o.mustGit("", "init", "-q", "-b", "main", o.dir)
	o.mustGit("", "init", "-q", "--bare", o.bare)
	for i := range 3 {
		o.mustGit(o.dir, "commit", "-q", "--allow-empty", "-m", fmt.Sprint(i))
		o.commits = append(o.commits, strings.TrimSpace(o.mustGit(o.dir, "rev-parse", "HEAD")))
	}
	// The remote has all objects, so that the cases below need only move refs.
	o.mustGit(o.dir, "push", "-q", o.bare, "HEAD:refs/keep/all")
	return o
}

// git runs git and returns its stdout and exit code.
func (o *oracle) git(dir string, args ...string) (string, int) {
	o.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, o.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		o.t.Fatal(err)
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

func (o *oracle) mustGit(dir string, args ...string) string {
	o.t.Helper()
	out, code := o.git(dir, args...)
	if code != 0 {
		o.t.Fatalf("git %q: exit code %d", args, code)
	}
	return out
}

// reset makes the refs, HEAD and configuration of both repositories what the caller says.
// Refs are "name" or, for a symbolic one, "name target".
func (o *oracle) reset(head string, local, remote []string, config string) {
	o.t.Helper()
	for dir, names := range map[string][]string{filepath.Join(o.dir, ".git"): local, o.bare: remote} {
		for _, kind := range []string{"heads", "tags", "remotes"} {
			if err := os.RemoveAll(filepath.Join(dir, "refs", kind)); err != nil {
				o.t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(dir, "refs", "heads"), 0o700); err != nil {
			o.t.Fatal(err)
		}
		for i, ref := range names {
			name, target, symbolic := strings.Cut(ref, " ")
			content := o.commits[(i+len(names))%len(o.commits)]
			if symbolic {
				content = "ref: " + target
			}
			o.write(filepath.Join(dir, filepath.FromSlash(name)), content)
		}
	}
	if head == "" {
		head = o.commits[0]
	} else {
		head = "ref: " + head
	}
	o.write(filepath.Join(o.dir, ".git", "HEAD"), head)
	o.write(filepath.Join(o.dir, ".git", "config"), "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"+config)
}

func (o *oracle) write(path, line string) {
	o.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// context is the PushContext as the real repository gives it.
func (o *oracle) context() PushContext {
	o.t.Helper()
	head, _ := o.git(o.dir, "symbolic-ref", "-q", "HEAD")
	refs := func(dir string) []string {
		return strings.Split(strings.TrimSuffix(o.mustGit(dir, "for-each-ref", "--format=%(refname) %(symref)"), "\n"), "\n")
	}
	return PushContext{
		Config:    ParseConfig([]byte(o.mustGit(o.dir, "config", "-z", "--list"))),
		Head:      strings.TrimSpace(head),
		LocalRefs: func() ([]string, error) { return refs(o.dir), nil },
		RemoteRefs: func(remote string) ([]string, error) {
			out, _ := o.git(o.dir, "ls-remote", "--refs", remote)
			var names []string
			for line := range strings.Lines(out) {
				_, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
				names = append(names, name)
			}
			return names, nil
		},
	}
}

// push asks git what a push would do: the branches that it lists (updated, up to date or rejected),
// and the URL, which is "" when git refused before it listed any ref.
func (o *oracle) push(args []string) (branches []string, url string) {
	o.t.Helper()
	out, _ := o.git(o.dir, append([]string{"push", "--dry-run", "--porcelain", "-v"}, args...)...)
	for line := range strings.Lines(out) {
		if to, ok := strings.CutPrefix(line, "To "); ok {
			url = strings.TrimSpace(to)
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			continue
		}
		name := fields[1][strings.LastIndexByte(fields[1], ':')+1:]
		if strings.HasPrefix(name, "refs/heads/") {
			branches = append(branches, name)
		}
	}
	slices.Sort(branches)
	return slices.Compact(branches), url
}

// check compares Target with git. It returns "" or what is wrong.
func (o *oracle) check(ctx PushContext, args []string) string {
	o.t.Helper()
	want, url := o.push(args)
	listed := url != ""
	a, err := ParsePush(args)
	if err != nil {
		if listed {
			return fmt.Sprintf("refused (%v), and git pushes %q", err, want)
		}
		return ""
	}
	got, err := a.Target(ctx)
	if err != nil {
		return err.Error()
	}
	if to, ok := ctx.Config.Get("remote." + got.Remote + ".url"); listed && url != got.Remote && (!ok || url != to) {
		return fmt.Sprintf("remote %q, git pushes to %q", got.Remote, url)
	}
	for _, name := range want {
		if !slices.Contains(got.Branches, name) {
			return fmt.Sprintf("branches %q miss %s, git lists %q", got.Branches, name, want)
		}
	}
	// Beyond what git lists are only pushes that git refuses, and unqualified destinations.
	if listed && !slices.Equal(got.Branches, want) && !a.guesses(ctx.Config) {
		return fmt.Sprintf("branches %q, git lists %q", got.Branches, want)
	}
	return ""
}

// guesses says whether one of the documented reasons for too many branches applies.
func (a PushArgs) guesses(c Config) bool {
	if a.Delete {
		return true
	}
	texts := slices.Clone(a.Refspecs)
	for key, values := range c {
		if strings.HasSuffix(key, ".push") || strings.HasSuffix(key, ".merge") {
			texts = append(texts, values...)
			for _, value := range values {
				if strings.HasPrefix(value, "^") { // see mapped
					return true
				}
			}
		}
		if strings.HasSuffix(key, ".merge") && slices.ContainsFunc(values, func(v string) bool { return !strings.HasPrefix(v, "refs/") }) {
			return true
		}
	}
	for _, text := range texts {
		if r, ok := parseRefspec(text); ok && r.hasDst && !strings.HasPrefix(r.dst, "refs/") {
			return true
		}
	}
	return false
}

// scene is a random repository and random pushes of it.
type scene struct {
	r             *rand.Rand
	local, remote []string
	remotes       []string // names and URL that a push can go to
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func (s scene) chance(percent int) bool { return s.r.IntN(100) < percent }

var shortNames = []string{"main", "dev", "prod", "v1", "team/a", "x"}

func (s scene) refs() []string {
	var refs []string
	for _, name := range shortNames {
		if s.chance(55) {
			refs = append(refs, "refs/heads/"+name)
		}
		if s.chance(5) || name == "v1" {
			refs = append(refs, "refs/tags/"+name)
		}
		if s.chance(15) {
			refs = append(refs, "refs/remotes/origin/"+name)
		}
	}
	if s.chance(15) {
		refs = append(refs, "refs/heads/heads/"+pick(s.r, shortNames...))
	}
	return refs
}

// spell names one of these refs, or any other, in one of the ways that git knows.
func (s scene) spell(refs []string) string {
	full := "refs/heads/" + pick(s.r, shortNames...)
	if len(refs) > 0 && s.chance(93) {
		full, _, _ = strings.Cut(pick(s.r, refs...), " ")
	}
	short := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(full, "refs/heads/"), "refs/tags/"), "refs/remotes/")
	return pick(s.r, full, full, short, short, strings.TrimPrefix(full, "refs/"), strings.TrimSuffix(short, "/HEAD"))
}

func (s scene) side() string { return s.spell(s.remote) }

func (s scene) source() string {
	return pick(s.r, s.spell(s.local), s.spell(s.local), s.spell(s.local), s.spell(s.local), "HEAD", "HEAD", "@")
}

func (s scene) refspec() string {
	plus := pick(s.r, "", "", "", "+")
	switch s.r.IntN(12) {
	case 0, 1, 2, 3:
		return plus + s.source()
	case 4, 5, 6:
		return plus + pick(s.r, s.source(), s.source(), "main~0") + ":" + s.side()
	case 7:
		return ":" + s.side()
	case 8:
		return plus + ":"
	case 9:
		return plus + pick(s.r, "refs/heads/*", "refs/heads/*:refs/heads/*", "refs/heads/team/*:refs/heads/*", "refs/tags/*:refs/heads/*",
			"refs/heads/*:refs/heads/pre/*", "refs/remotes/origin/*:refs/heads/*", "refs/*:refs/*", "refs/heads/d*v:refs/heads/p*d", "refs/heads/*:refs/tags/*")
	case 10:
		return "^" + pick(s.r, s.side(), "refs/heads/*", "refs/heads/team/*", "refs/heads/d*")
	default:
		return pick(s.r, "main", "dev", "refs/heads/main")
	}
}

func (s *scene) config(bare string) string {
	var b strings.Builder
	remote := pick(s.r, "origin", "origin", "origin", "up")
	s.remotes = []string{remote, remote, remote, remote, bare}
	fmt.Fprintf(&b, "[remote %q]\n\turl = %q\n", remote, bare)
	if s.chance(30) {
		fmt.Fprintf(&b, "\tfetch = +refs/heads/*:refs/remotes/origin/*\n")
	}
	for s.chance(25) {
		fmt.Fprintf(&b, "\tpush = %q\n", pick(s.r, s.refspec(), s.spell(s.local)+":refs/heads/dev",
			"refs/heads/*:refs/heads/pre/*", "refs/heads/main:refs/heads/prod", "+refs/heads/team/*:refs/heads/*"))
	}
	if s.chance(10) {
		fmt.Fprintf(&b, "\tmirror = %s\n", pick(s.r, "true", "1", "no", "on"))
	}
	if s.chance(40) {
		s.remotes = append(s.remotes, "fork")
		fmt.Fprintf(&b, "[remote \"fork\"]\n\turl = %q\n", bare+"/.")
	}
	if s.chance(15) {
		fmt.Fprintf(&b, "[remote]\n\tpushDefault = %s\n", pick(s.r, s.remotes...))
	}
	for _, name := range shortNames {
		if s.chance(40) {
			fmt.Fprintf(&b, "[branch %q]\n\tremote = %s\n", name, pick(s.r, append(s.remotes, ".")...))
			for s.chance(75) {
				fmt.Fprintf(&b, "\tmerge = %s\n", pick(s.r, "refs/heads/"+name, "refs/heads/"+pick(s.r, shortNames...), s.side()))
				if s.chance(90) {
					break
				}
			}
			if s.chance(10) {
				fmt.Fprintf(&b, "\tpushRemote = %s\n", pick(s.r, s.remotes...))
			}
		}
	}
	if s.chance(75) {
		fmt.Fprintf(&b, "[push]\n\tdefault = %s\n", pick(s.r, "nothing", "current", "current", "upstream", "upstream", "upstream", "tracking", "simple", "matching"))
	}
	if s.chance(25) {
		fmt.Fprintf(&b, "[push]\n\tautoSetupRemote\n")
	}
	return b.String()
}

func (s scene) args(bare string) []string {
	var args []string
	option := func(percent int, words ...string) {
		if s.chance(percent) {
			args = append(args, words...)
		}
	}
	everything := s.chance(20)
	if everything {
		args = append(args, pick(s.r, "--all", "--al", "--mirror"))
	}
	option(6, "--tags")
	option(10, "--prune")
	option(10, "--follow-tags")
	option(12, pick(s.r, "-f", "-fu", "--force", "--force-with-lease"))
	option(4, "--repo", bare)
	if s.chance(80) {
		args = append(args, pick(s.r, s.remotes...))
		if everything && s.chance(90) {
			return args
		}
		if s.chance(8) {
			args = append(args, "-d")
			for range 1 + s.r.IntN(2) {
				args = append(args, s.side())
			}
			return args
		}
		option(10, "tag", "v1")
		if s.chance(75) {
			for range 1 + s.r.IntN(3) {
				args = append(args, s.refspec())
			}
		}
	}
	return args
}

// run builds the scene of a seed and checks some pushes of it.
func (o *oracle) run(seed uint64, pushes int) {
	o.t.Helper()
	s := scene{r: rand.New(rand.NewPCG(seed, 0))}
	local, remote := s.refs(), s.refs()
	if s.chance(20) {
		local = append(local, "refs/heads/sym refs/heads/"+pick(s.r, "main", "dev"))
	}
	if s.chance(20) {
		local = append(local, "refs/remotes/origin/HEAD refs/remotes/origin/main")
	}
	s.local, s.remote = local, remote
	head := "refs/heads/" + pick(s.r, shortNames...)
	if s.chance(15) {
		head = pick(s.r, "", "refs/heads/sym")
	}
	config := s.config(o.bare)
	o.reset(head, local, remote, config)
	ctx := o.context()
	for range pushes {
		args := s.args(o.bare)
		if problem := o.check(ctx, args); problem != "" {
			o.t.Errorf("seed %d: git push %q: %s\nHEAD %q\nlocal  %q\nremote %q\n%s",
				seed, args, problem, ctx.Head, local, remote, config)
		}
	}
}

func TestPushTarget_sameAsGit(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for seed := range uint64(12) {
		o.run(seed, 8)
	}
}

func FuzzPushTarget(f *testing.F) {
	f.Add(uint64(1))
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, seed uint64) {
		o := *o
		o.t = t
		o.run(seed, 4)
	})
}

// options returns the long options of a git command and whether each needs a value.
func (o *oracle) options(command string) map[string]bool {
	o.t.Helper()
	options := make(map[string]bool)
	for word := range strings.FieldsSeq(o.mustGit(o.dir, command, "--git-completion-helper-all")) {
		if name, value := strings.CutSuffix(strings.TrimPrefix(word, "--"), "="); name != "" {
			options[name] = value
		}
	}
	return options
}
