//! `completion`: scripts that teach shells our words. The scripts know nothing themselves: they ask `etcdctl __complete`.

use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::out;
use crate::outcome::Outcome;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "completion",
    usage: "completion [bash|zsh|fish|powershell]",
    short: "Prints a script that lets a shell complete our words",
    long: "Prints a script that lets a shell complete our words.\n\n\
        bash, for this session or for all:\n\n\
        \x20 source <(etcdctl completion bash)\n\
        \x20 etcdctl completion bash > /etc/bash_completion.d/etcdctl\n\n\
        zsh, with compinit loaded:\n\n\
        \x20 etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"\n\n\
        fish:\n\n\
        \x20 etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish\n\n\
        PowerShell:\n\n\
        \x20 etcdctl completion powershell | Out-String | Invoke-Expression",
    group: Group::Utility,
    choices: &["bash", "zsh", "fish", "powershell"],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(call: Call) -> Outcome {
    let script = match call.args.first().map(Vec::as_slice) {
        Some(b"bash") => include_str!("../scripts/etcdctl.bash"),
        Some(b"zsh") => include_str!("../scripts/etcdctl.zsh"),
        Some(b"fish") => include_str!("../scripts/etcdctl.fish"),
        _ => include_str!("../scripts/etcdctl.ps1"),
    };
    out::bytes(script.as_bytes())
}
