//! Sets of addresses as sorted intervals: what a rule that looks at the source splits.
//!
//! Belongs here: set algebra on addresses of one family. Does not: prefixes as an operator writes them
//! ([`crate::allowlist::Prefixes`]).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::allowlist::Family;

/// Addresses (or any other numbers) of one kind, as sorted, disjoint, non-touching closed intervals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sources {
    // Shared: a rule for all of a million ranges leaves them as they are, and most rules are for all or for none.
    ranges: Arc<Vec<(u128, u128)>>,
}

impl Sources {
    /// Every number there is.
    #[must_use]
    pub fn all() -> Self {
        Self::of(vec![(0, u128::MAX)])
    }

    /// One number.
    #[must_use]
    pub fn one(number: u128) -> Self {
        Self::of(vec![(number, number)])
    }

    /// From what is sorted, disjoint and doesn't touch.
    fn of(ranges: Vec<(u128, u128)>) -> Self {
        Self { ranges: Arc::new(ranges) }
    }

    /// From closed intervals in any order, overlapping or not. Those that end before they begin are left out.
    #[must_use]
    pub fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let is_joined = next.0 <= kept.1.saturating_add(1);
            if is_joined {
                kept.1 = kept.1.max(next.1);
            }
            is_joined
        });
        Self::of(ranges)
    }

    /// The intervals, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.ranges
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the number is in it.
    #[must_use]
    pub fn contains(&self, number: u128) -> bool {
        let at = self.ranges.partition_point(|r| r.0 <= number);
        at > 0 && self.ranges[at - 1].1 >= number
    }

    /// Whether all of a prefix is in it.
    #[must_use]
    pub fn holds(&self, net: &IpNet) -> bool {
        let (first, last) = bounds(net);
        let at = self.ranges.partition_point(|r| r.0 <= first);
        at > 0 && self.ranges[at - 1].1 >= last
    }

    /// All of these together.
    #[must_use]
    pub fn of_all<'s>(sets: impl IntoIterator<Item = &'s Self>) -> Self {
        let some: Vec<&Self> = sets.into_iter().filter(|set| !set.is_empty()).collect();
        match some.as_slice() {
            [] => Self::default(),
            [one] => (*one).clone(),
            more => Self::new(more.iter().flat_map(|set| set.ranges()).copied().collect()),
        }
    }

    /// Both together.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of_all([self, other])
    }

    /// What is in both. Takes the time of the smaller one times the logarithm of the larger, plus the answer's size.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (small, large) = if self.ranges.len() <= other.ranges.len() { (self, other) } else { (other, self) };
        if let (&[one], Some(first), Some(last)) = (small.ranges(), large.ranges.first(), large.ranges.last())
            && one.0 <= first.0
            && last.1 <= one.1
        {
            return large.clone();
        }
        let mut shared = Vec::new();
        // The first so many are in it as they are: as long as all are, nothing is copied.
        let mut whole = 0;
        for (at, &(first, last)) in small.ranges().iter().enumerate() {
            let from = large.ranges.partition_point(|r| r.1 < first);
            if at == whole {
                if large.ranges.get(from).is_some_and(|r| r.0 <= first && last <= r.1) {
                    whole += 1;
                    continue;
                }
                shared.extend_from_slice(&small.ranges[..whole]);
            }
            let meeting = large.ranges[from..].iter().take_while(|r| r.0 <= last);
            shared.extend(meeting.map(|&(f, l)| (f.max(first), l.min(last))));
        }
        if whole == small.ranges.len() {
            return small.clone();
        }
        // Parts of disjoint, non-touching intervals are disjoint and, within one interval of each, don't touch.
        Self::of(shared)
    }

    /// What is here and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return self.clone();
        }
        let mut rest = Vec::with_capacity(self.ranges.len());
        for &(first, last) in self.ranges() {
            let mut next = Some(first);
            let from = other.ranges.partition_point(|r| r.1 < first);
            for &(f, l) in other.ranges[from..].iter().take_while(|r| r.0 <= last) {
                let Some(start) = next else { break };
                if f > start {
                    rest.push((start, f - 1));
                }
                next = l.checked_add(1).filter(|n| *n <= last);
            }
            if let Some(start) = next {
                rest.push((start, last));
            }
        }
        Self::of(rest)
    }

    /// Whether all of the other is in here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// How many numbers there are; `u128::MAX` also stands for one more.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.ranges.iter().fold(0, |sum: u128, (f, l)| sum.saturating_add((l - f).saturating_add(1)))
    }

    /// As the fewest prefixes, ascending.
    #[must_use]
    pub fn prefixes(&self, family: Family) -> Vec<IpNet> {
        let of = |&(first, last): &(u128, u128)| -> Vec<IpNet> {
            match family {
                Family::V4 => Ipv4Subnets::new(v4(first), v4(last), 0).map(IpNet::V4).collect(),
                Family::V6 => Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0).map(IpNet::V6).collect(),
            }
        };
        self.ranges.iter().flat_map(of).collect()
    }
}

