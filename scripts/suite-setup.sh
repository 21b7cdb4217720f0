#!/bin/sh
# Sourced by git-suite.sh and tool-suites.sh, with $binary set. Makes $tmp, which goes with the
# script, with a Redis up and our binary in $tmp/bin, standing in for git as a link of that name.
tmp=$(mktemp -d)
redis=
trap '[ -z "$redis" ] || { kill "$redis"; wait "$redis" || true; }; chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
redis-server --port 0 --unixsocket "$tmp/redis" --save '' --dir "$tmp" --logfile redis.log &
redis=$!
until redis-cli -s "$tmp/redis" ping >/dev/null 2>&1; do
	kill -0 "$redis"
	sleep 0.1
done

# Nothing of this machine's settings may matter, and no test may wait for ever for a lock.
for name in $(env | sed -n 's/^\(GITOPS_[A-Z_]*\|REDIS_[A-Z_]*\)=.*/\1/p'); do
	unset "$name"
done
export REDIS_URL="unix://$tmp/redis" GITOPS_LOCK_TIMEOUT=60 XDG_STATE_HOME="$tmp/state"

# A copy, because a suite runs for minutes and the binary may be built again in the meantime.
cp "${binary:?}" "$tmp/git-gitops"
"$tmp/git-gitops" install --shim "$tmp/bin" >/dev/null
