//! `--growth`: the same work with more keys, clients or watchers; what an operation costs then.

use super::book::{Book, Entry};
use super::rows::figure_of;
use super::scenes::{Side, Stage, Target, add, turn};
use crate::member::{Member, Place, Wire};
use crate::stats::short;
use crate::svg::{self, Curve};

/// One curve: what grows, and what is looked at.
pub struct Growing {
    /// Kind in the book.
    pub kind: &'static str,
    /// Heading.
    pub title: &'static str,
    /// What grows.
    pub abscissa: &'static str,
    /// Words after `bench`, with `{}` where the number goes, and `{puts}` where [`puts`] go.
    words: &'static str,
    /// Words before, unmeasured, on the same fresh server; empty for none.
    before: &'static str,
    points: &'static [u64],
    /// Field that is drawn.
    field: &'static str,
    /// Name of the plot.
    pub file: &'static str,
}

const KEYS: &[u64] = &[10_000, 100_000, 1_000_000];
const CLIENTS: &[u64] = &[1, 10, 100, 1_000, 10_000];
const WATCHERS: &[u64] = &[1, 10, 100, 1_000, 10_000, 100_000];
const CPU: &str = "server_cpu_us_per_op";

/// Events that a point of the watchers' curve has at most, unless these are fewer than [`PUTS`] have.
const EVENTS: u64 = 3_000_000;
/// Puts that it has, at least and at most.
const PUTS: (u64, u64) = (30, 3000);

/// How many puts so many watchers hear of. Puts do not wait for their events: those of some seconds would keep a hundred
/// thousand watchers busy for the rest of an hour.
fn puts(watchers: u64) -> u64 {
    (EVENTS / watchers.max(1)).clamp(PUTS.0, PUTS.1)
}

/// All curves.
pub const CURVES: &[Growing] = &[
    Growing {
        kind: "put by keys",
        title: "put: CPU per operation, µs",
        abscissa: "keys in the store",
        words: "put --key-space-size {} --duration 4s",
        before: "load --key-space-size {}",
        points: KEYS,
        field: CPU,
        file: "put-by-keys.svg",
    },
    Growing {
        kind: "get by keys",
        title: "linearizable get: CPU per operation, µs",
        abscissa: "keys in the store",
        words: "range --key-space-size {} --loaded --duration 3s",
        before: "load --key-space-size {}",
        points: KEYS,
        field: CPU,
        file: "get-by-keys.svg",
    },
    Growing {
        kind: "put by clients",
        title: "put: CPU per operation, µs",
        abscissa: "clients",
        words: "put --clients {} --duration 3s",
        before: "",
        points: CLIENTS,
        field: CPU,
        file: "put-by-clients.svg",
    },
    Growing {
        kind: "get by clients",
        title: "linearizable get: CPU per operation, µs",
        abscissa: "clients",
        words: "range --clients {} --duration 3s",
        before: "",
        points: CLIENTS,
        field: CPU,
        file: "get-by-clients.svg",
    },
    Growing {
        kind: "events by watchers",
        title: "watchers of one key: CPU per event, µs",
        abscissa: "watchers",
        words: "watch --watchers {} --total {puts}",
        before: "",
        points: WATCHERS,
        field: CPU,
        file: "events-by-watchers.svg",
    },
    Growing {
        kind: "put by idle watchers",
        title: "put of a key that one of many watchers watches: CPU per event, µs",
        abscissa: "watchers, each of a key of its own",
        words: "watch --watchers {} --key-space-size {} --clients 100 --duration 3s",
        before: "",
        points: WATCHERS,
        field: CPU,
        file: "put-by-idle-watchers.svg",
    },
];

/// Measures every point of every curve once, on a fresh server each. What fails is noted in the stage.
pub fn play(stage: &mut Stage<'_>, wanted: &str) {
    for curve in CURVES.iter().filter(|curve| curve.kind.contains(wanted)) {
        eprint!("{}:", curve.kind);
        for (index, point) in curve.points.iter().enumerate() {
            let note = super::machine::note();
            let mut entry = Entry { note, ..Entry::default() };
            for side in turn(index as u64) {
                match measure(stage, curve, *point, side) {
                    Ok(values) => add(&mut entry, side, &values),
                    Err(error) => stage.failures.push(format!("{} {point}, {side:?}: {error}", curve.kind)),
                }
            }
            let shown = entry.figures.get(curve.field).map(|pair| pair.medians()).unwrap_or_default();
            eprint!(" {point}: {} → {}", short(shown.0.unwrap_or(0.0)), short(shown.1.unwrap_or(0.0)));
            stage.book.renew(curve.kind, &point.to_string(), entry);
        }
        eprintln!();
    }
}

