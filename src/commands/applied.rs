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
};

/// The operator's configuration can't be read, and the copy was taken instead.
const UNREADABLE: &str = "config-unreadable";

/// A configuration to put back by.
pub(super) struct Applied {
    pub configured: Configured,
    /// What is wrong with the operator's own, where the copy was taken instead.
    pub broken: Option<Error>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// The operator's configuration as it stands, or, where it can't be read, the copy of the one by which was applied last.
///
/// # Errors
/// `config` where there is neither.
pub(super) fn or_copy(global: &Global) -> Result<Applied> {
    match super::configured(global) {
        Ok(configured) => Ok(Applied { configured, broken: None, warnings: vec![] }),
        Err(e) => {
            let Some(config) = copy(global) else { return Err(e) };
            let what = format!(
                "{e}; so what is applied is kept up by the configuration of the last sync. Mend it: nothing that was \
                 edited since counts, and `edgeallow sync` fails"
            );
            let warnings = vec![Warning::new(UNREADABLE, what)];
            Ok(Applied { configured: Configured { config, text: None }, broken: Some(e), warnings })
        }
    }
}

/// The configuration of the last sync, if it is known and this edgeallow can read it.
fn copy(global: &Global) -> Option<Config> {
    let text = Store::new(&global.state_dir).configuration()?;
    Config::parse(&text, "the configuration of the last sync").ok()
}
