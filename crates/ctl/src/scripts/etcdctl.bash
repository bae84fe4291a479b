# bash completion for etcdctl                              -*- shell-script -*-

_etcdctl() {
    local current=$2 line candidates files=
    local words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    COMPREPLY=()
    # "=" ends a word for bash: the value behind it is completed as a word of its own.
    [ "$current" = "=" ] && current=
    while IFS= read -r line; do
        case $line in
            :0) files=yes ;;
            :*) ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" "$current" 2>/dev/null)
    if [ -n "$files" ] && [ ${#COMPREPLY[@]} -eq 0 ]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}

complete -F _etcdctl etcdctl
