//! What a host runs out of, for real: queues, files, connections, workers, processes of PHP.
//!
//! Clients connect from Cloudflare's addresses and then say nothing more, which is what exhausts a server. All of them are
//! counted, and end with the test.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    doctor, expect_cause, expect_healthy, give_default_routes, ids,
    site::{self, site},
    wait_until,
};
use crate::lab::{EDGE4, Lab, Reach, SERVER4, stood_still_since};

/// Half a request: the server waits for the rest, with a worker and a connection.
const HALF: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n";
/// A request that is answered, after which the connection is kept.
const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
/// Asks for a script that takes its time.
const SLOW: &[u8] = b"GET /slow.php HTTP/1.1\r\nHost: lab\r\n\r\n";
/// Asks for what nginx passes on to an application that never answers: two connections and two files. If there are none for
/// that, it is answered 500, and what it had is given back.
const PASSED: &[u8] = b"GET /passed HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
/// Where nginx passes that on.
const PASS: &str = "location = /passed { proxy_pass http://127.0.0.1:3000; }";
/// No SYN is sent a second time before a second is over: what is not connected by then was dropped.
const PATIENCE: Duration = Duration::from_millis(700);

/// Connects up to so often from Cloudflare's side, each saying this, until one isn't answered; those that are connected.
pub(super) fn fill(lab: &Lab, port: u16, most: usize, say: &[u8]) -> Vec<Socket> {
    let to: IpAddr = SERVER4.parse().expect("an address");
    let from: IpAddr = EDGE4.parse().expect("an address");
    lab.on_the_internet(|| {
        let mut open = Vec::new();
        while open.len() < most {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("make a socket");
            socket.bind(&SocketAddr::new(from, 0).into()).expect("bind");
            let start = Instant::now();
            if socket.connect_timeout(&SocketAddr::new(to, port).into(), PATIENCE).is_err() {
                if stood_still_since(start) {
                    continue;
                }
                break;
            }
            // A server that is out of connections may have closed it by now.
            let _ = socket.send(say);
            open.push(socket);
        }
        open
    })
}

/// How many wait at the listening socket that this question of `ss` finds.
fn waiting(lab: &Lab, question: &[&str]) -> u64 {
    let answer = lab.run([&["ss", "-H", "-n", "-l"], question].concat());
    let fields = answer.stdout.lines().next().unwrap_or_default().split_whitespace();
    let numbers: Vec<u64> = fields.filter_map(|f| f.parse().ok()).collect();
    *numbers.first().unwrap_or_else(|| panic!("no socket: {answer:?}"))
}

/// Debian's nginx with these lines for `main` and for `events`, and a site of its own.
fn nginx(lab: &Lab, main: &str, events: &str) {
    let site = "server { listen 80; listen [::]:80; root /var/www/html; PASS location ~ \\.php$ { \
                include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; \
                fastcgi_pass unix:/run/php/php8.2-fpm.sock; fastcgi_read_timeout 1h; } }"
        .replace("PASS", PASS);
    lab.write_file(
        "/etc/nginx/nginx.conf",
        format!(
            "user www-data;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /var/log/nginx/error.log;\n{main}\n\
             events {{\n{events}\n}}\nhttp {{ access_log off; {site} }}\n"
        ),
    );
    start_nginx(lab);
}

fn start_nginx(lab: &Lab) {
    lab.write_file("/var/www/html/index.html", "hello\n");
    lab.install(&["nginx"], "nginx");
    lab.run(["mkdir", "-p", "/var/log/nginx", "/var/lib/nginx"]);
    site::start_nginx(lab);
    wait_until("nginx listens", || fill(lab, 80, 1, b"").len() == 1);
}

/// Debian's PHP-FPM with so many processes for its one pool.
fn php(lab: &Lab, children: u32) {
    lab.write_file(
        "/etc/php/8.2/fpm/pool.d/www.conf",
        format!(
            "[www]\nuser = www-data\ngroup = www-data\nlisten = /run/php/php8.2-fpm.sock\nlisten.owner = www-data\n\
             pm = static\npm.max_children = {children}\n"
        ),
    );
    start_php(lab);
}

