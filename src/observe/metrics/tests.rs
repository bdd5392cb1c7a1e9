//! What is written, read back by the rules of the format.

use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;

use super::*;
use crate::{
    error::Exit,
    report::{
        BackendReport, CulpritReport, ListReport, PendingReport, QuestionReport, ReachReport, ReachVerdict,
        SourceReport,
    },
};

#[path = "../../../tests/support/exposition.rs"]
mod exposition;

use exposition::{Exposition, read};

const DAY: i64 = 86_400;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn good(state: BackendState) -> Report {
    let mut report = Report::blank("sync", false);
    report.source = Some(SourceReport {
        name: "a \"quoted\" \\ name\nof two lines".into(),
        origin: "file".into(),
        etag: None,
        fetched_at: Some(at(5 * DAY)),
        v4: 15,
        v6: 7,
    });
    report.list = Some(ListReport {
        added: vec!["198.51.100.0/24".into()],
        removed: vec![],
        pending_removal: vec![PendingReport { prefix: "192.0.2.0/24".into(), missing_since: at(0) }],
    });
    let change = crate::report::ChangeReport { why: "w".into(), preview: "p".into(), diff: None };
    let changes = if state == BackendState::InSync { vec![] } else { vec![change.clone(), change] };
    let changed = state == BackendState::Applied;
    report.backends = vec![
        BackendReport { changed, changes, ..BackendReport::idle("nftables", state, None) },
        BackendReport::idle("ufw", BackendState::Skipped, None),
    ];
    report.warnings = vec![Warning::new("pending-removal", "x"), Warning::new("list-old", "x")];
    report
}

fn bad() -> Report {
    Report::failed("sync", &Error::new(ErrorKind::ListShrunk, "most of it is gone"))
}

fn write(dir: &Path, report: &Report, second: i64) -> Exposition {
    let (written, warning) = try_write(dir, report, second);
    assert_eq!(warning, None);
    written
}

fn try_write(dir: &Path, report: &Report, second: i64) -> (Exposition, Option<Warning>) {
    let file = dir.join("edgeallow.prom");
    let state_dir = dir.join("state");
    let run = Run {
        metrics: None,
        state_dir: &state_dir,
        config: None,
        offline: false,
        now: at(second),
        took: Duration::from_millis(1250),
        progress: &|_| {},
    };
    let wrote = Metrics::record(&file, &run, report).write();
    let text = fs::read_to_string(&file).unwrap();
    (read(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), wrote.err())
}

const SYNC: [(&str, &str); 1] = [("command", "sync")];

#[test]
fn everything_that_is_promised_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let m = write(dir.path(), &good(BackendState::Applied), 6 * DAY);
    assert_eq!(m.value("edgeallow_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(m.value("edgeallow_last_run_timestamp_seconds", &SYNC), 518_400.0);
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &SYNC), 518_400.0);
    assert_eq!(m.value("edgeallow_last_run_exit_status", &SYNC), 0.0);
    assert_eq!(m.value("edgeallow_last_run_duration_seconds", &SYNC), 1.25);
    assert_eq!(m.value("edgeallow_last_run_changes", &SYNC), 2.0);
    assert_eq!(m.value("edgeallow_runs_total", &[("command", "sync"), ("exit_status", "0")]), 1.0);
    let list = [("source", "a \"quoted\" \\ name\nof two lines"), ("origin", "file")];
    assert_eq!(m.value("edgeallow_list_info", &list), 1.0);
    assert_eq!(m.value("edgeallow_list_fetched_timestamp_seconds", &[]), 432_000.0);
    assert_eq!(m.value("edgeallow_list_prefixes", &[("family", "ipv4")]), 15.0);
    assert_eq!(m.value("edgeallow_list_prefixes", &[("family", "ipv6")]), 7.0);
    assert_eq!(m.value("edgeallow_list_changed_prefixes", &[("change", "added")]), 1.0);
    assert_eq!(m.value("edgeallow_list_pending_removals", &[]), 1.0);
    let state = |backend, state| m.value("edgeallow_backend_state", &[("backend", backend), ("state", state)]);
    assert_eq!((state("nftables", "applied"), state("nftables", "in_sync"), state("ufw", "skipped")), (1.0, 0.0, 1.0));
    assert_eq!(m.value("edgeallow_backend_drift", &[("backend", "nftables")]), 0.0);
    assert_eq!(m.value("edgeallow_backend_changes", &[("backend", "nftables")]), 2.0);
    assert_eq!(m.value("edgeallow_warnings", &[("command", "sync"), ("id", "list-old")]), 1.0);
}

