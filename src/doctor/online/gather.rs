//! What there is to judge: sockets, the ways to them, answers, and the web servers on this machine.
//!
//! Belongs here: reading and asking. Does not: what it means (`judge`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    elsewhere::{self, Asked, Far, Foreign},
    limits::{Limited, Limits, is_well, limits},
    servers,
    servers::Installed,
    strangers::hangs_up,
    visit::{CONNECT, PATIENCE, Visit, Visitor, is_address},
};
use crate::{
    doctor::{Context, HTTP_PORTS, HTTPS_PORTS, Mode},
    engine::sent_on::SentOn,
    error::Result,
    host::ListenSocket,
    plan::{Desired, Protocol},
    probe::{http::Scheme, wait},
};

/// At how many addresses of a port is asked.
const DOORS: usize = 4;
/// How long a machine beside this one is waited for: that there is none the kernel says after three questions, one a
/// second (`/proc/sys/net/ipv4/neigh/*/mcast_solicit`).
const ARP: Duration = Duration::from_secs(4);
/// How many sites are asked for.
const SITES: usize = 16;
/// How long the next question to an address waits for an answer to the one before.
const STEP: Duration = Duration::from_secs(1);
/// After so many that aren't answered in that time, the others don't wait for each other any more.
const MOST_SLOW: usize = 4;
/// How long a limit is given before the same is asked for again.
const SECOND: Duration = Duration::from_secs(1);
/// How often that is done at one address.
const MOST_AGAIN: usize = 4;

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The zone's mode.
    pub mode: Mode,
    /// Whether the operator named ports: he wants each of them to work.
    pub ports_asked: bool,
    /// Whether the operator named the site.
    pub named: bool,
    /// Names that only a redirect tells: none of this machine's sites, as far as its configurations say.
    pub strange: Vec<String>,
    /// The origin, where it is none of this host's addresses.
    pub foreign: Option<Foreign>,
    /// Each port.
    pub ports: Vec<Port>,
    /// Sockets on other ports that Cloudflare serves, looked for where nothing listens on one that is asked about.
    pub other_ports: Vec<Socket>,
    /// The web servers on this machine.
    pub servers: Vec<Installed>,
    /// What a limit may have refused, and isn't among the visits if it did so twice.
    pub limited: Vec<Limited>,
    /// A condition on which nginx ends connections without an answer: its place, and what it says.
    pub hangs_up: Option<(String, String)>,
}

/// A port.
#[derive(Debug, Clone, Default)]
pub(super) struct Port {
    pub number: u16,
    /// Every socket on it, also those that no address of the origin leads to.
    pub sockets: Vec<Socket>,
    /// One for each address of the origin.
    pub doors: Vec<Door>,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub address: SocketAddr,
    /// The programs that hold it: names, without repetitions. None where they may not be seen.
    pub programs: Vec<String>,
    pub pid: Option<u32>,
}

/// An address and port of the origin.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub ip: IpAddr,
    pub way: Way,
    /// Whether a packet filter keeps Cloudflare away.
    pub filtered: bool,
    /// Whether as many connections wait to be accepted as may.
    pub full: bool,
    pub visits: Vec<Visit>,
}

impl Door {
    /// Whether it is worth asking: an answer from where a rule sends nobody says nothing.
    const fn is_asked(&self) -> bool {
        matches!(self.way, Way::Socket | Way::SentOn(_) | Way::Far(Far::Open))
    }
}

/// Where a connection to a door ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// At a socket of this host.
    Socket,
    /// Nothing listens here, and yet it is answered, or sent on: in the words of the rule, if it is known.
    SentOn(Option<String>),
    /// Where nothing takes it: a rule sends it there.
    Astray(Box<SentOn>, Dead),
    /// At another machine, with this result.
    Far(Far),
    /// Nowhere.
    Nothing,
}

