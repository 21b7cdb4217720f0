package gitargs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseClone(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args  []string
		want  CloneArgs
		fails bool
	}{
		"url":              {args: []string{"u"}, want: CloneArgs{URL: "u"}},
		"url and dir":      {args: []string{"u", "d"}, want: CloneArgs{URL: "u", Dir: "d"}},
		"branch last":      {args: []string{"u", "d", "-b", "main"}, want: CloneArgs{URL: "u", Dir: "d", Branch: "main"}},
		"last branch wins": {args: []string{"-b", "a", "--branch=b", "u"}, want: CloneArgs{URL: "u", Branch: "b"}},
		"no branch":        {args: []string{"-b", "a", "--no-branch", "u"}, want: CloneArgs{URL: "u"}},
		"revision":         {args: []string{"--revision", "refs/x", "u"}, want: CloneArgs{URL: "u", Revision: "refs/x"}},
		"mirror is bare":   {args: []string{"--mirror", "u"}, want: CloneArgs{URL: "u", Bare: true, Mirror: true}},
		"mirror undone":    {args: []string{"--mirror", "--no-mirror", "u"}, want: CloneArgs{URL: "u"}},
		"naked":            {args: []string{"--naked", "u"}, want: CloneArgs{URL: "u", Bare: true}},
		"depth":            {args: []string{"--depth=1", "u"}, want: CloneArgs{URL: "u", Depth: "1", Shallow: true}},
		"depth undone":     {args: []string{"--depth=1", "--no-depth", "u"}, want: CloneArgs{URL: "u"}},
		"shallow exclude":  {args: []string{"--shallow-e", "v1", "u"}, want: CloneArgs{URL: "u", Shallow: true}},
		"config":           {args: []string{"-c", "a=b", "-cc=d", "u"}, want: CloneArgs{URL: "u", Config: []string{"a=b", "c=d"}}},
		"many": {
			args: []string{"-qnoup", "-u", "/bin/up", "--separate-git-dir", "g", "--bundle-uri=b", "--recursive", "--single-branch", "u"},
			want: CloneArgs{
				URL: "u", SeparateGitDir: "g",
				Quiet: true, NoCheckout: true, SingleBranch: true,
			},
		},
		"verbose after quiet": {args: []string{"-qv", "u"}, want: CloneArgs{URL: "u"}},
		"help":                {args: []string{"-h"}, want: CloneArgs{Help: true}},
		"no url":              {args: []string{"-q"}, fails: true},
		"too many":            {args: []string{"u", "d", "e"}, fails: true},
		"value missing":       {args: []string{"u", "--branch"}, fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseClone(test.args)
			if test.fails != (err != nil) {
				t.Fatalf("error %v", err)
			}
			got.Ahead = false // see TestSnapshot_leavesAlone
			if err == nil && !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestParseClone_sameAsGit compares the folder with the one that git names before it connects;
// no protocol is allowed, so that nothing does connect.
func TestParseClone_sameAsGit(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	tests := [][]string{
		{"https://host/org/repo"},
		{"https://host/org/repo.git"},
		{"https://host/org/repo.git/"},
		{"https://host/org/repo/.git"},
		{"https://host/org/repo//.git//"},
		{"https://user:pass@host/org/repo.git"},
		{"https://user@x:p@ss@host:8443/repo"},
		{"https://host"},
		{"https://host:8443"},
		{"https://host:8443/"},
		{"https://user@host:8443/"},
		{"https://host/.git"},
		{"https://host/repo.bundle"},
		{"https://host/repo.git.git"},
		{"https://host/a:b.git"},
		{"https://host/repo:2222"},
		{"https://host/a@b/c@d"},
		{"https://host/re  po \t.git"},
		{"ssh://git@host:22/~/repo.git"},
		{"git@host:org/repo.git"},
		{"git@host:repo"},
		{"host:22"},
		{"host:repo.git/"},
		{"--bare", "https://host/org/repo.git"},
		{"--mirror", "git@host:org/repo"},
		{"https://host/org/repo", "given"},
		{"https://host/org/repo", "given/dir//"},
		{"-b", "x", "https://host/org/repo"},
		{"https://host/org/repo", "--bran", "x", "-o", "up"},
		{"--depth", "3", "https://host/org/repo"},
		{"-qn", "https://host/org/repo"},
		{"-nbx", "https://host/org/repo"},
		{"--recurse-submodules", "https://host/org/repo"},
		{"--", "https://host/org/repo", "-d"},
		{"--end-of-options", "https://host/org/repo", "-d"},
		{"--re", "https://host/org/repo"},
		{"https://host/org/repo", "--branch"},
		{"https://host/org/repo", "a", "b"},
		{"https://"},
		{},
	}
	for _, args := range tests {
		cmd := exec.Command("git", append([]string{"clone"}, args...)...)
		cmd.Dir = o.bare
		cmd.Env = slices.Concat(o.env, []string{"GIT_ALLOW_PROTOCOL=none"})
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err == nil {
			t.Fatalf("git clone %q succeeded", args)
		}
		_, rest, named := strings.Cut(stderr.String(), "Cloning into ")
		named = named || strings.Contains(stderr.String(), "not allowed") // the quiet ones
		_, want, _ := strings.Cut(rest, "'")
		want, _, _ = strings.Cut(want, "'...")
		if rest, ok := strings.CutPrefix(rest, "bare repository "); ok {
			want, _, _ = strings.Cut(strings.TrimPrefix(rest, "'"), "'...")
		}

		a, err := ParseClone(args)
		got := a.Directory()
		switch {
		case !named && err == nil && got != "":
			t.Errorf("git clone %q: git refuses (%s), got %q", args, stderr.String(), got)
		case named && err != nil:
			t.Errorf("git clone %q: %v, want %q", args, err, want)
		case named && want != "" && got != want:
			t.Errorf("git clone %q: folder %q, want %q", args, got, want)
		}
	}
}

// TestCloneArgs_Directory clones local paths and looks for the folder.
func TestCloneArgs_Directory(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	src := t.TempDir()
	for _, name := range []string{"plain", "dotted.git", "colon:22", "two  words.git", "at@home", "x.bundle.git"} {
		o.mustGit("", "clone", "-q", "--bare", o.dir, filepath.Join(src, name))
	}
	o.mustGit("", "clone", "-q", o.dir, filepath.Join(src, "tree"))
	o.mustGit(o.dir, "bundle", "create", "-q", filepath.Join(src, "packed.bundle"), "--all")

	for _, args := range [][]string{
		{"plain"},
		{"plain/"},
		{"dotted.git"},
		{"dotted"},
		{"colon:22"},
		{"two  words.git"},
		{"at@home"},
		{"x.bundle.git"},
		{"tree"},
		{"tree/.git"},
		{"tree//.git/"},
		{"tree/.git//"},
		{"packed.bundle"},
		{"--bare", "plain"},
		{"--bare", "tree/.git"},
		{"--mirror", "dotted.git/"},
		{"-n", "plain", "given/"},
	} {
		url := &args[len(args)-1]
		if args[0] == "-n" {
			url = &args[1]
		}
		*url = filepath.ToSlash(src) + "/" + *url
		dir := t.TempDir()
		o.mustGit(dir, append([]string{"clone", "-q"}, args...)...)
		made, err := os.ReadDir(dir)
		if err != nil || len(made) != 1 {
			t.Fatalf("git clone %q made %v, %v", args, made, err)
		}
		a, err := ParseClone(args)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Directory(); got != made[0].Name() {
			t.Errorf("git clone %q: folder %q, want %q", args, got, made[0].Name())
		}
	}
}

func FuzzParseClone(f *testing.F) {
	f.Add("-b\x00main\x00https://u:p@host:1/a/b.git/")
	f.Add("--bare\x00host:7")
	f.Fuzz(func(t *testing.T, words string) {
		a, err := ParseClone(strings.Split(words, "\x00"))
		if err != nil || a.Dir != "" {
			return
		}
		if dir := a.Directory(); strings.ContainsAny(dir, "/\n\t") {
			t.Errorf("folder %q of %q", dir, a.URL)
		}
	})
}