fn start_php(lab: &Lab) {
    lab.write_file("/var/www/html/slow.php", "<?php sleep(600);\n");
    lab.run(["mkdir", "-p", "/run/php"]);
    lab.run(["php-fpm8.2", "-D"]);
}

/// Debian's Apache without mod_evasive, which would turn the clients of these tests away.
fn apache(lab: &Lab) {
    lab.install(&["apachectl"], "apache2");
    lab.run(["rm", "-f", "/etc/apache2/mods-enabled/evasive.load", "/etc/apache2/mods-enabled/evasive.conf"]);
    lab.write_file("/etc/apache2/conf-enabled/name.conf", "ServerName lab\n");
    lab.write_file("/var/www/html/index.html", "hello\n");
    lab.run(["mkdir", "-p", "/var/log/apache2"]);
    lab.run(["apachectl", "start"]);
    wait_until("Apache listens", || fill(lab, 80, 1, b"").len() == 1);
}

/// An application that takes connections and never answers.
fn silent(lab: &Lab) -> TcpListener {
    lab.inside(|| TcpListener::bind("127.0.0.1:3000").expect("listen"))
}

/// Neither what answers nor how a handshake ends is called wrong.
fn expect_no_other_room(report: &Value) {
    for found in report["findings"].as_array().expect("findings").iter().filter(|f| f["room"] != "resources") {
        let wrong = ["warning", "cause"].contains(&found["verdict"].as_str().expect("a verdict"));
        assert!(!wrong || found["room"] == "logs", "{report:#}");
    }
}

fn shows(finding: &Value) -> String {
    finding["evidence"].to_string()
}

fn of<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

#[test]
fn a_full_backlog_is_the_cause() {
    let lab = Lab::without_listeners();
    let server = lab.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 80)).into()).unwrap();
        socket.listen(2).unwrap();
        socket
    });
    let clients = fill(&lab, 80, 8, b"");
    assert_eq!(clients.len(), 3, "the kernel takes one more than the backlog");
    assert_eq!(lab.connect(EDGE4, 80), Reach::Timeout, "what a 522 is");
    let report = doctor(&lab, &["--port", "80"]);
    let cause = expect_cause(&report, "resources.accept-queue-full", 522);
    assert!(shows(cause).contains("Recv-Q 3, Send-Q 2"), "{cause:#}");

    // Once it accepts, nothing is left but counters since boot, which prove nothing.
    server.set_nonblocking(true).unwrap();
    let accepted: Vec<_> = std::iter::from_fn(|| server.accept().ok()).collect();
    assert!(accepted.len() >= 3);
    let report = doctor(&lab, &["--port", "80"]);
    for found in report["findings"].as_array().unwrap().iter().filter(|f| f["room"] == "resources") {
        assert!(!["warning", "cause"].contains(&found["verdict"].as_str().unwrap()), "{found:#}");
    }
    drop(clients);
}

