//! Packet filters that turn Cloudflare away.

use serde_json::Value;

use super::{doctor, expect_cause, expect_healthy, follow, ids, look, site, wait_until};
use crate::{
    above::{fail2ban, mod_evasive},
    conformance::ufw::enable,
    lab::{EDGE4, EDGE6, Lab, Reach, STRANGER4},
};

fn healthy() -> Lab {
    let lab = Lab::without_listeners();
    site::site(&lab);
    lab
}

fn words(lab: &Lab, commands: &[&str]) {
    for command in commands {
        lab.run(command.split(' ')).expect_ok();
    }
}

#[test]
fn a_dropping_and_a_rejecting_rule_are_the_cause() {
    for (statement, error) in [("drop", 522), ("reject", 521)] {
        let lab = healthy();
        let rules = format!(
            "table inet site {{ chain input {{ type filter hook input priority 0; tcp dport {{ 80, 443 }} {statement}; }}; }}"
        );
        lab.feed(["nft", "-f", "-"], &rules).expect_ok();
        let report = doctor(&lab, &[]);
        let cause = expect_cause(&report, "firewall.refused", error);
        assert!(cause["evidence"][0]["shows"].as_str().unwrap().contains(statement), "{cause:#}");
        let command = report["conclusion"]["next"].as_str().unwrap();
        assert!(command.starts_with("edgeallow sync"), "{command}");
    }
}

#[test]
fn a_host_that_lets_everybody_in_is_healthy() {
    expect_healthy(&doctor(&healthy(), &[]));
}

#[test]
fn iptables_and_ufw_are_named_too() {
    let table: [(&[&str], &str, u16); 4] = [
        (&["iptables -A INPUT -p tcp --dport 443 -j DROP"], "iptables", 522),
        (&["ip6tables -A INPUT -p tcp --dport 443 -j REJECT"], "iptables", 521),
        (&["iptables-legacy -A INPUT -s 173.245.48.0/20 -j DROP"], "iptables", 522),
        (&["ufw allow 80,443/tcp", "ufw insert 1 deny from 173.245.48.0/24"], "UFW", 522),
    ];
    for (commands, name, error) in table {
        let lab = healthy();
        if name == "UFW" {
            enable(&lab);
        }
        words(&lab, commands);
        let report = doctor(&lab, &[]);
        let cause = expect_cause(&report, "firewall.refused", error);
        assert!(cause["text"].as_str().is_some_and(|t| t.contains(name)), "{cause:#}");
    }
}

#[test]
fn a_ban_of_fail2bans_is_named_with_its_jail_and_what_lifts_it() {
    let lab = healthy();
    fail2ban::install(&lab, &fail2ban::JAILS.replace("iptables-multiport", "nftables-multiport"));
    fail2ban::start(&lab);
    lab.run(["fail2ban-client", "set", "door", "banip", EDGE4, EDGE6]);
    wait_until("it bans", || [EDGE4, EDGE6].iter().all(|a| lab.connect(a, 443) == Reach::Refused));
    let report = doctor(&lab, &[]);
    let cause = expect_cause(&report, "firewall.refused", 521);
    assert!(cause["text"].as_str().is_some_and(|t| t.contains("fail2ban (jail door)")), "{cause:#}");
    let next = report["conclusion"]["next"].as_str().unwrap_or_default();
    assert!(next.starts_with("fail2ban-client set door unbanip"), "{next}");

    // What was done to another tool says nothing of this one.
    lab.run(["fail2ban-client", "set", "door", "unbanip", EDGE4, EDGE6]);
    lab.edgeallow(["sync", "--backend", "nftables"]).expect_ok();
    let report = doctor(&lab, &[]);
    assert!(!ids(&report, "warning").contains(&"firewall.drift"), "{report:#}");
    let drift = |f: &&Value| f["id"] == "firewall.drift" && f["text"].as_str().is_some_and(|t| t.contains("fail2ban"));
    let found = report["findings"].as_array().expect("findings").iter().find(drift).expect("a note");
    assert!(found["text"].as_str().is_some_and(|t| t.contains("has not been run for fail2ban yet")), "{found:#}");
}

fn expect_denied(report: &Value, id: &str, file: &str) {
    assert_eq!(ids(report, "cause"), [id], "{report:#}");
    let conclusion = report["conclusion"]["text"].as_str().unwrap_or_default();
    assert!(conclusion.contains("403") && conclusion.contains(file), "{conclusion}");
}

