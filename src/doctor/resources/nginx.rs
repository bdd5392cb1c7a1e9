//! nginx: `worker_connections` and `worker_rlimit_nofile`, and what a worker uses of them.
//!
//! A worker that has no connection left accepts the next one and closes it at once: visitors get an empty answer.
//!
//! Belongs here: those two directives, and counting connections. Does not: open files ([`super::servers`]).

use std::{collections::BTreeSet, path::PathBuf};

use super::{Gauge, config::Setting, finding, more, plural};
use crate::{
    doctor::{
        HTTP_PORTS, HTTPS_PORTS, Mode,
        directives::{self, Configs},
    },
    host::{Look, Process},
    report::{Evidence, Finding, Finds},
};

/// ngx_event.c: what holds where nothing is said.
const DEFAULT_CONNECTIONS: u64 = 512;
/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) file: PathBuf,
    pub(super) connections: Setting,
    pub(super) files: Option<Setting>,
}

/// Of the nginx whose master process has this title; nothing where its file can't be read.
pub(super) fn limits(host: &dyn Look, configs: &Configs<'_>, title: &str) -> Option<Limits> {
    let named = title.split_whitespace().skip_while(|w| *w != "-c").nth(1).filter(|f| f.starts_with('/'));
    let named = named.map(PathBuf::from);
    let file = named.clone().or_else(|| directives::nginx_file(host))?;
    host.file(&file).ok()??;
    let its_own = named.map(|file| directives::nginx_at(host, file));
    let said = &its_own.as_ref().unwrap_or_else(|| configs.nginx()).directives;
    // nginx takes each of them in one kind of block only.
    let number = |name| said.iter().rfind(|d| d.is(name)).and_then(|d| Setting::of(name, d));
    Some(Limits {
        file,
        connections: number("worker_connections")
            .unwrap_or(Setting::default("worker_connections", DEFAULT_CONNECTIONS)),
        files: number("worker_rlimit_nofile"),
    })
}

/// How many connections, in nginx's sense, a worker uses: its clients and upstreams, one for each address that it listens
/// on, and one to its master. What it shares with the master is not a visitor's.
pub(super) fn used(worker: &Process, master: Option<&Process>, listening: &BTreeSet<u32>, addresses: usize) -> u64 {
    let shared: &[u32] = master.map_or(&[], |m| &m.sockets);
    let own = worker.sockets.iter().filter(|s| shared.binary_search(s).is_err() && !listening.contains(s)).count();
    (own + addresses + 1) as u64
}

/// What visitors see where it closes connections to these ports: no answer (520) to plain HTTP, no handshake (525) else.
pub(super) fn errors(mode: Mode, ports: &BTreeSet<u16>) -> Vec<u16> {
    let plain = ports.iter().any(|p| HTTP_PORTS.contains(p));
    // Under Flexible visitors to 443 are sent on to 80.
    let tls = ports.iter().any(|p| HTTPS_PORTS.contains(p) && (mode != Mode::Flexible || *p != 443));
    match (plain, tls) {
        (true, true) if matches!(mode, Mode::Full | Mode::Strict) => vec![525],
        (true, true) => vec![520, 525],
        (false, true) => vec![525],
        (_, false) => vec![520],
    }
}

