//! Values as iptables and ipset print them: numbers, ranges, addresses, protocols.
//!
//! Belongs here: text to numbers, and the short way to write a test. None always means that the text isn't understood.

use std::net::IpAddr;

use crate::{
    allowlist::Family,
    reach::{
        model::{Among, Element, Elements, Field, Key, Part, Test, Value},
        sources::{Sources, number},
    },
};

/// A test of one fact.
pub(super) fn test(key: impl Into<Key>, numbers: Sources, negated: bool) -> Part {
    Part::Test(Test { key: vec![key.into()], among: Among::These(Elements::Numbers(numbers, ())), negated })
}

/// A test of several facts together against a few combinations.
pub(super) fn any_of(key: Vec<Key>, combinations: Vec<Vec<Value>>, negated: bool) -> Part {
    let elements = combinations.into_iter().map(|key| Element { key, data: () }).collect();
    Part::Test(Test { key, among: Among::These(Elements::List(elements)), negated })
}

/// A test that no packet passes, or, negated, every packet.
pub(super) fn never(negated: bool) -> Part {
    test(Field::NfProto, Sources::default(), negated)
}

/// Some bits of a fact.
pub(super) fn masked(field: Field, mask: u128) -> Key {
    Key { field, mask: Some(mask) }
}

/// A number, decimal or `0x…`, up to a limit.
pub(super) fn int(text: &str, max: u32) -> Option<u32> {
    let digits = |t: &str, radix| {
        // `from_str_radix` takes a sign, iptables prints none.
        t.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(t, radix).ok()).flatten()
    };
    let n = match text.strip_prefix("0x") {
        Some(hex) => digits(hex, 16),
        None => digits(text, 10),
    };
    n.filter(|n| *n <= max)
}

/// `7` or `7:9`, or with another sign between.
pub(super) fn span(text: &str, sign: char, max: u32) -> Option<(u128, u128)> {
    let (first, last) = match text.split_once(sign) {
        Some((first, last)) => (int(first, max)?, int(last, max)?),
        None => (int(text, max)?, int(text, max)?),
    };
    (first <= last).then_some((u128::from(first), u128::from(last)))
}

/// `80`, `1024:65535`.
pub(super) fn ports(text: &str) -> Option<Sources> {
    Some(Sources::new(vec![span(text, ':', 0xffff)?]))
}

/// `80,443,1000:2000`.
pub(super) fn port_list(text: &str) -> Option<Sources> {
    text.split(',').map(|t| span(t, ':', 0xffff)).collect::<Option<Vec<_>>>().map(Sources::new)
}

/// `0x1/0xff`, or without a mask all bits.
pub(super) fn mark(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((int(value, u32::MAX)?, int(mask, u32::MAX)?)),
        None => Some((int(text, u32::MAX)?, u32::MAX)),
    }
}

/// An address of that family.
pub(super) fn address(text: &str, family: Family) -> Option<IpAddr> {
    let address: IpAddr = match family {
        Family::V4 => IpAddr::V4(text.parse().ok()?),
        Family::V6 => IpAddr::V6(text.parse().ok()?),
    };
    Some(address)
}

/// How many bits an address has.
pub(super) const fn width(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// All bits of an address.
pub(super) const fn full(family: Family) -> u128 {
    u128::MAX >> (128 - width(family))
}

/// First and last number of a prefix of that length.
pub(super) fn prefix(address: u128, len: u32, family: Family) -> Option<(u128, u128)> {
    let host = width(family).checked_sub(len)?;
    let low = u128::MAX.checked_shl(host).map_or(u128::MAX, |high| !high);
    Some((address & !low & full(family), (address | low) & full(family)))
}

/// A key and its values for an address with or without a mask; a mask with holes becomes the key's.
pub(super) fn net(text: &str, field: Field, family: Family) -> Option<(Key, Sources)> {
    let Some((ip, mask)) = text.split_once('/') else {
        return Some((field.into(), Sources::one(number(address(text, family)?))));
    };
    let ip = number(address(ip, family)?);
    let len = match int(mask, width(family)) {
        Some(len) => len,
        None => {
            let mask = number(address(mask, family)?);
            let host = mask.trailing_zeros().min(width(family));
            if prefix(full(family), width(family) - host, family)?.0 != mask {
                return Some((masked(field, mask), Sources::one(ip & mask)));
            }
            width(family) - host
        }
    };
    Some((field.into(), Sources::new(vec![prefix(ip, len, family)?])))
}

/// `1.2.3.4-1.2.3.9`, or one address.
pub(super) fn addresses(text: &str, family: Family) -> Option<(u128, u128)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(address(first, family)?), number(address(last, family)?));
    (first <= last).then_some((first, last))
}

/// The number of a protocol: as /etc/protocols and iptables' own list (`xtables_chain_protos`) name it, or digits.
pub(super) fn protocol(name: &str) -> Option<u8> {
    let number = match name {
        "hopopt" => 0,
        "icmp" => 1,
        "igmp" => 2,
        "ggp" => 3,
        "ipencap" | "ipv4" => 4,
        "st" => 5,
        "tcp" => 6,
        "egp" => 8,
        "igp" => 9,
        "pup" => 12,
        "udp" => 17,
        "hmp" => 20,
        "xns-idp" => 22,
        "rdp" => 27,
        "iso-tp4" => 29,
        "dccp" => 33,
        "xtp" => 36,
        "ddp" => 37,
        "idpr-cmtp" => 38,
        "ipv6" => 41,
        "ipv6-route" => 43,
        "ipv6-frag" => 44,
        "idrp" => 45,
        "rsvp" => 46,
        "gre" => 47,
        "esp" | "ipv6-crypt" => 50,
        "ah" | "ipv6-auth" => 51,
        "skip" => 57,
        "ipv6-icmp" | "icmpv6" => 58,
        "ipv6-nonxt" => 59,
        "ipv6-opts" => 60,
        "rspf" => 73,
        "vmtp" => 81,
        "eigrp" => 88,
        "ospf" | "ospfigp" => 89,
        "ax.25" => 93,
        "ipip" => 94,
        "etherip" => 97,
        "encap" => 98,
        "pim" => 103,
        "ipcomp" => 108,
        "vrrp" | "carp" => 112,
        "l2tp" => 115,
        "isis" => 124,
        "sctp" => 132,
        "fc" => 133,
        "mobility-header" | "ipv6-mh" | "mh" => 135,
        "udplite" => 136,
        "mpls-in-ip" => 137,
        "manet" => 138,
        "hip" => 139,
        "shim6" => 140,
        "wesp" => 141,
        "rohc" => 142,
        "ethernet" => 143,
        digits => return int(digits, 255).and_then(|n| u8::try_from(n).ok()),
    };
    Some(number)
}