#[test]
fn nginx_at_its_limit_of_open_files_is_the_cause() {
    let lab = Lab::without_listeners();
    nginx(&lab, "worker_rlimit_nofile 40;", "worker_connections 512;");
    let clients = fill(&lab, 80, 60, HALF);
    let log = "/var/log/nginx/error.log";
    wait_until("nginx can't accept", || lab.read_file(log).contains("Too many open files"));
    let report = doctor(&lab, &["--port", "80"]);
    let cause = expect_cause(&report, "resources.open-files-full", 522);
    assert!(shows(cause).contains("40 open, at most 40"), "{cause:#}");
    assert!(shows(cause).contains("/etc/nginx/nginx.conf line 5"), "{cause:#}");

    // A worker that can open nothing can't hear of a reload either: the command restarts nginx, without systemd here.
    let command = cause["fix"]["command"].as_str().unwrap();
    assert!(command.ends_with(" && nginx -s stop && sleep 1 && nginx"), "{command}");
    lab.run(["sh", "-c", command]);
    drop(clients);
    let clients = fill(&lab, 80, 60, HALF);
    assert_eq!(clients.len(), 60);
    wait_until("nginx accepts all", || waiting(&lab, &["-t", "-4"]) == 0);
    // What was logged before would be told for a day.
    lab.write_file(log, "");
    expect_healthy(&doctor(&lab, &["--port", "80"]));
    drop(clients);
    site::settled(&lab);

    // Of what is passed on, nginx has one file left when it can't serve anybody any more, as its log says.
    let application = silent(&lab);
    // Each takes two files: where the number of those that are left is even, one that passes nothing on takes the first.
    let master = lab.read_file("/run/nginx.pid");
    let worker = lab.read_file(&format!("/proc/{0}/task/{0}/children", master.trim()));
    let open = lab.run(["ls", &format!("/proc/{}/fd", worker.trim())]).stdout.lines().count();
    let passed_on = (127 - open) / 2;
    let clients = [fill(&lab, 80, 1 - open % 2, HALF), fill(&lab, 80, passed_on + 3, PASSED)];
    // None of the last three: while it answers them it holds one more.
    wait_until("nginx can pass nothing on", || {
        lab.read_file(log).matches("socket() failed (24: Too many open files)").count() >= 3
    });
    let mut report = Value::Null;
    // The connection of doctor's own that it asked for the page by may still be open when it counts.
    wait_until("nginx has given back doctor's own", || {
        report = doctor(&lab, &["--port", "80"]);
        shows(expect_cause(&report, "resources.open-files-full", 522)).contains("127 open, at most 128")
    });
    let cause = expect_cause(&report, "resources.open-files-full", 522);
    assert!(shows(cause).contains("Too many open files"), "{cause:#}");
    expect_no_other_room(&report);
    drop((clients, application));
    // What was lacked a moment ago, and is not lacked now.
    wait_until("nginx has closed them", || ids(&doctor(&lab, &["--port", "80"]), "cause").is_empty());
}

#[test]
fn nginx_out_of_connections_is_the_cause() {
    let lab = Lab::without_listeners();
    nginx(&lab, "", "worker_connections 20;");
    let clients = RefCell::new(Vec::new());
    let log = "/var/log/nginx/error.log";
    // One after the other: short of connections, nginx closes those that have not said anything yet before all others.
    wait_until("nginx is out of connections", || {
        clients.borrow_mut().extend(fill(&lab, 80, 1, HALF));
        lab.read_file(log).contains("worker_connections are not enough")
    });
    let report = doctor(&lab, &["--port", "80"]);
    let cause = expect_cause(&report, "resources.nginx-connections-full", 520);
    assert_eq!(cause["cloudflare_errors"], serde_json::json!([520]), "{cause:#}");
    assert!(shows(cause).contains("/etc/nginx/nginx.conf line 7"), "{cause:#}");

    let command = cause["fix"]["command"].as_str().unwrap();
    assert_eq!(
        command,
        "sed -i -E '7s/(worker_connections[^0-9]+)[0-9]+/\\164/' /etc/nginx/nginx.conf && nginx -t && nginx -s reload"
    );
    lab.run(["sh", "-c", command]);
    assert!(lab.read_file("/etc/nginx/nginx.conf").contains("worker_connections 64;"));
    // The old worker goes on with what it has, and may log once more that it has no connection left; the new one takes what
    // comes.
    wait_until("nginx has reloaded", || {
        lab.write_file(log, "");
        doctor(&lab, &["--port", "80"])["conclusion"]["verdict"] == "ok"
    });
    drop(clients);
}

