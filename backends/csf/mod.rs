//! CSF (ConfigServer Security & Firewall) with its daemon lfd.
//!
//! What is ours: the files `edgeallow.allow` and `edgeallow.ignore` in `/etc/csf`, one `Include` line each in csf.allow
//! and csf.ignore, and the rules that CSF makes of the first in its chains ALLOWIN and ALLOWOUT. They are put into the
//! live chains by edgeallow itself, under CSF's own lock: `csf -r` takes seconds, lets blocked ports through meanwhile,
//! and leaves the firewall open on one malformed line. `csf` is never run at all.
//!
//! The room is divided as the work is: [`seen`] looks, [`steps`] decides and finds the way, [`warnings`] tells.
//! [`line`], [`lists`], [`chains`] and [`conf`] know CSF's languages.

pub mod chains;
pub mod conf;
pub mod line;
pub mod lists;
pub mod seen;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

pub use seen::Seen;

use self::line::{Allow, Way};
use super::{Auto, Backend, Context, Meta, Probe, Warning};
use crate::{
    allowlist::{Family, Prefixes},
    error::{Error, ErrorKind, Result},
    plan::{Desired, Plan, Protocol},
};

static META: Meta = Meta {
    name: "csf",
    summary: "CSF and lfd: own allow and ignore lists, live in ALLOWIN and ALLOWOUT",
    files: &[
        "/etc/csf/edgeallow.allow",
        "/etc/csf/edgeallow.ignore",
        "/etc/csf/csf.allow",
        "/etc/csf/csf.ignore",
        "/var/lib/csf/lfd.restart",
        "/var/lib/csf/csf.4.saved",
        "/var/lib/csf/csf.6.saved",
    ],
    packet_filter: true,
};

/// All that is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Rules in the live chains.
    pub live: BTreeSet<Allow>,
    /// `edgeallow.allow`
    pub allow: Option<Arc<[u8]>>,
    /// `edgeallow.ignore`
    pub ignore: Option<Arc<[u8]>>,
    /// csf.allow includes our list.
    pub allow_included: bool,
    /// csf.ignore includes our list.
    pub ignore_included: bool,
}

/// The backend.
#[derive(Debug, Clone, Default)]
pub struct Csf {
    /// The ports that are to be reached, to say whether CSF restricts them at all.
    pub ports: BTreeSet<u16>,
    /// By which protocols.
    pub protocols: BTreeSet<Protocol>,
}

impl Backend for Csf {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        match seen::installed(cx.host) {
            Ok(true) => {}
            Ok(false) => return Probe::Absent("CSF is not installed".to_owned()),
            Err(e) => {
                // The folder is closed to everybody but root, and to root without CAP_DAC_OVERRIDE.
                let hint = "run edgeallow as root, with the capability CAP_DAC_OVERRIDE";
                return Probe::Unusable(Error::new(ErrorKind::NoPrivilege, e.message).hint(hint));
            }
        }
        if !cx.host.may_administer() {
            return Probe::unprivileged("CSF's chains");
        }
        let version = match cx.host.file(Path::new("/etc/csf/version.txt")) {
            Ok(Some(file)) => String::from_utf8_lossy(&file.content).trim().to_owned(),
            _ => "unknown".to_owned(),
        };
        let loaded = seen::tables(cx.host).map(|t| !t.is_empty());
        let auto = match loaded.and_then(|loaded| Ok((loaded, seen::stored(cx.host)?))) {
            Ok((true, _)) => Auto::Yes("CSF is loaded".to_owned()),
            Ok((false, true)) => Auto::Yes("CSF is not loaded, but it has edgeallow's lists for when it is".to_owned()),
            Ok((false, false)) => Auto::No("CSF is installed and not loaded".to_owned()),
            Err(e) => return Probe::Unusable(e),
        };
        Probe::Ready { version, auto }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        seen::observe(cx)
    }

    fn owned(&self, seen: &Seen) -> Owned {
        seen.owned()
    }

    fn target(&self, want: &Desired, seen: &Seen) -> Result<Owned> {
        Ok(steps::target(want, seen))
    }

    fn steps(&self, seen: &Seen, to: &Owned) -> Result<Plan> {
        Ok(steps::steps(seen, to))
    }

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        warnings::warnings(seen, &self.ports, &self.protocols)
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        seen.held()
    }

    fn pending(&self, seen: &Seen) -> Option<String> {
        warnings::pending(seen)
    }

    /// Asks iptables itself for the first of our rules in each chain.
    fn confirm(&self, cx: &Context<'_>, seen: &Seen) -> Result<()> {
        let ours = seen.ours();
        for table in &seen.tables {
            let mut first: BTreeMap<Way, &Allow> = BTreeMap::new();
            for allow in ours.iter().filter(|a| a.family() == table.tool.family && table.chains.count(a) > 0) {
                first.entry(allow.way).or_insert(allow);
            }
            for (way, allow) in first {
                let rule = format!("{} {}", way.chain(), allow.rule(&table.chains.shape));
                if !cx.host.iptables_has(&table.tool.command, "filter", &rule)? {
                    return Err(Error::new(
                        ErrorKind::Unconfirmed,
                        format!("{} shows a rule that {} doesn't find: {rule}", table.tool.save, table.tool.command),
                    )
                    .hint("run edgeallow again; CSF or something else may be changing the firewall at this moment"));
                }
            }
        }
        Ok(())
    }
}

/// The family in words.
const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
