//! `edgeallow fetch`: the vetted list on standard output.

use std::{io::Write as _, path::Path};

use serde::Serialize;

use super::{json, unwritable};
use crate::{
    backends::Warning,
    cli::{self, Format},
    engine::{
        acquire::acquire,
        fetched, state,
        sync::{Options, Session},
    },
    error::{Error, ErrorKind, Exit, Result},
    host::replace_own,
    report::SourceReport,
};

/// What `fetch --format json` prints.
#[derive(Debug, Serialize)]
pub(super) struct List {
    schema: u32,
    command: &'static str,
    source: SourceReport,
    v4: Vec<String>,
    v6: Vec<String>,
    warnings: Vec<Warning>,
    error: Option<()>,
    #[serde(skip)]
    text: String,
}

pub(super) fn run(session: &Session<'_>, args: &cli::Fetch) -> Result<List> {
    let options = Options {
        lists: args.lists.lists.clone(),
        allow_shrink: args.lists.allow_shrink,
        dry_run: true,
        ..Options::default()
    };
    let loaded = session.store.load(false)?;
    let mut warnings = loaded.warnings;
    let got = acquire(session, &options, &loaded.state, &mut warnings)?;
    Ok(List {
        schema: 1,
        command: "fetch",
        source: got.report(),
        v4: got.list.v4().iter().map(ToString::to_string).collect(),
        v6: got.list.v6().iter().map(ToString::to_string).collect(),
        warnings,
        error: None,
        text: state::text(&got.list),
    })
}

/// Prints the list, or saves it.
pub(super) fn hand_over(global: &cli::Global, args: &cli::Fetch, list: &List) -> Result<Exit> {
    let Some(path) = &args.save else { return print(global, list) };
    for warning in &list.warnings {
        tracing::warn!("{}", warning.message);
    }
    let mut text = serde_json::to_vec_pretty(list)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write JSON: {e}")))?;
    text.push(b'\n');
    replace_own(path, &text, 0o644).map_err(|e| unsaved(path, e))?;
    Ok(Exit::Ok)
}

/// No backend has to do with it, and a folder that is missing has to be made by somebody.
fn unsaved(path: &Path, e: Error) -> Error {
    let e = Error { kind: ErrorKind::Io, ..e };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    match folder {
        Some(folder) if path == Path::new(fetched::PATH) => e.hint(format!(
            "edgeallow-fetch.service makes {} for a user of its own; start that, or name a file: --save=FILE",
            folder.display()
        )),
        Some(folder) => e.hint(format!("make the folder {}, or name another file", folder.display())),
        None => e,
    }
}

fn print(global: &cli::Global, list: &List) -> Result<Exit> {
    if global.format == Format::Json {
        json(list)?;
    } else {
        for warning in &list.warnings {
            tracing::warn!("{}", warning.message);
        }
        std::io::stdout().write_all(list.text.as_bytes()).or_else(|e| unwritable(&e))?;
    }
    Ok(Exit::Ok)
}
