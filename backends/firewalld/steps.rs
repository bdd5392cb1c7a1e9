//! The way from what is seen to what should be ours. Pure.
//!
//! Belongs here: which steps, and in which order. Does not: the text of files ([`super::xml`]).
//!
//! Files come first: sets, then the rules that look into them, and on removal the other way round, because a rule
//! whose set is gone makes firewalld's next start or reload end with an empty rule set, open to everybody. Then the
//! running firewall: by single additions and removals where that is enough, else by one reload.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    Owned,
    live::Holder,
    rule::{Rule, set_name},
    seen::{Seen, Zone, policy_path, set_path, zone_path},
    xml,
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    plan::{Owner, Plan, Remove, Run, Step, Write},
};

/// More entries than this at once, and a reload is gentler than so many calls (15 ms each, seen on 1.3.3).
const MOST_ENTRIES: usize = 256;

/// See [`crate::backends::Backend::steps`].
///
/// # Errors
/// `tool-config` if a zone's file can't be edited safely.
pub fn steps(seen: &Seen, to: &Owned) -> Result<Plan> {
    let mut plan = Plan::default();
    let there = seen.owned();
    let sets: Vec<_> = Family::BOTH.into_iter().map(|f| (f, set_path(f))).collect();
    for (family, path) in &sets {
        if let Some(wanted) = to.files.get(path) {
            write_own(seen, path, wanted, &format!("the stored ipset {}", set_name(*family)), &mut plan);
        }
    }
    let policy = policy_path();
    match to.files.get(&policy) {
        Some(wanted) => write_own(seen, &policy, wanted, "the stored policy edgeallow", &mut plan),
        None => remove_own(seen, &policy, "the stored policy edgeallow", &mut plan),
    }
    let zones: BTreeSet<&String> = there.zones.keys().chain(to.zones.keys()).collect();
    for name in zones {
        let wanted = to.zones.get(name).cloned().unwrap_or_default();
        let Some(zone) = seen.zones.get(name) else { continue };
        if zone.rules.as_ref() != Ok(&wanted) {
            let step = edit_zone(name, zone, &wanted)?;
            let why = match wanted.is_empty() {
                true => format!("rules of edgeallow are in zone {name}, and not needed there"),
                false => format!("zone {name} shall hold {} rules of edgeallow", wanted.len()),
            };
            plan.change(why, step);
        }
    }
    for (family, path) in &sets {
        if to.files.contains_key(path) || !there.files.contains_key(path) {
            continue;
        }
        let name = set_name(*family);
        if seen.held.contains(family) {
            let what = format!("the ipset {name}, which something else uses,");
            write_own(seen, path, &xml::ipset(*family, &[]), &what, &mut plan);
        } else {
            remove_own(seen, path, &format!("the stored ipset {name}"), &mut plan);
        }
    }
    if seen.running && !there.live.will_do(&to.live) {
        runtime(seen, &there, to, &mut plan);
    }
    if plan.changes.iter().any(|c| matches!(c.step, Step::Write(_))) {
        let mut changes = Vec::new();
        for folder in &seen.missing_folders {
            let needed = |c: &crate::plan::Change| matches!(&c.step, Step::Write(w) if w.path.starts_with(folder));
            if plan.changes.iter().any(needed) {
                let step = Step::Mkdir(folder.clone());
                let why = format!("{} doesn't exist", folder.display());
                changes.push(crate::plan::Change { why, step, reversible: crate::plan::Reversible::Yes });
            }
        }
        changes.append(&mut plan.changes);
        plan.changes = changes;
    }
    Ok(plan)
}

fn write_own(seen: &Seen, path: &std::path::Path, wanted: &std::sync::Arc<[u8]>, what: &str, plan: &mut Plan) {
    let was = seen.files.get(path).map(|f| f.content.clone());
    if was.as_ref() == Some(wanted) {
        return;
    }
    let why = match &was {
        None => format!("{what} is missing"),
        Some(was) => format!("{what} differs{}", difference(&xml::entries(was), &xml::entries(wanted))),
    };
    plan.change(why, Step::Write(Write::ours(path, wanted.clone(), was)));
}

fn difference(was: &[IpNet], wanted: &[IpNet]) -> String {
    let (was, wanted): (BTreeSet<_>, BTreeSet<_>) = (was.iter().collect(), wanted.iter().collect());
    match (wanted.difference(&was).count(), was.difference(&wanted).count()) {
        (0, 0) => String::new(),
        (new, gone) => format!(": {new} prefixes are missing, {gone} don't belong there"),
    }
}

fn remove_own(seen: &Seen, path: &std::path::Path, what: &str, plan: &mut Plan) {
    if let Some(file) = seen.files.get(path) {
        let step = Step::Remove(Remove { path: path.to_owned(), was: file.content.clone() });
        plan.change(format!("{what} is not needed"), step);
    }
}

