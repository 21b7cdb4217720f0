package gitops

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/git-gitops/git-gitops/internal/git"
	"github.com/git-gitops/git-gitops/internal/lock"
)

const (
	// leaderTries is how often a leader pushes a batch again after something has moved.
	leaderTries = 3
	// offersPause is for how long nobody offers after a server has shown that it is no use.
	offersPause = time.Hour
	// batchRefLife is for how long a batch ref counts: then others than its owner may delete it.
	batchRefLife = 24 * time.Hour
	// dropPatience is for how long the deletion of a batch ref is tried again.
	dropPatience = 5 * time.Second
	// mostOld is how many batch refs of others one push deletes at most.
	mostOld      = 50
	batchRefTime = "20060102T150405Z"
)

var (
	errWoken  = errors.New("a leader says that the commits were pushed")
	errLanded = errors.New("the commits were pushed by a leader")
)

// UnknownError says that nobody can tell whether a push has landed.
type UnknownError struct{ Branch string }

func (e *UnknownError) Error() string {
	return "it is unknown whether the push to " + e.Branch + " has landed"
}

// batch is a push that goes together with others when it has to wait for its turn
// (docs/design.md, "Pushing together"). As a follower it offers its commits on a batch ref. When it
// gets the turn it is the leader and pushes for all. What has become of it is read from the remote
// alone: its batch ref holds the marker until the same push that moves the branch moves it.
//
// Its commits are pushed only by a push that moves the batch ref, with a lease on the marker.
// Before it pushes in any other way, or ends, it deletes the batch ref with the same lease.
type batch struct {
	p      *pushing
	git    git.Git // of its own: it asks beside the wait
	branch string  // short name
	tip    string  // HEAD: what is offered
	base   string  // what it is built on and the remote has
	ref    string
	marker string

	asks    lock.Request  // of the wait for the turn
	decided chan struct{} // closed when offering is over; nil: not begun
	tried   bool          // a batch ref may be there; these two are read when decided is closed
	made    bool          // it surely is

	attempts []string // own replayed tips that were pushed as the leader, without a certain answer
	hidden   bool     // the server did not show the batch ref

	own    string   // replayed tip, when it landed
	tipNow string   // of the branch, when it landed
	led    bool     // it was pushed by this one
	riders []string // who went along, when led
	old    []git.LeasedRef

	landing lock.Landing // who has pushed it, as Redis knows
}

// tracking is the remote-tracking branch, "" for none.
func (b *batch) tracking() string {
	return b.p.f.GitConfig.Tracking(b.p.target.Remote, "refs/heads/"+b.branch)
}

// turn waits for the turn to push. errLanded says that a leader was faster, and has pushed for us.
func (b *batch) turn(ctx context.Context, k lock.Key) (*lock.Lease, error) {
	for {
		if b.decided != nil { // not while an offer is made with the token before
			<-b.decided
		}
		b.asks = b.p.f.request(k, "push")
		b.asks.Woken = b.woken
		lease, err := b.p.f.acquireRequest(ctx, b.asks, func(int) { b.begin(ctx) })
		if !errors.Is(err, errWoken) {
			return lease, err
		}
		landed, _, err := b.outcome(ctx)
		if landed {
			return nil, errLanded
		}
		if err != nil {
			return nil, err
		}
	}
}

// begin offers, beside the wait for the turn.
func (b *batch) begin(ctx context.Context) {
	if b.decided != nil {
		return
	}
	b.decided = make(chan struct{})
	go func() {
		defer close(b.decided)
		ctx, cancel := context.WithTimeout(ctx, afterwards) // the turn does not wait for it any longer
		defer cancel()
		if err := b.offer(ctx); err != nil {
			b.p.f.Notes.Debug("not pushing together: %v", err)
		}
	}()
}

