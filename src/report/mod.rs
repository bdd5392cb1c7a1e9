//! What a run says, as one value from which both the human text and the JSON are made.
//!
//! Belongs here: the shape of a report. Does not: deciding anything; the words a person reads are in [`human`].

mod doctor;
pub mod html;
pub mod human;
pub mod progress;
mod reach;
mod schema_types;
mod watch;

pub use doctor::*;
pub use reach::*;
pub use schema_types::*;
pub use watch::*;
