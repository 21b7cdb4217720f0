package redisstore

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/redis/go-redis/v9"
)

// Inspect reads one lock.
func (s *Store) Inspect(ctx context.Context, k lock.Key) (lock.State, error) {
	reply, err := s.run(ctx, inspectScript, k, "", 0)
	if err != nil {
		return lock.State{}, err
	}
	state, err := s.state(reply)
	state.Key = k
	return state, err
}

// List reads every lock that is held, waited for or frozen, sorted by key. It scans the keys in
// small steps.
func (s *Store) List(ctx context.Context) ([]lock.State, error) {
	ids, err := s.ids(ctx, "[lmqf]?[cteo]*", "") // lock, meta, queue, frozen
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, nil
	}
	load, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := inspectScript().Load(load, s.client).Err(); err != nil {
		return nil, s.failure(err)
	}
	var states []lock.State
	for some := range slices.Chunk(ids, inspectStep) {
		more, err := s.inspectSome(ctx, some)
		if err != nil {
			return nil, err
		}
		states = append(states, more...)
	}
	return states, nil
}

// inspectSome reads a few locks by what their keys have in common, in one round trip. The script
// must be loaded.
func (s *Store) inspectSome(ctx context.Context, ids []string) ([]lock.State, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	pipe := s.client.Pipeline()
	replies := make([]*redis.Cmd, len(ids))
	for i, id := range ids {
		keys := s.layout.lockKeys(s.layout.key("lock", id), id)
		replies[i] = pipe.EvalSha(ctx, inspectScript().Hash(), keys, "", "", 0, 0, 0, 0)
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	var states []lock.State
	for i, reply := range replies {
		value, err := reply.Result()
		if err != nil {
			err = s.failure(err)
			var se *lock.StoreError
			if errors.As(err, &se) && se.Failure == lock.NotALock {
				continue // somebody else's key, named as ours are
			}
			return nil, err
		}
		if err := s.newer(value); err != nil {
			return nil, err
		}
		state, err := s.state(value)
		if err != nil {
			return nil, err
		}
		state.Key = s.layout.lock(ids[i], state.Name)
		if state.Holder != nil || len(state.Waiters) > 0 || state.Freeze.Frozen() {
			states = append(states, state)
		}
	}
	return states, nil
}

// ids are what the keys of one lock have in common, of all locks that have a key of a kind, which
// is a pattern, and whose ID begins so.
func (s *Store) ids(ctx context.Context, kind, begin string) ([]string, error) {
	seen := map[string]bool{}
	scan := func(ctx context.Context, c redis.UniversalClient) error {
		var cursor uint64
		for {
			ctx, cancel := context.WithTimeout(ctx, s.patience())
			keys, next, err := c.Scan(ctx, cursor, s.layout.match(kind, begin), scanStep).Result()
			cancel()
			if err != nil {
				return s.failure(err)
			}
			for _, key := range keys {
				if tag, ok := s.layout.tagIn(key); ok {
					seen[tag] = true
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var err error
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return scan(ctx, c)
		})
		if err != nil {
			err = s.failure(err)
		}
	} else {
		err = scan(ctx, s.client)
	}
	return sorted(seen), err
}
