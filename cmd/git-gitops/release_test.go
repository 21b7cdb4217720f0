//go:build unix

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// building is held while make builds the program: a second one at the same time would compile
// everything once more.
var building sync.Mutex

// built is the program as make build makes it, of some version.
func built(t *testing.T, w *world, version string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	bin := w.path("built-" + version)
	out, err := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+bin, "VERSION="+version).CombinedOutput()
	if err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	return bin
}

// releases is a plain file server, laid out as the releases of a project on GitHub are.
type releases struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	files  map[string][]byte // by path: download/v1.0.0/NAME
	asked  []string
	agents []string
	fault  func(w http.ResponseWriter, r *http.Request) bool // answers itself when it returns true
}

func newReleases(t *testing.T) *releases {
	s := &releases{t: t, files: map[string][]byte{}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.server.Close)
	return s
}

func (s *releases) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	s.mu.Lock()
	s.asked = append(s.asked, path)
	s.agents = append(s.agents, r.UserAgent())
	fault, file, ok := s.fault, s.files[path], s.files[path] != nil
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(file)))
	_, _ = w.Write(file)
}

func (s *releases) set(path string, file []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = file
}

func (s *releases) get(path string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[path]
}

// during answers requests in its own way until the end of the subtest.
func (s *releases) during(t *testing.T, fault func(w http.ResponseWriter, r *http.Request) bool) {
	set := func(f func(http.ResponseWriter, *http.Request) bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fault, s.asked = f, nil
	}
	set(fault)
	t.Cleanup(func() { set(nil) })
}

// count is how often a file was asked for since the last fault was set.
func (s *releases) count(suffix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range s.asked {
		if strings.HasSuffix(path, suffix) {
			n++
		}
	}
	return n
}

const signature = "checksums.txt.sigstore.json"

// signer is a folder with a cosign that believes the signatures of publish. A real one must not be
// asked.
func signer(w *world) string {
	w.write("signer/cosign", `#!/bin/sh
printf '%s\n' "$@" >"${0%/*}/args"
bundle="bundle of ${5##*/v}"
[ "$1 $2 $4 $6" = "verify-blob --bundle --certificate-identity --certificate-oidc-issuer" ] && grep -q git-gitops_ "$8" &&
	[ "$(cat "$3")" = "$bundle" ] && exit
echo no matching signatures >&2
exit 1
`)
	return w.path("signer")
}

func archiveName(version string) string {
	return fmt.Sprintf("git-gitops_%s_%s_%s.tar.gz", version, runtime.GOOS, runtime.GOARCH)
}

// publish makes a program the newest release.
func (s *releases) publish(version, program string) {
	s.t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		s.t.Fatal(err)
	}
	archive := pack(s.t, map[string]string{
		"README.md": "readme", "git-gitops": string(data), "man/git-gitops.1": ".TH GIT-GITOPS 1 " + version, "man/gitops.1": ".so man1/git-gitops.1",
		"completions/git-gitops.bash": "# bash", "completions/git-gitops.zsh": "# zsh", "completions/git-gitops.fish": "# fish",
	})
	sums := fmt.Appendf(nil, "%064x  git-gitops_%s_plan9_mips.tar.gz\n%x  %s\n", 1, version, sha256.Sum256(archive), archiveName(version))
	s.set("download/v"+version+"/"+archiveName(version), archive)
	s.set("download/v"+version+"/checksums.txt", sums)
	s.set("download/v"+version+"/"+signature, []byte("bundle of "+version+"\n"))
	s.set("latest/download/checksums.txt", sums)
}

