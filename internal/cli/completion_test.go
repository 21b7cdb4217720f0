package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/git-gitops/git-gitops/internal/gittest"
	"github.com/git-gitops/git-gitops/internal/term"
)

// completionScript is the script for a shell in a file of its own.
func completionScript(t *testing.T, shell string) string {
	t.Helper()
	var text bytes.Buffer
	if err := printCompletion(&text, (&command{}).app(term.New(os.Stderr)).Commands, shell); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "git-gitops."+shell)
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// completionRepo is a repository with a remote whose name git's own completion can find.
func completionRepo(t *testing.T) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	env = append(gittest.Env(), "PATH="+os.Getenv("PATH"), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	for _, words := range [][]string{{"init", "-q"}, {"remote", "add", "zupstream", "./nowhere"}} {
		cmd := exec.Command("git", words...)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", words, err, out)
		}
	}
	return dir, env
}

func needShell(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("no " + name + " here")
	}
}

// completionCases are command lines up to the cursor, and what must be among the answers, or what
// must not be (!).
var completionCases = []struct {
	line string
	want string
}{
	{"git gitops lo", "lock locks log"},
	{"git gitops ", "unlock doctor completion run push clone status !keeper !pre-push"},
	{"git gitops cl", "clone"},
	{"git -C . gitops doc", "doctor"},
	{"git gitops -C . doc", "doctor"},
	{"git gitops doctor --", "--json --acl= !--repo="},
	{"git gitops unlock --a", "--all"},
	{"git gitops locks --", "--json --watch"},
	{"git gitops locks s", "show"},
	{"git gitops locks show --", "--json !--watch"},
	{"git gitops migrate --", "--write"},
	{"git gitops completion ", "bash zsh fish"},
	{"git gitops push zup", "zupstream"},
	{"git gitops -C . push zup", "zupstream"},
	{"git gitops remote ad", "add"},
	{"git-gitops unl", "unlock"},
	{"git-gitops lock --re", "--repo="},
	{"git-gitops push zup", "zupstream"},
	{"git push zup", "zupstream"},
}

func checkCompletion(t *testing.T, line, want string, got []string) {
	t.Helper()
	for word := range strings.FieldsSeq(want) {
		word, unwanted := strings.CutPrefix(word, "!")
		if slices.Contains(got, word) == unwanted {
			t.Errorf("%q: unwanted=%v %q in %q", line, unwanted, word, got)
		}
	}
}

// TestCompletion_bash: under git's own completion, as bash-completion loads it for the word git.
func TestCompletion_bash(t *testing.T) {
	t.Parallel()
	needShell(t, "bash")
	script := completionScript(t, "bash")
	dir, env := completionRepo(t)
	const ask = `
for f in /usr/share/bash-completion/bash_completion /opt/homebrew/etc/profile.d/bash_completion.sh; do
	[[ -r $f ]] && source "$f"
done
for f in /usr/share/bash-completion/completions/git /opt/homebrew/etc/bash_completion.d/git-completion.bash; do
	[[ $2 = with && -r $f ]] && source "$f"
done
source "$1"
while IFS= read -r line; do
	COMPREPLY=()
	read -r -a COMP_WORDS <<<"$line"
	[[ $line = *" " ]] && COMP_WORDS+=("")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
	if [[ $line = git-gitops* ]]; then __git_gitops_alone; else __git_wrap__git_main; fi
	printf '%s' "$line"
	printf '\t%s' "${COMPREPLY[@]}"
	echo
done`
	run := func(mode string, lines ...string) map[string][]string {
		cmd := exec.Command("bash", "--norc", "-c", ask, "bash", script, mode)
		cmd.Dir, cmd.Env = dir, env
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Fatalf("bash: %v\n%s%s", err, out, &stderr)
		}
		answers := map[string][]string{}
		for line := range strings.Lines(string(out)) {
			words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			for i := range words[1:] {
				words[i+1] = strings.TrimSuffix(words[i+1], " ")
			}
			answers[words[0]] = words[1:]
		}
		return answers
	}
	// git-gitops as one word needs no completion of git for our own verbs.
	got := run("without", "git-gitops unl", "git-gitops lock --re", "git-gitops locks ")
	checkCompletion(t, "git-gitops unl", "unlock", got["git-gitops unl"])
	checkCompletion(t, "git-gitops lock --re", "--repo=", got["git-gitops lock --re"])
	checkCompletion(t, "git-gitops locks ", "show", got["git-gitops locks "])

	if out, _ := exec.Command("bash", "-c", "ls /usr/share/bash-completion/completions/git /opt/homebrew/etc/bash_completion.d/git-completion.bash 2>/dev/null").Output(); len(out) == 0 {
		t.Skip("git's own completion is not installed")
	}
	var lines []string
	for _, tc := range completionCases {
		lines = append(lines, tc.line)
	}
	got = run("with", lines...)
	for _, tc := range completionCases {
		checkCompletion(t, tc.line, tc.want, got[tc.line])
	}
}

