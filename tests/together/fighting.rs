//! Two packet filters that undo each other's work are named; where each keeps to its own there is no such word.

use serde_json::Value;

use crate::{
    conformance::{Kind as _, firewalld::POLICY, ufw::UFW},
    lab::{EDGES, Lab},
    run::{PORTS, expect_status, part_of, sync},
};

fn fights(report: &Value) -> Vec<&str> {
    let all = report["warnings"].as_array().expect("warnings").iter();
    all.filter(|w| w["id"] == "firewalls-fight").filter_map(|w| w["message"].as_str()).collect()
}

fn expect_fight(report: &Value, names: [&str; 2]) {
    let said = fights(report);
    assert!(said.len() == 1 && names.iter().all(|n| said[0].contains(n)), "{names:?}: {report:#}");
}

#[test]
fn iptables_asked_for_where_ufw_is_active_is_a_fight_that_is_named() {
    let lab = Lab::new();
    UFW.setup(&lab);
    assert!(fights(&sync(&lab, &["--dry-run"])).is_empty(), "ufw alone");
    expect_fight(&sync(&lab, &["--dry-run", "--backend", "iptables"]), ["ufw", "iptables"]);
    // It is done all the same, for he asked for it, and said to people too.
    let report = sync(&lab, &["--backend", "iptables"]);
    expect_fight(&report, ["ufw", "iptables"]);
    assert_eq!(part_of(&report, "iptables")["state"], "applied", "{report:#}");
    assert!(lab.table(&EDGES, &PORTS).all_accepted(), "{:?}", lab.rules());
    let said = lab.edgeallow(["sync", "--offline", "--backend", "iptables"]).expect_ok();
    assert!(format!("{}{}", said.stdout, said.stderr).contains("ufw manages this firewall"), "{said:?}");
    // The same by the configuration, until he takes the advice.
    lab.write_file("/etc/edgeallow/config.toml", "backends = [\"iptables\"]\n");
    expect_fight(&sync(&lab, &[]), ["ufw", "iptables"]);
    lab.write_file("/etc/edgeallow/config.toml", "backends = [\"auto\"]\n");
    let report = sync(&lab, &[]);
    assert!(fights(&report).is_empty(), "{report:#}");
    assert_eq!(part_of(&report, "iptables")["state"], "removed", "{report:#}");
    assert_eq!(part_of(&report, "ufw")["state"], "applied", "{report:#}");
    assert!(lab.table(&EDGES, &PORTS).all_accepted(), "{:?}", lab.rules());
    expect_status(&lab, 0);
}

/// Which is the word to heed: firewalld's reload, among others, flushes what ufw loaded.
#[test]
fn ufw_and_firewalld_both_at_work_are_a_fight_that_is_named() {
    let lab = Lab::new();
    UFW.setup(&lab);
    POLICY.setup(&lab);
    expect_fight(&sync(&lab, &["--dry-run"]), ["ufw", "firewalld"]);
    expect_fight(&sync(&lab, &[]), ["ufw", "firewalld"]);
}
