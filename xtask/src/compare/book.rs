//! What was measured, kept in a file: a run of some rows renews these and leaves the others as they were.
//!
//! ```text
//!  kind <TAB> name <TAB> field <TAB> etcd's values, with commas <TAB> ours <TAB> when and how busy
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::stats::median;

/// Values of one figure, run by run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pair {
    /// Of the reference.
    pub etcd: Vec<f64>,
    /// Of this tree.
    pub ours: Vec<f64>,
}

impl Pair {
    /// Both medians.
    pub fn medians(&self) -> (Option<f64>, Option<f64>) {
        (median(&self.etcd), median(&self.ours))
    }
}

/// One row as it was measured last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// By field.
    pub figures: BTreeMap<String, Pair>,
    /// When, and how busy the machine was with other things.
    pub note: String,
}

/// All rows, by kind (`row`, or a curve's name) and name (of a row, or a point of the curve).
#[derive(Debug, Default, PartialEq)]
pub struct Book {
    /// What is there.
    pub entries: BTreeMap<(String, String), Entry>,
    /// What is newer than the file.
    renewed: BTreeSet<(String, String)>,
}

impl Book {
    /// The book's place in the repository.
    pub fn path() -> PathBuf {
        crate::bins::root().join("docs/performance/measured.tsv")
    }

    /// Reads the book; an absent one is empty.
    ///
    /// # Errors
    /// It is there and not readable, or a line is none of ours.
    pub fn open() -> Result<Book, String> {
        let path = Book::path();
        match std::fs::read_to_string(&path) {
            Ok(text) => Book::parse(&text).map_err(|problem| format!("{}: {problem}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Book::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Writes what was renewed to its place; what another run has written there meanwhile stays.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn save(&mut self) -> Result<(), String> {
        self.take_over(Book::open()?);
        let path = Book::path();
        let fail = |error: std::io::Error| format!("{}: {error}", path.display());
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).map_err(fail)?;
        std::fs::write(&path, self.text()).map_err(fail)
    }

    /// Becomes `file`, but for what was renewed here.
    fn take_over(&mut self, file: Book) {
        let older = std::mem::replace(&mut self.entries, file.entries);
        self.entries.extend(older.into_iter().filter(|(place, _)| self.renewed.contains(place)));
    }

    /// One row of `kind`.
    pub fn entry(&self, kind: &str, name: &str) -> Option<&Entry> {
        self.entries.get(&(kind.to_owned(), name.to_owned()))
    }

    /// Puts `entry` in the place of what was known.
    pub fn renew(&mut self, kind: &str, name: &str, entry: Entry) {
        let place = (kind.to_owned(), name.to_owned());
        self.renewed.insert(place.clone());
        self.entries.insert(place, entry);
    }

    fn text(&self) -> String {
        let values = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let mut text = String::new();
        for ((kind, name), entry) in &self.entries {
            for (field, pair) in &entry.figures {
                let line = [kind, name, field, &values(&pair.etcd), &values(&pair.ours), &entry.note];
                text.push_str(&line.map(String::as_str).join("\t"));
                text.push('\n');
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Book, String> {
        let mut book = Book::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = || format!("line {} is none of a comparison: delete it", index + 1);
            let [kind, name, field, etcd, ours, note] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(wrong());
            };
            let values = |text: &str| -> Result<Vec<f64>, String> {
                let parts = text.split(',').filter(|part| !part.is_empty());
                parts.map(|part| part.parse().map_err(|_| wrong())).collect()
            };
            let entry = book.entries.entry((kind.to_owned(), name.to_owned())).or_default();
            entry.figures.insert(field.to_owned(), Pair { etcd: values(etcd)?, ours: values(ours)? });
            note.clone_into(&mut entry.note);
        }
        Ok(book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_read_as_it_was_written() {
        let mut book = Book::default();
        let pair = Pair { etcd: vec![1.5, 2.0], ours: vec![0.25] };
        let figures = BTreeMap::from([("p50_us".to_owned(), pair), ("ops".to_owned(), Pair::default())]);
        book.renew("row", "put, 1 client", Entry { figures, note: "today".into() });
        book.renew("keys", "1000", Entry::default());
        let read = Book::parse(&book.text()).unwrap();
        assert_eq!(read.entry("row", "put, 1 client"), book.entry("row", "put, 1 client"));
        assert_eq!(read.entry("keys", "1000"), None, "nothing was measured");
        assert_eq!(read.entry("row", "put, 1 client").unwrap().figures["p50_us"].medians(), (Some(1.75), Some(0.25)));
    }

    #[test]
    fn two_runs_beside_each_other_lose_nothing() {
        let entry = |note: &str| Entry { note: note.into(), ..Entry::default() };
        let (mut mine, mut file) = (Book::default(), Book::default());
        file.renew("row", "a", entry("theirs"));
        file.renew("row", "b", entry("theirs"));
        mine.renew("row", "b", entry("mine"));
        mine.take_over(file);
        let notes: Vec<&str> = mine.entries.values().map(|entry| entry.note.as_str()).collect();
        assert_eq!(notes, ["theirs", "mine"]);
    }

    #[test]
    fn strange_lines_are_named() {
        assert!(Book::parse("row\tput\tops\t1\t2\tx\nnonsense\n").unwrap_err().contains("line 2"));
        assert!(Book::parse("row\tput\tops\tmany\t2\tx\n").unwrap_err().contains("line 1"));
    }
}
