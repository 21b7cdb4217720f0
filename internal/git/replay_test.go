package git

import (
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
)

// shell runs a script in a repository.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	g := Git{Path: "/bin/bash"}
	out, err := g.Output(t.Context(), "-c", "set -e; cd '"+dir+"'\n"+script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(out)
}

// fork makes a base, and on it two lines of commits, by scripts. HEAD is ours.
func fork(t *testing.T, base, theirs, ours string) (g Git, dir string) {
	t.Helper()
	g, dir, _ = repository(t)
	shell(t, dir, base+"\ngit add -A && git commit -q --allow-empty -m base && git branch base && git checkout -q -b theirs")
	shell(t, dir, theirs+"\ngit add -A && git commit -q --allow-empty -m theirs && git checkout -q main")
	shell(t, dir, ours+"\ngit add -A && (git diff --cached --quiet || git commit -q -m ours)")
	return g, dir
}

func replay(t *testing.T, g Git, onto, base, tip string) (string, error) {
	t.Helper()
	r, err := g.NewReplay(t.Context(), onto)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := r.tree
	_, left, err := r.Add(t.Context(), Range{g.Tip(t.Context(), base), tip})
	if err != nil {
		t.Fatal(err)
	}
	err = left[0]
	if err != nil {
		index := must(t, r.git, "write-tree")
		if index != before || r.tree != before || r.Tip != onto {
			t.Fatalf("after %v the index is %s, not %s", err, index, before)
		}
	}
	return r.Tip, err
}

// content is all of a commit that a rebase keeps; messages in one encoding.
func content(t *testing.T, g Git, commit string) string {
	t.Helper()
	return must(t, g, "log", "-1", "--no-show-signature", "--encoding=UTF-8", "--date=raw", "--format=tree %T%n%an <%ae> %ad%n%n%B", commit)
}

const big = `for i in $(seq 40); do echo "line $i"; done >big; `

