//! The rules that are ours: what they are, how they are written, and how they are known again.
//!
//! Belongs here: the normal form of a rule of ours and the restore script that makes it. Does not: where and when
//! ([`super::steps`], [`super::persist`]).

use std::{collections::BTreeSet, fmt::Write as _};

use ipnet::IpNet;

use super::{
    ipset::set_name,
    save::{self, Filter},
};
use crate::{
    allowlist::{Family, Prefixes},
    plan::{Protocol, TAG},
};

/// The chain that holds our rules.
pub const CHAIN: &str = "EDGEALLOW";

/// How many ports one multiport match holds (`XT_MULTI_PORTS`, linux/netfilter/xt_multiport.h).
const MULTI_PORTS: usize = 15;

/// The rule that leads from INPUT into our chain, without its place.
pub const JUMP: [&str; 6] = ["-m", "comment", "--comment", TAG, "-j", CHAIN];

/// A rule in our chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// One that we would write.
    Allow(Allow),
    /// One that somebody else put there, as its words.
    Other(Vec<String>),
}

/// Lets something in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Who.
    pub from: From,
    /// By which protocol.
    pub protocol: Protocol,
    /// To which ports, at most fifteen.
    pub ports: Vec<u16>,
}

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Everybody: `/0`, which iptables doesn't print.
    Any,
    /// A prefix.
    Net(IpNet),
    /// The set of a family.
    Set(Family),
}

impl Rule {
    /// Reads a rule of our chain.
    #[must_use]
    pub fn read(words: Vec<String>) -> Self {
        match Allow::read(&words) {
            Some(allow) => Self::Allow(allow),
            None => Self::Other(words),
        }
    }

    /// Whether it carries our comment, so that it is one of ours, be it as we wrote it or not.
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        match self {
            Self::Allow(_) => true,
            Self::Other(words) => words.windows(2).any(|w| w[0] == "--comment" && w[1] == TAG),
        }
    }

    /// Whether it looks into a set of ours.
    #[must_use]
    pub fn uses_set(&self, family: Family) -> bool {
        match self {
            Self::Allow(a) => a.from == From::Set(family),
            Self::Other(words) => words.windows(2).any(|w| w[0] == "--match-set" && w[1] == set_name(family)),
        }
    }

    /// The rule as `-A` would take it, without `-A CHAIN`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Allow(allow) => allow.text(),
            Self::Other(words) => words.iter().map(|w| save::quote(w)).collect::<Vec<_>>().join(" "),
        }
    }
}

impl Allow {
    fn read(words: &[String]) -> Option<Self> {
        let mut rest = words;
        let mut from = From::Any;
        if let Some([source, after @ ..]) = behind(rest, &["-s"]) {
            (from, rest) = (From::Net(net(source)?), after);
        }
        let [protocol, after @ ..] = behind(rest, &["-p"])? else { return None };
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.as_str() == protocol)?;
        rest = after;
        if let Some([name, after @ ..]) = behind(rest, &["-m", "set", "--match-set"]) {
            if from != From::Any {
                return None;
            }
            from = From::Set(Family::BOTH.into_iter().find(|f| set_name(*f) == name)?);
            rest = behind(after, &["src"])?;
        }
        let [ports, after @ ..] = behind(rest, &["-m", "multiport", "--dports"])? else { return None };
        let ports = ports.split(',').map(|p| p.parse().ok()).collect::<Option<Vec<u16>>>()?;
        let end = behind(after, &["-m", "comment", "--comment", TAG, "-j", "ACCEPT"])?;
        end.is_empty().then_some(Self { from, protocol, ports })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        if let From::Net(net) = self.from {
            let _ = write!(out, "-s {net} ");
        }
        let _ = write!(out, "-p {} ", self.protocol.as_str());
        if let From::Set(family) = self.from {
            let _ = write!(out, "-m set --match-set {} src ", set_name(family));
        }
        let ports = self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let _ = write!(out, "-m multiport --dports {ports} -m comment --comment {TAG} -j ACCEPT");
        out
    }
}

