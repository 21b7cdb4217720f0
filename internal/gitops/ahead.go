package gitops

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/gitargs"
	"github.com/git-gitops/git-gitops/internal/giturl"
)

// stagger is how much later a clone begins for each position further back.
const stagger = 400 * time.Millisecond

// ahead is a clone that is made during the wait: when its turn comes, only what has changed is left
// to fetch. It is made where the user asked for it. If it might differ from a fresh clone of that
// moment, git clones again.
type ahead struct {
	f    *Flows
	args gitargs.CloneArgs
	argv []string
	mark string // in the clone's configuration, by which we know it
	spot
	taken  chan git.Snapshot // what the clone is when it is done; closed without one when it failed
	turn   chan struct{}     // closed when its turn has come
	stop   func()            // ends the making of it
	stderr string            // by git
}

// cloneAhead is a clone to begin when there is a wait; nil when this one can't. url is what git
// makes of the one in args.
func (f *Flows) cloneAhead(args gitargs.CloneArgs, url string, argv []string, cwd string) *ahead {
	_, local := giturl.At(url, cwd)
	// A local clone copies all objects, so that it knows no depth, and tags of other branches are
	// followed.
	if !f.Config.Lock.Ahead || !args.Ahead || local && (args.Depth != "" || args.SingleBranch) || !f.Git.UsesCwdRepo() {
		return nil
	}
	if args.Directory() == "" {
		return nil
	}
	if f.GitConfig.With(args.Config).HasHook(git.CloneHooks...) { // not to be run before the turn
		f.Notes.Debug("not cloning while waiting: the configuration defines a hook")
		return nil
	}
	a := &ahead{f: f, args: args, argv: argv, mark: rand.Text(), spot: spotOf(args.Directory(), cwd)}
	if info, err := os.Lstat(a.dir); err == nil {
		if files, err := os.ReadDir(a.dir); !info.IsDir() || err != nil || len(files) > 0 {
			return nil // git will refuse it
		}
	}
	return a
}

const markKey = "gitops.ahead"

// begin starts the clone. It is called at each news of the wait. The holder's work comes first, and
// then that of those who are next: on the server, because all begin one after the other, and on a
// machine that several pipelines share, by priority.
func (a *ahead) begin(ctx context.Context, position int) {
	if a == nil || a.taken != nil {
		return
	}
	a.taken, a.turn = make(chan git.Snapshot, 1), make(chan struct{})
	ctx, a.stop = context.WithCancel(ctx)
	go func() {
		defer close(a.taken)
		defer a.stop()
		select {
		case <-time.After(min(time.Duration(position)*stagger, 5*time.Second)):
		case <-a.turn: // without a clone
			return
		case <-ctx.Done():
			return
		}
		s, err := a.make(ctx, position)
		if err != nil {
			a.f.Notes.Debug("not cloning while waiting: %v", err)
			return
		}
		a.f.Notes.Debug("cloned while waiting")
		select {
		case <-time.After(time.Until(s.Settled())):
			s.Settle(ctx)
		case <-a.turn:
		case <-ctx.Done():
		}
		a.taken <- s
	}()
}

// make clones, and looks at what it has made.
func (a *ahead) make(ctx context.Context, position int) (git.Snapshot, error) {
	g := a.f.Git
	g.Globals = append(slices.Clone(g.Globals), "-c", "core.hooksPath="+os.DevNull)
	if a.f.Terminal {
		g = g.WithoutPrompts() // somebody sits there, and is to be asked once: when it is their turn
	}
	job, err := g.Background(append([]string{"clone", "-c", markKey + "=" + a.mark}, a.argv...)...)
	if err != nil {
		return git.Snapshot{}, err
	}
	job.Nice(4 + 3*position)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-a.turn:
			job.Nice(0)
		case <-ended:
		}
	}()
	if a.stderr, err = job.Wait(ctx); err != nil {
		return git.Snapshot{}, err
	}
	return a.f.Git.Snapshot(ctx, a.dir, a.args)
}

// finish brings the clone up to date, now that its turn has come. It reports whether there is one;
// if not, nothing of it is left.
func (a *ahead) finish(ctx context.Context) bool {
	if a == nil || a.taken == nil {
		return false
	}
	close(a.turn)
	snapshot, ok := <-a.taken
	ours := a.ours()
	if ok && ours {
		unmarked := make(chan error, 1)
		go func() {
			_, err := a.f.Git.In(a.dir).Output(ctx, "config", "--unset", markKey)
			unmarked <- err
		}()
		err := errors.Join(snapshot.CatchUp(ctx), <-unmarked)
		if err == nil {
			_, _ = os.Stderr.WriteString(a.stderr)
			return true
		}
		a.f.Notes.Debug("cloning again: %v", strings.TrimSpace(err.Error()))
	}
	a.remove(ours)
	return false
}

// abandon ends the clone of a turn that did not come, and leaves nothing of it.
func (a *ahead) abandon() {
	if a == nil || a.taken == nil {
		return
	}
	a.stop()
	<-a.taken
	a.remove(a.ours())
}

// ours reports whether the clone in the folder is the one that we began. Another may have come
// first, which git refuses to touch, or may be there instead by now.
func (a *ahead) ours() bool {
	config, err := os.ReadFile(filepath.Join(a.dir, ".git", "config"))
	return err == nil && bytes.Contains(config, []byte(a.mark))
}

// remove removes the clone that is ours, if there is one, and the folders that were not there
// before.
func (a *ahead) remove(ours bool) {
	if !ours {
		a.leave()
	} else if err := a.clear(); err != nil {
		a.f.Notes.Warn("cannot remove the unfinished clone: %v", err)
	}
}

// spot is where a clone goes.
type spot struct {
	dir  string   // absolute
	made []string // folders that were not there before, the deepest first
}

// spotsOf are the folders that a clone fills, the work tree first.
func spotsOf(args gitargs.CloneArgs, cwd string) []spot {
	spots := []spot{spotOf(args.Directory(), cwd)}
	if args.SeparateGitDir != "" {
		spots = append(spots, spotOf(args.SeparateGitDir, cwd))
	}
	return spots
}

func spotOf(dir, cwd string) spot {
	s := spot{dir: dir}
	if !filepath.IsAbs(s.dir) {
		s.dir = filepath.Join(cwd, s.dir)
	}
	for dir := s.dir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		s.made = append(s.made, dir)
	}
	return s
}

// clear removes what a clone has put here: git clones into empty folders only.
func (s spot) clear() error {
	files, err := os.ReadDir(s.dir)
	for _, f := range files {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, f.Name())))
	}
	s.leave()
	return err
}

// leave removes the folders that were not there before, as far as they are empty.
func (s spot) leave() {
	for _, dir := range s.made {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			break // not ours alone
		}
	}
}
