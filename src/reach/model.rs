//! What packet filters hold, whoever wrote it and in whatever language: tables, chains, rules, sets.
//!
//! nftables and iptables are the same machine to a packet: base chains on hooks in the order of their priorities, each
//! with rules that test and then decide. So both are parsed into this one model, and evaluated once.
//!
//! Belongs here: the model. Does not: reading it from somewhere (`nft`, `xtables`), following a packet through it
//! (`walk`).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::sources::Sources;
use crate::nft::TableFamily;

/// All packet filters of one network namespace at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// Every table, in the order in which they were found.
    pub tables: Vec<Table>,
    /// The kernel's ipsets by name, which every iptables table may use.
    pub ipsets: HashMap<String, Set>,
    /// What in the picture could not be read, in words: whatever would depend on it is unknown.
    pub gaps: Vec<String>,
}

/// Whose language a table is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// nftables.
    Nft,
    /// iptables through nf_tables (`iptables-nft`).
    IptablesNft,
    /// iptables through x_tables (`iptables-legacy`).
    IptablesLegacy,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The family; iptables is `ip`, ip6tables is `ip6`.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Whose language.
    pub language: Language,
    /// Whether it sleeps: its chains see no packet.
    pub dormant: bool,
    /// Its chains by name.
    pub chains: HashMap<String, Chain>,
    /// Its sets and maps by name.
    pub sets: HashMap<String, Set>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chain {
    /// What it hangs on, if it is a base chain.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// What a base chain hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Where on a packet's way.
    pub hook: Hook,
    /// The order among the chains of a hook: lower is earlier.
    pub priority: i32,
    /// What it may do.
    pub kind: ChainKind,
    /// Whether what falls out of its end is dropped.
    pub drops: bool,
    /// For ingress and egress: the interfaces. A name that ends in `*` stands for all that begin so.
    pub devices: Vec<String>,
}

/// Where on a packet's way a base chain sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Straight from the interface.
    Ingress,
    /// Before it is known whether the packet is for this host.
    Prerouting,
    /// For this host.
    Input,
    /// For another host.
    Forward,
    /// From this host.
    Output,
    /// On the way out.
    Postrouting,
    /// Straight before the interface.
    Egress,
}

impl Hook {
    /// nft's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Filters.
    Filter,
    /// Sees only the first packet of a connection, and may give it other addresses.
    Nat,
    /// Filters what this host sends, which is routed again if its mark changed.
    Route,
}

/// A rule: parts from left to right. A test that fails ends it; a verdict that decides ends it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    /// Its place in the chain, from 1, as `iptables -L --line-numbers` counts.
    pub position: usize,
    /// nftables' number for it.
    pub handle: Option<u64>,
    /// As its tool would print it, if that is known: iptables' save format. For nftables it is looked up when needed.
    pub text: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// What it tests and does.
    pub parts: Vec<Part>,
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Goes on if the packet is so.
    Test(Test),
    /// Goes on for some packets and not for others, depending on how many there are: `limit rate 10/second`.
    Rate(String),
    /// Goes on or doesn't; this program can't tell. In words that name it: `numgen random mod 10`.
    Puzzle(String),
    /// Decides.
    Verdict(Verdict),
    /// The map's entry for the key decides; without an entry the rule goes on with its next part.
    VerdictMap {
        /// What is looked up.
        key: Vec<Key>,
        /// Where.
        map: Among<Verdict>,
    },
    /// Sets a mark.
    SetMark(SetMark),
    /// Gives the connection another destination; final in its base chain.
    Dnat {
        /// The new address, with a port where a map gives one: none for `redirect` and for port-only changes.
        address: Operand<(IpAddr, Option<u16>)>,
        /// The new port: none keeps it.
        port: Operand<u16>,
        /// `redirect`: to this host, to the address of the interface that the packet came in by.
        to_this_host: bool,
    },
    /// Gives the connection another source (`snat`, `masquerade`); final in its base chain, and nothing that a server's
    /// firewall decides by.
    Snat,
    /// Keeps conntrack away from the packet.
    Notrack,
    /// Puts something of the packet into this set or takes it out, and goes on: from then on it isn't known what of these
    /// sources is in it.
    Feed(Among<()>),
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Out of this base chain, let pass.
    Accept,
    /// Gone, silently.
    Drop,
    /// Gone, with an answer; with what, as the tool says it: `tcp reset`, `icmp port-unreachable`.
    Reject(String),
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain, and not back.
    Goto(String),
    /// Back to where this chain was jumped to from; at the end of a base chain its policy.
    Return,
    /// On to the next rule.
    Continue,
    /// Somewhere this program can't follow, in words that name it: `queue to 0`, `synproxy`, `TPROXY`.
    Elsewhere(String),
}

