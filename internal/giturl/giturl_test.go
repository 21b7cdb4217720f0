package giturl

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

func TestParse_identity(t *testing.T) {
	same := map[string][]string{
		"github.com/org/repo": {
			"https://github.com/org/repo", "https://github.com/org/repo.git", "https://github.com/org/repo.git/", "https://github.com/org/repo/",
			"https://github.com/org/repo.git//", "https://github.com//org///repo", "https://github.com/org/./x/../repo.git",
			"https://git:TOKEN@github.com/org/repo.git", "https://TOKEN@github.com/org/repo", "https://x-access-token:T%40%2F@github.com/org/repo",
			"https://user@corp.com:p@ss@github.com/org/repo", "https://:TOKEN@github.com/org/repo", "https://git:pa/ss@github.com/org/repo",
			"https://git:pa?s#s@github.com/org/repo", "https://git:/ss@github.com/org/repo",
			"https://GitHub.COM/org/repo", "HTTPS://github.com/org/repo", "https://github.com./org/repo", "https://github.com:443/org/repo",
			"https://github.com:0443/org/repo", "https://github.com:/org/repo", "http://github.com/org/repo", "http://github.com:80/org/repo",
			"https://github.com/org/repo.git?private_token=abc", "https://github.com/org/repo#frag", "https://github.com/%6Frg/repo",
			"ftp://github.com/org/repo", "ftps://github.com:990/org/repo",
			"ssh://git@github.com/org/repo.git", "ssh://github.com/org/repo", "ssh://git@github.com:22/org/repo", "ssh://git:pw@github.com:/org/repo",
			"git+ssh://git@github.com/org/repo", "ssh+git://git@github.com/org/repo", "ssh://git@github.com/~/org/repo", "ssh://git%40corp@github.com/org/repo",
			"git://github.com/org/repo", "git://github.com:9418/org/repo.git", "ssh://[github.com]/org/repo", "ssh://[git@github.com:22]/org/repo",
			"git@github.com:org/repo.git", "github.com:org/repo", "git@github.com:/org/repo", "git@GITHUB.com:org/repo/", "git@github.com:~/org/repo",
			"[github.com:22]:org/repo", "git@[github.com]:org/repo", "[git@github.com:22]:org/repo", "git@github.com:org/repo/.git", "github.com:TOKEN@org/../org/repo",
		},
		// A port of ssh does not count, one of http does.
		"gitlab.example.com/g/r": {
			"ssh://git@gitlab.example.com:2222/g/r", "https://gitlab.example.com/g/r", "git@gitlab.example.com:g/r.git",
			"[git@gitlab.example.com:2222]:/g/r", "git+ssh://gitlab.example.com:2222/g/r", "http://gitlab.example.com:443/g/r",
		},
		"gitlab.example.com/G/r":      {"ssh://git@gitlab.example.com:2222/G/r", "https://gitlab.example.com/G/r"},
		"gitlab.example.com:8443/g/r": {"https://gitlab.example.com:8443/g/r"},
		"h/org/repo":                  {"ssh://git@h:2222/org/repo", "[h:2222]:org/repo", "git@[h:2222]:org/repo.git", "[git@h:2222]:/org/repo", "ssh://[h:2222]/org/repo"},
		"h:2222/org/repo":             {"https://h:2222/org/repo"},
		"h:22/p":                      {"https://h:22/p"},
		"h/p":                         {"ssh://h:443/p", "http://h:443/p", "git://h/p"},
		// Bitbucket Server
		"bb.example.com/proj/repo": {
			"ssh://git@bb.example.com:7999/proj/repo.git", "ssh://git@bb.example.com:7999/PROJ/repo", "https://bb.example.com/scm/PROJ/repo.git",
			"https://u@bb.example.com/scm/proj/repo", "https://bb.example.com:7990/scm/PROJ/repo", "[git@bb.example.com:7999]:proj/repo",
			"git@bb.example.com:scm/proj/repo", "ssh://git@bb.example.com/proj/repo",
		},
		"bb.example.com/~jo/repo":       {"ssh://git@bb.example.com:7999/~jo/repo", "https://bb.example.com/scm/~jo/repo.git"},
		"bb.example.com/proj/Repo":      {"https://bb.example.com/scm/PROJ/Repo"},
		"bb.example.com/Proj/repo":      {"https://bb.example.com/scm/Proj/repo", "https://bb.example.com/Proj/repo"},
		"bb.example.com/PROJ/repo":      {"https://bb.example.com/PROJ/repo", "git@bb.example.com:PROJ/repo"},
		"scm.example.com/scm/r":         {"https://scm.example.com/scm/r", "scm.example.com:scm/r"},
		"scm.example.com/scm/repo/n/r":  {"https://scm.example.com/scm/repo/n/r", "scm.example.com:scm/repo/n/r"},
		"scm.example.com/group/scm/n/r": {"https://scm.example.com/group/scm/n/r", "scm.example.com:group/scm/n/r"},
		// Other names of hosts, and hosts that take any case
		"github.com/o/r":          {"ssh://git@ssh.github.com:443/O/R.git", "git@ssh.github.com:o/r", "https://www.github.com/o/R"},
		"gitlab.com/g/s/r":        {"ssh://git@altssh.gitlab.com:443/g/S/r.git", "https://gitlab.com/G/s/r", "git@gitlab.com:g/s/r"},
		"bitbucket.org/w/r":       {"ssh://git@altssh.bitbucket.org:443/w/r.git", "https://jo@bitbucket.org/w/R.git"},
		"acme.ghe.com/o/r":        {"https://acme.ghe.com/O/r", "git@acme.ghe.com:o/R"},
		"example.com/Org/Repo":    {"https://example.com/Org/Repo", "git@example.com:Org/Repo.git"},
		"my.github.com/Org":       {"https://my.github.com/Org"},
		"github.com:8080/org/r":   {"https://github.com:8080/Org/r"},
		"github.com/org/r%3Fquot": {"git@github.com:Org/r?quot"},
		// Azure DevOps
		"dev.azure.com/o/p/_git/r": {
			"git@ssh.dev.azure.com:v3/o/p/r", "ssh://git@ssh.dev.azure.com/v3/O/P/R", "ssh://git@ssh.dev.azure.com:22/v3/o/p/r",
			"https://o@dev.azure.com/o/p/_git/r", "https://dev.azure.com/O/P/_git/R", "https://o.visualstudio.com/p/_git/r",
			"https://o.visualstudio.com/DefaultCollection/p/_git/r", "https://O.visualstudio.com/defaultcollection/p/_git/r",
			"o@vs-ssh.visualstudio.com:v3/o/p/r",
		},
		"dev.azure.com/o/r/_git/r": {
			"https://dev.azure.com/o/_git/r", "https://o.visualstudio.com/_git/r", "https://o.visualstudio.com/DefaultCollection/_git/r",
			"git@ssh.dev.azure.com:v3/o/r/r",
		},
		"dev.azure.com/o/my%2520p/_git/r": {"git@ssh.dev.azure.com:v3/o/my%20p/r"},
		"dev.azure.com/o/my p/_git/r":     {"https://dev.azure.com/o/My%20p/_git/r"},
		"ssh.dev.azure.com/v2/o/p/r":      {"git@ssh.dev.azure.com:v2/o/p/r"},
		"o.visualstudio.com/p/r":          {"https://o.visualstudio.com/p/r"},
		// Gerrit
		"chromium.googlesource.com/src/x": {"https://chromium.googlesource.com/a/src/x", "https://chromium.googlesource.com/src/x"},
		"gerrit.example.com/x/y":          {"https://gerrit.example.com/a/x/y", "https://jo@gerrit.example.com:8443/a/x/y", "ssh://jo@gerrit.example.com:29418/x/y", "https://gerrit.example.com/x/y"},
		"gerrit.example.com/a/y":          {"https://gerrit.example.com/a/a/y", "ssh://gerrit.example.com:29418/a/y"},
		"git.example.com/a/x":             {"https://git.example.com/a/x", "git@git.example.com:a/x"}, // a group named a
		"[::1]/path":                      {"user@[::1]:path", "[::1]:path", "ssh://[::1]/path", "ssh://user@[::1]:22/path", "https://[0:0:0:0:0:0:0:1]:443/path", "[user@::1]:path", "ssh://[user@::1]:22/path"},
		"[fe80::1]/p":                     {"ssh://[FE80::1%25eth0]:2222/p", "ssh://[fe80::1%eth0]:2222/p"},
		"h/~user/repo":                    {"ssh://h/~user/repo.git", "h:~user/repo", "h:/~user/repo"},
		"h/a b":                           {"https://h/a%20b", "https://h/a b", "h:a b"},
		"h/a%25b":                         {"https://h/a%25b", "https://h/a%b", "h:a%b"},
		"h/a%2520b":                       {"h:a%20b"},
		"h/a%3Fb":                         {"https://h/a%3Fb", "ssh://h/a?b", "h:a?b"},
		"h/a%0Ab":                         {"https://h/a%0Ab", "h:a\nb"},
		"h/a%C2%9B":                       {"h:a\u009b"},
		"h/a%FF":                          {"h:a\xff", "https://h/a%ff"},
		"h/ü":                             {"https://h/%C3%BC", "h:ü"},
		"h/x@y":                           {"https://h/x@y", "git@h:x@y", "ssh://git@h/x@y"},
		"h/npm/@scope/x":                  {"https://h/npm/@scope/x", "https://h:443/npm/@scope/x"},
		"h":                               {"https://h", "https://h/", "https://h/.git", "https://u:p@h/../.."},
		"h/https:/other/x":                {"https://h/https://u:p@other/x"},
		"git/github.com/org/repo":         {"git:TOKEN@github.com/org/repo"},
		"https/github.com/org/repo":       {"https:/git:TOKEN@github.com/org/repo"},
		"s3://bucket/path":                {"s3://bucket/path", "S3://key:secret@bucket/path.git/", "s3://bucket/path?x=1"},
		"codecommit://repo":               {"codecommit://profile@repo"},
		"ext::ssh git@h %S repo":          {"ext::ssh git@h %S repo"},
		"codecommit::us-east-1://repo":    {"codecommit::us-east-1://repo", "codecommit::us-east-1://profile@repo"},
		"foo::https://h/x":                {"foo::https://u:p@h/x"},
		"foo::https://h/x?token=***":      {"foo::https://u:p@h/x?token=abc"},
		"c/x":                             {"C:x", "C:/x"},
	}
	for want, spellings := range same {
		for _, raw := range spellings {
			u, err := parse(raw, "", false)
			if err != nil {
				t.Errorf("%q: %v", raw, err)
				continue
			}
			if u.Identity() != want {
				t.Errorf("%q: identity %q, want %q", raw, u.Identity(), want)
			}
			if filepath.IsAbs(u.Identity()) {
				t.Errorf("%q: is local", raw)
			}
		}
	}
}

