//! The way from what is seen to what should be ours.
//!
//! Belongs here: which steps, and in which order. Pure. Does not: the text of each ([`super::file`], [`super::live`],
//! [`super::rule`]).
//!
//! The usual way writes the rules file and feeds the kernel the difference, under ufw's own lock. The kernel's rules
//! carry no mark, so at every moment the file must name all of ours that the kernel holds: a rule is in the file
//! before it is in the kernel, and out of the kernel before it is out of the file. Then a run that is cut off anywhere
//! leaves nothing that the next run doesn't know for ours.
//!
//! Where ufw is of a version that we don't know, or the file of a shape, `ufw` itself is told, rule by rule.

use std::{collections::HashSet, sync::Arc};

use super::{
    Owned, Part,
    file::Document,
    live::{script, within},
    rule::{Allow, Placed},
    seen::{LOCK, Seen, Side, path},
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    plan::{LockOn, Owner, Plan, Run, Step, Write},
};

/// See [`crate::backends::Backend::steps`].
///
/// # Errors
/// `backend-unusable` if `ufw` would have to be told and is too old to be.
pub fn steps(seen: &Seen, to: &Owned) -> Result<Plan> {
    let none = Part::default();
    let sides = || seen.sides.iter().map(|s| (s, to.parts.get(&s.file.family).unwrap_or(&none)));
    let mut plan = Plan::default();
    let by_hand = seen.program.known && seen.sides.iter().all(|s| s.file.foreign_form.is_none());
    if by_hand {
        sides().for_each(|(side, to)| by_file(side, to, &mut plan));
    } else {
        // Without IPV6=yes `ufw` refuses to hear of IPv6, removals too.
        let heard = |s: &&Side| s.file.family == Family::V4 || seen.ipv6;
        sides().filter(|(s, _)| heard(s)).for_each(|(side, to)| by_command(side, to, &mut plan));
        if plan.is_empty() || !seen.settings.enabled {
            // What `ufw` changes it loads whole, and what it stores while it is disabled it doesn't load.
            sides().for_each(|(side, to)| by_kernel(side, to, &mut plan));
        } else if too_old(seen.program.version.as_deref()) {
            let version = seen.program.version.as_deref().unwrap_or_default();
            return Err(Error::new(
                ErrorKind::BackendUnusable,
                format!("ufw {version} can't put a rule before others: `ufw prepend` came with 0.36"),
            )
            .hint("update ufw, or leave ufw out of `backends`"));
        }
    }
    let asks_ufw = plan.changes.iter().any(|c| matches!(&c.step, Step::Run(r) if r.argv[0] == "ufw"));
    // `ufw` takes the lock itself: held by us, it would wait for ever.
    if !plan.is_empty() && !asks_ufw {
        plan.locks.push(LockOn::Posix(LOCK.into()));
    }
    Ok(plan)
}

fn too_old(version: Option<&str>) -> bool {
    let mut parts = version.unwrap_or("0.36").split(['.', '-', '~']).map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) < (Some(0), Some(36))
}

fn by_file(side: &Side, to: &Part, plan: &mut Plan) {
    let (file, seen) = (&side.file, side.part());
    let last = within(&to.stored, file.foreign.len());
    let spoiled = seen.spoiled && !to.spoiled;
    // With what goes still in it.
    let first = if side.chain.is_some() { with_leaving(&seen.stored, &last) } else { last.clone() };
    let mut content = file.content.clone();
    let mut write = |ours: &[Placed], why: String, plan: &mut Plan| {
        let new: Arc<[u8]> = file.with(ours).into();
        if new != content {
            let was = Some(std::mem::replace(&mut content, new.clone()));
            let path = path(file.family).into();
            let owner = Owner::Administrator;
            plan.change(why, Step::Write(Write { path, content: new, mode: side.mode, owner, was, in_place: false }));
        }
    };
    if first != seen.stored || spoiled {
        write(&first, why(file, &seen.stored, &first, spoiled), plan);
    }
    by_kernel(side, to, plan);
    if last != first {
        write(&last, why(file, &first, &last, false), plan);
    }
}