fn edit_zone(name: &str, zone: &Zone, wanted: &BTreeSet<Rule>) -> Result<Step> {
    let path = zone_path(name);
    let unsafe_to = |why: String| {
        Error::new(ErrorKind::ToolConfig, format!("{} can't be edited safely: {why}", path.display()))
            .hint("mend it; `firewall-cmd --check-config` says more")
    };
    let Some(file) = &zone.file else {
        let Some(stock) = &zone.stock else {
            return Err(Error::new(
                ErrorKind::ToolConfig,
                format!("there is no zone {name}, though it is the default"),
            )
            .hint("set another with `firewall-cmd --set-default-zone`"));
        };
        let content = xml::copy_zone(stock, wanted).map_err(unsafe_to)?.into();
        let (owner, mode) = (Owner::Administrator, 0o644);
        return Ok(Step::Write(Write { path, content, mode, owner, was: None, in_place: false }));
    };
    let mut content = xml::edit_zone(&file.content, wanted).map_err(unsafe_to)?;
    if wanted.is_empty()
        && let Some(unmarked) = xml::unmarked(&content)
    {
        if !file.symlink && zone.stock.as_deref() == Some(&unmarked[..]) {
            return Ok(Step::Remove(Remove { path, was: file.content.clone() }));
        }
        content = unmarked;
    }
    let (was, mode) = (Some(file.content.clone()), file.mode);
    let content = content.into();
    Ok(Step::Write(Write { path, content, mode, owner: Owner::Administrator, was, in_place: false }))
}

/// Brings the running firewall to the goal.
fn runtime(seen: &Seen, there: &Owned, to: &Owned, plan: &mut Plan) {
    if let Some(steps) = by_single_calls(seen, there, to) {
        plan.changes.extend(steps);
        return;
    }
    // What a reload doesn't forget has to be taken out by hand.
    if !seen.conf.flush_all && seen.found.odd.is_empty() {
        for (family, nets) in &there.live.sets {
            let kept = to.live.sets.get(family).cloned().unwrap_or_default();
            let gone: Vec<&IpNet> = nets.difference(&kept).collect();
            for some in gone.chunks(MOST_ENTRIES) {
                let why = format!("a reload doesn't empty the ipset {}", set_name(*family));
                plan.change(why, entries(*family, "remove", some));
            }
        }
    }
    let why = match (seen.found.odd.first(), there.live.rules.is_empty(), to.live.rules.is_empty()) {
        (Some(odd), ..) => odd.clone(),
        (None, true, _) => "firewalld has to load the stored sets and rules".to_owned(),
        (None, _, true) => "firewalld still has edgeallow's sets and rules loaded".to_owned(),
        (None, ..) => "firewalld has something else loaded than is stored".to_owned(),
    };
    plan.change(why, Step::Run(reload()));
}

/// The reload. Whether one is in a plan decides about [`super::reload::before`].
#[must_use]
pub fn reload() -> Run {
    patient(["firewall-cmd".to_owned(), "--reload".to_owned()])
}

fn patient(argv: impl IntoIterator<Item = String>) -> Run {
    Run { timeout: std::time::Duration::from_secs(60), ..Run::new(argv) }
}

fn entries(family: Family, verb: &str, nets: &[&IpNet]) -> Step {
    let mut argv = vec!["firewall-cmd".to_owned(), format!("--ipset={}", set_name(family))];
    argv.extend(nets.iter().map(|net| format!("--{verb}-entry={net}")));
    Step::Run(patient(argv))
}

fn rich_rules(holder: &Holder, verb: &str, rules: &[&Rule]) -> Step {
    let mut argv = vec!["firewall-cmd".to_owned(), holder.option()];
    argv.extend(rules.iter().map(|rule| format!("--{verb}-rich-rule={rule}")));
    Step::Run(patient(argv))
}

/// Additions before removals, so that nothing wanted is ever refused. `None` where single calls can't do it: a set or
/// a policy can't be made or unmade in a running firewalld, one that disagrees with the kernel believes everything to
/// be in its place, and a prefix can't be added while one that overlaps it is there.
///
/// Never `--add-entries-from-file`: it empties the set and fills it again, and connections are refused in between.
fn by_single_calls(seen: &Seen, there: &Owned, to: &Owned) -> Option<Vec<crate::plan::Change>> {
    let (from, to) = (&there.live, &to.live);
    let policies = |live: &super::live::Live| live.rules.contains_key(&Holder::Policy);
    if !seen.found.odd.is_empty() || !from.sets.keys().eq(to.sets.keys()) || policies(from) != policies(to) {
        return None;
    }
    let mut plan = Plan::default();
    let mut removals = Plan::default();
    for (family, wanted) in &to.sets {
        let held = &from.sets[family];
        let new: Vec<&IpNet> = wanted.difference(held).collect();
        let gone: Vec<&IpNet> = held.difference(wanted).collect();
        let overlap = |net: &&IpNet| gone.iter().any(|old| old.contains(*net) || net.contains(*old));
        if new.len() + gone.len() > MOST_ENTRIES || new.iter().any(overlap) {
            return None;
        }
        if !new.is_empty() {
            let why = format!("{} prefixes are missing in the running ipset {}", new.len(), set_name(*family));
            plan.change(why, entries(*family, "add", &new));
        }
        if !gone.is_empty() {
            let why = format!("{} prefixes don't belong in the running ipset {}", gone.len(), set_name(*family));
            removals.change(why, entries(*family, "remove", &gone));
        }
    }
    let none = BTreeSet::new();
    let holders: BTreeSet<&Holder> = from.rules.keys().chain(to.rules.keys()).collect();
    for holder in holders {
        let held = from.rules.get(holder).unwrap_or(&none);
        let wanted = to.rules.get(holder).unwrap_or(&none);
        let new: Vec<&Rule> = wanted.difference(held).collect();
        let gone: Vec<&Rule> = held.difference(wanted).collect();
        if !new.is_empty() {
            let why = format!("{} rules are missing in the running firewall", new.len());
            plan.change(why, rich_rules(holder, "add", &new));
        }
        if !gone.is_empty() {
            let why = format!("{} rules don't belong in the running firewall", gone.len());
            removals.change(why, rich_rules(holder, "remove", &gone));
        }
    }
    plan.changes.append(&mut removals.changes);
    Some(plan.changes)
}
