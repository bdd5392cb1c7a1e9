//! What `verify` says of a host, and what a sync says at its end, against what connections really do there.

use serde_json::Value;

use crate::{
    conformance::{Kind, on_each_quick_backend, ufw::enable},
    lab::{EDGE4, EDGE6, EDGES, Lab, Output, Reach, STRANGER4},
    run::{PORTS, sync, try_sync},
};

mod garbled;
pub mod named;
mod schema;

/// `edgeallow verify --offline --format json`; the report has to keep to the published schema.
fn verify(lab: &Lab, status: i32, args: &[&str]) -> Value {
    let report = lab.edgeallow([&["verify", "--offline", "--format", "json"], args].concat()).expect(status).json();
    schema::expect_valid(&report);
    assert_eq!(report["error"], Value::Null, "{report:#}");
    report
}

fn in_words(lab: &Lab, args: &[&str]) -> Output {
    lab.edgeallow([&["verify", "--offline"], args].concat())
}

/// The only culprit.
fn culprit(report: &Value) -> &Value {
    match report["reach"]["culprits"].as_array().map(Vec::as_slice) {
        Some([one]) => one,
        _ => panic!("not one culprit in {report:#}"),
    }
}

fn warned(report: &Value, id: &str) -> bool {
    report["warnings"].as_array().is_some_and(|all| all.iter().any(|w| w["id"] == id))
}

/// Drops by default.
const DROPPING: &str = "table inet filter {
    chain input { type filter hook input priority 0; policy drop; }
}";

/// An early drop of a part of a range, which is nobody's whom edgeallow knows.
const EARLY: &str = "table inet early {
    chain pre { type filter hook prerouting priority -300; ip saddr 173.245.48.0/24 drop; }
}";

#[test]
fn without_a_firewall_one_line_says_that_all_is_well() {
    let lab = Lab::new();
    let said = in_words(&lab, &[]).expect_ok();
    let all = "All 22 ranges reach ports 80 and 443 on 192.0.2.1 and 2001:db8:2::1 (s0).";
    let warning = "warning: the list built into this edgeallow is used";
    assert!(
        matches!(said.stdout.lines().collect::<Vec<_>>()[..], [one, two] if one == all && two.starts_with(warning)),
        "{said:?}"
    );
    let report = verify(&lab, 0, &[]);
    assert_eq!(report["reach"]["verdict"], "accepted");
    assert_eq!(report["reach"]["questions"].as_array().map(Vec::len), Some(4), "{report:#}");
    assert!(!lab.exists("/var/lib/edgeallow"), "verify leaves nothing behind");
}

#[test]
fn a_policy_that_drops_is_the_culprit_until_a_sync() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], DROPPING);
    lab.run(["nft", "add", "table", "inet", "mine"]);
    assert!(lab.table(&EDGES, &PORTS).none_accepted());
    let report = verify(&lab, 7, &[]);
    let found = culprit(&report);
    assert_eq!(found["verdict"], "refused");
    assert_eq!(found["cloudflare_error"], 522);
    assert_eq!((&found["tool"], &found["place"]["chain"]), (&"nftables".into(), &"input".into()));
    assert_eq!(found["place"]["position"], Value::Null, "it is the policy: {found:#}");
    assert_eq!(found["catches"][0]["all"], true);
    assert_eq!(found["mend"][0], "edgeallow sync --backend nftables");
    lab.run(["edgeallow", "sync", "--offline", "--backend", "nftables"]);
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
    assert_eq!(verify(&lab, 0, &[])["reach"]["verdict"], "accepted");
}

#[test]
fn ufw_is_named_with_its_rule_and_a_sync_overtakes_it() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(["ufw", "deny", "443"]);
    let report = verify(&lab, 7, &["--port", "443"]);
    let culprits = report["reach"]["culprits"].as_array().expect("culprits");
    assert!(culprits.iter().all(|c| c["tool"] == "ufw"), "{report:#}");
    let texts: Vec<&str> = culprits.iter().filter_map(|c| c["place"]["text"].as_str()).collect();
    assert!(texts.iter().any(|t| t.starts_with("-A ufw-user-input ") && t.contains("--dport 443")), "{texts:?}");
    assert!(culprits.iter().all(|c| c["mend"][0] == "edgeallow sync --backend ufw"), "{report:#}");
    let report = sync(&lab, &[]);
    assert_eq!(report["reach"]["verdict"], "accepted", "{report:#}");
    schema::expect_valid(&report);
    verify(&lab, 0, &[]);
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
}

