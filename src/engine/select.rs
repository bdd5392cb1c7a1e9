//! Which backends run.
//!
//! `auto` takes every packet filter whose input path can refuse, because a drop anywhere is final. What the operator
//! names must work. What was used before and is no longer chosen is cleaned up.

use crate::{
    backends::{AnyBackend, Auto, Context, Probe, Warning},
    error::{Error, ErrorKind, Result},
};

/// What to do with each backend.
pub struct Selection<'b> {
    /// These hold what is wanted, and why they were chosen.
    pub chosen: Vec<(&'b dyn AnyBackend, String)>,
    /// These are to hold nothing any more, and why.
    pub dropped: Vec<(&'b dyn AnyBackend, String)>,
    /// These were asked for, or looked at, and can't be worked with.
    pub unusable: Vec<(&'static str, Error)>,
    /// These are not wanted here, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// What the operator asked for.
pub struct Asked<'a> {
    /// Names, among them perhaps `auto`.
    pub names: &'a [String],
    /// Whether they come from the command line: then backends that aren't named are left alone.
    pub only_these: bool,
}

/// Chooses. `used_before` are the backends that the state names.
#[must_use]
pub fn select<'b>(
    all: &'b [Box<dyn AnyBackend>],
    cx: &Context<'_>,
    asked: &Asked<'_>,
    used_before: &[&str],
) -> Selection<'b> {
    let auto = asked.names.iter().any(|n| n == "auto");
    let mut out = Selection { chosen: vec![], dropped: vec![], unusable: vec![], skipped: vec![], warnings: vec![] };
    let mut idle = Vec::new();
    for backend in all {
        let (backend, name) = (&**backend, backend.meta().name);
        let named = asked.names.iter().any(|n| n == name);
        if !named && !auto {
            idle.push((backend, "it is not among the configured backends".to_owned()));
            continue;
        }
        match backend.probe(cx) {
            Probe::Ready { auto: Auto::Yes(why), .. } => out.chosen.push((backend, why)),
            Probe::Ready { auto: Auto::No(why), .. } if named => {
                out.chosen.push((backend, format!("named, though {why}")))
            }
            Probe::Ready { auto: Auto::No(why), .. } => idle.push((backend, why)),
            Probe::Unusable(e) => out.unusable.push((name, e)),
            Probe::Absent(why) if named => out.unusable.push((
                name,
                Error::new(ErrorKind::BackendUnusable, format!("{name} was asked for, but {why}"))
                    .hint("install it, or take it out of `backends` in the configuration"),
            )),
            Probe::Absent(why) => idle.push((backend, why)),
        }
    }
    out.warnings.extend(fighting(all, cx, asked));
    let filter_chosen = out.chosen.iter().any(|(b, _)| b.meta().packet_filter);
    for (backend, why) in idle {
        let meta = backend.meta();
        // A firewall that is merely stopped must find everything in its place when it starts: a packet filter is
        // left only for another one, or because the operator says so.
        let leave = !auto || filter_chosen || !meta.packet_filter;
        if !asked.only_these && leave && used_before.contains(&meta.name) {
            out.dropped.push((backend, why));
        } else {
            out.skipped.push((meta.name, why));
        }
    }
    if auto && !filter_chosen && out.unusable.is_empty() {
        let served: Vec<&str> = out.chosen.iter().map(|(b, _)| b.meta().name).collect();
        let what = if served.is_empty() {
            "no firewall on this machine refuses connections, so nothing needs to be opened".to_owned()
        } else {
            let served = served.join(" and ");
            format!("no packet filter on this machine refuses connections, so only {served} had to be looked at")
        };
        let what = format!("{what}. If one should, start it, or name the backend with --backend");
        out.warnings.push(Warning::new("nothing-refuses", what));
    }
    out
}

/// Programs that manage the whole packet filter, and rebuild it as they see fit.
const MANAGERS: [&str; 3] = ["ufw", "csf", "firewalld"];

/// Firewalls that undo each other: two managers at work, or one of them and rules asked for behind its back.
fn fighting(all: &[Box<dyn AnyBackend>], cx: &Context<'_>, asked: &Asked<'_>) -> Option<Warning> {
    let at_work = |b: &&dyn AnyBackend| {
        MANAGERS.contains(&b.meta().name) && matches!(b.probe(cx), Probe::Ready { auto: Auto::Yes(_), .. })
    };
    let managers: Vec<&str> = all.iter().map(|b| &**b).filter(at_work).map(|b| b.meta().name).collect();
    let behind = asked.names.iter().find(|n| *n == "iptables" || *n == "nftables");
    match (managers.as_slice(), behind) {
        ([first, second, ..], _) => Some(Warning::new(
            "firewalls-fight",
            format!("{first} and {second} are both at work: each rebuilds the rules without the other. Switch one off"),
        )),
        ([manager], Some(name)) => Some(Warning::new(
            "firewalls-fight",
            format!(
                "{name} was asked for, but {manager} manages this firewall: what it didn't make itself it neither shows \
                 nor stores, and it may go at a reload. Use the backend {manager}, or `auto`"
            ),
        )),
        _ => None,
    }
}

/// That a name is `auto` or a backend's.
///
/// # Errors
/// `usage`, with what may have been meant.
pub fn known(all: &[Box<dyn AnyBackend>], name: &str) -> Result<()> {
    let names: Vec<&str> = all.iter().map(|b| b.meta().name).collect();
    if name == "auto" || names.contains(&name) {
        return Ok(());
    }
    let nearest = names.iter().min_by_key(|n| strsim::damerau_levenshtein(n, name));
    let hint = match nearest {
        Some(n) if strsim::damerau_levenshtein(n, name) <= 2 => format!("did you mean `{n}`?"),
        _ => format!("there are: auto, {}", names.join(", ")),
    };
    Err(Error::new(ErrorKind::Usage, format!("there is no backend called `{name}`")).hint(hint))
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
