//! Interfaces, their addresses, and the programs on them: rtnetlink (linux/rtnetlink.h, if_link.h, if_addr.h, pkt_sched.h).
//!
//! Belongs here: questions and the layout of their answers. Does not: routes (`routes`), which interface or address
//! matters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    attr::{Attrs, find, string},
    socket::{Message, Socket, failed, refused},
};
use crate::{
    error::Result,
    host::{Address, Link},
};

/// `IFLA_IFNAME`, `IFLA_XDP` of linux/if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_LINKINFO: u16 = 18;
/// `IFLA_INFO_SLAVE_KIND`: what the interface is a part of.
const INFO_SLAVE_KIND: u16 = 4;
/// `ARPHRD_PPP`, `ARPHRD_RAWIP` of linux/if_arp.h: lines to a provider.
const PROVIDERS: [u16; 2] = [512, 519];
/// `IFLA_XDP_ATTACHED`, `IFLA_XDP_PROG_ID`: none attached is 0.
const XDP_ATTACHED: u16 = 2;
const XDP_PROG_ID: u16 = 4;
/// Lengths of `struct ifinfomsg`, `ifaddrmsg`, `tcmsg`, each a multiple of four.
pub(super) const IFINFO: usize = 16;
const IFADDR: usize = 8;
const TC: usize = 20;
/// `TC_H_INGRESS` (which is also `TC_H_CLSACT`) as a parent, and the two hooks below it.
const INGRESS_QDISC: u32 = 0xffff_fff1;
const CLSACT_HOOKS: [(u32, &str); 2] = [(0xffff_fff2, "ingress"), (0xffff_fff3, "egress")];
/// The older qdisc `ingress` keeps its filters under its own handle.
const INGRESS_HANDLE: u32 = 0xffff_0000;

pub(super) fn open() -> Result<Socket> {
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

pub(super) fn dump(
    socket: &Socket,
    kind: u16,
    body: &[u8],
    what: &str,
    each: &mut dyn FnMut(Message<'_>),
) -> Result<()> {
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
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

pub(super) fn link(body: &[u8]) -> Option<(u32, Link)> {
    let attrs = body.get(IFINFO..)?;
    let xdp = find(attrs, IFLA_XDP).filter(|x| find(x, XDP_ATTACHED).is_some_and(|a| a.first() != Some(&0)));
    let program = xdp.map(|x| match find(x, XDP_PROG_ID).and_then(|id| number(id, 0)) {
        Some(id) => format!("XDP program {id}"),
        None => "XDP program".to_owned(),
    });
    let name = string(attrs, IFLA_IFNAME)?;
    let kind = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let tunnel = number(body, 8)? & libc::IFF_POINTOPOINT as u32 != 0 && !PROVIDERS.contains(&kind);
    let info = find(attrs, IFLA_LINKINFO);
    let in_vrf = info.and_then(|info| string(info, INFO_SLAVE_KIND)).is_some_and(|master| master == "vrf");
    let programs = program.into_iter().collect();
    Some((number(body, 4)?, Link { name, addresses: Vec::new(), programs, tunnel, in_vrf }))
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
        assert!(!lo.tunnel && !lo.in_vrf);
    }

    #[test]
    fn torn_messages_say_nothing() {
        let full = [0; 64];
        for len in 0..full.len() {
            assert!(link(&full[..len]).is_none() && address(&full[..len]).is_none());
        }
    }
}