// TestReplay: what a rebase takes without a question is taken with the same result; what it would
// ask about, drop or move is left out.
func TestReplay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		base, theirs, ours string
		left               string // why it is left out; "" when it is taken
	}{
		"another file":        {`echo 0 >a; echo 0 >b`, `echo 1 >a`, `echo 1 >b`, ""},
		"other lines":         {big, `sed -i 's/^line 3$/three/' big`, `sed -i 's/^line 30$/thirty/' big`, ""},
		"the same line":       {big, `sed -i 's/^line 3$/three/' big`, `sed -i 's/^line 3$/drei/' big`, "conflicts"},
		"the same change":     {big, `sed -i 's/^line 3$/three/' big`, `sed -i 's/^line 3$/three/' big`, "empty or smaller"},
		"partly the same":     {big, `sed -i 's/^line 3$/three/' big`, `sed -i 's/^line 3$/three/; s/^line 30$/thirty/' big`, "differently"},
		"a new file":          {``, `echo t >t`, `echo n >n`, ""},
		"the same new file":   {``, `echo n >n`, `echo n >n`, "empty or smaller"},
		"another new file":    {``, `echo t >n`, `echo n >n`, "conflicts"},
		"a mode":              {`echo x >s`, `echo 1 >t`, `chmod +x s`, ""},
		"a mode of an edited": {big, `sed -i 's/^line 3$/three/' big`, `chmod +x big`, ""},
		"an edit of a mode":   {big, `chmod +x big`, `sed -i 's/^line 3$/three/' big`, ""},
		"deleted, new mode":   {`echo x >s`, `chmod +x s`, `rm s`, "differently"},
		"a symlink":           {`ln -s a l`, `echo 1 >t`, `ln -sf b l`, ""},
		"file to symlink":     {`echo a >l`, `echo 1 >t`, `rm l; ln -s b l`, ""},
		"two symlinks":        {`ln -s a l`, `ln -sf c l`, `ln -sf b l`, "conflicts"},
		"a binary":            {`printf '\0\1\2' >b`, `echo 1 >t`, `printf '\0\1\2\3\4' >b`, ""},
		"two binaries":        {`printf '\0\1\2' >b`, `printf '\0\9' >b`, `printf '\0\1\2\3\4' >b`, "conflicts"},
		"a rename":            {big, `echo 1 >t`, `git mv big large`, ""},
		"a rename of edited":  {big, `sed -i 's/^line 3$/three/' big`, `git mv big large`, "conflicts"},
		"an edit of renamed":  {big, `git mv big large`, `sed -i 's/^line 3$/three/' big`, "conflicts"},
		"below a renamed":     {`mkdir d; ` + `echo 1 >d/a; echo 2 >d/b`, `git mv d e`, `echo n >d/n`, "folder"},
		"below a removed":     {`mkdir -p d/s; echo 1 >d/s/a`, `rm -r d`, `echo n >d/s/n`, "folder"},
		"renamed, grown":      {`mkdir d; echo 1 >d/a; echo 2 >d/b`, `echo 3 >d/c`, `git mv d e`, "folder"},
		"below a new folder":  {`mkdir d; echo 1 >d/a`, `rm -r d`, `mkdir e; echo n >e/n`, ""},
		"file to folder":      {`echo 1 >d`, `echo 1 >t`, `rm d; mkdir d; echo n >d/n`, ""},
		"deleted, edited":     {big, `sed -i 's/^line 3$/three/' big`, `rm big`, "conflicts"},
		"CRLF":                {`printf 'a\r\nb\r\nc\r\n' >c`, `echo 1 >t`, `printf 'a\r\nB\r\nc\r\n' >c`, ""},
		"white space":         {`printf 'a \nb\t\n\n' >w`, `echo 1 >t`, `printf 'a  \n b\t\n\n\n\n' >w; git config apply.whitespace fix; git config apply.ignoreWhitespace change`, ""},
		"CRLF attributes":     {`echo '* text eol=crlf' >.gitattributes; printf 'a\nb\n' >c`, `echo 1 >t`, `printf 'a\nB\n' >c`, ""},
		"new attributes":      {`printf 'a\r\n' >c`, `echo 1 >t`, `echo '*.txt text' >.gitattributes`, "changes attributes"},
		"other attributes":    {`printf 'a\r\n' >c`, `echo '*.txt text' >.gitattributes`, `echo 1 >t`, "other attributes"},
		"merge=binary":        {`echo 'big -merge' >.gitattributes; ` + big, `sed -i 's/^line 3$/three/' big`, `sed -i 's/^line 30$/thirty/' big`, "conflicts"},
		"odd names":           {``, `echo 1 >t`, `mkdir -p 'ö "q"'; echo n >'ö "q"/a	b'; echo n >$'new\nline'`, ""},
		"submodule":           {`git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,sub; mkdir sub`, `echo 1 >t`, `git update-index --cacheinfo 160000,2222222222222222222222222222222222222222,sub; git commit -qm ours; git config diff.ignoreSubmodules all`, ""},
		"no line break":       {`printf 'a\nb' >n`, `echo 1 >t`, `printf 'a\nB' >n`, ""},
		"empty on purpose":    {``, `echo 1 >t`, `git commit -q --allow-empty -m nothing`, ""},
		"no message":          {``, `echo 1 >t`, `echo 1 >u; git add -A; git commit -q --allow-empty-message -m ''`, ""},
		"several":             {big, `echo 1 >t`, `echo 1 >u; git add -A; git commit -qm u; echo 2 >u; git add -A; git commit -qm u2; rm u`, ""},
		"several, the last":   {big, `sed -i 's/^line 3$/three/' big`, `echo 1 >u; git add -A; git commit -qm u; sed -i 's/^line 3$/drei/' big`, "conflicts"},
		"author and encoding": {``, `echo 1 >t`, `echo 1 >u; git add -A; printf 'gr\374n\n\n body\n' | git -c i18n.commitEncoding=ISO-8859-1 commit -q --author='Jürgen Ö <j@example.com>' --date='2001-02-03T04:05:06+0545' -F -`, ""},
		"extra headers":       {``, `echo 1 >t`, `echo 1 >u; git add -A; git commit -qm u; git cat-file commit HEAD | sed 's/^committer.*/&\nextra one\n two/' | git hash-object -t commit -w --stdin | xargs git reset -q --hard`, ""},
		"signed":              {``, `echo 1 >t`, `echo 1 >u; git add -A; git commit -qm u; git cat-file commit HEAD | sed 's/^committer.*/&\ngpgsig -----BEGIN\n x/' | git hash-object -t commit -w --stdin | xargs git reset -q --hard`, "signed"},
		"a merge":             {``, `echo 1 >t`, `git checkout -q -b side; echo 1 >s; git add -A; git commit -qm s; git checkout -q main; echo 1 >u; git add -A; git commit -qm u; git merge -q side -m m`, "merge"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, dir := fork(t, c.base, c.theirs, c.ours)
			theirs, ours := g.Tip(t.Context(), "theirs"), g.Tip(t.Context(), "main")
			got, err := replay(t, g, theirs, "base", ours)
			if c.left != "" {
				var out *LeftOutError
				if !errors.As(err, &out) || !strings.Contains(out.Error(), c.left) {
					t.Fatalf("want it left out: %s; got %v", c.left, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := replay(t, g, theirs, "base", ours); again != got {
				t.Errorf("the same replay gives %s and then %s", got, again)
			}
			if at := g.Tip(t.Context(), "HEAD"); at != ours {
				t.Errorf("HEAD has moved to %s", at)
			}
			for back := ours; back != g.Tip(t.Context(), "base"); back, got = g.Tip(t.Context(), back+"^"), g.Tip(t.Context(), got+"^") {
				if a, b := must(t, g, "log", "-1", "--format=%cn %ce %cd", back), must(t, g, "log", "-1", "--format=%cn %ce %cd", got); a != b {
					t.Errorf("the committer is %s, was %s", b, a)
				}
			}
			got, _ = replay(t, g, theirs, "base", ours)
			wantRebased(t, g, dir, theirs, ours, got)
		})
	}
}

// wantRebased compares a replay with git's own rebase.
func wantRebased(t *testing.T, g Git, dir, theirs, ours, got string) {
	t.Helper()
	shell(t, dir, "git checkout -q --detach -f "+ours+" && git rebase -q --no-autosquash --reapply-cherry-picks --empty=ask "+theirs)
	rebased := strings.Fields(must(t, g, "rev-list", theirs+"..HEAD"))
	replayed := strings.Fields(must(t, g, "rev-list", theirs+".."+got))
	if len(rebased) != len(replayed) {
		t.Fatalf("%d commits, a rebase gives %d", len(replayed), len(rebased))
	}
	for i := range rebased {
		if a, b := content(t, g, rebased[i]), content(t, g, replayed[i]); a != b {
			t.Errorf("replayed:\n%s\na rebase gives:\n%s", b, a)
		}
	}
}

// TestReplay_malformed: a commit that newer gits do not write again is left out.
func TestReplay_malformed(t *testing.T) {
	t.Parallel()
	g, _ := fork(t, ``, `echo 1 >t`, `echo 1 >u; git add -A; git commit -qm u; git cat-file commit HEAD |
		sed 's/^author .*/author <a@example.com> 0 +0000/' | git hash-object -t commit -w --stdin --literally | xargs git reset -q --hard`)
	_, err := replay(t, g, g.Tip(t.Context(), "theirs"), "base", g.Tip(t.Context(), "main"))
	var out *LeftOutError
	if errors.As(err, &out) != g.AtLeast(t.Context(), 2, 40) || err != nil && out == nil {
		t.Errorf("got %v", err)
	}
}

var histories = flag.Int("histories", 25, "how many random histories to compare with a rebase")

// TestReplay_repeated: where lines are repeated, apply finds a place that a rebase does not. Such
// commits are left out, and with a git that cannot tell, all that change what others have changed.
func TestReplay_repeated(t *testing.T) {
	const base = `for i in $(seq 8); do printf -- '- name: x\n  image: a\n  replicas: 1\n\n'; done >many.yaml; ` + big
	g, dir := fork(t, base, `sed -i '8a\- name: x\n  image: a\n  replicas: 1\n' many.yaml; sed -i '10s/$/ c/' many.yaml; sed -i '3s/$/ t/' big`,
		`sed -i '30s/$/ o/' big; git commit -qam first; sed -i '4a\- name: x\n  image: b\n  replicas: 1\n' many.yaml`)
	theirs, ours := g.Tip(t.Context(), "theirs"), g.Tip(t.Context(), "main")
	if _, err := replay(t, g, theirs, "base", g.Tip(t.Context(), "main^")); err != nil {
		t.Errorf("what a rebase makes in the same way: %v", err)
	}
	var out *LeftOutError
	got, err := replay(t, g, theirs, "base", ours)
	shell(t, dir, "git checkout -q --detach "+ours+" && git rebase -q "+theirs+" || git rebase --abort") // newer gits find no conflict
	if conflict := g.Tip(t.Context(), "HEAD") == ours; conflict && (!errors.As(err, &out) || out.Commit != ours) {
		t.Errorf("where a rebase finds a conflict: %v", err)
	} else if !conflict {
		wantRebased(t, g, dir, theirs, ours, got)
	}
	shell(t, dir, "git checkout -q main")
	older := filepath.Join(t.TempDir(), "git")
	script := "#!/bin/sh\nfor w; do [ \"$w\" != --version ] || { echo git version 2.37.7; exit; }; done\nexec " + g.Path + ` "$@"` + "\n"
	if err := gittest.WriteProgram(older, script); err != nil {
		t.Fatal(err)
	}
	g.Path = older
	if _, err := replay(t, g, theirs, "base", g.Tip(t.Context(), "main^")); !errors.As(err, &out) || !strings.Contains(out.Reason, "cannot tell") {
		t.Errorf("with an older git: %v", err)
	}
}

// TestReplay_likeRebase: of random histories, whatever is taken is what git's rebase makes of it.
func TestReplay_likeRebase(t *testing.T) {
	t.Parallel()
	rounds := *histories
	if testing.Short() {
		rounds = 5
	}
	tried, taken, left := 0, 0, map[string]int{}
	for seed := range rounds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := history{Rand: rand.New(rand.NewSource(int64(seed)))} //nolint:gosec // it makes tests
			base, theirs := h.base(), h.commits("theirs")
			if h.Intn(3) == 0 { // a part of it is in ours as well
				h.shared = h.edit()
				theirs = h.shared + "git add -A\n" + theirs
			}
			ours := h.commits("ours")
			g, dir := fork(t, base, theirs, ours)
			defer func() {
				if t.Failed() {
					t.Logf("base:\n%s\ntheirs:\n%s\nours:\n%s", base, theirs, ours)
				}
			}()
			their, our := g.Tip(t.Context(), "theirs"), g.Tip(t.Context(), "main")
			if our == g.Tip(t.Context(), "base") || shell(t, dir, "git status --porcelain --untracked-files=no") != "" {
				return // nothing to replay; or such a clone does not offer
			}
			got, err := replay(t, g, their, "base", our)
			tried++
			var out *LeftOutError
			if errors.As(err, &out) {
				left[out.Reason]++
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			taken++
			wantRebased(t, g, dir, their, our, got)
		})
	}
	t.Logf("%d of %d were taken; left out: %v", taken, tried, left)
	if tried > 4 && taken < tried/4 {
		t.Errorf("only %d of %d were taken: the test shows little", taken, tried)
	}
}

