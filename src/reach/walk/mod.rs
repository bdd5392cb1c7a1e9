//! Follows the packets of a handshake through a picture: the request in, the answer out, what comes next.
//!
//! Belongs here: the order of hooks and base chains, and where a packet turns off. Does not: rules (`rules`), tests
//! (`test`), sets (`sets`), the sums at the end (`class`).

mod class;
mod nat;
mod rules;
mod sets;
mod test;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ipnet::IpNet;

use class::{Class, Doubt, Ended, Known, State, merge, weigh};
use rules::At;
use test::{NAT_DST, NAT_SRC, Spot, fits};

use super::{
    model::{Base, Chain, ChainKind, Field, Hook, Part, Picture, Table},
    packet::{Facts, Probe},
    sources::Sources,
    verdict::{Effect, Judged, Judgement, Leg, Obstacle, Step},
};
use crate::nft::TableFamily;

/// How often more is exchanged after the handshake, at most: a mark that still changes then turns in a circle.
const EXCHANGES: usize = 4;
/// How many rules times classes are looked at before a rule set counts as too intricate.
const BUDGET: u64 = 50_000_000;

/// Whether connections from these sources get through. Every source is in exactly one of the answers; none is empty.
#[must_use]
pub fn judge(picture: &Picture, facts: &Facts, probe: &Probe, sources: &Sources) -> Vec<Judged> {
    follow(picture, facts, probe, sources, false).1
}

/// The way of one source, rule by rule, and how it ends.
#[must_use]
pub fn trace(picture: &Picture, facts: &Facts, probe: &Probe, source: u128) -> (Vec<Step>, Judgement) {
    let (steps, judged) = follow(picture, facts, probe, &Sources::one(source), true);
    // One source has one judgement.
    let lost = || unknown("a way that leads nowhere");
    (steps, judged.into_iter().next().map_or_else(lost, |j| j.judgement))
}

/// Where they go, with the steps if they are wanted, and how they fare.
fn follow(
    picture: &Picture,
    facts: &Facts,
    probe: &Probe,
    sources: &Sources,
    traced: bool,
) -> (Vec<Step>, Vec<Judged>) {
    let start = || Walk::new(picture, facts, probe, traced.then(Vec::new));
    let mut walk = start();
    let mut passed = walk.connection(sources);
    // What packets leave in sets is there when the next ones come, wherever on the way it is asked for.
    let mut settled = walk.fed.is_empty();
    for _ in 0..EXCHANGES {
        if settled {
            break;
        }
        let fed = std::mem::take(&mut walk.fed);
        walk = Walk { fed: fed.clone(), ..start() };
        passed = walk.connection(sources);
        settled = walk.fed == fed;
    }
    let mut judged = weigh(&passed, &walk.ended, &walk.obstacles);
    let unsettled = || (!settled).then(|| "sets that rules fill one from the other, too many in a row".to_owned());
    if let Some(what) = blind_spot(picture, facts, probe).or_else(unsettled) {
        judged = judged.into_iter().map(|j| doubted(j, &what)).collect();
    }
    (walk.steps.unwrap_or_default(), judged)
}

/// What no rule shows: gaps in the picture, programs on the interface.
fn blind_spot(picture: &Picture, facts: &Facts, probe: &Probe) -> Option<String> {
    let on_interface = facts.interfaces.iter().find(|i| i.name == probe.interface).and_then(|i| i.programs.first());
    picture.gaps.first().cloned().or_else(|| on_interface.map(|p| format!("{p} on {}", probe.interface)))
}

/// Something that can't be looked into may refuse what all rules accept; it can't accept what a rule refuses.
fn doubted(judged: Judged, what: &str) -> Judged {
    match judged.judgement {
        Judgement::Accepted | Judgement::Throttled(_) => Judged { judgement: unknown(what), ..judged },
        _ => judged,
    }
}

/// What can't be told for a reason that is no rule.
fn unknown(what: &str) -> Judgement {
    Judgement::Unknown(Obstacle { leg: Leg::Syn, place: None, effect: Effect::Puzzle(what.to_owned()) })
}

