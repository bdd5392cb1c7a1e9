//! Marks of what is under way: written before the first change, removed when the change is confirmed.
//!
//! A run that finds a mark knows that an earlier one was cut off: the tool may not have read its file yet, and what
//! the state says this backend holds can't be relied on.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, ErrorKind, Result},
    host::replace_own,
};

/// Where marks live, if anywhere: a run that may not write has none.
#[derive(Debug, Clone)]
pub struct Marks(PathBuf);

impl Marks {
    /// The marks in a state folder.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    fn path(&self, backend: &str) -> PathBuf {
        self.0.join(format!("under-way-{backend}"))
    }

    /// Whether an earlier run was cut off while it changed this backend.
    #[must_use]
    pub fn is_set(&self, backend: &str) -> bool {
        self.path(backend).exists()
    }

    /// Says that a change begins.
    ///
    /// # Errors
    /// `io` when the state folder can't be written.
    pub fn set(&self, backend: &str) -> Result<()> {
        super::state::make_folder(&self.0)?;
        replace_own(&self.path(backend), b"edgeallow is changing this backend, or was cut off while it did\n", 0o644)
    }

    /// Says that a change is confirmed, or undone.
    ///
    /// # Errors
    /// `io` when the state folder can't be written.
    pub fn clear(&self, backend: &str) -> Result<()> {
        let path = self.path(backend);
        #[allow(clippy::disallowed_methods)] // a file of the state folder, ours alone
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(ErrorKind::Io, "remove", &path, &e)),
            _ => Ok(()),
        }
    }
}
