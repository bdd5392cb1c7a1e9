//! The systemd units and the crontab entry: well-formed, hardened as promised, and at work under a real systemd.
//!
//! Belongs here: what `cron/` holds. Does not: what the commands do that it starts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::lab::Lab;

/// The units of the project, with the drop-ins in a folder of their own.
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cron")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder of units").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|n| n.to_string_lossy().into_owned()).collect();
    names.retain(|n| [".service", ".timer", ".conf"].iter().any(|end| n.ends_with(end)));
    names.sort();
    assert!(!names.is_empty());
    names
}

/// A host on which the units are installed.
fn host() -> (Lab, Vec<String>) {
    let lab = Lab::new();
    let names = names(&units());
    for name in &names {
        lab.write_file(&format!("/etc/systemd/system/{name}"), fs::read(units().join(name)).expect("a unit"));
    }
    lab.run(["cp", "/usr/local/bin/edgeallow", "/usr/bin/edgeallow"]);
    (lab, names)
}

#[test]
fn every_unit_passes_systemd_s_own_check() {
    let (lab, names) = host();
    let all = names.iter().map(|n| format!("/etc/systemd/system/{n}"));
    let check = ["systemd-analyze", "--man=no", "verify"].into_iter().map(str::to_owned);
    let output = lab.run(check.chain(all));
    // It has words for what it doesn't understand, and ends with 0 all the same.
    let ours: Vec<_> = output.stderr.lines().filter(|l| l.contains("edgeallow")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn every_service_is_exposed_no_more_than_promised() {
    let (lab, names) = host();
    for name in names.iter().filter(|n| n.ends_with(".service")) {
        let most = if name == "edgeallow-fetch.service" { 12 } else { 20 };
        expect_exposure(&lab, name, most);
    }
}

#[test]
fn drop_ins_give_what_is_needed_and_not_everything() {
    for name in names(&units().join("drop-ins")) {
        let (lab, _) = host();
        let text = fs::read(units().join("drop-ins").join(&name)).expect("a drop-in");
        // docs/promises.md tells these scores.
        let most = match name.as_str() {
            "apache.conf" => 29,
            "csf.conf" => 24,
            "nftables.conf" | "webhook.conf" => 23,
            "metrics.conf" => 21,
            "iptables-legacy.conf" => 22,
            _ => 20,
        };
        for unit in ["edgeallow", "edgeallow-apply"] {
            lab.write_file(&format!("/etc/systemd/system/{unit}.service.d/{name}"), &text);
            expect_exposure(&lab, &format!("{unit}.service"), most);
        }
        lab.write_file(
            "/etc/systemd/system/edgeallow-tell@.service",
            include_str!("../../examples/hooks/edgeallow-tell@.service"),
        );
        let unit = ["systemd-analyze", "--man=no", "verify", "/etc/systemd/system/edgeallow.service"];
        let output = lab.run(unit);
        assert!(!output.stderr.contains("edgeallow"), "{name}: {output:?}");
    }
}

/// Fails if systemd's score, in tenths, is higher.
fn expect_exposure(lab: &Lab, unit: &str, tenths: u32) {
    let threshold = format!("--threshold={tenths}");
    let output = lab.command(["systemd-analyze", "security", "--offline=true", &threshold, unit]).run();
    assert!(output.status == Some(0), "{unit} may have {tenths} tenths: {output:?}");
    assert!(output.stdout.contains("Overall exposure level"), "{output:?}");
}

/// Runs a case under a real systemd. It brings a host of its own: systemd has to be its first process.
fn under_systemd(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/units");
    let mut command = Command::new("/bin/bash");
    command.arg(folder.join("systemd.sh")).arg(env!("CARGO_BIN_EXE_edgeallow")).arg(units());
    let output = command.arg(folder.join("cases").join(case)).output().expect("start the script");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{said}", output.status);
}

#[test]
fn the_units_do_their_work_under_systemd() {
    under_systemd("nftables.sh");
}

#[test]
fn the_units_serve_firewalld_under_systemd_and_let_it_restart() {
    under_systemd("firewalld.sh");
}

#[test]
fn with_its_drop_in_the_units_serve_legacy_iptables_under_systemd() {
    under_systemd("iptables-legacy.sh");
}

#[test]
fn with_its_drop_in_the_units_serve_csf_under_systemd() {
    under_systemd("csf.sh");
}

#[test]
fn with_their_drop_ins_the_units_tell_webhooks_and_metrics_under_systemd() {
    under_systemd("told.sh");
}

#[test]
fn metrics_and_mail_get_out_of_the_units_under_systemd() {
    under_systemd("outside.sh");
}

#[test]
fn the_watch_mends_a_server_from_within_its_unit_under_systemd() {
    under_systemd("watch.sh");
}

#[test]
fn cron_mails_what_changed_or_failed_and_nothing_else() {
    let lab = Lab::new();
    let entry = fs::read_to_string(units().join("edgeallow.cron")).expect("the crontab entry");
    let line = entry.lines().find(|l| l.contains("--random-delay")).expect("a weekly line");
    let (_, command) = line.split_once(" root ").expect("a user");
    let command = command.replace("--random-delay 7200", "--random-delay 1");
    // No list can be fetched in a lab, which would be worth a mail each time.
    let run = || lab.command(["sh", "-c", &format!("{command} --offline")]).run();
    lab.feed(
        ["nft", "-f", "-"],
        "table inet filter { chain input { type filter hook input priority 0; policy drop; }; }",
    );
    lab.write_file("/etc/edgeallow/config.toml", "[nftables]\npersist = \"none\"\n");
    lab.write_file("/run/list", crate::run::PUBLISHED.join("\n"));
    let first = lab.command(["sh", "-c", &format!("{command} --list /run/list")]).run().expect_ok();
    assert!(first.stdout.contains("applied") && first.stderr.is_empty(), "{first:?}");
    let second = run().expect_ok();
    assert!(second.stdout.is_empty() && second.stderr.is_empty(), "a mail about nothing: {second:?}");
    lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
    assert!(run().expect_ok().stdout.contains("applied"));
    // A warning that stands is mailed until the operator says that he knows it.
    let boot = entry.lines().find_map(|l| l.strip_prefix("@reboot root ")).expect("a line for the boot");
    let boot = || lab.command(["sh", "-c", boot]).run().expect_ok();
    let with = |line: &str| {
        lab.write_file("/etc/edgeallow/config.toml", format!("{line}\n[nftables]\npersist = \"none\"\n"));
        run().expect_ok().stdout
    };
    assert!(with("extra = [\"8.0.0.0/7\"]").contains("[extra-wide]"));
    assert!(with("extra = [\"8.0.0.0/7\"]").contains("[extra-wide]"), "week by week");
    assert_eq!(with("extra = [\"8.0.0.0/7\"]\nacknowledged = [\"extra-wide\", \"of-tomorrow\"]"), "");
    assert_eq!(boot().stdout, "");
    lab.run(["edgeallow", "remove"]);
    let (said, id) = (boot(), "nothing-applied");
    assert!(
        said.stdout.is_empty() && said.stderr.is_empty(),
        "nothing was to be put back, and a mail tells of it: {said:?}"
    );
    let json = lab.edgeallow(["sync", "--restore", "--format", "json"]).json();
    assert_eq!(json["warnings"][0]["id"], id, "{json:#}");
    lab.write_file("/etc/edgeallow/config.toml", "nonsense");
    let failed = run();
    assert!(failed.status == Some(2) && failed.stderr.contains("config.toml"), "{failed:?}");
    // What cron's own parser asks of such a file: six fields and a user, no carriage returns, a newline at the end.
    assert!(entry.ends_with('\n') && !entry.contains('\r') && !entry.contains('%'));
}
