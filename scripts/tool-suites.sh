#!/bin/sh
# Runs the integration tests of git-lfs and git-spice on our binary, standing in for git as a link
# of that name, with a Redis up and locking on. Every test that passes with the real git must pass
# with ours.
#
#   scripts/tool-suites.sh BINARY [TEST…]    TEST: t-push.sh and the like of git-lfs; without any, those that clone or push
#
# The sources are those of their Go modules. What cannot be fetched is named and left out. It needs
# redis-server, prove (perl) and Go, and as much time as git-lfs takes for itself.
set -eu
here=$(dirname "$(realpath "$0")")

if [ $# -lt 1 ] || [ ! -x "$1" ]; then
	echo "usage: $0 BINARY [TEST…]" >&2
	exit 2
fi
binary=$(realpath "$1")
shift
real=$(dirname "$(command -v git)")

# shellcheck source=scripts/suite-setup.sh disable=SC1091 # lint reads each file by itself
. "$here/suite-setup.sh"

# source_of copies the source of a Go module to $tmp/$1, or says why not.
source_of() { # name, module@version
	if ! answer=$(cd "$tmp" && go mod download -json "$2" 2>/dev/null); then
		printf '%s: left out, its source cannot be fetched: %s\n' "$1" "$(printf '%s' "$answer" | sed -n 's/.*"Error": "\(.*\)".*/\1/p')"
		return 1
	fi
	cp -R "$(printf '%s' "$answer" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')" "$tmp/$1"
	chmod -R u+w "$tmp/$1"
}

failed=0
# compare runs the command that is left with our git, and if it fails with the real one.
compare() { # name, folder, command…
	name=$1 folder=$2
	shift 2
	if (cd "$folder" && PATH="$tmp/bin:$PATH" timeout 1800 "$@") >"$tmp/out" 2>&1; then
		echo "$name: passed"
	elif (cd "$folder" && PATH="$real:$PATH" timeout 1800 "$@") >"$tmp/theirs" 2>&1; then
		failed=$((failed + 1))
		tail -n 40 "$tmp/out"
		echo "$name: FAILED"
	else
		echo "$name: excluded, the real git fails as well"
	fi
}

if source_of git-lfs github.com/git-lfs/git-lfs/v3@v3.7.1; then
	lfs=$tmp/git-lfs
	(
		cd "$lfs"
		git init -q . # its tests ask which repository they are in
		go build -o bin/ . && make -s -C t test-commands
	) >"$tmp/build" 2>&1 || { tail -n 20 "$tmp/build" && exit 1; }
	[ $# -gt 0 ] || set -- t-clone.sh t-clone-deprecated.sh t-push.sh t-pre-push.sh t-post-commit.sh t-submodule.sh t-worktree.sh t-install.sh
	for test in "$@"; do
		compare "git-lfs $test" "$lfs/t" env GIT_LFS_NO_TEST_COUNT=1 prove "$test"
	done
fi
if source_of git-spice go.abhg.dev/gs@v0.19.0; then
	compare git-spice "$tmp/git-spice" go test -count=1 -run TestScript .
fi

asked=$(redis-cli -s "$tmp/redis" info commandstats | sed -n 's/^cmdstat_evalsha:calls=\([0-9]*\),.*/\1/p')
echo "asked of Redis: ${asked:-0} times; failed: $failed"
[ "$failed" -eq 0 ]
