//! Counting: by kind, rule and address, with the first and last time, an example and Ray IDs. In bounded memory, for
//! there are more addresses in IPv6 than anybody can count.
//!
//! Belongs here: counting. Does not: what the counts come to ([`super::judge`]).

use std::{
    collections::{BTreeMap, BTreeSet},
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
/// How many addresses of visitors are told apart.
const VISITORS: usize = 10_000;
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

/// What was counted for a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub counts: BTreeMap<(String, Option<IpAddr>), Count>,
    /// In all, also beyond [`PAIRS`].
    pub times: u64,
    /// Of these, denials of what everybody is kept from.
    pub guarded: u64,
    /// Whether a line stands in a file that was named on the command line.
    pub given: bool,
    /// Denials of others than Cloudflare.
    pub visitors: u64,
    pub visitor_addresses: BTreeSet<IpAddr>,
}

/// Everything that was counted.
pub(super) type Tallies = BTreeMap<Kind, Tally>;

impl Tally {
    /// Counts a line about Cloudflare, or about nobody.
    pub fn add(&mut self, found: Symptom, line: &str, file: &Arc<str>, given: bool) {
        self.times += 1;
        self.guarded += u64::from(found.guarded);
        self.given |= given;
        let key = (found.rule, found.client);
        if self.counts.len() >= PAIRS && !self.counts.contains_key(&key) {
            return;
        }
        let count = self.counts.entry(key).or_insert_with(|| Count {
            times: 0,
            first: found.at,
            last: found.at,
            example: redact::example(found.kind, line),
            file: Arc::clone(file),
            rays: BTreeSet::new(),
        });
        count.times += 1;
        count.first = count.first.min(found.at);
        count.last = count.last.max(found.at);
        if count.rays.len() < RAYS
            && let Some(ray) = redact::ray(line)
        {
            count.rays.insert(ray.to_owned());
        }
    }

    /// Counts a line about somebody who isn't Cloudflare.
    pub fn add_visitor(&mut self, client: IpAddr) {
        self.visitors += 1;
        if self.visitor_addresses.len() < VISITORS {
            self.visitor_addresses.insert(client);
        }
    }

    /// The most frequent first.
    pub fn by_count(&self) -> Vec<(&(String, Option<IpAddr>), &Count)> {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by_key(|(_, c)| std::cmp::Reverse(c.times));
        counts
    }

    /// How many addresses were told apart.
    pub fn addresses(&self) -> usize {
        self.counts.keys().filter_map(|(_, ip)| *ip).collect::<BTreeSet<_>>().len()
    }

    /// When an address was last counted.
    pub fn last(&self, client: Option<IpAddr>) -> Option<Timestamp> {
        self.counts.iter().filter(|((_, ip), _)| *ip == client).map(|(_, c)| c.last).max()
    }
}
