# fish completion for etcdctl                              -*- shell-script -*-

function __etcdctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] __complete $words[2..-1] "$current" 2>/dev/null | string match -v -r '^:[0-9]+$'
end

complete -c etcdctl -f -a '(__etcdctl_complete)'
