//! mod_evasive, in Apache: the ranges are on its white list.
//!
//! What is ours is one file and, on Debian, the link that enables it. Which variant of the module is loaded is asked of
//! Apache itself, because they take different words, and the old one ignores those of the new one without a sound.
//!
//! The room is divided as the work is: [`seen`] asks and reads, [`steps`] decides and finds the way, [`file`] and
//! [`cover`] know what is written.

pub mod cover;
pub mod file;
pub mod seen;
pub mod steps;

use std::{collections::BTreeMap, sync::Arc};

pub use seen::Seen;

use self::seen::Place;
use super::{Auto, Backend, Context, Meta, Probe, Warning};
use crate::{
    allowlist::Prefixes,
    error::{Error, ErrorKind, Result},
    plan::{Desired, Plan},
};

static META: Meta = Meta {
    name: "mod_evasive",
    summary: "mod_evasive in Apache: the ranges are on its white list",
    files: &[
        "/etc/apache2/conf-available/edgeallow-evasive.conf",
        "/etc/apache2/sites-available/zzz-edgeallow-evasive.conf",
        "/etc/httpd/conf.d/zzz-edgeallow-evasive.conf",
    ],
    packet_filter: false,
};

/// What the module understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Addresses and whole octets, IPv4 only: 1.10.1, and 2.x before 2.4.0.
    Octets,
    /// Prefixes of both families: from 2.4.0.
    Cidr,
}

/// All that is ours: the content of our file in each place, and whether Apache is told to read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned(pub BTreeMap<Place, OurFile>);

/// Our file in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurFile {
    /// Its content; nothing where only the link is left.
    pub content: Option<Arc<[u8]>>,
    /// Whether it is enabled.
    pub enabled: bool,
}

/// The backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModEvasive;

impl Backend for ModEvasive {
    type Owned = Owned;
    type Seen = Seen;

    fn meta(&self) -> &'static Meta {
        &META
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        let seen = match Seen::look(cx.host) {
            Ok(Some(seen)) => seen,
            Ok(None) => return Probe::Absent("Apache is not installed".to_owned()),
            Err(e) => return Probe::Unusable(e),
        };
        match (&seen.module, &seen.broken) {
            (Some(module), _) => Probe::Ready {
                version: module.version.to_owned(),
                auto: Auto::Yes(format!("Apache loads {}", module.name)),
            },
            (None, Some(_)) if !seen.files.is_empty() => Probe::Ready {
                version: "unknown".to_owned(),
                auto: Auto::Yes("edgeallow's white list is there, and Apache's configuration is broken".to_owned()),
            },
            (None, Some(why)) if seen.likely => Probe::Unusable(steps::broken(why)),
            (None, _) if !seen.files.is_empty() => Probe::Ready {
                version: "not loaded".to_owned(),
                auto: Auto::No("Apache doesn't load mod_evasive".to_owned()),
            },
            (None, _) => Probe::Absent("Apache doesn't load mod_evasive".to_owned()),
        }
    }

    fn observe(&self, cx: &Context<'_>) -> Result<Seen> {
        let absent = || Error::new(ErrorKind::BackendUnusable, "Apache is not installed");
        Seen::look(cx.host)?.ok_or_else(absent)
    }

    fn owned(&self, seen: &Seen) -> Owned {
        Owned(seen.files.iter().map(|(place, there)| (*place, there.ours())).collect())
    }

    fn target(&self, want: &Desired, seen: &Seen) -> Result<Owned> {
        steps::target(&want.prefixes, seen)
    }

    fn steps(&self, seen: &Seen, to: &Owned) -> Result<Plan> {
        Ok(steps::steps(seen, to))
    }

    fn warnings(&self, seen: &Seen) -> Vec<Warning> {
        seen.warnings()
    }

    fn held(&self, seen: &Seen) -> Prefixes {
        let contents = seen.files.values().filter_map(|f| f.file.as_ref());
        contents.fold(Prefixes::default(), |all, f| all.union(&file::held(&f.content)))
    }

    fn pending(&self, seen: &Seen) -> Option<String> {
        (!seen.running).then(|| "Apache is not running: the white list is stored, and read when it starts".to_owned())
    }

    fn confirm(&self, _cx: &Context<'_>, seen: &Seen) -> Result<()> {
        if let Some(why) = &seen.broken {
            return Err(Error::new(ErrorKind::Unconfirmed, format!("Apache's configuration test fails: {why}")));
        }
        let unread = seen.files.keys().find(|place| !seen.includes.contains(&seen.read_at(**place)));
        let Some(place) = unread else { return Ok(()) };
        let path = seen.read_at(*place);
        Err(Error::new(ErrorKind::Unconfirmed, format!("Apache doesn't include {}", path.display()))
            .hint("see `apachectl -t -D DUMP_INCLUDES`: its folder must be included, as the distribution does it"))
    }
}

#[cfg(test)]
mod tests;
