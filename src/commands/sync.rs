//! `edgeallow sync`

use std::{path::Path, thread::sleep, time::Duration};

use crate::{
    cli,
    engine::{
        fetched,
        sync::{Options, Session},
    },
    error::Exit,
    report::Report,
};

pub(super) fn run(session: &Session<'_>, args: &cli::Sync) -> Report {
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

/// Waits for a time that is up to chance, at most this many seconds.
pub(super) fn wait(at_most: u32) {
    if at_most > 0 {
        sleep(Duration::from_secs_f64(f64::from(at_most) * fastrand::f64()));
    }
}
