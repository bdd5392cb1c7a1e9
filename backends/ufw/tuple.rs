//! ufw's own notation for a rule, the `### tuple ###` line, and what such a rule does to a connection.
//!
//! Belongs here: reading a tuple and judging it. Does not: where tuples stand ([`super::file`]).
//!
//! `[route:]action[_log] protocol dport dst sport src [dapp sapp] direction[_interface] [comment=hex]`, separated by
//! blanks (`UFWBackendIptables._read_rules`). What can't be read is kept and counts for nothing: ufw skips it too.

use ipnet::IpNet;

use super::rule::{Allow, HEX_TAG, port_numbers, protocol_named};
use crate::{
    allowlist::Family,
    backends::iptables::rules::{everything, net},
    plan::Protocol,
};

/// How a tuple's line begins.
pub const MARK: &str = "### tuple ###";

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Lets it in.
    Allow,
    /// Drops it.
    Deny,
    /// Turns it away with an answer.
    Reject,
    /// Lets it in until there are six connections in thirty seconds.
    Limit,
}

impl Action {
    /// As ufw writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
            Self::Limit => "limit",
        }
    }
}

/// A rule of ufw's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    /// What it does.
    pub action: Action,
    /// `log` or `log-all`.
    pub log: Option<String>,
    /// It is about packets that pass through, not about those that come in.
    pub route: bool,
    /// `tcp`, `udp`, `any` or another.
    pub protocol: String,
    /// `any`, or numbers and ranges: `80,443`, `6000:6007`.
    pub dport: String,
    /// To where.
    pub dst: String,
    /// From which port.
    pub sport: String,
    /// From where.
    pub src: String,
    /// Names of application profiles, `-` where there is none.
    pub apps: Option<[String; 2]>,
    /// `in`, `out`, `in_eth0`, `in_eth0!out_eth1`.
    pub direction: String,
    /// In hexadecimal.
    pub comment: Option<String>,
}

/// Which packets something matches, as far as it matters for those that ours let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// From where; `None` is from everywhere, or from who knows where.
    pub from: Option<IpNet>,
    /// By which protocol; `None` is by any.
    pub protocol: Option<Protocol>,
    /// To which ports, as ranges; `None` is to any.
    pub ports: Option<Vec<(u16, u16)>>,
}

impl Scope {
    /// Whether it matches anything of what comes from the prefix, by the protocol, to the port.
    #[must_use]
    pub fn touches(&self, from: &IpNet, protocol: Protocol, port: u16) -> bool {
        self.from.is_none_or(|net| net.contains(from) || from.contains(&net))
            && self.protocol.is_none_or(|p| p == protocol)
            && self.ports.as_ref().is_none_or(|ports| ports.iter().any(|&(a, b)| (a..=b).contains(&port)))
    }

    /// Whether it matches anything of what the rule lets in.
    #[must_use]
    pub fn touches_any(&self, rule: &Allow) -> bool {
        rule.ports.iter().any(|&port| self.touches(&rule.from, rule.protocol, port))
    }
}

/// `80,6000:6007` as ranges; `None` for `any` and for what can't be read, which counts as any.
#[must_use]
pub fn port_ranges(word: &str) -> Option<Vec<(u16, u16)>> {
    let range = |p: &str| match p.split_once(':') {
        Some((a, b)) => Some((a.parse().ok()?, b.parse().ok()?)),
        None => p.parse().ok().map(|p| (p, p)),
    };
    word.split(',').map(range).collect()
}

impl Tuple {
    /// Reads what stands behind [`MARK`].
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (text, comment) = match text.split_once(" comment=") {
            Some((text, hex)) => (text, Some(hex.trim().to_owned())),
            None => (text, None),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (head, tail) = words.split_at_checked(6)?;
        let (apps, direction) = match tail {
            [] => (None, "in"),
            [direction] => (None, *direction),
            [dapp, sapp] => (Some([dapp, sapp]), "in"),
            [dapp, sapp, direction] => (Some([dapp, sapp]), *direction),
            _ => return None,
        };
        let &[action, protocol, dport, dst, sport, src] = head else { return None };
        let (route, action) = match action.split_once(':') {
            Some((_, action)) => (true, action),
            None => (false, action),
        };
        let (action, log) = match action.split_once('_') {
            Some((action, log)) => (action, Some(log.to_owned())),
            None => (action, None),
        };
        // ufw takes every other word for deny.
        let action = [Action::Allow, Action::Reject, Action::Limit]
            .into_iter()
            .find(|a| a.as_str() == action)
            .unwrap_or(Action::Deny);
        let [protocol, dport, dst, sport, src] = [protocol, dport, dst, sport, src].map(str::to_owned);
        let apps = apps.map(|a| a.map(|&w| w.to_owned()));
        Some(Self {
            action,
            log,
            route,
            protocol,
            dport,
            dst,
            sport,
            src,
            apps,
            direction: direction.to_owned(),
            comment,
        })
    }

