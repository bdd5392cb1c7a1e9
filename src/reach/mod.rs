//! The reachability proof: rule sets in, a verdict for every range and port out.
//!
//! A [`Picture`] is what a machine's packet filters hold, whoever wrote it: nftables tables, iptables tables of both
//! variants, ipsets. [`walk`] sends a whole set of source addresses through it at once, hook by hook in the order
//! the kernel takes, and splits the set at each rule that looks at the source. What can't be decided is followed both ways and
//! said by name; it never counts as accepted.
//!
//! Belongs here: the model of a packet filter, its parsers, the evaluation, the verdicts and whose rule it is. Pure:
//! nothing here reads the machine ([`crate::engine`] takes the picture) or prints ([`crate::report`]).

mod except;
pub mod model;
pub mod nft;
pub mod owner;
pub mod packet;
pub mod sources;
pub mod verdict;
pub mod walk;
pub mod xtables;

pub use model::Picture;
pub use packet::{Facts, Interface, Probe};
pub use sources::Sources;
pub use verdict::{Effect, Judged, Judgement, Leg, Obstacle, Place, Step};
pub use walk::{judge, trace};
