//! The chain `ufw-user-input` in the kernel: which of its rules are ours, and how to change only those.
//!
//! Belongs here: telling ours from others, and the restore script between two states. Does not: the rest of ufw's
//! chains, which are ufw's.
//!
//! The kernel's rules carry no comment: ufw keeps comments in its file only. So a rule is ours if the file has, or is
//! to have, a rule of ours that reads the same, as far as the file has none of others that does.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use ipnet::IpNet;

use super::{
    rule::{Allow, Placed, chain, prefix, protocol_named},
    tuple::{Scope, port_ranges},
};
use crate::allowlist::Family;

/// The chain, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// What is ours, in order.
    pub ours: Vec<Placed>,
    /// What each rule of others turns away, perhaps.
    pub foreign: Vec<Option<Scope>>,
}

impl Live {
    /// Takes the chain apart, with the rules that may be ours, and those that others have in the file and that read
    /// like ours.
    #[must_use]
    pub fn of<'a>(
        rules: &[Vec<String>],
        family: Family,
        ours: impl IntoIterator<Item = &'a Allow>,
        alike: &[Allow],
    ) -> Self {
        let read: Vec<Option<Allow>> = rules.iter().map(|r| Allow::read(r, family)).collect();
        // How many of each may be ours: those that are there, without those that others have in the file.
        let mut left: BTreeMap<&Allow, (usize, usize)> = BTreeMap::new();
        for rule in ours {
            left.entry(rule).or_default().0 += 1;
        }
        for rule in read.iter().flatten() {
            if let Some((_, there)) = left.get_mut(rule) {
                *there += 1;
            }
        }
        for rule in alike {
            if let Some((_, there)) = left.get_mut(rule) {
                *there = there.saturating_sub(1);
            }
        }
        let mut out = Self::default();
        for (words, rule) in rules.iter().zip(&read) {
            let mine = rule.as_ref().and_then(|r| Some((r, left.get_mut(r)?)));
            match mine {
                // The first ones: ours go to the front.
                Some((rule, (wanted, there))) if *wanted > 0 && *there > 0 => {
                    (*wanted, *there) = (*wanted - 1, *there - 1);
                    out.ours.push(Placed { after: out.foreign.len(), rule: rule.clone() });
                }
                _ => out.foreign.push(refuses(words, family)),
            }
        }
        out
    }

    /// Whether a rule of others before this place turns away some of what the rule lets in.
    #[must_use]
    pub fn refused_before(&self, after: usize, rule: &Allow) -> bool {
        self.foreign.iter().take(after).flatten().any(|scope| scope.touches_any(rule))
    }
}

/// What a rule of the kernel's turns away, perhaps. What isn't known to be harmless counts as a refusal: then ours
/// goes before it, which does no harm.
fn refuses(words: &[String], family: Family) -> Option<Scope> {
    let value = |name: &str| words.windows(2).find(|w| w[0] == name).map(|w| w[1].as_str());
    let ufw = prefix(family);
    match value("-j").or_else(|| value("-g"))? {
        "ACCEPT" | "LOG" | "NFLOG" => return None,
        t if t == format!("{ufw}-user-logging-input") || t == format!("{ufw}-user-limit-accept") => return None,
        _ => {}
    }
    let protocol = match value("-p") {
        None | Some("all") => None,
        Some(other) => Some(protocol_named(other)),
    };
    let negated = words.iter().any(|w| w == "!");
    if negated {
        return Some(Scope { from: None, protocol: None, ports: None });
    }
    let protocol = match protocol {
        // Another protocol than ours ever have.
        Some(None) => return None,
        Some(known) => known,
        None => None,
    };
    let from = value("-s").and_then(|s| s.parse::<IpNet>().ok());
    let ports = value("--dport").or_else(|| value("--dports")).and_then(port_ranges);
    Some(Scope { from, protocol, ports })
}

/// The places as they can be in a chain with so many rules of others.
#[must_use]
pub fn within(placed: &[Placed], foreign: usize) -> Vec<Placed> {
    placed.iter().map(|p| Placed { after: p.after.min(foreign), rule: p.rule.clone() }).collect()
}

/// The restore script (for `--noflush`) from one state of ours to another, in one transaction; `None` if they are
/// the same. `from` says how many rules of others there are, and both must be in order.
#[must_use]
pub fn script(from: &Live, to: &[Placed], family: Family) -> Option<String> {
    if from.ours == to {
        return None;
    }
    let (name, mut out) = (chain(family), String::from("*filter\n"));
    let stays = staying(&from.ours, to);
    for (placed, _) in from.ours.iter().zip(&stays.0).filter(|(_, stays)| !**stays) {
        // The first rule that reads so: ours are the first of their kind (see `Live::of`).
        let _ = writeln!(out, "-D {name} {}", placed.rule.rule());
    }
    for (index, (placed, stays)) in to.iter().zip(&stays.1).enumerate() {
        if !stays {
            // Ascending, so that everything before it is in its place.
            let _ = writeln!(out, "-I {name} {} {}", placed.after + index + 1, placed.rule.rule());
        }
    }
    out.push_str("COMMIT\n");
    Some(out)
}

