//! `cargo xtask tidy`: the rules that no compiler checks.
//!
//! ```text
//!  git ls-files ──► Tree ──► arrows   crates know only the rooms below them, and only their own share of the world
//!                       ├──► code     words that must not stand in code, by room
//!                       ├──► shape    every crate opens with an essay; no file grows without end
//!                       └──► words    what the repository never speaks of
//! ```
//! Each rule takes the tree and returns findings, so that the tests can plant a violation in a tree of one file.

mod arrows;
mod code;
mod lexer;
mod shape;
mod words;

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::bins;

/// The text files of the repository, by path from its root.
pub struct Tree(pub Vec<(String, String)>);

impl Tree {
    /// Everything that git tracks or would track, in the working tree's version. Binary files are left out.
    fn of_repository(root: &Path) -> Result<Tree, String> {
        let list = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("git ls-files: {error}; is git installed?"))?;
        if !list.status.success() {
            return Err(format!("git ls-files: {}", String::from_utf8_lossy(&list.stderr).trim()));
        }
        let mut paths: Vec<String> = String::from_utf8_lossy(&list.stdout)
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        let read = |path: String| {
            // A file that is deleted but not yet committed, a link, a picture: nothing to read.
            let text = std::fs::read_to_string(root.join(&path)).ok()?;
            Some((path, text))
        };
        Ok(Tree(paths.into_iter().filter_map(read).collect()))
    }

    /// Files whose path ends in `end`.
    fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(move |(path, _)| path.ends_with(end)).map(|(path, text)| (path.as_str(), text.as_str()))
    }

    #[cfg(test)]
    fn planted(files: &[(&str, &str)]) -> Tree {
        Tree(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }
}

/// The crate that a path belongs to, by folder name: `crates/wal/src/x.rs` is of `wal`, `bin/…` of `bin`, `xtask/…` of
/// `xtask`, `test/…` of `test`.
fn room(path: &str) -> &str {
    let mut parts = path.split('/');
    match parts.next() {
        Some("crates") => parts.next().unwrap_or(""),
        Some(first) => first,
        None => "",
    }
}

/// One violation, or one thing worth a look.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    text: String,
    warning: bool,
}

impl Finding {
    fn error(path: &str, line: usize, text: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, text: text.into(), warning: false }
    }

    fn warning(path: &str, line: usize, text: impl Into<String>) -> Finding {
        Finding { warning: true, ..Finding::error(path, line, text) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning: " } else { "" };
        write!(f, "{}:{}: {kind}{}", self.path, self.line, self.text)
    }
}

/// All findings of all rules, in the order of files.
fn findings(tree: &Tree) -> Vec<Finding> {
    let mut all = arrows::check(tree);
    all.extend(code::check(tree));
    all.extend(shape::check(tree));
    all.extend(words::check(tree));
    all.sort();
    all
}

/// The verb.
///
/// # Errors
/// At least one finding that is not a mere warning.
pub fn run(words: &[String]) -> Result<(), String> {
    if let Some(word) = words.first() {
        return Err(format!("unexpected {word:?}: tidy takes no flags"));
    }
    let tree = Tree::of_repository(&bins::root())?;
    let findings = findings(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.iter().filter(|finding| !finding.warning).count() {
        0 => Ok(()),
        count => Err(format!("{count} to mend in {} files read", tree.0.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_rooms() {
        assert_eq!(room("crates/wal/src/lib.rs"), "wal");
        assert_eq!(room("bin/milepost/src/main.rs"), "bin");
        assert_eq!(room("xtask/src/main.rs"), "xtask");
        assert_eq!(room("README.md"), "README.md");
    }

    #[test]
    fn findings_name_their_place() {
        assert_eq!(Finding::error("a/b.rs", 7, "wrong").to_string(), "a/b.rs:7: wrong");
        assert_eq!(Finding::warning("a/b.rs", 7, "odd").to_string(), "a/b.rs:7: warning: odd");
    }

    #[test]
    fn a_clean_tree_has_no_findings() {
        let essay = "//! One.\n//! Two.\n//! Three.\n//! Four.\n//! Five.\n//! Six.\nfn quiet() {}\n";
        let manifest = "[package]\nname = \"milepost-wal\"\n[dependencies]\nmilepost-env.workspace = true\n\
                        [lints]\nworkspace = true\n";
        let tree = Tree::planted(&[("crates/wal/src/lib.rs", essay), ("crates/wal/Cargo.toml", manifest)]);
        assert_eq!(findings(&tree), []);
    }

    #[test]
    fn this_repository_is_read() {
        let tree = Tree::of_repository(&bins::root()).unwrap();
        assert!(tree.ending("xtask/src/tidy/mod.rs").count() == 1);
    }
}
