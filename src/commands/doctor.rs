//! `edgeallow doctor`: why Cloudflare would answer with an error here.

use std::path::Path;

use crate::{
    backends::Warning,
    cli,
    config::Config,
    doctor::{Ask, Broken},
    engine::sync::Session,
    error::{Exit, Result},
    host,
    report::{Report, html},
};

/// The configuration, or the built-in settings and what is wrong with it: who has visitors with a grey page asks for its
/// cause. Only a file that was named and isn't there is a slip of the pen.
pub(super) fn config(global: &cli::Global) -> (Result<Config>, Option<Broken>) {
    let (path, is_named) = global.config_file();
    match super::configured(global) {
        Err(error) if !is_named || path.exists() => {
            let unreadable = std::fs::File::open(&path).is_err();
            (Ok(Config::default()), Some(Broken { error, unreadable }))
        }
        configured => (configured.map(|c| c.config), None),
    }
}

pub(super) fn run(session: &Session<'_>, args: &cli::Doctor, broken: Option<Broken>) -> Report {
    let mut ports: std::collections::BTreeSet<u16> = args.ports.iter().copied().collect();
    if ports.is_empty() {
        ports.extend(args.hosts.iter().filter_map(|site| site.port));
    }
    let mut report = session.doctor(&Ask {
        hosts: args.hosts.iter().map(|site| site.name.clone()).collect(),
        mode: args.mode,
        origin_pulls: args.origin_pulls,
        origin: args.origin,
        ports,
        since: args.since,
        logs: args.logs.clone(),
        report: args.report.clone(),
        broken,
    });
    if let Some(path) = &args.report
        && let Err(e) = write(path, session, &report)
    {
        // What was found is still told.
        report.warnings.push(Warning::new("report-failed", format!("the page was not written: {e}")));
        report.exit = report.exit.worst(Exit::Unexpected);
    }
    report
}

fn write(path: &Path, session: &Session<'_>, report: &Report) -> Result<()> {
    let Some(found) = &report.doctor else { return Ok(()) };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    host::replace_own(&path, html::page(found, session.now).as_bytes(), 0o644)
}
