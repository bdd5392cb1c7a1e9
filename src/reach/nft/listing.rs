//! The text that `nft -a -t list ruleset` prints: how a rule reads, and what the JSON leaves out.
//!
//! nft 1.0.6 writes no devices of ingress chains into its JSON, and garbage for the flags of a table.
//!
//! Belongs here: that text. Does not: the rules' meaning, which comes from the JSON.

use std::collections::{HashMap, HashSet};

use crate::{
    nft::{ChainId, TableId},
    reach::model::{Hook, Language, Table},
};

/// What `nft -a -t list ruleset` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    rules: HashMap<ChainId, HashMap<u64, String>>,
    devices: HashMap<ChainId, Vec<String>>,
    sleeping: HashSet<TableId>,
}

/// Reads the text of `nft -a -t list ruleset`. Lines that aren't understood are passed over: it is for showing rules, not for
/// judging them.
#[must_use]
pub fn texts(listing: &str) -> Listing {
    let mut seen = Listing::default();
    let (mut table, mut chain): (Option<TableId>, Option<ChainId>) = (None, None);
    let mut begun = String::new();
    for line in listing.lines() {
        let depth = line.bytes().take_while(|b| *b == b'\t').count();
        let line = line.trim();
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        match (depth, words.as_slice()) {
            (0, ["table", family, name, ..]) => {
                table = super::family(family).map(|f| TableId::new(f, *name));
                chain = None;
            }
            (1, ["chain", name, ..]) => chain = table.as_ref().map(|t| t.chain(*name)),
            (1, ["flags", ..]) if chain.is_none() => {
                let flags = line.trim_start_matches("flags").split(',').map(str::trim);
                if flags.into_iter().any(|f| f == "dormant") {
                    seen.sleeping.extend(table.clone());
                }
            }
            (0 | 1, _) => {
                if line == "}" || depth == 0 {
                    chain = None;
                }
                begun.clear();
            }
            (_, ["type", _, "hook", ..]) if begun.is_empty() => {
                if let (Some(chain), Some(names)) = (&chain, devices(line)) {
                    seen.devices.insert(chain.clone(), names);
                }
            }
            _ => {
                let Some(chain) = &chain else { continue };
                // A rule with a long set goes on over several lines; its number stands at the end.
                if !begun.is_empty() {
                    begun.push(' ');
                }
                begun.push_str(line);
                let numbered = begun.rsplit_once(" # handle ").and_then(|(text, n)| Some((text, n.parse().ok()?)));
                if let Some((text, handle)) = numbered {
                    seen.rules.entry(chain.clone()).or_default().insert(handle, text.trim_end().to_owned());
                    begun.clear();
                } else if begun.starts_with("comment ") {
                    begun.clear();
                }
            }
        }
    }
    seen
}

/// `device "eth0"` or `devices = { "eth0", "eth1*" }` in the line of a base chain.
fn devices(line: &str) -> Option<Vec<String>> {
    let name = |word: &str| word.trim().trim_matches('"').to_owned();
    if let Some((_, rest)) = line.split_once(" devices = {") {
        return Some(rest.split('}').next()?.split(',').map(name).filter(|n| !n.is_empty()).collect());
    }
    let (_, rest) = line.split_once(" device ")?;
    Some(vec![name(rest.split(" priority").next()?)])
}

impl Listing {
    /// The text of a rule, without its number.
    #[must_use]
    pub fn rule(&self, chain: &ChainId, handle: u64) -> Option<&str> {
        self.rules.get(chain)?.get(&handle).map(String::as_str)
    }

    /// Corrects tables by what their JSON leaves out: whether a table sleeps, and the devices of ingress and egress chains.
    pub fn complete(&self, tables: &mut [Table]) {
        for table in tables.iter_mut().filter(|t| t.language == Language::Nft) {
            let id = TableId::new(table.family, &table.name);
            table.dormant = self.sleeping.contains(&id);
            for (name, chain) in &mut table.chains {
                let Some(base) = &mut chain.base else { continue };
                if let (Hook::Ingress | Hook::Egress, Some(names)) = (base.hook, self.devices.get(&id.chain(name))) {
                    base.devices.clone_from(names);
                }
            }
        }
    }
}
