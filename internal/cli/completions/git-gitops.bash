# Completion of git gitops for bash 3.2 and newer, also for the one word git-gitops. Either
#	eval "$(git gitops completion bash)"
# in ~/.bashrc, or save it as git-gitops in a folder that bash-completion loads from. Git's own
# completion finds the function _git_gitops, and completes what is git's own.

_git_gitops () {
	local path="" word list i=0 at=$cword
	COMPREPLY=()
	# Without the word gitops it is a command line of git.
	local -a as_git=(git "${words[@]:1}")
	if [[ "${words[0]##*/}" != git-gitops* ]]; then
		while [[ $i -lt $cword && "${words[i]}" != gitops ]]; do
			((i++))
		done
		as_git=(git "${words[@]:1:i-1}" "${words[@]:i+1}")
		at=$((cword - 1))
	fi

	for ((i = 1; i < at; i++)); do
		word=${as_git[i]}
		case "$path:$word" in
		:-C | :-c | :--git-dir | :--work-tree | :--namespace) ((i++)) ;;
		*:--) return ;; # somebody else's words follow
		*:-*) ;;
		:*) path=$word ;;
		*) __git_gitops_words "$path $word" >/dev/null && path="$path $word" ;;
		esac
	done
	if [[ -n "$path" ]] && list=$(__git_gitops_words "$path"); then
		__git_gitops_reply "$list"
		return
	fi
	local -a words=("${as_git[@]}")
	local cword=$at prev=${as_git[at-1]}
	if ! declare -F __git_main >/dev/null && declare -F _completion_loader >/dev/null; then
		_completion_loader git
	fi
	if declare -F __git_main >/dev/null; then
		__git_main
	fi
	if [[ -z "$path" && "$cur" != -* && "$prev" != -[cC] ]]; then
		__git_gitops_reply "$(__git_gitops_words "")"
	fi
}

# What may follow a verb of ours; fails for every other command.
__git_gitops_words () {
	case "$1" in
{{range .}}	"{{.Path}}") echo "{{.Words}}" ;;
{{end}}	*) return 1 ;;
	esac
}

__git_gitops_reply () {
	local word
	for word in $1; do
		case "$word" in
		"$cur"*=) COMPREPLY+=("$word") ;;
		"$cur"*) COMPREPLY+=("$word ") ;;
		esac
	done
}

__git_gitops_alone () {
	local cur prev cword
	local -a words
	if declare -F _get_comp_words_by_ref >/dev/null; then
		_get_comp_words_by_ref -n =: cur prev words cword
	else
		words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
		cur=${words[cword]} prev=${words[cword-1]}
	fi
	_git_gitops
}

complete -o bashdefault -o default -o nospace -F __git_gitops_alone git-gitops
