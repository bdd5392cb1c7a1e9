//! What came of a run, as events with fields, for logs that are kept: the journal, syslog, JSON.
//!
//! The events are made from the report, so that a log and a report never disagree. People at a terminal read the report
//! itself, so the human log leaves them out.

use std::time::Duration;

use crate::{
    error::Exit,
    report::{BackendReport, BackendState, ErrorReport, ReachReport, ReachVerdict, Report, human::in_a_line},
};

/// Which events these are.
pub(crate) const TARGET: &str = "edgeallow::run";

/// Logs a report: the list, each backend that was worked with, each warning, and the end.
pub(super) fn tell(report: &Report, took: Duration) {
    let command = report.command;
    if let Some(s) = &report.source {
        let fetched_at = s.fetched_at.map(|t| t.to_string());
        tracing::info!(
            target: TARGET, command, source = s.name, origin = s.origin, ipv4 = s.v4, ipv6 = s.v6, fetched_at,
            "list: {} IPv4 and {} IPv6 prefixes of {}, from {}", s.v4, s.v6, s.name, s.origin
        );
    }
    if let Some(list) = &report.list
        && !(list.added.is_empty() && list.removed.is_empty())
    {
        tracing::info!(
            target: TARGET, command, added = list.added.len(), removed = list.removed.len(),
            pending_removals = list.pending_removal.len(),
            "list: {} new and {} no longer allowed", list.added.len(), list.removed.len()
        );
    }
    report.backends.iter().for_each(|b| backend(command, b));
    report.reach.iter().for_each(|r| reach(command, r));
    for warning in &report.warnings {
        tracing::warn!(target: TARGET, command, id = warning.id, "{} [{}]", warning.message, warning.id);
    }
    end(report, took);
}

fn backend(command: &str, b: &BackendReport) {
    let (name, state, changes) = (b.name, word(b.state), b.changes.len());
    if let Some(e) = &b.error {
        tracing::error!(
            target: TARGET, command, backend = name, state, changes, kind = e.kind, hint = e.hint,
            "{name}: {}: {}{}", b.state.as_str(), e.message, advice(e)
        );
        return;
    }
    match b.state {
        BackendState::Skipped => {
            tracing::debug!(target: TARGET, command, backend = name, state, reason = b.reason, "{name}: skipped");
        }
        BackendState::Pending => {
            let why = b.reason.as_deref().unwrap_or_default();
            tracing::warn!(target: TARGET, command, backend = name, state, changes, "{name}: pending: {why}");
        }
        BackendState::InSync => tracing::info!(target: TARGET, command, backend = name, state, "{name}: in sync"),
        _ => {
            tracing::info!(
                target: TARGET, command, backend = name, state, changes, "{name}: {}, {}",
                b.state.as_str(), count(changes)
            );
            for change in &b.changes {
                let what = format!("{name}: {}", change.why);
                tracing::info!(target: TARGET, command, backend = name, step = first_line(&change.preview), "{what}");
            }
        }
    }
}

/// Each address and port that isn't open to every range, and what stands in the way.
fn reach(command: &str, reach: &ReachReport) {
    let of_all = reach.verdict.as_str();
    tracing::info!(
        target: TARGET, command, verdict = of_all, questions = reach.questions.len(), gaps = reach.gaps.len(),
        "reach: {of_all}"
    );
    for q in reach.questions.iter().filter(|q| q.verdict != ReachVerdict::Accepted) {
        let (verdict, whither) = (q.verdict.as_str(), format!("{} port {}/{}", q.to, q.port, q.protocol));
        tracing::warn!(
            target: TARGET, command, verdict, to = q.to, port = q.port, protocol = q.protocol, ranges = q.ranges,
            accepted = q.accepted, "reach: {whither}: {verdict}; {} of {} ranges get through", q.accepted, q.ranges
        );
    }
    for c in &reach.culprits {
        let rule = c.place.as_ref().map(|p| format!("{} {} {}", p.family, p.table, p.chain));
        let mend = c.mend.first();
        let name = c.name.as_deref().or(c.tool).unwrap_or("this machine");
        tracing::warn!(
            target: TARGET, command, verdict = c.verdict.as_str(), tool = c.tool, effect = c.effect, rule, mend,
            "reach: {name} is in the way: {}: {}", c.effect, in_a_line(c)
        );
    }
}

fn end(report: &Report, took: Duration) {
    let Report { command, changed, dry_run, .. } = *report;
    let exit = report.exit as u8;
    let changes = changes(report);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match &report.error {
        Some(e) => tracing::error!(
            target: TARGET, command, exit, changed, changes, dry_run, duration_ms, kind = e.kind, hint = e.hint,
            "{command} failed: {}{}", e.message, advice(e)
        ),
        None if matches!(report.exit, Exit::Ok | Exit::Pending) => tracing::info!(
            target: TARGET, command, exit, changed, changes, dry_run, duration_ms,
            "{command} done in {duration_ms} ms: {}", count(changes)
        ),
        None => tracing::error!(
            target: TARGET, command, exit, changed, changes, dry_run, duration_ms,
            "{command} failed: exit status {exit}, after {}", count(changes)
        ),
    }
}

/// What to do about it, for those who read a log without its fields.
fn advice(e: &ErrorReport) -> String {
    e.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"))
}

/// How many changes were made, or would be.
pub(super) fn changes(report: &Report) -> usize {
    report.backends.iter().filter(|b| b.changed).map(|b| b.changes.len()).sum()
}

/// A number of changes in words.
pub(super) fn count(changes: usize) -> String {
    format!("{changes} change{}", if changes == 1 { "" } else { "s" })
}

/// A state as the JSON report writes it.
pub(super) const fn word(state: BackendState) -> &'static str {
    match state {
        BackendState::InSync => "in_sync",
        BackendState::Planned => "planned",
        BackendState::Applied => "applied",
        BackendState::Removed => "removed",
        BackendState::Undone => "undone",
        BackendState::Pending => "pending",
        BackendState::Skipped => "skipped",
        BackendState::Unusable => "unusable",
        BackendState::Failed => "failed",
    }
}

/// A transaction may have thousands of lines, and a log is no place for them.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(count), ["0 changes", "1 change", "2 changes"]);
    }

    #[test]
    fn states_are_called_what_the_report_calls_them() {
        for state in BackendState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), word(state));
        }
    }
}
