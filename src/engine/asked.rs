//! Verdicts as a report: what was asked, what came of it, and what a culprit catches in the words of the list.
//!
//! Belongs here: putting answers together. Does not: asking ([`super::verify`]), finding them ([`crate::reach`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{picture, verify::Ask};
use crate::{
    allowlist::Family,
    plan::{Desired, Protocol},
    reach::{
        Effect, Facts, Judged, Judgement, Leg, Picture, Place, Probe, Sources, Step, model::Language, owner,
        sources as numbers, walk,
    },
    report::{CaughtReport, CulpritReport, PartReport, PlaceReport, QuestionReport, ReachVerdict, StepReport},
};

/// The ranges that are asked about.
pub(super) struct Asked {
    v4: (Vec<IpNet>, Sources),
    v6: (Vec<IpNet>, Sources),
}

/// What a culprit catches of a question.
pub(super) struct Caught<'a> {
    pub probe: &'a Probe,
    pub sources: Sources,
}

/// Ports, and the sources if it isn't all of them: what addresses of this host have in common.
type Alike = (Vec<(u16, Protocol)>, Option<(Family, Sources)>);

impl Asked {
    pub(super) fn new(want: &Desired, ask: &Ask) -> Self {
        let of = |family| match ask.address {
            Some(address) if address.is_ipv4() == (family == Family::V4) => {
                (vec![IpNet::from(address)], Sources::one(numbers::number(address)))
            }
            Some(_) => Default::default(),
            None => (want.prefixes.family(family).collect(), picture::sources(&want.prefixes, family)),
        };
        Self { v4: of(Family::V4), v6: of(Family::V6) }
    }

