//! Web servers by name: what their programs are called, what starts them, and how their configuration is tested.
//!
//! Belongs here: the table, and looking for them. Does not: what follows from a stopped one (`judge`).

use std::{path::Path, time::Duration};

use crate::{
    doctor::Context,
    host::{Look, Output},
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
    test: Option<[&'static str; 2]>,
    /// Finds where it is told on which addresses to listen.
    pub find_listen: &'static str,
}

/// Those that are known. OpenLiteSpeed and LiteSpeed share their names.
static KNOWN: [Server; 5] = [
    Server {
        name: "nginx",
        processes: &["nginx"],
        programs: &["nginx"],
        services: &["nginx"],
        test: Some(["nginx", "-t"]),
        find_listen: "grep -rnE '^\\s*listen\\s' /etc/nginx",
    },
    Server {
        name: "Apache",
        processes: &["apache2", "httpd"],
        programs: &["apachectl", "apache2ctl", "httpd"],
        services: &["apache2", "httpd"],
        test: Some(["apachectl", "-t"]),
        find_listen: "grep -rniE '^\\s*listen\\s' /etc/apache2 /etc/httpd",
    },
    Server {
        name: "LiteSpeed",
        processes: &["litespeed", "openlitespeed", "lshttpd"],
        programs: &["/usr/local/lsws/bin/lshttpd", "/usr/local/lsws/bin/litespeed"],
        services: &["lsws", "lshttpd"],
        test: None,
        find_listen: "grep -rniE '^\\s*address\\s' /usr/local/lsws/conf",
    },
    Server {
        name: "Caddy",
        processes: &["caddy"],
        programs: &["caddy"],
        services: &["caddy"],
        test: None,
        find_listen: "grep -nE 'bind|default_bind' /etc/caddy/Caddyfile",
    },
    Server {
        name: "lighttpd",
        processes: &["lighttpd"],
        programs: &["lighttpd"],
        services: &["lighttpd"],
        test: None,
        find_listen: "grep -rn 'server.bind' /etc/lighttpd",
    },
];

/// A web server that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub server: &'static Server,
    /// Whether it is seen to listen anywhere.
    pub runs: bool,
    /// Whether the machine would start it at boot.
    pub enabled: bool,
    /// What starts it.
    pub start: String,
    /// The test of its configuration and the first thing that it complains of, where it fails.
    pub broken: Option<(String, String)>,
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

/// Those that are installed. The configuration of one that runs is not tested: it has been read.
pub(super) fn installed(cx: &Context<'_>) -> Vec<Installed> {
    let host = cx.session.host;
    let processes = cx.listeners.iter().flatten().flat_map(|s| &s.programs);
    let running: Vec<&str> = processes.map(|p| p.name.as_str()).collect();
    let there = KNOWN.iter().filter(|s| s.programs.iter().any(|p| host.program(p).is_some()));
    there
        .map(|server| {
            let runs = server.processes.iter().any(|p| running.contains(p));
            let service = server.services.iter().find(|s| has_unit(host, s)).unwrap_or(&server.services[0]);
            let start = if host.exists(Path::new("/run/systemd/system")) {
                format!("systemctl start {service}")
            } else {
                format!("service {service} start")
            };
            let enabled = host.exists(&Path::new("/etc/systemd/system/multi-user.target.wants").join(unit(service)));
            let broken = if runs { None } else { server.test.and_then(|test| complaint(host, &test)) };
            Installed { server, runs, enabled, start, broken }
        })
        .collect()
}

fn unit(service: &str) -> String {
    format!("{service}.service")
}

fn has_unit(host: &dyn Look, service: &str) -> bool {
    let folders = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    folders.iter().any(|f| host.exists(&Path::new(f).join(unit(service))))
        || host.exists(&Path::new("/etc/init.d").join(service))
}

fn complaint(host: &dyn Look, test: &[&str]) -> Option<(String, String)> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let program = test.first().filter(|p| host.program(p).is_some())?;
    tracing::debug!("testing the configuration with {program}");
    let said = host.run(test, PATIENCE).ok()?;
    first_error(&said).map(|e| (test.join(" "), e))
}

/// What a configuration test complains of first; nothing where it passes, or where it only lacks the right to read.
fn first_error(said: &Output) -> Option<String> {
    if said.ok() {
        return None;
    }
    let text = format!("{}\n{}", String::from_utf8_lossy(&said.stderr), String::from_utf8_lossy(&said.stdout));
    if text.contains("ermission denied") {
        return None;
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    // Warnings may come before. Apache says on one line where, and on the next what.
    let grave = |l: &&str| {
        let words = ["[emerg]", "[alert]", "[crit]", "yntax error", "AH0"];
        words.iter().any(|w| l.contains(w)) && !l.contains("AH00558") && !l.contains("Warning:")
    };
    let first = lines.iter().position(grave).unwrap_or(0);
    let mut error = (*lines.get(first)?).to_owned();
    if error.ends_with(':')
        && let Some(what) = lines.get(first + 1)
    {
        error = format!("{error} {what}");
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::look_only::is_look_only;

    fn said(status: i32, stderr: &str) -> Option<String> {
        first_error(&Output { status: Some(status), stdout: Vec::new(), stderr: stderr.into() })
    }

    #[test]
    fn the_first_error_is_quoted_whole() {
        let nginx = "nginx: [warn] conflicting server name \"a\" on 0.0.0.0:80, ignored\n\
                     nginx: [emerg] unknown directive \"lisen\" in /etc/nginx/sites-enabled/shop:2\n\
                     nginx: configuration file /etc/nginx/nginx.conf test failed\n";
        assert_eq!(
            said(1, nginx).unwrap(),
            "nginx: [emerg] unknown directive \"lisen\" in /etc/nginx/sites-enabled/shop:2"
        );
        let apache = "AH00558: apache2: Could not reliably determine the server's fully qualified domain name\n\
                      AH00526: Syntax error on line 3 of /etc/apache2/sites-enabled/shop.conf:\n\
                      Invalid command 'Lisen', perhaps misspelled\nAction '-t' failed.\n";
        assert_eq!(
            said(1, apache).unwrap(),
            "AH00526: Syntax error on line 3 of /etc/apache2/sites-enabled/shop.conf: Invalid command 'Lisen', \
             perhaps misspelled"
        );
    }

    #[test]
    fn a_test_that_passes_or_may_not_read_complains_of_nothing() {
        assert_eq!(said(0, "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n"), None);
        let denied = "nginx: [emerg] open() \"/etc/ssl/key.pem\" failed (13: Permission denied)\n";
        assert_eq!(said(1, denied), None);
    }

    #[test]
    fn every_test_is_known_to_only_look() {
        for test in KNOWN.iter().filter_map(|s| s.test) {
            assert!(is_look_only(&test), "{test:?}");
        }
    }
}
