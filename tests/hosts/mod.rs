//! Hosts on which something is missing, full, forbidden or in the way: a clear error, nothing half-done, nothing lost.

mod waits;

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::Value;

use crate::{
    conformance::{
        Kind,
        nftables::{CONFIGURATION, WITH_INCLUDE, administrators_rules},
        on_each_backend,
    },
    lab::{CHANGED_IN_USR, EDGE4, EDGES, Lab, Output, Reach, diff},
    run::{PORTS, expect_status, list_with, part_of, sync, try_sync},
};

on_each_backend! {
    without_ipv6_ipv4_is_still_opened,
    without_privilege_it_says_so_and_changes_nothing,
    a_read_only_etc_is_a_clear_error,
    a_full_disk_is_a_clear_error_and_loses_nothing,
    a_full_disk_for_the_state_is_a_clear_error,
}

fn host(kind: &dyn Kind) -> Lab {
    let lab = Lab::new();
    kind.setup(&lab);
    lab
}

/// The error of a failed backend, or of the whole run: `{"kind","message","hint"}`.
fn error_of(output: &Output) -> Value {
    let report = output.json();
    let of_backends = report["backends"].as_array().into_iter().flatten().map(|b| &b["error"]);
    let error = std::iter::once(&report["error"]).chain(of_backends).find(|e| !e.is_null());
    let error = error.unwrap_or_else(|| panic!("no error in {report:#}")).clone();
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "an error without words: {report:#}");
    error
}

/// Runs a sync that has to fail, and checks that firewall and files are as they were.
fn expect_failure(lab: &Lab, exit: &[i32]) -> Value {
    let picture = || (lab.rules(), lab.tree(&["/etc", CHANGED_IN_USR]));
    let before = picture();
    let output = try_sync(lab, &[]);
    assert!(output.status.is_some_and(|s| exit.contains(&s)), "expected exit status {exit:?}: {output:?}");
    let after = picture();
    assert!(before.0 == after.0, "rules changed from\n{:?}\nto\n{:?}\n{output:?}", before.0, after.0);
    let found = diff(&before.1, &after.1);
    assert!(found.is_empty(), "a failed sync left its mark: {found:#?}\n{output:?}");
    error_of(&output)
}

/// Runs a sync whose files can't be written. Where they are only for the next boot it fails, and what is live stays;
/// where the tool is loaded from them, all is as it was.
fn expect_nothing_taken(lab: &Lab, kind: &dyn Kind) -> Value {
    let name = kind.backend();
    if !["nftables", "iptables"].contains(&name) {
        return expect_failure(lab, &[1, 4]);
    }
    for (state, changed) in [("applied", true), ("in_sync", false)] {
        let output = try_sync(lab, &[]).expect(4);
        let (report, error) = (output.json(), error_of(&output));
        assert_eq!((&part_of(&report, name)["state"], &error["kind"]), (&state.into(), &"not-stored".into()));
        assert_eq!(report["changed"], changed, "{report:#}");
        assert!(!["not-persisted", "still-refused"].iter().any(|id| told(&report).contains(id)), "{report:#}");
        let table = lab.table(&EDGES, &PORTS);
        assert!(table.all_accepted(), "{table:?}\n{output:?}");
    }
    let output = try_sync(lab, &[]);
    let status = lab.edgeallow(["status", "--offline", "--format", "json"]).json();
    assert!(told(&status).contains(&"not-stored"), "{status:#}");
    error_of(&output)
}

