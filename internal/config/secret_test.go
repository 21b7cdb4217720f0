package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// hush stands for a secret that must not come out anywhere.
const hush = "Zq7hushZq7"

// prints returns value under every way of printing that we can think of.
func prints(t *testing.T, value any) string {
	t.Helper()
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&b, verb+"\n", value)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Errorf("json: %v", err)
	}
	b.Write(text)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "value", value)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "value", value)
	return b.String()
}

func checkHushed(t *testing.T, what, text string) {
	t.Helper()
	if strings.Contains(text, hush) || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", hush)) {
		t.Errorf("%s: the secret shows in:\n%s", what, text)
	}
}

func TestSecret(t *testing.T) {
	s := newSecret(hush)
	if s.Reveal() != hush || s.String() != "set" {
		t.Errorf("got %q, %q", s.Reveal(), s.String())
	}
	var none Secret
	if none != newSecret("") || none.Reveal() != "" || none.String() != "" {
		t.Error("the empty secret is not the zero value")
	}
	unexported := struct{ s Secret }{s} // fmt cannot call Format here
	for _, value := range []any{s, &s, []Secret{s}, map[string]Secret{"x": s}, unexported} {
		checkHushed(t, fmt.Sprintf("%T", value), prints(t, value))
	}
	if got, err := json.Marshal([]Secret{s, none}); err != nil || string(got) != `["set",""]` {
		t.Errorf("json: %s, %v", got, err)
	}
	if got := fmt.Sprintf("%s %d", s, s); got != "set set" { // whatever the verb
		t.Errorf("fmt: %s", got)
	}
}

func TestLoad_hidesSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	writeFile(t, file, hush+"\n")
	good := []vars{
		{"REDIS_PASSWORD": hush},
		{"REDIS_PASSWORD_FILE": file},
		{"REDIS_URL": "redis://u:" + hush + "@host"},
		{"REDIS_SENTINEL_MASTER": "m", "REDIS_SENTINEL_ADDRS": "a", "REDIS_SENTINEL_PASSWORD": hush},
		{"GITOPS_WEBHOOK_URL": "https://u:p@host/" + hush, "GITOPS_WEBHOOK_SECRET": hush},
		{"GITOPS_LOCK_REPO": "https://git:" + hush + "@host/org/repo"},
		{"GITOPS_LOCK_REPO": "https://" + hush + "@host/org/repo"},
	}
	for _, env := range good {
		cfg, err := Load(env.with().look, nil)
		if err != nil {
			t.Errorf("%v: %v", env, err)
		}
		checkHushed(t, fmt.Sprint(env), prints(t, cfg))
	}
	bad := []vars{
		{"REDIS_PASSWORD": hush, "REDIS_URL": "redis://u:other@host"}, //nolint:gosec // made up
		{"REDIS_PASSWORD": hush, "REDIS_PASSWORD_FILE": file},
		{"REDIS_PASSWORD_FILE": file, "REDIS_URL": "redis://u:other@host"}, //nolint:gosec // made up
		{"REDIS_CLUSTER_ADDRS": "a", "REDIS_SENTINEL_PASSWORD": hush, "REDIS_URL": "redis://:" + hush + "@host"},
		{"REDIS_URL": "redis://u:" + hush + "@host:x"},
		{"REDIS_URL": "redis://u:a/" + hush + "@host"},
		{"REDIS_URL": "redis://u:1#" + hush + "@host"},
		{"REDIS_URL": "redis://u:1?" + hush + "@host"},
		{"REDIS_URL": "redis://u:1/" + hush + "@host"},
		{"REDIS_URL": "redis://u:%" + hush + "@host"},
		{"REDIS_URL": hush},
		{"REDIS_URL": "redis://host?password=" + hush},
		// in the wrong setting
		{"REDIS_HOST": "redis://u:" + hush + "@host"},
		{"REDIS_HOST": "u:" + hush + "@host"},
		{"REDIS_CLUSTER_ADDRS": "redis://:" + hush + "@a,b"},
		{"REDIS_SENTINEL_MASTER": "m", "REDIS_SENTINEL_ADDRS": "a," + "u:" + hush + "@b"},
		{"REDIS_TLS": "true", "REDIS_TLS_CA_CERT": "redis://:" + hush + "@a"},
		{"REDIS_TLS": "true", "REDIS_TLS_CA_CERT_B64": hush},
		{"REDIS_TLS": "true", "REDIS_TLS_CERT": "x", "REDIS_TLS_KEY": "-----BEGIN PRIVATE KEY-----\n" + hush},
		{"REDIS_TLS": "true", "REDIS_TLS_CERT": "x", "REDIS_TLS_KEY": "LS0tLS1CRUdJTi" + hush},
		{"GITOPS_LOCK_REPO": "https://git:" + hush + "@host/org/a repo"},
		{"GITOPS_WEBHOOK_URL": "hooks.example/" + hush},
		{"GITOPS_WEBHOOK_URL": "https://hooks.example/%" + hush},
	}
	for _, env := range bad {
		cfg, err := Load(env.with().look, nil)
		if err == nil {
			t.Errorf("%v: no error", env)
		}
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			checkHushed(t, fmt.Sprint(env), fmt.Sprintf("%v %+v %#v", e, e, e))
		}
		checkHushed(t, fmt.Sprint(env), prints(t, cfg))
	}
}

// FuzzLoadURL: no URL makes Load panic; no part of a URL gets into an error,
// and a password into nothing that is printed.
func FuzzLoadURL(f *testing.F) {
	for _, s := range []string{
		"redis://user:", "@host:6379/0", "rediss://:", "@[::1]", "unix://u:", "@/run/redis.sock?db=1", "redis://h/", "",
		"unix:///s?db=", "&db=2", "redis://u:1#", "redis://u:%", "@", "redis://", ":6379", "://", "redis:",
	} {
		f.Add(s, "@host")
		f.Add("redis://user:", s)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		text := before + hush + after
		if _, err := Load(vars{"REDIS_URL": text, "REDIS_PASSWORD": "other"}.look, nil); err != nil {
			checkHushed(t, text, err.Error())
		}
		cfg, err := Load(vars{"REDIS_URL": text}.look, nil)
		if err != nil {
			checkHushed(t, text, err.Error()+prints(t, cfg))
			return
		}
		u, err := url.Parse(text)
		if err != nil {
			t.Fatalf("%q is taken though it is no URL: %v", text, err)
		}
		password, _ := u.User.Password()
		if got := cfg.Redis.Password.Reveal(); got != password {
			t.Errorf("%q: password %q, want %q", text, got, password)
		}
		elsewhere := u.User.Username() + u.Host + u.Path
		if strings.Contains(password, hush) && !strings.Contains(elsewhere, hush) {
			checkHushed(t, text, prints(t, cfg))
		}
	})
}
