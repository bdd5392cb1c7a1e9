//! Conditions on a client's address: what a web server's `if` and mod_rewrite ask, beside its lists.
//!
//! An expression is held against the text of an address, so that it can't be known for a range as a whole: some addresses of
//! it are tried. Where a condition can't be told, nobody is taken to be refused.
//!
//! Belongs here: what both servers' conditions have in common. Does not: their languages (`nginx`, `apache`), lists (`access`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::access::{Client, Mend, net};

/// How many addresses of a range are tried at most, but for its ends.
const TRIED: u32 = 256;
const TRIED6: u128 = 64;

/// A request, as far as addresses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visit {
    /// The client's address that the server shows; `None` may be any, such as a visitor's.
    pub shown: Option<IpAddr>,
    /// The address that the connection comes from, if it can be told.
    pub peer: Option<IpAddr>,
    /// Whether what is shown stands for all addresses up to the next edge of a net.
    pub stretch: bool,
}

impl From<Client> for Visit {
    fn from(Client { ip, stretch, .. }: Client) -> Self {
        Self { shown: Some(ip), peer: (!stretch).then_some(ip), stretch }
    }
}

/// What conditions make of a request for `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Refused(Refusal),
    /// It is answered, whoever asks, before the lists are.
    Sent,
    /// It isn't surely refused: the lists decide.
    Passed,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// What refuses it: where, and what it says.
    pub seen: Vec<(String, String)>,
    pub mend: Mend,
}

/// A regular expression of PCRE's, as far as this program's own library takes it for the same.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Pattern {
    pub(super) fn new(text: &str, nocase: bool) -> Self {
        let regex = is_alike(text).then(|| RegexBuilder::new(text).case_insensitive(nocase).build().ok()).flatten();
        Self { text: text.to_owned(), regex }
    }

    /// Whether it is found in a text; `None` where this library doesn't take it.
    pub(super) fn is_in(&self, text: &str) -> Option<bool> {
        Some(self.regex.as_ref()?.is_match(text))
    }

    /// The addresses that it plainly names, or begins with: they are tried too.
    pub(super) fn named(&self) -> Vec<IpNet> {
        let plain = self.text.replace('\\', "");
        let words = plain.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'));
        let begun = |word: &str| {
            let rest = match (word.strip_suffix('.'), word.strip_suffix(':')) {
                (Some(_), _) => ["0", "0.0", "0.0.0"].get(3_usize.checked_sub(word.matches('.').count())?)?,
                (_, Some(_)) => ":",
                _ => return None,
            };
            net(&format!("{word}{rest}"))
        };
        words.filter_map(|word| net(word).or_else(|| begun(word))).collect()
    }
}

/// Whether both libraries read an expression alike: in a class, this one's knows sets of sets, and PCRE's `++` never
/// gives back.
fn is_alike(text: &str) -> bool {
    const OTHERWISE: [&str; 9] = ["&&", "--", "~~", "++", "*+", "?+", "}+", "\\<", "\\>"];
    let mut in_class = false;
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '\\' => drop(signs.next()),
            '[' if in_class && signs.peek() != Some(&':') => return false,
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
    }
    !OTHERWISE.iter().any(|sign| text.contains(sign))
}

/// The addresses of a range that expressions are held against: the first and the last, and for IPv4 one of each /24 if
/// there aren't too many.
pub(super) fn tried(range: IpNet) -> Vec<IpAddr> {
    let ends = [range.network(), range.broadcast()];
    // Not the same last number each time.
    let between: Vec<IpAddr> = match range {
        IpNet::V4(range) => {
            let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
            let apart = ((last - first) / TRIED).max(255) + 1;
            (0..=(last - first) / apart)
                .map(|n| Ipv4Addr::from_bits((first + n * apart + n * 7 % 256).min(last)).into())
                .collect()
        }
        IpNet::V6(range) => {
            let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
            let apart = (last - first) / TRIED6;
            (0..TRIED6).map(|n| Ipv6Addr::from_bits((first + n * apart + n).min(last)).into()).collect()
        }
    };
    ends.into_iter().chain(between).collect()
}

/// Whether both hold.
pub(super) const fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Whether one of them holds.
pub(super) const fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_taken_only_where_both_libraries_take_it_for_the_same() {
        for (pattern, text, is) in [
            (r"^173\.245\.", "173.245.48.29", Some(true)),
            (r"^173\.245\.", "172.245.48.29", Some(false)),
            (r"^104\.(1[6-9]|2[0-3])\.", "104.23.7.7", Some(true)),
            (r"^2400:CB00:", "2400:cb00::9", Some(true)),
            (r"^[[:digit:]]+\.245\.", "173.245.48.29", Some(true)),
            // Looking around, references, and what both read otherwise.
            (r"^(?!173\.)", "173.245.48.29", None),
            (r"^(\d)\1", "113.245.48.29", None),
            (r"^1++7", "173.245.48.29", None),
            (r"^[1[2]]", "12]", None),
            (r"^[0-9&&[^4]]", "1", None),
            ("^(", "1", None),
        ] {
            assert_eq!(Pattern::new(pattern, true).is_in(text), is, "{pattern}");
        }
        assert_eq!(Pattern::new("^2400:CB00:", false).is_in("2400:cb00::9"), Some(false));
    }

    #[test]
    fn addresses_that_an_expression_names_are_tried() {
        let named = |text: &str| Pattern::new(text, false).named().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(named(r"^(173\.245\.48\.29|104\.16\.)$"), ["173.245.48.29/32", "104.16.0.0/32"]);
        assert_eq!(named("^2400:cb00:2048:"), ["2400:cb00:2048::/128"]);
        assert_eq!(named("^2400:cb00::9$"), ["2400:cb00::9/128"]);
        let net = |text: &str| text.parse::<IpNet>().expect("a net");
        let inside = |range: &str| {
            let all = tried(net(range));
            assert!(all.iter().all(|ip| net(range).contains(ip)), "{range}");
            all.len()
        };
        assert_eq!((inside("173.245.48.0/20"), inside("104.16.0.0/13"), inside("192.0.2.7/32")), (18, 258, 3));
        assert_eq!((inside("2400:cb00::/32"), inside("2400::1/128")), (66, 66));
    }
}
