//! PHP-FPM: `pm.max_children` of each pool, and how many children are busy.
//!
//! A child that has nothing to do waits in accept; what is anywhere else is busy. Where all are, requests wait in the
//! queue of the pool's socket, and the web server answers 504 when it has had enough, or 502 when that queue is full too.
//!
//! Belongs here: pools, and counting. Does not: open files ([`super::servers`]).

use std::{collections::BTreeMap, path::Path};

use super::{Gauge, config::Setting, finding, more, plural, queues::Queues};
use crate::{
    doctor::directives::Said,
    host::{Look, Process},
    report::{Finding, Finds},
};

/// Includes within includes.
const DEEPEST: usize = 4;

/// A pool, as its configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) children: Option<Setting>,
    /// A path, a port, or an address with a port.
    listen: String,
}

/// The pools by name, of the PHP-FPM whose master process has this title; nothing where its file can't be read.
pub(super) fn pools(host: &dyn Look, title: &str) -> Option<BTreeMap<String, Pool>> {
    let main = title.split_once("master process (")?.1.strip_suffix(')')?;
    let mut found = BTreeMap::new();
    read(host, Path::new(main), &mut String::new(), &mut found, 0).then_some(found)
}

fn read(host: &dyn Look, path: &Path, pool: &mut String, into: &mut BTreeMap<String, Pool>, depth: usize) -> bool {
    // No server shows its configuration without side effects: `php-fpm -tt` opens logs.
    let mut said = Said::default();
    let text = said.text(host, path);
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            *pool = name.0.trim().to_owned();
            continue;
        }
        // A comment begins with a semicolon; so it may end a value.
        let Some((name, value)) = line.split(';').next().and_then(|l| l.split_once('=')) else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim() == "include" && depth < DEEPEST {
            let pattern = path.parent().unwrap_or(Path::new("/")).join(value);
            for file in said.glob(host, &pattern) {
                read(host, &file, pool, into, depth + 1);
            }
        } else if !pool.is_empty() && pool != "global" {
            let entry = into.entry(pool.clone()).or_default();
            match (name.trim(), value.parse()) {
                ("pm.max_children", Ok(n_children)) => {
                    entry.children = Some(Setting::at("pm.max_children", n_children, path, n + 1));
                }
                ("listen", _) => entry.listen = value.replace("$pool", pool),
                _ => {}
            }
        }
    }
    !text.is_empty()
}

/// Whether a child is at work.
fn is_busy(child: &Process) -> bool {
    // unix_accept ends in the first, inet_accept in the second.
    !child.waits_in.first().is_some_and(|w| w.contains("wait_for_more_packets") || w.contains("accept"))
}

/// The pool that a child is of.
fn pool_of(child: &Process) -> Option<&str> {
    child.title.strip_prefix("php-fpm: pool ").map(str::trim)
}

fn waiting(pool: &Pool, queues: &Queues) -> u64 {
    if pool.listen.starts_with('/') {
        return queues.waiting_at_path(&pool.listen);
    }
    let port = pool.listen.rsplit(':').next().and_then(|p| p.parse().ok());
    queues.waiting_at(|s| Some(s.address.port()) == port)
}

/// Of the PHP-FPM whose master has this number: there may be several, of as many versions.
pub(super) fn judge(
    master: u32,
    children: &[Process],
    pools: &BTreeMap<String, Pool>,
    queues: &Queues,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, pool) in pools {
        let Some(limit) = &pool.children else { continue };
        let of_pool = || children.iter().filter(|c| pool_of(c) == Some(name));
        let running = of_pool().count() as u64;
        let busy = Gauge { used: of_pool().filter(|c| is_busy(c)).count() as u64, limit: limit.value };
        found.push(judge_pool(name, master, running, busy, waiting(pool, queues), limit, &pool.listen));
    }
    found
}