// history makes scripts that make histories.
type history struct {
	*rand.Rand
	shared string // an edit that the other side makes too
}

func (h *history) one(of ...string) string { return of[h.Intn(len(of))] }

// base is what both sides begin with: files of all kinds, attributes and settings.
func (h *history) base() string {
	b := `for d in 0 1 2; do mkdir d$d; for f in 0 1 2; do seq -f "d$d f$f line %g" 30 >d$d/f$f; done; done
seq -f 'crlf %g' 20 | sed 's/$/\r/' >crlf.txt; seq -f 'plain %g' 20 >plain.txt
{ seq -f 'mixed %g' 10; seq -f 'mixed %g' 10 | sed 's/$/\r/'; } >mixed.txt
for i in $(seq 8); do printf -- '- name: x\n  image: a\n  replicas: 1\n\n'; done >many.yaml
seq -f ' spaces %g  ' 20 >spaces.txt; seq 20 | sed 's/^/gr\xfcn /' >latin1.txt; printf 'one\ntwo\nthree' >short.txt
printf '\0\1\2\3' >some.bin; ln -s d0/f0 link; printf '#!/bin/sh\n$Id$\n' >run.sh; chmod +x run.sh
git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,sub; mkdir sub
`
	attributes := []string{
		"* text=auto", "* text=auto eol=crlf", "*.txt text", "*.txt -text", "*.txt text eol=crlf", "crlf.txt eol=lf", "*.yaml merge=union",
		"*.yaml -merge", "*.yaml -diff", "*.txt binary", "*.yaml conflict-marker-size=3", "* whitespace=blank-at-eol,space-before-tab",
		"*.sh ident", "latin1.txt working-tree-encoding=ISO-8859-1", "*.yaml diff=python", "d1/* -text", "*.bin diff",
	}
	for range h.Intn(3) {
		b += "echo '" + h.one(attributes...) + "' >>.gitattributes\n"
	}
	settings := []string{
		"core.autocrlf true", "core.autocrlf input", "core.eol crlf", "core.safecrlf false", "core.whitespace trailing-space,cr-at-eol", "apply.whitespace fix",
		"apply.whitespace error", "apply.ignoreWhitespace change", "merge.renames false", "merge.directoryRenames true", "merge.directoryRenames false",
		"merge.conflictStyle diff3", "diff.renames copies", "diff.algorithm patience", "diff.algorithm histogram", "diff.noprefix true",
		"diff.mnemonicPrefix true", "diff.ignoreSubmodules all", "diff.context 0", "core.fileMode false", "core.quotePath false", "merge.renormalize true", "rebase.backend apply",
	}
	for range h.Intn(4) {
		b += "git config " + h.one(settings...) + "\n"
	}
	return b
}

