//! The kernel's part: what should be there, and the transaction that leads from what is seen to that.
//!
//! Belongs here: pure decisions. A transaction holds only differences: deletions first, so that a prefix can move from
//! one shape to another, then additions, then rules. Does not: what is stored ([`super::boot`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    NftablesConfig, OWN_CHAIN, OWN_TABLE, SET_PORTS, SET_V4, SET_V6,
    seen::{ChainSeen, Content, Holding, Seen, TableSeen},
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    nft::{AcceptRule, ChainId, Elements, Expr, Hooked, NftBatch, NftOp, SetId, TableFamily, TableId},
    plan::{Desired, Protocol, TAG},
};

fn set_of(family: Family) -> &'static str {
    match family {
        Family::V4 => SET_V4,
        Family::V6 => SET_V6,
    }
}

fn accept(family: Family, protocol: Protocol) -> AcceptRule {
    AcceptRule {
        family,
        protocol,
        sources: set_of(family).to_owned(),
        ports: SET_PORTS.to_owned(),
        comment: TAG.to_owned(),
    }
}

/// Which of our rules these expressions are, if they are exactly one of ours.
pub(super) fn recognise(table: TableFamily, exprs: &[Expr]) -> Option<AcceptRule> {
    let all = Family::BOTH.into_iter().flat_map(|f| [Protocol::Tcp, Protocol::Udp].map(|p| accept(f, p)));
    all.filter(|rule| table.carries(rule.family)).find(|rule| rule.exprs(table) == exprs)
}

/// The chains to be in.
fn attach(config: &NftablesConfig, named: bool, seen: &Seen) -> Result<BTreeSet<ChainId>> {
    if !config.attach.is_empty() {
        let chains: BTreeSet<_> = config.attach.iter().map(|name| name.0.clone()).collect();
        if let Some(gone) = chains.iter().find(|c| !seen.chains.contains(c) && c.table != *OWN_TABLE) {
            return Err(Error::new(ErrorKind::BackendUnusable, format!("nftables has no chain {gone}")).hint(
                "correct `nftables.attach` in the configuration, or load the rule set that has this chain; \
                 `nft list chains` shows what there is",
            ));
        }
        if let Some(asleep) = chains.iter().find(|c| seen.dormant.contains(&c.table) && c.table != *OWN_TABLE) {
            return Err(Error::new(
                ErrorKind::BackendUnusable,
                format!("table {} is dormant: its chain {} sees no packet", asleep.table, asleep.name),
            )
            .hint("leave it out of `nftables.attach`, or wake it by loading it without `flags dormant`"));
        }
        let elsewhere = |c: &&ChainId| seen.hooked.contains(c) && !seen.inputs.contains(c) && c.table != *OWN_TABLE;
        if let Some(wrong) = chains.iter().find(elsewhere) {
            return Err(Error::new(
                ErrorKind::ToolConfig,
                format!("chain {wrong} sees no packet for this machine: it is no filter chain on the hook input"),
            )
            .hint("name a chain on input in `nftables.attach`, or a chain without a hook that one on input leads to"));
        }
        return Ok(chains);
    }
    let attached = |c: &ChainId| seen.tables.get(&c.table).is_some_and(|t| t.chains.contains_key(&c.name));
    let places = seen.places.iter().filter(|p| p.refuses.is_some() || attached(&p.chain));
    let mut chains: BTreeSet<_> = places.map(|p| p.chain.clone()).collect();
    if chains.is_empty() && named {
        chains.insert(OWN_TABLE.chain(OWN_CHAIN));
    }
    Ok(chains)
}

