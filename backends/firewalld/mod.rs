//! firewalld: what decides on RHEL, Fedora and SUSE.
//!
//! What is ours: the ipsets `edgeallow-v4` and `edgeallow-v6` and the policy `edgeallow` (everybody to this host, before
//! the zones), stored as files of our own and loaded by firewalld; before version 0.9, which has no policies, the
//! same rules in the default zone. Nothing else is touched. A zone of our own with the sets as sources would be no
//! good: it would take *all* traffic from Cloudflare, ssh too.
//!
//! The room is divided as the work is: [`seen`] looks at files and [`live`] at the kernel, [`target`] decides,
//! [`steps`] finds the way, [`reload`] guards it. [`rule`] and [`xml`] know the languages.

pub mod config;
pub mod live;
pub mod reload;
pub mod rule;
pub mod seen;
pub mod steps;
pub mod target;
#[cfg(test)]
mod tests;
pub mod xml;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

pub use config::{FirewalldConfig, Method, Reload};
pub use seen::Seen;

use self::{
    live::{Live, Loaded},
    rule::Rule,
};
use super::{Auto, Backend, Context, Meta, Probe, Verified, Warning};
use crate::{
    allowlist::Prefixes,
    error::Result,
    plan::{Desired, Plan, Step},
};

static META: Meta = Meta {
    name: "firewalld",
    summary: "firewalld: two ipsets and a policy before the zones",
    files: &[
        "/etc/firewalld/ipsets/edgeallow-v4.xml",
        "/etc/firewalld/ipsets/edgeallow-v6.xml",
        "/etc/firewalld/policies/edgeallow.xml",
        "/etc/firewalld/zones/",
    ],
    packet_filter: true,
};

/// All that is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// The files that are ours as a whole.
    pub files: BTreeMap<PathBuf, Arc<[u8]>>,
    /// Our rules in zones' files, by zone; no zone without any.
    pub zones: BTreeMap<String, BTreeSet<Rule>>,
    /// What is loaded.
    pub live: Live,
}

/// The backend.
#[derive(Debug, Clone, Default)]
pub struct Firewalld {
    /// The operator's wishes.
    pub config: FirewalldConfig,
    /// Whether the operator named this backend, so that it is stored even where firewalld doesn't run.
    pub named: bool,
}

impl Backend for Firewalld {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        if cx.host.program("firewall-cmd").is_none() {
            return Probe::Absent("firewalld is not installed".to_owned());
        }
        if !cx.host.may_administer() {
            return Probe::unprivileged("firewalld");
        }
        match auto(cx) {
            Ok(auto) => Probe::Ready { version: seen::version(cx.host).unwrap_or_default(), auto },
            Err(e) => Probe::Unusable(e),
        }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        seen::observe(cx)
    }

    fn owned(&self, seen: &Seen) -> Owned {
        seen.owned()
    }

    fn target(&self, want: &Desired, seen: &Seen) -> Result<Owned> {
        target::target(&self.config, self.named, want, seen)
    }

    fn steps(&self, seen: &Seen, to: &Owned) -> Result<Plan> {
        steps::steps(seen, to)
    }

    fn before(&self, cx: &Context<'_>, seen: &Seen, plan: &Plan) -> Result<()> {
        let reloads = plan.changes.iter().any(|c| c.step == Step::Run(steps::reload()));
        if reloads { reload::before(&self.config, cx.host, seen) } else { Ok(()) }
    }

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        target::warnings(seen)
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        seen.held()
    }

    fn verified(&self, seen: &Seen) -> Verified {
        if seen.found.counted { Verified::Count } else { Verified::Full }
    }

    fn pending(&self, seen: &Seen) -> Option<String> {
        target::pending(seen)
    }
}

fn auto(cx: &Context<'_>) -> Result<Auto> {
    let loaded = live::loaded(cx.host)? != Loaded::Nothing;
    if seen::process(cx.host)? {
        return Ok(match loaded {
            true => Auto::Yes("firewalld runs and refuses what no zone allows".to_owned()),
            false => Auto::No("firewalld runs, but has no rules loaded; see `firewall-cmd --state`".to_owned()),
        });
    }
    let stored = [crate::allowlist::Family::V4, crate::allowlist::Family::V6].map(seen::set_path);
    Ok(match stored.iter().any(|path| cx.host.exists(path)) {
        true => Auto::Yes("firewalld is not running; what is stored for it is kept up to date".to_owned()),
        false => Auto::No("firewalld is installed, but not running".to_owned()),
    })
}