func pack(t *testing.T, members map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&b, gzip.NoCompression) // under -race the best takes seconds
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(zipped)
	for name, content := range members {
		mode := int64(0o644)
		if name == "git-gitops" {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// breakOff sends the first half of a file, and closes the connection.
func breakOff(t *testing.T, w http.ResponseWriter, file []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(file), file[:len(file)/2])
}

// once is a fault of the first request for a file, and of no other.
func once(suffix string, fault func(w http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
	var first sync.Once
	return func(w http.ResponseWriter, r *http.Request) (answered bool) {
		if strings.HasSuffix(r.URL.Path, suffix) {
			first.Do(func() {
				fault(w)
				answered = true
			})
		}
		return answered
	}
}

// lying serves a changed file under the checksums of the right one.
func (s *releases) lying(t *testing.T, path string, change func([]byte) []byte) {
	right := s.get(path)
	if right == nil {
		t.Fatalf("no %s", path)
	}
	s.set(path, change(bytes.Clone(right)))
	t.Cleanup(func() { s.set(path, right) })
}

func flipped(file []byte) []byte {
	file[len(file)/2] ^= 1
	return file
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := built(t, w, "1.0.0"), built(t, w, "2.0.0")
	s := newReleases(t)
	s.publish("1.0.0", one)
	s.publish("2.0.0", two)
	dir := w.path("opt", "bin")
	bin := filepath.Join(dir, "git-gitops")
	w = w.with("PATH="+dir+":"+signer(w)+":"+w.env["PATH"], "GITOPS_DOWNLOAD_BASE="+s.server.URL)
	archive := "download/v2.0.0/" + archiveName("2.0.0")

	begin := func(t *testing.T, version string) {
		t.Helper()
		w.must(".", `rm -rf opt && mkdir -p opt/bin && cp "$1" opt/bin/git-gitops`, w.path("built-"+version))
	}
	is := func(t *testing.T, version string) {
		t.Helper()
		if got := w.must(".", `git gitops --version | sed 1d`); got != "git-gitops version "+version {
			t.Fatalf("it is %q, want version %s", got, version)
		}
		if got := w.must(".", `ls -A opt/bin`); got != "git-gitops" {
			t.Fatalf("left behind in the folder: %q", got)
		}
	}

	t.Run("to the newest", func(t *testing.T) {
		begin(t, "1.0.0")
		r := w.bash(".", "git gitops upgrade --check")
		wantCode(t, r, 1)
		wantText(t, r.stderr, "git-gitops 2.0.0 is available; this is 1.0.0: git gitops upgrade\n")
		is(t, "1.0.0")
		r = w.bash(".", "git gitops upgrade")
		wantCode(t, r, 0)
		wantText(t, r.stderr, bin+" is now git-gitops 2.0.0; it was 1.0.0\n")
		is(t, "2.0.0")
		for _, words := range []string{"", "--check", "--version 2.0.0", "--version v2.0.0 --check"} {
			r = w.bash(".", "git gitops upgrade "+words)
			wantCode(t, r, 0)
			wantText(t, r.stderr, "git-gitops 2.0.0 is up to date")
		}
	})

	t.Run("to an older one only by name", func(t *testing.T) {
		begin(t, "2.0.0")
		s.lying(t, "latest/download/checksums.txt", func([]byte) []byte { return s.get("download/v1.0.0/checksums.txt") })
		wantCode(t, w.bash(".", "git gitops upgrade"), 0)
		is(t, "2.0.0")
		wantCode(t, w.bash(".", "git gitops upgrade --version 1.0.0"), 0)
		is(t, "1.0.0")
	})

	t.Run("through links, also while it runs", func(t *testing.T) {
		begin(t, "1.0.0")
		w.must(".", `rm -rf links real && mkdir links real && mv opt/bin/git-gitops real/ && ln -s "$PWD/real/git-gitops" opt/bin/git-gitops`)
		w.must(".", `chmod 750 real/git-gitops && eval "$(git gitops install --shim "$PWD/links")"`)
		p := w.start(".", "git", "gitops", "metrics", "--listen", "127.0.0.1:0")
		w.until("it runs", func() bool { return strings.Contains(p.stderr.String(), "127.0.0.1:") })
		wantCode(t, w.bash(".", "git gitops upgrade"), 0)
		is(t, "2.0.0")
		if got := w.must(".", `readlink opt/bin/git-gitops; stat -c %a real/git-gitops 2>/dev/null || stat -f %Lp real/git-gitops; ls -A real; links/git gitops --version | sed 1d`); got !=
			w.path("real", "git-gitops")+"\n750\ngit-gitops\ngit-gitops version 2.0.0" {
			t.Fatalf("got %s", got)
		}
		p.signal(syscall.SIGINT)
		p.wait()
	})

	for name, test := range map[string]struct {
		words string
		wrong func(t *testing.T)
		code  int
		text  string
		get   int // how often the archive is asked for
	}{
		"a tampered archive": {
			wrong: func(t *testing.T) { s.lying(t, archive, flipped) },
			code:  69, text: "checksums.txt says", get: 1,
		},
		"an archive cut short": {
			wrong: func(t *testing.T) { s.lying(t, archive, func(b []byte) []byte { return b[:len(b)/2] }) },
			code:  69, text: "checksums.txt says", get: 1,
		},
		"no checksums": {
			wrong: func(t *testing.T) {
				s.during(t, func(w http.ResponseWriter, r *http.Request) bool {
					if strings.HasSuffix(r.URL.Path, "checksums.txt") {
						http.NotFound(w, r)
						return true
					}
					return false
				})
			},
			code: 69, text: "latest/download/checksums.txt: answered 404",
		},
		"no checksum of the archive": {
			wrong: func(t *testing.T) {
				s.lying(t, "latest/download/checksums.txt", func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] })
			},
			code: 69, text: "latest/download/checksums.txt: no archive for " + runtime.GOOS + "/" + runtime.GOARCH,
		},
		"a checksum that is none": {
			wrong: func(t *testing.T) {
				s.lying(t, "latest/download/checksums.txt", func(b []byte) []byte { return []byte("d41d8cd9  " + archiveName("2.0.0") + "\n") })
			},
			code: 69, text: "checksums.txt: malformed line",
		},
		"a version that would leave the folder": {
			wrong: func(t *testing.T) {
				s.lying(t, "latest/download/checksums.txt", func(b []byte) []byte {
					return bytes.ReplaceAll(b, []byte("2.0.0"), []byte("2.0.0/../../x"))
				})
			},
			code: 69, text: "checksums.txt: malformed line",
		},
		"no archive": {
			wrong: func(t *testing.T) { s.lying(t, archive, func([]byte) []byte { return nil }) },
			code:  69, text: "answered 404", get: 1,
		},
		"an unknown version":        {words: "--version 9.9.9", code: 69, text: "download/v9.9.9/checksums.txt: answered 404"},
		"a word that is no version": {words: "--version newest", code: 129, text: "want a release such as"},
		"an unexpected word":        {words: "now", code: 129, text: `unexpected argument "now"`},
		"a server error that stays": {
			wrong: func(t *testing.T) {
				s.during(t, func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("Retry-After", "0")
					w.WriteHeader(http.StatusBadGateway)
					return true
				})
			},
			code: 69, text: "answered 502",
		},
		"a server error that passes": {
			wrong: func(t *testing.T) {
				s.during(t, once("gz", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }))
			},
			get: 2, text: "is now git-gitops 2.0.0",
		},
		"a connection that breaks": {
			wrong: func(t *testing.T) {
				s.during(t, once("gz", func(w http.ResponseWriter) { breakOff(t, w, s.get(archive)) }))
			},
			get: 2, text: "is now git-gitops 2.0.0",
		},
		"no signature": {
			wrong: func(t *testing.T) { s.lying(t, "download/v2.0.0/"+signature, func([]byte) []byte { return nil }) },
			code:  69, text: signature + ": answered 404\n",
		},
		"another's signature": {
			wrong: func(t *testing.T) { s.lying(t, "download/v2.0.0/"+signature, flipped) },
			code:  69, text: "checksums.txt was not signed by the release of version 2.0.0: cosign: exit status 1: no matching signatures\n",
		},
		"no signature, by the user's word": {
			words: "--skip-signature",
			wrong: func(t *testing.T) { s.lying(t, "download/v2.0.0/"+signature, func([]byte) []byte { return nil }) },
			get:   1, text: "is now git-gitops 2.0.0",
		},
		"a package": {
			wrong: func(*testing.T) { w.write("opt/share/git-gitops/packaged-as", "deb\n") },
			code:  1, text: "was installed by apt or dpkg",
		},
	} {
		t.Run(name, func(t *testing.T) {
			begin(t, "1.0.0")
			s.during(t, nil)
			if test.wrong != nil {
				test.wrong(t)
			}
			r := w.bash(".", "git gitops upgrade "+test.words)
			wantCode(t, r, test.code)
			wantText(t, r.stderr, test.text)
			if n := s.count(".gz"); n != test.get {
				t.Fatalf("the archive was asked for %d times, want %d", n, test.get)
			}
			if test.code == 0 {
				is(t, "2.0.0")
			} else {
				is(t, "1.0.0")
			}
		})
	}

	t.Run("interrupted", func(t *testing.T) {
		begin(t, "1.0.0")
		asked, release := make(chan struct{}), make(chan struct{})
		s.during(t, once("gz", func(http.ResponseWriter) { close(asked); <-release }))
		p := w.start(".", "git", "gitops", "upgrade")
		<-asked
		p.signal(syscall.SIGINT)
		wantCode(t, p.wait(), 130)
		close(release)
		is(t, "1.0.0")
	})

	t.Run("in the middle of a lock", func(t *testing.T) {
		begin(t, "1.0.0")
		w.must(".", "rm -rf remote.git clone")
		repo := w.seed("remote.git")
		// Held by the clone, and asked from within.
		r := w.bash(".", `git gitops clone -q "$1" clone -b main && git -C clone gitops upgrade`, repo)
		wantCode(t, r, 1)
		wantText(t, r.stderr, "not upgraded while a lock is held: "+strings.TrimSuffix(repo, ".git")+"@main\n", "git gitops unlock --all")
		is(t, "1.0.0")
		wantCode(t, w.bash("clone", `git gitops upgrade --check`), 1)
		w.must("clone", "git gitops unlock --all")
		// Held by the script, and asked from elsewhere.
		r = w.with("GITOPS_LOCK_SESSION").bash(".", `git gitops clone -q "$1" clone2 -b main && git gitops upgrade`, repo)
		wantCode(t, r, 1)
		wantText(t, r.stderr, "a lock is held: "+strings.TrimSuffix(repo, ".git")+"@main\n")
		is(t, "1.0.0")
		w.until("the script's lock has ended", func() bool { return len(w.locks()) == 0 })
		wantCode(t, w.with("GITOPS_LOCK_SESSION").bash(".", `git gitops upgrade`), 0)
		is(t, "2.0.0")
	})

	t.Run("while another script waits for its turn", func(t *testing.T) {
		begin(t, "1.0.0")
		w.must(".", "rm -rf other.git first second")
		repo := w.seed("other.git")
		w.must(".", `git gitops clone -q "$1" first -b main`, repo)
		waits := w.start(".", "bash", "-c", `git gitops clone -q "$1" second -b main && cd second && git commit -q --allow-empty -m x &&
			test -e .git/gitops/*.json && git gitops push -q`, "bash", repo)
		w.until("it waits", func() bool { return w.queued() == 1 })
		wantCode(t, w.bash(".", "git gitops upgrade"), 0)
		is(t, "2.0.0")
		w.must("first", "git gitops unlock")
		wantCode(t, waits.wait(), 0)
		w.wantLocks()
	})

	t.Run("a signature, with cosign and without", func(t *testing.T) {
		s.during(t, nil)
		begin(t, "1.0.0")
		wantCode(t, w.bash(".", "git gitops upgrade"), 0)
		is(t, "2.0.0")
		wantText(t, w.read("signer/args"), "https://github.com/git-gitops/git-gitops/.github/workflows/release.yml@refs/tags/v2.0.0\n")
		begin(t, "1.0.0")
		s.lying(t, "download/v2.0.0/"+signature, func([]byte) []byte { return nil })
		path := "PATH=" + dir + ":" + tools(w, "no-cosign", "git", "bash")
		wantCode(t, w.with(path).bash(".", "git gitops upgrade"), 0)
		is(t, "2.0.0")
	})

	t.Run("a password in the mirror's URL", func(t *testing.T) {
		begin(t, "1.0.0")
		s.during(t, func(w http.ResponseWriter, r *http.Request) bool {
			user, password, _ := r.BasicAuth()
			if user == "reader" && password == "s3cret" {
				return false
			}
			w.WriteHeader(http.StatusForbidden)
			return true
		})
		for _, base := range []string{"http://reader:wr0ng@", "http://reader:s3cret@"} {
			r := w.with("GITOPS_DOWNLOAD_BASE="+strings.Replace(s.server.URL, "http://", base, 1)).bash(".", "git gitops upgrade")
			wantCode(t, r, map[bool]int{true: 0, false: 69}[strings.Contains(base, "s3cret")])
			if strings.Contains(r.stderr, "wr0ng") || strings.Contains(r.stderr, "s3cret") {
				t.Fatalf("it tells the password: %s", r)
			}
		}
		is(t, "2.0.0")
		r := w.with("GITOPS_DOWNLOAD_BASE=ftp://reader:s3cret@example.com").bash(".", "git gitops upgrade --check")
		wantCode(t, r, 78)
		if wantText(t, r.stderr, "GITOPS_DOWNLOAD_BASE is"); strings.Contains(r.stderr, "s3cret") {
			t.Fatalf("it tells the password: %s", r)
		}
	})

	t.Run("a proxy", func(t *testing.T) {
		begin(t, "1.0.0")
		s.during(t, nil)
		r := w.with("GITOPS_DOWNLOAD_BASE=http://releases.invalid", "http_proxy="+s.server.URL).bash(".", "git gitops upgrade")
		wantCode(t, r, 0)
		is(t, "2.0.0")
	})

	t.Run("a redirect away from https", func(t *testing.T) {
		begin(t, "1.0.0")
		away := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.server.URL+r.URL.Path, http.StatusFound)
		}))
		t.Cleanup(away.Close)
		w.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: away.Certificate().Raw})))
		r := w.with("GITOPS_DOWNLOAD_BASE="+away.URL, "SSL_CERT_FILE="+w.path("ca.pem")).bash(".", "git gitops upgrade")
		wantCode(t, r, 69)
		wantText(t, r.stderr, "a redirect away from https")
		is(t, "1.0.0")
	})

	t.Run("a build from source", func(t *testing.T) {
		w := w.with("PATH=" + w.path("source") + ":" + w.env["PATH"])
		w.must(".", `mkdir source && mv "$1" source/git-gitops`, built(t, w, "1.0.0-3-g3833f9c"))
		r := w.bash(".", "git gitops upgrade")
		wantCode(t, r, 1)
		wantText(t, r.stderr, "built from source (1.0.0-3-g3833f9c)", "git gitops upgrade --version VERSION")
		wantCode(t, w.bash(".", "git gitops upgrade --version 2.0.0 --check"), 1)
		wantCode(t, w.bash(".", "git gitops upgrade --version 2.0.0"), 0)
		wantText(t, w.must(".", "git gitops --version"), "git-gitops version 2.0.0")
	})
}

