#!/bin/sh
# Installs what the tests need beside Go and git, on Debian and Ubuntu. It starts nothing. Where it may not install,
# it says what is missing.
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
# python3-minimal lacks much of the standard library. The tests open terminals, and a script reads JSON.
python3 -c 'import json, pty' 2>/dev/null || need python3
have jq || need jq
{ have ps && have pgrep; } || need procps
have script || need bsdutils # a terminal around a command
have busybox || need busybox
have curl || need curl
have wget || need wget
have openssl || need openssl
have shasum || need perl
have shellcheck || need shellcheck
have git-lfs || need git-lfs
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	if have sudo && sudo -n true 2>/dev/null; then
		as_root=sudo
	else
		echo "the tests need:$missing" >&2
		echo "install them: sudo apt-get install$missing" >&2
		exit 1
	fi
fi
if ! have apt-get; then
	echo "the tests need:$missing (no apt-get here: install them your way)" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing
