//! The one executor: lock, look, plan, act, look again, undo, remember.
//!
//! Belongs here: the order of things, and what happens when one of them fails. Does not: what a backend wants
//! ([`crate::backends`]), how the machine is changed ([`crate::host`]), what is printed ([`crate::report`]).

pub mod acquire;
pub mod apply;
mod asked;
mod fault;
pub mod fetched;
pub mod keep;
pub mod lock;
mod look;
pub mod marks;
pub mod picture;
pub mod select;
pub mod sent_on;
pub mod state;
pub mod sync;
pub mod verify;
