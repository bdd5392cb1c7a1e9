//! `edgeallow backends`: what is on this machine, and which would be used.

use std::io::Write as _;

use super::{json, unwritable, width};
use crate::{
    backends::{Auto, Context, Probe},
    cli::{self, Format},
    engine::sync::Session,
    error::{Exit, Result},
    report::{BackendRow, human},
};

/// # Errors
/// `usage` where the configuration names a backend that there isn't: whoever asks before he installs a configuration
/// must hear what a sync would say.
pub(super) fn run(session: &Session<'_>) -> Result<Vec<BackendRow>> {
    let config = session.config;
    session.knows_configured()?;
    let cx = Context {
        host: session.host,
        applied: None,
        full_check: config.limits.full_check,
        deep: false,
        leave_stored: false,
    };
    let auto = config.backends.iter().any(|n| n == "auto");
    let rows = session
        .backends
        .iter()
        .map(|backend| {
            let meta = backend.meta();
            let named = config.backends.iter().any(|n| n == meta.name);
            let row = BackendRow {
                name: meta.name,
                summary: meta.summary,
                state: "ready",
                version: None,
                used: named,
                reason: String::new(),
                files: meta.files,
                error: None,
            };
            match backend.probe(&cx) {
                Probe::Ready { version, auto: Auto::Yes(reason) } => {
                    BackendRow { version: Some(version), used: named || auto, reason, ..row }
                }
                Probe::Ready { version, auto: Auto::No(reason) } => {
                    BackendRow { version: Some(version), reason, ..row }
                }
                Probe::Absent(reason) => BackendRow { state: "absent", used: false, reason, ..row },
                Probe::Unusable(e) => BackendRow {
                    state: "unusable",
                    used: false,
                    reason: e.message.clone(),
                    error: Some((&e).into()),
                    ..row
                },
            }
        })
        .collect();
    Ok(rows)
}

pub(super) fn print(global: &cli::Global, rows: &[BackendRow]) -> Result<Exit> {
    if global.format == Format::Json {
        json(&serde_json::json!({ "schema": 1, "command": "backends", "backends": rows, "error": null }))?;
    } else {
        write!(anstream::stdout(), "{}", human::backends(rows, width())).or_else(|e| unwritable(&e))?;
    }
    Ok(Exit::Ok)
}
