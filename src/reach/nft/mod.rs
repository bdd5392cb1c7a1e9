//! nftables' own rules: from what `nft -j list ruleset` prints to the model.
//!
//! What isn't understood is never dropped: in the place of a test it becomes [`Part::Puzzle`], where it could decide
//! [`Verdict::Elsewhere`](super::model::Verdict::Elsewhere), in a set [`Set::Puzzle`].
//!
//! Belongs here: nft's JSON (libnftables-json(5)) and its text. Does not: iptables' tables, of whose matches the JSON tells
//! nothing (`xtables`); running nft (the engine).

mod json;
mod keys;
mod kinds;
mod listing;
mod marks;
mod matches;
mod sets;
mod statements;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{HashMap, hash_map::Entry};

use self::{json::Json, matches::Reading, sets::Declared};
#[cfg(doc)]
use super::model::Part;
use super::model::{Base, ChainKind, Hook, Language, Rule, Set, Table};
use crate::{
    error::{Error, ErrorKind, Result},
    nft::{TableFamily, TableId},
};

pub use listing::{Listing, texts};

/// Reads what `nft -j list ruleset` prints, or `nft -j list chain …`.
///
/// Tables that `skip` says yes to are iptables' and are read elsewhere: all of theirs is left out.
///
/// nft 1.0.6 leaves out the devices of ingress and egress chains, which then are taken to hang on every interface, and
/// prints garbage for a table's flags, which then is taken to be awake; [`Listing::complete`] mends both.
///
/// # Errors
/// [`ErrorKind::Program`] if it isn't the JSON that nft prints.
pub fn parse(json: &[u8], skip: &dyn Fn(&TableId) -> bool) -> Result<Vec<Table>> {
    read(json, skip, false)
}

/// The same for `nft -j -t list ruleset`, which leaves out the elements of sets: every named set is a [`Set::Puzzle`] until
/// [`merge_set`] puts it in.
///
/// # Errors
/// [`ErrorKind::Program`] if it isn't the JSON that nft prints.
pub fn parse_terse(json: &[u8], skip: &dyn Fn(&TableId) -> bool) -> Result<Vec<Table>> {
    read(json, skip, true)
}

/// Puts the sets and maps of `nft -j list set …` into their tables. Those of tables that aren't there are left out.
///
/// # Errors
/// [`ErrorKind::Program`] if it isn't the JSON that nft prints.
pub fn merge_set(tables: &mut [Table], json: &[u8]) -> Result<()> {
    let document = document(json)?;
    for object in objects(&document)? {
        let Some(("set" | "map", set)) = object.only() else { continue };
        let id = table_of(set)?;
        let name = set.text_of("name").ok_or_else(|| malformed("a set without a name"))?;
        if let Some(table) = tables.iter_mut().find(|t| t.family == id.family && t.name == id.name) {
            let rates = set.get("elem").and_then(Json::list).is_some_and(|e| sets::stateful(e).next().is_some());
            let told = set.get("stmt").is_some();
            let read = if rates && !told {
                // The rules were read before it was known that its elements stop packets.
                Set::Puzzle(format!("set {name}: elements with limits"))
            } else {
                sets::named(id.family, set)
            };
            table.sets.insert(name.to_owned(), read);
        }
    }
    Ok(())
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Program, format!("what `nft -j list ruleset` printed is not understood: {what}"))
        .hint("run `nft -j list ruleset` by hand; nft 1.0.6 prints broken JSON for tables with flags (dormant, owner)")
}

fn document(json: &[u8]) -> Result<Json<'_>> {
    serde_json::from_slice(json).map_err(malformed)
}

fn objects<'j, 'a>(document: &'j Json<'a>) -> Result<&'j [Json<'a>]> {
    document.get("nftables").and_then(Json::list).ok_or_else(|| malformed("there is no list \"nftables\""))
}

fn family(word: &str) -> Option<TableFamily> {
    Some(match word {
        "inet" => TableFamily::Inet,
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        "arp" => TableFamily::ARP,
        "netdev" => TableFamily::NETDEV,
        "bridge" => TableFamily::Other(7),
        _ => return None,
    })
}

/// The table that a chain, rule or set is in.
fn table_of(object: &Json<'_>) -> Result<TableId> {
    let family_name = object.text_of("family").ok_or_else(|| malformed("an object without a family"))?;
    let family = family(family_name).ok_or_else(|| malformed(format!("the family {family_name}")))?;
    let name = object.text_of("table").ok_or_else(|| malformed("an object without a table"))?;
    Ok(TableId::new(family, name))
}

fn read(json: &[u8], skip: &dyn Fn(&TableId) -> bool, terse: bool) -> Result<Vec<Table>> {
    let document = document(json)?;
    let mut reader =
        Reader { tables: Vec::new(), at: HashMap::new(), declared: HashMap::new(), old: false, skip, terse };
    let objects = objects(&document)?;
    // Rules name sets and chains; nft prints those first, but nothing says that it must.
    for object in objects {
        reader.declare(object)?;
    }
    for object in objects {
        if let Some(("rule", rule)) = object.only() {
            reader.rule(rule)?;
        }
    }
    Ok(reader.tables)
}

struct Reader<'s> {
    tables: Vec<Table>,
    at: HashMap<TableId, usize>,
    declared: HashMap<TableId, HashMap<String, Declared>>,
    /// Whether nft is so old that it doesn't show what `add @set { … }` limits.
    old: bool,
    skip: &'s dyn Fn(&TableId) -> bool,
    terse: bool,
}

