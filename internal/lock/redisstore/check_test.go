//go:build unix

package redisstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// TestCheck: only what the present holder, or one who shares its lock, has declared may in, to the
// letter. What another declares, or what was declared under an earlier grant, counts for nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, keys := open(t, at(server)), server.Client(t)
	main := lock.Update{Ref: "refs/heads/main", Old: "a", New: "b"}
	check := func(what string, u lock.Update, want lock.Refusal) lock.Permit {
		t.Helper()
		got, err := s.Check(t.Context(), key, u, time.Minute)
		if err != nil || got.Refusal != want {
			t.Errorf("%s: %q, %v; want %q", what, got.Refusal, err, want)
		}
		return got
	}
	declare := func(h lock.Hold, known lock.Fence, u ...lock.Update) lock.RenewStatus {
		t.Helper()
		got, err := s.Renew(t.Context(), h, lock.RenewOptions{Known: known, Intent: u})
		if err != nil {
			t.Fatal(err)
		}
		return got.Status
	}
	left := func() time.Duration { return keys.PTTL(t.Context(), "gitops:lock:{"+key.ID()+"}").Val() }

	check("nobody holds it", main, lock.RefusedNotHeld)
	first := request(key)
	first.TTL = 50 * time.Second
	fence := try(t, s, first).Fence
	check("held, nothing declared", main, lock.RefusedNotDeclared)
	declare(first.Hold(), fence, main, lock.Update{Ref: "refs/heads/x", Old: "0", New: "1"})
	if got := left(); got > first.TTL {
		t.Errorf("a declaration extends the lease to %s", got)
	}
	if got := check("declared", main, ""); got.Holder.Token != first.Token {
		t.Errorf("held by %q", got.Holder.Token)
	}
	if got := left(); got <= first.TTL || got > time.Minute {
		t.Errorf("the lease lasts for %s after the decision", got)
	}
	for _, other := range []lock.Update{{Ref: "refs/heads/main", Old: "a", New: "c"}, {Ref: "refs/heads/mai", Old: "a", New: "b"}, {Ref: "refs/heads/x", Old: "0", New: "b"}} {
		check("something else", other, lock.RefusedNotDeclared)
	}
	check("from another tip", lock.Update{Ref: "refs/heads/main", Old: "z", New: "b"}, lock.RefusedMoved)
	declare(first.Hold(), fence) // a mere renewal
	check("after a renewal", main, "")
	long := first
	long.TTL = 10 * time.Minute
	declare(long.Hold(), fence, lock.Update{Ref: "refs/heads/main", Old: "b", New: "c"})
	check("what was declared before", main, lock.RefusedNotDeclared)
	check("what is declared now", lock.Update{Ref: "refs/heads/main", Old: "b", New: "c"}, "")
	if got := left(); got <= time.Minute || got > 10*time.Minute {
		t.Errorf("a decision has shortened the lease to %s", got)
	}

	forger := request(key)
	if got := declare(forger.Hold(), 0, main); got != lock.Lost {
		t.Errorf("a declaration without the token: %d", got)
	}
	check("forged", main, lock.RefusedNotDeclared)

	// Who shares the lock declares beside the holder, and what it has declared ends with its share.
	sharer := request(key)
	if a, err := s.Join(t.Context(), lock.Try{Request: sharer}, alone(first.Token), lock.Decision{Action: lock.Join}); err != nil || !a.Granted || !a.Guarded {
		t.Fatalf("join: %+v, %v", a, err)
	}
	share := sharer.Hold()
	share.Token, share.Share = first.Token, sharer.Token
	declare(share, fence, main)
	check("declared by a sharer", main, "")
	check("and by the holder", lock.Update{Ref: "refs/heads/main", Old: "b", New: "c"}, "")
	release(t, s, sharer, lock.StillShared)
	check("after the sharer's end", main, lock.RefusedNotDeclared)

	// Each way in which a grant ends.
	next := func(end func(lock.Request)) {
		t.Helper()
		r, after := request(key), request(key)
		declare(r.Hold(), try(t, s, r).Fence, main)
		check("declared", main, "")
		end(r)
		check("after the end", main, lock.RefusedNotHeld)
		if got := try(t, s, after); !got.Granted || !got.Guarded {
			t.Errorf("the next: %+v", got)
		}
		check("under the next grant", main, lock.RefusedNotDeclared)
		if got := declare(r.Hold(), 0, main); got != lock.Lost {
			t.Errorf("an old declaration sent again: %d", got)
		}
		check("the old declaration, sent again", main, lock.RefusedNotDeclared)
		release(t, s, after, lock.Freed)
	}
	release(t, s, first, lock.Freed)
	next(func(r lock.Request) { release(t, s, r, lock.Freed) })
	next(func(lock.Request) { keys.Del(t.Context(), "gitops:lock:{"+key.ID()+"}") }) // as an expiry does
	next(func(r lock.Request) {
		if got, err := s.Break(t.Context(), key, r.Token, lock.Record{}, ""); got != lock.Freed || err != nil {
			t.Errorf("break: %v, %v", got, err)
		}
	})

	// Handed over to one who waits, and taken over.
	r, waiter, heir := request(key), request(key), request(key)
	declare(r.Hold(), try(t, s, r).Fence, main)
	if try(t, s, waiter).Granted {
		t.Fatal("granted twice")
	}
	release(t, s, r, lock.HandedOver)
	check("handed over", main, lock.RefusedNotDeclared)
	declare(waiter.Hold(), try(t, s, waiter).Fence, main)
	if a, err := s.Join(t.Context(), lock.Try{Request: heir}, alone(waiter.Token), lock.Decision{Action: lock.TakeOver}); err != nil || !a.Granted {
		t.Fatalf("take over: %+v, %v", a, err)
	}
	check("taken over", main, lock.RefusedNotDeclared)
	release(t, s, heir, lock.Freed)

	// A writer that knows nothing of us.
	keys.Set(t.Context(), "gitops:lock:{"+key.ID()+"}", "stranger", time.Minute)
	if got := check("a stranger has it", main, lock.RefusedNotHeld); got.Holder.Token != "stranger" {
		t.Errorf("held by %q", got.Holder.Token)
	}

	server.Kill()
	var trouble *lock.StoreError
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Check(ctx, key, main, time.Minute); !errors.As(err, &trouble) {
		t.Errorf("without Redis: %v", err)
	}
}
