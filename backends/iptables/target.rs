//! What should be ours, and what the operator should know.
//!
//! Belongs here: which tables get ours, one rule a prefix or a set, what is stored. Pure. Does not: the way there
//! ([`super::steps`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    IpsetUse, IptablesConfig, Owned, Place, Seen, Variant, ipset,
    rules::{self, Part},
    seen::Table,
};
use crate::{
    allowlist::Family,
    backends::{Auto, Warning},
    error::{Error, ErrorKind, Result},
    plan::{Desired, counted},
};

/// Without `ipset`, and unless the operator says `never`: more linear rules than this would slow every new
/// connection by tens of microseconds.
const MOST_LINEAR: usize = 1024;

/// Whether `auto` takes iptables, from the tables alone.
#[must_use]
pub fn auto(tables: &[Table]) -> Auto {
    let refusing = tables.iter().filter_map(|t| Some((t, t.verdict.refuses.as_ref()?)));
    let why: Vec<String> = refusing.map(|(t, why)| format!("{}: {why}", t.tool.command)).collect();
    if !why.is_empty() {
        return Auto::Yes(why.join("; "));
    }
    let others: BTreeSet<&str> = tables.iter().flat_map(|t| t.verdict.others.iter().copied()).collect();
    if others.is_empty() {
        return Auto::No("no rule or policy on the way through INPUT refuses anything".to_owned());
    }
    let others = others.into_iter().collect::<Vec<_>>().join(", ");
    Auto::No(format!("nothing but the rules of {others} can refuse"))
}

/// The variants that need ours: something in either family refuses, or ours is there already.
#[must_use]
pub fn chosen_by_need(seen: &Seen) -> BTreeSet<Variant> {
    let needy = |t: &&Table| t.verdict.refuses.is_some() || !t.part.is_empty();
    seen.tables.iter().filter(needy).map(|t| t.tool.variant).collect()
}

/// What should be ours.
///
/// # Errors
/// `backend-unusable` if a set is needed and `ipset` isn't there, or if there is no table that could be used.
pub fn target(config: &IptablesConfig, named: bool, want: &Desired, seen: &Seen) -> Result<Owned> {
    let mut chosen = chosen_by_need(seen);
    if chosen.is_empty() && named {
        chosen.extend(seen.default);
        if chosen.is_empty() {
            return Err(Error::new(
                ErrorKind::BackendUnusable,
                "there is no telling which variant the command iptables is: `iptables --version` doesn't answer",
            )
            .hint("repair the iptables installation, or leave iptables out of `backends`"));
        }
    }
    let mut out = Owned::default();
    if chosen.is_empty() {
        return Ok(out);
    }
    let by_set = by_set(config, want, seen)?;
    let families = Family::BOTH.into_iter().filter(|f| want.prefixes.count(*f) > 0);
    let rules: BTreeMap<Family, Vec<rules::Rule>> = families
        .map(|f| match by_set {
            true => (f, rules::by_set(f, &want.ports, &want.protocols)),
            false => (f, rules::linear(f, &want.prefixes, &want.ports, &want.protocols)),
        })
        .collect();
    for table in seen.tables.iter().filter(|t| chosen.contains(&t.tool.variant)) {
        let Some(rules) = rules.get(&table.tool.family) else { continue };
        if table.unreadable {
            return Err(Error::new(
                ErrorKind::BackendUnusable,
                format!("{} can't show its table filter: it holds rules that nft wrote", table.tool.save),
            )
            .hint("use the backend nftables for this table: `edgeallow sync --backend nftables`"));
        }
        let part = Part::holding(rules.clone(), vec![0]);
        out.parts.insert(Place::Live(table.tool.variant, table.tool.family), part);
        if by_set {
            let family = table.tool.family;
            let there = seen.sets.get(&family).map(|s| &s.set);
            let build = || ipset::wanted(family, ipset::elements(&want.prefixes, family), there);
            out.sets.entry(family).or_insert_with(build);
        }
    }
    if config.persist && seen.default.is_some_and(|v| chosen.contains(&v)) {
        for file in seen.files.iter().filter(|f| f.found.is_ok()) {
            let Some(rules) = rules.get(&file.family) else { continue };
            if !seen.tables.iter().any(|t| t.tool.family == file.family) {
                // IPv6 is left out at the moment: its file stays as it is.
                out.parts.extend(seen.owned().parts.remove_entry(&file.place()));
                continue;
            }
            // A set match in a stored file makes the whole restore fail at boot if the set isn't there yet.
            let rules = if by_set { Vec::new() } else { rules.clone() };
            out.parts.insert(file.place(), Part::holding(rules, vec![0]));
        }
    }
    Ok(out)
}

