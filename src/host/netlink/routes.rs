//! Routes, and the rules that choose among their tables: rtnetlink (linux/rtnetlink.h, fib_rules.h).
//!
//! Belongs here: questions and the layout of their answers. Does not: which way is the right one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    attr::{Attrs, find, put},
    links::{IFINFO, dump, link, number, open},
};
use crate::{
    allowlist::short,
    error::Result,
    host::{RefusingRule, Route, Way},
};

/// Length of `struct rtmsg`, and of `fib_rule_hdr`.
const RT: usize = 12;

/// How packets to that address leave, if given from this address of ours, as the kernel's own rules and tables of routes
/// say (for packets without a mark); `None` where there is no way.
///
/// # Errors
/// `netlink`.
pub fn route(from: Option<IpAddr>, to: IpAddr) -> Result<Option<Way>> {
    let bytes = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let (family, bits) = if to.is_ipv4() { (libc::AF_INET, 32) } else { (libc::AF_INET6, 128) };
    let mut body = vec![0; RT];
    body[..2].copy_from_slice(&[family as u8, bits]);
    // RTA_DST, RTA_SRC
    put(&mut body, 1, &bytes(to));
    if let Some(from) = from {
        body[2] = bits;
        put(&mut body, 2, &bytes(from));
    }
    let mut found = None;
    let socket = open()?;
    let answer = socket.ask_raw(libc::RTM_GETROUTE, 0, &body, &mut |m| {
        found = leaving(m.body);
        Ok(())
    })?;
    // A refusal is "no route", "prohibited", or a source that isn't this host's: no way in each case.
    let (None, Some((index, source))) = (answer, found) else { return Ok(None) };
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut name = None;
    socket.ask_raw(libc::RTM_GETLINK, 0, &body, &mut |m| {
        name = link(m.body).map(|(_, link)| link.name);
        Ok(())
    })?;
    Ok(name.map(|interface| Way { interface, source }))
}

/// The interface and the source of a route that was asked for; nothing of one that leads nowhere, which some kernels
/// answer with where others refuse.
fn leaving(body: &[u8]) -> Option<(u32, Option<IpAddr>)> {
    if refusal(*body.get(7)?).is_some() {
        return None;
    }
    let attrs = body.get(RT..)?;
    // RTA_OIF, RTA_PREFSRC
    Some((number(find(attrs, 4)?, 0)?, find(attrs, 7).and_then(from_bytes)))
}

/// The word for a type of routes (`RTN_…`), or an action of rules (`FR_ACT_…`), that refuses: their numbers are the same.
const fn refusal(kind: u8) -> Option<&'static str> {
    match kind {
        6 => Some("blackhole"),
        7 => Some("unreachable"),
        8 => Some("prohibit"),
        _ => None,
    }
}

/// Rules of routing that refuse and look at nothing but source and destination, in the order in which they are asked.
///
/// # Errors
/// `netlink`; `race-lost` if the list changed while it was read.
pub fn refusing_rules() -> Result<Vec<RefusingRule>> {
    let socket = open()?;
    let mut found = Vec::new();
    dump(&socket, libc::RTM_GETRULE, &[0; RT], "list rules of routing", &mut |m| found.extend(refusing_rule(m.body)))?;
    found.sort_by_key(|(priority, _)| *priority);
    Ok(found.into_iter().map(|(_, rule)| rule).collect())
}

fn refusing_rule(body: &[u8]) -> Option<(u32, RefusingRule)> {
    // FRA_DST, FRA_SRC, FRA_PRIORITY, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_PROTOCOL: others narrow it.
    const KNOWN: [u16; 7] = [1, 2, 6, 13, 14, 15, 21];
    // struct fib_rule_hdr: family, lengths of destination and source, type of service, table, …, action, flags.
    let (family, flags) = (*body.first()?, number(body, 8)?);
    let word = refusal(*body.get(7)?)?;
    let attrs = body.get(RT..)?;
    // FIB_RULE_INVERT
    if flags & 2 != 0 || *body.get(3)? != 0 || Attrs(attrs).any(|(kind, _)| !KNOWN.contains(&kind)) {
        return None;
    }
    let net = |kind: u16, length: usize| {
        let address = find(attrs, kind).map_or_else(|| unspecified(family), from_bytes)?;
        IpNet::new(address, *body.get(length)?).ok()
    };
    let (to, from) = (net(1, 1)?, net(2, 2)?);
    let priority = find(attrs, 6).and_then(|p| number(p, 0)).unwrap_or(0);
    let mut words = format!("pref {priority}");
    for (what, net) in [("from", from), ("to", to)] {
        if net.prefix_len() > 0 {
            words.push_str(&format!(" {what} {}", short(&net)));
        }
    }
    Some((priority, RefusingRule { from, to, words: format!("{words} {word}") }))
}

