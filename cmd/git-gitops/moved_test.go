//go:build unix

package main

import (
	"testing"
)

// TestLifetime_moved: a clone that is moved keeps its lock, and its deletion frees the lock,
// wherever it is then.
func TestLifetime_moved(t *testing.T) {
	t.Parallel()
	house := newLifeWorld(t)
	for _, tc := range []struct {
		name, move, clone, end string
	}{
		{"renamed", "mv work moved", "moved", "rm -rf moved"},
		{"renamed, pushed", "mv work moved", "moved", "git -C moved commit -q --allow-empty -m edit && git gitops -C moved push -q"},
		{"its parent", "mkdir top && mv work top/ && mv top other", "other/work", "rm -rf other"},
		{"its .git", "mkdir there && mv work/.git there/ && rm -rf work", "there", "rm -rf there/.git"},
		{"another in its place", "mv work moved && git clone -q moved work", "moved", "rm -rf moved"},
		{"unlocked", "mv work moved", "moved", "git gitops -C moved unlock"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := house.in(t, tc.name)
			p := w.script(lineClone+" && "+tc.move, lineHold, tc.end, "touch ended; cat gate")
			w.reaches(p, "cloned")
			token := w.token()
			w.renewed(w.sight())
			if w.token() != token || len(w.keepers()) != 1 {
				t.Fatalf("the lock is another's, or has not one keeper: %v", w.keepers())
			}
			w.open("gate")
			w.reaches(p, "ended")
			w.after(p.started, "the lock is free", w.free)
			w.after(p.started, "no keeper is left", func() bool { return len(w.keepers()) == 0 })
			w.open("gate")
			if r := p.wait(); r.ours() != "" && tc.name != "unlocked" {
				t.Errorf("said: %s", r)
			}
		})
	}
}

// TestLifetime_copied: a copy does not keep the lock of the clone that is deleted, and its push
// says how the lock ended.
func TestLifetime_copied(t *testing.T) {
	t.Parallel()
	w := newLifeWorld(t)
	p := w.script(lineClone, "cp -a work copy",
		// In one go for the keeper, which looks each second.
		`pkill -STOP -f "^git-gitops keeper $PWD/"; rm -rf work; pkill -CONT -f "^git-gitops keeper $PWD/"`, lineHold,
		"git -C copy commit -q --allow-empty -m edit && git gitops -C copy push -q")
	w.reaches(p, "cloned")
	w.until("the lock is free", w.free)
	w.open("gate")
	r := p.wait()
	wantCode(t, r, 0)
	wantText(t, r.ours(), "was lost in the meantime: it was released by its keeper on ", ", because its clone was deleted; taking it again")
}
