//! CSF's chains ALLOWIN and ALLOWOUT, live or in what CSF saved when it stopped.
//!
//! Belongs here: whether CSF is loaded in a table, what of our form is in its chains, and the restore script that puts
//! that right. Does not: which rules are ours ([`super::seen`]), which are wanted ([`super::steps`]).
//!
//! The rules carry no comment: they are exactly those that CSF makes of our lines when it starts, so that live and
//! stored are the same thing, and a start of CSF leaves nothing to do. What is ours follows from the files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::line::{Allow, Shape, Way};
use crate::{
    allowlist::Family,
    backends::iptables::save::{Filter, quote},
};

/// Targets in ALLOWIN and ALLOWOUT that don't keep a packet from the rules behind them, or let it in.
const HARMLESS: [&str; 4] = ["ACCEPT", "LOGACCEPT", "LOG", "NFLOG"];

/// How often a rule is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Where it has effect.
    pub good: usize,
    /// Behind a rule of somebody else's that may turn the packet away first.
    pub late: usize,
}

/// CSF's chains in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chains {
    /// How CSF writes its rules here.
    pub shape: Shape,
    /// The rules of our form, whosever they are.
    pub rules: BTreeMap<Allow, Count>,
}

impl Chains {
    /// Reads a filter table; `None` if CSF isn't loaded in it.
    #[must_use]
    pub fn read(filter: &Filter) -> Option<Self> {
        let chain = |name: &str| filter.chains.get(name).map(|c| c.rules.as_slice());
        let hooked = chain("INPUT")?.iter().any(|r| leads_to(r, "LOCALINPUT"));
        let (local, _, _) = (chain("LOCALINPUT")?, chain("ALLOWIN")?, chain("ALLOWOUT")?);
        if !hooked {
            return None;
        }
        // The jump carries the device as CSF understood ETH_DEVICE when it was started, which is what counts: the
        // file may have been edited since. LOGACCEPT is only made in WATCH_MODE.
        let jump = local.iter().find(|r| leads_to(r, "ALLOWIN"))?;
        let device = jump.windows(2).enumerate().find(|(_, w)| w[0] == "-i");
        let negated = device.is_some_and(|(at, _)| at > 0 && jump[at - 1] == "!");
        let device = device.filter(|_| !negated).map(|(_, w)| w[1].clone());
        let accept = if filter.chains.contains_key("LOGACCEPT") { "LOGACCEPT" } else { "ACCEPT" };
        let shape = Shape { device, accept };
        let mut rules: BTreeMap<Allow, Count> = BTreeMap::new();
        for way in Way::BOTH {
            let mut late = false;
            for rule in chain(way.chain()).unwrap_or_default() {
                if let Some(allow) = Allow::of_rule(rule, way, &shape) {
                    let count = rules.entry(allow).or_default();
                    *if late { &mut count.late } else { &mut count.good } += 1;
                } else {
                    late |= target(rule).is_some_and(|t| !HARMLESS.contains(&t));
                }
            }
        }
        Some(Self { shape, rules })
    }

    /// How often a rule is there at all.
    #[must_use]
    pub fn count(&self, allow: &Allow) -> usize {
        self.rules.get(allow).map_or(0, |c| c.good + c.late)
    }
}

/// What has to be done in one table: rules to put in, and rules to take out, each as often as it stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// To be put in, first in their chain.
    pub put: Vec<Allow>,
    /// To be taken out.
    pub take: Vec<Allow>,
}

/// Compares a table's chains with what should be ours in them.
///
/// `ours` are the rules that are ours to take out; `his` says how often one of the same form follows from entries of
/// the administrator's, which stay.
#[must_use]
pub fn difference(
    family: Family,
    chains: &Chains,
    ours: &BTreeSet<Allow>,
    wanted: &BTreeSet<Allow>,
    his: &BTreeMap<Allow, usize>,
) -> Difference {
    let mut out = Difference::default();
    for allow in ours.union(wanted).filter(|a| a.family() == family) {
        let seen = chains.rules.get(allow).copied().unwrap_or_default();
        let goal = usize::from(wanted.contains(allow)) + his.get(allow).copied().unwrap_or(0);
        let misplaced = seen.late > 0 && wanted.contains(allow);
        let kept = if misplaced { 0 } else { seen.good + seen.late };
        let take = if misplaced { seen.good + seen.late } else { kept.saturating_sub(goal) };
        out.take.extend(std::iter::repeat_n(allow.clone(), take));
        out.put.extend(std::iter::repeat_n(allow.clone(), goal.saturating_sub(kept)));
    }
    out
}

