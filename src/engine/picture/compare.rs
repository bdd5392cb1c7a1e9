//! What the programs show, held against what the kernel says there is.
//!
//! Belongs here: what of a picture can't be believed, or isn't followed. Does not: asking ([`super`]).

use super::{Taking, seen, sees_packets};
use crate::{
    nft::{self, TableFamily},
    reach::model::{Chain, Hook, Language, Table},
};

impl Taking<'_> {
    /// What the programs show has to be what the kernel says there is: of nf_tables the same chains on the same hooks, with as
    /// many rules in each, of legacy iptables the same tables with all chains that such a table has.
    pub(super) fn compare(&mut self) {
        // A gap says so already.
        if !self.picture.gaps.is_empty() {
            return;
        }
        for (family, name) in &self.legacy {
            let is = |t: &&Table| {
                t.language == Language::IptablesLegacy && t.family == TableFamily::of(*family) && t.name == *name
            };
            let shown = self.picture.tables.iter().find(is);
            if !shown.is_some_and(|t| built_in(name).iter().all(|c| t.chains.get(*c).is_some_and(|c| c.base.is_some())))
            {
                let what = format!("{}-legacy-save doesn't show all of the table {name}", seen::stem(*family));
                self.picture.gaps.push(what);
            }
        }
        let families = [TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6, TableFamily::NETDEV];
        for table in self.rules.tables.iter().filter(|t| sees_packets(t) && families.contains(&t.id.family)) {
            let is = |t: &&Table| {
                t.language != Language::IptablesLegacy && t.family == table.id.family && t.name == table.id.name
            };
            let shown = self.picture.tables.iter().find(is);
            let differs = |c: &&nft::Chain| shown.and_then(|t| t.chains.get(&c.name)).is_none_or(|s| !is_same(c, s));
            if let Some(chain) = table.chains.iter().find(differs) {
                let words =
                    format!("what is shown of the chain {} isn't what the kernel has", table.id.chain(&chain.name));
                self.picture.gaps.push(words);
            }
        }
    }

    /// Tables that neighbours are found through: what they refuse isn't followed, and without neighbours nobody is reached.
    pub(super) fn neighbours(&mut self) {
        let refuses = |c: &nft::Chain| {
            c.hooked.as_ref().is_some_and(|h| h.policy == nft::Policy::Drop)
                || c.rules.iter().flat_map(|r| &r.exprs).any(|e| matches!(e, nft::Expr::Verdict(nft::Verdict::Drop)))
        };
        let arp = |t: &&nft::Table| t.id.family == TableFamily::ARP && sees_packets(t) && t.chains.iter().any(refuses);
        for table in self.rules.tables.iter().filter(arp) {
            self.picture.gaps.push(format!("table {} can refuse ARP, which isn't followed", table.id));
        }
    }
}

/// The chains that a legacy table can't be without.
fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "filter" | "security" => &["INPUT", "FORWARD", "OUTPUT"],
        "nat" => &["PREROUTING", "OUTPUT", "POSTROUTING"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "raw" => &["PREROUTING", "OUTPUT"],
        _ => &[],
    }
}

/// Whether a chain that a program shows can be the one that the kernel has.
fn is_same(chain: &nft::Chain, shown: &Chain) -> bool {
    let number = |hook| match hook {
        // `NF_NETDEV_INGRESS` and `NF_NETDEV_EGRESS`; in inet ingress is 5 (`NF_INET_INGRESS`).
        Hook::Prerouting | Hook::Ingress => 0,
        Hook::Input | Hook::Egress => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let hangs = match (&chain.hooked, &shown.base) {
        (None, None) => true,
        (Some(hooked), Some(base)) => {
            let here = hooked.hook == number(base.hook) || (base.hook == Hook::Ingress && hooked.hook == 5);
            here && hooked.priority == base.priority && (hooked.policy == nft::Policy::Drop) == base.drops
        }
        _ => false,
    };
    hangs && chain.rules.len() == shown.rules.len()
}
