//! nf_tables over netlink: the kernel's rule set read into [`crate::nft`]'s types, and batches sent to it. Beside it
//! what a packet's way depends on besides rules: interfaces, addresses, programs on them, routes, sockets that listen.
//!
//! Messages go through libmnl's sockets and libnftnl's batches, objects and expressions (crates `mnl`, `nftnl`). What
//! the `nftnl` crate has no safe call for is laid out here as attributes (linux/netfilter/nf_tables.h): intervals,
//! flushing a set, and reading things back.
//!
//! Belongs here: every netlink message, and network namespaces. Does not: what should be in the kernel, or why.

// Foreign libraries and file descriptors need it; every block says why it is sound.
#![allow(unsafe_code)]

mod attr;
mod batch;
mod dump;
mod links;
mod listen;
mod netns;
mod parse;
mod routes;
mod socket;
mod sockets;

pub use batch::apply;
pub use dump::{elements, generation, has_ipset, has_table, ports, ruleset, sample, verdicts};
pub use links::links;
pub use listen::{Listener, Writer};
pub use netns::in_fresh_netns;
pub use routes::{dead_ends, refusing_rules, route, routes};
pub use sockets::{connections, listeners, unix_listeners};
