//! What firewalld has put into the kernel for us: read there, not asked of firewalld, whose own client takes a quarter
//! of a second of processor time for each question.
//!
//! Belongs here: the two shapes in which firewalld loads rules, nf_tables of its own and iptables with ipsets. Does
//! not: what is stored ([`super::seen`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;

use super::rule::{Rule, set_name};
use crate::{
    allowlist::Family,
    backends::{
        Context,
        iptables::{
            ipset::{self, Content},
            save::{self, Filter},
        },
    },
    error::{Error, ErrorKind, Result},
    host::Look,
    nft::{Expr, Ruleset, SetKind, Table, TableFamily, TableId, Verdict, prefixes},
    plan::TAG,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where rules stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Our policy.
    Policy,
    /// A zone of this name.
    Zone(String),
}

/// What is ours in the running firewall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// The sets with their prefixes.
    pub sets: BTreeMap<Family, BTreeSet<IpNet>>,
    /// Rules by where they stand. The policy is here if it is loaded, a zone if it has rules of ours.
    pub rules: BTreeMap<Holder, BTreeSet<Rule>>,
    /// Whether something stands in the way that only a reload clears: see [`Found::odd`].
    pub odd: bool,
}

impl Live {
    /// Whether nothing has to be done to get from here to there. What was odd before may stay so: undoing must not
    /// reload what a run was forbidden to.
    #[must_use]
    pub fn will_do(&self, to: &Self) -> bool {
        (&self.sets, &self.rules) == (&to.sets, &to.rules) && (to.odd || !self.odd)
    }
}

/// What a look at the kernel finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What is ours.
    pub live: Live,
    /// What isn't as firewalld loads it, in words: only a reload puts that right.
    pub odd: Vec<String>,
    /// Sets were counted, not compared.
    pub counted: bool,
}

/// How firewalld has loaded its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// In `table inet firewalld`.
    Nft(Box<Ruleset>),
    /// In the tables of iptables.
    Xtables,
    /// Not at all.
    Nothing,
}

/// How firewalld has loaded its rules, if it has. Starts no program.
///
/// # Errors
/// Those of [`Look::nft_ruleset`].
pub fn loaded(host: &dyn Look) -> Result<Loaded> {
    let ruleset = host.nft_ruleset()?;
    let zones = |t: &Table| t.chain("INPUT_ZONES").is_some();
    if ruleset.table(&table_id()).is_some() {
        return Ok(Loaded::Nft(Box::new(ruleset)));
    }
    // Legacy tables can't be looked into without a program. Where there are some and firewalld runs without a table
    // of its own, they are taken for its.
    let legacy =
        || host.file(Path::new("/proc/net/ip_tables_names")).ok().flatten().is_some_and(|f| !f.content.is_empty());
    Ok(if ruleset.tables.iter().any(zones) || legacy() { Loaded::Xtables } else { Loaded::Nothing })
}

fn table_id() -> TableId {
    TableId::new(TableFamily::Inet, "firewalld")
}

/// What is ours in the kernel.
///
/// # Errors
/// Those of [`Look`]; `program` if a program fails that has to be asked about iptables.
pub fn find(cx: &Context<'_>, loaded: &Loaded) -> Result<Found> {
    let mut found = Found::default();
    match loaded {
        Loaded::Nothing => {}
        Loaded::Nft(ruleset) => {
            if let Some(table) = ruleset.table(&table_id()) {
                nft_rules(table, &mut found);
                nft_sets(cx, table, &mut found)?;
            }
        }
        Loaded::Xtables => xtables(cx, &mut found)?,
    }
    Ok(found)
}

fn nft_rules(table: &Table, found: &mut Found) {
    let ours = format!("filter_IN_policy_{TAG}");
    let goes_to = |exprs: &[Expr], to: &str| {
        exprs.iter().any(|e| matches!(e, Expr::Verdict(Verdict::Jump(c) | Verdict::Goto(c)) if c == to))
    };
    let jumps = |from: &dyn Fn(&str) -> bool, to: &str| {
        let chains = table.chains.iter().filter(|c| from(&c.name));
        chains.flat_map(|c| &c.rules).filter(|r| goes_to(&r.exprs, to)).count()
    };
    for chain in &table.chains {
        let Some(name) = chain.name.strip_prefix("filter_IN_") else { continue };
        let rules: Vec<_> = chain.rules.iter().map(|r| Rule::from_exprs(&r.exprs)).collect();
        if chain.name == ours {
            found.live.rules.entry(Holder::Policy).or_default();
        } else if let Some(part) = name.strip_prefix("policy_edgeallow_") {
            let into = found.live.rules.entry(Holder::Policy).or_default();
            let known = rules.iter().flatten().count();
            into.extend(rules.iter().flatten());
            if known < rules.len() || known > into.len() || (part != "allow" && known > 0) {
                found.odd.push(format!("chain {} holds what edgeallow didn't put there", chain.name));
            }
        } else if !name.starts_with("policy_")
            && let Some(zone) = name.strip_suffix("_allow")
        {
            let ours: BTreeSet<Rule> = rules.into_iter().flatten().collect();
            if !ours.is_empty() {
                found.live.rules.insert(Holder::Zone(zone.to_owned()), ours);
            }
        }
    }
    if found.live.rules.contains_key(&Holder::Policy) {
        let entered = jumps(&|from| !from.starts_with(&ours), &ours);
        let left = jumps(&|from| from == ours, &format!("{ours}_allow"));
        if (entered, left) != (1, 1) {
            found.odd.push(format!("the way through chain {ours} is not as firewalld makes it"));
        }
    }
}

