//! The help page and the document, made from the flag table.

use super::gates::GATES;
use super::table::{Effect, Flag, Group, flags};

/// The few lines that follow a wrong flag.
#[must_use]
pub fn usage() -> String {
    "Usage:\n\n  \
     etcd [flags]\n    Start a server; without flags it keeps its data in ./default.etcd and listens on localhost:2379.\n\n  \
     etcd --config-file FILE\n    Start a server with the settings of a YAML or JSON file, and none else.\n\n  \
     etcd --version\n    Show the version.\n\n  \
     etcd -h | --help\n    Show every flag.\n"
        .into()
}

const EXAMPLES: &str = "\
Examples:
  etcd
    A member to try things out: data in ./default.etcd, clients on localhost:2379. Then: etcdctl put greeting hello
  etcd --name=n1 --data-dir=/var/lib/etcd --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://n1.example:2379
    A member that other machines reach; the advertised URL is what clients are told.
  etcd --data-dir=/var/lib/etcd --cert-file=server.crt --key-file=server.key --trusted-ca-file=ca.crt --client-cert-auth \\
       --listen-client-urls=https://0.0.0.0:2379 --advertise-client-urls=https://n1.example:2379
    The same with TLS, for clients that show a certificate.
  etcd --auto-compaction-retention=1h --quota-backend-bytes=8589934592
    Forget history after an hour; stop writes at 8 GiB.

How to write flags:
  --name value, --name=value, or with one dash. A bool takes its value after = only: --pre-vote=false.
  Durations have a unit: 100ms, 30s, 2h. Every flag has a variable: --data-dir is ETCD_DATA_DIR; giving both is refused.
";

/// Every flag with its variable and default, by group.
#[must_use]
pub fn page() -> String {
    let mut page = EXAMPLES.to_owned();
    for group in Group::ALL {
        page.push_str(&format!("\n{}:\n", group.title()));
        for flag in flags().filter(|flag| flag.group == group) {
            page.push_str(&format!("  --{} '{}'  ({})\n    {}\n", flag.name, flag.default, flag.env_name(), flag.help));
            if let Some(remark) = remark(flag) {
                page.push_str(&format!("    {remark}\n"));
            }
        }
    }
    page.push_str("\nFeatures of --feature-gates:\n");
    for gate in &GATES {
        page.push_str(&format!("  {}={} ({})\n    {}.\n", gate.name, gate.default, gate.stage.as_str(), gate.effect));
    }
    page
}

fn remark(flag: &Flag) -> Option<String> {
    match flag.effect {
        Effect::Works => None,
        Effect::Nothing(why) => Some(format!("Without effect: {why}.")),
    }
}

/// The flags as `docs/configuration.md` shows them.
#[cfg(test)]
fn markdown() -> String {
    let mut page = String::from(include_str!("configuration_head.md"));
    for group in Group::ALL {
        page.push_str(&format!("\n## {}\n\n| flag | default | |\n|---|---|---|\n", group.title()));
        for flag in flags().filter(|flag| flag.group == group) {
            let default = if flag.default.is_empty() { "–".to_owned() } else { format!("`{}`", flag.default) };
            let remark = remark(flag).map(|text| format!(" *{text}*")).unwrap_or_default();
            page.push_str(&format!("| `--{}` | {default} | {}{remark} |\n", flag.name, flag.help));
        }
    }
    page.push_str("\n## Features\n\nFor `--feature-gates`; `AllAlpha` and `AllBeta` set what is not named.\n\n");
    page.push_str("| feature | default | stage | here |\n|---|---|---|---|\n");
    for gate in &GATES {
        page.push_str(&format!("| `{}` | {} | {} | {} |\n", gate.name, gate.default, gate.stage.as_str(), gate.effect));
    }
    page.push_str("\n## Flags of etcd 3.4 to 3.6\n\n3.7 refuses these; Milepost goes on and says what to write.\n\n| old | today |\n|---|---|\n");
    for name in super::old::names() {
        page.push_str(&format!("| `--{name}` | {} |\n", today(&name)));
    }
    page
}

/// What an old flag is today.
#[cfg(test)]
fn today(name: &str) -> String {
    use super::old::Meaning;
    match super::old::find(name).map(|old| old.meaning) {
        Some(Meaning::Flag(flag)) => format!("`--{flag}`"),
        Some(Meaning::Gate(gate)) => format!("`--feature-gates={gate}=…`"),
        Some(Meaning::Debug) => "`--log-level=debug`".into(),
        Some(Meaning::Dropped(why)) => format!("ignored: {why}"),
        Some(Meaning::Gone { harmless, why }) => {
            let shown = harmless.first().filter(|text| !text.is_empty()).map_or("empty", |text| text);
            format!("ignored if {shown}, else refused: {why}")
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::flags;

    #[test]
    fn the_document_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = super::markdown();
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page, "run REWRITE=1 cargo test -p milepost-server");
    }

    #[test]
    fn every_flag_is_on_the_page() {
        let page = super::page();
        for flag in flags() {
            assert!(page.contains(&format!("--{} '", flag.name)), "{}", flag.name);
            assert!(page.contains(&flag.env_name()), "{}", flag.name);
        }
    }
}
