//! CSF's lists: our two files, and the one line that brings each into the administrator's.
//!
//! Belongs here: the text of `edgeallow.allow` and `edgeallow.ignore`; finding, adding and taking out our `Include`
//! line; what stands in a list of his. Does not: where and when ([`super::seen`], [`super::steps`]).
//!
//! CSF knows an `Include` by column 0, and takes all that follows it as the path, a blank at the end too. Our line goes
//! behind the last line end of his file: at the end of a file that ends with a newline, before the last line of one
//! that doesn't. So taking it out gives back his bytes, and `csf -a`, which writes onto a last line without a newline,
//! can't glue anything to ours.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::line::{Allow, nets};
use crate::{allowlist::Prefixes, backends::iptables::rules::net};

/// Our own list of advanced lines.
pub const ALLOW: &str = "/etc/csf/edgeallow.allow";
/// Our own list of prefixes that lfd leaves alone.
pub const IGNORE: &str = "/etc/csf/edgeallow.ignore";
/// The administrator's lists that name ours.
pub const HIS_ALLOW: &str = "/etc/csf/csf.allow";
/// See [`HIS_ALLOW`].
pub const HIS_IGNORE: &str = "/etc/csf/csf.ignore";

/// What a file of ours begins with. ASCII, and without the word that makes CSF skip a line.
const HEAD: &str = "# Written by edgeallow; changes here are lost. Take it out with: edgeallow remove --backend csf\n";

/// The text of our allow file.
#[must_use]
pub fn allow_text<'a>(lines: impl IntoIterator<Item = &'a Allow>) -> Vec<u8> {
    let mut out = HEAD.to_owned();
    for line in lines {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{}", line.line());
    }
    out.into_bytes()
}

/// The text of our ignore file.
#[must_use]
pub fn ignore_text(prefixes: &Prefixes) -> Vec<u8> {
    let mut out = HEAD.to_owned();
    for net in nets(prefixes) {
        let _ = writeln!(out, "{net}");
    }
    out.into_bytes()
}

/// The advanced lines of our form in a list.
pub fn allows(text: &[u8]) -> Vec<Allow> {
    String::from_utf8_lossy(text).split(['\n', '\r']).filter_map(Allow::read).collect()
}

/// The paths that a list includes, as CSF takes them.
pub fn includes(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let paths = text.split(['\n', '\r']).filter_map(|l| l.strip_prefix("Include"));
    paths.map(|p| p.trim_start().to_owned()).filter(|p| p.starts_with('/')).collect()
}

/// The addresses that a list of blocks names, alone or in an advanced line.
pub fn addresses(text: &[u8]) -> Vec<IpNet> {
    let text = String::from_utf8_lossy(text);
    let entries = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.starts_with('#') && !l.contains("Include"));
    let words = entries.filter_map(|l| l.split_whitespace().next());
    let fields = words.flat_map(|w| w.split('|'));
    fields.filter_map(|f| net(f.trim_start_matches("s=").trim_start_matches("d="))).collect()
}

/// What a list of the administrator's has of our line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Lines that CSF follows.
    pub good: usize,
    /// Lines that were meant to be ours and aren't followed: indented, or with something behind the path.
    pub broken: usize,
}

/// Looks for our line.
#[must_use]
pub fn find(text: &[u8], path: &str) -> Found {
    let mut found = Found::default();
    for line in text.split_inclusive(|b| *b == b'\n') {
        match kind(line, path) {
            Some(true) => found.good += 1,
            Some(false) => found.broken += 1,
            None => {}
        }
    }
    found
}

/// The same bytes with our line once, or without it.
#[must_use]
pub fn edit(text: &[u8], path: &str, there: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + path.len() + 9);
    for line in text.split_inclusive(|b| *b == b'\n') {
        if kind(line, path).is_none() {
            out.extend_from_slice(line);
        }
    }
    if there {
        let at = out.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        out.splice(at..at, format!("Include {path}\n").into_bytes());
    }
    out
}