#[test]
fn an_nginx_that_closes_idle_connections_to_take_others_is_no_cause() {
    let lab = Lab::without_listeners();
    nginx(&lab, "error_log /var/log/nginx/error.log warn;", "worker_connections 20;");
    let clients = RefCell::new(Vec::new());
    wait_until("nginx closes idle connections", || {
        clients.borrow_mut().extend(fill(&lab, 80, 1, WHOLE));
        lab.read_file("/var/log/nginx/error.log").contains("worker_connections are not enough, reusing connections")
    });
    let report = doctor(&lab, &["--port", "80"]);
    assert_eq!(ids(&report, "cause"), Vec::<&str>::new(), "{report:#}");
    assert!(!report.to_string().contains("logs.worker-connections"), "{report:#}");
    drop(clients);
}

#[test]
fn handshakes_that_fail_for_want_of_connections_are_no_cause_of_their_own() {
    let lab = Lab::without_listeners();
    site::nginx_stopped(&lab, &site::nginx_site(PASS));
    let main = "/etc/nginx/nginx.conf";
    let config =
        lab.read_file(main).replace("connections 768", "connections 20").replace("processes auto", "processes 1");
    lab.write_file(main, config);
    site::start_nginx(&lab);
    let clients = RefCell::new(Vec::new());
    wait_until("nginx is out of connections", || {
        clients.borrow_mut().extend(fill(&lab, 80, 1, HALF));
        lab.read_file("/var/log/nginx/error.log").contains("worker_connections are not enough")
    });
    let report = doctor(&lab, &[site::NAME, "--port", "443", "--mode", "full"]);
    let cause = expect_cause(&report, "resources.nginx-connections-full", 525);
    assert_eq!(cause["cloudflare_errors"], serde_json::json!([525]), "{cause:#}");
    assert_eq!(of(&report, "tls.hangs-up")["verdict"], "skipped", "{report:#}");
    drop(clients);

    // Of what is passed on, nginx has one left for whom it can only answer 500, or whose handshake it takes.
    let log = "/var/log/nginx/error.log";
    lab.write_file(log, "");
    let application = silent(&lab);
    let clients = fill(&lab, 80, 40, PASSED);
    wait_until("nginx is out of connections", || lab.read_file(log).contains("enough while connecting to upstream"));
    let mut report = Value::Null;
    // The connection of whom it is just answering may still be open when doctor counts.
    wait_until("nginx has one left", || {
        report = doctor(&lab, &[site::NAME, "--mode", "full"]);
        let cause = expect_cause(&report, "resources.nginx-connections-full", 525);
        cause["text"].as_str().unwrap().contains(" uses 19 of 20, ")
    });
    let cause = expect_cause(&report, "resources.nginx-connections-full", 525);
    assert!(shows(cause).contains("20 worker_connections are not enough"), "{cause:#}");
    expect_no_other_room(&report);

    // What was lacked a moment ago is no cause when it is there again.
    drop((clients, application));
    wait_until("nginx has closed them", || ids(&doctor(&lab, &[site::NAME]), "cause").is_empty());
}

