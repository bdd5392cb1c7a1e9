//! Whole logs in, findings out, on a host in memory.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    error::Result,
    host::{FileSeen, Output},
    report::Finds,
};

const NOW: &str = "2026-11-22T18:30:00Z";
const EDGE: &str = "173.245.48.29";
const STRANGER: &str = "203.0.113.9";
/// This host's own address.
const OWN: &str = "192.0.2.1";

#[derive(Default)]
struct Host {
    files: BTreeMap<PathBuf, Vec<u8>>,
    journal: Option<String>,
    input: &'static str,
}

impl Host {
    fn with(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.into(), content.as_ref().to_vec());
        self
    }
}

impl Look for Host {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let seen = |content: &Vec<u8>| FileSeen {
            content: Arc::from(content.as_slice()),
            mode: 0o640,
            owner: (0, 0),
            symlink: false,
        };
        Ok(self.files.get(path).map(seen))
    }
    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        let of_it = self.files.keys().filter(|p| p.parent() == Some(path));
        Ok(of_it.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        self.journal.is_some().then(|| name.into())
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        assert!(crate::host::look_only::is_look_only(argv), "{argv:?}");
        let stdout = self.journal.clone().unwrap_or_default().into_bytes();
        Ok(Output { status: Some(0), stdout, stderr: vec![] })
    }
    fn standard_input(&self) -> Box<dyn Read> {
        Box::new(self.input.as_bytes())
    }
    fn may_administer(&self) -> bool {
        false
    }
}

fn seen(host: &Host, given: &[&str]) -> Seen {
    let edge = Prefixes::new(vec!["173.245.48.0/20".parse().unwrap()], vec!["2400:cb00::/32".parse().unwrap()]);
    let given: Vec<PathBuf> = given.iter().map(PathBuf::from).collect();
    Ask {
        host,
        configs: &Configs::new(host),
        edge: &edge,
        ports: &[80, 443].into(),
        own: &[OWN.parse().unwrap()].into(),
        given: &given,
        since: SignedDuration::from_hours(24),
        now: NOW.parse().unwrap(),
        progress: &|_| {},
    }
    .read()
}

/// Ids and verdicts, without what is said of every host.
fn found(host: &Host, given: &[&str]) -> Vec<(&'static str, Finds)> {
    let findings = judge(&seen(host, given), &Present::default());
    let plain = ["logs.read", "logs.none", "logs.no-system-log"];
    findings.iter().filter(|f| !plain.contains(&f.id)).map(|f| (f.id, f.verdict)).collect()
}

