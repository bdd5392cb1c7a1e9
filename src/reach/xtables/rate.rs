//! Matches that depend on how many packets came before.
//!
//! Belongs here: which of them are rates, and which can't be told at all. Does not: what a rate does to a verdict
//! (the evaluation).

use super::{
    rule::{Opt, texts},
    values::never,
};
use crate::reach::model::Part;

/// Whether that match is one of these.
pub(super) fn is_rate(name: &str) -> bool {
    matches!(name, "limit" | "hashlimit" | "connlimit" | "recent" | "dstlimit")
}

/// Reads a match with its options. None: not understood.
pub(super) fn read(name: &str, own: &[Opt<'_>]) -> Option<Vec<Part>> {
    let has = |option: &str| own.iter().any(|o| o.name == option);
    let rate = || Some(vec![Part::Rate(texts(own))]);
    match name {
        "limit" if has("--limit") => rate(),
        "connlimit" if has("--connlimit-above") || has("--connlimit-upto") => rate(),
        "hashlimit" | "dstlimit" if has("--hashlimit-upto") || has("--hashlimit-above") || has("--hashlimit") => rate(),
        "recent" => recent(own),
        _ => None,
    }
}

/// `--set` only remembers the address. `--rcheck` and `--update` ask whether it came before: with a count of hits that is a
/// rate, without one a secret that a client may know (`xt_recent.c`: `recent_mt`).
fn recent(own: &[Opt<'_>]) -> Option<Vec<Part>> {
    let doing = |o: &&Opt<'_>| matches!(o.name, "--set" | "--rcheck" | "--update" | "--remove");
    let mut all = own.iter().filter(doing);
    let (Some(what), None) = (all.next(), all.next()) else { return None };
    let alike = ["--seconds", "--hitcount", "--name", "--mask", "--rttl", "--reap", "--rsource", "--rdest"];
    if !own.iter().all(|o| std::ptr::eq(o, what) || (!o.negated && alike.contains(&o.name))) {
        return None;
    }
    match what.name {
        "--set" if what.negated => Some(vec![never(false)]),
        "--set" => Some(Vec::new()),
        "--rcheck" | "--update" if own.iter().any(|o| o.name == "--hitcount") => Some(vec![Part::Rate(texts(own))]),
        _ => None,
    }
}
