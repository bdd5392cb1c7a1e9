//! The firewalls that edgeallow can speak to, one folder each, and what they have in common.
//!
//! # Add a backend in an hour
//!
//! CONTRIBUTING.md has this in full; `examples/own_backend.rs` is what came of following it.
//!
//! 1. Decide what you own in the tool, live and persisted, all of it carrying the tag `edgeallow`; write it down as
//!    [`Backend::Owned`]. Its `Default` is "nothing of ours is here".
//! 2. `observe`: read the tool (never change it: you get a [`Look`]) into [`Backend::Seen`], which holds what is ours
//!    and what you need to know of the rest.
//! 3. `target`: what should be ours, given what is wanted. Pure.
//! 4. `steps`: the difference between what is seen and what should be ours, as [`Plan`]. Pure.
//! 5. Put it into [`registry`] and into the conformance suite (`tests/conformance`), which fails until it is there.
//!
//! Syncing is `steps(seen, target(wanted, seen))`, removing is `steps(seen, Owned::default())`, undoing is
//! `steps(seen now, owned before)`, verifying is "steps is empty". There is no fifth thing.

pub mod csf;
mod erased;
pub mod fail2ban;
pub mod firewalld;
pub mod iptables;
pub mod mod_evasive;
pub mod nftables;
pub mod ufw;

use std::{fmt::Debug, sync::Arc};

pub use erased::{AnyBackend, AnySeen, Goal};

use crate::{
    allowlist::Prefixes,
    error::{Error, ErrorKind, Result},
    host::Look,
    plan::{Desired, Plan},
};

/// Static facts about a backend.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// The name on the command line and in the JSON.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Every path that it may write.
    pub files: &'static [&'static str],
    /// Whether it is a packet filter, so that `auto` asks whether it refuses anything.
    pub packet_filter: bool,
}

/// What a first look at the tool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It is here and can be worked with.
    Ready {
        /// Version or variant, for people.
        version: String,
        /// Whether `auto` takes it, and why or why not.
        auto: Auto,
    },
    /// The tool isn't on this machine.
    Absent(String),
    /// It is here and can't be worked with, and why: no privilege, too old.
    Unusable(Error),
}

impl Probe {
    /// It is here, and this process may not look at its rules, by name.
    #[must_use]
    pub fn unprivileged(what: &str) -> Self {
        let why = format!("{what} can't be looked at without CAP_NET_ADMIN");
        Self::Unusable(Error::new(ErrorKind::NoPrivilege, why).hint("run edgeallow as root"))
    }
}

/// Whether `backends = ["auto"]` takes a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auto {
    /// It can turn Cloudflare away: `inet filter input has policy drop`.
    Yes(String),
    /// It can't: `no native base chain on input can refuse`.
    No(String),
}

/// What a backend may know besides the machine itself.
#[derive(Clone)]
pub struct Context<'a> {
    /// The machine, to look at.
    pub host: &'a dyn Look,
    /// The prefixes that this backend held when its last run was confirmed.
    pub applied: Option<Arc<Prefixes>>,
    /// Up to how many prefixes a look compares element by element.
    pub full_check: usize,
    /// Compare element by element whatever the size (`status --deep`).
    pub deep: bool,
    /// Leave what is stored for the next boot as it is: the administrator's own configuration doesn't load, so nothing
    /// can be tested on top of it; or another instance has stored it.
    pub leave_stored: bool,
}

/// How thoroughly a look compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Verified {
    /// Every element.
    #[default]
    Full,
    /// The skeleton, and the number of elements.
    Count,
    /// The skeleton, and a sample of the elements.
    Sample,
}

/// Something the operator should know, found while looking or planning.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Warning {
    /// Stable id, kebab-case.
    pub id: String,
    /// What, and what to do.
    pub message: String,
}

impl Warning {
    /// A warning.
    pub fn new(id: &str, message: impl Into<String>) -> Self {
        Self { id: id.to_owned(), message: message.into() }
    }
}

/// A firewall or a tool above one.
pub trait Backend: Sync {
    /// All that edgeallow owns in this tool, live and persisted. The default value is "nothing".
    type Owned: Clone + PartialEq + Debug + Default + Send + Sync + 'static;
    /// What a look returns: what is ours, and what planning needs to know of the rest.
    type Seen: Debug + Send + Sync + 'static;

