// Package giturl owns the spellings of a git remote: any of them becomes one identity, which names
// the repository's lock, and one printable form without credentials. It reads a spelling as git
// does (gitcli(7), gitremote-helpers(7), parse_connect_url in connect.c, transport_get in
// transport.c, get_repo_path in builtin/clone.c).
//
// Two spellings of one repository must never have two identities, because the lock would then not
// exclude. The other way round, two repositories with one identity only wait for each other; where
// a spelling leaves a doubt, that is the side to err on.
package giturl

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// URL is a remote as Parse read it.
type URL struct {
	identity, text string
	spelled        string // what stands there, before what is known of servers; "" for what has no host
}

// Identity names the repository, the same for every spelling: "host/path", "host:port/path" for a
// port of http, ftp or git that is not the usual one, an absolute path for a local repository, and
// the whole text for a transport helper. It holds no credentials and no control characters; '%',
// '?' and '#' in the path of a URL are percent-encoded, so that the identity with a scheme before
// it has the same identity again.
func (u URL) Identity() string { return u.identity }

// Spelled is the identity before what is known of servers: host, port and path as they were typed.
func (u URL) Spelled() string {
	if u.spelled == "" {
		return u.identity
	}
	return u.spelled
}

// String is the printable form, close to what was typed: without passwords and tokens (http and git
// lose all userinfo, ssh keeps the user), with the values of a query masked and control characters
// percent-encoded.
func (u URL) String() string { return u.text }

var (
	errEmpty = errors.New("it is empty")
	errNUL   = errors.New("it contains a NUL byte")
	errHost  = errors.New("the host is missing or malformed")
	errPort  = errors.New("the port is not a number from 0 to 65535")
	errPath  = errors.New("there is no path")
)

// Parse reads raw as git does. A relative local path is relative to dir, and dir to the working
// directory. Parse looks at the local file system, for local paths only, and never at the network.
// An error means that the remote is empty or that nobody could say which repository it names; it
// never quotes raw.
func Parse(raw, dir string) (URL, error) {
	u, err := parse(raw, dir, runtime.GOOS == "windows")
	if err != nil {
		return URL{}, fmt.Errorf("parse remote: %w", err)
	}
	return u, nil
}

func parse(raw, dir string, windows bool) (URL, error) { //nolint:unparam // true on Windows
	if strings.TrimSpace(raw) == "" {
		return URL{}, errEmpty
	}
	if strings.ContainsRune(raw, 0) {
		return URL{}, errNUL
	}
	name, rest := cutScheme(raw)
	scheme := strings.ToLower(name)
	switch {
	case name != "" && strings.HasPrefix(rest, "::"):
		return parseHelper(name, rest[len("::"):])
	case name == "" || !strings.HasPrefix(rest, "://"):
		if isLocal(raw, windows) {
			return parseLocal(raw, raw, dir)
		}
		return parseSCP(raw)
	}
	rest = rest[len("://"):]
	switch scheme {
	case "file":
		return parseFile(rest, dir, windows)
	case "ssh", "git+ssh", "ssh+git", "git":
		return parseSSH(scheme, rest)
	case "http", "https", "ftp", "ftps":
		return parseHTTP(scheme, rest)
	}
	return parseUnknown(scheme, rest)
}

// cutScheme returns the characters at the start of raw that may name a scheme or a transport
// helper, as is_urlschemechar in url.c has it, and the rest.
func cutScheme(raw string) (name, rest string) {
	n := strings.IndexFunc(raw, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '-' && r != '.'
	})
	if n < 1 || strings.IndexByte("+-.", raw[0]) >= 0 {
		return "", raw
	}
	return raw[:n], raw[n:]
}

// isLocal is url_is_local_not_ssh in connect.c: no colon, or a slash before it, or a drive letter
// on Windows.
func isLocal(raw string, windows bool) bool {
	colon, slash := strings.IndexByte(raw, ':'), strings.IndexByte(raw, '/')
	return colon < 0 || (slash >= 0 && slash < colon) || (windows && hasDrive(raw))
}

