//! Names, addresses and ports: does the DNS send visitors to Cloudflare, and can Cloudflare come here on these ports?
//!
//! Belongs here: gathering what the DNS says (`look`) and what it means (`judge`). Does not: asking for it
//! ([`crate::probe::dns`]); whether anything listens where nothing depends on the family or the port (the room `online`).

mod judge;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use tokio::task::JoinSet;

pub(super) use self::judge::is_inside;
use super::Context;
use crate::{
    error::Result,
    probe::{
        self,
        dns::{self, Names},
    },
    report::{Finding, Finds, Room},
};

const RESOLV_CONF: &str = "/etc/resolv.conf";

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let here = Here::of(cx);
    let (mut found, proxied) = match names(cx) {
        Err(skipped) => (vec![*skipped], None),
        Ok(names) => judge::judge(&names, &here),
    };
    found.extend(ports::judge(&here.ports, &cx.ask.ports, proxied));
    found
}

fn finding(id: &'static str, verdict: Finds, text: impl Into<String>) -> Finding {
    Finding::new(Room::Dns, id, verdict, text)
}

/// What is known of this machine.
#[derive(Debug, Default)]
struct Here {
    /// Cloudflare's ranges, without the operator's own.
    edge: crate::allowlist::Prefixes,
    /// Every address by which this machine, or the origin that was named, can be meant.
    own: BTreeSet<IpAddr>,
    /// The origin's addresses.
    origins: Vec<IpAddr>,
    /// The ports that are asked about.
    ports: BTreeSet<u16>,
    /// On which of those something listens at these addresses; `None` where that can't be told: of another machine, or
    /// for lack of an answer.
    listens: Option<BTreeSet<SocketAddr>>,
}

impl Here {
    fn of(cx: &Context<'_>) -> Self {
        let mine: BTreeSet<IpAddr> = cx.links.iter().flat_map(|l| &l.addresses).map(|a| a.ip).collect();
        let elsewhere = cx.origins.iter().any(|ip| !mine.contains(ip));
        let each = || mine.iter().flat_map(|ip| cx.ports.iter().map(|port| SocketAddr::new(*ip, *port)));
        let listens = || each().filter(|at| !cx.listening(at.ip(), at.port()).is_empty()).collect();
        Self {
            edge: cx.edge.minus(&cx.session.config.extra),
            own: mine.iter().chain(&cx.origins).copied().collect(),
            origins: cx.origins.clone(),
            ports: cx.ports.clone(),
            listens: (!elsewhere && cx.listeners.is_ok()).then(listens),
        }
    }

    /// The ports on which something listens over IPv4, and nothing at this address of IPv6.
    fn deaf_ports(&self, v6: IpAddr) -> Vec<u16> {
        let Some(listens) = &self.listens else { return Vec::new() };
        let over_v4 = |port| listens.iter().any(|at| at.port() == port && self.is_origin4(at.ip()));
        self.ports.iter().copied().filter(|p| over_v4(*p) && !listens.contains(&SocketAddr::new(v6, *p))).collect()
    }

    fn is_origin4(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() && self.origins.contains(&ip)
    }
}

/// What the resolvers say of each name, or why they weren't asked.
fn names(cx: &Context<'_>) -> Result<Vec<(String, Names)>, Box<Finding>> {
    let skipped = |id, text: String| Box::new(finding(id, Finds::Skipped, text));
    let hosts: BTreeSet<&String> = cx.ask.hosts.iter().collect();
    if hosts.is_empty() {
        let why = "no name was given, so the DNS was not asked";
        return Err(Box::new(
            finding("dns.no-host", Finds::Skipped, why).mend_by("name the site", "edgeallow doctor www.example.com"),
        ));
    }
    if cx.session.offline {
        return Err(skipped("dns.offline", "the DNS was not asked, because of --offline".to_owned()));
    }
    let unread = |why: String| {
        let text = format!("the DNS was not asked: {RESOLV_CONF} names no resolver{why}");
        Box::new(finding("dns.no-resolver", Finds::Skipped, text).seen(RESOLV_CONF, "").mend(
            "name one there; most often DHCP, systemd-resolved or the hoster's panel does. The machine itself needs it too",
        ))
    };
    let file = cx.session.host.file(Path::new(RESOLV_CONF)).map_err(|e| unread(format!(" ({})", e.message)))?;
    let resolvers = file.map(|f| dns::resolvers(&String::from_utf8_lossy(&f.content))).unwrap_or_default();
    if resolvers.is_empty() {
        return Err(unread(String::new()));
    }
    (cx.session.progress)("asking the DNS");
    let asked = probe::wait(async {
        let mut questions = JoinSet::new();
        for host in hosts {
            let (host, resolvers) = (host.clone(), resolvers.clone());
            questions.spawn(async move {
                let names = dns::addresses(&resolvers, &host, dns::TRY).await;
                (host, names)
            });
        }
        questions.join_all().await
    });
    let unasked = |e: crate::error::Error| skipped("dns.unasked", format!("the DNS was not asked: {}", e.message));
    let mut told = BTreeMap::new();
    for (host, names) in asked.map_err(unasked)? {
        told.insert(host, names.map_err(unasked)?);
    }
    // In the order in which they were given.
    Ok(cx.ask.hosts.iter().filter_map(|host| told.remove_entry(host)).collect())
}

#[cfg(test)]
mod tests;