/// An IPv4 address from its number; what doesn't fit is the highest.
fn v4(number: u128) -> Ipv4Addr {
    Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// An address as a number.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// A number as an address.
#[must_use]
pub fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(v4(number)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// First and last address of a prefix, as numbers.
#[must_use]
pub fn bounds(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

impl From<&IpNet> for Sources {
    fn from(net: &IpNet) -> Self {
        Self::new(vec![bounds(net)])
    }
}

impl<'a> FromIterator<&'a IpNet> for Sources {
    fn from_iter<I: IntoIterator<Item = &'a IpNet>>(nets: I) -> Self {
        Self::new(nets.into_iter().map(bounds).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> impl Strategy<Value = Vec<(u128, u128)>> {
        proptest::collection::vec((0_u128..40, 0_u128..8).prop_map(|(f, n)| (f, f + n)), 0..8)
    }

    fn holds(ranges: &[(u128, u128)], n: u128) -> bool {
        ranges.iter().any(|(f, l)| (*f..=*l).contains(&n))
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in small(), b in small()) {
            let (x, y) = (Sources::new(a.clone()), Sources::new(b.clone()));
            for n in 0..50 {
                let (in_a, in_b) = (holds(&a, n), holds(&b, n));
                prop_assert_eq!(x.contains(n), in_a);
                prop_assert_eq!(x.union(&y).contains(n), in_a || in_b);
                prop_assert_eq!(x.intersect(&y).contains(n), in_a && in_b);
                prop_assert_eq!(x.minus(&y).contains(n), in_a && !in_b);
            }
            for set in [x.union(&y), x.intersect(&y), x.minus(&y)] {
                prop_assert_eq!(&Sources::new(set.ranges().to_vec()), &set, "canonical");
            }
        }

        #[test]
        fn prefixes_cover_exactly(a in small()) {
            let x = Sources::new(a);
            for net in Sources::new(vec![(0, 63)]).prefixes(Family::V4).iter().flat_map(|all| all.subnets(30).expect("a longer length")) {
                prop_assert_eq!(x.holds(&net), x.covers(&Sources::from(&net)), "{}", net);
            }
            let back: Sources = x.prefixes(Family::V4).iter().collect();
            prop_assert_eq!(back, x);
        }
    }

    #[test]
    fn the_ends_of_the_number_line() {
        let all = Sources::all();
        assert_eq!(all.minus(&Sources::one(u128::MAX)).ranges(), [(0, u128::MAX - 1)]);
        assert_eq!(all.minus(&Sources::one(0)).ranges(), [(1, u128::MAX)]);
        assert!(all.minus(&all).is_empty());
        assert_eq!(all.count(), u128::MAX);
        assert_eq!(all.prefixes(Family::V6).len(), 1);
    }
}
