//! The lab proved by itself: a proof is worth no more than what it stands on.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::lab::{EDGE4, EDGE6, EDGES, LISTENING, Lab, Reach, STRANGER4, STRANGER6, STRANGERS, Table};

const DROP_ALL: &str = "table inet filter {
    chain input { type filter hook input priority filter; policy drop; }
}";

#[test]
fn without_a_firewall_everybody_is_answered() {
    let lab = Lab::new();
    let everybody = [EDGES.as_slice(), &STRANGERS].concat();
    let table = lab.table(&everybody, &LISTENING);
    assert!(table.all_accepted(), "{table:?}");
    assert_eq!(table.0.len(), everybody.len() * LISTENING.len());
}

#[test]
fn a_port_without_a_listener_refuses_until_there_is_one() {
    let lab = Lab::new();
    assert_eq!(lab.connect(EDGE4, 8080), Reach::Refused);
    assert_eq!(lab.connect(EDGE6, 8080), Reach::Refused);
    lab.listen(8080);
    assert_eq!(lab.connect(EDGE4, 8080), Reach::Accepted);
    assert_eq!(lab.connect(EDGE6, 8080), Reach::Accepted);
}

#[test]
fn a_drop_policy_is_a_timeout_and_a_matrix_of_them_costs_one() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], DROP_ALL);
    // One after the other they would take nine. A machine that stands still takes more time for one of the tables.
    let table = || {
        let start = Instant::now();
        let table = lab.table(&[EDGE4, EDGE6, STRANGER4, STRANGER6], &[80, 443]);
        assert!(table.0.values().all(|r| *r == Reach::Timeout), "{table:?}");
        start.elapsed()
    };
    assert!((0..10).any(|_| table() < Duration::from_secs(5)), "eight probes at once don't cost what one does");
}

#[test]
fn a_reject_is_refused_in_both_families() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], &DROP_ALL.replace("policy drop;", "policy drop; tcp dport 80 reject;"));
    for from in [EDGE4, EDGE6] {
        assert_eq!(lab.connect(from, 80), Reach::Refused, "{from} to 80");
        assert_eq!(lab.connect(from, 443), Reach::Timeout, "{from} to 443");
    }
}

#[test]
fn every_packet_filter_has_effect() {
    for program in ["iptables-nft", "iptables-legacy"] {
        let lab = Lab::new();
        lab.run([program, "-P", "INPUT", "DROP"]);
        lab.run([program, "-A", "INPUT", "-s", EDGE4, "-j", "ACCEPT"]);
        assert_eq!(lab.connect(EDGE4, 80), Reach::Accepted, "{program}");
        assert_eq!(lab.connect(STRANGER4, 80), Reach::Timeout, "{program}");
        assert_eq!(lab.connect(STRANGER6, 80), Reach::Accepted, "{program} has nothing to say about IPv6");
    }
}

#[test]
fn another_address_can_connect_once_the_internet_has_it() {
    let lab = Lab::new();
    lab.internet_address("198.41.128.1");
    lab.internet_addresses(["198.41.128.1", "2606:4700::1"]);
    let Table(table) = lab.table(&["198.41.128.1", "2606:4700::1"], &[443]);
    assert!(table.values().all(|r| *r == Reach::Accepted), "{table:?}");
}

#[test]
fn what_is_written_in_a_lab_stays_there() {
    let places =
        ["/etc/edgeallow-lab-test", "/var/edgeallow-lab-test", "/usr/edgeallow-lab-test", "/run/edgeallow-lab"];
    let lab = Lab::new();
    for place in places {
        lab.write_file(place, "lab");
        assert_eq!(lab.read_file(place), "lab");
        assert!(!fs::exists(place).expect("look at the machine"), "{place} is on the machine");
    }
    let other = Lab::new();
    assert!(places.iter().all(|p| !other.exists(p)), "a lab shows what another one wrote");
    assert_eq!(lab.run(["hostname"]).stdout.trim(), "lab");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").expect("the machine's name").trim(), "lab");
}

