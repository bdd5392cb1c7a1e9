//! A rule set as text that the real programs load, in parts that can be left out one by one.
//!
//! Belongs here: what a rule set consists of. Does not: inventing one (`native`, `xtables`), loading it (`host`).

use std::fmt::{self, Write as _};

use edgeallow::allowlist::Family;

/// Everything that one try loads.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// Tables of nftables, in the order in which they are made.
    pub natives: Vec<Native>,
    /// Tables of iptables and ip6tables.
    pub xtables: Vec<Xtables>,
    /// The kernel's ipsets.
    pub ipsets: Vec<Ipset>,
}

/// A table of nftables.
#[derive(Debug, Clone)]
pub struct Native {
    /// `inet`, `ip`, `ip6` or `netdev`.
    pub family: &'static str,
    /// Its name.
    pub name: String,
    /// Whether it sleeps.
    pub dormant: bool,
    /// Sets and maps, as they are written in a table.
    pub sets: Vec<String>,
    /// Its chains.
    pub chains: Vec<NativeChain>,
}

/// A chain of nftables.
#[derive(Debug, Clone)]
pub struct NativeChain {
    /// Its name.
    pub name: String,
    /// `type … hook … priority …; policy …;` of a base chain.
    pub head: Option<String>,
    /// Its rules.
    pub rules: Vec<String>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// On x_tables.
    Legacy,
    /// On nf_tables.
    Nft,
}

/// A table of iptables or ip6tables.
#[derive(Debug, Clone)]
pub struct Xtables {
    /// Which.
    pub variant: Variant,
    /// iptables or ip6tables.
    pub family: Family,
    /// `filter`, `nat`, `mangle` or `raw`.
    pub table: &'static str,
    /// Built-in chains that drop what falls out of their end.
    pub dropping: Vec<&'static str>,
    /// His own chains.
    pub chains: Vec<String>,
    /// Rules, as `-A …`.
    pub rules: Vec<String>,
}

/// An ipset.
#[derive(Debug, Clone)]
pub struct Ipset {
    /// `name type …`.
    pub head: String,
    /// Its members with their options.
    pub members: Vec<String>,
}

impl RuleSet {
    /// As `nft -f` takes it.
    pub fn nft(&self) -> String {
        self.natives.iter().map(ToString::to_string).collect()
    }

    /// As `ipset restore` takes it.
    pub fn ipset(&self) -> String {
        let mut text = String::new();
        for set in &self.ipsets {
            let name = set.head.split(' ').next().unwrap_or_default();
            writeln!(text, "create {}", set.head).expect("write to a string");
            for member in &set.members {
                writeln!(text, "add {name} {member}").expect("write to a string");
            }
        }
        text
    }

    /// As `iptables-restore` of that variant and family takes it; empty without a table there.
    pub fn restore(&self, variant: Variant, family: Family) -> String {
        let tables = self.xtables.iter().filter(|x| x.variant == variant && x.family == family);
        tables.map(ToString::to_string).collect()
    }

    /// Whether anything may keep this host's own packets in: a refusal that it sends, too.
    pub fn filters_output(&self) -> bool {
        let hooks = ["hook output", "hook postrouting", "hook egress"];
        let heads = self.natives.iter().flat_map(|n| &n.chains).filter_map(|c| c.head.as_ref());
        let chains = ["OUTPUT", "POSTROUTING"];
        heads.into_iter().any(|head| hooks.iter().any(|h| head.contains(h)))
            || self.xtables.iter().any(|x| x.dropping.iter().any(|c| chains.contains(c)))
            || self
                .xtables
                .iter()
                .flat_map(|x| &x.rules)
                .any(|r| chains.iter().any(|c| r.starts_with(&format!("-A {c}"))))
    }

    /// Whether iptables of both variants filters this family: which of the two is first depends on which was loaded first,
    /// and nobody can look that up.
    pub fn filters_twice(&self, family: Family) -> bool {
        self.xtables.iter().filter(|x| x.family == family && x.table == "filter").count() > 1
    }

    /// Without its `n`-th part: tables first, then policies, rules, sets and chains. None where there is no such part.
    pub fn without(&self, mut n: usize) -> Option<Self> {
        let mut less = self.clone();
        let Self { natives, xtables, ipsets } = &mut less;
        let done = remove(natives, &mut n)
            || remove(xtables, &mut n)
            || xtables.iter_mut().any(|x| remove(&mut x.dropping, &mut n))
            || natives.iter_mut().flat_map(|t| &mut t.chains).any(|c| remove(&mut c.rules, &mut n))
            || xtables.iter_mut().any(|x| remove(&mut x.rules, &mut n))
            || natives.iter_mut().any(|t| remove(&mut t.chains, &mut n) || remove(&mut t.sets, &mut n))
            || xtables.iter_mut().any(|x| remove(&mut x.chains, &mut n))
            || remove(ipsets, &mut n)
            || ipsets.iter_mut().any(|s| remove(&mut s.members, &mut n));
        done.then_some(less)
    }
}

/// Removes the `n`-th of these; where there are fewer, counts them off.
fn remove<T>(parts: &mut Vec<T>, n: &mut usize) -> bool {
    if *n < parts.len() {
        parts.remove(*n);
        return true;
    }
    *n -= parts.len();
    false
}

impl fmt::Display for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        if self.dormant {
            writeln!(f, "  flags dormant")?;
        }
        for set in &self.sets {
            writeln!(f, "  {set}")?;
        }
        for chain in &self.chains {
            writeln!(f, "  chain {} {{", chain.name)?;
            for line in chain.head.iter().chain(&chain.rules) {
                writeln!(f, "    {line}")?;
            }
            writeln!(f, "  }}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Xtables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "*{}", self.table)?;
        for chain in built_in(self.table) {
            let policy = if self.dropping.contains(chain) { "DROP" } else { "ACCEPT" };
            writeln!(f, ":{chain} {policy} [0:0]")?;
        }
        for chain in &self.chains {
            writeln!(f, ":{chain} - [0:0]")?;
        }
        for rule in &self.rules {
            writeln!(f, "{rule}")?;
        }
        writeln!(f, "COMMIT")
    }
}

/// The chains that a table is born with.
pub fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "raw" => &["PREROUTING", "OUTPUT"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        _ => &["INPUT", "FORWARD", "OUTPUT"],
    }
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.ipsets.is_empty() {
            write!(f, "── ipset restore\n{}", self.ipset())?;
        }
        if !self.natives.is_empty() {
            write!(f, "── nft -f\n{}", self.nft())?;
        }
        for (variant, suffix) in [(Variant::Legacy, "legacy"), (Variant::Nft, "nft")] {
            for (family, program) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
                let text = self.restore(variant, family);
                if !text.is_empty() {
                    write!(f, "── {program}-{suffix}-restore\n{text}")?;
                }
            }
        }
        Ok(())
    }
}
