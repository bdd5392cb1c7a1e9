//! An exception for Cloudflare before a rule that refuses others too: deleting that would open the port to everybody.
//!
//! Belongs here: whether a rule is about more than what it catches of the list, and the command that puts the exception
//! before it. Does not: whose the rule is, and what else may mend it (`owner`).

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    model::{Hook, Language},
    owner::{Tool, admits, bare, program},
    verdict::{Leg, Place},
};

/// Puts rules for these sources before a rule that also refuses others; nothing where it is about them alone, or no rule.
pub(super) fn before(place: &Place, leg: Leg, tool: &Tool, caught: &[IpNet], ports: &BTreeSet<u16>) -> Option<String> {
    let position = place.position?;
    if caught.is_empty() || ports.is_empty() || admits(place) || is_about(place, leg, caught) {
        return None;
    }
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    // Behind that the port may have been translated, and before it conntrack may not know the packet yet.
    let is_early = matches!(place.hook, Hook::Ingress | Hook::Prerouting);
    if place.language == Language::Nft {
        return nft(place, leg, is_early, caught, &ports);
    }
    let nets: Vec<String> = caught.iter().map(bare).collect();
    let (side, way) = if leg.is_answer() { ("-d", "REPLY") } else { ("-s", "ORIGINAL") };
    let table = if place.table == "filter" { String::new() } else { format!(" -t {}", place.table) };
    // In Docker's chain the rest of its rules still decides.
    let target = if *tool == Tool::DockerUser { "RETURN" } else { "ACCEPT" };
    let insert = |matches: &str| {
        let (program, chain, nets) = (program(place), &place.chain, nets.join(","));
        format!("{program}{table} -I {chain} {position} {side} {nets} -p tcp {matches} -j {target}")
    };
    if is_early {
        return Some(insert(&format!("-m multiport --dports {}", ports.join(","))));
    }
    let each = ports.iter().map(|port| insert(&format!("-m conntrack --ctorigdstport {port} --ctdir {way}")));
    Some(each.collect::<Vec<_>>().join(" && "))
}

fn nft(place: &Place, leg: Leg, is_early: bool, caught: &[IpNet], ports: &[String]) -> Option<String> {
    let handle = place.handle?;
    let side = if leg.is_answer() { "daddr" } else { "saddr" };
    let port = if is_early { "tcp dport" } else { "meta l4proto tcp ct original proto-dst" };
    let rules = [("ip", true), ("ip6", false)].into_iter().filter_map(|(protocol, v4)| {
        let nets: Vec<String> = caught.iter().filter(|net| net.addr().is_ipv4() == v4).map(bare).collect();
        let (family, table, chain) = (place.family.as_str(), &place.table, &place.chain);
        (!nets.is_empty()).then(|| {
            format!(
                "nft insert rule {family} {table} {chain} handle {handle} {protocol} {side} {{ {} }} {port} {{ {} }} accept",
                nets.join(", "),
                ports.join(", ")
            )
        })
    });
    Some(rules.collect::<Vec<_>>().join(" && "))
}

