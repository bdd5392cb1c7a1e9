//! Instances beside the host's own, as docs/recipes/several-instances.md has them: each keeps to what is its own.

use serde_json::Value;

use crate::{
    above::fail2ban,
    conformance::{Kind, iptables, nftables},
    lab::{Lab, diff},
    run::{expect_status, part_of, sync, try_sync},
};

const CONFIG: &str = "/etc/edgeallow/blue.toml";
const STATE: &str = "/var/lib/edgeallow-blue";

/// A command in the network namespace.
fn blue<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [["ip", "netns", "exec", "blue"].as_slice(), words].concat()
}

/// `edgeallow` in the network namespace, by its own configuration and state; the report.
fn edgeallow(lab: &Lab, words: &[&str]) -> Value {
    let instance = ["--config", CONFIG, "--state-dir", STATE, "--offline", "--format", "json"];
    lab.command(blue(&[["edgeallow"].as_slice(), words, &instance].concat())).run().expect_ok().json()
}

/// A host of which edgeallow stores the rules, with a namespace that has rules of its own and an instance by the recipe.
/// In the end the host is as it was, whatever the instance did.
fn keeps_to_its_own(kind: &dyn Kind, section: &str, block: &dyn Fn(&Lab), rules: &[&str]) {
    let lab = Lab::new();
    kind.setup(&lab);
    fail2ban::install(&lab, fail2ban::JAILS);
    sync(&lab, &[]);
    lab.run(["ip", "netns", "add", "blue"]);
    block(&lab);
    lab.write_file(CONFIG, format!("backends = [\"{}\"]\n{section}\n", kind.backend()));
    let before = (lab.tree(&["/etc"]), lab.rules());
    let has_ours = || lab.run(blue(rules)).stdout.contains("edgeallow");
    let as_it_was = |when: &str| {
        let found = diff(&before.0, &lab.tree(&["/etc"]));
        assert!(found.is_empty(), "{when}: {}", found.join("\n"));
        assert!(before.1 == lab.rules(), "{when}: {:?}", lab.rules());
        expect_status(&lab, 0);
    };

    let planned = edgeallow(&lab, &["sync", "--dry-run"]);
    let done = edgeallow(&lab, &["sync"]);
    let (planned, done) = (part_of(&planned, kind.backend()), part_of(&done, kind.backend()));
    assert!(planned["changes"] == done["changes"] && has_ours(), "{planned:#}{done:#}");
    as_it_was("after a sync");
    assert_eq!(edgeallow(&lab, &["sync"])["changed"], false);
    // A boot, when the namespace has been made anew.
    block(&lab);
    assert!(!has_ours());
    assert_eq!(edgeallow(&lab, &["sync", "--restore"])["changed"], true);
    assert!(has_ours());
    as_it_was("after a restore");
    let removed = edgeallow(&lab, &["remove"]);
    assert_eq!(part_of(&removed, "fail2ban")["state"], "skipped", "{removed:#}");
    assert!(!has_ours(), "{removed:#}");
    as_it_was("after a removal");
    assert_eq!(edgeallow(&lab, &["remove"])["changed"], false);
    // What became of its state is not known, so neither is what it stored.
    lab.write_file(&format!("{STATE}/state.json"), "{");
    let restored = edgeallow(&lab, &["sync", "--restore"]);
    assert!(restored["changed"] == false && !has_ours(), "{restored:#}");
    as_it_was("after a restore without a state");
}

fn with_nftables(host: &nftables::Nftables) {
    let rules = "flush ruleset; table inet filter { chain input { type filter hook input priority 0; policy drop; }; }";
    let block = |lab: &Lab| drop(lab.feed(blue(&["nft", "-f", "-"]), rules));
    keeps_to_its_own(host, "[nftables]\npersist = \"none\"", &block, &["nft", "list", "ruleset"]);
}

#[test]
fn in_a_network_namespace_it_leaves_what_the_host_includes() {
    with_nftables(&nftables::WITH_INCLUDE);
}

#[test]
fn in_a_network_namespace_it_leaves_what_the_hosts_service_loads() {
    with_nftables(&nftables::WITH_SYSTEMD);
}

#[test]
fn in_a_network_namespace_it_leaves_the_hosts_files_of_iptables() {
    let block = |lab: &Lab| {
        for program in ["iptables-restore", "ip6tables-restore"] {
            lab.feed(blue(&[program]), "*filter\n:INPUT DROP [0:0]\nCOMMIT\n");
        }
    };
    keeps_to_its_own(&iptables::NFT, "[iptables]\npersist = false", &block, &["iptables-save"]);
}

#[test]
fn an_instance_that_stores_no_more_takes_out_what_it_has_stored() {
    let lab = Lab::new();
    nftables::WITH_INCLUDE.setup(&lab);
    let before = lab.tree(&["/etc"]);
    sync(&lab, &["--state-dir", STATE]);
    assert!(lab.read_file(nftables::CONFIGURATION).contains("edgeallow"));
    lab.write_file(CONFIG, "[nftables]\npersist = \"none\"\n");
    let report = try_sync(&lab, &["--state-dir", STATE, "--config", CONFIG]).expect_ok().json();
    assert_eq!(report["changed"], true, "{report:#}");
    lab.run(["rm", CONFIG]);
    lab.run(["rmdir", "--ignore-fail-on-non-empty", "/etc/edgeallow"]);
    let found = diff(&before, &lab.tree(&["/etc"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
}
