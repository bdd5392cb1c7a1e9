//! The answer: which sources get through, and what stands in the way of the others.
//!
//! Belongs here: verdicts as values. Does not: how they are found (`walk`), whose rule it is (`owner`), how they are
//! shown ([`crate::report`]).

use std::fmt;

use super::{
    model::{Hook, Language},
    sources::Sources,
};
use crate::nft::TableFamily;

/// Sources that fare alike. All of a question's sources are in exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Which.
    pub sources: Sources,
    /// How they fare.
    pub judgement: Judgement,
}

/// How connections fare.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Judgement {
    /// Every packet of a handshake passes.
    Accepted,
    /// They pass unless there are too many of them.
    Throttled(Obstacle),
    /// Whether they pass can't be told.
    Unknown(Obstacle),
    /// They don't pass.
    Refused(Obstacle),
}

impl Judgement {
    /// What stands in the way.
    #[must_use]
    pub const fn obstacle(&self) -> Option<&Obstacle> {
        match self {
            Self::Accepted => None,
            Self::Throttled(o) | Self::Unknown(o) | Self::Refused(o) => Some(o),
        }
    }
}

/// What stands in the way, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Obstacle {
    /// Which packet of the handshake it catches.
    pub leg: Leg,
    /// The rule or policy; none where it isn't a rule: a program on the interface, a part of the picture that could not be read.
    pub place: Option<Place>,
    /// What it does.
    pub effect: Effect,
}

/// What is done to the packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// It vanishes: Cloudflare sees a 522.
    Drop,
    /// It is answered with a refusal, in the tool's words (`tcp reset`): Cloudflare sees a 521 if it is the client's.
    Reject(String),
    /// It passes up to a rate.
    Rate {
        /// In the rule's words.
        rate: String,
        /// Whether what is above it is answered with a refusal.
        rejects: bool,
    },
    /// What can't be decided, by name.
    Puzzle(String),
}

impl Obstacle {
    /// The error that visitors see: 521 for a refusal that is answered, 522 for silence (CLOUDFLARE.md); none where it can't be told.
    #[must_use]
    pub const fn cloudflare_error(&self) -> Option<u16> {
        match (&self.effect, self.leg) {
            (Effect::Reject(_) | Effect::Rate { rejects: true, .. }, Leg::Syn) => Some(521),
            // The answer to a rejected SYN-ACK goes to this host itself; the client hears nothing.
            (Effect::Drop | Effect::Rate { .. } | Effect::Reject(_), _) => Some(522),
            (Effect::Puzzle(_), _) => None,
        }
    }
}

/// One of the packets that a connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leg {
    /// The first: client to server, `ct state new`.
    Syn,
    /// The server's answer, `ct state established`.
    SynAck,
    /// The client's next packets, `ct state established`.
    Ack,
    /// The server's next packets: the same way as its answer, without SYN.
    Data,
}

impl Leg {
    /// Whether the server sends it.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::SynAck | Self::Data)
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syn => "the request",
            Self::SynAck => "the answer",
            Self::Ack => "what follows the answer",
            Self::Data => "what the server sends then",
        })
    }
}

/// A rule, or the policy of a base chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Where on the way.
    pub hook: Hook,
    /// Whose language.
    pub language: Language,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The base chain through which it was reached.
    pub base: String,
    /// The rule's place in the chain, from 1; none for the policy.
    pub position: Option<usize>,
    /// nftables' number for the rule.
    pub handle: Option<u64>,
    /// The rule as its tool would print it, if known.
    pub text: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// Sets that the rule tests the source against, by name: where a ban is kept.
    pub sets: Vec<String>,
}

/// One step of a single packet's way, for `verify --address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which packet.
    pub leg: Leg,
    /// Where.
    pub hook: Hook,
    /// How deep in jumps: 0 in a base chain.
    pub depth: usize,
    /// The rule or policy.
    pub place: Place,
    /// What came of it: `accept`, `jump ufw-user-input`, `doesn't match: ip saddr`, …
    pub outcome: String,
    /// Whether the rule matched (rules that don't are shown only when asked for).
    pub matched: bool,
}
