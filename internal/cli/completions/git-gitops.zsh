#compdef git-gitops
# Completion of git gitops for zsh, also for the one word git-gitops. Either
#	eval "$(git gitops completion zsh)"
# in ~/.zshrc after compinit, or save it as _git-gitops in a folder of $fpath. Zsh's own completion of
# git finds the function _git-gitops, and completes what is git's own.

_git-gitops () {
	local here= word
	integer i at=0
	# words[1] is gitops or git-gitops.
	for (( i = 2; i < CURRENT; i++ )); do
		word=$words[i]
		case $here:$word in
		(:-C|:-c|:--git-dir|:--work-tree|:--namespace) (( i++ )) ;;
		(:-*) ;;
		(:*) here=$word at=i ;;
		(*) if __git_gitops_known "$here $word"; then here="$here $word" at=i; fi ;;
		esac
	done
	if [[ -n $here ]] && __git_gitops_known $here; then
		words=("${(@)words[at,-1]}")
		(( CURRENT -= at - 1 ))
		case $here in
{{range .}}{{if .Path}}		('{{.Path}}') _arguments{{range .Zsh}} \
			{{.}}{{end}} ;;
{{end}}{{end}}		esac
		return
	fi
	if [[ -z $here ]]; then
		local -a verbs=({{range .}}{{if not .Path}}{{range .Zsh}}
			{{.}}{{end}}{{end}}{{end}}
		)
		_describe -t gitops-verbs 'git-gitops command' verbs
	fi
	words[1]=git
	local service=git
	_git
}

__git_gitops_known () {
	case $1 in
	({{range $i, $e := .}}{{if $e.Path}}{{if gt $i 1}}|{{end}}'{{$e.Path}}'{{end}}{{end}}) return 0 ;;
	esac
	return 1
}

if [[ $funcstack[1] = _git-gitops ]]; then
	_git-gitops "$@" # this file was loaded from $fpath, as that function
else
	compdef _git-gitops git-gitops
fi