/// What shall be there, and behind it whatever is to go, each at its place.
fn with_leaving(seen: &[Placed], last: &[Placed]) -> Vec<Placed> {
    let (there, shall) = (seen.iter().collect::<HashSet<_>>(), rules(last));
    let leaving = seen.iter().filter(|p| !shall.contains(&p.rule));
    let mut all: Vec<Placed> = last.iter().chain(leaving).cloned().collect();
    if all.len() == seen.len() && last.iter().all(|p| there.contains(p)) {
        return seen.to_vec();
    }
    // Stable, so that removing them again leaves what shall be there in its order.
    all.sort_by_key(|p| p.after);
    all
}

fn rules(all: &[Placed]) -> HashSet<&Allow> {
    all.iter().map(|p| &p.rule).collect()
}

fn by_kernel(side: &Side, to: &Part, plan: &mut Plan) {
    let Some(live) = side.live(&to.stored) else { return };
    let to = within(&to.live, live.foreign.len());
    let Some(script) = script(&live, &to, side.file.family) else { return };
    let program = match side.file.family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    let why = format!("{} in the kernel: {}", name(side.file.family), difference(&live.ours, &to));
    plan.change(why, Step::Run(Run::new([program, "--noflush", "-w", "5"]).stdin(script)));
}

fn by_command(side: &Side, to: &Part, plan: &mut Plan) {
    let file = &side.file;
    let seen = |rule: &Allow| file.ours.iter().find(|p| p.rule == *rule);
    let tell = |verb: [&str; 2], rule: &Allow, why: &str, plan: &mut Plan| {
        plan.change(format!("{} {why}", name(file.family)), Step::Run(Run::new(rule.command(verb))));
    };
    // Each goes before the one that went before it.
    for placed in to.stored.iter().rev() {
        match seen(&placed.rule) {
            None => tell(
                ["prepend", "allow"],
                &placed.rule,
                &format!("in ufw: a rule is missing{}", before(file, placed)),
                plan,
            ),
            Some(there) if placed.after < there.after => {
                tell(["delete", "allow"], &placed.rule, "in ufw: a rule stands behind others that refuse", plan);
                tell(["prepend", "allow"], &placed.rule, "in ufw: the same rule, first", plan);
            }
            // Farther behind can't be said to ufw, and needn't be.
            Some(_) => {}
        }
    }
    for gone in file.ours.iter().filter(|p| !to.stored.iter().any(|t| t.rule == p.rule)) {
        tell(["delete", "allow"], &gone.rule, "in ufw: a rule doesn't belong there", plan);
    }
}

const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Why a file is written.
fn why(file: &Document, seen: &[Placed], to: &[Placed], spoiled: bool) -> String {
    let what =
        if spoiled && seen == to { "a rule isn't written as ufw writes it".to_owned() } else { difference(seen, to) };
    let there: HashSet<&Placed> = seen.iter().collect();
    let new = to.iter().find(|p| !there.contains(p));
    format!("{} in ufw: {what}{}", name(file.family), new.map(|p| before(file, p)).unwrap_or_default())
}

/// Which refusal a rule has to stand before, in words.
fn before(file: &Document, placed: &Placed) -> String {
    let refusal = file.refused_before(file.foreign.len(), &placed.rule);
    refusal.map(|t| format!(", to stand before `{}`", t.text())).unwrap_or_default()
}

/// What differs, in words.
fn difference(seen: &[Placed], to: &[Placed]) -> String {
    let (there, shall) = (rules(seen), rules(to));
    let new = to.iter().filter(|p| !there.contains(&p.rule)).count();
    let gone = seen.iter().filter(|p| !shall.contains(&p.rule)).count();
    match (new, gone) {
        (0, 0) => "rules stand behind others that refuse, or are there twice".to_owned(),
        (n, 0) => format!("{n} rules are missing"),
        (0, n) => format!("{n} rules don't belong there"),
        (n, m) => format!("{n} rules are missing, {m} don't belong there"),
    }
}
