//! Packet filters that turn Cloudflare away.

use super::{doctor, expect_cause, expect_healthy, site::site};
use crate::lab::Lab;

#[test]
fn a_dropping_and_a_rejecting_rule_are_the_cause() {
    for (statement, error) in [("drop", 522), ("reject", 521)] {
        let lab = Lab::without_listeners();
        site(&lab);
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
    let lab = Lab::without_listeners();
    site(&lab);
    expect_healthy(&doctor(&lab, &[]));
}