/// A test of one or several facts against a set of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// What is looked at; more than one for nft's concatenations and ipset's dimensions.
    pub key: Vec<Key>,
    /// What it must be among.
    pub among: Among<()>,
    /// Whether it must *not* be.
    pub negated: bool,
}

/// A fact about the packet, and the bits of it that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The fact.
    pub field: Field,
    /// Only these bits, if not all.
    pub mask: Option<u128>,
}

impl From<Field> for Key {
    fn from(field: Field) -> Self {
        Self { field, mask: None }
    }
}

/// A value or where to look it up.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand<T> {
    /// Nothing is given.
    None,
    /// This.
    Is(T),
    /// The map's entry for the key; without an entry the rule doesn't go on.
    Map {
        /// What is looked up.
        key: Vec<Key>,
        /// Where.
        map: Among<T>,
    },
    /// Not known: a range to choose from, a hash. In words.
    Puzzle(String),
}

/// Which mark is set, to what.
#[derive(Debug, Clone, PartialEq)]
pub struct SetMark {
    /// Where: [`Field::Mark`] or [`Field::CtMark`].
    pub to: Field,
    /// What it becomes.
    pub value: MarkValue,
}

/// What a mark becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum MarkValue {
    /// `(of & and) ^ xor`, where `of` is the fact: `meta mark set mark or 1` is `of = Mark, and = !1, xor = 1`. A constant
    /// is `and = 0`.
    Bits {
        /// The fact that it is computed from.
        of: Field,
        /// The bits that are kept.
        and: u32,
        /// The bits that are turned over.
        xor: u32,
    },
    /// From a map, or unknown.
    Operand(Operand<u32>),
}

/// What a key is looked up in.
#[derive(Debug, Clone, PartialEq)]
pub enum Among<D> {
    /// Written in the rule.
    These(Elements<D>),
    /// A set or map of the same table, by name. Only nftables has these.
    Named(String),
    /// An ipset, by name.
    Ipset(String),
}

/// A named set or map, or an ipset.
#[derive(Debug, Clone, PartialEq)]
pub enum Set {
    /// Keys only.
    Plain(Elements<()>),
    /// A verdict map.
    Verdicts(Elements<Verdict>),
    /// A map to marks or other numbers.
    Numbers(Elements<u32>),
    /// A map to addresses (and ports, if the map gives them): for `dnat`.
    Addresses(Elements<(IpAddr, Option<u16>)>),
    /// A map to ports.
    Ports(Elements<u16>),
    /// What could not be read, in words.
    Puzzle(String),
}

/// Elements of a set or map.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements<D> {
    /// Keys of one number each, all with the same data: the usual set, at any size.
    Numbers(Sources, D),
    /// Everything else, in order; the first that fits counts.
    List(Vec<Element<D>>),
}

/// One element.
#[derive(Debug, Clone, PartialEq)]
pub struct Element<D> {
    /// One value for each part of the key.
    pub key: Vec<Value>,
    /// What it maps to.
    pub data: D,
}

/// What a part of a key is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Numbers: addresses, ports, marks, bits.
    Numbers(Sources),
    /// An interface's name; one that ends in `*` (nft) or `+` (iptables, turned into `*` by its parser) stands for all that begin so.
    Name(String),
    /// Anything.
    Any,
}

