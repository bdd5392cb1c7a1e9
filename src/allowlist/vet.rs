//! Can this list be trusted with a firewall? The only way to a [`Vetted`] list.
//!
//! Belongs here: every rule by which a list is refused, each with its own error kind, naming the offending prefix.
//! Does not: syntax ([`super::parse`]), when a vanished range is really removed ([`super::removal`]).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Family, Prefixes, RawList, special};
use crate::error::{Error, ErrorKind, Result};

/// A list that passed every rule. Only [`vet`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vetted(Prefixes);

impl Vetted {
    /// The prefixes, in canonical form.
    #[must_use]
    pub fn prefixes(&self) -> &Prefixes {
        &self.0
    }

    /// The prefixes, in canonical form.
    #[must_use]
    pub fn into_prefixes(self) -> Prefixes {
        self.0
    }
}

/// What a list must keep to. The defaults fit Cloudflare's list; other lists raise them in `[limits]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Most prefixes of both families together.
    pub max_prefixes: usize,
    /// Fewest IPv4 prefixes; 0 allows a list without IPv4.
    pub min_v4: usize,
    /// Fewest IPv6 prefixes; 0 allows a list without IPv6.
    pub min_v6: usize,
    /// Shortest IPv4 prefix length.
    pub widest_v4: u8,
    /// Shortest IPv6 prefix length.
    pub widest_v6: u8,
    /// Most of the last list's addresses, in percent, that may be gone in either family.
    pub max_shrink_percent: u8,
    /// How many times the last list's addresses a family may have.
    pub max_growth: u32,
    /// Don't judge how much is gone (`--allow-shrink`).
    pub allow_shrink: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_prefixes: 512,
            min_v4: 5,
            min_v6: 3,
            widest_v4: 10,
            widest_v6: 24,
            max_shrink_percent: 60,
            max_growth: 4,
            allow_shrink: false,
        }
    }
}

/// Judges a list, beside the last good one if there is one.
///
/// # Errors
/// The kind names the rule that refused it, the message the prefix or the numbers.
pub fn vet(raw: RawList, last: Option<&Prefixes>, policy: &Policy) -> Result<Vetted> {
    if raw.v4.is_empty() && raw.v6.is_empty() {
        return Err(Error::new(ErrorKind::ListNotAList, "the list holds no prefix at all"));
    }
    let list = Prefixes::new(raw.v4, raw.v6);
    too_wide(&list, policy)?;
    special_purpose(&list)?;
    numbers(&list, policy)?;
    if let Some(last) = last {
        shrunk_or_grown(&list, last, policy)?;
    }
    Ok(Vetted(list))
}

fn too_wide(list: &Prefixes, policy: &Policy) -> Result<()> {
    let v4 = list.v4().iter().find(|n| n.prefix_len() < policy.widest_v4).map(|n| (IpNet::V4(*n), policy.widest_v4));
    let v6 = list.v6().iter().find(|n| n.prefix_len() < policy.widest_v6).map(|n| (IpNet::V6(*n), policy.widest_v6));
    match v4.or(v6) {
        None => Ok(()),
        Some((net, limit)) => Err(Error::new(
            ErrorKind::ListTooWide,
            format!("{net} is wider than /{limit}, the widest prefix that is believed"),
        )
        .hint("if you really mean it, set limits.widest_v4 or limits.widest_v6 in the configuration")),
    }
}

fn special_purpose(list: &Prefixes) -> Result<()> {
    let v4 = special::V4.iter().find_map(|(block, name)| {
        overlapping(list.v4(), block, Ipv4Net::network, |a, b| a.contains(b))
            .map(|n| (IpNet::V4(n), IpNet::V4(*block), name))
    });
    let v6 = special::V6.iter().find_map(|(block, name)| {
        overlapping(list.v6(), block, Ipv6Net::network, |a, b| a.contains(b))
            .map(|n| (IpNet::V6(n), IpNet::V6(*block), name))
    });
    match v4.or(v6) {
        None => Ok(()),
        Some((net, block, name)) => Err(Error::new(
            ErrorKind::ListSpecialPurpose,
            format!("{net} overlaps {block}, which is {name}: nobody on the internet has such an address"),
        )
        .hint("your own networks belong into `extra` in the configuration, not into the list")),
    }
}

/// The first prefix of a sorted, disjoint list that overlaps a block.
fn overlapping<N: Copy, A: Ord>(
    list: &[N],
    block: &N,
    network: impl Fn(&N) -> A,
    contains: impl Fn(&N, &N) -> bool,
) -> Option<N> {
    let at = list.partition_point(|n| network(n) < network(block));
    let before = at.checked_sub(1).map(|i| list[i]).filter(|n| contains(n, block));
    before.or_else(|| list.get(at).copied().filter(|n| contains(block, n) || contains(n, block)))
}

fn numbers(list: &Prefixes, policy: &Policy) -> Result<()> {
    let (v4, v6) = (list.v4().len(), list.v6().len());
    for (count, least, name) in [(v4, policy.min_v4, "IPv4"), (v6, policy.min_v6, "IPv6")] {
        if count == 0 && least > 0 {
            return Err(Error::new(ErrorKind::ListFamilyMissing, format!("the list holds no {name} prefix"))
                .hint("half a list would lock the other half of the visitors out; fetch both families at one time"));
        }
        if count < least {
            return Err(Error::new(
                ErrorKind::ListTooFew,
                format!("the list holds {count} {name} prefixes; at least {least} are expected"),
            )
            .hint("for a list that isn't Cloudflare's, set limits.min_v4 and limits.min_v6"));
        }
    }
    if v4 + v6 > policy.max_prefixes {
        return Err(Error::new(
            ErrorKind::ListTooMany,
            format!("the list holds {} prefixes; the limit is {}", v4 + v6, policy.max_prefixes),
        )
        .hint("for a big list, raise limits.max_prefixes"));
    }
    Ok(())
}

fn shrunk_or_grown(list: &Prefixes, last: &Prefixes, policy: &Policy) -> Result<()> {
    for family in Family::BOTH {
        let before = last.space(family);
        if before == 0 {
            continue;
        }
        // Compared as shares in floating point: the sums don't fit whole-number percentages of 2^128.
        #[allow(clippy::cast_precision_loss)]
        let (before_f, gone, now) =
            (before as f64, (before - last.shared_space(list, family).min(before)) as f64, list.space(family) as f64);
        let percent = gone / before_f * 100.0;
        if !policy.allow_shrink && percent > f64::from(policy.max_shrink_percent) {
            return Err(Error::new(
                ErrorKind::ListShrunk,
                format!(
                    "{percent:.0} % of the last list's {} address space is gone; {} % is the most that is believed",
                    family.as_str(),
                    policy.max_shrink_percent
                ),
            )
            .hint("look at https://www.cloudflare.com/ips/; if it is true, run once with --allow-shrink"));
        }
        if now > before_f * f64::from(policy.max_growth) {
            return Err(Error::new(
                ErrorKind::ListGrown,
                format!(
                    "the list has {:.1} times the {} address space of the last one; {} times is the most that is believed",
                    now / before_f,
                    family.as_str(),
                    policy.max_growth
                ),
            )
            .hint("look at https://www.cloudflare.com/ips/; if it is true, run once with a --config that raises limits.max_growth"));
        }
    }
    Ok(())
}