/// A line of each kind that names an address, with `{}` for it: the id of what is found, where it is logged, the line.
const ADDRESSED: [(&str, &str, &str); 31] = [
    (
        "logs.nginx-denies",
        "/var/log/nginx/error.log",
        "2026/11/22 18:00:00 [error] 1234#1234: *1 access forbidden by rule, client: {}, server: example.com, request: \"GET /a?b=c HTTP/1.1\", host: \"example.com\"",
    ),
    (
        "logs.nginx-denies",
        "/var/log/syslog",
        "Nov 22 18:00:00 web nginx: 2026/11/22 18:00:00 [error] 1#1: *1 access forbidden by rule, client: {}, server: _, request: \"GET / HTTP/1.1\", host: \"a\"",
    ),
    (
        "logs.nginx-limits",
        "/var/log/nginx/site.error.log",
        "2026/11/22 18:00:00 [error] 1234#1234: *1 limiting requests, excess: 5.020 by zone \"one\", client: {}, server: , request: \"GET / HTTP/1.1\", host: \"a\"",
    ),
    (
        "logs.nginx-limits",
        "/usr/local/nginx/logs/error.log",
        "2026/11/22 18:00:00 [error] 1234#0: *1 limiting connections by zone \"addr\", client: {}, server: a, request: \"GET / HTTP/1.1\", host: \"a\"",
    ),
    (
        "logs.modsecurity",
        "/var/log/nginx/error.log",
        "2026/11/22 18:00:00 [error] 9#9: *78 [client {}] ModSecurity: Access denied with code 403 (phase 2). Matched \"Operator `Ge' with parameter `5' against variable `TX:ANOMALY_SCORE' (Value: `5' ) [file \"/x\"] [line \"80\"] [id \"949110\"] [msg \"Inbound\"] [uri \"/\"], client: {}, server: a, request: \"GET / HTTP/1.1\"",
    ),
    (
        "logs.apache-denies",
        "/var/log/apache2/error.log",
        "[Sun Nov 22 18:00:00.123456 2026] [authz_core:error] [pid 12:tid 140] [client {}:50000] AH01630: client denied by server configuration: /var/www/html/",
    ),
    (
        "logs.apache-denies",
        "/var/log/httpd/error_log",
        "[Sun Nov 22 18:00:00 2026] [error] [client {}] client denied by server configuration: /var/www/html/a, referer: http://b/",
    ),
    (
        "logs.apache-denies",
        "/usr/local/apache/logs/error_log",
        "[Sun Nov 22 18:00:00.123456 2026] [access_compat:error] [pid 12] [client {}:50000] AH01797: client denied by server configuration: /home2/a/public_html/",
    ),
    (
        "logs.modsecurity",
        "/usr/local/apache/logs/error_log",
        "[Sun Nov 22 18:00:00.123456 2026] [:error] [pid 12:tid 140] [client {}:50000] [client {}] ModSecurity: Access denied with code 406 (phase 2). Pattern match \"x\" at ARGS:a. [file \"/x\"] [line \"1\"] [id \"210492\"] [msg \"m\"] [hostname \"a\"] [uri \"/x\"] [unique_id \"q\"]",
    ),
    (
        "logs.litespeed-denies",
        "/usr/local/lsws/logs/error.log",
        "2026-11-22 18:00:00.123456 [INFO] [1234] [{}:50000#example.com] [ACL] Access to context [/] is denied!",
    ),
    (
        "logs.litespeed-denies",
        "/usr/local/lsws/logs/error.log",
        "2026-11-22 18:00:00.123 [INFO] [{}:50000:HTTP2-1#APVH_a][ACL] Access to context [/] is denied!",
    ),
    (
        "logs.litespeed-limits",
        "/usr/local/lsws/logs/error.log",
        "2026-11-22 18:00:00.123456 [NOTICE] [1234] [{}] is over per client soft connection limit: 10 for 15 seconds, close connection!",
    ),
    (
        "logs.modsecurity",
        "/usr/local/lsws/logs/error.log",
        "2026-11-22 18:00:00.123456 [NOTICE] [1234] [{}:50000#APVH_a] ModSecurity: Access denied with code 403, [Rule: 'ARGS'] [id \"12\"]",
    ),
    (
        "logs.mod-evasive",
        "/var/log/syslog",
        "Nov 22 18:00:00 web mod_evasive[1234]: Blacklisting address {}: possible DoS attack.",
    ),
    (
        "logs.mod-evasive",
        "/var/log/apache2/error.log",
        "[Sun Nov 22 18:00:00.123456 2026] [evasive20:warn] [pid 1:tid 2] [client {}:5] Blacklisting address {}: possible DoS attack.",
    ),
    (
        "logs.packets",
        "/var/log/kern.log",
        "Nov 22 18:00:00 web kernel: [12345.678901] [UFW BLOCK] IN=eth0 OUT= MAC=00:11 SRC={} DST=192.0.2.1 LEN=60 TOS=0x00 PREC=0x00 TTL=50 ID=1 DF PROTO=TCP SPT=5 DPT=443 WINDOW=64240 RES=0x00 SYN URGP=0",
    ),
    (
        "logs.packets",
        "/var/log/messages-20261122",
        "Nov 22 18:00:00 web kernel: Firewall: *TCP_IN Blocked* IN=eth0 OUT= MAC=00:11 SRC={} DST=192.0.2.1 LEN=60 PROTO=TCP SPT=5 DPT=80 WINDOW=64240 RES=0x00 SYN URGP=0",
    ),
    (
        "logs.packets",
        "/var/log/syslog",
        "2026-11-22T18:00:00.123456+00:00 web kernel: filter_IN_public_REJECT: IN=eth0 OUT= SRC={} DST=192.0.2.1 PROTO=TCP SPT=5 DPT=80 SYN URGP=0",
    ),
    (
        "logs.fail2ban",
        "/var/log/fail2ban.log",
        "2026-11-22 18:00:00,123 fail2ban.actions        [1234]: NOTICE  [nginx-http-auth] Ban {}",
    ),
    (
        "logs.fail2ban",
        "/var/log/fail2ban.log.1",
        "2026-11-22 18:00:00,123 fail2ban.actions        [1234]: NOTICE  [door] Restore Ban {}",
    ),
    ("logs.fail2ban", "/var/log/messages", "Nov 22 18:00:00 web fail2ban.actions[1234]: NOTICE [door] Ban {}"),
    (
        "logs.fail2ban",
        "/var/log/messages",
        "Nov 22 18:00:00 web fail2ban-server[12]: 2026-11-22 18:00:00,1 fail2ban.actions [12]: NOTICE [door] Ban {}",
    ),
    (
        "logs.lfd",
        "/var/log/lfd.log",
        "Nov 22 18:00:00 web lfd[1234]: (mod_security) mod_security (id:210492) triggered by {} (US/United States/-): 5 in the last 3600 secs - *Blocked in csf* [LF_MODSEC]",
    ),
    (
        "logs.lfd",
        "/var/log/lfd.log",
        "Nov 22 18:00:00 web lfd[1234]: (CT) IP {} (US/United States/-) found to have 301 connections - *Blocked in csf* for 1800 secs [CT_LIMIT]",
    ),
    (
        "logs.lfd",
        "/var/log/lfd.log",
        "Nov 22 18:00:00 web lfd[1]: {} (US/United States/-), 5 distributed sshd attacks on account [root] in the last 3600 secs - *Blocked in csf* [LF_DISTATTACK]",
    ),
    (
        "logs.unanswered",
        "/var/log/nginx/access.log",
        "{} - - [22/Nov/2026:18:00:00 +0000] \"GET / HTTP/1.1\" 444 0 \"-\" \"Mozilla\" \"8d3f1c2b4a5e6f70-FRA\"",
    ),
    (
        "logs.unanswered",
        "/var/log/apache2/other_vhosts_access.log",
        "a.example:80 {} - bob [22/Nov/2026:19:00:00 +0100] \"GET / HTTP/1.1\" 444 0 \"-\" \"Mozilla\"",
    ),
    (
        "logs.iis-denies",
        "/var/log/nginx/from-iis.log",
        "#Software: IIS\n#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) cs(Referer) sc-status sc-substatus sc-win32-status time-taken\n2026-11-22 18:00:00 10.0.0.1 GET / a=b 443 - {} Mozilla/5.0 - 403 6 0 15",
    ),
    (
        "logs.mod-evasive",
        "/var/log/apache2/error.log",
        "[Sun Nov 22 18:00:00.960586 2026] [evasive20:error] [pid 35:tid 45] [client {}:52945] client denied by server configuration: /var/www/html/index.html",
    ),
    (
        "logs.litespeed-limits",
        "/usr/local/lsws/logs/error.log",
        "2026-11-22 18:00:00.123456 [NOTICE] [1234] [{}] Reached per client connection hard limit: 100, close connection!",
    ),
    (
        "logs.packets",
        "/var/log/kern.log",
        "[Sun Nov 22 18:00:00 2026] [UFW BLOCK] IN=eth0 OUT= MAC=00:11 SRC={} DST=192.0.2.1 LEN=60 TOS=0x00 PREC=0x00 TTL=50 ID=1 DF PROTO=TCP SPT=5 DPT=443 WINDOW=64240 RES=0x00 SYN URGP=0",
    ),
];

