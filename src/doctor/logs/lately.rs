//! What servers and the kernel lacked just now, by their own word.
//!
//! A limit need not be reached to turn visitors away: a request that is passed on takes two connections and two files, so
//! that the last one is of no use, and what was refused has been given back when it is counted. A number tells that a limit
//! is near; only the server can tell that it asked for more.
//!
//! Belongs here: what was lacked while doctor ran or shortly before. Does not: what was lacked at any time
//! ([`super::judge`]), how near a limit is (resources).

use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};

use super::{
    judge::{Seen, shown},
    symptom::Kind,
};
use crate::report::Evidence;

/// Visitors ask on and on, and doctor itself asks before it reads the logs: an older word is about something that is over.
const BEFORE: SignedDuration = SignedDuration::from_mins(2);
/// Doctor doesn't take longer than this: what was written later has another clock.
const AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What servers lacked just now, with the word of each.
#[derive(Debug, Default)]
pub(in crate::doctor) struct Lately(Vec<(Kind, String, Evidence)>);

impl Lately {
    /// `began`: when doctor did.
    pub(in crate::doctor) fn of(seen: &Seen, began: Timestamp) -> Self {
        let Some(now) = around(began) else { return Self::default() };
        let is_lack =
            |kind: &Kind| matches!(kind, Kind::OpenFiles | Kind::Connections | Kind::Workers | Kind::Conntrack);
        let lacks = seen.tallies.iter().filter(|(kind, _)| is_lack(kind));
        let counts = lacks.flat_map(|(kind, tally)| tally.by_count().into_iter().map(|c| (*kind, c)));
        let recent = counts.filter(|(_, (.., count))| now.contains(&count.last));
        Self(
            recent
                .map(|(kind, (rule, _, count))| {
                    let evidence = Evidence { source: count.file.to_string(), shows: shown(rule, count) };
                    (kind, rule.to_owned(), evidence)
                })
                .collect(),
        )
    }

    /// That a server of this name could not open one more file.
    pub(in crate::doctor) fn open_files(&self, server: &str) -> Option<&Evidence> {
        self.find(Kind::OpenFiles, server)
    }

    /// That nginx had so many connections and needed another one.
    pub(in crate::doctor) fn connections(&self, limit: u64) -> Option<&Evidence> {
        self.find(Kind::Connections, &format!("worker_connections {limit}"))
    }

    /// That the kernel dropped packets because it could track no more connections.
    pub(in crate::doctor) fn tracking(&self) -> Option<&Evidence> {
        self.find(Kind::Conntrack, "nf_conntrack")
    }

    /// That Apache had as many workers as it may have and needed another one. It says so once after each start, so that its
    /// silence proves nothing.
    pub(in crate::doctor) fn workers(&self) -> Option<&Evidence> {
        self.find(Kind::Workers, "MaxRequestWorkers of Apache")
    }

    fn find(&self, of: Kind, by: &str) -> Option<&Evidence> {
        self.0.iter().find(|(kind, rule, _)| *kind == of && rule == by).map(|(.., evidence)| evidence)
    }
}

fn around(began: Timestamp) -> Option<RangeInclusive<Timestamp>> {
    Some(began.checked_sub(BEFORE).ok()?..=began.checked_add(AFTER).ok()?)
}
