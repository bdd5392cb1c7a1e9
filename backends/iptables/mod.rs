//! iptables and ip6tables, written by either variant: `nft` (the default of today) and `legacy` (xtables proper).
//!
//! What is ours: the chain `EDGEALLOW` in table `filter`, the jump to it that stands first in INPUT, the sets
//! `edgeallow4` and `edgeallow6` where there are many prefixes, and the same chain and jump in the files that the
//! distribution's service loads at boot. Nothing else is ever touched. Both variants can hold rules at once, and a
//! refusal in either is final, so each that refuses gets ours.
//!
//! The room is divided as the work is: [`seen`] looks, [`target`] decides, [`steps`] finds the way. [`save`],
//! [`rules`], [`ipset`] and [`persist`] know the languages, [`refuse`] knows the neighbours.

pub mod config;
pub mod ipset;
pub mod persist;
pub mod refuse;
pub mod rules;
pub mod save;
pub mod seen;
pub mod steps;
pub mod target;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

pub use config::{IpsetUse, IptablesConfig};
pub use seen::Seen;

use self::{ipset::Set, rules::Part};
use super::{Backend, Context, Meta, Probe, Verified, Warning};
use crate::{
    allowlist::{Family, Prefixes},
    error::Result,
    plan::{Desired, Plan},
};

static META: Meta = Meta {
    name: "iptables",
    summary: "iptables and ip6tables, nft and legacy: own chain, first in INPUT",
    files: &["/etc/iptables/rules.v4", "/etc/iptables/rules.v6", "/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"],
    packet_filter: true,
};

/// Which of the two programs of the name iptables: they write into different parts of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Writes nf_tables.
    Nft,
    /// Writes the old xtables tables.
    Legacy,
}

impl Variant {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Nft, Self::Legacy];

    /// `nft` or `legacy`, as in the programs' names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

/// Where rules stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the kernel.
    Live(Variant, Family),
    /// In the file that is loaded at boot.
    Stored(Family, PathBuf),
}

/// All that is ours. Places without anything of ours are not in the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Chains and jumps.
    pub parts: BTreeMap<Place, Part>,
    /// Sets.
    pub sets: BTreeMap<Family, Set>,
}

impl Owned {
    /// What is ours in one place.
    #[must_use]
    pub fn part(&self, place: &Place) -> Part {
        self.parts.get(place).cloned().unwrap_or_default()
    }
}

/// The backend.
#[derive(Debug, Clone, Default)]
pub struct Iptables {
    /// The operator's wishes.
    pub config: IptablesConfig,
    /// Whether the operator named this backend, so that it is applied even where nothing refuses.
    pub named: bool,
}

impl Backend for Iptables {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn stores(&self) -> bool {
        self.config.persist
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        if seen::tools(cx.host).is_empty() {
            return Probe::Absent("no iptables program is installed".to_owned());
        }
        if !cx.host.may_administer() {
            return Probe::unprivileged("iptables");
        }
        match seen::tables(cx.host, false) {
            Ok(looked) => Probe::Ready { version: looked.version(), auto: target::auto(&looked.tables) },
            Err(e) => Probe::Unusable(e),
        }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        seen::observe(cx, self.named)
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

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        target::warnings(seen)
    }

    fn foreseen(&self, seen: &Seen, to: &Owned) -> Vec<Warning> {
        target::foreseen(&self.config, seen, to)
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        seen.held()
    }

    fn verified(&self, seen: &Seen) -> Verified {
        if seen.sets.values().any(|s| s.counted) { Verified::Count } else { Verified::Full }
    }

    fn confirm(&self, cx: &Context<'_>, seen: &Seen) -> Result<()> {
        seen::confirm(cx.host, seen)
    }
}