#[test]
fn each_line_about_cloudflare_is_found_and_the_same_about_a_stranger_is_not() {
    for (id, path, line) in ADDRESSED {
        for edge in [EDGE, "2400:cb00::9", "::ffff:173.245.48.29"] {
            let host = Host::default().with(path, line.replace("{}", edge) + "\r\n");
            let verdict = if id == "logs.unanswered" { Finds::Note } else { Finds::Warning };
            assert_eq!(found(&host, &[]), [(id, verdict)], "{line} {edge}");
            let seen = seen(&host, &[]);
            let (kind, tally) = seen.tallies.first_key_value().unwrap();
            let (_, client, count) = tally.by_count()[0];
            assert_eq!(client.unwrap(), edge.parse::<std::net::IpAddr>().unwrap().to_canonical());
            assert_eq!(count.first.to_string(), "2026-11-22T18:00:00Z".parse::<Timestamp>().unwrap().to_string());
            assert!(count.example.contains(":00:00") && !count.example.contains("b=c"), "{kind:?} {}", count.example);
        }
        let host = Host::default().with(path, line.replace("{}", STRANGER));
        assert_eq!(found(&host, &[]), [], "{line}");
        let old = line.replace("{}", EDGE).replace("2026-11-22", "2026-11-20").replace("Nov 22", "Nov 20");
        let old = old.replace("2026/11/22", "2026/11/20").replace("22/Nov", "20/Nov");
        assert_eq!(found(&Host::default().with(path, old), &[]), [], "too old: {line}");
    }
}