func hasDrive(s string) bool {
	return len(s) >= 2 && s[1] == ':' && (s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z')
}

// parseHelper keeps helper::address as it is: only the helper knows what an address means.
func parseHelper(helper, address string) (URL, error) {
	if address == "" {
		return URL{}, errPath
	}
	if scheme, rest := cutScheme(address); scheme != "" && strings.HasPrefix(rest, "://") {
		address = scheme + "://" + dropUserinfo(rest[len("://"):])
	}
	text := Redact(visible(helper+"::"+address, ""))
	return URL{identity: text, text: text}, nil
}

// parseUnknown reads a URL whose scheme is that of a remote helper (git-remote-s3 for s3://…). Here
// the scheme stays in the identity.
func parseUnknown(scheme, rest string) (URL, error) {
	text := Redact(visible(scheme+"://"+dropUserinfo(rest), ""))
	body := upTo(text[len(scheme+"://"):], "?#")
	for {
		short := strings.TrimSuffix(strings.TrimRight(body, "/"), ".git")
		if short == body {
			break
		}
		body = short
	}
	if body == "" {
		return URL{}, errPath
	}
	return URL{identity: scheme + "://" + body, text: text}, nil
}

// parseHTTP reads what git hands to curl.
func parseHTTP(scheme, rest string) (URL, error) {
	rest = dropUserinfo(rest)
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, queried := strings.Cut(rest, "?")
	authority, p, slashed := strings.Cut(rest, "/")
	host, port, err := splitHostPort(decode(authority))
	if err != nil {
		return URL{}, err
	}
	text := scheme + "://" + joinHostPort(host, port)
	if slashed {
		text += Redact(visible("/"+p, ""))
	}
	if queried {
		text += maskQuery(visible("?"+query, ""))
	}
	return network(scheme, host, port, decode(p), text), nil
}

// parseSSH reads the URLs that git itself connects to.
func parseSSH(scheme, rest string) (URL, error) {
	user, rest := cutUser(rest)
	authority, p, slashed := strings.Cut(rest, "/")
	if !slashed {
		return URL{}, errPath
	}
	host, port, err := splitHostPort(decode(authority))
	if err != nil {
		return URL{}, err
	}
	p = decode(p)
	text := scheme + "://"
	if user != "" && scheme != "git" {
		text += user + "@"
	}
	text += joinHostPort(host, port) + Redact(visible("/"+p, "%"))
	return network(scheme, host, port, p, text), nil
}

// parseSCP reads user@host:path, where git decodes nothing and takes a port only inside brackets
// ([host:port]:path).
func parseSCP(raw string) (URL, error) {
	start, end := 0, 0
	if at := strings.Index(raw, "@["); at >= 0 && !strings.ContainsAny(raw[:at], ":/") {
		start = at + 1
	}
	if raw[start] == '[' {
		end = max(0, strings.IndexByte(raw, ']'))
	}
	colon := strings.IndexByte(raw[end:], ':')
	if colon < 0 || end+colon+1 == len(raw) {
		return URL{}, errPath
	}
	authority, p := raw[:end+colon], raw[end+colon+1:]
	user, hostPort := cutUser(authority)
	host, port, err := splitHostPort(hostPort)
	if err != nil {
		return URL{}, err
	}
	shown := p
	if hostPort == authority {
		// user:token@host/path, a URL that lost its scheme, has the shape of host:path. What stands
		// before the @ is not ours to show.
		trimmed := strings.TrimLeft(p, "/")
		first, _, _ := strings.Cut(trimmed, "/")
		if at := strings.LastIndexByte(first, '@'); at >= 0 {
			p = trimmed[at+1:]
			shown = "***@" + p
		}
	}
	text := joinHostPort(host, port)
	if port != "" {
		text = "[" + text + "]"
	}
	if user != "" {
		text = user + "@" + text
	}
	return network("ssh", host, port, p, text+":"+Redact(visible(shown, ""))), nil
}

// cutUser takes the userinfo off what follows the scheme of an ssh URL, or off the part of an scp
// form before its colon. It returns the user without a password.
func cutUser(s string) (user, rest string) {
	// [user@host:port] is an old spelling of user@[host:port].
	if inner, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' {
		if at := strings.LastIndexByte(inner, '@'); at >= 0 {
			s = inner[:at+1] + "[" + inner[at+1:] + "]" + after
		}
	}
	rest = dropUserinfo(s)
	user, _, _ = strings.Cut(decode(s[:len(s)-len(rest)]), ":")
	return visible(strings.TrimRight(user, "@"), "%/@"), rest
}

// network is a repository behind a host; p is its path, decoded.
func network(scheme, host, port, p, text string) URL {
	// A path may hold another URL, as those of proxies do: its credentials go first, while it still
	// looks like a URL.
	p = cleanPath(Redact(visible(p, "%?#")))
	u := URL{text: text, spelled: joinPath(joinHostPort(host, port), p)}
	host, port, p = hosted(scheme, host, port, p)
	u.identity = joinPath(joinHostPort(host, port), cleanPath(p))
	return u
}

func joinPath(authority, p string) string {
	if p == "" {
		return authority
	}
	return authority + "/" + p
}

func cleanPath(p string) string {
	for {
		// The home folder of the login user is where a relative path of the scp form starts anyway.
		short := strings.TrimPrefix(strings.TrimSuffix(path.Clean("/" + p)[1:], ".git"), "~/")
		if short == p {
			return p
		}
		p = short
	}
}

// splitHostPort reads host, host:port, [host], [host]:port and [host:port]; the host comes back
// lower-case, without a trailing dot or an IPv6 zone, and the port without leading zeros.
func splitHostPort(s string) (host, port string, err error) {
	host = s
	if inner, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' {
		if after != "" && after[0] != ':' {
			return "", "", errHost
		}
		host, port = inner, strings.TrimPrefix(after, ":")
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		host = addr.WithZone("").String()
	} else {
		if port == "" {
			if colon := strings.LastIndexByte(host, ':'); colon >= 0 {
				host, port = host[:colon], host[colon+1:]
			}
		}
		host = strings.TrimRight(lower(host), ".")
		if host == "" || !utf8.ValidString(host) || strings.ContainsAny(host, " /\\?#@%:[]\"'<>`") || strings.ContainsFunc(host, unicode.IsControl) {
			return "", "", errHost
		}
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", "", errPort
		}
		port = strconv.FormatUint(n, 10)
	}
	return host, port, nil
}

// lower changes ASCII letters only: what other letters become would depend on tables that change
// with the version of Go.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

func joinHostPort(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" {
		return host
	}
	return host + ":" + port
}

// decode is url_decode in url.c: escapes that are malformed, and %00, stay as they are.
func decode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil && n > 0 {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// visible percent-encodes control characters, broken UTF-8 and the characters in also.
func visible(s, also string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unicode.IsControl(r) || (r == utf8.RuneError && n == 1) || strings.ContainsRune(also, r) {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
