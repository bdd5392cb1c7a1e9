//! nftables: sets of prefixes and an accept rule each, first in every native base chain that can refuse.
//!
//! In a table T with a chain to attach to, edgeallow owns the interval sets `edgeallow4` and `edgeallow6` (those that T's
//! family can carry), the set of ports `edgeallow_ports`, and the rules commented `edgeallow`, first in the chain.
//! Where nothing refuses and the backend was named, it owns the table `inet edgeallow`. For the next boot it owns
//! files under `/etc/edgeallow/nftables/` and what loads them. See docs/backends/nftables.md.
//!
//! Belongs here: what of this should be there, and the way from what is seen to that. Does not: netlink and files
//! themselves (`src/host`), nf_tables' vocabulary (`src/nft`).

mod attach;
mod boot;
mod config;
mod file;
mod include;
mod live;
mod observe;
mod rehearsal;
mod seen;

use std::sync::LazyLock;

pub use config::{ChainName, NftablesConfig, Persist};
pub use observe::counts_as;
pub use seen::{Content, Holding, Owned, Seen, Stored};

use super::{Auto, Backend, Context, Meta, Probe, Verified, Warning};
use crate::{
    allowlist::Prefixes,
    error::Result,
    nft::{Elements, TableFamily, TableId},
    plan::{Desired, Plan, Step},
};

/// The table that is all ours.
static OWN_TABLE: LazyLock<TableId> = LazyLock::new(|| TableId::new(TableFamily::Inet, crate::plan::TAG));
/// The base chain in it.
const OWN_CHAIN: &str = "input";
/// The set of IPv4 prefixes.
const SET_V4: &str = "edgeallow4";
/// The set of IPv6 prefixes.
const SET_V6: &str = "edgeallow6";
/// The set of ports.
const SET_PORTS: &str = "edgeallow_ports";

static META: Meta = Meta {
    name: "nftables",
    summary: "native nftables: sets and accept rules, over netlink",
    files: &[
        "/etc/edgeallow/nftables/*.nft",
        "/etc/systemd/system/nftables.service.d/edgeallow.conf",
        "/etc/nftables.conf",
        "/etc/sysconfig/nftables.conf",
        "/etc/nftables.nft",
    ],
    packet_filter: true,
};

/// The backend with its configuration.
#[derive(Debug, Clone, Default)]
pub struct Nftables {
    /// `[nftables]` of the configuration file.
    pub config: NftablesConfig,
    /// Whether the operator named this backend: then it works even where nothing refuses.
    pub named: bool,
}

impl Backend for Nftables {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn stores(&self) -> bool {
        self.config.persist != Persist::None
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        match observe::places(cx.host) {
            Err(e) => Probe::Unusable(e),
            Ok(None) => Probe::Absent("the kernel has no nf_tables".to_owned()),
            Ok(Some(places)) => {
                let refusing = places.iter().find_map(|p| Some((&p.chain, p.refuses.as_ref()?)));
                let auto = match refusing {
                    Some((chain, why)) => Auto::Yes(format!("{chain} {why}")),
                    None => Auto::No("no native base chain on input can refuse".to_owned()),
                };
                Probe::Ready { version: "nf_tables".to_owned(), auto }
            }
        }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        observe::observe(cx)
    }

    fn owned(&self, seen: &Seen) -> Owned {
        seen.owned()
    }

    fn target(&self, want: &Desired, seen: &Seen) -> Result<Owned> {
        let live = live::target(&self.config, self.named, want, seen)?;
        let stored = boot::target(self.config.persist, &live, seen);
        Ok(Owned { live, stored })
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        let sets = seen.tables.values().flat_map(|t| t.sets.values());
        sets.fold(Prefixes::default(), |held, set| match &set.content {
            Some(Content::Known(Elements::Prefixes { of, family })) => held.union(&of.only(*family)),
            _ => held,
        })
    }

    fn steps(&self, seen: &Seen, to: &Owned) -> Result<Plan> {
        let mut plan = Plan::default();
        let (why, batch) = live::steps(seen, &to.live)?;
        if !batch.ops.is_empty() {
            plan.change(why, Step::Nft(batch));
        }
        let stores = boot::steps(seen, &to.stored, &mut plan)?;
        if stores {
            plan.checks.push(rehearsal::check(seen, &to.live));
        }
        Ok(plan)
    }

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        let mut warnings = boot::warnings(self.config.persist, seen);
        if seen.tables.contains_key(&*OWN_TABLE) && !seen.foreign.is_empty() {
            warnings.push(Warning::new(
                "accept-not-final",
                format!(
                    "table {} accepts, but a packet can still be refused in {}: let edgeallow use that firewall's own \
                     backend",
                    *OWN_TABLE,
                    seen.foreign.join(", ")
                ),
            ));
        }
        if !self.config.attach.is_empty() {
            // A chosen chain without a hook stands for those that lead to it, which are not followed back.
            let chosen: Vec<_> = self.config.attach.iter().map(|name| &name.0).collect();
            let behind =
                |place: &attach::Place| chosen.iter().any(|c| c.table == place.chain.table && !seen.hooked.contains(c));
            let missed = seen.places.iter().filter(|p| p.refuses.is_some() && !chosen.contains(&&p.chain));
            let missed: Vec<_> = missed.filter(|p| !behind(p)).map(|p| p.chain.to_string()).collect();
            if !missed.is_empty() {
                warnings.push(Warning::new(
                    "accept-not-final",
                    format!(
                        "`nftables.attach` leaves out what can still refuse a packet: {}; name it there too, or leave \
                         `attach` empty",
                        missed.join(", ")
                    ),
                ));
            }
        }
        warnings
    }

    fn verified(&self, seen: &Seen) -> Verified {
        seen.verified
    }

    fn rehearsed(&self, there: &Seen, to: &Owned) -> Result<Vec<Warning>> {
        rehearsal::judge(there, &to.live)
    }
}

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
