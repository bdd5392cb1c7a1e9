//! Apache's expressions (`RewriteCond expr`, `Require expr`, `SetEnvIfExpr`), as far as they ask for addresses.
//!
//! An expression with anything else in it isn't understood, and decides nothing. Source: the manual's "Expressions in
//! Apache HTTP Server".
//!
//! Belongs here: that language. Does not: what comes of it (`rewrite`, `rules`).

use ipnet::IpNet;

use super::{
    super::conditions::{Pattern, Visit, and, or},
    rules::subnet,
};

/// An expression that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Is(bool),
    /// The address lies in the net.
    In(Address, IpNet),
    /// The address is this text.
    Equals(Address, String),
    Has(Address, Pattern),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// Whose address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// `REMOTE_ADDR`, which mod_remoteip makes the visitor's.
    Shown,
    /// `CONN_REMOTE_ADDR`.
    Peer,
}

impl Address {
    /// `%{REMOTE_ADDR}`
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "%{REMOTE_ADDR}" => Some(Self::Shown),
            "%{CONN_REMOTE_ADDR}" => Some(Self::Peer),
            _ => None,
        }
    }

    pub(super) const fn told(self, visit: Visit) -> Option<std::net::IpAddr> {
        match self {
            Self::Shown => visit.shown,
            Self::Peer => visit.peer,
        }
    }

    /// Whether an expression is found in it, which can't be told of a stretch of addresses.
    pub(super) fn has(self, pattern: &Pattern, visit: Visit) -> Option<bool> {
        pattern.is_in(&self.told(visit).filter(|_| !visit.stretch)?.to_string())
    }
}

/// The signs of an expression.
#[derive(Debug, PartialEq, Eq)]
enum Sign {
    Word(String),
    /// In quotes.
    Text(String),
    /// `/…/` or `m#…#`, and whether capitals count for nothing.
    Pattern(String, bool),
}

impl Expression {
    /// `None` where it isn't understood.
    pub(super) fn of(text: &str) -> Option<Self> {
        let signs = signs(text)?;
        let mut left = signs.as_slice();
        let whole = any(&mut left)?;
        left.is_empty().then_some(whole)
    }

    pub(super) fn holds(&self, visit: Visit) -> Option<bool> {
        match self {
            Self::Is(it) => Some(*it),
            Self::In(address, net) => Some(net.contains(&address.told(visit)?)),
            Self::Equals(address, text) => Some(address.told(visit)?.to_string() == *text),
            Self::Has(address, pattern) => address.has(pattern, visit),
            Self::Not(inner) => inner.holds(visit).map(|holds| !holds),
            Self::All(inner) => inner.iter().map(|one| one.holds(visit)).fold(Some(true), and),
            Self::Any(inner) => inner.iter().map(|one| one.holds(visit)).fold(Some(false), or),
        }
    }

    /// Every net that it names.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        match self {
            Self::Is(_) => Vec::new(),
            Self::In(_, net) => vec![*net],
            Self::Equals(_, text) => subnet(text).into_iter().collect(),
            Self::Has(_, pattern) => pattern.named(),
            Self::Not(inner) => inner.nets(),
            Self::All(inner) | Self::Any(inner) => inner.iter().flat_map(Self::nets).collect(),
        }
    }

    /// Whether an expression is held against an address.
    pub(super) fn tries(&self) -> bool {
        match self {
            Self::Has(..) => true,
            Self::Not(inner) => inner.tries(),
            Self::All(inner) | Self::Any(inner) => inner.iter().any(Self::tries),
            Self::Is(_) | Self::In(..) | Self::Equals(..) => false,
        }
    }
}

fn signs(text: &str) -> Option<Vec<Sign>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (sign, after) = match first {
            '(' | ')' => (Sign::Word(first.to_string()), &rest[1..]),
            '\'' | '"' => {
                let (text, after) = rest[1..].split_once(first)?;
                // A variable in it may be anything.
                (!text.contains(['%', '$', '\\'])).then_some((Sign::Text(text.to_owned()), after))?
            }
            '/' => pattern(&rest[1..], '/')?,
            'm' if rest[1..].starts_with(['#', '/', '|', '!', ',']) => {
                let end = rest[1..].chars().next()?;
                pattern(&rest[2..], end)?
            }
            '!' if !rest.starts_with("!=") && !rest.starts_with("!~") => (Sign::Word("!".to_owned()), &rest[1..]),
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "()'\"".contains(c)).unwrap_or(rest.len());
                (Sign::Word(rest[..end].to_owned()), &rest[end..])
            }
        };
        found.push(sign);
        rest = after.trim_start();
    }
    Some(found)
}

fn pattern(rest: &str, end: char) -> Option<(Sign, &str)> {
    let (text, after) = rest.split_once(end)?;
    let flags = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
    let nocase = match &after[..flags] {
        "" => false,
        "i" => true,
        _ => return None,
    };
    Some((Sign::Pattern(text.to_owned(), nocase), &after[flags..]))
}

