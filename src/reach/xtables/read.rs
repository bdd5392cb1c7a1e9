//! Save files: tables, chains, and where rules belong.
//!
//! Belongs here: the frame. Does not: what is in a rule (`rule`).

use std::{collections::HashMap, mem};

use super::{
    rule::{self, Context},
    setmatch::Use,
};
use crate::{
    allowlist::Family,
    error::{Error, ErrorKind, Result},
    nft::TableFamily,
    reach::model::{Base, Chain, ChainKind, Hook, Language, Table},
    xtables::{Line, classify, is_closed},
};

/// What a `*-save` program printed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// The tables, in order. Tests of ipsets are puzzles until [`Saved::bind`] was called.
    pub tables: Vec<Table>,
    /// Tables that exist and that the program couldn't show truthfully, by name: nft wrote them. To be read with nft, or else
    /// a gap of the picture.
    pub unreadable: Vec<String>,
    /// Where ipsets are tested and not bound yet.
    pub(super) uses: Vec<Use>,
}

/// Reads what `iptables-save`, `ip6tables-save` or one of their variants printed, with or without counters.
///
/// # Errors
/// With the line, if the text isn't that: it ends early (iptables-nft-save does so when it meets a rule of nft's that it
/// can't read), a rule stands in no chain, a line is none of the language's.
pub fn tables(save: &[u8], family: Family, language: Language) -> Result<Saved> {
    let text = String::from_utf8_lossy(save);
    let mut reader = Reader { family, language, saved: Saved::default(), open: None };
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        let number = at + 1;
        // `#` lines are no language: an apostrophe or quote in them is nothing.
        if first.starts_with('#') || is_closed(first) {
            reader.line(first, number)?;
            continue;
        }
        let mut whole = first.to_owned();
        while !is_closed(&whole) {
            let Some((_, more)) = lines.next() else { return Err(bad(number, "a quote is never closed")) };
            whole.push('\n');
            whole.push_str(more);
        }
        reader.line(&whole, number)?;
    }
    match reader.open {
        Some(open) => Err(bad(text.lines().count(), &format!("it ends within table {}", open.table.name))),
        None => Ok(reader.saved),
    }
}

fn bad(line: usize, what: &str) -> Error {
    Error::new(ErrorKind::Program, format!("cannot read the saved packet filter, line {line}: {what}")).hint(
        "look at what iptables-save or ip6tables-save prints; rules that nft put into iptables' tables can break it",
    )
}

struct Reader {
    family: Family,
    language: Language,
    saved: Saved,
    open: Option<Open>,
}

/// A table between `*name` and `COMMIT`.
struct Open {
    table: Table,
    uses: Vec<Use>,
    /// Whether what is printed isn't what is there.
    untrue: bool,
}

impl Reader {
    fn line(&mut self, line: &str, number: usize) -> Result<()> {
        if let Some(name) = incompatible(line) {
            if !self.saved.unreadable.iter().any(|n| n == name) {
                self.saved.unreadable.push(name.to_owned());
            }
            return Ok(());
        }
        match (classify(line), self.open.as_mut()) {
            (Line::Blank, _) => Ok(()),
            (Line::Table(_), Some(_)) => Err(bad(number, "a table begins within another")),
            (Line::Table(name), None) => self.begin(name, number),
            (_, None) => Err(bad(number, "it stands outside any table")),
            (Line::Commit, Some(_)) => {
                self.end();
                Ok(())
            }
            (Line::Chain { name, policy }, Some(open)) => open.chain(name, &policy).map_err(|e| bad(number, &e)),
            (Line::Append { chain, rule }, Some(open)) => {
                let text = text_of(line);
                open.rule(self.family, chain, &rule, text).map_err(|e| bad(number, &e))
            }
            (Line::Edit { .. } | Line::NewChain(_) | Line::Other, Some(_)) => {
                Err(bad(number, "no *-save program prints such a line"))
            }
        }
    }

