//! Reading nf_tables: the generation, the rule set, a set's elements.
//!
//! Belongs here: questions to the kernel. Does not: the layout of the answers ([`super::parse`]).

use std::collections::BTreeSet;

use super::{
    attr::{be32, nest, put, put_be32, put_str},
    parse,
    socket::{Socket, failed, refused},
};
use crate::{
    allowlist::{Family, Prefixes},
    error::Result,
    nft::{Interval, RawElement, Ruleset, SetId, SetKind, Table, TableFamily, TableId, Verdict, intervals},
};

/// Messages of linux/netfilter/nf_tables.h that ask.
const DUMP: i32 = libc::NLM_F_DUMP;

fn open() -> Result<Socket> {
    Socket::open().map_err(|e| failed("open a netlink socket", &e))
}

/// The rule set's generation: it grows with every change in this network namespace. `None` where the kernel has no
/// nf_tables.
///
/// # Errors
/// `no-privilege` without CAP_NET_ADMIN, `netlink`.
pub fn generation() -> Result<Option<u32>> {
    let socket = match Socket::open() {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)) => return Ok(None),
        opened => opened.map_err(|e| failed("open a netlink socket", &e))?,
    };
    let mut found = None;
    let answer = socket.ask(libc::NFT_MSG_GETGEN, 0, 0, &[], &mut |m| {
        found = be32(m.attrs, 1);
        Ok(())
    })?;
    match answer {
        None => Ok(found),
        // The kernel has netlink's netfilter part and no nf_tables behind it.
        Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(None),
        Some(errno) => Err(refused("get generation", errno)),
    }
}

/// Whether there is a table of that family and name; `None` where the kernel has no nf_tables.
///
/// # Errors
/// As [`generation`].
pub fn has_table(table: &TableId) -> Result<Option<bool>> {
    // Only this question's refusal tells a kernel without nf_tables from one without the table.
    if generation()?.is_none() {
        return Ok(None);
    }
    let mut attrs = Vec::new();
    put_str(&mut attrs, 1, &table.name);
    match open()?.ask(libc::NFT_MSG_GETTABLE, 0, table.family.number(), &attrs, &mut |_| Ok(()))? {
        None => Ok(Some(true)),
        Some(libc::ENOENT) => Ok(Some(false)),
        Some(errno) => Err(refused(&format!("get table {table}"), errno)),
    }
}

/// Whether there is an ipset of that name. The question loads the kernel's ip_set if it isn't there.
///
/// # Errors
/// `no-privilege` without CAP_NET_ADMIN, `netlink`.
pub fn has_ipset(name: &str) -> Result<bool> {
    // linux/netfilter/ipset/ip_set.h: IPSET_CMD_HEADER, IPSET_ATTR_PROTOCOL, IPSET_ATTR_SETNAME. Every kernel since
    // 2.6.39 speaks version 6 of the protocol.
    const HEADER: i32 = 12;
    let mut attrs = Vec::new();
    put(&mut attrs, 1, &[6]);
    put_str(&mut attrs, 2, name);
    match open()?.ask_of((libc::NFNL_SUBSYS_IPSET as u16) << 8, HEADER, 0, 0, &attrs, &mut |_| Ok(()))? {
        None => Ok(true),
        Some(libc::ENOENT) => Ok(false),
        Some(errno) => Err(refused(&format!("get the header of set {name}"), errno)),
    }
}

/// All tables with their chains, rules and sets.
///
/// The four lists are asked for one after the other: read the generation before and after to know that they belong
/// together.
///
/// # Errors
/// `no-privilege` without CAP_NET_ADMIN, `race-lost` if a list changed while it was read, `netlink`.
pub fn ruleset() -> Result<Ruleset> {
    let socket = open()?;
    let mut seen = Ruleset::default();
    list(&socket, libc::NFT_MSG_GETTABLE, "list tables", &mut |family, attrs| {
        seen.tables.extend(parse::table(family, attrs));
    })?;
    list(&socket, libc::NFT_MSG_GETCHAIN, "list chains", &mut |family, attrs| {
        if let Some((table, chain)) = parse::chain(attrs)
            && let Some(table) = of(&mut seen, family, &table)
        {
            table.chains.push(chain);
        }
    })?;
    list(&socket, libc::NFT_MSG_GETSET, "list sets", &mut |family, attrs| {
        if let Some((table, set)) = parse::set(attrs)
            && let Some(table) = of(&mut seen, family, &table)
        {
            table.sets.push(set);
        }
    })?;
    list(&socket, libc::NFT_MSG_GETRULE, "list rules", &mut |family, attrs| {
        if let Some((table, chain, rule)) = parse::rule(attrs)
            && let Some(table) = of(&mut seen, family, &table)
            && let Some(chain) = table.chains.iter_mut().find(|c| c.name == chain)
        {
            chain.rules.push(rule);
        }
    })?;
    Ok(seen)
}