#[test]
fn a_picture_shows_what_was_changed() {
    let lab = Lab::new();
    let (tree, stamps, rules) = (lab.tree(&["/etc"]), lab.stamps(&["/etc"]), lab.rules());
    assert!(crate::lab::diff(&stamps, &lab.stamps(&["/etc"])).is_empty());
    assert_eq!(rules, lab.rules(), "looking changes nothing");
    lab.write_file("/etc/hosts", "127.0.0.1 localhost\n");
    lab.write_file("/etc/nftables.d/x", "");
    lab.run(["ipset", "create", "friends", "hash:net"]);
    lab.run(["ip6tables-legacy", "-A", "INPUT", "-j", "ACCEPT"]);
    let found = crate::lab::diff(&tree, &lab.tree(&["/etc"])).join("\n");
    assert!(found.contains("/etc/hosts") && found.contains("new: /etc/nftables.d/x"), "{found}");
    let now = lab.rules();
    assert!(now.0.contains("create friends") && now.0.contains("-A INPUT -j ACCEPT"), "{now:?}");
}

#[test]
fn foreign_rules_are_what_does_not_carry_the_tag() {
    let lab = Lab::new();
    lab.feed(["nft", "-f", "-"], DROP_ALL);
    lab.run(["ipset", "create", "friends", "hash:net"]);
    let before = lab.foreign_rules();
    lab.run(["nft", "add", "table", "inet", "edgeallow"]);
    lab.run([
        "nft",
        "insert",
        "rule",
        "inet",
        "filter",
        "input",
        "tcp",
        "dport",
        "80",
        "accept",
        "comment",
        "edgeallow",
    ]);
    lab.run(["ipset", "create", "edgeallow4", "hash:net"]);
    assert_eq!(before, lab.foreign_rules());
    lab.run(["nft", "add", "rule", "inet", "filter", "input", "tcp", "dport", "81", "accept"]);
    assert_ne!(before, lab.foreign_rules());
}

#[test]
fn a_process_in_the_lab_ends_with_it() {
    let lab = Lab::new();
    lab.run(["sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &"]);
    let of_the_lab = fs::read_link(format!("/proc/{}/ns/net", lab.init())).expect("a namespace");
    let holders = || {
        let processes = fs::read_dir("/proc").expect("look at the machine's processes");
        let links = processes.filter_map(|p| fs::read_link(p.ok()?.path().join("ns/net")).ok());
        links.filter(|l| *l == of_the_lab).count()
    };
    assert_eq!(holders(), 2, "pid 1 and the sleeper");
    drop(lab);
    assert_eq!(holders(), 0, "something is left of a lab");
}

#[test]
fn nothing_is_left_after_a_panic() {
    let (tell, told) = std::sync::mpsc::channel();
    let result = std::thread::spawn(move || {
        let lab = Lab::new();
        let init = lab.init();
        tell.send((init, fs::read_link(format!("/proc/{init}/ns/mnt")).expect("a namespace"))).expect("told");
        panic!("on purpose");
    })
    .join();
    assert!(result.is_err());
    let (init, mounts) = told.recv().expect("told");
    assert!(!fs::read_link(format!("/proc/{init}/ns/mnt")).is_ok_and(|l| l == mounts), "pid 1 of the lab lives on");
    assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mounts").contains("/mnt/internet"));
}

#[test]
fn a_failing_program_fails_the_test_with_its_words() {
    let lab = Lab::new();
    let output = lab.command(["nft", "-f", "-"]).stdin("nonsense").run();
    assert_eq!(output.status, Some(1));
    assert!(output.stderr.contains("syntax error"), "{output:?}");
    assert!(std::panic::catch_unwind(|| output.expect_ok()).is_err());
}

#[test]
fn a_lab_is_made_in_a_moment() {
    // A moment is what two hundred of the smallest programs take to run, on a machine however busy: a fifth of a second
    // where nothing else is at work.
    let time = |what: &dyn Fn()| {
        let start = Instant::now();
        what();
        start.elapsed()
    };
    let program = || assert!(Command::new("/bin/true").status().is_ok_and(|s| s.success()));
    let in_a_moment = (0..10).any(|_| {
        let moment = time(&|| (0..200).for_each(|_| program()));
        let lab = time(&|| drop(Lab::new()));
        println!("a lab takes {lab:?}, a moment {moment:?}");
        lab < moment
    });
    assert!(in_a_moment, "none of ten labs was made in a moment");
}