    fn begin(&mut self, name: String, number: usize) -> Result<()> {
        if self.saved.tables.iter().any(|t| t.name == name) {
            return Err(bad(number, &format!("table {name} comes twice")));
        }
        // A table of a later kernel: its hooks and order aren't known here.
        let untrue = !["raw", "mangle", "nat", "filter", "security"].contains(&name.as_str());
        self.open = Some(Open {
            table: Table::new(TableFamily::of(self.family), name, self.language),
            uses: Vec::new(),
            untrue,
        });
        Ok(())
    }

    fn end(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let name = &open.table.name;
        let known = self.saved.unreadable.contains(name);
        if open.untrue || known {
            if !known {
                self.saved.unreadable.push(name.clone());
            }
            return;
        }
        let index = self.saved.tables.len();
        for mut at in mem::take(&mut open.uses) {
            at.table = index;
            self.saved.uses.push(at);
        }
        self.saved.tables.push(open.table);
    }
}

impl Open {
    fn chain(&mut self, name: String, policy: &str) -> Result<(), String> {
        let base = match policy {
            "-" => None,
            "ACCEPT" | "DROP" => {
                // An unknown built-in chain only in a table that is unknown as a whole.
                let base = base(&self.table.name, &name, policy == "DROP");
                if base.is_none() && !self.untrue {
                    return Err(format!("chain {name} of table {} can't have a policy", self.table.name));
                }
                base
            }
            other => return Err(format!("chain {name} has the policy {other}")),
        };
        // iptables-nft-save prints `:INPUT ACCEPT` and `:INPUT -` if nft made a chain of that name without a hook.
        self.untrue |= self.table.chains.insert(name, Chain { base, rules: Vec::new() }).is_some();
        Ok(())
    }

    fn rule(&mut self, family: Family, chain: String, words: &[String], text: &str) -> Result<(), String> {
        let Some(within) = self.table.chains.get(&chain) else { return Err(format!("there is no chain {chain}")) };
        let rule_at = within.rules.len();
        let cx = Context { family, in_base: within.base.as_ref(), chains: &self.table.chains };
        let (mut rule, sets) = rule::read(words, text, &cx)?;
        rule.position = rule_at + 1;
        let place = |(part, test)| Use { table: 0, chain: chain.clone(), rule: rule_at, part, test };
        self.uses.extend(sets.into_iter().map(place));
        if let Some(within) = self.table.chains.get_mut(&chain) {
            within.rules.push(rule);
        }
        Ok(())
    }
}

/// The rule as it is printed, without counters.
fn text_of(line: &str) -> &str {
    let line = line.trim();
    line.strip_prefix('[').and_then(|l| l.split_once(']')).map_or(line, |(_, rest)| rest).trim()
}

/// The table that iptables-nft-save says it can't show, or whose base chains it says are elsewhere than it prints.
fn incompatible(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("# Table `")?.split_once('\'')?;
    rest.contains("incompatible").then_some(name)
}

/// On what a built-in chain hangs (`NF_IP_PRI_*` in linux/netfilter_ipv4.h; IPv6 has the same numbers).
fn base(table: &str, chain: &str, drops: bool) -> Option<Base> {
    let hook = match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let (priority, kind) = match (table, hook) {
        ("raw", Hook::Prerouting | Hook::Output) => (-300, ChainKind::Filter),
        ("mangle", Hook::Output) => (-150, ChainKind::Route),
        ("mangle", _) => (-150, ChainKind::Filter),
        ("nat", Hook::Prerouting | Hook::Output) => (-100, ChainKind::Nat),
        ("nat", Hook::Input | Hook::Postrouting) => (100, ChainKind::Nat),
        ("filter", Hook::Input | Hook::Forward | Hook::Output) => (0, ChainKind::Filter),
        ("security", Hook::Input | Hook::Forward | Hook::Output) => (50, ChainKind::Filter),
        _ => return None,
    };
    Some(Base { hook, priority, kind, drops, devices: Vec::new() })
}

/// Chains by name, as rules need them to tell a chain from a target.
pub(super) type Chains = HashMap<String, Chain>;
