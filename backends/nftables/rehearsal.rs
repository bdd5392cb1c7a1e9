//! The test before anything is stored: his configuration and our files, loaded in a fresh network namespace.
//!
//! Belongs here: what is loaded there, and what its outcome means. Does not: the namespace (`src/host`).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    OWN_TABLE, file, include,
    seen::{Content, Holding, Seen},
};
use crate::{
    backends::Warning,
    error::{Error, ErrorKind, Result},
    nft::{Elements, TableId},
    plan::Check,
};

/// His configuration without our line, then our files. They are always tested in the form that makes what is missing,
/// so that a chain made by hand doesn't keep the rest from being tested.
pub(super) fn check(seen: &Seen, live: &BTreeMap<TableId, Holding>) -> Check {
    let his = seen.boot.configs.first().map(|(_, text)| Arc::from(include::without(text)));
    let mut scripts: Vec<Arc<[u8]>> = his.into_iter().collect();
    let his = scripts.len();
    let ours = live.iter().map(|(id, h)| file::text(id, h, file::Form::Whole, seen.limit).into_bytes().into());
    scripts.extend(ours);
    Check::NftRehearsal { what: "the boot configuration with our files loads".to_owned(), scripts, his }
}

/// Compares what is there with what should be live.
pub(super) fn judge(there: &Seen, live: &BTreeMap<TableId, Holding>) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    for (id, holding) in live {
        let Some(table) = there.tables.get(id) else {
            return Err(differs(&format!("table {id} holds nothing of ours")));
        };
        if *id == *OWN_TABLE && !table.sound {
            return Err(differs(&format!("table {id} has no base chain")));
        }
        for (name, content) in &holding.sets {
            let found = table.sets.get(name).and_then(|s| s.content.as_ref());
            if found != Some(&cut(content, there.limit)) {
                return Err(differs(&format!("set {id} {name} has other elements")));
            }
        }
        for (name, rules) in &holding.rules {
            let chain = id.chain(name);
            let found = table.chains.get(name).filter(|c| c.first);
            let found: Vec<_> = found.iter().flat_map(|c| &c.rules).map(|(_, rule)| rule.as_ref()).collect();
            if !rules.iter().all(|r| found.contains(&Some(r))) {
                return Err(differs(&format!("our rules are not the first of chain {chain}")));
            }
            if !there.lived_in.contains(&chain) && *id != *OWN_TABLE {
                warnings.push(Warning::new(
                    "chain-not-persisted",
                    format!("chain {chain} is not in this machine's boot configuration: after a boot it is missing"),
                ));
            } else if found.len() > rules.len() {
                warnings.push(Warning::new(
                    "rules-saved-twice",
                    format!(
                        "this machine's boot configuration holds a saved copy of our rules in chain {chain}: delete \
                         what is commented \"edgeallow\" there"
                    ),
                ));
            }
        }
    }
    Ok(warnings)
}

/// What of a set is loaded in the test.
fn cut(content: &Content, limit: usize) -> Content {
    match content {
        Content::Known(Elements::Prefixes { of, family }) if of.count(*family) > limit => {
            let few = of.family(*family).take(file::shown(of.count(*family), limit)).collect();
            Content::Known(Elements::Prefixes { of: Arc::new(few), family: *family })
        }
        other => other.clone(),
    }
}

fn differs(what: &str) -> Error {
    Error::new(ErrorKind::LoadTest, format!("loading the boot configuration in a test gives something else: {what}"))
        .hint("set `nftables.persist = \"none\"` to keep the rules live only")
}