fn without_ipv6_ipv4_is_still_opened(kind: &dyn Kind) {
    let lab = host(kind);
    lab.files(|| {
        for interface in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1")?;
        }
        for folder in ["/usr/sbin", "/etc/alternatives"] {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ip6tables")) {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    });
    // As with `ipv6.disable=1` on the kernel's command line.
    lab.write_file("/run/empty", "");
    lab.run(["mount", "--bind", "/run/empty", "/proc/net/if_inet6"]);
    if kind.backend() == "firewalld" {
        // A daemon can't have its programs taken away from under it; it is there from the start of such a machine.
        kind.boot(&lab);
    }
    sync(&lab, &[]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted, "{}", kind.backend());
    assert_eq!(sync(&lab, &[])["changed"], false, "{}", kind.backend());
}

fn without_privilege_it_says_so_and_changes_nothing(kind: &dyn Kind) {
    let lab = host(kind);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/local/bin/edgeallow"];
    let rules = lab.rules();
    let run = |args: &[&str]| {
        let all = ["--offline", "--format", "json", "--state-dir", "/run/state-of-nobody", "--backend", kind.backend()];
        lab.command([nobody.as_slice(), &["sync"], args, &all].concat()).run()
    };
    let output = run(&[]);
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(output.status == Some(4), "{output:?}");
    assert!(text.contains("root") || text.contains("CAP_NET_ADMIN"), "what to do is not said: {output:?}");
    let dry = run(&["--dry-run"]);
    assert!(matches!(dry.status, Some(0 | 4)), "{dry:?}");
    assert_eq!(rules, lab.rules());
}

#[test]
fn what_is_made_under_a_strict_umask_can_still_be_read_by_everybody() {
    let lab = host(&WITH_INCLUDE);
    lab.run(["sh", "-c", "umask 077; edgeallow sync --offline --quiet"]);
    let open = lab.run(["find", "/etc/edgeallow", "/var/lib/edgeallow", "!", "-perm", "-o=r"]).stdout;
    // What locks and what is set aside is for root alone, and so is a configuration; the rest is not.
    let mut open = open.lines().filter(|path| !path.ends_with(".lock") && *path != COPY);
    assert_eq!(open.next(), None);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/local/bin/edgeallow"];
    let status = lab.command([&nobody[..], &["status", "--offline"]].concat()).run();
    assert!(status.stdout.contains("List: 15 IPv4 and 7 IPv6 prefixes"), "{status:?}");
    assert!(!status.stderr.contains("Permission denied"), "{status:?}");
}

#[test]
fn a_missing_nft_is_a_clear_error() {
    let lab = host(&WITH_INCLUDE);
    lab.run(["mv", "/usr/sbin/nft", "/mnt/nft"]);
    let output = lab.edgeallow(["sync", "--offline", "--format", "json", "--backend", "nftables"]);
    // What is live doesn't need the program, what is stored does: either way the words name it, or all is well.
    if output.status == Some(0) {
        assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted, "{output:?}");
    } else {
        assert_eq!(output.status, Some(4), "{output:?}");
        assert!(error_of(&output).to_string().contains("nft"), "{output:?}");
    }
    lab.run(["cp", "/mnt/nft", "/usr/sbin/nft"]);
    sync(&lab, &[]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    expect_status(&lab, 0);
}

#[test]
fn a_symbolic_link_in_place_of_a_file_of_ours_is_refused() {
    let lab = host(&WITH_INCLUDE);
    sync(&lab, &[]);
    let ours: Vec<_> = lab.tree(&["/etc/edgeallow/nftables"]).into_keys().filter(|p| p.ends_with(".nft")).collect();
    lab.write_file("/etc/precious", "precious\n");
    lab.link("/etc/precious", &ours[0]);
    let error = expect_failure(&lab, &[4]);
    assert_eq!(error["kind"], "file-refused", "{error}");
    assert_eq!(lab.read_file("/etc/precious"), "precious\n");
    // Taking the link away is all the administrator has to do.
    lab.files(|| fs::remove_file(&ours[0]));
    sync(&lab, &[]);
    expect_status(&lab, 0);
}

#[test]
fn the_administrators_own_symbolic_link_is_followed() {
    let lab = host(&WITH_INCLUDE);
    lab.write_file("/etc/firewall/rules.nft", administrators_rules());
    lab.chmod("/etc/firewall/rules.nft", 0o700);
    lab.files(|| {
        std::os::unix::fs::chown("/etc/firewall/rules.nft", Some(4242), Some(4343))?;
        fs::remove_file(CONFIGURATION)?;
        symlink("firewall/rules.nft", CONFIGURATION)
    });
    sync(&lab, &[]);
    let tree = lab.tree(&["/etc/nftables.conf", "/etc/firewall"]);
    assert!(tree[CONFIGURATION].contains("link to \"firewall/rules.nft\""), "{tree:#?}");
    let target = &tree["/etc/firewall/rules.nft"];
    assert!(target.starts_with("100700 4242:4343 "), "mode and owner: {target}");
    assert!(target.to_lowercase().contains("edgeallow"), "{target}");
    WITH_INCLUDE.boot(&lab);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
}

fn a_read_only_etc_is_a_clear_error(kind: &dyn Kind) {
    let lab = host(kind);
    lab.run(["mount", "-o", "remount,ro", "/etc"]);
    let error = expect_nothing_taken(&lab, kind);
    let words = error.to_string();
    assert!(words.contains("read-only") || words.contains("Read-only"), "{}: {words}", kind.backend());
    lab.run(["mount", "-o", "remount,rw", "/etc"]);
    sync(&lab, &[]);
    expect_status(&lab, 0);
}

fn a_full_disk_is_a_clear_error_and_loses_nothing(kind: &dyn Kind) {
    let lab = host(kind);
    let folder = kind.folder();
    fill_the_disk_of(&lab, folder);
    let error = expect_nothing_taken(&lab, kind);
    assert!(speaks_of_space(&error), "{error}");
    lab.run(["umount", folder]);
    sync(&lab, &[]);
    expect_status(&lab, 0);
}

fn a_full_disk_for_the_state_is_a_clear_error(kind: &dyn Kind) {
    let lab = host(kind);
    sync(&lab, &[]);
    let remembered = lab.tree(&["/var/lib/edgeallow"]);
    fill_the_disk_of(&lab, "/var/lib/edgeallow");
    lab.internet_address("9.9.9.9");
    let list = list_with(&lab, "longer", &["9.9.9.0/24"]);
    let rules = lab.rules();
    let output = try_sync(&lab, &["--list", &list]).expect(1);
    assert!(speaks_of_space(&error_of(&output)), "{output:?}");
    assert!(lab.rules() == rules, "what can't be remembered was done all the same: {output:?}");
    let mut now = lab.tree(&["/var/lib/edgeallow"]);
    now.retain(|path, _| !path.ends_with("/filler"));
    let found = diff(&remembered, &now);
    assert!(found.is_empty(), "what was remembered is damaged: {found:#?}");
    // Everybody who was let in still is; the run after this one is none the worse for it.
    let table = lab.table(&EDGES, &PORTS);
    assert!(table.all_accepted(), "{table:?}");
    lab.run(["umount", "/var/lib/edgeallow"]);
    sync(&lab, &["--list", &list]);
    assert_eq!(lab.connect("9.9.9.9", 443), Reach::Accepted);
    assert_eq!(sync(&lab, &["--list", &list])["changed"], false);
}

/// Puts a folder with all that is in it on a disk of its own, and leaves no room there.
fn fill_the_disk_of(lab: &Lab, folder: &str) {
    lab.run(["mkdir", "-p", folder]);
    lab.run(["cp", "-a", folder, "/mnt/copy"]);
    lab.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", folder]);
    lab.run(["cp", "-a", "/mnt/copy/.", folder]);
    let filler = Path::new(folder).join("filler");
    let full = lab.inside(|| fs::write(filler, vec![0; 2 << 20]));
    assert!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull), "the disk isn't full");
}

