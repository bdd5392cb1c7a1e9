//! What things in nf_tables are called: a table is a family and a name, everything else a name in a table.
//!
//! Belongs here: identifiers, and the kinds of set that edgeallow makes. Does not: anything with content.

use std::fmt;

use crate::allowlist::Family;

/// The family of a table: which packets its chains can see (`NFPROTO_*` in linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 only.
    Ip,
    /// IPv6 only.
    Ip6,
    /// arp, bridge, netdev: nothing that edgeallow attaches to.
    Other(u8),
}

impl TableFamily {
    /// Frames on an interface, before anything knows what is in them (`NFPROTO_NETDEV`).
    pub const NETDEV: Self = Self::Other(5);
    /// Address resolution of IPv4 (`NFPROTO_ARP`).
    pub const ARP: Self = Self::Other(3);

    /// The family of iptables' tables for an address family.
    #[must_use]
    pub const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ip,
            Family::V6 => Self::Ip6,
        }
    }

    /// From the number in netlink messages.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ip,
            10 => Self::Ip6,
            n => Self::Other(n),
        }
    }

    /// The number in netlink messages.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Other(n) => n,
        }
    }

    /// The word in nft's language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Other(3) => "arp",
            Self::Other(7) => "bridge",
            Self::Other(5) => "netdev",
            Self::Other(_) => "other",
        }
    }

    /// Whether packets of an address family pass through tables of this family.
    #[must_use]
    pub const fn carries(self, family: Family) -> bool {
        matches!((self, family), (Self::Inet, _) | (Self::Ip, Family::V4) | (Self::Ip6, Family::V6))
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
}

impl TableId {
    /// A table.
    pub fn new(family: TableFamily, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }

    /// A chain in it.
    pub fn chain(&self, name: impl Into<String>) -> ChainId {
        ChainId { table: self.clone(), name: name.into() }
    }

    /// A set in it.
    pub fn set(&self, name: impl Into<String>) -> SetId {
        SetId { table: self.clone(), name: name.into() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.as_str(), self.name)
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// The table it is in.
    pub table: TableId,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// The table it is in.
    pub table: TableId,
    /// Its name.
    pub name: String,
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// The kinds of set that edgeallow makes. Numbers are those of nft's datatypes (libnftables, `enum datatypes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// `type ipv4_addr; flags interval;`
    V4,
    /// `type ipv6_addr; flags interval;`
    V6,
    /// `type inet_service;`
    Ports,
}

impl SetKind {
    /// `NFT_SET_INTERVAL` of linux/netfilter/nf_tables.h.
    pub const INTERVAL: u32 = 0x4;

    /// The datatype's number.
    #[must_use]
    pub const fn key_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
            Self::Ports => 13,
        }
    }

    /// How many bytes a key has.
    #[must_use]
    pub const fn key_len(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
            Self::Ports => 2,
        }
    }

    /// The set's flags.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::V4 | Self::V6 => Self::INTERVAL,
            Self::Ports => 0,
        }
    }

    /// What stands in the braces of its definition.
    #[must_use]
    pub const fn definition(self) -> &'static str {
        match self {
            Self::V4 => "type ipv4_addr; flags interval;",
            Self::V6 => "type ipv6_addr; flags interval;",
            Self::Ports => "type inet_service;",
        }
    }
}

impl From<Family> for SetKind {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}
