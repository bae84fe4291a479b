//! `docs/performance.md`: tables and plots of what the book holds, between two marks; what people wrote around them stays.

use std::fmt::Write;
use std::path::PathBuf;

use super::book::{Book, Entry};
use super::growth;
use super::machine;
use super::rows::{Bound, FIGURES, Figure, Must, ROWS, Row, figure_of};
use crate::bins;
use crate::stats::short;
use crate::svg::{self, Bar};

const BEGIN: &str = "<!-- measured: from here on written by cargo xtask bench-compare -->";
const END: &str = "<!-- measured: up to here -->";

/// Above this the machine was busy with other things too: ratios still alternate, single figures are not to be taken
/// at their word.
const BUSY: f64 = 1.0;

/// Writes page and plots.
///
/// # Errors
/// A file cannot be written.
pub fn write(book: &Book) -> Result<PathBuf, String> {
    let docs = bins::root().join("docs");
    let put = |path: PathBuf, text: String| {
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
    };
    put(docs.join("performance/ratios.svg"), svg::bars("ours / etcd (left of 1×: less)", &ratio_bars(book)))?;
    for curve in growth::CURVES {
        if let Some(picture) = growth::picture(book, curve) {
            put(docs.join("performance").join(curve.file), picture)?;
        }
    }
    let path = docs.join("performance.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|_| format!("# Performance\n\n{BEGIN}\n{END}\n"));
    put(path, spliced(&page, &measured(book))?)
}

/// `page` with `text` between its marks.
fn spliced(page: &str, text: &str) -> Result<String, String> {
    let (Some(begin), Some(end)) = (page.find(BEGIN), page.find(END)) else {
        return Err(format!(
            "docs/performance.md lacks the lines {BEGIN:?} and {END:?}: put them where figures belong"
        ));
    };
    Ok(format!("{}{BEGIN}\n\n{text}\n{}", &page[..begin], &page[end..]))
}

fn measured(book: &Book) -> String {
    let mut text = String::new();
    for line in machine::described() {
        text.push_str(&format!("- {line}\n"));
    }
    let busy = if ROWS.iter().any(|row| busy(book, row)) {
        "- a star marks rows during which the machine was busy with other work as well: both sides suffered alike, in \
         turns, so that ratios mean something and single figures less\n"
    } else {
        ""
    };
    write!(text, "{busy}\n## Where it must stand\n\n{}\n", must_table(book)).expect("a String grows");
    text.push_str("![ratios](performance/ratios.svg)\n\n");
    write!(text, "## All figures\n\netcd → ours (ratio), medians\n\n{}", wide_table(book)).expect("a String grows");
    let curves = growth::section(book);
    if !curves.is_empty() {
        write!(text, "\n## Growth\n\n{curves}").expect("a String grows");
    }
    text
}

fn busy(book: &Book, row: &Row) -> bool {
    book.entry("row", row.name).and_then(|entry| machine::load_of(&entry.note)).is_some_and(|load| load > BUSY)
}

fn star(book: &Book, row: &Row) -> &'static str {
    if busy(book, row) { "\\*" } else { "" }
}

/// What a must came to.
struct Verdict {
    /// Zero where a must is ours alone and etcd was not measured.
    etcd: f64,
    ours: f64,
    good: Option<bool>,
}

fn verdict(entry: &Entry, must: &Must) -> Option<Verdict> {
    let figure = figure_of(must.field);
    let (etcd, ours) = entry.figures.get(must.field)?.medians();
    let etcd = if matches!(must.must, Bound::Ours(_)) { etcd.unwrap_or(0.0) } else { etcd? };
    let (etcd, ours) = (etcd / figure.divisor, ours? / figure.divisor);
    Some(Verdict { etcd, ours, good: must.must.holds(etcd, ours) })
}