#[test]
fn busy_workers_of_apache_are_the_cause() {
    let lab = Lab::without_listeners();
    lab.write_file(
        "/etc/apache2/mods-enabled/mpm_event.conf",
        "<IfModule mpm_prefork_module>\nMaxRequestWorkers 99\n</IfModule>\n<IfModule mpm_event_module>\nStartServers 1\n\
         ServerLimit 1\nThreadsPerChild 4\nMinSpareThreads 1\nMaxSpareThreads 4\nMaxRequestWorkers 4\n</IfModule>\n",
    );
    // The half of a request may take as long as doctor does.
    let patient = "<IfModule reqtimeout_module>\nRequestReadTimeout header=0\n</IfModule>\n";
    lab.write_file("/etc/apache2/conf-enabled/patient.conf", patient);
    apache(&lab);
    // Nobody waits, but doctor itself: it is Apache's own word that tells.
    let clients = fill(&lab, 80, 4, HALF);
    wait_until("Apache says so", || lab.read_file("/var/log/apache2/error.log").contains("AH00484"));
    let report = doctor(&lab, &["--port", "80"]);
    let cause = expect_cause(&report, "resources.apache-workers-full", 524);
    assert!(cause["text"].as_str().unwrap().ends_with("4 of 4 are busy, and it says that it needs more"), "{cause:#}");
    assert!(shows(cause).contains("server reached MaxRequestWorkers"), "{cause:#}");
    assert_eq!(
        report["conclusion"]["next"], "${EDITOR:-vi} +10 /etc/apache2/mods-enabled/mpm_event.conf",
        "{report:#}"
    );
    assert_eq!(of(&report, "online.stalls")["verdict"], "skipped", "{report:#}");
    drop(clients);

    let clients = fill(&lab, 80, 10, HALF);
    assert_eq!(clients.len(), 10);
    wait_until("connections wait for Apache", || waiting(&lab, &["-t"]) >= 6);
    let report = doctor(&lab, &["--port", "80"]);
    let cause = expect_cause(&report, "resources.apache-workers-full", 522);
    assert!(cause["text"].as_str().unwrap().contains("4 of 4 are busy, and "), "{cause:#}");
    assert!(shows(cause).contains("/etc/apache2/mods-enabled/mpm_event.conf line 10"), "{cause:#}");
    assert!(cause["fix"]["text"].as_str().unwrap().contains("`MaxRequestWorkers 8`"), "{cause:#}");

    drop(clients);
    wait_until("Apache is idle", || waiting(&lab, &["-t"]) == 0);
    lab.write_file("/var/log/apache2/error.log", "");
    wait_until("its workers are idle", || ids(&doctor(&lab, &["--port", "80"]), "warning").is_empty());
}

#[test]
fn busy_processes_of_php_are_the_cause() {
    let lab = Lab::without_listeners();
    // Another version's, whose master is the older one.
    let others = "/run/php/other.conf";
    let config = format!(
        "[global]\npid = {others}.pid\nerror_log = {others}.log\n[other]\nuser = www-data\nlisten = {others}.sock\npm = \
         static\npm.max_children = 1\n"
    );
    lab.write_file(others, config);
    lab.run(["php-fpm8.2", "-D", "-y", others]);
    php(&lab, 2);
    nginx(&lab, "", "worker_connections 512;");
    let has_pool = |report: &Value, text: &str| report["findings"].to_string().contains(text);
    let mut report = Value::Null;
    // One that is just beginning is busy.
    wait_until("PHP is idle", || {
        report = doctor(&lab, &["--port", "80"]);
        has_pool(&report, "0 of 2 processes of PHP-FPM's pool www are busy")
    });
    expect_healthy(&report);

    let clients = fill(&lab, 80, 5, SLOW);
    wait_until("requests wait for PHP", || waiting(&lab, &["-x", "src", "/run/php/php8.2-fpm.sock"]) >= 3);
    let report = doctor(&lab, &["--port", "80"]);
    let cause = expect_cause(&report, "resources.fpm-children-full", 504);
    assert!(cause["text"].as_str().unwrap().contains("2 of 2 are busy, and 3 requests wait"), "{cause:#}");
    let command = cause["fix"]["command"].as_str().unwrap();
    let master = lab.read_file("/run/php/php8.2-fpm.pid");
    assert!(command.contains("'7s/") && command.ends_with(&format!(" && kill -USR2 {}", master.trim())), "{command}");
    lab.run(["sh", "-c", command]);
    drop(clients);
    // It goes on with the requests that waited.
    wait_until("the pool has more", || {
        has_pool(&doctor(&lab, &["--port", "80"]), " of 4 processes of PHP-FPM's pool www are busy")
    });
    assert!(!lab.read_file(&format!("{others}.log")).contains("Reloading"), "the other one was reloaded");
}