fn speaks_of_space(error: &Value) -> bool {
    let words = error.to_string().to_lowercase();
    words.contains("no space") || words.contains("no storage space") || words.contains("full")
}

#[test]
fn a_folder_where_a_file_should_be_is_a_clear_error() {
    let lab = host(&WITH_INCLUDE);
    sync(&lab, &[]);
    let ours: Vec<_> = lab.tree(&["/etc/edgeallow/nftables"]).into_keys().filter(|p| p.ends_with(".nft")).collect();
    lab.files(|| fs::remove_file(&ours[0]).and_then(|()| fs::create_dir(&ours[0])));
    let error = expect_failure(&lab, &[1, 4]);
    assert!(error.to_string().contains(&ours[0]), "the path is not named: {error}");
}

#[test]
fn of_two_runs_at_once_one_waits_or_says_so() {
    let lab = host(&WITH_INCLUDE);
    let held = ["flock", "/run/edgeallow.lock", "edgeallow"];
    let inner = ["sync", "--offline", "--format", "json", "--lock-timeout", "0"];
    let output = lab.command([held.as_slice(), &inner].concat()).run().expect(75);
    assert_eq!(output.json()["error"]["kind"], "locked", "{output:?}");
    // A dry run and a status take no lock.
    lab.command([held.as_slice(), &["sync", "--offline", "--dry-run"]].concat()).run().expect_ok();
    lab.command([held.as_slice(), &["status", "--offline"]].concat()).run().expect(6);
    // Eight at once: all of them get through, one after the other, and one of them does the work.
    let lab = &lab;
    let reports: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8).map(|_| scope.spawn(move || sync(lab, &["--lock-timeout", "280"]))).collect();
        running.into_iter().map(|r| r.join().expect("a run")).collect()
    });
    assert_eq!(reports.iter().filter(|r| r["changed"] == true).count(), 1, "{reports:#?}");
    let table = lab.table(&EDGES, &PORTS);
    assert!(table.all_accepted(), "{table:?}");
    assert_eq!(part_of(&sync(lab, &[]), "nftables")["state"], "in_sync");
}

