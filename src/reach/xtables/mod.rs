//! iptables and ipsets as their own programs print them, turned into the model: `iptables-save`, `ip6tables-save`, both
//! variants of each, and `ipset save`.
//!
//! What `--match-set NAME src,dst` looks at depends on the set's type, which only `ipset save` tells. So reading takes
//! two passes: [`tables`] leaves a [`Part::Puzzle`](super::model::Part::Puzzle) for each set, [`Saved::ipsets_named`] says which sets are needed, and
//! [`Saved::bind`] puts the tests in their places. What is never bound stays unknown; it can't become a match.
//!
//! Nothing is dropped in silence. A match that isn't understood is a puzzle by name, a target that isn't understood leads
//! elsewhere by name, a table that the program says it can't show is in [`Saved::unreadable`], and text that is no save file
//! is an error with its line.
//!
//! Belongs here: what the words mean to a packet. Does not: splitting lines into words ([`crate::xtables`]), which rules are
//! edgeallow's (`backends/iptables`).
//!
//! What the text can't tell (seen with iptables 1.8.9): `iptables-nft-save` prints rules that nft wrote in these tables
//! wrongly and without a word (`tcp dport { 22, 80 } drop` as `-p tcp -j DROP`), and of two `-m tcp --dport` in one rule only
//! the second; `iptables-legacy-save` prints `! -i +`, which matches nothing, as no test at all. A caller that also has
//! nft's view believes that one for every rule without an `xt` expression.

mod basic;
mod bind;
mod conntrack;
mod elements;
mod ipset;
mod matches;
mod rate;
mod read;
mod rule;
mod setmatch;
mod targets;
mod values;

pub use ipset::{Ipsets, ipsets};
pub use read::{Saved, tables};

#[cfg(test)]
mod tests;
