//! One transaction as data.
//!
//! Belongs here: the operations a batch can hold. Does not: their text ([`super::render`]) or their bytes.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{AcceptRule, ChainId, SetId, SetKind, TableId};
use crate::allowlist::{Family, Prefixes};

/// One netlink transaction: all of it happens, or nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NftBatch {
    /// The generation of the rule set that was looked at: if it has changed since, the kernel refuses (ERESTART).
    pub generation: Option<u32>,
    /// What is done, in order.
    pub ops: Vec<NftOp>,
}

/// What a base chain does with a packet that no rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Lets it pass.
    Accept,
    /// Refuses it.
    Drop,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooked {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The hook's number in its family (`NF_INET_LOCAL_IN` is 1 for inet, ip and ip6).
    pub hook: u32,
    /// Lower comes first; `filter` is 0.
    pub priority: i32,
    /// The policy.
    pub policy: Policy,
}

impl Hooked {
    /// `NF_INET_LOCAL_IN` of linux/netfilter.h: packets for this machine.
    pub const INPUT: u32 = 1;

    /// A filter chain on input with priority `filter` and policy accept.
    #[must_use]
    pub fn input() -> Self {
        Self { kind: "filter".to_owned(), hook: Self::INPUT, priority: 0, policy: Policy::Accept }
    }
}

/// Elements of a set. A list is shared, never copied: it may have a million entries.
///
/// Two are equal if the elements are: the other family of a list doesn't count.
#[derive(Debug, Clone)]
pub enum Elements {
    /// One family of a list of prefixes.
    Prefixes {
        /// The list; its other family is left out.
        of: Arc<Prefixes>,
        /// Which family.
        family: Family,
    },
    /// Ports.
    Ports(BTreeSet<u16>),
}

impl Elements {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Prefixes { of, family } => of.count(*family),
            Self::Ports(ports) => ports.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind of set that they belong in.
    #[must_use]
    pub fn kind(&self) -> SetKind {
        match self {
            Self::Prefixes { family, .. } => (*family).into(),
            Self::Ports(_) => SetKind::Ports,
        }
    }

    /// Those that are not in `other`, which is of the same kind.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Prefixes { of, family }, Self::Prefixes { of: others, .. }) => {
                let rest = if Arc::ptr_eq(of, others) { Prefixes::default() } else { of.minus(others) };
                Self::Prefixes { of: Arc::new(rest), family: *family }
            }
            (Self::Ports(ports), Self::Ports(others)) => Self::Ports(ports - others),
            _ => self.clone(),
        }
    }

    /// The IPv4 prefixes among them, sorted.
    #[must_use]
    pub fn v4(&self) -> &[Ipv4Net] {
        match self {
            Self::Prefixes { of, family: Family::V4 } => of.v4(),
            _ => &[],
        }
    }

    /// The IPv6 prefixes among them, sorted.
    #[must_use]
    pub fn v6(&self) -> &[Ipv6Net] {
        match self {
            Self::Prefixes { of, family: Family::V6 } => of.v6(),
            _ => &[],
        }
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ports(a), Self::Ports(b)) => a == b,
            (Self::Prefixes { family: a, .. }, Self::Prefixes { family: b, .. }) => {
                a == b && self.v4() == other.v4() && self.v6() == other.v6()
            }
            _ => false,
        }
    }
}

impl Eq for Elements {}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum NftOp {
    /// Makes a table; nothing if it is there.
    AddTable(TableId),
    /// Deletes a table with all that is in it.
    DelTable(TableId),
    /// Makes a base chain; nothing if it is there as described.
    AddChain {
        /// Which.
        chain: ChainId,
        /// What it hangs on.
        hooked: Hooked,
    },
    /// Deletes a chain without rules.
    DelChain(ChainId),
    /// Makes a set.
    AddSet {
        /// Which.
        set: SetId,
        /// Of which kind.
        kind: SetKind,
    },
    /// Deletes a set that no rule uses.
    DelSet(SetId),
    /// Deletes all elements of a set.
    FlushSet(SetId),
    /// Adds elements; refused if one overlaps what is there.
    AddElements {
        /// To which set.
        set: SetId,
        /// Which.
        elements: Elements,
    },
    /// Deletes elements; refused if one isn't there.
    DelElements {
        /// From which set.
        set: SetId,
        /// Which.
        elements: Elements,
    },
    /// Puts a rule first in a chain.
    InsertRule {
        /// Into which chain.
        chain: ChainId,
        /// The rule.
        rule: AcceptRule,
    },
    /// Deletes a rule.
    DelRule {
        /// From which chain.
        chain: ChainId,
        /// The kernel's number for it.
        handle: u64,
    },
}
