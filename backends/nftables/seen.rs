//! What a look returns, and what of it is ours.
//!
//! Belongs here: the types. Does not: filling them ([`super::observe`]) or comparing them ([`super::live`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use super::{OWN_TABLE, attach::Place};
use crate::{
    backends::Verified,
    nft::{AcceptRule, ChainId, Elements, SetKind, TableId},
};

/// All that is ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Owned {
    /// In the kernel, by table. Our own table, where there is one, is here with all that is in it.
    pub live: BTreeMap<TableId, Holding>,
    /// For the next boot.
    pub stored: Stored,
}

/// What is ours in one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holding {
    /// Our sets by name.
    pub sets: BTreeMap<String, Content>,
    /// Our rules by chain, in order.
    pub rules: BTreeMap<String, Vec<AcceptRule>>,
}

/// What is in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These elements.
    Known(Elements),
    /// Too much to look at, and not what the last run left there. As a goal it means "whatever is there".
    Unknown(SetKind),
}

impl Content {
    /// The kind of set.
    #[must_use]
    pub fn kind(&self) -> SetKind {
        match self {
            Self::Known(elements) => elements.kind(),
            Self::Unknown(kind) => *kind,
        }
    }
}

/// What is stored for the next boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Our files of nft syntax, with their content.
    pub files: BTreeMap<PathBuf, Arc<[u8]>>,
    /// The content of the systemd drop-in.
    pub drop_in: Option<Arc<[u8]>>,
    /// The configurations of the distribution that hold our include line.
    pub includes: BTreeSet<PathBuf>,
}

/// What a look returns.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The rule set's generation.
    pub generation: Option<u32>,
    /// Native base chains on input.
    pub places: Vec<Place>,
    /// Every chain in tables that packets for this machine pass, base or not.
    pub chains: BTreeSet<ChainId>,
    /// The base chains among them.
    pub hooked: BTreeSet<ChainId>,
    /// Chains that are not there for our sake alone: with a hook, with a rule of somebody else's, or led to.
    pub lived_in: BTreeSet<ChainId>,
    /// Those of the base chains that filter on input.
    pub inputs: BTreeSet<ChainId>,
    /// Tables that sleep.
    pub dormant: BTreeSet<TableId>,
    /// Tables that iptables made and nft changed: no configuration of nft's can hold them.
    pub mixed: BTreeSet<TableId>,
    /// Tables of others that can refuse on input.
    pub foreign: Vec<String>,
    /// Tables with something of ours.
    pub tables: BTreeMap<TableId, TableSeen>,
    /// What is stored for the next boot.
    pub boot: BootSeen,
    /// Lists longer than this aren't tested in full.
    pub limit: usize,
    /// How thoroughly was looked.
    pub verified: Verified,
}

/// What of ours is in one table.
#[derive(Debug, Clone, Default)]
pub struct TableSeen {
    /// Our sets by name.
    pub sets: BTreeMap<String, SetSeen>,
    /// Chains with rules of ours.
    pub chains: BTreeMap<String, ChainSeen>,
    /// Of our own table: whether its base chain is there and as it should be.
    pub sound: bool,
}

/// A set with one of our names.
#[derive(Debug, Clone)]
pub struct SetSeen {
    /// What it holds; `None` if it isn't even of our kind.
    pub content: Option<Content>,
    /// Whether each of its elements is one prefix: only those can be deleted one by one.
    pub exact: bool,
    /// The chains in which somebody else's rule uses it.
    pub users: Vec<String>,
}

/// Our rules in a chain.
#[derive(Debug, Clone, Default)]
pub struct ChainSeen {
    /// Handle, and what rule it is if it is still as we write them.
    pub rules: Vec<(u64, Option<AcceptRule>)>,
    /// Whether they are the first rules of the chain.
    pub first: bool,
}

/// What a look at the files returns.
#[derive(Debug, Clone, Default)]
pub struct BootSeen {
    /// The `nft` program.
    pub nft: Option<PathBuf>,
    /// Whether systemd runs.
    pub systemd: bool,
    /// Whether it has an nftables.service.
    pub unit: bool,
    /// Whether that is started at boot.
    pub enabled: bool,
    /// The distribution's configurations that exist; the first is the one that counts.
    pub configs: Vec<(PathBuf, Arc<[u8]>)>,
    /// Our files.
    pub files: BTreeMap<PathBuf, OurFile>,
    /// Our drop-in.
    pub drop_in: Option<OurFile>,
    /// Whether the folder of our files is there, and whether it holds files of others.
    pub folder: Folder,
    /// The same of the folder that it is in, where the configuration is too.
    pub above: Folder,
    /// The same of the drop-in's folder.
    pub drop_in_folder: Folder,
    /// Nothing may be stored: there is no program to test it with, or it is to be left.
    pub frozen: bool,
    /// Leave all this as it is, also what should go.
    pub left: bool,
}

/// A file of ours.
#[derive(Debug, Clone)]
pub struct OurFile {
    /// Its content.
    pub content: Arc<[u8]>,
    /// Whether a symbolic link stands in its place.
    pub symlink: bool,
}

/// What a folder is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Folder {
    /// Not there.
    #[default]
    Absent,
    /// There, with nothing or only our files in it.
    Ours,
    /// There, with files of others.
    Shared,
}

impl Seen {
    /// The part that is ours.
    pub(super) fn owned(&self) -> Owned {
        let live = self.tables.iter().filter(|(id, t)| **id != *OWN_TABLE || t.sound);
        Owned { live: live.map(|(id, t)| (id.clone(), t.holding())).collect(), stored: self.boot.stored() }
    }
}

impl TableSeen {
    fn holding(&self) -> Holding {
        let sets = self.sets.iter().filter_map(|(name, s)| Some((name.clone(), s.content.clone()?)));
        let rules = self
            .chains
            .iter()
            .map(|(name, c)| (name.clone(), c.rules.iter().filter_map(|(_, rule)| rule.clone()).collect::<Vec<_>>()));
        Holding { sets: sets.collect(), rules: rules.filter(|(_, rules)| !rules.is_empty()).collect() }
    }
}

impl BootSeen {
    /// The part that is ours.
    pub(super) fn stored(&self) -> Stored {
        if self.left {
            return Stored::default();
        }
        let ours = self.configs.iter().filter(|(_, text)| super::include::has(text));
        Stored {
            files: self.files.iter().map(|(path, f)| (path.clone(), f.content.clone())).collect(),
            drop_in: self.drop_in.as_ref().map(|f| f.content.clone()),
            includes: ours.map(|(path, _)| path.clone()).collect(),
        }
    }
}
