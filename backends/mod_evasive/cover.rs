//! IPv4 prefixes as mod_evasive 1.10.1 writes them: whole octets, the rest a star.
//!
//! Belongs here: the arithmetic. Does not: which variant needs it ([`super::seen`]).

use ipnet::Ipv4Net;

/// The fewest patterns that match exactly this prefix: `a.b.c.*`, `a.b.*.*`, `a.*.*.*` and plain addresses. Not an
/// address more: a pattern is never wider than the prefix, and so a /20 takes sixteen of them.
pub fn patterns(net: Ipv4Net) -> impl Iterator<Item = String> {
    // As many octets as the prefix reaches into; at least one, since a pattern begins with one.
    let octets = u32::from(net.prefix_len().div_ceil(8).max(1));
    let step = 1_u64 << (32 - 8 * octets);
    let (first, last) = (u64::from(u32::from(net.network())), u64::from(u32::from(net.broadcast())));
    (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)).map(move |start| {
        let octet = |at: u32| match at < octets {
            true => ((start >> (24 - 8 * at)) & 0xff).to_string(),
            false => "*".to_owned(),
        };
        (0..4).map(octet).collect::<Vec<_>>().join(".")
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::allowlist::snapshot;

    /// The addresses that a pattern matches: first and last.
    fn matches(pattern: &str) -> (u32, u32) {
        let bound = |star: u8| {
            let octets: Vec<u8> =
                pattern.split('.').map(|o| if o == "*" { star } else { o.parse().unwrap() }).collect();
            u32::from(Ipv4Addr::from(<[u8; 4]>::try_from(octets).unwrap()))
        };
        (bound(0), bound(255))
    }

    #[test]
    fn todays_list_takes_346_lines() {
        let nets = snapshot::built_in().unwrap().v4;
        assert_eq!(nets.iter().map(|n| patterns(*n).count()).sum::<usize>(), 346);
        let of = |net: &str| patterns(net.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(of("104.24.0.0/14"), ["104.24.*.*", "104.25.*.*", "104.26.*.*", "104.27.*.*"]);
        assert_eq!(of("131.0.72.0/22"), ["131.0.72.*", "131.0.73.*", "131.0.74.*", "131.0.75.*"]);
        assert_eq!(of("8.8.8.8/32"), ["8.8.8.8"]);
        assert_eq!(of("10.0.0.0/8"), ["10.*.*.*"]);
        assert_eq!(of("0.0.0.0/0").len(), 256);
    }

    proptest! {
        #[test]
        fn the_patterns_match_the_prefix_and_not_an_address_more(address: u32, length in 0_u8..=32) {
            let net = Ipv4Net::new(address.into(), length).unwrap().trunc();
            let mut next = u64::from(u32::from(net.network()));
            for pattern in patterns(net) {
                let (first, last) = matches(&pattern);
                prop_assert_eq!(u64::from(first), next);
                next = u64::from(last) + 1;
            }
            prop_assert_eq!(next, u64::from(u32::from(net.broadcast())) + 1);
        }
    }
}
