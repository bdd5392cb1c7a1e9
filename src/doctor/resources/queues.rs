//! Connections that are established and wait for a program to accept them.
//!
//! The kernel takes one more than the backlog (`sk_acceptq_is_full`, include/net/sock.h); then it drops what comes, and
//! the visitor's side hears nothing.
//!
//! Belongs here: queues of listening sockets. Does not: why a server doesn't accept ([`super::servers`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Gauge, finding, growth::Growth, plural};
use crate::{
    doctor::Context,
    host::{ListenSocket, Look, UnixListener},
    report::{Finding, Finds},
};

/// Listening sockets as they were twice.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// The ports that are asked about.
    pub(super) ports: BTreeSet<u16>,
    pub(super) first: Vec<ListenSocket>,
    pub(super) second: Vec<ListenSocket>,
    pub(super) unix_first: Vec<UnixListener>,
    pub(super) unix_second: Vec<UnixListener>,
}

impl Queues {
    pub(super) fn begin(cx: &Context<'_>) -> Self {
        Self {
            ports: cx.ports.clone(),
            first: cx.listeners.as_ref().cloned().unwrap_or_default(),
            unix_first: cx.session.host.unix_listeners().unwrap_or_default(),
            ..Self::default()
        }
    }

    pub(super) fn end(mut self, host: &dyn Look) -> Self {
        self.second = host.listeners().unwrap_or_default();
        self.unix_second = host.unix_listeners().unwrap_or_default();
        self
    }

    /// How many waited at this socket both times.
    fn waiting(&self, socket: &ListenSocket) -> u32 {
        let before = self.first.iter().find(|s| s.inode == socket.inode).map_or(0, |s| s.waiting);
        before.min(socket.waiting)
    }

    /// How many waited, both times, at the TCP sockets for which this holds.
    pub(super) fn waiting_at(&self, of: impl Fn(&ListenSocket) -> bool) -> u64 {
        self.second.iter().filter(|s| of(s)).map(|s| u64::from(self.waiting(s))).sum()
    }

    /// The same at a Unix socket.
    pub(super) fn waiting_at_path(&self, path: &str) -> u64 {
        let of = |all: &[UnixListener]| all.iter().find(|s| s.path == path).map_or(0, |s| u64::from(s.waiting));
        of(&self.unix_first).min(of(&self.unix_second))
    }
}

/// `explained`: the inodes of sockets whose server was found not to be able to accept, which is then the cause.
pub(super) fn judge(queues: &Queues, explained: &BTreeSet<u32>, growth: &Growth) -> Vec<Finding> {
    let asked = |s: &&ListenSocket| queues.ports.contains(&s.address.port()) && !s.address.ip().is_loopback();
    let mut doors: BTreeMap<_, Vec<&ListenSocket>> = BTreeMap::new();
    for socket in queues.second.iter().filter(asked) {
        doors.entry(socket.address).or_default().push(socket);
    }
    let (mut found, mut calm) = (Vec::new(), Vec::new());
    let mut hanging: Vec<Hanging<'_>> = Vec::new();
    for (address, sockets) in &doors {
        let is_full = |s: &&ListenSocket| s.waiting > s.backlog;
        let is_long = |s: &&ListenSocket| {
            let long = Gauge { used: queues.waiting(s).into(), limit: s.backlog.into() };
            is_full(s) || (long.used > 0 && long.is_near())
        };
        let (long, rest): (Vec<&ListenSocket>, Vec<_>) = sockets.iter().copied().partition(is_long);
        calm.extend(rest.iter().map(|s| format!("port {}: {} of {}", address.port(), s.waiting, s.backlog)));
        let Some(first) = long.iter().copied().max_by_key(|s| s.waiting) else { continue };
        if long.iter().all(|s| explained.contains(&s.inode)) {
            continue;
        }
        let full = rest.is_empty() && long.iter().all(|s| queues.waiting(s) > s.backlog);
        let pids = long.iter().flat_map(|s| &s.programs).map(|p| p.pid).collect();
        // What one program doesn't accept, at however many doors, has one reason.
        match hanging.iter_mut().find(|h| h.full == full && h.pids == pids && !h.pids.is_empty()) {
            Some(same) => same.doors.push(first),
            None => hanging.push(Hanging { full, pids, doors: vec![first] }),
        }
    }
    found.extend(hanging.iter().map(|h| h.finding(growth)));
    if found.is_empty() && !calm.is_empty() {
        let f =
            finding("resources.accept-queue", Finds::Ok, "no queue of connections that wait to be accepted is long");
        found.push(f.seen("ss -ltn", calm.join("; ")));
    }
    found
}

/// Programs that don't accept what comes to some doors.
struct Hanging<'a> {
    /// Whether nobody gets in by these.
    full: bool,
    /// Those who hold them, where they can be seen.
    pids: BTreeSet<u32>,
    /// Of each door the longest queue.
    doors: Vec<&'a ListenSocket>,
}

