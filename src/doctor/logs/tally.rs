//! Counting: by kind, rule and address, with the first and last time, an example and Ray IDs. In bounded memory, for
//! there are more addresses in IPv6 than anybody can count.
//!
//! Belongs here: counting. Does not: what the counts come to ([`super::judge`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    redact,
    symptom::{Kind, Symptom},
};

/// How many pairs of rule and address are told apart for a kind; the rest is counted all the same.
const PAIRS: usize = 2000;
/// How many Ray IDs are kept for each.
const RAYS: usize = 3;

/// What was counted for a rule and an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    pub times: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// A line, without anything secret, and the file that it stands in.
    pub example: String,
    pub file: Arc<str>,
    pub rays: BTreeSet<String>,
}

/// Tells addresses apart. It may be quicker than what the standard library does against those who would fill one place:
/// Cloudflare's addresses nobody chooses, and of visitors no more than [`PAIRS`] are kept.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
    fn write_usize(&mut self, _: usize) {}
    fn write_isize(&mut self, _: isize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

/// What was counted for a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// By address, and for each by rule, of which an address has few.
    counts: HashMap<Option<IpAddr>, Vec<(String, Count)>, BuildHasherDefault<Mix>>,
    /// How many there are.
    pairs: usize,
    /// In all, also beyond [`PAIRS`].
    pub times: u64,
    /// Of these, denials of what everybody is kept from.
    pub guarded: u64,
    /// Whether a line stands in a file that was named on the command line.
    pub given: bool,
    /// Whether there were more pairs of rule and address than are told apart.
    pub more: bool,
}

/// Everything that was counted.
pub(super) type Tallies = BTreeMap<Kind, Tally>;

impl Tally {
    /// Counts a line.
    pub fn add(&mut self, found: Symptom<'_>, line: &str, file: &Arc<str>, given: bool) {
        self.times += 1;
        self.guarded += u64::from(found.guarded);
        self.given |= given;
        let Some(count) = self.count(&found, line, file) else {
            self.more = true;
            return;
        };
        count.times += 1;
        count.first = count.first.min(found.at);
        count.last = count.last.max(found.at);
        if count.rays.len() < RAYS
            && let Some(ray) = redact::ray(line)
        {
            count.rays.insert(ray.to_owned());
        }
    }

    /// What was counted for its rule and address, if there is room for that.
    fn count(&mut self, found: &Symptom<'_>, line: &str, file: &Arc<str>) -> Option<&mut Count> {
        let full = self.pairs >= PAIRS;
        let rules = match full {
            true => self.counts.get_mut(&found.client)?,
            false => self.counts.entry(found.client).or_default(),
        };
        if let Some(at) = rules.iter().position(|(known, _)| found.rule.is(known)) {
            return Some(&mut rules[at].1);
        }
        let rule = found.rule.short();
        let known = rules.iter().position(|(known, _)| *known == rule);
        if known.is_none() {
            if full {
                return None;
            }
            self.pairs += 1;
            let count = Count {
                times: 0,
                first: found.at,
                last: found.at,
                example: redact::example(found.kind, line),
                file: Arc::clone(file),
                rays: BTreeSet::new(),
            };
            rules.push((rule, count));
        }
        let at = known.unwrap_or(rules.len() - 1);
        Some(&mut rules[at].1)
    }

    /// By rule and address, the most frequent first.
    pub fn by_count(&self) -> Vec<(&str, Option<IpAddr>, &Count)> {
        let mut counts: Vec<_> = self
            .counts
            .iter()
            .flat_map(|(client, rules)| rules.iter().map(|(rule, count)| (rule.as_str(), *client, count)))
            .collect();
        counts.sort_by_key(|&(rule, client, count)| (Reverse(count.times), rule, client));
        counts
    }

    /// How many addresses were told apart; there may be others if there were [`Tally::more`].
    pub fn addresses(&self) -> usize {
        self.counts.keys().flatten().count()
    }

    /// When an address was last counted.
    pub fn last(&self, client: Option<IpAddr>) -> Option<Timestamp> {
        self.counts.get(&client)?.iter().map(|(_, c)| c.last).max()
    }
}