impl Way {
    /// Whether a connection is taken at its end.
    pub const fn is_open(&self) -> bool {
        match self {
            Self::Far(far) => matches!(far, Far::Open),
            Self::Nothing => false,
            Self::Socket | Self::SentOn(_) | Self::Astray(..) => true,
        }
    }
}

/// Why nothing takes what is sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dead {
    /// Nothing listens.
    Refuses,
    /// There is no such machine: a container that is gone.
    Gone,
    /// It doesn't answer this host, which may be a rule there.
    Silent,
}

pub(super) fn gather(cx: &Context<'_>) -> Result<Seen> {
    if let Some(ip) = cx.foreign()
        && let Some(seen) = elsewhere::gather(cx, ip)?
    {
        return Ok(seen);
    }
    let listeners = cx.listeners.as_ref().map_err(Clone::clone)?;
    let (origins, foreign) = origins(cx);
    let mut ports: Vec<Port> = cx.ports.iter().map(|p| port(cx, listeners, &origins, *p)).collect();
    wait(knock(&mut ports))?;
    follow_rules(cx, &mut ports)?;
    let is_asked = ports.iter().flat_map(|p| &p.doors).any(Door::is_asked);
    let limits = Arc::new(if is_asked { limits(cx) } else { Limits::default() });
    let limited = wait(ask(cx, &mut ports, limits))?;
    let missing = ports.iter().any(|p| p.doors.iter().all(|d| d.way == Way::Nothing));
    Ok(Seen {
        mode: cx.ask.mode,
        ports_asked: !cx.ask.ports.is_empty(),
        named: !cx.ask.hosts.is_empty(),
        strange: servers::strange(cx, told_names(&ports)),
        foreign,
        ports,
        limited,
        other_ports: if missing { other_ports(cx, listeners) } else { Vec::new() },
        hangs_up: if is_asked { hangs_up(cx) } else { None },
        servers: servers::installed(cx, missing),
    })
}

/// The addresses to look at, and the asked one if it is none of them: behind a cloud's address translation the public
/// address is nowhere on the host.
fn origins(cx: &Context<'_>) -> (Vec<IpAddr>, Option<Foreign>) {
    match cx.foreign() {
        Some(ip) => (cx.global(ip.is_ipv4()).collect(), Some(Foreign { ip, asked: Asked::Here })),
        None => (cx.origins.clone(), None),
    }
}

/// What others could connect to on ports that Cloudflare serves and nobody asked about.
fn other_ports(cx: &Context<'_>, listeners: &[ListenSocket]) -> Vec<Socket> {
    let served = |port: &u16| HTTP_PORTS.contains(port) || HTTPS_PORTS.contains(port);
    let counts = |s: &&ListenSocket| {
        let port = s.address.port();
        served(&port) && !cx.ports.contains(&port) && !s.address.ip().is_loopback()
    };
    listeners.iter().filter(counts).map(Socket::from).collect()
}

impl From<&ListenSocket> for Socket {
    fn from(s: &ListenSocket) -> Self {
        let programs: BTreeSet<&str> = s.programs.iter().map(|p| p.name.as_str()).collect();
        Self {
            address: s.address,
            programs: programs.into_iter().map(str::to_owned).collect(),
            pid: s.programs.first().map(|p| p.pid),
        }
    }
}

fn port(cx: &Context<'_>, listeners: &[ListenSocket], origins: &[IpAddr], number: u16) -> Port {
    let sockets = listeners.iter().filter(|s| s.address.port() == number).map(Socket::from);
    let door = |ip: &IpAddr| {
        let taking = cx.listening(*ip, number);
        Door {
            ip: *ip,
            way: if taking.is_empty() { Way::Nothing } else { Way::Socket },
            filtered: cx.is_filtered(*ip, number),
            full: taking.iter().any(|s| s.backlog > 0 && s.waiting >= s.backlog),
            visits: Vec::new(),
        }
    };
    Port { number, sockets: sockets.collect(), doors: origins.iter().map(door).collect() }
}