/// `nf_conntrack_max` belongs to the machine, not to a network namespace, and is not for a test to change. So the entries
/// are real, made by connections that the kernel tracks, and the file that tells the limit is another one.
#[test]
fn a_full_connection_tracking_is_the_cause() {
    const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
    const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    let lab = Lab::without_listeners();
    site(&lab);
    let rules = "table inet t { chain input { type filter hook input priority 0; ct state new accept; }; }";
    lab.feed(["nft", "-f", "-"], rules).expect_ok();
    let clients = fill(&lab, 80, 12, b"");
    let report = doctor(&lab, &[]);
    expect_healthy(&report);
    assert!(shows(of(&report, "resources.conntrack")).contains(" tracked, at most "), "{report:#}");
    let entries: usize = lab.run(["cat", COUNT]).stdout.trim().parse().unwrap();
    assert!(entries >= clients.len(), "{entries}");

    // As many as these connections alone: what else there is may time out.
    let most = format!("{}\n", clients.len());
    lab.write_file("/run/most", &most);
    lab.run(["mount", "--bind", "/run/most", MOST]);
    // Full is not yet refused: the kernel, for which there is room, drops nothing.
    let report = doctor(&lab, &[]);
    assert_eq!(ids(&report, "cause"), Vec::<&str>::new(), "{report:#}");
    assert_eq!(of(&report, "resources.conntrack")["verdict"], "warning", "{report:#}");
    // As by a clock that is ahead: however long this takes, it is just now.
    let now = lab.run(["date", "-u", "-d", "20 minutes", "+%Y-%m-%dT%H:%M:%S+00:00"]).stdout;
    let line = format!("{} lab kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n", now.trim());
    lab.write_file("/var/log/kern.log", line);
    let report = doctor(&lab, &[]);
    let cause = expect_cause(&report, "resources.conntrack-full", 522);
    assert!(shows(cause).contains("table full, dropping packet"), "{cause:#}");
    assert!(shows(cause).contains(&format!("tracked, at most {}", most.trim())), "{cause:#}");
    assert!(cause["fix"]["command"].as_str().unwrap().starts_with("sysctl -w net.netfilter.nf_conntrack_max="));
    drop(clients);
}

#[test]
fn servers_as_debian_sets_them_up_are_healthy() {
    let lab = Lab::without_listeners();
    start_php(&lab);
    start_nginx(&lab);
    // One that is just beginning is busy.
    wait_until("PHP is idle", || {
        of(&doctor(&lab, &["--port", "80"]), "resources.fpm-children")["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("0 of "))
    });
    let clients = fill(&lab, 80, 5, HALF);
    let report = doctor(&lab, &["--port", "80"]);
    expect_healthy(&report);
    for id in ["nginx-connections", "open-files", "fpm-children", "accept-queue", "connections", "memory", "load"] {
        assert!(["ok", "note"].contains(&of(&report, &format!("resources.{id}"))["verdict"].as_str().unwrap()), "{id}");
    }
    assert!(shows(of(&report, "resources.nginx-connections")).contains("worker_connections 768"), "{report:#}");
    assert!(shows(of(&report, "resources.connections")).contains("5 to port 80"), "{report:#}");
    drop(clients);

    let lab = Lab::without_listeners();
    apache(&lab);
    // One that is just beginning is busy.
    let mut report = Value::Null;
    wait_until("Apache is idle", || {
        report = doctor(&lab, &["--port", "80"]);
        of(&report, "resources.apache-workers")["text"] == "0 of 150 workers of Apache are busy"
    });
    expect_healthy(&report);
}

#[test]
fn what_only_root_sees_is_said_to_be_unseen() {
    let lab = Lab::without_listeners();
    nginx(&lab, "", "worker_connections 512;");
    give_default_routes(&lab);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"];
    let ask = ["/usr/local/bin/edgeallow", "doctor", "--offline", "--format", "json", "--port", "80"];
    let report = lab.command([&nobody[..], &ask].concat()).run().json()["doctor"].clone();
    assert_eq!(of(&report, "resources.open-files")["verdict"], "skipped", "{report:#}");
    assert_eq!(of(&report, "resources.memory")["verdict"], "ok", "{report:#}");
    assert!(ids(&report, "cause").is_empty(), "{report:#}");
}
