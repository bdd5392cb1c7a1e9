//! A set of prefixes in canonical form, and the arithmetic on it.
//!
//! Canonical means: each family sorted, no duplicates, no prefix inside another. Neighbours are never merged: what
//! Cloudflare publishes as two prefixes stays two. Everything is a merge of sorted lists, so a million prefixes cost
//! a few milliseconds and no tree.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are always shown.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// `v4` or `v6`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

/// Prefixes of both families in canonical form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Prefixes {
    /// Brings any prefixes into canonical form: host bits cleared, sorted, duplicates and contained ones removed.
    #[must_use]
    pub fn new(v4: Vec<Ipv4Net>, v6: Vec<Ipv6Net>) -> Self {
        let v4 = canonical(v4.into_iter().map(|n| n.trunc()).collect(), |a, b| a.contains(b));
        let v6 = canonical(v6.into_iter().map(|n| n.trunc()).collect(), |a, b| a.contains(b));
        Self { v4, v6 }
    }

    /// The IPv4 prefixes, sorted.
    #[must_use]
    pub fn v4(&self) -> &[Ipv4Net] {
        &self.v4
    }

    /// The IPv6 prefixes, sorted.
    #[must_use]
    pub fn v6(&self) -> &[Ipv6Net] {
        &self.v6
    }

    /// How many prefixes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// How many prefixes of one family.
    #[must_use]
    pub fn count(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        }
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// All prefixes, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.v4.iter().copied().map(IpNet::V4).chain(self.v6.iter().copied().map(IpNet::V6))
    }

    /// The prefixes of one family.
    pub fn family(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        let (v4, v6): (&[_], &[_]) = match family {
            Family::V4 => (&self.v4, &[]),
            Family::V6 => (&[], &self.v6),
        };
        v4.iter().copied().map(IpNet::V4).chain(v6.iter().copied().map(IpNet::V6))
    }

    /// The same without the other family.
    #[must_use]
    pub fn only(&self, family: Family) -> Self {
        match family {
            Family::V4 => Self { v4: self.v4.clone(), v6: Vec::new() },
            Family::V6 => Self { v4: Vec::new(), v6: self.v6.clone() },
        }
    }

    /// The prefixes that stand here and not, letter for letter, in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self { v4: missing(&self.v4, &other.v4), v6: missing(&self.v6, &other.v6) }
    }

    /// Both together, canonical again.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut v4 = self.v4.clone();
        v4.extend_from_slice(&other.v4);
        let mut v6 = self.v6.clone();
        v6.extend_from_slice(&other.v6);
        Self::new(v4, v6)
    }

    /// Whether the prefix lies wholly inside one of these.
    #[must_use]
    pub fn covers(&self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(n) => {
                let at = self.v4.partition_point(|p| p.network() <= n.network());
                at > 0 && self.v4[at - 1].contains(n)
            }
            IpNet::V6(n) => {
                let at = self.v6.partition_point(|p| p.network() <= n.network());
                at > 0 && self.v6[at - 1].contains(n)
            }
        }
    }

    /// Whether the address lies inside one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => {
                let at = self.v4.partition_point(|p| u32::from(p.addr()) <= u32::from(a));
                at > 0 && self.v4[at - 1].contains(&a)
            }
            IpAddr::V6(a) => {
                let at = self.v6.partition_point(|p| u128::from(p.addr()) <= u128::from(a));
                at > 0 && self.v6[at - 1].contains(&a)
            }
        }
    }

    /// How many addresses one family covers; `u128::MAX` stands for "all of IPv6".
    #[must_use]
    pub fn space(&self, family: Family) -> u128 {
        self.ranges(family).fold(0, |sum: u128, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// How many addresses of one family lie both here and in `other`.
    #[must_use]
    pub fn shared_space(&self, other: &Self, family: Family) -> u128 {
        let (mut a, mut b) = (self.ranges(family).peekable(), other.ranges(family).peekable());
        let mut sum = 0_u128;
        while let (Some(&(a_first, a_last)), Some(&(b_first, b_last))) = (a.peek(), b.peek()) {
            let (first, last) = (a_first.max(b_first), a_last.min(b_last));
            if first <= last {
                sum = sum.saturating_add((last - first).saturating_add(1));
            }
            if a_last <= b_last {
                a.next()
            } else {
                b.next()
            };
        }
        sum
    }

    /// First and last address of each prefix, as numbers, ascending.
    fn ranges(&self, family: Family) -> impl Iterator<Item = (u128, u128)> + '_ {
        let (v4, v6): (&[_], &[_]) = match family {
            Family::V4 => (&self.v4, &[]),
            Family::V6 => (&[], &self.v6),
        };
        let v4 = v4.iter().map(|n| (u128::from(u32::from(n.network())), u128::from(u32::from(n.broadcast()))));
        v4.chain(v6.iter().map(|n| (u128::from(n.network()), u128::from(n.broadcast()))))
    }
}

