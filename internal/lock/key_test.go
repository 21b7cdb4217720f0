package lock_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/lock"
)

func TestKey_ID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		key  lock.Key
		want string
	}{
		{lock.Key{Repo: "github.com/org/repo", Branch: "main"}, "github.com/org/repo@main"},
		{lock.Key{Repo: "github.com/org/repo", Branch: "main", Name: "acct.one"}, "github.com/org/repo@main:acct.one"},
		{lock.Key{Repo: "h/r@v1", Branch: "main"}, "h/r%40v1@main"},
		{lock.Key{Repo: "h/r", Branch: "v1@main"}, "h/r@v1@main"},
		{lock.Key{Repo: "h/r", Branch: "feature/x"}, "h/r@feature/x"},
		{lock.Key{Repo: "h/{r}", Branch: "a%b"}, "h/%7Br%7D@a%25b"},
		{lock.Key{Repo: "h/a b", Branch: "x", Name: "n\n\x7f{"}, "h/a%20b@x:n%0A%7F%7B"},
		{lock.Key{Repo: "h/ü", Branch: "ä"}, "h/ü@ä"},
		{lock.Key{Repo: "h/r", Branch: "main", Verbatim: "lock.op.acct"}, "lock.op.acct"},
	} {
		if got := test.key.ID(); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.key, got, test.want)
		}
		if got := lock.ParseID(test.want); test.key.Verbatim == "" && got != test.key || got.ID() != test.want {
			t.Errorf("%q: parsed as %+v", test.want, got)
		}
	}
}

func TestKey_WholeBranch(t *testing.T) {
	t.Parallel()
	narrow := lock.Key{Repo: "h/r", Branch: "main", Name: "one"}
	if got := narrow.WholeBranch().ID(); got != "h/r@main" {
		t.Errorf("got %q", got)
	}
	if narrow.String() == narrow.WholeBranch().String() {
		t.Errorf("people cannot tell %s from the whole branch", narrow)
	}
}

// Two locks never share an ID, and an ID never ends or opens a Redis hash tag.
func FuzzKeyID(f *testing.F) {
	f.Add("github.com/o/r", "main", "", "github.com/o/r", "main", "x")
	f.Add("a@b", "c", "", "a", "b@c", "")
	f.Add("a", "b", "c", "a", "b:c", "")
	f.Add("a", "b", "c:d", "a", "b", "c%3Ad")
	f.Add("a{", "b}", "\x00", "a%7B", "b%7D", "%00")
	f.Fuzz(func(t *testing.T, repo1, branch1, name1, repo2, branch2, name2 string) {
		if strings.Contains(branch1, ":") || strings.Contains(branch2, ":") {
			t.Skip("git refuses a colon in a ref name")
		}
		one := lock.Key{Repo: repo1, Branch: branch1, Name: name1}
		two := lock.Key{Repo: repo2, Branch: branch2, Name: name2}
		if one != two && one.ID() == two.ID() {
			t.Errorf("%+v and %+v share %q", one, two, one.ID())
		}
		if parsed := lock.ParseID(one.ID()); parsed != one {
			t.Errorf("%q parsed as %+v, want %+v", one.ID(), parsed, one)
		}
		for _, c := range []byte(one.ID()) {
			if c <= ' ' || c == 0x7f || c == '{' || c == '}' {
				t.Errorf("%+v: byte %q in %q", one, c, one.ID())
			}
		}
	})
}

func TestNewToken(t *testing.T) {
	t.Parallel()
	hex32 := regexp.MustCompile(`^[0-9a-f]{32}$`)
	seen := map[lock.Token]bool{}
	for range 10000 {
		token := lock.NewToken()
		if !hex32.MatchString(string(token)) {
			t.Fatalf("token %q is not 32 hex digits", token)
		}
		if seen[token] {
			t.Fatalf("token %q twice", token)
		}
		seen[token] = true
	}
}