func TestParse_string(t *testing.T) {
	for raw, want := range map[string]string{ //nolint:gosec // made-up credentials
		"https://git:TOKEN@github.com/org/repo.git":    "https://github.com/org/repo.git",
		"https://TOKEN@github.com:8443/org/repo":       "https://github.com:8443/org/repo",
		"https://h/r?private_token=abc&x&a%20b=c&p=q":  "https://h/r?private_token=***&***&***&p=***",
		"https://h/r#access_token=abc":                 "https://h/r",
		"https://h/a%20b":                              "https://h/a%20b",
		"https://h/x\x1b[31m":                          "https://h/x%1B[31m",
		"https://mirror/https://u:TOKEN@h/x":           "https://mirror/https://h/x",
		"ssh://git:pw@h:2222/~u/r.git":                 "ssh://git@h:2222/~u/r.git",
		"ssh://git%3Apw@h/r":                           "ssh://git@h/r",
		"git://user:pw@h/r":                            "git://h/r",
		"git@h:org/repo.git":                           "git@h:org/repo.git",
		"git@[h:2222]:r":                               "git@[h:2222]:r",
		"git@[::1]:r":                                  "git@[::1]:r",
		"git:TOKEN@github.com/org/repo":                "git:***@github.com/org/repo",
		"s3://key:secret@bucket/p?sig=abc":             "s3://bucket/p?sig=***",
		"foo::https://u:p@h/x":                         "foo::https://h/x",
		"./a\nb":                                       "./a%0Ab",
		"file://u:p@host/srv/x":                        "file://host/srv/x",
		"https://user@corp.com:p@ss@github.com/o/r":    "https://github.com/o/r",
		"ssh://git@[fe80::1%25eth0]:2222/p":            "ssh://git@[fe80::1]:2222/p",
		"codecommit::us-east-1://profile@repo":         "codecommit::us-east-1://repo",
		"https://github.com/org/repo.git/?a=1?b=2#c=3": "https://github.com/org/repo.git/?a=***",
	} {
		u, err := parse(raw, "", false)
		if err != nil {
			t.Errorf("%q: %v", raw, err)
		} else if u.String() != want {
			t.Errorf("%q: printed %q, want %q", raw, u, want)
		}
	}
}

