//! Metrics in a file: always well-formed, never in the way of a run, and true also when everything else fails.

use std::fs;

use super::{configure, done, host, sync_to, warnings};
use crate::{
    exposition::{Exposition, read},
    lab::Lab,
};

const FOLDER: &str = "/var/lib/node";
const FILE: &str = "/var/lib/node/edgeallow.prom";
const SYNC: [(&str, &str); 1] = [("command", "sync")];

fn metrics(lab: &Lab) -> Exposition {
    let text = lab.read_file(FILE);
    read(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn measured() -> Lab {
    let lab = host(&format!("metrics = \"{FILE}\""));
    lab.run(["mkdir", FOLDER]);
    lab
}

#[test]
fn a_run_s_facts_are_there_for_node_exporter_to_read() {
    let lab = measured();
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    let first = metrics(&lab);
    assert_eq!(first.value("edgeallow_list_prefixes", &[("family", "ipv4")]), 16.0);
    assert_eq!(first.value("edgeallow_backend_state", &[("backend", "nftables"), ("state", "applied")]), 1.0);
    assert_eq!(first.value("edgeallow_last_run_exit_status", &SYNC), 0.0);
    let success = first.value("edgeallow_last_success_timestamp_seconds", &SYNC);
    assert!(success > 1.7e9 && success == first.value("edgeallow_last_run_timestamp_seconds", &SYNC));
    let names = lab.inside(|| fs::read_dir(FOLDER).map(|d| d.flatten().map(|e| e.file_name()).collect::<Vec<_>>()));
    assert_eq!(names.expect("a folder"), ["edgeallow.prom"], "nothing half-written is left");

    // A failed run: the success stays where it was, and so does what is known of list and backends.
    lab.write_file("/run/lists/bad", "<html>");
    lab.edgeallow(["sync", "--list", "/run/lists/bad"]).expect(3);
    let failed = metrics(&lab);
    assert_eq!(failed.value("edgeallow_last_run_exit_status", &SYNC), 3.0);
    assert_eq!(failed.value("edgeallow_last_success_timestamp_seconds", &SYNC), success);
    assert_eq!(failed.value("edgeallow_list_prefixes", &[("family", "ipv4")]), 16.0);

    // Drift, as a look sees it. Looks write where the command line says so.
    lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
    lab.edgeallow(["status", "--offline"]).expect(6);
    assert_eq!(metrics(&lab).value("edgeallow_backend_drift", &[("backend", "nftables")]), 0.0);
    lab.edgeallow(["status", "--offline", "--metrics", FILE]).expect(6);
    let look = metrics(&lab);
    assert_eq!(look.value("edgeallow_backend_drift", &[("backend", "nftables")]), 1.0);
    assert_eq!(look.value("edgeallow_last_run_exit_status", &[("command", "status")]), 6.0);
    assert_eq!(look.value("edgeallow_last_run_exit_status", &SYNC), 3.0);
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    assert_eq!(metrics(&lab).value("edgeallow_backend_drift", &[("backend", "nftables")]), 0.0);

    // A configuration that can't be read says nothing of a file; the command line does.
    configure(&lab, "prots = []");
    lab.edgeallow(["sync", "--metrics", FILE]).expect(2);
    assert_eq!(metrics(&lab).value("edgeallow_last_run_exit_status", &SYNC), 2.0);
    assert_eq!(metrics(&lab).value("edgeallow_runs_total", &[("command", "sync"), ("exit_status", "0")]), 2.0);
}

#[test]
fn where_they_can_t_be_written_the_sync_is_done_and_it_is_said() {
    let lab = host("");
    lab.run(["mkdir", "-p", FOLDER, "/mnt/full"]);
    lab.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", FOLDER]);
    lab.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt/full"]);
    let full = lab.inside(|| fs::write("/mnt/full/filler", vec![0; 1 << 20]));
    assert!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    lab.run(["mkfifo", "/run/pipe"]);
    for (n, (path, words)) in [
        (FILE, "readwritepaths="),
        ("/var/lib/none/edgeallow.prom", "its folder must be there"),
        ("/mnt/full/edgeallow.prom", "free some space"),
        ("/etc/passwd", "holds no metrics of edgeallow's"),
        ("/run/pipe", "is not a regular file"),
        ("/dev/null", "is not a regular file"),
        ("/var/lib", "is a folder where a file is expected"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = lab.read_file("/etc/passwd");
        configure(&lab, &format!("metrics = \"{path}\""));
        let report = done(&lab, sync_to(&lab, &format!("9.9.{n}.0/24"), &[]));
        assert_eq!(report["changed"], true, "{path}: {report:#}");
        let said = warnings(&report, "metrics-failed");
        assert!(said.len() == 1 && said[0].to_lowercase().contains(words), "{path}: {said:?}");
        assert_eq!(lab.read_file("/etc/passwd"), before);
    }
}

#[test]
fn a_bare_name_lies_in_the_folder_that_it_is_written_from() {
    let lab = host("");
    let list = crate::run::list_with(&lab, "list", &[]);
    lab.run(["mkdir", FOLDER]);
    let command = format!("cd {FOLDER} && exec edgeallow sync --format json --list {list} --metrics edgeallow.prom");
    let report = done(&lab, lab.command(["sh", "-c", &command]).run());
    assert_eq!(warnings(&report, "metrics-failed"), [""; 0]);
    assert!(metrics(&lab).value("edgeallow_build_info", &[("version", env!("CARGO_PKG_VERSION"))]) > 0.0);
}

#[test]
fn a_full_disk_for_the_state_is_a_failure_that_is_told() {
    let lab = measured();
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    let success = metrics(&lab).value("edgeallow_last_success_timestamp_seconds", &SYNC);
    lab.run(["cp", "-a", "/var/lib/edgeallow", "/mnt/copy"]);
    lab.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "tmpfs", "/var/lib/edgeallow"]);
    lab.run(["cp", "-a", "/mnt/copy/.", "/var/lib/edgeallow"]);
    let full = lab.inside(|| fs::write("/var/lib/edgeallow/filler", vec![0; 1 << 20]));
    assert!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    let report = sync_to(&lab, "9.9.8.0/24", &[]).expect(1).json();
    assert!(report["error"]["message"].as_str().is_some_and(|m| m.contains("space")), "{report:#}");
    assert_eq!(warnings(&report, "metrics-failed").len(), 1, "that it is not remembered is said: {report:#}");
    let m = metrics(&lab);
    assert_eq!(m.value("edgeallow_last_run_exit_status", &SYNC), 1.0);
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &SYNC), success);
}

