//! What was logged: by real programs where they run here, and as samples in `samples/` where they don't.
//!
//! The log room never calls itself the cause: what turns Cloudflare away now, another room sees.

use std::{fs, net::TcpListener, os::unix::net::UnixDatagram, thread::sleep, time::Duration};

use serde_json::Value;

use super::{doctor, resources, site, wait_until};
use crate::{
    above::{fail2ban, mod_evasive},
    lab::{EDGE4, EDGE6, Lab, OTHER_EDGE4, STRANGER4},
};

/// Further back than any sample.
const ALWAYS: [&str; 2] = ["--since", "36500d"];

/// The findings of this room, by id and verdict, but for what is said of every host.
fn logs(report: &Value) -> Vec<(String, String)> {
    let plain = ["logs.read", "logs.none", "logs.no-system-log"];
    let text = |f: &Value, what: &str| f[what].as_str().expect("text").to_owned();
    let all = report["findings"].as_array().expect("findings").iter().filter(|f| f["room"] == "logs");
    let all: Vec<_> = all.map(|f| (text(f, "id"), text(f, "verdict"))).collect();
    assert!(all.iter().all(|(_, verdict)| verdict != "cause"), "the past is no cause: {report:#}");
    all.into_iter().filter(|(id, _)| !plain.contains(&id.as_str())).collect()
}

fn expect(report: &Value, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(id, v)| ((*id).to_owned(), (*v).to_owned())).collect();
    assert_eq!(logs(report), expected, "{report:#}");
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id}: {report:#}"))
}

/// Everything that a finding shows.
fn shows(finding: &Value) -> String {
    let evidence = finding["evidence"].as_array().expect("evidence").iter();
    let text = |e: &Value, what: &str| e[what].as_str().expect("text").to_owned();
    evidence.map(|e| format!("{}: {}\n", text(e, "source"), text(e, "shows"))).collect()
}

/// A real nginx on port 8080, beside the lab's own listeners.
fn nginx(server: &str) -> Lab {
    nginx_of(64, server)
}

/// The same with so many connections.
fn nginx_of(connections: u32, server: &str) -> Lab {
    let lab = Lab::new();
    lab.install(&["nginx"], "nginx");
    let config = format!(
        "user www-data;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /var/log/nginx/error.log;\n\
         events {{ worker_connections {connections}; }}\nhttp {{\naccess_log /var/log/nginx/access.log;\n\
         limit_req_zone $binary_remote_addr zone=asks:1m rate=1r/m;\nlimit_conn_zone $binary_remote_addr zone=lines:1m;\n\
         server {{\nlisten 8080;\nlisten [::]:8080;\nserver_name example.com;\nroot /var/www/html;\n{server}\n}}\n}}\n"
    );
    lab.write_file("/etc/nginx/nginx.conf", config);
    lab.write_file("/var/www/html/index.html", "hello\n");
    lab.write_file("/var/www/html/slow", "x".repeat(300));
    lab.run(["mkdir", "-p", "/var/log/nginx"]);
    site::start_nginx(&lab);
    lab
}

/// A request from an address; its status.
fn ask(lab: &Lab, from: &str, path: &str) -> String {
    let url = format!("http://{}:8080{path}", if from.contains(':') { "[2001:db8:2::1]" } else { "192.0.2.1" });
    let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--interface", from, "-m", "20", &url];
    lab.command(curl).on_the_internet().run().stdout
}