    const fn of(&self, family: Family) -> &(Vec<IpNet>, Sources) {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(super) fn judge(&self, picture: &Picture, facts: &Facts, probe: &Probe) -> Vec<Judged> {
        walk::judge(picture, facts, probe, &self.of(probe.family()).1)
    }

    pub(super) fn question(&self, probe: &Probe, judged: &[Judged]) -> QuestionReport {
        let (ranges, all) = self.of(probe.family());
        let mut accepted = Sources::default();
        let mut judgement = ReachVerdict::Accepted;
        let mut told = Sources::default();
        for j in judged.iter().filter(|j| !j.sources.is_empty()) {
            told = told.union(&j.sources);
            judgement = judgement.max(verdict(&j.judgement));
            if j.judgement == Judgement::Accepted {
                accepted = accepted.union(&j.sources);
            }
        }
        // What no verdict was given on is not accepted.
        if !told.covers(all) {
            judgement = judgement.max(ReachVerdict::Unknown);
        }
        QuestionReport {
            to: probe.to.to_string(),
            port: probe.port,
            protocol: probe.protocol.as_str(),
            interface: probe.interface.clone(),
            verdict: judgement,
            ranges: ranges.len(),
            accepted: ranges.iter().filter(|net| accepted.holds(net)).count(),
        }
    }

    pub(super) fn culprit(
        &self,
        picture: &Picture,
        judgement: &Judgement,
        caught: &[Caught<'_>],
        synced: &BTreeSet<&str>,
    ) -> Option<CulpritReport> {
        let obstacle = judgement.obstacle()?;
        let tool = obstacle.place.as_ref().map(|place| owner::owner(place, picture));
        let mend = match (&obstacle.place, &tool) {
            (Some(place), Some(tool)) => {
                let nets: BTreeSet<IpNet> =
                    caught.iter().flat_map(|c| c.sources.prefixes(c.probe.family())).take(64).collect();
                let nets: Vec<IpNet> = nets.into_iter().collect();
                let refused = matches!(judgement, Judgement::Refused(_));
                let lifted = refused.then(|| owner::lifts(place, picture, tool, &nets)).flatten();
                let mut mend = Vec::from_iter(lifted);
                let ports = caught.iter().map(|c| c.probe.port).collect();
                mend.extend(owner::mend(place, obstacle.leg, tool, (&nets, &ports), synced));
                mend
            }
            _ => vec![],
        };
        let (effect, detail) = match &obstacle.effect {
            Effect::Drop => ("drop", None),
            Effect::Reject(with) => ("reject", Some(with.clone())),
            Effect::Rate { rate, .. } => ("rate", Some(rate.clone())),
            Effect::Puzzle(what) => ("puzzle", Some(what.clone())),
        };
        Some(CulpritReport {
            verdict: verdict(judgement),
            tool: tool.as_ref().map(owner::Tool::id),
            name: tool.map(|t| t.to_string()),
            effect,
            detail,
            packet: packet(obstacle.leg),
            place: obstacle.place.as_ref().map(place),
            cloudflare_error: obstacle.cloudflare_error(),
            catches: self.catches(caught),
            mend,
        })
    }

    /// What is caught, with ports and addresses put together where the same sources are.
    fn catches(&self, caught: &[Caught<'_>]) -> Vec<CaughtReport> {
        // Several base chains may lead one question to the same rule.
        let mut of_probe: BTreeMap<(IpAddr, u16, Protocol), Sources> = BTreeMap::new();
        for Caught { probe, sources } in caught {
            let all = of_probe.entry((probe.to, probe.port, probe.protocol)).or_default();
            *all = all.union(sources);
        }
        let mut ports: BTreeMap<(IpAddr, Sources), Vec<(u16, Protocol)>> = BTreeMap::new();
        for ((to, port, protocol), sources) in of_probe {
            ports.entry((to, sources)).or_default().push((port, protocol));
        }
        let mut groups: BTreeMap<Alike, Vec<IpAddr>> = BTreeMap::new();
        for ((to, sources), ports) in ports {
            let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
            let some = Some((family, sources)).filter(|(f, s)| !s.covers(&self.of(*f).1));
            groups.entry((ports, some)).or_default().push(to);
        }
        let report = |((ports, some), to): (Alike, Vec<IpAddr>)| {
            let has = |family| to.iter().any(|ip| ip.is_ipv4() == (family == Family::V4));
            let all = some.is_none();
            let ranges = some.as_ref().map(|(family, sources)| self.ranges(*family, sources)).unwrap_or_default();
            let parts = match &some {
                Some((family, sources)) => self.parts(*family, sources),
                None => {
                    Family::BOTH.into_iter().filter(|f| has(*f)).flat_map(|f| self.parts(f, &self.of(f).1)).collect()
                }
            };
            let except = some.map(|(family, sources)| self.of(family).1.minus(&sources).prefixes(family));
            let except = except.filter(|e| e.len() * 3 < ranges.len()).unwrap_or_default();
            CaughtReport {
                ports: ports.iter().map(|(n, p)| format!("{n}/{}", p.as_str())).collect(),
                all,
                asked: Family::BOTH.into_iter().filter(|f| has(*f)).map(|f| self.of(f).0.len()).sum(),
                ranges,
                except: except.iter().map(ToString::to_string).collect(),
                parts,
                to: to.iter().map(ToString::to_string).collect(),
            }
        };
        groups.into_iter().map(report).collect()
    }

    /// The same, with what is not caught of a range where that is shorter to say.
    fn parts(&self, family: Family, sources: &Sources) -> Vec<PartReport> {
        let words = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut parts = Vec::new();
        for net in &self.of(family).0 {
            let whole = Sources::from(net);
            let part = sources.intersect(&whole);
            let pieces = words(part.prefixes(family));
            let except = words(whole.minus(&part).prefixes(family));
            if except.len() + 1 < pieces.len() || except.is_empty() {
                parts.push(PartReport { range: net.to_string(), except });
            } else {
                parts.extend(pieces.into_iter().map(|range| PartReport { range, except: vec![] }));
            }
        }
        parts
    }

    /// Published ranges where they are caught whole, else the parts of them.
    fn ranges(&self, family: Family, sources: &Sources) -> Vec<String> {
        let mut words = Vec::new();
        for net in &self.of(family).0 {
            let whole = Sources::from(net);
            let part = sources.intersect(&whole);
            if part == whole {
                words.push(net.to_string());
            } else {
                words.extend(part.prefixes(family).iter().map(ToString::to_string));
            }
        }
        words
    }
}

pub(super) const fn verdict(judgement: &Judgement) -> ReachVerdict {
    match judgement {
        Judgement::Accepted => ReachVerdict::Accepted,
        Judgement::Throttled(_) => ReachVerdict::Throttled,
        Judgement::Unknown(_) => ReachVerdict::Unknown,
        Judgement::Refused(_) => ReachVerdict::Refused,
    }
}

pub(super) const fn place_of(judgement: &mut Judgement) -> Option<&mut Place> {
    match judgement {
        Judgement::Accepted => None,
        Judgement::Throttled(o) | Judgement::Unknown(o) | Judgement::Refused(o) => o.place.as_mut(),
    }
}

const fn packet(leg: Leg) -> &'static str {
    match leg {
        Leg::Syn => "request",
        Leg::SynAck => "answer",
        Leg::Ack => "after",
        Leg::Data => "data",
    }
}

fn place(p: &Place) -> PlaceReport {
    PlaceReport {
        language: match p.language {
            Language::Nft => "nftables",
            Language::IptablesNft => "iptables",
            Language::IptablesLegacy => "iptables-legacy",
        },
        hook: p.hook.as_str(),
        family: p.family.as_str().to_owned(),
        table: p.table.clone(),
        chain: p.chain.clone(),
        base: p.base.clone(),
        position: p.position,
        handle: p.handle,
        text: p.text.clone(),
        comment: p.comment.clone(),
        sets: p.sets.clone(),
    }
}

pub(super) fn step(s: &Step) -> StepReport {
    StepReport {
        packet: packet(s.leg),
        depth: s.depth,
        place: place(&s.place),
        matched: s.matched,
        outcome: s.outcome.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allowlist::Prefixes;

    fn asked(ask: &Ask) -> Asked {
        let v6 = ["2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32"];
        let prefixes = Prefixes::new(
            vec!["173.245.48.0/20".parse().unwrap()],
            v6.iter().map(|net| net.parse().unwrap()).collect(),
        );
        let want = Desired { prefixes: prefixes.into(), ports: [443].into(), protocols: [Protocol::Tcp].into() };
        Asked::new(&want, ask)
    }

    fn caught(asked: &Asked, to: &str, sources: Sources) -> CaughtReport {
        let probe = Probe {
            to: to.parse().unwrap(),
            port: 443,
            protocol: Protocol::Tcp,
            interface: "eth0".into(),
            way_back: true,
        };
        asked.catches(&[Caught { probe: &probe, sources }]).remove(0)
    }

    fn of(nets: &[&str]) -> Sources {
        Sources::new(nets.iter().map(|net| numbers::bounds(&net.parse().unwrap())).collect())
    }

    fn said(caught: &CaughtReport) -> Vec<String> {
        caught.parts.iter().map(|p| format!("{} but {:?}", p.range, p.except)).collect()
    }

    #[test]
    fn a_range_but_one_address_is_said_as_such() {
        let asked = asked(&Ask::default());
        let most = of(&["2400:cb00::/32"]).minus(&of(&["2400:cb00::9/128"]));
        let report = caught(&asked, "2001:db8::1", most);
        assert_eq!(said(&report), [r#"2400:cb00::/32 but ["2400:cb00::9/128"]"#]);
        assert_eq!(report.ranges.len(), 96, "programs are told every piece");
        let some = of(&["2400:cb00::9/128", "2606:4700::/32"]);
        assert_eq!(said(&caught(&asked, "2001:db8::1", some)), ["2400:cb00::9/128 but []", "2606:4700::/32 but []"]);
    }

    #[test]
    fn a_single_address_is_named_also_where_it_is_all_that_was_asked() {
        let address = "173.245.48.29".parse().unwrap();
        let asked = asked(&Ask { address: Some(address), ..Ask::default() });
        let report = caught(&asked, "192.0.2.1", Sources::one(numbers::number(address)));
        assert!(report.all && report.ranges.is_empty());
        assert_eq!(said(&report), ["173.245.48.29/32 but []"]);
    }
}