impl Hanging<'_> {
    fn finding(&self, growth: &Growth) -> Finding {
        let program = self.doors.iter().find_map(|s| s.programs.first());
        let who = program.map_or("the program", |p| p.name.as_str());
        let ports: BTreeSet<u16> = self.doors.iter().map(|s| s.address.port()).collect();
        let words: Vec<String> = ports.iter().map(u16::to_string).collect();
        let to = format!("port{} {}", if words.len() == 1 { "" } else { "s" }, words.join(" and "));
        let waiting = self.doors.iter().map(|s| u64::from(s.waiting)).sum();
        let waits = plural(waiting, "connection waits", "connections wait");
        let backlog = match self.doors.as_slice() {
            [one] => format!("its backlog of {} is", one.backlog),
            _ => "its backlogs are".to_owned(),
        };
        let f = if self.full {
            let text = format!(
                "{who} does not accept connections to {to}: {waits}, {backlog} full, and the kernel drops what comes"
            );
            finding("resources.accept-queue-full", Finds::Cause, text)
        } else {
            let text =
                format!("{who} accepts connections to {to} slower than they come: {waits}, {backlog} full or nearly");
            finding("resources.accept-queue", Finds::Warning, text)
        };
        let look = |port: u16| format!("ss -ltnp 'sport = :{port}'");
        let shows = |s: &ListenSocket| format!("{}: Recv-Q {}, Send-Q {}", s.address, s.waiting, s.backlog);
        let f = self.doors.iter().fold(f, |f, s| f.seen(look(s.address.port()), shows(s))).gives(&[522]);
        let f = match growth.overflows() {
            Some(shows) => f.seen("/proc/net/netstat", shows),
            None => f,
        };
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let text = "see what the program does: if it hangs, restart it; if bursts are too much for it, raise its backlog \
                    (nginx `listen … backlog=4096`, Apache `ListenBacklog 4096`) and `sysctl -w net.core.somaxconn=4096`";
        match ports.first().filter(|_| pids.is_empty()) {
            Some(port) => f.mend_by(text, look(*port)),
            None => f.mend_by(text, format!("ps -o pid,stat,wchan:32,etime,comm -p {}", pids.join(","))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Program;

    fn socket(address: &str, inode: u32, waiting: u32) -> ListenSocket {
        ListenSocket {
            address: address.parse().unwrap(),
            both_families: false,
            waiting,
            backlog: 4,
            inode,
            programs: vec![Program { pid: 7, name: "httpd".to_owned(), file: None }],
        }
    }

    fn judged(first: Vec<ListenSocket>, second: Vec<ListenSocket>, explained: &[u32]) -> Vec<(&'static str, Finds)> {
        let queues = Queues { ports: [80, 443].into(), first, second, ..Queues::default() };
        let explained = explained.iter().copied().collect();
        judge(&queues, &explained, &Growth::default()).iter().map(|f| (f.id, f.verdict)).collect()
    }

    #[test]
    fn full_is_one_more_than_the_backlog_both_times() {
        let at = |waiting| vec![socket("0.0.0.0:80", 1, waiting)];
        let full = ("resources.accept-queue-full", Finds::Cause);
        assert_eq!(judged(at(5), at(5), &[]), [full]);
        assert_eq!(judged(at(4), at(5), &[]), [("resources.accept-queue", Finds::Warning)]);
        assert_eq!(judged(at(4), at(4), &[]), [("resources.accept-queue", Finds::Warning)]);
        assert_eq!(judged(at(3), at(4), &[]), [("resources.accept-queue", Finds::Ok)]);
        assert_eq!(judged(at(5), at(5), &[1]), [], "its server is the cause");
        assert_eq!(judged(vec![socket("0.0.0.0:81", 1, 5)], vec![socket("0.0.0.0:81", 1, 5)], &[]), []);
        assert_eq!(judged(vec![], vec![], &[]), []);
    }

    #[test]
    fn one_of_several_sockets_on_a_port_turns_some_visitors_away() {
        let all = || vec![socket("0.0.0.0:80", 1, 5), socket("0.0.0.0:80", 2, 0)];
        assert_eq!(judged(all(), all(), &[]), [("resources.accept-queue", Finds::Warning)]);
        // Another family is another door.
        let all = || vec![socket("0.0.0.0:80", 1, 5), socket("[::]:80", 2, 0)];
        assert_eq!(judged(all(), all(), &[]), [("resources.accept-queue-full", Finds::Cause)]);
    }

    #[test]
    fn what_one_program_does_not_accept_is_one_cause() {
        let mut all = vec![socket("0.0.0.0:80", 1, 5), socket("0.0.0.0:443", 2, 5), socket("[::]:443", 3, 5)];
        let judge = |all: &Vec<ListenSocket>| {
            let ports = [80, 443].into();
            let queues = Queues { ports, first: all.clone(), second: all.clone(), ..Queues::default() };
            judge(&queues, &BTreeSet::new(), &Growth::default())
        };
        let [one] = &judge(&all)[..] else { panic!("{:?}", judge(&all)) };
        assert_eq!(
            one.text,
            "httpd does not accept connections to ports 80 and 443: 15 connections wait, its backlogs are full, and the \
             kernel drops what comes"
        );
        assert_eq!(one.evidence.len(), 3);
        assert!(one.fix.as_ref().unwrap().command.as_ref().unwrap().ends_with(" -p 7"));
        all[0].programs[0].pid = 8;
        assert_eq!(judge(&all).len(), 2, "two that hang");
        all.iter_mut().for_each(|s| s.programs.clear());
        assert_eq!(judge(&all).len(), 3, "whose they are can't be seen");
    }
}
