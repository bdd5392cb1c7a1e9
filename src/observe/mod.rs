//! What goes out beside the report: logs, metrics, hooks.
//!
//! All of it happens when the work is done, the state saved and the lock released, and none of it can change what came
//! of the run: what goes wrong here is a warning in the report, and the exit status stays what it is.
//!
//! Belongs here: what is told to machines and people who are not at the terminal. Does not: the facts, all of which are
//! in the [`Report`]; spawning and writing ([`crate::host`]), connections ([`crate::source`]).

pub mod hooks;
mod journal;
pub mod logs;
pub mod meter;
pub mod metrics;
mod outlet;
mod story;
mod syslog;
pub mod teller;

use std::{path::Path, time::Duration};

use jiff::Timestamp;

pub(crate) use self::story::TARGET as TOLD;

use self::hooks::{Events, Manner};
use crate::{config::Config, engine::lock, host::signals::Leaving, report::Report};

/// What is known of a run besides its report.
pub struct Run<'a> {
    /// Where the command line wants the metrics.
    pub metrics: Option<&'a Path>,
    /// Where what the metrics remember lies.
    pub state_dir: &'a Path,
    /// The configuration, if it could be read.
    pub config: Option<&'a Config>,
    /// Whether no network connection may be opened.
    pub offline: bool,
    /// When it ended.
    pub now: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// Told what is going on.
    pub progress: &'a dyn Fn(&str),
}

/// Tells of a run that has ended: writes the metrics, runs the hooks, and logs what came of it all. Warnings of its own
/// are added to the report; nothing else in it changes.
pub fn after(run: &Run<'_>, report: &mut Report) {
    // Written before the hooks are run, which may take their time and are not always let.
    let mut metrics = measure(run, report);
    let told = |config: &Config| {
        // A hook must not outlive us, and of what was done there shall be a report.
        let leaving = Leaving::catch();
        let manner = Manner { offline: run.offline, progress: run.progress, leave: leaving.asked() };
        hooks::run(config, Events::of(report), report, &manner)
    };
    let failed = run.config.map(told).unwrap_or_default();
    if !failed.is_empty() {
        report.warnings.extend(failed);
        if let Some(metrics) = &mut metrics {
            metrics.warnings_are(report);
            // If it can't be written, that has been said.
            let _ = metrics.write();
        }
    }
    story::tell(report, run.took);
}

/// Writes the metrics, where somebody wants them. If that fails, there is one more warning in the report.
pub fn measure<'a>(run: &Run<'a>, report: &mut Report) -> Option<metrics::Metrics<'a>> {
    // Figures of a tool that is being removed would be an alert for ever. The removal's own run leaves its package's script
    // a file to delete.
    if report.command != "remove" && lock::is_leaving() {
        return None;
    }
    let file = run.metrics.or_else(|| {
        // What the configuration names is fed by runs that act; a look by somebody else must not need root for it.
        let config = run.config.filter(|_| !report.dry_run)?;
        config.metrics.as_deref()
    })?;
    let metrics = metrics::Metrics::record(file, run, report);
    report.warnings.extend(metrics.write().err());
    Some(metrics)
}
