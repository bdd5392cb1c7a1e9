//! Statements: what a rule does.
//!
//! Of each it has to be known whether it can decide, let the packet go on or not, or change what later rules look at. What isn't
//! known is [`Verdict::Elsewhere`], so that it never counts as accepted.
//!
//! Belongs here: statements. Does not: matches (`matches`), elements (`sets`).

use std::net::IpAddr;

use super::{
    json::Json,
    keys::{Looks, is, network},
    marks,
    matches::Reading,
    sets::{self, Stateful, mapped, port},
    words::{count, limit, quota, words},
};
use crate::{
    nft::TableFamily,
    reach::model::{Among, Field, Operand, Part, Test, Verdict},
};

/// A verdict, in a rule or in a map.
pub fn verdict(name: &str, value: &Json<'_>) -> Option<Verdict> {
    let target = || value.text_of("target").map(str::to_owned);
    Some(match name {
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "return" => Verdict::Return,
        "continue" => Verdict::Continue,
        "jump" => Verdict::Jump(target()?),
        "goto" => Verdict::Goto(target()?),
        "queue" => Verdict::Elsewhere(words(&Json::Object(vec![("queue".into(), value.clone())]))),
        _ => return None,
    })
}

impl Reading<'_> {
    /// An expression of a rule's `expr`, and whether it is the last.
    pub fn statement(&mut self, whole: &Json<'_>, last: bool) {
        let elsewhere = |text: String| Part::Verdict(Verdict::Elsewhere(text));
        let Some((name, value)) = whole.only() else {
            return match whole.text() {
                // What nft can't write as JSON it writes as it would in a listing: for 1.0.6 `add @map { … : … }`, whose inner
                // statements may stop the packet.
                Some(text) if ["add @", "update @", "delete @"].iter().any(|s| text.starts_with(s)) => {
                    self.puzzle(text)
                }
                _ => self.push(elsewhere(words(whole))),
            };
        };
        if let Some(verdict) = verdict(name, value) {
            return self.push(Part::Verdict(verdict));
        }
        match name {
            "match" => self.compare(whole, value),
            "vmap" => self.decide(whole, value),
            // An object from a map: a packet without an entry goes no further.
            "counter" | "ct helper" | "ct timeout" | "ct expectation" | "secmark" | "last" => self.object(whole, value),
            "log" | "dup" => {}
            "reset" => self.require(value),
            // A connection that can't be offloaded (yet) goes no further in the rule.
            "flow" if last => {}
            "flow" => self.puzzle(words(whole)),
            "notrack" => self.push(Part::Notrack),
            "limit" if value.get("map").is_some() => {
                self.object(whole, value);
                self.push(Part::Rate(format!("limit name {}", words(value))));
            }
            "limit" => self.push(Part::Rate(limit(value))),
            "ct count" => self.push(Part::Rate(count(value))),
            // Once it is used up it stops everything, or nothing: how much is left isn't known to be so a moment later.
            "quota" => {
                if value.get("map").is_some() {
                    self.object(whole, value);
                }
                self.puzzle(quota(value));
            }
            "set" => self.dynamic(whole, value),
            "map" => {
                if let Some(name) = value.text_of("map").and_then(|s| s.strip_prefix('@')) {
                    self.push(Part::Feed(Among::Named(name.to_owned())));
                }
                match value.get("stmt").map(Stateful::all) {
                    Some(statements) => {
                        value.get("elem").into_iter().for_each(|elem| self.require(elem));
                        self.run(statements);
                    }
                    None if self.hides_statements => self.puzzle(words(whole)),
                    None => value.get("elem").into_iter().for_each(|elem| self.require(elem)),
                }
            }
            "meter" => {
                value.get("key").into_iter().for_each(|key| self.require(key));
                match value.get("stmt").map(Stateful::all) {
                    Some(statements) => self.run(statements),
                    None => self.puzzle(words(whole)),
                }
            }
            "mangle" => self.mangle(whole, value),
            "reject" => self.reject(value),
            "snat" | "masquerade" => {
                self.family_of(value);
                self.push(Part::Snat);
            }
            "dnat" | "redirect" => self.dnat(whole, name == "redirect", value),
            "xt" => match (value.text_of("type"), value.text_of("name")) {
                (Some("match"), Some("comment")) => {}
                (Some("match"), Some(name)) => self.puzzle(format!("xt match {name}")),
                _ => self.push(elsewhere(words(whole))),
            },
            _ => self.push(elsewhere(words(whole))),
        }
    }

    /// Something that lets every packet go on, unless it is taken from a map.
    fn object(&mut self, whole: &Json<'_>, value: &Json<'_>) {
        let Some(map) = value.get("map") else { return };
        let test = map.get("key").zip(map.get("data")).and_then(|(key, data)| {
            let keys = self.look(key).ok()?;
            let among = match data.text().and_then(|t| t.strip_prefix('@')) {
                Some(name) => Among::Named(self.named(&keys, name)?.0),
                None => {
                    let elements = data.get("set").and_then(Json::list)?;
                    Among::These(mapped(elements, &sets::kinds_of(&keys), |_| Some(())).ok()?)
                }
            };
            Some(Part::Test(Test { key: Looks::keys(&keys), among, negated: false }))
        });
        match test {
            Some(test) => self.push(test),
            None => self.puzzle(words(whole)),
        }
    }

    /// `add @set { ip saddr limit rate … }`: goes on unless the inner statement says no (or the set is full).
    fn dynamic(&mut self, whole: &Json<'_>, value: &Json<'_>) {
        if let Some(elem) = value.get("elem") {
            // Which element it is makes no difference.
            self.require(elem);
        }
        let name = value.text_of("set").and_then(|s| s.strip_prefix('@'));
        let declared = name.and_then(|name| self.declared.get(name));
        match name {
            Some(name) => self.push(Part::Feed(Among::Named(name.to_owned()))),
            None => self.puzzle(words(whole)),
        }
        match (value.text_of("op"), value.get("stmt")) {
            (Some("delete"), None) => {}
            (Some("add" | "update"), Some(statements)) => self.run(Stateful::all(statements)),
            (Some("add" | "update"), None) => match declared {
                Some(declared) if !declared.statements.is_empty() => self.run(declared.statements.clone()),
                Some(_) if !self.hides_statements => {}
                _ => self.push(Part::Rate(format!("{} (what it may limit isn't shown)", words(whole)))),
            },
            _ => self.puzzle(words(whole)),
        }
    }

    fn mangle(&mut self, whole: &Json<'_>, value: &Json<'_>) {
        let elsewhere = || Part::Verdict(Verdict::Elsewhere(words(whole)));
        let (Some(key), Some(to)) = (value.get("key"), value.get("value")) else { return self.push(elsewhere()) };
        let harmless = match key.only() {
            Some(("meta", meta)) => match meta.text_of("key") {
                Some("mark") => return self.mark(Field::Mark, to),
                other => matches!(other, Some("nftrace" | "priority" | "secmark")),
            },
            Some(("ct", ct)) => match ct.text_of("key") {
                Some("mark") => return self.mark(Field::CtMark, to),
                // Conntrack zones decide which connection a packet is taken for, so they are not among these.
                other => matches!(other, Some("event" | "label" | "secmark")),
            },
            Some(("payload", payload)) => {
                let field = (payload.text_of("protocol"), payload.text_of("field"));
                matches!(field, (Some("ip" | "ip6"), Some("dscp" | "ecn" | "id" | "flowlabel" | "checksum")))
                    || matches!(field, (Some("tcp" | "udp"), Some("checksum" | "window" | "urgptr")))
            }
            Some(("tcp option", _)) => true,
            _ => false,
        };
        // What is written must be of a family or protocol, and that the rule doesn't show.
        self.require(key);
        if !harmless {
            self.push(elsewhere());
        } else if contains_map(to) {
            self.puzzle(words(whole));
        }
    }

    fn mark(&mut self, field: Field, to: &Json<'_>) {
        let part = marks::set(self, field, to);
        self.push(part);
    }

    fn reject(&mut self, value: &Json<'_>) {
        let with = value.text_of("type");
        match with {
            Some("tcp reset") => self.take_for_granted(is(Field::L4Proto, 6)),
            Some(icmp @ ("icmp" | "icmpv6")) => {
                network(self.family, icmp == "icmpv6").into_iter().for_each(|part| self.take_for_granted(part));
            }
            _ => {}
        }
        let own = if self.family == TableFamily::Ip6 { "icmpv6" } else { "icmp" };
        let text = match (with, value.get("expr").map(words)) {
            (Some(with), Some(code)) => format!("{with} {code}"),
            (Some("tcp reset"), None) => "tcp reset".into(),
            (with, None) => format!("{} port-unreachable", with.unwrap_or(own)),
            (None, Some(code)) => format!("{own} {code}"),
        };
        self.push(Part::Verdict(Verdict::Reject(text)));
    }

    fn family_of(&mut self, value: &Json<'_>) {
        let v6 = match value.text_of("family") {
            Some("ip") => false,
            Some("ip6") => true,
            _ => return,
        };
        network(self.family, v6).into_iter().for_each(|part| self.take_for_granted(part));
    }

    fn dnat(&mut self, whole: &Json<'_>, to_this_host: bool, value: &Json<'_>) {
        self.family_of(value);
        let puzzle = || words(whole);
        let prefix = value.get("type_flags").is_some_and(|f| f.each().iter().any(|f| f.text() == Some("prefix")));
        let (mut address, mut port) = (Operand::None, Operand::None);
        if let Some(to) = value.get("addr") {
            let known = if prefix || to_this_host { None } else { self.addresses(to) };
            address = known.unwrap_or_else(|| Operand::Puzzle(puzzle()));
        }
        if let Some(to) = value.get("port") {
            port = self.ports(to).unwrap_or_else(|| Operand::Puzzle(puzzle()));
        }
        let nowhere = address == Operand::None && port == Operand::None && !to_this_host;
        if nowhere {
            address = Operand::Puzzle(puzzle());
        }
        self.push(Part::Dnat { address, port, to_this_host });
    }

    /// An address, or a map to addresses or to addresses and ports.
    fn addresses(&mut self, to: &Json<'_>) -> Option<Operand<(IpAddr, Option<u16>)>> {
        match to.get("map") {
            Some(map) => self.lookup(map, sets::target),
            None => sets::target(to).map(Operand::Is),
        }
    }

    fn ports(&mut self, to: &Json<'_>) -> Option<Operand<u16>> {
        let Some(map) = to.get("map") else { return port(to).map(Operand::Is) };
        self.lookup(map, port)
    }

    /// A map to something simple.
    pub fn lookup<D: Clone + Eq + std::hash::Hash>(
        &mut self,
        map: &Json<'_>,
        data_of: impl Fn(&Json<'_>) -> Option<D>,
    ) -> Option<Operand<D>> {
        let keys = self.look(map.get("key")?).ok()?;
        let data = map.get("data")?;
        let map = match data.text().and_then(|t| t.strip_prefix('@')) {
            Some(name) => {
                let (name, statements) = self.named(&keys, name)?;
                self.run(statements);
                Among::Named(name)
            }
            None => {
                let elements = data.get("set").and_then(Json::list)?;
                Among::These(mapped(elements, &sets::kinds_of(&keys), data_of).ok()?)
            }
        };
        Some(Operand::Map { key: Looks::keys(&keys), map })
    }
}

/// Whether a value is looked up somewhere in it: a packet without an entry goes no further.
fn contains_map(value: &Json<'_>) -> bool {
    match value {
        Json::List(items) => items.iter().any(contains_map),
        Json::Object(members) => members.iter().any(|(name, value)| name == "map" || contains_map(value)),
        _ => false,
    }
}
