//! What must hold for every backend, a function each.

use std::collections::BTreeSet;

use super::{Kind, host};
use crate::{
    lab::{CHANGED_IN_USR, CHANGED_IN_VAR, EDGES, Lab, Reach, STRANGERS, Table, Tree},
    quiet::{assert_same, expect_quiet},
    run::{PORTS, expect_reach, expect_status, list_with, opened, part_of, reach, remove, sync, try_sync},
};

on_every_kind! {
    cloudflare_gets_in_and_nobody_else_does,
    a_second_sync_changes_nothing_and_starts_nothing,
    what_is_not_ours_stays_as_it_is,
    every_drift_is_seen_and_healed,
    it_survives_the_reload_of_the_tool,
    it_survives_a_boot,
    a_dry_run_changes_nothing_and_tells_what_a_run_does,
    a_changed_list_changes_who_gets_in,
    removal_restores_the_machine,
}

/// Where an administrator's files are; edgeallow's state folder is not among them.
const FILES: [&str; 2] = ["/etc", CHANGED_IN_USR];

fn cloudflare_gets_in_and_nobody_else_does(kind: &dyn Kind) {
    let lab = host(kind);
    let before = blocked(&lab);
    let report = sync(&lab, &[]);
    assert_eq!(report["changed"], true, "{report:#}");
    assert_eq!(part_of(&report, kind.backend())["state"], "applied", "{report:#}");
    expect_reach(&lab, &opened(&before), "after a sync");
    expect_status(&lab, 0);
}

fn a_second_sync_changes_nothing_and_starts_nothing(kind: &dyn Kind) {
    let lab = host(kind);
    sync(&lab, &[]);
    expect_quiet(&lab, &[kind.backend()]);
    expect_status(&lab, 0);
}

fn what_is_not_ours_stays_as_it_is(kind: &dyn Kind) {
    let lab = host(kind);
    let (rules, files) = (kind.foreign_rules(&lab), lab.tree(&FILES));
    sync(&lab, &[]);
    let after = kind.foreign_rules(&lab);
    assert!(rules == after, "foreign rules were\n{rules:?}\nand are\n{after:?}");
    let (before, after) = (foreign_files(kind, files), foreign_files(kind, lab.tree(&FILES)));
    assert_same(&before, &after, "a sync");
    // The same after a change of the list, and of the ports.
    let list = list_with(&lab, "longer", &["9.9.9.0/24"]);
    sync(&lab, &["--list", &list]);
    lab.write_file("/etc/edgeallow/config.toml", "ports = [443, 8443]\n");
    sync(&lab, &["--list", &list]);
    assert_eq!(rules, kind.foreign_rules(&lab), "after a change of list and ports");
    assert_ne!(lab.connect(EDGES[0], 80), Reach::Accepted, "a port that is no longer wanted");
    assert_eq!(lab.connect(EDGES[0], 8443), Reach::Accepted, "a port that is wanted now");
}

