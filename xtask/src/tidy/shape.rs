//! How crates open and how long files get.

use super::{Finding, Tree};

/// Lines of essay that a crate opens with, at least: what happens there and what never does take this much.
const ESSAY_LINES_MIN: usize = 3;

/// From here on a file probably holds two subjects. A smell, not a fault: it warns.
const FILE_LINES_MAX: usize = 900;

/// All findings.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending("src/lib.rs") {
        let essay = text.lines().take_while(|line| line.starts_with("//!")).count();
        if essay < ESSAY_LINES_MIN {
            let text =
                format!("the crate opens with {essay} lines of essay: say what happens here and what never does");
            findings.push(Finding::error(path, 1, text));
        }
    }
    for extension in [".rs", ".go"] {
        for (path, text) in tree.ending(extension) {
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                findings.push(Finding::warning(path, lines, format!("{lines} lines: does it hold two subjects?")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_essay_and_a_long_file_are_found() {
        let long = "x\n".repeat(FILE_LINES_MAX + 1);
        let tree = Tree::planted(&[("crates/wal/src/lib.rs", "//! Short.\n"), ("crates/wal/src/log.rs", &long)]);
        let found = check(&tree);
        assert!(!found[0].warning && found[0].text.contains("1 lines of essay"));
        assert!(found[1].warning && found[1].text.contains("901 lines"));
        assert_eq!(found.len(), 2);
    }
}
