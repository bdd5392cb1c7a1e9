//! Tools above the packet filters, for real: a fail2ban that bans, an Apache that answers 403.
//!
//! They refuse for another reason than a packet filter, and some of what they did can't be put back (a ban that was
//! lifted), so they have claims of their own instead of the conformance suite's.

pub mod fail2ban;
pub mod mod_evasive;
#[cfg(feature = "fault-injection")]
mod struck;

/// The backends that are covered here.
pub const BACKENDS: [&str; 2] = ["fail2ban", "mod_evasive"];
