//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use super::tally::Histogram;

/// A page under construction.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

/// Names and values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// Begins a family: its samples must follow at once.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample.
    pub(crate) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        self.line(format_args!(" {value}\n"));
    }

    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// The lines of one histogram; its family has begun.
    pub(crate) fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let mut below = 0;
        for (bound, inside) in &histogram.buckets {
            below += inside;
            self.line(format_args!("{name}_bucket"));
            self.labels(labels, Some(&bound.to_string()));
            self.line(format_args!(" {below}\n"));
        }
        self.line(format_args!("{name}_bucket"));
        self.labels(labels, Some("+Inf"));
        self.line(format_args!(" {}\n", histogram.count));
        self.line(format_args!("{name}_sum"));
        self.labels(labels, None);
        self.line(format_args!(" {}\n", histogram.sum));
        self.line(format_args!("{name}_count"));
        self.labels(labels, None);
        self.line(format_args!(" {}\n", histogram.count));
    }

    /// The finished page.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn labels(&mut self, labels: Labels<'_>, bound: Option<&str>) {
        if labels.is_empty() && bound.is_none() {
            return;
        }
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (n, (name, value)) in all.enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            self.line(format_args!("{}{name}=\"{value}\"", if n == 0 { '{' } else { ',' }));
        }
        self.0.push('}');
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format() {
        let mut text = Text::default();
        text.counter("a_total", "Things.", 3);
        text.family("b", "gauge", "Named.");
        text.sample("b", &[("x", "1"), ("y", "a\"b\\c\n")], -1);
        text.family("h", "histogram", "Times.");
        text.histogram("h", &[("m", "z")], &Histogram { buckets: vec![(0.001, 2), (0.002, 1)], count: 4, sum: 0.5 });
        let want = "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n# HELP b Named.\n# TYPE b gauge\n\
            b{x=\"1\",y=\"a\\\"b\\\\c\\n\"} -1\n# HELP h Times.\n# TYPE h histogram\nh_bucket{m=\"z\",le=\"0.001\"} 2\n\
            h_bucket{m=\"z\",le=\"0.002\"} 3\nh_bucket{m=\"z\",le=\"+Inf\"} 4\nh_sum{m=\"z\"} 0.5\nh_count{m=\"z\"} 4\n";
        assert_eq!(text.finish(), want);
    }
}
