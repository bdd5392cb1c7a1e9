//! From attributes to [`crate::nft`]'s types. Numbers are those of linux/netfilter/nf_tables.h.

use super::attr::{Attrs, be32, be64, find, string, text};
use crate::nft::{Chain, Expr, Hooked, Policy, RawElement, Rule, Set, Table, TableFamily, TableId, Verdict};

/// `NFT_TABLE_F_DORMANT`.
const TABLE_DORMANT: u32 = 0x1;
/// `NFT_TABLE_F_OWNER`.
const TABLE_OWNER: u32 = 0x2;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 0x1;
/// `NFT_REG_VERDICT`, `NFT_REG_1`.
const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;

/// A table of this family, without what is in it.
pub(super) fn table(family: TableFamily, attrs: &[u8]) -> Option<Table> {
    let flags = be32(attrs, 2).unwrap_or(0);
    Some(Table {
        id: TableId::new(family, string(attrs, 1)?),
        owned: flags & TABLE_OWNER != 0,
        dormant: flags & TABLE_DORMANT != 0,
        chains: Vec::new(),
        sets: Vec::new(),
    })
}

/// A chain without its rules, and the table it is in.
pub(super) fn chain(attrs: &[u8]) -> Option<(String, Chain)> {
    let hooked = find(attrs, 4).and_then(|hook| {
        Some(Hooked {
            kind: string(attrs, 7)?,
            hook: be32(hook, 1)?,
            priority: be32(hook, 2)? as i32,
            policy: if be32(attrs, 5) == Some(0) { Policy::Drop } else { Policy::Accept },
        })
    });
    Some((string(attrs, 1)?, Chain { name: string(attrs, 3)?, hooked, rules: Vec::new() }))
}

/// A set without its elements, and the table it is in.
pub(super) fn set(attrs: &[u8]) -> Option<(String, Set)> {
    Some((
        string(attrs, 1)?,
        Set {
            name: string(attrs, 2)?,
            flags: be32(attrs, 3).unwrap_or(0),
            key_type: be32(attrs, 4)?,
            key_len: be32(attrs, 5)?,
            expires: find(attrs, 11).is_some(),
            count: be32(attrs, 20),
        },
    ))
}

/// A rule, its table and its chain.
pub(super) fn rule(attrs: &[u8]) -> Option<(String, String, Rule)> {
    let exprs = find(attrs, 4).map(|list| Attrs(list).filter_map(|(_, e)| expr(e)).collect()).unwrap_or_default();
    let comment = find(attrs, 7).and_then(comment);
    Some((string(attrs, 1)?, string(attrs, 2)?, Rule { handle: be64(attrs, 3)?, comment, exprs }))
}

/// Userdata is libnftnl's own: type, length, value, byte by byte. Type 0 is the comment.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = data {
        let value = rest.get(..usize::from(*len))?;
        if *kind == 0 {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

fn expr(attrs: &[u8]) -> Option<Expr> {
    let name = string(attrs, 1)?;
    let data = find(attrs, 2).unwrap_or(&[]);
    let known = match name.as_str() {
        "meta" if be32(data, 1) == Some(REG_1) => be32(data, 2).map(Expr::Meta),
        "cmp" if be32(data, 1) == Some(REG_1) && be32(data, 2) == Some(0) => {
            find(data, 3).and_then(|d| find(d, 1)).map(|value| Expr::Equals(value.to_vec()))
        }
        "payload" => payload(data),
        "lookup" => lookup(data),
        "dynset" => string(data, 1).map(Expr::UsesSet),
        "objref" => string(data, 4).map(Expr::UsesSet),
        "counter" => Some(Expr::Counter),
        "immediate" if be32(data, 1) == Some(REG_VERDICT) => {
            find(data, 2).and_then(|d| find(d, 2)).and_then(verdict).map(Expr::Verdict)
        }
        "reject" => Some(Expr::Reject),
        // Those two forms iptables-nft has for its own (NFTA_LOG_GROUP; NFTA_LIMIT_TYPE and _FLAGS), and no others.
        "log" if find(data, 1).is_some() => Some(Expr::Other("log group".to_owned())),
        "limit" if be32(data, 4).unwrap_or(0) != 0 || be32(data, 5).unwrap_or(0) != 0 => {
            Some(Expr::Other("limit bytes or over".to_owned()))
        }
        "match" | "target" => Some(Expr::Compat),
        _ => None,
    };
    Some(known.unwrap_or(Expr::Other(name)))
}

fn payload(data: &[u8]) -> Option<Expr> {
    (be32(data, 1)? == REG_1).then_some(())?;
    Some(Expr::Payload { base: be32(data, 2)?, offset: be32(data, 3)?, len: be32(data, 4)? })
}

fn lookup(data: &[u8]) -> Option<Expr> {
    let set = string(data, 1)?;
    let negated = be32(data, 5).unwrap_or(0) != 0;
    Some(match be32(data, 3) {
        Some(REG_VERDICT) => Expr::VerdictMap(set),
        None if !negated && be32(data, 2) == Some(REG_1) => Expr::Lookup(set),
        _ => Expr::UsesSet(set),
    })
}

fn verdict(data: &[u8]) -> Option<Verdict> {
    let chain = || string(data, 2).unwrap_or_default();
    Some(match be32(data, 1)? as i32 {
        libc::NF_ACCEPT => Verdict::Accept,
        libc::NF_DROP => Verdict::Drop,
        libc::NFT_JUMP => Verdict::Jump(chain()),
        libc::NFT_GOTO => Verdict::Goto(chain()),
        other => Verdict::Other(other),
    })
}

/// The verdicts in a message of a verdict map's elements.
pub(super) fn element_verdicts(attrs: &[u8], into: &mut Vec<Verdict>) {
    let elements = Attrs(find(attrs, 3).unwrap_or(&[]));
    into.extend(elements.filter_map(|(_, e)| find(e, 2).and_then(|d| find(d, 2)).and_then(verdict)));
}

/// The elements in a message.
pub(super) fn elements(attrs: &[u8], into: &mut Vec<RawElement>) {
    for (_, element) in Attrs(find(attrs, 3).unwrap_or(&[])) {
        // A catch-all element has no key; none of our sets can hold one.
        let Some(value) = find(element, 1).and_then(|k| find(k, 1)) else { continue };
        let mut key = [0; 16];
        let len = value.len().min(16);
        key[..len].copy_from_slice(&value[..len]);
        into.push(RawElement { key, end: be32(element, 3).unwrap_or(0) & INTERVAL_END != 0 });
    }
}