func (b *batch) offer(ctx context.Context) error {
	f := b.p.f
	if why := b.aloneByClone(ctx); why != "" {
		return errors.New(why)
	}
	if status, err := f.Store.Offer(ctx, b.asks, lock.Offer{}); err != nil || status != lock.Offered {
		return errors.Join(err, errors.New("the server cannot take batches"))
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	b.ref = git.BatchRef(b.branch, time.Now().UTC().Format(batchRefTime)+"-"+hex.EncodeToString(id[:]))
	var err error
	if b.marker, err = b.git.Marker(ctx, b.tip, b.ref); err != nil {
		return err
	}
	if err := b.remember(); err != nil {
		return err
	}
	f.Notes.Debug("offering %s on %s", short(b.tip), b.ref)
	b.tried = true
	result, atomic, report := b.git.PushFirst(ctx, b.p.url, git.LeasedRef{Ref: b.ref, New: b.marker})
	if !atomic { // no leader may see it
		b.pause(ctx, "the server has no atomic pushes")
		if result != git.Refused {
			b.drop(ctx, b.marker)
		}
	}
	if !atomic || result == git.Refused {
		b.tried = false
		b.forget()
	}
	switch {
	case !atomic:
		return nil
	case result == git.Refused && strings.Contains(report, "hidden ref"):
		b.pause(ctx, "the server takes no batch refs: "+strings.TrimSpace(report))
		return nil
	}
	if result != git.Pushed {
		return fmt.Errorf("the batch ref was %v: %s", result, strings.TrimSpace(report))
	}
	b.made = true
	_, err = f.Store.Offer(ctx, b.asks, b.record())
	return err // Redis may answer the next time: it is written again at each wake
}

func (b *batch) record() lock.Offer {
	o := lock.Offer{Ref: b.ref, Marker: b.marker, Base: b.base, Who: b.who()}
	o.Sign(b.asks.Key, b.p.f.Config.Push.BatchSecret.Reveal())
	return o
}

// who is this pipeline, for the others.
func (b *batch) who() string {
	return fmt.Sprintf("%s (%s@%s)", b.p.f.Config.Lock.Name, b.asks.Record.User, b.asks.Record.Host)
}

// woken is asked at each wake of a wait.
func (b *batch) woken(ctx context.Context) error {
	select {
	case <-b.decided:
		if !b.made {
			return nil
		}
	default:
		return nil
	}
	if status, err := b.p.f.Store.Offer(ctx, b.asks, b.record()); err == nil && status == lock.OfferLanded {
		return errWoken
	}
	return nil // a failure of Redis shows at the next try for the turn
}

// run pushes as the leader, now that the turn is ours. errAlone says that it has not, and that the
// push goes as without batches.
func (b *batch) run(ctx context.Context) error {
	if b == nil || b.decided == nil { // nobody else was pushing
		return errAlone
	}
	<-b.decided
	err := errAlone
	if b.made {
		landed, stopped := b.lead(ctx)
		if landed {
			return nil
		}
		if stopped != nil {
			err = stopped
		}
	}
	if landed, unknown := b.revoke(ctx); landed || unknown != nil {
		return unknown
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// errAlone says that nothing has landed and nothing is on its way: the push goes as without
// batches.
var errAlone = errors.New("this push goes alone")

// lead pushes the own commits and those of followers. An error is one that ends the push.
func (b *batch) lead(ctx context.Context) (landed bool, err error) {
	f := b.p.f
	var offers []lock.Offer // of all tries: one without an answer may have landed
	for range leaderTries {
		claimed := b.claim(ctx)
		offers = append(offers, slices.DeleteFunc(slices.Clone(claimed), func(o lock.Offer) bool { return slices.Contains(offers, o) })...)
		refs, err := b.git.FetchBatch(ctx, b.p.url, b.branch, b.name(), true)
		if err != nil {
			f.Notes.Debug("%v", err)
			return false, nil
		}
		b.noteOld(refs)
		if refs[b.ref] != b.marker { // hidden or deleted; or a push without an answer has landed, by this leader or another
			landed, err := b.readOutcome(ctx, refs)
			if landed {
				b.wake(ctx, offers, refs)
				return true, nil
			}
			if b.hidden = refs[b.ref] == ""; b.hidden {
				err = nil // the deletion will show it
			}
			return false, err
		}
		moves, err := b.replay(ctx, refs, claimed)
		if err != nil {
			f.Notes.Debug("not pushing together: %v", err)
			return false, nil
		}
		if err := b.p.held.declare(ctx, updateOf(moves[0])); err != nil { // never push without the turn
			return false, err
		}
		b.attempts = append(b.attempts, moves[1].New)
		result, report := b.git.PushLeased(ctx, b.p.url, moves...)
		switch result {
		case git.Pushed:
			b.own, b.tipNow, b.led = moves[1].New, moves[0].New, true
			for _, m := range moves {
				refs[m.Ref] = m.New
			}
			b.wake(ctx, offers, refs, moves[1:]...)
			return true, nil
		case git.Refused:
			if refusesBatches(report) {
				b.pause(ctx, "the server refuses to move batch refs, or commits of others")
			}
			f.Notes.Debug("the server refused %d pushes together: %s", len(moves)-1, strings.TrimSpace(report))
			return false, nil
		default: // read again what is there
			f.Notes.Debug("the push of %d together was %v: %s", len(moves)-1, result, strings.TrimSpace(report))
		}
	}
	return false, nil
}

// claim are the commits of others that this push may take along: none while the lock is frozen.
func (b *batch) claim(ctx context.Context) []lock.Offer {
	offers, err := b.p.f.Store.ClaimOffers(ctx, b.asks.Key, b.asks.Token, b.p.f.Config.Push.BatchMax)
	if err != nil {
		b.p.f.Notes.Debug("cannot claim the commits of others: %v", err)
	}
	return slices.DeleteFunc(offers, func(o lock.Offer) bool { return o.Token == b.asks.Token || !b.takes(o) })
}

// takes reports whether an offer is one to take along. That of a day ago is over, whoever shows it
// again.
func (b *batch) takes(o lock.Offer) bool {
	return isOID(o.Marker) && isOID(o.Base) && time.Since(b.madeAt(o.Ref)) < batchRefLife && o.Signed(b.asks.Key, b.p.f.Config.Push.BatchSecret.Reveal())
}

// replay puts all commits on the tip. moves begin with the branch and the own batch ref.
func (b *batch) replay(ctx context.Context, refs map[string]string, offers []lock.Offer) (moves []git.LeasedRef, err error) {
	f := b.p.f
	tip := refs["refs/heads/"+b.branch]
	r, err := b.git.NewReplay(ctx, tip)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var offered []string
	seen := map[string]bool{b.ref: true}
	offers = slices.DeleteFunc(slices.Clone(offers), func(o lock.Offer) bool {
		other := refs[o.Ref] != o.Marker || seen[o.Ref]
		if seen[o.Ref] = true; !other {
			offered = append(offered, o.Marker+"^")
		}
		return other
	})
	if len(offered) > 0 {
		if offered, err = b.git.Tips(ctx, offered); err != nil {
			return nil, err
		}
	}
	// The same commits may be offered by two clones. As with any push, they land for both.
	all, number := []git.Range{{Base: b.base, Tip: b.tip}}, map[string]int{b.tip: 0}
	for i, o := range offers {
		if _, known := number[offered[i]]; !known {
			number[offered[i]] = len(all)
			all = append(all, git.Range{Base: o.Base, Tip: offered[i]})
		}
	}
	tips, left, err := r.Add(ctx, all...)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	if left[0] != nil {
		return nil, left[0]
	}
	moves = []git.LeasedRef{{Ref: "refs/heads/" + b.branch, Old: tip, New: r.Tip}, {Ref: b.ref, Old: b.marker, New: tips[0]}}
	for i, o := range offers {
		n := number[offered[i]]
		if err := left[n]; err != nil {
			f.Notes.Debug("the commits of %s go in their own turn: %v", o.Who, err)
			continue
		}
		moves = append(moves, git.LeasedRef{Ref: o.Ref, Old: o.Marker, New: tips[n]})
	}
	if !b.git.Contains(ctx, r.Tip, tip) {
		return nil, fmt.Errorf("%s would not be in the history of %s", short(tip), short(r.Tip))
	}
	return moves, nil
}

// wake wakes the waiters whose commits have landed, with this push or with that of a leader who
// could not wake them. moved are the batch refs that this push is known to have moved.
func (b *batch) wake(ctx context.Context, offers []lock.Offer, refs map[string]string, moved ...git.LeasedRef) {
	ctx = context.WithoutCancel(ctx)
	tip := refs["refs/heads/"+b.branch]
	var ours, others []lock.Token
	for _, o := range offers {
		is := refs[o.Ref]
		switch {
		case slices.ContainsFunc(moved, func(m git.LeasedRef) bool { return m.Ref == o.Ref }),
			// A push puts its leader's commits first.
			b.led && len(moved) == 0 && is != "" && b.git.Contains(ctx, tip, is) && b.git.Contains(ctx, is, b.own):
			ours, b.riders = append(ours, o.Token), append(b.riders, o.Who)
		case is != "" && is != o.Marker && b.git.Contains(ctx, tip, is):
			others = append(others, o.Token)
		}
	}
	if !b.led {
		others = append(others, b.asks.Token)
	}
	b.tell(ctx, b.who(), ours)
	b.tell(ctx, "", others)
}

// tell wakes those who landed with one push of a leader.
func (b *batch) tell(ctx context.Context, leader string, landed []lock.Token) {
	if len(landed) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, b.p.f.timing().Release)
	defer cancel()
	if err := b.p.f.Store.Landed(ctx, b.asks, leader, landed); err != nil {
		b.p.f.Notes.Debug("cannot wake the waiters whose commits were pushed: %v", err) // they look for themselves at their turn
	}
}

func (b *batch) name() string { return strings.TrimPrefix(b.ref, git.BatchRef(b.branch, "")) }

// end is the end of a wait that did not bring the turn. nil: a leader has pushed for us.
func (b *batch) end(ctx context.Context, err error) error {
	switch {
	case b == nil || b.decided == nil:
		return err
	case errors.Is(err, errLanded):
		return nil
	}
	<-b.decided
	landed, unknown := b.revoke(ctx)
	switch {
	case landed:
		return nil
	case unknown != nil:
		return unknown
	}
	return err
}

// finish brings the clone to where a rebase and a push would have left it.
func (b *batch) finish(ctx context.Context) {
	if b == nil || b.own == "" {
		return
	}
	ctx = context.WithoutCancel(ctx)
	f := b.p.f
	b.withdraw(ctx)
	switch landing := b.landing; {
	case b.decided == nil:
		f.Notes.Say("pushed to %s already, as %s, by an earlier push of this clone that was killed", b.branch, short(b.own))
	case b.led && len(b.riders) > 0:
		f.Notes.Say("pushed to %s together with %s, in one push: %s", b.branch, others(len(b.riders)), some(b.riders))
	case b.led:
	case landing.By != "":
		f.Notes.Say("pushed to %s together with %s, in one push, by %s", b.branch, others(landing.Together-1), landing.By)
	default:
		f.Notes.Say("pushed to %s together with others, by one of them", b.branch)
	}
	if b.own == b.tip {
		b.p.sight.see(b.branch, b.own)
	} else {
		clone, err := b.git.Clone(ctx)
		switch {
		case err != nil:
		case clone.Untouched(ctx) == b.tip:
			err = b.git.MoveTo(ctx, b.tip, b.own)
		default:
			err = errors.New("something was edited or committed in the meantime")
		}
		if err == nil {
			b.p.sight.see(b.branch, b.own)
		} else {
			f.Notes.Warn("the push has landed as %s, but the clone could not be moved to it: %v", short(b.own), err)
		}
	}
	if tracking := b.tracking(); tracking != "" {
		upstream := b.p.args.SetUpstream && b.p.repo.Head != ""
		stdout, err := b.git.Track(ctx, tracking, b.tipNow, upstream)
		if err != nil {
			f.Notes.Warn("the push has landed, but its remote-tracking branch could not be updated: %v", err)
		}
		if !b.p.args.Quiet {
			fmt.Print(stdout)
		}
	}
	b.forget() // before the ref is deleted, which shows the outcome
	ctx, cancel := context.WithTimeout(ctx, afterwards)
	defer cancel()
	b.drop(ctx, b.own)
	if len(b.old) > 0 {
		_, _ = b.git.PushLeased(ctx, b.p.url, b.old...) // another may be faster
	}
}

// withdraw has Redis forget the offer, which else expires there.
func (b *batch) withdraw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, b.p.f.timing().Release)
	defer cancel()
	landing, err := b.p.f.Store.Withdraw(ctx, b.asks.Key, b.asks.Token)
	if err != nil {
		b.p.f.Notes.Debug("%v", err)
	}
	if landing.By != "" {
		b.landing = landing
	}
}

