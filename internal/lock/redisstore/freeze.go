package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// freezeText is what Redis keeps of a freeze.
type freezeText struct {
	By     lock.Record `json:"by"` // as a holder, to clients that know no freeze
	Reason string      `json:"reason,omitempty"`
}

// Freeze has nobody granted a lock for a time, nor the narrower ones in its branch, nor those of a
// whole repository. The present holders go on. The answer is what the request names, and then what
// it froze with that; a freeze that is there already is replaced.
func (s *Store) Freeze(ctx context.Context, r lock.FreezeRequest) ([]lock.Frozen, error) {
	text, err := json.Marshal(freezeText{By: r.By, Reason: r.Reason})
	if err != nil {
		return nil, fmt.Errorf("encode the freeze: %w", err)
	}
	until := int64(0)
	if r.For == 0 {
		until = r.Until.UnixMicro()
	}
	first, err := s.freeze(ctx, r.Key, "freeze", lock.ThisLock, r, until, string(text), 0)
	if err != nil {
		return nil, err
	}
	all := []lock.Frozen{first.Frozen}
	if first.until == 0 {
		return all, nil // that time has passed
	}
	return s.freezeBelow(ctx, all, r, kept{until: first.until, since: first.since, text: string(text)})
}

// Thaw ends what Freeze began. What was frozen otherwise too stays so.
func (s *Store) Thaw(ctx context.Context, r lock.FreezeRequest) ([]lock.Frozen, error) {
	first, err := s.freeze(ctx, r.Key, "thaw", lock.ThisLock, r, 0, "", 0)
	if err != nil {
		return nil, err
	}
	return s.freezeBelow(ctx, []lock.Frozen{first.Frozen}, r, kept{})
}

// kept is the freeze of a lock as Redis keeps it; zero for none.
type kept struct {
	until, since int64 // µs
	text         string
}

func parseKept(value string) (f kept) {
	until, rest, _ := strings.Cut(value, " ")
	since, text, _ := strings.Cut(rest, " ")
	f.until, _ = strconv.ParseInt(until, 10, 64)
	f.since, _ = strconv.ParseInt(since, 10, 64)
	f.text = text
	return f
}

// freezeBelow freezes or thaws every lock of which there is a key and that a lock stands for, as
// that is now. One without a key asks by itself when it is first used.
func (s *Store) freezeBelow(ctx context.Context, first []lock.Frozen, r lock.FreezeRequest, now kept) ([]lock.Frozen, error) {
	k := r.Key
	scope, begin := lock.ItsBranch, k.ID()+":"
	if mark(k) {
		scope, begin = lock.WholeRemote, k.ID()
	}
	if k.Verbatim != "" || k.Name != "" {
		return first, nil
	}
	for {
		all, err := s.freezeEach(ctx, first, r, scope, begin, now)
		if err != nil {
			return all, err
		}
		value, err := s.ownFreeze(ctx, k)
		if err != nil {
			return all, err
		}
		before := now
		if now = parseKept(value); now == before {
			return all, nil
		}
		// Somebody has frozen or thawed all of them meanwhile, and may have come before us at some.
	}
}

func (s *Store) freezeEach(ctx context.Context, all []lock.Frozen, r lock.FreezeRequest, scope lock.Scope, begin string, now kept) ([]lock.Frozen, error) {
	all = slices.Clone(all)
	do := "freeze"
	if now == (kept{}) {
		do = "thaw"
	}
	ids, err := s.ids(ctx, "[lmqf]*", begin)
	if err != nil {
		return all, err
	}
	for _, id := range ids {
		below := lock.ParseID(id[1 : len(id)-1])
		if below.Verbatim != "" || below == r.Key {
			continue
		}
		one, err := s.freeze(ctx, below, do, scope, r, now.until, now.text, now.since)
		if err != nil {
			return all, err
		}
		all = append(all, one.Frozen)
	}
	return all, nil
}

// mark reports whether a key stands for every lock of a repository.
func mark(k lock.Key) bool { return k == k.WholeRepo() }

type frozen struct {
	lock.Frozen
	until, since int64 // µs
}

func (s *Store) freeze(ctx context.Context, k lock.Key, do string, scope lock.Scope, r lock.FreezeRequest, until int64, text string, since int64) (frozen, error) {
	isMark := 0
	if mark(k) {
		isMark = 1
	}
	operator := s.layout.key(operatorKind, tagged(k))
	reply, err := s.runWith(ctx, freezeScript, k, "", 0, []string{operator},
		do, string(scope), until, r.For.Milliseconds(), text, encode(r.By), r.Reason, since, isMark)
	if err != nil {
		return frozen{}, err
	}
	p := parser{reply: reply}
	f := frozen{Frozen: lock.Frozen{Key: k, Before: p.int() == 1}, until: p.int(), since: p.int()}
	f.Until, f.Holder, f.Freeze = time.UnixMicro(f.until), p.holder(), p.freeze()
	if err := s.check(&p); err != nil || do == "thaw" || f.until == 0 || isMark == 1 {
		return f, err
	}
	return f, s.confirm(ctx, k)
}

// freezesAbove are the freezes of what a lock is part of, in the words of Redis; "" for none.
type freezesAbove struct{ repo, branch string }

func (s *Store) freezesAbove(ctx context.Context, k lock.Key) (*freezesAbove, error) {
	var above freezesAbove
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	for _, one := range []struct {
		text *string
		key  lock.Key
	}{{&above.repo, k.WholeRepo()}, {&above.branch, k.WholeBranch()}} {
		if one.key == k {
			continue
		}
		text, err := s.ownFreeze(ctx, one.key)
		if err != nil {
			return nil, err
		}
		*one.text = text
	}
	return &above, nil
}

// ownFreeze is the freeze that was asked for by this very key, in the words of Redis; "" for none.
func (s *Store) ownFreeze(ctx context.Context, k lock.Key) (string, error) {
	value, err := s.client.HGet(ctx, s.layout.frozen(k), string(lock.ThisLock)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", s.failure(err)
	}
	return value, nil
}

// thawOutdated thaws what was frozen because of a freeze that has ended since.
func (s *Store) thawOutdated(ctx context.Context, k lock.Key, before, now freezesAbove) error {
	for _, one := range []struct {
		scope       lock.Scope
		before, now string
	}{{lock.WholeRemote, before.repo, now.repo}, {lock.ItsBranch, before.branch, now.branch}} {
		if one.before != "" && one.now == "" {
			if _, err := s.freeze(ctx, k, "thaw", one.scope, lock.FreezeRequest{}, 0, "", 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *parser) freeze() lock.Freeze {
	q := parser{reply: p.next()}
	f := lock.Freeze{Left: time.Duration(q.int()) * time.Millisecond, Age: micros(q.int())}
	var text freezeText
	if json.Unmarshal([]byte(q.text()), &text) == nil { // anybody may have written it
		f.By, f.Reason = text.By, text.Reason
	}
	f.Scope = lock.Scope(q.text())
	p.bad = p.bad || q.bad
	return f
}