fn every_drift_is_seen_and_healed(kind: &dyn Kind) {
    let drifts = kind.drifts();
    let found: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..drifts.len()).map(|i| scope.spawn(move || drift_is_healed(kind, i))).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut failed = Vec::new();
    for (drift, found) in drifts.iter().zip(found) {
        match found {
            Ok(None) => {}
            Ok(Some(why)) => failed.push(format!("{}: {why}", drift.what)),
            Err(_) => failed.push(format!("{}: see the panic above", drift.what)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// What went wrong with one drift, if anything.
fn drift_is_healed(kind: &dyn Kind, index: usize) -> Option<String> {
    let drift = kind.drifts().swap_remove(index);
    let lab = host(kind);
    let before = reach(&lab);
    sync(&lab, &[]);
    let foreign = kind.foreign_rules(&lab);
    (drift.harm)(&lab);
    let status = lab.edgeallow(["status", "--offline", "--format", "json"]);
    if status.status != Some(6) {
        return Some(format!("status didn't see it: {status:?}"));
    }
    let healed = try_sync(&lab, &[]);
    if healed.status != Some(0) || healed.json()["changed"] != true {
        return Some(format!("sync didn't heal it: {healed:?}"));
    }
    let again = try_sync(&lab, &[]);
    if again.status != Some(0) || again.json()["changed"] != false {
        return Some(format!("a second sync is not quiet: {again:?}"));
    }
    let (now, expected) = (reach(&lab), opened(&before));
    if now != expected {
        return Some(format!("expected{expected:?}\nbut it is{now:?}\nrules:\n{:?}", lab.rules()));
    }
    // A drift may bring rules of somebody else; none that was there before may be gone.
    let after = kind.foreign_rules(&lab);
    let after: BTreeSet<_> = after.0.lines().collect();
    let gone: Vec<_> = foreign.0.lines().filter(|l| !after.contains(l)).collect();
    (!gone.is_empty()).then(|| format!("foreign rules are gone: {gone:#?}"))
}

fn it_survives_the_reload_of_the_tool(kind: &dyn Kind) {
    let lab = host(kind);
    let before = reach(&lab);
    sync(&lab, &[]);
    kind.reload(&lab);
    expect_reach(&lab, &opened(&before), "after a reload");
    expect_status(&lab, 0);
}

fn it_survives_a_boot(kind: &dyn Kind) {
    let lab = host(kind);
    let (before, foreign) = (reach(&lab), kind.foreign_rules(&lab));
    sync(&lab, &[]);
    kind.boot(&lab);
    expect_reach(&lab, &opened(&before), "after a boot");
    assert_eq!(foreign, kind.foreign_rules(&lab), "after a boot");
    expect_status(&lab, 0);
}

fn a_dry_run_changes_nothing_and_tells_what_a_run_does(kind: &dyn Kind) {
    let lab = host(kind);
    let everywhere = ["/etc", CHANGED_IN_USR, "/run", CHANGED_IN_VAR];
    let (rules, files) = (lab.rules(), lab.stamps(&everywhere));
    let dry = sync(&lab, &["--dry-run"]);
    try_sync(&lab, &["--dry-run", "--exit-code"]).expect(6);
    let text = lab.edgeallow(["sync", "--offline", "--dry-run"]).expect_ok().stdout;
    assert!(text.contains("173.245.48.0/20"), "a plan names the ranges: {text}");
    assert_same(&files, &lab.stamps(&everywhere), "a dry run");
    assert_eq!(rules, lab.rules());
    assert_eq!((&dry["dry_run"], &dry["changed"]), (&true.into(), &true.into()), "{dry:#}");
    let planned = part_of(&dry, kind.backend());
    assert_eq!(planned["state"], "planned", "{dry:#}");
    let real = sync(&lab, &[]);
    assert_eq!(planned["changes"], part_of(&real, kind.backend())["changes"], "what was told is what was done");
    try_sync(&lab, &["--dry-run", "--exit-code"]).expect_ok();
}

fn a_changed_list_changes_who_gets_in(kind: &dyn Kind) {
    let lab = host(kind);
    let (newcomers, others) = (["9.9.9.9", "2620:fe::9"], ["9.9.8.9", "2620:fd::9"]);
    lab.internet_addresses(newcomers.into_iter().chain(others));
    let list = list_with(&lab, "longer", &["9.9.9.0/24", "2620:fe::/48"]);
    sync(&lab, &["--list", &list]);
    let table = lab.table(&newcomers, &PORTS);
    assert!(table.all_accepted(), "on the list:{table:?}");
    let table = lab.table(&others, &PORTS);
    assert!(table.none_accepted(), "beside the list:{table:?}");
    let list = list_with(&lab, "shorter", &[]);
    sync(&lab, &["--list", &list, "--remove-now"]);
    let table = lab.table(&newcomers, &PORTS);
    assert!(table.none_accepted(), "no longer on the list:{table:?}");
    let table = lab.table(&EDGES, &PORTS);
    assert!(table.all_accepted(), "still on the list:{table:?}");
    expect_status(&lab, 0);
}

fn removal_restores_the_machine(kind: &dyn Kind) {
    let lab = host(kind);
    let (rules, files, before) = (lab.rules(), lab.tree(&FILES), reach(&lab));
    sync(&lab, &[]);
    let applied = (lab.rules(), lab.stamps(&FILES));
    let plan = remove(&lab, &["--dry-run"]);
    assert_eq!(plan["changed"], true, "{plan:#}");
    assert_eq!(applied.0, lab.rules(), "a dry run of remove");
    assert_same(&applied.1, &lab.stamps(&FILES), "a dry run of remove");
    let report = remove(&lab, &[]);
    assert_eq!(part_of(&report, kind.backend())["state"], "removed", "{report:#}");
    let after = lab.rules();
    assert!(rules == after, "rules were\n{rules:?}\nand are\n{after:?}");
    assert_same(&files, &lab.tree(&FILES), "a sync and a remove");
    expect_reach(&lab, &before, "after remove");
    assert_eq!(remove(&lab, &[])["changed"], false, "nothing is left to remove");
    // And a boot brings nothing back.
    kind.boot(&lab);
    assert_eq!(rules, lab.rules(), "after remove and a boot");
}

/// Who reaches what before the first sync; fails if the kind's firewall isn't what a kind promises.
fn blocked(lab: &Lab) -> Table {
    let before = reach(lab);
    for ((from, port), reach) in &before.0 {
        let expected_open = *port == 22 && EDGES.contains(&from.as_str());
        let expected_closed = PORTS.contains(port) || (*port == 22 && STRANGERS[0] == from);
        assert!(!expected_open || *reach == Reach::Accepted, "the kind's firewall:{before:?}");
        assert!(!expected_closed || *reach != Reach::Accepted, "the kind's firewall:{before:?}");
    }
    before
}

/// A picture of files without edgeallow's own, and without its lines in those of others.
fn foreign_files(kind: &dyn Kind, mut files: Tree) -> Tree {
    files.retain(|path, _| !path.contains("edgeallow") && !path.ends_with("/nftables.service.d"));
    for content in files.values_mut() {
        // Contents are shown with escapes; a line is what stands between two `\n`.
        let ours = |l: &&str| l.to_lowercase().contains("edgeallow") || kind.ours_without_tag(l);
        *content = content.split("\\n").filter(|l| !ours(l)).collect::<Vec<_>>().join("\\n");
    }
    files
}
