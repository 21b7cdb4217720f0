#!/bin/sh
# Makes what a release ships beside the program: the man page, the completions, and the licences of
# what is linked in.
#	sh scripts/extras.sh VERSION DIR
set -eu
version=$1 dir=$2
rm -rf "$dir"
mkdir -p "$dir"

go run ./scripts/man "$version" >"$dir/git-gitops.1"
echo '.so man1/git-gitops.1' >"$dir/gitops.1" # the page that git opens for git gitops --help: what begins with git is taken as it is
for shell in bash zsh fish; do
	go run -tags urfave_cli_no_docs ./cmd/git-gitops completion "$shell" >"$dir/git-gitops.$shell"
done

# The list of docs/third-party.md, with the texts.
modules='{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}'
{
	printf 'git-gitops contains these works, unchanged. The name of each is also the address of its source code.\n'
	{
		for os in linux darwin windows; do
			GOOS=$os go list -deps -tags urfave_cli_no_docs -f "$modules" ./cmd/git-gitops
		done | sort -u
		printf 'Go %s %s\n' "$(go env GOVERSION)" "$(go env GOROOT)"
	} | while read -r module release folder; do
		[ -n "$module" ] || continue
		printf '\n=== %s %s\n\n' "$module" "$release"
		cat "$folder"/LICENSE*
	done
} >"$dir/licences.txt"
