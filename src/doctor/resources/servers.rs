//! The web servers that run here: their processes, the files that these have open, and what each kind counts besides.
//!
//! Belongs here: which process is whose, open files against the limit, and one answer a server: where it is out of
//! something, that is the cause of whatever waits for it. Does not: what is one server's own ([`super::nginx`],
//! [`super::apache`], [`super::fpm`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Gauge, apache,
    config::{self, Setting},
    finding, fpm, more, nginx, plural,
    queues::Queues,
};
use crate::{
    doctor::{Mode, directives::Configs, logs::Lately, online::Unanswered},
    host::{Connection, ListenSocket, Look, Process},
    report::{Evidence, Finding, Finds},
};

/// `fs.nr_open` as the kernel sets it: no process may have more, unless that is raised first.
const MOST_FILES: u64 = 1 << 20;
/// A command that names more processes than this is no longer one to read.
const MOST_NAMED: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Nginx,
    Apache,
    LiteSpeed,
    Caddy,
    Haproxy,
    Fpm,
}

impl Kind {
    fn of(process: &str) -> Option<Self> {
        Some(match process {
            "nginx" | "openresty" | "angie" => Self::Nginx,
            "apache2" | "httpd" => Self::Apache,
            "litespeed" | "lshttpd" | "openlitespeed" => Self::LiteSpeed,
            "caddy" => Self::Caddy,
            "haproxy" => Self::Haproxy,
            // Debian's carries its version, cPanel's too.
            name if name.starts_with("php-fpm") => Self::Fpm,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::LiteSpeed => "LiteSpeed",
            Self::Caddy => "Caddy",
            Self::Haproxy => "HAProxy",
            Self::Fpm => "PHP-FPM",
        }
    }
}

/// Whether a process of that name is a web server's, or runs applications for one.
pub(super) fn is_wanted(name: &str) -> bool {
    Kind::of(name).is_some()
}

/// One server: a process that was started, and those that it started to do the work.
#[derive(Debug)]
pub(super) struct Server {
    kind: Kind,
    master: Process,
    /// Empty where the one process does the work.
    children: Vec<Process>,
}

impl Server {
    fn workers(&self) -> &[Process] {
        if self.children.is_empty() { std::slice::from_ref(&self.master) } else { &self.children }
    }

    fn holds(&self, socket: &ListenSocket) -> bool {
        self.workers().iter().chain([&self.master]).any(|p| p.sockets.binary_search(&socket.inode).is_ok())
    }
}

pub(super) fn group(processes: Vec<Process>) -> Vec<Server> {
    let kinds: BTreeMap<u32, Kind> = processes.iter().filter_map(|p| Some((p.pid, Kind::of(&p.name)?))).collect();
    let (mut servers, mut children): (Vec<Server>, Vec<Process>) = (vec![], vec![]);
    for process in processes {
        let Some(kind) = kinds.get(&process.pid) else { continue };
        if kinds.get(&process.parent) == Some(kind) {
            children.push(process);
        } else {
            servers.push(Server { kind: *kind, master: process, children: vec![] });
        }
    }
    for child in children {
        // Of nginx's processes only workers take connections, and of these only those that are not about to end.
        let works = !child.title.starts_with("nginx: ")
            || (child.title.contains("worker process") && !child.title.contains("shutting down"));
        if let Some(server) = servers.iter_mut().find(|s| s.master.pid == child.parent && works) {
            server.children.push(child);
        }
    }
    servers.sort_by_key(|s| (s.kind, s.master.pid));
    servers
}

/// What the servers' configurations say, by the master's number.
#[derive(Debug, Default)]
pub(super) struct Limits {
    nginx: BTreeMap<u32, nginx::Limits>,
    apache: Option<Result<apache::Limits, String>>,
    fpm: BTreeMap<u32, BTreeMap<String, fpm::Pool>>,
}

impl Limits {
    pub(super) fn read(host: &dyn Look, configs: &Configs<'_>, processes: &[Process]) -> Self {
        let mut limits = Self::default();
        // The files of a container are not here.
        for server in group(processes.to_vec()).iter().filter(|s| !s.master.elsewhere) {
            let (pid, title) = (server.master.pid, &server.master.title);
            match server.kind {
                Kind::Nginx => limits.nginx.extend(nginx::limits(host, configs, title).map(|l| (pid, l))),
                Kind::Apache => limits.apache = limits.apache.take().or_else(|| Some(apache::limits(configs))),
                Kind::Fpm => limits.fpm.extend(fpm::pools(host, title).map(|p| (pid, p))),
                Kind::LiteSpeed | Kind::Caddy | Kind::Haproxy => {}
            }
        }
        limits
    }
}

pub(super) struct Judged {
    pub(super) findings: Vec<Finding>,
    /// The listening sockets of servers that were found to be out of something.
    pub(super) explained: BTreeSet<u32>,
}

/// What tells that a server refused or kept waiting whoever asked just now.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    /// Its own word.
    pub(super) lately: Lately,
    /// What doctor itself asked in vain.
    pub(super) unanswered: &'a [Unanswered],
    /// How Cloudflare connects.
    pub(super) mode: Mode,
}