#[test]
fn a_deny_of_nginxs_is_the_cause() {
    let lab = Lab::without_listeners();
    site::nginx(&lab, &site::nginx_site("  deny 173.245.48.0/20;"));
    assert!(site::visit(&lab, EDGE4, false).contains(" 403 "));
    expect_denied(&doctor(&lab, &[]), "firewall.nginx-denies", "/etc/nginx/");
}

#[test]
fn a_deny_of_apaches_is_the_cause() {
    let lab = Lab::without_listeners();
    site::apache_stopped(
        &lab,
        &site::apache_site(
            "<Location />\n<RequireAll>\nRequire all granted\nRequire not ip 173.245.48.0/20\n</RequireAll>\n</Location>",
        ),
    );
    lab.run(["apachectl", "start"]);
    assert!(site::visit(&lab, EDGE4, false).contains(" 403 "));
    expect_denied(&doctor(&lab, &[]), "firewall.apache-denies", "/etc/apache2/");
}

#[test]
fn a_limit_per_address_is_a_warning_and_no_cause() {
    let lab = Lab::without_listeners();
    let zone = "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/s;\n";
    site::nginx(&lab, &(zone.to_owned() + &site::nginx_site("  limit_req zone=one burst=20 nodelay;")));
    let report = doctor(&lab, &[]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec!["firewall.nginx-limits"]), "{report:#}");
}

#[test]
fn a_route_that_swallows_a_range_is_the_cause() {
    let lab = healthy();
    words(
        &lab,
        &[
            "ip link add tun0 type veth peer name tun1",
            "ip link set tun1 up",
            "ip link set tun0 up",
            "ip addr add 10.8.0.2/24 dev tun0",
        ],
    );
    lab.listen(8443);
    expect_healthy(&doctor(&lab, &[]));
    // The lab has a route to each of its edges, which would be the narrower one.
    words(&lab, &["ip route del 173.245.48.29/32", "ip route add 173.245.48.0/20 via 10.8.0.1"]);
    assert_eq!(lab.connect(EDGE4, 8443), Reach::Timeout);
    let report = doctor(&lab, &[]);
    expect_cause(&report, "firewall.route", 523);
    words(&lab, &[report["conclusion"]["next"].as_str().unwrap_or_default()]);
    assert_eq!(lab.connect(EDGE4, 8443), Reach::Accepted);
}

#[test]
fn a_real_mod_evasive_that_has_blocked_cloudflare_is_the_cause_until_the_ranges_are_on_its_white_list() {
    let lab = Lab::new();
    mod_evasive::install(&lab);
    lab.run(["apachectl", "start"]);
    let doctor = || {
        // Of the requests before it, all are logged.
        site::settled(&lab);
        doctor(&lab, &["--port", "8080"])
    };
    expect_healthy(&doctor());
    assert!(mod_evasive::refused(&lab, STRANGER4) > 0);
    expect_healthy(&doctor());
    assert!(mod_evasive::refused(&lab, EDGE4) > 0);
    let report = doctor();
    assert_eq!(ids(&report, "cause"), ["firewall.mod-evasive"], "{report:#}");
    assert_eq!(ids(&report, "warning"), Vec::<&str>::new(), "{report:#}");
    let all = report["findings"].as_array().unwrap();
    let cause = all.iter().find(|f| f["id"] == "firewall.mod-evasive").unwrap();
    assert_eq!(cause["cloudflare_errors"], serde_json::json!([]), "visitors see Apache's own page: {cause:#}");
    let shown = cause["evidence"].to_string();
    assert!(shown.contains(&format!("{EDGE4}, answered 403")) && !shown.contains(STRANGER4), "{cause:#}");
    let command = report["conclusion"]["next"].as_str().unwrap();
    assert_eq!(command, "edgeallow sync --backend mod_evasive");
    lab.edgeallow(["sync", "--offline", "--backend", "mod_evasive"]).expect_ok();
    assert_eq!(mod_evasive::refused(&lab, EDGE4), 0);
    // What was logged before is a note.
    let report = doctor();
    expect_healthy(&report);
    assert!(ids(&report, "note").contains(&"logs.mod-evasive"), "{report:#}");
}

