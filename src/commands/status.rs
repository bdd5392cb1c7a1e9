//! `edgeallow status`: a dry run that is read as a report of drift.

use crate::{
    cli,
    engine::sync::{Options, Session},
    error::Exit,
    report::Report,
};

pub(super) fn run(session: &Session<'_>, args: &cli::Status) -> Report {
    let options = Options {
        dry_run: true,
        deep: args.deep,
        lists: args.lists.lists.clone(),
        allow_shrink: args.lists.allow_shrink,
        ..Options::default()
    };
    let mut report = session.sync("status", &options);
    if report.changed {
        report.exit = report.exit.worst(Exit::Pending);
    }
    report
}
