//! Which tables are iptables-nft's.
//!
//! Belongs here: judging a table by what is in it, as `iptables-nft-save` does before it prints one. Does not: what
//! follows from it (`backends/nftables`, `backends/iptables`, which must give the same answer).

use super::{Chain, Expr, Hooked, Table, TableFamily};

/// The tables that iptables-nft makes, in the families ip and ip6.
pub const XT_TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
/// The base chains it makes in them.
const XT_CHAINS: [&str; 5] = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"];
/// The expressions it can read, besides those of [`Expr`] with a name of their own (`nft_is_expr_compatible` of
/// iptables 1.8.9).
const READ: [&str; 8] = ["payload", "meta", "cmp", "bitwise", "immediate", "range", "limit", "log group"];

/// Whether a table is one that iptables-nft works with: its name and base chains are iptables' own, and every rule is
/// made of what iptables itself writes.
///
/// `iptables-nft-save` calls every other table "incompatible", with one exception: a look-up in a set it passes over,
/// and shows a rule that isn't there. Such a table counts as nft's here.
#[must_use]
pub fn is_xtables(table: &Table) -> bool {
    let named = matches!(table.id.family, TableFamily::Ip | TableFamily::Ip6);
    let named = named && XT_TABLES.contains(&table.id.name.as_str());
    let mut bases = table.chains.iter().filter_map(|c| Some((c, c.hooked.as_ref()?))).peekable();
    named
        && bases.peek().is_some()
        && bases.all(|(chain, hooked)| is_builtin(&table.id.name, chain, hooked))
        && table.chains.iter().flat_map(|c| &c.rules).flat_map(|r| &r.exprs).all(reads)
}

fn is_builtin(table: &str, chain: &Chain, hooked: &Hooked) -> bool {
    XT_CHAINS.contains(&chain.name.as_str()) && (table != "filter" || (hooked.kind == "filter" && hooked.priority == 0))
}

fn reads(expr: &Expr) -> bool {
    match expr {
        Expr::Meta(_) | Expr::Equals(_) | Expr::Payload { .. } | Expr::Counter | Expr::Verdict(_) | Expr::Compat => {
            true
        }
        Expr::Lookup(_) | Expr::VerdictMap(_) | Expr::UsesSet(_) | Expr::Reject => false,
        Expr::Other(name) => READ.contains(&name.as_str()),
    }
}
