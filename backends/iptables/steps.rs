//! The way from what is seen to what should be ours.
//!
//! Belongs here: which steps, and in which order. Pure. Does not: the text of each ([`super::rules`],
//! [`super::ipset`], [`super::persist`]).
//!
//! A set is there before a rule looks into it, and goes after the last rule that did. The stored files come last:
//! they matter at the next boot only.

use super::{
    Owned, Place, Seen, ipset,
    rules::{self, Part},
    seen::{Stranded, Table},
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    nft::{NftBatch, NftOp},
    plan::{Owner, Plan, Run, Step, Write, counted},
};

/// See [`crate::backends::Backend::steps`].
///
/// # Errors
/// `tool-config` if a chain or a set of our name is somebody else's, or a stored file can't be edited safely.
pub fn steps(seen: &Seen, to: &Owned) -> Result<Plan> {
    let mut plan = Plan::default();
    for name in &seen.leftovers {
        plan.change("a set was left half built by a run that was cut off", ipset_restore(format!("destroy {name}\n")));
    }
    for (family, set) in &to.sets {
        if let Some(kind) = seen.foreign_sets.get(family) {
            let name = ipset::set_name(*family);
            return Err(Error::new(
                ErrorKind::ToolConfig,
                format!("there is a set {name} that isn't edgeallow's: {kind}"),
            )
            .hint(format!("rename that set: `ipset rename {name} ANOTHER-NAME`, while no rule looks into it")));
        }
        if let Some(work) = ipset::work(*family, seen.sets.get(family).map(|s| &s.set), set) {
            plan.change(work.why, ipset_restore(work.script));
        }
    }
    for table in &seen.tables {
        let wanted = to.part(&Place::Live(table.tool.variant, table.tool.family)).within(table.foreign);
        if table.taken && !wanted.is_empty() {
            let chain = rules::CHAIN;
            return Err(Error::new(
                ErrorKind::ToolConfig,
                format!("a chain {chain} that isn't edgeallow's is in table filter of {}", table.tool.command),
            )
            .hint(format!("rename that chain: `{} -E {chain} ANOTHER-NAME`", table.tool.command)));
        }
        if let Some(stranded) = table.stranded.as_ref().filter(|_| wanted.is_empty()) {
            plan.change(
                format!(
                    "{} holds our chain, and nft's rules beside it, so iptables can't take it out",
                    table.tool.save
                ),
                Step::Nft(take_out(stranded, seen.generation)?),
            );
            continue;
        }
        if table.part != wanted {
            let script = rules::script(&table.part, &wanted, table.held);
            let run = Run::new([table.tool.restore.as_str(), "--noflush", "-w", "5"]).stdin(script);
            plan.change(why(table, &wanted), Step::Run(run));
        }
    }
    let owned = seen.owned();
    for family in owned.sets.keys().filter(|f| !to.sets.contains_key(f)) {
        let name = ipset::set_name(*family);
        let (why, script) = if seen.foreign_references(*family) > 0 {
            (
                format!("set {name} is not needed; another rule than edgeallow's looks into it, so it stays, empty"),
                "flush",
            )
        } else {
            (format!("set {name} is not needed"), "destroy")
        };
        plan.change(why, ipset_restore(format!("{script} {name}\n")));
    }
    for file in &seen.files {
        let Ok(found) = &file.found else { continue };
        let wanted = to.part(&file.place()).within(found.foreign);
        if found.part == wanted {
            continue;
        }
        let content = super::persist::edit(&file.file.content, &wanted).map_err(|why| {
            Error::new(ErrorKind::ToolConfig, format!("{} can't be edited safely: {why}", file.path.display()))
        })?;
        let step = Write {
            path: file.path.clone(),
            content: content.into(),
            mode: file.file.mode,
            owner: Owner::Administrator,
            was: Some(file.file.content.clone()),
            in_place: false,
        };
        let why = format!("{} is loaded at boot: {}", file.path.display(), difference(&found.part, &wanted));
        plan.change(why, Step::Write(step));
    }
    Ok(plan)
}

/// Takes our chain out of a table that iptables can't work with.
fn take_out(stranded: &Stranded, generation: Option<u32>) -> Result<NftBatch> {
    let Stranded { chain, jumps, rules, held } = stranded;
    if let Some(held) = held {
        return Err(Error::new(
            ErrorKind::ToolConfig,
            format!("cannot take out chain {chain}: a rule in chain {held} that is not ours leads into it"),
        )
        .hint(format!("see it with `nft -a list chain {held}`, delete it, and run edgeallow again")));
    }
    let inside = rules.iter().map(|handle| (chain, handle));
    let all = jumps.iter().map(|(from, handle)| (from, handle)).chain(inside);
    let mut ops: Vec<_> = all.map(|(chain, handle)| NftOp::DelRule { chain: chain.clone(), handle: *handle }).collect();
    ops.push(NftOp::DelChain(chain.clone()));
    Ok(NftBatch { generation, ops })
}

fn ipset_restore(script: String) -> Step {
    Step::Run(Run::new(["ipset", "restore"]).stdin(script))
}

fn why(table: &Table, wanted: &Part) -> String {
    let family = match table.tool.family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    format!("{family} ({}): {}", table.tool.variant.as_str(), difference(&table.part, wanted))
}

/// What differs, in words.
fn difference(seen: &Part, wanted: &Part) -> String {
    let mut out = Vec::new();
    // Whoever put a rule into our chain shall read that it goes.
    let kept = |rule: &rules::Rule| wanted.chain.as_ref().is_some_and(|rules| rules.contains(rule));
    let strange = seen.chain.iter().flatten().filter(|r| !r.is_tagged() && !kept(r)).count();
    match (&seen.chain, &wanted.chain) {
        (None, Some(rules)) => {
            out.push(format!("chain {} with {} is missing", rules::CHAIN, counted(rules.len(), "rule", "rules")))
        }
        (Some(_), None) => out.push(format!("chain {} is not needed", rules::CHAIN)),
        (Some(seen), Some(wanted)) if seen != wanted => {
            let new = wanted.iter().filter(|r| !seen.contains(r)).count();
            let gone = seen.iter().filter(|r| !wanted.contains(r)).count();
            let missing = |n| counted(n, "rule is missing", "rules are missing");
            let strayed = |n| counted(n, "rule doesn't belong there", "rules don't belong there");
            out.push(match (new, gone) {
                (0, 0) => format!("the rules of chain {} are doubled or out of order", rules::CHAIN),
                (n, 0) => missing(n),
                (0, n) => strayed(n),
                (n, m) => format!("{}, {}", missing(n), strayed(m)),
            });
        }
        _ => {}
    }
    if seen.jumps != wanted.jumps && wanted.chain.is_some() {
        out.push(match seen.jumps.as_slice() {
            [] => "INPUT doesn't lead into it".to_owned(),
            [_] => "the jump is not the first rule of INPUT".to_owned(),
            more => format!("the jump is in INPUT {} times", more.len()),
        });
    }
    if strange > 0 {
        out.push(match strange {
            1 => format!("1 rule without edgeallow's comment goes from chain {}", rules::CHAIN),
            n => format!("{n} rules without edgeallow's comment go from chain {}", rules::CHAIN),
        });
    }
    if out.is_empty() {
        out.push("a jump is left over".to_owned());
    }
    out.join("; ")
}
