package serve

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Logins last for sessionLife. After mostTries wrong passwords within tryWindow, from one address
// or for one user, the next ones are refused without a look.
const (
	sessionLife = 12 * time.Hour
	tryWindow   = 5 * time.Minute
	mostTries   = 5
	mostTracked = 10_000
	mostChecks  = 2 // passwords at a time
	cookieName  = "gitops_session"
)

// operators says who may break, freeze and thaw locks: users of a file, or whom a proxy in front
// names.
type operators struct {
	hashes  map[string][]byte // bcrypt, by user
	header  string            // that the proxy sets; "": there is none
	trusted []netip.Prefix
	secret  []byte // of the CSRF tokens

	checks chan struct{} // a place for each password that is checked: bcrypt is slow on purpose

	mu       sync.Mutex
	sessions map[string]login
	tries    map[string][]time.Time
}

type login struct {
	user    string
	expires time.Time
}

// newOperators reads the file of users, a line "name:hash" each. No file and no header: nobody is
// an operator.
func newOperators(file, header string, trusted []netip.Prefix) (*operators, error) {
	o := &operators{
		hashes: map[string][]byte{}, header: header, trusted: trusted, secret: make([]byte, 32),
		checks: make(chan struct{}, mostChecks), sessions: map[string]login{}, tries: map[string][]time.Time{},
	}
	_, _ = rand.Read(o.secret)
	if header != "" && len(trusted) == 0 {
		return nil, errors.New("--proxy-user-header needs --trusted-proxy: else anybody could send that header")
	}
	if file == "" {
		return o, nil
	}
	f, err := os.Open(file) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, fmt.Errorf("read the operators: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			return nil, fmt.Errorf("%s, line %d: want user:hash, the hash by bcrypt (htpasswd -nB USER)", file, n)
		}
		o.hashes[user] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the operators: %w", err)
	}
	if len(o.hashes) == 0 {
		return nil, fmt.Errorf("%s names no operator", file)
	}
	return o, nil
}

// some reports whether anybody may be an operator.
func (o *operators) some() bool { return len(o.hashes) > 0 || o.header != "" }

// user is the operator who sends a request, and what his CSRF tokens are bound to; "" for nobody.
func (o *operators) user(r *http.Request) (user, bound string) {
	if o.header != "" && o.fromProxy(r) {
		if user := r.Header.Get(o.header); user != "" {
			return user, "proxy " + user
		}
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return "", ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l, ok := o.sessions[cookie.Value]
	if !ok || time.Now().After(l.expires) {
		delete(o.sessions, cookie.Value)
		return "", ""
	}
	return l.user, "session " + cookie.Value
}

// fromProxy reports whether a request comes from a proxy that is trusted.
func (o *operators) fromProxy(r *http.Request) bool {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	for _, p := range o.trusted {
		if p.Contains(addr.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// secure reports whether a browser sent a request by TLS to a proxy that is trusted.
func (o *operators) secure(r *http.Request) bool {
	return o.fromProxy(r) && r.Header.Get("X-Forwarded-Proto") == "https"
}

// token is the CSRF token of whom user names; it is good for as long as the login.
func (o *operators) token(bound string) string {
	mac := hmac.New(sha256.New, o.secret)
	_, _ = mac.Write([]byte(bound))
	return hex.EncodeToString(mac.Sum(nil))
}

// may reports whether a request that changes something comes from an operator's own page.
func (o *operators) may(r *http.Request) (user string, ok bool) {
	user, bound := o.user(r)
	if user == "" {
		return "", false
	}
	return user, subtle.ConstantTimeCompare([]byte(o.token(bound)), []byte(r.PostFormValue("csrf"))) == 1
}

var errTooMany = errors.New("too many wrong passwords: wait five minutes")

// login checks a password, and makes a session.
func (o *operators) login(ctx context.Context, user, password, addr string) (session string, err error) {
	select {
	case o.checks <- struct{}{}:
		defer func() { <-o.checks }()
	case <-ctx.Done():
		return "", fmt.Errorf("wait for others who log in: %w", ctx.Err())
	}
	if !o.allowed("user "+user) || !o.allowed("addr "+addr) {
		return "", errTooMany
	}
	hash, known := o.hashes[user]
	if !known {
		hash = dummyHash // takes as long
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		o.failed("user "+user, "addr "+addr)
		return "", errors.New("wrong user or password")
	}
	session = rand.Text()
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, l := range o.sessions {
		if time.Now().After(l.expires) {
			delete(o.sessions, id)
		}
	}
	o.sessions[session] = login{user, time.Now().Add(sessionLife)}
	return session, nil
}

func (o *operators) logout(r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.sessions, cookie.Value)
	}
}

// dummyHash is of a password that nobody has.
var dummyHash = []byte("$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy")

func (o *operators) allowed(who string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.tries) > mostTracked && o.tries[who] == nil {
		return false // somebody tries from very many addresses: it is remembered of all of them
	}
	recent := o.tries[who][:0]
	for _, t := range o.tries[who] {
		if time.Since(t) < tryWindow {
			recent = append(recent, t)
		}
	}
	if len(recent) == 0 {
		delete(o.tries, who)
		return true
	}
	o.tries[who] = recent
	return len(recent) < mostTries
}

func (o *operators) failed(who ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.tries, func(_ string, tries []time.Time) bool {
		return len(o.tries) > mostTracked && time.Since(tries[len(tries)-1]) > tryWindow
	})
	for _, w := range who {
		o.tries[w] = append(o.tries[w], time.Now())
	}
}
