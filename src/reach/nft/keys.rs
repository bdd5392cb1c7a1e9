//! The left sides of matches: which fact about a packet an expression looks at, and what it takes for granted.
//!
//! nft leaves out of its listing what follows from the rest: `tcp dport 80` is a test of the protocol, then of the port. The
//! listing shows the second only, so the first is put back here.
//!
//! Belongs here: expressions that look at a packet. Does not: what they are compared with (`kinds`, `sets`).

use super::{json::Json, kinds::Kind, words::words};
use crate::{
    nft::TableFamily,
    reach::model::{Among, Elements, Field, Key, Part, Test},
    reach::sources::Sources,
};

/// What an expression looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Looks {
    /// Tests that come before, though they aren't written.
    pub first: Vec<Part>,
    /// The facts, each with its kind; or, in words, what isn't understood.
    pub at: Result<Vec<(Key, Kind)>, String>,
}

impl Looks {
    /// The facts alone.
    pub fn keys(keys: &[(Key, Kind)]) -> Vec<Key> {
        keys.iter().map(|(key, _)| *key).collect()
    }
}

/// A test of one fact for one number.
pub fn is(field: Field, n: u128) -> Part {
    let among = Among::These(Elements::Numbers(Sources::one(n), ()));
    Part::Test(Test { key: vec![field.into()], among, negated: false })
}

/// The test that a packet is of a network protocol; none where every packet in such a table is.
pub fn network(family: TableFamily, v6: bool) -> Option<Part> {
    match family {
        TableFamily::Ip if !v6 => None,
        TableFamily::Ip6 if v6 => None,
        // Tables of these families see frames: `meta nfproto` there says "netdev" or "bridge".
        TableFamily::Other(_) => Some(is(Field::EtherType, if v6 { 0x86dd } else { 0x0800 })),
        _ => Some(is(Field::NfProto, if v6 { 10 } else { 2 })),
    }
}

/// What an expression in a table of this family looks at.
pub fn looks(family: TableFamily, expression: &Json<'_>) -> Looks {
    let mut first = Vec::new();
    let at = keys(family, expression, &mut first);
    Looks { first, at }
}

type Keys = Result<Vec<(Key, Kind)>, String>;

fn keys(family: TableFamily, expression: &Json<'_>, first: &mut Vec<Part>) -> Keys {
    let unknown = || Err(words(expression));
    match expression.only() {
        Some(("concat", Json::List(parts))) if !parts.is_empty() => {
            // All of it is looked at, so that nothing that is taken for granted is missed.
            let each: Vec<Keys> = parts.iter().map(|p| keys(family, p, first)).collect();
            let all = each.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
            if all.len() == parts.len() { Ok(all) } else { unknown() }
        }
        Some(("elem", elem)) => match elem.get("val") {
            Some(val) => keys(family, val, first),
            None => unknown(),
        },
        Some(("&", Json::List(parts))) if parts.len() >= 2 => {
            let mut key = keys(family, &parts[0], first)?;
            let [(Key { mask, .. }, kind)] = key.as_mut_slice() else { return unknown() };
            let numeric = !matches!(kind, Kind::Name | Kind::Index | Kind::Bool);
            for bits in &parts[1..] {
                // Of the offset of a fragment it is only known whether it is zero; in an unfragmented packet all its bits are.
                let as_kind = if *kind == Kind::Zero { Kind::Number } else { *kind };
                let bits = as_kind.single(bits).filter(|_| numeric).ok_or_else(|| words(expression))?;
                if *kind == Kind::Zero {
                    if !matches!(bits, 0x1fff | 0x3fff | 0x2000) {
                        return unknown();
                    }
                } else {
                    *mask = Some(mask.map_or(bits, |m| m & bits));
                }
            }
            Ok(key)
        }
        Some(("payload", payload)) => self::payload(family, payload, first).ok_or_else(|| words(expression)),
        Some(("exthdr", header)) => {
            first.extend(network(family, true));
            match (header.text_of("name"), header.get("field")) {
                (Some("frag"), None) => Ok(one(Field::Fragment, Kind::Bool)),
                (Some("frag"), Some(_)) => {
                    first.push(is(Field::Fragment, 1));
                    unknown()
                }
                _ => unknown(),
            }
        }
        Some(("tcp option", _)) => {
            first.push(is(Field::L4Proto, 6));
            unknown()
        }
        Some(("ip option", _)) => {
            first.extend(network(family, false));
            unknown()
        }
        Some(("meta", meta)) => {
            meta.text_of("key").and_then(|key| self::meta(family, key)).ok_or_else(|| words(expression))
        }
        Some(("ct", ct)) => conntrack(family, ct, first).ok_or_else(|| words(expression)),
        Some(("fib", fib)) => self::fib(fib).ok_or_else(|| words(expression)),
        _ => unknown(),
    }
}

fn one(field: Field, kind: Kind) -> Vec<(Key, Kind)> {
    vec![(field.into(), kind)]
}

