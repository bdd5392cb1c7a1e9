//! Facts about the packet at one place of its way, and whether they are among what a rule asks for.
//!
//! Belongs here: one test of one class. Does not: what follows from the answer (`rules`).

use std::{borrow::Cow, net::IpAddr};

use super::class::{Class, Known, State};
use crate::{
    allowlist::Family,
    reach::{
        model::{Element, Elements, Field, Hook, Key, Value},
        packet::{Facts, Probe},
        sources::{Sources, number},
        verdict::Leg,
    },
};

/// Conntrack's place in prerouting and output (`NF_IP_PRI_CONNTRACK`): before it nobody knows a connection.
const CONNTRACK: i32 = -200;
/// Where destinations are translated in prerouting and output (`NF_IP_PRI_NAT_DST`).
pub(super) const NAT_DST: i32 = -100;
/// Where sources are translated in input and postrouting (`NF_IP_PRI_NAT_SRC`).
pub(super) const NAT_SRC: i32 = 100;

/// A place on the way of one packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    pub probe: &'a Probe,
    pub facts: &'a Facts,
    pub leg: Leg,
    pub hook: Hook,
    /// Where in the hook's order.
    pub priority: i32,
    /// The interface that it came in by: empty for what this host sends, none where it isn't known.
    pub iif: Option<&'a str>,
    /// The interface that it leaves by, likewise.
    pub oif: Option<&'a str>,
}

/// What is known of a fact.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fact<'a> {
    /// This packet has none; the rule ends.
    Absent,
    /// It is this.
    Is(u128),
    /// It is this name.
    Name(&'a str),
    /// It is the client's address: each source its own.
    Source,
    /// It is one of these, and which isn't known.
    Between(u128, u128),
    /// These bits of it are known.
    Bits { known: u128, value: u128 },
    /// It could be anything; which fact, in words.
    Unknown(&'static str),
}

/// How a class divides at a test.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Split {
    /// Those that fit.
    pub yes: Sources,
    /// Those of which it can't be told.
    pub maybe: Sources,
    /// Why it can't be told.
    pub why: Option<String>,
}

impl Split {
    fn none() -> Self {
        Self { yes: Sources::default(), maybe: Sources::default(), why: None }
    }
    pub fn puzzle(sources: &Sources, why: impl Into<String>) -> Self {
        Self { yes: Sources::default(), maybe: sources.clone(), why: Some(why.into()) }
    }
}

/// The connection that conntrack puts a packet to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// None: it hasn't looked yet, was told not to, or makes no sense of it.
    None,
    /// The one that this is about.
    This,
    /// Perhaps another, as it hasn't seen the beginning of this one.
    Unsure,
}

impl<'a> Spot<'a> {
    fn family(&self) -> Family {
        self.probe.family()
    }

    /// Whether the packet belongs to a connection here, as far as anybody knows.
    pub(super) fn is_tracked(&self, state: &State) -> bool {
        self.connection(state) != Connection::None
    }

    /// Whether nobody can tell which connection conntrack puts the packet to.
    pub(super) fn is_unsure(&self, state: &State) -> bool {
        self.connection(state) == Connection::Unsure
    }

    fn connection(&self, state: &State) -> Connection {
        let early = matches!(self.hook, Hook::Ingress)
            || (matches!(self.hook, Hook::Prerouting | Hook::Output) && self.priority < CONNTRACK);
        if early || state.untracked {
            return Connection::None;
        }
        match (self.leg, state.untracked_before) {
            (Leg::Syn, _) | (_, (false, false)) => Connection::This,
            // A SYN-ACK without its SYN, and an ACK without its SYN-ACK, are invalid to conntrack: they belong to none.
            (Leg::SynAck, (true, _)) | (Leg::Ack, (false, true)) if self.is_tcp() => Connection::None,
            // Conntrack may take it up in the middle, and from either side.
            _ => Connection::Unsure,
        }
    }

    /// Whether the packet gets nowhere unless NAT changes it: one of a connection that was given another end.
    pub(super) fn needs_translation(&self, state: &State) -> bool {
        self.leg != Leg::Syn && (self.moved(state) || state.snat)
    }

    /// Whether the connection has another destination than the client believes.
    fn moved(&self, state: &State) -> bool {
        state.dnat.is_some_and(|to| to != (self.probe.to, self.probe.port))
    }

