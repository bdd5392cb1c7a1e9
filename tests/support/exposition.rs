//! A reader of Prometheus' text format 0.0.4 that accepts nothing but what node_exporter's textfile collector takes, and
//! of the naming conventions what `promtool check metrics` finds fault with.
//!
//! Sources: prometheus.io, "Exposition formats" (text format details), "Metric and label naming"; node_exporter's
//! README, "Textfile Collector" (no timestamps).

use std::collections::{BTreeMap, BTreeSet};

/// A sample's labels, sorted.
pub type Labels = BTreeMap<String, String>;

/// What a text says: every series by name and labels.
#[derive(Debug, Default, PartialEq)]
pub struct Exposition {
    series: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// A series' value, if it is there. `labels` are all of them.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }

    /// A series that has to be there.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in {self:#?}"))
    }
}

/// Reads a text, or says which line breaks which rule.
pub fn read(text: &str) -> Result<Exposition, String> {
    if !text.ends_with('\n') {
        return Err("the last line doesn't end with a line feed".into());
    }
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        reader.line(line).map_err(|e| format!("line {}: {e}: {line}", number + 1))?;
    }
    reader.conventions()?;
    Ok(Exposition { series: reader.series })
}

#[derive(Default)]
struct Reader {
    help: BTreeMap<String, String>,
    kind: BTreeMap<String, String>,
    /// The metric whose lines these are, and those whose lines are over.
    current: String,
    over: BTreeSet<String>,
    series: BTreeMap<(String, Labels), f64>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.trim().is_empty() {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').ok_or("a HELP without text")?;
            self.group(name)?;
            unescaped(text, false)?;
            return once(self.help.insert(name.into(), text.into()), "HELP");
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("a TYPE without a type")?;
            self.group(name)?;
            if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind) {
                return Err(format!("no type is called {kind}"));
            }
            if self.series.keys().any(|(n, _)| n == name) {
                return Err("TYPE after the first sample".into());
            }
            return once(self.kind.insert(name.into(), kind.into()), "TYPE");
        }
        if line.starts_with('#') {
            return Ok(());
        }
        self.sample(line)
    }

    /// All lines of a metric stand together.
    fn group(&mut self, name: &str) -> Result<(), String> {
        is_name(name, true)?;
        if self.current != name {
            self.over.insert(std::mem::replace(&mut self.current, name.to_owned()));
            if self.over.contains(name) {
                return Err(format!("the lines of {name} don't stand together"));
            }
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
        let (name, rest) = line.split_at(end);
        self.group(name)?;
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Labels::new(), rest),
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [value] = words[..] else { return Err("a sample has a value, and here no timestamp".into()) };
        let value: f64 = value.parse().map_err(|_| format!("{value} is no number"))?;
        once(self.series.insert((name.into(), labels), value), "series")
    }

    fn conventions(&self) -> Result<(), String> {
        for (name, _) in self.series.keys() {
            let kind = self.kind.get(name).ok_or_else(|| format!("{name} has no TYPE"))?;
            let help = self.help.get(name).ok_or_else(|| format!("{name} has no HELP"))?;
            if help.trim().is_empty() {
                return Err(format!("{name} has an empty HELP"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(format!("{name} is a {kind}: counters end in _total, and nothing else does"));
            }
            if !name.starts_with("edgeallow_") {
                return Err(format!("{name} doesn't begin with the program's name"));
            }
            let parts: Vec<&str> = name.split('_').collect();
            for wrong in ["milliseconds", "ms", "minutes", "hours", "days", "kilobytes", "percent", "gauge", "counter"]
            {
                if parts.contains(&wrong) {
                    return Err(format!("{name}: {wrong} doesn't belong into a name"));
                }
            }
            for reserved in ["_count", "_sum", "_bucket", "_created"] {
                if name.ends_with(reserved) {
                    return Err(format!("{name}: {reserved} is for histograms and summaries"));
                }
            }
        }
        let silent = self.kind.keys().chain(self.help.keys()).find(|n| !self.series.keys().any(|(name, _)| name == *n));
        silent.map_or(Ok(()), |name| Err(format!("{name} has no sample")))
    }
}

fn once<T>(before: Option<T>, what: &str) -> Result<(), String> {
    before.map_or(Ok(()), |_| Err(format!("the same {what} twice")))
}

fn is_name(name: &str, metric: bool) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (metric && c == ':');
    let good = name.chars().all(fits) && name.starts_with(|c: char| fits(c) && !c.is_ascii_digit());
    if good { Ok(()) } else { Err(format!("{name:?} is no name")) }
}

/// The labels, and what comes after them. `rest` begins after the opening brace.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut found = Labels::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((found, after));
        }
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        is_name(name, false)?;
        if name.starts_with("__") {
            return Err(format!("the label {name} is Prometheus' own"));
        }
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or("the value of a label doesn't end")?;
        once(found.insert(name.into(), unescaped(&value[..end], true)?), "label")?;
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn unescaped(text: &str, quotes: bool) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => return Err(format!("\\{other:?} is no escape")),
            },
            c => c,
        });
    }
    Ok(out)
}
