package config

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

const maxDB = math.MaxInt32

func (r *reader) redis() Redis {
	out := Redis{
		Mode:             Standalone,
		Network:          "tcp",
		Username:         r.text("REDIS_USERNAME"),
		Password:         r.password(),
		DB:               r.number("REDIS_DB", maxDB),
		SentinelUsername: r.text("REDIS_SENTINEL_USERNAME"),
		SentinelPassword: newSecret(r.text("REDIS_SENTINEL_PASSWORD")),
		Insecure:         r.boolean("REDIS_TLS_INSECURE"),
		MinReplicas:      r.number("GITOPS_REDIS_MIN_REPLICAS", 100),
		Events:           r.number("GITOPS_EVENTS_MAX", 100_000),
		Prefix:           r.prefix(),
	}
	useTLS := r.boolean("REDIS_TLS")
	host := "" // that a certificate must name; each address its own with Sentinel and Cluster
	sentinel := r.onlySet("REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_ADDRS", "REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD")
	switch {
	case r.isSet("REDIS_CLUSTER_ADDRS"):
		out.Mode = Cluster
		out.Addrs = r.addrs("REDIS_CLUSTER_ADDRS", "6379")
		r.forbid("REDIS_CLUSTER_ADDRS is set", append(sentinel, "REDIS_HOST", "REDIS_PORT", "REDIS_URL")...)
		if out.DB != 0 {
			r.fail("REDIS_DB", "0 or unset: a cluster has no other database", nil)
		}
	case len(sentinel) > 0:
		out.Mode = Sentinel
		r.sentinel(&out, sentinel[0]+" is set")
	case r.isSet("REDIS_URL"):
		host, useTLS = r.fromURL(&out, useTLS)
	default:
		host = r.host()
		out.Addrs = []string{net.JoinHostPort(host, r.port())}
	}
	if r.isSet("REDIS_PASSWORD_FILE") {
		out.passwordFile, _ = filepath.Abs(r.text("REDIS_PASSWORD_FILE")) // a keeper leaves the folder
	}
	r.needPassword(out.Username, "REDIS_PASSWORD", out.Password)
	out.TLS = r.tls(&out, useTLS, host)
	return out
}

func (r *reader) sentinel(out *Redis, because string) {
	if r.isSet("REDIS_SENTINEL_ADDRS") {
		out.Addrs = r.addrs("REDIS_SENTINEL_ADDRS", "26379")
	} else {
		r.fail("REDIS_SENTINEL_ADDRS", "the sentinels, because "+because, nil)
	}
	if out.SentinelMaster = r.word("REDIS_SENTINEL_MASTER"); out.SentinelMaster == "" {
		r.fail("REDIS_SENTINEL_MASTER", "the name of the master, because "+because, nil)
	}
	r.needPassword(out.SentinelUsername, "REDIS_SENTINEL_PASSWORD", out.SentinelPassword)
	r.forbid(because, "REDIS_HOST", "REDIS_PORT", "REDIS_URL")
}

func (r *reader) host() string {
	text := r.text("REDIS_HOST")
	if text == "" {
		// No default: a lock on whatever runs on localhost would lock nobody out.
		r.fail("REDIS_HOST", "the Redis server that keeps the locks: set REDIS_HOST, or REDIS_URL,"+
			" or REDIS_SENTINEL_MASTER and REDIS_SENTINEL_ADDRS, or REDIS_CLUSTER_ADDRS", nil)
		return ""
	}
	host, ok := hostName(text)
	if !ok {
		r.fail("REDIS_HOST", "a host name or an IP address alone; the port goes to REDIS_PORT,"+
			" a URL or a socket to REDIS_URL", nil)
	}
	return host
}

func (r *reader) port() string {
	text := r.text("REDIS_PORT")
	if !isPort(text) {
		allowed := "a number from 1 to 65535"
		if strings.HasPrefix(text, "tcp://") {
			allowed += " (Kubernetes sets this variable for a service named redis: unset it, or give the pod enableServiceLinks: false)"
		}
		r.fail("REDIS_PORT", allowed, nil)
	}
	return text
}

func (r *reader) prefix() string {
	text := r.text("GITOPS_REDIS_PREFIX")
	odd := func(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune("._-:", c) }
	if len(text) > 64 || strings.ContainsFunc(text, odd) {
		r.fail("GITOPS_REDIS_PREFIX", "at most 64 letters, digits and . _ - :", nil)
	}
	return text
}

func (r *reader) password() Secret {
	const name = "REDIS_PASSWORD_FILE"
	if !r.isSet(name) {
		return newSecret(r.text("REDIS_PASSWORD"))
	}
	if r.isSet("REDIS_PASSWORD") {
		r.forbid("REDIS_PASSWORD is set", name)
		return Secret{}
	}
	line := firstLine(r.file(name))
	if line == "" && r.ok(name) {
		r.fail(name, "a file whose first line is the password", nil)
	}
	return newSecret(line)
}

func firstLine(content []byte) string {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r")))
}

// ReadPassword reads REDIS_PASSWORD_FILE again, as it may be changed while a command waits. It is
// nil where the password is not from a file.
func (r Redis) ReadPassword() func() (string, error) {
	if r.passwordFile == "" {
		return nil
	}
	return func() (string, error) {
		content, err := os.ReadFile(r.passwordFile)
		return firstLine(content), err
	}
}

// needPassword notes a user without a password: Redis clients then log in as
// the default user, without a word.
func (r *reader) needPassword(user, name string, password Secret) {
	if user != "" && password.Reveal() == "" && r.ok("REDIS_URL", "REDIS_PASSWORD_FILE") {
		r.fail(name, "the password of the user that is set", nil)
	}
}

