//! A transaction as the commands that an administrator would type.
//!
//! Belongs here: text for people. Does not: files that nft loads (`backends/nftables/file`), which are never shortened.

use std::fmt;

use super::{Elements, NftBatch, NftOp, Policy};

/// Longer lists are cut after [`HEAD`].
const ALL: usize = 40;
const HEAD: usize = 10;

impl fmt::Display for NftBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, op) in self.ops.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "nft {op}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NftOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => write!(f, "add table {table}"),
            Self::DelTable(table) => write!(f, "delete table {table}"),
            Self::AddChain { chain, hooked } => {
                let policy = if hooked.policy == Policy::Drop { "drop" } else { "accept" };
                let (kind, priority) = (&hooked.kind, hooked.priority);
                let hook =
                    if hooked.hook == super::Hooked::INPUT { "input".to_owned() } else { hooked.hook.to_string() };
                write!(f, "'add chain {chain} {{ type {kind} hook {hook} priority {priority}; policy {policy}; }}'")
            }
            Self::DelChain(chain) => write!(f, "delete chain {chain}"),
            Self::AddSet { set, kind } => write!(f, "'add set {set} {{ {} }}'", kind.definition()),
            Self::DelSet(set) => write!(f, "delete set {set}"),
            Self::FlushSet(set) => write!(f, "flush set {set}"),
            Self::AddElements { set, elements } => write!(f, "add element {set} {{ {elements} }}"),
            Self::DelElements { set, elements } => write!(f, "delete element {set} {{ {elements} }}"),
            Self::InsertRule { chain, rule } => write!(f, "insert rule {chain} {rule}"),
            Self::DelRule { chain, handle } => write!(f, "delete rule {chain} handle {handle}"),
        }
    }
}

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.len() <= ALL { self.len() } else { HEAD };
        match self {
            Self::Prefixes { of, family } => list(f, of.family(*family).take(shown))?,
            Self::Ports(ports) => list(f, ports.iter().take(shown))?,
        }
        if shown < self.len() {
            write!(f, ", … {} more", self.len() - shown)?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    for (i, item) in items.enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::*;
    use crate::{allowlist::Family, plan::Protocol};

    #[test]
    fn a_batch_reads_as_commands() {
        let table = TableId::new(TableFamily::Inet, "filter");
        let some = Arc::new(["104.16.0.0/13", "131.0.72.0/22"].iter().map(|n| n.parse().unwrap()).collect());
        let batch = NftBatch {
            generation: Some(7),
            ops: vec![
                NftOp::AddSet { set: table.set("edgeallow4"), kind: SetKind::V4 },
                NftOp::AddElements {
                    set: table.set("edgeallow4"),
                    elements: Elements::Prefixes { of: some, family: Family::V4 },
                },
                NftOp::InsertRule {
                    chain: table.chain("input"),
                    rule: AcceptRule {
                        family: Family::V4,
                        protocol: Protocol::Tcp,
                        sources: "edgeallow4".into(),
                        ports: "edgeallow_ports".into(),
                        comment: "edgeallow".into(),
                    },
                },
                NftOp::AddChain { chain: table.chain("own"), hooked: Hooked::input() },
            ],
        };
        insta::assert_snapshot!(batch, @r#"
        nft 'add set inet filter edgeallow4 { type ipv4_addr; flags interval; }'
        nft add element inet filter edgeallow4 { 104.16.0.0/13, 131.0.72.0/22 }
        nft insert rule inet filter input ip saddr @edgeallow4 tcp dport @edgeallow_ports counter accept comment "edgeallow"
        nft 'add chain inet filter own { type filter hook input priority 0; policy accept; }'
        "#);
    }

    #[test]
    fn long_lists_are_cut() {
        let ports = Elements::Ports((1..=41).collect());
        assert_eq!(ports.to_string(), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, … 31 more");
    }
}
