//! nf_tables as data: what a transaction contains and what a look at the kernel returns.
//!
//! Belongs here: identifiers, operations, what is seen, and both written in nft's own syntax. Does not: netlink
//! (`src/host/netlink`), and the decision what should be there (`backends/nftables`).

use std::fmt;

/// One netlink transaction: all of it happens, or nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NftBatch {
    /// The generation of the rule set that was looked at: if it has changed since, the kernel refuses (ERESTART).
    pub generation: Option<u32>,
}

impl fmt::Display for NftBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nft")
    }
}
