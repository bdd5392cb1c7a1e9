//! edgeallow keeps a server open to Cloudflare: it fetches the published ranges, checks that they can be trusted,
//! compares them with what the machine's firewalls hold, changes only what differs, and looks again.
//!
//! ```text
//! lock → source → allowlist::parse → vet → Desired
//!                                            │
//!            for each backend:  probe → observe → plan ──► --dry-run stops here and prints
//!                                            │
//!                                  checks → steps → observe again → plan must be empty
//!                                            │                         └ else undo this backend
//!                              state saved → report (human or JSON from one value)
//! ```
//!
//! - [`allowlist`]: lists of prefixes and whether they can be trusted. Pure.
//! - [`source`]: where lists come from; the only code that opens a client socket for them.
//! - [`plan`], [`nft`], [`xtables`]: the vocabulary of what is wanted and what would be done. Plain data.
//! - [`backends`]: the firewalls, one folder each. They look and plan; they can't act.
//! - [`engine`]: the one executor.
//! - [`host`]: the only code that spawns a program, writes a file or talks netlink.
//! - [`reach`]: whether Cloudflare gets through, from a picture of the packet filters. Pure.
//! - [`doctor`]: why Cloudflare would answer with an error here: a look at everything that can be the cause.
//! - [`probe`]: asking an origin, an edge or a resolver as Cloudflare would.
//! - [`watch`]: whether the site is up, seen from both sides, and what is done when it isn't.
//! - [`report`]: what is said, human or JSON, from one value.
//! - [`observe`]: logs, metrics and hooks, from that same value.
//! - [`cli`], [`commands`], [`config`]: what the operator says.

pub mod allowlist;
#[path = "../backends/mod.rs"]
pub mod backends;
pub mod cli;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod host;
pub mod nft;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod reach;
pub mod report;
pub mod source;
pub mod watch;
pub mod xtables;
