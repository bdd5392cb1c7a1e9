//! Lists of prefixes: reading them, judging them, comparing them. Pure: nothing here reads a machine or a clock.

pub mod parse;
mod prefixes;
pub mod removal;
pub mod snapshot;
mod special;
#[cfg(test)]
mod tests;
mod vet;

pub use parse::RawList;
pub use prefixes::{Family, Prefixes};
pub(crate) use prefixes::{missing, short};
pub use vet::{Policy, Vetted, vet};
