//! Rules: the one kind that edgeallow writes, and the expressions that any rule is seen as.
//!
//! Belongs here: an accept rule as text and as the expressions that `nft` itself makes of that text (seen with
//! `nft --debug=netlink`, nft 1.0.6), so that a rule loaded from a file equals one sent over netlink. Does not:
//! where rules are put.

use std::fmt;

use super::{SetKind, TableFamily};
use crate::{allowlist::Family, plan::Protocol};

/// `NFT_META_NFPROTO` of linux/netfilter/nf_tables.h.
pub const META_NFPROTO: u32 = 15;
/// `NFT_META_L4PROTO` of linux/netfilter/nf_tables.h.
pub const META_L4PROTO: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER` of linux/netfilter/nf_tables.h.
pub const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER` of linux/netfilter/nf_tables.h.
pub const TRANSPORT_HEADER: u32 = 2;

/// Where a packet goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Out of this base chain, let pass.
    Accept,
    /// Gone.
    Drop,
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain, and not back.
    Goto(String),
    /// Return, continue, break, queue: nothing that refuses by itself.
    Other(i32),
}

/// One expression of a rule. Those of our own rules are kept exactly, of others what planning needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads a fact about the packet into register 1.
    Meta(u32),
    /// Register 1 must equal these bytes.
    Equals(Vec<u8>),
    /// Loads bytes of the packet into register 1.
    Payload {
        /// Which header.
        base: u32,
        /// From which byte.
        offset: u32,
        /// How many bytes.
        len: u32,
    },
    /// Register 1 must be in the set.
    Lookup(String),
    /// A verdict map decides.
    VerdictMap(String),
    /// Uses a set in some other way: negated, as a data map, or adding to it.
    UsesSet(String),
    /// Counts.
    Counter,
    /// A verdict.
    Verdict(Verdict),
    /// Refuses with an answer.
    Reject,
    /// An extension of iptables (xt match or target): the table is iptables-nft's.
    Compat,
    /// Anything else, by its name in the kernel.
    Other(String),
}

impl Expr {
    /// The set that the expression looks at or changes.
    #[must_use]
    pub fn set(&self) -> Option<&str> {
        match self {
            Self::Lookup(set) | Self::VerdictMap(set) | Self::UsesSet(set) => Some(set),
            _ => None,
        }
    }
}

/// `ip saddr @SOURCES tcp dport @PORTS counter accept comment "TAG"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptRule {
    /// The address family.
    pub family: Family,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The set of source prefixes.
    pub sources: String,
    /// The set of destination ports.
    pub ports: String,
    /// The comment.
    pub comment: String,
}

impl AcceptRule {
    /// The expressions that nft makes of it in a table of this family.
    #[must_use]
    pub fn exprs(&self, table: TableFamily) -> Vec<Expr> {
        let (nfproto, offset) = match self.family {
            Family::V4 => (TableFamily::Ip.number(), 12),
            Family::V6 => (TableFamily::Ip6.number(), 8),
        };
        let mut exprs = Vec::with_capacity(10);
        if table == TableFamily::Inet {
            exprs.extend([Expr::Meta(META_NFPROTO), Expr::Equals(vec![nfproto])]);
        }
        exprs.extend([
            Expr::Payload { base: NETWORK_HEADER, offset, len: SetKind::from(self.family).key_len() },
            Expr::Lookup(self.sources.clone()),
            Expr::Meta(META_L4PROTO),
            Expr::Equals(vec![self.protocol.number()]),
            // The destination port stands at the same place in TCP and UDP.
            Expr::Payload { base: TRANSPORT_HEADER, offset: 2, len: 2 },
            Expr::Lookup(self.ports.clone()),
            Expr::Counter,
            Expr::Verdict(Verdict::Accept),
        ]);
        exprs
    }
}

impl fmt::Display for AcceptRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        write!(
            f,
            "{ip} saddr @{} {} dport @{} counter accept comment \"{}\"",
            self.sources,
            self.protocol.as_str(),
            self.ports,
            self.comment
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(family: Family) -> AcceptRule {
        AcceptRule {
            family,
            protocol: Protocol::Tcp,
            sources: "s".into(),
            ports: "p".into(),
            comment: "edgeallow".into(),
        }
    }

    #[test]
    fn only_inet_tables_ask_for_the_address_family() {
        let inet = rule(Family::V6).exprs(TableFamily::Inet);
        let ip6 = rule(Family::V6).exprs(TableFamily::Ip6);
        assert_eq!(inet[..2], [Expr::Meta(META_NFPROTO), Expr::Equals(vec![10])]);
        assert_eq!(inet[2..], ip6[..]);
        assert_eq!(ip6[0], Expr::Payload { base: NETWORK_HEADER, offset: 8, len: 16 });
    }

    #[test]
    fn text_is_nfts_own() {
        assert_eq!(rule(Family::V4).to_string(), "ip saddr @s tcp dport @p counter accept comment \"edgeallow\"");
    }
}
