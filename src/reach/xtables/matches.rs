//! What matches (`-m NAME`) test.
//!
//! Belongs here: those that look at facts of the model. Does not: connection tracking (`conntrack`), rates (`rate`), ipsets
//! (`setmatch`). All others are puzzles: what a connection from Cloudflare looks like to them can't be told.

use super::{
    basic::{daddr, saddr},
    conntrack, rate,
    rule::Opt,
    values::{addresses, any_of, int, mark, masked, port_list, ports, span, test},
};
use crate::{
    allowlist::Family,
    reach::{
        model::{Field, Part, Value},
        sources::Sources,
    },
};

/// Reads a match with its options. None: not understood, as a whole.
pub(super) fn read(name: &str, own: &[Opt<'_>], family: Family) -> Option<Vec<Part>> {
    if rate::is_rate(name) {
        return rate::read(name, own);
    }
    match name {
        // `-p tcp -m tcp` and no more tests nothing more.
        "tcp" => each(name, own, tcp),
        "udp" => each(name, own, |o| port(o, "--sport", "--dport")),
        "rpfilter" => rpfilter(own),
        // The options of others never come without any.
        _ if own.is_empty() => None,
        "multiport" => each(name, own, multiport),
        "conntrack" | "state" => conntrack::read(name, own, family),
        "mark" => each(name, own, |o| marked(o, Field::Mark)),
        "connmark" => each(name, own, |o| marked(o, Field::CtMark)),
        "addrtype" => addrtype(own, family),
        "pkttype" => each(name, own, pkttype),
        "iprange" => each(name, own, |o| iprange(o, family)),
        "length" => each(name, own, |o| match o.name {
            "--length" => Some(test(Field::Length, Sources::new(vec![span(o.value()?, ':', 0xffff)?]), o.negated)),
            _ => None,
        }),
        "ttl" | "hl" => each(name, own, |o| hops(o.name.strip_prefix("--")?.strip_prefix(name)?, o)),
        // No packet of these connections has a routing header, and without one nothing of it matches (`rt_mt6`).
        "rt" => Some(vec![test(Field::L4Proto, Sources::default(), false)]),
        // Any ICMP: `-p icmp` has said so. Others stay puzzles behind that test, where they do no harm.
        "icmp" if matches!(own, [o] if o.name == "--icmp-type" && o.value() == Some("any") && !o.negated) => {
            Some(Vec::new())
        }
        _ => None,
    }
}

/// One part an option; an option that isn't understood is a puzzle beside the others, as all must hold.
pub(super) fn each(name: &str, own: &[Opt<'_>], read: impl Fn(&Opt<'_>) -> Option<Part>) -> Option<Vec<Part>> {
    Some(own.iter().map(|o| read(o).unwrap_or_else(|| Part::Puzzle(format!("-m {name} {}", o.text())))).collect())
}

fn port(opt: &Opt<'_>, source: &str, destination: &str) -> Option<Part> {
    let field = match opt.name {
        name if name == source => Field::Sport,
        name if name == destination => Field::Dport,
        _ => return None,
    };
    Some(test(field, ports(opt.value()?)?, opt.negated))
}

fn tcp(opt: &Opt<'_>) -> Option<Part> {
    let flags = |text: &str| -> Option<u128> {
        text.split(',').try_fold(0, |bits, flag| {
            Some(
                bits | match flag {
                    "FIN" => 1,
                    "SYN" => 2,
                    "RST" => 4,
                    "PSH" => 8,
                    "ACK" => 16,
                    "URG" => 32,
                    "ALL" => 63,
                    "NONE" => 0,
                    _ => return None,
                },
            )
        })
    };
    match (opt.name, opt.values) {
        ("--tcp-flags", [mask, set]) => {
            Some(test(masked(Field::TcpFlags, flags(mask)?), Sources::one(flags(set)?), opt.negated))
        }
        _ => port(opt, "--sport", "--dport"),
    }
}

fn multiport(opt: &Opt<'_>) -> Option<Part> {
    let numbers = port_list(opt.value()?)?;
    match opt.name {
        "--sports" => Some(test(Field::Sport, numbers, opt.negated)),
        "--dports" => Some(test(Field::Dport, numbers, opt.negated)),
        "--ports" => {
            let here = Value::Numbers(numbers);
            let either = vec![vec![here.clone(), Value::Any], vec![Value::Any, here]];
            Some(any_of(vec![Field::Sport.into(), Field::Dport.into()], either, opt.negated))
        }
        _ => None,
    }
}

fn marked(opt: &Opt<'_>, field: Field) -> Option<Part> {
    let (value, mask) = mark(opt.value().filter(|_| opt.name == "--mark")?)?;
    let key = if mask == u32::MAX { field.into() } else { masked(field, mask.into()) };
    Some(test(key, Sources::one(value.into()), opt.negated))
}

/// `RTN_*` of linux/rtnetlink.h. Types as one interface sees them (`--limit-iface-in`) aren't facts of the model.
/// In IPv4 an address has one type, and any of those named will do. In IPv6 (`match_type6`, net/netfilter/xt_addrtype.c) it has to
/// be of every class that is named, and its route of one of the kinds that are named; one's own addresses are unicast too.
fn addrtype(own: &[Opt<'_>], family: Family) -> Option<Vec<Part>> {
    const TYPES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    let one = |opt: &Opt<'_>| {
        let field = match opt.name {
            "--src-type" => Field::SaddrType,
            "--dst-type" => Field::DaddrType,
            _ => return None,
        };
        let number = |name: &str| TYPES.iter().position(|t| *t == name).map(|n| (n as u128, n as u128));
        let numbers = opt.value()?.split(',').map(number).collect::<Option<Vec<_>>>()?;
        let types = Sources::new(numbers);
        let types = if family == Family::V4 { types } else { types6(&types)? };
        Some(test(field, types, opt.negated))
    };
    own.iter().map(one).collect()
}

/// The types that an IPv6 address may have which fits all of these.
fn types6(named: &Sources) -> Option<Sources> {
    let only = |numbers: &[u128]| Sources::new(numbers.iter().map(|n| (*n, *n)).collect());
    let (unspec, multicast, unicast) = (only(&[0]), only(&[5]), only(&[1]));
    let routes = only(&[2, 4, 7, 8]);
    let known = routes.union(&unspec).union(&multicast).union(&unicast);
    if !known.covers(named) {
        return None;
    }
    let mut types = named.intersect(&routes);
    if types.is_empty() {
        types = known;
    }
    for (class, includes) in [(&unspec, &unspec), (&multicast, &multicast), (&unicast, &routes.union(&unicast))] {
        if named.covers(class) {
            types = types.intersect(includes);
        }
    }
    Some(types)
}

/// Matches where the reverse path is as it should be, with `--invert` where it isn't. What is strict holds loosely, too.
fn rpfilter(own: &[Opt<'_>]) -> Option<Vec<Part>> {
    let known = ["--loose", "--validmark", "--accept-local", "--invert"];
    if own.iter().any(|o| !known.contains(&o.name)) {
        return None;
    }
    let invert = own.iter().any(|o| o.name == "--invert");
    Some(vec![test(Field::ReversePath, Sources::one(1), invert)])
}

fn pkttype(opt: &Opt<'_>) -> Option<Part> {
    let kind = match opt.value().filter(|_| opt.name == "--pkt-type")? {
        "unicast" | "host" => 0,
        "broadcast" | "bcast" => 1,
        "multicast" | "mcast" => 2,
        "otherhost" => 3,
        _ => return None,
    };
    Some(test(Field::PktType, Sources::one(kind), opt.negated))
}

fn iprange(opt: &Opt<'_>, family: Family) -> Option<Part> {
    let field = match opt.name {
        "--src-range" => saddr(family),
        "--dst-range" => daddr(family),
        _ => return None,
    };
    Some(test(field, Sources::new(vec![addresses(opt.value()?, family)?]), opt.negated))
}

/// TTL or hop limit: `-eq`, `-lt`, `-gt`.
fn hops(comparison: &str, opt: &Opt<'_>) -> Option<Part> {
    let n = u128::from(int(opt.value()?, 255)?);
    let range = match (comparison, opt.negated) {
        ("-eq", _) => (n, n),
        // Nothing is below nought; a range that ends before it begins is left out.
        ("-lt", false) => n.checked_sub(1).map_or((1, 0), |last| (0, last)),
        ("-gt", false) => (n + 1, 255),
        _ => return None,
    };
    Some(test(Field::Ttl, Sources::new(vec![range]), opt.negated))
}
