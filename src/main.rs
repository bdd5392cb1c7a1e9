//! The binary: parse arguments, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    match edgeallow::cli::parse() {
        Ok(cli) => edgeallow::commands::run(cli),
        Err(refused) => edgeallow::commands::refuse(&refused),
    }
}