#[test]
fn a_real_nginx_that_denies() {
    let lab = nginx(&format!("deny {EDGE4};\ndeny {EDGE6};\ndeny {STRANGER4};"));
    for from in [EDGE4, EDGE4, EDGE6, STRANGER4] {
        assert_eq!(ask(&lab, from, "/index.html?session=0123456789abcdef"), "403", "{from}");
    }
    assert_eq!(ask(&lab, OTHER_EDGE4, "/index.html"), "200");
    let report = doctor(&lab, &[]);
    expect(&report, &[("logs.nginx-denies", "warning")]);
    let found = finding(&report, "logs.nginx-denies");
    assert_eq!(found["text"], "nginx denied 3 requests from 2 addresses of Cloudflare in the last 24 h");
    let shown = shows(found);
    assert!(shown.starts_with(&format!("/var/log/nginx/error.log: {EDGE4}, deny of server example.com: 2 times, ")));
    assert!(shown.contains(EDGE6) && !shown.contains(STRANGER4) && !shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn a_real_nginx_that_limits() {
    let lab = nginx(
        "location /index.html { limit_req zone=asks; }\n\
         location /slow { limit_conn lines 1; proxy_pass http://127.0.0.1:3000; }",
    );
    for n in 0..6 {
        assert_eq!(ask(&lab, EDGE4, "/index.html"), if n == 0 { "200" } else { "503" });
    }
    // The first connection counts as long as the application doesn't answer.
    let application = lab.inside(|| TcpListener::bind("127.0.0.1:3000").expect("listen"));
    application.set_nonblocking(true).expect("no waiting");
    let _first = resources::fill(&lab, 8080, 1, b"GET /slow HTTP/1.1\r\nHost: lab\r\n\r\n");
    let mut passed_on = None;
    wait_until("nginx passes it on", || {
        passed_on = application.accept().ok();
        passed_on.is_some()
    });
    for _ in 0..3 {
        assert_eq!(ask(&lab, EDGE4, "/slow"), "503");
    }
    let report = doctor(&lab, &[]);
    expect(&report, &[("logs.nginx-limits", "warning")]);
    let shown = shows(finding(&report, "logs.nginx-limits"));
    assert!(
        shown.contains("limit_req zone asks: 5 times") && shown.contains("limit_conn zone lines: 3 times"),
        "{shown}"
    );
}

#[test]
fn a_real_nginx_without_connections_or_files() {
    let lab = nginx_of(6, "location / { proxy_pass http://127.0.0.1:8080/index.html; }");
    let url = "http://192.0.2.1:8080/a";
    lab.command(["ab", "-q", "-r", "-n", "20", "-c", "10", "-B", STRANGER4, url]).on_the_internet().run();
    expect(&doctor(&lab, &[]), &[("logs.worker-connections", "warning")]);
}

#[test]
fn a_healthy_nginx_behind_cloudflare() {
    let lab = nginx(&format!("deny {STRANGER4};\nlocation ~ /\\. {{ deny all; }}"));
    for (from, path, status) in
        [(EDGE4, "/index.html", "200"), (EDGE4, "/none", "404"), (EDGE6, "/none?a=b", "404"), (STRANGER4, "/", "403")]
    {
        assert_eq!(ask(&lab, from, path), status, "{from} {path}");
    }
    expect(&doctor(&lab, &[]), &[]);
    // What everybody is kept from says nothing about who asked.
    assert_eq!(ask(&lab, EDGE4, "/.env"), "403");
    expect(&doctor(&lab, &[]), &[("logs.nginx-denies", "note")]);
}

#[test]
fn visitors_of_a_real_nginx_that_knows_their_addresses() {
    let rules = format!("set_real_ip_from {EDGE4};\nreal_ip_header CF-Connecting-IP;\nallow {EDGE4};\ndeny all;");
    let lab = nginx(&rules);
    let header = format!("CF-Connecting-IP: {STRANGER4}");
    let curl = ["curl", "-s", "--interface", EDGE4, "-H", &header, "http://192.0.2.1:8080/"];
    lab.command(curl).on_the_internet().run().expect_ok();
    let report = doctor(&lab, &[]);
    expect(&report, &[("logs.visitors", "note")]);
    let shown = shows(finding(&report, "logs.visitors"));
    let whom = format!("/var/log/nginx/error.log: {STRANGER4}, deny of server example.com: once, at ");
    assert!(shown.starts_with(&whom) && shown.contains("access forbidden by rule"), "{shown}");
    let (_, mask) = shown.split_once('\n').expect("two lines");
    assert!(mask.starts_with("/etc/nginx/nginx.conf line ") && mask.ends_with(": real_ip_header\n"), "{shown}");
}

#[test]
fn a_real_apache_that_denies() {
    let lab = Lab::new();
    mod_evasive::install(&lab);
    lab.run(["rm", "-f", "/etc/apache2/mods-enabled/evasive.load"]);
    lab.write_file(
        "/etc/apache2/conf-enabled/his.conf",
        format!("<Location />\n<RequireAll>\nRequire all granted\nRequire not ip {EDGE4} {STRANGER4}\n</RequireAll>\n</Location>\n"),
    );
    lab.write_file("/etc/apache2/mods-enabled/evasive.conf", "");
    lab.run(["apachectl", "start"]);
    for from in [EDGE4, EDGE4, STRANGER4] {
        assert_eq!(ask(&lab, from, "/index.html?session=0123456789abcdef"), "403", "{from}");
    }
    let report = doctor(&lab, &[]);
    expect(&report, &[("logs.apache-denies", "warning")]);
    let shown = shows(finding(&report, "logs.apache-denies"));
    assert!(shown.contains(&format!("{EDGE4}, AH01630: 2 times")) && !shown.contains("0123456789abcdef"), "{shown}");
}

/// The journal's own /dev, so that the machine's stays as it is, and nothing is heard of its kernel.
fn journald(lab: &Lab) {
    lab.run(["mkdir", "-p", "/run/dev", "/run/systemd/journal", "/run/log/journal"]);
    lab.run(["mount", "-t", "tmpfs", "-o", "dev,mode=755", "tmpfs", "/run/dev"]);
    lab.run(["cp", "-a", "/dev/null", "/dev/urandom", "/run/dev"]);
    lab.run(["mount", "--bind", "/run/dev", "/dev"]);
    // It doesn't start without knowing its own group.
    lab.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]);
    lab.run(["sh", "-c", "/lib/systemd/systemd-journald >/run/journald.log 2>&1 & until [ -S /run/systemd/journal/socket -a -S /run/systemd/journal/dev-log ]; do sleep 0.05; done"]);
    lab.link("/run/systemd/journal/dev-log", "/dev/log");
}

