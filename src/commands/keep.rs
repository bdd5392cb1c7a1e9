//! `edgeallow keep`: a service that puts back what others undo.

use std::{path::PathBuf, time::Duration};

use super::with_session;
use crate::{
    cli::{self, Global},
    engine::{
        keep::{Keeper, Round},
        sync::Options,
    },
    error::{Exit, Result},
    report::Report,
};

pub(super) fn run(global: &Global, args: &cli::Keep) -> Result<Exit> {
    // Another edgeallow is not waited for here, where nothing else could be heard: it is asked again a little later.
    let global = Global { offline: true, quiet: true, lock_timeout: 0, ..global.clone() };
    let configuration = global.config_file().0;
    let options = Options { restore: true, ..Options::default() };
    // The configuration is read anew each time, so that an edit of it counts.
    let mut round = || {
        let done = with_session(&global, &[], |session| {
            let of_backends = session.backends.iter().flat_map(|b| b.meta().files).map(PathBuf::from);
            let files = of_backends.chain([configuration.clone()]).collect();
            Round { report: session.sync("sync", &options), files: Some(files) }
        });
        done.unwrap_or_else(|e| Round { report: Report::failed("sync", &e), files: None })
    };
    Keeper::new(Duration::from_secs(args.look_every.into()), &mut round)?.run()?;
    Ok(Exit::Ok)
}
