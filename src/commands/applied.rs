//! By which configuration what is applied is put back: the operator's own, and the copy that the last sync has left.
//!
//! Belongs here: choosing between the two. Does not: keeping the copy ([`crate::engine::state`]).

use super::Configured;
use crate::{
    backends::Warning,
    cli::Global,
    config::Config,
    engine::state::Store,
    error::{Error, Result},
    report::Report,
};

/// The operator's configuration can't be read, and the copy was taken instead.
const UNREADABLE: &str = "config-unreadable";

/// A configuration to put back by.
pub(super) struct Applied {
    pub configured: Configured,
    pub notes: Notes,
}

/// What is known of it.
#[derive(Default)]
pub(super) struct Notes {
    /// What is wrong with the operator's own, where the copy was taken instead.
    pub broken: Option<Error>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// The text of the copy that was gone by, if it was: another sync may leave another one.
    pub copy: Option<String>,
}

impl Notes {
    /// Adds them to the report. That a restore could do without the operator's configuration makes it no success.
    pub(super) fn added_to(self, mut report: Report) -> Report {
        report.warnings.splice(0..0, self.warnings);
        if let Some(e) = self.broken {
            report.fails_too(&e);
        }
        report
    }
}

/// What was edited since the last sync does not count yet.
const NOT_APPLIED: &str = "config-not-applied";

/// The configuration for a restore: what is opened, and where, is as the last sync had it.
///
/// # Errors
/// `config` where neither the operator's own nor the copy can be read.
pub(super) fn as_of_the_last_sync(global: &Global) -> Result<Applied> {
    let mut applied = or_copy(global)?;
    let Some((copy, text)) = copy(global).filter(|_| applied.notes.broken.is_none()) else { return Ok(applied) };
    applied.notes.copy = Some(text);
    let config = applied.configured.config.clone().opening_as(copy);
    if config != applied.configured.config {
        let what = format!(
            "{} was edited after the last sync: what that had applied is put back, and the edits count from the next \
             `edgeallow sync` on",
            global.config_file().0.display()
        );
        applied.notes.warnings.push(Warning::new(NOT_APPLIED, what));
        applied.configured = config.into();
    }
    Ok(applied)
}

/// The operator's configuration as it stands, or, where it can't be read, the copy of the one by which was applied last.
///
/// # Errors
/// `config` where there is neither.
pub(super) fn or_copy(global: &Global) -> Result<Applied> {
    match super::configured(global) {
        Ok(configured) => Ok(Applied { configured, notes: Notes::default() }),
        Err(e) => {
            let Some((config, text)) = copy(global) else { return Err(e) };
            let what = format!(
                "{e}; so what is applied is kept up by the configuration of the last sync. Mend it: nothing that was \
                 edited since counts, and `edgeallow sync` fails"
            );
            let warnings = vec![Warning::new(UNREADABLE, what)];
            Ok(Applied { configured: config.into(), notes: Notes { broken: Some(e), warnings, copy: Some(text) } })
        }
    }
}

/// The configuration of the last sync, if it is known and this edgeallow can read it.
fn copy(global: &Global) -> Option<(Config, String)> {
    let text = Store::new(&global.state_dir).configuration()?;
    Some((Config::parse(&text, "the configuration of the last sync").ok()?, text))
}
