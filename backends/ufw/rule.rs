//! The rules that are ours, in the three languages they are spoken in: ufw's tuple, iptables' rule, ufw's command.
//!
//! Belongs here: how one rule is written and known again. Does not: where it stands ([`super::file`],
//! [`super::live`]) or which are wanted ([`super::target`]).

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{
    allowlist::Family,
    backends::iptables::rules::{everything, net},
    plan::{Protocol, TAG},
};

/// How many ports one rule takes: `UFWRule.set_port` refuses more ("Limitation of iptables").
pub const MOST_PORTS: usize = 15;

/// The tag as ufw stores a comment: the UTF-8 bytes in hexadecimal.
pub const HEX_TAG: &str = "65646765616c6c6f77";

/// A rule that lets a prefix in: the whole of what edgeallow ever writes into ufw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allow {
    /// Who.
    pub from: IpNet,
    /// By which protocol.
    pub protocol: Protocol,
    /// To which ports, ascending, at most [`MOST_PORTS`]. A port that stands there twice is another spec to ufw and
    /// the same rule to the kernel: see [`super::target`].
    pub ports: Vec<u16>,
}

/// A rule and its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placed {
    /// How many rules that aren't ours stand before it.
    pub after: usize,
    /// The rule.
    pub rule: Allow,
}

/// `ufw` or `ufw6`: how the names of a family's chains begin.
#[must_use]
pub const fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "ufw",
        Family::V6 => "ufw6",
    }
}

/// The chain that holds what the administrator said by `ufw allow` and its like.
#[must_use]
pub const fn chain(family: Family) -> &'static str {
    match family {
        Family::V4 => "ufw-user-input",
        Family::V6 => "ufw6-user-input",
    }
}

/// The family of a prefix.
#[must_use]
pub const fn family_of(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

impl Allow {
    /// The ports as ufw and iptables write them.
    #[must_use]
    pub fn port_list(&self) -> String {
        self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }

    /// A lone address without its length, as ufw's `normalize_address` leaves it.
    #[must_use]
    pub fn source(&self) -> String {
        if self.from.prefix_len() == self.from.max_prefix_len() {
            self.from.addr().to_string()
        } else {
            self.from.to_string()
        }
    }

    /// What ufw 0.36 writes into its rules file for this rule (`UFWBackendIptables._write_rules`): a blank line, the
    /// tuple, the rule.
    #[must_use]
    pub fn block(&self) -> String {
        let family = family_of(&self.from);
        let (ports, all) = (self.port_list(), everything(family));
        let (protocol, source) = (self.protocol.as_str(), self.source());
        let tuple = format!("### tuple ### allow {protocol} {ports} {all} any {source} in comment={HEX_TAG}");
        format!("\n{tuple}\n-A {} {}\n", chain(family), self.rule())
    }

    /// The rule as ufw writes it behind `-A CHAIN`, which iptables takes too.
    #[must_use]
    pub fn rule(&self) -> String {
        let (protocol, ports) = (self.protocol.as_str(), self.port_list());
        let from = if self.from.prefix_len() == 0 { String::new() } else { format!(" -s {}", self.source()) };
        if self.ports.len() > 1 {
            format!("-p {protocol} -m multiport --dports {ports}{from} -j ACCEPT")
        } else {
            format!("-p {protocol} --dport {ports}{from} -j ACCEPT")
        }
    }

    /// Reads a rule of either origin: as ufw writes it, or as `iptables-save` prints it. `None` for any other rule.
    #[must_use]
    pub fn read(words: &[String], family: Family) -> Option<Self> {
        let (mut from, mut protocol, mut ports, mut accepted) = (None, None, None, false);
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word {
                "-s" if from.is_none() => from = Some(net(value)?),
                "-p" if protocol.is_none() => protocol = Some(protocol_named(value)?),
                "-m" if matches!(value, "tcp" | "udp" | "multiport") => {}
                "--dport" | "--dports" if ports.is_none() => ports = Some(port_numbers(value)?),
                "-j" if value == "ACCEPT" => accepted = true,
                _ => return None,
            }
        }
        let rule = Self { from: from.unwrap_or(everything(family)), protocol: protocol?, ports: ports? };
        accepted.then_some(rule)
    }

    /// The command that an administrator would type; `verb` is `prepend allow` or `delete allow`.
    #[must_use]
    pub fn command(&self, verb: [&str; 2]) -> Vec<String> {
        let (from, ports) = (self.from.to_string(), self.port_list());
        let rest = ["from", &from, "to", "any", "port", &ports, "proto", self.protocol.as_str(), "comment", TAG];
        ["ufw"].iter().chain(&verb).chain(&rest).map(|&w| w.to_owned()).collect()
    }

    /// The ports without repetition.
    #[must_use]
    pub fn port_set(&self) -> BTreeSet<u16> {
        self.ports.iter().copied().collect()
    }
}

