//! Address space that no published list may touch: the IANA special-purpose registries, and what isn't global unicast.
//!
//! Sources: IANA "IPv4 Special-Purpose Address Registry", "IPv6 Special-Purpose Address Registry", RFC 5771 and
//! RFC 4291 for multicast, RFC 1112 for the reserved class E.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A block of IPv4 space and what it is for.
pub(super) const V4: [(Ipv4Net, &str); 18] = [
    (v4(0, 0, 0, 0, 8), "\"this network\""),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by carriers (CGNAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "for IETF protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 31, 196, 0, 24), "for AS112"),
    (v4(192, 52, 193, 0, 24), "for AMT"),
    (v4(192, 88, 99, 0, 24), "for 6to4 relays"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(192, 175, 48, 0, 24), "for AS112"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Blocks of IPv6 space and what they are for; the wide blocks around 2000::/3 come last, so that the name is exact.
pub(super) const V6: [(Ipv6Net, &str); 19] = [
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "IPv4-mapped"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "for IPv4 translation"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "for local IPv4 translation"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard-only"),
    (v6([0; 8], 8), "unspecified, loopback or reserved"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "for IETF protocols"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "for documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "for 6to4"),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), "for AS112"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "for documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "for segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private (unique local)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (v6([0; 8], 3), "not global unicast"),
    (v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2), "not global unicast"),
    (v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 2), "not global unicast"),
    (v6([0xc000, 0, 0, 0, 0, 0, 0, 0], 2), "not global unicast"),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(s: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), length)
}