#[test]
fn what_a_sync_cannot_mend_is_said_loudly_and_only_fails_where_that_is_asked_for() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], EARLY);
    let report = sync(&lab, &[]);
    let loud = report["warnings"].as_array().and_then(|all| all.iter().find(|w| w["id"] == "still-refused"));
    let loud = loud.and_then(|w| w["message"].as_str()).unwrap_or_else(|| panic!("{report:#}"));
    assert!(loud.contains(": `ip saddr 173.245.48.0/24 drop`; `nft delete rule inet early pre handle "), "{loud}");
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    assert_eq!(lab.connect(EDGE6, 443), Reach::Accepted);
    let strict = try_sync(&lab, &["--require-reach"]).expect(7).json();
    schema::expect_valid(&strict);
    let found = culprit(&strict);
    assert_eq!(found["catches"][0]["ranges"], serde_json::json!(["173.245.48.0/24"]), "the exact part: {found:#}");
    assert_eq!(found["place"]["hook"], "prerouting");
    assert_eq!(found["place"]["text"], "ip saddr 173.245.48.0/24 drop");
    // What is advised is what mends it.
    let advice = found["mend"][0].as_str().expect("a command");
    lab.run(advice.split(' '));
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    let report = try_sync(&lab, &["--require-reach"]).expect_ok().json();
    assert!(!warned(&report, "still-refused"), "{report:#}");
}

#[test]
fn a_dry_run_and_a_configuration_without_it_say_nothing_of_reach() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], EARLY);
    assert_eq!(sync(&lab, &["--dry-run"])["reach"], Value::Null);
    lab.write_file("/etc/edgeallow/config.toml", "verify = false\n");
    let report = sync(&lab, &[]);
    assert_eq!(report["reach"], Value::Null);
    assert!(!warned(&report, "still-refused"), "{report:#}");
    // Asked for by name it is done all the same.
    try_sync(&lab, &["--require-reach"]).expect(7);
}

#[test]
fn a_rate_is_a_warning_and_no_failure() {
    let lab = Lab::new();
    let limit = "policy accept; tcp dport 443 ct state new limit rate over 10/second drop;";
    lab.feed(["nft", "-f", "-"], &DROPPING.replace("policy drop;", limit));
    let report = verify(&lab, 0, &[]);
    assert_eq!(report["reach"]["verdict"], "throttled", "{report:#}");
    assert!(warned(&report, "throttled"), "{report:#}");
    let found = culprit(&report);
    assert_eq!(found["catches"][0]["ports"], serde_json::json!(["443/tcp"]));
    assert!(found["detail"].as_str().is_some_and(|d| d.contains("10/second")), "{found:#}");
}

#[test]
fn iptables_of_both_variants_and_both_families_is_read() {
    for variant in ["nft", "legacy"] {
        let lab = Lab::new();
        let (v4, v6) = (format!("iptables-{variant}"), format!("ip6tables-{variant}"));
        lab.run([&v4, "-A", "INPUT", "-s", "104.16.0.0/12", "-p", "tcp", "--dport", "80", "-j", "REJECT"]);
        lab.run([&v6, "-t", "raw", "-A", "PREROUTING", "-s", "2400:cb00::9", "-j", "DROP"]);
        let report = verify(&lab, 7, &[]);
        let culprits = report["reach"]["culprits"].as_array().expect("culprits");
        assert_eq!(culprits.len(), 2, "{report:#}");
        let of = |family: &str| culprits.iter().find(|c| c["place"]["family"] == family).expect("one of the family");
        assert_eq!(of("ip")["cloudflare_error"], 521);
        assert_eq!(of("ip")["catches"][0]["ranges"], serde_json::json!(["104.16.0.0/13", "104.24.0.0/14"]));
        assert_eq!(of("ip6")["catches"][0]["ranges"], serde_json::json!(["2400:cb00::9/128"]));
        for advice in ["ip", "ip6"].map(|f| of(f)["mend"].as_array().expect("advice").last().expect("a command")) {
            lab.run(advice.as_str().expect("a command").split(' '));
        }
        verify(&lab, 0, &[]);
        assert_eq!(lab.connect(EDGE6, 443), Reach::Accepted, "{variant}");
    }
}

#[test]
fn a_ban_in_an_ipset_is_fail2bans_and_its_address_is_told() {
    let lab = Lab::new();
    lab.run(["ipset", "create", "f2b-nginx", "hash:ip"]);
    lab.run(["ipset", "add", "f2b-nginx", EDGE4]);
    let rule = "iptables-nft -I INPUT -p tcp -m multiport --dports 80,443 -m set --match-set f2b-nginx src -j REJECT";
    lab.run(rule.split(' '));
    let report = verify(&lab, 7, &[]);
    let found = culprit(&report);
    assert_eq!(found["name"], "fail2ban (jail nginx)");
    assert_eq!(found["catches"][0]["ranges"], serde_json::json!(["173.245.48.29/32"]));
    assert_eq!(found["mend"][0], "fail2ban-client set nginx unbanip 173.245.48.29");
    assert_eq!(lab.connect(EDGE4, 443), Reach::Refused);
}

