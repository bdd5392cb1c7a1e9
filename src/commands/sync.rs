//! `edgeallow sync`

use crate::{
    cli,
    engine::sync::{Options, Session},
    error::Exit,
    report::Report,
};

pub(super) fn run(session: &Session<'_>, args: &cli::Sync) -> Report {
    let options = Options {
        dry_run: args.dry_run,
        backends: args.backends.clone(),
        lists: args.lists.lists.clone(),
        allow_shrink: args.lists.allow_shrink,
        remove_now: args.remove_now,
        require_reach: args.require_reach,
        deep: false,
    };
    let mut report = session.sync("sync", &options);
    if args.exit_code && report.changed {
        report.exit = report.exit.worst(Exit::Pending);
    }
    report
}
