//! What ufw does to those who add rules to it, trap by trap, on the real program.

use std::time::Duration;

use serde_json::Value;

use crate::{
    conformance::{
        Kind,
        ufw::{FILES, UFW, enable, write_rules},
    },
    lab::{EDGE4, EDGE6, EDGES, Lab, Reach, STRANGER4, diff},
    run::{PORTS, expect_status, part_of, remove, sync, try_sync},
};

const ANY: &str = "0.0.0.0/0";

fn warning<'a>(report: &'a Value, id: &str) -> &'a str {
    let all = report["warnings"].as_array().into_iter().flatten();
    let found = all.filter(|w| w["id"] == id).find_map(|w| w["message"].as_str());
    found.unwrap_or_else(|| panic!("no warning {id} in {report:#}"))
}

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

/// Cloudflare gets in on both ports, a stranger on neither.
fn expect_open(lab: &Lab) {
    let (edges, stranger) = (lab.table(&EDGES, &PORTS), lab.table(&[STRANGER4], &PORTS));
    assert!(edges.all_accepted() && stranger.none_accepted(), "{edges:?}{stranger:?}\n{:?}", lab.rules());
}

/// ufw itself sees what edgeallow did: it tells the same rules, and writes the very same files.
fn expect_ufw_agrees(lab: &Lab) {
    let files = lab.tree(&["/etc/ufw"]);
    let added = lab.run(["ufw", "show", "added"]).stdout;
    assert_eq!(added.matches("comment 'edgeallow'").count(), 22, "{added}");
    let status = lab.run(["ufw", "status"]).stdout;
    assert_eq!(status.matches("# edgeallow").count(), 22, "{status}");
    lab.run(["ufw", "logging", "low"]);
    let found = diff(&files, &lab.tree(&["/etc/ufw"]));
    assert!(found.is_empty(), "ufw writes its files otherwise: {found:#?}");
}

#[test]
fn ufw_itself_agrees_with_what_was_written() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(["ufw", "deny", "443"]);
    sync(&lab, &[]);
    let rules = lab.rules();
    expect_ufw_agrees(&lab);
    for again in [&["ufw", "reload"][..], &["ufw", "disable"], &["ufw", "--force", "enable"]] {
        lab.run(again);
    }
    assert_eq!(rules, lab.rules(), "after reload, disable and enable");
    expect_ufw_agrees(&lab);
    expect_open(&lab);
    expect_status(&lab, 0);
}

#[test]
fn a_sync_with_nothing_to_do_dumps_the_rules_of_each_family_once() {
    let lab = Lab::new();
    enable(&lab);
    sync(&lab, &[]);
    lab.record_programs();
    sync(&lab, &[]);
    let programs = lab.recorded_programs();
    for family in ["iptables", "ip6tables"] {
        let dumps = programs.iter().filter(|p| p.starts_with(family) && p.contains("-save"));
        assert_eq!(dumps.count(), 1, "iptables-save is iptables-nft-save: {programs:?}");
    }
}

#[test]
fn a_deny_placed_before_is_overtaken_and_named() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(["ufw", "deny", "443"]);
    let report = sync(&lab, &[]);
    let changes = part_of(&report, "ufw")["changes"].to_string();
    assert!(changes.contains("deny 443"), "what ours goes before is not named: {changes}");
    expect_open(&lab);
}

#[test]
fn his_identical_rule_without_a_comment_is_kept_and_is_enough() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(words("ufw allow from 173.245.48.0/20 to any port 80,443 proto tcp"));
    sync(&lab, &[]);
    let text = lab.read_file(FILES[0].0);
    assert_eq!(text.matches(" 173.245.48.0/20 in").count(), 1, "{text}");
    expect_open(&lab);
    remove(&lab, &[]);
    assert!(lab.read_file(FILES[0].0).contains(" 173.245.48.0/20 in\n"));
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted, "his rule still lets it in");
}

#[test]
fn his_identical_rule_behind_a_deny_gets_ours_in_another_form() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(["ufw", "deny", "443"]);
    lab.run(words("ufw allow from 173.245.48.0/20 to any port 80,443 proto tcp"));
    assert_ne!(lab.connect(EDGE4, 443), Reach::Accepted);
    let before = lab.tree(&["/etc/ufw"]);
    let report = sync(&lab, &[]);
    let said = warning(&report, "ufw-allow-behind-refusal");
    assert!(said.contains("`deny 443`") && said.contains("173.245.48.0/20"), "{said}");
    expect_open(&lab);
    // In a form that ufw tells from his: deleting his leaves ours.
    lab.run(words("ufw delete allow from 173.245.48.0/20 to any port 80,443 proto tcp"));
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    lab.run(words("ufw allow from 173.245.48.0/20 to any port 80,443 proto tcp"));
    remove(&lab, &[]);
    let found = diff(&before, &lab.tree(&["/etc/ufw"]));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_limit_placed_before_counts_as_a_refusal() {
    let lab = Lab::new();
    enable(&lab);
    lab.run(["ufw", "limit", "443/tcp"]);
    lab.run(words("ufw allow from 173.245.48.0/20 to any port 443 proto tcp"));
    sync(&lab, &[]);
    let reached: Vec<_> = (0..12).map(|_| lab.connect(EDGE4, 443)).collect();
    assert!(reached.iter().all(|r| *r == Reach::Accepted), "{reached:?}");
}

