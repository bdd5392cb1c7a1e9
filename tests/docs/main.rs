//! The documentation against the code: what can be generated is, and what can be checked is.
//!
//! `make docs` runs these with `UPDATE_DOCS=1`, which writes anew what is generated. Commands in the README and the
//! picture of a dry run need a throwaway host: `tests/readme`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests read and write the project's own files")]

mod backends;
#[cfg(feature = "schema")]
mod configuration;
mod doctor;
mod exits;
mod links;
mod promises;
mod tls_modes;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A place in the project.
fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A text of the project.
fn text(path: &str) -> String {
    fs::read_to_string(place(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Fails unless a page is what the code makes of it.
fn expect_generated(path: &str, made: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(place(path), made).unwrap();
    }
    assert!(fs::read_to_string(place(path)).unwrap_or_default() == made, "{path} is stale: run `make docs`");
}
