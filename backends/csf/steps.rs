//! What should be ours in CSF, and the way there.
//!
//! Belongs here: which steps, and in which order. Pure. Does not: the text of each ([`super::lists`],
//! [`super::chains`]).
//!
//! The live rules carry no mark: what is ours is what our list says. So the list names a rule before it goes live and
//! until it is gone: whatever step fails, or at whichever the power goes, the next look knows what is ours. Where some
//! come and others go the list holds both for the moment between.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    Owned, Seen,
    chains::{self, Difference},
    family_name,
    line::{self, Allow},
    lists,
    seen::{HisList, LFD_RESTART, LOCK},
};
use crate::{
    allowlist::Family,
    plan::{Change, Desired, LockOn, Owner, Plan, Remove, Reversible, Run, Step, Write},
};

/// Files in `/etc/csf` are open to root alone.
const MODE: u32 = 0o600;

/// What should be ours: the lists always, the rules where CSF is loaded.
#[must_use]
pub fn target(want: &Desired, seen: &Seen) -> Owned {
    let lines = line::wanted(&want.prefixes, &want.ports, &want.protocols);
    Owned {
        allow: Some(lists::allow_text(&lines).into()),
        ignore: Some(lists::ignore_text(&want.prefixes).into()),
        allow_included: true,
        ignore_included: true,
        live: lines.into_iter().filter(|l| seen.loaded(l.family())).collect(),
    }
}

/// See [`crate::backends::Backend::steps`].
#[must_use]
pub fn steps(seen: &Seen, to: &Owned) -> Plan {
    let mut plan = Plan::default();
    let ours = seen.ours();
    let named: BTreeSet<Allow> = to.allow.iter().flat_map(|text| lists::allows(text)).collect();
    let differences: Vec<_> = seen
        .tables
        .iter()
        .map(|t| (t, chains::difference(t.tool.family, &t.chains, &ours, &to.live, &seen.his)))
        .filter(|(_, d)| !d.is_empty())
        .collect();

    // What the list must name while the rules change: all that is put in, and all that is taken out.
    let leaving: Vec<Allow> = {
        let taken = differences.iter().flat_map(|(_, d)| &d.take).filter(|a| !named.contains(a));
        taken.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    };
    let coming = differences.iter().flat_map(|(_, d)| &d.put).any(|a| !ours.contains(a));
    let mut list = seen.allow.clone();
    if leaving.is_empty() || coming {
        let mut text = to.allow.as_deref().map(<[u8]>::to_vec);
        if !leaving.is_empty() {
            let whole = named.iter().chain(&leaving).collect::<BTreeSet<_>>();
            text = Some(lists::allow_text(whole));
        }
        if let Some(text) = text {
            list = own_file(&mut plan, lists::ALLOW, list, Some(text.into()), !leaving.is_empty());
        }
    }
    if to.allow_included {
        include(&mut plan, lists::HIS_ALLOW, lists::ALLOW, &seen.his_allow, true);
    }
    for (table, difference) in &differences {
        let run = Run::new([table.tool.restore.as_str(), "--noflush", "-w", "5"]);
        let script = difference.script(&table.chains.shape);
        plan.change(why(table.tool.family, difference), Step::Run(run.stdin(script)));
    }
    if !to.allow_included {
        include(&mut plan, lists::HIS_ALLOW, lists::ALLOW, &seen.his_allow, false);
    }
    own_file(&mut plan, lists::ALLOW, list, to.allow.clone(), false);
    forget_saved(&mut plan, seen, &ours, if to.allow_included { &named } else { &EMPTY });

    // lfd's list comes last, so that a run that is cut off after it has nothing left to do but to tell lfd.
    let before = plan.changes.len();
    if to.ignore_included {
        own_file(&mut plan, lists::IGNORE, seen.ignore.clone(), to.ignore.clone(), false);
    }
    include(&mut plan, lists::HIS_IGNORE, lists::IGNORE, &seen.his_ignore, to.ignore_included);
    if !to.ignore_included {
        own_file(&mut plan, lists::IGNORE, seen.ignore.clone(), to.ignore.clone(), false);
    }
    // A plan without changes says what would have made lfd read its list: that is done after a run that was cut off.
    if seen.lockable && (plan.is_empty() || plan.changes.len() > before) {
        plan.activate.push(Step::Touch(LFD_RESTART.into()));
    }
    lock(&mut plan, seen);
    plan
}