fn measure(stage: &Stage<'_>, curve: &Growing, point: u64, side: Side) -> Result<super::scenes::Values, String> {
    let place = Place::new(&format!("growth-{side:?}"))?;
    let member = Member::start_on(stage.program(side), &place, Wire::Plain)?;
    let target = Target::of(&member, Wire::Plain);
    let words = |text: &str| text.replace("{}", &point.to_string()).replace("{puts}", &puts(point).to_string());
    if !curve.before.is_empty() {
        stage.bench(&words(curve.before), &target)?;
    }
    stage.bench(&words(curve.words), &target)
}

/// The points of one side, in order.
fn points(book: &Book, curve: &Growing, side: Side) -> Vec<(f64, f64)> {
    let figure = figure_of(curve.field);
    let value = |point: &u64| {
        let pair = book.entry(curve.kind, &point.to_string())?.figures.get(curve.field)?;
        let (etcd, ours) = pair.medians();
        let value = if side == Side::Etcd { etcd } else { ours };
        Some((*point as f64, value? / figure.divisor))
    };
    curve.points.iter().filter_map(value).collect()
}

/// The plot of a curve; `None` before it was measured.
pub fn picture(book: &Book, curve: &Growing) -> Option<String> {
    let line = |side, label: &str, colour| Curve { label: label.into(), colour, points: points(book, curve, side) };
    let lines = [line(Side::Etcd, "etcd", "#b58b4a"), line(Side::Ours, "ours", "#4a7fb5")];
    lines.iter().any(|line| line.points.len() > 1).then(|| svg::curves(curve.title, curve.abscissa, &lines))
}

/// A table per curve, with how far its ends are from each other.
pub fn section(book: &Book) -> String {
    let mut text = String::new();
    for curve in CURVES {
        let (etcd, ours) = (points(book, curve, Side::Etcd), points(book, curve, Side::Ours));
        if ours.len() < 2 {
            continue;
        }
        let row = |name: &str, points: &[(f64, f64)]| {
            let cells: Vec<String> = points.iter().map(|(x, y)| format!("{x}: {}", short(*y))).collect();
            format!("{name} {} (most by least {:.2})", cells.join(", "), spread(points))
        };
        text.push_str(&format!(
            "**{}** by {}: {}; {}.\n\n![{}](performance/{})\n\n",
            curve.title,
            curve.abscissa,
            row("etcd", &etcd),
            row("ours", &ours),
            curve.kind,
            curve.file
        ));
    }
    text
}

fn spread(points: &[(f64, f64)]) -> f64 {
    let values = points.iter().map(|point| point.1);
    let (least, most) = values.fold((f64::MAX, 0.0f64), |(least, most), value| (least.min(value), most.max(value)));
    if least > 0.0 && least < f64::MAX { most / least } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::book::Pair;
    use std::collections::BTreeMap;

    #[test]
    fn a_curve_is_drawn_from_what_was_measured() {
        let mut book = Book::default();
        let curve = &CURVES[0];
        assert!(picture(&book, curve).is_none() && section(&book).is_empty());
        for (point, ours) in [(10_000, 10.0), (1_000_000, 15.0)] {
            let pair = Pair { etcd: vec![50.0], ours: vec![ours] };
            let figures = BTreeMap::from([(curve.field.to_owned(), pair)]);
            book.renew(curve.kind, &format!("{point}"), Entry { figures, note: String::new() });
        }
        assert_eq!(points(&book, curve, Side::Ours), [(10_000.0, 10.0), (1_000_000.0, 15.0)]);
        assert!(picture(&book, curve).unwrap().contains("polyline"));
        assert!(section(&book).contains("ours 10000: 10.0, 1000000: 15.0 (most by least 1.50)"), "{}", section(&book));
    }

    #[test]
    fn a_point_has_so_many_events_that_it_ends() {
        assert_eq!([1, 100, 1_000, 10_000, 100_000].map(puts), [3000, 3000, 3000, 300, 30]);
    }

    #[test]
    fn curves_have_kinds_and_files_of_their_own() {
        for (index, curve) in CURVES.iter().enumerate() {
            let others = &CURVES[..index];
            assert!(others.iter().all(|other| other.kind != curve.kind && other.file != curve.file), "{}", curve.kind);
            figure_of(curve.field);
        }
    }
}