fn unspecified(family: u8) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::UNSPECIFIED.into()),
        libc::AF_INET6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

/// Routes that lead nowhere (`RTN_BLACKHOLE`, `RTN_UNREACHABLE`, `RTN_PROHIBIT` of linux/rtnetlink.h), with the words of
/// `ip route`. Default routes of these kinds are left out: where they count, nobody is answered at all.
///
/// # Errors
/// `netlink`; `race-lost` if the list changed while it was read.
pub fn dead_ends() -> Result<Vec<(IpNet, String)>> {
    let socket = open()?;
    let mut found = Vec::new();
    dump(&socket, libc::RTM_GETROUTE, &[0; RT], "list routes", &mut |m| found.extend(dead_end(m.body)))?;
    Ok(found)
}

/// The routes of the main table that lead somewhere, one way each; what has several ways is told with its first.
///
/// # Errors
/// `netlink`.
pub fn routes() -> Result<Vec<Route>> {
    let socket = open()?;
    let mut found = Vec::new();
    dump(&socket, libc::RTM_GETROUTE, &[0; RT], "list routes", &mut |m| found.extend(way(m.body)))?;
    let mut names = BTreeMap::new();
    dump(&socket, libc::RTM_GETLINK, &[0; IFINFO], "list interfaces", &mut |m| {
        names.extend(link(m.body).map(|(index, link)| (index, link.name)));
    })?;
    let named = |(to, gateway, index): (IpNet, Option<IpAddr>, u32)| {
        Some(Route { to, gateway, interface: names.get(&index)?.clone() })
    };
    Ok(found.into_iter().filter_map(named).collect())
}

fn way(body: &[u8]) -> Option<(IpNet, Option<IpAddr>, u32)> {
    // struct rtmsg: family, length of the destination, …, table, …, type.
    let (family, length, table, kind) = (*body.first()?, *body.get(1)?, *body.get(4)?, *body.get(7)?);
    if table != libc::RT_TABLE_MAIN || kind != libc::RTN_UNICAST {
        return None;
    }
    let attrs = body.get(RT..)?;
    // RTA_DST, RTA_GATEWAY, RTA_OIF
    let to = find(attrs, 1).map_or_else(|| unspecified(family), from_bytes)?;
    let index = number(find(attrs, 4)?, 0)?;
    Some((IpNet::new(to, length).ok()?, find(attrs, 5).and_then(from_bytes), index))
}

fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    }
}

fn dead_end(body: &[u8]) -> Option<(IpNet, String)> {
    let kind = refusal(*body.get(7)?)?;
    let length = *body.get(1)?;
    let attrs = body.get(RT..)?;
    // RTA_DST
    let net = IpNet::new(from_bytes(find(attrs, 1)?)?, length).ok()?;
    // RTA_TABLE, which the header's number is too small for.
    let table = find(attrs, 15).and_then(|table| number(table, 0)).unwrap_or_else(|| body[4].into());
    let table = if table == u32::from(libc::RT_TABLE_MAIN) { String::new() } else { format!(" table {table}") };
    Some((net, format!("the route `{kind} {}{table}`", short(&net))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_the_way_to_itself() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(route(Some(here), here).unwrap().unwrap().interface, "lo");
    }

    #[test]
    fn torn_messages_say_nothing() {
        let full = [0; 64];
        for len in 0..full.len() {
            let torn = &full[..len];
            assert!(way(torn).is_none() && leaving(torn).is_none() && refusing_rule(torn).is_none());
        }
    }

    /// A rule for IPv4 to 173.245.48.0/20 of this action, with one more attribute.
    fn rule(action: u8, more: u16) -> Vec<u8> {
        let mut body = vec![2, 20, 0, 0, 0, 0, 0, action, 0, 0, 0, 0];
        put(&mut body, 1, &[173, 245, 48, 0]);
        put(&mut body, 6, &32765_u32.to_ne_bytes());
        put(&mut body, more, &[0; 4]);
        body
    }

    #[test]
    fn a_rule_that_refuses_is_told_as_it_is_deleted() {
        let (_, refuses) = refusing_rule(&rule(8, 14)).unwrap();
        assert_eq!(refuses.words, "pref 32765 to 173.245.48.0/20 prohibit");
        assert_eq!((refuses.from.prefix_len(), refuses.to), (0, "173.245.48.0/20".parse().unwrap()));
        // FR_ACT_TO_TBL; and FRA_FWMARK, FRA_IIFNAME.
        assert!([rule(1, 14), rule(8, 10), rule(8, 3)].iter().all(|other| refusing_rule(other).is_none()));
    }
}