impl Difference {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.take.is_empty()
    }

    /// The restore script (for `--noflush`): one transaction.
    #[must_use]
    pub fn script(&self, shape: &Shape) -> String {
        let mut out = "*filter\n".to_owned();
        let mut lines = |verb: &str, allow: &Allow| {
            let words: Vec<_> = allow.rule(shape).split(' ').map(quote).collect();
            let _ = writeln!(out, "{verb} {} {}", allow.way.chain(), words.join(" "));
        };
        self.take.iter().for_each(|a| lines("-D", a));
        // As CSF does: each goes first, so the last one put in stands first.
        self.put.iter().rev().for_each(|a| lines("-I", a));
        out + "COMMIT\n"
    }
}

fn target(rule: &[String]) -> Option<&str> {
    rule.windows(2).find(|w| matches!(w[0].as_str(), "-j" | "-g")).map(|w| w[1].as_str())
}

fn leads_to(rule: &[String], chain: &str) -> bool {
    target(rule) == Some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::iptables::save;

    const SKELETON: &str = ":INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\n:ALLOWIN - [0:0]\n:ALLOWOUT - [0:0]\n\
        :LOCALINPUT - [0:0]\n-A INPUT ! -i lo -j LOCALINPUT\n-A LOCALINPUT ! -i lo -j ALLOWIN\n";

    fn chains(text: &str) -> Option<Chains> {
        Chains::read(&save::parse(format!("*filter\n{text}COMMIT\n").as_bytes()).filter.unwrap())
    }

    fn allow(line: &str) -> Allow {
        Allow::read(line).unwrap()
    }

    #[test]
    fn csf_is_loaded_when_its_chains_are_hooked_in() {
        assert!(chains(SKELETON).is_some());
        assert!(chains(&SKELETON.replace("-A INPUT ! -i lo -j LOCALINPUT\n", "")).is_none());
        assert!(chains(&SKELETON.replace(":ALLOWOUT - [0:0]\n", "")).is_none());
        assert!(chains(":INPUT ACCEPT [0:0]\n").is_none());
    }

    #[test]
    fn eth_device_and_watch_mode_are_taken_from_what_csf_has_loaded() {
        let plain = chains(SKELETON).unwrap().shape;
        assert_eq!(plain, Shape { device: None, accept: "ACCEPT" });
        let text = SKELETON.replace("-A LOCALINPUT ! -i lo", "-A LOCALINPUT -i eth0") + ":LOGACCEPT - [0:0]\n";
        let shape = chains(&text).unwrap().shape;
        assert_eq!(shape, Shape { device: Some("eth0".into()), accept: "LOGACCEPT" });
    }

    #[test]
    fn the_difference_counts_his_and_heals_what_is_doubled_or_late() {
        let (a, b) = (allow("tcp|in|d=80,443|s=10.0.0.0/8"), allow("tcp|out|s=80,443|d=10.0.0.0/8"));
        let rule = |a: &Allow| format!("-A {} {}\n", a.way.chain(), a.rule(&Shape { device: None, accept: "ACCEPT" }));
        let both = BTreeSet::from([a.clone(), b.clone()]);
        let none = BTreeSet::new();
        let differ = |text: String, wanted: &BTreeSet<Allow>, his: &BTreeMap<Allow, usize>| {
            difference(Family::V4, &chains(&(SKELETON.to_owned() + &text)).unwrap(), &both, wanted, his)
        };
        let nothing = BTreeMap::new();
        assert_eq!(
            differ(String::new(), &both, &nothing),
            Difference { put: vec![a.clone(), b.clone()], take: vec![] }
        );
        assert!(differ(rule(&a) + &rule(&b), &both, &nothing).is_empty());
        let doubled = differ(rule(&a) + &rule(&a) + &rule(&b), &both, &nothing);
        assert_eq!(doubled, Difference { put: vec![], take: vec![a.clone()] });
        let his = BTreeMap::from([(a.clone(), 1)]);
        assert!(differ(rule(&a) + &rule(&a) + &rule(&b), &both, &his).is_empty());
        assert_eq!(differ(rule(&a) + &rule(&a) + &rule(&b), &none, &his).take, [a.clone(), b.clone()]);
        let late = differ("-A ALLOWIN -s 10.1.0.0/16 -j DROP\n".to_owned() + &rule(&a) + &rule(&b), &both, &nothing);
        assert_eq!(late, Difference { put: vec![a.clone()], take: vec![a.clone()] });
        assert!(late.script(&Shape { device: None, accept: "ACCEPT" }).starts_with(
            "*filter\n-D ALLOWIN -s 10.0.0.0/8 ! -i lo -p tcp -m multiport --dports 80,443 -j ACCEPT\n-I ALLOWIN -s"
        ));
        // Late rules of his, when ours go, stay where they are.
        assert!(differ("-A ALLOWIN -j DROP\n".to_owned() + &rule(&a), &none, &his).is_empty());
    }
}