// commits is one side.
func (h *history) commits(message string) string {
	var b strings.Builder
	for range h.Intn(3) {
		for range 1 + h.Intn(2) {
			b.WriteString(h.edit())
		}
		encoding, text := "UTF-8", message
		switch h.Intn(5) {
		case 0:
			text = ""
		case 1:
			encoding, text = "ISO-8859-1", "gr\\374n\\n\\n# no comment\\n\\nbody of "+message+"  \\n"
		}
		fmt.Fprintf(&b, "git add -A; printf '%s' | git -c i18n.commitEncoding=%s commit -q --allow-empty --allow-empty-message --cleanup=%s --author='Jürgen <j@example.com>' --date='@%d +0545' -F - || true\n",
			text, encoding, h.one("strip", "whitespace"), 1_000_000_000+h.Intn(1e6))
	}
	for range 1 + h.Intn(2) {
		b.WriteString(h.edit())
	}
	if message == "ours" {
		b.WriteString(h.shared)
	}
	return b.String()
}

// edit changes something, if it is there.
func (h *history) edit() string {
	name := fmt.Sprintf("d%d/f%d", h.Intn(3), h.Intn(3))
	text := h.one(name, name, name, "crlf.txt", "plain.txt", "mixed.txt", "many.yaml", "many.yaml", "spaces.txt", "latin1.txt", "short.txt", "run.sh")
	line, mark := 1+h.Intn(30), string('a'+rune(h.Intn(3)))
	do := func(format string, args ...any) string {
		return fmt.Sprintf(format, args...) + " 2>/dev/null || true\n"
	}
	switch h.Intn(20) {
	case 0:
		return do("echo %s >d%d/new%d", mark, h.Intn(3), h.Intn(4))
	case 1:
		return do("git rm -qf %s", text)
	case 2:
		return do("git mv %s d%d/g%d", name, h.Intn(3), h.Intn(3))
	case 3:
		return do("git mv d%d e%d", h.Intn(3), h.Intn(2))
	case 4:
		return do("git update-index --chmod=%sx %s && chmod %[1]sx %[2]s", h.one("+", "-"), text)
	case 5:
		return do("ln -sfn d%d/f%d link", h.Intn(3), h.Intn(3))
	case 6:
		return do("rm link && echo %s >link", mark)
	case 7:
		return do("printf '\\0\\1%s\\2' >some.bin", mark)
	case 8:
		return do("git update-index --cacheinfo 160000,%s,sub", strings.Repeat(h.one("2", "3"), 40))
	case 9:
		return do("test -e %s && sed -i 's/\\r$//' %[1]s", text)
	case 10:
		return do("test -e %s && sed -i 's/[^\\r]$/&\\r/' %[1]s", text)
	case 11:
		return do("echo '%s' >>.gitattributes", h.one("*.txt text", "*.txt -text", "*.yaml merge=union", "d0/* binary", "* text=auto"))
	case 12, 13: // a block between blocks that are all alike
		return do("test -e many.yaml && sed -i '%da\\- name: x\\n  image: %s\\n  replicas: 1\\n' many.yaml", 4*h.Intn(9), h.one("a", "b"))
	case 14:
		return do("test -e %s && sed -i '%d,%dd' %[1]s", text, line, line+h.Intn(4))
	case 15:
		return do("test -e %s && sed -i 's/ *$//' %[1]s", text)
	default:
		return do("test -e %s && sed -i '%ds/$/ %s/' %[1]s", text, line, mark)
	}
}

