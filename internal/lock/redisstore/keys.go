package redisstore

import (
	"strings"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// defaultPrefix begins all keys, unless another is configured.
const defaultPrefix = "gitops"

// All keys of one lock share a hash tag, so that they live in one slot of a Cluster:
//
//	P:lock:{ID}          the owner's token, expiring: what a plain SET NX PX writer makes and respects
//	P:meta:{ID}          hash: version (of this protocol), owner, fence, since (µs), record (JSON), key (the
//	                     lock's own key), s:TOKEN for each who shares it, the owner being the first, r:TOKEN,
//	                     its record, and i:TOKEN, what it has declared for a server; restored when a waiter put
//	                     back a lock of lost data; waited (ms) until a hand-over is confirmed. s:TOKEN has the
//	                     server that counts its subscription, moving when another did, or 1 when it claims none;
//	                     unsure says that not all of these are known, replicated that the server had a replica;
//	                     absent (µs) and looks are since when, and how often, nobody was subscribed
//	P:queue:{ID}         sorted set: tokens of waiters by ticket (µs)
//	P:waiters:{ID}       hash: a waiter's record by token, and until when (µs) it is a sign of life; p:TOKEN is when (µs) it
//	                     came, if that is not its ticket, and its group
//	P:wake:{ID}:TOKEN    a list that the waiter blocks on
//	P:ended:{ID}         hash: how a token's hold ended, and until when (µs) that is remembered, so that
//	                     nothing late can revive it
//	P:fence:{ID}         the last fence
//	P:events:{ID}        stream of what happened to the lock, capped and expiring (see Event)
//	P:frozen:{ID}        hash: until when (µs) the lock is frozen, since when, and by whom (JSON), by what was frozen:
//	                     own, branch, repo. In meta, s:!frozen and lease are a freeze's beside a hold (see lua/common.lua).
//	                     {REPO@} stands for every lock of a repository, and has no other keys but events
//	P:alive:{ID}         never there, see common.lua
//	P:alive:{ID}:TOKEN   no key but a channel, of which a holder's processes are subscribers
//	P:operator:{ID}      never there: a user of Redis who may not touch it can neither break nor freeze the lock
//	P:offers:{ID}        hash: the commits that waiters offer to the push of the holder (see lua/offer.lua)
//	P:blocked:{TOKEN}    what the script of a hold waits for (JSON), expiring
//
// P is the prefix, defaultPrefix unless configured. A verbatim key with a hash tag of its own, as
// a{TAG}b, has {TAG}:a{TAG}b in place of {ID}.
type layout struct{ prefix string }

func newLayout(prefix string) layout {
	if prefix == "" {
		prefix = defaultPrefix
	}
	return layout{prefix}
}

// KeyName is the name of a lock's own key.
func KeyName(prefix string, k lock.Key) string { return newLayout(prefix).name(k) }

// kinds are the keys that every script takes after the lock's own, in common.lua's order.
var kinds = []string{"meta", "queue", "fence", "events", "waiters", "ended", "alive", "frozen"}

// key is the key of a kind of the lock with this tag (see tagged).
func (l layout) key(kind, tag string) string { return l.prefix + ":" + kind + ":" + tag }

// lockKeys are the keys of the lock whose own key is name.
func (l layout) lockKeys(name, tag string) []string {
	keys := []string{name}
	for _, kind := range kinds {
		keys = append(keys, l.key(kind, tag))
	}
	return keys
}

// keys are the keys that every script takes for a lock.
func (l layout) keys(k lock.Key) []string { return l.lockKeys(l.name(k), tagged(k)) }

// name is the lock's own key, which holds the owner's token.
func (l layout) name(k lock.Key) string {
	if k.Verbatim != "" {
		return k.Verbatim
	}
	return l.key("lock", tagged(k))
}

func (l layout) meta(k lock.Key) string { return l.key("meta", tagged(k)) }

func (l layout) frozen(k lock.Key) string { return l.key("frozen", tagged(k)) }

func (l layout) offers(k lock.Key) string { return l.key("offers", tagged(k)) }

// wakes is what the wake lists of a lock's waiters begin with.
func (l layout) wakes(k lock.Key) string { return l.key("wake", tagged(k)) + ":" }

func (l layout) wake(k lock.Key, t lock.Token) string { return l.wakes(k) + string(t) }

// alive is the channel that the processes of a holder subscribe to.
func (l layout) alive(k lock.Key, t lock.Token) string {
	return l.key("alive", tagged(k)) + ":" + string(t)
}

func (l layout) blocked(hold lock.Token) string { return l.prefix + ":blocked:{" + string(hold) + "}" }

// match is the pattern of all keys of a kind, which is a pattern too, of locks whose ID begins so.
func (l layout) match(kind, begin string) string {
	return globEscape(l.prefix) + ":" + kind + ":{" + globEscape(begin) + "*"
}

// tagIn is the tag in a key that match has found.
func (l layout) tagIn(key string) (tag string, ok bool) {
	_, rest, ok := strings.Cut(strings.TrimPrefix(key, l.prefix+":"), ":{")
	return "{" + rest, ok
}

// lock is the lock whose own key has this name and whose keys have this tag.
func (l layout) lock(tag, name string) lock.Key {
	if name == l.key("lock", tag) {
		return lock.ParseID(tag[1 : len(tag)-1])
	}
	return lock.Key{Verbatim: name}
}

// tagged is what the keys of one lock have in common: its hash tag, and what else tells it from
// others.
func tagged(k lock.Key) string {
	id := k.ID()
	if _, rest, ok := strings.Cut(k.Verbatim, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return "{" + tag + "}:" + id
		}
	}
	return "{" + id + "}"
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