/// One evaluation.
struct Walk<'a> {
    picture: &'a Picture,
    facts: &'a Facts,
    probe: &'a Probe,
    obstacles: Vec<Obstacle>,
    /// The obstacles that a rule has made, by packet and rule.
    known: HashMap<(Leg, usize), Vec<usize>>,
    ended: Vec<Ended>,
    /// What the base chain at hand has accepted so far.
    accepted: Vec<Class>,
    /// Which sources' packets have changed which sets: by table and name, see `rules`.
    fed: HashMap<(usize, String), Sources>,
    /// How often a class went both ways.
    forks: u64,
    budget: u64,
    steps: Option<Vec<Step>>,
}

/// An interface by name: empty for none, `None` where it isn't known.
type Name<'a> = Option<&'a str>;

impl<'a> Walk<'a> {
    fn new(picture: &'a Picture, facts: &'a Facts, probe: &'a Probe, steps: Option<Vec<Step>>) -> Self {
        Self {
            picture,
            facts,
            probe,
            obstacles: Vec::new(),
            known: HashMap::new(),
            ended: Vec::new(),
            accepted: Vec::new(),
            fed: HashMap::new(),
            forks: 0,
            budget: BUDGET,
            steps,
        }
    }

    fn connection(&mut self, sources: &Sources) -> Vec<Class> {
        let start = Class { sources: sources.clone(), state: State::default(), doubt: Doubt::default() };
        let asked = self.request(Leg::Syn, vec![start]);
        let answered = self.answer(Leg::SynAck, asked.into_iter().map(|c| next_packet(c, Leg::SynAck)).collect());
        let mut going = self.exchange(answered.into_iter().map(|c| next_packet(c, Leg::Ack)).collect());
        // A connection mark that an established packet sets is there when the next one comes.
        for _ in 0..if self.marks_connections() { EXCHANGES } else { 0 } {
            let again: Vec<Class> = going.iter().map(|c| next_packet(c.clone(), Leg::Data)).collect();
            let next = self.exchange(again);
            let known = |new: &Class| {
                going.iter().any(|c| c.state.ct_mark == new.state.ct_mark && c.sources.covers(&new.sources))
            };
            let settled = next.iter().all(known);
            going = next;
            if settled {
                break;
            }
        }
        going
    }

    /// Whether any rule sets a connection mark.
    fn marks_connections(&self) -> bool {
        let rules = self.picture.tables.iter().flat_map(|t| t.chains.values()).flat_map(|c| &c.rules);
        let sets = |p: &Part| matches!(p, Part::SetMark(set) if set.to == Field::CtMark);
        rules.flat_map(|r| &r.parts).any(sets)
    }

    /// A packet of the client's and one of the server's, once they know each other.
    fn exchange(&mut self, classes: Vec<Class>) -> Vec<Class> {
        let followed = self.request(Leg::Ack, classes);
        self.answer(Leg::Data, followed.into_iter().map(|c| next_packet(c, Leg::Data)).collect())
    }

    /// From the client to the server: to this host, or through it to where a DNAT sends it.
    fn request(&mut self, leg: Leg, classes: Vec<Class>) -> Vec<Class> {
        let wire = Some(self.probe.interface.as_str());
        let arrived = self.hooks(leg, &[Hook::Ingress, Hook::Prerouting], (wire, Some("")), classes);
        let mut through = Vec::new();
        for (next_hop, classes) in self.routed(arrived) {
            through.extend(match next_hop {
                NextHop::Here => self.hooks(leg, &[Hook::Input], (wire, Some("")), classes),
                NextHop::By(oif) => {
                    self.hooks(leg, &[Hook::Forward, Hook::Postrouting, Hook::Egress], (wire, oif), classes)
                }
                NextHop::Nowhere(why) => {
                    self.astray(leg, classes, why);
                    Vec::new()
                }
            });
        }
        merge(through)
    }

