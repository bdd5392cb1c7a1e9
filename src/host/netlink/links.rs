//! Interfaces, their addresses, the programs on them, and routes: rtnetlink (linux/rtnetlink.h, if_link.h, if_addr.h,
//! pkt_sched.h).
//!
//! Belongs here: questions and the layout of their answers. Does not: which interface or address matters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    attr::{Attrs, find, put, string},
    socket::{Message, Socket, failed, refused},
};
use crate::{
    allowlist::short,
    error::Result,
    host::{Address, Link, Route},
};

/// `IFLA_IFNAME`, `IFLA_XDP` of linux/if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
/// `IFLA_XDP_ATTACHED`, `IFLA_XDP_PROG_ID`: none attached is 0.
const XDP_ATTACHED: u16 = 2;
const XDP_PROG_ID: u16 = 4;
/// Lengths of `struct ifinfomsg`, `ifaddrmsg`, `tcmsg`, `rtmsg`, each a multiple of four.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const TC: usize = 20;
const RT: usize = 12;
/// `TC_H_INGRESS` (which is also `TC_H_CLSACT`) as a parent, and the two hooks below it.
const INGRESS_QDISC: u32 = 0xffff_fff1;
const CLSACT_HOOKS: [(u32, &str); 2] = [(0xffff_fff2, "ingress"), (0xffff_fff3, "egress")];
/// The older qdisc `ingress` keeps its filters under its own handle.
const INGRESS_HANDLE: u32 = 0xffff_0000;

fn open() -> Result<Socket> {
    Socket::open_route().map_err(|e| failed("open a netlink socket", &e))
}

/// Every interface of the calling thread's network namespace with its addresses and the programs on it.
///
/// # Errors
/// `netlink`; `race-lost` if a list changed while it was read.
pub fn links() -> Result<Vec<Link>> {
    let socket = open()?;
    let mut links = BTreeMap::new();
    dump(&socket, libc::RTM_GETLINK, &[0; IFINFO], "list interfaces", &mut |m| {
        if let Some((index, link)) = link(m.body) {
            links.insert(index, link);
        }
    })?;
    dump(&socket, libc::RTM_GETADDR, &[0; IFADDR], "list addresses", &mut |m| {
        if let Some((index, address)) = address(m.body)
            && let Some(link) = links.get_mut(&index)
        {
            link.addresses.push(address);
        }
    })?;
    // Only interfaces with that qdisc can have filters before or after every rule.
    let mut filtered = BTreeSet::new();
    dump(&socket, libc::RTM_GETQDISC, &[0; TC], "list queueing disciplines", &mut |m| {
        if let (Some(index), Some(INGRESS_QDISC), Some(attrs)) =
            (number(m.body, 4), number(m.body, 12), m.body.get(TC..))
        {
            filtered.insert((index, string(attrs, 1).unwrap_or_default()));
        }
    })?;
    for (index, kind) in filtered {
        let hooks: &[(u32, &str)] = if kind == "clsact" { &CLSACT_HOOKS } else { &[(INGRESS_HANDLE, "ingress")] };
        for (parent, hook) in hooks {
            let mut body = [0; TC];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            body[12..16].copy_from_slice(&parent.to_ne_bytes());
            let mut kinds = BTreeSet::new();
            dump(&socket, libc::RTM_GETTFILTER, &body, "list filters", &mut |m| {
                kinds.insert(m.body.get(TC..).and_then(|attrs| string(attrs, 1)).unwrap_or_default());
            })?;
            if let Some(link) = links.get_mut(&index) {
                link.programs.extend(kinds.iter().map(|kind| format!("tc {hook} filter ({kind})")));
            }
        }
    }
    Ok(links.into_values().collect())
}

