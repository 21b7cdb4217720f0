// Package upgrade fetches releases of this program, and puts one in the place of the running one.
// It believes nothing that does not have the SHA-256 that the release's checksums say, and, where
// cosign can tell, no checksums that the project's release workflow did not sign.
//
// A server holds plain files, laid out as GitHub lays out the releases of a project:
//
//	BASE/latest/download/checksums.txt
//	BASE/download/vVERSION/checksums.txt
//	BASE/download/vVERSION/checksums.txt.sigstore.json
//	BASE/download/vVERSION/git-gitops_VERSION_OS_ARCH.tar.gz (.zip for Windows)
package upgrade

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/mod/semver"
)

// Home is where the project publishes its releases.
const Home = "https://github.com/git-gitops/git-gitops/releases"

const (
	retries  = 3 // after the first try
	leastGap = 500 * time.Millisecond
	mostGap  = 5 * time.Second
	answerIn = 30 * time.Second // from the request to the answer's head
	fileIn   = 5 * time.Minute  // one try, from the connection to the end of the file

	checksumsName = "checksums.txt"
	mostChecksums = 1 << 20
	mostArchive   = 64 << 20
	mostProgram   = 128 << 20
)

// Error is a release that cannot be fetched or is not what it should be.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Platform is an operating system and an architecture, in Go's words.
type Platform struct{ OS, Arch string }

func (p Platform) String() string { return p.OS + "/" + p.Arch }

// Release is a release's archive for one platform.
type Release struct {
	Version string // without the v
	file    string
	sum     string
	list    []byte // the checksums
}

// Source is a server that holds releases. Make it with From.
type Source struct {
	base   string
	client *retryablehttp.Client
}

// From makes the source at an http or https URL, Home for "". Nothing is connected yet.
func From(base, agent string) (*Source, error) {
	if base == "" {
		base = Home
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.RawQuery != "" {
		return nil, errors.New("an http or https URL, without a query") // err would tell a password
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: answerIn}).DialContext,
		TLSHandshakeTimeout:   answerIn,
		ResponseHeaderTimeout: answerIn,
		ForceAttemptHTTP2:     true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	return &Source{base: strings.TrimRight(base, "/"), client: &retryablehttp.Client{
		HTTPClient:   &http.Client{Timeout: fileIn, Transport: named{agent, transport}, CheckRedirect: checkRedirect},
		RetryMax:     retries,
		RetryWaitMin: leastGap,
		RetryWaitMax: mostGap,
		CheckRetry: func(ctx context.Context, answer *http.Response, err error) (bool, error) {
			var final redirectError
			if errors.As(err, &final) {
				return false, nil
			}
			return retryablehttp.DefaultRetryPolicy(ctx, answer, err)
		},
		Backoff: func(least, most time.Duration, try int, answer *http.Response) time.Duration {
			return min(retryablehttp.DefaultBackoff(least, most, try, answer), most) // whatever Retry-After says
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}}, nil
}

// named says who asks.
type named struct {
	agent string
	next  http.RoundTripper
}

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User-Agent", n.agent)
	return n.next.RoundTrip(r) //nolint:wrapcheck // http.Client wraps it
}

// redirectError is a redirect that is not followed, however often it is tried.
type redirectError string

func (e redirectError) Error() string { return string(e) }

func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return redirectError("more than ten redirects")
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return redirectError("a redirect away from https, to " + r.URL.Host)
	}
	return nil
}

// Find looks up a version, or the newest for "".
func (s *Source) Find(ctx context.Context, version string, p Platform) (Release, error) {
	version = strings.TrimPrefix(version, "v")
	if _, ok := Known(version); !ok && version != "" {
		return Release{}, &Error{fmt.Errorf("%q is not the version of a release", version)}
	}
	where := s.base + "/latest/download/" + checksumsName
	if version != "" {
		where = s.base + "/download/v" + version + "/" + checksumsName
	}
	list, err := s.get(ctx, where, mostChecksums)
	if err != nil {
		return Release{}, err
	}
	r, err := pick(string(list), version, p)
	if err != nil {
		return Release{}, &Error{fmt.Errorf("%s: %w", where, err)}
	}
	r.list = list
	return r, nil
}

