//! Variables that `SetEnvIf` sets by the client's address, for `Require env` and `Deny from env=`.
//!
//! A variable that no line sets by the address may be anything: other modules set variables too.
//!
//! Belongs here: whether one is set. Does not: what asks for it (`rules`).

use ipnet::IpNet;

use super::{
    super::conditions::{Pattern, Visit},
    expression::{Address, Expression},
    words::shortened,
};
use crate::doctor::directives::Directive;

/// A variable, and the lines that set or unset it, in the order in which they are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    name: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    asks: Asks,
    sets: bool,
    at: Directive,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asks {
    Has(Pattern),
    Expr(Expression),
    Unknown,
}

impl Asks {
    fn holds(&self, visit: Visit) -> Option<bool> {
        match self {
            Self::Has(pattern) => Address::Shown.has(pattern, visit),
            Self::Expr(expression) => expression.holds(visit),
            Self::Unknown => None,
        }
    }
}

impl Variable {
    /// One of which nothing is known yet.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new() }
    }

    /// Takes in what sets it, of directives each with whether it surely holds.
    pub(super) fn learn(&mut self, said: &[(Directive, bool)]) {
        self.lines = said.iter().filter_map(|(d, sure)| self.line(d, *sure)).collect();
    }

    fn line(&self, d: &Directive, sure: bool) -> Option<Line> {
        let words: Vec<&str> = d.words.iter().skip(1).map(String::as_str).collect();
        let nocase = d.is("SetEnvIfNoCase");
        let (asks, names) = match words.as_slice() {
            [attribute, pattern, names @ ..] if nocase || d.is("SetEnvIf") => {
                let is_address = attribute.eq_ignore_ascii_case("Remote_Addr");
                (if is_address { Asks::Has(Pattern::new(pattern, nocase)) } else { Asks::Unknown }, names)
            }
            [text, names @ ..] if d.is("SetEnvIfExpr") => {
                (Expression::of(text).map_or(Asks::Unknown, Asks::Expr), names)
            }
            [_, names @ ..] if d.is("BrowserMatch") || d.is("BrowserMatchNoCase") => (Asks::Unknown, names),
            // `RewriteRule ^ - [E=bad:1]`
            [_, _, flags] if d.is("RewriteRule") => {
                let sets = |flag: &str| {
                    let (name, value) = flag.trim_matches(['[', ']', ' ']).split_once('=').unwrap_or_default();
                    let is = name.eq_ignore_ascii_case("e") || name.eq_ignore_ascii_case("env");
                    let named = value.trim_start_matches('!').split(':').next().unwrap_or_default();
                    is && named.eq_ignore_ascii_case(&self.name)
                };
                return flags.split(',').any(sets).then(|| Line { asks: Asks::Unknown, sets: true, at: d.clone() });
            }
            _ => return None,
        };
        let sets = names.iter().find_map(|word| {
            let (sets, word) = word.strip_prefix('!').map_or((true, *word), |word| (false, word));
            word.split('=').next().is_some_and(|name| name.eq_ignore_ascii_case(&self.name)).then_some(sets)
        })?;
        Some(Line { asks: if sure { asks } else { Asks::Unknown }, sets, at: d.clone() })
    }

    fn is_known(&self) -> bool {
        self.lines.iter().any(|line| line.asks != Asks::Unknown)
    }

    pub(super) fn is_set(&self, visit: Visit) -> Option<bool> {
        self.lines.iter().fold(self.is_known().then_some(false), |before, line| match line.asks.holds(visit) {
            Some(true) => Some(line.sets),
            Some(false) => before,
            None => before.filter(|is| *is == line.sets),
        })
    }

    pub(super) fn nets(&self) -> Vec<IpNet> {
        let nets = self.lines.iter().flat_map(|line| match &line.asks {
            Asks::Has(pattern) => pattern.named(),
            Asks::Expr(expression) => expression.nets(),
            Asks::Unknown => Vec::new(),
        });
        nets.collect()
    }

    /// Whether an expression is held against an address.
    pub(super) fn tries(&self) -> bool {
        self.lines.iter().any(|line| match &line.asks {
            Asks::Has(_) => true,
            Asks::Expr(expression) => expression.tries(),
            Asks::Unknown => false,
        })
    }

    /// The lines that set it by the address.
    pub(super) fn seen(&self) -> Vec<(String, String)> {
        let known = self.lines.iter().filter(|line| line.asks != Asks::Unknown);
        known.map(|line| (line.at.place(), shortened(&line.at.words))).collect()
    }

    /// What to do about it where this client is refused for it, and the file; nothing where it isn't known.
    pub(super) fn mend(&self, visit: Visit) -> Option<(String, std::path::PathBuf)> {
        let is_set = self.is_set(visit)?;
        let file = &self.lines.iter().find(|line| line.asks != Asks::Unknown)?.at.file;
        let (name, shown) = (&self.name, file.display());
        let what = if is_set {
            format!("take Cloudflare's addresses out of the lines that set `{name}` in {shown}")
        } else {
            format!("set `{name}` for Cloudflare's addresses too in {shown} (`edgeallow fetch` prints them)")
        };
        Some((what, file.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::directives::tests::said_by_apache;

    #[test]
    fn a_variable_is_known_where_a_line_sets_it_by_the_address() {
        let is_set = |text: &str| {
            let said = said_by_apache(text);
            let all: Vec<(Directive, bool)> =
                said.inside(None).map(|d| (d.clone(), !d.words.contains(&"*".into()))).collect();
            let mut bad = Variable::named("bad");
            bad.learn(&all);
            bad.is_set(Visit { shown: "173.245.48.29".parse().ok(), peer: None, stretch: false })
        };
        let edge = r"SetEnvIf Remote_Addr ^173\.245\. bad";
        for (text, is) in [
            (edge.to_owned(), Some(true)),
            (format!("{edge}=1"), Some(true)),
            (format!("{edge} worse"), Some(true)),
            (r"SetEnvIf Remote_Addr ^104\. BAD".to_owned(), Some(false)),
            (r"SetEnvIfNoCase remote_addr ^173\. BAD".to_owned(), Some(true)),
            (r"SetEnvIf Remote_Addr ^173\. worse".to_owned(), None),
            (format!("{edge}\nSetEnvIf Remote_Addr \\.29$ !bad"), Some(false)),
            (format!("{edge}\nSetEnvIf User-Agent x !bad"), None),
            (format!("{edge}\nSetEnvIf User-Agent x bad"), Some(true)),
            (format!("{edge}\nRewriteRule ^ - [L,E=!bad]"), Some(true)),
            ("SetEnvIf Remote_Addr ^104 bad\nRewriteRule ^ - [L,E=bad:1]".to_owned(), None),
            ("SetEnvIf Remote_Addr ^(?!10) bad".to_owned(), None),
            ("SetEnvIfExpr \"-R '173.245.48.0/20'\" bad=1".to_owned(), Some(true)),
            ("SetEnvIfExpr \"%{TIME} -gt 1\" bad=1".to_owned(), None),
            ("SetEnvIf Host . bad".to_owned(), None),
            ("SetEnvIf Remote_Addr ^173 bad *".to_owned(), None),
        ] {
            assert_eq!(is_set(&text), is, "{text}");
        }
    }
}