/// What follows the expected words, if the rule goes on with them.
fn behind<'a>(words: &'a [String], expected: &[&str]) -> Option<&'a [String]> {
    let (head, rest) = words.split_at_checked(expected.len())?;
    head.iter().eq(expected).then_some(rest)
}

/// A prefix as iptables prints it: `10.0.0.0/8`, `2400:cb00::/32`; a lone address is one prefix too.
pub fn net(word: &str) -> Option<IpNet> {
    let net = match word.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(word.parse::<std::net::IpAddr>().ok()?),
    };
    (net == net.trunc()).then_some(net)
}

/// `/0` of a family.
#[must_use]
pub fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Whether a rule of INPUT is our jump.
#[must_use]
pub fn is_jump(rule: &[String]) -> bool {
    rule.iter().eq(JUMP.iter())
}

/// Whether a rule that isn't ours leads into our chain.
#[must_use]
pub fn leads_into_ours(rule: &[String]) -> bool {
    rule.windows(2).any(|w| matches!(w[0].as_str(), "-j" | "-g" | "--jump" | "--goto") && w[1] == CHAIN)
}

/// One rule a prefix, protocol and group of ports.
#[must_use]
pub fn linear(family: Family, want: &Prefixes, ports: &BTreeSet<u16>, protocols: &BTreeSet<Protocol>) -> Vec<Rule> {
    let from = |net: IpNet| if net.prefix_len() == 0 { From::Any } else { From::Net(net) };
    want.family(family).flat_map(|net| allow(from(net), ports, protocols)).collect()
}

/// One rule a protocol and group of ports, which looks into the set.
#[must_use]
pub fn by_set(family: Family, ports: &BTreeSet<u16>, protocols: &BTreeSet<Protocol>) -> Vec<Rule> {
    allow(From::Set(family), ports, protocols)
}

fn allow(from: From, ports: &BTreeSet<u16>, protocols: &BTreeSet<Protocol>) -> Vec<Rule> {
    let ports: Vec<u16> = ports.iter().copied().collect();
    protocols
        .iter()
        .flat_map(|&protocol| {
            ports.chunks(MULTI_PORTS).map(move |ports| Rule::Allow(Allow { from, protocol, ports: ports.to_vec() }))
        })
        .collect()
}

/// What is ours in one filter table, or in the file that stores one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The rules of our chain; `None` if there is no chain.
    pub chain: Option<Vec<Rule>>,
    /// Where in INPUT our jump stands, counted from 0: `[0]` is right.
    pub jumps: Vec<usize>,
}

impl Part {
    /// Our chain with these rules, entered first.
    #[must_use]
    pub const fn holding(rules: Vec<Rule>, jumps: Vec<usize>) -> Self {
        Self { chain: Some(rules), jumps }
    }

    /// Nothing of ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A chain of our name that nothing of ours leads into, and that holds rules, none of them with our comment: an
    /// administrator's.
    #[must_use]
    pub fn is_somebody_elses(&self) -> bool {
        self.jumps.is_empty()
            && self.chain.as_ref().is_some_and(|rules| !rules.is_empty() && !rules.iter().any(Rule::is_tagged))
    }

    /// How many rules of ours look into the family's set.
    #[must_use]
    pub fn set_rules(&self, family: Family) -> usize {
        self.chain.iter().flatten().filter(|r| r.uses_set(family)).count()
    }

    /// An empty chain that only a rule of somebody else's keeps alive is not ours any more: it can't be deleted.
    #[must_use]
    pub fn or_nothing_if_only_held(self, held: bool) -> Self {
        if held && self.jumps.is_empty() && self.chain.as_ref().is_some_and(Vec::is_empty) {
            return Self::default();
        }
        self
    }

    /// The same with places that exist in an INPUT of so many rules of others: each jump at its place, or last.
    #[must_use]
    pub fn within(&self, foreign: usize) -> Self {
        let jumps = if self.chain.is_none() {
            Vec::new()
        } else {
            self.jumps.iter().enumerate().map(|(before, &at)| at.min(foreign + before)).collect()
        };
        Self { chain: self.chain.clone(), jumps }
    }
}

