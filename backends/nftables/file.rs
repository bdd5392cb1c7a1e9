//! Our files of nft syntax: one a table, so that the absence of one table can't harm another.
//!
//! Belongs here: their text. Does not: what loads them ([`super::boot`]).

use std::fmt::{self, Write as _};

use super::{
    OWN_TABLE,
    seen::{Content, Holding},
};
use crate::nft::{Elements, TableId};

/// How every file of ours begins.
const HEADER: &str = "# edgeallow: made by edgeallow, which overwrites what is changed here.\n";
/// How many elements of a set stand in for all of them where a list is too long to be tested.
const FEW: usize = 16;

/// How much a file takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Table and chain are there: without them the file does not load, which a drop-in shrugs off.
    OnTop,
    /// Table and chain are made, without a hook, where they are missing: then the file always loads.
    Whole,
}

/// Whether a file in our folder is one of ours: by its name, too, for one that was cut short or overwritten is still
/// the file that is loaded at boot, and has to be mended.
pub(super) fn is_ours(name: &str, content: &[u8]) -> bool {
    let table = ["inet-", "ip-", "ip6-"].iter().any(|family| name.starts_with(family));
    name.ends_with(".nft") && (table || content.starts_with(b"# edgeallow"))
}

/// The name of a table's file.
pub(super) fn name(table: &TableId) -> String {
    // Names of tables may hold slashes.
    format!("{}-{}.nft", table.family.as_str(), table.name.replace('/', "%2F"))
}

/// The text that brings a table's holding back. Lists longer than `limit` are cut to a few elements.
///
/// Every element stands on its own line. Loading the text twice leaves the sets right (they are flushed) and the rules
/// doubled, which the next sync mends: nft 1.0.6 has no way to delete a rule that may or may not be there.
pub(super) fn text(table: &TableId, holding: &Holding, form: Form, limit: usize) -> String {
    let mut out = HEADER.to_owned();
    // Writing to a String can't fail.
    _ = write(&mut out, table, holding, form, limit);
    out
}

fn write(out: &mut String, table: &TableId, holding: &Holding, form: Form, limit: usize) -> fmt::Result {
    if *table == *OWN_TABLE {
        // Add, delete, add: begins anew whether it was there or not.
        writeln!(out, "add table {table}\ndelete table {table}\nadd table {table}")?;
        for chain in holding.rules.keys() {
            writeln!(out, "add chain {table} {chain} {{ type filter hook input priority 0; policy accept; }}")?;
        }
    } else if form == Form::Whole {
        writeln!(out, "add table {table}")?;
        for chain in holding.rules.keys() {
            writeln!(out, "add chain {table} {chain}")?;
        }
    }
    for (name, content) in &holding.sets {
        writeln!(out, "add set {table} {name} {{ {} }}", content.kind().definition())?;
    }
    for (name, content) in &holding.sets {
        writeln!(out, "flush set {table} {name}")?;
        let Content::Known(elements) = content else { continue };
        let many = shown(elements.len(), limit);
        if many > 0 {
            writeln!(out, "add element {table} {name} {{")?;
            match elements {
                Elements::Prefixes { of, family } => {
                    of.family(*family).take(many).try_for_each(|n| writeln!(out, "\t{n},"))
                }
                Elements::Ports(ports) => ports.iter().take(many).try_for_each(|p| writeln!(out, "\t{p},")),
            }?;
            writeln!(out, "}}")?;
        }
    }
    for (chain, rules) in &holding.rules {
        for rule in rules.iter().rev() {
            writeln!(out, "insert rule {table} {chain} {rule}")?;
        }
    }
    Ok(())
}

/// How many elements of a list a text with this limit holds.
pub(super) fn shown(len: usize, limit: usize) -> usize {
    if len <= limit { len } else { FEW.min(len) }
}
