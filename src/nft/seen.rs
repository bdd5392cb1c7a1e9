//! What a look at the kernel returns: tables with their chains, rules and sets, without the sets' elements.
//!
//! Belongs here: the rule set as a value. Does not: judging it (`backends/nftables/attach`).

use std::collections::BTreeSet;

use super::{Expr, Hooked, SetKind, TableId};

/// All tables of one network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables, in the kernel's order.
    pub tables: Vec<Table>,
}

impl Ruleset {
    /// A table by its id.
    #[must_use]
    pub fn table(&self, id: &TableId) -> Option<&Table> {
        self.tables.iter().find(|t| t.id == *id)
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Family and name.
    pub id: TableId,
    /// Whether a running program owns it (`NFT_TABLE_F_OWNER`): nobody else can change it.
    pub owned: bool,
    /// Whether it sleeps (`NFT_TABLE_F_DORMANT`): its chains see no packet until somebody wakes it.
    pub dormant: bool,
    /// Its chains.
    pub chains: Vec<Chain>,
    /// Its sets and maps, anonymous ones too.
    pub sets: Vec<Set>,
}

impl Table {
    /// A chain by its name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|c| c.name == name)
    }

    /// A set by its name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|s| s.name == name)
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// What it hangs on, if it is a base chain.
    pub hooked: Option<Hooked>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The kernel's number for it.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// What it does.
    pub exprs: Vec<Expr>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// `NFT_SET_*` flags.
    pub flags: u32,
    /// nft's number for the type of its keys.
    pub key_type: u32,
    /// How many bytes a key has.
    pub key_len: u32,
    /// Whether its elements expire.
    pub expires: bool,
    /// The kernel's own count of its elements, where the kernel tells (attribute 20, seen on 6.18, not on 6.1). An
    /// interval counts once (its two boundaries, halved and rounded down).
    pub count: Option<u32>,
}

impl Set {
    /// The kind of ours that it is like, if any.
    #[must_use]
    pub fn kind(&self) -> Option<SetKind> {
        [SetKind::V4, SetKind::V6, SetKind::Ports].into_iter().find(|k| {
            self.flags == k.flags() && self.key_type == k.key_type() && self.key_len == k.key_len() && !self.expires
        })
    }
}

impl Chain {
    /// The sets that its rules use.
    pub fn uses(&self) -> BTreeSet<&str> {
        self.rules.iter().flat_map(|r| &r.exprs).filter_map(Expr::set).collect()
    }
}