fn by_set(config: &IptablesConfig, want: &Desired, seen: &Seen) -> Result<bool> {
    let many = want.prefixes.len() > config.ipset_threshold;
    let missing = |why: String| {
        Err(Error::new(ErrorKind::BackendUnusable, why).hint("install the package ipset and run edgeallow again"))
    };
    match config.ipset {
        IpsetUse::Never => Ok(false),
        IpsetUse::Auto if !many => Ok(false),
        _ if seen.ipset => Ok(true),
        IpsetUse::Always => missing("`iptables.ipset = \"always\"`, but ipset is not installed".to_owned()),
        IpsetUse::Auto if want.prefixes.len() <= MOST_LINEAR => Ok(false),
        IpsetUse::Auto => {
            missing(format!("{} prefixes need an ipset, and ipset is not installed", want.prefixes.len()))
        }
    }
}

/// What the operator should know of what was seen.
#[must_use]
pub fn warnings(seen: &Seen) -> Vec<Warning> {
    let mut out = Vec::new();
    if let Some(why) = seen.without_v6 {
        out.push(Warning::new("ipv6-skipped", format!("{why}: only IPv4 is handled by iptables")));
    }
    for table in &seen.tables {
        if table.unreadable {
            out.push(Warning::new(
                "table-unreadable",
                format!(
                    "{} can't show its table filter, because nft wrote rules into it; it is left to the backend nftables",
                    table.tool.save
                ),
            ));
        }
        if table.held {
            out.push(Warning::new(
                "chain-held",
                format!(
                    "a rule that isn't edgeallow's leads into chain {} ({}); on removal the chain stays, empty",
                    rules::CHAIN,
                    table.tool.command
                ),
            ));
        }
    }
    out
}

/// What the operator should know of what should be ours.
#[must_use]
pub fn foreseen(config: &IptablesConfig, seen: &Seen, to: &Owned) -> Vec<Warning> {
    let mut out = Vec::new();
    for table in &seen.tables {
        let linear = to.part(&Place::Live(table.tool.variant, table.tool.family)).chain.map_or(0, |rules| rules.len());
        if !seen.ipset && config.ipset == IpsetUse::Auto && linear > config.ipset_threshold {
            out.push(Warning::new(
                "ipset-missing",
                format!(
                    "{} searches {} one by one for each new connection; install ipset to have one look-up",
                    table.tool.command,
                    counted(linear, "rule", "rules")
                ),
            ));
        }
    }
    if config.persist {
        not_persisted(seen, to, &mut out);
    }
    out
}

fn not_persisted(seen: &Seen, to: &Owned, out: &mut Vec<Warning>) {
    let (mut why, mut unloaded) = (BTreeSet::new(), BTreeSet::new());
    for table in &seen.tables {
        let family = table.tool.family;
        let wanted = to.part(&Place::Live(table.tool.variant, family));
        if wanted.is_empty() {
            continue;
        }
        let files: Vec<_> = seen.files.iter().filter(|f| f.family == family).collect();
        if seen.default.is_some_and(|v| v != table.tool.variant) && !files.is_empty() {
            why.insert(format!("the files loaded at boot go to another variant than {}", table.tool.command));
        } else if files.is_empty() {
            unloaded.insert(super::seen::stem(family));
        } else if let Some((file, reason)) = files.iter().find_map(|f| Some((f, f.found.as_ref().err()?))) {
            why.insert(format!("{} can't be edited safely: {reason}", file.path.display()));
        } else if wanted.set_rules(family) > 0 {
            why.insert(format!("a set can't be stored for {}, only the empty chain is", super::seen::stem(family)));
        }
    }
    if !unloaded.is_empty() {
        let families = unloaded.into_iter().rev().collect::<Vec<_>>().join(" and ");
        why.insert(format!("no service here loads stored rules of {families} at boot"));
    }
    if !why.is_empty() {
        let why = why.into_iter().collect::<Vec<_>>().join("; ");
        out.push(Warning::new("not-persisted", format!("{why}: after a boot the next run of edgeallow puts it back")));
    }
}