    /// What the server sends.
    fn answer(&mut self, leg: Leg, classes: Vec<Class>) -> Vec<Class> {
        let wire = Some(self.probe.interface.as_str());
        let mut through = Vec::new();
        let classes = self.without_dead_ends(leg, classes);
        for (next_hop, classes) in self.routed(classes) {
            let (iif, classes) = match next_hop {
                NextHop::Nowhere(why) => {
                    self.astray(leg, classes, why);
                    continue;
                }
                NextHop::Here => (Some(""), self.hooks(leg, &[Hook::Output], (Some(""), wire), classes)),
                NextHop::By(iif) => {
                    let inside = self.hooks(leg, &[Hook::Ingress, Hook::Prerouting], (iif, Some("")), classes);
                    (iif, self.hooks(leg, &[Hook::Forward], (iif, wire), inside))
                }
            };
            through.extend(self.hooks(leg, &[Hook::Postrouting, Hook::Egress], (iif, wire), classes));
        }
        merge(through)
    }

    /// Ends classes whose packets the kernel's routes take somewhere that can't be followed, or nowhere.
    fn astray(&mut self, leg: Leg, classes: Vec<Class>, why: &str) {
        let by = self.obstacles.len();
        self.obstacles.push(Obstacle { leg, place: None, effect: Effect::Puzzle(why.to_owned()) });
        let ended = |c: Class| Ended { sources: c.sources, doubt: c.doubt, by, refused: false };
        self.ended.extend(classes.into_iter().map(ended));
    }

    /// Takes out those whose answers meet a route that leads nowhere (`ip route add unreachable …`).
    fn without_dead_ends(&mut self, leg: Leg, classes: Vec<Class>) -> Vec<Class> {
        let (facts, probe) = (self.facts, self.probe);
        let of_family = |net: &IpNet| net.addr().is_ipv4() == probe.to.is_ipv4();
        let mut classes = classes;
        for (net, words) in facts.dead_ends.iter().filter(|(net, _)| of_family(net)) {
            let dead = Sources::from(net);
            let met: Vec<Class> = classes.iter().map(|c| c.with(c.sources.intersect(&dead))).collect();
            if met.iter().any(|c| !c.sources.is_empty()) {
                classes = classes.iter().map(|c| c.with(c.sources.minus(&dead))).collect();
                self.astray(leg, merge(met), words);
            }
        }
        merge(classes)
    }

