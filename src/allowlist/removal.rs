//! Grow now, shrink late: when a range that vanished from the list is really removed.
//!
//! New ranges are wanted at once. A vanished one stays until it has been absent for the grace period in at least two
//! distinct reads of a source: the published list has flapped between old and new before (April 2021).

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Prefixes;

/// A range that is no longer listed and still allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRemoval {
    /// The range.
    pub prefix: IpNet,
    /// When it was first found missing.
    pub missing_since: Timestamp,
    /// In how many distinct reads of a source it has been missing.
    pub reads: u32,
}

/// When a vanished range may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long it must have been absent.
    pub grace: SignedDuration,
    /// Don't wait (`--remove-now`).
    pub remove_now: bool,
    /// Whether this run read a source anew; a stored copy proves nothing new.
    pub fresh_read: bool,
}

/// What is to be held, and what waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The list and the vanished ranges that stay for now, canonical.
    pub hold: Prefixes,
    /// The vanished ranges that stay for now.
    pub pending: Vec<PendingRemoval>,
}

/// In how many distinct reads a range must have been missing.
const READS: u32 = 2;

/// Decides which vanished ranges stay. `held` is what was held so far, without the operator's extra prefixes.
#[must_use]
pub fn settle(
    list: &Prefixes,
    held: &Prefixes,
    waiting: &[PendingRemoval],
    now: Timestamp,
    patience: Patience,
) -> Settled {
    let mut pending = Vec::new();
    for prefix in held.minus(list).iter().filter(|p| !list.covers(p)) {
        let mut entry = waiting.iter().find(|w| w.prefix == prefix).cloned().unwrap_or(PendingRemoval {
            prefix,
            missing_since: now,
            reads: 0,
        });
        if patience.fresh_read {
            entry.reads = entry.reads.saturating_add(1);
        }
        // A clock that was set back must not make the wait endless, nor end it early.
        entry.missing_since = entry.missing_since.min(now);
        let waited = now.duration_since(entry.missing_since) >= patience.grace;
        if !(patience.remove_now || waited && entry.reads >= READS) {
            pending.push(entry);
        }
    }
    let kept: Prefixes = pending.iter().map(|p| p.prefix).collect();
    Settled { hold: if kept.is_empty() { list.clone() } else { list.union(&kept) }, pending }
}