/// A table seen before, by family and name. Rules of one table come together, so the last one hit is tried first.
fn of<'a>(seen: &'a mut Ruleset, family: TableFamily, name: &str) -> Option<&'a mut Table> {
    seen.tables.iter_mut().find(|t| t.id.family == family && t.id.name == name)
}

fn list(socket: &Socket, kind: i32, what: &str, each: &mut dyn FnMut(TableFamily, &[u8])) -> Result<()> {
    let refusal = socket.ask(kind, DUMP, 0, &[], &mut |m| {
        each(TableFamily::from_number(m.family), m.attrs);
        Ok(())
    })?;
    refusal.map_or(Ok(()), |errno| Err(refused(what, errno)))
}

fn set_attrs(set: &SetId) -> Vec<u8> {
    let mut attrs = Vec::new();
    put_str(&mut attrs, 1, &set.table.name);
    put_str(&mut attrs, 2, &set.name);
    attrs
}

fn dump_set(set: &SetId, each: &mut dyn FnMut(&[u8])) -> Result<()> {
    let refusal =
        open()?.ask(libc::NFT_MSG_GETSETELEM, DUMP, set.table.family.number(), &set_attrs(set), &mut |m| {
            each(m.attrs);
            Ok(())
        })?;
    refusal.map_or(Ok(()), |errno| Err(refused(&format!("list set {set}"), errno)))
}

/// The ranges in an interval set, in ascending order. Quadratic in the kernel: 0.9 s at 100,000, 104 s at a million.
///
/// # Errors
/// As [`ruleset`]; `netlink` also if there is no such set.
pub fn elements(set: &SetId, kind: SetKind) -> Result<Vec<Interval>> {
    let mut raw: Vec<RawElement> = Vec::new();
    dump_set(set, &mut |attrs| parse::elements(attrs, &mut raw))?;
    intervals(kind, raw)
}

/// The ports in a set of ports.
///
/// # Errors
/// As [`elements`].
pub fn ports(set: &SetId) -> Result<BTreeSet<u16>> {
    let mut raw: Vec<RawElement> = Vec::new();
    dump_set(set, &mut |attrs| parse::elements(attrs, &mut raw))?;
    Ok(raw.iter().map(|e| u16::from_be_bytes([e.key[0], e.key[1]])).collect())
}

/// The verdicts in a verdict map, without its keys.
///
/// # Errors
/// As [`elements`].
pub fn verdicts(map: &SetId) -> Result<Vec<Verdict>> {
    let mut found = Vec::new();
    dump_set(map, &mut |attrs| parse::element_verdicts(attrs, &mut found))?;
    Ok(found)
}

/// Whether an interval set holds exactly these prefixes, looked up at up to `many` places spread over the list.
///
/// # Errors
/// As [`elements`].
pub fn sample(set: &SetId, list: &Prefixes, family: Family, many: usize) -> Result<bool> {
    let socket = open()?;
    let len = list.count(family);
    let many = many.min(len);
    for i in 0..many {
        // Both ends of the list are always among them.
        let at = if many < 2 { 0 } else { i * (len - 1) / (many - 1) };
        let (first, after) = match family {
            Family::V4 => {
                let net = list.v4()[at];
                let after = u32::from(net.broadcast()).checked_add(1);
                (net.network().octets().to_vec(), after.map(|k| k.to_be_bytes().to_vec()))
            }
            Family::V6 => {
                let net = list.v6()[at];
                let after = u128::from(net.broadcast()).checked_add(1);
                (net.network().octets().to_vec(), after.map(|k| k.to_be_bytes().to_vec()))
            }
        };
        if !has(&socket, set, &first, false)? || !after.map_or(Ok(true), |key| has(&socket, set, &key, true))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a set has an element with exactly this key.
fn has(socket: &Socket, set: &SetId, key: &[u8], end: bool) -> Result<bool> {
    let mut attrs = set_attrs(set);
    nest(&mut attrs, 3, |list| {
        nest(list, 1, |element| {
            nest(element, 1, |k| put(k, 1, key));
            if end {
                put_be32(element, 3, 1);
            }
        });
    });
    let mut raw = Vec::new();
    let refusal = socket.ask(libc::NFT_MSG_GETSETELEM, 0, set.table.family.number(), &attrs, &mut |m| {
        parse::elements(m.attrs, &mut raw);
        Ok(())
    })?;
    match refusal {
        // An interval set answers with the boundary below the key, whatever was asked: compare.
        None => Ok(raw.iter().any(|e: &RawElement| e.key[..key.len()] == *key && e.end == end)),
        Some(libc::ENOENT) => Ok(false),
        Some(errno) => Err(refused(&format!("get element {set}"), errno)),
    }
}
