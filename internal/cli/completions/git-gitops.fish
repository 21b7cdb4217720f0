# Completion of git gitops for fish, also for the one word git-gitops. Either
#	git gitops completion fish | source
# in ~/.config/fish/config.fish, or save it as git-gitops.fish in ~/.config/fish/completions. What is
# git's own is completed by fish's completion of git.

# The arguments from the first that is no option of git.
function __git_gitops_drop_options
    while set -q argv[1]
        switch $argv[1]
            case -C -c --git-dir --work-tree --namespace
                set -e argv[1]
                set -e argv[1]
            case '-*'
                set -e argv[1]
            case '*'
                break
        end
    end
    set -q argv[1]; and printf '%s\n' $argv
    return 0
end

# The words after gitops before the cursor; fails for another command.
function __git_gitops_words
    set -l words (commandline -opc)
    if not string match -qr '(^|/)git-gitops$' -- $words[1]
        set -e words[1]
        set words (__git_gitops_drop_options $words)
        test "$words[1]" = gitops; or return 1
    end
    set -e words[1]
    __git_gitops_drop_options $words
end

# Whether the words are those of a verb: "" for none yet, "other" for one that is git's own.
function __git_gitops_at
    set -l words (__git_gitops_words); or return 1
    set -l known {{range .}}{{if .Path}}'{{.Path}}' {{end}}{{end}}
    contains -- -- $words; and return 1
    set -l path "$words[1]"
    if test -n "$path"; and not contains -- $path $known
        set path other
    end
    for word in $words[2..]
        contains -- "$path $word" $known; and set path "$path $word"
    end
    test "$path" = "$argv[1]"
end

function __git_gitops_as_git
    complete -C "git "(string join ' ' -- (string escape -- (__git_gitops_words)))" "(commandline -ct)
end

for command in git git-gitops
{{range .}}{{$path := .Path}}{{range .Fish}}    complete -c $command -n '__git_gitops_at "{{$path}}"' {{.}}
{{end}}{{end}}    complete -f -c $command -n '__git_gitops_at other' -a '(__git_gitops_as_git)'
    complete -f -c $command -n '__git_gitops_at ""' -a '(complete -C "git "(commandline -ct))'
end
