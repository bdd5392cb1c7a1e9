//! `edgeallow completions SHELL`

use std::io::Write as _;

use super::unwritable;
use crate::{
    cli,
    error::{Exit, Result},
};

pub(super) fn run(shell: clap_complete::Shell) -> Result<Exit> {
    // What is generated straight into a closed pipe panics.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "edgeallow", &mut text);
    std::io::stdout().write_all(&text).or_else(|e| unwritable(&e))?;
    Ok(Exit::Ok)
}
