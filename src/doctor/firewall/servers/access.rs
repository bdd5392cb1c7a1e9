//! Lists of addresses in web servers: which of Cloudflare's a site turns away.
//!
//! A server's rules are held against addresses, never against ranges: between two edges of the nets that they name, all
//! addresses fare alike, so one of each such stretch tells of all. What can't be told is never taken for a refusal.
//!
//! Belongs here: judging by addresses, and choosing the sites that are asked about. Does not: reading either server's
//! rules (`nginx`, `apache`), what else hangs on addresses (`conditions`), words (`super`).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::IpNet;

use super::conditions::{Refusal, Verdict, Visit, tried};
use crate::{allowlist::Prefixes, doctor::Mode};

/// The status of who isn't let in.
pub(super) const FORBIDDEN: u16 = 403;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    pub ip: IpAddr,
    /// Whether it is this machine, by the address that it asks at.
    pub own: bool,
    /// Whether the address stands for all up to the next edge of a net.
    pub stretch: bool,
}

impl Client {
    /// One of Cloudflare's, or anybody else.
    pub const fn other(ip: IpAddr) -> Self {
        Self { ip, own: false, stretch: false }
    }
}

/// What becomes of a request for `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    In,
    Out,
    /// It hangs on more than addresses, or can't be told.
    Unknown,
}

/// Whose address the rules see when Cloudflare connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// The visitor's where it comes from one of these nets, otherwise Cloudflare's.
    Visitors(Vec<IpNet>),
    /// It can't be told.
    Unknown,
}

impl Shown {
    /// Cloudflare's own, always.
    pub const fn connections() -> Self {
        Self::Visitors(Vec::new())
    }

    /// The ranges whose visitors are not told apart.
    pub fn missing(&self, edge: &Prefixes) -> Vec<IpNet> {
        match self {
            Self::Visitors(trusted) => {
                let trusted: Prefixes = trusted.iter().copied().collect();
                edge.iter().filter(|range| !trusted.covers(range)).collect()
            }
            Self::Unknown => Vec::new(),
        }
    }
}

/// A virtual host, as far as it matters to who may ask for `/`.
pub(super) struct Site<'s> {
    /// Its names, with wildcards; none where it has none.
    pub names: Vec<String>,
    /// Where it listens; `None` is any address, any port.
    pub at: Vec<(Option<IpAddr>, Option<u16>)>,
    /// Whether it takes what no site is named for, before the others.
    pub default: bool,
    /// Whether it sends everybody elsewhere before it looks at who asks.
    pub sends_away: bool,
    pub shown: Shown,
    pub rules: Box<dyn Fn(Client) -> Fate + 's>,
    /// What is asked about the client before those rules, or as well.
    pub conditions: Box<dyn Fn(Visit) -> Verdict + 's>,
    /// Whether one of these conditions refuses somebody by the address.
    pub conditional: bool,
    /// Whether rules or conditions are held against the text of an address, so that some of each range are tried.
    pub tried: bool,
    /// Every net that the rules and conditions name.
    pub nets: Vec<IpNet>,
    /// The rules that turn somebody away: where, and what they say.
    pub seen: Vec<(String, String)>,
    /// What to do about the rule that turns this address away: a sentence, with the file.
    pub mend: Box<dyn Fn(IpAddr) -> Mend + 's>,
}

/// What to do about a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mend {
    pub what: String,
    /// The file to mend.
    pub file: PathBuf,
}

/// Whom a site turns away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turned {
    Nobody,
    /// This machine, as far as doctor's own requests go, and nobody of Cloudflare's.
    Own,
    /// These ranges, or parts of them.
    Edge(Vec<IpNet>),
    /// Every visitor, because only Cloudflare's addresses are let in, and the visitor's is put in their place.
    Visitors,
}

/// One address of each stretch of a range in which all fare alike.
fn points(range: IpNet, nets: &[IpNet]) -> Vec<IpAddr> {
    let next = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|n| IpAddr::V6(Ipv6Addr::from_bits(n))),
    };
    let edges = nets.iter().flat_map(|net| [Some(net.network()), next(net.broadcast())]).flatten();
    let inside: BTreeSet<IpAddr> = edges.chain([range.network()]).filter(|ip| range.contains(ip)).collect();
    inside.into_iter().collect()
}