impl FromIterator<IpNet> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(n) => v4.push(n),
                IpNet::V6(n) => v6.push(n),
            }
        }
        Self::new(v4, v6)
    }
}

/// Sorts and drops what is contained in its predecessor: by address, then the wider first.
fn canonical<N: Ord + Copy>(mut nets: Vec<N>, contains: impl Fn(&N, &N) -> bool) -> Vec<N> {
    // ipnet orders by network address, then by prefix length: a containing prefix always comes first.
    nets.sort_unstable();
    nets.dedup_by(|next, kept| contains(kept, next));
    nets
}

/// What stands in `a` and not in `b`; both sorted.
pub(crate) fn missing<T: Ord + Clone>(a: &[T], b: &[T]) -> Vec<T> {
    let mut rest = b.iter().peekable();
    a.iter()
        .filter(|x| {
            while rest.next_if(|y| y < x).is_some() {}
            rest.peek() != Some(x)
        })
        .cloned()
        .collect()
}

/// A network as most tools write it: a lone address without its length.
pub(crate) fn short(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nets: &[&str]) -> Prefixes {
        nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect()
    }

    fn shown(p: &Prefixes) -> Vec<String> {
        p.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn contained_prefixes_go_and_neighbours_stay() {
        let p = set(&[
            "104.24.0.0/14",
            "104.16.0.0/13",
            "104.17.0.0/16",
            "104.16.0.0/13",
            "2400:cb00:1::/48",
            "2400:cb00::/32",
        ]);
        assert_eq!(shown(&p), ["104.16.0.0/13", "104.24.0.0/14", "2400:cb00::/32"]);
    }

    #[test]
    fn difference_is_by_the_letter() {
        let new = set(&["104.16.0.0/13", "104.24.0.0/14", "131.0.72.0/22"]);
        let old = set(&["104.16.0.0/12", "131.0.72.0/22"]);
        assert_eq!(shown(&new.minus(&old)), ["104.16.0.0/13", "104.24.0.0/14"]);
        assert_eq!(shown(&old.minus(&new)), ["104.16.0.0/12"]);
    }

    #[test]
    fn covering_and_space() {
        let p = set(&["104.16.0.0/13", "2400:cb00::/32"]);
        assert!(p.contains("104.23.255.255".parse().unwrap()));
        assert!(!p.contains("104.24.0.0".parse().unwrap()));
        assert!(!p.covers(&"104.16.0.0/12".parse().unwrap()));
        assert_eq!(p.space(Family::V4), 1 << 19);
        assert_eq!(p.space(Family::V6), 1 << 96);
        assert_eq!(set(&["::/0"]).space(Family::V6), u128::MAX);
    }

    #[test]
    fn shared_space_counts_each_address_once() {
        let old = set(&["104.16.0.0/12", "131.0.72.0/22"]);
        let new = set(&["104.16.0.0/13", "104.24.0.0/14", "10.0.0.0/8"]);
        assert_eq!(old.shared_space(&new, Family::V4), (1 << 19) + (1 << 18));
        assert_eq!(new.shared_space(&old, Family::V4), (1 << 19) + (1 << 18));
        assert_eq!(old.shared_space(&new, Family::V6), 0);
    }
}
