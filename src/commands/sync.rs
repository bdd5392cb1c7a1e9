//! `edgeallow sync`

use std::{path::Path, thread::sleep, time::Duration};

use super::{
    Configured,
    applied::{self, Applied, Notes},
};
use crate::{
    cli,
    engine::{
        fetched,
        state::Store,
        sync::{Options, Session, removed},
    },
    error::{ErrorKind, Exit, Result},
    host::executable_is_gone,
    report::Report,
};

pub(super) fn run(session: &Session<'_>, args: &cli::Sync, waited: &Waited) -> Report {
    run_by(session, args, waited, None)
}

fn run_by(session: &Session<'_>, args: &cli::Sync, waited: &Waited, by_copy: Option<String>) -> Report {
    // Without network the list can only be what somebody else has fetched. At boot even that isn't wanted.
    let usual = || session.offline && !args.restore && args.lists.lists.is_empty() && Path::new(fetched::PATH).exists();
    let options = Options {
        dry_run: args.dry_run,
        backends: args.backends.clone(),
        lists: args.lists.lists.clone(),
        allow_shrink: args.lists.allow_shrink,
        remove_now: args.remove_now,
        require_reach: args.require_reach,
        restore: args.restore,
        while_applied: waited.was_applied,
        by_copy,
        fetched: args.fetched.clone().or_else(|| usual().then(|| fetched::PATH.into())),
        deep: false,
        fetch_limit: None,
    };
    let mut report = session.sync("sync", &options);
    if args.exit_code && report.changed {
        report.exit = report.exit.worst(Exit::Pending);
    }
    report
}

/// How often a restore begins anew, because another edgeallow has applied another configuration.
const ATTEMPTS: u32 = 3;

/// The configuration to restore by.
pub(super) fn to_restore(global: &cli::Global) -> (Result<Configured>, Notes) {
    match applied::as_of_the_last_sync(global) {
        Ok(Applied { configured, notes }) => (Ok(configured), notes),
        Err(e) => (Err(e), Notes::default()),
    }
}

/// Puts back what is applied. The configuration of the last sync is read before the lock is taken, so that one may be
/// the last but one by then.
pub(super) fn restore(
    session: &Session<'_>,
    global: &cli::Global,
    args: &cli::Sync,
    notes: Notes,
    waited: &Waited,
) -> Report {
    let mut report = run_by(session, args, waited, notes.copy.clone());
    let mut notes = notes;
    for _ in 1..ATTEMPTS {
        if report.error.as_ref().is_none_or(|e| e.kind != ErrorKind::RaceLost.as_str()) {
            break;
        }
        let (configured, anew) = to_restore(global);
        let Ok(configured) = configured else { break };
        report =
            super::with_config(global, &configured, &args.backends, |s| run_by(s, args, waited, anew.copy.clone()));
        notes = anew;
    }
    notes.added_to(report)
}

/// What a run has to know of the time that it waited: whoever took edgeallow out meanwhile must not find it back.
#[derive(Debug, Default)]
pub(super) struct Waited {
    /// Whether something was applied when it began to wait.
    was_applied: bool,
    /// Whether the program has been removed since.
    is_removed: bool,
}

impl Waited {
    /// Waits for a time that is up to chance, at most this many seconds.
    pub(super) fn at_most(seconds: u32, state_dir: &Path) -> Self {
        if seconds == 0 {
            return Self::default();
        }
        // One that can't be read is the run's to tell.
        let was_applied = Store::new(state_dir).load(false).is_ok_and(|found| !found.state.backends.is_empty());
        sleep(Duration::from_secs_f64(f64::from(seconds) * fastrand::f64()));
        Self { was_applied, is_removed: executable_is_gone() }
    }

    /// What to report instead of a run, where there is nobody left to own what it would do.
    pub(super) fn in_vain(&self, args: &cli::Sync) -> Option<Report> {
        self.is_removed.then(|| {
            let mut report = Report::blank("sync", args.dry_run);
            let warning = removed();
            tracing::debug!("{}", warning.message);
            report.warnings.push(warning);
            report
        })
    }
}
