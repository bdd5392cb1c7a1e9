//! The ipsets that iptables' rules name.
//!
//! Belongs here: which of them are asked for, and how. Does not: what rules make of them ([`crate::reach`]).

use std::collections::{BTreeSet, HashMap};

use super::{PATIENCE, Taking, seen, sources};
use crate::{
    allowlist::Family,
    backends::iptables::ipset,
    error::{Error, ErrorKind, Result},
    host::Output,
    reach::{
        self,
        model::{Elements, Set},
        xtables::Ipsets,
    },
};

impl Taking<'_> {
    /// The ipsets that iptables' rules name, put where they are named.
    pub(super) fn ipsets(&mut self) {
        let named: BTreeSet<String> = self.saved.iter().flat_map(|(_, _, saved)| saved.ipsets_named()).collect();
        let mut ipsets = Ipsets::default();
        if !named.is_empty() {
            match self.read_ipsets(&named) {
                Ok(sets) => ipsets = sets,
                Err(e) => {
                    let names: Vec<&str> = named.iter().map(String::as_str).collect();
                    self.missing(&format!("the ipsets that rules name ({})", names.join(", ")), &e);
                }
            }
        }
        for (_, _, mut saved) in std::mem::take(&mut self.saved) {
            saved.bind(&ipsets);
            self.picture.tables.extend(saved.tables);
        }
        self.picture.ipsets = ipsets.sets;
    }

    fn read_ipsets(&self, named: &BTreeSet<String>) -> Result<Ipsets> {
        if !seen::ip_set_loaded(self.host) || self.host.program("ipset").is_none() {
            return Err(Error::new(ErrorKind::Program, "there is no ipset program"));
        }
        let memory = if self.any_big() { self.ipsets_of_ours() } else { HashMap::new() };
        let alone: Vec<&str> = named.iter().map(String::as_str).filter(|n| !memory.contains_key(*n)).collect();
        // One or two the backend may have asked for already; and with a big one of ours there is no other way.
        let few = alone.len() <= 2 || !memory.is_empty();
        let all = vec![vec!["ipset", "save"]];
        let mut text = if few {
            self.printed(&alone.iter().map(|name| vec!["ipset", "save", name]).collect::<Vec<_>>())?
        } else {
            self.printed(&all)?
        };
        // A list of sets needs those that it names.
        if few && String::from_utf8_lossy(&text).contains(" list:set ") {
            if !memory.is_empty() {
                let what = "a rule names a list of sets, and edgeallow's sets are too big to be read with all others";
                return Err(Error::new(ErrorKind::Program, what));
            }
            text = self.printed(&all)?;
        }
        for family in Family::BOTH.into_iter().filter(|f| memory.contains_key(ipset::set_name(*f))) {
            let inet = if family == Family::V4 { "inet" } else { "inet6" };
            text.extend_from_slice(format!("create {} hash:net family {inet}\n", ipset::set_name(family)).as_bytes());
        }
        let mut ipsets = reach::xtables::ipsets(&text)?;
        ipsets.sets.extend(memory);
        Ok(ipsets)
    }

    /// Our sets that have as many elements as they should: what the backend goes by, too.
    fn ipsets_of_ours(&self) -> HashMap<String, Set> {
        let list = self.host.run(&["ipset", "list", "-t"], PATIENCE).ok().filter(Output::ok);
        let headers = list.map(|output| ipset::parse_headers(&output.stdout)).unwrap_or_default();
        let mut sets = HashMap::new();
        for family in Family::BOTH {
            let name = ipset::set_name(family);
            let full = |h: &&ipset::Header| {
                h.name == name
                    && ipset::is_ours(family, &h.create)
                    && h.entries == Some(ipset::elements(self.ours, family).len())
            };
            if headers.iter().any(|h| full(&h)) {
                sets.insert(name.to_owned(), Set::Plain(Elements::Numbers(sources(self.ours, family), ())));
            }
        }
        sets
    }
}
