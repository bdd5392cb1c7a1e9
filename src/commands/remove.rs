//! `edgeallow remove`

use crate::{
    cli,
    engine::sync::{Options, Session},
    report::Report,
};

pub(super) fn run(session: &Session<'_>, args: &cli::Remove) -> Report {
    let options = Options { dry_run: args.dry_run, backends: args.backends.clone(), ..Options::default() };
    session.remove(&options)
}