func TestParse_refuses(t *testing.T) {
	for _, raw := range []string{
		"", " ", "\n", "a\x00b", "https://", "https:///x", "https://git:SECRET@/x", "https://git:SECRET@ho st/x", "https://git:SECRET@h:port/x",
		"https://git:SECRET@h:65536/x", "https://git:SECRET@h:-1/x", "https://git:SECRET@h%2F/x", "https://git:SECRET@./x", "https://git:SECRET@[::1/x",
		"https://git:SECRET@[::1]x/x", "https://git:SECRET@h\\e/x", "https://git:SECRET@h\x07/x", "https://git:SECRET@h\xff/x", "ssh://git:SECRET@h",
		"ssh://git@github.com:org/repo", ":path", "h:", "[::1]/x", "://x", "file://host", "foo::", "s3://", "s3://.git", "git@:path", "https://git:SECRET",
	} {
		u, err := parse(raw, "", false)
		if err == nil {
			t.Errorf("%q: no error, identity %q", raw, u.Identity())
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: the error tells the password: %v", raw, err)
		}
	}
}

func TestIsLocal(t *testing.T) {
	for _, tt := range []struct {
		raw           string
		unix, windows bool
	}{
		{"repo", true, true},
		{"./a:b", true, true},
		{"/a:b", true, true},
		{"a/b:c", true, true},
		{`C:\x`, false, true},
		{"C:/x", false, true},
		{"h:x", false, true}, // a drive, to Windows
		{"host:x", false, false},
		{`\\server\share`, true, true},
		{"git@h:x/y", false, false},
	} {
		if got := isLocal(tt.raw, false); got != tt.unix {
			t.Errorf("%q: local %v", tt.raw, got)
		}
		if got := isLocal(tt.raw, true); got != tt.windows {
			t.Errorf("%q on Windows: local %v", tt.raw, got)
		}
	}
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{ //nolint:gosec // made-up credentials
		"":           "",
		"no url":     "no url",
		"git@h:path": "git@h:path",
		"fatal: unable to access 'https://git:TOKEN@github.com/o/r/': The requested URL returned error: 403": "fatal: unable to access 'https://github.com/o/r/': The requested URL returned error: 403",
		"https://TOKEN@h":                           "https://h",
		"a https://u:p@h/x b ssh://git@h2/y c":      "a https://h/x b ssh://h2/y c",
		"https://h/x@y see me@corp.com":             "https://h/x@y see me@corp.com",
		"https://h:8080/x@y":                        "https://h:8080/x@y",
		"https://u:pa/ss@h/x":                       "https://h/x",
		"https://u:pa?ss@h/x":                       "https://h/x",
		"https://u:p'w@h/x":                         "https://h/x",
		"https://u:p%40h/x":                         "https://h/x",
		"https://u:p@v@h/x":                         "https://h/x",
		"https://[::1]:22/x@y":                      "https://[::1]:22/x@y",
		"https://u:p@[::1]/x":                       "https://[::1]/x",
		"redis://:pw@h:6379/0":                      "redis://h:6379/0",
		"or unix:///path?db=0, say":                 "or unix:///path?db=0, say",
		"want unix:///path?db=0":                    "want unix:///path?db=0",
		"want unix:///path?db=N: why":               "want unix:///path?db=N: why",
		"https://h/x?db=s3cret":                     "https://h/x?db=***",
		"https://h/a?token=abc&x=y, ok":             "https://h/a?token=***&x=*** ok", // the mask swallows what sticks to the value
		"'https://h/a?token=abc' ok":                "'https://h/a?token=***' ok",
		"https://m/https://u:p@h/x?k=v":             "https://m/https://h/x?k=***",
		"https://h/a?u=https://a:b@c":               "https://h/a?u=***",
		"ssh://git@github.com:org/repo":             "ssh://github.com:org/repo",
		"x ://u:p@h":                                "x ://h",
		"https://u:p@h\nhttps://u:p@h":              "https://h\nhttps://h",
		"To https://x-access-token:ghs_1@h/o/r.git": "To https://h/o/r.git",
	} {
		got := Redact(text)
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

const secret = "s3cr3tT0ken"

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"https://h/p", "git@h:org/repo.git", "[h:2222]:p", "ssh://[::1]:22/~u/p", "file:///srv/x.git", "foo::bar", "s3://b/p?q", "../x.git", "a/..git", "h:~/~/x",
		"https://h/%252540", "h:https://a:b\nc@d",
	} {
		f.Add(s, "user", "h/p")
	}
	f.Add("0:0::", " ", "0") // the user's blank does not end the URL
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw, user, rest string) {
		if u, err := Parse(raw, dir); err == nil {
			checkStable(t, u, dir)
		}
		if strings.Contains(user, secret) || strings.Contains(rest, secret) {
			return
		}
		user, _, _ = strings.Cut(user, "/")
		user, _, _ = strings.Cut(user, "?")
		user, _, _ = strings.Cut(user, "#")
		for _, scheme := range []string{"https", "http", "ssh", "git+ssh", "git", "ftp", "file", "s3", "foo::https"} {
			u, err := Parse(scheme+"://"+user+":"+secret+"@"+rest, dir)
			if err != nil {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: the error tells the password: %v", scheme, err)
				}
				continue
			}
			for _, s := range []string{u.Identity(), u.String()} {
				if strings.Contains(s, secret) {
					t.Errorf("%s: user %q, rest %q: %q tells the password", scheme, user, rest, s)
				}
			}
			checkStable(t, u, dir)
		}
		// Encoded as it should be, a password may hold anything.
		if u, err := Parse("https://"+url.UserPassword(user, rest+secret).String()+"@h/p", dir); err != nil || u.Identity() != "h/p" || u.String() != "https://h/p" {
			t.Errorf("user %q, password %q: %q, %v", user, rest+secret, u, err)
		}
	})
}