// pick finds the archive of a platform in a list as sha256sum writes it; version is "" for
// whichever is there.
func pick(list, version string, p Platform) (Release, error) {
	before, after := "git-gitops_", "_"+p.OS+"_"+p.Arch+extension(p)
	for line := range strings.Lines(list) {
		sum, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		file = strings.TrimLeft(file, " *") // the star of sha256sum --binary
		rest, ok := strings.CutPrefix(file, before)
		if !ok || !strings.HasSuffix(rest, after) {
			continue
		}
		found := strings.TrimSuffix(rest, after)
		if version != "" && found != version {
			continue
		}
		if _, ok := Known(found); !ok || len(sum) != 2*sha256.Size {
			return Release{}, fmt.Errorf("malformed line %.200q", line)
		}
		return Release{Version: found, file: file, sum: strings.ToLower(sum)}, nil
	}
	return Release{}, fmt.Errorf("no archive for %s", p)
}

func extension(p Platform) string {
	if p.OS == "windows" {
		return ".zip"
	}
	return ".tar.gz"
}

// Program fetches a release and takes the program out of its archive.
func (s *Source) Program(ctx context.Context, r Release) ([]byte, error) {
	where := s.base + "/download/v" + r.Version + "/" + r.file
	archive, err := s.get(ctx, where, mostArchive)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(archive); hex.EncodeToString(sum[:]) != r.sum {
		return nil, &Error{fmt.Errorf("%s has the SHA-256 %x, but %s says %s", where, sum, checksumsName, r.sum)}
	}
	unpack := fromTar
	if strings.HasSuffix(r.file, ".zip") {
		unpack = fromZip
	}
	program, err := unpack(archive)
	if err != nil {
		return nil, &Error{fmt.Errorf("unpack %s: %w", r.file, err)}
	}
	return program, nil
}

// get reads a file of at most a size. A connection that breaks off is tried again.
func (s *Source) get(ctx context.Context, where string, most int64) ([]byte, error) {
	r, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, &Error{errors.New("the URL is malformed")}
	}
	var file []byte
	r.SetResponseHandler(func(answer *http.Response) (err error) {
		if answer.StatusCode != http.StatusOK {
			return nil
		}
		if file, err = io.ReadAll(io.LimitReader(answer.Body, most+1)); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return nil
	})
	answer, err := s.client.Do(r)
	if answer != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		var u *url.Error
		if errors.As(err, &u) { // it begins with the URL
			err = u.Err
		}
		return nil, &Error{fmt.Errorf("get %s: %w", where, err)}
	case answer.StatusCode != http.StatusOK:
		return nil, &Error{fmt.Errorf("get %s: answered %d", where, answer.StatusCode)}
	case int64(len(file)) > most:
		return nil, &Error{fmt.Errorf("get %s: more than %d bytes", where, most)}
	}
	return file, nil
}

// fromTar and fromZip read the one member that is the program. Whatever else is in an archive, and
// wherever it wants to go, is not looked at.
func fromTar(archive []byte) ([]byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it contains no program")
		}
		if err != nil {
			return nil, fmt.Errorf("tar: %w", err)
		}
		if h.Name == "git-gitops" && h.Typeflag == tar.TypeReg {
			return readProgram(r)
		}
	}
}

func fromZip(archive []byte) ([]byte, error) {
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	for _, f := range r.File {
		if f.Name != "git-gitops.exe" || !f.Mode().IsRegular() {
			continue
		}
		member, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("zip: %w", err)
		}
		defer func() { _ = member.Close() }()
		return readProgram(member)
	}
	return nil, errors.New("it contains no program")
}

func readProgram(r io.Reader) ([]byte, error) {
	program, err := io.ReadAll(io.LimitReader(r, mostProgram+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the program: %w", err)
	case len(program) == 0 || len(program) > mostProgram:
		return nil, fmt.Errorf("the program has %d bytes", len(program))
	}
	return program, nil
}

// Known reports whether a version, with or without the v, is that of a release, and returns it
// without. A build from source, between two releases or of none, has no version that could be
// compared.
func Known(version string) (string, bool) {
	v := "v" + strings.TrimPrefix(version, "v")
	between := regexp.MustCompile(`-[0-9]+-g[0-9a-f]+$|-dirty$|[0-9]{14}-[0-9a-f]{12}$`) // git describe's, and Go's
	return v[1:], semver.Canonical(v) == v && !between.MatchString(v)
}

// Newer reports whether version a comes after b.
func Newer(a, b string) bool {
	return semver.Compare("v"+strings.TrimPrefix(a, "v"), "v"+strings.TrimPrefix(b, "v")) > 0
}
