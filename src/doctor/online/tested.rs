//! Testing the configurations of web servers, with what these have for it.
//!
//! `apachectl -t` changes nothing where Apache runs. `nginx -t` makes the logs, folders and the pid file that the
//! configuration names, and gives folders to its user: where it runs, they are there and his, unless the configuration was
//! changed since. So that is looked at before, and then it is tested as nobody: that finds every error of syntax, before it
//! ends at a key or at the pid file, which only root may open, and makes nothing.
//!
//! Belongs here: running the tests, and when that changes nothing. Does not: what it means (`lacking`).

use std::{path::Path, time::Duration};

use super::servers::{Server, masters};
use crate::{
    doctor::{
        Context,
        directives::{Directive, Said},
    },
    host::{Look, Output, Process},
};

/// What a test complains of, or why there was none.
type Tested = (Option<(String, String)>, Option<String>);

/// `nginx -t` without the rights to make or change anything: 65534 is nobody's number everywhere.
const AS_NOBODY: [&str; 6] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "nginx", "-t"];

/// Tests the configuration that a server which runs would read next.
pub(super) fn running(cx: &Context<'_>, server: &Server, own: &[&Process]) -> Tested {
    let host = cx.session.host;
    let Some(test) = server.test.filter(|_| host.may_administer()) else { return (None, None) };
    // Another file than the test reads, another build than it, or several of them.
    let mut masters = masters(own);
    let (Some(master), None) = (masters.next(), masters.next()) else { return (None, None) };
    if !is_ordinary(&master.title) {
        return (None, None);
    }
    match server.name {
        "nginx" => {
            let worker = own.iter().find(|p| p.parent == master.pid);
            let said = cx.configs.nginx();
            let changes = would_make(host, said).or_else(|| would_give(host, said, worker?.pid));
            match changes.map(|what| (grave(complaint(host, &AS_NOBODY)), what)) {
                Some((Some((_, complaint)), _)) => (Some((test.join(" "), complaint)), None),
                Some((None, what)) => (None, Some(what)),
                None => (grave(complaint(host, &test)), None),
            }
        }
        // It has been asked for its files already, and complains then.
        _ if cx.configs.apache().directives.is_empty() => (grave(complaint(host, &test)), None),
        _ => (None, None),
    }
}

/// Of a server that runs, only what is surely about its configuration.
fn grave(complaint: Option<(String, String)>) -> Option<(String, String)> {
    complaint.filter(|(_, what)| ["[emerg]", "yntax error", "AH0"].iter().any(|sign| what.contains(sign)))
}

/// Whether a server was started from the system's folders, without another configuration than the test reads.
fn is_ordinary(title: &str) -> bool {
    const ELSEWHERE: [&str; 4] = ["-c", "-p", "-f", "-d"];
    const FOLDERS: [&str; 4] = ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"];
    title.split_whitespace().all(|word| {
        let is_option = ELSEWHERE.iter().any(|option| word.starts_with(option));
        !is_option && (!word.starts_with('/') || FOLDERS.iter().any(|folder| word.starts_with(folder)))
    })
}

/// The first file or folder that `nginx -t` would make.
fn would_make(host: &dyn Look, said: &Said) -> Option<String> {
    let names_path = |d: &&Directive| {
        let name = d.words.first().map_or("", String::as_str);
        matches!(name, "access_log" | "error_log" | "pid")
            || name.ends_with("_temp_path")
            || name.ends_with("_cache_path")
    };
    // A path with variables is opened when somebody visits.
    let paths = said.directives.iter().filter(names_path).map(Directive::value);
    let mut paths = paths.filter(|path| path.starts_with('/') && !path.contains('$'));
    paths.find(|path| !host.exists(Path::new(path))).map(|path| format!("it would make {path}"))
}

/// The user whom `nginx -t` would give folders that the workers need, because it isn't theirs.
fn would_give(host: &dyn Look, said: &Said, worker: u32) -> Option<String> {
    let text = |path: &str| host.file(Path::new(path)).ok().flatten();
    let user = said.directives.iter().find(|d| d.is("user"))?.value();
    let status = text(&format!("/proc/{worker}/status"))?.content;
    let passwd = text("/etc/passwd")?.content;
    let status = String::from_utf8_lossy(&status).into_owned();
    let own = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next())?.to_owned();
    let passwd = String::from_utf8_lossy(&passwd).into_owned();
    let wanted = passwd.lines().find_map(|l| l.strip_prefix(user)?.strip_prefix(':')?.split(':').nth(1))?;
    (wanted != own).then(|| format!("it would give nginx's folders to {user}, whose the workers aren't yet"))
}

/// The test, and what it complains of first; nothing where it passes or can't be run.
pub(super) fn complaint(host: &dyn Look, test: &[&str]) -> Option<(String, String)> {
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
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    // Warnings may come before. Apache says on one line where, and on the next what.
    let grave = |l: &&str| {
        let words = ["[emerg]", "[alert]", "[crit]", "yntax error", "AH0"];
        words.iter().any(|w| l.contains(w)) && !l.contains("AH00558") && !l.contains("Warning:")
    };
    // nginx goes on where it may not write its log, and ends at the first error.
    let denied = |l: &&str| l.contains("ermission denied");
    let first = lines.iter().position(|l| grave(l) && !denied(l));
    if first.is_none() && lines.iter().any(denied) {
        return None;
    }
    let first = first.unwrap_or(0);
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
        let log = "nginx: [alert] could not open error log file: open() \"/x\" failed (13: Permission denied)\n";
        assert_eq!(said(1, &format!("{log}{denied}")), None);
        let emerg = "[emerg] 3#3: unknown directive \"lisen\" in /etc/nginx/sites-enabled/shop:2";
        assert_eq!(said(1, &format!("{log}{emerg}\n")).unwrap(), emerg);
    }

    #[test]
    fn nobodys_test_is_known_to_only_look() {
        assert!(crate::host::look_only::is_look_only(&AS_NOBODY));
    }

    #[test]
    fn only_an_ordinary_server_reads_what_the_test_reads() {
        for (title, is) in [
            ("nginx: master process nginx", true),
            ("nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", true),
            ("nginx: master process /usr/sbin/nginx -c /srv/nginx.conf", false),
            ("nginx: master process /opt/gitlab/embedded/sbin/nginx -p /var/opt/gitlab/nginx", false),
            ("/usr/sbin/apache2 -k start", true),
            ("/usr/sbin/httpd -DFOREGROUND", true),
            ("/usr/sbin/httpd -f/srv/httpd.conf", false),
        ] {
            assert_eq!(is_ordinary(title), is, "{title}");
        }
    }

    #[test]
    fn a_test_of_nginxs_is_not_run_where_it_would_make_a_file() {
        let host = crate::host::Machine::new();
        let made = |text: &str| would_make(&host, &crate::doctor::directives::tests::said_by_nginx(text));
        let there = "http { access_log off; access_log /var/log/$host.log; error_log /dev/null; error_log syslog:server=x; \
                     pid /proc/self/stat; }";
        assert_eq!(made(there), None);
        assert_eq!(made("http { server { access_log /nowhere/a.log; } }").unwrap(), "it would make /nowhere/a.log");
        assert!(made("http { proxy_cache_path /nowhere/cache keys_zone=a:1m; }").is_some());
    }
}
