//! Metrics for Prometheus, in a file for node_exporter's textfile collector.
//!
//! Belongs here: which metrics there are, and writing them. Does not: the text format ([`page`]), what is remembered
//! from one run to the next ([`memory`]).

mod memory;
mod page;
#[cfg(test)]
mod tests;

use std::{fs, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use self::{
    memory::{Memory, Seat},
    page::{Kind, Page},
};
use super::{Run, story};
use crate::{
    backends::Warning,
    engine::state::Store,
    error::{Error, ErrorKind, Result},
    host::replace_own,
    report::{BackendState, ReachVerdict, Report},
};

/// What every file of ours begins with; another file is never replaced.
const FIRST: &str = "# HELP edgeallow_";

/// What is known after a run, and where it is to be written.
pub struct Metrics<'a> {
    file: &'a Path,
    memory: Memory,
    /// Why what is remembered could not be kept.
    lost: Option<Error>,
}

impl<'a> Metrics<'a> {
    /// Adds a run to what is remembered.
    #[must_use]
    pub fn record(file: &'a Path, run: &Run<'_>, report: &Report) -> Self {
        let (seat, lost) = match Seat::take(run.state_dir) {
            Ok(seat) => (Some(seat), None),
            Err(e) => (None, Some(e)),
        };
        // What can be read is worth more than nothing, also where nothing can be kept.
        let mut memory = Memory::load(run.state_dir);
        memory.add(report, run.now, run.took);
        if report.command == "remove" && !report.dry_run && nothing_applied(run.state_dir) {
            memory.forget();
        }
        let lost = lost.or_else(|| seat.and_then(|seat| seat.keep(&memory).err()));
        Self { file, memory, lost }
    }

    /// Takes the report's warnings as they are now.
    pub fn warnings_are(&mut self, report: &Report) {
        self.memory.warnings_are(report);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The warning to give, of id `metrics-failed`.
    pub fn write(&self) -> Result<(), Warning> {
        let failed = |e: &Error| {
            let hint = e.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
            Warning::new("metrics-failed", format!("the metrics could not be kept: {}{hint}", e.message))
        };
        ours(self.file).and_then(|()| replace_own(self.file, text(&self.memory).as_bytes(), 0o644)).map_err(|e| {
            failed(&match e.kind {
                ErrorKind::Io
                    if self.file.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) =>
                {
                    e.hint("its folder must be there: make it, or name another file")
                }
                _ => e,
            })
        })?;
        self.lost.as_ref().map_or(Ok(()), |e| Err(failed(e)))
    }
}

/// Whether the state says so; one that can't be read doesn't.
fn nothing_applied(state_dir: &Path) -> bool {
    Store::new(state_dir).load(false).is_ok_and(|found| found.warnings.is_empty() && found.state.backends.is_empty())
}

/// Whether a file is ours to replace: there is none, it is empty, or it begins like ours.
fn ours(path: &Path) -> Result<()> {
    let mut begin = String::new();
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata().is_ok_and(|m| m.is_file()) => {
            // What is no text is not ours either.
            let _ = file.take(FIRST.len() as u64).read_to_string(&mut begin);
            let empty = fs::metadata(path).is_ok_and(|m| m.len() == 0);
            if empty || begin == FIRST {
                return Ok(());
            }
            let what = format!("{} is there already and holds no metrics of edgeallow's", path.display());
            Err(Error::new(ErrorKind::FileRefused, what).hint("name another file, or move that one away"))
        }
        // Missing, a folder or something else: replacing it says what is wrong.
        _ => Ok(()),
    }
}

fn text(memory: &Memory) -> String {
    let mut page = Page::default();
    let build = [("version", env!("CARGO_PKG_VERSION"))];
    page.one("edgeallow_build_info", "The version of edgeallow that wrote this.", &[(&build[..], 1.0)]);
    runs(&mut page, memory);
    list(&mut page, memory);
    backends(&mut page, memory);
    reach(&mut page, memory);
    watch(&mut page, memory);
    let warnings: Vec<_> = memory
        .runs
        .iter()
        .flat_map(|(command, r)| {
            r.warnings.iter().map(|(id, n)| ([("command", command.as_str()), ("id", id.as_str())], number(*n)))
        })
        .collect();
    page.many("edgeallow_warnings", Kind::Gauge, "Warnings of the last run of a command, by their id.", &warnings);
    page.text()
}