// addrs reads a list of servers, separated by commas.
func (r *reader) addrs(name, defaultPort string) []string {
	var all []string
	for text := range strings.SplitSeq(r.text(name), ",") {
		addr, ok := address(strings.TrimSpace(text), defaultPort)
		if !ok {
			r.fail(name, "host or host:port, several separated by commas, an IPv6 address in brackets", nil)
			return nil
		}
		all = append(all, addr)
	}
	return all
}

// address returns host:port for text, which may leave out the port.
func address(text, defaultPort string) (string, bool) {
	if host, ok := hostName(text); ok {
		return net.JoinHostPort(host, defaultPort), true
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || !isPort(port) {
		return "", false
	}
	host, ok := hostName(host)
	return net.JoinHostPort(host, port), ok
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// hostName checks a host name or IP address and returns it without brackets.
func hostName(text string) (string, bool) {
	inner := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		inner = text[1 : len(text)-1]
	}
	odd := func(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune("._-", c) }
	if ip, err := netip.ParseAddr(inner); err == nil {
		return inner, !strings.ContainsFunc(ip.Zone(), odd)
	}
	return text, text != "" && len(text) <= 253 && !strings.ContainsFunc(text, odd)
}

func isLetterOrDigit(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// fromURL fills in what REDIS_URL says and returns its host, empty for a
// socket, and whether to use TLS. What is also set on its own must agree, but
// may add a user, a password or TLS to a URL that has none.
func (r *reader) fromURL(out *Redis, useTLS bool) (string, bool) {
	u, err := parseURL(r.text("REDIS_URL"))
	if err != nil {
		r.fail("REDIS_URL", "redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path?db=0", err)
		return "", false
	}
	agree := func(same bool, names ...string) {
		if !same {
			for _, name := range r.onlySet(names...) {
				r.fail(name, "it unset or the same as in REDIS_URL", nil)
			}
		}
	}
	setHost, _ := hostName(r.text("REDIS_HOST"))
	agree(u.host != "" && strings.EqualFold(setHost, u.host), "REDIS_HOST")
	agree(u.host != "" && r.text("REDIS_PORT") == u.port, "REDIS_PORT")
	agree(out.DB == u.db || !r.ok("REDIS_DB"), "REDIS_DB")
	out.DB = u.db
	if u.user != "" {
		agree(out.Username == u.user, "REDIS_USERNAME")
		out.Username = u.user
	}
	if u.password != "" {
		agree(out.Password.Reveal() == u.password || !r.ok("REDIS_PASSWORD_FILE"), "REDIS_PASSWORD", "REDIS_PASSWORD_FILE")
		out.Password = newSecret(u.password)
	}
	if u.host == "" {
		out.Network, out.Addrs = "unix", []string{u.path}
		return "", useTLS
	}
	out.Addrs = []string{net.JoinHostPort(u.host, u.port)}
	if u.tls && !useTLS && r.ok("REDIS_TLS") {
		r.forbid("REDIS_URL starts with rediss://", "REDIS_TLS")
	}
	return u.host, u.tls || useTLS
}

// socketMost is the longest path of a socket, without its NUL (unix(7); sys/un.h of BSD).
func socketMost() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

type redisURL struct {
	host, port     string // empty for a socket
	path           string // of a socket
	user, password string
	db             int
	tls            bool
}

// parseURL reads a URL as the schemes redis and rediss are registered at IANA,
// without parameters, or unix:///path?db=N as common Redis clients take it. No part of the URL is
// in its errors: in a broken URL any part may be a piece of the password.
func parseURL(text string) (redisURL, error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return redisURL{}, errors.New("the URL is malformed; in a user or password, special characters are written as %XX")
	}
	u := redisURL{user: parsed.User.Username(), tls: parsed.Scheme == "rediss"}
	u.password, _ = parsed.User.Password()
	db := strings.TrimPrefix(parsed.Path, "/")
	switch parsed.Scheme {
	case "redis", "rediss":
		host, ok := hostName(parsed.Hostname())
		if !ok {
			return redisURL{}, errors.New("the URL has no valid host")
		}
		u.host, u.port = host, parsed.Port()
		if u.port == "" {
			u.port = "6379"
		}
		if !isPort(u.port) {
			return redisURL{}, errors.New("the port of the URL is not from 1 to 65535")
		}
		if parsed.RawQuery != "" {
			return redisURL{}, errors.New("the URL has parameters, and none is allowed")
		}
	case "unix":
		if parsed.Host != "" || !strings.HasPrefix(parsed.Path, "/") || strings.ContainsRune(parsed.Path, 0) {
			return redisURL{}, errors.New("the socket's path does not start with / after unix://")
		}
		u.path = parsed.Path
		if len(u.path) > socketMost() {
			return redisURL{}, fmt.Errorf("the socket's path has %d bytes, and a system takes at most %d: use a symbolic link", len(u.path), socketMost())
		}
		query, err := url.ParseQuery(parsed.RawQuery)
		if err != nil || len(query) > 1 || len(query) == 1 && len(query["db"]) != 1 {
			return redisURL{}, errors.New("the URL has parameters other than db")
		}
		db = query.Get("db")
	default:
		return redisURL{}, errors.New("the URL has another scheme")
	}
	if parsed.Fragment != "" {
		return redisURL{}, errors.New("the URL has a part after #")
	}
	if db != "" {
		n, err := strconv.ParseUint(db, 10, 31) // up to maxDB
		if err != nil {
			return redisURL{}, errors.New("the database of the URL is not a number")
		}
		u.db = int(n)
	}
	return u, nil
}