/// Whether all that a rule names of the other side is in what it catches of the list. What isn't known is taken for so:
/// then the rule is what stands in the way.
fn is_about(place: &Place, leg: Leg, caught: &[IpNet]) -> bool {
    let Some(text) = place.text.as_deref() else { return true };
    let words: Vec<&str> = text.split(' ').collect();
    let sides = match (place.language, leg.is_answer()) {
        (Language::Nft, false) => ["saddr", "saddr"],
        (Language::Nft, true) => ["daddr", "daddr"],
        (_, false) => ["-s", "--src-range"],
        (_, true) => ["-d", "--dst-range"],
    };
    let Some(at) = words.iter().position(|w| sides.contains(w)) else { return false };
    if at > 0 && words[at - 1] == "!" {
        return false;
    }
    let named: Vec<&str> = match words.get(at + 1) {
        Some(&"{") => words[at + 2..].iter().take_while(|w| **w != "}").map(|w| w.trim_end_matches(',')).collect(),
        Some(one) => vec![one],
        None => return false,
    };
    let within = |name: &&str| {
        let net = name.parse::<IpNet>().or_else(|_| name.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
        net.is_ok_and(|net| caught.iter().any(|of| of.contains(&net)))
    };
    !named.is_empty() && named.iter().all(within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::TableFamily;

    fn place(language: Language, hook: Hook, chain: &str, text: &str) -> Place {
        Place {
            hook,
            language,
            family: if language == Language::Nft { TableFamily::Inet } else { TableFamily::Ip },
            table: if hook == Hook::Prerouting { "raw" } else { "filter" }.into(),
            chain: chain.into(),
            base: "FORWARD".into(),
            position: Some(2),
            handle: Some(7),
            text: Some(text.into()),
            comment: None,
            sets: vec![],
        }
    }

    fn ask(place: &Place, leg: Leg, tool: &Tool) -> Option<String> {
        let caught = ["173.245.48.0/20", "104.16.0.0/13"].map(|net| net.parse().unwrap());
        before(place, leg, tool, &caught, &[80, 443].into())
    }

    fn xt(chain: &str, text: &str) -> Place {
        place(Language::IptablesNft, Hook::Forward, chain, text)
    }

    #[test]
    fn a_rule_that_keeps_others_out_too_is_left_and_cloudflare_goes_before_it() {
        let rule = "iptables -I DOCKER-USER 2 -s 173.245.48.0/20,104.16.0.0/13 -p tcp -m conntrack --ctorigdstport";
        let both = format!("{rule} 80 --ctdir ORIGINAL -j RETURN && {rule} 443 --ctdir ORIGINAL -j RETURN");
        for text in [
            "-A DOCKER-USER ! -s 198.51.100.0/24 -i s0 -j DROP",
            "-A DOCKER-USER -i s0 -j DROP",
            "-A DOCKER-USER -s 104.0.0.0/8 -j DROP",
            "-A DOCKER-USER -m set ! --match-set office src -j REJECT",
        ] {
            assert_eq!(
                ask(&xt("DOCKER-USER", text), Leg::Syn, &Tool::DockerUser).as_deref(),
                Some(both.as_str()),
                "{text}"
            );
        }
        let answer =
            ask(&xt("DOCKER-USER", "-A DOCKER-USER ! -s 198.51.100.0/24 -j DROP"), Leg::SynAck, &Tool::DockerUser);
        let answer = answer.unwrap();
        assert!(answer.contains("2 -d 173.245.48.0/20,104") && answer.contains("--ctdir REPLY -j RETURN"), "{answer}");
        let early = place(Language::IptablesNft, Hook::Prerouting, "PREROUTING", "-A PREROUTING -p tcp -j DROP");
        assert_eq!(
            ask(&early, Leg::Syn, &Tool::ByHand(early.language)).unwrap(),
            "iptables -t raw -I PREROUTING 2 -s 173.245.48.0/20,104.16.0.0/13 -p tcp -m multiport --dports 80,443 -j ACCEPT"
        );
        let nft = place(Language::Nft, Hook::Forward, "fwd", "iifname \"s0\" ip saddr != 198.51.100.0/24 drop");
        assert_eq!(
            ask(&nft, Leg::Syn, &Tool::ByHand(Language::Nft)).unwrap(),
            "nft insert rule inet filter fwd handle 7 ip saddr { 173.245.48.0/20, 104.16.0.0/13 } \
             meta l4proto tcp ct original proto-dst { 80, 443 } accept"
        );
    }

    #[test]
    fn a_rule_about_cloudflare_alone_is_no_loss() {
        let rule = xt("DOCKER-USER", "-A DOCKER-USER -s 173.245.48.0/20 -i s0 -j DROP");
        assert_eq!(ask(&rule, Leg::Syn, &Tool::DockerUser), None);
        for text in ["ip saddr 173.245.48.0/21 drop", "ip saddr { 173.245.48.0/20, 104.16.0.9 } tcp dport 443 drop"] {
            let rule = place(Language::Nft, Hook::Forward, "fwd", text);
            assert_eq!(ask(&rule, Leg::Syn, &Tool::ByHand(Language::Nft)), None, "{text}");
        }
        // A policy, and a rule that lets in.
        let policy = Place { position: None, ..rule.clone() };
        let limit = xt("FORWARD", "-A FORWARD -m limit --limit 9/sec -j ACCEPT");
        assert!([policy, limit].iter().all(|place| ask(place, Leg::Syn, &Tool::ByHand(place.language)).is_none()));
    }
}
