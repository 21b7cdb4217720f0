package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/git-gitops/git-gitops/hooks"
	"github.com/git-gitops/git-gitops/internal/config"
	"github.com/git-gitops/git-gitops/internal/fence"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/giturl"
	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/term"
)

// The server's side: a pre-receive hook that lets in only what the holder of a branch's lock has
// declared.

// fenceLog is where a repository keeps the last decisions; fenceLogMost is how many bytes of them.
const (
	fenceLog     = "gitops-fence.log"
	fenceLogMost = 64 << 10
)

// fenceRules are the settings of the repository here. They may come from its own configuration,
// which on a server is the operator's.
func fenceRules(c gitargs.Config, gitDir string) (fence.Rules, error) {
	rules := fence.Rules{
		Protect: c["gitops.protect"], Exempt: c["gitops.protectexempt"], IgnoreCase: c.IsTrue("core.ignorecase"),
	}
	if rules.Repo, _ = c.Get("gitops.lockrepo"); rules.Repo == "" {
		u, err := giturl.Parse(gitDir, gitDir)
		if err != nil {
			return rules, fmt.Errorf("identify the repository: %w", err)
		}
		rules.Repo = u.Identity()
	}
	return rules, nil
}

// preReceive is the hook: `git-gitops pre-receive HOOK`, with what is pushed on stdin. A hook that
// ours stands in for comes first.
func (c *command) preReceive(args []string) int {
	out := term.New(os.Stderr)
	if len(args) != 1 {
		return fail(out, &usageError{verb: "pre-receive", err: errors.New("git runs this, from the hook that install --server writes")})
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fail(out, fmt.Errorf("read what is pushed: %w", err))
	}
	exit, err := runHook(args[0]+hooks.Chained, nil, input)
	if err != nil {
		return fail(out, err)
	}
	if !exit.OK() {
		return exit.Code
	}
	updates, err := fence.ReadUpdates(bytes.NewReader(input))
	if err != nil {
		return fail(out, err)
	}
	ctx, stop := c.interruptible()
	defer stop()
	return c.receive(ctx, updates, out)
}

// receive decides about a push.
func (c *command) receive(ctx context.Context, updates []lock.Update, out *term.Printer) int {
	gitDir, err := filepath.Abs(os.Getenv("GIT_DIR")) // which git sets; where it is not, it is here
	if err != nil {
		return fail(out, fmt.Errorf("find the repository: %w", err))
	}
	rules, settings, err := c.rulesFor(ctx, updates, gitDir)
	if err != nil {
		return fail(out, err)
	}
	protected, alias := rules.Protected(updates)
	if len(protected) == 0 {
		return 0
	}
	if rule := rules.Exempts(os.Getenv); rule != "" {
		noteDecision(gitDir, protected[0], "allowed: exempt by "+rule)
		return 0
	}
	if alias != "" {
		noteDecision(gitDir, protected[0], "refused: "+alias)
		out.Fail(term.Message{
			What: "refused: " + protected[0].Ref + " is another name of a protected branch",
			Why:  alias,
			Do:   []string{"push to the branch by its own name"},
		})
		return exitFailed
	}
	refused, err := c.ask(ctx, rules, settings, protected)
	switch {
	case err != nil && settings.IsTrue("gitops.protectfailopen"):
		noteDecision(gitDir, protected[0], "allowed without a check, by gitops.protectFailOpen: "+giturl.Redact(err.Error()))
		out.Warn("this server cannot ask Redis who holds the lock, and accepts the push without a check")
		return 0
	case err != nil:
		noteDecision(gitDir, protected[0], "refused: "+giturl.Redact(err.Error()))
		out.Fail(term.Message{
			What: "refused: this server cannot ask Redis who holds the lock on " + strings.TrimPrefix(protected[0].Ref, "refs/heads/"),
			Why:  giturl.Redact(err.Error()),
			Do:   []string{"try again when Redis is back; to find the cause, run git gitops doctor in the repository on the server"},
		})
		return exitFailed
	case refused != nil:
		noteDecision(gitDir, refused.Update, "refused: "+string(refused.Refusal))
		out.Fail(refusal(refused))
		return exitFailed
	}
	for _, u := range protected {
		noteDecision(gitDir, u, "allowed")
	}
	return 0
}

