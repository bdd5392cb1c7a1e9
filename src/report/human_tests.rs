//! Everything that a person reads, as it is read: 80 columns, colours taken off.

use super::*;
use crate::{
    backends::Verified,
    error::{Error, ErrorKind, Exit},
    report::PendingReport,
};

fn shown(report: &Report, width: usize) -> String {
    let (out, err) = render(report, &Style { width, quiet: false, acknowledged: &[], verbose: false });
    format!("{}{}", anstream::adapter::strip_str(&out), anstream::adapter::strip_str(&err))
}

fn report() -> Report {
    Report {
        doctor: None,
        watch: None,
        schema: 1,
        command: "sync",
        dry_run: false,
        changed: false,
        source: Some(SourceReport {
            name: "cloudflare".into(),
            origin: "api".into(),
            etag: None,
            fetched_at: None,
            v4: 15,
            v6: 7,
        }),
        list: Some(ListReport::default()),
        backends: vec![],
        reach: None,
        warnings: vec![],
        error: None,
        exit: Exit::Ok,
    }
}

fn backend(state: BackendState) -> BackendReport {
    BackendReport {
        name: "nftables",
        state,
        changed: false,
        reason: Some("inet filter input has policy drop".into()),
        verified: Some(Verified::Full),
        changes: vec![],
        error: None,
    }
}

fn change(why: &str, preview: &str, diff: Option<&str>) -> ChangeReport {
    ChangeReport { why: why.into(), preview: preview.into(), diff: diff.map(Into::into) }
}

