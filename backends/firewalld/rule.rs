//! The one kind of rule that is ours, in each language that it is met in: firewalld's rich language, the kernel's
//! expressions, and what `iptables-save` prints.
//!
//! Belongs here: one rule. Does not: where rules stand ([`super::live`], [`super::xml`]).

use std::{collections::BTreeSet, fmt};

use crate::{
    allowlist::Family,
    nft::{Expr, Verdict},
    plan::{Desired, Protocol},
};

/// The name of a family's set. Not the name that the iptables backend gives its own: where firewalld loads its rules into
/// iptables, both would be one and the same set in the kernel; nor that of the nftables backend's.
#[must_use]
pub const fn set_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "edgeallow-v4",
        Family::V6 => "edgeallow-v6",
    }
}

/// Prefixes of this family reach this port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Whose set is looked into.
    pub family: Family,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
}

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER` of linux/netfilter/nf_tables.h.
const HEADERS: (u32, u32) = (1, 2);

impl Rule {
    /// A rule for each family that there are prefixes of, each protocol and each port.
    #[must_use]
    pub fn wanted(want: &Desired) -> BTreeSet<Self> {
        let families = Family::BOTH.into_iter().filter(|f| want.prefixes.count(*f) > 0);
        let mut out = BTreeSet::new();
        for family in families {
            for &protocol in &want.protocols {
                out.extend(want.ports.iter().map(|&port| Self { family, protocol, port }));
            }
        }
        out
    }

    /// `ipv4` or `ipv6`, as firewalld says it.
    #[must_use]
    pub const fn family_word(self) -> &'static str {
        match self.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    /// From the kernel's expressions in a table of family inet. Before 1.0 firewalld asked for the connection's state
    /// too, which changes nothing here: what is established was let in before.
    #[must_use]
    pub fn from_exprs(exprs: &[Expr]) -> Option<Self> {
        let [Expr::Meta(_), Expr::Equals(_), Expr::Payload { base, offset, .. }, Expr::Lookup(set), rest @ ..] = exprs
        else {
            return None;
        };
        let family = Family::BOTH.into_iter().find(|f| set_name(*f) == set)?;
        let source = match family {
            Family::V4 => 12,
            Family::V6 => 8,
        };
        let [Expr::Meta(_), Expr::Equals(protocol), Expr::Payload { base: l4, offset: 2, len: 2 }, rest @ ..] = rest
        else {
            return None;
        };
        let [Expr::Equals(port), state @ .., Expr::Verdict(Verdict::Accept)] = rest else { return None };
        let of_state = |e: &Expr| match e {
            Expr::Other(name) => name == "ct" || name == "bitwise" || name == "cmp",
            Expr::Lookup(set) => set.starts_with("__set"),
            Expr::Equals(_) | Expr::Counter => true,
            _ => false,
        };
        if (*base, *l4, *offset) != (HEADERS.0, HEADERS.1, source) || !state.iter().all(of_state) {
            return None;
        }
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| protocol[..] == [p.number()])?;
        Some(Self { family, protocol, port: u16::from_be_bytes(port[..].try_into().ok()?) })
    }

    /// From the words of a rule that `iptables-save` prints.
    #[must_use]
    pub fn from_words(words: &[String]) -> Option<Self> {
        let (mut family, mut protocol, mut port, mut accepts) = (None, None, None, false);
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word {
                "-p" => protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.as_str() == value),
                "--dport" => port = value.parse().ok(),
                "--match-set" => {
                    family = Family::BOTH.into_iter().find(|f| set_name(*f) == value);
                    if words.next() != Some("src") {
                        return None;
                    }
                }
                "-m" | "--ctstate" => {}
                "-j" => accepts = value == "ACCEPT",
                _ => return None,
            }
        }
        let rule = Self { family: family?, protocol: protocol?, port: port? };
        accepts.then_some(rule)
    }
}

/// firewalld's rich language, as firewalld itself writes it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rule family=\"{}\" source ipset=\"{}\" port port=\"{}\" protocol=\"{}\" accept",
            self.family_word(),
            set_name(self.family),
            self.port,
            self.protocol.as_str()
        )
    }
}

#[cfg(test)]
pub(super) use tests::exprs;

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { family: Family::V6, protocol: Protocol::Tcp, port: 443 };

    #[test]
    fn it_is_written_as_firewalld_writes_it() {
        assert_eq!(
            RULE.to_string(),
            "rule family=\"ipv6\" source ipset=\"edgeallow-v6\" port port=\"443\" protocol=\"tcp\" accept"
        );
    }

    #[test]
    fn it_is_known_in_what_iptables_prints() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let plain = "-p tcp -m tcp --dport 443 -m set --match-set edgeallow-v6 src -j ACCEPT";
        let old = "-p tcp -m set --match-set edgeallow-v6 src -m tcp --dport 443 -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT";
        assert_eq!(Rule::from_words(&words(plain)), Some(RULE));
        assert_eq!(Rule::from_words(&words(old)), Some(RULE));
        for other in [
            plain.replace("ACCEPT", "DROP"),
            plain.replace(" src", " dst"),
            plain.replace("edgeallow-v6", "his"),
            plain.replace("--dport 443", "--dport 1:9"),
            format!("-s 10.0.0.0/8 {plain}"),
            "-j".to_owned(),
        ] {
            assert_eq!(Rule::from_words(&words(&other)), None, "{other}");
        }
    }

    pub(in crate::backends::firewalld) fn exprs(rule: Rule) -> Vec<Expr> {
        let accept = crate::nft::AcceptRule {
            family: rule.family,
            protocol: rule.protocol,
            sources: set_name(rule.family).to_owned(),
            ports: String::new(),
            comment: String::new(),
        };
        let mut exprs = accept.exprs(crate::nft::TableFamily::Inet);
        exprs.truncate(7);
        exprs.extend([Expr::Equals(rule.port.to_be_bytes().to_vec()), Expr::Verdict(Verdict::Accept)]);
        exprs
    }

    #[test]
    fn it_is_known_in_the_kernel() {
        assert_eq!(Rule::from_exprs(&exprs(RULE)), Some(RULE));
        let mut with_state = exprs(RULE);
        let at = with_state.len() - 1;
        with_state.splice(at..at, [Expr::Other("ct".into()), Expr::Other("bitwise".into()), Expr::Other("cmp".into())]);
        assert_eq!(Rule::from_exprs(&with_state), Some(RULE));
        let mut dropping = exprs(RULE);
        dropping.pop();
        dropping.push(Expr::Verdict(Verdict::Drop));
        assert_eq!(Rule::from_exprs(&dropping), None);
        let mut limited = exprs(RULE);
        limited.insert(8, Expr::Other("limit".into()));
        assert_eq!(Rule::from_exprs(&limited), None);
    }
}