    /// The server's address and port as they stand in the packet here.
    pub(super) fn server(&self, state: &State) -> (IpAddr, u16) {
        let original = (self.probe.to, self.probe.port);
        let Some(new) = state.dnat else { return original };
        let translated = match self.leg {
            // Translated at its place in prerouting, from then on.
            Leg::Syn => true,
            Leg::Ack => self.hook > Hook::Prerouting || (self.hook == Hook::Prerouting && self.priority > NAT_DST),
            // Translated back at the end of postrouting.
            Leg::SynAck | Leg::Data => {
                self.hook < Hook::Postrouting || (self.hook == Hook::Postrouting && self.priority <= NAT_SRC)
            }
        };
        if translated { new } else { original }
    }

    /// The client's address as it stands in the packet here.
    fn client(&self, state: &State) -> Fact<'a> {
        let hidden = state.snat
            && match self.leg {
                Leg::Syn | Leg::Ack => self.hook >= Hook::Postrouting && self.priority > NAT_SRC,
                Leg::SynAck | Leg::Data => {
                    self.hook == Hook::Ingress
                        || (matches!(self.hook, Hook::Prerouting | Hook::Output) && self.priority <= NAT_DST)
                }
            };
        if hidden { Fact::Unknown("the client's address after source NAT") } else { Fact::Source }
    }

    fn address(&self, is_client: bool, family: Family, state: &State) -> Fact<'a> {
        if family != self.family() {
            Fact::Absent
        } else if is_client {
            self.client(state)
        } else {
            Fact::Is(number(self.server(state).0))
        }
    }

    fn is_tcp(&self) -> bool {
        self.probe.protocol == crate::plan::Protocol::Tcp
    }

    fn fact(&self, field: Field, state: &State) -> Fact<'a> {
        let answer = self.leg.is_answer();
        let port = || Fact::Is(u128::from(self.server(state).1));
        // What a client's system chooses from: RFC 6056 asks for 1024 and up.
        let ephemeral = Fact::Between(1024, 65535);
        let connection = self.connection(state);
        match field {
            Field::CtMark
            | Field::CtStatus
            | Field::CtDirection
            | Field::CtProto
            | Field::CtOriginalSaddr
            | Field::CtOriginalDaddr
            | Field::CtOriginalSport
            | Field::CtOriginalDport
                if connection == Connection::None =>
            {
                Fact::Absent
            }
            Field::CtState
            | Field::CtMark
            | Field::CtStatus
            | Field::CtDirection
            | Field::CtOriginalSaddr
            | Field::CtOriginalDaddr
            | Field::CtOriginalSport
            | Field::CtOriginalDport
                if connection == Connection::Unsure =>
            {
                Fact::Unknown("a connection whose first packets weren't tracked")
            }
            Field::NfProto => Fact::Is(if self.family() == Family::V4 { 2 } else { 10 }),
            Field::EtherType => Fact::Is(if self.family() == Family::V4 { 0x0800 } else { 0x86dd }),
            Field::Saddr4 => self.address(!answer, Family::V4, state),
            Field::Saddr6 => self.address(!answer, Family::V6, state),
            Field::Daddr4 => self.address(answer, Family::V4, state),
            Field::Daddr6 => self.address(answer, Family::V6, state),
            Field::L4Proto | Field::CtProto => Fact::Is(u128::from(self.probe.protocol.number())),
            Field::Sport => {
                if answer {
                    port()
                } else {
                    ephemeral
                }
            }
            Field::Dport => {
                if answer {
                    ephemeral
                } else {
                    port()
                }
            }
            Field::TcpFlags if !self.is_tcp() => Fact::Absent,
            Field::TcpFlags => match self.leg {
                Leg::Syn => Fact::Is(2),
                Leg::SynAck => Fact::Is(18),
                // ACK, with or without PSH.
                Leg::Ack | Leg::Data => Fact::Bits { known: !8, value: 16 },
            },
            Field::Iif => self.iif.map_or(Fact::Unknown("the incoming interface"), Fact::Name),
            Field::Oif => self.oif.map_or(Fact::Unknown("the outgoing interface"), Fact::Name),
            Field::Mark => mark(state.mark, "a mark whose value isn't known"),
            Field::CtMark => mark(state.ct_mark, "a ct mark whose value isn't known"),
            Field::CtState => self.ct_state(state),
            Field::CtStatus => self.ct_status(state),
            Field::CtDirection => Fact::Is(u128::from(answer)),
            Field::CtOriginalSaddr => Fact::Source,
            Field::CtOriginalDaddr => Fact::Is(number(self.probe.to)),
            Field::CtOriginalSport => ephemeral,
            Field::CtOriginalDport => Fact::Is(u128::from(self.probe.port)),
            Field::DaddrType if answer => Fact::Is(UNICAST),
            Field::SaddrType if !answer => Fact::Is(UNICAST),
            Field::DaddrType | Field::SaddrType => {
                Fact::Is(if self.facts.is_local(self.server(state).0) { LOCAL } else { UNICAST })
            }
            Field::PktType => Fact::Is(0),
            // Headers with options; what follows the handshake carries data.
            Field::Length if matches!(self.leg, Leg::Ack | Leg::Data) => Fact::Between(28, 65535),
            Field::Length => Fact::Between(28, if self.is_tcp() { 120 } else { 65535 }),
            Field::Ttl => Fact::Between(1, 255),
            Field::Fragment => Fact::Is(0),
            Field::ReversePath if answer => {
                let source = self.facts.towards(self.server(state).0);
                if source.is_some_and(|i| Some(i.name.as_str()) == self.iif) { Fact::Is(1) } else { UNSURE_PATH }
            }
            Field::ReversePath if self.probe.way_back => Fact::Is(1),
            Field::ReversePath => UNSURE_PATH,
        }
    }

    /// nft's bits: invalid 1, established 2, new 8, untracked 64.
    fn ct_state(&self, state: &State) -> Fact<'a> {
        if state.untracked {
            return Fact::Is(64);
        }
        match (self.connection(state), self.leg) {
            // nft_ct: without a connection and not untracked it reads as invalid.
            (Connection::None, _) => Fact::Is(1),
            (_, Leg::Syn) => Fact::Is(8),
            _ => Fact::Is(2),
        }
    }

    /// `IPS_*` of linux/netfilter/nf_conntrack_common.h.
    fn ct_status(&self, state: &State) -> Fact<'a> {
        const EXPECTED: u128 = 1;
        const SEEN_REPLY: u128 = 2;
        const CONFIRMED: u128 = 8;
        const SRC_NAT: u128 = 16;
        const DST_NAT: u128 = 32;
        // Sent to where it went anyway it isn't translated (nf_nat_setup_info).
        let nat = if self.moved(state) { DST_NAT } else { 0 } | if state.snat { SRC_NAT } else { 0 };
        let seen = if self.leg == Leg::Syn { 0 } else { SEEN_REPLY | CONFIRMED };
        Fact::Bits { known: EXPECTED | SEEN_REPLY | CONFIRMED | SRC_NAT | DST_NAT, value: nat | seen }
    }

    /// Which of a class's sources fit a set's elements.
    pub(super) fn among<D>(&self, class: &Class, key: &[Key], elements: &Elements<D>) -> Split {
        match elements {
            Elements::Numbers(numbers, _) => match key {
                [key] => self.one(class, &class.sources, *key, &Value::Numbers(Sources::default()), Some(numbers)),
                _ => Split::puzzle(&class.sources, "a set of another shape than its key"),
            },
            Elements::List(list) => {
                let mut all = Split::none();
                for element in list {
                    let next = self.element(class, &class.sources, key, element);
                    all.yes = all.yes.union(&next.yes);
                    all.maybe = all.maybe.union(&next.maybe);
                    all.why = all.why.or(next.why);
                }
                all.maybe = all.maybe.minus(&all.yes);
                all
            }
        }
    }

    /// Which of these sources fit one element.
    pub(super) fn element<D>(&self, class: &Class, sources: &Sources, key: &[Key], element: &Element<D>) -> Split {
        if key.len() != element.key.len() {
            return Split::puzzle(sources, "a set of another shape than its key");
        }
        let (mut yes, mut maybe, mut why) = (sources.clone(), Sources::default(), None);
        for (key, value) in key.iter().zip(&element.key) {
            let considered = yes.union(&maybe);
            if considered.is_empty() {
                break;
            }
            let part = self.one(class, &considered, *key, value, None);
            maybe = maybe.intersect(&part.yes).union(&part.maybe);
            yes = yes.intersect(&part.yes);
            maybe = maybe.minus(&yes);
            why = why.or(part.why);
        }
        let why = why.filter(|_| !maybe.is_empty());
        Split { yes, maybe, why }
    }

    /// Which of these sources have a fact among these values. `numbers` stands for a `Value::Numbers` that is not copied.
    fn one(&self, class: &Class, sources: &Sources, key: Key, value: &Value, numbers: Option<&Sources>) -> Split {
        let all_if = |fits: bool| if fits { Split { yes: sources.clone(), ..Split::none() } } else { Split::none() };
        let fact = self.fact(key.field, &class.state);
        let numbers = match (value, numbers) {
            (_, Some(numbers)) | (Value::Numbers(numbers), None) => numbers,
            (Value::Any, None) => return all_if(fact != Fact::Absent),
            (Value::Name(pattern), None) => {
                return match fact {
                    Fact::Name(name) => all_if(fits(pattern, name)),
                    Fact::Unknown(what) => Split::puzzle(sources, what),
                    _ => all_if(false),
                };
            }
        };
        match (fact, key.mask) {
            (Fact::Absent | Fact::Name(_), _) => all_if(false),
            (Fact::Is(number), mask) => all_if(numbers.contains(number & mask.unwrap_or(u128::MAX))),
            (Fact::Bits { known, value }, mask) => {
                let mask = mask.unwrap_or(u128::from(u32::MAX));
                if mask & !known & u128::from(u32::MAX) == 0 {
                    all_if(numbers.contains(value & mask))
                } else {
                    self.bits(sources, known, value, mask, numbers)
                }
            }
            (Fact::Between(first, last), None) => {
                let possible = Sources::new(vec![(first, last)]);
                if numbers.covers(&possible) {
                    all_if(true)
                } else if possible.intersect(numbers).is_empty() {
                    all_if(false)
                } else {
                    Split::puzzle(sources, format!("{} between {first} and {last}", key.field))
                }
            }
            (Fact::Between(..), Some(_)) => Split::puzzle(sources, format!("bits of the {}", key.field)),
            (Fact::Source, None) => Split { yes: sources.intersect(numbers), ..Split::none() },
            (Fact::Source, Some(mask)) => match self.unmasked(numbers, mask) {
                Some(wanted) => Split { yes: sources.intersect(&wanted), ..Split::none() },
                None => Split::puzzle(sources, "an address mask with gaps"),
            },
            (Fact::Unknown(what), _) => Split::puzzle(sources, what),
        }
    }

    /// A few unknown bits: certain if every combination of them gives the same answer.
    fn bits(&self, sources: &Sources, known: u128, value: u128, mask: u128, numbers: &Sources) -> Split {
        let open = mask & !known & u128::from(u32::MAX);
        let mut answers = (false, false);
        if open.count_ones() <= 4 {
            // Every subset of the open bits, the usual way of counting through them.
            let mut subset = open;
            loop {
                if numbers.contains((value & mask & known) | subset) {
                    answers.0 = true
                } else {
                    answers.1 = true
                }
                if subset == 0 {
                    break;
                }
                subset = (subset - 1) & open;
            }
        } else {
            answers = (true, true);
        }
        match answers {
            (true, false) => Split { yes: sources.clone(), ..Split::none() },
            (false, _) => Split::none(),
            (true, true) => Split::puzzle(sources, "bits that differ from packet to packet"),
        }
    }

    /// The addresses whose masked value is among these numbers; none for a mask that isn't a prefix's.
    fn unmasked(&self, numbers: &Sources, mask: u128) -> Option<Sources> {
        let width = if self.family() == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
        let open = !mask & width;
        if open & open.wrapping_add(1) & width != 0 {
            return None;
        }
        if open == u128::MAX {
            return Some(if numbers.contains(0) { Sources::all() } else { Sources::default() });
        }
        let block = open + 1;
        let blocks = numbers.ranges().iter().filter_map(|&(first, last)| {
            let first = first.checked_next_multiple_of(block)?;
            let last = last - last % block;
            (first <= last).then(|| (first, last + open))
        });
        Some(Sources::new(blocks.collect()))
    }

    /// The value of a fact that is a number, for marks computed from it.
    pub(super) fn number(&self, field: Field, state: &State) -> Known {
        match self.fact(field, state) {
            Fact::Is(n) => u32::try_from(n).map_or(Known::Unknown, Known::Is),
            _ => Known::Unknown,
        }
    }

    /// Whether the fact is the client's address here, so that a test of it is about who the client is.
    pub(super) fn is_about_the_client(&self, field: Field, state: &State) -> bool {
        self.fact(field, state) == Fact::Source
    }

    /// Whether a packet here lacks what the test looks at, so that the rule ends even if the test is negated.
    pub(super) fn lacks(&self, key: &[Key], state: &State) -> bool {
        key.iter().any(|k| self.fact(k.field, state) == Fact::Absent)
    }
}

const UNSURE_PATH: Fact<'static> = Fact::Unknown("whether the answer leaves by the same interface");
const UNICAST: u128 = 1;
const LOCAL: u128 = 2;

fn mark(mark: Known, what: &'static str) -> Fact<'static> {
    match mark {
        Known::Is(n) => Fact::Is(u128::from(n)),
        Known::Unknown => Fact::Unknown(what),
    }
}

/// Whether an interface's name is the one that is meant, or one of those: see [`Value::Name`].
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// The keys' names, for people.
pub(super) fn named(key: &[Key]) -> Cow<'static, str> {
    match key {
        [one] => Cow::Borrowed(one.field.as_str()),
        many => Cow::Owned(many.iter().map(|k| k.field.as_str()).collect::<Vec<_>>().join(" and ")),
    }
}