/// A filter table as it concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What is ours.
    pub part: Part,
    /// How many rules of others INPUT has.
    pub foreign: usize,
    /// Whether a rule of others leads into our chain.
    pub held: bool,
    /// Whether the chain of our name is somebody else's: see [`Part::is_somebody_elses`].
    pub taken: bool,
}

/// What concerns us in a table.
#[must_use]
pub fn contents(filter: &Filter) -> Contents {
    let input = filter.chains.get("INPUT").map_or(&[][..], |c| &c.rules);
    let jumps: Vec<usize> = input.iter().enumerate().filter(|(_, r)| is_jump(r)).map(|(i, _)| i).collect();
    let foreign = input.len() - jumps.len();
    let held = filter
        .chains
        .iter()
        .any(|(name, c)| c.rules.iter().any(|r| leads_into_ours(r) && !(name == "INPUT" && is_jump(r))));
    let chain = filter.chains.get(CHAIN).map(|c| c.rules.iter().cloned().map(Rule::read).collect());
    let part = Part { chain, jumps };
    if part.is_somebody_elses() {
        return Contents { foreign, taken: true, ..Contents::default() };
    }
    Contents { part: part.or_nothing_if_only_held(held), foreign, held, taken: false }
}

/// The restore script (for `--noflush`) that leads from one state to the other, in one transaction.
#[must_use]
pub fn script(from: &Part, to: &Part, held: bool) -> String {
    let mut out = String::from("*filter\n");
    let jump = JUMP.join(" ");
    if let Some(rules) = &to.chain
        && from.chain.as_ref() != Some(rules)
    {
        // Makes the chain, or empties it.
        let _ = writeln!(out, ":{CHAIN} - [0:0]");
        for rule in rules {
            let _ = writeln!(out, "-A {CHAIN} {}", rule.text());
        }
    }
    if from.jumps != to.jumps {
        for _ in &from.jumps {
            let _ = writeln!(out, "-D INPUT {jump}");
        }
        // Ascending, so that each finds those before it in place.
        for at in &to.jumps {
            let _ = writeln!(out, "-I INPUT {} {jump}", at + 1);
        }
    }
    if to.chain.is_none() && from.chain.is_some() {
        let _ = writeln!(out, "-F {CHAIN}");
        if !held {
            let _ = writeln!(out, "-X {CHAIN}");
        }
    }
    out.push_str("COMMIT\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Rule {
        Rule::read(save::split_words(line))
    }

    fn rendered(nets: &[&str], ports: &[u16], protocols: &[Protocol]) -> Vec<String> {
        let nets: Prefixes = nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        let (ports, protocols) = (ports.iter().copied().collect(), protocols.iter().copied().collect());
        Family::BOTH.iter().flat_map(|f| linear(*f, &nets, &ports, &protocols)).map(|r| r.text()).collect()
    }

    #[test]
    fn rules_are_written_as_iptables_prints_them() {
        assert_eq!(
            rendered(&["173.245.48.0/20", "2400:cb00::/32"], &[80, 443], &[Protocol::Tcp]),
            [
                "-s 173.245.48.0/20 -p tcp -m multiport --dports 80,443 -m comment --comment edgeallow -j ACCEPT",
                "-s 2400:cb00::/32 -p tcp -m multiport --dports 80,443 -m comment --comment edgeallow -j ACCEPT",
            ]
        );
        assert_eq!(
            rendered(&["0.0.0.0/0"], &[80], &[Protocol::Udp]),
            ["-p udp -m multiport --dports 80 -m comment --comment edgeallow -j ACCEPT"]
        );
    }

    #[test]
    fn more_than_fifteen_ports_take_more_rules() {
        let ports: Vec<u16> = (1..=31).collect();
        let rules = rendered(&["10.0.0.0/8"], &ports, &[Protocol::Tcp, Protocol::Udp]);
        assert_eq!(rules.len(), 6);
        assert!(rules[2].contains("--dports 31 "), "{}", rules[2]);
    }

    #[test]
    fn what_we_write_is_known_again_in_both_styles() {
        for line in [
            "-s 10.0.0.0/8 -p tcp -m multiport --dports 80,443 -m comment --comment \"edgeallow\" -j ACCEPT",
            "-p udp -m set --match-set edgeallow4 src -m multiport --dports 443 -m comment --comment edgeallow -j ACCEPT",
            "-p tcp -m multiport --dports 80 -m comment --comment edgeallow -j ACCEPT",
        ] {
            let rule = read(line);
            assert!(matches!(rule, Rule::Allow(_)), "{line}");
            assert_eq!(read(&rule.text()), rule);
        }
        assert!(read("-p tcp -m set --match-set edgeallow4 src -j DROP").uses_set(Family::V4));
    }

    #[test]
    fn anything_else_is_kept_as_words() {
        for line in [
            "! -s 10.0.0.0/8 -p tcp -m multiport --dports 80,443 -m comment --comment edgeallow -j ACCEPT",
            "-s 10.0.0.0/8 -p tcp -m multiport --dports 80:90 -m comment --comment edgeallow -j ACCEPT",
            "-s 10.0.0.0/8 -p tcp -m multiport --dports 80,443 -m comment --comment edgeallow -j DROP",
            "-s 10.0.0.0/255.0.255.0 -p tcp -m multiport --dports 80 -m comment --comment edgeallow -j ACCEPT",
            "-s 10.0.0.0/8 -p tcp -m set --match-set edgeallow4 src -m multiport --dports 80 -m comment --comment edgeallow -j ACCEPT",
            "-j RETURN",
            "",
        ] {
            let rule = read(line);
            assert!(matches!(rule, Rule::Other(_)), "{line}");
            assert_eq!(read(&rule.text()), rule, "{line}");
        }
    }

    #[test]
    fn a_chain_of_our_name_without_a_sign_of_ours_is_somebody_elses() {
        let taken = |rules: &str| {
            let text = format!("*filter\n:INPUT DROP [0:0]\n:EDGEALLOW - [0:0]\n{rules}COMMIT\n");
            contents(&save::parse(text.as_bytes()).filter.unwrap())
        };
        let his = "-A INPUT -j EDGEALLOW\n-A EDGEALLOW -s 203.0.113.9/32 -j ACCEPT\n";
        assert_eq!(taken(his), Contents { foreign: 1, taken: true, ..Contents::default() });
        let jump = format!("-A INPUT {}\n", JUMP.join(" "));
        let tagged = "-A EDGEALLOW -p tcp -m comment --comment edgeallow -j DROP\n";
        for ours in ["", &jump, tagged, &format!("{his}{jump}"), &format!("{his}{tagged}")] {
            assert!(!taken(ours).taken, "{ours}");
        }
    }

    #[test]
    fn a_jump_with_a_condition_is_not_ours() {
        let ours = save::split_words("-m comment --comment \"edgeallow\" -j EDGEALLOW");
        let his = save::split_words("-i eth0 -m comment --comment edgeallow -j EDGEALLOW");
        assert!(is_jump(&ours) && leads_into_ours(&ours));
        assert!(!is_jump(&his) && leads_into_ours(&his));
    }

    #[test]
    fn scripts_say_only_what_differs() {
        let rules = || vec![read("-p tcp -m multiport --dports 80 -m comment --comment edgeallow -j ACCEPT")];
        let good = Part::holding(rules(), vec![0]);
        let displaced = Part::holding(rules(), vec![1, 3]);
        assert_eq!(
            script(&displaced, &good, false),
            "*filter\n-D INPUT -m comment --comment edgeallow -j EDGEALLOW\n\
             -D INPUT -m comment --comment edgeallow -j EDGEALLOW\n\
             -I INPUT 1 -m comment --comment edgeallow -j EDGEALLOW\nCOMMIT\n"
        );
        assert_eq!(
            script(&good, &Part::default(), true),
            "*filter\n-D INPUT -m comment --comment edgeallow -j EDGEALLOW\n-F EDGEALLOW\nCOMMIT\n"
        );
        assert_eq!(displaced.within(1).jumps, [1, 2]);
    }
}
