//! CSF's advanced lines, and the rules that CSF makes of them.
//!
//! Belongs here: `tcp|in|d=80,443|s=CIDR` as text, and as words of an iptables rule, in both directions. Does not:
//! which lines are wanted ([`super::steps`]), files and chains as a whole ([`super::lists`], [`super::chains`]).
//!
//! What CSF takes was read from its program and tried: a line with sixteen ports, with a port that is none, or with
//! `/0` empties the whole firewall when CSF starts, so nothing like that may ever be written.

use std::{collections::BTreeSet, fmt::Write as _};

use ipnet::IpNet;

use crate::{
    allowlist::{Family, Prefixes},
    backends::iptables::rules::net,
    plan::Protocol,
};

/// How many ports one line may have (`XT_MULTI_PORTS`, linux/netfilter/xt_multiport.h).
const MOST_PORTS: usize = 15;

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From Cloudflare to a port here: chain ALLOWIN.
    In,
    /// The answers: chain ALLOWOUT. Without them a later block drops what goes out before "established" is looked at.
    Out,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::In, Self::Out];

    /// The chain that CSF puts such lines into.
    #[must_use]
    pub const fn chain(self) -> &'static str {
        match self {
            Self::In => "ALLOWIN",
            Self::Out => "ALLOWOUT",
        }
    }
}

/// One advanced line of the form that is ours: a prefix, and ports of this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allow {
    /// Who, on the other side.
    pub net: IpNet,
    /// By which protocol.
    pub protocol: Protocol,
    /// Ports of this host, at most fifteen.
    pub ports: Vec<u16>,
    /// Which way.
    pub way: Way,
}

/// What CSF adds to each rule as it is set up: the device, and where accepted packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `ETH_DEVICE`; `None` for "any but loopback".
    pub device: Option<String>,
    /// `ACCEPT`, or `LOGACCEPT` in `WATCH_MODE`.
    pub accept: &'static str,
}

impl Allow {
    /// The family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.net {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        let (way, ours, theirs) = match self.way {
            Way::In => ("in", 'd', 's'),
            Way::Out => ("out", 's', 'd'),
        };
        format!("{}|{way}|{ours}={}|{theirs}={}", self.protocol.as_str(), self.port_list(), self.net)
    }

    fn port_list(&self) -> String {
        self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }

    /// Reads a line as CSF does, if it makes a rule of the form that is ours.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') || line.contains("Include") {
            return None;
        }
        let mut word = line.split_whitespace().next()?.to_lowercase();
        if !word.contains('|') {
            word = word.replace(':', "|");
        }
        let fields: Vec<&str> = word.split('|').collect();
        if fields.len() < 2 || fields.iter().any(|f| f.contains("u=") || f.contains("g=")) {
            return None;
        }
        let (protocol, mut at) = match fields[0] {
            "tcp" => (Protocol::Tcp, 1),
            "udp" => (Protocol::Udp, 1),
            "icmp" => return None,
            _ => (Protocol::Tcp, 0),
        };
        let mut way = Way::In;
        if let Some(found) = (at..2).find(|i| matches!(fields.get(*i), Some(&("in" | "out")))) {
            if fields[found] == "out" {
                way = Way::Out;
            }
            at = found + 1;
        }
        let (ours, theirs) = if way == Way::In { ("d=", "s=") } else { ("s=", "d=") };
        let ports = fields.get(at)?.strip_prefix(ours)?;
        let ports: Vec<u16> = ports.split(',').map(|p| p.parse().ok()).collect::<Option<_>>()?;
        let net = net(fields.get(at + 1)?.strip_prefix(theirs)?)?;
        Some(Self { net, protocol, ports, way })
    }

    /// The rule as `-A CHAIN` would take it, and as `iptables-save` prints it.
    #[must_use]
    pub fn rule(&self, shape: &Shape) -> String {
        let (side, device, port) = match self.way {
            Way::In => ("-s", "-i", "dport"),
            Way::Out => ("-d", "-o", "sport"),
        };
        let mut out = format!("{side} {} ", self.net);
        let protocol = self.protocol.as_str();
        // Writing to a String can't fail.
        let _ = match &shape.device {
            None => write!(out, "! {device} lo -p {protocol} "),
            Some(name) => write!(out, "{device} {name} -p {protocol} "),
        };
        let _ = match self.ports.as_slice() {
            [one] => write!(out, "-m {protocol} --{port} {one}"),
            _ => write!(out, "-m multiport --{port}s {}", self.port_list()),
        };
        let _ = write!(out, " -j {}", shape.accept);
        out
    }

    /// Reads a rule of one of the two chains, if it has the form that is ours.
    #[must_use]
    pub fn of_rule(words: &[String], way: Way, shape: &Shape) -> Option<Self> {
        let at = |flag: &str| words.iter().position(|w| w == flag).and_then(|i| words.get(i + 1));
        let side = if way == Way::In { "-s" } else { "-d" };
        let port = if way == Way::In { ["--dport", "--dports"] } else { ["--sport", "--sports"] };
        let net = net(at(side)?)?;
        let protocol = at("-p")?;
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.as_str() == protocol)?;
        let ports = port.iter().find_map(|flag| at(flag))?;
        let ports: Vec<u16> = ports.split(',').map(|p| p.parse().ok()).collect::<Option<_>>()?;
        let read = Self { net, protocol, ports, way };
        // Whatever else stands in the rule makes it another one.
        read.rule(shape).split(' ').eq(words.iter().map(String::as_str)).then_some(read)
    }
}