#[test]
fn a_hook_that_failed_is_among_the_warnings() {
    let lab = host(&format!("metrics = \"{FILE}\"\n[on_change]\ncommand = [\"false\"]"));
    lab.run(["mkdir", FOLDER]);
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    let m = metrics(&lab);
    assert_eq!(m.value("edgeallow_warnings", &[("command", "sync"), ("id", "hook-failed")]), 1.0);
    assert_eq!(m.value("edgeallow_runs_total", &[("command", "sync"), ("exit_status", "0")]), 1.0);
}

#[test]
fn after_a_removal_nothing_waits_for_syncs() {
    let lab = measured();
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    lab.edgeallow(["remove"]).expect_ok();
    lab.edgeallow(["sync", "--restore"]).expect_ok();
    let m = metrics(&lab);
    for name in ["edgeallow_last_success_timestamp_seconds", "edgeallow_last_run_timestamp_seconds"] {
        assert_eq!(m.get(name, &SYNC), None, "{name}");
        assert!(m.get(name, &[("command", "remove")]).is_some(), "{name}");
    }
    done(&lab, sync_to(&lab, "9.9.9.0/24", &[]));
    assert_eq!(metrics(&lab).value("edgeallow_last_run_exit_status", &SYNC), 0.0);
}

/// Where it is installed, Prometheus' own program judges too.
#[test]
fn alerts_and_recipes_name_metrics_that_there_are() {
    let lab = measured();
    let list = crate::run::list_with(&lab, "list", &["9.9.9.0/24"]);
    lab.edgeallow(["sync", "--list", &list]).expect_ok();
    // A drop before the input chains is nothing that edgeallow could help: a culprit.
    let drop = "table inet his { chain early { type filter hook prerouting priority -300; tcp dport 443 drop; }; }";
    lab.feed(["nft", "-f", "-"], drop);
    // A range that vanished gives a warning, and thereby every metric that there can be.
    let list = crate::run::list_with(&lab, "list", &[]);
    lab.edgeallow(["sync", "--list", &list]).expect_ok();
    let broken = lab.inside(|| std::net::TcpListener::bind("192.0.2.1:8081").expect("a port of the host's"));
    let server = std::thread::spawn(move || {
        let (mut client, _) = broken.accept().expect("the watch");
        let _ = std::io::Read::read(&mut client, &mut [0; 2048]).expect("a request");
        std::io::Write::write_all(&mut client, b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n").expect("answer");
    });
    let page = ["--origin", "192.0.2.1", "http://shop.example:8081/"];
    lab.edgeallow([&["watch", "--once", "--offline", "--fail-after", "1"], &page[..]].concat()).expect(7);
    server.join().expect("a server");
    let text = lab.read_file(FILE);
    assert!(read(&text).is_ok(), "{text}");
    let alerts = include_str!("../../examples/prometheus/alerts.yml");
    let recipe = include_str!("../../docs/recipes/monitoring.md");
    let words = |text: &'static str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut named = 0;
    for name in words(alerts).chain(words(recipe)).filter(|w| w.starts_with("edgeallow_")) {
        assert!(text.contains(&format!("# TYPE {name} ")), "there is no metric {name} in\n{text}");
        named += 1;
    }
    assert!(named > 20, "only {named} names were found");
    for name in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(recipe.contains(name), "docs/recipes/monitoring.md doesn't tell of {name}");
    }
    let promtool = ["/usr/bin/promtool", "/usr/local/bin/promtool"].into_iter().find(|p| lab.exists(p));
    if let Some(promtool) = promtool {
        let judged = lab.command([promtool, "check", "metrics"]).stdin(text).run().expect_ok();
        assert_eq!((judged.stdout.as_str(), judged.stderr.as_str()), ("", ""));
        lab.write_file("/run/alerts.yml", alerts);
        lab.run([promtool, "check", "rules", "/run/alerts.yml"]);
    }
}