#[test]
fn a_big_list_comes_from_memory_and_not_from_the_kernel() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], DROPPING);
    let many: Vec<String> = (0..6000).map(|n| format!("20.{}.{}.0/24", n / 250, n % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let list = crate::run::list_with(&lab, "many", &many);
    lab.write_file("/etc/edgeallow/config.toml", "[limits]\nmax_prefixes = 20000\nmax_growth = 1000\n");
    let report = sync(&lab, &["--list", &list]);
    assert_eq!(report["reach"]["verdict"], "accepted", "{report:#}");
    verify(&lab, 0, &["--list", &list]);
    // Behind its back: what the kernel holds isn't what is remembered, so the kernel is asked.
    lab.run(["nft", "flush", "set", "inet", "filter", "edgeallow4"]);
    let report = verify(&lab, 7, &["--list", &list]);
    let found = culprit(&report);
    assert_eq!((&found["verdict"], &found["catches"][0]["to"][0]), (&"refused".into(), &"192.0.2.1".into()));
}

#[test]
fn without_privilege_nothing_counts_as_accepted() {
    let lab = Lab::new();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/local/bin/edgeallow", "verify"];
    let output = lab.command([nobody.as_slice(), &["--offline", "--format", "json"]].concat()).run().expect(7);
    let report = output.json();
    schema::expect_valid(&report);
    assert_eq!(report["reach"]["verdict"], "unknown");
    assert!(report["reach"]["gaps"].to_string().contains("root"), "{report:#}");
    let questions = report["reach"]["questions"].as_array().expect("questions");
    assert!(questions.iter().all(|q| q["verdict"] == "unknown" && q["accepted"] == 0), "{report:#}");
}

#[test]
fn tables_without_a_program_that_reads_them_are_a_gap() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], EARLY);
    lab.run(["iptables-legacy", "-P", "INPUT", "ACCEPT"]);
    lab.run(["rm", "/usr/sbin/nft", "/usr/sbin/iptables-legacy-save"]);
    let report = verify(&lab, 7, &[]);
    let gaps = report["reach"]["gaps"].to_string();
    assert!(gaps.contains("no nft program") && gaps.contains("iptables-legacy-save"), "{report:#}");
    assert_eq!(report["reach"]["verdict"], "unknown");
}

#[test]
fn a_packet_s_way_can_be_followed() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(["ufw", "allow", "22"]);
    let said = in_words(&lab, &["--address", EDGE4, "--port", "443"]).expect(7).stdout;
    let first = format!("{EDGE4} → 192.0.2.1 port 443 by s0: refused");
    assert!(said.contains(&first), "{said}");
    let words = ["the request", "input: ip filter INPUT", "-A INPUT -j ufw-before-input", "dropped by UFW"];
    assert!(words.iter().all(|w| said.contains(w)), "{said}");
    let wordy = in_words(&lab, &["--address", EDGE4, "--port", "443", "-v"]).expect(7).stdout;
    assert!(wordy.lines().count() > said.lines().count() + 5, "{wordy}");
    let stranger = verify(&lab, 7, &["--address", STRANGER4, "--port", "443"]);
    assert_eq!(stranger["reach"]["traces"][0]["verdict"], "refused");
    verify(&lab, 0, &["--address", STRANGER4, "--port", "22"]);
}

#[test]
fn wrong_questions_are_usage_errors() {
    let lab = Lab::new();
    let output = lab.edgeallow(["verify", "--offline", "--format", "json", "--interface", "eth7"]).expect(2);
    assert!(output.json()["error"]["hint"].as_str().is_some_and(|h| h.contains("s0")), "{output:?}");
    lab.edgeallow(["verify", "--port", "0"]).expect(2);
    lab.edgeallow(["verify", "--to", "example.org"]).expect(2);
}

#[test]
fn a_tc_filter_on_the_interface_is_unknown_by_name() {
    let lab = Lab::new();
    lab.run("tc qdisc add dev s0 clsact".split(' '));
    verify(&lab, 0, &[]);
    lab.run("tc filter add dev s0 ingress protocol ip u32 match u32 0 0 flowid 1:1".split(' '));
    let report = verify(&lab, 7, &[]);
    assert_eq!(report["reach"]["verdict"], "unknown", "{report:#}");
    assert!(report["reach"].to_string().contains("tc ingress filter"), "{report:#}");
}

on_each_quick_backend! {
    on_every_kind_of_host_a_sync_is_proven,
}

/// Cloudflare is refused before and gets through after, and what is said is what happens.
fn on_every_kind_of_host_a_sync_is_proven(kind: &dyn Kind) {
    let lab = Lab::new();
    kind.setup(&lab);
    let before = verify(&lab, 7, &[]);
    assert_eq!(before["reach"]["verdict"], "refused", "{}: {before:#}", kind.backend());
    let tools: Vec<_> = before["reach"]["culprits"].as_array().into_iter().flatten().map(|c| &c["tool"]).collect();
    assert!(tools.iter().all(|tool| **tool == kind.backend()), "{}: {before:#}", kind.backend());
    assert!(!lab.table(&EDGES, &PORTS).all_accepted());
    let report = try_sync(&lab, &["--require-reach"]).expect_ok().json();
    schema::expect_valid(&report);
    assert_eq!(report["reach"]["verdict"], "accepted", "{}: {report:#}", kind.backend());
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
}