#[test]
fn nothing_to_change() {
    let r = Report { backends: vec![backend(BackendState::InSync)], ..report() };
    insta::assert_snapshot!(shown(&r, 80), @r"
    List: 15 IPv4 and 7 IPv6 prefixes, from Cloudflare's API
    nftables    in sync   inet filter input has policy drop
    Nothing to change.
    ");
    let quiet = render(&r, &Style { width: 80, quiet: true, acknowledged: &[], verbose: false });
    assert_eq!(quiet, (String::new(), String::new()), "cron gets no mail");
}

#[test]
fn what_is_known_is_no_reason_to_speak_and_is_told_with_what_is() {
    let known = ["not-persisted".to_owned(), "of-another-version".to_owned()];
    let said =
        |report: &Report| render(report, &Style { width: 80, quiet: true, acknowledged: &known, verbose: false }).0;
    let warned = |ids: &[&str]| {
        let warnings = ids.iter().map(|id| Warning::new(id, format!("about {id}"))).collect();
        Report { backends: vec![backend(BackendState::InSync)], warnings, ..report() }
    };
    for ids in [&["not-persisted"][..], &["nothing-applied"], &["nothing-applied", "not-persisted"]] {
        assert_eq!(said(&warned(ids)), "", "{ids:?}");
    }
    let text = said(&warned(&["not-persisted", "list-old"]));
    assert!(text.contains("[list-old]") && text.contains("[not-persisted]"), "{text}");
    let changed = Report { changed: true, ..warned(&["not-persisted"]) };
    assert!(said(&changed).contains("[not-persisted]"));
}

#[test]
fn a_dry_run_shows_reason_command_and_difference() {
    let changes = vec![
        change(
            "set inet filter edgeallow4: 1 to add, 0 to remove",
            "nft add element inet filter edgeallow4 { 131.0.72.0/22 }",
            None,
        ),
        change("his chain changed", "edit /etc/nftables.conf", Some("--- a\n+++ b\n@@ -1 +1,2 @@\n x\n+include\n")),
    ];
    let r = Report {
        dry_run: true,
        changed: true,
        list: Some(ListReport {
            added: vec!["131.0.72.0/22".into()],
            removed: vec![],
            pending_removal: vec![PendingReport {
                prefix: "104.16.0.0/12".into(),
                missing_since: jiff::Timestamp::UNIX_EPOCH,
            }],
        }),
        backends: vec![BackendReport { changed: true, changes, ..backend(BackendState::Planned) }],
        ..report()
    };
    insta::assert_snapshot!(shown(&r, 80), @r"
    List: 15 IPv4 and 7 IPv6 prefixes, from Cloudflare's API
      + 131.0.72.0/22
    nftables    planned   2 changes

      # set inet filter edgeallow4: 1 to add, 0 to remove
      nft add element inet filter edgeallow4 { 131.0.72.0/22 }

      # his chain changed
      edit /etc/nftables.conf
        @@ -1 +1,2 @@
         x
        +include
    Nothing was changed. A run would make 2 changes.
    ");
}

#[test]
fn what_was_done_is_said_beside_why() {
    let changes = vec![change("no longer needed", "rm /etc/edgeallow/nftables/inet-filter.nft", None)];
    let r = Report {
        command: "remove",
        changed: true,
        source: None,
        list: None,
        backends: vec![BackendReport { changed: true, changes, ..backend(BackendState::Removed) }],
        ..report()
    };
    insta::assert_snapshot!(shown(&r, 80), @r"
    nftables    removed   1 change
      - rm /etc/edgeallow/nftables/inet-filter.nft: no longer needed
    Done: 1 change made and confirmed.
    ");
}

#[test]
fn a_failure_says_what_to_do_next_and_long_lines_are_wrapped() {
    let e = Error::new(ErrorKind::Netlink, "the kernel refused to add a rule to inet filter input: not permitted")
        .hint("run edgeallow as root; in a container it needs the capability CAP_NET_ADMIN and a network namespace of its own");
    let r = Report {
        backends: vec![BackendReport { error: Some((&e).into()), ..backend(BackendState::Failed) }],
        warnings: vec![Warning::new(
            "pending-removal",
            "104.16.0.0/12 left the list and stays allowed until it has been missing for the grace period",
        )],
        exit: Exit::Backend,
        ..report()
    };
    insta::assert_snapshot!(shown(&r, 80), @r"
    List: 15 IPv4 and 7 IPv6 prefixes, from Cloudflare's API
    nftables    failed
      error: the kernel refused to add a rule to inet filter input: not permitted.
        hint: run edgeallow as root; in a container it needs the capability
              CAP_NET_ADMIN and a network namespace of its own.
    warning: 104.16.0.0/12 left the list and stays allowed until it has been missing
      for the grace period. [pending-removal]
    1 backend failed.
    ");
    assert!(shown(&r, 80).lines().all(|l| l.chars().count() <= 80));
    assert!(
        shown(&r, usize::MAX).contains("CAP_NET_ADMIN and a network namespace of its own."),
        "a pipe is not wrapped"
    );
}

#[test]
fn a_run_that_ends_early() {
    let e = Error::new(ErrorKind::ListFamilyMissing, "the list holds no IPv6 prefix")
        .hint("fetch both families at one time");
    let r = Report { source: None, list: None, error: Some((&e).into()), exit: Exit::List, ..report() };
    insta::assert_snapshot!(shown(&r, 80), @r"
    Nothing was changed.
    error: the list holds no IPv6 prefix.
      hint: fetch both families at one time.
    ");
}

#[test]
fn where_the_list_came_from() {
    let at = Some("2026-11-22T09:00:00Z".parse().unwrap());
    let line = |origin: &str, name: &str| {
        let source =
            SourceReport { name: name.into(), origin: origin.into(), etag: None, fetched_at: at, v4: 1, v6: 2 };
        source_line(&source)
    };
    assert_eq!(line("text", "cloudflare"), "List: 1 IPv4 and 2 IPv6 prefixes, from Cloudflare's text lists");
    assert_eq!(line("cache", "cloudflare"), "List: 1 IPv4 and 2 IPv6 prefixes, from the last good copy of 2026-11-22");
    assert_eq!(line("built-in", "cloudflare"), "List: 1 IPv4 and 2 IPv6 prefixes, built in, as of 2026-11-22");
    assert_eq!(line("file", "mine.txt"), "List: 1 IPv4 and 2 IPv6 prefixes, from mine.txt");
}

#[test]
fn a_long_change_is_cut_and_colours_tell_what_goes() {
    let many: String =
        (0..100).map(|n| format!("nft delete element inet filter edgeallow4 {{ 8.8.{n}.0/24 }}\n")).collect();
    let mut out = String::new();
    change_lines(&mut out, &change("gone", &many, None), 80);
    let plain = anstream::adapter::strip_str(&out).to_string();
    assert!(plain.contains("… 40 more lines"), "{plain}");
    assert!(out.contains(&format!("{RED}nft delete")), "{out}");
}

#[test]
fn the_backends_of_a_machine() {
    let row = |name, state, used, version: Option<&str>, reason: &str| BackendRow {
        name,
        summary: "",
        state,
        version: version.map(Into::into),
        used,
        reason: reason.into(),
        files: &[],
        error: None,
    };
    let rows = [
        row(
            "nftables",
            "ready",
            true,
            Some("nf_tables"),
            "inet filter input has policy drop, and so does inet other input",
        ),
        row("iptables", "absent", false, None, "no iptables program is installed"),
    ];
    insta::assert_snapshot!(anstream::adapter::strip_str(&backends(&rows, 80)).to_string(), @r"
    nftables    used      nf_tables: inet filter input has policy drop, and so does
                          inet other input
    iptables    absent    no iptables program is installed
    ");
}

#[test]
fn what_others_wrote_is_shown_and_not_obeyed() {
    assert_eq!(visible("a\tb\nc"), "a\tb\nc");
    assert_eq!(visible_line("a\tb\nc"), "a\tb\\nc");
    assert_eq!(visible("\x1b[2J\x7f\u{2066}é"), r"\x1b[2J\x7f\u{2066}é");
    let e = ErrorReport { kind: "io", message: "\x1b[2J".into(), hint: Some("\x07".into()) };
    let text = anstream::adapter::strip_str(&error(&e, 80)).to_string();
    assert_eq!(text, "error: \\x1b[2J.\n  hint: \\x07.\n");
}

#[test]
fn a_log_that_was_named_and_not_read_is_told_however_quiet() {
    let said = |verdict| {
        let finding =
            crate::report::Finding::new(crate::report::Room::Logs, "logs.not-read", verdict, "there is no file x");
        let conclusion =
            crate::report::Conclusion { verdict: Finds::Ok, text: "All is well.".into(), finding: None, next: None };
        let doctor = crate::report::DoctorReport {
            conclusion,
            mode: "full",
            hosts: vec![],
            origins: vec![],
            ports: vec![443],
            findings: vec![finding],
        };
        let report = Report { command: "doctor", doctor: Some(doctor), ..report() };
        render(&report, &Style { width: 80, quiet: true, acknowledged: &[], verbose: false }).0
    };
    assert!(said(Finds::Warning).contains("there is no file x"), "{}", said(Finds::Warning));
    assert_eq!(said(Finds::Skipped), "");
}