    /// Name, summary, files.
    fn meta(&self) -> &'static Meta;

    /// Whether the configuration lets it store for the next boot what it makes live. One that may not, and has not
    /// before, is asked to [leave](Context::leave_stored) what is there.
    fn stores(&self) -> bool {
        true
    }

    /// Is it here, can it be worked with, would `auto` take it?
    fn probe(&self, cx: &Context<'_>) -> Probe;

    /// Reads what is there, live and persisted.
    ///
    /// # Errors
    /// When a part can't be read that planning needs.
    fn observe(&self, cx: &Context<'_>) -> Result<Self::Seen>;

    /// The part of what was seen that is ours.
    fn owned(&self, seen: &Self::Seen) -> Self::Owned;

    /// What should be ours. Pure.
    ///
    /// # Errors
    /// When what is wanted can't be expressed in this tool.
    fn target(&self, want: &Desired, seen: &Self::Seen) -> Result<Self::Owned>;

    /// What would have to be done to get from what is seen to what should be ours; empty if there is nothing. Pure.
    ///
    /// # Errors
    /// When there is no safe way: a symbolic link in place of a file of ours.
    fn steps(&self, seen: &Self::Seen, to: &Self::Owned) -> Result<Plan>;

    /// A look that is too dear for a run with nothing to do: asked when the plan is about to be carried out, before its
    /// first change. The way back is not asked about: it leads to what was there.
    ///
    /// # Errors
    /// When carrying it out would do harm; nothing has been changed then.
    fn before(&self, _cx: &Context<'_>, _seen: &Self::Seen, _plan: &Plan) -> Result<()> {
        Ok(())
    }

    /// What the operator should know of what was seen. Pure.
    fn warnings(&self, _seen: &Self::Seen) -> Vec<Warning> {
        Vec::new()
    }

    /// What the operator should know of what should be ours. Asked beside [`Backend::warnings`], and the same in a dry
    /// run, in the run that makes it so, and in every run after that. Pure.
    fn foreseen(&self, _seen: &Self::Seen, _to: &Self::Owned) -> Vec<Warning> {
        Vec::new()
    }

    /// The prefixes that are open by what is ours, so that a lost state removes nothing.
    fn held(&self, seen: &Self::Seen) -> Prefixes;

    /// How thoroughly the look compared.
    fn verified(&self, _seen: &Self::Seen) -> Verified {
        Verified::Full
    }

    /// Stored, but live only when the tool is next started: the reason, if so.
    fn pending(&self, _seen: &Self::Seen) -> Option<String> {
        None
    }

    /// A second witness, by another road than [`Backend::observe`] took. Asked once after a change that the second
    /// look has confirmed, never in a run that changed nothing.
    ///
    /// # Errors
    /// `unconfirmed`, saying what the other witness doesn't see.
    fn confirm(&self, _cx: &Context<'_>, _seen: &Self::Seen) -> Result<()> {
        Ok(())
    }

    /// Judges a rehearsal: does what is live in the fresh namespace (seen there, with `deep` and without `applied`)
    /// equal the live part of the target? What is right but should be known comes back as warnings.
    ///
    /// # Errors
    /// `load-test`, saying what differs.
    fn rehearsed(&self, _there: &Self::Seen, _to: &Self::Owned) -> Result<Vec<Warning>> {
        Ok(Vec::new())
    }
}

/// Every backend there is, as the configuration sets it up, in the order in which they run. `asked` are the names that
/// the operator gave, in the configuration or on the command line.
#[must_use]
pub fn registry(config: &crate::config::Config, asked: &[String]) -> Vec<Box<dyn AnyBackend>> {
    let named = |name: &str| asked.iter().any(|n| n == name);
    vec![
        Box::new(ufw::Ufw),
        Box::new(nftables::Nftables { config: config.nftables.clone(), named: named("nftables") }),
        Box::new(csf::Csf { ports: config.ports.clone(), protocols: config.protocols.clone() }),
        Box::new(iptables::Iptables { config: config.iptables.clone(), named: named("iptables") }),
        Box::new(firewalld::Firewalld { config: config.firewalld.clone(), named: named("firewalld") }),
        Box::new(fail2ban::Fail2ban),
        Box::new(mod_evasive::ModEvasive),
    ]
}