/// The lines for what is wanted: by prefix, protocol and group of ports, in before out.
#[must_use]
pub fn wanted(prefixes: &Prefixes, ports: &BTreeSet<u16>, protocols: &BTreeSet<Protocol>) -> Vec<Allow> {
    let ports: Vec<u16> = ports.iter().copied().collect();
    let mut out = Vec::new();
    for net in nets(prefixes) {
        for &protocol in protocols {
            for ports in ports.chunks(MOST_PORTS) {
                out.extend(Way::BOTH.map(|way| Allow { net, protocol, ports: ports.to_vec(), way }));
            }
        }
    }
    out
}

/// The prefixes as CSF can take them: `/0` as its two halves.
pub fn nets(prefixes: &Prefixes) -> impl Iterator<Item = IpNet> + '_ {
    prefixes.iter().flat_map(|net| {
        let halves = if net.prefix_len() == 0 { net.subnets(1).ok() } else { None };
        let whole = halves.is_none().then_some(net);
        halves.into_iter().flatten().chain(whole)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::super::iptables::save::split_words, *};

    const PLAIN: Shape = Shape { device: None, accept: "ACCEPT" };

    fn lines(nets: &[&str], ports: &[u16], protocols: &[Protocol]) -> Vec<Allow> {
        let nets: Prefixes = nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        wanted(&nets, &ports.iter().copied().collect(), &protocols.iter().copied().collect())
    }

    #[test]
    fn lines_go_both_ways_and_rules_are_those_that_csf_makes() {
        let all = lines(&["173.245.48.0/20", "2400:cb00::/32"], &[443, 80], &[Protocol::Tcp]);
        let text: Vec<_> = all.iter().map(Allow::line).collect();
        assert_eq!(
            text,
            [
                "tcp|in|d=80,443|s=173.245.48.0/20",
                "tcp|out|s=80,443|d=173.245.48.0/20",
                "tcp|in|d=80,443|s=2400:cb00::/32",
                "tcp|out|s=80,443|d=2400:cb00::/32",
            ]
        );
        assert_eq!(all[0].rule(&PLAIN), "-s 173.245.48.0/20 ! -i lo -p tcp -m multiport --dports 80,443 -j ACCEPT");
        assert_eq!(all[1].rule(&PLAIN), "-d 173.245.48.0/20 ! -o lo -p tcp -m multiport --sports 80,443 -j ACCEPT");
        let watched = Shape { device: Some("eth0".into()), accept: "LOGACCEPT" };
        assert_eq!(
            lines(&["2400:cb00::/32"], &[443], &[Protocol::Udp])[0].rule(&watched),
            "-s 2400:cb00::/32 -i eth0 -p udp -m udp --dport 443 -j LOGACCEPT"
        );
    }

    #[test]
    fn sixteen_ports_would_open_the_firewall_so_a_line_has_at_most_fifteen() {
        let ports: Vec<u16> = (1..=31).collect();
        let all = lines(&["10.0.0.0/8"], &ports, &[Protocol::Tcp]);
        assert_eq!(all.iter().map(|l| l.ports.len()).collect::<Vec<_>>(), [15, 15, 15, 15, 1, 1]);
    }

    #[test]
    fn slash_zero_would_open_the_firewall_so_it_becomes_two_halves() {
        let text: Vec<_> = lines(&["0.0.0.0/0", "::/0"], &[80], &[Protocol::Tcp]).iter().map(Allow::line).collect();
        assert_eq!(text.len(), 8);
        assert!(text.iter().all(|l| l.ends_with("/1")), "{text:?}");
    }

    #[test]
    fn his_lines_are_read_as_csf_reads_them() {
        let read = |line: &str| Allow::read(line).map(|a| a.line());
        let whole = Some("tcp|in|d=80,443|s=173.245.48.0/20".to_owned());
        for same in [
            "tcp|in|d=80,443|s=173.245.48.0/20",
            "  TCP|In|D=80,443|S=173.245.48.0/20 # mine\r",
            "tcp:in:d=80,443:s=173.245.48.0/20",
            "in|d=80,443|s=173.245.48.0/20",
            "d=80,443|s=173.245.48.0/20",
            "tcp|d=80,443|s=173.245.48.0/20",
        ] {
            assert_eq!(read(same), whole, "{same}");
        }
        for other in [
            "",
            "# tcp|in|d=80|s=10.0.0.0/8",
            "173.245.48.0/20",
            "2400:cb00::/32",
            "tcp|in|d=80, 443|s=173.245.48.0/20",
            "tcp|in|d=70000|s=173.245.48.0/20",
            "tcp|in|d=|s=173.245.48.0/20",
            "tcp|in|d=80_90|s=173.245.48.0/20",
            "tcp|in|s=80|s=173.245.48.0/20",
            "tcp|in|d=80|d=173.245.48.0/20",
            "tcp|in|d=80|s=173.245.48.0/33",
            "tcp|out|d=80||u=1001",
            "icmp|in|d=8|s=10.0.0.0/8",
            "Include /etc/csf/tcp|in|d=80|s=10.0.0.0/8",
            "|||||",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_rule_with_anything_more_is_another_rule() {
        for (rule, ours) in [
            ("-s 10.0.0.0/8 ! -i lo -p tcp -m tcp --dport 80 -j ACCEPT", true),
            ("-s 10.0.0.0/8 ! -i lo -p tcp -m tcp --dport 80 -j DROP", false),
            ("-s 10.0.0.0/8 -i eth0 -p tcp -m tcp --dport 80 -j ACCEPT", false),
            ("-s 10.0.0.0/8 ! -i lo -p tcp -m tcp --dport 80 -m limit --limit 1/sec -j ACCEPT", false),
            ("! -s 10.0.0.0/8 ! -i lo -p tcp -m tcp --dport 80 -j ACCEPT", false),
            ("-s 10.0.0.0/8 ! -i lo -j ACCEPT", false),
        ] {
            assert_eq!(Allow::of_rule(&split_words(rule), Way::In, &PLAIN).is_some(), ours, "{rule}");
        }
    }

    proptest! {
        #[test]
        fn lines_and_rules_come_back(v4: u32, v6: u128, length in 1_u8..=32, ports in proptest::collection::btree_set(1_u16.., 1..40)) {
            let four = IpNet::new(std::net::Ipv4Addr::from(v4).into(), length).unwrap().trunc();
            let six = IpNet::new(std::net::Ipv6Addr::from(v6).into(), length * 4).unwrap().trunc();
            let protocols = [Protocol::Tcp, Protocol::Udp].into();
            for allow in wanted(&[four, six].into_iter().collect(), &ports, &protocols) {
                prop_assert_eq!(Allow::read(&allow.line()), Some(allow.clone()));
                for device in [None, Some("eth0".to_owned())] {
                    let shape = Shape { device, accept: "ACCEPT" };
                    let words = split_words(&allow.rule(&shape));
                    prop_assert_eq!(Allow::of_rule(&words, allow.way, &shape), Some(allow.clone()));
                }
            }
        }

        #[test]
        fn reading_never_panics(line in r"[a-z0-9|:=,/. #uU_]{0,60}|.{0,30}") {
            let _ = Allow::read(&line);
        }
    }
}