// rulesFor reads the rules of the repository here, and what they need of its refs for the updates.
func (c *command) rulesFor(ctx context.Context, updates []lock.Update, gitDir string) (fence.Rules, gitargs.ScopedConfig, error) {
	var (
		symbolic map[string]string
		unknown  error
		pending  sync.WaitGroup
	)
	pending.Go(func() { symbolic, unknown = c.symbolicRefs(ctx, updates) }) // while git reads the settings
	settings, err := c.git.ReadScopedConfig(ctx)
	pending.Wait()
	if err != nil {
		return fence.Rules{}, settings, err
	}
	rules, err := fenceRules(settings.Config, gitDir)
	if err != nil || len(rules.Protect) == 0 {
		return rules, settings, err
	}
	if unknown != nil {
		return rules, settings, unknown
	}
	rules.Symbolic = symbolic
	if slices.ContainsFunc(updates, func(u lock.Update) bool { return !rules.Names(u.Ref) }) {
		more, err := c.git.SymbolicRefs(ctx, rules.Folders())
		if err != nil {
			return rules, settings, err
		}
		maps.Copy(rules.Symbolic, more)
	}
	if rules.IgnoreCase && slices.ContainsFunc(updates, func(u lock.Update) bool { return rules.Names(u.Ref) }) {
		rules.Branches, err = c.git.Branches(ctx)
		if err != nil {
			return rules, settings, err
		}
		for _, u := range updates {
			rules.Branches = append(rules.Branches, u.Ref)
		}
	}
	return rules, settings, nil
}

// symbolicRefs are the symbolic refs among those that are pushed to, and what they stand for.
func (c *command) symbolicRefs(ctx context.Context, updates []lock.Update) (map[string]string, error) {
	var names []string
	for _, u := range updates {
		names = append(names, u.Ref)
	}
	all, err := c.git.SymbolicRefs(ctx, names)
	if err != nil {
		return nil, err
	}
	for _, u := range updates {
		if strings.Trim(u.Old, "0") != "" || !strings.HasPrefix(u.Ref, "refs/heads/") {
			continue
		}
		if target := c.git.SymbolicRef(ctx, u.Ref); target != "" {
			all[u.Ref] = target
		}
	}
	return all, nil
}

// ask asks Redis about what is protected. As everywhere, a repository's own configuration does not
// say where Redis is.
func (c *command) ask(ctx context.Context, rules fence.Rules, settings gitargs.ScopedConfig, updates []lock.Update) (*fence.Refused, error) {
	cfg, err := config.Load(os.LookupEnv, config.FromGit(settings.User().Get, settings.Get))
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	store := openStore(cfg.Redis)
	defer func() { _ = store.Close() }()
	return rules.Check(ctx, store, updates)
}

// refusal is what a client sees. git-gitops reads the fixed word at the end.
func refusal(r *fence.Refused) term.Message {
	m := term.Message{Do: []string{"push with git gitops, or under git gitops run"}}
	switch {
	case r.Refusal == lock.RefusedMoved:
		m.What = fmt.Sprintf("refused: the holder of the lock on %s has declared this push for another tip", r.Key)
		m.Do = []string{"fetch, and push again"}
	case r.Refusal == lock.RefusedNotDeclared:
		m.What = fmt.Sprintf("refused: the holder of the lock on %s has not declared this push", r.Key)
	case r.Holder.Token != "":
		m.What = fmt.Sprintf("refused: the lock on %s is held by a script that does not use git-gitops", r.Key)
	default:
		m.What = fmt.Sprintf("refused: nobody holds the lock on %s", r.Key)
	}
	if r.Holder.Token != "" {
		m.Why = "held by " + holderText(r.Holder)
	}
	m.What += " " + fence.Mark + string(r.Refusal) + "]"
	return m
}

// noteDecision keeps the last decisions, for doctor. Whoever may write to the repository may
// write them. A failure is no reason to refuse a push.
func noteDecision(gitDir string, u lock.Update, decision string) {
	name, mode := filepath.Join(gitDir, fenceLog), fs.FileMode(0o600)
	if dir, err := os.Stat(gitDir); err == nil { //nolint:gosec // where git runs us
		mode = dir.Mode().Perm() & 0o666
	}
	if info, err := os.Stat(name); err == nil && info.Size() > fenceLogMost { //nolint:gosec // the server's own log
		if text, err := os.ReadFile(name); err == nil { //nolint:gosec // the server's own log
			_, text, _ = bytes.Cut(text[len(text)/2:], []byte("\n"))
			_ = os.WriteFile(name, text, mode) //nolint:gosec // the server's own log
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, mode) //nolint:gosec // the server's own log
	if err != nil {
		return
	}
	_ = f.Chmod(mode) // whatever the umask is; only its owner can
	_, _ = fmt.Fprintf(f, "%s %s %.10s..%.10s %s\n", time.Now().UTC().Format(time.RFC3339), term.Clean(u.Ref), u.Old, u.New, term.Clean(decision))
	_ = f.Close()
}

// lastDecisions are the newest lines of the log.
func lastDecisions(gitDir string, most int) []string {
	text, err := os.ReadFile(filepath.Join(gitDir, fenceLog)) //nolint:gosec // the server's own log
	if err != nil {
		return nil
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return all[max(0, len(all)-most):]
}