#[test]
fn what_is_about_nobody_is_found() {
    for (id, path, line) in [
        (
            "logs.syn-flood",
            "/var/log/kern.log",
            "Nov 22 18:00:00 web kernel: [1.2] TCP: request_sock_TCP: Possible SYN flooding on port 443. Sending cookies.  Check SNMP counters.",
        ),
        (
            "logs.syn-flood",
            "/var/log/messages",
            "Nov 22 18:00:00 web kernel: TCP: request_sock_TCP: Possible SYN flooding on port [::]:80. Sending cookies.",
        ),
        (
            "logs.conntrack",
            "/var/log/kern.log",
            "Nov 22 18:00:00 web kernel: [1.2] nf_conntrack: nf_conntrack: table full, dropping packet",
        ),
        ("logs.orphans", "/var/log/kern.log", "Nov 22 18:00:00 web kernel: [1.2] TCP: too many orphaned sockets"),
        ("logs.open-files", "/var/log/kern.log", "Nov 22 18:00:00 web kernel: [1.2] VFS: file-max limit 812 reached"),
        (
            "logs.open-files",
            "/var/log/nginx/error.log",
            "2026/11/22 18:00:00 [crit] 1#1: accept4() failed (24: Too many open files)",
        ),
        (
            "logs.open-files",
            "/var/log/nginx/error.log",
            "2026/11/22 18:00:00 [crit] 1#1: *3 open() \"/x\" failed (24: Too many open files), client: 203.0.113.9, server: a",
        ),
        (
            "logs.open-files",
            "/var/log/apache2/error.log",
            "[Sun Nov 22 18:00:00.1 2026] [mpm_event:error] [pid 1:tid 2] (24)Too many open files: AH00045: x",
        ),
        (
            "logs.out-of-memory",
            "/var/log/kern.log",
            "Nov 22 18:00:00 web kernel: [1.2] Out of memory: Killed process 1234 (php-fpm8.2) total-vm:1kB, anon-rss:2kB",
        ),
        (
            "logs.out-of-memory",
            "/var/log/messages",
            "2026-11-22T18:00:00Z web kernel: Memory cgroup out of memory: Killed process 1234 (nginx) total-vm:1kB, anon-rss:2kB",
        ),
        (
            "logs.worker-connections",
            "/var/log/nginx/error.log",
            "2026/11/22 18:00:00 [alert] 1#1: *4 1024 worker_connections are not enough while connecting to upstream, client: 203.0.113.9",
        ),
        (
            "logs.workers",
            "/var/log/apache2/error.log",
            "[Sun Nov 22 18:00:00.1 2026] [mpm_event:error] [pid 1:tid 2] AH00484: server reached MaxRequestWorkers setting, consider raising the MaxRequestWorkers setting",
        ),
        (
            "logs.workers",
            "/var/log/php8.4-fpm.log",
            "[22-Nov-2026 18:00:00] WARNING: [pool www] server reached pm.max_children setting (5), consider raising it",
        ),
    ] {
        assert_eq!(found(&Host::default().with(path, line), &[]), [(id, Finds::Warning)], "{line}");
    }
}

#[test]
fn what_happens_on_every_healthy_host_is_no_warning() {
    let nginx = |path: &str| {
        format!(
            "2026/11/22 18:00:00 [error] 1#1: *1 access forbidden by rule, client: {EDGE}, server: a, request: \"GET {path} HTTP/1.1\", host: \"a\"\n"
        )
    };
    let host = Host::default()
        .with("/var/log/nginx/error.log", nginx("/.git/config") + &nginx("/wp/xmlrpc.php") + &nginx("/a/.env?x"))
        .with("/var/log/nginx/access.log", format!("{EDGE} - - [22/Nov/2026:18:00:00 +0000] \"GET /x HTTP/1.1\" 404 153 \"-\" \"-\"\n"))
        .with(
            "/var/log/kern.log",
            format!(
                "Nov 22 18:00:00 w kernel: [UFW BLOCK] IN=eth0 OUT= SRC={EDGE} DST=1.2.3.4 PROTO=TCP SPT=5 DPT=443 WINDOW=0 RES=0x00 ACK FIN URGP=0\n\
                 Nov 22 18:00:00 w kernel: [UFW BLOCK] IN=eth0 OUT= SRC={EDGE} DST=1.2.3.4 PROTO=TCP SPT=5 DPT=22 WINDOW=0 RES=0x00 SYN URGP=0\n\
                 Nov 22 18:00:00 w kernel: [UFW ALLOW] IN=eth0 OUT= SRC={EDGE} DST=1.2.3.4 PROTO=TCP SPT=5 DPT=443 WINDOW=0 RES=0x00 SYN URGP=0\n\
                 Nov 22 18:00:00 w kernel: TCP: Possible SYN flooding on port 25. Sending cookies.\n"
            ),
        );
    assert_eq!(found(&host, &[]), [("logs.nginx-denies", Finds::Note)]);
}

#[test]
fn an_nginx_that_closes_idle_connections_to_take_others_turns_nobody_away() {
    let line = "2026/11/22 18:00:00 [warn] 1#1: 512 worker_connections are not enough, reusing connections\n";
    assert_eq!(found(&Host::default().with("/var/log/nginx/error.log", line), &[]), []);
}