#[test]
fn what_is_refused_where_nobody_comes_is_no_cause() {
    let lab = Lab::without_listeners();
    let only_v4 =
        site::nginx_site("").lines().filter(|l| !l.contains("[::]")).map(|l| format!("{l}\n")).collect::<String>();
    site::nginx(&lab, &only_v4);
    words(&lab, &["ip6tables -A INPUT -p tcp --dport 443 -j DROP"]);
    let report = doctor(&lab, &[]);
    assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec![]), "{report:#}");
    assert!(ids(&report, "note").contains(&"firewall.refused"), "{report:#}");
}

#[test]
fn an_address_or_a_scheme_beside_an_open_one_is_a_warning() {
    for commands in [
        &["ip addr add 192.0.2.9/24 dev s0", "iptables -A INPUT -d 192.0.2.9 -p tcp --dport 443 -j DROP"][..],
        &["iptables -A INPUT -p tcp --dport 80 -j DROP", "ip6tables -A INPUT -p tcp --dport 80 -j DROP"],
    ] {
        let lab = healthy();
        words(&lab, commands);
        let report = doctor(&lab, &[]);
        assert_eq!((ids(&report, "cause"), ids(&report, "warning")), (vec![], vec!["firewall.refused"]), "{report:#}");
    }
    let lab = healthy();
    words(&lab, &["iptables -A INPUT -p tcp --dport 80 -j DROP"]);
    expect_cause(&doctor(&lab, &["--mode", "flexible"]), "firewall.refused", 522);
}

#[test]
fn a_route_that_leads_nowhere_is_the_cause() {
    let lab = healthy();
    lab.listen(8443);
    words(&lab, &["ip route del 173.245.48.29/32"]);
    for command in ["ip route add blackhole 173.245.48.0/20", "ip rule add to 173.245.48.0/20 prohibit"] {
        words(&lab, &[command]);
        assert_eq!(lab.connect(EDGE4, 8443), Reach::Timeout);
        let report = doctor(&lab, &[]);
        expect_cause(&report, "firewall.route", 523);
        follow(&lab, &report);
        assert_eq!(lab.connect(EDGE4, 8443), Reach::Accepted);
        expect_healthy(&doctor(&lab, &[]));
    }
    // It is in a table that nobody is sent to.
    words(&lab, &["ip route add blackhole 173.245.48.0/20 table 100"]);
    expect_healthy(&doctor(&lab, &[]));
    words(&lab, &["ip route del default"]);
    assert_eq!(lab.connect(EDGE4, 8443), Reach::Timeout);
    let report = look(&lab, &[]);
    expect_cause(&report, "firewall.route", 523);
    assert_eq!(report["conclusion"]["next"], "ip route show table all");
}

#[test]
fn a_vpn_that_takes_every_answer_is_not_passed_over() {
    let lab = healthy();
    lab.listen(8443);
    words(&lab, &["ip route del 173.245.48.29/32", "ip link add tun0 type veth peer name tun1", "ip link set tun1 up"]);
    words(&lab, &["ip link set tun0 up", "ip addr add 10.8.0.2/24 dev tun0"]);
    // As `wg-quick` does.
    words(&lab, &["ip route add default via 10.8.0.1 dev tun0 table 51820"]);
    words(&lab, &["ip rule add not fwmark 51820 table 51820", "ip rule add table main suppress_prefixlength 0"]);
    assert_eq!(lab.connect(EDGE4, 8443), Reach::Timeout);
    let report = doctor(&lab, &[]);
    assert_eq!(ids(&report, "cause"), Vec::<&str>::new(), "{report:#}");
    assert!(ids(&report, "skipped").contains(&"firewall.route-elsewhere"), "{report:#}");
    let told = report["conclusion"]["text"].as_str().unwrap();
    assert!(told.contains("Whether answers from 192.0.2.1 arrive at Cloudflare can't be told"), "{told}");
    assert!(!told.contains("Nothing on this machine"), "{told}");
    // The address has a table of its own.
    words(&lab, &["ip route add default via 192.0.2.2 table 100", "ip rule add from 192.0.2.1 table 100"]);
    assert_eq!(lab.connect(EDGE4, 8443), Reach::Accepted);
    let report = doctor(&lab, &[]);
    assert_eq!(ids(&report, "cause"), Vec::<&str>::new(), "{report:#}");
    assert!(!ids(&report, "skipped").contains(&"firewall.route-elsewhere"), "{report:#}");
}
