// Package config owns the settings: it takes them from the environment and git
// config, checks each one, and returns a single typed Config together with
// where every setting came from. It opens no connection and starts no process;
// the only files it reads are the certificate and password files that a
// setting names.
package config

import (
	"crypto/tls"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Config is every setting, checked.
type Config struct {
	Redis    Redis
	Lock     Lock
	Push     Push
	Log      Log
	Webhook  Webhook
	Settings []Setting // every known variable, in the order of Variables
}

// Mode is how the Redis servers are arranged.
type Mode string

// The arrangements of Redis servers.
const (
	Standalone Mode = "standalone"
	Sentinel   Mode = "sentinel"
	Cluster    Mode = "cluster"
)

// Redis says how to reach Redis, and under which names the locks are there.
type Redis struct {
	Mode             Mode
	Network          string   // "tcp" or "unix"
	Addrs            []string // host:port, IPv6 in brackets, or one socket path; with Sentinel, the sentinels
	Username         string
	Password         Secret
	passwordFile     string // absolute; "" if it is not from a file
	tlsFiles         tlsFiles
	DB               int // 0 or more; 0 in a cluster
	SentinelMaster   string
	SentinelUsername string
	SentinelPassword Secret
	// TLS is nil for a plain connection. Its ServerName is empty for Sentinel
	// and Cluster unless it was set, so that each address stands for itself.
	TLS         *tls.Config `json:"-"` // may hold a private key
	Insecure    bool        // the server is not verified (REDIS_TLS_INSECURE): warn on each use
	MinReplicas int         // replicas that must confirm a lock, 0 to 100
	Events      int         // how many events of each lock are kept, 0 to 100,000
	Prefix      string      // first part of our Redis keys: ASCII letters, digits and . _ - : only, 1 to 64 bytes
}

// Lock says which lock is meant and how long it is waited for and held.
type Lock struct {
	TTL     time.Duration // 5 s to 24 h
	Timeout time.Duration // longest wait, up to 7 days; 0 is not to wait
	MaxHold time.Duration // from TTL up to 7 days
	Name    string        // narrows the lock within its branch; not set together with Key
	Key     string        // the Redis key, verbatim
	Repo    string        // the repository's identity; a URL has lost its user and password
	Session string        // "", "workspace", or a process id above 0
	Until   string        // "push" or "session": what ends a lock that a clone or a push took
	Share   bool          // whether commands below the holder share its lock, or take it over
	OnLost  string        // "warn" or "term"
	Policy  string        // "queue", "skip" or "newest"
	Group   string        // of which only the newest waits; empty: all that wait for the same lock
	Head    time.Duration // head start in the queue, up to 7 days
	Clone   bool          // whether clone takes the lock
	Ahead   bool          // whether clone starts to clone while it waits
	Purpose string        // free text for those who wait, without control characters, at most 256 runes
}

// Push says what a refused push does.
type Push struct {
	Retries int  // 0 to 100
	Rebase  bool // rebase when somebody outside the lock moved the branch

	Batch       bool   // push together with others that wait for the branch
	BatchSecret Secret // that they share; empty: nothing is pushed together
	BatchMax    int    // how many one push takes along, 1 to 1,000
}

// Webhook says where the events of our locks are sent.
type Webhook struct {
	URL    Secret   // absolute, http or https; its path may be a password. Empty: nothing is sent
	Secret Secret   // key of the signature; empty: none
	Events []string // of webhookEvents; none is all
}

// webhookEvents are the events that a webhook can get.
var webhookEvents = []string{"acquired", "released", "lost", "pushed", "gone"}

// Log says how much is said on stderr, and how.
type Log struct {
	Level  string // "error", "info" or "debug"
	Format string // "text" or "json"
}

const week = 7 * 24 * time.Hour

// Load reads and checks every setting. A variable of the environment comes
// before git config, which comes before the default; an empty value counts as
// unset.
//
// env looks up an environment variable, as os.LookupEnv does. git looks up the
// last value of a key such as "gitops.redishost" in git config, and may be nil;
// a key that git config has without a value is to be given as "true".
//
// A relative path in a setting is relative to the working directory.
//
// The error joins one *Error for each problem, in the order of Variables. The
// Config then holds nothing but Settings.
func Load(env, git func(string) (string, bool)) (Config, error) {
	r := newReader(env, git)
	if !r.boolean("GITOPS_USE_REDIS_LOCKING") && r.ok("GITOPS_USE_REDIS_LOCKING") {
		r.fail("GITOPS_USE_REDIS_LOCKING", "true or unset: there is no other kind of locking to fall back to", nil)
	}
	cfg := Config{
		Redis: r.redis(),
		Lock:  r.lock(),
		Push: Push{
			Retries: r.number("GITOPS_PUSH_RETRIES", 100),
			Rebase:  r.boolean("GITOPS_PUSH_REBASE"),

			Batch:       r.boolean("GITOPS_PUSH_BATCH"),
			BatchSecret: newSecret(r.text("GITOPS_PUSH_BATCH_SECRET")),
			BatchMax:    r.batchMax(),
		},
		Webhook: r.webhook(),
		Log: Log{
			Level:  r.oneOf("GITOPS_LOG", "error", "info", "debug"),
			Format: r.oneOf("GITOPS_LOG_FORMAT", "text", "json"),
		},
		Settings: r.settings(),
	}
	if err := r.err(); err != nil {
		return Config{Settings: cfg.Settings}, err
	}
	return cfg, nil
}

// Include returns the patterns of the repositories that are locked, from GITOPS_INCLUDE (separated
// by commas or spaces) or else from all the values that git config has for gitops.include. None
// means all repositories.
func Include(env func(string) (string, bool), git []string) []string {
	if text, _ := env("GITOPS_INCLUDE"); text != "" {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return git
}

func (r *reader) lock() Lock {
	l := Lock{
		TTL:     r.duration("GITOPS_LOCK_TTL", 5*time.Second, 24*time.Hour),
		Timeout: r.timeout(),
		MaxHold: r.duration("GITOPS_LOCK_MAX_HOLD", 5*time.Second, week),
		Name:    r.word("GITOPS_LOCK_NAME"),
		Key:     r.word("GITOPS_LOCK_KEY"),
		Repo:    withoutUser(r.word("GITOPS_LOCK_REPO")),
		Session: r.session(),
		Until:   r.oneOf("GITOPS_LOCK_UNTIL", "push", "session"),
		Share:   r.boolean("GITOPS_LOCK_SHARE"),
		OnLost:  r.oneOf("GITOPS_ON_LOST", "warn", "term"),
		Policy:  r.oneOf("GITOPS_LOCK_POLICY", "queue", "skip", "newest"),
		Group:   r.word("GITOPS_LOCK_GROUP"),
		Head:    r.duration("GITOPS_LOCK_HEAD_START", 0, week),
		Clone:   r.boolean("GITOPS_CLONE_LOCK"),
		Ahead:   r.boolean("GITOPS_CLONE_AHEAD"),
		Purpose: r.text("GITOPS_PURPOSE"),
	}
	if l.MaxHold < l.TTL && r.ok("GITOPS_LOCK_TTL", "GITOPS_LOCK_MAX_HOLD") {
		r.fail("GITOPS_LOCK_MAX_HOLD", "at least GITOPS_LOCK_TTL, which is "+l.TTL.String(), nil)
	}
	if r.isSet("GITOPS_LOCK_NAME") {
		r.forbid("GITOPS_LOCK_NAME is set", "GITOPS_LOCK_KEY")
	}
	return l
}

func (r *reader) batchMax() int {
	n := r.number("GITOPS_PUSH_BATCH_MAX", 1000)
	if n == 0 && r.ok("GITOPS_PUSH_BATCH_MAX") {
		r.fail("GITOPS_PUSH_BATCH_MAX", "a number from 1 to 1000", nil)
	}
	return n
}

func (r *reader) webhook() Webhook {
	w := Webhook{URL: newSecret(r.text("GITOPS_WEBHOOK_URL")), Secret: newSecret(r.text("GITOPS_WEBHOOK_SECRET"))}
	if text := w.URL.Reveal(); text != "" {
		u, err := url.Parse(text) // whose error would tell the URL
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.ContainsFunc(text, unicode.IsSpace) {
			r.fail("GITOPS_WEBHOOK_URL", "https://host/path, or http://", nil)
		}
	}
	for _, event := range strings.FieldsFunc(r.text("GITOPS_WEBHOOK_EVENTS"), func(c rune) bool { return c == ',' || c == ' ' }) {
		if !slices.Contains(webhookEvents, event) {
			r.fail("GITOPS_WEBHOOK_EVENTS", "some of "+strings.Join(webhookEvents, ", ")+", separated by commas", nil)
			break
		}
		w.Events = append(w.Events, event)
	}
	return w
}

// timeout returns GITOPS_LOCK_TIMEOUT, or else what the older retry variables
// amount to. As everywhere the environment comes first, so retry variables in
// the environment win over a GITOPS_LOCK_TIMEOUT that is only in git config.
func (r *reader) timeout() time.Duration {
	const timeout, retryMax, retryDelay = "GITOPS_LOCK_TIMEOUT", "GITOPS_LOCK_RETRY_MAX", "GITOPS_LOCK_RETRY_DELAY"
	tries := r.number(retryMax, 1_000_000)
	delay := r.duration(retryDelay, 0, week)
	wait := time.Duration(0)
	if r.isSet(timeout) {
		wait = r.duration(timeout, 0, week)
	}
	retryInEnv := r.source(retryMax) == Environment || r.source(retryDelay) == Environment
	if r.source(timeout) == Environment || r.source(timeout) == GitConfig && !retryInEnv {
		return wait
	}
	if tries > 0 && delay > week/time.Duration(tries) {
		name := retryMax
		if !r.isSet(retryMax) {
			name = retryDelay
		}
		if r.ok(retryMax, retryDelay) {
			r.fail(name, "a value with which "+retryMax+" times "+retryDelay+" is at most 7 days", nil)
		}
		return 0
	}
	return time.Duration(tries) * delay
}
