#compdef etcdctl
# zsh completion for etcdctl                               -*- shell-script -*-

_etcdctl() {
    local line files= word
    local -a candidates
    for line in "${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}"; do
        case $line in
            :0) files=yes ;;
            :*|'') ;;
            *)
                word=${line%%$'\t'*}
                candidates+=("${word//:/\\:}${${line#$word}/$'\t'/:}")
                ;;
        esac
    done
    if (( ${#candidates} )); then
        _describe -V etcdctl candidates
    elif [[ -n $files ]]; then
        _files
    fi
}

if [ "$funcstack[1]" = "_etcdctl" ]; then
    _etcdctl "$@"
else
    compdef _etcdctl etcdctl
fi
