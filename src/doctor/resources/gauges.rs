//! What the whole machine can run out of: processors, memory, files, tracked connections.
//!
//! Belongs here: numbers of procfs with a limit beside them. Does not: counters ([`super::growth`]).

use std::path::Path;

use super::{Gauge, OUT, finding, growth, more};
use crate::{
    host::Look,
    report::{Evidence, Finding, Finds},
};

/// Above this load a processor: work waits longer than it takes. A note, because waiting alone gives no error.
const HIGH_LOAD: f64 = 4.0;
/// Below this share of memory the kernel begins to throw out what it will read again at once.
const LOW_MEMORY_PERCENT: u64 = 5;
/// All tasks stood still for want of memory for this share of the last ten seconds: the machine thrashes.
const THRASHING_PERCENT: f64 = 25.0;
/// Some task waited for a processor or a disk for this share of the last ten seconds: slow, which is no error.
const BUSY_PERCENT: f64 = 80.0;

const LOAD: &str = "/proc/loadavg";
const MEMORY: &str = "/proc/meminfo";
const FILES: &str = "/proc/sys/fs/file-nr";
const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const TRACKED_MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const SOCKETS: &str = "/proc/net/sockstat";
const ORPHANS_MOST: &str = "/proc/sys/net/ipv4/tcp_max_orphans";
const TCP_MEMORY: &str = "/proc/sys/net/ipv4/tcp_mem";

/// The numbers; nothing where the kernel doesn't tell.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gauges {
    load: Option<f64>,
    processors: u64,
    /// Available and all, in kB.
    memory: Option<(u64, u64)>,
    pressure: Option<Pressure>,
    files: Option<Gauge>,
    tracked: Option<Gauge>,
    orphans: Option<Gauge>,
    tcp_pages: Option<Gauge>,
}

/// Percent of the last ten seconds (Documentation/accounting/psi.rst).
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Pressure {
    cpu_some: f64,
    io_full: f64,
    memory_full: f64,
}

pub(super) fn text(host: &dyn Look, path: &str) -> Option<String> {
    let seen = host.file(Path::new(path)).ok()??;
    Some(String::from_utf8_lossy(&seen.content).into_owned())
}

impl Gauges {
    pub(super) fn read(host: &dyn Look) -> Self {
        let get = |path| text(host, path);
        let sockets = get(SOCKETS).unwrap_or_default();
        let gauge = |used: Option<u64>, limit: Option<u64>| Some(Gauge { used: used?, limit: limit? });
        let number = |path| get(path)?.trim().parse().ok();
        Self {
            load: get(LOAD).and_then(|t| t.split_whitespace().next()?.parse().ok()),
            processors: get("/proc/stat").map_or(1, |t| processors(&t)),
            memory: get(MEMORY).and_then(|t| Some((kilobytes(&t, "MemAvailable:")?, kilobytes(&t, "MemTotal:")?))),
            pressure: pressure(get),
            files: get(FILES).and_then(|t| {
                let mut numbers = t.split_whitespace().map(str::parse);
                let used = numbers.next()?.ok()?;
                Some(Gauge { used, limit: numbers.nth(1)?.ok()? })
            }),
            tracked: gauge(number(TRACKED), number(TRACKED_MOST)),
            orphans: gauge(socket_stat(&sockets, "orphan"), number(ORPHANS_MOST)),
            tcp_pages: gauge(
                socket_stat(&sockets, "mem"),
                get(TCP_MEMORY).and_then(|t| t.split_whitespace().nth(2)?.parse().ok()),
            ),
        }
    }
}

/// The lines `cpu0`, `cpu1` …; there is also one for all.
fn processors(stat: &str) -> u64 {
    let own = |l: &&str| l.strip_prefix("cpu").is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    stat.lines().filter(own).count().max(1) as u64
}

fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 1`
fn socket_stat(sockstat: &str, name: &str) -> Option<u64> {
    let mut words = sockstat.lines().find_map(|l| l.strip_prefix("TCP:"))?.split_whitespace();
    words.find(|w| *w == name)?;
    words.next()?.parse().ok()
}

fn pressure(get: impl Fn(&'static str) -> Option<String>) -> Option<Pressure> {
    let of = |path, which: &str| {
        let text = get(path)?;
        let line = text.lines().find_map(|l| l.strip_prefix(which))?;
        line.split_whitespace().find_map(|w| w.strip_prefix("avg10="))?.parse().ok()
    };
    Some(Pressure {
        cpu_some: of("/proc/pressure/cpu", "some")?,
        io_full: of("/proc/pressure/io", "full")?,
        memory_full: of("/proc/pressure/memory", "full")?,
    })
}

/// What tells that connection tracking turned packets away while doctor looked. A full table alone doesn't: in it the
/// kernel forgets connections that were never answered to take others (`early_drop`, nf_conntrack_core.c).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Untracked<'a> {
    /// By how much the kernel's counter grew.
    pub(super) grown: u64,
    /// The kernel's word of just now.
    pub(super) logged: Option<&'a Evidence>,
}

pub(super) fn judge(g: &Gauges, untracked: Untracked<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(g.load.map(|load| {
        let processors = super::plural(g.processors, "processor", "processors");
        let high = load > HIGH_LOAD * g.processors as f64;
        let (verdict, what) =
            if high { (Finds::Note, "the load is high") } else { (Finds::Ok, "the load is moderate") };
        finding("resources.load", verdict, format!("{what}: {load} on {processors}")).seen(LOAD, format!("{load}"))
    }));
    found.extend(g.memory.map(memory));
    found.push(g.pressure.map_or_else(
        || {
            finding("resources.pressure", Finds::Skipped, "this kernel does not tell how long programs wait")
                .mend("nothing is wrong with that; booting with `psi=1` makes the kernel tell")
        },
        stalls,
    ));
    found.extend(g.files.map(files));
    found.extend(g.tracked.map(|g| tracked(g, untracked)));
    found.extend(g.orphans.map(|o| {
        let text =
            format!("the kernel holds {} TCP connections that no program has any more, of {} at most", o.used, o.limit);
        let near = o.is_near();
        let f = finding("resources.orphans", if near { Finds::Warning } else { Finds::Ok }, text);
        let f = f.seen(format!("{SOCKETS}, {ORPHANS_MOST}"), format!("orphan {}, at most {}", o.used, o.limit));
        if near {
            // Above the limit the kernel resets them, so that the end of an answer may be lost (net/ipv4/tcp.c).
            f.gives(&[520]).mend_by("let the kernel keep more of them", sysctl("net.ipv4.tcp_max_orphans", o.limit))
        } else {
            f
        }
    }));
    found.extend(g.tcp_pages.filter(|pages| pages.is_near()).map(|pages| {
        let f = finding(
            "resources.tcp-memory",
            Finds::Warning,
            format!("TCP uses {} of the {} pages of memory that it may use", pages.used, pages.limit),
        );
        f.seen(format!("{SOCKETS}, {TCP_MEMORY}"), format!("mem {}, at most {}", pages.used, pages.limit))
            .gives(&[520, 522])
            .mend("find out who holds so much unread data (`ss -tmn`), or raise net.ipv4.tcp_mem")
    }));
    found
}

fn memory((available, all): (u64, u64)) -> Finding {
    let shows = format!("MemAvailable {available} kB, MemTotal {all} kB");
    let text = format!("{} of {} MiB of memory are available", available / 1024, all / 1024);
    if available * 100 < all * LOW_MEMORY_PERCENT {
        finding("resources.memory", Finds::Warning, format!("only {text}"))
            .seen(MEMORY, shows)
            .gives(&[520, 522])
            .mend_by(
                "see who uses most, and give it less or the machine more",
                "ps -eo rss,pid,comm --sort=-rss | head",
            )
    } else {
        finding("resources.memory", Finds::Ok, text).seen(MEMORY, shows)
    }
}

fn stalls(p: Pressure) -> Finding {
    let shows = format!("cpu some {} %, io full {} %, memory full {} %", p.cpu_some, p.io_full, p.memory_full);
    let (verdict, text) = if p.memory_full >= THRASHING_PERCENT {
        (Finds::Warning, format!("programs stand still for want of memory {} % of the time", p.memory_full))
    } else if p.cpu_some >= BUSY_PERCENT {
        (Finds::Note, format!("programs wait for a processor {} % of the time", p.cpu_some))
    } else if p.io_full >= BUSY_PERCENT {
        (Finds::Note, format!("programs stand still for the disks {} % of the time", p.io_full))
    } else {
        (Finds::Ok, "programs don't wait long for processors, disks or memory".to_owned())
    };
    let f = finding("resources.pressure", verdict, text).seen("/proc/pressure", shows);
    if verdict == Finds::Warning {
        f.gives(&[522, 524]).mend_by("see who uses most memory", "ps -eo rss,pid,comm --sort=-rss | head")
    } else {
        f
    }
}

fn files(g: Gauge) -> Finding {
    let shows = format!("{} open, at most {}", g.used, g.limit);
    if !g.is_near() {
        return finding("resources.file-max", Finds::Ok, "the machine is far from its limit of open files")
            .seen(FILES, shows);
    }
    let f = if g.is_full() {
        let text = format!("the machine has as many files open as it may: {g}; nobody but root can open one more");
        finding("resources.file-max-full", Finds::Cause, text).gives(&[520, 522])
    } else {
        finding(
            "resources.file-max",
            Finds::Warning,
            format!("the machine has {} files open and may have {}", g.used, g.limit),
        )
        .gives(&[520, 522])
    };
    let text =
        "allow more, and find out who holds so many; to keep it over a boot, write it to a file in /etc/sysctl.d";
    f.seen(FILES, shows).mend_by(text, sysctl("fs.file-max", g.limit))
}

fn tracked(g: Gauge, untracked: Untracked<'_>) -> Finding {
    let shows = format!("{} tracked, at most {}", g.used, g.limit);
    let source = format!("{TRACKED}, {TRACKED_MOST}");
    if !g.is_near() {
        return finding("resources.conntrack", Finds::Ok, format!("connection tracking has room: {g} entries"))
            .seen(source, shows);
    }
    let drops = untracked.grown > 0 || untracked.logged.is_some();
    let f = if drops && g.has_reached(OUT) {
        let text = format!("connection tracking is full: {g} entries, and the kernel drops packets of new connections");
        let f = finding("resources.conntrack-full", Finds::Cause, text);
        if untracked.grown > 0 {
            f.seen(growth::TRACKING, format!("drop: {} more since doctor began", untracked.grown))
        } else {
            f
        }
        .seen_too(untracked.logged)
    } else if g.is_full() {
        let text = format!(
            "connection tracking is full: {g} entries; no packet was dropped while doctor looked, because the kernel forgets \
             connections that were never answered to take others"
        );
        finding("resources.conntrack", Finds::Warning, text)
    } else {
        finding("resources.conntrack", Finds::Warning, format!("connection tracking is nearly full: {g} entries"))
    };
    let text = "let the kernel track more connections; to keep it over a boot, write it to a file in /etc/sysctl.d";
    f.seen(source, shows).gives(&[522]).mend_by(text, sysctl("net.netfilter.nf_conntrack_max", g.limit))
}

fn sysctl(name: &str, limit: u64) -> String {
    format!("sysctl -w {name}={}", more(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(g: &Gauges) -> Vec<(&'static str, Finds)> {
        judge(g, Untracked::default()).iter().map(|f| (f.id, f.verdict)).filter(|(_, v)| *v > Finds::Ok).collect()
    }

    #[test]
    fn the_kernel_s_own_words_are_understood() {
        assert_eq!(processors("cpu  1 2\ncpu0 1 1\ncpu1 0 1\nintr 1\n"), 2);
        assert_eq!(kilobytes("MemTotal:   100 kB\nMemAvailable:    7 kB\n", "MemAvailable:"), Some(7));
        let sockets = "sockets: used 0\nTCP: inuse 3 orphan 4 tw 0 alloc 9 mem 185\nUDP: inuse 0 mem 1\n";
        assert_eq!((socket_stat(sockets, "orphan"), socket_stat(sockets, "mem")), (Some(4), Some(185)));
        let psi = |_: &'static str| Some("some avg10=1.50 avg60=0\nfull avg10=2.25 avg60=0\n".to_owned());
        assert_eq!(pressure(psi), Some(Pressure { cpu_some: 1.5, io_full: 2.25, memory_full: 2.25 }));
        assert_eq!(pressure(|_| Some("some".to_owned())), None);
    }

    #[test]
    fn a_full_table_is_a_cause_where_packets_are_dropped_and_else_a_warning() {
        let calm = Pressure::default();
        let of = |used| Gauges {
            processors: 2,
            pressure: Some(calm),
            tracked: Some(Gauge { used, limit: 100 }),
            ..Gauges::default()
        };
        for used in [100, 99, 95] {
            assert_eq!(verdicts(&of(used)), [("resources.conntrack", Finds::Warning)]);
        }
        assert_eq!(verdicts(&of(50)), []);
        let log = Evidence { source: "kern.log".to_owned(), shows: "table full, dropping packet".to_owned() };
        let dropping = |used, grown, logged| judge(&of(used), Untracked { grown, logged }).pop().unwrap();
        // An entry may end while doctor counts.
        for f in [dropping(100, 3, None), dropping(99, 3, None), dropping(100, 0, Some(&log))] {
            assert_eq!((f.id, f.verdict), ("resources.conntrack-full", Finds::Cause));
            assert_eq!(f.fix.unwrap().command.unwrap(), "sysctl -w net.netfilter.nf_conntrack_max=256");
            let proof = &f.evidence[0];
            assert!(*proof == log || proof.shows == "drop: 3 more since doctor began", "{proof:?}");
        }
        // What is dropped for another reason, and what was full and is no longer.
        assert_eq!(dropping(94, 3, Some(&log)).verdict, Finds::Warning);
        assert_eq!(dropping(50, 3, Some(&log)).verdict, Finds::Ok);
    }

    #[test]
    fn load_is_never_more_than_a_note() {
        let g = Gauges { load: Some(99.0), processors: 2, pressure: Some(Pressure::default()), ..Gauges::default() };
        assert_eq!(verdicts(&g), [("resources.load", Finds::Note)]);
        let g = Gauges {
            memory: Some((4, 100)),
            pressure: Some(Pressure { cpu_some: 99.0, io_full: 0.0, memory_full: 30.0 }),
            files: Some(Gauge { used: 7, limit: 7 }),
            orphans: Some(Gauge { used: 9, limit: 10 }),
            tcp_pages: Some(Gauge { used: 10, limit: 10 }),
            ..Gauges::default()
        };
        let expected = [
            ("resources.memory", Finds::Warning),
            ("resources.pressure", Finds::Warning),
            ("resources.file-max-full", Finds::Cause),
            ("resources.orphans", Finds::Warning),
            ("resources.tcp-memory", Finds::Warning),
        ];
        assert_eq!(verdicts(&g), expected);
    }
}