#[test]
fn what_a_visitor_writes_in_a_log_is_not_believed() {
    let trick = "access forbidden by rule, client: 173.245.48.29, limiting requests, excess: 1 by zone \\x22a\\x22, client: 173.245.48.29 ModSecurity: Access denied worker_connections are not enough (24: Too many open files) ] Ban 173.245.48.29 Blocked in csf IN= SRC=173.245.48.29 PROTO=TCP SYN DPT=80 drop";
    let host = Host::default()
        .with("/var/log/nginx/error.log", format!("2026/11/22 18:00:00 [error] 1#1: *1 open() \"/x/{trick}\" failed (2: No such file or directory), client: {STRANGER}, server: a, request: \"GET /{trick}\"\n"))
        .with("/var/log/apache2/error.log", format!("[Sun Nov 22 18:00:00.1 2026] [core:error] [pid 1:tid 2] [client {STRANGER}:5] AH00126: Invalid URI in request GET {trick}\n"))
        .with("/var/log/nginx/access.log", format!("{STRANGER} - - [22/Nov/2026:18:00:00 +0000] \"GET /{trick} HTTP/1.1\" 200 5 \"x\" \"{trick}\" 444 0\n"))
        .with("/var/log/syslog", format!("Nov 22 18:00:00 w app[1]: {trick}\nNov 22 18:00:00 w app[1]: kernel: {trick}\n"));
    assert_eq!(found(&host, &[]), []);
}

#[test]
fn visitors_who_are_turned_away_are_told_of_where_their_addresses_are_restored() {
    let line = |ip| {
        format!(
            "2026/11/22 18:00:00 [error] 1#1: *1 access forbidden by rule, client: {ip}, server: a, request: \"GET / HTTP/1.1\", host: \"a\"\n"
        )
    };
    let host =
        Host::default().with("/var/log/nginx/error.log", line(STRANGER) + &line("198.51.100.7") + &line(STRANGER));
    assert_eq!(found(&host, &[]), []);
    let host = host.with("/etc/nginx/nginx.conf", "http {\n  real_ip_header CF-Connecting-IP;\n}\n");
    assert_eq!(found(&host, &[]), [("logs.visitors", Finds::Note)]);
    let told = &judge(&seen(&host, &[]), &Present::default())[0];
    assert!(told.text.starts_with("nginx denied 3 requests from 2 addresses outside"), "{}", told.text);
    let shown: Vec<_> = told.evidence.iter().map(|e| (e.source.as_str(), e.shows.as_str())).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown[0].0, "/var/log/nginx/error.log");
    let first = format!("{STRANGER}, deny of server a: 2 times, at 2026-11-22T18:00:00Z: 2026/11/22 18:00:00 [error] ");
    assert!(shown[0].1.starts_with(&first), "{shown:?}");
    assert!(shown[1].1.starts_with("198.51.100.7, deny of server a: once, "), "{shown:?}");
    assert_eq!(shown[2], ("/etc/nginx/nginx.conf line 2", "real_ip_header"));
}

#[test]
fn the_present_is_for_other_rooms() {
    let host = Host::default()
        .with("/var/log/kern.log", ADDRESSED[15].2.replace("{}", EDGE))
        .with("/var/log/fail2ban.log", ADDRESSED[18].2.replace("{}", EDGE));
    let present = Present { reach: true, backends: ["fail2ban".to_owned()].into(), ..Present::default() };
    let findings = judge(&seen(&host, &[]), &present);
    assert!(findings.iter().all(|f| f.verdict < Finds::Warning), "{findings:#?}");
    assert!(findings[0].text.ends_with("said under Firewall"), "{findings:#?}");
    // A file that was named may be of another host, of which no other room knows.
    let findings = judge(&seen(&host, &["/var/log/kern.log"]), &present);
    assert_eq!(findings[0].verdict, Finds::Warning, "{findings:#?}");
    // A ban that has ended.
    let unban = ADDRESSED[18].2.replace("{}", EDGE).replace("18:00", "18:10").replace("] Ban", "] Unban");
    let both = ADDRESSED[18].2.replace("{}", EDGE) + "\n" + &unban;
    assert_eq!(found(&Host::default().with("/var/log/fail2ban.log", both), &[]), [("logs.fail2ban", Finds::Note)]);
}