func TestCompletion_fish(t *testing.T) {
	t.Parallel()
	needShell(t, "fish")
	script := completionScript(t, "fish")
	dir, env := completionRepo(t)
	const ask = `source $argv[1]
for line in $argv[2..]
    echo "? $line"
    complete -C $line
end`
	words := []string{"-c", ask, script}
	for _, tc := range completionCases {
		words = append(words, tc.line)
	}
	cmd := exec.Command("fish", words...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("fish: %v\n%s", err, out)
	}
	got := map[string][]string{}
	var line string
	for text := range strings.Lines(string(out)) {
		text = strings.TrimSuffix(text, "\n")
		if asked, ok := strings.CutPrefix(text, "? "); ok {
			line = asked
			continue
		}
		word, _, _ := strings.Cut(text, "\t")
		got[line] = append(got[line], word)
	}
	for _, tc := range completionCases {
		// Fish separates an option from its value by a blank.
		checkCompletion(t, tc.line, strings.ReplaceAll(tc.want, "=", ""), got[tc.line])
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// TestCompletion_zsh: in a pseudo-terminal, with the TAB key.
func TestCompletion_zsh(t *testing.T) {
	t.Parallel()
	needShell(t, "zsh")
	script := completionScript(t, "zsh")
	dir, env := completionRepo(t)
	// A key counts when the line editor reads it, not before: so it says when it does, and when it
	// has noted an answer. The echo of what is typed must not look like that.
	const ask = `
zmodload zsh/zpty
zpty inner zsh -f -i
zpty -w inner "PS1= RPS1= TERM=dumb; unset zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; source $1
note() { print -r -- \"\$BUFFER\" >>answers; BUFFER=; print -n NO''TED }; zle -N note; bindkey '^N' note
zle-line-init() { print -n REA''DY }; zle -N zle-line-init"
zpty -r inner out '*READY*' || exit 1
shift
for line; do
	zpty -w -n inner "$line"$'\t\x0e'
	zpty -r inner out '*NOTED*' || exit 1
done
zpty -d inner`
	cases := [][2]string{ // a line, and what TAB makes of it
		{"git gitops doc", "git gitops doctor "},
		{"git -C . gitops unl", "git -C . gitops unlock "},
		{"git gitops unlock --al", "git gitops unlock --all "},
		{"git gitops locks sh", "git gitops locks show "},
		{"git gitops completion fi", "git gitops completion fish "},
		{"git gitops push zup", "git gitops push zupstream "},
		{"git-gitops metr", "git-gitops metrics "},
		{"git-gitops lock --rep", "git-gitops lock --repo="},
		{"git-gitops push zup", "git-gitops push zupstream "},
	}
	words := []string{"-f", "-c", ask, "zsh", script}
	for _, tc := range cases {
		words = append(words, tc[0])
	}
	cmd := exec.Command("zsh", words...)
	cmd.Dir, cmd.Env = dir, env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("zsh: %v\n%s", err, out)
	}
	answers, err := os.ReadFile(filepath.Join(dir, "answers"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(string(answers), "\n")
	for i, tc := range cases {
		if i >= len(got) || got[i] != tc[1] {
			t.Errorf("%q: want %q in %q", tc[0], tc[1], got)
		}
	}
}
