# shellcheck shell=bash
# What the functions of a GitOps pipeline share. Where the repository is comes from HOST, ORG, REPO, BRANCH and GITHUB_PAT or KEY;
# SECRETS is a folder that stands in for a secret manager; RETRY_DELAY is how long to wait between two tries.

clone_with_token() {
	git clone "https://git:$GITHUB_PAT@$HOST/$ORG/$REPO.git" -b "$BRANCH" || exit 1
}

clone_with_key() {
	git -c "core.sshCommand=ssh -i $KEY -F /dev/null" clone "git@$HOST:$ORG/$REPO.git" -b "$BRANCH" || exit 1
}

# secret NAME
secret() {
	cat "$SECRETS/$1" || {
		echo "no secret $1" >&2
		return 1
	}
}

# render FILE KIND INSTANCE [PASSWORD]
render() {
	mkdir -p "$(dirname "$1")" || return 1
	cat >"$1" <<YAML
kind: $2
instance: $3
checksum: $(cksum <<<"${4:-}" | cut -d' ' -f1)
YAML
}

# commit_edits REPO_DIR MESSAGE: fails if there is nothing to commit.
commit_edits() {
	local files rc
	files="$(git -C "$1" add -v .)" || exit 1
	echo "$(grep -c . <<<"$files") files changed"
	[ -n "$(git -C "$1" status --porcelain=v1)" ] || return 1
	git -C "$1" commit -m "$2"
	rc=$?
	[ "$rc" -le 1 ] || exit "$rc"
}

# save_form_1 REPO_DIR
save_form_1() {
	local i
	cd "$1" || exit 1
	for ((i = 1; i <= 5; i++)); do
		if git fetch origin "$BRANCH" &&
			git pull origin --rebase &&
			git pull origin "$BRANCH" --rebase &&
			git push -u origin "$BRANCH"; then
			cd ..
			return 0
		fi
		sleep "${RETRY_DELAY:-30}"
	done
	return 1
}

# save_form_2 REPO_DIR
save_form_2() {
	local i
	for ((i = 1; i <= 20; i++)); do
		if git -C "$1" pull origin "$BRANCH" --rebase && git -C "$1" push -u origin "$BRANCH"; then
			return 0
		fi
		sleep "${RETRY_DELAY:-30}"
	done
	return 1
}

# give_up REPO_DIR
give_up() {
	rm -rf "$1"
	exit 1
}

# acquire_lock NAME: a key on Redis that must not exist.
acquire_lock() {
	local i
	if [ "${GITOPS_USE_REDIS_LOCKING:-}" != true ]; then
		echo "set GITOPS_USE_REDIS_LOCKING=true" >&2
		exit 1
	fi
	LOCK_KEY=lock.$1 LOCK_VALUE=$(cat /proc/sys/kernel/random/uuid)
	for ((i = 1; i <= ${GITOPS_LOCK_RETRY_MAX:-100}; i++)); do
		if [ "$(redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" SET "$LOCK_KEY" "$LOCK_VALUE" NX EX "${GITOPS_LOCK_TTL:-300}")" = OK ]; then
			return 0
		fi
		sleep "${GITOPS_LOCK_RETRY_DELAY:-20}"
	done
	echo "no lock $1" >&2
	exit 1
}

# release_lock: deletes the key, if it still has our value.
release_lock() {
	redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" EVAL \
		"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0" 1 "$LOCK_KEY" "$LOCK_VALUE" >/dev/null
}

# lock_with_branch REPO_DIR NAME: whoever pushes the branch lock.NAME has the lock.
lock_with_branch() {
	local i
	for ((i = 1; i <= 20; i++)); do
		if [ -z "$(git -C "$1" ls-remote --heads origin "lock.$2")" ]; then
			git -C "$1" checkout -b "lock.$2" || return 1
			echo "$2" >"$1/.lock"
			git -C "$1" add .lock && git -C "$1" commit -m "lock $2"
			if git -C "$1" push --atomic -u origin "lock.$2"; then
				git -C "$1" pull origin "$BRANCH" --rebase && git -C "$1" push --force -u origin "lock.$2"
				return
			fi
			git -C "$1" switch "$BRANCH" && git -C "$1" branch -D "lock.$2"
		fi
		sleep "${RETRY_DELAY:-30}"
	done
	return 1
}

# merge_lock_branch REPO_DIR NAME: takes the edits over to the branch.
merge_lock_branch() {
	git -C "$1" rm -q .lock && git -C "$1" commit -m "no lock $2"
	git -C "$1" switch "$BRANCH"
	git -C "$1" merge --squash "lock.$2"
	git -C "$1" commit -m "edits of $2"
}

# delete_lock_branch REPO_DIR NAME
delete_lock_branch() {
	git -C "$1" push origin --delete "lock.$2"
}