/// Runs the doctor until a log says something: what is logged by way of a socket arrives a little later.
fn until_logged(lab: &Lab, args: &[&str], id: &str) -> Value {
    for _ in 0..40 {
        let report = doctor(lab, args);
        if logs(&report).iter().any(|(i, _)| i == id) {
            return report;
        }
        sleep(Duration::from_millis(250));
    }
    panic!("no {id}: {:#}", doctor(lab, args));
}

#[test]
fn a_real_mod_evasive_and_packets_in_a_real_journal() {
    let lab = Lab::new();
    journald(&lab);
    mod_evasive::install(&lab);
    lab.run(["apachectl", "start"]);
    assert!(mod_evasive::refused(&lab, EDGE4) > 0 && mod_evasive::refused(&lab, STRANGER4) > 0);
    expect(&until_logged(&lab, &[], "logs.mod-evasive"), &[("logs.mod-evasive", "note")]);
    // What it answered is in Apache's own log, whom it has blacklisted in the journal.
    lab.run(["sh", "-c", ": >/var/log/apache2/error.log"]);
    lab.run(["journalctl", "--sync"]);
    let report = until_logged(&lab, &[], "logs.mod-evasive");
    // The firewall room knows mod_evasive and says what is so now.
    expect(&report, &[("logs.mod-evasive", "note")]);
    let shown = shows(finding(&report, "logs.mod-evasive"));
    // Each of Apache's processes may have told it.
    let journal = lab.run(["journalctl", "--no-pager", "-q", "-t", "mod_evasive"]).stdout;
    let told = journal.lines().filter(|l| l.contains(&format!("Blacklisting address {EDGE4}:"))).count();
    let times = if told == 1 { "once".to_owned() } else { format!("{told} times") };
    assert!(
        shown.starts_with(&format!("journalctl: {EDGE4}, blacklisted: {times}")) && !shown.contains(STRANGER4),
        "{shown}"
    );
    lab.files(|| {
        let socket = UnixDatagram::unbound()?;
        let line = include_str!("samples/kernel.log").lines().next().expect("a line");
        let message = line.split_once("] ").expect("a message").1;
        socket.send_to(
            format!("SYSLOG_IDENTIFIER=kernel\nPRIORITY=4\nMESSAGE={message}\n").as_bytes(),
            "/run/systemd/journal/socket",
        )
    });
    let report = until_logged(&lab, &[], "logs.packets");
    assert!(shows(finding(&report, "logs.packets")).starts_with("journalctl: 173.245.48.29, [UFW BLOCK]: once"));
}

#[test]
fn a_real_fail2ban_that_banned() {
    let lab = Lab::new();
    fail2ban::install(&lab, fail2ban::JAILS);
    fail2ban::start(&lab);
    fail2ban::attack_until_banned(&lab, &[EDGE4, EDGE6, STRANGER4]);
    let report = doctor(&lab, &[]);
    expect(&report, &[("logs.fail2ban", "note")]);
    let shown = shows(finding(&report, "logs.fail2ban"));
    assert!(shown.contains(&format!("/var/log/fail2ban.log: {EDGE4}, jail door: once")), "{shown}");
    assert!(shown.contains(EDGE6) && !shown.contains(STRANGER4), "{shown}");
    // Where no other room knows fail2ban, only the log does.
    lab.run(["mv", "/usr/bin/fail2ban-client", "/usr/bin/gone"]);
    expect(&doctor(&lab, &[]), &[("logs.fail2ban", "warning")]);
}