    /// Classes by where their packets go.
    fn routed(&self, classes: Vec<Class>) -> Vec<(NextHop<'a>, Vec<Class>)> {
        let mut ways: Vec<(NextHop<'a>, Vec<Class>)> = Vec::new();
        for class in classes {
            let to = class.state.dnat.map_or(self.probe.to, |(address, _)| address);
            let hop = if to.is_loopback() && !self.probe.to.is_loopback() {
                // Only the sysctl route_localnet lets in what was sent there from outside.
                NextHop::Nowhere("a translation to a loopback address")
            } else if self.facts.is_local(to) {
                NextHop::Here
            } else if !self.facts.forwards(self.probe.family()) {
                NextHop::Nowhere("an address of another host, while forwarding is switched off")
            } else {
                NextHop::By(self.facts.towards(to).map(|i| i.name.as_str()))
            };
            match ways.iter_mut().find(|(h, _)| *h == hop) {
                Some((_, same)) => same.push(class),
                None => ways.push((hop, vec![class])),
            }
        }
        ways
    }

    /// Through some hooks in turn, and on each through its base chains in the order of their priorities.
    fn hooks(&mut self, leg: Leg, hooks: &[Hook], (iif, oif): (Name<'a>, Name<'a>), classes: Vec<Class>) -> Vec<Class> {
        let (picture, facts, probe) = (self.picture, self.facts, self.probe);
        let mut classes = classes;
        for &hook in hooks {
            let device = if hook == Hook::Egress { oif } else { iif };
            for seat in seats(picture, probe, hook, device) {
                if classes.is_empty() {
                    return classes;
                }
                let spot = Spot { probe, facts, leg, hook, priority: seat.priority, iif, oif };
                let Seat { table, name, base, chain, .. } = seat;
                let at = At { spot, table, base: name, kind: base.kind, chain: name, depth: 0 };
                if base.kind == ChainKind::Nat {
                    let (unsure, known): (Vec<_>, Vec<_>) =
                        classes.into_iter().partition(|c| chain_acts(base, chain) && spot.is_unsure(&c.state));
                    unsure.into_iter().for_each(|c| self.taken_up(at, c));
                    classes = known;
                    // Only the first packet of a tracked connection that no other chain of this hook has translated.
                    let sees = |c: &Class| leg == Leg::Syn && !c.state.untracked && !translated(hook, &c.state);
                    let (sees, passes): (Vec<_>, Vec<_>) = classes.into_iter().partition(sees);
                    classes = self.base_chain(at, chain, base.drops, sees);
                    classes.extend(passes);
                } else {
                    classes = self.base_chain(at, chain, base.drops, classes);
                }
            }
        }
        classes
    }
}

/// Whether a base chain does anything at all: iptables' own are there also when they are empty.
fn chain_acts(base: &Base, chain: &Chain) -> bool {
    base.drops || !chain.rules.is_empty()
}

/// Where a packet goes after prerouting.
#[derive(Debug, Clone, Copy, PartialEq)]
enum NextHop<'a> {
    /// To a process of this host.
    Here,
    /// On, by this interface.
    By(Name<'a>),
    /// Where it can't be followed, and why.
    Nowhere(&'static str),
}

/// What the connection's next packet takes over from the one before: nothing but what conntrack remembers.
fn next_packet(class: Class, leg: Leg) -> Class {
    let was = class.state;
    let untracked_before = match leg {
        Leg::SynAck => (was.untracked, false),
        Leg::Ack => (was.untracked_before.0, was.untracked),
        // Whether the client's second packet was tracked changes nothing any more.
        Leg::Syn | Leg::Data => was.untracked_before,
    };
    Class { state: State { mark: Known::Is(0), untracked: false, untracked_before, ..was }, ..class }
}

/// Whether a connection has got its translation of the kind that this hook makes.
fn translated(hook: Hook, state: &State) -> bool {
    match hook {
        Hook::Prerouting | Hook::Output => state.dnat.is_some(),
        _ => state.snat,
    }
}

/// A base chain in its place among those of a hook.
struct Seat<'a> {
    table: &'a Table,
    name: &'a str,
    base: &'a Base,
    chain: &'a Chain,
    priority: i32,
}

/// The base chains that a packet meets on a hook, in order.
fn seats<'a>(picture: &'a Picture, probe: &Probe, hook: Hook, device: Name<'_>) -> Vec<Seat<'a>> {
    let by_device = matches!(hook, Hook::Ingress | Hook::Egress);
    let mut seats = Vec::new();
    // Of two at the same priority the one that was registered later comes first (nf_hook_entries_grow): seen with nft 1.0.6
    // on Linux 6.18. Tables are printed in the order in which they were made.
    for table in picture.tables.iter().rev().filter(|t| !t.dormant) {
        if !(table.family.carries(probe.family()) || by_device && table.family == TableFamily::NETDEV) {
            continue;
        }
        for (name, (base, chain)) in table.base_chains() {
            let here = !by_device || device.is_none_or(|d| base.devices.iter().any(|p| fits(p, d)));
            if base.hook != hook || !here {
                continue;
            }
            // All NAT chains of a hook run from one place, whatever their own priority, which orders them there
            // (nf_nat_core.c).
            let priority = match (base.kind, hook) {
                (ChainKind::Nat, Hook::Prerouting | Hook::Output) => NAT_DST,
                (ChainKind::Nat, _) => NAT_SRC,
                _ => base.priority,
            };
            seats.push(Seat { table, name, base, chain, priority });
        }
    }
    // The sort is stable. Chains of netdev and inet tables on one device are in one list.
    seats.sort_by_key(|s| (s.priority, s.base.priority));
    seats
}
