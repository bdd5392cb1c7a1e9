//! Prometheus' text format, version 0.0.4: a `# HELP` and a `# TYPE` line for each metric, then its samples.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, "Text format details".

use std::fmt::Write as _;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up.
    Counter,
}

/// A sample: its labels, and its value.
pub(super) type Sample<'a, L> = (L, f64);

/// The text, as far as it is written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// A metric with its samples; nothing at all where there is none.
    pub fn many<'a, L: AsRef<[(&'a str, &'a str)]>>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: &[Sample<'a, L>],
    ) {
        if samples.is_empty() {
            return;
        }
        let kind = if kind == Kind::Gauge { "gauge" } else { "counter" };
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false));
        for (labels, value) in samples {
            let pairs = labels.as_ref().iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true)));
            let pairs: Vec<String> = pairs.collect();
            let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }

    /// A gauge.
    pub fn one<'a, L: AsRef<[(&'a str, &'a str)]>>(&mut self, name: &str, help: &str, samples: &[Sample<'a, L>]) {
        self.many(name, Kind::Gauge, help, samples);
    }

    /// The whole text.
    pub fn text(self) -> String {
        self.text
    }
}

/// Backslash and line feed are escaped everywhere, quotes in the values of labels.
fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}