#[test]
fn what_can_not_be_stored_is_live_all_the_same_and_not_called_done() {
    let lab = host(&WITH_INCLUDE);
    let broken = lab.read_file(CONFIGURATION) + "garbage {\n";
    lab.write_file(CONFIGURATION, &broken);
    let report = sync(&lab, &[]);
    let told =
        |report: &Value| report["warnings"].as_array().is_some_and(|w| w.iter().any(|w| w["id"] == "not-stored"));
    assert!(told(&report), "{report:#}");
    assert_eq!(
        part_of(&report, "nftables")["changes"].as_array().map(Vec::len),
        Some(1),
        "only what was done: {report:#}"
    );
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
    assert!(!lab.exists("/etc/edgeallow/nftables"));
    assert_eq!(lab.read_file(CONFIGURATION), broken);
    // It is in sync as far as it can be, and says what it isn't.
    let again = sync(&lab, &[]);
    assert!(again["changed"] == false && told(&again), "{again:#}");
    expect_status(&lab, 0);
    lab.write_file(CONFIGURATION, administrators_rules());
    assert_eq!(sync(&lab, &[])["changed"], true, "it is stored as soon as that is possible");
    assert!(lab.exists("/etc/edgeallow/nftables"));
}

#[test]
fn our_folder_behind_the_administrators_link_is_left_to_him() {
    let lab = host(&WITH_INCLUDE);
    lab.run(["mkdir", "-p", "/etc/elsewhere"]);
    lab.link("/etc/elsewhere", "/etc/edgeallow");
    sync(&lab, &[]);
    lab.edgeallow(["remove"]).expect_ok();
    assert!(lab.exists("/etc/elsewhere"));
    assert!(!lab.exists("/etc/elsewhere/nftables/inet-filter.nft"));
}