pub(super) fn judge(
    servers: &[Server],
    limits: &Limits,
    queues: &Queues,
    connections: &[Connection],
    told: &Told<'_>,
) -> Judged {
    let mut judged = Judged { findings: vec![], explained: BTreeSet::new() };
    for server in servers {
        let held: Vec<&ListenSocket> = queues.second.iter().filter(|l| server.holds(l)).collect();
        let serves = serves(queues, &held);
        let files =
            files(server, limits.nginx.get(&server.master.pid), serves, told.lately.open_files(server.kind.name()));
        let found = if files.verdict == Finds::Cause {
            // Whatever else it is short of follows from that, or shows when that is mended.
            vec![files]
        } else {
            let mut found = vec![files];
            found.extend(own(server, limits, queues, &held, told));
            found
        };
        if found.iter().any(|f| f.verdict == Finds::Cause) {
            judged.explained.extend(held.iter().map(|l| l.inode));
        }
        judged.findings.extend(found);
    }
    if !queues.ports.is_empty() {
        judged.findings.push(established(&queues.ports, connections));
    }
    judged
}

/// Whether one of these is at a port that is asked about.
fn serves(queues: &Queues, held: &[&ListenSocket]) -> bool {
    held.iter().any(|l| queues.ports.contains(&l.address.port()))
}

/// What this kind of server counts besides files.
fn own(server: &Server, limits: &Limits, queues: &Queues, held: &[&ListenSocket], told: &Told<'_>) -> Vec<Finding> {
    let serves = serves(queues, held);
    let unknown = |id, why: &str| {
        let text = format!("how much {} can do at once can't be told: {why}", server.kind.name());
        vec![finding(id, Finds::Skipped, text)]
    };
    if server.workers().iter().all(|w| w.files.is_none()) {
        // Said of its files already.
        return vec![];
    }
    match server.kind {
        Kind::Nginx => {
            let Some(limits) = limits.nginx.get(&server.master.pid) else {
                return unknown("resources.nginx-connections", "its configuration can't be read from here");
            };
            let listening: BTreeSet<u32> = held.iter().map(|l| l.inode).collect();
            let addresses: BTreeSet<_> = held.iter().map(|l| l.address).collect();
            let master = (!server.children.is_empty()).then_some(&server.master);
            let uses = server.workers().iter().map(|w| nginx::used(w, master, &listening, addresses.len()));
            let refused = told.lately.connections(limits.connections.value);
            let asked = addresses.iter().map(|a| a.port()).filter(|port| queues.ports.contains(port)).collect();
            let errors = nginx::errors(told.mode, &asked);
            let mut found = vec![nginx::judge(&uses.collect::<Vec<_>>(), limits, serves, refused, &errors)];
            found.extend(unequal(server, limits));
            found
        }
        Kind::Apache => match &limits.apache {
            Some(Ok(limits)) => {
                let waiting = queues.waiting_at(|l| server.holds(l) && queues.ports.contains(&l.address.port()));
                let ports = || held.iter().map(|l| l.address.port());
                let unanswered = told.unanswered.iter().copied().filter(|u| ports().any(|p| p == u.port)).collect();
                let lack = apache::Lack { waiting, logged: told.lately.workers(), unanswered };
                vec![apache::judge(apache::busy(&server.children, limits), &lack, limits, serves)]
            }
            Some(Err(why)) => unknown("resources.apache-workers", why),
            None => unknown("resources.apache-workers", "its configuration can't be read from here"),
        },
        Kind::Fpm => match limits.fpm.get(&server.master.pid) {
            Some(pools) => fpm::judge(server.master.pid, &server.children, pools, queues),
            None => unknown("resources.fpm-children", "its configuration can't be read from here"),
        },
        Kind::LiteSpeed | Kind::Caddy | Kind::Haproxy => vec![],
    }
}