/// Connects where nothing listens: a rule may send the connection to where something does.
async fn knock(ports: &mut [Port]) {
    let closed = |port: &Port| {
        let number = port.number;
        let doors = port.doors.iter().filter(|door| door.way == Way::Nothing);
        doors.map(|door| SocketAddr::new(door.ip, number)).collect::<Vec<_>>()
    };
    let ends = elsewhere::knock(ports.iter().flat_map(closed), CONNECT).await;
    for port in ports {
        for door in &mut port.doors {
            if ends.get(&SocketAddr::new(door.ip, port.number)) == Some(&Far::Open) {
                door.way = Way::SentOn(None);
            }
        }
    }
}

/// Asks where something listens: one question after the other at each address, as few as will do.
pub(super) async fn ask(cx: &Context<'_>, ports: &mut [Port], limits: Arc<Limits>) -> Vec<Limited> {
    let mut lanes: BTreeMap<IpAddr, Vec<Question>> = BTreeMap::new();
    let on_80 = ports.iter().filter(|p| p.number == 80).flat_map(|p| &p.doors);
    let open_plain: Vec<IpAddr> = on_80.filter(|d| d.way.is_open()).map(|d| d.ip).collect();
    for (p, port) in ports.iter().enumerate() {
        let asked = port.doors.iter().enumerate().filter(|(_, d)| d.is_asked()).take(DOORS);
        for (d, door) in asked {
            let plain = match door.way {
                Way::Far(_) => open_plain.contains(&door.ip),
                _ => !cx.listening(door.ip, 80).is_empty(),
            };
            let visitors = visitors(cx, SocketAddr::new(door.ip, port.number), plain);
            let questions =
                visitors.into_iter().map(|(visitor, if_redirected)| Question { p, d, visitor, if_redirected });
            lanes.entry(door.ip).or_default().extend(questions);
        }
    }
    let mut asking: JoinSet<Vec<(Question, Told)>> = JoinSet::new();
    for questions in lanes.into_values() {
        asking.spawn(lane(questions, Arc::clone(&limits)));
    }
    let mut done: Vec<(Question, Told)> = asking.join_all().await.into_iter().flatten().collect();
    done.sort_by_cached_key(|(q, _)| (q.visitor.host.clone(), q.visitor.scheme, q.p, q.d));
    let mut limited = Vec::new();
    for (Question { p, d, .. }, Told { visit, met }) in done {
        let Some(port) = ports.get_mut(p) else { continue };
        limited.extend(met.map(|met| Limited { port: port.number, ..met }));
        if let Some(door) = port.doors.get_mut(d) {
            door.visits.extend(visit);
        }
    }
    limited
}

