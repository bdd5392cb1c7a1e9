//! Web servers by name: what their programs are called, what starts them, which of them run, and where these listen.
//!
//! Belongs here: the table, and looking for them. Does not: testing configurations (`tested`), what follows from a stopped
//! one (`lacking`).

use std::path::Path;

use super::{promised, promised::Promised, tested};
use crate::{
    doctor::Context,
    host::{ListenSocket, Look, Process, UnixListener},
};

/// A web server that is known by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// For people.
    pub name: &'static str,
    /// What its processes are called.
    processes: &'static [&'static str],
    /// Programs one of which is there where it is installed.
    programs: &'static [&'static str],
    /// Its services, of one distribution or another.
    services: &'static [&'static str],
    /// Looks at the configuration and says what is wrong with it.
    pub test: Option<[&'static str; 2]>,
    /// Whether visitors' connections may come by a Unix socket.
    serves_unix: bool,
    /// Lets it read its configuration again.
    pub reload: Option<&'static str>,
    /// Finds where it is told on which addresses to listen, for those whose configuration isn't read.
    pub find_listen: Option<&'static str>,
}

/// Those that are known. OpenLiteSpeed and LiteSpeed share their names.
static KNOWN: [Server; 5] = [
    Server {
        name: "nginx",
        processes: &["nginx"],
        programs: &["nginx"],
        services: &["nginx"],
        test: Some(["nginx", "-t"]),
        serves_unix: true,
        reload: Some("nginx -s reload"),
        find_listen: None,
    },
    Server {
        name: "Apache",
        processes: &["apache2", "httpd"],
        programs: &["apachectl", "apache2ctl", "httpd"],
        services: &["apache2", "httpd"],
        test: Some(["apachectl", "-t"]),
        serves_unix: false,
        reload: Some("apachectl graceful"),
        find_listen: None,
    },
    Server {
        name: "LiteSpeed",
        processes: &["litespeed", "openlitespeed", "lshttpd"],
        programs: &["/usr/local/lsws/bin/lshttpd", "/usr/local/lsws/bin/litespeed"],
        services: &["lsws", "lshttpd"],
        test: None,
        serves_unix: false,
        reload: None,
        find_listen: Some("grep -RniE '^\\s*address\\s' /usr/local/lsws/conf"),
    },
    Server {
        name: "Caddy",
        processes: &["caddy"],
        programs: &["caddy"],
        services: &["caddy"],
        test: None,
        serves_unix: true,
        reload: None,
        find_listen: Some("grep -nE 'bind|default_bind' /etc/caddy/Caddyfile"),
    },
    Server {
        name: "lighttpd",
        processes: &["lighttpd"],
        programs: &["lighttpd"],
        services: &["lighttpd"],
        test: None,
        serves_unix: true,
        reload: None,
        find_listen: Some("grep -Rn 'server.bind' /etc/lighttpd"),
    },
];

/// A web server that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub server: &'static Server,
    /// Where it listens, if it runs.
    pub runs: Option<Running>,
    /// Whether the machine would start it at boot.
    pub enabled: bool,
    /// What starts it.
    pub start: String,
    /// The test of its configuration and the first thing that it complains of, where it fails.
    pub broken: Option<(String, String)>,
    /// Why the configuration of one that runs was not tested, where that may matter.
    pub untested: Option<String>,
    /// What its configuration says; only read where nothing listens.
    pub promised: Promised,
}

/// A web server that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    /// The process that started the others.
    pub pid: u32,
    /// Where it listens: addresses with ports, and paths after `unix:`. `None` where that may not be seen.
    pub on: Option<Vec<String>>,
}

/// The server whose process goes by this name.
pub(super) fn by_process(name: &str) -> Option<&'static Server> {
    KNOWN.iter().find(|s| s.processes.contains(&name))
}

/// Where the server whose process goes by this name writes what goes wrong.
pub(super) fn error_log(process: &str) -> Option<&'static str> {
    Some(match process {
        "nginx" => "/var/log/nginx/error.log",
        "apache2" => "/var/log/apache2/error.log",
        "httpd" => "/var/log/httpd/error_log",
        "litespeed" | "openlitespeed" | "lshttpd" => "/usr/local/lsws/logs/error.log",
        "lighttpd" => "/var/log/lighttpd/error.log",
        _ => return None,
    })
}

/// Those that are installed, or run. The configuration of one that is stopped is only read and tested where nothing
/// listens on a port.
pub(super) fn installed(cx: &Context<'_>, is_missing: bool) -> Vec<Installed> {
    let host = cx.session.host;
    let processes = host.processes(&|name| by_process(name).is_some());
    let unix = host.unix_listeners().unwrap_or_default();
    let sockets = cx.listeners.as_deref().unwrap_or_default();
    let installed = |server: &'static Server| {
        let own = own(server, &processes);
        let runs = running(server, &own, sockets, &unix);
        if runs.is_none() && !server.programs.iter().any(|p| host.program(p).is_some()) {
            return None;
        }
        let service = server.services.iter().find(|s| has_unit(host, s)).unwrap_or(&server.services[0]);
        let start = if host.exists(Path::new("/run/systemd/system")) {
            format!("systemctl start {service}")
        } else {
            format!("service {service} start")
        };
        let enabled = host.exists(&Path::new("/etc/systemd/system/multi-user.target.wants").join(unit(service)));
        let (broken, untested) = match &runs {
            Some(_) => tested::running(cx, server, &own),
            None if is_missing => (server.test.and_then(|test| tested::complaint(host, &test)), None),
            None => (None, None),
        };
        let promised = if is_missing { promised(cx, server) } else { Promised::default() };
        Some(Installed { server, runs, enabled, start, broken, untested, promised })
    };
    KNOWN.iter().filter_map(installed).collect()
}