/// More connections than files: the number in the configuration is one that is never reached.
fn unequal(server: &Server, limits: &nginx::Limits) -> Option<Finding> {
    let files = server.workers().iter().filter_map(|w| w.file_limit).min()?;
    let connections = &limits.connections;
    (connections.value > files).then(|| {
        let text = format!("nginx's `{connections}` is more than the {files} files that a worker may have open");
        finding("resources.nginx-files", Finds::Note, text).seen(connections.whence(), connections.to_string()).mend(
            format!(
                "write `worker_rlimit_nofile {};` into {}, and reload nginx",
                more(connections.value),
                limits.file.display()
            ),
        )
    })
}

fn established(ports: &BTreeSet<u16>, connections: &[Connection]) -> Finding {
    let each: Vec<String> = ports
        .iter()
        .map(|port| format!("{} to port {port}", connections.iter().filter(|c| c.port == *port).count()))
        .collect();
    let waiting = connections.iter().filter(|c| c.inode == 0).count() as u64;
    let text = format!("{} are established", plural(connections.len() as u64, "connection", "connections"));
    finding("resources.connections", Finds::Ok, text)
        .seen("ss -tn state established", format!("{}; {waiting} of them not accepted yet", each.join(", ")))
}

/// `refused`: the server's word that it needed more just now.
fn files(server: &Server, nginx: Option<&nginx::Limits>, serves: bool, refused: Option<&Evidence>) -> Finding {
    const ID: &str = "resources.open-files";
    let name = server.kind.name();
    let seen = |p: &&Process| p.files.is_some();
    let workers: Vec<&Process> = server.workers().iter().filter(seen).collect();
    if workers.is_empty() {
        let text = format!("how many files {name} has open can't be seen: it runs as another user");
        return finding(ID, Finds::Skipped, text).mend("ask again as root");
    }
    let gauge = |p: &Process| Gauge { used: p.files.unwrap_or(0), limit: p.file_limit.unwrap_or(u64::MAX) };
    let by_share = |p: &&&Process| {
        let g = gauge(p);
        // In millionths: limits differ seldom, and not by little.
        u128::from(g.used) * 1_000_000 / u128::from(g.limit.max(1))
    };
    let Some(worst) = workers.iter().max_by_key(by_share) else {
        return finding(ID, Finds::Skipped, format!("{name} has ended meanwhile"));
    };
    let most = gauge(worst);
    let processes = plural(workers.len() as u64, "process", "processes");
    let all = |is: &dyn Fn(Gauge) -> bool| workers.iter().all(|p| is(gauge(p)));
    let (id, verdict, text) = if serves && all(&Gauge::is_full) {
        let text = format!(
            "{name} has as many files open as it may: {} in each of {processes}; it can't accept another connection",
            most.limit
        );
        ("resources.open-files-full", Finds::Cause, text)
    } else if serves && all(&|g| g.is_out(refused.is_some())) {
        let text = format!(
            "{name} has run out of open files: it has {most} open in the busiest of {processes}, and logs that it needs more"
        );
        ("resources.open-files-full", Finds::Cause, text)
    } else if most.is_near() {
        let text = format!("{name} is near its limit of open files: {most} in the busiest of {processes}");
        (ID, Finds::Warning, text)
    } else if worst.file_limit.is_none() {
        (ID, Finds::Ok, format!("{name} has {} files open and no limit", most.used))
    } else {
        (
            ID,
            Finds::Ok,
            format!("{name} has {} files open and may have {}, in the busiest of {processes}", most.used, most.limit),
        )
    };
    let pid = worst.pid;
    let shows = format!("{} open, at most {}", most.used, most.limit);
    let f = finding(id, verdict, text).seen(format!("/proc/{pid}/fd, /proc/{pid}/limits"), shows);
    let f = f.seen_too(refused.filter(|_| verdict == Finds::Cause));
    let set = nginx.and_then(|n| n.files.as_ref()).filter(|set| set.value == most.limit);
    let f = match set {
        Some(set) => f.seen(set.whence(), set.to_string()),
        None => f,
    };
    if verdict == Finds::Ok {
        return f;
    }
    let wanted = more(most.limit).min(MOST_FILES.max(most.limit));
    let f = f.gives(&[522, 524]);
    if let Some(nginx) = nginx {
        let text = format!(
            "write `worker_rlimit_nofile {wanted};` into {}, outside of any block, and restart nginx, because a worker at its \
             limit can't hear of a reload; the limit now comes from {}",
            nginx.file.display(),
            set.map_or("who started it".to_owned(), Setting::whence)
        );
        let edit = match set {
            Some(set) => set.edit(wanted),
            None => config::plain(&nginx.file).map(|file| format!("sed -i '1i worker_rlimit_nofile {wanted};' {file}")),
        };
        return match edit {
            // The message of a reload brings a file along, and is lost with it (ngx_channel.c).
            Some(edit) => f.mend_by(text, format!("{edit} && nginx -t && systemctl restart nginx")),
            None => f.mend(text),
        };
    }
    let pids: Vec<String> = workers.iter().take(MOST_NAMED).map(|p| p.pid.to_string()).collect();
    let command = match pids.as_slice() {
        [one] => format!("prlimit --pid {one} --nofile={wanted}:{wanted}"),
        _ => format!("for p in {}; do prlimit --pid $p --nofile={wanted}:{wanted}; done", pids.join(" ")),
    };
    let text = format!(
        "allow more to the running processes at once; for good, write `LimitNOFILE={wanted}` under `[Service]` of the unit \
         (`systemctl edit`), and restart it: the limit of {} is what its starter gave it",
        most.limit
    );
    f.mend_by(text, command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, name: &str, title: &str, files: u64) -> Process {
        Process {
            pid,
            parent,
            name: name.to_owned(),
            title: title.to_owned(),
            files: Some(files),
            file_limit: Some(100),
            sockets: vec![7],
            ..Process::default()
        }
    }

    fn nginx(first: u64, second: u64) -> Vec<Server> {
        group(vec![
            process(1, 0, "nginx", "nginx: master process nginx", 9),
            process(2, 1, "nginx", "nginx: worker process", first),
            process(3, 1, "nginx", "nginx: worker process", second),
            process(4, 1, "nginx", "nginx: worker process is shutting down", 100),
            process(5, 1, "nginx", "nginx: cache manager process", 100),
            process(6, 0, "caddy", "caddy run", 3),
            process(8, 0, "php-fpm8.2", "php-fpm: master process (/etc/x)", 3),
            process(9, 8, "php-fpm8.2", "php-fpm: pool www", 3),
        ])
    }

    #[test]
    fn processes_are_told_apart_by_who_started_them() {
        let servers = nginx(1, 1);
        let kinds: Vec<_> = servers.iter().map(|s| (s.kind, s.master.pid, s.children.len())).collect();
        assert_eq!(kinds, [(Kind::Nginx, 1, 2), (Kind::Caddy, 6, 0), (Kind::Fpm, 8, 1)]);
        assert_eq!(servers[1].workers()[0].pid, 6);
        assert!(is_wanted("httpd") && is_wanted("php-fpm") && !is_wanted("bash"));
    }

    #[test]
    fn files_are_a_cause_when_no_process_can_open_one() {
        let of = |a, b, serves| {
            let f = files(&nginx(a, b)[0], None, serves, None);
            (f.id, f.verdict)
        };
        let log = Evidence { source: "error.log".to_owned(), shows: "(24: Too many open files)".to_owned() };
        let refused = |a, b, serves| files(&nginx(a, b)[0], None, serves, Some(&log));
        let cause = refused(99, 98, true);
        assert_eq!((cause.id, cause.verdict), ("resources.open-files-full", Finds::Cause));
        assert_eq!(cause.evidence[1], log);
        assert!(cause.text.contains("99 of 100 open in the busiest of 2 processes"), "{}", cause.text);
        let others = [refused(99, 1, true), refused(92, 92, true), refused(99, 99, false), refused(50, 50, true)];
        assert_eq!(others.each_ref().map(|f| f.verdict), [Finds::Warning, Finds::Warning, Finds::Warning, Finds::Ok]);
        assert!(others.iter().all(|f| f.id == "resources.open-files" && !f.evidence.contains(&log)));
        assert_eq!(of(100, 100, true), ("resources.open-files-full", Finds::Cause));
        assert_eq!(of(100, 100, false), ("resources.open-files", Finds::Warning));
        assert_eq!(of(100, 1, true), ("resources.open-files", Finds::Warning));
        assert_eq!(of(89, 1, true), ("resources.open-files", Finds::Ok));
        let limits = nginx::Limits {
            file: "/etc/nginx/nginx.conf".into(),
            connections: Setting::default("worker_connections", 512),
            files: Some(Setting::at("worker_rlimit_nofile", 100, "/etc/nginx/nginx.conf".as_ref(), 3)),
        };
        let fix = files(&nginx(100, 100)[0], Some(&limits), true, None).fix.unwrap();
        assert!(fix.text.contains("`worker_rlimit_nofile 256;` into /etc/nginx/nginx.conf"), "{}", fix.text);
        assert!(fix.command.unwrap().starts_with("sed -i -E '3s/(worker_rlimit_nofile"));
        let none = nginx::Limits { files: None, ..limits.clone() };
        let command = |limits| files(&nginx(100, 100)[0], limits, true, None).fix.unwrap().command.unwrap();
        assert!(command(Some(&none)).starts_with("sed -i '1i worker_rlimit_nofile 256;' /etc/nginx/nginx.conf && "));
        assert_eq!(command(None), "for p in 2 3; do prlimit --pid $p --nofile=256:256; done");
        assert_eq!(unequal(&nginx(1, 1)[0], &limits).unwrap().verdict, Finds::Note);
    }

    #[test]
    fn a_server_without_files_explains_its_queue() {
        let socket = ListenSocket {
            address: "[::]:80".parse().unwrap(),
            both_families: true,
            waiting: 9,
            backlog: 3,
            inode: 7,
            programs: vec![],
        };
        let queues = Queues { ports: [80].into(), second: vec![socket], ..Queues::default() };
        let judged = judge(&nginx(100, 100), &Limits::default(), &queues, &[], &Told::default());
        assert_eq!(judged.explained, [7].into());
        assert_eq!(judged.findings.iter().filter(|f| f.verdict == Finds::Cause).count(), 1);
        assert!(judge(&nginx(1, 1), &Limits::default(), &queues, &[], &Told::default()).explained.is_empty());
    }

    #[test]
    fn what_may_not_be_seen_is_said() {
        let mut servers = nginx(1, 1);
        servers[0].children.iter_mut().for_each(|c| c.files = None);
        assert_eq!(files(&servers[0], None, true, None).verdict, Finds::Skipped);
    }
}
