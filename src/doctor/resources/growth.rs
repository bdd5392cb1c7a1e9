//! The kernel's counters of connections that it turned away, looked at twice.
//!
//! Belongs here: counters since boot and their growth now. Does not: what can be counted at one moment
//! ([`super::gauges`], [`super::queues`]).

use std::time::Duration;

use super::{finding, gauges::text};
use crate::{
    host::Look,
    report::{Finding, Finds},
};

/// Fewer since boot are not worth a line: restarts and bursts leave such numbers everywhere.
const FEW: u64 = 100;
/// Nor is a smaller part than one of so many of all connections that were ever taken.
const RARE: u64 = 10_000;

const NETSTAT: &str = "/proc/net/netstat";
pub(super) const TRACKING: &str = "/proc/net/stat/nf_conntrack";

/// The counters; 0 where the kernel doesn't tell.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    /// `ListenOverflows`: the queue of a listening socket was full.
    pub(super) overflows: u64,
    /// `ListenDrops`: the same, and whatever else kept a connection from being queued, such as a way back that there isn't
    /// (`tcp_v4_err`, net/ipv4/tcp_ipv4.c).
    drops: u64,
    /// `TCPReqQFullDrop`: the queue of half-open connections was full, and no cookie was sent.
    half_open: u64,
    /// `TCPReqQFullDoCookies`: it was full, and a cookie was sent.
    cookies: u64,
    /// `PassiveOpens`: connections taken.
    taken: u64,
    /// `drop` of connection tracking: the table was full, or there was no memory.
    untracked: u64,
}

impl Counters {
    pub(super) fn read(host: &dyn Look) -> Self {
        let netstat = text(host, NETSTAT).unwrap_or_default();
        let snmp = text(host, "/proc/net/snmp").unwrap_or_default();
        let tcp = |name| column(&netstat, "TcpExt:", name);
        Self {
            overflows: tcp("ListenOverflows"),
            drops: tcp("ListenDrops"),
            half_open: tcp("TCPReqQFullDrop"),
            cookies: tcp("TCPReqQFullDoCookies"),
            taken: column(&snmp, "Tcp:", "PassiveOpens"),
            untracked: untracked(host),
        }
    }
}

/// `drop` of connection tracking, of all processors; 0 where the kernel doesn't tell.
pub(in crate::doctor) fn untracked(host: &dyn Look) -> u64 {
    text(host, TRACKING).map_or(0, |t| tracking(&t, "drop"))
}

/// Two lines a protocol: names, then numbers.
fn column(table: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = table.lines().filter_map(|l| l.strip_prefix(protocol));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(n, _)| *n == name).and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// One line of names, then one of hexadecimal numbers a processor.
fn tracking(table: &str, name: &str) -> u64 {
    let mut lines = table.lines();
    let Some(at) = lines.next().and_then(|names| names.split_whitespace().position(|n| n == name)) else { return 0 };
    lines.filter_map(|l| u64::from_str_radix(l.split_whitespace().nth(at)?, 16).ok()).sum()
}

/// Two looks.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Growth {
    pub(super) before: Counters,
    pub(super) after: Counters,
    pub(super) apart: Duration,
}

impl Growth {
    fn of(&self, which: impl Fn(&Counters) -> u64) -> u64 {
        which(&self.after).saturating_sub(which(&self.before))
    }

    /// How many more packets connection tracking has dropped than it had at that number.
    pub(super) fn untracked_since(&self, before: u64) -> u64 {
        self.after.untracked.saturating_sub(before)
    }

    /// What `ListenOverflows` did in between, as evidence for a queue that is full.
    pub(super) fn overflows(&self) -> Option<String> {
        let more = self.of(|c| c.overflows);
        (more > 0).then(|| format!("ListenOverflows grew by {more} within {} ms", self.apart.as_millis()))
    }
}