/// What should be ours in the kernel.
pub(super) fn target(
    config: &NftablesConfig,
    named: bool,
    want: &Desired,
    seen: &Seen,
) -> Result<BTreeMap<TableId, Holding>> {
    let mut live: BTreeMap<TableId, Holding> = BTreeMap::new();
    for chain in attach(config, named, seen)? {
        let families =
            Family::BOTH.into_iter().filter(|f| chain.table.family.carries(*f) && want.prefixes.count(*f) > 0);
        let families: Vec<_> = families.collect();
        if families.is_empty() {
            continue;
        }
        let rules = families.iter().flat_map(|f| want.protocols.iter().map(|p| accept(*f, *p))).collect();
        let holding = live.entry(chain.table).or_default();
        holding.rules.insert(chain.name, rules);
        for family in families {
            let elements = Elements::Prefixes { of: want.prefixes.clone(), family };
            holding.sets.insert(set_of(family).to_owned(), Content::Known(elements));
        }
        let ports = Elements::Ports(want.ports.clone());
        holding.sets.insert(SET_PORTS.to_owned(), Content::Known(ports));
    }
    Ok(live)
}

/// The parts of a transaction, in the order in which they are sent.
#[derive(Default)]
struct Ops {
    tables: Vec<NftOp>,
    del_rules: Vec<NftOp>,
    del_sets: Vec<NftOp>,
    del_elements: Vec<NftOp>,
    add_sets: Vec<NftOp>,
    add_elements: Vec<NftOp>,
    rules: Vec<NftOp>,
    why: Vec<String>,
}

/// The transaction that leads from what is seen to what should be, and why.
pub(super) fn steps(seen: &Seen, to: &BTreeMap<TableId, Holding>) -> Result<(String, NftBatch)> {
    let mut ops = Ops::default();
    let nothing = (TableSeen::default(), Holding::default());
    let tables: BTreeSet<&TableId> = seen.tables.keys().chain(to.keys()).collect();
    for id in tables {
        let mut have = seen.tables.get(id);
        let goal = to.get(id);
        if *id == *OWN_TABLE {
            if have.is_some() && (goal.is_none() || have.is_some_and(|t| !t.sound)) {
                ops.tables.push(NftOp::DelTable(id.clone()));
                ops.because(id, "goes");
                have = None;
            }
            if goal.is_some() && have.is_none() {
                ops.tables.push(NftOp::AddTable(id.clone()));
                ops.tables.push(NftOp::AddChain { chain: id.chain(OWN_CHAIN), hooked: Hooked::input() });
                ops.because(id, "is made");
            }
            if goal.is_none() {
                continue;
            }
        }
        let (have, goal) = (have.unwrap_or(&nothing.0), goal.unwrap_or(&nothing.1));
        // A place that is gone took what was ours with it; there is nothing to put it into.
        let there = |chain: &str| *id == *OWN_TABLE || seen.chains.contains(&id.chain(chain));
        if !goal.rules.is_empty() && !goal.rules.keys().any(|c| there(c)) && have.sets.is_empty() {
            continue;
        }
        let anew = ops.sets(id, have, goal)?;
        ops.rules(id, have, goal, &anew, &there);
    }
    let why = ops.why.join("; ");
    let parts = [ops.tables, ops.del_rules, ops.del_sets, ops.del_elements, ops.add_sets, ops.add_elements, ops.rules];
    Ok((why, NftBatch { generation: seen.generation, ops: parts.into_iter().flatten().collect() }))
}

impl Ops {
    fn because(&mut self, table: &TableId, what: impl std::fmt::Display) {
        self.why.push(format!("table {table} {what}"));
    }