/// A fact about a packet that rules test. Numbers are in host order; addresses as in [`super::sources::number`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// IPv4 or IPv6 (`meta nfproto`): 2 or 10 (`NFPROTO_*`).
    NfProto,
    /// What the frame carries (`meta protocol`, `ether type`): 0x0800 or 0x86dd.
    EtherType,
    /// IPv4 source address; a packet of IPv6 has none, and fails the test.
    Saddr4,
    /// IPv4 destination address.
    Daddr4,
    /// IPv6 source address.
    Saddr6,
    /// IPv6 destination address.
    Daddr6,
    /// Transport protocol (`meta l4proto`, `ip protocol`, `-p`).
    L4Proto,
    /// Source port of TCP or UDP (`th sport`); the protocol is tested apart.
    Sport,
    /// Destination port of TCP or UDP.
    Dport,
    /// TCP flags: fin 1, syn 2, rst 4, psh 8, ack 16, urg 32, ecn 64, cwr 128.
    TcpFlags,
    /// Interface that it came in by, by name (`iif` is turned into the name).
    Iif,
    /// Interface that it leaves by.
    Oif,
    /// `meta mark`.
    Mark,
    /// `ct mark`.
    CtMark,
    /// `ct state`, nft's bits: invalid 1, established 2, related 4, new 8, untracked 64.
    CtState,
    /// `ct status`, `IPS_*` of linux/netfilter/nf_conntrack_common.h: expected 1, seen-reply 2, assured 4, confirmed 8, snat 16, dnat 32.
    CtStatus,
    /// `ct direction`: original 0, reply 1.
    CtDirection,
    /// `ct original ip saddr`/`ct original saddr`.
    CtOriginalSaddr,
    /// `ct original ip daddr`: where the client aimed at.
    CtOriginalDaddr,
    /// `ct original proto-src`.
    CtOriginalSport,
    /// `ct original proto-dst`, `--ctorigdstport`.
    CtOriginalDport,
    /// `ct original protocol`/`ct protocol`: the transport protocol.
    CtProto,
    /// `fib daddr type`, `-m addrtype --dst-type`: `RTN_*` of linux/rtnetlink.h: unicast 1, local 2, broadcast 3, multicast 5.
    DaddrType,
    /// `fib saddr type`, `-m addrtype --src-type`.
    SaddrType,
    /// `meta pkttype`: host 0, broadcast 1, multicast 2.
    PktType,
    /// Length of the packet (`meta length`, `-m length`).
    Length,
    /// IPv4 TTL or IPv6 hop limit.
    Ttl,
    /// Whether the packet is a later fragment (`-f`, `ip frag-off`, fragment header): 0 or 1.
    Fragment,
    /// Whether a packet to the source would leave by the interface that this one came in by (`fib saddr . iif oif exists`,
    /// `-m rpfilter`): 0 or 1.
    ReversePath,
}

impl Table {
    /// A table without content.
    #[must_use]
    pub fn new(family: TableFamily, name: impl Into<String>, language: Language) -> Self {
        Self { family, name: name.into(), language, dormant: false, chains: HashMap::new(), sets: HashMap::new() }
    }

    /// Its base chains by name, in a stable order.
    pub fn base_chains(&self) -> BTreeMap<&str, (&Base, &Chain)> {
        self.chains.iter().filter_map(|(name, c)| c.base.as_ref().map(|b| (name.as_str(), (b, c)))).collect()
    }
}

impl Field {
    /// What it is, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NfProto | Self::EtherType => "address family",
            Self::Saddr4 | Self::Saddr6 => "source address",
            Self::Daddr4 | Self::Daddr6 => "destination address",
            Self::L4Proto => "protocol",
            Self::Sport => "source port",
            Self::Dport => "destination port",
            Self::TcpFlags => "TCP flags",
            Self::Iif => "incoming interface",
            Self::Oif => "outgoing interface",
            Self::Mark => "mark",
            Self::CtMark => "connection mark",
            Self::CtState => "connection state",
            Self::CtStatus => "connection status",
            Self::CtDirection => "direction",
            Self::CtOriginalSaddr => "original source address",
            Self::CtOriginalDaddr => "original destination address",
            Self::CtOriginalSport => "original source port",
            Self::CtOriginalDport => "original destination port",
            Self::CtProto => "connection protocol",
            Self::DaddrType => "destination address type",
            Self::SaddrType => "source address type",
            Self::PktType => "packet type",
            Self::Length => "packet length",
            Self::Ttl => "TTL",
            Self::Fragment => "fragment",
            Self::ReversePath => "reverse path",
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
