//! What doctor itself does to the sites that it asks: few requests, none that a limit refuses, and none in what it finds.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;

use super::{
    doctor, expect_healthy, ids,
    site::{self, NAME},
    wait_until,
};
use crate::{above::mod_evasive, lab::Lab, run::PUBLISHED};

const ACCESS: &str = "/var/log/nginx/access.log";

/// The requests that were logged since the last time: so many, if not more.
fn requests(lab: &Lab, expected: usize) -> Vec<String> {
    wait_until("the requests are logged", || lab.read_file(ACCESS).lines().count() >= expected);
    site::settled(lab);
    let log = lab.read_file(ACCESS);
    lab.run(["truncate", "-s", "0", ACCESS]);
    log.lines().map(str::to_owned).collect()
}

/// A site of nginx's that takes so much from each address, and knows visitors' own.
fn limited(lab: &Lab, rate: &str, also: &[&str]) {
    let from = PUBLISHED.iter().chain(also).map(|range| format!("set_real_ip_from {range};\n")).collect::<String>();
    let http = format!(
        "limit_req_zone $binary_remote_addr zone=one:1m rate={rate};\n{from}real_ip_header CF-Connecting-IP;\n"
    );
    site::nginx(lab, &(http + &site::nginx_site("limit_req zone=one;")));
}

/// What is wrong, what the logs say, and what was limited.
fn found(report: &Value) -> BTreeSet<(String, String)> {
    let of = |f: &Value, what: &str| f[what].as_str().expect("text").to_owned();
    let all = report["findings"].as_array().expect("findings").iter();
    let wanted = all.filter(|f| f["room"] == "logs" || f["verdict"] == "cause" || f["verdict"] == "warning");
    wanted.map(|f| (of(f, "id"), of(f, "verdict"))).collect()
}

#[test]
fn each_name_is_asked_for_once_at_each_address_and_port() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    // IPv4 and IPv6, plain HTTP and TLS.
    for (args, expected) in
        [(&[NAME][..], 4), (&[], 4), (&[NAME, "www.shop.example"], 8), (&[NAME, "--mode", "full"], 4)]
    {
        expect_healthy(&doctor(&lab, args));
        let requests = requests(&lab, expected);
        assert_eq!(requests.len(), expected, "{args:?}: {requests:#?}");
    }
}

#[test]
fn a_limit_that_doctor_may_meet_is_not_met_or_not_called_an_error_and_the_next_run_says_the_same() {
    let lab = Lab::without_listeners();
    limited(&lab, "1r/s", &[]);
    let first = doctor(&lab, &[NAME]);
    expect_healthy(&first);
    let refused: Vec<String> = requests(&lab, 4).into_iter().filter(|r| !r.contains(" 200 ")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(found(&doctor(&lab, &[NAME])), found(&first));

    // A server may believe whom doctor says that it asks for, and log him.
    for believed in [&[][..], &["192.0.2.0/24", "2001:db8:2::/64"]] {
        let lab = Lab::without_listeners();
        limited(&lab, "1r/m", believed);
        let first = doctor(&lab, &[NAME]);
        expect_healthy(&first);
        assert!(ids(&first, "skipped").contains(&"online.limited"), "{first:#}");
        let log = lab.read_file("/var/log/nginx/error.log");
        assert!(log.contains("limiting requests") && log.contains("client: 203.0.113.250") != believed.is_empty());
        let second = doctor(&lab, &[NAME]);
        assert_eq!(found(&second), found(&first), "{second:#}");
        assert!(!ids(&second, "note").contains(&"logs.visitors"), "{second:#}");
    }
}

#[test]
fn a_real_mod_evasive_does_not_take_doctor_for_a_flood() {
    let lab = Lab::new();
    mod_evasive::install(&lab);
    // As its authors propose.
    lab.write_file(
        "/etc/apache2/mods-enabled/evasive.conf",
        "DOSPageCount 2\nDOSPageInterval 1\nDOSBlockingPeriod 10\n",
    );
    lab.run(["apachectl", "start"]);
    let names = ["a.example", "b.example", "c.example", "d.example", "e.example"];
    let report = doctor(&lab, &[&["--port", "8080"], &names[..]].concat());
    let log = "/var/log/apache2/other_vhosts_access.log";
    wait_until("the requests are logged", || lab.read_file(log).lines().count() >= 10);
    site::settled(&lab);
    let log = lab.read_file(log);
    assert_eq!(log.lines().filter(|l| l.contains("\" 200 ")).count(), 10, "{log}");
    assert_eq!(log.lines().count(), 10, "{log}");
    assert!(ids(&report, "ok").contains(&"online.answers"), "{report:#}");
}

#[test]
fn a_limit_that_is_written_nowhere_is_a_note() {
    let lab = Lab::without_listeners();
    // As a server whose settings can't be read: the second request comes too soon for it, the third no more.
    let asked = AtomicUsize::new(0);
    let _server = site::Caddy::with(&lab, 80, move |mut client| {
        let soon = asked.fetch_add(1, Ordering::Relaxed) == 1;
        let status = if soon { "429 Too Many Requests" } else { "200 OK" };
        site::answer(&mut client, &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    });
    let args = [NAME, "www.shop.example", "--mode", "flexible", "--origin", crate::lab::SERVER4];
    let report = doctor(&lab, &args);
    expect_healthy(&report);
    assert!(ids(&report, "note").contains(&"online.limited"), "{report:#}");
}

#[test]
fn a_broken_configuration_is_told_and_the_rest_is_looked_at() {
    let lab = Lab::without_listeners();
    site::site(&lab);
    lab.write_file("/etc/edgeallow/config.toml", "\nports = [80, 443]\nport = 8443\n");
    let report = doctor(&lab, &[NAME]);
    assert_eq!(
        (ids(&report, "cause"), ids(&report, "warning")),
        (vec![], vec!["firewall.own-configuration"]),
        "{report:#}"
    );
    let text = report["conclusion"]["text"].as_str().expect("a text");
    assert!(text.contains("/etc/edgeallow/config.toml, line 3: "), "{text}");
    assert!(ids(&report, "ok").contains(&"online.answers"), "{report:#}");
    // Who may not read it can't tell whether it is broken.
    lab.chmod("/etc/edgeallow/config.toml", 0o600);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "edgeallow"];
    let report = lab.command([&nobody[..], &["doctor", "--offline", "--format", "json"]].concat()).run().json();
    assert!(ids(&report["doctor"], "skipped").contains(&"firewall.own-configuration"), "{report:#}");
    let named = ["doctor", "--config", "/etc/edgeallow/none.toml", "--offline", "--format", "json"];
    assert_eq!(lab.edgeallow(named).expect(2).json()["error"]["kind"], "config");
}