    /// Plans one table's sets. Returns those that go or are made anew: no rule may use them meanwhile.
    fn sets<'a>(&mut self, id: &TableId, have: &'a TableSeen, goal: &'a Holding) -> Result<BTreeSet<&'a str>> {
        let mut anew = BTreeSet::new();
        let names: BTreeSet<&String> = have.sets.keys().chain(goal.sets.keys()).collect();
        for name in names {
            let set = id.set(name);
            let (old, new) = (have.sets.get(name), goal.sets.get(name));
            let kept = old.zip(new).and_then(|(old, new)| {
                old.content.as_ref().filter(|c| c.kind() == new.kind()).map(|content| (old.exact, content, new))
            });
            if let Some((exact, content, new)) = kept {
                self.difference(&set, exact, content, new);
                continue;
            }
            if let Some(old) = old {
                if let Some(chain) = old.users.first() {
                    return Err(in_use(&set, chain));
                }
                anew.insert(name.as_str());
                self.del_sets.push(NftOp::DelSet(set.clone()));
                self.because(id, format!("no longer needs set {name} as it is"));
            }
            if let Some(new) = new {
                self.add_sets.push(NftOp::AddSet { set: set.clone(), kind: new.kind() });
                if let Content::Known(elements) = new {
                    self.because(id, format!("gets set {name} with {} elements", elements.len()));
                    self.add(&set, elements.clone());
                }
            }
        }
        Ok(anew)
    }

    /// Plans one set that stays.
    fn difference(&mut self, set: &SetId, exact: bool, old: &Content, new: &Content) {
        let Content::Known(new) = new else { return };
        let gone = match old {
            Content::Known(old) if exact => {
                let (gone, more) = (old.minus(new), new.minus(old));
                if gone.is_empty() && more.is_empty() {
                    return;
                }
                self.why.push(format!("set {set}: {} to add, {} to remove", more.len(), gone.len()));
                self.add(set, more);
                gone
            }
            _ => {
                self.why.push(format!("set {set} is not what it should be: {} elements anew", new.len()));
                self.del_elements.push(NftOp::FlushSet(set.clone()));
                self.add(set, new.clone());
                return;
            }
        };
        if !gone.is_empty() {
            self.del_elements.push(NftOp::DelElements { set: set.clone(), elements: gone });
        }
    }

    fn add(&mut self, set: &SetId, elements: Elements) {
        if !elements.is_empty() {
            self.add_elements.push(NftOp::AddElements { set: set.clone(), elements });
        }
    }

    /// Plans one table's rules.
    fn rules(
        &mut self,
        id: &TableId,
        have: &TableSeen,
        goal: &Holding,
        anew: &BTreeSet<&str>,
        there: &dyn Fn(&str) -> bool,
    ) {
        let none = (ChainSeen { rules: Vec::new(), first: true }, Vec::new());
        let chains: BTreeSet<&String> = have.chains.keys().chain(goal.rules.keys()).collect();
        for name in chains.into_iter().filter(|c| there(c)) {
            let (old, new) = (have.chains.get(name).unwrap_or(&none.0), goal.rules.get(name).unwrap_or(&none.1));
            let same = old.first && old.rules.iter().map(|(_, r)| r.as_ref()).eq(new.iter().map(Some));
            let stays = new.iter().all(|r| !anew.contains(&*r.sources) && !anew.contains(&*r.ports));
            if same && stays {
                continue;
            }
            let chain = id.chain(name);
            self.why.push(match (old.rules.is_empty(), new.is_empty()) {
                (true, _) => format!("chain {chain} does not let the sets through yet"),
                (false, true) => format!("chain {chain} is no longer the place"),
                (false, false) if same => format!("chain {chain} needs its rules anew for the new sets"),
                (false, false) if !old.first => format!("our rules are not the first of chain {chain}"),
                (false, false) => format!("our rules in chain {chain} are not what they should be"),
            });
            let handles = old.rules.iter().map(|(handle, _)| *handle);
            self.del_rules.extend(handles.map(|handle| NftOp::DelRule { chain: chain.clone(), handle }));
            // Each goes before the one put in before it.
            let insert = |rule: &AcceptRule| NftOp::InsertRule { chain: chain.clone(), rule: rule.clone() };
            self.rules.extend(new.iter().rev().map(insert));
        }
    }
}

fn in_use(set: &SetId, chain: &str) -> Error {
    Error::new(
        ErrorKind::ToolConfig,
        format!("cannot take out set {set}: a rule in chain {} {chain} that is not ours uses it", set.table),
    )
    .hint(format!("see it with `nft -a list chain {} {chain}`, delete it, and run edgeallow again", set.table))
}