#[test]
fn a_failure_leaves_the_last_success_and_what_was_known() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &good(BackendState::InSync), 6 * DAY);
    let m = write(dir.path(), &bad(), 7 * DAY);
    assert_eq!(m.value("edgeallow_last_run_timestamp_seconds", &SYNC), 604_800.0);
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &SYNC), 518_400.0);
    assert_eq!(m.value("edgeallow_last_run_exit_status", &SYNC), 3.0);
    assert_eq!(m.value("edgeallow_runs_total", &[("command", "sync"), ("exit_status", "3")]), 1.0);
    assert_eq!(m.value("edgeallow_list_prefixes", &[("family", "ipv4")]), 15.0);
    assert_eq!(m.value("edgeallow_backend_state", &[("backend", "nftables"), ("state", "in_sync")]), 1.0);
    assert_eq!(
        m.get("edgeallow_warnings", &[("command", "sync"), ("id", "list-old")]),
        None,
        "the last run had no such warning"
    );
    // The first run of all fails: there is no last success to speak of.
    let dir = tempfile::tempdir().unwrap();
    let m = write(dir.path(), &bad(), 7 * DAY);
    assert_eq!(m.get("edgeallow_last_success_timestamp_seconds", &SYNC), None);
    assert_eq!(m.get("edgeallow_list_prefixes", &[("family", "ipv4")]), None);
}

#[test]
fn a_look_is_not_a_sync_and_shows_drift() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &good(BackendState::InSync), 6 * DAY);
    let mut look = good(BackendState::Planned);
    (look.command, look.dry_run, look.exit) = ("status", true, Exit::Pending);
    let m = write(dir.path(), &look, 7 * DAY);
    assert_eq!(m.value("edgeallow_last_run_timestamp_seconds", &SYNC), 518_400.0);
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &[("command", "status")]), 604_800.0);
    assert_eq!(m.value("edgeallow_backend_drift", &[("backend", "nftables")]), 1.0);
    let dry = Report { command: "sync", ..look };
    let m = write(dir.path(), &dry, 8 * DAY);
    assert_eq!(m.value("edgeallow_last_run_timestamp_seconds", &SYNC), 518_400.0);
    assert_eq!(m.value("edgeallow_last_run_timestamp_seconds", &[("command", "dry-run")]), 691_200.0);
}

#[test]
fn what_keeps_it_is_told_beside_the_syncs_and_says_nothing_of_the_list() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &good(BackendState::InSync), 6 * DAY);
    let mut kept = good(BackendState::Applied);
    (kept.command, kept.warnings) = ("keep", vec![Warning::new("undone-again", "x")]);
    if let Some(source) = &mut kept.source {
        (source.origin, source.fetched_at) = ("cache".into(), None);
    }
    let m = write(dir.path(), &kept, 7 * DAY);
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &SYNC), 518_400.0, "a sync that stays away is seen");
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &[("command", "keep")]), 604_800.0);
    assert_eq!(m.value("edgeallow_warnings", &[("command", "keep"), ("id", "undone-again")]), 1.0);
    assert_eq!(m.value("edgeallow_warnings", &[("command", "sync"), ("id", "list-old")]), 1.0);
    assert_eq!(m.value("edgeallow_list_fetched_timestamp_seconds", &[]), 432_000.0);
    let list = [("source", "a \"quoted\" \\ name\nof two lines"), ("origin", "file")];
    assert_eq!(m.value("edgeallow_list_info", &list), 1.0);
    assert_eq!(m.value("edgeallow_backend_state", &[("backend", "nftables"), ("state", "applied")]), 1.0);
}

#[test]
fn a_clock_that_was_set_back_does_not_make_an_old_success_new() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &good(BackendState::InSync), 900 * DAY);
    let m = write(dir.path(), &bad(), 6 * DAY);
    assert_eq!(m.value("edgeallow_last_success_timestamp_seconds", &SYNC), 518_400.0);
}

