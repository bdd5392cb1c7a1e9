//! What should be ours, and what the operator should know.
//!
//! Belongs here: which prefixes the administrator covers himself, in what form ours are written beside his, and where
//! they stand. Pure. Does not: the way there ([`super::steps`]).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    Owned, Part,
    file::Document,
    live::Live,
    rule::{Allow, MOST_PORTS, Placed},
    seen::{Seen, Settings, Side},
    tuple::{Action, Tuple},
};
use crate::{
    allowlist::Family,
    backends::{Auto, Warning},
    plan::{Desired, Protocol},
};

/// Whether `auto` takes ufw: it is active, and can refuse.
#[must_use]
pub fn auto(settings: &Settings, files: &[Document]) -> Auto {
    if !settings.enabled {
        return Auto::No("ufw is inactive".to_owned());
    }
    let policy = settings.policy_word();
    if policy != "allow" {
        return Auto::Yes(format!("ufw is active: default {policy} (incoming)"));
    }
    let refusing = files.iter().find_map(|f| f.foreign.iter().flatten().find(|t| t.refuses(f.family).is_some()));
    match refusing {
        Some(tuple) => Auto::Yes(format!("ufw is active: default allow (incoming), and a rule `{}`", tuple.text())),
        None => Auto::No("ufw is active, but its default is allow (incoming) and no rule refuses".to_owned()),
    }
}

/// What should be ours.
#[must_use]
pub fn target(want: &Desired, seen: &Seen) -> Owned {
    let mut out = Owned::default();
    for side in &seen.sides {
        let family = side.file.family;
        // What ufw doesn't load is not stored either: it would come alive unasked.
        let part = if family == Family::V6 && !seen.settings.ipv6 { Part::default() } else { part(want, side) };
        if part != Part::default() {
            out.parts.insert(family, part);
        }
    }
    out
}

fn part(want: &Desired, side: &Side) -> Part {
    let wanted = rules(want, &side.file);
    let stored = in_place(&wanted, &side.file.ours, |after, rule| side.file.refused_before(after, rule).is_some());
    let live = side.live(&stored).map(|live: Live| {
        let rules: Vec<Allow> = stored.iter().map(|p| p.rule.clone()).collect();
        in_place(&rules, &live.ours, |after, rule| live.refused_before(after, rule))
    });
    Part { stored, live: live.unwrap_or_default(), spoiled: false }
}

/// Keeps what stands well; what doesn't, and what is missing, goes first.
fn in_place(wanted: &[Allow], there: &[Placed], badly: impl Fn(usize, &Allow) -> bool) -> Vec<Placed> {
    let all: BTreeSet<&Allow> = wanted.iter().collect();
    let mut kept = BTreeSet::new();
    let stay: Vec<&Placed> =
        there.iter().filter(|p| all.contains(&p.rule) && !badly(p.after, &p.rule) && kept.insert(&p.rule)).collect();
    let first = wanted.iter().filter(|r| !kept.contains(r)).map(|rule| Placed { after: 0, rule: rule.clone() });
    first.chain(stay.into_iter().cloned()).collect()
}

/// Every rule that is needed in a family beside the administrator's.
fn rules(want: &Desired, file: &Document) -> Vec<Allow> {
    let his = His::of(file);
    let mut out = Vec::new();
    for net in want.prefixes.family(file.family) {
        for &protocol in &want.protocols {
            let open = his.open.get(&(net, protocol));
            let needed: Vec<u16> =
                want.ports.iter().copied().filter(|p| !open.is_some_and(|o| o.contains(p))).collect();
            for ports in needed.chunks(MOST_PORTS) {
                his.beside(Allow { from: net, protocol, ports: ports.to_vec() }, &mut out);
            }
        }
    }
    out
}

/// What the administrator said himself, of the kind that ours are.
struct His {
    /// The ports that rules of his let a prefix in to, where nothing before them refuses.
    open: BTreeMap<(IpNet, Protocol), BTreeSet<u16>>,
    /// The specs that ufw would take for one with his rule.
    specs: BTreeSet<Allow>,
}