fn judge_pool(
    name: &str,
    master: u32,
    running: u64,
    busy: Gauge,
    waiting: u64,
    limit: &Setting,
    listen: &str,
) -> Finding {
    let (id, verdict, text) = if busy.is_near() && running >= limit.value && waiting > 0 {
        let wait = plural(waiting, "request waits", "requests wait");
        let text = format!("PHP-FPM's pool {name} has no process left: {busy} are busy, and {wait} for one");
        ("resources.fpm-children-full", Finds::Cause, text)
    } else if busy.is_near() {
        let text = format!("PHP-FPM's pool {name} has hardly a process left: {busy} are busy");
        ("resources.fpm-children", Finds::Warning, text)
    } else {
        ("resources.fpm-children", Finds::Ok, format!("{busy} processes of PHP-FPM's pool {name} are busy"))
    };
    let f = finding(id, verdict, text)
        .seen("/proc/PID/wchan of its children", format!("{running} run, {} busy", busy.used))
        .seen(limit.whence(), format!("pm.max_children = {}", limit.value));
    if verdict == Finds::Ok {
        return f;
    }
    let look = if listen.starts_with('/') { format!("ss -xl src {listen}") } else { format!("ss -ltn, {listen}") };
    let f = f.seen(look, format!("{waiting} wait to be accepted")).gives(&[502, 504, 524]);
    let wanted = more(limit.value);
    let text = format!(
        "see what takes the scripts so long (`slowlog` and `request_slowlog_timeout` of the pool tell); if there is memory \
         for more processes, write `pm.max_children = {wanted}` into {}, and reload PHP-FPM (its master process is {master})",
        limit.whence()
    );
    match limit.edit(wanted) {
        // What a reload of the service does too (php-fpm(8)), whatever the service is called.
        Some(edit) => f.mend_by(text, format!("{edit} && kill -USR2 {master}")),
        None => f.mend(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_with_their_includes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pool.d")).unwrap();
        #[allow(clippy::disallowed_methods)]
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("php-fpm.conf", "[global]\npid = /x\npm.max_children = 9\ninclude=pool.d/*.conf\n");
        write("pool.d/www.conf", "; pm.max_children = 1\n[www]\nlisten = /run/$pool.sock\npm.max_children = 5 ; few\n");
        write("pool.d/zz.conf", "[tcp]\nlisten = 127.0.0.1:9000\n");
        let title = format!("php-fpm: master process ({})", folder.path().join("php-fpm.conf").display());
        let found = pools(&crate::host::Machine::new(), &title).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["tcp", "www"]);
        assert_eq!(found["www"].listen, "/run/www.sock");
        let place = folder.path().join("pool.d/www.conf");
        assert_eq!(found["www"].children, Some(Setting::at("pm.max_children", 5, &place, 4)));
        assert_eq!(pools(&crate::host::Machine::new(), "php-fpm: master process (/nowhere)"), None);
        assert_eq!(pools(&crate::host::Machine::new(), "php-fpm"), None);
    }

    #[test]
    fn busy_children_are_a_cause_only_while_requests_wait() {
        let limit = Setting::at("pm.max_children", 2, Path::new("/etc/php/8.2/fpm/pool.d/www.conf"), 3);
        let of = |running, used, waiting| {
            judge_pool("www", 7, running, Gauge { used, limit: 2 }, waiting, &limit, "/s").verdict
        };
        assert_eq!((of(2, 2, 1), of(2, 2, 0), of(2, 1, 1)), (Finds::Cause, Finds::Warning, Finds::Ok));
        assert_eq!(of(2, 0, 0), Finds::Ok, "as many as may be, and all idle: `pm = static`");
        let fix = judge_pool("www", 7, 2, Gauge { used: 2, limit: 2 }, 1, &limit, "/s").fix.unwrap();
        assert!(fix.command.unwrap().ends_with("pool.d/www.conf && kill -USR2 7"), "the master of this pool");
        let child = |wchan: &str| Process {
            title: "php-fpm: pool www".to_owned(),
            waits_in: vec![wchan.to_owned()],
            ..Process::default()
        };
        assert!(!is_busy(&child("__skb_wait_for_more_packets")) && !is_busy(&child("inet_csk_accept")));
        assert!(is_busy(&child("hrtimer_nanosleep")) && is_busy(&child("0")));
        assert_eq!(pool_of(&child("0")), Some("www"));
    }
}