#[test]
fn counts_are_by_rule_and_address_with_first_and_last_time_and_ray() {
    let line = |time: &str, zone: &str, ip: &str| {
        format!(
            "2026/11/22 {time} [error] 1#1: *1 limiting requests, excess: 5.020 by zone \"{zone}\", client: {ip}, server: , request: \"GET /?secret HTTP/1.1\", host: \"a\", ray: \"8d3f1c2b4a5e6f70-FRA\"\n"
        )
    };
    let log = line("17:00:00", "one", EDGE)
        + &line("16:00:00", "one", EDGE)
        + &line("17:30:00", "two", EDGE)
        + &line("17:00:00", "one", "2400:cb00::9");
    let host = Host::default().with("/var/log/nginx/error.log", log);
    let findings = judge(&seen(&host, &[]), &Present::default());
    assert_eq!(findings[0].text, "nginx limited 4 requests from 2 addresses of Cloudflare in the last 24 h");
    let first = &findings[0].evidence[0];
    assert_eq!(first.source, "/var/log/nginx/error.log");
    let expected = "173.245.48.29, limit_req zone one: 2 times, from 2026-11-22T16:00:00Z to 2026-11-22T17:00:00Z, Ray ID \
                    8d3f1c2b4a5e6f70-FRA: 2026/11/22 17:00:00 [error] 1#1: *1 limiting requests, excess: 5.020 by zone \
                    \"one\", client: 173.245.48.29, server: , request: \"GET /?…\", host: \"a\", ray: \
                    \"8d3f1c2b4a5e6f70-FRA\"";
    assert_eq!(first.shows, expected);
    assert_eq!(findings[0].evidence.len(), 3);
}

#[test]
fn the_system_log_is_counted_once() {
    let packet = ADDRESSED[15].2.replace("{}", EDGE) + "\n";
    let ban = ADDRESSED[20].2.replace("{}", EDGE) + "\n";
    let both = packet.clone() + &ban;
    let host = Host::default()
        .with("/var/log/kern.log", &packet)
        .with("/var/log/syslog", &both)
        .with("/var/log/ufw.log", &packet)
        .with("/var/log/fail2ban.log", ADDRESSED[18].2.replace("{}", EDGE));
    let times = |host: &Host| {
        let seen = seen(host, &[]);
        (seen.tallies[&Kind::Packets].times, seen.tallies[&Kind::Bans].times)
    };
    assert_eq!(times(&host), (1, 1));
    let journal = packet.replace("Nov 22 18:00:00", "2026-11-22T18:00:00+0000");
    assert_eq!(times(&Host { journal: Some(journal), ..host }), (1, 1));
}

#[test]
fn packed_logs_are_unpacked_and_others_are_said() {
    use std::io::Write as _;
    let line = ADDRESSED[0].2.replace("{}", EDGE) + "\n";
    let packed = |text: &str| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        gz.finish().unwrap()
    };
    // Two members, as `cat a.gz b.gz` makes them.
    let host = Host::default().with("/var/log/nginx/error.log.2.gz", [packed(&line), packed(&line)].concat());
    assert_eq!(seen(&host, &[]).tallies[&Kind::NginxDenies].times, 2);
    let mut cut = packed(&line.repeat(1000));
    cut.truncate(cut.len() - 9);
    let host =
        Host::default().with("/var/log/nginx/error.log.2.gz", cut).with("/var/log/nginx/old.xz", b"\xfd7zXZ\0rest");
    assert_eq!(
        found(&host, &[]),
        [("logs.nginx-denies", Finds::Warning), ("logs.packed", Finds::Skipped), ("logs.unread", Finds::Skipped)]
    );
}

#[test]
fn what_nothing_here_unpacks_is_said_with_the_command_that_does() {
    let (xz, zstd) = (b"\xfd7zXZ\0rest", b"\x28\xb5\x2f\xfdrest");
    let host = Host::default()
        .with("/var/log/nginx/a.log.2.xz", xz)
        .with("/var/log/nginx/it's.xz", xz)
        // The name is nothing to go by.
        .with("/var/log/nginx/plain.xz", ADDRESSED[0].2.replace("{}", EDGE))
        .with("/a.zst", zstd)
        .with("/iis.log", b"\xff\xfe#\0F\0");
    let asked = Present { asked: vec!["shop.example".into(), "--mode full".into()], ..Present::default() };
    let findings = judge(&seen(&host, &["/a.zst", "/iis.log"]), &asked);
    let command = |f: &Finding| (f.verdict, f.fix.clone().and_then(|f| f.command).unwrap_or_default());
    let packed: Vec<_> = findings.iter().filter(|f| f.id == "logs.packed").map(command).collect();
    assert_eq!(
        packed,
        [
            (
                Finds::Skipped,
                r#"xzcat /var/log/nginx/a.log.2.xz "/var/log/nginx/it's.xz" | edgeallow doctor shop.example --mode full --log -"#
                    .to_owned()
            ),
            (Finds::Warning, "zstdcat /a.zst | edgeallow doctor shop.example --mode full --log -".to_owned()),
            (
                Finds::Warning,
                "iconv -f UTF-16 -t UTF-8 /iis.log | edgeallow doctor shop.example --mode full --log -".to_owned()
            ),
        ]
    );
    assert_eq!(findings[0].id, "logs.nginx-denies");
}