fn runs(page: &mut Page, memory: &Memory) {
    let runs = &memory.runs;
    let each = |value: &dyn Fn(&memory::Runs) -> Option<f64>| -> Vec<([(&str, &str); 1], f64)> {
        runs.iter().filter_map(|(command, r)| Some(([("command", command.as_str())], value(r)?))).collect()
    };
    let gauge = Kind::Gauge;
    page.many(
        "edgeallow_last_run_timestamp_seconds",
        gauge,
        "When the last run of a command ended, since the epoch.",
        &each(&|r| Some(seconds(r.last_run))),
    );
    page.many(
        "edgeallow_last_success_timestamp_seconds",
        gauge,
        "When the last run of a command that ended well ended, since the epoch.",
        &each(&|r| r.last_success.map(seconds)),
    );
    page.many(
        "edgeallow_last_run_exit_status",
        gauge,
        "The exit status of the last run of a command.",
        &each(&|r| Some(r.exit.into())),
    );
    page.many(
        "edgeallow_last_run_duration_seconds",
        gauge,
        "How long the last run of a command took.",
        &each(&|r| Some(r.took)),
    );
    page.many(
        "edgeallow_last_run_changes",
        gauge,
        "Changes that the last run of a command made, or found to be made.",
        &each(&|r| Some(number(r.changes))),
    );
    let total: Vec<_> = runs
        .iter()
        .flat_map(|(command, r)| {
            r.total.iter().map(|(exit, n)| ([("command", command.as_str()), ("exit_status", exit.as_str())], *n))
        })
        .map(|(labels, n)| (labels, number(n)))
        .collect();
    page.many("edgeallow_runs_total", Kind::Counter, "Runs that have ended, by command and exit status.", &total);
}

fn list(page: &mut Page, memory: &Memory) {
    let Some(list) = &memory.list else { return };
    let labels = [("source", list.source.as_str()), ("origin", list.origin.as_str())];
    page.one("edgeallow_list_info", "Whose list is used, and where it was taken from.", &[(&labels[..], 1.0)]);
    if let Some(at) = list.fetched_at {
        let help = "When the list that is used was last read from its source, since the epoch.";
        page.one("edgeallow_list_fetched_timestamp_seconds", help, &[(&[][..], seconds(at))]);
    }
    let families = [([("family", "ipv4")], number(list.v4)), ([("family", "ipv6")], number(list.v6))];
    page.many("edgeallow_list_prefixes", Kind::Gauge, "Prefixes in the list.", &families);
    let changes = [([("change", "added")], number(list.added)), ([("change", "removed")], number(list.removed))];
    let help = "Prefixes by which the last run's list differed from what was held.";
    page.many("edgeallow_list_changed_prefixes", Kind::Gauge, help, &changes);
    let help = "Prefixes that are gone from the list and still allowed.";
    page.one("edgeallow_list_pending_removals", help, &[(&[][..], number(list.pending))]);
}

fn backends(page: &mut Page, memory: &Memory) {
    let mut states = Vec::new();
    for (name, backend) in &memory.backends {
        for state in BackendState::ALL {
            let word = story::word(state);
            states.push(([("backend", name.as_str()), ("state", word)], f64::from(u8::from(backend.state == word))));
        }
    }
    let help = "How a backend ended in the last run that looked at it: 1 for its state, 0 for the others.";
    page.many("edgeallow_backend_state", Kind::Gauge, help, &states);
    let each = |value: &dyn Fn(&memory::Backend) -> f64| -> Vec<([(&str, &str); 1], f64)> {
        memory.backends.iter().map(|(name, b)| ([("backend", name.as_str())], value(b))).collect()
    };
    page.many(
        "edgeallow_backend_drift",
        Kind::Gauge,
        "Whether a backend holds something else than it should: 1 after a look that found a difference or a run that failed.",
        &each(&|b| f64::from(u8::from(b.drift))),
    );
    page.many(
        "edgeallow_backend_changes",
        Kind::Gauge,
        "Changes that the last run made to a backend, or found to be made.",
        &each(&|b| number(b.changes)),
    );
    page.many(
        "edgeallow_backend_checked_timestamp_seconds",
        Kind::Gauge,
        "When a backend was last looked at, since the epoch.",
        &each(&|b| seconds(b.at)),
    );
}

