#!/bin/sh
# Installs what the tests need beside Go and git, on Debian and Ubuntu. It starts nothing. Where it
# may not install, it says what is missing.
set -eu

missing=
have() { command -v "$1" >/dev/null 2>&1; }
need() { missing="$missing $*"; }

have cc || have gcc || need gcc libc6-dev # go test -race links C code
have make || need make
have redis-server || need redis-server # or Valkey's, under these names
have redis-cli || need redis-tools
have redis-sentinel || need redis-sentinel
[ -x /usr/sbin/sshd ] || have sshd || need openssh-server
have ssh || need openssh-client
# python3-minimal lacks much of the standard library. The tests open terminals, and a script reads
# JSON.
python3 -c 'import json, pty' 2>/dev/null || need python3
have jq || need jq
have ps || need procps
have script || need bsdutils # a terminal around a command
have busybox || need busybox
have curl || need curl
have wget || need wget
have openssl || need openssl
have shasum || need perl
have shellcheck || need shellcheck
have git-lfs || need git-lfs
have pre-commit || need pre-commit # managers of hooks
# What runs scripts in which each line is a shell of its own.
have ruby || need ruby
have ansible-playbook || need ansible-core
if have node && [ ! -d /usr/share/nodejs/shelljs ]; then need node-shelljs; fi
# The tests of the page in a browser are skipped without one. Ubuntu's package is a snap, which
# reads no other folders.
have chromium || have chromium-browser || have google-chrome || ! grep -qs '^ID=debian' /etc/os-release || need chromium

# axe looks whether pages can be used by everybody. Its licence (MPL-2.0) is not ours: it is
# fetched, where npm is.
axe=$(dirname "$0")/../internal/serve/testdata/axe.min.js
if [ ! -f "$axe" ] && have npm; then
	dir=$(mktemp -d)
	(cd "$dir" && npm pack --silent axe-core@4.14.1 >/dev/null && tar -xzf axe-core-4.14.1.tgz) &&
		echo "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c  $dir/package/axe.min.js" | sha256sum -c --status &&
		mkdir -p "$(dirname "$axe")" && mv "$dir/package/axe.min.js" "$axe" ||
		echo "axe-core cannot be fetched: its test is skipped" >&2
	rm -rf "$dir"
fi

packages= # of npm: Debian's zx needs Debian's node, and not every Debian has just
if have npm; then
	zx --version >/dev/null 2>&1 || packages=zx
	have just || packages="$packages rust-just"
	have pnpm || packages="$packages pnpm" # package managers that clone under the shim
	have yarn || packages="$packages yarn"
	have husky || packages="$packages husky" # managers of hooks
	have lefthook || packages="$packages lefthook"
fi
[ -n "$missing$packages" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	if have sudo && sudo -n true 2>/dev/null; then
		as_root=sudo
	else
		echo "the tests need:$missing $packages" >&2
		[ -z "$missing" ] || echo "install them: sudo apt-get install$missing" >&2
		[ -z "$packages" ] || echo "install them: sudo npm install --global $packages" >&2
		exit 1
	fi
fi
# Not here: lefthook's installer sets itself up in the repository from which npm is called.
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || (cd / && $as_root npm install --global --silent $packages)
[ -n "$missing" ] || exit 0
if ! have apt-get; then
	echo "the tests need:$missing (no apt-get here: install them your way)" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing

# The kit for Jenkins is run in Groovy, which is not in every release.
if ! have groovy || ! have java; then
	$as_root apt-get install -y -qq --no-install-recommends groovy default-jre-headless ||
		echo "groovy cannot be installed: the test of the Jenkins kit is skipped" >&2
fi