/// The processes of a server, without those of containers and those that have ended, which have no title.
fn own<'p>(server: &Server, processes: &'p [Process]) -> Vec<&'p Process> {
    let is_own = |p: &&Process| server.processes.contains(&p.name.as_str()) && !p.elsewhere && !p.title.is_empty();
    processes.iter().filter(is_own).collect()
}

/// Of these processes, those that no other of them has started.
pub(super) fn masters<'p>(own: &'p [&'p Process]) -> impl Iterator<Item = &'p Process> {
    own.iter().copied().filter(|p| !own.iter().any(|other| other.pid == p.parent))
}

fn running(server: &Server, own: &[&Process], sockets: &[ListenSocket], unix: &[UnixListener]) -> Option<Running> {
    let holds = |s: &&ListenSocket| s.programs.iter().any(|p| server.processes.contains(&p.name.as_str()));
    let held: Vec<&ListenSocket> = sockets.iter().filter(holds).collect();
    // One in a container that uses the machine's network has its sockets here only.
    let master = masters(own).next().map(|p| p.pid);
    let pid = master.or_else(|| Some(held.first()?.programs.first()?.pid))?;
    let is_seen = !held.is_empty() || own.iter().any(|p| p.files.is_some());
    let has = |inode: &u32| own.iter().any(|p| p.sockets.binary_search(inode).is_ok());
    // Apache's and LiteSpeed's are for their own helpers.
    let paths = unix.iter().filter(|s| server.serves_unix && !s.path.is_empty() && has(&s.inode));
    let mut on: Vec<String> = Vec::new();
    for place in held.iter().map(|s| s.address.to_string()).chain(paths.map(|s| format!("unix:{}", s.path))) {
        if !on.contains(&place) {
            on.push(place);
        }
    }
    Some(Running { pid, on: is_seen.then_some(on) })
}

fn promised(cx: &Context<'_>, server: &Server) -> Promised {
    match server.name {
        "nginx" => promised::nginx(cx.configs.nginx(), &cx.ask.hosts),
        "Apache" => promised::apache(cx.configs.apache_text(), &cx.ask.hosts),
        _ => Promised::default(),
    }
}

/// Those of these names that weren't asked about and that no configuration here has.
pub(super) fn strange(cx: &Context<'_>, names: Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().filter(|name| !cx.ask.hosts.contains(name)).collect();
    if !names.is_empty() {
        let nginx = promised::nginx(cx.configs.nginx(), &names).sites;
        let apache = promised::apache(cx.configs.apache_text(), &names).sites;
        names.retain(|name| !nginx.contains(name) && !apache.contains(name));
    }
    names
}

fn unit(service: &str) -> String {
    format!("{service}.service")
}

fn has_unit(host: &dyn Look, service: &str) -> bool {
    let folders = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    folders.iter().any(|f| host.exists(&Path::new(f).join(unit(service))))
        || host.exists(&Path::new("/etc/init.d").join(service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Program, look_only::is_look_only};

    #[test]
    fn every_test_is_known_to_only_look() {
        for test in KNOWN.iter().filter_map(|s| s.test) {
            assert!(is_look_only(&test), "{test:?}");
        }
    }

    #[test]
    fn one_that_runs_is_told_with_where_it_listens() {
        let nginx = by_process("nginx").unwrap();
        let process = |pid, parent, sockets: &[u32]| Process {
            pid,
            parent,
            name: "nginx".into(),
            title: "nginx: master process nginx".into(),
            files: Some(9),
            sockets: sockets.into(),
            ..Process::default()
        };
        let processes = [
            process(7, 1, &[50, 51]),
            process(8, 7, &[50, 51]),
            Process { title: String::new(), ..process(3, 1, &[]) },
            Process { elsewhere: true, ..process(4, 1, &[]) },
            Process { name: "cat".into(), ..process(5, 1, &[51]) },
        ];
        let own = own(nginx, &processes);
        assert_eq!(own.len(), 2);
        let unix = |inode, path: &str| UnixListener { path: path.into(), waiting: 0, backlog: 1, inode };
        let unix = [unix(51, "/run/site.sock"), unix(60, "/run/other.sock")];
        let socket = ListenSocket {
            address: "0.0.0.0:8080".parse().unwrap(),
            both_families: false,
            waiting: 0,
            backlog: 1,
            inode: 50,
            programs: vec![Program { pid: 7, name: "nginx".into(), file: None }],
        };
        let sockets = [socket.clone(), socket];
        let told = running(nginx, &own, &sockets, &unix).unwrap();
        assert_eq!(told, Running { pid: 7, on: Some(vec!["0.0.0.0:8080".into(), "unix:/run/site.sock".into()]) });
        assert_eq!(running(nginx, &own, &[], &[]).unwrap().on, Some(vec![]));
        // In a container.
        assert_eq!(running(nginx, &[], &sockets, &unix).unwrap().on, Some(vec!["0.0.0.0:8080".into()]));
        assert_eq!(running(nginx, &[], &[], &unix), None);
        let unseen = [Process { files: None, ..process(7, 1, &[]) }];
        let unseen: Vec<&Process> = unseen.iter().collect();
        assert_eq!(running(nginx, &unseen, &[], &[]).unwrap(), Running { pid: 7, on: None });
    }
}
