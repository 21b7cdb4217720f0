package gitops

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/giturl"
)

// ahead is a clone that is made while its turn has not come: when it comes, only what has changed is left to fetch. It is made in the
// place that the user asked for, and what it is not sure to make like a fresh clone at that time, it leaves to one.
type ahead struct {
	f     *Flows
	args  git.CloneArgs
	words []string
	dir   string   // absolute
	made  []string // folders that were not there before, the deepest first
	job   *git.Background
	taken chan git.Snapshot // what the clone is when it is done; closed without one when it failed
	turn  chan struct{}     // closed when its turn has come, or will not come
	said  string            // by git
}

// cloneAhead is a clone to begin when there is a wait; nil when this one can't.
func (f *Flows) cloneAhead(args git.CloneArgs, words []string, cwd string) *ahead {
	_, local := giturl.At(args.URL, cwd)
	// A local clone copies all objects, so that it knows no depth, and tags of other branches are followed.
	if !f.Config.Lock.Ahead || !args.Ahead || local && (args.Depth != "" || args.SingleBranch) || !f.Git.Unbound() {
		return nil
	}
	a := &ahead{f: f, args: args, words: words, dir: args.Directory()}
	if a.dir == "" {
		return nil
	}
	if !filepath.IsAbs(a.dir) {
		a.dir = filepath.Join(cwd, a.dir)
	}
	if info, err := os.Lstat(a.dir); err == nil {
		if files, err := os.ReadDir(a.dir); !info.IsDir() || err != nil || len(files) > 0 {
			return nil // git will refuse it
		}
	}
	for dir := a.dir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		a.made = append(a.made, dir)
	}
	return a
}

// begin starts the clone. It is called at each news of the wait. On a machine that several pipelines share, the holder's work comes first,
// and then that of those who are next.
func (a *ahead) begin(ctx context.Context, place int) {
	if a == nil || a.job != nil || a.taken != nil {
		return
	}
	g := a.f.Git
	g.Globals = append(slices.Clone(g.Globals), "-c", "core.hooksPath="+os.DevNull)
	a.taken, a.turn = make(chan git.Snapshot, 1), make(chan struct{})
	var err error
	if a.job, err = g.Background(append([]string{"clone"}, a.words...)...); err != nil {
		close(a.taken)
		return
	}
	a.job.Nice(4 + place)
	a.f.Notes.Debug("cloning ahead")
	go func() {
		defer close(a.taken)
		said, err := a.job.Wait(ctx)
		if err == nil {
			var s git.Snapshot
			if s, err = a.f.Git.Snapshot(ctx, a.dir, a.args); err == nil {
				a.said = said
				a.f.Notes.Debug("cloned ahead")
				select {
				case <-time.After(time.Until(s.Settled())):
					s.Settle(ctx)
				case <-a.turn:
				}
				a.taken <- s
				return
			}
		}
		a.f.Notes.Debug("no clone ahead: %v", err)
	}()
}

// finish brings the clone up to date, now that its turn has come. It reports whether there is one; if not, the place is as it was.
func (a *ahead) finish(ctx context.Context) bool {
	if a == nil || a.taken == nil {
		return false
	}
	close(a.turn)
	if a.job != nil {
		a.job.Nice(0)
	}
	snapshot, ok := <-a.taken
	if ok {
		err := snapshot.CatchUp(ctx)
		if err == nil {
			_, _ = os.Stderr.WriteString(a.said)
			return true
		}
		a.f.Notes.Debug("cloning afresh: %v", strings.TrimSpace(err.Error()))
	}
	a.remove()
	return false
}

// abandon ends the clone of a turn that did not come, and leaves nothing of it.
func (a *ahead) abandon() {
	if a == nil || a.taken == nil {
		return
	}
	close(a.turn)
	if a.job != nil {
		a.job.Stop()
	}
	<-a.taken
	a.remove()
}

// remove empties the folder, which was empty or not there before.
func (a *ahead) remove() {
	files, err := os.ReadDir(a.dir)
	for _, f := range files {
		err = errors.Join(err, os.RemoveAll(filepath.Join(a.dir, f.Name())))
	}
	for _, dir := range a.made {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			break // not ours alone
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.f.Notes.Warn("cannot remove a clone that was begun: %v", err)
	}
}
