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

#[cfg(test)]
mod tests {
    use super::super::table::FLAGS;

    #[test]
    fn every_flag_is_on_the_page() {
        let page = super::page();
        for flag in FLAGS {
            assert!(page.contains(&format!("--{} '", flag.name)), "{}", flag.name);
        }
    }
}
