//! What is particular to CSF: its traps, each named, with real packets. Tried on the stand-in, and on a release of CSF
//! where one is named (see `tests/conformance/csf.rs`).

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    conformance::{
        Kind as _,
        csf::{Csf, on_csf},
    },
    lab::{EDGE4, EDGE6, EDGES, Lab, Reach, STRANGERS},
    run::{PORTS, expect_status, part_of, remove, sync, try_sync},
};

on_csf! {
    a_deny_that_drops_only_the_outgoing_answer_keeps_nobody_out,
    a_holder_of_csfs_lock_is_waited_for,
    a_restart_of_csf_at_the_same_time_ends_open_to_cloudflare_alone,
    csf_stopped_is_pending_and_its_saved_rules_go,
    csf_disabled_is_pending_until_it_is_enabled,
    an_entry_that_csf_adds_is_not_glued_to_ours,
    lfd_is_told_when_its_list_changed_and_only_then,
    his_own_entry_for_the_same_range_stays_his_on_remove,
    without_ipv6_in_csf_it_is_said,
    eth_device_and_watch_mode_are_honoured,
    lf_ipset_is_honoured,
    the_warnings_name_addresses_and_fixes,
    nobody_runs_csf,
}

fn host(kind: &Csf) -> Lab {
    let lab = Lab::new();
    kind.setup(&lab);
    lab
}

fn expect_only_cloudflare(lab: &Lab, when: &str) {
    let (edges, strangers) = (lab.table(&EDGES, &PORTS), lab.table(&STRANGERS, &PORTS));
    let right = edges.all_accepted() && strangers.none_accepted();
    assert!(right, "{when}: {edges:?}{strangers:?}\n{:?}", lab.rules());
}

/// Starts a shell line in the background; the lab ends it.
fn behind(lab: &Lab, line: &str) {
    lab.run(["sh", "-c", &format!("({line}) </dev/null >/dev/null 2>&1 &")]);
}