fn nft_sets(cx: &Context<'_>, table: &Table, found: &mut Found) -> Result<()> {
    for family in Family::BOTH {
        let Some(set) = table.set(set_name(family)) else { continue };
        let kind = SetKind::from(family);
        if set.kind() != Some(kind) {
            found.live.sets.insert(family, BTreeSet::new());
            found.odd.push(format!("set {} is of another kind", set.name));
            continue;
        }
        let told = set.count.map(|n| n as usize);
        let applied = cx.applied.as_deref().filter(|_| !cx.deep && told.is_some_and(|n| n > cx.full_check));
        let nets = match applied.map(|list| ipset::elements(list, family)) {
            // The kernel knows how many; that these are the ones is presumed from what was confirmed last.
            Some(nets) if told == Some(nets.len()) => {
                found.counted = true;
                nets.iter().copied().collect()
            }
            _ => {
                let (list, exact) = prefixes(kind, &cx.host.nft_elements(&table_id().set(&set.name), kind)?);
                if !exact {
                    found.odd.push(format!("set {} holds ranges that are no prefixes", set.name));
                }
                ipset::elements(&list, family).iter().copied().collect()
            }
        };
        found.live.sets.insert(family, nets);
    }
    Ok(())
}

fn xtables(cx: &Context<'_>, found: &mut Found) -> Result<()> {
    let host = cx.host;
    let mut commands = vec![vec!["iptables-save", "-t", "filter"]];
    let v6 = host.program("ip6tables-save").is_some() && host.exists(Path::new("/proc/net/if_inet6"));
    if v6 {
        commands.push(vec!["ip6tables-save", "-t", "filter"]);
    }
    let with_sets = host.program("ipset").is_some() && host.exists(Path::new("/sys/module/ip_set"));
    if with_sets {
        commands.push(vec!["ipset", "list", "-t"]);
    }
    let mut answers = Vec::new();
    for (command, answer) in commands.iter().zip(host.run_all(&commands, PATIENCE)) {
        let answer = answer?;
        if !answer.ok() {
            let failed = format!("{} failed: {}", command[0], answer.complaint());
            return Err(
                Error::new(ErrorKind::Program, failed).hint("run it by hand; firewalld's rules are read from it")
            );
        }
        answers.push(answer.stdout);
    }
    if with_sets {
        let headers = ipset::parse_headers(&answers.pop().unwrap_or_default());
        for family in Family::BOTH.into_iter().filter(|f| headers.iter().any(|h| h.name == set_name(*f))) {
            let answer = host.run(&["ipset", "save", set_name(family)], PATIENCE)?;
            let Content::Known { nets, odd } = ipset::parse_elements(&answer.stdout) else { continue };
            if !odd.is_empty() {
                found.odd.push(format!("set {} holds what edgeallow didn't put there", set_name(family)));
            }
            found.live.sets.insert(family, nets.iter().copied().collect());
        }
    }
    for text in answers {
        if let Some(filter) = save::parse(&text).filter {
            xtables_rules(&filter, found);
        }
    }
    Ok(())
}

fn xtables_rules(filter: &Filter, found: &mut Found) {
    let ours = format!("IN_{TAG}");
    let mut seen = 0;
    for (name, chain) in &filter.chains {
        let rules: Vec<_> = chain.rules.iter().map(|words| Rule::from_words(words)).collect();
        if let Some(part) = name.strip_prefix(&ours) {
            let into = found.live.rules.entry(Holder::Policy).or_default();
            if part.is_empty() {
                continue;
            }
            seen += rules.iter().flatten().count();
            into.extend(rules.iter().flatten());
            if rules.contains(&None) || (part != "_allow" && !rules.is_empty()) {
                found.odd.push(format!("chain {name} holds what edgeallow didn't put there"));
            }
        } else if let Some(zone) = name.strip_prefix("IN_").and_then(|n| n.strip_suffix("_allow")) {
            let ours: BTreeSet<Rule> = rules.into_iter().flatten().collect();
            if !ours.is_empty() {
                found.live.rules.entry(Holder::Zone(zone.to_owned())).or_default().extend(ours);
            }
        }
    }
    if let Some(chain) = filter.chains.get(&ours) {
        let goes_to =
            |rule: &Vec<String>, to: &str| rule.windows(2).any(|w| (w[0] == "-j" || w[0] == "-g") && w[1] == to);
        let others = filter.chains.iter().filter(|(name, _)| !name.starts_with(&ours));
        let entered = others.flat_map(|(_, c)| &c.rules).filter(|r| goes_to(r, &ours)).count();
        let left = chain.rules.iter().filter(|r| goes_to(r, &format!("{ours}_allow"))).count();
        let doubled = found.live.rules.get(&Holder::Policy).is_some_and(|all| seen > all.len());
        if (entered, left) != (1, 1) || doubled {
            found.odd.push(format!("the way through chain {ours} is not as firewalld makes it"));
        }
    }
}