/// Every must with its mark.
pub fn must_table(book: &Book) -> String {
    let mut text =
        "| work | figure | etcd | ours | ratio | must | aim | |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for row in ROWS {
        for must in row.musts {
            let figure = figure_of(must.field);
            let unit = if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) };
            let bound = must.must.text(figure.unit);
            let head = format!("| {}{} | {}{unit} |", row.name, star(book, row), figure.name);
            let line = match book.entry("row", row.name).and_then(|entry| verdict(entry, must)) {
                None => format!("{head} – | – | – | {bound} | {} | not measured |", must.aim),
                Some(Verdict { etcd, ours, good }) => {
                    let ratio = if etcd > 0.0 { format!("**{:.2}**", ours / etcd) } else { "–".to_owned() };
                    let mark = match good {
                        Some(true) => "pass",
                        Some(false) => "**short**",
                        None => "–",
                    };
                    let etcd = if etcd > 0.0 { short(etcd) } else { "–".to_owned() };
                    format!("{head} {etcd} | {} | {ratio} | {bound} | {} | {mark} |", short(ours), must.aim)
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// The rows' main figures, one line each.
pub fn wide_table(book: &Book) -> String {
    let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| figure.wide).collect();
    let heading = |figure: &&Figure| {
        if figure.unit.is_empty() { figure.name.to_owned() } else { format!("{}, {}", figure.name, figure.unit) }
    };
    let mut text = format!("| work | {} |\n", figures.iter().map(heading).collect::<Vec<_>>().join(" | "));
    text.push_str(&format!("|---|{}\n", "---|".repeat(figures.len())));
    for row in ROWS {
        let Some(entry) = book.entry("row", row.name) else { continue };
        let cells: Vec<String> = figures.iter().map(|figure| cell(entry, figure)).collect();
        text.push_str(&format!("| {}{} | {} |\n", row.name, star(book, row), cells.join(" | ")));
    }
    text
}

/// One figure of one row, as `20.0 → 10.0 (0.50)`.
pub fn cell(entry: &Entry, figure: &Figure) -> String {
    let Some((Some(etcd), Some(ours))) = entry.figures.get(figure.field).map(super::book::Pair::medians) else {
        return "–".to_owned();
    };
    let (etcd, ours) = (etcd / figure.divisor, ours / figure.divisor);
    let ratio = if etcd > 0.0 { format!(" ({:.2})", ours / etcd) } else { String::new() };
    format!("{} → {}{ratio}", short(etcd), short(ours))
}

fn ratio_bars(book: &Book) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (row, must) in ROWS.iter().flat_map(|row| row.musts.iter().map(move |must| (row, must))) {
        let Some(Verdict { etcd, ours, good }) = book.entry("row", row.name).and_then(|entry| verdict(entry, must))
        else {
            continue;
        };
        if etcd <= 0.0 {
            continue;
        }
        let mark = match must.must {
            Bound::AtMost(mark) | Bound::AtLeast(mark) => Some(mark),
            Bound::Ours(_) => None,
        };
        let label = format!("{}: {}", row.name, figure_of(must.field).name);
        bars.push(Bar { label, value: ours / etcd, mark, good });
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::book::Pair;
    use std::collections::BTreeMap;

    fn book(load: &str) -> Book {
        let pair = |etcd: f64, ours: f64| Pair { etcd: vec![etcd], ours: vec![ours] };
        let figures = BTreeMap::from([
            ("server_cpu_us_per_op".to_owned(), pair(50.0, 10.0)),
            ("ops_per_second".to_owned(), pair(10_000.0, 15_000.0)),
        ]);
        let mut book = Book::default();
        book.renew("row", "put", Entry { figures, note: format!("today load {load}") });
        book
    }

    #[test]
    fn every_must_has_a_line_and_says_whether_it_is_met() {
        let text = must_table(&book("0.10"));
        let musts: usize = ROWS.iter().map(|row| row.musts.len()).sum();
        assert_eq!(text.lines().count(), 2 + musts);
        assert!(text.contains("| put | CPU per op, µs | 50.0 | 10.0 | **0.20** | ≤ 0.4 | 0.25 | pass |"), "{text}");
        assert!(text.contains("| put | ops/s | 10000 | 15000 | **1.50** | ≥ 2 | 3.5 | **short** |"), "{text}");
        assert!(text.contains("| put | p99, ms | – | – | – | ≤ 0.5 | 0.3 | not measured |"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        assert!(text.lines().all(|line| columns(line) == 9), "{text}");
    }

    #[test]
    fn rows_of_a_busy_machine_have_a_star() {
        assert!(must_table(&book("3.5")).contains("| put\\* |"));
        assert!(measured(&book("3.5")).contains("a star marks"));
        assert!(!measured(&book("0.5")).contains("a star marks"));
    }

    #[test]
    fn the_wide_table_shows_measured_rows_alone() {
        let text = wide_table(&book("0"));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("50.0 → 10.0 (0.20)"), "{text}");
    }

    #[test]
    fn prose_around_the_marks_stays() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = spliced(&page, "new").unwrap();
        assert!(once.starts_with("before\n") && once.ends_with("after\n") && once.contains("new"));
        assert!(!once.contains("old"));
        assert_eq!(spliced(&once, "new").unwrap(), once);
        assert!(spliced("no marks", "new").unwrap_err().contains("lacks the lines"));
    }

    #[test]
    fn bars_are_ratios_with_their_mark() {
        let bars = ratio_bars(&book("0"));
        assert_eq!(bars.len(), 2);
        assert_eq!((bars[0].value, bars[0].mark, bars[0].good), (0.2, Some(0.4), Some(true)));
        assert_eq!(bars[1].good, Some(false));
    }
}
