// Package workspace owns what a clone remembers, on disk: the locks that were taken for it and
// the tip of the branch at that time. A lock is taken by one process and used by the next, and this
// is what the next one knows.
//
// Each lock is one JSON file in $GIT_COMMON_DIR/gitops. Whoever may change the repository may
// change it, and nobody else may read it.
package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/session"
)

// version of the files. A file of another version is refused, not guessed at.
const version = 1

// Kind is how a lock was taken, which decides how it ends.
type Kind string

// The kinds of hold.
const (
	Clone Kind = "clone" // by clone: push ends it
	Push  Kind = "push"  // by a push that then failed: the next successful push ends it
	Lock  Kind = "lock"  // by hand: only unlock ends it
)

// Entry is one lock that this clone has.
type Entry struct {
	Version int         `json:"version"`
	Kind    Kind        `json:"kind"`
	Key     lock.Key    `json:"key"`
	Token   lock.Token  `json:"token"`
	Share   lock.Token  `json:"share,omitempty"` // our share, when the token is that of a holder we joined
	Fence   lock.Fence  `json:"fence"`
	Record  lock.Record `json:"record"`
	Since   time.Time   `json:"since"`

	// Base is the tip that the branch had when the lock was taken: what this clone's edits are
	// built on. "" when the branch did not exist, or nobody looked (see BaseKnown).
	Base      string `json:"base,omitempty"`
	BaseKnown bool   `json:"base_known"` // Base is known

	// Broken: the lock was gone for a time, so that another may have held it. Lost: why it is
	// no longer ours, as far as the keeper knows.
	Broken bool   `json:"broken,omitempty"`
	Lost   string `json:"lost,omitempty"`

	// BreakReported: the script knows that an operator broke this lock, and may take it
	// again.
	BreakReported bool `json:"break_reported,omitempty"`

	// Session is the ID of the session that the lock belongs to, "" for none.
	Session string `json:"session,omitempty"`
	// Script is the ID under which the locks of a script are looked for: the session's, or that of
	// the script which took a lock for no session.
	Script string `json:"script,omitempty"`
	// Keeper is the process that renews the lock in the background, nil for none.
	Keeper *session.Process `json:"keeper,omitempty"`
	// Users are those that push under the lock, or end it when the push of a hook has landed. While
	// one lives, no other command of the clone uses the lock.
	Users []User `json:"users,omitempty"`
}

// User is a process that uses a lock.
type User struct {
	Process session.Process  `json:"process"`
	Git     *session.Process `json:"git,omitempty"` // of a keeper: the git whose push it watches; else nil
}

// serves reports whether the process pid is part of what the user does: below it, or below the push
// that it watches.
func (u User) serves(pid int) bool { return u.Process.Above(pid) || u.Git != nil && u.Git.Above(pid) }

// Unuse removes a process from the users of a lock, and those that have ended.
func (e *Entry) Unuse(pid int) {
	e.Users = slices.DeleteFunc(e.Users, func(u User) bool { return u.Process.PID == pid || !u.Process.Alive() })
}

// KeeperAlive reports whether the process lives that renews the lock in the background.
func (e Entry) KeeperAlive() bool { return e.Keeper != nil && e.Keeper.Alive() }

// Holder is who has the lock, as the clone remembers it.
func (e Entry) Holder() lock.Holder {
	return lock.Holder{Record: e.Record, Token: e.Token, Fence: e.Fence, Known: true, Age: time.Since(e.Since)}
}

// Own is the token of our part of the lock.
func (e Entry) Own() lock.Token {
	if e.Share != "" {
		return e.Share
	}
	return e.Token
}

// Hold is the entry as a lock that can be renewed and released.
func (e Entry) Hold(ttl time.Duration) *lock.Lease {
	return lock.Resume(lock.Hold{Key: e.Key, Token: e.Token, Share: e.Share, Record: e.Record, TTL: ttl}, e.Fence)
}

