//! Which chains edgeallow belongs in: the native base chains on input that can refuse a packet.
//!
//! Belongs here: judging a rule set, purely. Does not: reading it, or what is put into the chains.

use std::collections::{BTreeMap, BTreeSet};

use super::OWN_TABLE;
use crate::nft::{Chain, ChainId, Expr, Hooked, Policy, Ruleset, SetId, Table, TableFamily, Verdict, is_xtables};

/// The verdicts that each verdict map can give.
pub(super) type Verdicts = BTreeMap<SetId, Vec<Verdict>>;

/// Beginnings of the names of tables that other programs make and rewrite.
const FOREIGN: [(&str, &str); 9] = [
    ("firewalld", "firewalld"),
    ("docker", "Docker"),
    ("f2b-", "fail2ban"),
    ("fail2ban", "fail2ban"),
    ("libvirt", "libvirt"),
    ("crowdsec", "CrowdSec"),
    ("netavark", "netavark"),
    ("sshguard", "sshguard"),
    ("kube-", "Kubernetes"),
];

/// A base chain on input in a table that nobody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub chain: ChainId,
    /// Why a packet can be refused in it: `has policy drop`.
    pub refuses: Option<String>,
}

/// Who owns a table, if it is another program.
pub(super) fn owner(table: &Table) -> Option<&'static str> {
    if table.owned {
        return Some("a running program");
    }
    if let Some((_, who)) = FOREIGN.iter().find(|(start, _)| table.id.name.starts_with(start)) {
        return Some(who);
    }
    // The backend iptables asks the same question of this table, so that exactly one of the two takes it.
    if matches!(table.id.family, TableFamily::Ip | TableFamily::Ip6) && table.id.name == "filter" {
        return is_xtables(table).then_some("iptables");
    }
    (is_xtables(table) || compat(table)).then_some("iptables")
}

/// Whether rules in it use extensions of iptables: then nft can't load what it lists of the table.
pub(super) fn compat(table: &Table) -> bool {
    table.chains.iter().flat_map(|c| &c.rules).any(|r| r.exprs.contains(&Expr::Compat))
}

/// Whether it is a filter chain on the hook input.
pub(super) fn on_input(chain: &Chain) -> bool {
    chain.hooked.as_ref().is_some_and(|h| h.hook == Hooked::INPUT && h.kind == "filter")
}

fn filters_input(table: &Table) -> bool {
    // A table that sleeps refuses nothing.
    !table.dormant && !matches!(table.id.family, TableFamily::Other(_)) && table.chains.iter().any(on_input)
}

/// The verdict maps whose elements must be known to judge.
pub(super) fn maps(rules: &Ruleset) -> BTreeSet<SetId> {
    let tables = rules.tables.iter().filter(|t| filters_input(t));
    tables
        .flat_map(|t| t.chains.iter().flat_map(|c| &c.rules).flat_map(|r| &r.exprs).map(move |e| (t, e)))
        .filter_map(|(t, e)| if let Expr::VerdictMap(name) = e { Some(t.id.set(name)) } else { None })
        .collect()
}

/// The native base chains on input, and why each can refuse. Our own table is not among them.
pub(super) fn places(rules: &Ruleset, verdicts: &Verdicts) -> Vec<Place> {
    let native = rules.tables.iter().filter(|t| filters_input(t) && owner(t).is_none() && t.id != *OWN_TABLE);
    native.flat_map(|t| candidates(t, verdicts)).collect()
}

/// Tables of others that can refuse on input, with their owners: an accept of ours can't overrule them.
pub(super) fn foreign_refusals(rules: &Ruleset, verdicts: &Verdicts) -> Vec<String> {
    let mut found = Vec::new();
    for table in rules.tables.iter().filter(|t| filters_input(t)) {
        let Some(owner) = owner(table) else { continue };
        if candidates(table, verdicts).any(|p| p.refuses.is_some()) {
            found.push(format!("{} (owned by {owner})", table.id));
        }
    }
    found
}

fn candidates<'a>(table: &'a Table, verdicts: &'a Verdicts) -> impl Iterator<Item = Place> + 'a {
    table.chains.iter().filter(|c| on_input(c)).map(|chain| Place {
        chain: table.id.chain(&chain.name),
        refuses: if chain.hooked.as_ref().is_some_and(|h| h.policy == Policy::Drop) {
            Some("has policy drop".to_owned())
        } else {
            let at = refusal(table, chain, verdicts, &mut BTreeSet::new());
            at.map(|at| {
                if at == chain.name {
                    "has rules that refuse".to_owned()
                } else {
                    format!("leads to chain {at}, which refuses")
                }
            })
        },
    })
}

/// The chains that a rule of the table leads to.
pub(super) fn led_to<'a>(table: &'a Table, verdicts: &'a Verdicts) -> BTreeSet<&'a str> {
    let exprs = table.chains.iter().flat_map(|c| &c.rules).flat_map(|r| &r.exprs);
    let given = exprs.flat_map(|expr| match expr {
        Expr::Verdict(v) => std::slice::from_ref(v),
        Expr::VerdictMap(name) => verdicts.get(&table.id.set(name)).map_or(&[][..], Vec::as_slice),
        _ => &[],
    });
    given.filter_map(|v| if let Verdict::Jump(to) | Verdict::Goto(to) = v { Some(to.as_str()) } else { None }).collect()
}

/// The chain reachable from this one that has a rule which refuses.
fn refusal<'a>(
    table: &'a Table,
    chain: &'a Chain,
    verdicts: &'a Verdicts,
    been: &mut BTreeSet<&'a str>,
) -> Option<String> {
    if !been.insert(&chain.name) {
        return None;
    }
    for expr in chain.rules.iter().flat_map(|r| &r.exprs) {
        let given: &[Verdict] = match expr {
            Expr::Reject => return Some(chain.name.clone()),
            Expr::Verdict(v) => std::slice::from_ref(v),
            Expr::VerdictMap(name) => verdicts.get(&table.id.set(name)).map_or(&[], Vec::as_slice),
            _ => &[],
        };
        for verdict in given {
            match verdict {
                Verdict::Drop => return Some(chain.name.clone()),
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let found = table.chain(to).and_then(|next| refusal(table, next, verdicts, been));
                    if found.is_some() {
                        return found;
                    }
                }
                Verdict::Accept | Verdict::Other(_) => {}
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
