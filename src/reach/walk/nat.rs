//! Destination NAT: where a connection goes instead.
//!
//! Belongs here: `dnat` and `redirect`. Does not: where the translated packet then goes (`mod`).

use std::net::IpAddr;

use super::{
    Walk,
    class::{Class, State},
    rules::{At, Behind},
    sets::elements,
};
use crate::{
    allowlist::Family,
    reach::model::{Operand, Rule, Set},
};

/// What a rule says about the new destination.
pub(super) struct Destination<'a> {
    pub address: &'a Operand<(IpAddr, Option<u16>)>,
    pub port: &'a Operand<u16>,
    pub to_this_host: bool,
}

/// One possible destination, and who goes there.
type Choice = (Option<IpAddr>, Option<u16>, Class);

impl<'a> Walk<'a> {
    pub(super) fn dnat(&mut self, at: At<'a>, rule: &'a Rule, to: Destination<'a>, class: Class, behind: &mut Behind) {
        let Destination { address, port, to_this_host } = to;
        let mut choices: Vec<Choice> = Vec::new();
        match address {
            Operand::None => choices.push((None, None, class)),
            Operand::Is((address, port)) => choices.push((Some(*address), *port, class)),
            Operand::Puzzle(why) => {
                return self.lost(at, Some(rule), class, format!("a destination that {why} chooses"));
            }
            Operand::Map { key, map } => {
                let class = self.unless_fed(at, rule, map, class);
                let of_kind = |set: &'a Set| if let Set::Addresses(e) = set { Some(e) } else { None };
                match elements(map, at.table, &self.picture.ipsets, of_kind) {
                    Err(why) => return self.lost(at, Some(rule), class, why),
                    Ok(elements) => {
                        let (hits, rest) = self.look_up(at, rule, key, elements, class);
                        behind.next.extend(rest);
                        choices.extend(hits.into_iter().map(|((a, p), c)| (Some(*a), *p, c)));
                    }
                }
            }
        }
        for (address, given, class) in choices {
            match port {
                Operand::None => self.translate(at, rule, (address, given), to_this_host, class),
                Operand::Is(port) => self.translate(at, rule, (address, Some(*port)), to_this_host, class),
                Operand::Puzzle(why) => self.lost(at, Some(rule), class, format!("a port that {why} chooses")),
                Operand::Map { key, map } => {
                    let class = self.unless_fed(at, rule, map, class);
                    let of_kind = |set: &'a Set| if let Set::Ports(e) = set { Some(e) } else { None };
                    match elements(map, at.table, &self.picture.ipsets, of_kind) {
                        Err(why) => self.lost(at, Some(rule), class, why),
                        Ok(elements) => {
                            let (hits, rest) = self.look_up(at, rule, key, elements, class);
                            behind.next.extend(rest);
                            for (port, class) in hits {
                                self.translate(at, rule, (address, Some(*port)), to_this_host, class);
                            }
                        }
                    }
                }
            }
        }
    }

    fn translate(
        &mut self,
        at: At<'a>,
        rule: &'a Rule,
        to: (Option<IpAddr>, Option<u16>),
        to_this_host: bool,
        class: Class,
    ) {
        let now = at.spot.server(&class.state);
        let here = to_this_host.then(|| self.own_address(at)).flatten();
        let to = (to.0.or(here).unwrap_or(now.0), to.1.unwrap_or(now.1));
        let words = if to_this_host {
            format!("redirect to port {}", to.1)
        } else {
            format!("dnat to {}", std::net::SocketAddr::from(to))
        };
        self.told(at, Some(rule), &words, true);
        self.accepted.push(Class { state: State { dnat: Some(to), ..class.state }, ..class });
    }

    /// The address that `redirect` sends to: the first one of the interface that the packet came in by, of the same scope
    /// (net/netfilter/nf_nat_redirect.c).
    fn own_address(&self, at: At<'a>) -> Option<IpAddr> {
        let interface = self.facts.interfaces.iter().find(|i| Some(i.name.as_str()) == at.spot.iif)?;
        let fits = |a: &IpAddr| match (self.probe.family(), a) {
            (Family::V4, IpAddr::V4(_)) => true,
            (Family::V6, IpAddr::V6(a)) => !a.is_unicast_link_local(),
            _ => false,
        };
        interface.addresses.iter().map(|(a, _)| *a).find(fits)
    }
}