// Dir is the folder of one clone's entries.
type Dir string

// At is the folder for a repository, by its common directory ($GIT_COMMON_DIR).
func At(commonDir string) Dir { return Dir(filepath.Join(commonDir, "gitops")) }

// Gone reports whether the folder was deleted, also when it is the working directory.
func (d Dir) Gone() bool {
	_, err := os.Stat(string(d))
	if d == "." { // which is there as long as we are in it
		_, err = os.Getwd()
	}
	return errors.Is(err, fs.ErrNotExist)
}

func (d Dir) file(k lock.Key) string {
	sum := sha256.Sum256([]byte(k.ID()))
	return filepath.Join(string(d), hex.EncodeToString(sum[:12])+".json")
}

// Save writes an entry, replacing the one of the same lock.
func (d Dir) Save(e Entry) error {
	if err := d.make(string(d)); err != nil {
		return err
	}
	defer d.exclusive(os.O_CREATE)()
	return d.write(e, d.replace)
}

func (d Dir) write(e Entry, write func(file string, data []byte) error) error {
	e.Version = version
	data, err := json.MarshalIndent(e, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", e.Key, err)
	}
	return write(d.file(e.Key), data)
}

// exclusive keeps others from changing entries until it is undone: who is handed a lock saves its
// entry while the one before removes its own.
func (d Dir) exclusive(create int) (undo func()) {
	f, err := d.open(filepath.Join(string(d), "lock"), create|os.O_RDWR)
	if err != nil {
		return func() {}
	}
	flock(f, alone)
	return func() { _ = f.Close() }
}

// Load reads all entries. Files that cannot be read are named in the error, a StateError for each;
// the others are returned all the same.
func (d Dir) Load() ([]Entry, error) {
	files, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(string(d), err)
	}
	var (
		entries []Entry
		errs    []error
	)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		e, err := read(filepath.Join(string(d), f.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // ended just now
		case err != nil:
			errs = append(errs, err)
		default:
			entries = append(entries, e)
		}
	}
	return entries, errors.Join(errs...)
}

func read(path string) (Entry, error) {
	var e Entry
	found, err := decode(path, &e, &e.Version)
	if err == nil && !found {
		err = &StateError{Path: path, Problem: Damaged, Err: errors.New("it is empty")}
	}
	if err != nil {
		return Entry{}, err
	}
	return e, nil
}

// Find reads the entry of one lock.
func (d Dir) Find(k lock.Key) (e Entry, ok bool, err error) {
	e, err = read(d.file(k))
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, false, nil
	}
	return e, err == nil, err
}

// Update changes an entry, but only if it is still the one with this token. It makes no file: what
// is deleted stays so, also while it is being deleted.
func (d Dir) Update(e Entry, change func(*Entry)) error {
	defer d.exclusive(0)()
	now, ok, err := d.Find(e.Key)
	if err != nil || !ok || now.Token != e.Token || now.Share != e.Share {
		return err
	}
	change(&now)
	if err := d.write(now, d.rewrite); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Claim makes a process a user of a lock, unless it has to wait for another, which is returned. The
// entry is without a token when it is there no more.
func (d Dir) Claim(e Entry, p session.Process) (now Entry, other *User, err error) {
	err = d.Update(e, func(e *Entry) {
		e.Unuse(p.PID)
		if i := slices.IndexFunc(e.Users, func(u User) bool { return !u.serves(p.PID) }); i >= 0 {
			other = &e.Users[i]
		} else {
			e.Users = append(e.Users, User{Process: p})
		}
		now = *e
	})
	return now, other, err
}

// Remove forgets an entry, but only if it is still the one with this token.
func (d Dir) Remove(e Entry) error {
	defer d.exclusive(0)()
	now, ok, err := d.Find(e.Key)
	if err != nil || !ok || now.Token != e.Token || now.Share != e.Share {
		return err
	}
	file := d.file(e.Key)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(file, err)
	}
	return nil
}
