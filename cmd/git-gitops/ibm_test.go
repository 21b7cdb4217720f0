//go:build unix

package main

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ibm is a world in which a service key of IBM Cloud leads to a Redis, for
// scripts/ibm-toolchain-redis-setup.sh. All programs that it may call write their arguments down.
type ibm struct {
	*world
	script string
	want   map[string]string // the settings that the key holds
}

func newIBM(t *testing.T, password string, programs ...string) *ibm {
	t.Helper()
	script, err := filepath.Abs("../../scripts/ibm-toolchain-redis-setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	certs := certificates(t)
	port, server := certs.start(t)
	if err := server.Client(t).Do(t.Context(), "ACL", "SETUSER", "ibm_cloud_1", "on", ">"+password, "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	i := &ibm{world: newWorld(t), script: script, want: map[string]string{
		"REDIS_HOST": "127.0.0.1", "REDIS_PORT": port, "REDIS_USERNAME": "ibm_cloud_1", "REDIS_PASSWORD": password,
		"REDIS_TLS": "true", "REDIS_TLS_CA_CERT_B64": base64.StdEncoding.EncodeToString([]byte(certs.pem)),
	}}
	i.write("key.json", i.key(t, func(map[string]any) {}))
	i.write("argv", "")
	for _, name := range append([]string{"git", "cat", "mktemp", "mv", "rm", "git-gitops"}, programs...) {
		path, err := exec.LookPath(name)
		if name == "python3" { // which may be found by a script that looks for it along PATH
			var out []byte
			out, err = exec.Command(path, "-c", "import sys; print(sys.executable)").Output()
			path = strings.TrimSpace(string(out))
		}
		if err != nil {
			t.Fatal(err)
		}
		i.wrap(name, `exec "`+path+`" "$@"`)
	}
	i.must(".", `cd bin && rm git-gitops && ln -s "$1" git-gitops`, i.program("git-gitops"))
	// What a caller has set already is another Redis.
	i.world = i.with("PATH="+i.path("bin"), "REDIS_URL=redis://elsewhere.invalid", "REDIS_DB=7")
	return i
}

func (i *ibm) program(name string) string {
	i.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		i.t.Fatal(err)
	}
	return path
}

// wrap puts a program on the script's PATH.
func (i *ibm) wrap(name, body string) {
	i.write("bin/"+name, "#!/bin/sh\nprintf '%s\\n' '"+name+"' \"$@\" >>'"+i.path("argv")+"'\n"+body+"\n")
}