impl Site<'_> {
    fn fate(&self, client: Client) -> Fate {
        match (self.conditions)(client.into()) {
            Verdict::Refused(_) => Fate::Out,
            Verdict::Sent => Fate::In,
            Verdict::Passed if self.sends_away => Fate::In,
            Verdict::Passed => (self.rules)(client),
        }
    }

    /// The condition that refuses this, if it is one.
    fn refusal(&self, visit: Visit) -> Option<Refusal> {
        if let Verdict::Refused(refusal) = (self.conditions)(visit) { Some(refusal) } else { None }
    }

    /// The addresses of a range that tell of all of it, as far as they can.
    fn points(&self, range: IpNet) -> Vec<IpAddr> {
        let mut all = points(range, &self.nets);
        if self.tried {
            all.extend(tried(range));
        }
        all
    }

    /// The first address of a range that is turned away, and the condition that does so. Where the visitor's address is
    /// shown in its place, only what asks for the connection's own does.
    fn out_of(&self, range: IpNet, shown: bool) -> Option<(IpAddr, Option<Refusal>)> {
        if shown && !self.conditional {
            return None;
        }
        self.points(range).into_iter().find_map(|ip| {
            if shown {
                let through = Visit { shown: None, peer: Some(ip), stretch: false };
                return self.refusal(through).map(|refusal| (ip, Some(refusal)));
            }
            let client = Client::other(ip);
            (self.fate(client) == Fate::Out).then(|| (ip, self.refusal(client.into())))
        })
    }

    /// Why it turns away whom it does: for one address of those.
    pub fn why(&self, turned: &Turned, edge: &Prefixes, own: &[IpAddr]) -> Refusal {
        let missing = self.shown.missing(edge);
        let of = |range: &IpNet| self.out_of(*range, !missing.contains(range));
        let anybody = Client { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), own: false, stretch: true };
        let found = match turned {
            // Where nobody at all gets in, Cloudflare's own addresses don't either.
            Turned::Edge(denied) => denied
                .iter()
                .find_map(of)
                .or_else(|| denied.iter().find_map(|range| self.out_of(*range, false)))
                .unwrap_or((anybody.ip, None)),
            Turned::Own => {
                let mut clients = own.iter().map(|ip| Client { own: true, ..Client::other(*ip) });
                let out = clients.find(|client| self.fate(*client) == Fate::Out).unwrap_or(anybody);
                (out.ip, self.refusal(out.into()))
            }
            Turned::Visitors => {
                let example = edge.iter().find_map(|range| self.out_of(range, false)).map(|(ip, _)| ip);
                (example.unwrap_or(anybody.ip), self.refusal(anybody.into()))
            }
            Turned::Nobody => (anybody.ip, None),
        };
        let by_list = |ip| Refusal { status: FORBIDDEN, seen: self.seen.clone(), mend: (self.mend)(ip) };
        found.1.unwrap_or_else(|| by_list(found.0))
    }

    /// Whom it turns away, of Cloudflare's ranges and this machine's own addresses.
    pub fn turned(&self, edge: &Prefixes, own: &[IpAddr]) -> Turned {
        let visitors = self.visitors(edge);
        let missing = self.shown.missing(edge);
        let denied: Vec<IpNet> = match visitors {
            Visitors::None => edge.iter().collect(),
            // It may come by way of another machine, of which nothing is known.
            _ if self.shown == Shown::Unknown => Vec::new(),
            _ => edge.iter().filter(|range| self.out_of(*range, !missing.contains(range)).is_some()).collect(),
        };
        let shown_somewhere = matches!(&self.shown, Shown::Visitors(t) if !t.is_empty());
        if !denied.is_empty() {
            Turned::Edge(denied)
        } else if visitors == Visitors::OnlyEdge && shown_somewhere && missing.len() < edge.len() {
            Turned::Visitors
        } else if own.iter().any(|ip| self.fate(Client { own: true, ..Client::other(*ip) }) == Fate::Out) {
            Turned::Own
        } else {
            Turned::Nobody
        }
    }

    /// What becomes of the whole internet here.
    fn visitors(&self, edge: &Prefixes) -> Visitors {
        let everybody =
            [IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        let nets: Vec<IpNet> = self.nets.iter().copied().chain(edge.iter()).collect();
        let all = everybody.iter().filter_map(|ip| IpNet::new(ip.addr(), 0).ok()).flat_map(|all| points(all, &nets));
        let gets_in = |ip: &IpAddr| self.fate(Client { stretch: true, ..Client::other(*ip) }) != Fate::Out;
        let (inside, outside): (Vec<IpAddr>, Vec<IpAddr>) = all.partition(|ip| edge.contains(*ip));
        // Long lists of those that are refused are the rule, and end the search at once.
        if outside.iter().filter(|ip| !ip.is_loopback()).any(gets_in) {
            Visitors::Some
        } else if inside.iter().any(gets_in) {
            Visitors::OnlyEdge
        } else {
            Visitors::None
        }
    }
}

