package redisstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/git-gitops/git-gitops/internal/lock"
)

//go:embed lua
var luaFiles embed.FS

// The scripts are put together at their first use: most commands are git's and use none.
var (
	acquireScript = script("acquire")
	releaseScript = script("release")
	renewScript   = script("renew")
	joinScript    = script("join")
	breakScript   = script("break")
	noteScript    = script("note")
	checkScript   = script("check")
	inspectScript = script("inspect")
	offerScript   = script("offer")
	freezeScript  = script("freeze")
)

func script(name string) func() *redis.Script {
	return sync.OnceValue(func() *redis.Script { return redis.NewScript(scriptBody("lua/" + name + ".lua")) })
}

// scriptBody is a script as it is sent: what all have in common comes first.
func scriptBody(file string) string { return scriptText("lua/common.lua") + scriptText(file) }

func scriptFiles() []string {
	files, _ := fs.Glob(luaFiles, "lua/*.lua") // they are part of this program
	return files
}

func scriptText(file string) string {
	text, _ := luaFiles.ReadFile(file)
	return string(text)
}

// run runs a script for as long as it may take. known is the greatest fence that the client knows
// of.
func (s *Store) run(ctx context.Context, script func() *redis.Script, k lock.Key, t lock.Token, known lock.Fence, more ...any) (any, error) {
	return s.runWith(ctx, script, k, t, known, nil, more...)
}

// arguments are those that every script takes, in common.lua's order, and its own.
func (s *Store) arguments(k lock.Key, t lock.Token, known lock.Fence, more []any) []any {
	return append([]any{
		string(t), s.layout.wakes(k), s.timing.Claim.Milliseconds(), s.events, s.timing.Life.Milliseconds(), int64(known),
	}, more...)
}

// runWith is run for a script that touches more keys than those of every lock.
func (s *Store) runWith(ctx context.Context, script func() *redis.Script, k lock.Key, t lock.Token, known lock.Fence, extra []string, more ...any) (any, error) {
	type answer struct {
		reply any
		err   error
	}
	keys := append(s.layout.keys(k), extra...)
	args := s.arguments(k, t, known, more)
	answered := make(chan answer, 1)
	patience := s.patience()
	s.mu.Lock()
	again := s.failed && !s.contacted
	s.mu.Unlock()
	go func() { // the client observes a deadline while it reads, but no cancellation
		limit, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		s.lookAgain(limit)
		send := script().Run
		if again {
			send = script().Eval // in one step, whatever the server knows
		}
		reply, err := send(limit, s.client, keys, args...).Result()
		if s.loginRefused(err) {
			reply, err = send(limit, s.client, keys, args...).Result()
		}
		answered <- answer{reply, err}
	}()
	var a answer
	select {
	case <-ctx.Done():
		return nil, s.failure(ctx.Err())
	case a = <-answered:
	case <-time.After(patience + reloadTimeout): // and while it asks sentinels, its own deadlines
		a.err = context.DeadlineExceeded
	}
	s.mu.Lock()
	s.contacted = s.contacted || a.err == nil
	s.failed = a.err != nil
	s.mu.Unlock()
	if a.err != nil {
		err := s.failure(a.err)
		var se *lock.StoreError
		if errors.As(err, &se) && se.Failure == lock.NotALock && k.Verbatim == "" {
			se.Failure = lock.NotOurs
		}
		return nil, err
	}
	return a.reply, s.newer(a.reply)
}

// lookAgain asks a Cluster that has failed us who has which slots now. By itself the client does so
// only when a node tells it that it is the wrong one, which a dead one does not. It asks one node
// at a time, by chance: one that does not answer is asked no longer than a moment.
func (s *Store) lookAgain(ctx context.Context) {
	cluster, ok := s.client.(*redis.ClusterClient)
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if !ok || !failed {
		return
	}
	for range reloads {
		limit, cancel := context.WithTimeout(ctx, reloadTimeout)
		_ = cluster.ForEachMaster(limit, func(context.Context, *redis.Client) error { return nil }) // it reloads first
		silent := limit.Err() != nil
		cancel()
		if !silent {
			return
		}
	}
}

func (s *Store) patience() time.Duration {
	if s.wasContacted() {
		return answerTimeout
	}
	return firstTimeout
}

func (s *Store) wasContacted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contacted
}

// scriptPlace is where in which script Redis 7 met an error (luaError and ACL checks in
// script_lua.c), and Redis 6. They do not name the command.
const scriptPlace = ` ?script: ([0-9a-f]{40}), on @user_script:(\d+)\.?|\(call to f_([0-9a-f]{40})\): @user_script:(\d+): `

// placed adds the line of the script, which shows the command, to an error that Redis met in one of
// ours.
func placed(text string) string {
	pattern := regexp.MustCompile(scriptPlace) // not before: every git command would pay
	place := pattern.FindStringSubmatch(text)
	if place == nil {
		return text
	}
	hash := place[1] + place[3]
	n, _ := strconv.Atoi(place[2] + place[4])
	for _, file := range scriptFiles() {
		body := scriptBody(file)
		if lines := strings.Split(body, "\n"); redis.NewScript(body).Hash() == hash && 0 < n && n <= len(lines) {
			return fmt.Sprintf("%s: %s", strings.TrimSpace(pattern.ReplaceAllString(text, "")), strings.TrimSpace(lines[n-1]))
		}
	}
	return text
}
