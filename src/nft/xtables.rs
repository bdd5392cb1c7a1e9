//! Which tables are iptables-nft's.
//!
//! Belongs here: judging a table by what is in it, as `iptables-nft-save` does before it prints one. Does not: what
//! follows from it (`backends/nftables`, `backends/iptables`, which must give the same answer).

use super::{
    Chain, Expr, Hooked, Table, TableFamily,
    rule::{NETWORK_HEADER, TRANSPORT_HEADER},
};

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
        && table.chains.iter().flat_map(|c| &c.rules).all(|r| r.exprs.iter().all(reads) && is_shown_truly(&r.exprs))
}

/// Whether `iptables-nft-save` (1.8.9) shows the rule as it is. Of some rules that nft wrote it shows another, and ends
/// with status 0: of a range of addresses the last one, of two tests of one address the last, of a field of the TCP header
/// that isn't masked nothing or a crash.
fn is_shown_truly(exprs: &[Expr]) -> bool {
    let mut addresses = Vec::new();
    exprs.iter().enumerate().all(|(i, expr)| {
        let Expr::Payload { base, offset, .. } = expr else { return true };
        let next = |name: &str| matches!(exprs.get(i + 1), Some(Expr::Other(next)) if next == name);
        match *base {
            NETWORK_HEADER => {
                let again = addresses.contains(offset);
                addresses.push(*offset);
                // nft writes a range as "not below" and "not above".
                let bounds = exprs[i + 1..].iter().take_while(|e| compares(e)).count();
                !again && !next("range") && bounds < 2
            }
            // Behind the ports iptables masks whatever it looks at.
            TRANSPORT_HEADER if *offset >= 4 => next("bitwise"),
            _ => true,
        }
    })
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

fn compares(expr: &Expr) -> bool {
    matches!(expr, Expr::Equals(_)) || matches!(expr, Expr::Other(name) if name == "cmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(base: u32, offset: u32) -> Expr {
        Expr::Payload { base, offset, len: 4 }
    }

    fn other(name: &str) -> Expr {
        Expr::Other(name.to_owned())
    }

    #[test]
    fn rules_that_iptables_misprints_are_not_its_own() {
        let equals = || Expr::Equals(vec![1, 2, 3, 4]);
        let cases = [
            (vec![payload(NETWORK_HEADER, 12), equals(), payload(NETWORK_HEADER, 16), equals()], true),
            (vec![payload(TRANSPORT_HEADER, 2), other("range")], true),
            (vec![payload(TRANSPORT_HEADER, 13), other("bitwise"), equals()], true),
            (vec![payload(NETWORK_HEADER, 12), other("cmp")], true),
            (vec![payload(NETWORK_HEADER, 12), other("range")], false),
            (vec![payload(NETWORK_HEADER, 12), other("cmp"), other("cmp")], false),
            (vec![payload(NETWORK_HEADER, 12), equals(), payload(NETWORK_HEADER, 12), equals()], false),
            (vec![payload(TRANSPORT_HEADER, 13), other("cmp")], false),
        ];
        for (exprs, truly) in cases {
            assert_eq!(is_shown_truly(&exprs), truly, "{exprs:?}");
        }
    }
}
