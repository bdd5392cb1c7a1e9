//! From the kernel's elements of an interval set to ranges, and from ranges to prefixes.
//!
//! The kernel holds an interval as two elements: its first key, and the key after its last one flagged as an end.
//! An interval that reaches the end of the address space has no second element. Dumps come in descending order.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::{
    allowlist::Prefixes,
    error::{Error, ErrorKind, Result},
};

use super::SetKind;

/// An element as the kernel tells it. Keys are left-aligned, in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawElement {
    /// The key, its first bytes.
    pub key: [u8; 16],
    /// Whether it is the end of an interval (`NFT_SET_ELEM_INTERVAL_END`).
    pub end: bool,
}

/// A range of keys as numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The first.
    pub first: u128,
    /// The last.
    pub last: u128,
}

/// Pairs starts and ends.
///
/// # Errors
/// `netlink` if an interval begins inside another: the kernel never holds that, so the dump was torn.
pub fn intervals(kind: SetKind, mut raw: Vec<RawElement>) -> Result<Vec<Interval>> {
    let bits = kind.key_len() * 8;
    // At equal keys the end of the previous interval comes before the start of the next.
    raw.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.end.cmp(&a.end)));
    let mut found = Vec::with_capacity(raw.len() / 2 + 1);
    let mut open: Option<u128> = None;
    for element in raw {
        let key = u128::from_be_bytes(element.key) >> (128 - bits);
        match (element.end, open) {
            (true, Some(first)) => {
                found.push(Interval { first, last: key.saturating_sub(1) });
                open = None;
            }
            // nft puts an end marker at the lowest address of some sets; it ends nothing.
            (true, None) => {}
            (false, None) => open = Some(key),
            (false, Some(_)) => {
                return Err(Error::new(ErrorKind::Netlink, "the kernel's list of elements makes no sense")
                    .hint("something changes that set all the time; run edgeallow again"));
            }
        }
    }
    if let Some(first) = open {
        found.push(Interval { first, last: u128::MAX >> (128 - bits) });
    }
    Ok(found)
}

/// The prefixes that cover the ranges, and whether every range was one prefix.
#[must_use]
pub fn prefixes(kind: SetKind, ranges: &[Interval]) -> (Prefixes, bool) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut exact = true;
    for range in ranges {
        let before = v4.len() + v6.len();
        if kind == SetKind::V4 {
            let end = |n: u128| Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX));
            cover4(end(range.first), end(range.last), &mut v4);
        } else {
            cover6(range.first.into(), range.last.into(), &mut v6);
        }
        exact &= v4.len() + v6.len() == before + 1;
    }
    (Prefixes::new(v4, v6), exact)
}

fn cover4(first: Ipv4Addr, last: Ipv4Addr, into: &mut Vec<Ipv4Net>) {
    into.extend(Ipv4Subnets::new(first, last, 0));
}

fn cover6(first: Ipv6Addr, last: Ipv6Addr, into: &mut Vec<Ipv6Net>) {
    into.extend(Ipv6Subnets::new(first, last, 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(address: &str, end: bool) -> RawElement {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&address.parse::<Ipv4Addr>().unwrap().octets());
        RawElement { key, end }
    }

    fn shown(raw: Vec<RawElement>) -> (Vec<String>, bool) {
        let (p, exact) = prefixes(SetKind::V4, &intervals(SetKind::V4, raw).unwrap());
        (p.iter().map(|n| n.to_string()).collect(), exact)
    }

    #[test]
    fn touching_prefixes_stay_two() {
        let raw = vec![
            v4("104.28.0.0", true),
            v4("104.24.0.0", false),
            v4("104.24.0.0", true),
            v4("104.16.0.0", false),
            v4("0.0.0.0", true),
        ];
        assert_eq!(shown(raw), (vec!["104.16.0.0/13".into(), "104.24.0.0/14".into()], true));
    }

    #[test]
    fn open_ends_reach_the_last_address() {
        assert_eq!(shown(vec![v4("128.0.0.0", false)]), (vec!["128.0.0.0/1".into()], true));
        assert_eq!(shown(vec![v4("0.0.0.0", false)]), (vec!["0.0.0.0/0".into()], true));
        let mut key = [0xff; 16];
        key[15] = 0;
        let seen = intervals(SetKind::V6, vec![RawElement { key, end: false }]).unwrap();
        assert_eq!(prefixes(SetKind::V6, &seen).0.v6()[0].prefix_len(), 120);
    }

    #[test]
    fn a_range_that_is_no_prefix_is_covered_and_told() {
        assert_eq!(
            shown(vec![v4("10.0.0.1", false), v4("10.0.0.4", true)]),
            (vec!["10.0.0.1/32".into(), "10.0.0.2/31".into()], false)
        );
    }

    #[test]
    fn a_torn_dump_is_an_error() {
        assert!(intervals(SetKind::V4, vec![v4("10.0.0.1", false), v4("10.0.0.4", false)]).is_err());
    }
}