impl His {
    fn of(file: &Document) -> Self {
        let mut out = Self { open: BTreeMap::new(), specs: BTreeSet::new() };
        for (index, tuple) in file.foreign.iter().enumerate() {
            let Some((tuple, spec)) = tuple.as_ref().and_then(|t| Some((t, t.spec(file.family)?))) else { continue };
            if tuple.action == Action::Allow {
                let clear = spec.ports.iter().copied().filter(|&port| {
                    let one = Allow { ports: vec![port], ..spec.clone() };
                    file.refused_before(index, &one).is_none()
                });
                out.open.entry((spec.from, spec.protocol)).or_default().extend(clear);
            }
            out.specs.insert(spec);
        }
        out
    }

    /// The rule, in a form that ufw doesn't take for one of his: one rule a port, or the port named twice.
    fn beside(&self, rule: Allow, out: &mut Vec<Allow>) {
        if !self.specs.contains(&rule) {
            out.push(rule);
        } else if rule.ports.len() > 1 && rule.port_set().len() > 1 {
            for &port in &rule.ports {
                self.beside(Allow { ports: vec![port], ..rule.clone() }, out);
            }
        } else if rule.ports.len() < MOST_PORTS {
            let mut ports = rule.ports.clone();
            ports.push(rule.ports[0]);
            self.beside(Allow { ports, ..rule }, out);
        } else {
            out.push(rule);
        }
    }
}

/// What the operator should know of what was seen.
#[must_use]
pub fn warnings(seen: &Seen) -> Vec<Warning> {
    let mut out = Vec::new();
    if let Some(why) = seen.without_v6 {
        let then = if seen.settings.ipv6 {
            ""
        } else {
            "; an active ufw then drops all IPv6. To have it, set IPV6=yes there, run `ufw disable` and `ufw enable`, \
             then edgeallow again"
        };
        out.push(Warning::new("ipv6-skipped", format!("{why}: only IPv4 is handled by ufw{then}")));
    }
    for side in &seen.sides {
        for ((allow, refusal), count) in dead_allows(&side.file) {
            let more = if count > 1 { format!(" (and {} more like it)", count - 1) } else { String::new() };
            out.push(Warning::new(
                "ufw-allow-behind-refusal",
                format!(
                    "ufw asks `{refusal}` before your `{allow}`{more}, which so lets in less than it says; \
                     edgeallow's own rule stands before both. `ufw status numbered` shows the order"
                ),
            ));
        }
    }
    out
}

/// Allows of the administrator's for a prefix of ours that a refusal before them takes the effect from: the first of
/// each refusal, and how many.
fn dead_allows(file: &Document) -> Vec<((String, String), usize)> {
    let ours: BTreeSet<(IpNet, Protocol)> = file.ours.iter().map(|p| (p.rule.from, p.rule.protocol)).collect();
    let mut found: Vec<((String, String), usize)> = Vec::new();
    for (index, tuple) in file.foreign.iter().enumerate() {
        let Some((tuple, spec)) = tuple.as_ref().and_then(|t: &Tuple| Some((t, t.spec(file.family)?))) else {
            continue;
        };
        if tuple.action != Action::Allow || !ours.contains(&(spec.from, spec.protocol)) {
            continue;
        }
        let Some(refusal) = file.refused_before(index, &spec).map(Tuple::text) else { continue };
        match found.iter_mut().find(|((_, r), _)| *r == refusal) {
            Some((_, count)) => *count += 1,
            None => found.push(((tuple.text(), refusal), 1)),
        }
    }
    found
}

/// Why what is stored isn't live, if so.
#[must_use]
pub fn pending(seen: &Seen) -> Option<String> {
    let stored = |s: &&Side| !s.file.ours.is_empty();
    seen.sides.iter().find(stored)?;
    if !seen.settings.enabled {
        return Some("ufw is inactive: the rules are stored and go live with `ufw enable`".to_owned());
    }
    let dead = seen.sides.iter().filter(stored).any(|s| {
        let possible = s.file.family == Family::V4 || seen.without_v6.is_none();
        possible && s.chain.is_none()
    });
    dead.then(|| {
        "ufw is enabled, but its chains aren't loaded: the rules are stored and go live when it starts".to_owned()
    })
}
