//! Packets on particular rule sets: what the conformance suite's hosts don't have.

mod csf;
mod firewalld;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    conformance::{Kind, iptables, nftables, on_each_backend},
    lab::{EDGE4, EDGE6, EDGES, Lab, Reach, STRANGERS, Table},
    run::{PORTS, expect_status, list_with, part_of, sync, try_sync},
};

/// Everybody tries the ports in question.
fn both(lab: &Lab) -> (Table, Table) {
    (lab.table(&EDGES, &PORTS), lab.table(&STRANGERS, &PORTS))
}

fn expect_only_cloudflare(lab: &Lab) {
    let (edges, strangers) = both(lab);
    assert!(edges.all_accepted() && strangers.none_accepted(), "{edges:?}{strangers:?}\n{:?}", lab.rules());
}

on_each_backend! {
    no_connection_is_lost_while_the_list_keeps_changing,
    ten_thousand_prefixes,
}

fn no_connection_is_lost_while_the_list_keeps_changing(kind: &dyn Kind) {
    let lab = Lab::new();
    kind.setup(&lab);
    let lists = [list_with(&lab, "one", &["9.9.9.0/24"]), list_with(&lab, "two", &["9.9.8.0/24", "2620:fe::/48"])];
    sync(&lab, &["--list", &lists[0]]);
    let (stop, tried, lab) = (&AtomicBool::new(false), &AtomicU32::new(0), &lab);
    let (made, lost) = std::thread::scope(|scope| {
        let flows: Vec<_> = [EDGE4, EDGE6]
            .map(|from| {
                scope.spawn(move || {
                    let mut lost = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let reach = lab.connect(from, 443);
                        tried.fetch_add(1, Ordering::Relaxed);
                        if reach != Reach::Accepted {
                            lost.push(format!("{from}: {reach}"));
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    lost
                })
            })
            .into_iter()
            .collect();
        // Whatever happens, the flows have to end for the scope to end.
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // Each change is three starts of firewall-cmd there, a second each on a busy machine.
            let changes = if kind.backend() == "firewalld" { 20 } else { 200 };
            // Fewer connections prove little, on a machine whose processors are not shared out evenly too.
            let proves = || tried.load(Ordering::Relaxed) >= 400 || flows.iter().any(|flow| flow.is_finished());
            for i in (1..).take_while(|i| *i <= changes || !proves()) {
                let report = sync(lab, &["--list", &lists[i % 2], "--remove-now"]);
                assert_eq!(part_of(&report, kind.backend())["state"], "applied", "change {i}: {report:#}");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let lost: Vec<_> = flows.into_iter().flat_map(|f| f.join().expect("a flow")).collect();
        changes.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (tried.load(Ordering::Relaxed), lost)
    });
    assert!(lost.is_empty(), "{}: {} of {made} connections were lost: {lost:?}", kind.backend(), lost.len());
}

#[test]
fn a_rule_that_drops_before_the_place_of_ours_and_one_after() {
    // No policy: it is a rule at the end that refuses, and one at the beginning that bans ranges of Cloudflare's.
    let lab = Lab::new();
    lab.feed(
        ["nft", "-f", "-"],
        "table inet guard { chain in {
            type filter hook input priority -5; policy accept;
            ip saddr 173.245.48.0/24 tcp dport 443 drop
            ct state established,related accept
            tcp dport 22 accept
            meta l4proto tcp reject with tcp reset
        }; }",
    );
    let before = lab.foreign_rules();
    sync(&lab, &[]);
    expect_only_cloudflare(&lab);
    assert_eq!(before, lab.foreign_rules());
    assert_eq!(lab.connect(STRANGERS[0], 22), Reach::Accepted);
}

#[test]
fn two_chains_that_drop_are_both_opened() {
    let lab = Lab::new();
    lab.feed(
        ["nft", "-f", "-"],
        "table ip four { chain input { type filter hook input priority 0; policy drop; ct state established accept; }; }
         table ip6 six { chain input { type filter hook input priority 0; policy drop; ct state established accept;
             meta l4proto ipv6-icmp accept; }; }
         table inet late { chain input { type filter hook input priority 10; policy accept;
             tcp dport { 80, 443 } drop; }; }",
    );
    sync(&lab, &[]);
    expect_only_cloudflare(&lab);
    expect_status(&lab, 0);
}

#[test]
fn native_nftables_and_legacy_iptables_that_both_drop_are_both_opened() {
    let lab = Lab::new();
    iptables::LEGACY.setup(&lab);
    nftables::WITH_INCLUDE.setup(&lab);
    let report = sync(&lab, &[]);
    for backend in ["nftables", "iptables"] {
        assert_eq!(part_of(&report, backend)["state"], "applied", "{report:#}");
    }
    expect_only_cloudflare(&lab);
    assert_eq!(sync(&lab, &[])["changed"], false);
}

#[test]
fn where_nothing_refuses_nothing_is_touched() {
    let lab = Lab::new();
    let (rules, files) = (lab.rules(), lab.tree(&["/etc"]));
    let report = sync(&lab, &[]);
    assert_eq!(report["changed"], false, "{report:#}");
    assert!(report["warnings"].to_string().contains("nothing-refuses"), "{report:#}");
    assert_eq!(rules, lab.rules());
    assert!(crate::lab::diff(&files, &lab.tree(&["/etc"])).is_empty());
}

fn ten_thousand_prefixes(kind: &dyn Kind) {
    let lab = Lab::new();
    kind.setup(&lab);
    lab.write_file(
        "/etc/edgeallow/config.toml",
        "[limits]\nmax_prefixes = 20000\nmax_growth = 1000\nfull_check = 20000\n",
    );
    // 20.0.0.0/24, 20.0.2.0/24 …: neighbours that don't touch, and the same in IPv6.
    let many: Vec<_> = (0..5000u32)
        .flat_map(|i| {
            [format!("{}.{}.{}.0/24", 20 + i / 32768, i / 128 % 256, i * 2 % 256), format!("2a00:{i:x}::/32")]
        })
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let list = list_with(&lab, "many", &many);
    lab.internet_addresses(["20.0.2.9", "20.0.3.9", "2a00:7::9", "20.39.14.9"]);
    sync(&lab, &["--list", &list]);
    expect_only_cloudflare(&lab);
    let on = lab.table(&["20.0.2.9", "2a00:7::9", "20.39.14.9"], &[443]);
    assert!(on.all_accepted(), "{}: {on:?}", kind.backend());
    assert_ne!(lab.connect("20.0.3.9", 443), Reach::Accepted);
    assert_eq!(try_sync(&lab, &["--list", &list]).expect_ok().json()["changed"], false, "{}", kind.backend());
}
