//! From bytes to prefixes: the text shape of a list, and the single entries of the JSON shape.
//!
//! Belongs here: syntax. Does not: whether the prefixes make sense ([`super::vet()`]), the JSON envelope
//! (`source::json`).
//!
//! Accepted alike: CRLF, a byte-order mark, no final newline, blank lines, `#` comments, blanks around entries.
//! A bare address is refused: a cut-off `131.0.72.0/22` would otherwise pass as one host.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, ErrorKind, Result};

/// Prefixes as they stood in a document: any order, duplicates and all, host bits already refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawList {
    /// IPv4, in order of appearance.
    pub v4: Vec<Ipv4Net>,
    /// IPv6, in order of appearance.
    pub v6: Vec<Ipv6Net>,
}

impl RawList {
    /// Appends another document's prefixes.
    pub fn extend(&mut self, other: Self) {
        self.v4.extend(other.v4);
        self.v6.extend(other.v6);
    }

    fn push(&mut self, net: IpNet) {
        match net {
            IpNet::V4(n) => self.v4.push(n),
            IpNet::V6(n) => self.v6.push(n),
        }
    }
}

/// Reads the text shape: one prefix a line. `name` is what the document is called in messages.
///
/// # Errors
/// `list-not-a-list` for HTML, JSON, binary or nothing at all; `list-syntax` and `list-host-bits` with line and entry.
pub fn text(name: &str, bytes: &[u8]) -> Result<RawList> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|e| not_a_list(name, &format!("it is not UTF-8 text (byte {})", e.valid_up_to())))?;
    if text.contains('\0') {
        return Err(not_a_list(name, "it is binary"));
    }
    match text.trim_start().bytes().next() {
        None => return Err(not_a_list(name, "it is empty")),
        Some(b'<') => return Err(not_a_list(name, "it is an HTML page")),
        Some(b'{' | b'[') => return Err(not_a_list(name, "it is JSON of another shape")),
        Some(_) => {}
    }
    let mut list = RawList::default();
    for (number, line) in text.lines().enumerate() {
        let entry = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if !entry.is_empty() {
            list.push(one(name, Some(number + 1), entry)?);
        }
    }
    Ok(list)
}

/// Reads single entries, as they stand in JSON arrays and in the configuration.
///
/// # Errors
/// `list-syntax` and `list-host-bits` with the entry.
pub fn entries<S: AsRef<str>>(name: &str, entries: impl IntoIterator<Item = S>) -> Result<RawList> {
    let mut list = RawList::default();
    for entry in entries {
        list.push(one(name, None, entry.as_ref().trim())?);
    }
    Ok(list)
}

fn not_a_list(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::ListNotAList, format!("{name} is not a list of prefixes: {why}"))
        .hint("a list has one prefix a line, such as 173.245.48.0/20, or the JSON shape of Cloudflare's API")
}

fn one(name: &str, line: Option<usize>, entry: &str) -> Result<IpNet> {
    let place = || line.map_or_else(|| name.to_owned(), |n| format!("{name}, line {n}"));
    let net = prefix(entry).ok_or_else(|| {
        let mut shown: String = entry.chars().take(60).flat_map(char::escape_debug).collect();
        if shown.len() < entry.len() {
            shown.push('…');
        }
        let e = Error::new(ErrorKind::ListSyntax, format!("{}: `{shown}` is not a prefix", place()));
        match entry.parse::<std::net::IpAddr>() {
            Ok(address) => e.hint(format!("write a single address with its length: {}", IpNet::from(address))),
            Err(_) => e.hint("a prefix is an address and a length, such as 173.245.48.0/20 or 2400:cb00::/32"),
        }
    })?;
    if net.trunc() != net {
        return Err(Error::new(ErrorKind::ListHostBits, format!("{}: {net} has bits set behind its length", place()))
            .hint(format!("the network would be {}; if that is meant, write it so", net.trunc())));
    }
    Ok(net)
}

/// An address in its strict form (no leading zeros, no scope), a slash, a length.
fn prefix(entry: &str) -> Option<IpNet> {
    let (address, length) = entry.split_once('/')?;
    let plain = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| plain)?).ok()
}