/// `uses`: of each worker. `refused`: nginx's word that it needed more just now. `errors`: what visitors see of that.
pub(super) fn judge(
    uses: &[u64],
    limits: &Limits,
    serves: bool,
    refused: Option<&Evidence>,
    errors: &[u16],
) -> Finding {
    let limit = &limits.connections;
    let most = Gauge { used: uses.iter().copied().max().unwrap_or(0), limit: limit.value };
    let total = limit.value.saturating_mul(uses.len() as u64);
    let workers = plural(uses.len() as u64, "worker", "workers");
    let full = uses.iter().filter(|u| **u >= limit.value).count();
    let (id, verdict, text) = if full > 0 && serves {
        let text = format!(
            "nginx is out of connections: {full} of {workers} use all {} that `worker_connections` allows, and what comes \
             is accepted and closed",
            limit.value
        );
        ("resources.nginx-connections-full", Finds::Cause, text)
    } else if most.is_out(refused.is_some()) && serves {
        let text = format!(
            "nginx is out of connections: the busiest of {workers} uses {most}, a request that is passed on takes two, and \
             nginx logs that it needs more"
        );
        ("resources.nginx-connections-full", Finds::Cause, text)
    } else if most.is_near() {
        let text = format!("nginx is nearly out of connections: the busiest of {workers} uses {most}");
        ("resources.nginx-connections", Finds::Warning, text)
    } else {
        let text = format!("the busiest of {workers} of nginx uses {most} connections, {total} in all");
        ("resources.nginx-connections", Finds::Ok, text)
    };
    let shows: Vec<String> = uses.iter().take(16).map(u64::to_string).collect();
    let f = finding(id, verdict, text)
        .seen("sockets in /proc/PID/fd of the workers", shows.join(", "))
        .seen(limit.whence(), limit.to_string())
        .seen_too(refused.filter(|_| verdict == Finds::Cause));
    if verdict == Finds::Ok {
        return f;
    }
    let wanted = more(limit.value);
    let text = format!(
        "write `worker_connections {wanted};` into the `events` block of {} (now {}), and reload nginx",
        limits.file.display(),
        limit.whence()
    );
    let f = f.gives(errors);
    match limit.edit(wanted) {
        Some(edit) => f.mend_by(text, format!("{edit} && nginx -t && nginx -s reload")),
        None => f.mend(text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn numbers_come_from_the_file_that_it_was_started_with() {
        let folder = tempfile::tempdir().unwrap();
        #[allow(clippy::disallowed_methods)]
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let main = folder.path().join("nginx.conf");
        write("nginx.conf", "include *.inc;\nevents {\n worker_connections 768;\n}\nhttp { x {} }\n");
        write("a.inc", "# none\nworker_rlimit_nofile 4096;\ninclude a.inc;\n");
        let host = crate::host::Machine::new();
        let seen =
            limits(&host, &Configs::new(&host), &format!("nginx: master process nginx -c {}", main.display())).unwrap();
        assert_eq!(seen.connections, Setting::at("worker_connections", 768, &main, 3));
        assert_eq!(seen.files, Some(Setting::at("worker_rlimit_nofile", 4096, &folder.path().join("a.inc"), 2)));
        write("nginx.conf", "");
        let seen = limits(&host, &Configs::new(&host), &format!("nginx -c {}", main.display())).unwrap();
        assert_eq!((seen.connections.value, seen.connections.place.is_none()), (512, true));
        assert_eq!(limits(&host, &Configs::new(&host), "nginx -c /nowhere/nginx.conf"), None);
    }

    #[test]
    fn what_is_closed_is_seen_by_mode_and_port() {
        let of = |mode, ports: &[u16]| errors(mode, &ports.iter().copied().collect());
        let both = &[80, 443];
        assert_eq!([of(Mode::Full, both), of(Mode::Strict, both), of(Mode::Flexible, both)], [[525], [525], [520]]);
        assert_eq!(of(Mode::Unknown, both), [520, 525]);
        assert_eq!([of(Mode::Full, &[80]), of(Mode::Unknown, &[443]), of(Mode::Unknown, &[9])], [[520], [525], [520]]);
        assert_eq!(of(Mode::Flexible, &[80, 8443]), [520, 525]);
    }

    #[test]
    fn one_worker_without_connections_turns_visitors_away() {
        let limits = Limits {
            file: PathBuf::from("/etc/nginx/nginx.conf"),
            connections: Setting::at("worker_connections", 20, Path::new("/etc/nginx/nginx.conf"), 4),
            files: None,
        };
        let of = |uses: &[u64], serves| {
            let f = judge(uses, &limits, serves, None, &[520]);
            (f.id, f.verdict)
        };
        let log = Evidence { source: "error.log".to_owned(), shows: "20 worker_connections are not enough".to_owned() };
        let refused = |uses: &[u64], serves| judge(uses, &limits, serves, Some(&log), &[525]);
        let cause = refused(&[19, 3], true);
        assert_eq!((cause.id, cause.verdict), ("resources.nginx-connections-full", Finds::Cause));
        assert!(cause.text.contains("the busiest of 2 workers uses 19 of 20"), "{}", cause.text);
        assert_eq!((cause.evidence.last(), cause.cloudflare_errors.as_slice()), (Some(&log), &[525][..]));
        assert_eq!(refused(&[19, 3], false).verdict, Finds::Warning);
        assert_eq!(refused(&[17, 3], true).verdict, Finds::Ok);
        assert_eq!(of(&[19, 3], true), ("resources.nginx-connections", Finds::Warning));
        assert_eq!(of(&[20, 3], true), ("resources.nginx-connections-full", Finds::Cause));
        assert_eq!(of(&[20, 3], false), ("resources.nginx-connections", Finds::Warning));
        assert_eq!(of(&[18, 3], true), ("resources.nginx-connections", Finds::Warning));
        assert_eq!(of(&[17, 3], true), ("resources.nginx-connections", Finds::Ok));
        let shared = Process { sockets: vec![1, 2, 8, 9], ..Process::default() };
        let worker = Process { sockets: vec![1, 2, 8, 20, 21, 22], ..Process::default() };
        assert_eq!(used(&worker, Some(&shared), &[1, 2].into(), 2), 3 + 2 + 1);
    }
}
