package redisstore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// Event is something that happened to a lock. Anybody may have written it, so its type may be any
// text.
type Event struct {
	ID       string    // of the stream entry: milliseconds of the server's clock, and a number
	Time     time.Time // by the server's clock
	Key      lock.Key
	Lock     string // the lock's key on Redis
	Type     lock.EventType
	Who      string        // the holder or waiter that it is about
	Run      string        // URL of its CI run, "" for none
	Fence    string        // "" for events of a wait
	Wait     time.Duration // acquired, timed_out, cancelled, superseded: how long it waited
	Position int           // acquired: the first position in the queue, 0 for no wait
	Hold     time.Duration // released, expired, gone, broken: how long it was held
	Queue    int           // how many waited at that time
	Batch    int           // batch_pushed: how many pushes went together
	For      time.Duration // frozen: for how long
	By       string        // broken, superseded: who did it
	Reason   string
}

// Events reads what happened since a time, of every lock, in order.
func (s *Store) Events(ctx context.Context, since time.Time) ([]Event, error) {
	ids, err := s.ids(ctx, "events", "")
	if err != nil {
		return nil, err
	}
	var all []Event
	for some := range slices.Chunk(ids, inspectStep) {
		more, err := s.eventsOf(ctx, some, strconv.FormatInt(max(0, since.UnixMilli()), 10))
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	slices.SortStableFunc(all, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// eventsOf reads the streams of a few locks, in one round trip.
func (s *Store) eventsOf(ctx context.Context, ids []string, from string) ([]Event, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	pipe := s.client.Pipeline()
	replies := make([]*redis.XMessageSliceCmd, len(ids))
	for i, id := range ids {
		replies[i] = pipe.XRange(ctx, s.layout.key("events", id), from, "+")
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	var all []Event
	for i, reply := range replies {
		entries, err := reply.Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, s.failure(err)
		}
		for _, entry := range entries {
			e := parseEvent(entry)
			e.Key = s.layout.lock(ids[i], e.Lock)
			all = append(all, e)
		}
	}
	return all, nil
}

// GoneBefore is the event of the hold before the one with a fence, when that hold ended because
// none of the holder's processes was there.
func (s *Store) GoneBefore(ctx context.Context, k lock.Key, f lock.Fence) (e Event, found bool, err error) {
	const most = 100 // since then
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	entries, err := s.client.XRevRangeN(ctx, s.layout.key("events", tagged(k)), "+", "-", most).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Event{}, false, s.failure(err)
	}
	for i := range entries {
		e := parseEvent(entries[i])
		if e.Type == lock.EventHandedOver && e.Fence == strconv.FormatInt(int64(f), 10) && i+1 < len(entries) {
			e = parseEvent(entries[i+1]) // of the same script
			return e, e.Type == lock.EventGone, nil
		}
	}
	return Event{}, false, nil
}

func parseEvent(m redis.XMessage) Event {
	text := func(field string) string {
		s, _ := m.Values[field].(string)
		return s
	}
	number := func(field string) int64 {
		n, _ := strconv.ParseInt(text(field), 10, 64)
		return n
	}
	stamp, _, _ := strings.Cut(m.ID, "-")
	millis, _ := strconv.ParseInt(stamp, 10, 64)
	return Event{
		ID: m.ID, Time: time.UnixMilli(millis), Lock: text("lock"), Type: lock.EventType(text("type")),
		Who: text("who"), Run: text("run"), Fence: text("fence"),
		Wait: time.Duration(number("wait_ms")) * time.Millisecond, Position: int(number("position")),
		Hold: time.Duration(number("hold_ms")) * time.Millisecond, Queue: int(number("queue")),
		Batch: int(number("batch")), For: time.Duration(number("for_ms")) * time.Millisecond, By: text("by"), Reason: text("reason"),
	}
}

// Now is the server's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, s.failure(err)
	}
	return now, nil
}

// sorted are the keys of a set, in order.
func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