/// Samples in the true format, where each would be.
const SAMPLES: [(&str, &str); 7] = [
    ("/var/log/nginx/error.log", include_str!("samples/nginx_modsecurity.log")),
    ("/var/log/httpd/error_log", include_str!("samples/apache_modsecurity.log")),
    ("/usr/local/apache/logs/error_log", include_str!("samples/apache_cpanel.log")),
    ("/usr/local/lsws/logs/error.log", include_str!("samples/litespeed.log")),
    ("/var/log/messages", include_str!("samples/kernel.log")),
    ("/var/log/lfd.log", include_str!("samples/lfd.log")),
    ("/var/log/php8.4-fpm.log", include_str!("samples/php-fpm.log")),
];

#[test]
fn every_row_of_the_cheat_sheet_is_found() {
    let lab = Lab::new();
    for (path, sample) in SAMPLES {
        lab.write_file(path, sample);
    }
    lab.write_file("/var/srv/u_ex261122.log", include_str!("samples/iis.log"));
    let args = [ALWAYS.as_slice(), &["--log", "/var/srv/u_ex261122.log"]].concat();
    let report = doctor(&lab, &args);
    let warnings = [
        "logs.apache-denies",
        "logs.modsecurity",
        "logs.litespeed-denies",
        "logs.litespeed-limits",
        "logs.iis-denies",
        "logs.packets",
        "logs.lfd",
        "logs.syn-flood",
        "logs.conntrack",
        "logs.orphans",
        "logs.out-of-memory",
        "logs.open-files",
        "logs.workers",
    ];
    // Of packets the firewall room knows what is so now.
    expect(&report, &warnings.map(|id| (id, if id == "logs.packets" { "note" } else { "warning" })));
    let whole = report.to_string();
    assert!(!whole.contains("0123456789abcdef"), "a session is nobody's business: {report:#}");
    let iis = shows(finding(&report, "logs.iis-denies"));
    assert!(iis.contains("173.245.48.29, 403.6: once") && iis.contains("Ray ID 8d3f1c2b4a5e6f70-FRA"), "{iis}");
    assert_eq!(finding(&report, "logs.packets")["evidence"].as_array().expect("evidence").len(), 2);

    // The same lines about strangers.
    let theirs =
        |text: &str| ["173.245.48.29", "104.23.7.7"].iter().fold(text.to_owned(), |t, e| t.replace(e, STRANGER4));
    for (path, sample) in SAMPLES {
        lab.write_file(path, theirs(sample).replace("2400:cb00::9", "2001:db8:bad::9"));
    }
    lab.write_file("/var/srv/u_ex261122.log", theirs(include_str!("samples/iis.log")));
    let about_nobody =
        ["logs.syn-flood", "logs.conntrack", "logs.orphans", "logs.out-of-memory", "logs.open-files", "logs.workers"];
    expect(&doctor(&lab, &args), &about_nobody.map(|id| (id, "warning")));
}

#[test]
fn rotated_logs_are_read_as_far_as_they_are_of_the_time_that_is_asked_about() {
    let lab = Lab::new();
    let line = "2026/11/22 18:00:00 [error] 1#1: *1 access forbidden by rule, client: 173.245.48.29, server: a, request: \"GET / HTTP/1.1\"\n";
    for name in ["error.log", "error.log.1", "error.log.2", "error.log-20261115"] {
        lab.write_file(&format!("/var/log/nginx/{name}"), line);
    }
    lab.run(["gzip", "/var/log/nginx/error.log.2", "/var/log/nginx/error.log-20261115"]);
    lab.run(["ln", "-s", "error.log", "/var/log/nginx/again.log"]);
    let times = |since: &str| {
        let report = doctor(&lab, &["--since", since]);
        finding(&report, "logs.nginx-denies")["text"].as_str().expect("text").to_owned()
    };
    assert!(times("36500d").starts_with("nginx denied 4 requests"), "{}", times("36500d"));
    lab.run(["touch", "-d", "2001-01-01", "/var/log/nginx/error.log-20261115.gz", "/var/log/nginx/error.log.1"]);
    assert!(times("7000d").starts_with("nginx denied 2 requests"), "{}", times("7000d"));
}