    /// Ours, if it carries our tag and is of the form that we write.
    #[must_use]
    pub fn ours(&self, family: Family) -> Option<Allow> {
        let tagged = self.comment.as_deref().is_some_and(|c| c.eq_ignore_ascii_case(HEX_TAG));
        if !tagged || self.action != Action::Allow || self.log.is_some() {
            return None;
        }
        self.spec(family)
    }

    /// What ufw compares to tell rules apart, if the rule is of the kind that ours are: in, from one prefix, by one
    /// protocol, to ports, and nothing else. Two rules of one spec can't be in ufw's list, whatever they do.
    #[must_use]
    pub fn spec(&self, family: Family) -> Option<Allow> {
        let all = everything(family);
        let plain = !self.route
            && self.apps.is_none()
            && self.direction == "in"
            && self.sport == "any"
            && anywhere(&self.dst, family);
        let from = if anywhere(&self.src, family) { all } else { net(&self.src)? };
        if !plain || super::rule::family_of(&from) != family {
            return None;
        }
        let mut ports = port_numbers(&self.dport)?;
        ports.sort_unstable();
        Some(Allow { from, protocol: protocol_named(&self.protocol)?, ports })
    }

    /// What it turns away of what comes in, perhaps; `None` if it turns nothing away.
    ///
    /// Conditions that aren't looked at (interface, destination, source port) make it match less than is said here:
    /// then ours goes before it without need, which does no harm.
    #[must_use]
    pub fn refuses(&self, family: Family) -> Option<Scope> {
        if self.action == Action::Allow || self.route || self.direction.starts_with("out") {
            return None;
        }
        let protocol = match self.protocol.as_str() {
            "any" => None,
            other => Some(protocol_named(other)?),
        };
        let from = if anywhere(&self.src, family) { None } else { net_of(&self.src) };
        Some(Scope { from, protocol, ports: port_ranges(&self.dport) })
    }

    /// The rule as `ufw show added` tells it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.route {
            out.push_str("route ");
        }
        out.push_str(self.action.as_str());
        if let Some((side, rest)) = self.direction.split_once('_') {
            out.push_str(&format!(" {side} on {}", rest.replace("!out_", " out on ")));
        } else if self.direction == "out" {
            out.push_str(" out");
        }
        if let Some(log) = &self.log {
            out.push_str(&format!(" {log}"));
        }
        let any = |a: &str| a == "0.0.0.0/0" || a == "::/0" || a == "any";
        let profile = |i: usize| self.apps.as_ref().map(|a| a[i].replace("%20", " ")).filter(|a| a != "-");
        let end = |address: &str, port: &str, app: Option<String>| {
            let address = if any(address) { "any" } else { address };
            match app {
                Some(app) => format!("{address} app '{app}'"),
                None if port == "any" => address.to_owned(),
                None => format!("{address} port {port}"),
            }
        };
        if any(&self.src) && any(&self.dst) && self.sport == "any" && self.apps.is_none() && self.dport != "any" {
            let protocol = if self.protocol == "any" { String::new() } else { format!("/{}", self.protocol) };
            out.push_str(&format!(" {}{protocol}", self.dport));
        } else {
            let (src, dst) = (end(&self.src, &self.sport, profile(1)), end(&self.dst, &self.dport, profile(0)));
            out.push_str(&format!(" from {src}"));
            if dst != "any" {
                out.push_str(&format!(" to {dst}"));
            }
            if self.protocol != "any" && self.apps.is_none() {
                out.push_str(&format!(" proto {}", self.protocol));
            }
        }
        out
    }
}

fn anywhere(address: &str, family: Family) -> bool {
    address == "any" || address == everything(family).to_string()
}