fn reach(page: &mut Page, memory: &Memory) {
    let Some(reach) = &memory.reach else { return };
    let mut verdicts = Vec::new();
    for q in &reach.questions {
        for verdict in ReachVerdict::ALL.map(ReachVerdict::as_str) {
            let labels = [&whither(q)[..], &[("verdict", verdict)]].concat();
            verdicts.push((labels, f64::from(u8::from(q.verdict == verdict))));
        }
    }
    let help =
        "How the ranges fare on their way to an address and port: 1 for the worst verdict on any, 0 for the others.";
    page.many("edgeallow_reach_verdict", Kind::Gauge, help, &verdicts);
    let each = |value: &dyn Fn(&memory::Question) -> usize| -> Vec<([(&str, &str); 4], f64)> {
        reach.questions.iter().map(|q| (whither(q), number(value(q)))).collect()
    };
    let help = "Ranges that should reach an address and port.";
    page.many("edgeallow_reach_ranges", Kind::Gauge, help, &each(&|q| q.ranges));
    let help = "Ranges that reach an address and port as a whole.";
    page.many("edgeallow_reach_accepted_ranges", Kind::Gauge, help, &each(&|q| q.accepted));
    let culprits: Vec<_> = reach
        .culprits
        .iter()
        .flat_map(|(tool, verdicts)| verdicts.iter().map(move |(verdict, n)| (tool, verdict, *n)))
        .map(|(tool, verdict, n)| ([("tool", tool.as_str()), ("verdict", verdict.as_str())], number(n)))
        .collect();
    let help =
        "Rules and policies that stand in the way, by the tool that they belong to and what becomes of connections.";
    page.many("edgeallow_reach_culprits", Kind::Gauge, help, &culprits);
    let help = "Things that could not be read when it was judged whether the ranges get through.";
    page.one("edgeallow_reach_gaps", help, &[(&[][..], number(reach.gaps))]);
    let help = "When it was last judged whether the ranges get through, since the epoch.";
    page.one("edgeallow_reach_checked_timestamp_seconds", help, &[(&[][..], seconds(reach.at))]);
}

fn watch(page: &mut Page, memory: &Memory) {
    let Some(watch) = &memory.watch else { return };
    let ways = |value: &dyn Fn(&memory::Page, &str) -> Option<f64>| -> Vec<([(&str, &str); 2], f64)> {
        let all = watch.pages.iter().flat_map(|page| ["edge", "origin"].map(|way| (page, way)));
        all.filter_map(|((url, p), way)| Some(([("url", url.as_str()), ("way", way)], value(p, way)?))).collect()
    };
    let help = "Whether a watched page was well in the last round, through the edge and straight at the origin; no sample \
                where that can't be told.";
    let success = ways(&|p, way| p.success.get(way).map(|well| f64::from(u8::from(*well))));
    page.many("edgeallow_probe_success", Kind::Gauge, help, &success);
    let help = "How long the answer took in the last round.";
    page.many("edgeallow_probe_duration_seconds", Kind::Gauge, help, &ways(&|p, way| p.seconds.get(way).copied()));
    let each = |value: &dyn Fn(&memory::Page) -> f64| -> Vec<([(&str, &str); 1], f64)> {
        watch.pages.iter().map(|(url, p)| ([("url", url.as_str())], value(p))).collect()
    };
    let help = "The error of Cloudflare's that visitors of a watched page get; 0 for none.";
    page.many("edgeallow_probe_cloudflare_error", Kind::Gauge, help, &each(&|p| p.cloudflare_error.into()));
    let help = "Failures in a row of a watched page.";
    page.many("edgeallow_probe_failures_in_a_row", Kind::Gauge, help, &each(&|p| p.failures.into()));
    let help = "Whether a watched page counts as down.";
    page.many("edgeallow_watch_down", Kind::Gauge, help, &each(&|p| f64::from(u8::from(p.down))));
    let help = "How often the on-fail command was run.";
    page.many("edgeallow_watch_acts_total", Kind::Counter, help, &[(&[][..], number(watch.acts))]);
    let help = "When the watched pages were last asked for, since the epoch.";
    page.one("edgeallow_watch_timestamp_seconds", help, &[(&[][..], seconds(watch.at))]);
}

fn whither(q: &memory::Question) -> [(&str, &str); 4] {
    [("to", &q.to), ("port", &q.port), ("protocol", &q.protocol), ("interface", &q.interface)]
}

/// A count as Prometheus wants it; beyond 2^53 it is no longer exact, which no count here reaches.
#[allow(clippy::cast_precision_loss)]
fn number(n: usize) -> f64 {
    n as f64
}

/// A time in seconds since the epoch, to the millisecond.
#[allow(clippy::cast_precision_loss)]
fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