// key is a service key as ibmcloud prints it, after a change to its part rediss.
func (i *ibm) key(t *testing.T, change func(map[string]any)) string {
	t.Helper()
	rediss := map[string]any{
		"hosts":          []any{map[string]any{"hostname": i.want["REDIS_HOST"], "port": json.RawMessage(i.want["REDIS_PORT"])}},
		"authentication": map[string]any{"method": "direct", "username": i.want["REDIS_USERNAME"], "password": i.want["REDIS_PASSWORD"]},
		"certificate":    map[string]any{"name": "x", "certificate_base64": i.want["REDIS_TLS_CA_CERT_B64"]},
	}
	change(rediss)
	text, err := json.Marshal([]any{map[string]any{
		"name": "git-gitops", "credentials": map[string]any{"connection": map[string]any{"rediss": rediss}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (i *ibm) setup(args ...string) result {
	i.t.Helper()
	return i.run(".", append([]string{"bash", i.script}, args...)...)
}

// private wants no part of the password in a text, and no long part of the certificate.
func (i *ibm) private(text string) {
	i.t.Helper()
	for name, n := range map[string]int{"REDIS_PASSWORD": 4, "REDIS_TLS_CA_CERT_B64": 40} {
		for at := 0; at+n <= len(i.want[name]); at++ {
			if part := i.want[name][at : at+n]; strings.Contains(text, part) {
				i.t.Fatalf("%q of %s is in:\n%s", part, name, text)
			}
		}
	}
}

// settings reads what the script wrote in a format.
func (i *ibm) settings(format, text string) map[string]string {
	i.t.Helper()
	got := map[string]string{}
	scalar := func(name, quoted string) {
		var value string
		if err := json.Unmarshal([]byte(quoted), &value); err != nil {
			i.t.Fatalf("%s: %v", quoted, err)
		}
		got[name] = value
	}
	switch format {
	case "env":
		i.write("sourced", text)
		for name := range i.want {
			got[name] = i.with(name).must(".", `. ./sourced && "$BASH" -c 'printf %s "${!1}"' bash "$1"`, name)
		}
	case "json":
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			i.t.Fatal(err)
		}
	case "tekton-secret": // a string of JSON is one of YAML too
		lines, ok := strings.CutPrefix(text, "apiVersion: v1\nkind: Secret\nmetadata:\n  name: git-gitops-redis\ntype: Opaque\nstringData:\n")
		if !ok {
			i.t.Fatalf("unexpected: %s", text)
		}
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(line, ": ")
			scalar(strings.TrimPrefix(name, "  "), value)
		}
	default:
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			got[name] = value
		}
	}
	return got
}

// TestIBM: each format holds what the service key holds, in a file for its owner alone or on
// stdout; and nowhere else is there a secret.
func TestIBM(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ reader, password, formats string }{
		{"jq", `Zq'7"\n$HOME & #é`, "env json tekton-secret"},
		{"python3", `Zq'7"\n$HOME & #é`, "env json tekton-secret"},
		{"jq", "Zq7-xkvWq_jzK.d4gw9", "env json tekton-secret github gitlab"},
	} {
		t.Run(tc.reader+" "+tc.formats, func(t *testing.T) {
			t.Parallel()
			i := newIBM(t, tc.password, tc.reader)
			for format := range strings.FieldsSeq(tc.formats) {
				i.write("out", "older, and for all to read")
				r := i.setup("--format", format, "--output", "out", "key.json")
				wantCode(t, r, 0)
				wantText(t, r.stdout, "REDIS_HOST             127.0.0.1\n", "REDIS_PASSWORD         ****\n", "ok    permissions", "written to ./out")
				i.private(r.String())
				file := i.read("out")
				if got := i.settings(format, file); !maps.Equal(got, i.want) {
					t.Errorf("%s: got %q, want %q", format, got, i.want)
				}
				info, err := os.Stat(i.path("out"))
				if err != nil || info.Mode() != 0o600 {
					t.Errorf("%v, %v", info.Mode(), err)
				}
				r = i.setup("--format", format, "--output", "-", "--no-check", "key.json")
				wantCode(t, r, 0)
				if r.stdout != file {
					t.Errorf("on stdout: %q, in the file: %q", r.stdout, file)
				}
				i.private(r.stderr)
			}
			i.private(i.read("argv"))
			wantText(t, i.read("argv"), "git\ngitops\ndoctor\n", "mktemp\n./out.XXXXXX\n", tc.reader+"\n-")
			if left, _ := filepath.Glob(i.path("out.*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			// Without a file to write, and traced.
			r := i.bash(".", `"$BASH" -x "$1" - <key.json`, i.script)
			wantCode(t, r, 0)
			wantText(t, r.stdout, "REDIS_PASSWORD         ****\n", "ok    permissions")
			i.private(r.String())
		})
	}
}

// TestIBM_wrong: an error says what is wrong, without a secret, and nothing is written.
func TestIBM_wrong(t *testing.T) {
	t.Parallel()
	for _, reader := range []string{"jq", "python3"} {
		t.Run(reader, func(t *testing.T) {
			t.Parallel()
			i := newIBM(t, "Zq7$x", reader)
			in := func(part, field string, value any) string {
				return i.key(t, func(rediss map[string]any) { rediss[part].(map[string]any)[field] = value })
			}
			two := strings.TrimSuffix(i.read("key.json"), "]") + "," + i.read("key.json")[1:]
			for _, tc := range []struct {
				json string
				args []string
				code int
				word string
			}{
				{"", nil, 1, "not the JSON of one service key"},
				{"{", nil, 1, "not the JSON of one service key"},
				{"[]", nil, 1, "not the JSON of one service key"},
				{two, nil, 1, "not the JSON of one service key"},
				{i.read("key.json") + i.read("key.json"), nil, 1, "not the JSON of one service key"},
				{`{"credentials": "` + i.want["REDIS_PASSWORD"] + `"}`, nil, 1, "not the JSON of one service key"},
				{"{}", nil, 1, "lacks, below credentials.connection.rediss: hosts[0].hostname hosts[0].port authentication.username"},
				{in("certificate", "certificate_base64", nil), nil, 1, "lacks, below credentials.connection.rediss: certificate.certificate_base64\n"},
				{in("authentication", "password", nil), nil, 1, "rediss: authentication.password\n"},
				{in("authentication", "password", "two\nlines"), nil, 1, "not the JSON of one service key"},
				{in("authentication", "password", []string{i.want["REDIS_PASSWORD"]}), nil, 1, "not the JSON of one service key"},
				{in("authentication", "username", "nobody"), nil, 1, "WRONGPASS"},
				{in("certificate", "certificate_base64", "aGVsbG8="), nil, 1, "holds no certificate"},
				{in("certificate", "certificate_base64", "%"), nil, 1, "is not base64"},
				{i.key(t, func(r map[string]any) { r["hosts"].([]any)[0].(map[string]any)["port"] = "x" }), nil, 1, "port of the service key"},
				{i.key(t, func(r map[string]any) { r["hosts"].([]any)[0].(map[string]any)["hostname"] = "$(id)" }), nil, 1, "hostname of the service key"},
				{i.key(t, func(r map[string]any) { r["hosts"] = []any{} }), nil, 1, "rediss: hosts[0].hostname hosts[0].port\n"},
				{i.read("key.json"), []string{"--format", "github"}, 1, "REDIS_PASSWORD has a character that --format github cannot carry"},
				{i.read("key.json"), []string{"--format", "yaml"}, 129, "unknown format yaml"},
				{i.read("key.json"), []string{"--nonsense"}, 129, "unknown option --nonsense"},
				{i.read("key.json"), []string{"--key"}, 129, "--key needs a value"},
				{i.read("key.json"), []string{"--instance", "x"}, 129, "exclude each other"},
			} {
				i.write("bad.json", tc.json)
				i.write("out", "older")
				r := i.setup(append([]string{"--output", "out", "bad.json"}, tc.args...)...)
				wantCode(t, r, tc.code)
				wantText(t, r.stdout+r.stderr, tc.word, "error: ")
				i.private(r.String())
				if i.read("out") != "older" {
					t.Errorf("written: %s", i.read("out"))
				}
			}
			wantCode(t, i.setup("--format", "env", "key.json"), 129) // and where to?
			wantCode(t, i.setup(), 129)
			wantText(t, i.setup("none.json").stderr, "cannot read none.json")
			wantText(t, i.setup("--instance", "redis").stderr, "ibmcloud is not installed")
			wantText(t, i.setup("-h").stdout, "tekton-secret", "--no-check")
			i.must(".", "rm bin/git-gitops")
			wantText(t, i.setup("key.json").stderr, "put git-gitops on PATH, or give --no-check")
			wantCode(t, i.setup("--no-check", "key.json"), 0)
			i.must(".", "rm bin/"+reader)
			wantText(t, i.setup("--no-check", "key.json").stderr, "jq or python3 is needed")
			i.private(i.read("argv"))
		})
	}
}

// TestIBM_reader: a program that cannot read JSON is not taken for broken JSON: the next program
// reads it, or the message says what each lacks.
func TestIBM_reader(t *testing.T) {
	t.Parallel()
	const minimal = "ModuleNotFoundError: No module named 'json'"
	i := newIBM(t, "Zq7-8z.Kx", "jq", "python3")
	jq, python := i.read("bin/jq"), i.read("bin/python3")
	works := func() {
		t.Helper()
		r := i.setup("--no-check", "key.json")
		wantCode(t, r, 0)
		wantText(t, r.stdout, "REDIS_HOST             127.0.0.1\n")
	}
	fails := func(words ...string) {
		t.Helper()
		r := i.setup("--no-check", "key.json")
		wantCode(t, r, 1)
		wantText(t, r.stderr, append(words, "jq or python3 is needed")...)
		if strings.Contains(r.stderr, "not the JSON") {
			t.Error(r)
		}
	}
	i.wrap("python3", `echo "Traceback" >&2; echo "`+minimal+`" >&2; exit 1`)
	works() // jq is there
	i.wrap("jq", "exit 127")
	fails("jq is here, but cannot: it says nothing", "python3 is here, but cannot: "+minimal)
	i.write("bin/python3", python)
	works()
	i.write("bin/jq", jq)
	works()
	i.must(".", "rm bin/jq")
	i.wrap("python3", `echo "`+minimal+`" >&2; exit 1`)
	fails("python3 is here, but cannot: " + minimal)
}

// TestIBM_cloud: ibmcloud is asked for the key, and makes it once.
func TestIBM_cloud(t *testing.T) {
	t.Parallel()
	i := newIBM(t, "Zq7-8z.Kx", "jq")
	i.write("keys.json", `[{"name":"other"}]`)
	i.wrap("ibmcloud", `cd '`+i.dir+`' && case $2 in
service-keys) cat keys.json ;;
service-key-create) echo '[{"name":"other"},{"name":"'"$3"'"}]' >keys.json && cat key.json ;;
service-key) cat key.json ;;
esac`)
	calls := func() (lines []string) {
		text := i.read("argv")
		i.write("argv", "")
		for _, call := range strings.Split(text, "ibmcloud\nresource\n")[1:] {
			words := strings.Fields(call)
			lines = append(lines, words[0]+" "+words[1])
		}
		return lines
	}
	for _, want := range [][]string{
		{"service-keys --instance-name", "service-key-create my-key", "service-key my-key"},
		{"service-keys --instance-name", "service-key my-key"},
	} {
		r := i.setup("--instance", "my redis", "--key", "my-key", "--format", "json", "--output", "out")
		wantCode(t, r, 0)
		i.private(r.String())
		i.private(i.read("argv"))
		if got := i.settings("json", i.read("out")); !maps.Equal(got, i.want) {
			t.Errorf("got %q, want %q", got, i.want)
		}
		if got := calls(); !slices.Equal(got, want) {
			t.Errorf("asked for %q, want %q", got, want)
		}
	}
	for _, verb := range []string{"service-keys", "service-key-create", "service-key"} {
		i.write("keys.json", "[]")
		i.wrap("ibmcloud", `[ $2 != `+verb+` ] || { echo FAILED >&2; exit 1; }; cat '`+i.path("keys.json")+`'`)
		i.write("out", "older")
		r := i.setup("--instance", "my redis", "--output", "out")
		wantCode(t, r, 1)
		wantText(t, r.stderr, "FAILED", "ibmcloud cannot ")
		if i.read("out") != "older" {
			t.Errorf("written: %s", i.read("out"))
		}
	}
	i.write("keys.json", "FAILED but exit code 0")
	wantText(t, i.setup("--instance", "my redis").stderr, "did not print a list of service keys")
}