impl Reader<'_> {
    fn table(&mut self, id: &TableId) -> &mut Table {
        let at = *self.at.entry(id.clone()).or_insert_with(|| {
            self.tables.push(Table::new(id.family, &id.name, Language::Nft));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    fn declare(&mut self, object: &Json<'_>) -> Result<()> {
        match object.only() {
            Some(("metainfo", info)) => {
                self.old = info.text_of("version").is_some_and(|version| version.starts_with("0."));
            }
            Some(("table", table)) => {
                let family_name = table.text_of("family").unwrap_or_default();
                let family = family(family_name).ok_or_else(|| malformed(format!("the family {family_name:?}")))?;
                let name = table.text_of("name").ok_or_else(|| malformed("a table without a name"))?;
                let id = TableId::new(family, name);
                if !(self.skip)(&id) {
                    let flags = table.get("flags").map_or(&[][..], Json::each);
                    self.table(&id).dormant = flags.iter().any(|f| f.text() == Some("dormant"));
                }
            }
            Some(("chain", chain)) => {
                let id = table_of(chain)?;
                if !(self.skip)(&id) {
                    let name = chain.text_of("name").ok_or_else(|| malformed("a chain without a name"))?;
                    let base = base(chain)?;
                    self.table(&id).chains.entry(name.to_owned()).or_default().base = base;
                }
            }
            Some(("set" | "map", set)) => {
                let id = table_of(set)?;
                if !(self.skip)(&id) {
                    let name = set.text_of("name").ok_or_else(|| malformed("a set without a name"))?;
                    let declared = sets::declared(id.family, set);
                    self.declared.entry(id.clone()).or_default().insert(name.to_owned(), declared);
                    let read = if self.terse {
                        Set::Puzzle(format!("set {name}: its elements were not read"))
                    } else {
                        sets::named(id.family, set)
                    };
                    self.table(&id).sets.insert(name.to_owned(), read);
                }
            }
            // Rules come later; counters, quotas, helpers and flowtables decide nothing by being there.
            Some(_) => {}
            None => return Err(malformed(format!("the object {}", words::words(object)))),
        }
        Ok(())
    }

    fn rule(&mut self, rule: &Json<'_>) -> Result<()> {
        let id = table_of(rule)?;
        if (self.skip)(&id) {
            return Ok(());
        }
        let chain = rule.text_of("chain").ok_or_else(|| malformed("a rule without a chain"))?;
        let expressions =
            rule.get("expr").and_then(Json::list).ok_or_else(|| malformed("a rule without expressions"))?;
        let none = HashMap::new();
        let declared = self.declared.get(&id).unwrap_or(&none);
        let mut reading = Reading {
            family: id.family,
            declared,
            hides_statements: self.old,
            parts: Vec::with_capacity(expressions.len() + 1),
        };
        for (n, expression) in expressions.iter().enumerate() {
            reading.statement(expression, n + 1 == expressions.len());
        }
        let parts = reading.parts;
        let handle = rule.get("handle").and_then(Json::number);
        let comment = rule.text_of("comment").map(str::to_owned);
        let chain = match self.table(&id).chains.entry(chain.to_owned()) {
            Entry::Occupied(chain) => chain.into_mut(),
            Entry::Vacant(_) => return Err(malformed(format!("a rule in chain {chain}, which isn't there"))),
        };
        chain.rules.push(Rule { position: chain.rules.len() + 1, handle, text: None, comment, parts });
        Ok(())
    }
}

/// What a chain hangs on: none for those that are only jumped to.
fn base(chain: &Json<'_>) -> Result<Option<Base>> {
    let hooked = ["type", "hook", "prio", "policy"].iter().any(|name| chain.get(name).is_some());
    if !hooked {
        return Ok(None);
    }
    let name = chain.text_of("name").unwrap_or_default();
    let broken = |what: &str| malformed(format!("the {what} of chain {name}"));
    let hook = match chain.text_of("hook") {
        Some("ingress") => Hook::Ingress,
        Some("prerouting") => Hook::Prerouting,
        Some("input") => Hook::Input,
        Some("forward") => Hook::Forward,
        Some("output") => Hook::Output,
        Some("postrouting") => Hook::Postrouting,
        Some("egress") => Hook::Egress,
        _ => return Err(broken("hook")),
    };
    let kind = match chain.text_of("type") {
        Some("filter") => ChainKind::Filter,
        Some("nat") => ChainKind::Nat,
        Some("route") => ChainKind::Route,
        _ => return Err(broken("type")),
    };
    let drops = match chain.text_of("policy") {
        Some("accept") => false,
        Some("drop") => true,
        _ => return Err(broken("policy")),
    };
    let priority = chain.get("prio").and_then(Json::number).ok_or_else(|| broken("priority"))?;
    let devices = match (hook, chain.get("dev")) {
        (Hook::Ingress | Hook::Egress, Some(names)) => {
            let names = names.each().iter().map(|n| n.text().map(str::to_owned));
            names.collect::<Option<_>>().ok_or_else(|| broken("devices"))?
        }
        // Not said: it may hang on any.
        (Hook::Ingress | Hook::Egress, None) => vec!["*".to_owned()],
        _ => Vec::new(),
    };
    Ok(Some(Base { hook, priority, kind, drops, devices }))
}