#[test]
fn standard_input_is_a_log_if_it_was_named() {
    let line =
        "2026/11/22 18:00:00 [error] 1#0: *1 limiting connections by zone \"a\", client: 173.245.48.29, server: a";
    let host = Host { input: line, ..Host::default() };
    assert_eq!(found(&host, &["-"]), [("logs.nginx-limits", Finds::Warning)]);
    assert_eq!(seen(&host, &["-"]).tallies[&Kind::NginxLimits].times, 1);
    assert_eq!(found(&host, &[]), []);
    // A file of that name is none that was named.
    let host = Host { input: "\u{28}", ..Host::default() }.with("-", line);
    assert_eq!(found(&host, &["-"]), []);
}

#[test]
fn what_doctor_asked_itself_is_left_out_and_what_others_of_this_host_asked_is_not() {
    let denied = |time: &str, ip: &str| ADDRESSED[0].2.replace("{}", ip).replace("18:00:00", time) + "\n";
    let asked = |time: &str, ip: &str, agent: &str| {
        format!("{ip} - - [22/Nov/2026:{time} +0000] \"GET / HTTP/1.1\" 403 153 \"-\" \"{agent}\"\n")
    };
    let masked = Host::default().with("/etc/nginx/nginx.conf", "http { real_ip_header CF-Connecting-IP; }");
    let visitors = |host: &Host| {
        let seen = seen(host, &[]);
        assert!(!seen.tallies.contains_key(&Kind::Own));
        seen.visitors.values().map(|t| t.times).sum::<u64>()
    };
    let host = |errors: String, access: String| {
        let host = Host { files: masked.files.clone(), ..Host::default() };
        visitors(&host.with("/var/log/nginx/error.log", errors).with("/var/log/nginx/z.access.log", access))
    };
    let ours = "edgeallow/0.1.0";
    // Since doctor began; before, by the access log; and nothing else of this host's.
    assert_eq!(host(denied("18:30:00", OWN) + &denied("18:30:01", "127.0.0.1"), String::new()), 0);
    assert_eq!(host(denied("17:00:00", OWN), asked("17:00:01", OWN, ours)), 0);
    assert_eq!(host(denied("17:00:00", OWN), asked("17:00:00", OWN, "curl/8")), 1);
    assert_eq!(host(denied("17:00:00", "127.0.0.1"), asked("17:00:00", OWN, ours)), 1);
    assert_eq!(host(denied("17:00:00", OWN), asked("17:00:09", OWN, ours)), 1);
    // Nobody hides behind our name.
    assert_eq!(host(denied("18:30:00", STRANGER), asked("18:30:00", STRANGER, ours)), 1);
    let unanswered = |ip: &str| asked("17:00:00", ip, ours).replace(" 403 ", " 444 ");
    assert_eq!(host(String::new(), unanswered(OWN)), 0);
    let through_the_edge = Host::default().with("/var/log/nginx/access.log", unanswered(EDGE));
    assert_eq!(found(&through_the_edge, &[]), [("logs.unanswered", Finds::Note)]);
}

#[test]
fn a_file_that_is_not_there_is_said_if_it_was_named() {
    assert_eq!(found(&Host::default(), &["/none.log"]), [("logs.not-read", Finds::Warning)]);
    let host = Host::default().with("/a.log", ADDRESSED[3].2.replace("{}", EDGE));
    assert_eq!(found(&host, &["/a.log", "/a.log"]), [("logs.nginx-limits", Finds::Warning)]);
    assert_eq!(seen(&host, &["/a.log", "/a.log"]).tallies[&Kind::NginxLimits].times, 1);
}

#[test]
fn addresses_beyond_all_count_are_counted_in_bounded_memory() {
    let line = |n: u32| ADDRESSED[3].2.replace("{}", &format!("2400:cb00::{n:x}")) + "\n";
    let log: String = (0..5000).map(line).collect();
    let seen = seen(&Host::default().with("/var/log/nginx/error.log", log), &[]);
    let tally = &seen.tallies[&Kind::NginxLimits];
    assert_eq!((tally.times, tally.by_count().len()), (5000, 2000));
    // What isn't told apart isn't told as if it were.
    let told = &judge(&seen, &Present::default())[0];
    assert_eq!(told.text, "nginx limited 5000 requests from 2000 or more addresses of Cloudflare in the last 24 h");
    assert_eq!(told.evidence.last().unwrap().shows, "and at least 1995 more like these");
}

