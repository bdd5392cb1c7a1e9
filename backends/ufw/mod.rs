//! ufw, the Uncomplicated Firewall.
//!
//! What is ours: rules with the comment `edgeallow` in `/etc/ufw/user.rules` and `user6.rules`, each of the form
//! `allow from PREFIX to any port PORTS proto PROTOCOL`, before every rule that would refuse the same, and what they
//! say in the chains `ufw-user-input` and `ufw6-user-input`. An administrator's own rules are never touched; where
//! one of his already lets a prefix in, and nothing before it refuses, ours isn't needed.
//!
//! The room is divided as the work is: [`seen`] looks, [`target`] decides, [`steps`] finds the way. [`rule`] and
//! [`tuple`] know ufw's notation, [`file`] its rules files, [`live`] its chain in the kernel.
//!
//! Belongs here: what is said to ufw. Does not: enabling, disabling or reloading it. `ufw reload` that fails leaves
//! a machine with policy DROP and no rules.

pub mod file;
pub mod live;
pub mod rule;
pub mod seen;
pub mod steps;
pub mod target;
#[cfg(test)]
mod tests;
pub mod tuple;

use std::collections::BTreeMap;

pub use seen::Seen;

use self::rule::Placed;
use super::{Backend, Context, Meta, Probe, Warning};
use crate::{
    allowlist::{Family, Prefixes},
    error::Result,
    plan::{Desired, Plan},
};

static META: Meta = Meta {
    name: "ufw",
    summary: "ufw: rules with the comment edgeallow, before those that refuse",
    files: &["/etc/ufw/user.rules", "/etc/ufw/user6.rules"],
    packet_filter: true,
};

/// What is ours in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// In the rules file.
    pub stored: Vec<Placed>,
    /// In the kernel's chain; nothing if there is no chain.
    pub live: Vec<Placed>,
    /// A rule in the file isn't written as ufw writes it.
    pub spoiled: bool,
}

/// All that is ours. Families without anything of ours are not in the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// By family.
    pub parts: BTreeMap<Family, Part>,
}

/// The backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ufw;

impl Backend for Ufw {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        let Some(path) = cx.host.program("ufw") else { return Probe::Absent("ufw is not installed".to_owned()) };
        if !cx.host.may_administer() {
            return Probe::unprivileged("ufw's rules");
        }
        let look = || {
            let (settings, program) = (seen::settings(cx.host)?, seen::program(cx.host, &path)?);
            let families = Family::BOTH.into_iter().filter(|f| *f == Family::V4 || settings.ipv6);
            let files = families.map(|f| Ok(seen::file(cx.host, f)?.0)).collect::<Result<Vec<_>>>()?;
            let version = program.version.unwrap_or_else(|| "of an unknown version".to_owned());
            Ok(Probe::Ready { version, auto: target::auto(&settings, &files) })
        };
        look().unwrap_or_else(Probe::Unusable)
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        seen::observe(cx)
    }

    fn owned(&self, seen: &Seen) -> Owned {
        seen.owned()
    }

    fn target(&self, want: &Desired, seen: &Seen) -> Result<Owned> {
        Ok(target::target(want, seen))
    }

    fn steps(&self, seen: &Seen, to: &Owned) -> Result<Plan> {
        steps::steps(seen, to)
    }

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        target::warnings(seen)
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        seen.held()
    }

    fn pending(&self, seen: &Seen) -> Option<String> {
        target::pending(seen)
    }

    fn confirm(&self, cx: &Context<'_>, seen: &Seen) -> Result<()> {
        seen::confirm(cx.host, seen)
    }
}