/// Waits until something in the background has made this file.
fn wait_for(lab: &Lab, path: &str) {
    let start = Instant::now();
    while !lab.exists(path) {
        assert!(start.elapsed() < Duration::from_secs(90), "there is no {path}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn warnings(report: &serde_json::Value) -> Vec<String> {
    let all = report["warnings"].as_array().expect("warnings");
    all.iter()
        .map(|w| format!("{}: {}", w["id"].as_str().unwrap_or("?"), w["message"].as_str().unwrap_or("?")))
        .collect()
}

fn a_deny_that_drops_only_the_outgoing_answer_keeps_nobody_out(kind: &Csf) {
    let lab = host(kind);
    sync(&lab, &[]);
    for (program, edge) in [("iptables", EDGE4), ("ip6tables", EDGE6)] {
        lab.run([program, "-A", "DENYIN", "!", "-i", "lo", "-s", edge, "-j", "DROP"]);
        lab.run([program, "-A", "DENYOUT", "!", "-o", "lo", "-d", edge, "-j", "DROP"]);
    }
    expect_only_cloudflare(&lab, "with blocks as lfd makes them");
    // That it is the outgoing line which does it: without it the answer is dropped.
    let rule = "ALLOWOUT -d 173.245.48.0/20 ! -o lo -p tcp -m multiport --sports 80,443 -j ACCEPT";
    lab.run([["iptables", "-D"].as_slice(), &rule.split(' ').collect::<Vec<_>>()].concat());
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout, "without the outgoing line");
    sync(&lab, &[]);
    expect_only_cloudflare(&lab, "healed");
}

fn a_holder_of_csfs_lock_is_waited_for(kind: &Csf) {
    let lab = host(kind);
    behind(&lab, "flock /var/lib/csf/csf.lock sh -c 'touch /run/held; sleep 2; touch /run/released'");
    wait_for(&lab, "/run/held");
    let start = Instant::now();
    sync(&lab, &[]);
    assert!(lab.exists("/run/released"), "changed after {:?}, while another held the lock", start.elapsed());
    expect_only_cloudflare(&lab, "after the lock was free");
    // A dry run, and a run with nothing to do, want no lock.
    behind(&lab, "flock /var/lib/csf/csf.lock sh -c 'touch /run/held2; sleep 1000; touch /run/released2'");
    wait_for(&lab, "/run/held2");
    assert_eq!(sync(&lab, &[])["changed"], false);
    assert!(!lab.exists("/run/released2"));
}

fn a_restart_of_csf_at_the_same_time_ends_open_to_cloudflare_alone(kind: &Csf) {
    let lab = host(kind);
    for round in 0..4 {
        remove(&lab, &[]);
        behind(&lab, "csf -r; touch /run/restarted");
        std::thread::sleep(Duration::from_millis(40 * round));
        // It may find CSF in the middle of its start, and then leave it to the next run.
        let output = try_sync(&lab, &[]);
        assert!(matches!(output.status, Some(0 | 4 | 5)), "{output:?}");
        wait_for(&lab, "/run/restarted");
        lab.files(|| fs::remove_file("/run/restarted"));
        sync(&lab, &[]);
        expect_only_cloudflare(&lab, "after a restart at the same time");
        expect_status(&lab, 0);
    }
}

fn csf_stopped_is_pending_and_its_saved_rules_go(kind: &Csf) {
    let lab = host(kind);
    Csf::csf(&lab, &["--initdown"]);
    Csf::csf(&lab, &["--stop"]);
    assert!(lab.exists("/var/lib/csf/csf.4.saved"), "CSF saves its rules when its service stops");
    // Stopped and nothing of ours stored: not taken by itself, but by name.
    let report = sync(&lab, &["--backend", "csf"]);
    assert_eq!(part_of(&report, "csf")["state"], "pending", "{report:#}");
    assert!(!lab.exists("/var/lib/csf/csf.4.saved") && !lab.exists("/var/lib/csf/csf.6.saved"));
    // From now on it is taken by itself.
    let report = sync(&lab, &[]);
    assert_eq!(part_of(&report, "csf")["state"], "pending", "{report:#}");
    assert_eq!(report["changed"], false, "{report:#}");
    Csf::csf(&lab, &["--initup"]);
    expect_only_cloudflare(&lab, "after its service was started");
    expect_status(&lab, 0);
}

fn csf_disabled_is_pending_until_it_is_enabled(kind: &Csf) {
    let lab = host(kind);
    Csf::csf(&lab, &["-x"]);
    assert!(lab.exists("/etc/csf/csf.disable"));
    let report = sync(&lab, &["--backend", "csf"]);
    let part = part_of(&report, "csf");
    assert_eq!(part["state"], "pending", "{report:#}");
    assert!(part["reason"].as_str().is_some_and(|r| r.contains("csf -e")), "{report:#}");
    Csf::csf(&lab, &["-e"]);
    expect_only_cloudflare(&lab, "after csf -e");
    expect_status(&lab, 0);
}

fn an_entry_that_csf_adds_is_not_glued_to_ours(kind: &Csf) {
    let lab = host(kind);
    sync(&lab, &[]);
    Csf::csf(&lab, &["-a", "198.51.100.7"]);
    let text = lab.read_file("/etc/csf/csf.allow");
    assert!(text.contains("198.51.100.7") && text.contains("\nInclude /etc/csf/edgeallow.allow\n"), "{text}");
    Csf::restart(&lab);
    expect_only_cloudflare(&lab, "after csf -a and csf -r");
    expect_status(&lab, 0);
}

fn lfd_is_told_when_its_list_changed_and_only_then(kind: &Csf) {
    let lab = host(kind);
    let sign = "/var/lib/csf/lfd.restart";
    sync(&lab, &[]);
    assert!(lab.exists(sign));
    lab.files(|| fs::remove_file(sign));
    sync(&lab, &[]);
    lab.write_file("/etc/edgeallow/config.toml", "ports = [443, 8443]\n");
    assert_eq!(sync(&lab, &[])["changed"], true);
    assert!(!lab.exists(sign), "other ports are nothing to lfd");
    remove(&lab, &[]);
    assert!(lab.exists(sign));
}

fn his_own_entry_for_the_same_range_stays_his_on_remove(kind: &Csf) {
    let lab = host(kind);
    let his = "tcp|in|d=80,443|s=173.245.48.0/20 # mine\n2400:cb00::/32\nlast line";
    lab.write_file("/etc/csf/csf.allow", his);
    Csf::restart(&lab);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    let rules = lab.rules();
    sync(&lab, &[]);
    remove(&lab, &[]);
    let after = lab.rules();
    assert!(rules == after, "rules were\n{rules:?}\nand are\n{after:?}");
    assert_eq!(lab.read_file("/etc/csf/csf.allow"), his);
    assert_eq!((lab.connect(EDGE4, 443), lab.connect(EDGE6, 443)), (Reach::Accepted, Reach::Accepted));
}

fn without_ipv6_in_csf_it_is_said(kind: &Csf) {
    let lab = Lab::new();
    kind.install(&lab);
    Csf::set(&lab, "IPV6", "0");
    Csf::restart(&lab);
    let report = sync(&lab, &[]);
    assert!(
        warnings(&report).iter().any(|w| w.contains("csf-without-ipv6") && w.contains("IPV6 = \"1\"")),
        "{report:#}"
    );
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    // The lines wait in the list.
    Csf::set(&lab, "IPV6", "1");
    Csf::restart(&lab);
    expect_only_cloudflare(&lab, "with IPv6 switched on later");
    expect_status(&lab, 0);
}

fn eth_device_and_watch_mode_are_honoured(kind: &Csf) {
    let lab = Lab::new();
    kind.install(&lab);
    Csf::set(&lab, "ETH_DEVICE", "s0");
    Csf::set(&lab, "WATCH_MODE", "1");
    Csf::restart(&lab);
    sync(&lab, &[]);
    let saved = lab.run(["iptables-save"]).stdout;
    let rule = "-A ALLOWIN -s 173.245.48.0/20 -i s0 -p tcp -m multiport --dports 80,443 -j LOGACCEPT";
    assert!(saved.contains(rule), "{saved}");
    expect_only_cloudflare(&lab, "with a device of its own");
    Csf::restart(&lab);
    expect_status(&lab, 0);
    // Edited and not yet loaded: what is live goes by what is loaded.
    Csf::set(&lab, "ETH_DEVICE", "");
    expect_status(&lab, 0);
}

fn lf_ipset_is_honoured(kind: &Csf) {
    let lab = Lab::new();
    kind.install(&lab);
    // CSF puts lone addresses into sets then, and lines with ports stay rules.
    Csf::set(&lab, "LF_IPSET", "1");
    Csf::set(&lab, "IPSET", "/usr/sbin/ipset");
    Csf::restart(&lab);
    sync(&lab, &[]);
    expect_only_cloudflare(&lab, "with LF_IPSET");
    Csf::restart(&lab);
    expect_status(&lab, 0);
    expect_only_cloudflare(&lab, "with LF_IPSET, after a restart");
}

fn the_warnings_name_addresses_and_fixes(kind: &Csf) {
    let lab = Lab::new();
    kind.install(&lab);
    for (name, value) in [("TCP_IN", "22,80,443"), ("CT_SUBNET_LIMIT", "24"), ("DOCKER", "1")] {
        Csf::set(&lab, name, value);
    }
    lab.write_file("/etc/csf/csf.deny", format!("{EDGE4} # lfd: (mod_security)\n"));
    lab.write_file("/var/lib/csf/csf.tempban", format!("4070908800|{EDGE6}||in|360000|lfd\n"));
    Csf::restart(&lab);
    let said = warnings(&sync(&lab, &[])).join("\n");
    for (id, fix) in [
        ("csf-open-to-all", "TCP_IN"),
        ("csf-ct-subnet-limit", "CT_SUBNET_LIMIT = \"0\""),
        ("csf-docker", "DOCKER-USER"),
        ("csf-blocks-cloudflare", "`csf -dr 173.245.48.29`"),
        ("csf-blocks-cloudflare", "`csf -tr 2400:cb00::9`"),
    ] {
        assert!(said.lines().any(|l| l.starts_with(id) && l.contains(fix)), "{id}: {said}");
    }
    // Blocked as they are, both get in on the ports that are allowed.
    assert!(lab.table(&EDGES, &PORTS).all_accepted(), "{:?}", lab.rules());
}

fn nobody_runs_csf(kind: &Csf) {
    let lab = host(kind);
    lab.write_file("/usr/sbin/csf", "#!/bin/sh\necho \"$*\" >>/run/csf.was.run\n");
    sync(&lab, &[]);
    lab.edgeallow(["status", "--offline"]).expect(0);
    lab.edgeallow(["backends"]).expect(0);
    remove(&lab, &[]);
    assert!(!lab.exists("/run/csf.was.run"), "{}", lab.read_file("/run/csf.was.run"));
}