fn is_next(left: &mut &[Sign], words: &[&str]) -> bool {
    match left {
        [Sign::Word(word), rest @ ..] if words.contains(&word.as_str()) => {
            *left = rest;
            true
        }
        _ => false,
    }
}

fn any(left: &mut &[Sign]) -> Option<Expression> {
    let mut found = vec![all(left)?];
    while is_next(left, &["||"]) {
        found.push(all(left)?);
    }
    Some(if found.len() == 1 { found.remove(0) } else { Expression::Any(found) })
}

fn all(left: &mut &[Sign]) -> Option<Expression> {
    let mut found = vec![one(left)?];
    while is_next(left, &["&&"]) {
        found.push(one(left)?);
    }
    Some(if found.len() == 1 { found.remove(0) } else { Expression::All(found) })
}

fn one(left: &mut &[Sign]) -> Option<Expression> {
    if is_next(left, &["!"]) {
        return Some(Expression::Not(Box::new(one(left)?)));
    }
    if is_next(left, &["("]) {
        let inner = any(left)?;
        return is_next(left, &[")"]).then_some(inner);
    }
    let (found, rest) = match *left {
        [Sign::Word(is), rest @ ..] if is == "true" || is == "false" => (Expression::Is(is == "true"), rest),
        [Sign::Word(is), Sign::Text(net) | Sign::Word(net), rest @ ..] if is == "-R" => {
            (Expression::In(Address::Shown, subnet(net)?), rest)
        }
        [Sign::Word(of), Sign::Word(is), with, rest @ ..] => {
            let of = Address::of(of)?;
            let (not, is) = match is.strip_prefix('!') {
                Some("=") => (true, "=="),
                Some("~") => (true, "=~"),
                Some(_) => return None,
                None => (false, is.as_str()),
            };
            let found = match (is, with) {
                ("-ipmatch", Sign::Text(net) | Sign::Word(net)) => Expression::In(of, subnet(net)?),
                ("=" | "==" | "eq", Sign::Text(text)) => Expression::Equals(of, text.clone()),
                ("=~", Sign::Pattern(text, nocase)) => Expression::Has(of, Pattern::new(text, *nocase)),
                _ => return None,
            };
            (if not { Expression::Not(Box::new(found)) } else { found }, rest)
        }
        _ => return None,
    };
    *left = rest;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_addresses_is_understood() {
        let visit = Visit { shown: "173.245.48.29".parse().ok(), peer: "10.0.0.1".parse().ok(), stretch: false };
        for (text, holds) in [
            ("-R '173.245.48.0/20'", Some(true)),
            ("! -R '173.245.48.0/20'", Some(false)),
            ("%{REMOTE_ADDR} -ipmatch '173.245.48.0/20'", Some(true)),
            ("%{REMOTE_ADDR} -ipmatch '104.16'", Some(false)),
            ("%{CONN_REMOTE_ADDR} -ipmatch '10'", Some(true)),
            ("%{REMOTE_ADDR} == '173.245.48.29'", Some(true)),
            ("%{REMOTE_ADDR} != \"173.245.48.29\"", Some(false)),
            (r"%{REMOTE_ADDR} =~ /^173\.245\./", Some(true)),
            (r"%{REMOTE_ADDR} !~ m#^(?:173|104)\.#i", Some(false)),
            ("-R '10.0.0.0/8' || (-R '173.245.48.0/20' && !(-R '203.0.113.9'))", Some(true)),
            ("!(-R '10.0.0.0/8' || -R '173.245.48.0/20')", Some(false)),
            ("true && -R '10.0.0.0/8'", Some(false)),
            // What isn't.
            ("%{HTTP_USER_AGENT} =~ /bot/", None),
            ("-R '173.245.48.0/20' && %{REQUEST_URI} == '/x'", None),
            ("%{REMOTE_ADDR} -ipmatch '%{ENV:net}'", None),
            ("%{REMOTE_ADDR} -in {'173.245.48.29'}", None),
            ("-R 'cloudflare.example'", None),
            (r"%{REMOTE_ADDR} =~ /^(?!10)/", None),
            ("-R '173.245.48.0/20' extra", None),
            ("", None),
        ] {
            assert_eq!(Expression::of(text).and_then(|e| e.holds(visit)), holds, "{text}");
        }
        let stretch = Visit { stretch: true, ..visit };
        let of = |text: &str| Expression::of(text).expect("an expression");
        assert_eq!(of("%{REMOTE_ADDR} =~ /^173/").holds(stretch), None);
        assert_eq!(of("-R '173.245.48.0/20'").holds(stretch), Some(true));
        assert_eq!(of("-R '10' && %{REMOTE_ADDR} == '1.2.3.4'").nets().len(), 2);
    }
}
