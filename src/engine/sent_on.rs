//! Where rules send connections on to: destination translation on the way of what the ranges send here.
//!
//! Belongs here: what a rule says, and how to see it and take it out. Does not: whether anything listens there
//! ([`crate::doctor`]).

use std::net::{IpAddr, SocketAddr};

use super::{picture, sync::Session, verify::Ask};
use crate::{
    allowlist::Family,
    error::Result,
    plan::Desired,
    reach::{Leg, Step, owner, sources as numbers, walk},
    report::ReachReport,
};

/// A door whose connections a rule sends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentOn {
    /// The address and port that Cloudflare connects to.
    pub from: SocketAddr,
    /// The new address; none for a rule that keeps them on this host (`redirect`).
    pub to: Option<IpAddr>,
    /// The new port.
    pub port: u16,
    /// What becomes of them: `redirect to port 9443`.
    pub words: String,
    /// The rule as its tool prints it, if that is known.
    pub rule: Option<String>,
    /// The command that shows the rule.
    pub show: String,
    /// The command that takes it out, if it is nobody's but the operator's.
    pub delete: Option<String>,
}

impl Session<'_> {
    /// Of these addresses of this host, at the wanted ports: which connections of the ranges are sent on.
    ///
    /// # Errors
    /// `usage` for what can't be asked, `netlink`.
    pub(crate) fn sent_on(&self, want: &Desired, at: &[IpAddr]) -> Result<Vec<SentOn>> {
        let links = self.host.links()?;
        let mut picture = picture::take(self.host, &want.prefixes);
        let facts = picture::facts(self.host, &links, &mut picture.gaps);
        let mut found = Vec::new();
        for &ip in at {
            let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
            let Some(edge) = want.prefixes.family(family).next() else { continue };
            let ask = Ask { to: Some(ip), address: Some(edge.network()), ..Ask::default() };
            for probe in self.probes(want, &ask, &links, &mut ReachReport::default())? {
                let (steps, _) = walk::trace(&picture, &facts, &probe, numbers::number(edge.network()));
                let from = SocketAddr::new(probe.to, probe.port);
                let sent = steps.into_iter().filter(|s| s.matched && s.leg == Leg::Syn);
                if let Some(sent) = sent.filter_map(|s| self.sent(from, s)).next() {
                    found.push(sent);
                }
            }
        }
        Ok(found)
    }

    fn sent(&self, from: SocketAddr, mut step: Step) -> Option<SentOn> {
        let (to, port) = destination(&step.outcome)?;
        self.add_texts(std::iter::once(&mut step.place));
        let place = &step.place;
        // Those come back by themselves, or belong to a container.
        let is_managed = place.chain.starts_with("DOCKER") || place.chain.starts_with("KUBE-");
        Some(SentOn {
            from,
            to,
            port,
            rule: place.text.clone(),
            show: owner::show(place),
            delete: owner::delete(place).filter(|_| !is_managed),
            words: step.outcome,
        })
    }
}

/// The new destination, by the words of a step.
fn destination(words: &str) -> Option<(Option<IpAddr>, u16)> {
    if let Some(port) = words.strip_prefix("redirect to port ") {
        return Some((None, port.parse().ok()?));
    }
    let to: SocketAddr = words.strip_prefix("dnat to ")?.parse().ok()?;
    Some((Some(to.ip()), to.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_from_a_step() {
        let ip = |ip: &str| Some(ip.parse().unwrap());
        assert_eq!(destination("redirect to port 9443"), Some((None, 9443)));
        assert_eq!(destination("dnat to 192.0.2.7:80"), Some((ip("192.0.2.7"), 80)));
        assert_eq!(destination("dnat to [2001:db8::7]:80"), Some((ip("2001:db8::7"), 80)));
        assert_eq!(destination("jump DOCKER"), None);
    }
}
