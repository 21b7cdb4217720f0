# The functions of a GitOps pipeline, as their users have them, with git changed to git gitops. What differs
# between pipelines is in variables: HOST, ORG, REPO, BRANCH, PAT or KEY, and RETRY_DELAY, 30 s in the field.

# clone_token DIR: options come after the URL.
clone_token() {
	cd "$1" || exit 1
	git gitops clone "https://git:$PAT@$HOST/$ORG/$REPO.git" -b "$BRANCH" || exit 1
}

# clone_key DIR
clone_key() {
	cd "$1" || exit 1
	git gitops -c "core.sshCommand=ssh -i $KEY -F /dev/null" clone "git@$HOST:$ORG/$REPO.git" -b "$BRANCH" || exit 1
}

# increment REPO_DIR: reads, takes a while, writes.
increment() {
	local n
	n=$(cat "$1/counter") || return 1
	sleep "${WORK:-0}"
	echo $((n + 1)) >"$1/counter"
}

# render REPO_DIR FILE: writes a file of its own.
render() {
	mkdir -p "$(dirname "$1/$2")" && echo "name: $2" >"$1/$2"
}

stage_and_commit() {
	local dir=$1 message=$2 files rc
	files="$(git gitops -C "$dir" add -v .)" || exit 1
	[ "$(echo "$files" | wc -l)" -ge 1 ] || exit 1
	if [ -z "$(git gitops -C "$dir" status --porcelain=v1)" ]; then
		rm -rf "$dir"
		return 1
	fi
	git gitops -C "$dir" commit -m "$message"
	rc=$?
	[ "$rc" -eq 0 ] || [ "$rc" -eq 1 ] || exit "$rc"
}

# save1 REPO_DIR: up to 5 times fetch, pull, pull and push.
save1() {
	local i
	cd "$1" || exit 1
	for ((i = 1; i <= 5; i++)); do
		if git gitops fetch origin "$BRANCH" &&
			git gitops pull origin --rebase &&
			git gitops pull origin "$BRANCH" --rebase &&
			git gitops push -u origin "$BRANCH"; then
			cd ..
			rm -rf "$1"
			return 0
		fi
		sleep "${RETRY_DELAY:-30}"
	done
	return 1
}

# save2 REPO_DIR: up to 20 times pull and push.
save2() {
	local i dir=$1
	for ((i = 1; i <= 20; i++)); do
		if git gitops -C "$dir" pull origin "$BRANCH" --rebase && git gitops -C "$dir" push -u origin "$BRANCH"; then
			rm -rf "$dir"
			return 0
		fi
		sleep "${RETRY_DELAY:-30}"
	done
	return 1
}

# pipeline CLONE SAVE EDIT…: one pipeline in the present folder.
pipeline() {
	local clone=$1 save=$2 edit=$3 here=$PWD
	shift 3
	"$clone" "$here"
	if ! "$edit" "$here/$REPO" "$@"; then
		rm -rf "${here:?}/$REPO"
		exit 1
	fi
	if stage_and_commit "$here/$REPO" "$edit $*"; then
		"$save" "$here/$REPO" || exit 1
	fi
}