#[test]
fn without_its_state_nothing_is_removed() {
    let lab = host(&WITH_INCLUDE);
    lab.internet_address("9.9.9.9");
    let longer = list_with(&lab, "longer", &["9.9.9.0/24"]);
    sync(&lab, &["--list", &longer]);
    lab.write_file("/var/lib/edgeallow/state.json", "{");
    let shorter = list_with(&lab, "shorter", &[]);
    let report = sync(&lab, &["--list", &shorter, "--remove-now"]);
    assert_eq!(report["list"]["removed"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert_eq!(lab.connect("9.9.9.9", 443), Reach::Accepted);
    sync(&lab, &["--list", &shorter, "--remove-now"]);
    assert_eq!(lab.connect("9.9.9.9", 443), Reach::Timeout);
}

/// The ids of a report's warnings.
fn told(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().into_iter().flatten().filter_map(|w| w["id"].as_str()).collect()
}

#[test]
fn a_boot_puts_back_what_was_applied_and_nothing_where_nothing_was() {
    let lab = host(&WITH_INCLUDE);
    let rules = lab.rules();
    let empty = sync(&lab, &["--restore"]);
    assert_eq!((told(&empty), &empty["changed"]), (vec!["nothing-applied"], &false.into()), "{empty:#}");
    assert!(rules == lab.rules());
    sync(&lab, &[]);
    // A boot whose stored rules were forgotten.
    lab.feed(["nft", "-f", "-"], &administrators_rules());
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    assert_eq!(sync(&lab, &["--restore"])["changed"], true);
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
    // What the operator has taken out stays out.
    lab.edgeallow(["remove"]).expect_ok();
    assert_eq!(told(&sync(&lab, &["--restore"])), ["nothing-applied"]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    // A state that can't be read doesn't say so: what is found live is kept.
    sync(&lab, &[]);
    lab.write_file("/var/lib/edgeallow/state.json", "{");
    let report = sync(&lab, &["--restore"]);
    assert!(told(&report).contains(&"state-corrupt"), "{report:#}");
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
    // Nor does it say that anything is: where nothing of ours is found, nothing is opened.
    lab.edgeallow(["remove"]).expect_ok();
    for state in ["{", "{\"schema\": 1, \"backends\": 7}"] {
        lab.write_file("/var/lib/edgeallow/state.json", state);
        let rules = lab.rules();
        let report = sync(&lab, &["--restore"]);
        assert_eq!(told(&report), ["state-corrupt", "nothing-applied"], "{report:#}");
        assert!(report["changed"] == false && rules == lab.rules(), "{report:#}");
        assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    }
}

const CONFIG: &str = "/etc/edgeallow/config.toml";
/// The configuration of the last sync.
const COPY: &str = "/var/lib/edgeallow/applied.toml";

#[test]
fn a_boot_opens_nothing_that_was_only_configured() {
    let lab = host(&WITH_INCLUDE);
    lab.write_file(CONFIG, "backends = [\"nftables\"]\nports = [443]\n");
    sync(&lab, &[]);
    let applied = lab.rules();
    lab.write_file(
        CONFIG,
        "backends = [\"nftables\", \"iptables\"]\nports = [443, 8443]\nprotocols = [\"tcp\", \"udp\"]\n\
         extra = [\"198.51.100.0/24\"]\n",
    );
    lab.feed(["nft", "-f", "-"], &administrators_rules());
    let report = sync(&lab, &["--restore"]);
    assert!(told(&report)[0] == "config-not-applied" && report["changed"] == true, "{report:#}");
    assert!(lab.rules() == applied, "{:?}\n{:?}", applied, lab.rules());
    assert_eq!(part_of(&report, "iptables")["state"], "skipped", "{report:#}");
    assert_eq!(lab.read_file(COPY), "backends = [\"nftables\"]\nports = [443]\n");
    // What tells of a run, and what is only written in another way, waits for no sync.
    lab.write_file(CONFIG, "# mine\nports = [443]\nbackends = [\"nftables\"]\nmetrics = \"/run/metrics.prom\"\n");
    let report = sync(&lab, &["--restore"]);
    assert!(!told(&report).contains(&"config-not-applied") && report["changed"] == false, "{report:#}");
    assert!(lab.exists("/run/metrics.prom"));
    // A sync makes it so, and then it is what a boot puts back.
    lab.write_file(CONFIG, "backends = [\"nftables\"]\nports = [8443]\n");
    sync(&lab, &[]);
    lab.feed(["nft", "-f", "-"], &administrators_rules());
    let report = sync(&lab, &["--restore"]);
    assert!(!told(&report).contains(&"config-not-applied") && report["changed"] == true, "{report:#}");
    assert!(lab.table(&EDGES, &[8443]).all_accepted() && lab.table(&EDGES, &[443]).none_accepted());
    // A sync that it waits for may have another configuration.
    let meanwhile = format!(
        "exec 9>/run/edgeallow.lock; flock 9; edgeallow sync --restore --lock-timeout 60 9>&- & sleep 0.5; \
         echo 'ports = [443]' >{COPY}; flock -u 9; wait $!"
    );
    lab.write_file(CONFIG, "ports = [443]\n");
    lab.run(["bash", "-c", &meanwhile]);
    assert!(lab.table(&EDGES, &[443]).all_accepted() && lab.table(&EDGES, &[8443]).none_accepted());
}

#[test]
fn a_slip_in_the_configuration_locks_nobody_out_at_the_next_boot() {
    let lab = host(&WITH_INCLUDE);
    let boot = |lab: &Lab| drop(lab.feed(["nft", "-f", "-"], &administrators_rules()));
    let kept = || lab.stamps(&["/var/lib/edgeallow"]);
    lab.write_file(CONFIG, "ports = [443]\n");
    sync(&lab, &[]);
    assert_eq!(lab.read_file(COPY), "ports = [443]\n");
    assert_eq!(lab.run(["stat", "-c", "%a", COPY]).stdout.trim(), "600");
    let before = kept();
    sync(&lab, &[]);
    assert!(diff(&before, &kept()).is_empty(), "a sync with nothing to do has written into its state folder");

    lab.write_file(CONFIG, "# mine\nports = [443, 8443]\nprots = [80]\n");
    boot(&lab);
    let report = try_sync(&lab, &["--restore"]).expect(2).json();
    assert_eq!((&report["changed"], &report["error"]["kind"]), (&true.into(), &"config".into()), "{report:#}");
    assert_eq!(told(&report)[0], "config-unreadable", "{report:#}");
    let words = report["warnings"][0]["message"].as_str().unwrap_or_default();
    assert!(words.contains("config.toml, line 3: unknown key `prots`"), "{words}");
    assert!(lab.table(&EDGES, &[443]).all_accepted() && lab.table(&EDGES, &[8443, 80]).none_accepted());
    // People are told what was done and what is wrong, also where all was in its place.
    boot(&lab);
    let done = lab.edgeallow(["sync", "--restore", "--quiet"]).expect(2);
    assert!(done.stdout.contains("1 change made and confirmed.") && done.stderr.contains("line 3"), "{done:?}");
    let done = lab.edgeallow(["sync", "--restore"]).expect(2);
    assert!(done.stdout.contains("[config-unreadable]") && done.stderr.contains("line 3"), "{done:?}");
    // Nothing else goes by the copy, and nothing but a sync makes another.
    assert_eq!(try_sync(&lab, &[]).expect(2).json()["error"]["kind"], "config");
    assert_eq!(lab.read_file(COPY), "ports = [443]\n");

    // With what is applied the copy goes.
    lab.write_file(CONFIG, "ports = [443]\n");
    lab.edgeallow(["remove"]).expect_ok();
    assert!(!lab.exists(COPY));
    lab.write_file(CONFIG, "prots = [80]\n");
    let rules = lab.rules();
    try_sync(&lab, &["--restore"]).expect(2);
    assert!(rules == lab.rules());
    // Also where the state was lost.
    lab.files(|| fs::remove_file(CONFIG));
    sync(&lab, &[]);
    assert_eq!(lab.read_file(COPY), "", "the defaults are a configuration as well");
    lab.run(["rm", "/var/lib/edgeallow/state.json"]);
    lab.edgeallow(["remove"]).expect_ok();
    assert!(!lab.exists(COPY));
}

#[test]
fn what_is_removed_stays_removed_though_the_disk_is_full() {
    let lab = host(&WITH_INCLUDE);
    sync(&lab, &[]);
    fill_the_disk_of(&lab, "/var/lib/edgeallow");
    // Until then a list that can't be stored opens nothing new, and what the old one opened is put back.
    lab.internet_address("9.9.9.9");
    lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    let output = try_sync(&lab, &["--list", &list_with(&lab, "longer", &["9.9.9.0/24"])]).expect(1);
    assert!(speaks_of_space(&error_of(&output)) && output.json()["changed"] == true, "{output:?}");
    assert_eq!((lab.connect(EDGE4, 443), lab.connect("9.9.9.9", 443)), (Reach::Accepted, Reach::Timeout));
    let report = lab.edgeallow(["remove", "--format", "json"]).expect_ok().json();
    assert!(told(&report).contains(&"state-lost"), "{report:#}");
    assert!(!lab.exists("/var/lib/edgeallow/state.json"));
    assert_eq!(told(&sync(&lab, &["--restore"])), ["nothing-applied"]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
}

#[test]
fn what_is_removed_in_part_and_can_not_be_remembered_is_said_to_come_back() {
    let lab = host(&WITH_INCLUDE);
    lab.edgeallow(["sync", "--offline", "--backend", "nftables", "--backend", "iptables"]).expect_ok();
    fill_the_disk_of(&lab, "/var/lib/edgeallow");
    let output = lab.edgeallow(["remove", "--backend", "nftables", "--format", "json"]).expect(1);
    let error = error_of(&output);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("a restore will put it back")), "{error:#}");
    assert_eq!(output.json()["changed"], true);
}

#[test]
fn what_somebody_else_has_taken_out_is_not_put_back_after_a_remove() {
    let lab = host(&WITH_INCLUDE);
    lab.write_file("/etc/edgeallow/config.toml", "[nftables]\npersist = \"none\"\n");
    sync(&lab, &[]);
    lab.feed(["nft", "-f", "-"], &administrators_rules());
    let report = lab.edgeallow(["remove", "--format", "json"]).expect_ok().json();
    assert_eq!(report["changed"], false, "{report:#}");
    assert_eq!(told(&sync(&lab, &["--restore"])), ["nothing-applied"]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
}

#[test]
fn a_boot_with_an_empty_state_folder_can_sync_without_network_and_says_from_what() {
    let lab = host(&WITH_INCLUDE);
    let report = sync(&lab, &[]);
    assert!(told(&report).contains(&"built-in-list"), "{report:#}");
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
    // The folder is lost while the rules live: nothing is removed, and the run after it knows again.
    lab.run(["rm", "-r", "/var/lib/edgeallow"]);
    assert_eq!(sync(&lab, &[])["list"]["removed"], Value::Array(vec![]));
    assert!(lab.exists("/var/lib/edgeallow/state.json"));
    expect_status(&lab, 0);
}

#[test]
fn a_clock_that_jumps_back_is_said_and_costs_nothing() {
    let lab = host(&WITH_INCLUDE);
    lab.internet_address("9.9.9.9");
    let longer = list_with(&lab, "longer", &["9.9.9.0/24"]);
    let shorter = list_with(&lab, "shorter", &[]);
    let this_year = || lab.run(["date", "-u", "+%Y"]).stdout.trim().to_owned();
    let year = this_year();
    sync(&lab, &["--list", &longer]);
    sync(&lab, &["--list", &shorter]);
    // Everything that is remembered was written in 2100. A year may have ended meanwhile.
    let state = lab.read_file("/var/lib/edgeallow/state.json");
    let years = [year, this_year()].map(|year| format!("\"{year}-"));
    assert!(years.iter().any(|year| state.contains(year)), "{state}");
    let state = years.iter().fold(state, |state, year| state.replace(year, "\"2100-"));
    lab.write_file("/var/lib/edgeallow/state.json", state);
    let report = sync(&lab, &[]);
    assert!(told(&report).contains(&"clock-set-back"), "{report:#}");
    assert!(lab.table(&EDGES, &PORTS).all_accepted());
    assert_eq!(lab.connect("9.9.9.9", 443), Reach::Accepted, "what waits for its removal is not removed early");
    // A list that is read anew is newer than the one from the future, and the warning is gone with that one.
    sync(&lab, &["--list", &shorter]);
    let report = sync(&lab, &[]);
    assert!(!told(&report).contains(&"clock-set-back"), "{report:#}");
    // Nor is the wait endless: from now on it counts by the clock as it is.
    let state = lab.read_file("/var/lib/edgeallow/state.json");
    let waiting = state.split("missing_since").nth(1).expect("a range that waits");
    assert!(waiting.starts_with("\": \"2") && !waiting.starts_with("\": \"2100-"), "{state}");
}

#[test]
fn a_disk_that_is_full_when_the_state_is_saved_is_said_and_the_result_is_told_as_it_is() {
    for human in [false, true] {
        let lab = host(&WITH_INCLUDE);
        lab.write_file("/etc/edgeallow/config.toml", "[nftables]\npersist = \"none\"\n");
        sync(&lab, &[]);
        lab.internet_address("9.9.9.9");
        let list = list_with(&lab, "longer", &["9.9.9.0/24"]);
        fill_the_disk_of(&lab, "/var/lib/edgeallow");
        // There is room for one page: the list takes it.
        lab.files(|| {
            let filler = fs::OpenOptions::new().write(true).open("/var/lib/edgeallow/filler")?;
            filler.set_len(filler.metadata()?.len() - 4096)
        });
        let format = if human { "human" } else { "json" };
        let output = lab
            .edgeallow(["sync", "--offline", "--backend", "nftables", "--list", &list, "--format", format])
            .expect(1);
        assert_eq!(lab.connect("9.9.9.9", 443), Reach::Accepted, "{output:?}");
        if human {
            assert!(output.stdout.contains("made and confirmed, and not remembered"), "{output:?}");
            assert!(!output.stdout.contains("Nothing was changed"), "{output:?}");
            assert!(output.stderr.contains("state.json"), "{output:?}");
        } else {
            let report = output.json();
            assert_eq!((&report["changed"], &part_of(&report, "nftables")["state"]), (&true.into(), &"applied".into()));
            assert!(speaks_of_space(&report["error"]), "{report:#}");
        }
        // The next run with room knows what is live, and remembers it.
        lab.run(["umount", "/var/lib/edgeallow"]);
        let report = sync(&lab, &["--list", &list]);
        assert_eq!(report["list"]["removed"], Value::Array(vec![]), "{report:#}");
        assert_eq!(lab.connect("9.9.9.9", 443), Reach::Accepted);
        assert_eq!(sync(&lab, &["--list", &list])["changed"], false);
    }
}

#[test]
fn a_list_in_a_file_is_as_old_as_it_says() {
    let lab = host(&WITH_INCLUDE);
    lab.write_file("/run/printed.json", saved("2020-01-01T00:00:00Z", &[]));
    let list = list_with(&lab, "text", &[]);
    let list_of = |report: &Value| report["source"]["fetched_at"].as_str().expect("a time")[..10].to_owned();
    let warns = |report: &Value| report["warnings"].to_string().contains("older-list");
    let first = sync(&lab, &["--list", "/run/printed.json"]);
    assert!(list_of(&first) == "2020-01-01" && !warns(&first), "{first:#}");
    assert_eq!(list_of(&sync(&lab, &[])), "2020-01-01", "the last good copy is of that day");
    // Text says nothing, so it is of today; what was fetched before that is older.
    assert_ne!(list_of(&sync(&lab, &["--list", &list])), "2020-01-01");
    let again = sync(&lab, &["--list", "/run/printed.json"]);
    assert!(list_of(&again) == "2020-01-01" && warns(&again), "{again:#}");
}

/// What `fetch --save` writes, as fetched from the API at this time.
fn saved(at: &str, v4: &[&str]) -> String {
    let (four, six): (Vec<&str>, Vec<&str>) = crate::run::PUBLISHED.iter().partition(|p| p.contains('.'));
    let source = serde_json::json!({ "name": "cloudflare", "origin": "api", "etag": "x", "fetched_at": at });
    let four = [four.as_slice(), v4].concat();
    serde_json::json!({ "schema": 1, "command": "fetch", "source": source, "v4": four, "v6": six }).to_string()
}

#[test]
fn what_another_process_fetched_is_vetted_again() {
    const PLACE: &str = "/var/lib/edgeallow-fetch/list.json";
    let lab = host(&WITH_INCLUDE);
    lab.internet_address("9.9.9.9");
    sync(&lab, &["--list", &list_with(&lab, "first", &[])]);
    let now = || lab.run(["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"]).stdout.trim().to_owned();
    let later = lab.run(["date", "-u", "-d", "+20 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).stdout.trim().to_owned();
    // Older than the last good copy: nothing new.
    lab.write_file(PLACE, saved("2026-01-01T00:00:00Z", &["9.9.9.0/24"]));
    assert_eq!(sync(&lab, &[])["source"]["origin"], "cache");
    // Not to be believed: a private network, garbage, a link to somewhere else. Nothing is changed.
    let rules = lab.rules();
    lab.write_file("/etc/secret", "root:secret:1\n");
    for (content, kind) in [
        (saved(&later, &["10.0.0.0/12"]), "list-special-purpose"),
        (saved(&later, &["0.0.0.0/0"]), "list-too-wide"),
        ("root:secret:1\n".to_owned(), "list-not-a-list"),
        (String::new(), "list-file"),
    ] {
        if content.is_empty() {
            lab.link("/etc/secret", PLACE);
        } else {
            lab.write_file(PLACE, &content);
        }
        let output = try_sync(&lab, &[]).expect(3);
        assert_eq!(output.json()["error"]["kind"], kind, "{output:?}");
        assert!(!output.stdout.contains("secret:1"), "{output:?}");
        assert!(rules == lab.rules());
        // The boot doesn't depend on it.
        sync(&lab, &["--restore"]);
    }
    lab.files(|| fs::remove_file(PLACE));
    // From the future: stepped over, and said.
    lab.write_file(PLACE, saved("2100-01-01T00:00:00Z", &["9.9.9.0/24"]));
    assert!(told(&sync(&lab, &[])).contains(&"fetched-in-future"), "{}", now());
    // Good and new: applied, once.
    lab.write_file(PLACE, saved(&later, &["9.9.9.0/24"]));
    let report = sync(&lab, &[]);
    assert_eq!((&report["source"]["origin"], &report["changed"]), (&"fetched".into(), &true.into()), "{report:#}");
    assert_eq!(lab.connect("9.9.9.9", 443), Reach::Accepted);
    assert_eq!(sync(&lab, &[])["source"]["origin"], "cache");
    // Another place by name has to be there; the usual one may be empty until something has been fetched.
    let rules = lab.rules();
    let output = try_sync(&lab, &["--fetched", "/run/nothing.json"]).expect(3);
    assert_eq!(error_of(&output)["kind"], "list-file", "{output:?}");
    assert!(rules == lab.rules());
    lab.files(|| fs::remove_file(PLACE));
    assert!(told(&sync(&lab, &["--fetched", PLACE])).contains(&"nothing-fetched"));
}

#[test]
fn a_list_is_saved_for_another_process_without_privilege() {
    let lab = Lab::new();
    lab.run(["mkdir", "-m", "777", "/run/fetched"]);
    let list = list_with(&lab, "list", &[]);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
    let capabilities = lab.run([nobody.as_slice(), &["grep", "^Cap", "/proc/self/status"]].concat()).stdout;
    let none = capabilities.lines().filter(|l| l.ends_with("\t0000000000000000")).count();
    assert_eq!(none, 5, "it has none, and can get none: {capabilities}");
    let fetch = ["/usr/local/bin/edgeallow", "fetch", "--list", &list, "--save=/run/fetched/list.json"];
    let output = lab.command([nobody.as_slice(), &fetch].concat()).run().expect_ok();
    assert!(output.stdout.is_empty(), "{output:?}");
    let saved: Value = serde_json::from_str(&lab.read_file("/run/fetched/list.json")).expect("JSON");
    assert_eq!((&saved["schema"], saved["v4"].as_array().map(Vec::len)), (&1.into(), Some(15)), "{saved:#}");
    // What it may not read it can't follow, and says how that is mended.
    lab.write_file("/etc/edgeallow/config.toml", "ports = [443]\n");
    lab.chmod("/etc/edgeallow/config.toml", 0o600);
    let closed = lab.command([nobody.as_slice(), &fetch].concat()).run().expect(2);
    assert!(closed.stderr.contains("chmod 644") && closed.stderr.contains("webhook_file"), "{closed:?}");
    lab.files(|| fs::remove_file("/etc/edgeallow/config.toml"));
    // It came from a file, not from the network: no news for a sync.
    let report = sync(&lab, &["--fetched", "/run/fetched/list.json"]);
    assert!(told(&report).contains(&"nothing-fetched"), "{report:#}");
}