/// The name of the interface by which packets to that address leave, if given from this address of ours, as the
/// kernel's own rules and tables of routes say; `None` where there is no way.
///
/// # Errors
/// `netlink`.
pub fn route(from: Option<IpAddr>, to: IpAddr) -> Result<Option<String>> {
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
    let mut index = None;
    let socket = open()?;
    let answer = socket.ask_raw(libc::RTM_GETROUTE, 0, &body, &mut |m| {
        // RTA_OIF
        index = m.body.get(RT..).and_then(|attrs| number(find(attrs, 4)?, 0));
        Ok(())
    })?;
    // A refusal is "no route", "prohibited", or a source that isn't this host's: no way in each case.
    let (None, Some(index)) = (answer, index) else { return Ok(None) };
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut name = None;
    socket.ask_raw(libc::RTM_GETLINK, 0, &body, &mut |m| {
        name = link(m.body).map(|(_, link)| link.name);
        Ok(())
    })?;
    Ok(name)
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
    let unspecified: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    // RTA_DST, RTA_GATEWAY, RTA_OIF
    let to = match find(attrs, 1) {
        Some(bytes) => from_bytes(bytes)?,
        None => unspecified,
    };
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
    let kind = match *body.get(7)? {
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        _ => return None,
    };
    let length = *body.get(1)?;
    // RTA_DST
    let destination = find(body.get(RT..)?, 1)?;
    let address = from_bytes(destination)?;
    let net = IpNet::new(address, length).ok()?;
    Some((net, format!("the route `{kind} {}`", short(&net))))
}

fn dump(socket: &Socket, kind: u16, body: &[u8], what: &str, each: &mut dyn FnMut(Message<'_>)) -> Result<()> {
    let refusal = socket.ask_raw(kind, libc::NLM_F_DUMP, body, &mut |m| {
        each(m);
        Ok(())
    })?;
    match refusal {
        // A kernel without traffic control or without IPv6.
        None | Some(libc::EOPNOTSUPP) => Ok(()),
        Some(errno) => Err(refused(what, errno)),
    }
}

/// A number in host order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn link(body: &[u8]) -> Option<(u32, Link)> {
    let attrs = body.get(IFINFO..)?;
    let xdp = find(attrs, IFLA_XDP).filter(|x| find(x, XDP_ATTACHED).is_some_and(|a| a.first() != Some(&0)));
    let program = xdp.map(|x| match find(x, XDP_PROG_ID).and_then(|id| number(id, 0)) {
        Some(id) => format!("XDP program {id}"),
        None => "XDP program".to_owned(),
    });
    let name = string(attrs, IFLA_IFNAME)?;
    Some((number(body, 4)?, Link { name, addresses: Vec::new(), programs: program.into_iter().collect() }))
}

fn address(body: &[u8]) -> Option<(u32, Address)> {
    let [family, prefix, flags, scope, ..] = *body else { return None };
    let attrs = body.get(IFADDR..)?;
    // IFA_LOCAL is this host's where the wire has two ends, IFA_ADDRESS the other's; IPv6 has most often only the latter.
    let bytes = find(attrs, 2).or_else(|| find(attrs, 1))?;
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
        _ => return None,
    };
    let flags = Attrs(attrs).find(|(k, _)| *k == 8).and_then(|(_, f)| number(f, 0)).unwrap_or(u32::from(flags));
    // For IPv6 the flag of a secondary address says that it is a temporary one, which no name points to.
    let passing = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED | if ip.is_ipv6() { libc::IFA_F_TEMPORARY } else { 0 };
    let global = scope == libc::RT_SCOPE_UNIVERSE && flags & passing == 0;
    Some((number(body, 4)?, Address { ip, prefix, global }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_with_its_address() {
        let links = links().unwrap();
        let lo = links.iter().find(|l| l.name == "lo").unwrap();
        assert!(lo.programs.is_empty());
        assert!(lo.addresses.iter().all(|a| !a.global && a.ip.is_loopback()), "{lo:?}");
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(route(Some(here), here).unwrap().as_deref(), Some("lo"));
    }

    #[test]
    fn torn_messages_say_nothing() {
        let full = [0; 64];
        for len in 0..full.len() {
            assert!(link(&full[..len]).is_none() && address(&full[..len]).is_none() && way(&full[..len]).is_none());
        }
    }
}
