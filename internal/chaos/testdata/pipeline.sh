#!/usr/bin/env bash
# One pipeline: clone, read, modify, write, commit, push, with the retry loop that such scripts have.
# ID, KIND, GROUP, REMOTE and LOG come from the environment. Each step is logged as "time name result".
# It does not stop at the first error: what failed is decided step by step, as below.
set -u

log() { printf '%s %s %s\n' "${EPOCHREALTIME:-$(date +%s)}" "$1" "$2" >>"$LOG"; }

step() { # step NAME COMMAND...
	local name=$1 code
	shift
	"$@"
	code=$?
	log "$name" "$code"
	return $code
}

pause() { sleep "0.$((RANDOM % 8 + 1))"; }

clone() { # again while Redis or the server cannot be reached
	local _
	for _ in 1 2 3 4 5 6; do
		step clone "$@" && return 0
		[ $? -ne 75 ] || return 1
		rm -rf repo
		pause
	done
	return 1
}

bump() {
	mkdir -p "$GROUP"
	echo $(($(cat "$GROUP/counter" 2>/dev/null || echo 0) + 1)) >"$GROUP/counter"
}

note() {
	mkdir -p "$GROUP"
	echo "$ID" >>"$GROUP/journal"
}

commit() { git add . && git commit -q -m "$ID $GROUP $1"; }

push() { # push COMMAND...
	local _
	for _ in 1 2 3 4 5 6; do
		step push "$@" && return 0
		pause
		step pull git pull -q --rebase && continue
		git rebase --abort && return 1 # a conflict: nothing that another try would mend
	done
	return 1
}

give_up() { log "give-up" "$1"; exit "$1"; }

case $KIND in
outsider | outsider-amend) clone git clone -q "$REMOTE" repo || give_up 10 ;;
*) clone git gitops clone -q "$REMOTE" -b main repo || give_up 10 ;;
esac
cd repo || give_up 11
log base "$(git rev-parse HEAD)"

case $KIND in
rebase)
	{ bump && commit counter && note && commit journal; } || give_up 12
	;;
*)
	{ bump && note && commit edit; } || give_up 12
	;;
esac

case $KIND in
locked | impatient)
	push git gitops push -q || give_up 13
	;;
upstream)
	push git gitops push -u origin main || give_up 13
	;;
rebase | named | batched)
	# No retry loop of its own but for Redis: GITOPS_PUSH_REBASE does the rest.
	step push git gitops push origin HEAD || { pause; step push git gitops push; } || { pause; step push git gitops push; } || give_up 13
	;;
force)
	git commit -q --amend -m "$ID $GROUP edit" -m amended
	push git gitops push -f origin main || give_up 13
	;;
lease)
	git commit -q --amend -m "$ID $GROUP edit" -m amended
	push git gitops push --force-with-lease || give_up 13
	;;
amend)
	push git gitops push -q || give_up 13
	git commit -q --amend -m "$ID $GROUP edit" -m amended
	step amend git gitops push --force origin main || give_up 14
	;;
bracket)
	step lock git gitops lock || give_up 15
	push git gitops push -q || give_up 13
	git commit -q --amend -m "$ID $GROUP edit" -m amended
	step amend git gitops push -q -f || give_up 14
	step unlock git gitops unlock
	;;
stale)
	# As one that knows nothing of the lock, at once or after its time: the server must refuse it.
	step stale git push -q -f
	sleep "$((RANDOM % 7))"
	step stale git push -q -f
	;;
outsider)
	push git push -q || give_up 13
	;;
outsider-amend)
	push git push -q || give_up 13
	git commit -q --amend -m "$ID $GROUP edit" -m amended
	step amend git push -q --force-with-lease || give_up 14
	;;
abandon)
	cd .. && rm -rf repo
	;;
unlock)
	step unlock git gitops unlock
	;;
fail)
	exit 3
	;;
esac
log end 0