/// Who of the whole internet may get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visitors {
    None,
    OnlyEdge,
    Some,
}

/// A site that is asked about, at one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its number among the sites.
    pub site: usize,
    pub port: u16,
}

/// The sites behind these doors: a list for each name that was asked about, or one of them all.
pub(super) fn asked(sites: &[Site<'_>], doors: &[(IpAddr, u16)], hosts: &[String], mode: Mode) -> Vec<Vec<Asked>> {
    // Under Flexible nobody comes to port 443.
    let doors = || doors.iter().filter(|(_, port)| mode != Mode::Flexible || *port != 443);
    let unique = |mut all: Vec<Asked>| {
        let mut seen: Vec<Asked> = Vec::new();
        all.retain(|one| {
            !sites.get(one.site).is_none_or(|s| s.sends_away && !s.conditional) && !seen.contains(one) && {
                seen.push(*one);
                true
            }
        });
        all
    };
    if hosts.is_empty() {
        let each =
            doors().flat_map(|(ip, port)| at(sites, *ip, *port).into_iter().map(|site| Asked { site, port: *port }));
        return vec![unique(each.collect())];
    }
    let of = |host: &String| {
        let each =
            doors().filter_map(|(ip, port)| Some(Asked { site: serving(sites, *ip, *port, host)?, port: *port }));
        unique(each.collect())
    };
    hosts.iter().map(of).collect()
}

/// The sites that listen there: those that name the address, else the others.
fn at(sites: &[Site<'_>], ip: IpAddr, port: u16) -> Vec<usize> {
    let listens = |named: bool| {
        sites.iter().enumerate().filter_map(move |(n, site)| {
            let there = |(at, on): &(Option<IpAddr>, Option<u16>)| {
                on.is_none_or(|on| on == port) && at.map_or(!named, |at| named && at == ip)
            };
            site.at.iter().any(there).then_some(n)
        })
    };
    let exact: Vec<usize> = listens(true).collect();
    if exact.is_empty() { listens(false).collect() } else { exact }
}

fn serving(sites: &[Site<'_>], ip: IpAddr, port: u16, host: &str) -> Option<usize> {
    let there = at(sites, ip, port);
    let names =
        |n: &usize, is: &dyn Fn(&str) -> bool| sites.get(*n).is_some_and(|s| s.names.iter().any(|name| is(name)));
    there
        .iter()
        .find(|n| names(n, &|name| name.eq_ignore_ascii_case(host)))
        .or_else(|| there.iter().find(|n| names(n, &|name| serves(name, host))))
        .or_else(|| there.iter().find(|n| sites.get(**n).is_some_and(|s| s.default)))
        .or_else(|| there.first())
        .copied()
}

/// `example.org`, `.example.org`, `*.example.org`
fn serves(name: &str, host: &str) -> bool {
    let ends = |end: &str| host.len() > end.len() && host.ends_with(end);
    name.eq_ignore_ascii_case(host)
        || name.starts_with('~')
        || name.strip_prefix('*').is_some_and(ends)
        || (name.starts_with('.') && (ends(name) || &name[1..] == host))
}

/// Whether an expression is plainly about everything, and so about `/`. Any other is taken to be about a part of a site.
pub(super) fn is_about_all(expression: &str) -> bool {
    let plain =
        expression.trim_start_matches('^').trim_end_matches('$').trim_start_matches('/').trim_start_matches('?');
    matches!(plain, "" | ".*" | "(.*)" | ".+" | "(.+)" | ".?" | "." | "(.*)/?" | "+")
}

pub(super) fn net(word: &str) -> Option<IpNet> {
    word.parse().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from))
}