/// Which of either list needn't be touched: those in both, if both have them in the same order.
fn staying(a: &[Placed], b: &[Placed]) -> (Vec<bool>, Vec<bool>) {
    let (in_a, in_b): (HashSet<&Placed>, HashSet<&Placed>) = (a.iter().collect(), b.iter().collect());
    if a.iter().filter(|p| in_b.contains(p)).eq(b.iter().filter(|p| in_a.contains(p))) {
        (a.iter().map(|p| in_b.contains(p)).collect(), b.iter().map(|p| in_a.contains(p)).collect())
    } else {
        (vec![false; a.len()], vec![false; b.len()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{backends::iptables::save::split_words, plan::Protocol};

    fn allow(n: u8) -> Allow {
        Allow { from: format!("{n}.0.0.0/8").parse().unwrap(), protocol: Protocol::Tcp, ports: vec![80, 443] }
    }

    fn placed(after: usize, n: u8) -> Placed {
        Placed { after, rule: allow(n) }
    }

    fn words(lines: &[&str]) -> Vec<Vec<String>> {
        lines.iter().map(|l| split_words(l)).collect()
    }

    #[test]
    fn the_administrators_rule_that_reads_like_ours_stays_his() {
        let one = "-s 1.0.0.0/8 -p tcp -m multiport --dports 80,443 -j ACCEPT";
        let drop = "-p tcp -m tcp --dport 443 -j DROP";
        let ours = [placed(0, 1)];
        let both = Live::of(&words(&[one, drop, one]), Family::V4, [&allow(1)], &[allow(1)]);
        assert_eq!((both.ours.as_slice(), both.foreign.len()), (&ours[..], 2));
        let his_alone = Live::of(&words(&[drop, one]), Family::V4, [&allow(1)], &[allow(1)]);
        assert!(his_alone.ours.is_empty());
        let displaced = Live::of(&words(&[drop, one]), Family::V4, [&allow(1)], &[]);
        assert!(displaced.refused_before(displaced.ours[0].after, &allow(1)));
        assert_eq!(
            script(&displaced, &ours, Family::V4).unwrap(),
            "*filter\n-D ufw-user-input -p tcp -m multiport --dports 80,443 -s 1.0.0.0/8 -j ACCEPT\n\
             -I ufw-user-input 1 -p tcp -m multiport --dports 80,443 -s 1.0.0.0/8 -j ACCEPT\nCOMMIT\n"
        );
        assert_eq!(script(&both, &ours, Family::V4), None);
    }

    #[test]
    fn what_turns_away_is_known() {
        let refuses = |line: &str| {
            let live = Live::of(&words(&[line]), Family::V4, [], &[]);
            live.refused_before(1, &allow(1))
        };
        for line in [
            "-p tcp -m tcp --dport 443 -j DROP",
            "-s 1.2.3.4/32 -j REJECT --reject-with icmp-port-unreachable",
            "-p tcp -m tcp --dport 80 -m recent --update -j ufw-user-limit",
            "! -s 2.0.0.0/8 -j DROP",
            "-j his-own-chain",
            "-j RETURN",
            "-p tcp -m multiport --dports 400:500 -j DROP",
        ] {
            assert!(refuses(line), "{line}");
        }
        for line in [
            "-p tcp -m tcp --dport 22 -j DROP",
            "-p udp -m udp --dport 443 -j DROP",
            "-p icmp -j DROP",
            "-s 2.0.0.0/8 -j DROP",
            "-p tcp -m tcp --dport 443 -j ACCEPT",
            "-s 1.0.0.0/8 -j ufw-user-logging-input",
            "-p tcp -m tcp --dport 80 -m recent --set --name DEFAULT",
            "-p tcp -m tcp --dport 80 -j ufw-user-limit-accept",
        ] {
            assert!(!refuses(line), "{line}");
        }
    }

    /// What iptables-restore does with a script of ours to a chain of these rules.
    fn run(chain: &mut Vec<Vec<String>>, script: &str) {
        for line in script.lines() {
            let words = split_words(line);
            match words.first().map(String::as_str) {
                Some("-D") => {
                    let spec = Allow::read(&words[2..], Family::V4).unwrap();
                    let at = chain.iter().position(|r| Allow::read(r, Family::V4).as_ref() == Some(&spec)).unwrap();
                    chain.remove(at);
                }
                Some("-I") => {
                    let at = words[2].parse::<usize>().unwrap() - 1;
                    chain.insert(at, words[3..].to_vec());
                }
                _ => assert!(matches!(line, "*filter" | "COMMIT"), "{line}"),
            }
        }
    }

    fn places() -> impl Strategy<Value = Vec<Placed>> {
        proptest::collection::btree_map(1_u8..8, 0_usize..5, 0..7).prop_map(|m| {
            let mut all: Vec<_> = m.into_iter().map(|(n, after)| placed(after, n)).collect();
            all.sort_by_key(|p| p.after);
            all
        })
    }

    proptest! {
        #[test]
        fn a_script_leads_where_it_should(from in places(), to in places(), foreign in 0_usize..5) {
            let (from, to) = (within(&from, foreign), within(&to, foreign));
            let his: Vec<_> = (0..foreign).map(|i| split_words(&format!("-s 9.9.9.{i}/32 -j DROP"))).collect();
            let mut chain = his.clone();
            for (i, p) in from.iter().enumerate() {
                chain.insert(p.after + i, split_words(&p.rule.rule()));
            }
            let live = Live::of(&chain, Family::V4, from.iter().map(|p| &p.rule), &[]);
            prop_assert_eq!(&live.ours, &from);
            if let Some(script) = script(&live, &to, Family::V4) {
                run(&mut chain, &script);
            }
            let after = Live::of(&chain, Family::V4, to.iter().map(|p| &p.rule), &[]);
            prop_assert_eq!(&after.ours, &to);
            chain.retain(|r| Allow::read(r, Family::V4).is_none());
            prop_assert_eq!(chain, his);
        }
    }
}
