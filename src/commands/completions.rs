//! `edgeallow completions SHELL`

use crate::{cli, error::Exit};

pub(super) fn run(shell: clap_complete::Shell) -> Exit {
    clap_complete::generate(shell, &mut cli::definition(), "edgeallow", &mut std::io::stdout());
    Exit::Ok
}