// tools is a folder with just these programs, for PATH.
func tools(w *world, name string, programs ...string) string {
	w.t.Helper()
	dir := w.path(name)
	w.must(".", `mkdir -p "$1" && for p in "${@:2}"; do ln -sf "$(command -v "$p")" "$1/$p" || exit; done`, append([]string{dir}, programs...)...)
	return dir
}

// installTools are what install.sh needs beside a way to download.
var installTools = []string{"sh", "bash", "uname", "id", "mktemp", "tar", "gzip", "mkdir", "cp", "chmod", "mv", "rm", "sed", "tail", "cat", "sleep", "git"}

func TestInstallScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newReleases(t)
	s.publish("1.0.0", built(t, w, "1.0.0"))
	s.publish("2.0.0", w.write("small", "#!/bin/sh\necho git\necho git-gitops version 2.0.0\n")) // the other is too big for so many downloads
	script, err := filepath.Abs("../../scripts/install.sh")
	if err != nil {
		t.Fatal(err)
	}
	w = w.with("PATH="+signer(w)+":"+w.env["PATH"], "GITOPS_DOWNLOAD_BASE="+s.server.URL, "TMPDIR="+w.path("tmp"))
	prefix := w.path("prefix")
	archive := "download/v2.0.0/" + archiveName("2.0.0")

	begin := func(t *testing.T) {
		t.Helper()
		s.during(t, nil)
		w.must(".", "rm -rf prefix tmp && mkdir tmp")
	}
	installed := func(t *testing.T, version string) {
		t.Helper()
		if got := w.must(".", `prefix/bin/git-gitops --version | sed 1d; cat prefix/share/man/man1/git-gitops.1; cd prefix; find . -type f -o -type l | sort; ls -A ../tmp`); got !=
			"git-gitops version "+version+"\n.TH GIT-GITOPS 1 "+version+`./bin/git-gitops
./share/bash-completion/completions/git-gitops
./share/fish/vendor_completions.d/git-gitops.fish
./share/man/man1/git-gitops.1
./share/man/man1/gitops.1
./share/zsh/site-functions/_git-gitops` {
			t.Fatalf("installed:\n%s", got)
		}
	}
	nothing := func(t *testing.T) {
		t.Helper()
		if got := w.must(".", `if [ -e prefix ]; then find prefix; fi; ls -A tmp`); got != "" {
			t.Fatalf("left behind:\n%s", got)
		}
	}

	t.Run("the newest, and then an older one over it", func(t *testing.T) {
		begin(t)
		r := w.run(".", "sh", script, "--prefix", prefix)
		wantCode(t, r, 0)
		wantText(t, r.stderr, "installed git-gitops 2.0.0 as "+prefix+"/bin/git-gitops\n", `put it on PATH, here and in your profile: export PATH="`+prefix+`/bin:$PATH"`)
		installed(t, "2.0.0")
		r = w.with("PATH="+prefix+"/bin:"+w.env["PATH"]).run(".", "sh", script, "--version=v1.0.0", "--prefix="+prefix)
		wantCode(t, r, 0)
		if r.stderr != "install.sh: installed git-gitops 1.0.0 as "+prefix+"/bin/git-gitops\n" {
			t.Fatalf("it says %q", r.stderr)
		}
		installed(t, "1.0.0")
	})

	t.Run("with the page that git opens for --help", func(t *testing.T) {
		begin(t)
		wantCode(t, w.run(".", "sh", script, "--prefix", prefix), 0)
		w.write("viewer/man", "#!/bin/sh\nfor page; do :; done\ncat \"$PREFIX/share/man/man1/$page.1\"\n")
		got := w.with("PATH="+w.path("viewer")+":"+prefix+"/bin:"+w.env["PATH"], "PREFIX="+prefix).must(".", "git gitops --help")
		if got != ".so man1/git-gitops.1" && !strings.HasPrefix(got, ".TH GIT-GITOPS 1 ") {
			t.Fatalf("git shows %q", got)
		}
	})

	t.Run("as a pipe, into the home", func(t *testing.T) {
		begin(t)
		w.must(".", "rm -rf home/.local")
		home := w.with("PATH=" + tools(w, "user", append(installTools, "curl", "sha256sum")...))
		w.must(".", `rm user/id && printf '#!/bin/sh\necho 1000\n' >user/id && chmod +x user/id`) // who is not root
		wantCode(t, home.bash(".", `sh <"$1"`, script), 0)
		wantText(t, home.must(".", `home/.local/bin/git-gitops --version`), "git-gitops version 2.0.0")
	})

	for name, more := range map[string][]string{
		"curl": {"curl", "sha256sum"}, "wget": {"wget", "sha256sum"},
		"shasum": {"curl", "shasum", "perl"}, "openssl": {"curl", "openssl"},
	} {
		t.Run("with "+name+" only", func(t *testing.T) {
			begin(t)
			r := w.with("PATH="+tools(w, "only-"+name, append(installTools, more...)...)).run(".", "sh", script, "--prefix", prefix)
			wantCode(t, r, 0)
			installed(t, "2.0.0")
			// The tool must also see that a file is another.
			w.must(".", "rm -rf prefix")
			s.lying(t, archive, flipped)
			r = w.with("PATH="+w.path("only-"+name)).run(".", "sh", script, "--prefix", prefix)
			wantCode(t, r, 1)
			wantText(t, r.stderr, "is not what was released")
			nothing(t)
		})
		if name != "curl" && name != "wget" {
			continue
		}
		t.Run("trouble on the way, with "+name, func(t *testing.T) {
			path := "PATH=" + tools(w, "trouble-"+name, append(installTools, name, "sha256sum")...)
			for what, fault := range map[string]func(http.ResponseWriter){
				"a server error":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
				"a break":             func(w http.ResponseWriter) { breakOff(t, w, s.get(archive)) },
				"too many of us":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
				"a closed connection": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
			} {
				begin(t)
				s.during(t, once("gz", fault))
				r := w.with(path).run(".", "sh", script, "--prefix", prefix)
				if r.code != 0 {
					t.Fatalf("%s: %s", what, r)
				}
				installed(t, "2.0.0")
			}
			begin(t)
			r := w.with(path).run(".", "sh", script, "--prefix", prefix, "--version", "3.0.0")
			wantCode(t, r, 1)
			wantText(t, r.stderr, "checksums.txt: answered 404", "cannot get the checksums of 3.0.0")
			if n := s.count("checksums.txt"); n != 1 {
				t.Fatalf("it asked %d times for what is not there", n)
			}
			nothing(t)
		})
	}

	t.Run("with busybox only, as on Alpine", func(t *testing.T) {
		begin(t)
		w.must(".", `mkdir busybox && for p in $(busybox --list); do ln -s "$(command -v busybox)" "busybox/$p"; done`)
		alpine := w.with("PATH=" + w.path("busybox"))
		s.during(t, once("gz", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }))
		r := alpine.run(".", w.path("busybox", "sh"), script, "--prefix", prefix)
		wantCode(t, r, 0)
		wantText(t, r.stderr, "git is missing")
		installed(t, "2.0.0")
		begin(t)
		r = alpine.run(".", w.path("busybox", "sh"), script, "--prefix", prefix, "--version", "3.0.0")
		wantCode(t, r, 1)
		wantText(t, r.stderr, "checksums.txt: answered 404")
		nothing(t)
	})

	for name, test := range map[string]struct {
		words []string
		with  []string
		wrong func(t *testing.T)
		text  string
	}{
		"a tampered archive": {
			wrong: func(t *testing.T) { s.lying(t, archive, flipped) },
			text:  "is not what was released",
		},
		"no archive": {
			wrong: func(t *testing.T) { s.lying(t, archive, func([]byte) []byte { return nil }) },
			text:  "answered 404",
		},
		"no checksum of the archive": {
			wrong: func(t *testing.T) {
				s.lying(t, "latest/download/checksums.txt", func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] })
			},
			text: "names no archive for ",
		},
		"a page instead of the checksums": {
			wrong: func(t *testing.T) {
				s.lying(t, "latest/download/checksums.txt", func([]byte) []byte { return []byte("<html>welcome</html>\n") })
			},
			text: "names no archive for ",
		},
		"an archive without the program": {
			wrong: func(t *testing.T) {
				other := pack(t, map[string]string{"README.md": "x"})
				s.lying(t, archive, func([]byte) []byte { return other })
				s.lying(t, "latest/download/checksums.txt", func([]byte) []byte { return fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(other), archiveName("2.0.0")) })
			},
			text: "cannot unpack",
		},
		"another architecture": {
			with: []string{"PATH=" + w.path("riscv") + ":" + w.env["PATH"]},
			wrong: func(*testing.T) {
				w.write("riscv/uname", "#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo riscv64\n")
			},
			text: "no release for the architecture riscv64",
		},
		"another system": {
			with:  []string{"PATH=" + w.path("msys") + ":" + w.env["PATH"]},
			wrong: func(*testing.T) { w.write("msys/uname", "#!/bin/sh\necho MINGW64_NT-10.0\n") },
			text:  "for Windows, unpack the .zip",
		},
		"no way to download": {
			with: []string{"PATH=" + tools(w, "offline", installTools...)},
			text: "needs curl or wget",
		},
		"no way to verify": {
			with: []string{"PATH=" + tools(w, "unverified", append(installTools, "curl")...)},
			text: "needs sha256sum, shasum or openssl",
		},
		"a prefix that cannot be written to": {
			words: []string{"--prefix", w.path("gitconfig", "sub")},
			text:  "another folder: --prefix DIR",
		},
		"a prefix that a package manager has": {
			words: []string{"--prefix", w.path("usr")},
			wrong: func(*testing.T) { w.write("usr/share/git-gitops/packaged-as", "rpm\n") },
			text:  "a package manager has installed git-gitops",
		},
		"a signature that is not right": {
			wrong: func(t *testing.T) { s.lying(t, "download/v2.0.0/"+signature, flipped) },
			text:  "was not signed by the release of version 2.0.0 (--skip-signature",
		},
		"a signature that is not there": {
			wrong: func(t *testing.T) { s.lying(t, "download/v2.0.0/"+signature, func([]byte) []byte { return nil }) },
			text:  "cannot get the signature, which cosign should verify; to trust the checksum alone: --skip-signature",
		},
		"a password that wget would show": {
			with: []string{
				"PATH=" + tools(w, "password", append(installTools, "wget", "sha256sum")...),
				"GITOPS_DOWNLOAD_BASE=" + strings.Replace(s.server.URL, "http://", "http://reader:s3cret@", 1),
			},
			text: "install curl",
		},
		"an unknown word":      {words: []string{"--prefox", "x"}, text: "unknown word: --prefox"},
		"a word without value": {words: []string{"--version"}, text: "--version needs a value"},
		"no version":           {words: []string{"--version", "../1.0.0"}, text: "no version: ../1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			begin(t)
			if test.wrong != nil {
				test.wrong(t)
			}
			words := test.words
			if len(words) == 0 {
				words = []string{"--prefix", prefix}
			}
			r := w.with(test.with...).run(".", append([]string{"sh", script}, words...)...)
			wantCode(t, r, 1)
			wantText(t, r.stderr, test.text)
			if strings.Contains(r.stderr, "s3cret") {
				t.Fatalf("it tells the password: %s", r)
			}
			nothing(t)
		})
	}

	t.Run("a signature that is right, and one that is not asked for", func(t *testing.T) {
		begin(t)
		wantCode(t, w.run(".", "sh", script, "--prefix", prefix), 0)
		wantText(t, w.read("signer/args"), "https://github.com/git-gitops/git-gitops/.github/workflows/release.yml@refs/tags/v2.0.0\n")
		installed(t, "2.0.0")
		begin(t)
		s.lying(t, "download/v2.0.0/"+signature, func([]byte) []byte { return nil })
		wantCode(t, w.run(".", "sh", script, "--prefix", prefix, "--skip-signature"), 0)
		installed(t, "2.0.0")
	})

	t.Run("a password that curl hides", func(t *testing.T) {
		begin(t)
		s.during(t, func(w http.ResponseWriter, r *http.Request) bool {
			if _, password, _ := r.BasicAuth(); password == "s3cret" {
				return false
			}
			w.WriteHeader(http.StatusForbidden)
			return true
		})
		w.must(".", `mkdir -p seen && cat >seen/curl && chmod +x seen/curl`) // below
		w.write("seen/curl", "#!/bin/sh\nprintf '%s\\n' \"$@\" >>\"${0%/*}/args\"\nexec "+w.must(".", "command -v curl")+" \"$@\"\n")
		r := w.with("PATH="+w.path("seen")+":"+w.env["PATH"], "GITOPS_DOWNLOAD_BASE="+strings.Replace(s.server.URL, "http://", "http://reader:s3cret@", 1)).
			run(".", "sh", script, "--prefix", prefix)
		wantCode(t, r, 0)
		if args := w.read("seen/args"); strings.Contains(args+r.stderr, "s3cret") {
			t.Fatalf("the password is seen in %s%s", args, r)
		}
		installed(t, "2.0.0")
	})

	t.Run("another one comes first on PATH", func(t *testing.T) {
		begin(t)
		first := w.write("first/git-gitops", "#!/bin/sh\n")
		r := w.with("PATH="+w.path("first")+":"+prefix+"/bin:"+w.env["PATH"]).run(".", "sh", script, "--prefix", prefix)
		wantCode(t, r, 0)
		wantText(t, r.stderr, "another one comes first on PATH: "+first)
	})

	t.Run("interrupted", func(t *testing.T) {
		begin(t)
		asked, release := make(chan struct{}), make(chan struct{})
		s.during(t, once("gz", func(http.ResponseWriter) { close(asked); <-release }))
		p := w.start(".", "sh", script, "--prefix", prefix)
		<-asked
		p.signal(syscall.SIGTERM)
		wantCode(t, p.wait(), 143)
		close(release)
		nothing(t)
	})

	t.Run("a script that was cut", func(t *testing.T) {
		begin(t)
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		whole := strings.TrimRight(string(text), "\n")
		cuts := []int{len(whole) - 1}
		for n := strings.Index(whole, "\n{ ") + 3; n < len(whole); n += 97 {
			cuts = append(cuts, n)
		}
		for n := len(whole) - len("main \"$@\"\n}"); n < len(whole); n++ {
			cuts = append(cuts, n)
		}
		for _, n := range cuts {
			w.write("cut.sh", whole[:n])
			r := w.bash(".", `sh -s -- --prefix "$1" <cut.sh`, prefix)
			if r.code == 0 || s.count("checksums.txt") > 0 {
				t.Fatalf("cut at %d of %d, it ran: %s", n, len(whole), r)
			}
		}
		nothing(t)
	})
}

// docs/third-party.md names every module that is linked in, on any system, and no other.
func TestThirdParty(t *testing.T) {
	t.Parallel()
	linked := map[string]bool{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		list := exec.Command("go", "list", "-deps", "-tags", "urfave_cli_no_docs", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", ".")
		list.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, module := range strings.Fields(string(out)) {
			linked[module] = true
		}
	}
	text, err := os.ReadFile("../../docs/third-party.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		module, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		module, _, _ = strings.Cut(module, "`")
		if !linked[module] {
			t.Errorf("docs/third-party.md names %s, which is not linked in", module)
		}
		delete(linked, module)
	}
	for module := range linked {
		t.Errorf("docs/third-party.md lacks %s", module)
	}
}