/// A prefix whose host bits may be set: ufw keeps what it was told where it can't do better.
fn net_of(word: &str) -> Option<IpNet> {
    match word.parse::<IpNet>() {
        Ok(net) => Some(net.trunc()),
        Err(_) => net(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Tuple {
        Tuple::read(text).unwrap()
    }

    #[test]
    fn every_form_is_read_and_told() {
        for (line, text) in [
            ("limit tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "limit 22/tcp"),
            ("deny any 443 ::/0 any ::/0 in", "deny 443"),
            ("deny_log any any 0.0.0.0/0 any 173.245.48.5 in comment=68c3b66d", "deny log from 173.245.48.5"),
            (
                "route:allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_eth1",
                "route allow in on eth0 out on eth1 80/tcp",
            ),
            (
                "allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 WWW%20Full - in_eth0",
                "allow in on eth0 from any to any app 'WWW Full'",
            ),
            ("reject any 25 0.0.0.0/0 any 0.0.0.0/0 out", "reject out 25"),
            (
                "reject_log-all udp 8443 10.0.0.1 53 10.0.0.0/8 in",
                "reject log-all from 10.0.0.0/8 port 53 to 10.0.0.1 port 8443 proto udp",
            ),
            ("allow any any 0.0.0.0/0 any 10.0.0.0/8", "allow from 10.0.0.0/8"),
            ("allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 Apache -", "allow from any to any app 'Apache'"),
        ] {
            assert_eq!(read(line).text(), text, "{line}");
        }
        for bad in ["", "allow tcp 80", "allow tcp 80 a b c d e f g"] {
            assert_eq!(Tuple::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ours_is_what_carries_the_tag_and_has_our_form() {
        let plain = "allow tcp 80,443 0.0.0.0/0 any 173.245.48.0/20 in";
        let ours = read(&format!("{plain} comment={HEX_TAG}"));
        assert_eq!(ours.ours(Family::V4).unwrap().ports, [80, 443]);
        assert_eq!(read(plain).ours(Family::V4), None);
        assert_eq!(read(plain).spec(Family::V4), ours.ours(Family::V4));
        for other in [
            "deny tcp 443 0.0.0.0/0 any 0.0.0.0/0 in",
            "allow_log tcp 443 0.0.0.0/0 any 1.2.3.4 in",
            "route:allow tcp 443 0.0.0.0/0 any 1.2.3.4 in",
            "allow tcp 443 0.0.0.0/0 any 1.2.3.4 in_eth0",
            "allow tcp 443 0.0.0.0/0 any 1.2.3.4 out",
            "allow any 443 0.0.0.0/0 any 1.2.3.4 in",
            "allow tcp 443 10.0.0.1 any 1.2.3.4 in",
            "allow tcp 443 0.0.0.0/0 53 1.2.3.4 in",
            "allow tcp 80:90 0.0.0.0/0 any 1.2.3.4 in",
            "allow tcp 443 0.0.0.0/0 any 1.2.3.4 Apache - in",
        ] {
            assert_eq!(read(&format!("{other} comment={HEX_TAG}")).ours(Family::V4), None, "{other}");
        }
    }

    #[test]
    fn refusals_touch_what_they_overlap() {
        let touches = |line: &str| {
            let from = "173.245.48.0/20".parse().unwrap();
            read(line).refuses(Family::V4).is_some_and(|s| s.touches(&from, Protocol::Tcp, 443))
        };
        for line in [
            "deny any 443 0.0.0.0/0 any 0.0.0.0/0 in",
            "deny any any 0.0.0.0/0 any 173.245.48.5 in",
            "reject tcp 400:500 0.0.0.0/0 any 173.0.0.0/8 in_eth0",
            "limit tcp 80,443 10.0.0.1 any 0.0.0.0/0 in",
            "deny tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 WWW%20Full - in",
        ] {
            assert!(touches(line), "{line}");
        }
        for line in [
            "allow any 443 0.0.0.0/0 any 0.0.0.0/0 in",
            "deny udp 443 0.0.0.0/0 any 0.0.0.0/0 in",
            "deny any 80 0.0.0.0/0 any 0.0.0.0/0 in",
            "deny any any 0.0.0.0/0 any 10.0.0.0/8 in",
            "deny esp any 0.0.0.0/0 any 0.0.0.0/0 in",
            "deny any 443 0.0.0.0/0 any 0.0.0.0/0 out",
            "route:deny any 443 0.0.0.0/0 any 0.0.0.0/0 in_eth0",
        ] {
            assert!(!touches(line), "{line}");
        }
    }
}
