#!/bin/sh
# Installs what the tests need beside Go and git, on Debian and Ubuntu: redis-server, an ssh server, python3, jq,
# what install.sh may use, and the checker of scripts. Starts nothing. Where it may not install, it says what is missing.
set -eu

missing=
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v redis-cli >/dev/null || missing="$missing redis-tools"
command -v redis-sentinel >/dev/null || missing="$missing redis-sentinel"
[ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
command -v make >/dev/null || missing="$missing make"
command -v python3 >/dev/null || missing="$missing python3-minimal"
command -v jq >/dev/null || missing="$missing jq"
command -v busybox >/dev/null || missing="$missing busybox"
command -v curl >/dev/null || missing="$missing curl"
command -v wget >/dev/null || missing="$missing wget"
command -v openssl >/dev/null || missing="$missing openssl"
command -v shasum >/dev/null || missing="$missing perl"
command -v shellcheck >/dev/null || missing="$missing shellcheck"
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		as_root=sudo
	else
		echo "the tests need:$missing" >&2
		echo "install them: sudo apt-get install$missing" >&2
		exit 1
	fi
fi
if ! command -v apt-get >/dev/null; then
	echo "the tests need:$missing (no apt-get here: install them your way)" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$as_root apt-get install -y -qq --no-install-recommends $missing