#[test]
fn ipv6_no_skips_ipv6_and_says_so() {
    let lab = Lab::new();
    let settings = lab.read_file("/etc/default/ufw").replace("IPV6=yes", "IPV6=no");
    lab.write_file("/etc/default/ufw", settings);
    enable(&lab);
    let v6 = lab.read_file(FILES[1].0);
    let report = sync(&lab, &[]);
    assert!(warning(&report, "ipv6-skipped").contains("IPV6=no"));
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    assert_ne!(lab.connect(EDGE6, 443), Reach::Accepted);
    assert_eq!(v6, lab.read_file(FILES[1].0));
    assert_eq!(sync(&lab, &[])["changed"], false);
}

#[test]
fn inactive_ufw_gets_the_rules_stored_and_is_pending() {
    let lab = Lab::new();
    assert_eq!(sync(&lab, &[])["changed"], false, "auto doesn't take an inactive ufw");
    let rules = lab.rules();
    let report = sync(&lab, &["--backend", "ufw"]);
    assert_eq!(part_of(&report, "ufw")["state"], "pending", "{report:#}");
    assert_eq!(rules, lab.rules(), "nothing is live");
    assert_eq!(sync(&lab, &["--backend", "ufw"])["changed"], false);
    enable(&lab);
    expect_open(&lab);
    assert_eq!(sync(&lab, &[])["changed"], false);
    expect_ufw_agrees(&lab);
}

#[test]
fn odd_rules_of_his_stay_byte_for_byte() {
    let lab = Lab::new();
    write_rules(
        &lab,
        FILES[0],
        &[
            (
                &format!("allow tcp 80,443 {ANY} any {ANY} WWW%20Full - in_eth0 comment=68c3b66d"),
                &[
                    "user-input -i eth0 -p tcp -m multiport --dports 80,443 -j ACCEPT -m comment --comment 'dapp_WWW%20Full'",
                ],
            ),
            (
                &format!("route:allow tcp 80 {ANY} any {ANY} in_eth0!out_eth1"),
                &["user-forward -i eth0 -o eth1 -p tcp --dport 80 -j ACCEPT"],
            ),
            (
                &format!("limit tcp 22 {ANY} any {ANY} in"),
                &[
                    "user-input -p tcp --dport 22 -m conntrack --ctstate NEW -m recent --set",
                    "user-input -p tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 -j ufw-user-limit",
                    "user-input -p tcp --dport 22 -j ufw-user-limit-accept",
                ],
            ),
            (
                &format!("allow any any {ANY} any 10.0.0.0/8 in comment=c3a9c3a8ff"),
                &["user-input -s 10.0.0.0/8 -j ACCEPT"],
            ),
            ("something that no ufw wrote", &[]),
        ],
    );
    let before = lab.tree(&["/etc/ufw"]);
    sync(&lab, &["--backend", "ufw"]);
    assert!(lab.read_file(FILES[0].0).contains("173.245.48.0/20"));
    remove(&lab, &[]);
    let found = diff(&before, &lab.tree(&["/etc/ufw"]));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_ufw_of_another_version_is_told_by_its_own_command() {
    let lab = Lab::new();
    UFW.setup(&lab);
    let text = lab.read_file("/usr/sbin/ufw");
    let version = text.lines().find(|l| l.starts_with("version = \"")).expect("ufw's version").to_owned();
    let other = version.split('"').next().expect("what stands before it").to_owned() + "\"0.99\"";
    lab.write_file("/usr/sbin/ufw", text.replace(&version, &other));
    let before = lab.tree(&["/etc/ufw"]);
    let report = sync(&lab, &[]);
    assert!(part_of(&report, "ufw")["changes"].to_string().contains("ufw prepend allow from"), "{report:#}");
    expect_open(&lab);
    expect_ufw_agrees(&lab);
    assert_eq!(sync(&lab, &[])["changed"], false);
    remove(&lab, &[]);
    let found = diff(&before, &lab.tree(&["/etc/ufw"]));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn while_ufw_is_at_work_its_lock_is_waited_for() {
    let lab = Lab::new();
    UFW.setup(&lab);
    // Holds ufw's lock as ufw does, for a moment, and says when it let go.
    let holder = "import fcntl,time\nf=open('/run/ufw.lock','w')\nfcntl.lockf(f,fcntl.LOCK_EX)\n\
                  open('/run/held','w').close()\ntime.sleep(2)\nopen('/run/let-go','w').close()\n";
    std::thread::scope(|scope| {
        let holding = scope.spawn(|| lab.run(["python3", "-c", holder]));
        while !lab.exists("/run/held") {
            assert!(!holding.is_finished(), "ufw's lock can't be held");
            std::thread::sleep(Duration::from_millis(5));
        }
        try_sync(&lab, &[]).expect_ok();
        assert!(lab.exists("/run/let-go"), "it didn't wait for ufw's lock");
        holding.join().expect("the holder of the lock");
    });
    expect_open(&lab);
}
