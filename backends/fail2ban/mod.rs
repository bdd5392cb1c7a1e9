//! fail2ban: every jail ignores the ranges, on disk and live, and bans inside them are lifted.
//!
//! What is ours: `jail.d/zz-edgeallow.local`, an empty default at the lowest place of the configuration, and in each
//! running jail the addresses to ignore that this file names. The administrator's files are never edited, his own
//! addresses never dropped, and the server is never reloaded: a jail is told what is new while it runs.
//!
//! The room is divided as the work is: [`jails`] and [`ini`] read what is configured, [`client`] asks what runs,
//! [`seen`] holds both, [`steps`] decides and finds the way. [`file`] knows the text of what is ours.

pub mod client;
pub mod file;
pub mod ini;
pub mod jails;
pub mod seen;
pub mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;

pub use seen::Seen;

use super::{Auto, Backend, Context, Meta, Probe, Warning};
use crate::{
    allowlist::Prefixes,
    error::{Error, ErrorKind, Result},
    plan::{Desired, Plan},
};

static META: Meta = Meta {
    name: "fail2ban",
    summary: "fail2ban: every jail ignores the ranges, and bans inside them are lifted",
    files: &[file::PATH, "/etc/fail2ban/paths-overrides.local"],
    packet_filter: false,
};

/// All that is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Files, whole.
    pub files: BTreeMap<PathBuf, Arc<[u8]>>,
    /// What each running jail ignores for our sake. Nothing inside may be banned.
    pub live: BTreeMap<String, BTreeSet<IpNet>>,
}

/// The backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fail2ban;

impl Backend for Fail2ban {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        if cx.host.program("fail2ban-client").is_none() {
            return Probe::Absent("fail2ban is not installed".to_owned());
        }
        match Seen::look(cx.host) {
            Err(e) => Probe::Unusable(e),
            Ok(seen) => match &seen.answers.server {
                Ok(server) => Probe::Ready {
                    version: server.version.clone(),
                    auto: Auto::Yes(match server.jails.len() + server.unasked.len() {
                        1 => "it is running, with one jail".to_owned(),
                        jails => format!("it is running, with {jails} jails"),
                    }),
                },
                Err(_) => Probe::Ready {
                    version: client::installed(cx.host).unwrap_or_else(|| "of an unknown version".to_owned()),
                    auto: Auto::Yes("it is installed, and will ban when it is started".to_owned()),
                },
            },
        }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        Seen::look(cx.host)
    }

    fn owned(&self, seen: &Seen) -> Owned {
        seen.owned()
    }

    fn target(&self, want: &Desired, seen: &Seen) -> Result<Owned> {
        steps::target(&want.prefixes, seen)
    }

    fn steps(&self, seen: &Seen, to: &Owned) -> Result<Plan> {
        steps::steps(seen, to)
    }

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        seen.warnings()
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        seen.list.iter().copied().collect()
    }

    fn pending(&self, seen: &Seen) -> Option<String> {
        let why = seen.answers.server.as_ref().err()?;
        Some(format!("fail2ban doesn't answer ({why}): the ranges are stored, and are ignored from its next start"))
    }

    fn confirm(&self, _cx: &Context<'_>, seen: &Seen) -> Result<()> {
        let lacking: Vec<&str> = seen.lacking().filter(|j| !seen.jails.after_ours.contains(*j)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let why = format!("`fail2ban-client -d` doesn't show the ranges for jail {}", lacking.join(", "));
        Err(Error::new(ErrorKind::Unconfirmed, why).hint("look at what sets `ignoreip` for it in /etc/fail2ban"))
    }
}

#[cfg(test)]
mod tests;
