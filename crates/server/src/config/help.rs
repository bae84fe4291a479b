//! The help page, made from the flag table.

use super::table::{FLAGS, Group};

/// The few lines that follow a wrong flag.
#[must_use]
pub fn usage() -> String {
    "Usage:\n\n  etcd [flags]\n    Start a server; without flags it keeps its data in ./default.etcd and listens on localhost:2379.\n\n  \
     etcd --version\n    Show the version.\n\n  etcd -h | --help\n    Show every flag.\n"
        .into()
}

/// Every flag with its default, by group.
#[must_use]
pub fn page() -> String {
    let mut page = String::new();
    for group in Group::ALL {
        page.push_str(group.title());
        page.push_str(":\n");
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            page.push_str(&format!("  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help));
        }
        page.push('\n');
    }
    page.push_str("Each flag can also be set by its environment variable: --data-dir is ETCD_DATA_DIR.\n");
    page
}

/// The flags as `docs/configuration.md` shows them.
#[cfg(test)]
fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\nMade from `crates/server/src/config/table.rs` (`REWRITE=1 cargo test -p milepost-server`).\n\nFlags are written \
         `--name value`, `--name=value` or with one dash; a bool takes its value only after `=`. A flag and its variable together are \
         refused. An empty variable counts as unset.\n",
    );
    for group in Group::ALL {
        page.push_str(&format!("\n## {}\n\n| flag | variable | default | |\n|---|---|---|---|\n", group.title()));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let default = if flag.default.is_empty() { "–".to_owned() } else { format!("`{}`", flag.default) };
            page.push_str(&format!("| `--{}` | `{}` | {default} | {} |\n", flag.name, flag.env_name(), flag.help));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::super::table::FLAGS;

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
        for flag in FLAGS {
            assert!(page.contains(&format!("--{} '", flag.name)), "{}", flag.name);
        }
    }
}
