//! Is the site up? Asked again and again from both sides: through Cloudflare's edge, as visitors do, and straight at the
//! origin, as the edge does. When it isn't, the operator is told, and his own command may be run, within limits.
//!
//! ```text
//! round: edge and origin asked, firewalls looked at ──► judge: how is each page? ──► rules: what is news, may one act?
//!                                                                                       │
//!                              memory kept ──► news logged ──► command, hooks, metrics ─┘
//! ```
//!
//! [`judge`] and [`rules`] are pure and are told the time. [`round`] gathers. [`service`] waits; a single round of
//! `--once` needs no waiting.
//!
//! Belongs here: all of that. Does not: how to ask ([`crate::probe`]), how firewalls are judged ([`crate::reach`],
//! [`crate::engine`]), running the command ([`crate::host`]).

pub mod act;
pub mod judge;
pub mod memory;
pub mod round;
pub mod rules;
pub mod service;
pub mod settings;
mod tell;
pub mod watcher;