struct Kind {
    grown: &'static str,
    counted: &'static str,
    source: &'static str,
    name: &'static str,
    /// While it grows; a note where the kernel copes.
    now: Finds,
    which: fn(&Counters) -> u64,
    mend: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        grown: "the kernel drops connections that servers don't accept in time",
        counted: "connections were dropped since boot because servers did not accept them in time",
        source: NETSTAT,
        name: "ListenOverflows",
        now: Finds::Warning,
        which: |c| c.overflows,
        mend: "see which queue is long with `ss -ltn`; raise that server's backlog and net.core.somaxconn, or its workers",
    },
    Kind {
        grown: "the kernel drops connections that no server could accept yet: it can't reach who asks, or has no memory",
        counted: "connections were dropped since boot before a server could accept them: who asked could not be reached, or \
                  there was no memory",
        source: NETSTAT,
        name: "ListenDrops less ListenOverflows and TCPReqQFullDrop",
        now: Finds::Note,
        which: |c| c.drops.saturating_sub(c.overflows.saturating_add(c.half_open)),
        mend: "see whether answers find their way back: `ip route get ADDRESS` for one that asks",
    },
    Kind {
        grown: "the kernel drops half-open connections: more begin than it may hold, and it sends no SYN cookies",
        counted: "half-open connections were dropped since boot: more began than the kernel may hold",
        source: NETSTAT,
        name: "TCPReqQFullDrop",
        now: Finds::Warning,
        which: |c| c.half_open,
        mend: "switch SYN cookies on: `sysctl -w net.ipv4.tcp_syncookies=1`, and raise net.ipv4.tcp_max_syn_backlog",
    },
    Kind {
        grown: "more connections begin than the kernel may hold; it answers with SYN cookies, which works",
        counted: "connections began by a SYN cookie since boot, because more began than the kernel may hold",
        source: NETSTAT,
        name: "TCPReqQFullDoCookies",
        now: Finds::Note,
        which: |c| c.cookies,
        mend: "for bursts of honest visitors raise net.ipv4.tcp_max_syn_backlog and the server's backlog",
    },
    Kind {
        grown: "connection tracking drops packets: its table is full, or there is no memory for it",
        counted: "packets were dropped by connection tracking since boot",
        source: TRACKING,
        name: "drop",
        now: Finds::Warning,
        which: |c| c.untracked,
        mend: "raise net.netfilter.nf_conntrack_max",
    },
];

/// `explained`: something that was found already is the reason for what grows now.
pub(super) fn judge(g: &Growth, explained: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in &KINDS {
        let (more, all) = (g.of(kind.which), (kind.which)(&g.after));
        let shows = format!("{} {all}, {more} of them within {} ms", kind.name, g.apart.as_millis());
        if more > 0 && !explained {
            let f = finding("resources.drops", kind.now, kind.grown).seen(kind.source, shows);
            found.push(if kind.now == Finds::Warning { f.gives(&[522]).mend(kind.mend) } else { f });
        } else if all >= FEW && all >= g.after.taken / RARE {
            let text = format!("{all} {}; now the number {}", kind.counted, if more > 0 { "grows" } else { "rests" });
            found.push(finding("resources.drops", Finds::Note, text).seen(kind.source, shows).mend(kind.mend));
        }
    }
    if found.is_empty() && !explained {
        let shows = format!("{} connections taken, {} dropped", g.after.taken, g.after.drops);
        let f = finding("resources.drops", Finds::Ok, "the kernel drops no connections");
        found.push(f.seen(format!("{NETSTAT}, /proc/net/snmp"), shows));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(before: Counters, after: Counters, explained: bool) -> Vec<Finds> {
        let apart = Duration::from_millis(250);
        judge(&Growth { before, after, apart }, explained).iter().map(|f| f.verdict).collect()
    }

    #[test]
    fn columns_are_found_by_name() {
        let table =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: ListenDrops\nIpExt: 9\n";
        assert_eq!(column(table, "TcpExt:", "ListenDrops"), 333);
        assert_eq!((column(table, "TcpExt:", "Nonsense"), column("", "TcpExt:", "ListenDrops")), (0, 0));
        assert_eq!(
            tracking("entries  drop found\n00000001  0000000a 00000000\n00000001  00000001 00000000\n", "drop"),
            11
        );
        assert_eq!(tracking("", "drop"), 0);
    }

    #[test]
    fn a_counter_since_boot_is_no_proof_of_now() {
        let old = Counters { overflows: 5000, drops: 5000, taken: 10_000, ..Counters::default() };
        assert_eq!(judged(old, old, false), [Finds::Note]);
        let more = Counters { overflows: 5001, drops: 5001, ..old };
        assert_eq!(judged(old, more, false), [Finds::Warning]);
        // Something else is the reason, and says so.
        assert_eq!(judged(old, more, true), [Finds::Note]);
        let unreachable = |drops| Counters { drops, ..Counters::default() };
        assert_eq!(judged(unreachable(4), unreachable(5), false), [Finds::Note], "a server that accepts all");
        let rare = Counters { drops: 5000, taken: 100_000_000, ..Counters::default() };
        assert_eq!(judged(rare, rare, false), [Finds::Ok]);
        assert_eq!(judged(Counters::default(), Counters { cookies: 3, ..Counters::default() }, false), [Finds::Note]);
        assert_eq!(judged(rare, Counters::default(), false), [Finds::Ok], "a counter that went back");
    }
}