static EMPTY: BTreeSet<Allow> = BTreeSet::new();

/// CSF's own lock, and those on the lists of his that are edited in place.
fn lock(plan: &mut Plan, seen: &Seen) {
    if plan.is_empty() {
        return;
    }
    if seen.lockable {
        plan.locks.push(LockOn::FlockMade(LOCK.into()));
    }
    for (path, list) in [(lists::HIS_ALLOW, &seen.his_allow), (lists::HIS_IGNORE, &seen.his_ignore)] {
        let edited = |c: &Change| matches!(&c.step, Step::Write(w) if w.path == Path::new(path));
        if list.file.is_some() && plan.changes.iter().any(edited) {
            plan.locks.push(LockOn::Flock(path.into()));
        }
    }
}

/// Brings a file of ours from one content to another; returns what it holds then.
fn own_file(
    plan: &mut Plan,
    path: &str,
    from: Option<Arc<[u8]>>,
    to: Option<Arc<[u8]>>,
    for_now: bool,
) -> Option<Arc<[u8]>> {
    match (from, &to) {
        (from, to) if from == *to => {}
        (Some(was), None) => {
            plan.change(format!("{path} is not needed"), Step::Remove(Remove { path: path.into(), was }))
        }
        (was, Some(content)) => {
            let what = if was.is_none() { "is missing" } else { "doesn't say what it should" };
            let until = if for_now { "; until the live rules are changed it names the old ones too" } else { "" };
            let write = Write { mode: MODE, ..Write::ours(path, content.clone(), was) };
            plan.change(format!("{path} {what}{until}"), Step::Write(write));
        }
        (None, None) => {}
    }
    to
}

/// Brings our line into a list of his, or out of it.
fn include(plan: &mut Plan, path: &str, ours: &str, list: &HisList, there: bool) {
    let found = list.found;
    if found.broken == 0 && found.good == usize::from(there) {
        return;
    }
    let why = match (there, found.good, found.broken) {
        (false, ..) => format!("{path} needn't include edgeallow's list any more"),
        (true, 0, 0) => format!("{path} doesn't include edgeallow's list"),
        (true, 0, _) => format!("{path} includes edgeallow's list in a way that CSF doesn't follow"),
        (true, ..) => format!("{path} includes edgeallow's list more than once"),
    };
    let was = list.file.as_ref().map(|f| f.content.clone());
    let write = Write {
        path: path.into(),
        content: lists::edit(was.as_deref().unwrap_or_default(), ours, there).into(),
        mode: MODE,
        owner: Owner::Administrator,
        was,
        // CSF edits these files in place, under a lock on the file itself: a new file would be beside that lock.
        in_place: true,
    };
    plan.change(why, Step::Write(write));
}

/// While CSF isn't loaded: rules that it saved when it was stopped would come back instead of what its lists say.
fn forget_saved(plan: &mut Plan, seen: &Seen, ours: &BTreeSet<Allow>, named: &BTreeSet<Allow>) {
    let stale = seen.saved.iter().any(|saved| {
        let named: BTreeSet<Allow> = named.iter().filter(|a| a.family() == saved.family).cloned().collect();
        match &saved.chains {
            Some(chains) => !chains::difference(saved.family, chains, ours, &named, &seen.his).is_empty(),
            None => !named.is_empty(),
        }
    });
    // CSF takes both or none.
    for saved in seen.saved.iter().filter(|_| stale) {
        let step = Step::Remove(Remove { path: saved.path.clone(), was: saved.content.clone() });
        plan.changes.push(Change {
            why: format!(
                "{} would bring back rules that are not those of CSF's lists when CSF is started",
                saved.path.display()
            ),
            step,
            reversible: Reversible::No("without it CSF makes its rules from its lists when it is started".to_owned()),
        });
    }
}

fn why(family: Family, difference: &Difference) -> String {
    let family = family_name(family);
    match (difference.put.len(), difference.take.len()) {
        (put, 0) => format!("{family}: {put} rules are missing in ALLOWIN and ALLOWOUT"),
        (0, take) => format!("{family}: {take} rules don't belong in ALLOWIN and ALLOWOUT"),
        (put, take) => format!("{family}: {put} rules are missing in ALLOWIN and ALLOWOUT, {take} don't belong there"),
    }
}
