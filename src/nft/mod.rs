//! nf_tables as data: what a transaction contains and what a look at the kernel returns.
//!
//! Belongs here: identifiers, operations, what is seen, and both written in nft's own syntax. Does not: netlink
//! (`src/host/netlink`), and the decision what should be there (`backends/nftables`).

mod intervals;
mod names;
mod ops;
mod render;
mod rule;
mod seen;
mod xtables;

pub use intervals::{Interval, RawElement, intervals, prefixes};
pub use names::{ChainId, SetId, SetKind, TableFamily, TableId};
pub use ops::{Elements, Hooked, NftBatch, NftOp, Policy};
pub use rule::{AcceptRule, Expr, Verdict};
pub use seen::{Chain, Rule, Ruleset, Set, Table};
pub use xtables::{XT_TABLES, is_xtables};