#[test]
#[allow(clippy::disallowed_methods)]
fn after_a_removal_no_list_can_grow_old_and_no_sync_can_be_missed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &good(BackendState::InSync), 6 * DAY);
    for command in ["keep", "status", "watch"] {
        write(dir.path(), &Report::blank(command, false), 6 * DAY);
    }
    let success = "edgeallow_last_success_timestamp_seconds";
    let told = |m: &Exposition, command: &str| m.get(success, &[("command", command)]).is_some();
    // A dry run removes nothing, and after one that leaves something applied syncs are still wanted.
    let state = dir.path().join("state/state.json");
    let applied = r#"{"digest": "0", "ports": [443], "protocols": ["tcp"], "since": "2026-01-01T00:00:00Z"}"#;
    for (dry_run, backends) in [(true, String::new()), (false, format!(r#""iptables": {applied}"#))] {
        fs::write(&state, format!(r#"{{"schema": 1, "backends": {{{backends}}}}}"#)).unwrap();
        let m = write(dir.path(), &Report::blank("remove", dry_run), 7 * DAY);
        assert!(["sync", "keep", "status", "watch"].iter().all(|command| told(&m, command)), "{backends}");
        assert!(m.get("edgeallow_list_fetched_timestamp_seconds", &[]).is_some(), "{backends}");
    }
    fs::write(&state, r#"{"schema": 1}"#).unwrap();
    let m = write(dir.path(), &Report::blank("remove", false), 7 * DAY);
    assert_eq!(m.get("edgeallow_list_fetched_timestamp_seconds", &[]), None);
    assert_eq!(["sync", "keep", "status", "remove", "watch"].map(|c| told(&m, c)), [false, false, false, true, true]);
    // Nor by a boot that finds nothing to put back; a sync is wanted again from the next one that is.
    let nothing = vec![Warning::new(crate::engine::sync::NOTHING_APPLIED, "x")];
    let m = write(dir.path(), &Report { warnings: nothing, ..Report::blank("sync", false) }, 8 * DAY);
    assert!(!told(&m, "sync"));
    assert!(told(&write(dir.path(), &good(BackendState::InSync), 9 * DAY), "sync"));
}

#[test]
#[allow(clippy::disallowed_methods)]
fn what_is_remembered_may_be_lost_or_garbage_and_the_file_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let remembered = dir.path().join("state/metrics.json");
    write(dir.path(), &good(BackendState::InSync), 6 * DAY);
    for garbage in ["", "{", "[1]", "{\"runs\":3}", "\0"] {
        fs::write(&remembered, garbage).unwrap();
        let m = write(dir.path(), &good(BackendState::InSync), 7 * DAY);
        assert_eq!(m.value("edgeallow_last_run_exit_status", &SYNC), 0.0, "{garbage:?}");
    }
    // A folder in its place: it can't be kept, which is said, and the file is written all the same.
    fs::remove_file(&remembered).unwrap();
    fs::create_dir(&remembered).unwrap();
    let (m, warning) = try_write(dir.path(), &good(BackendState::InSync), 8 * DAY);
    let warning = warning.unwrap();
    assert!(warning.id == "metrics-failed" && warning.message.contains("metrics.json"), "{warning:?}");
    assert_eq!(m.value("edgeallow_last_run_timestamp_seconds", &SYNC), 691_200.0);
}

#[test]
#[allow(clippy::disallowed_methods)]
fn only_a_file_of_ours_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("f"), dir.path().join("link"));
    let memory = Memory::default();
    let write = |file: &Path| Metrics { file, memory: memory.clone(), lost: None }.write();
    fs::write(&file, "root:x:0:0\n").unwrap();
    let refused = write(&file).unwrap_err();
    assert!(refused.message.contains("holds no metrics of edgeallow's"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "root:x:0:0\n");
    fs::write(&file, "").unwrap();
    assert_eq!((write(&file), write(&file)), (Ok(()), Ok(())));
    assert!(fs::read_to_string(&file).unwrap().starts_with(FIRST));
    fs::remove_file(&file).unwrap();
    write(&file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644, "another user's node_exporter reads it");
    std::os::unix::fs::symlink("f", &link).unwrap();
    assert_eq!(write(&link).unwrap_err().id, "metrics-failed");
    assert_eq!(write(dir.path()).unwrap_err().id, "metrics-failed");
    let missing = write(&dir.path().join("none/f")).unwrap_err();
    assert!(missing.message.contains("its folder must be there"), "{missing:?}");
}

#[test]
fn whether_the_ranges_get_through_is_told_by_port_and_tool() {
    let question = |port, verdict, accepted| QuestionReport {
        to: "192.0.2.1".into(),
        port,
        protocol: "tcp",
        interface: "eth0".into(),
        verdict,
        ranges: 15,
        accepted,
    };
    let culprit = CulpritReport {
        verdict: ReachVerdict::Refused,
        tool: Some("fail2ban"),
        name: None,
        effect: "reject",
        detail: None,
        packet: "request",
        place: None,
        cloudflare_error: None,
        catches: vec![],
        mend: vec![],
    };
    let mut report = good(BackendState::InSync);
    report.reach = Some(ReachReport {
        verdict: ReachVerdict::Refused,
        questions: vec![question(80, ReachVerdict::Accepted, 15), question(443, ReachVerdict::Refused, 14)],
        culprits: vec![culprit.clone(), CulpritReport { tool: None, ..culprit }],
        ..ReachReport::default()
    });
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &report, 6 * DAY);
    // A run that fails judges nothing, and what was known stays.
    let m = write(dir.path(), &bad(), 7 * DAY);
    let to = |port| [("to", "192.0.2.1"), ("port", port), ("protocol", "tcp"), ("interface", "eth0")];
    let verdict =
        |port, verdict| m.value("edgeallow_reach_verdict", &[&to(port)[..], &[("verdict", verdict)]].concat());
    assert_eq!((verdict("80", "accepted"), verdict("80", "refused")), (1.0, 0.0));
    assert_eq!((verdict("443", "accepted"), verdict("443", "refused")), (0.0, 1.0));
    assert_eq!(m.value("edgeallow_reach_ranges", &to("443")), 15.0);
    assert_eq!(m.value("edgeallow_reach_accepted_ranges", &to("443")), 14.0);
    for tool in ["fail2ban", "none"] {
        assert_eq!(m.value("edgeallow_reach_culprits", &[("tool", tool), ("verdict", "refused")]), 1.0);
    }
    assert_eq!(m.value("edgeallow_reach_checked_timestamp_seconds", &[]), 518_400.0);
}

#[test]
fn the_reader_of_these_tests_finds_what_is_wrong() {
    let head = "# HELP edgeallow_x Help.\n# TYPE edgeallow_x gauge\n";
    for (text, words) in [
        ("edgeallow_x 1", "line feed"),
        ("edgeallow_x 1\n", "no TYPE"),
        ("# HELP edgeallow_x Help.\nedgeallow_x 1\n# TYPE edgeallow_x gauge\n", "after the first"),
        (&format!("{head}edgeallow_x 1\nedgeallow_x 2\n"), "same series"),
        (&format!("{head}# TYPE edgeallow_x gauge\nedgeallow_x 1\n"), "same TYPE"),
        (&format!("{head}edgeallow_x{{a=\"1\",a=\"2\"}} 1\n"), "same label"),
        (&format!("{head}edgeallow_x{{a=\"\\t\"}} 1\n"), "escape"),
        (&format!("{head}edgeallow_x{{a=\"}} 1\n"), "doesn't end"),
        (&format!("{head}edgeallow_x 1 1600000000000\n"), "no timestamp"),
        (&format!("{head}edgeallow_x one\n"), "no number"),
        (&format!("{head}edgeallow_y 1\nedgeallow_x 1\n"), "together"),
        (head, "no sample"),
        ("# HELP edgeallow_x_total Help.\n# TYPE edgeallow_x_total gauge\nedgeallow_x_total 1\n", "_total"),
        ("# HELP x Help.\n# TYPE x gauge\nx 1\n", "program's name"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(read(&format!("{head}edgeallow_x{{a=\"\\\\\\\"\\n\"}} 1\n")).is_ok());
}