/// The sites that were asked for, where the operator named none: redirects have told them.
pub(super) fn told_names(ports: &[Port]) -> Vec<String> {
    let visits = ports.iter().flat_map(|p| &p.doors).flat_map(|d| &d.visits);
    let mut names: Vec<String> = visits.map(|v| v.host.clone()).filter(|host| !is_address(host)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Who is sent to a door.
struct Question {
    p: usize,
    d: usize,
    visitor: Visitor,
    /// Only if the visitor who came by `http://` was redirected: else the server makes no difference.
    if_redirected: bool,
}

impl Question {
    /// The same with the name that the answer tells, where none was: under Flexible the visitor comes back with it.
    fn by_name(&self, visit: &Visit) -> Option<Self> {
        let Self { p, d, ref visitor, if_redirected } = *self;
        let is_flexible = !visitor.tls && visitor.scheme == Scheme::Https && !if_redirected;
        let name = visit.told_name().filter(|_| is_flexible && visitor.names_no_site())?;
        Some(Self {
            p,
            d,
            visitor: Visitor { host: name.clone(), sites: vec![name], ..visitor.clone() },
            if_redirected,
        })
    }
}

/// What came of it.
#[derive(Default)]
struct Told {
    /// Nothing where it is the handshake that fails, or a limit that answers.
    visit: Option<Visit>,
    met: Option<Limited>,
}

/// Asks at one address. A server that stalls costs its time once: the next question doesn't wait for it for long.
async fn lane(questions: Vec<Question>, limits: Arc<Limits>) -> Vec<(Question, Told)> {
    let pause = limits.pause(questions.len());
    let (now, later): (Vec<_>, Vec<_>) = questions.into_iter().partition(|q| !q.if_redirected);
    let mut lane = Lane { limits, pause, begun: false, again: MOST_AGAIN, answered: false };
    let mut done = lane.ask(now).await;
    let redirected = |q: &Question| {
        let same = |o: &Question| (o.p, o.d, &o.visitor.host) == (q.p, q.d, &q.visitor.host);
        done.iter().any(|(o, told)| same(o) && told.visit.as_ref().is_some_and(Visit::is_redirected))
    };
    let later = later.into_iter().filter(redirected).collect();
    done.extend(lane.ask(later).await);
    let by_name = done.iter().filter_map(|(question, told)| question.by_name(told.visit.as_ref()?)).collect();
    done.extend(lane.ask(by_name).await);
    done
}

/// The questions to one address.
struct Lane {
    limits: Arc<Limits>,
    pause: Duration,
    /// Whether anything was asked.
    begun: bool,
    /// How often something may still be asked for again.
    again: usize,
    /// Whether anything was answered well.
    answered: bool,
}

impl Lane {
    async fn ask(&mut self, questions: Vec<Question>) -> Vec<(Question, Told)> {
        let (mut done, mut slow) = (Vec::new(), Vec::new());
        for question in questions {
            if std::mem::replace(&mut self.begun, true) {
                sleep(self.pause).await;
            }
            let visitor = Visitor { pause: self.pause, ..question.visitor.clone() };
            let mut visiting = tokio::spawn(visitor.clone().visit());
            let step = if slow.len() < MOST_SLOW { STEP } else { self.pause };
            match timeout(step, &mut visiting).await {
                Ok(visit) => {
                    let told = self.told(visit.ok().flatten(), visitor).await;
                    done.push((question, told));
                }
                Err(_) => slow.push((question, visiting)),
            }
        }
        for (question, visiting) in slow {
            // What takes its time is no limit's answer.
            let visit = visiting.await.ok().flatten();
            done.push((question, Told { visit, met: None }));
        }
        done
    }

    /// What a visit comes to, after it was made once more where a limit may have refused it.
    async fn told(&mut self, visit: Option<Visit>, visitor: Visitor) -> Told {
        let Some(first) = visit else { return Told::default() };
        let mut second = None;
        if self.again > 0 && self.limits.asks_again(&first, self.answered) {
            self.again -= 1;
            sleep(SECOND.max(self.pause)).await;
            second = visitor.visit().await;
        }
        let last = second.as_ref().unwrap_or(&first);
        let by = self.limits.behind(last).cloned();
        let changed = is_well(last) && !is_well(&first);
        self.answered |= is_well(last) && by.is_none();
        if by.is_none() && !changed {
            return Told { visit: second.or(Some(first)), met: None };
        }
        let visit = if by.is_none() { second.clone() } else { None };
        let by = by.or_else(|| self.limits.behind(&first).cloned());
        // The port is filled in where it is known.
        Told { visit, met: Some(Limited { port: 0, first, second, changed, by }) }
    }
}

/// Who comes to a door: a visitor of each site. Under Flexible those of `https://` come by plain HTTP too; where the mode
/// isn't known, both kinds are tried, the latter only where there is a redirect.
fn visitors(cx: &Context<'_>, door: SocketAddr, plain: bool) -> Vec<(Visitor, bool)> {
    let bare = match door.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let sites: Vec<String> = if cx.ask.hosts.is_empty() { vec![bare] } else { cx.ask.hosts.clone() };
    let tls = HTTPS_PORTS.contains(&door.port());
    let schemes: &[Scheme] = match (cx.ask.mode, door.port()) {
        // CLOUDFLARE.md, "Encryption modes": the other HTTPS ports fall back to Full.
        (Mode::Flexible, 443) => &[],
        (Mode::Flexible, 80) => &[Scheme::Https],
        (Mode::Unknown, 80) => &[Scheme::Http, Scheme::Https],
        _ if tls => &[Scheme::Https],
        (_, port) if HTTP_PORTS.contains(&port) => &[Scheme::Http],
        _ => &[],
    };
    let pairs = sites.iter().take(SITES).flat_map(|host| schemes.iter().map(move |s| (host, *s)));
    let visitor = |(host, scheme): (&String, Scheme)| {
        let (host, sites, pause) = (host.clone(), sites.clone(), Duration::ZERO);
        let visitor =
            Visitor { door, host, scheme, sites, tls, plain, pause, path: "/".to_owned(), patience: PATIENCE };
        (visitor, schemes.len() > 1 && scheme == Scheme::Https)
    };
    pairs.map(visitor).collect()
}

/// Looks which doors' connections a rule sends on: to a container, to another port, or to where nothing listens.
fn follow_rules(cx: &Context<'_>, ports: &mut [Port]) -> Result<()> {
    let at: BTreeSet<IpAddr> = ports.iter().flat_map(|p| &p.doors).map(|d| d.ip).collect();
    let want = Desired {
        prefixes: cx.edge.clone(),
        ports: ports.iter().map(|p| p.number).collect(),
        protocols: [Protocol::Tcp].into(),
    };
    let all = cx.session.sent_on(&want, &Vec::from_iter(at)).unwrap_or_default();
    let others: BTreeSet<SocketAddr> = all.iter().filter_map(|sent| beside(cx, sent)).collect();
    let dead = wait(dead(others))?;
    for port in ports {
        for door in &mut port.doors {
            let Some(sent) = all.iter().find(|s| s.from == SocketAddr::new(door.ip, port.number)) else { continue };
            let end = beside(cx, sent).and_then(|to| dead.get(&to).copied());
            match (&door.way, end, ends_nowhere(cx, sent)) {
                (_, Some(dead), _) => door.way = Way::Astray(Box::new(sent.clone()), dead),
                (Way::Socket, None, true) => door.way = Way::Astray(Box::new(sent.clone()), Dead::Refuses),
                (Way::Nothing, None, false) => door.way = Way::SentOn(Some(sent.words.clone())),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Where a rule sends to a container or a machine beside this one, which may be asked straight.
fn beside(cx: &Context<'_>, sent: &SentOn) -> Option<SocketAddr> {
    let to = sent.to.filter(|to| cx.links.iter().flat_map(|l| &l.addresses).all(|a| a.ip != *to))?;
    let is_private = match to {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    };
    is_private.then(|| SocketAddr::new(to, sent.port))
}

/// Which of these take no connection.
async fn dead(others: BTreeSet<SocketAddr>) -> BTreeMap<SocketAddr, Dead> {
    let ends = elsewhere::knock(others, ARP).await.into_iter().filter_map(|(to, end)| match end {
        Far::Refused => Some((to, Dead::Refuses)),
        Far::NoRoute => Some((to, Dead::Gone)),
        Far::Silent => Some((to, Dead::Silent)),
        Far::Open | Far::Failed(_) => None,
    });
    ends.collect()
}

/// Whether they are sent to a port of this host where nothing listens.
fn ends_nowhere(cx: &Context<'_>, sent: &SentOn) -> bool {
    let mut own = cx.links.iter().flat_map(|l| &l.addresses).map(|a| a.ip);
    match sent.to {
        Some(to) => own.any(|ip| ip == to) && cx.listening(to, sent.port).is_empty(),
        // To the address of the interface by which they came in, whichever that is.
        None => {
            let is_like = |ip: &IpAddr| ip.is_ipv4() == sent.from.is_ipv4() && !ip.is_loopback();
            own.filter(is_like).all(|ip| cx.listening(ip, sent.port).is_empty())
        }
    }
}