func others(n int) string {
	if n == 1 {
		return "1 other"
	}
	return fmt.Sprintf("%d others", n)
}

// some of many names.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// madeAt is when a batch ref of this branch was made, by its name; zero for any other ref.
func (b *batch) madeAt(ref string) time.Time {
	name, _ := strings.CutPrefix(ref, git.BatchRef(b.branch, ""))
	date, _, _ := strings.Cut(name, "-")
	made, _ := time.Parse(batchRefTime, date)
	return made
}

// noteOld remembers the batch refs of pipelines that have ended without deleting theirs.
func (b *batch) noteOld(refs map[string]string) {
	b.old = nil
	for ref, oid := range refs {
		made := b.madeAt(ref)
		if !made.IsZero() && time.Since(made) > batchRefLife && ref != b.ref && len(b.old) < mostOld {
			b.old = append(b.old, git.LeasedRef{Ref: ref, Old: oid})
		}
	}
}

// pause has nobody offer for a while: the server has shown that it is no use.
func (b *batch) pause(ctx context.Context, why string) {
	b.p.f.Notes.Debug("no pushes together to %s for %v: %s", b.branch, offersPause, why)
	_ = b.p.f.Store.PauseOffers(ctx, b.asks.Key, b.asks.Token, offersPause) // the next one finds out as well
}

// refusesBatches reports whether a refusal would meet every batch: of batch refs, and not of what
// goes to the branch with them; or of commits that another than their committer pushes.
func refusesBatches(report string) bool {
	var batchRefs, branch bool
	for line := range strings.Lines(report) {
		if strings.HasPrefix(line, "remote:") && personWords.MatchString(line) {
			return true
		}
		if strings.Contains(line, "[remote rejected]") && !strings.Contains(line, "atomic") { // not for another's sake
			batchRefs = batchRefs || strings.Contains(line, ":refs/gitops/")
			branch = branch || strings.Contains(line, ":refs/heads/")
		}
	}
	return batchRefs && !branch
}

var personWords = regexp.MustCompile(`(?i)\b(author|committer)s?\b`) // and no "authorized"

var oidForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func isOID(text string) bool { return oidForm.MatchString(text) }
