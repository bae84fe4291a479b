//! Plots for a page: bars on a scale of ratios, and curves; plain SVG, readable on light and dark ground.

use std::fmt::Write;

/// One bar: what, its value, and where it must be.
pub struct Bar {
    /// Text on its left.
    pub label: String,
    /// Length; logarithmic, 1 is the middle.
    pub value: f64,
    /// A mark across the bar.
    pub mark: Option<f64>,
    /// Whether the bar is where it must be; `None` if nothing is asked.
    pub good: Option<bool>,
}

/// A line through points.
pub struct Curve {
    /// Text at its end.
    pub label: String,
    /// Colour as in CSS.
    pub colour: &'static str,
    /// From left to right; all values above 0.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const GREY: &str = "#888888";
const GOOD: &str = "#2a9d5c";
const SHORT: &str = "#d1495b";
const NEUTRAL: &str = "#4a7fb5";

struct Picture(String);

impl Picture {
    fn new(height: f64, title: &str) -> Picture {
        let mut picture = Picture(String::new());
        picture.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"{GREY}\">\n<title>{}</title>",
            escaped(title)
        ));
        picture.text(10.0, 18.0, "start", title);
        picture
    }

    fn push(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String grows");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.push(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text)));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        self.push(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Bars below each other from the middle line 1: to the left what is less than etcd's, to the right what is more. Each
/// step of the grid is a factor of two; what is beyond four steps is cut there and its number tells.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    const STEPS: f64 = 4.0;
    const LEFT: f64 = 330.0;
    const ROW: f64 = 20.0;
    let room = WIDTH - LEFT - 60.0;
    let at = |value: f64| LEFT + (value.max(1e-9).log2().clamp(-STEPS, STEPS) + STEPS) / (2.0 * STEPS) * room;
    let (top, height) = (44.0, 60.0 + ROW * bars.len() as f64);
    let mut picture = Picture::new(height, title);
    for step in -4..=4 {
        let x = at(2f64.powi(step));
        picture.line((x, top - 6.0), (x, height - 10.0), GREY, if step == 0 { 1.5 } else { 0.3 });
        let name = if step < 0 { format!("1/{}", 1 << -step) } else { format!("{}×", 1 << step) };
        picture.text(x, top - 10.0, "middle", &name);
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = top + ROW * index as f64;
        picture.text(LEFT - 8.0, y + 13.0, "end", &bar.label);
        let (from, to) = (at(1.0).min(at(bar.value)), at(1.0).max(at(bar.value)));
        let colour = match bar.good {
            Some(true) => GOOD,
            Some(false) => SHORT,
            None => NEUTRAL,
        };
        picture.push(format_args!(
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>",
            y + 3.0,
            (to - from).max(1.0)
        ));
        if let Some(mark) = bar.mark {
            picture.line((at(mark), y + 1.0), (at(mark), y + 17.0), GREY, 2.5);
        }
        picture.text(WIDTH - 8.0, y + 13.0, "end", &format!("{:.2}", bar.value));
    }
    picture.end()
}

/// Curves over a logarithmic abscissa; the ordinate is logarithmic too, so that "twice" is the same height everywhere.
pub fn curves(title: &str, abscissa: &str, curves: &[Curve]) -> String {
    const HEIGHT: f64 = 300.0;
    const FRAME: (f64, f64, f64, f64) = (70.0, 34.0, WIDTH - 110.0, HEIGHT - 44.0);
    let (left, top, right, bottom) = FRAME;
    let mut picture = Picture::new(HEIGHT, title);
    let all = || curves.iter().flat_map(|curve| &curve.points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let span = |pick: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(pick).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        (low, if high > low { high } else { low * 2.0 })
    };
    if all().next().is_none() {
        return picture.end();
    }
    let (xs, ys) = (span(|point| point.0), span(|point| point.1));
    let scale = |value: f64, (low, high): (f64, f64), from: f64, to: f64| {
        from + (value.ln() - low.ln()) / (high.ln() - low.ln()) * (to - from)
    };
    let place = |(x, y): (f64, f64)| (scale(x, xs, left, right), scale(y, ys, bottom, top + 8.0));
    picture.line((left, bottom), (right, bottom), GREY, 1.0);
    picture.line((left, top), (left, bottom), GREY, 1.0);
    for value in [ys.0, (ys.0 * ys.1).sqrt(), ys.1] {
        let y = scale(value, ys, bottom, top + 8.0);
        picture.line((left, y), (right, y), GREY, 0.3);
        picture.text(left - 6.0, y + 4.0, "end", &crate::stats::short(value));
    }
    let mut ticks: Vec<f64> = all().map(|point| point.0).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        picture.text(scale(tick, xs, left, right), bottom + 16.0, "middle", &format!("{tick}"));
    }
    picture.text((left + right) / 2.0, HEIGHT - 8.0, "middle", abscissa);
    for curve in curves {
        let points: Vec<(f64, f64)> = curve.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
        let path: Vec<String> = points.iter().map(|p| place(*p)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let colour = curve.colour;
        picture.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        if let Some(last) = points.last() {
            let (x, y) = place(*last);
            picture.text(x + 6.0, y + 4.0, "start", &curve.label);
        }
    }
    picture.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_lie_on_their_side_of_the_middle() {
        let bar = |value| Bar { label: "a < b & c".into(), value, mark: Some(0.4), good: Some(value < 0.4) };
        let text = bars("t", &[bar(0.25), bar(4.0)]);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert!(text.contains("a &lt; b &amp; c") && !text.contains("a < b"));
        let x = |line: &str| line.split("x=\"").nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap();
        let rects: Vec<&str> = text.lines().filter(|line| line.starts_with("<rect")).collect();
        assert_eq!(rects.len(), 2);
        assert!(x(rects[0]) < x(rects[1]) && rects[0].contains(GOOD) && rects[1].contains(SHORT));
        assert!(!bars("t", &[bar(0.0), bar(f64::INFINITY)]).contains("NaN"));
    }

    #[test]
    fn curves_rise_where_values_rise() {
        let curve =
            Curve { label: "ours".into(), colour: "red", points: vec![(1.0, 10.0), (10.0, 100.0), (100.0, 1000.0)] };
        let text = curves("t", "clients", &[curve]);
        let line = text.lines().find(|line| line.starts_with("<polyline")).unwrap();
        let points = line.split('"').nth(1).unwrap();
        let heights: Vec<f64> =
            points.split(' ').map(|point| point.split(',').nth(1).unwrap().parse().unwrap()).collect();
        assert!(heights[0] > heights[1] && heights[1] > heights[2], "an SVG counts from the top: {points}");
        assert!((heights[0] + heights[2] - 2.0 * heights[1]).abs() < 0.2, "equal factors are equal steps");
    }

    #[test]
    fn nothing_and_one_point_are_drawn_too() {
        assert!(!curves("t", "x", &[]).contains("NaN"));
        let flat = Curve { label: "x".into(), colour: "red", points: vec![(5.0, 5.0)] };
        let text = curves("t", "x", &[flat]);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
