#!/bin/sh
# Runs git's own test suite on our binary, standing in for git as a link of that name, with a Redis
# up and locking on. Every script that passes with the real git must pass with ours.
#
#   scripts/git-suite.sh BINARY            the scripts that a stand-in for git can break
#   scripts/git-suite.sh --quick BINARY    five of clone and push
#
# A script that fails is run again with the real git: when it fails there as well, it says nothing
# about us. The suite is that of the installed git, from the source package of Debian or Ubuntu; it
# is fetched and built once, in ${XDG_CACHE_HOME:-~/.cache}/git-gitops. Git's tests leave out those
# with a web server when they run as root.
#
# Test points that ask for what we refuse on purpose are listed in refused(), each with the reason.
set -eu
here=$(dirname "$(realpath "$0")")

quick=
if [ "${1-}" = --quick ]; then
	quick=yes
	shift
fi
if [ $# -ne 1 ] || [ ! -x "$1" ]; then
	echo "usage: $0 [--quick] BINARY" >&2
	exit 2
fi
binary=$(realpath "$1")
real=$(command -v git)
version=$(dpkg-query -W -f '${Version}' git) || {
	echo "git's test suite comes with Debian's or Ubuntu's package of git, which is not installed here" >&2
	exit 1
}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/git-gitops/git-suite-${version#*:} # it goes on PATH: no colon

install_missing() {
	missing=
	for package in dpkg-dev gcc libc6-dev make zlib1g-dev libio-pty-perl redis-server redis-tools; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	as_root=
	[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
	# shellcheck disable=SC2086 # lists of words
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
		echo "git's test suite needs:$missing" >&2
		exit 1
	}
}

# build makes $cache. apt's own lists are left alone: this one has sources, and that one perhaps
# not.
build() {
	work=$cache.new
	rm -rf "$work"
	mkdir -p "$work/apt/sources" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
	for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
		[ -f "$list" ] || continue
		sed -e 's/^deb /deb-src /' -e 's/^Types:.*/Types: deb-src/' "$list" >"$work/apt/sources/${list##*/}"
	done
	cd "$work"
	cat >apt.conf <<END
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$work/apt/sources";
Dir::State::Lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "root";
END
	# A source of somebody else may have no source packages at all: what counts is whether git's is
	# found.
	APT_CONFIG=$work/apt.conf apt-get update -qq >apt.log 2>&1 || true
	APT_CONFIG=$work/apt.conf apt-get source -qq "git=$version" >>apt.log 2>&1 || {
		tail -n 20 apt.log >&2
		exit 1
	}
	mv git-*/ git
	# git itself is the installed one. Only what its tests need beside it is built.
	{
		make -C git -j"$(nproc)" CFLAGS=-O0 NO_OPENSSL=1 NO_GETTEXT=1 NO_TCLTK=1 \
			GIT-BUILD-OPTIONS t/helper/test-tool t/helper/test-fake-ssh perl/build/lib/Git.pm &&
			make -C git/templates
	} >make.log 2>&1 || {
		tail -n 20 make.log >&2
		exit 1
	}
	rm -rf apt
	mv "$work" "$cache"
}

# scripts lists what is run. The numbers are areas: basics, configuration, rev-parse, branch, the
# push and fetch machinery, clone and transport, protocol, pager, submodules, commit.
scripts() {
	if [ -n "$quick" ]; then
		printf '%s\n' t5523-* t5531-* t5545-* t5601-* t5606-*
		return
	fi
	for script in t[0-9]*.sh; do
		n=${script#t}
		n=${n%%-*}
		for range in 0-12 1300-1300 1500-1500 3200-3200 5400-5410 5500-5620 5700-5703 7006-7006 7400-7407 7500-7500; do
			if [ "$n" -ge "${range%-*}" ] && [ "$n" -le "${range#*-}" ]; then
				echo "$script"
			fi
		done
	done
}

# run runs scripts, named on stdin, with the git in folder $1; outputs and exit codes go to folder
# $2.
run() {
	mkdir -p "$2"
	# shellcheck disable=SC2016 # expanded by the inner shell
	GIT_TEST_INSTALLED=$1 xargs -P "$(nproc)" -I @ sh -c '
		timeout 900 sh "./$1" --root="$3/trash" >"$2/$1.out" 2>&1 </dev/null
		echo $? >"$2/$1.code"
	' sh @ "$2" "$tmp"
}

failing() { # of the scripts whose results are in folder $1
	for code in "$1"/*.code; do
		[ "$(cat "$code")" -eq 0 ] || basename "$code" .code
	done
}

# refused lists the test points that must fail: each overwrites or deletes a branch with a commit
# that the clone has not seen (docs/guarantees.md, 'Forced pushes').
refused() {
	cat <<-END
		t5404-tracking-branches.sh 6 delete a branch that has moved at the remote
		t5533-push-cas.sh 3 --force beside a lease that does not hold
		t5533-push-cas.sh 5 the same with a remote-tracking branch
		t5533-push-cas.sh 10 the same for a delete
		t5533-push-cas.sh 17 --force-with-lease with no value, after no more than a fetch
	END
}

# on_purpose tells whether just the test points of refused() have failed in script $1.
on_purpose() {
	[ "$(sed -n '/# TODO/d; s/^not ok \([0-9]*\) .*/\1/p' "$tmp/ours/$1.out" | xargs)" = "$(refused | sed -n "s/^$1 \([0-9]*\) .*/\1/p" | xargs)" ]
}

count() { cat "$tmp"/ours/*.out | grep -c "$1" || true; }

install_missing
[ -d "$cache" ] || build
cd "$cache/git/t"

# shellcheck source=scripts/suite-setup.sh disable=SC1091 # lint reads each file by itself
. "$here/suite-setup.sh"
scripts | run "$tmp/bin" "$tmp/ours"
asked=$(redis-cli -s "$tmp/redis" info commandstats | sed -n 's/^cmdstat_evalsha:calls=\([0-9]*\),.*/\1/p')
failing "$tmp/ours" | run "$(dirname "$real")" "$tmp/theirs"

rm -rf "$cache/failed"
failed=0 excluded=0
for script in $(failing "$tmp/ours"); do
	if [ "$(cat "$tmp/theirs/$script.code")" -ne 0 ]; then
		excluded=$((excluded + 1))
		echo "excluded, the real git fails as well: $script"
		continue
	fi
	if on_purpose "$script"; then
		echo "refused on purpose:"
		refused | grep "^$script "
		continue
	fi
	failed=$((failed + 1))
	mkdir -p "$cache/failed"
	cp "$tmp/ours/$script.out" "$cache/failed/$script.out"
	echo "FAILED: $script, see $cache/failed/$script.out"
	grep '^not ok' "$tmp/ours/$script.out" | grep -v '# TODO' || true
done
passed=$(($(find "$tmp/ours" -name '*.code' | wc -l) - failed - excluded))
echo "git $version: $passed scripts passed, $failed failed, $excluded excluded because the real git fails too"
echo "test points: $(count '^ok') ok, of which $(count '^ok .*# skip') skipped, $(count '^not ok .*# TODO') known to fail; scripts left out whole: $(count '^1\.\.0')"

# The locks of a script end with it.
left=
for _ in $(seq 30); do
	left=$(redis-cli -s "$tmp/redis" --scan --pattern 'gitops:lock:*')
	[ -n "$left" ] || break
	sleep 1
done
echo "asked of Redis: ${asked:-0} times; locks left behind: ${left:-none}"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && [ -z "$left" ] && [ "${asked:-0}" -gt 0 ]
