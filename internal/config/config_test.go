package config

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vars is an environment or a git config.
type vars map[string]string

func (v vars) look(name string) (string, bool) {
	text, ok := v[name]
	return text, ok
}

// with returns v, with a server unless v names one, so that a test sets only
// what it is about.
func (v vars) with() vars {
	out := vars{}
	for name, text := range v {
		out[name] = text
	}
	for _, name := range []string{"REDIS_HOST", "REDIS_URL", "REDIS_SENTINEL_ADDRS", "REDIS_SENTINEL_MASTER", "REDIS_CLUSTER_ADDRS"} {
		if _, ok := out[name]; ok {
			return out
		}
	}
	out["REDIS_HOST"] = "redis.example"
	return out
}

// failing returns the names that Load's error is about.
func failing(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("not a joined error: %v", err)
	}
	var names []string
	for _, e := range joined.Unwrap() {
		var one *Error
		if !errors.As(e, &one) {
			t.Fatalf("not an *Error: %v", e)
		}
		names = append(names, one.Name)
	}
	return names
}

func TestLoad_defaults(t *testing.T) {
	cfg, err := Load(vars{"REDIS_HOST": "redis.example"}.look, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Settings) != len(Variables()) {
		t.Errorf("%d settings, want %d", len(cfg.Settings), len(Variables()))
	}
	cfg.Settings = nil
	want := Config{
		Redis: Redis{Mode: Standalone, Network: "tcp", Addrs: []string{"redis.example:6379"}, Prefix: "gitops", Events: 1000},
		Lock: Lock{
			TTL: 300 * time.Second, Timeout: 2000 * time.Second, MaxHold: time.Hour, Until: "push", Share: true, OnLost: "warn", Policy: "queue", Clone: true, Ahead: true,
		},
		Push: Push{Retries: 3, BatchMax: 50},
		Log:  Log{Level: "info", Format: "text"},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

// TestLoad_good has a row for what each variable may be.
func TestLoad_good(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	writeFile(t, password, "from file\r\nanother line\n")
	tests := []struct {
		env  vars
		got  func(Config) any
		want any
	}{
		{vars{"REDIS_HOST": "10.0.0.1", "REDIS_PORT": "31234"}, addrs, []string{"10.0.0.1:31234"}},
		{vars{"REDIS_HOST": "::1"}, addrs, []string{"[::1]:6379"}},
		{vars{"REDIS_HOST": "[fe80::1%eth0]", "REDIS_PORT": "65535"}, addrs, []string{"[fe80::1%eth0]:65535"}},
		{vars{"REDIS_HOST": ""}, nil, nil},
		{vars{"REDIS_USERNAME": "ci", "REDIS_PASSWORD": " p "}, login, "ci/ p "},
		{vars{"REDIS_PASSWORD": "p"}, login, "/p"},
		{vars{"REDIS_PASSWORD_FILE": password}, login, "/from file"},
		{vars{"REDIS_DB": "12"}, func(c Config) any { return c.Redis.DB }, 12},

		{vars{"REDIS_URL": "redis://host"}, addrs, []string{"host:6379"}},
		{vars{"REDIS_URL": "REDIS://Host:7000/"}, addrs, []string{"Host:7000"}},
		{vars{"REDIS_URL": "redis://[::1]:7000/3"}, addrs, []string{"[::1]:7000"}},
		{vars{"REDIS_URL": "redis://host/3"}, func(c Config) any { return c.Redis.DB }, 3},
		{vars{"REDIS_URL": "redis://us%40er:p%2F%3Aw@host"}, login, "us@er/p/:w"},
		{vars{"REDIS_URL": "redis://:p@host"}, login, "/p"},
		{vars{"REDIS_URL": "redis://host", "REDIS_USERNAME": "u", "REDIS_PASSWORD": "p"}, login, "u/p"},
		{vars{"REDIS_URL": "redis://u@host", "REDIS_PASSWORD_FILE": password}, login, "u/from file"},
		{
			vars{ //nolint:gosec // made up
				"REDIS_URL": "rediss://u:p@Host:7000/3", "REDIS_HOST": "host", "REDIS_PORT": "7000", "REDIS_DB": "3",
				"REDIS_USERNAME": "u", "REDIS_PASSWORD": "p", "REDIS_TLS": "true",
			},
			addrs,
			[]string{"Host:7000"},
		},
		{vars{"REDIS_URL": "unix:///run/redis.sock"}, addrs, []string{"/run/redis.sock"}},
		{vars{"REDIS_URL": "unix:///run/redis.sock"}, func(c Config) any { return c.Redis.Network }, "unix"},
		{vars{"REDIS_URL": "unix://u:p@/run/a%20b?db=4", "REDIS_DB": "4"}, login, "u/p"},
		{vars{"REDIS_URL": "unix:///s?db=4"}, func(c Config) any { return c.Redis.DB }, 4},

		{vars{"REDIS_SENTINEL_MASTER": "main", "REDIS_SENTINEL_ADDRS": "a, b:1,[::1],::2"}, addrs, []string{"a:26379", "b:1", "[::1]:26379", "[::2]:26379"}},
		{
			vars{
				"REDIS_SENTINEL_MASTER": "main", "REDIS_SENTINEL_ADDRS": "a", "REDIS_SENTINEL_USERNAME": "u",
				"REDIS_SENTINEL_PASSWORD": "p", "REDIS_DB": "2", "REDIS_PASSWORD": "q",
			},
			func(c Config) any {
				r := c.Redis
				return []any{r.Mode, r.SentinelMaster, r.SentinelUsername, r.SentinelPassword.Reveal(), r.DB, r.Password.Reveal()}
			},
			[]any{Sentinel, "main", "u", "p", 2, "q"},
		},
		{vars{"REDIS_CLUSTER_ADDRS": "a,b:7001", "REDIS_DB": "0"}, addrs, []string{"a:6379", "b:7001"}},
		{vars{"REDIS_CLUSTER_ADDRS": "a"}, func(c Config) any { return c.Redis.Mode }, Cluster},

		{vars{"GITOPS_USE_REDIS_LOCKING": "TRUE"}, nil, nil},
		{vars{"GITOPS_REDIS_PREFIX": "team-A_1.x:y"}, func(c Config) any { return c.Redis.Prefix }, "team-A_1.x:y"},
		{vars{"GITOPS_EVENTS_MAX": "0"}, func(c Config) any { return c.Redis.Events }, 0},
		{vars{"GITOPS_REDIS_MIN_REPLICAS": "2"}, func(c Config) any { return c.Redis.MinReplicas }, 2},

		{vars{"GITOPS_LOCK_TTL": "5"}, ttl, 5 * time.Second},
		{vars{"GITOPS_LOCK_TTL": "1m30s"}, ttl, 90 * time.Second},
		{vars{"GITOPS_LOCK_TTL": "24h", "GITOPS_LOCK_MAX_HOLD": "24h"}, ttl, 24 * time.Hour},
		{vars{"GITOPS_LOCK_TIMEOUT": "0"}, wait, time.Duration(0)},
		{vars{"GITOPS_LOCK_TIMEOUT": "168h"}, wait, week},
		{vars{"GITOPS_LOCK_RETRY_MAX": "3"}, wait, time.Minute},
		{vars{"GITOPS_LOCK_RETRY_DELAY": "1"}, wait, 100 * time.Second},
		{vars{"GITOPS_LOCK_RETRY_MAX": "0"}, wait, time.Duration(0)},
		{vars{"GITOPS_LOCK_RETRY_MAX": "7", "GITOPS_LOCK_RETRY_DELAY": "24h"}, wait, week},
		{vars{"GITOPS_LOCK_TIMEOUT": "1m", "GITOPS_LOCK_RETRY_MAX": "1000000", "GITOPS_LOCK_RETRY_DELAY": "24h"}, wait, time.Minute},
		{vars{"GITOPS_LOCK_MAX_HOLD": "300"}, func(c Config) any { return c.Lock.MaxHold }, 300 * time.Second},
		{vars{"GITOPS_LOCK_NAME": "svc.acct.ü"}, func(c Config) any { return c.Lock.Name }, "svc.acct.ü"},
		{vars{"GITOPS_LOCK_KEY": "lock.a@b:{c}"}, func(c Config) any { return c.Lock.Key }, "lock.a@b:{c}"},
		{vars{"GITOPS_LOCK_REPO": "git@host:org/repo"}, repo, "git@host:org/repo"},
		{vars{"GITOPS_LOCK_REPO": "https://git:hush@host/org/a@b"}, repo, "https://host/org/a@b"}, //nolint:gosec // made up
		{vars{"GITOPS_LOCK_REPO": "https://hush@host"}, repo, "https://host"},
		{vars{"GITOPS_LOCK_SESSION": "workspace"}, session, "workspace"},
		{vars{"GITOPS_LOCK_SESSION": "0042"}, session, "42"},
		{vars{"GITOPS_ON_LOST": "term"}, func(c Config) any { return c.Lock.OnLost }, "term"},
		{vars{"GITOPS_LOG": "debug"}, func(c Config) any { return c.Log.Level }, "debug"},
		{vars{"GITOPS_LOG_FORMAT": "json"}, func(c Config) any { return c.Log.Format }, "json"},
		{vars{"GITOPS_CLONE_LOCK": "off"}, func(c Config) any { return c.Lock.Clone }, false},
		{vars{"GITOPS_CLONE_AHEAD": "off"}, func(c Config) any { return c.Lock.Ahead }, false},
		{vars{"GITOPS_LOCK_POLICY": "newest"}, func(c Config) any { return c.Lock.Policy }, "newest"},
		{vars{"GITOPS_LOCK_GROUP": "deploy"}, func(c Config) any { return c.Lock.Group }, "deploy"},
		{vars{"GITOPS_LOCK_HEAD_START": "10m"}, func(c Config) any { return c.Lock.Head }, 10 * time.Minute},
		{vars{"GITOPS_LOCK_UNTIL": "session"}, func(c Config) any { return c.Lock.Until }, "session"},
		{vars{"GITOPS_LOCK_SHARE": "off"}, func(c Config) any { return c.Lock.Share }, false},
		{vars{"GITOPS_PURPOSE": "as\nwritten"}, purpose, "as\nwritten"},
		{vars{"GITOPS_PUSH_RETRIES": "0"}, func(c Config) any { return c.Push.Retries }, 0},
		{vars{"GITOPS_PUSH_REBASE": "Yes"}, func(c Config) any { return c.Push.Rebase }, true},
		{vars{"GITOPS_PUSH_BATCH": "on"}, func(c Config) any { return c.Push.Batch }, true},
		{vars{"GITOPS_PUSH_BATCH_SECRET": " s "}, func(c Config) any { return c.Push.BatchSecret.Reveal() }, " s "},
		{vars{"GITOPS_PUSH_BATCH_MAX": "1000"}, func(c Config) any { return c.Push.BatchMax }, 1000},
		{vars{"GITOPS_WEBHOOK_URL": "https://u:p@hooks.example/T0/B0?x=1"}, hook, "https://u:p@hooks.example/T0/B0?x=1"},
		{vars{"GITOPS_WEBHOOK_URL": "HTTP://[::1]:8080"}, hook, "HTTP://[::1]:8080"},
		{vars{"GITOPS_WEBHOOK_SECRET": " s "}, func(c Config) any { return c.Webhook.Secret.Reveal() }, " s "},
		{vars{"GITOPS_WEBHOOK_EVENTS": "lost, released,"}, func(c Config) any { return c.Webhook.Events }, []string{"lost", "released"}},
	}
	tried := map[string]bool{}
	for _, tt := range tests {
		if tt.got == nil && tt.env["REDIS_HOST"] == "" {
			delete(tt.env, "REDIS_HOST") // the server is added below
		}
		for name := range tt.env {
			tried[name] = true
		}
		cfg, err := Load(tt.env.with().look, nil)
		if err != nil {
			t.Errorf("%v: %v", tt.env, err)
			continue
		}
		if tt.got != nil {
			if got := tt.got(cfg); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v: got %v, want %v", tt.env, got, tt.want)
			}
		}
	}
	for _, v := range Variables() {
		if !tried[v.Name] && !strings.HasPrefix(v.Name, "REDIS_TLS_") { // those: tls_test.go
			t.Errorf("no row for %s", v.Name)
		}
	}
}

func addrs(c Config) any   { return c.Redis.Addrs }
func login(c Config) any   { return c.Redis.Username + "/" + c.Redis.Password.Reveal() }
func ttl(c Config) any     { return c.Lock.TTL }
func wait(c Config) any    { return c.Lock.Timeout }
func repo(c Config) any    { return c.Lock.Repo }
func session(c Config) any { return c.Lock.Session }
func purpose(c Config) any { return c.Lock.Purpose }
func hook(c Config) any    { return c.Webhook.URL.Reveal() }

// TestLoad_bad has a row for what each variable may not be. The names are
// those that the error must be about, in documented order.
func TestLoad_bad(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	writeFile(t, empty, "\n")
	missing := filepath.Join(t.TempDir(), "missing")
	long := strings.Repeat("x", 513)
	tests := []struct {
		env   vars
		names string
	}{
		{vars{"REDIS_HOST": ""}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "", "REDIS_PORT": "1234"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "host:6379"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "redis://host"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "/run/redis.sock"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "a b"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "[host]"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": "fe80::1%\x1b"}, "REDIS_HOST"},
		{vars{"REDIS_HOST": strings.Repeat("x", 254)}, "REDIS_HOST"},
		{vars{"REDIS_PORT": "0"}, "REDIS_PORT"},
		{vars{"REDIS_PORT": "65536"}, "REDIS_PORT"},
		{vars{"REDIS_PORT": "+1"}, "REDIS_PORT"},
		{vars{"REDIS_PORT": "tcp://10.0.0.1:6379"}, "REDIS_PORT"},
		{vars{"REDIS_USERNAME": "u"}, "REDIS_PASSWORD"},
		{vars{"REDIS_PASSWORD_FILE": missing}, "REDIS_PASSWORD_FILE"},
		{vars{"REDIS_PASSWORD_FILE": missing, "REDIS_USERNAME": "u"}, "REDIS_PASSWORD_FILE"},
		{vars{"REDIS_PASSWORD_FILE": empty}, "REDIS_PASSWORD_FILE"},
		{vars{"REDIS_PASSWORD_FILE": empty, "REDIS_PASSWORD": "p"}, "REDIS_PASSWORD_FILE"},
		{vars{"REDIS_DB": "-1"}, "REDIS_DB"},
		{vars{"REDIS_DB": "zero"}, "REDIS_DB"},
		{vars{"REDIS_TLS": "maybe"}, "REDIS_TLS"},

		{vars{"REDIS_URL": "http://host"}, "REDIS_URL"},
		{vars{"REDIS_URL": "host:6379"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis:///0"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host:0"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host:65536"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host/x"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host/1/2"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host/2147483648"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host?db=1"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://host#x"}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://u:p/w@host", "REDIS_USERNAME": "x"}, "REDIS_URL"},
		{vars{"REDIS_URL": "unix://run/redis.sock"}, "REDIS_URL"},
		{vars{"REDIS_URL": "unix:///run/redis.sock?db=1&db=2"}, "REDIS_URL"},
		{vars{"REDIS_URL": "unix:///run/redis.sock?timeout=1"}, "REDIS_URL"},
		{vars{"REDIS_URL": "unix:///" + strings.Repeat("x", 107)}, "REDIS_URL"},
		{vars{"REDIS_URL": "redis://u@host"}, "REDIS_PASSWORD"},
		{vars{"REDIS_URL": "redis://host", "REDIS_HOST": "other"}, "REDIS_HOST"},
		{vars{"REDIS_URL": "redis://host", "REDIS_PORT": "1"}, "REDIS_PORT"},
		{vars{"REDIS_URL": "redis://host", "REDIS_DB": "1"}, "REDIS_DB"},
		{vars{"REDIS_URL": "redis://host", "REDIS_DB": "x"}, "REDIS_DB"},
		{vars{"REDIS_URL": "redis://u:p@host", "REDIS_USERNAME": "v"}, "REDIS_USERNAME"},               //nolint:gosec // made up
		{vars{"REDIS_URL": "redis://u:p@host", "REDIS_PASSWORD": "q"}, "REDIS_PASSWORD"},               //nolint:gosec // made up
		{vars{"REDIS_URL": "redis://u:p@host", "REDIS_PASSWORD_FILE": missing}, "REDIS_PASSWORD_FILE"}, //nolint:gosec // made up
		{vars{"REDIS_URL": "rediss://host", "REDIS_TLS": "false"}, "REDIS_TLS"},
		{vars{"REDIS_URL": "unix:///s", "REDIS_HOST": "host", "REDIS_PORT": "6379"}, "REDIS_HOST REDIS_PORT"},
		{vars{"REDIS_URL": "unix:///s", "REDIS_TLS": "true"}, "REDIS_TLS"},
		{vars{"REDIS_URL": "unix:///s", "REDIS_TLS_CA_CERT": "x", "REDIS_TLS_INSECURE": "true"}, "REDIS_TLS_CA_CERT REDIS_TLS_INSECURE"},

		{vars{"REDIS_SENTINEL_MASTER": "m"}, "REDIS_SENTINEL_ADDRS"},
		{vars{"REDIS_SENTINEL_ADDRS": "a"}, "REDIS_SENTINEL_MASTER"},
		{vars{"REDIS_SENTINEL_ADDRS": "a,,b", "REDIS_SENTINEL_MASTER": "m n"}, "REDIS_SENTINEL_MASTER REDIS_SENTINEL_ADDRS"},
		{vars{"REDIS_SENTINEL_ADDRS": "a", "REDIS_SENTINEL_MASTER": "m", "REDIS_SENTINEL_USERNAME": "u"}, "REDIS_SENTINEL_PASSWORD"},
		{
			vars{"REDIS_SENTINEL_ADDRS": "a", "REDIS_SENTINEL_MASTER": "m", "REDIS_HOST": "h", "REDIS_PORT": "1", "REDIS_URL": "redis://h"},
			"REDIS_HOST REDIS_PORT REDIS_URL",
		},
		{vars{"REDIS_HOST": "h", "REDIS_SENTINEL_PASSWORD": "p"}, "REDIS_HOST REDIS_SENTINEL_MASTER REDIS_SENTINEL_ADDRS"},
		{vars{"REDIS_CLUSTER_ADDRS": "a:b"}, "REDIS_CLUSTER_ADDRS"},
		{vars{"REDIS_CLUSTER_ADDRS": "a", "REDIS_DB": "1"}, "REDIS_DB"},
		{
			vars{"REDIS_CLUSTER_ADDRS": "a", "REDIS_HOST": "h", "REDIS_URL": "redis://h", "REDIS_SENTINEL_MASTER": "m", "REDIS_SENTINEL_USERNAME": "u"},
			"REDIS_HOST REDIS_URL REDIS_SENTINEL_MASTER REDIS_SENTINEL_USERNAME",
		},

		{vars{"GITOPS_USE_REDIS_LOCKING": "false"}, "GITOPS_USE_REDIS_LOCKING"},
		{vars{"GITOPS_USE_REDIS_LOCKING": "redis"}, "GITOPS_USE_REDIS_LOCKING"},
		{vars{"GITOPS_REDIS_PREFIX": "a{b}"}, "GITOPS_REDIS_PREFIX"},
		{vars{"GITOPS_REDIS_PREFIX": strings.Repeat("x", 65)}, "GITOPS_REDIS_PREFIX"},
		{vars{"GITOPS_EVENTS_MAX": "100001"}, "GITOPS_EVENTS_MAX"},
		{vars{"GITOPS_REDIS_MIN_REPLICAS": "-1"}, "GITOPS_REDIS_MIN_REPLICAS"},
		{vars{"GITOPS_LOCK_TTL": "4"}, "GITOPS_LOCK_TTL"},
		{vars{"GITOPS_LOCK_TTL": "25h"}, "GITOPS_LOCK_TTL"},
		{vars{"GITOPS_LOCK_TTL": "-5m"}, "GITOPS_LOCK_TTL"},
		{vars{"GITOPS_LOCK_TTL": "5 minutes"}, "GITOPS_LOCK_TTL"},
		{vars{"GITOPS_LOCK_TTL": "18446744073709551615"}, "GITOPS_LOCK_TTL"},
		{vars{"GITOPS_LOCK_TTL": "2h"}, "GITOPS_LOCK_MAX_HOLD"},
		{vars{"GITOPS_LOCK_TTL": "x", "GITOPS_LOCK_MAX_HOLD": "10"}, "GITOPS_LOCK_TTL"},
		{vars{"GITOPS_LOCK_TIMEOUT": "169h"}, "GITOPS_LOCK_TIMEOUT"},
		{vars{"GITOPS_LOCK_TIMEOUT": "1m", "GITOPS_LOCK_RETRY_MAX": "x"}, "GITOPS_LOCK_RETRY_MAX"},
		{vars{"GITOPS_LOCK_RETRY_MAX": "-1"}, "GITOPS_LOCK_RETRY_MAX"},
		{vars{"GITOPS_LOCK_RETRY_MAX": "1000000"}, "GITOPS_LOCK_RETRY_MAX"},
		{vars{"GITOPS_LOCK_RETRY_DELAY": "2h"}, "GITOPS_LOCK_RETRY_DELAY"},
		{vars{"GITOPS_LOCK_RETRY_DELAY": "soon"}, "GITOPS_LOCK_RETRY_DELAY"},
		{vars{"GITOPS_LOCK_MAX_HOLD": "60"}, "GITOPS_LOCK_MAX_HOLD"},
		{vars{"GITOPS_LOCK_MAX_HOLD": "200h"}, "GITOPS_LOCK_MAX_HOLD"},
		{vars{"GITOPS_LOCK_NAME": "a b"}, "GITOPS_LOCK_NAME"},
		{vars{"GITOPS_LOCK_NAME": "a\x7fb"}, "GITOPS_LOCK_NAME"},
		{vars{"GITOPS_LOCK_NAME": "a\xffb"}, "GITOPS_LOCK_NAME"},
		{vars{"GITOPS_LOCK_NAME": long}, "GITOPS_LOCK_NAME"},
		{vars{"GITOPS_LOCK_NAME": "a", "GITOPS_LOCK_KEY": "b"}, "GITOPS_LOCK_KEY"},
		{vars{"GITOPS_LOCK_KEY": "a\tb"}, "GITOPS_LOCK_KEY"},
		{vars{"GITOPS_LOCK_REPO": "a\u202eb"}, "GITOPS_LOCK_REPO"},
		{vars{"GITOPS_LOCK_SESSION": "0"}, "GITOPS_LOCK_SESSION"},
		{vars{"GITOPS_LOCK_SESSION": "-1"}, "GITOPS_LOCK_SESSION"},
		{vars{"GITOPS_LOCK_SESSION": strconv.Itoa(math.MaxInt32 + 1)}, "GITOPS_LOCK_SESSION"},
		{vars{"GITOPS_LOCK_SESSION": "shell"}, "GITOPS_LOCK_SESSION"},
		{vars{"GITOPS_ON_LOST": "kill"}, "GITOPS_ON_LOST"},
		{vars{"GITOPS_LOG": "loud"}, "GITOPS_LOG"},
		{vars{"GITOPS_LOG_FORMAT": "xml"}, "GITOPS_LOG_FORMAT"},
		{vars{"GITOPS_CLONE_LOCK": "maybe"}, "GITOPS_CLONE_LOCK"},
		{vars{"GITOPS_CLONE_AHEAD": "maybe"}, "GITOPS_CLONE_AHEAD"},
		{vars{"GITOPS_LOCK_POLICY": "oldest"}, "GITOPS_LOCK_POLICY"},
		{vars{"GITOPS_LOCK_GROUP": "two words"}, "GITOPS_LOCK_GROUP"},
		{vars{"GITOPS_LOCK_HEAD_START": "-10m"}, "GITOPS_LOCK_HEAD_START"},
		{vars{"GITOPS_LOCK_HEAD_START": "200h"}, "GITOPS_LOCK_HEAD_START"},
		{vars{"GITOPS_LOCK_UNTIL": "forever"}, "GITOPS_LOCK_UNTIL"},
		{vars{"GITOPS_LOCK_SHARE": "maybe"}, "GITOPS_LOCK_SHARE"},
		{vars{"GITOPS_PUSH_RETRIES": "101"}, "GITOPS_PUSH_RETRIES"},
		{vars{"GITOPS_PUSH_REBASE": "true "}, "GITOPS_PUSH_REBASE"},
		{vars{"GITOPS_PUSH_BATCH": "both"}, "GITOPS_PUSH_BATCH"},
		{vars{"GITOPS_PUSH_BATCH_MAX": "1001"}, "GITOPS_PUSH_BATCH_MAX"},
		{vars{"GITOPS_PUSH_BATCH_MAX": "0"}, "GITOPS_PUSH_BATCH_MAX"},
		{vars{"GITOPS_WEBHOOK_URL": "hooks.example/x"}, "GITOPS_WEBHOOK_URL"},
		{vars{"GITOPS_WEBHOOK_URL": "ftp://hooks.example/x"}, "GITOPS_WEBHOOK_URL"},
		{vars{"GITOPS_WEBHOOK_URL": "https:///x"}, "GITOPS_WEBHOOK_URL"},
		{vars{"GITOPS_WEBHOOK_URL": "https://hooks.example/a b"}, "GITOPS_WEBHOOK_URL"},
		{vars{"GITOPS_WEBHOOK_URL": "https://hooks.example:x/"}, "GITOPS_WEBHOOK_URL"},
		{vars{"GITOPS_WEBHOOK_EVENTS": "lost,found"}, "GITOPS_WEBHOOK_EVENTS"},
		{vars{"GITOPS_PUSH_REBASE": "x", "REDIS_PORT": "x", "GITOPS_LOCK_TTL": "x"}, "REDIS_PORT GITOPS_LOCK_TTL GITOPS_PUSH_REBASE"},
	}
	tried := map[string]bool{}
	for _, tt := range tests {
		cfg, err := Load(tt.env.with().look, nil)
		names := failing(t, err)
		if got := strings.Join(names, " "); got != tt.names {
			t.Errorf("%v: error about %q, want %q: %v", tt.env, got, tt.names, err)
		}
		if cfg.Settings == nil || cfg.Redis.Mode != "" {
			t.Errorf("%v: want settings and nothing else beside an error, got %+v", tt.env, cfg)
		}
		for _, name := range names {
			tried[name] = true
		}
	}
	for _, v := range Variables() {
		free := v.Name == "GITOPS_PURPOSE" || v.Name == "GITOPS_WEBHOOK_SECRET" || v.Name == "GITOPS_PUSH_BATCH_SECRET" || strings.HasPrefix(v.Name, "REDIS_TLS_") // those: tls_test.go
		if !tried[v.Name] && !free && v.Name != "REDIS_SENTINEL_USERNAME" {
			t.Errorf("no row for %s", v.Name)
		}
	}
}

func TestError(t *testing.T) {
	git := vars{"gitops.redisport": "70000"}
	env := vars{"REDIS_URL": "redis://:hush@a b", "GITOPS_LOCK_NAME": "a\x1b b", "GITOPS_USE_REDIS_LOCKING": "no"}
	_, err := Load(env.look, git.look)
	want := []string{
		`REDIS_URL is set, want redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path?db=0: ` +
			`the URL is malformed; in a user or password, special characters are written as %XX`,
		`GITOPS_USE_REDIS_LOCKING is "no", want true or unset: there is no other kind of locking to fall back to`,
		`GITOPS_LOCK_NAME is "a? b", want at most 512 bytes of valid UTF-8 without spaces and control characters`,
	}
	if got := err.Error(); got != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	_, err = Load(vars{"REDIS_HOST": "host"}.look, git.look)
	if got, want := err.Error(), `REDIS_PORT (git config gitops.redisport) is "70000", want a number from 1 to 65535`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	_, err = Load(vars{}.look, nil)
	if got, want := err.Error(), "REDIS_HOST is not set, want "; !strings.HasPrefix(got, want) {
		t.Errorf("got  %s\nwant %s…", got, want)
	}
	_, err = Load(vars{"REDIS_HOST": "h", "REDIS_PASSWORD_FILE": "/no/such/file"}.look, nil) //nolint:gosec // made up
	var one *Error
	if !errors.Is(err, os.ErrNotExist) || !errors.As(err, &one) || one.Value != "/no/such/file" {
		t.Errorf("got %v, want a missing file with its name", err)
	}
}

func TestLoad_precedence(t *testing.T) {
	env := vars{"REDIS_HOST": "from-env", "REDIS_USERNAME": ""}
	git := vars{
		"gitops.redishost": "from-git", "gitops.redisport": "1234", "gitops.redisusername": "ci",
		"gitops.redispassword": "hush", "gitops.lockttl": "", "gitops.redisminreplicas": "2",
	}
	cfg, err := Load(env.look, git.look)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Redis.Addrs[0]; got != "from-env:1234" {
		t.Errorf("address %q", got)
	}
	want := map[string]Setting{
		"REDIS_HOST":                {"REDIS_HOST", "gitops.redishost", "from-env", Environment},
		"REDIS_PORT":                {"REDIS_PORT", "gitops.redisport", "1234", GitConfig},
		"REDIS_USERNAME":            {"REDIS_USERNAME", "gitops.redisusername", "ci", GitConfig},
		"REDIS_PASSWORD":            {"REDIS_PASSWORD", "gitops.redispassword", "set", GitConfig},
		"REDIS_SENTINEL_PASSWORD":   {"REDIS_SENTINEL_PASSWORD", "gitops.redissentinelpassword", "", Default},
		"GITOPS_LOCK_TTL":           {"GITOPS_LOCK_TTL", "gitops.lockttl", "300", Default},
		"GITOPS_REDIS_MIN_REPLICAS": {"GITOPS_REDIS_MIN_REPLICAS", "gitops.redisminreplicas", "2", GitConfig},
	}
	for i, v := range Variables() {
		got := cfg.Settings[i]
		if got.Name != v.Name || got.GitKey != v.GitKey {
			t.Errorf("setting %d is %+v, want %s", i, got, v.Name)
		}
		if w, ok := want[v.Name]; ok && got != w {
			t.Errorf("got %+v, want %+v", got, w)
		}
	}
}

// TestLoad_timeoutPrecedence: the environment wins also between the new
// variable for the wait and the two old ones.
func TestLoad_timeoutPrecedence(t *testing.T) {
	tests := []struct {
		env, git vars
		want     time.Duration
	}{
		{vars{"GITOPS_LOCK_TIMEOUT": "1m"}, vars{"gitops.lockretrymax": "1"}, time.Minute},
		{vars{"GITOPS_LOCK_RETRY_MAX": "1"}, vars{"gitops.locktimeout": "1m"}, 20 * time.Second},
		{vars{}, vars{"gitops.locktimeout": "1m", "gitops.lockretrydelay": "1"}, time.Minute},
		{vars{"GITOPS_LOCK_RETRY_MAX": "2"}, vars{"gitops.lockretrydelay": "7"}, 14 * time.Second},
	}
	for _, tt := range tests {
		cfg, err := Load(tt.env.with().look, tt.git.look)
		if err != nil || cfg.Lock.Timeout != tt.want {
			t.Errorf("env %v, git %v: got %v, %v; want %v", tt.env, tt.git, cfg.Lock.Timeout, err, tt.want)
		}
	}
}

func TestVariables(t *testing.T) {
	keys := map[string]string{}
	for _, v := range Variables() {
		if other, ok := keys[v.GitKey]; ok {
			t.Errorf("%s and %s share %s", v.Name, other, v.GitKey)
		}
		keys[v.GitKey] = v.Name
		if v.Doc == "" || strings.HasSuffix(v.Doc, ".") || strings.Contains(v.Doc, "\n") {
			t.Errorf("%s: doc %q", v.Name, v.Doc)
		}
	}
	if keys["gitops.redistlscacert"] != "REDIS_TLS_CA_CERT" || keys["gitops.lockttl"] != "GITOPS_LOCK_TTL" {
		t.Errorf("unexpected git keys: %v", keys)
	}
	Variables()[0].Name = "changed"
	if Variables()[0].Name != "REDIS_HOST" {
		t.Error("a caller can change the list")
	}
}

func TestUnknown(t *testing.T) {
	environ := []string{
		"GITOPS_LOCK_TLL=5", "GITOPS_LOCK_TTL=5", "GITOPS_REDIS_HOST=x", "GITOPS_PUSH_RETRY=1", "GITOPS_PUSH_RETRY=2",
		"GITOPS_GIT=/usr/bin/git", "GITOPS_SHIM=1", "PATH=/bin", "GITOPS_LOCK_ODD", "=C:=C:\\x", "",
	}
	want := []string{"GITOPS_LOCK_ODD", "GITOPS_LOCK_TLL", "GITOPS_PUSH_RETRY", "GITOPS_REDIS_HOST"}
	if got := Unknown(environ); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
