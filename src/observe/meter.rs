//! The metrics of a service, which writes them again and again.
//!
//! Belongs here: when they were written last, and saying once what goes wrong. Does not: what is in them
//! ([`super::metrics`]).

use std::time::{Duration, Instant};

use super::Run;
use crate::{backends::Warning, report::Report};

/// Remembers how it went the last time.
#[derive(Debug, Default)]
pub struct Meter {
    written: Option<Instant>,
    unwritten: Option<String>,
}

impl Meter {
    /// How long ago they were written; `None` before the first time.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.written.map(|at| at.elapsed())
    }

    /// Writes them, where somebody wants them. What went wrong is logged when it is new, and comes back. `failed` are the
    /// warnings of hooks that have not done their work since.
    pub fn measure(&mut self, run: &Run<'_>, report: &Report, failed: Vec<Warning>) -> Option<Warning> {
        let mut told = report.clone();
        told.warnings.extend(failed);
        let so_far = told.warnings.len();
        super::measure(run, &mut told);
        self.written = Some(Instant::now());
        let warning = told.warnings.drain(so_far..).next();
        let why = warning.as_ref().map(|w| format!("{} [{}]", w.message, w.id));
        if let Some(why) = why.as_ref().filter(|why| self.unwritten.as_ref() != Some(why)) {
            tracing::warn!("{why}");
        }
        self.unwritten = why;
        warning
    }
}
