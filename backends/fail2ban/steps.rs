//! What should be ours in fail2ban, and the way there. Pure.
//!
//! The order matters. What a jail shall no longer ignore is taken out before our file forgets it, since that file is
//! how we know it for ours. A jail ignores an address before the ban on it is lifted, or the next failure would
//! bring the ban back. The configuration is tested before and after: what we made worse goes back.

use std::path::{Path, PathBuf};

use super::{Owned, Seen, client, file};
use crate::{
    allowlist::Prefixes,
    error::{Error, ErrorKind, Result},
    plan::{Change, Check, Plan, Remove, Reversible, Step, Write},
};

/// See [`crate::backends::Backend::target`].
///
/// # Errors
/// `tool-config` if there is no place for our file, or none for the default that it needs.
pub fn target(prefixes: &Prefixes, seen: &Seen) -> Result<Owned> {
    if !seen.folder {
        return Err(Error::new(ErrorKind::ToolConfig, "there is no folder /etc/fail2ban/jail.d")
            .hint("make it, or reinstall fail2ban"));
    }
    let mut out = Owned::default();
    match &seen.base {
        Some(path) => drop(out.files.insert(path.clone(), file::BASE.as_bytes().into())),
        None if seen.jails.has_default() => {}
        None => {
            return Err(Error::new(
                ErrorKind::ToolConfig,
                "fail2ban has no ignoreip for all jails, and no place is left to set an empty one",
            )
            .hint("add a line `ignoreip =` to [DEFAULT] in /etc/fail2ban/jail.local, and run edgeallow again"));
        }
    }
    out.files.insert(PathBuf::from(file::PATH), file::render(&seen.jails, prefixes).into_bytes().into());
    out.live = seen.running().map(|(name, _)| (name.clone(), prefixes.iter().collect())).collect();
    Ok(out)
}

/// See [`crate::backends::Backend::steps`].
///
/// # Errors
/// Never; the signature is the trait's.
pub fn steps(seen: &Seen, to: &Owned) -> Result<Plan> {
    let mut plan = Plan::default();
    let owned = seen.owned();
    for (jail, ours) in &owned.live {
        let his = seen.jails.his(jail);
        let kept = to.live.get(jail);
        let gone: Vec<_> =
            ours.iter().filter(|n| !kept.is_some_and(|k| k.contains(*n)) && !his.contains(*n)).copied().collect();
        if !gone.is_empty() {
            let why = format!("jail {jail} ignores {} prefixes that don't belong there", gone.len());
            plan.change(why, Step::Run(client::heed(jail, &gone)));
        }
    }
    files(seen, to, &mut plan);
    for (name, jail) in seen.running() {
        let Some(nets) = to.live.get(name) else { continue };
        let missing: Vec<_> = nets.difference(&jail.ignored).copied().collect();
        for run in client::ignore(name, &missing) {
            plan.change(format!("jail {name} doesn't ignore {} prefixes", missing.len()), Step::Run(run));
        }
        let open: Prefixes = nets.iter().copied().collect();
        let inside = |banned: &&String| file::net(banned).is_some_and(|b| open.covers(&b));
        let banned: Vec<String> = jail.banned.iter().filter(inside).cloned().collect();
        for run in client::unban(name, &banned) {
            plan.changes.push(Change {
                why: format!("jail {name} bans {}", few(&banned)),
                step: Step::Run(run),
                reversible: Reversible::No("a ban of an address that is to be let in is not put back".to_owned()),
            });
        }
    }
    if plan.changes.iter().any(|c| !matches!(c.step, Step::Run(_))) {
        let what = |what: &str, run| Check::NotWorse { what: what.to_owned(), run };
        plan.checks.push(what("fail2ban's configuration loads", client::dump()));
        plan.checks.push(what("fail2ban's configuration passes its test", client::test()));
    }
    Ok(plan)
}

/// Our files: the default before the file that needs it, and away after it.
fn files(seen: &Seen, to: &Owned, plan: &mut Plan) {
    let main = Path::new(file::PATH);
    let mut bases: Vec<&Path> = seen.files.keys().chain(to.files.keys()).map(PathBuf::as_path).collect();
    bases.sort_unstable();
    bases.dedup();
    bases.retain(|p| *p != main);
    for path in bases.iter().filter(|p| to.files.contains_key(**p)) {
        file_at(path, seen, to, plan);
    }
    file_at(main, seen, to, plan);
    for path in bases.iter().filter(|p| !to.files.contains_key(**p)) {
        file_at(path, seen, to, plan);
    }
}

fn file_at(path: &Path, seen: &Seen, to: &Owned, plan: &mut Plan) {
    let (there, wanted) = (seen.files.get(path), to.files.get(path));
    match (there, wanted) {
        (there, Some(wanted)) if there.map(|f| &f.content) != Some(wanted) => {
            let write = Write::ours(path, wanted.clone(), there.map(|f| f.content.clone()));
            plan.change(why(path, seen, wanted), Step::Write(write));
        }
        (Some(there), None) => {
            let remove = Remove { path: path.to_owned(), was: there.content.clone() };
            plan.change(format!("{} is not needed", path.display()), Step::Remove(remove));
        }
        _ => {}
    }
}

fn why(path: &Path, seen: &Seen, wanted: &[u8]) -> String {
    if path != Path::new(file::PATH) {
        return "the jails need a default ignoreip, were it an empty one".to_owned();
    }
    if !seen.files.contains_key(path) {
        return "jails forget at a reload what they were told live".to_owned();
    }
    let wanted = file::list(wanted);
    let (new, old) = (wanted.difference(&seen.list).count(), seen.list.difference(&wanted).count());
    match (new, old) {
        (0, 0) => "the jails, or what they ignore of themselves, are others than written there".to_owned(),
        _ => format!("{new} prefixes are missing, {old} don't belong there"),
    }
}

fn few(words: &[String]) -> String {
    let more = words.len().saturating_sub(5);
    let named = words.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}
