//! What is said about reachability: a verdict for every question, and for each culprit what it catches and how to mend
//! it.
//!
//! Belongs here: the shape. Does not: finding it ([`crate::reach`], `engine::verify`), the words for people
//! (`human_reach`).

use serde::Serialize;

/// How connections fare, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ReachVerdict {
    /// Every packet of a handshake passes.
    #[default]
    Accepted,
    /// They pass unless there are too many of them.
    Throttled,
    /// Whether they pass can't be told.
    Unknown,
    /// They don't pass.
    Refused,
}

impl ReachVerdict {
    /// Every verdict there is.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Throttled, Self::Unknown, Self::Refused];

    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
        }
    }
}

/// Whether every range reaches every port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReachReport {
    /// The worst that was found.
    pub verdict: ReachVerdict,
    /// What was asked: each address and port of this host.
    pub questions: Vec<QuestionReport>,
    /// What stands in the way, worst first.
    pub culprits: Vec<CulpritReport>,
    /// What could not be read; while there is such a gap nothing counts as accepted.
    pub gaps: Vec<String>,
    /// What was not asked, and why.
    pub notes: Vec<String>,
    /// The way of a single packet, where one was asked about.
    pub traces: Vec<TraceReport>,
}

/// A question: do the ranges reach this address and port?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QuestionReport {
    /// The address of this host.
    pub to: String,
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The interface that the packets come in by.
    pub interface: String,
    /// The worst verdict on any address of any range.
    pub verdict: ReachVerdict,
    /// How many ranges were asked about: those of the same family as the address.
    pub ranges: usize,
    /// How many of them are accepted as a whole.
    pub accepted: usize,
}

/// A rule, a policy or something else that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CulpritReport {
    /// What becomes of the connections.
    pub verdict: ReachVerdict,
    /// The tool that it belongs to: `ufw`, `csf`, `fail2ban`, `firewalld`, `docker`, `docker-user`, `crowdsec`,
    /// `edgeallow`, `nftables` or `iptables` for rules written by hand, `other`; null where it isn't a rule.
    pub tool: Option<&'static str>,
    /// The tool for people, with what is known of it: `fail2ban (jail sshd)`.
    pub name: Option<String>,
    /// What it does: `drop`, `reject`, `rate`, or `puzzle` for what isn't understood.
    pub effect: &'static str,
    /// With what it rejects, the rate, or what isn't understood.
    pub detail: Option<String>,
    /// Which packet it catches: `request`, `answer`, `after` for what follows the answer, or `data` for what the server sends then.
    pub packet: &'static str,
    /// Where it is; null where it isn't a rule.
    pub place: Option<PlaceReport>,
    /// The error that visitors see at Cloudflare.
    pub cloudflare_error: Option<u16>,
    /// What it catches.
    pub catches: Vec<CaughtReport>,
    /// Commands that would mend it, best first.
    pub mend: Vec<String>,
}

/// Where a rule or policy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlaceReport {
    /// `nftables`, `iptables` (through nf_tables) or `iptables-legacy`.
    pub language: &'static str,
    /// `input` and the like.
    pub hook: &'static str,
    /// The table's family.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The base chain through which it was reached.
    pub base: String,
    /// The rule's place in the chain, from 1; null for the chain's policy.
    pub position: Option<usize>,
    /// nftables' number for the rule.
    pub handle: Option<u64>,
    /// The rule as its tool prints it.
    pub text: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// The sets in which it looks the source up.
    pub sets: Vec<String>,
}

/// Sources that fare alike on some ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaughtReport {
    /// The addresses of this host.
    pub to: Vec<String>,
    /// The ports, each with its protocol: `443/tcp`.
    pub ports: Vec<String>,
    /// Whether it is every range that was asked about; `ranges` is empty then.
    pub all: bool,
    /// How many ranges were asked about.
    pub asked: usize,
    /// The exact ranges: published ones where they are caught whole, else the parts of them.
    pub ranges: Vec<String>,
    /// The exact parts that are not caught, where that is shorter to say; otherwise empty.
    pub except: Vec<String>,
    /// What is caught, for people: also where it is everything.
    #[serde(skip)]
    pub parts: Vec<PartReport>,
}

/// A range that is caught, but for parts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    /// The range.
    pub range: String,
    /// What is not caught of it.
    pub except: Vec<String>,
}

/// The way of one packet and of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TraceReport {
    /// The client.
    pub from: String,
    /// The address of this host.
    pub to: String,
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The interface.
    pub interface: String,
    /// How it ends.
    pub verdict: ReachVerdict,
    /// Step by step, also through the rules that don't match.
    pub steps: Vec<StepReport>,
}

/// One rule or policy on a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepReport {
    /// Which packet: `request`, `answer` or `after`.
    pub packet: &'static str,
    /// How deep in jumps: 0 in a base chain.
    pub depth: usize,
    /// Where.
    pub place: PlaceReport,
    /// Whether the rule matched.
    pub matched: bool,
    /// What came of it.
    pub outcome: String,
}
