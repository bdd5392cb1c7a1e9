//! What the machine or a web server can run out of: connections, files, workers, memory.
//!
//! Each thing is read as a number in use beside its limit. A counter since boot is no proof of now, so what counts or
//! waits is looked at twice, [`APART`] apart: only what is so both times, or grows in between, is so now.
//!
//! Near a limit, it is a server's own word of just now that tells whether it refused anybody ([`Lately`]).
//!
//! Belongs here: numbers against limits, and where a limit is set. Does not: whether anything listens or answers (online),
//! what was logged (logs).

mod apache;
mod config;
mod fpm;
mod gauges;
mod growth;
mod nginx;
mod packages;
mod queues;
mod servers;

use std::{
    thread,
    time::{Duration, Instant},
};

pub(super) use self::growth::untracked;
use super::{Context, logs::Lately};
use crate::report::{Finding, Finds, Room};

/// Between the two looks: long enough for a server that accepts at all to have emptied a queue, short for who waits.
const APART: Duration = Duration::from_millis(250);

/// From this many percent of a limit on it is a warning: what grows by a tenth in a busy hour is ordinary.
const NEAR: u64 = 90;

/// From this many percent on what asked for more can have been refused: a request that is passed on takes two at a time, and
/// what was refused is given back at once.
const OUT: u64 = 95;

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    (cx.session.progress)("looking at what the machine may run out of");
    let host = cx.session.host;
    let first = Instant::now();
    let counted = growth::Counters::read(host);
    let queues = queues::Queues::begin(cx);
    // What takes its time lies between the two looks.
    let gauges = gauges::Gauges::read(host);
    let packages = packages::look(host);
    let limits = servers::Limits::read(host, &cx.configs, &host.processes(&servers::is_wanted));
    thread::sleep(APART.saturating_sub(first.elapsed()));
    let growth = growth::Growth { before: counted, after: growth::Counters::read(host), apart: first.elapsed() };
    let queues = queues.end(host);
    let servers = servers::group(host.processes(&servers::is_wanted));
    let connections = host.connections(&cx.ports).unwrap_or_default();

    // Read last: what asked for more while that was counted is in them.
    let lately = Lately::of(cx.logged(), cx.session.now);
    // Doctor's own requests, which came before the two looks, may have been dropped too.
    let grown = growth.untracked_since(cx.untracked);
    let mut found = gauges::judge(&gauges, gauges::Untracked { grown, logged: lately.tracking() });
    let unanswered = cx.unanswered.get().map_or(&[][..], Vec::as_slice);
    let told = servers::Told { lately, unanswered, mode: cx.ask.mode };
    let served = servers::judge(&servers, &limits, &queues, &connections, &told);
    found.extend(queues::judge(&queues, &served.explained, &growth));
    found.extend(served.findings);
    let explained = found.iter().any(|f| f.verdict == Finds::Cause);
    found.extend(growth::judge(&growth, explained));
    found.push(packages);
    found
}

fn finding(id: &'static str, verdict: Finds, text: impl Into<String>) -> Finding {
    Finding::new(Room::Resources, id, verdict, text)
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gauge {
    used: u64,
    limit: u64,
}

impl Gauge {
    fn is_full(self) -> bool {
        self.used >= self.limit
    }

    fn is_near(self) -> bool {
        self.has_reached(NEAR)
    }

    /// Whether nothing is left for whom needs it. `refused`: the server says that it needed more just now.
    fn is_out(self, refused: bool) -> bool {
        self.is_full() || (refused && (self.has_reached(OUT) || self.used.saturating_add(2) >= self.limit))
    }

    fn has_reached(self, percent: u64) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
    }
}

impl std::fmt::Display for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.used, self.limit)
    }
}

/// A limit that will do for a while: twice the old one, as a round number.
fn more(limit: u64) -> u64 {
    limit.saturating_mul(2).checked_next_power_of_two().unwrap_or(limit)
}

fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_begins_at_nine_tenths() {
        let of = |used, limit| Gauge { used, limit };
        assert!(!of(89, 100).is_near() && of(90, 100).is_near() && !of(99, 100).is_full() && of(100, 100).is_full());
        assert!(!of(1 << 40, u64::MAX).is_near());
        assert!(of(100, 100).is_out(false) && !of(99, 100).is_out(false));
        assert!(of(95, 100).is_out(true) && !of(94, 100).is_out(true), "hit before, and not near now");
        assert!(of(18, 20).is_out(true) && !of(17, 20).is_out(true));
        assert_eq!((more(20), more(1024), more(u64::MAX)), (64, 2048, u64::MAX));
    }
}
