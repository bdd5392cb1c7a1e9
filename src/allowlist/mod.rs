//! Lists of prefixes: reading them, judging them, comparing them. Pure: nothing here reads a machine or a clock.

mod prefixes;

pub use prefixes::{Family, Prefixes};