fn payload(family: TableFamily, payload: &Json<'_>, first: &mut Vec<Part>) -> Option<Vec<(Key, Kind)>> {
    let Some(protocol) = payload.text_of("protocol") else {
        // `@th,16,16`; of the network header only a table of one family knows what it is, and nft then writes its name.
        let at = |name| payload.get(name).and_then(Json::number::<u32>);
        return match (payload.text_of("base"), at("offset"), at("len")) {
            (Some("th"), Some(0), Some(16)) => Some(one(Field::Sport, Kind::Port)),
            (Some("th"), Some(16), Some(16)) => Some(one(Field::Dport, Kind::Port)),
            _ => None,
        };
    };
    let field = payload.text_of("field")?;
    let ports = || match field {
        "sport" => Some(one(Field::Sport, Kind::Port)),
        "dport" => Some(one(Field::Dport, Kind::Port)),
        _ => None,
    };
    match protocol {
        "ip" | "ip6" => {
            let v6 = protocol == "ip6";
            let (field, kind) = match (v6, field) {
                // A packet of the other family has no such address: nothing else has to be tested.
                (false, "saddr") => return Some(one(Field::Saddr4, Kind::V4)),
                (false, "daddr") => return Some(one(Field::Daddr4, Kind::V4)),
                (true, "saddr") => return Some(one(Field::Saddr6, Kind::V6)),
                (true, "daddr") => return Some(one(Field::Daddr6, Kind::V6)),
                (false, "protocol") | (true, "nexthdr") => (Some(Field::L4Proto), Kind::Proto),
                (false, "ttl") | (true, "hoplimit") => (Some(Field::Ttl), Kind::Number),
                (false, "length") => (Some(Field::Length), Kind::Number),
                (false, "frag-off") => (Some(Field::Fragment), Kind::Zero),
                _ => (None, Kind::Number),
            };
            first.extend(network(family, v6));
            field.map(|f| one(f, kind))
        }
        "th" => ports(),
        "tcp" => {
            first.push(is(Field::L4Proto, 6));
            if field == "flags" { Some(one(Field::TcpFlags, Kind::TcpFlags)) } else { ports() }
        }
        "udp" => {
            first.push(is(Field::L4Proto, 17));
            ports()
        }
        "ether" => {
            // Only there is a frame's header always at hand; on the way out there is none yet.
            let framed = matches!(family, TableFamily::Other(_));
            (field == "type" && framed).then(|| one(Field::EtherType, Kind::EtherType))
        }
        "arp" => {
            first.push(is(Field::EtherType, 0x0806));
            None
        }
        // No packet of a TCP or UDP connection is of these protocols, so their fields need not be known.
        _ => {
            let v6 = match protocol {
                "icmp" | "igmp" => Some(false),
                "icmpv6" => Some(true),
                _ => None,
            };
            first.extend(v6.and_then(|v6| network(family, v6)));
            let only_theirs = ["icmp", "igmp", "icmpv6", "ah", "esp", "comp", "sctp", "dccp", "udplite", "gre"];
            let number = only_theirs.contains(&protocol).then(|| Kind::Proto.single(&Json::Text(protocol.into())));
            first.extend(number.flatten().map(|n| is(Field::L4Proto, n)));
            None
        }
    }
}

fn meta(family: TableFamily, key: &str) -> Option<Vec<(Key, Kind)>> {
    Some(match key {
        "nfproto" if !matches!(family, TableFamily::Other(_)) => one(Field::NfProto, Kind::NfProto),
        "protocol" => one(Field::EtherType, Kind::EtherType),
        "l4proto" => one(Field::L4Proto, Kind::Proto),
        "mark" => one(Field::Mark, Kind::Number),
        "iifname" => one(Field::Iif, Kind::Name),
        "oifname" => one(Field::Oif, Kind::Name),
        "iif" => one(Field::Iif, Kind::Index),
        "oif" => one(Field::Oif, Kind::Index),
        "pkttype" => one(Field::PktType, Kind::PktType),
        "length" => one(Field::Length, Kind::Number),
        _ => return None,
    })
}

fn conntrack(family: TableFamily, ct: &Json<'_>, first: &mut Vec<Part>) -> Option<Vec<(Key, Kind)>> {
    let key = ct.text_of("key")?;
    let Some(direction) = ct.get("dir") else {
        return Some(match key {
            "state" => one(Field::CtState, Kind::CtState),
            "status" => one(Field::CtStatus, Kind::CtStatus),
            "mark" => one(Field::CtMark, Kind::Number),
            "direction" => one(Field::CtDirection, Kind::CtDirection),
            "protocol" => one(Field::CtProto, Kind::Proto),
            _ => return None,
        });
    };
    if direction.text() != Some("original") {
        return None;
    }
    let (field, v6) = match (key, family) {
        ("ip saddr", _) | ("saddr", TableFamily::Ip) => (Field::CtOriginalSaddr, false),
        ("ip6 saddr", _) | ("saddr", TableFamily::Ip6) => (Field::CtOriginalSaddr, true),
        ("ip daddr", _) | ("daddr", TableFamily::Ip) => (Field::CtOriginalDaddr, false),
        ("ip6 daddr", _) | ("daddr", TableFamily::Ip6) => (Field::CtOriginalDaddr, true),
        ("proto-src", _) => return Some(one(Field::CtOriginalSport, Kind::Port)),
        ("proto-dst", _) => return Some(one(Field::CtOriginalDport, Kind::Port)),
        ("protocol", _) => return Some(one(Field::CtProto, Kind::Proto)),
        _ => return None,
    };
    first.extend(network(family, v6));
    Some(one(field, if v6 { Kind::V6 } else { Kind::V4 }))
}

/// `fib daddr type`, also with `. iif`: that asks whether the address belongs to the interface that the packet came in by, which
/// is so for the questions that are asked here (a host's address, through the interface that has it). Of reverse paths only
/// whether there is one is a fact of the model.
fn fib(fib: &Json<'_>) -> Option<Vec<(Key, Kind)>> {
    let flags: Vec<&str> = fib.get("flags")?.each().iter().map(Json::text).collect::<Option<_>>()?;
    Some(match (fib.text_of("result")?, flags.as_slice()) {
        ("type", ["daddr"] | ["daddr", "iif"]) => one(Field::DaddrType, Kind::AddrType),
        ("type", ["saddr"]) => one(Field::SaddrType, Kind::AddrType),
        ("oif", ["saddr", "iif"] | ["saddr", "mark", "iif"]) => one(Field::ReversePath, Kind::Bool),
        _ => return None,
    })
}
