//! edgeallow keeps a server open to Cloudflare.

pub mod allowlist;
#[path = "../backends/mod.rs"]
pub mod backends;
pub mod error;
pub mod host;
pub mod nft;
pub mod plan;
pub mod source;