#[test]
fn the_words_say_who_did_what_to_whom() {
    let told = |path: &str, line: &str| {
        let findings = judge(&seen(&Host::default().with(path, line), &[]), &Present::default());
        (findings[0].text.clone(), findings[0].verdict)
    };
    let litespeed = "2026-11-22 18:00:00.1 [NOTICE] [1] [173.245.48.29] Reached per client connection hard limit: 100, close connection!";
    assert_eq!(
        told("/usr/local/lsws/logs/error.log", litespeed).0,
        "LiteSpeed's limit for a client closed 1 connection from 1 address of Cloudflare in the last 24 h"
    );
    let kernel = |message: &str| told("/var/log/kern.log", &format!("Nov 22 18:00:00 web kernel: {message}\n"));
    assert_eq!(
        kernel("VFS: file-max limit 100000 reached").0,
        "the whole machine ran out of open files once in the last 24 h"
    );
    let killed =
        |name: &str| kernel(&format!("Out of memory: Killed process 1234 ({name}) total-vm:1kB, anon-rss:2kB"));
    assert_eq!(
        killed("apache2"),
        (
            "for want of memory the kernel killed a program that serves sites once in the last 24 h".to_owned(),
            Finds::Warning
        )
    );
    // Nothing of the site's, for all that is known.
    let (text, verdict) = killed("mysqld");
    assert!(text.starts_with("for want of memory the kernel killed a program, none that is known"), "{text}");
    assert_eq!(verdict, Finds::Note);
}

#[test]
fn the_time_that_was_asked_about_is_told_as_it_was_asked() {
    for (seconds, words) in [
        (1, "1 s"),
        (30, "30 s"),
        (90, "90 s"),
        (60, "1 min"),
        (5400, "90 min"),
        (3600, "1 h"),
        (86_400, "24 h"),
        (129_600, "36 h"),
        (172_800, "2 days"),
    ] {
        let seen = Seen { since: SignedDuration::from_secs(seconds), ..Seen::default() };
        let findings = judge(&seen, &Present::default());
        assert!(findings[0].text.contains(&format!("of the last {words} ")), "{}", findings[0].text);
    }
}

proptest! {
    #[test]
    fn no_log_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        found(&Host::default().with("/var/log/nginx/a", &bytes).with("/var/log/syslog", &bytes), &[]);
    }

    #[test]
    fn no_line_with_a_change_in_it_makes_it_panic(
        which in 0..ADDRESSED.len(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..12,
        new in "[ -~é\u{0}\"\\[\\]:?]{0,6}",
    ) {
        let line = ADDRESSED[which].2.replace("{}", EDGE);
        let mut letters: Vec<char> = line.chars().collect();
        let at = at.index(letters.len());
        letters.splice(at..(at + length).min(line.chars().count()), new.chars());
        let line: String = letters.into_iter().collect();
        found(&Host::default().with(ADDRESSED[which].1, line), &[]);
    }
}

#[test]
fn what_a_server_lacks_just_now_is_told_from_what_it_lacked_before() {
    const FILES: &str = "[crit] 7#7: accept4() failed (24: Too many open files)";
    const CONNECTIONS: &str = "[alert] 7#7: *69 64 worker_connections are not enough while connecting to upstream";
    let lately = |files, connections| {
        let log = format!("2026/11/22 {files} {FILES}\n2026/11/22 {connections} {CONNECTIONS}\n");
        let seen = seen(&Host::default().with("/var/log/nginx/error.log", log), &[]);
        let lately = Lately::of(&seen, NOW.parse().unwrap());
        (lately.open_files("nginx").cloned(), lately.connections(64).cloned(), lately.connections(128).cloned())
    };
    // Also what was logged because doctor asked.
    let (files, connections, others) = lately("18:28:30", "18:30:20");
    assert_eq!(files.unwrap().source, "/var/log/nginx/error.log");
    assert!(connections.unwrap().shows.starts_with("worker_connections 64: once, at 2026-11-22T18:30:20Z"));
    assert_eq!(others, None, "a limit that has been raised since");
    // An hour ago, and by a clock that is hours ahead.
    assert_eq!(lately("17:30:00", "21:30:00"), (None, None, None));
    let kernel = |at: &str| {
        let line = format!("Nov 22 {at} w kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n");
        Lately::of(&seen(&Host::default().with("/var/log/kern.log", line), &[]), NOW.parse().unwrap())
            .tracking()
            .cloned()
    };
    assert!(kernel("18:29:30").unwrap().shows.contains("table full, dropping packet"));
    assert_eq!(kernel("17:30:00"), None);
    let workers = |at: &str| {
        let line = format!(
            "[Sun Nov 22 {at}.1 2026] [mpm_event:error] [pid 1:tid 2] AH00484: server reached MaxRequestWorkers setting, consider raising the MaxRequestWorkers setting\n"
        );
        let seen = seen(&Host::default().with("/var/log/apache2/error.log", line), &[]);
        Lately::of(&seen, NOW.parse().unwrap()).workers().cloned()
    };
    assert!(workers("18:28:30").unwrap().shows.contains("AH00484"));
    assert_eq!(workers("17:30:00"), None);
}
