//! The binary: parse arguments, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgeallow::commands::run(edgeallow::cli::parse())
}
