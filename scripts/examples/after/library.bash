# shellcheck shell=bash
# What the functions of a GitOps pipeline share. Where the repository is comes from HOST, ORG, REPO, BRANCH and GITHUB_PAT or KEY;
# SECRETS is a folder that stands in for a secret manager; RETRY_DELAY is how long to wait between two tries.

clone_with_token() {
	git gitops clone "https://git:$GITHUB_PAT@$HOST/$ORG/$REPO.git" -b "$BRANCH" || exit 1
}

clone_with_key() {
	git gitops -c "core.sshCommand=ssh -i $KEY -F /dev/null" clone "git@$HOST:$ORG/$REPO.git" -b "$BRANCH" || exit 1
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
			git gitops push -u origin "$BRANCH"; then
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
		if git -C "$1" pull origin "$BRANCH" --rebase && git gitops -C "$1" push -u origin "$BRANCH"; then
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
