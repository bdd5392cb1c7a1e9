//! [`Backend`] without its types, so that the engine can hold all backends in one list.
//!
//! Nothing is decided here.

use std::any::Any;

use super::{Backend, Context, Meta, Probe, Verified, Warning};
use crate::{
    allowlist::Prefixes,
    error::{Error, ErrorKind, Result},
    plan::{Desired, Plan},
};

/// What a plan leads to.
#[derive(Clone, Copy)]
pub enum Goal<'a> {
    /// These prefixes reach these ports.
    Hold(&'a Desired),
    /// Nothing of ours is left.
    Nothing,
    /// What was ours at an earlier look ([`AnySeen::owned`]): undoing.
    Back(&'a (dyn Any + Send + Sync)),
}

/// A [`Backend`] of any type.
pub trait AnyBackend: Sync {
    /// See [`Backend::meta`].
    fn meta(&self) -> &'static Meta;
    /// See [`Backend::stores`].
    fn stores(&self) -> bool;
    /// See [`Backend::probe`].
    fn probe(&self, cx: &Context<'_>) -> Probe;
    /// See [`Backend::observe`].
    ///
    /// # Errors
    /// As there.
    fn look<'b>(&'b self, cx: &Context<'_>) -> Result<Box<dyn AnySeen + 'b>>;
}

/// One look at one backend's tool, and what follows from it.
pub trait AnySeen: Send + Sync {
    /// See [`Backend::owned`].
    fn owned(&self) -> Box<dyn Any + Send + Sync>;
    /// Whether nothing of ours is there.
    fn bare(&self) -> bool;
    /// See [`Backend::held`].
    fn held(&self) -> Prefixes;
    /// What would have to be done to reach the goal.
    ///
    /// # Errors
    /// As [`Backend::target`] and [`Backend::steps`].
    fn plan(&self, goal: Goal<'_>) -> Result<Plan>;
    /// See [`Backend::before`].
    ///
    /// # Errors
    /// As there.
    fn before(&self, cx: &Context<'_>, plan: &Plan) -> Result<()>;
    /// Looks at a rehearsal and judges it: see [`Backend::rehearsed`].
    ///
    /// # Errors
    /// As there.
    fn judge(&self, there: &Context<'_>, goal: Goal<'_>) -> Result<Vec<Warning>>;
    /// See [`Backend::warnings`] and [`Backend::foreseen`].
    fn warnings(&self, goal: Goal<'_>) -> Vec<Warning>;
    /// See [`Backend::verified`].
    fn verified(&self) -> Verified;
    /// See [`Backend::confirm`].
    ///
    /// # Errors
    /// As there.
    fn confirm(&self, cx: &Context<'_>) -> Result<()>;
    /// See [`Backend::pending`].
    fn pending(&self) -> Option<String>;
}

struct Seen<'b, B: Backend> {
    backend: &'b B,
    seen: B::Seen,
}

impl<B: Backend> AnyBackend for B {
    fn meta(&self) -> &'static Meta {
        Backend::meta(self)
    }

    fn stores(&self) -> bool {
        Backend::stores(self)
    }

    fn probe(&self, cx: &Context<'_>) -> Probe {
        Backend::probe(self, cx)
    }

    fn look<'b>(&'b self, cx: &Context<'_>) -> Result<Box<dyn AnySeen + 'b>> {
        Ok(Box::new(Seen { backend: self, seen: self.observe(cx)? }))
    }
}

impl<B: Backend> Seen<'_, B> {
    fn target(&self, goal: Goal<'_>) -> Result<B::Owned> {
        match goal {
            Goal::Hold(want) => self.backend.target(want, &self.seen),
            Goal::Nothing => Ok(B::Owned::default()),
            Goal::Back(owned) => owned.downcast_ref::<B::Owned>().cloned().ok_or_else(|| {
                Error::new(ErrorKind::Internal, "an earlier look of another backend was given to undo this one")
            }),
        }
    }
}

impl<B: Backend> AnySeen for Seen<'_, B> {
    fn owned(&self) -> Box<dyn Any + Send + Sync> {
        Box::new(self.backend.owned(&self.seen))
    }

    fn bare(&self) -> bool {
        self.backend.owned(&self.seen) == B::Owned::default()
    }

    fn held(&self) -> Prefixes {
        self.backend.held(&self.seen)
    }

    fn plan(&self, goal: Goal<'_>) -> Result<Plan> {
        self.backend.steps(&self.seen, &self.target(goal)?)
    }

    fn before(&self, cx: &Context<'_>, plan: &Plan) -> Result<()> {
        self.backend.before(cx, &self.seen, plan)
    }

    fn judge(&self, there: &Context<'_>, goal: Goal<'_>) -> Result<Vec<Warning>> {
        self.backend.rehearsed(&self.backend.observe(there)?, &self.target(goal)?)
    }

    fn warnings(&self, goal: Goal<'_>) -> Vec<Warning> {
        let mut warnings = self.backend.warnings(&self.seen);
        // What can't be planned has been told as an error.
        if let Ok(to) = self.target(goal) {
            warnings.extend(self.backend.foreseen(&self.seen, &to));
        }
        warnings
    }

    fn verified(&self) -> Verified {
        self.backend.verified(&self.seen)
    }

    fn confirm(&self, cx: &Context<'_>) -> Result<()> {
        self.backend.confirm(cx, &self.seen)
    }

    fn pending(&self) -> Option<String> {
        self.backend.pending(&self.seen)
    }
}