#[test]
fn odd_logs() {
    let lab = Lab::new();
    lab.run(["mkdir", "-p", "/var/srv/folder"]);
    lab.run(["mkfifo", "/var/srv/pipe", "/var/log/nginx/pipe"]);
    lab.run(["sh", "-c", "head -c 20000000 /dev/urandom >/var/log/nginx/binary.log"]);
    let line = "2026/11/22 18:00:00 [error] 1#1: *1 limiting requests, excess: 1.0 by zone \"a\", client: 173.245.48.29, server: a\n";
    lab.write_file(
        "/var/log/nginx/long.log",
        format!("{}\n{line}{}", "limiting requests ".repeat(300_000), "x".repeat(3_000_000)),
    );
    lab.run(["sh", "-c", "gzip -c /var/log/nginx/long.log | head -c 1000 >/var/srv/cut.gz"]);
    let odd = ["/var/srv/pipe", "/var/srv/folder", "/var/srv/none", "/dev/zero", "/proc/kmsg", "/var/srv/cut.gz"];
    let mut args = ALWAYS.to_vec();
    odd.iter().for_each(|path| args.extend(["--log", path]));
    let report = doctor(&lab, &args);
    let said = logs(&report);
    assert_eq!(said[0], ("logs.nginx-limits".to_owned(), "warning".to_owned()), "{report:#}");
    assert!(said[1..].iter().all(|(id, verdict)| id == "logs.not-read" && verdict == "warning"), "{report:#}");
    let quiet = lab.edgeallow(["doctor", "--offline", "-q", "--log", "/var/srv/none"]).stdout;
    assert!(quiet.contains("there is no file /var/srv/none"), "{quiet}");
    let whole = report.to_string();
    for said in [
        "/var/srv/pipe is not a regular file",
        "/var/srv/folder is a folder",
        "there is no file /var/srv/none",
        "/dev/zero is not",
        "/var/srv/cut.gz",
    ] {
        assert!(whole.contains(said), "{said}: {report:#}");
    }
}

#[test]
fn a_log_that_is_piped_in_is_read_and_one_that_is_packed_says_how_to() {
    let lab = Lab::new();
    let line = "2026/11/22 18:00:00 [error] 1#1: *1 limiting requests, excess: 1.0 by zone \"a\", client: 173.245.48.29, server: a\n";
    lab.write_file("/var/log/nginx/error.log.1.xz", b"\xfd7zXZ\0 and so on");
    let report = doctor(&lab, &ALWAYS);
    expect(&report, &[("logs.packed", "skipped")]);
    let command = finding(&report, "logs.packed")["fix"]["command"].as_str().expect("a command").to_owned();
    assert_eq!(command, "xzcat /var/log/nginx/error.log.1.xz | edgeallow doctor --offline --since 876000h --log -");
    let args = ["doctor", "--offline", "--format", "json", "--log", "-", "--since", "36500d"];
    let report = lab.edgeallow_command(args).stdin(line).run().json()["doctor"].clone();
    expect(&report, &[("logs.nginx-limits", "warning"), ("logs.packed", "skipped")]);
    assert!(shows(finding(&report, "logs.nginx-limits")).starts_with("standard input: "), "{report:#}");
}

#[test]
fn logs_that_rotate_while_they_are_read() {
    let lab = Lab::new();
    let line = "2026/11/22 18:00:00 [error] 1#1: *1 limiting requests, excess: 1.0 by zone \"a\", client: 173.245.48.29, server: a\n";
    lab.write_file("/var/srv/log", line.repeat(100_000));
    let rotate = "cd /var/log/nginx; n=0; while [ ! -e /run/stop ]; do cp /var/srv/log a.log; mv a.log a.log.1; cp /var/srv/log a.log; \
                  : >a.log.1; done";
    lab.run(["sh", "-c", &format!("({rotate}) >/dev/null 2>&1 &")]);
    for _ in 0..8 {
        for (id, verdict) in logs(&doctor(&lab, &ALWAYS)) {
            assert!(
                ["logs.nginx-limits", "logs.unread"].contains(&id.as_str()) && verdict != "cause",
                "{id} {verdict}"
            );
        }
    }
    lab.write_file("/run/stop", "");
}

#[test]
fn logs_that_may_not_be_read_are_said() {
    let lab = Lab::new();
    lab.write_file("/var/log/nginx/error.log", "secret\n");
    lab.chmod("/var/log/nginx/error.log", 0o600);
    lab.files(|| fs::create_dir_all("/var/log/httpd"));
    lab.chmod("/var/log/httpd", 0o700);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "edgeallow",
        "doctor",
        "--offline",
        "--format",
        "json",
    ];
    let report = lab.command(nobody).run().json()["doctor"].clone();
    let unread: Vec<_> = logs(&report).into_iter().filter(|(id, _)| id == "logs.unread").collect();
    assert!(unread.len() >= 2 && unread.iter().all(|(_, verdict)| verdict == "skipped"), "{report:#}");
    let whole = report.to_string();
    assert!(whole.contains("cannot read /var/log/nginx/error.log: Permission denied"), "{report:#}");
    assert!(whole.contains("cannot list /var/log/httpd: Permission denied"), "{report:#}");
}