/// `tcp` or `udp`.
#[must_use]
pub fn protocol_named(word: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.as_str() == word)
}

/// A list of single ports, `80,443`; `None` if there is anything else in it.
#[must_use]
pub fn port_numbers(word: &str) -> Option<Vec<u16>> {
    word.split(',').map(|p| p.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::iptables::save::split_words;

    fn allow(from: &str, ports: &[u16]) -> Allow {
        Allow { from: from.parse().unwrap(), protocol: Protocol::Tcp, ports: ports.to_vec() }
    }

    #[test]
    fn blocks_are_what_ufw_writes() {
        assert_eq!(
            allow("173.245.48.0/20", &[80, 443]).block(),
            "\n### tuple ### allow tcp 80,443 0.0.0.0/0 any 173.245.48.0/20 in comment=65646765616c6c6f77\n\
             -A ufw-user-input -p tcp -m multiport --dports 80,443 -s 173.245.48.0/20 -j ACCEPT\n"
        );
        assert_eq!(
            allow("1.2.3.4/32", &[443]).block(),
            "\n### tuple ### allow tcp 443 0.0.0.0/0 any 1.2.3.4 in comment=65646765616c6c6f77\n\
             -A ufw-user-input -p tcp --dport 443 -s 1.2.3.4 -j ACCEPT\n"
        );
        assert_eq!(
            allow("::/0", &[80, 443]).block(),
            "\n### tuple ### allow tcp 80,443 ::/0 any ::/0 in comment=65646765616c6c6f77\n\
             -A ufw6-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT\n"
        );
        assert_eq!(HEX_TAG, TAG.bytes().map(|b| format!("{b:02x}")).collect::<String>());
    }

    #[test]
    fn rules_are_known_in_ufws_order_and_in_iptables() {
        for (rule, saved) in [
            (allow("1.2.3.0/24", &[80, 443]), "-s 1.2.3.0/24 -p tcp -m multiport --dports 80,443 -j ACCEPT"),
            (allow("1.2.3.4/32", &[443]), "-s 1.2.3.4/32 -p tcp -m tcp --dport 443 -j ACCEPT"),
            (allow("0.0.0.0/0", &[443, 443]), "-p tcp -m multiport --dports 443,443 -j ACCEPT"),
        ] {
            assert_eq!(Allow::read(&split_words(saved), Family::V4).as_ref(), Some(&rule));
            assert_eq!(Allow::read(&split_words(&rule.rule()), Family::V4), Some(rule));
        }
        for other in [
            "-s 1.2.3.0/24 -p tcp -m tcp --dport 443 -j DROP",
            "! -s 1.2.3.0/24 -p tcp -m tcp --dport 443 -j ACCEPT",
            "-s 1.2.3.0/24 -i eth0 -p tcp -m tcp --dport 443 -j ACCEPT",
            "-s 1.2.3.0/24 -p tcp -m multiport --dports 80:90 -j ACCEPT",
            "-s 1.2.3.0/24 -j ACCEPT",
            "-p tcp --dport",
            "",
        ] {
            assert_eq!(Allow::read(&split_words(other), Family::V4), None, "{other}");
        }
    }
}