// TestPushLeased: all refs move, or none, and the outcome is reported as it is.
func TestPushLeased(t *testing.T) {
	t.Parallel()
	g, dir, remote := repository(t)
	ctx := t.Context()
	one := g.Tip(ctx, "HEAD")
	commit(t, g, dir, "two", "file", "2\n")
	two := g.Tip(ctx, "HEAD")
	ref := BatchRef("main", "20260102T030405Z-abc")
	marker, err := g.Marker(ctx, two, ref)
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, want PushResult, refs ...LeasedRef) {
		t.Helper()
		if got, said := g.PushLeased(ctx, remote, refs...); got != want {
			t.Errorf("%s: %v, want %v\n%s", what, got, want, said)
		}
	}
	branch := func(old, to string) LeasedRef { return LeasedRef{"refs/heads/main", old, to} }

	want("offer", Pushed, LeasedRef{ref, "", marker})
	want("offer again, of another", Stale, LeasedRef{ref, "", two})
	refs, err := g.FetchBatch(ctx, remote, "main", "x", true)
	if err != nil || refs["refs/heads/main"] != one || refs[ref] != marker || len(refs) != 2 {
		t.Fatalf("fetched %v, %v", refs, err)
	}
	want("branch has moved", Stale, branch(two, two), LeasedRef{ref, marker, two})
	want("batch ref has moved", Stale, branch(one, two), LeasedRef{ref, one, two})
	if refs, _ = g.FetchBatch(ctx, remote, "main", "x", true); refs["refs/heads/main"] != one || refs[ref] != marker {
		t.Fatalf("a stale push has moved something: %v", refs)
	}
	hook := filepath.Join(remote, "hooks", "pre-receive")
	if err := gittest.WriteProgram(hook, "#!/bin/sh\necho no; exit 1\n"); err != nil {
		t.Fatal(err)
	}
	want("the server's policy", Refused, branch(one, two), LeasedRef{ref, marker, two})
	if err := os.Remove(hook); err != nil {
		t.Fatal(err)
	}
	lockFile := filepath.Join(remote, "refs", "heads", "main.lock")
	if err := os.WriteFile(lockFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want("a ref that is locked", Stale, branch(one, two), LeasedRef{ref, marker, two})
	if err := os.Remove(lockFile); err != nil {
		t.Fatal(err)
	}
	want("both", Pushed, branch(one, two), LeasedRef{ref, marker, two})
	want("delete as if it was not there", Stale, LeasedRef{ref, "", ""})
	want("delete with another lease", Stale, LeasedRef{ref, marker, ""})
	want("delete", Pushed, LeasedRef{ref, two, ""})
	want("delete again", Stale, LeasedRef{ref, two, ""})
	want("delete what is not there", Pushed, LeasedRef{ref, "", ""})
	if refs, err = g.FetchBatch(ctx, remote, "main", "x", true); err != nil || len(refs) != 1 || refs["refs/heads/main"] != two {
		t.Errorf("fetched %v, %v", refs, err)
	}
	must(t, Git{Path: g.Path, Globals: []string{"-C", remote}}, "config", "receive.advertiseAtomic", "false")
	want("a server that knows no atomic push", Refused, LeasedRef{ref, "", marker})
	if !g.SameCommit(ctx, two, two) || g.SameCommit(ctx, one, two) {
		t.Error("SameCommit")
	}
	if got, _ := g.PushLeased(ctx, filepath.Join(dir, "nowhere"), LeasedRef{ref, "", marker}); got != Unknown {
		t.Errorf("no server: %v", got)
	}
}
