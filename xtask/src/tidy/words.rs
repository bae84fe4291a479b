//! What the repository never speaks of: how and where it was made, and which host its packages came from.

use super::{Finding, Tree};

/// Words and the reason. They are put together here so that this file does not hold them itself.
const WORDS: &[(&str, &str)] = &[
    (concat!("sub", "agent"), "the repository speaks of the project alone"),
    (concat!("session", " limit"), "the repository speaks of the project alone"),
    (concat!("language", " model"), "the repository speaks of the project alone"),
    (concat!("/wo", "rk/"), "paths of one machine mean nothing on another"),
    (concat!("static.crates", ".io"), "packages come from wherever the user's tools are set up to look"),
    (concat!("index.crates", ".io"), "packages come from wherever the user's tools are set up to look"),
    (concat!("proxy.golang", ".org"), "packages come from wherever the user's tools are set up to look"),
    (concat!("sum.golang", ".org"), "packages come from wherever the user's tools are set up to look"),
    (concat!("registry.npmjs", ".org"), "packages come from wherever the user's tools are set up to look"),
    (concat!("deb.debian", ".org"), "packages come from wherever the user's tools are set up to look"),
];

/// All places where a forbidden word stands, in any file, in any case.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in &tree.0 {
        for (index, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (word, reason) in WORDS.iter().filter(|(word, _)| stands_in(&line, word)) {
                findings.push(Finding::error(path, index + 1, format!("{word:?}: {reason}")));
            }
        }
    }
    findings
}

/// Whether `word` stands in `line`; one that is an absolute path must not be the middle of a longer path.
fn stands_in(line: &str, word: &str) -> bool {
    let inside_path = |at: usize| line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}".contains(c));
    line.match_indices(word).any(|(at, _)| !word.starts_with('/') || !inside_path(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_any_file_and_case() {
        for (word, _) in WORDS {
            let text = format!("one\ntwo {} three\n", word.to_uppercase());
            let found = check(&Tree::planted(&[("docs/a.md", &text)]));
            assert_eq!(found.len(), 1, "{word}");
            assert_eq!((found[0].path.as_str(), found[0].line), ("docs/a.md", 2));
        }
        let innocent = concat!("agents of change at work, on crates.io, in src/wo", "rk/put.rs");
        assert!(check(&Tree::planted(&[("a.md", innocent)])).is_empty());
    }
}
