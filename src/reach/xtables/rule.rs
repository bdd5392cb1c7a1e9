//! One rule: its words as options, its options as parts.
//!
//! Belongs here: the grammar of a rule. Does not: what single matches (`basic`, `matches`) and targets (`targets`) mean.

use super::{
    basic, matches,
    read::Chains,
    setmatch::{self, SetTest},
    targets,
    values::{protocol, test},
};
use crate::{
    allowlist::Family,
    reach::{
        model::{Base, Field, Part, Rule, Verdict},
        sources::Sources,
    },
    xtables::quote,
};

/// What the meaning of a rule's words depends on besides them.
pub(super) struct Context<'a> {
    /// Of the table.
    pub family: Family,
    /// What the chain that the rule stands in hangs on.
    pub in_base: Option<&'a Base>,
    /// All chains of the table.
    pub chains: &'a Chains,
}

/// An option with its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opt<'a> {
    /// Whether a `!` stands before it.
    pub negated: bool,
    /// With its dashes.
    pub name: &'a str,
    /// The words up to the next option.
    pub values: &'a [String],
}

impl Opt<'_> {
    /// As it was written.
    pub fn text(&self) -> String {
        let bang = self.negated.then_some("!".to_owned());
        let words = bang.into_iter().chain([self.name.to_owned()]).chain(self.values.iter().map(|v| quote(v)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Its only value.
    pub fn value(&self) -> Option<&str> {
        match self.values {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// Options as they were written.
pub(super) fn texts(opts: &[Opt<'_>]) -> String {
    opts.iter().map(Opt::text).collect::<Vec<_>>().join(" ")
}

/// Whether an option's value is free text or a name: the next word, whatever it looks like (`--comment -j`).
fn takes_any_word(option: &str) -> bool {
    if option.len() == 2 {
        return matches!(option, "-s" | "-d" | "-i" | "-o" | "-p" | "-m" | "-j" | "-g");
    }
    matches!(
        option,
        "--comment"
            | "--log-prefix"
            | "--nflog-prefix"
            | "--ulog-prefix"
            | "--string"
            | "--hex-string"
            | "--u32"
            | "--bytecode"
            | "--object-pinned"
            | "--name"
            | "--hashlimit-name"
            | "--helper"
            | "--label"
            | "--path"
            | "--selctx"
            | "--nfacct-name"
    )
}

/// Those of them that only people read, so that what they hold means nothing to a packet.
const PROSE: [&str; 4] = ["--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix"];

/// Splits a rule's words into options. None if a word is where none can be.
fn options(words: &[String]) -> Option<Vec<Opt<'_>>> {
    let is_option = |at: usize| words.get(at).is_some_and(|w| w.len() > 1 && w.starts_with('-'));
    let mut found = Vec::with_capacity(words.len() / 2 + 1);
    let mut at = 0;
    while at < words.len() {
        let negated = words[at] == "!";
        at += usize::from(negated);
        if !is_option(at) {
            return None;
        }
        let name = words[at].as_str();
        at += 1;
        let from = at;
        if takes_any_word(name) {
            at += 1;
        } else {
            while at < words.len() && !is_option(at) && !(words[at] == "!" && is_option(at + 1)) {
                at += 1;
            }
        }
        found.push(Opt { negated, name, values: words.get(from..at)? });
    }
    Some(found)
}

/// Parts as they are found, with the ipsets among them.
#[derive(Default)]
pub(super) struct Found {
    parts: Vec<(Part, Option<SetTest>)>,
}

impl Found {
    /// Adds one.
    pub fn push(&mut self, part: Part) {
        self.parts.push((part, None));
    }

    /// Adds several.
    pub fn extend(&mut self, parts: impl IntoIterator<Item = Part>) {
        self.parts.extend(parts.into_iter().map(|p| (p, None)));
    }

    /// Adds a test of an ipset, which is a puzzle until the set's type is known.
    pub fn push_set(&mut self, text: String, test: SetTest) {
        self.parts.push((Part::Puzzle(text), Some(test)));
    }

    /// Whether packets of other protocols fail by now.
    fn is_only(&self, protocol: u8) -> bool {
        let only = test(Field::L4Proto, Sources::one(protocol.into()), false);
        self.parts.iter().any(|(part, _)| *part == only)
    }

    /// What can be decided stands first, so that what can't isn't asked where it doesn't matter: all must hold, in any order.
    fn sort(&mut self) {
        self.parts.sort_by_key(|(part, set)| match part {
            Part::Test(_) => 0,
            Part::Puzzle(_) if set.is_some() => 1,
            Part::Rate(_) => 2,
            _ => 3,
        });
    }
}

/// Reads a rule from its words without `-A CHAIN`; the ipsets it tests are told with the index of their part.
///
/// # Errors
/// If the words can't have been printed by iptables: what is one rule may be several lines of something else.
pub(super) fn read(words: &[String], text: &str, cx: &Context<'_>) -> Result<(Rule, Vec<(usize, SetTest)>), String> {
    let mut rule = Rule { text: Some(text.to_owned()), ..Rule::default() };
    let Some(opts) = options(words) else {
        if words.iter().any(|w| w.contains('\n')) {
            return Err("a line ends within a word".to_owned());
        }
        // Neither when it applies nor what it does is known.
        rule.parts = vec![Part::Puzzle(text.to_owned()), Part::Verdict(Verdict::Elsewhere(text.to_owned()))];
        return Ok((rule, Vec::new()));
    };
    let mut found = Found::default();
    if text.contains('\n') || text.contains('\u{fffd}') {
        let meant = || opts.iter().filter(|o| !PROSE.contains(&o.name));
        let holds = |c: char| meant().any(|o| o.name.contains(c) || o.values.iter().any(|v| v.contains(c)));
        if holds('\n') {
            return Err("a line ends within a word".to_owned());
        }
        if holds('\u{fffd}') {
            // Two names that differ would look alike.
            found.push(Part::Puzzle(format!("bytes that are no text in {text}")));
        }
    }
    let mut rest = opts.as_slice();
    while let [opt, after @ ..] = rest {
        rest = after;
        match opt.name {
            "-m" => {
                let (own, others) = rest.split_at(rest.iter().take_while(|o| o.name.starts_with("--")).count());
                rest = others;
                module(opt, own, cx, &mut found, &mut rule.comment);
            }
            "-j" | "-g" => {
                found.sort();
                found.extend(targets::read(opt, rest, cx));
                rest = &[];
            }
            _ => found.extend(basic::read(opt, cx.family)),
        }
    }
    let sets = found.parts.iter_mut().enumerate().filter_map(|(i, (_, set))| Some((i, set.take()?))).collect();
    rule.parts = found.parts.into_iter().map(|(part, _)| part).collect();
    Ok((rule, sets))
}

/// A match: `-m NAME` and its options.
fn module(opt: &Opt<'_>, own: &[Opt<'_>], cx: &Context<'_>, found: &mut Found, comment: &mut Option<String>) {
    let puzzle = || Part::Puzzle(format!("{} {}", opt.text(), texts(own)).trim_end().to_owned());
    match (opt.negated, opt.value()) {
        (false, Some("comment")) => match own {
            [said] if said.name == "--comment" && !said.negated && said.value().is_some() => {
                let said = said.value().unwrap_or_default();
                *comment = Some(comment.take().map_or_else(|| said.to_owned(), |c| format!("{c}, {said}")));
            }
            _ => found.push(puzzle()),
        },
        (false, Some("set")) => setmatch::read(own, puzzle, found),
        // The kernel takes these only behind their protocol's `-p`, so that isn't what the program wanted to print.
        (false, Some(name @ ("tcp" | "udp"))) if !protocol(name).is_some_and(|number| found.is_only(number)) => {
            found.push(puzzle());
        }
        (false, Some(name)) => match matches::read(name, own, cx.family) {
            Some(parts) => found.extend(parts),
            None => found.push(puzzle()),
        },
        _ => found.push(puzzle()),
    }
}