/// Whether a line is ours, and if so whether CSF follows it.
fn kind(line: &[u8], path: &str) -> Option<bool> {
    let text = std::str::from_utf8(line).ok()?;
    let (bare, end) = match text.strip_suffix('\n') {
        Some(bare) => (bare, true),
        None => (text, false),
    };
    let named = bare.trim().strip_prefix("Include")?;
    if named.trim() != path || !named.starts_with(char::is_whitespace) {
        return None;
    }
    // CSF takes CRLF for a line end, but in this file the line is ours and ends as ours do; without an end the next
    // `csf -a` would glue its entry to the path.
    Some(end && bare.starts_with("Include") && bare.ends_with(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &[u8] = b"Include /etc/csf/edgeallow.allow\n";

    #[test]
    fn our_line_goes_behind_the_last_line_end() {
        for (his, with) in [
            (&b""[..], OURS.to_vec()),
            (b"1.2.3.4\n", [b"1.2.3.4\n", OURS].concat()),
            (b"1.2.3.4\r\n", [b"1.2.3.4\r\n", OURS].concat()),
            (b"a\n1.2.3.4 # no newline", [b"a\n", OURS, b"1.2.3.4 # no newline"].concat()),
            (b"\xff\xfe", [OURS, b"\xff\xfe"].concat()),
        ] {
            assert_eq!(edit(his, ALLOW, true), with);
            assert_eq!(edit(&with, ALLOW, false), his);
            assert_eq!(find(&with, ALLOW), Found { good: 1, broken: 0 });
        }
    }

    #[test]
    fn a_line_that_csf_does_not_follow_is_broken() {
        for broken in [
            " Include /etc/csf/edgeallow.allow\n",
            "Include /etc/csf/edgeallow.allow \n",
            "Include /etc/csf/edgeallow.allow\r\n",
            "Include /etc/csf/edgeallow.allow",
        ] {
            assert_eq!(find(broken.as_bytes(), ALLOW), Found { good: 0, broken: 1 }, "{broken:?}");
            assert_eq!(edit(broken.as_bytes(), ALLOW, true), OURS, "{broken:?}");
        }
    }

    #[test]
    fn other_includes_are_his() {
        let his = b"Include /etc/csf/edgeallow.allow.mine\n#Include /etc/csf/edgeallow.allow\n\
            Include /etc/csf/edgeallow.allow1.2.3.4 # glued\nInclude /etc/csf/edgeallow.ignore\nInclude\t/x\n";
        assert_eq!(find(his, ALLOW), Found::default());
        assert_eq!(edit(his, ALLOW, false), his);
        assert_eq!(includes(his).last().unwrap(), "/x");
    }

    #[test]
    fn blocked_addresses_are_found_in_every_form() {
        let text =
            b"# 9.9.9.9\n173.245.48.5 # lfd: blocked\ntcp|in|d=80|s=104.16.0.1\r\n2400:cb00::/32\nInclude /x\nx\n";
        let found: Vec<_> = addresses(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["173.245.48.5/32", "104.16.0.1/32", "2400:cb00::/32"]);
    }

    #[test]
    fn comments_of_ours_are_ascii_and_do_not_hold_the_word_that_csf_looks_for() {
        assert!(HEAD.is_ascii() && HEAD.starts_with('#') && HEAD.ends_with('\n') && !HEAD.contains("Include"));
    }

    proptest! {
        #[test]
        fn his_bytes_never_change(his in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r')], 0..200)) {
            let with = edit(&his, ALLOW, true);
            prop_assert_eq!(find(&with, ALLOW), Found { good: 1, broken: 0 });
            prop_assert_eq!(&edit(&with, ALLOW, true), &with);
            prop_assert_eq!(edit(&with, ALLOW, false), his);
        }

        #[test]
        fn files_of_ours_come_back(ports in proptest::collection::btree_set(1_u16.., 1..20)) {
            let nets: Prefixes = ["10.0.0.0/8", "2400:cb00::/32"].iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
            let lines = super::super::line::wanted(&nets, &ports, &[crate::plan::Protocol::Tcp].into());
            prop_assert_eq!(allows(&allow_text(&lines)), lines);
        }
    }
}