// checkStable says that an identity, read again, is itself, and that nothing printed can steer a
// terminal.
func checkStable(t *testing.T, u URL, dir string) {
	t.Helper()
	id := u.Identity()
	for _, s := range []string{id, u.String()} {
		if strings.ContainsFunc(s, unicode.IsControl) || s == "" {
			t.Errorf("%q is not fit to print", s)
		}
	}
	again := []string{id}
	if _, rest := cutScheme(id); !filepath.IsAbs(u.Identity()) && !strings.HasPrefix(rest, "::") && !strings.HasPrefix(rest, "://") {
		again = []string{"https://" + id, "ssh://" + id} // one of the two would drop a port that is its own
	}
	var got []string
	for _, raw := range again {
		v, err := Parse(raw, dir)
		if err == nil && v.Identity() == id {
			return
		}
		got = append(got, v.Identity())
	}
	t.Errorf("identity %q, read again, is %q", id, got)
}

func FuzzRedact(f *testing.F) {
	f.Add("fatal: '", "user", "h/x' failed")
	f.Add("https://a:b", "", "?x=y")
	f.Add("[", "[", "]")
	f.Add("://?", "\"", "0") // a quote in a password, behind a query
	f.Fuzz(func(t *testing.T, before, user, after string) {
		if strings.Contains(before+user+after, secret) {
			return
		}
		if user != "" && strings.ContainsAny(user, "/?# \t\r\n") {
			return
		}
		got := Redact(before + "https://" + user + ":" + secret + "@" + after)
		if strings.Contains(got, secret) {
			t.Errorf("%q tells the password", got)
		}
		if again := Redact(got); again != got {
			t.Errorf("%q, redacted again, is %q", got, again)
		}
		if !strings.Contains(before, "://") && Redact(before) != before {
			t.Errorf("%q has no URL and was changed", before)
		}
	})
}
