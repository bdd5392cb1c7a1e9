//! What should be ours, and what the operator should know. Pure.
//!
//! Belongs here: policy or zone, what is stored, what is loaded. Does not: the way there ([`super::steps`]).

use super::{
    FirewalldConfig, Method, Owned,
    live::{Holder, Live},
    rule::{Rule, set_name},
    seen::{Seen, policy_path, set_path},
    xml,
};
use crate::{
    allowlist::Family,
    backends::{Warning, iptables::ipset::elements},
    error::{Error, ErrorKind, Result},
    plan::Desired,
};

/// What should be ours. Where firewalld doesn't run, only what is stored.
///
/// # Errors
/// `backend-unusable` if a policy is asked for that this version doesn't know.
pub fn target(config: &FirewalldConfig, named: bool, want: &Desired, seen: &Seen) -> Result<Owned> {
    if !seen.running && !named && !seen.stored() {
        return Ok(Owned::default());
    }
    let by_policy = match config.method {
        Method::Auto => seen.policies,
        Method::Policy if !seen.policies => {
            return Err(Error::new(
                ErrorKind::BackendUnusable,
                "this firewalld is older than 0.9 and knows no policies",
            )
            .hint("set `method = \"auto\"` in [firewalld]"));
        }
        Method::Policy => true,
        Method::Zone => false,
    };
    let mut rules = Rule::wanted(want);
    rules.retain(|r| seen.v6 || r.family == Family::V4);
    let mut out = Owned::default();
    let mut live = Live::default();
    for family in Family::BOTH {
        if rules.iter().any(|r| r.family == family) {
            let nets = elements(&want.prefixes, family);
            out.files.insert(set_path(family), xml::ipset(family, &nets));
            live.sets.insert(family, nets.iter().copied().collect());
        }
    }
    if by_policy {
        out.files.insert(policy_path(), xml::policy(&rules));
        live.rules.insert(Holder::Policy, rules);
    } else {
        let zone = seen.conf.default_zone.clone();
        live.rules.insert(Holder::Zone(zone.clone()), rules.clone());
        out.zones.insert(zone, rules);
    }
    out.live = if seen.running { live } else { seen.owned().live };
    Ok(out)
}

/// Why what is stored isn't live, if so.
#[must_use]
pub fn pending(seen: &Seen) -> Option<String> {
    let waits = !seen.running && seen.stored();
    waits.then(|| "firewalld is not running; it loads this when it is started".to_owned())
}

/// What the operator should know of what was seen.
#[must_use]
pub fn warnings(seen: &Seen) -> Vec<Warning> {
    let mut out = Vec::new();
    let owned = seen.owned();
    for family in &seen.held {
        let name = set_name(*family);
        out.push(Warning::new(
            "set-held",
            format!("a zone, policy or direct rule that isn't edgeallow's uses the ipset {name}; on removal the set stays, empty"),
        ));
    }
    if let Some(zone) = owned.zones.keys().next() {
        out.push(Warning::new(
            "one-zone-only",
            format!(
                "the rules stand in zone {zone}: connections that another zone takes are not let in by them, nor past a \
                 deny or a rule of lower priority in that zone"
            ),
        ));
    }
    for (name, zone) in &seen.zones {
        if let Err(why) = &zone.rules {
            out.push(Warning::new("zone-unreadable", format!("the file of zone {name} can't be read: {why}")));
        }
    }
    if !(seen.v6 || owned.files.is_empty() && owned.zones.is_empty()) {
        out.push(Warning::new("ipv6-skipped", "this machine's kernel has no IPv6: only IPv4 is handled by firewalld"));
    }
    out
}
